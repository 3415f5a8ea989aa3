"""Whom the provider talks to: the TSM server (SP-TSM, MC-05 interface 2) and the certificate authority."""

from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from api.demo.party import checked, parsed, reaching, telling
from api.demo.provider.keys import ProvisionalKeys, SharedKeys, base64_values
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid
from tsm.jpki.certificates import Kind
from tsm.jpki.key_transport import WrappedKeys
from tsm.mas.messages import DelegationRequest, DelegationResponse
from tsm.mas.status import Status

XML = {"Content-Type": "application/xml"}


class Deployment(msgspec.Struct, frozen=True, rename="camel"):
    """What the operator's side does next with a card for us."""

    done: bool
    step: str = ""
    launch: str | None = None  # launch parameters, signed by the operator


class TransportKey(msgspec.Struct, frozen=True, rename="camel"):
    public_key: bytes


class ProvisionalKeysMessage(msgspec.Struct, frozen=True, rename="camel"):
    key_version: int
    diversification: str
    check_values: tuple[str, ...]
    wrapped: dict[str, bytes]
    correlation: str


class Identified(msgspec.Struct, frozen=True, rename="camel"):
    credential_id: str


class IssuedKeys(msgspec.Struct, frozen=True, rename="camel"):
    """A credential's certificates, and its private keys under our transport key."""

    authentication: bytes  # DER
    signature: bytes
    encrypted_key: bytes
    nonce: bytes
    ciphertext: bytes

    @property
    def wrapped(self) -> WrappedKeys:
        return WrappedKeys(self.encrypted_key, self.nonce, self.ciphertext)


class Peer:
    """Another party over HTTPS: its refusals are raised with their code, its silence as UPSTREAM_UNAVAILABLE."""

    name = ""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self.url = url

    async def _ask(self, what: str, method: str, path: str, **options: Any) -> bytes:
        with telling("provider", self.name, what), reaching():
            response = await self._http.request(method, f"{self.url}{path}", **options)
        return checked(response).content


class TsmClient(Peer):
    """The TSM server, as its service provider meets it."""

    name = "tsm"

    @property
    def mas_url(self) -> str:
        """Where the common app links to (masUrl of interface 1)."""
        return f"{self.url}/mas/link"

    async def deploy(self, iccid: Iccid, return_url: str) -> Deployment:
        what = "asks for the next step of the deployment"
        content = {"iccid": iccid, "returnUrl": return_url}
        return parsed(await self._ask(what, "POST", "/sp-tsm/deployments", json=content), Deployment)

    async def transport_key(self) -> bytes:
        body = await self._ask("fetches its transport key", "GET", "/sp-tsm/transport-key")
        return parsed(body, TransportKey).public_key

    async def provisional_keys(self, iccid: Iccid) -> ProvisionalKeys | None:
        """The keys that our domain has on a card, or None while there is no such domain."""
        what = "asks for its provisional keys on the card"
        try:
            body = await self._ask(what, "GET", f"/sp-tsm/cards/{iccid}/provisional-keys")
        except TsmError as error:
            if error.code in (ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_SECURITY_DOMAIN, ErrorCode.UNKNOWN_KEY):
                return None
            raise
        given = parsed(body, ProvisionalKeysMessage)
        return ProvisionalKeys(
            given.key_version, given.diversification, given.check_values, given.wrapped, given.correlation
        )

    async def share_keys(self, iccid: Iccid, keys: SharedKeys) -> None:
        what = "shares ENC and MAC of its own keys, wrapped"
        content = {
            "keyVersion": keys.key_version,
            "checkValues": keys.check_values,
            "wrapped": base64_values(keys.wrapped),
        }
        await self._ask(what, "POST", f"/sp-tsm/cards/{iccid}/keys", json=content)

    async def check_access_code(self, iccid: Iccid, access_code: str, password: str) -> str:
        """The credential that code and password stand for. ACCESS_CODE_REFUSED, _EXPIRED, _LOCKED."""
        what = "access code and password, as they were typed"
        content = {"accessCode": access_code, "password": password, "iccid": iccid}
        body = await self._ask(what, "POST", "/sp-tsm/access-codes/check", json=content)
        return parsed(body, Identified).credential_id

    async def delegate(self, request: DelegationRequest, iccid: Iccid, correlation: str) -> None:
        """DELEGATE (interface 2). The tables carry no card, so a header does. UPSTREAM_UNAVAILABLE if it is refused."""
        headers = XML | {"Tsm-Card": iccid} | ({"Tsm-Correlation": correlation} if correlation else {})
        what = f"DELEGATE, reception {request.reception}, commands: {len(request.commands)}"
        body = await self._ask(what, "POST", "/mas/delegation", content=request.encode(), headers=headers)
        taken = DelegationResponse.parse(body)
        if taken.status != Status.OK:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"delegation: {taken.status} {taken.error}")


class AuthorityClient(Peer):
    """The certificate authority, as the provider meets it."""

    name = "authority"

    async def certificate(self, kind: Kind) -> bytes:
        """DER of the authority's own certificate."""
        return await self._ask(f"fetches the {kind} CA's certificate", "GET", f"/ca/{kind}.der")

    async def keys(self, credential: str) -> IssuedKeys:
        body = await self._ask("fetches the key pairs, wrapped for it", "GET", f"/credentials/{credential}/keys")
        return parsed(body, IssuedKeys)

    async def written(self, credential: str, certificates: Sequence[str]) -> None:
        """These certificates (SHA-256, hex) stand on the card: the authority destroys its copies of their keys."""
        path = f"/credentials/{credential}/written"
        await self._ask("the credential is written", "POST", path, json={"certificates": certificates})
