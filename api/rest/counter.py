"""What the terminal at a municipal counter asks of us, with its client certificate.

    POST /counter/challenges     -> {challenge}
    POST /counter/applications   {document, signature, certificate: Base64}
                                 -> {credentialId, slip: {accessCode, password, expiresAt, text}}

The slip is in the answer and nowhere else, and comes once. An answer UPSTREAM_UNAVAILABLE, REVOCATION_UNKNOWN or
CONFLICT means: send the same application again.
"""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access import Caller
from api.errors import request_id
from api.rest.messages import Message, answer, aside, read_message
from tsm.flows.issuance import Counter
from tsm.jpki.application import SignedApplication

if TYPE_CHECKING:
    from api.bootstrap import Parts


class ChallengeAnswer(Message, frozen=True):
    challenge: str


class ApplicationRequest(Message, frozen=True):
    document: bytes
    signature: bytes
    certificate: bytes


class SlipAnswer(Message, frozen=True):
    access_code: str
    password: str
    expires_at: str
    text: str


class ApplicationAnswer(Message, frozen=True):
    credential_id: str
    slip: SlipAnswer


class CounterRoutes:
    """The routes of this module."""

    def __init__(self, parts: "Parts") -> None:
        self._access = parts.access
        self._issuance = parts.issuance

    async def challenge(self, request: Request) -> Response:
        caller = self._access.demand(request, "terminal")
        return answer(ChallengeAnswer(self._issuance.challenge(counter_of(caller, request))))

    async def apply(self, request: Request) -> Response:
        """BAD_SIGNATURE, CERTIFICATE_INVALID, _EXPIRED or _REVOKED; WRONG_ORDER for the challenge."""
        caller = self._access.demand(request, "terminal")
        given = await read_message(request, ApplicationRequest)
        signed = SignedApplication(given.document, given.signature, given.certificate)
        slip = await aside(self._issuance.apply, signed, counter_of(caller, request))
        return answer(
            ApplicationAnswer(
                slip.credential,
                SlipAnswer(slip.code.code, slip.code.password, slip.expires_at.isoformat(), slip.text),
            )
        )


def counter_of(caller: Caller, request: Request) -> Counter:
    """A terminal acts for its municipality."""
    return Counter(caller.party, caller.tenant, request_id(request))


def routes(parts: "Parts") -> list[Route]:
    counter = CounterRoutes(parts)
    return [
        Route("/counter/challenges", counter.challenge, methods=["POST"]),
        Route("/counter/applications", counter.apply, methods=["POST"]),
    ]
