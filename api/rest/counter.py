"""What the terminal at a municipal counter asks of us, with its client certificate.

    POST /counter/challenges     -> {challenge}
    POST /counter/applications   {document, signature, certificate: Base64}
                                 -> {credentialId, slip: {accessCode, password, expiresAt, text}}
    POST /counter/cards/lock     {iccid, call, calledAt} -> {position}; the holder called, `call` names that for ever;
                                 the time is in UTC: 2026-11-21T01:00:00Z
    POST /counter/cards/release  {document, signature, certificate: Base64} -> {position}
    POST /counter/cards/release-by-clerk    {iccid, visit, reason} -> {position}; `visit` names it likewise

A release ends what holds a card (`tsm.flows.card_release`); its document takes a challenge as an application does. The
slip is in the answer and nowhere else, and comes once. An answer UPSTREAM_UNAVAILABLE, REVOCATION_UNKNOWN or CONFLICT
means: send the same again.
"""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access import Caller
from api.errors import request_id
from api.rest.messages import Message, answer, aside, read_message
from tsm.flows.issuance import Counter
from tsm.identifiers import Iccid
from tsm.jpki.application import SignedApplication
from tsm.jpki.release import SignedRelease
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts


class ChallengeAnswer(Message, frozen=True):
    challenge: str


class SignedRequest(Message, frozen=True):
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


class LockRequest(Message, frozen=True):
    iccid: str
    call: str
    called_at: datetime


class ClerkRequest(Message, frozen=True):
    iccid: str
    visit: str
    reason: str


class Recorded(Message, frozen=True):
    position: int


class CounterRoutes:
    """The routes of this module."""

    def __init__(self, parts: "Parts") -> None:
        self._access = parts.access
        self._issuance = parts.issuance
        self._releases = parts.card_releases

    async def challenge(self, request: Request) -> Response:
        caller = self._access.demand(request, "terminal")
        return answer(ChallengeAnswer(self._issuance.challenge(counter_of(caller, request))))

    async def apply(self, request: Request) -> Response:
        """BAD_SIGNATURE, CERTIFICATE_INVALID, _EXPIRED or _REVOKED; WRONG_ORDER for the challenge."""
        caller = self._access.demand(request, "terminal")
        given = await read_message(request, SignedRequest)
        signed = SignedApplication(given.document, given.signature, given.certificate)
        slip = await aside(self._issuance.apply, signed, counter_of(caller, request))
        return answer(
            ApplicationAnswer(
                slip.credential,
                SlipAnswer(slip.code.code, slip.code.password, slip.expires_at.isoformat(), slip.text),
            )
        )

    async def lock(self, request: Request) -> Response:
        """UNKNOWN_CARD; COMMAND_REUSED for another call under this name."""
        caller = self._access.demand(request, "terminal")
        given = await read_message(request, LockRequest)
        lock = partial(self._releases.lock, Iccid(given.iccid), given.call, given.called_at)
        return answer(Recorded(await run(partial(lock, counter_of(caller, request)))))

    async def release(self, request: Request) -> Response:
        """As for an application; FORBIDDEN for another person's My Number card, WRONG_ORDER when nothing is on hold."""
        caller = self._access.demand(request, "terminal")
        given = await read_message(request, SignedRequest)
        signed = SignedRelease(given.document, given.signature, given.certificate)
        return answer(Recorded(await aside(self._releases.release, signed, counter_of(caller, request))))

    async def release_by_clerk(self, request: Request) -> Response:
        """FORBIDDEN in another municipality than that of the application. The same visit again is no news."""
        caller = self._access.demand(request, "terminal")
        given = await read_message(request, ClerkRequest)
        release = partial(self._releases.release_by_clerk, Iccid(given.iccid), given.visit, given.reason)
        return answer(Recorded(await run(partial(release, counter_of(caller, request)))))


def counter_of(caller: Caller, request: Request) -> Counter:
    """A terminal acts for its municipality."""
    return Counter(caller.party, caller.tenant, request_id(request))


def routes(parts: "Parts") -> list[Route]:
    counter = CounterRoutes(parts)
    return [
        Route("/counter/challenges", counter.challenge, methods=["POST"]),
        Route("/counter/applications", counter.apply, methods=["POST"]),
        Route("/counter/cards/lock", counter.lock, methods=["POST"]),
        Route("/counter/cards/release", counter.release, methods=["POST"]),
        Route("/counter/cards/release-by-clerk", counter.release_by_clerk, methods=["POST"]),
    ]
