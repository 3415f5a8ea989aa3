"""What a service provider's back end asks of us (SP-TSM), with its client certificate.

    POST /sp-tsm/deployments                       {iccid, returnUrl} -> {done, step, launch}
    GET  /sp-tsm/transport-key                     -> {publicKey}: SPKI, RSA, for key sets that are shared with us
    GET  /sp-tsm/cards/{iccid}/provisional-keys    -> {keyVersion, diversification, checkValues, wrapped, label,
                                                       correlation}
    POST /sp-tsm/cards/{iccid}/keys                {keyVersion, checkValues, wrapped: {enc, mac}} -> {checkValues}
    POST /sp-tsm/access-codes/check                {accessCode, password, iccid} -> {credentialId}

`step` is a `DeploymentStep`; `launch` is interface 1's `param`, or null when the step is the provider's own. Wrapped
keys are RSA-OAEP (SHA-256) with the label `<spId>|<iccid>|<domain AID>|<key version, 2 hex digits>`.
"""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.errors import request_id
from api.rest.messages import Message, answer, aside, read_message
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid
from tsm.jpki.access_code import AccessCode
from tsm.model.deployment import DeploymentStep
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts


class DeploymentRequest(Message, frozen=True):
    iccid: str
    return_url: str


class DeploymentAnswer(Message, frozen=True):
    done: bool
    step: str
    launch: str | None


class TransportKey(Message, frozen=True):
    public_key: bytes


class ProvisionalKeysAnswer(Message, frozen=True):
    key_version: int
    diversification: str
    check_values: tuple[str, ...]
    wrapped: dict[str, bytes]
    label: str
    correlation: str  # of the deployment: the provider's own DELEGATE belongs to it


class KeysRequest(Message, frozen=True):
    key_version: int
    check_values: tuple[str, ...]
    wrapped: dict[str, bytes]


class KeysAnswer(Message, frozen=True):
    check_values: tuple[str, ...]


class AccessCodeRequest(Message, frozen=True):
    access_code: str
    password: str
    iccid: str


class AccessCodeAnswer(Message, frozen=True):
    credential_id: str


class ProviderRoutes:
    """The routes of this module."""

    def __init__(self, parts: "Parts") -> None:
        self._access = parts.access
        self._deployments = parts.deployments
        self._keys = parts.domain_keys
        self._issuance = parts.issuance

    async def deploy(self, request: Request) -> Response:
        """FORBIDDEN for a return URL that is not registered, UNKNOWN_CARD, NOT_FOUND without a load file."""
        caller = self._access.demand(request, "provider")
        asked = await read_message(request, DeploymentRequest)
        following = await run(
            self._deployments.deploy, caller.party, Iccid(asked.iccid), asked.return_url, request_id(request)
        )
        launch = following.launch.encode() if following.launch else None
        return answer(DeploymentAnswer(following.step is DeploymentStep.DONE, following.step, launch))

    async def transport_key(self, request: Request) -> Response:
        self._access.demand(request, "provider")
        return answer(TransportKey(self._keys.transport_key()))

    async def provisional_keys(self, request: Request) -> Response:
        """UNKNOWN_SECURITY_DOMAIN before the domain exists, UNKNOWN_KEY once its provisional keys are replaced."""
        caller = self._access.demand(request, "provider")
        keys = await aside(self._keys.provisional, caller.party, iccid_of(request), request_id(request))
        return answer(
            ProvisionalKeysAnswer(
                keys.key_version,
                keys.diversification,
                keys.check_values,
                keys.wrapped,
                keys.label.decode(),
                keys.correlation,
            )
        )

    async def share_keys(self, request: Request) -> Response:
        """KEY_REFUSED for keys that are not what their check values say, INVALID_INPUT for the provisional version.

        Shared again, they replace those of the same version: ALREADY_EXISTS once the card has acknowledged these.
        """
        caller = self._access.demand(request, "provider")
        given = await read_message(request, KeysRequest)
        if set(given.wrapped) != {"enc", "mac"}:
            raise TsmError(ErrorCode.INVALID_INPUT, "wrapped: enc and mac; the DEK stays with its owner")
        await aside(
            self._keys.take,
            caller.party,
            iccid_of(request),
            given.key_version,
            given.check_values,
            given.wrapped,
            request_id(request),
        )
        return answer(KeysAnswer(given.check_values))

    async def check_access_code(self, request: Request) -> Response:
        """ACCESS_CODE_REFUSED, ACCESS_CODE_LOCKED, ACCESS_CODE_EXPIRED; CERTIFICATE_REVOKED for the main certificate;
        WRONG_ORDER once the credential is written. UPSTREAM_UNAVAILABLE, REVOCATION_UNKNOWN: repeat, no try is lost."""
        caller = self._access.demand(request, "provider")
        given = await read_message(request, AccessCodeRequest)
        typed = AccessCode.typed(given.access_code, given.password)
        credential = await aside(
            self._issuance.check_access_code, caller.party, given.iccid, typed, request_id(request)
        )
        return answer(AccessCodeAnswer(credential))


def iccid_of(request: Request) -> Iccid:
    return Iccid(request.path_params["iccid"])


def routes(parts: "Parts") -> list[Route]:
    provider = ProviderRoutes(parts)
    return [
        Route("/sp-tsm/deployments", provider.deploy, methods=["POST"]),
        Route("/sp-tsm/transport-key", provider.transport_key, methods=["GET"]),
        Route("/sp-tsm/cards/{iccid}/provisional-keys", provider.provisional_keys, methods=["GET"]),
        Route("/sp-tsm/cards/{iccid}/keys", provider.share_keys, methods=["POST"]),
        Route("/sp-tsm/access-codes/check", provider.check_access_code, methods=["POST"]),
    ]
