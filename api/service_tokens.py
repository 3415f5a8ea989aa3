"""Service tokens: opaque bearer tokens that this server issues itself, for programs of a party.

    tsm_5f3a90c41be27d68_<43 characters>     id, and 256 random bits in Base64url

The prefix lets tools that look for leaked secrets find one. Whether a token is good is asked of the log at every use.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from api.tokens import Granted, refused
from tsm.application import Change, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model import service_token
from tsm.model.event import Context
from tsm.model.service_token import ServiceToken, ServiceTokenIssued

PREFIX = "tsm_"
TOKEN = re.compile(r"tsm_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
ID_OCTETS, SECRET_OCTETS = 8, 32
PAGE = 100_000  # positions looked through at a time
TOPICS = [fact.topic for fact in service_token.FACTS]


class Issued(NamedTuple):
    """A new token, which nobody can show again, and its id."""

    token: str
    id: str
    position: int


class ServiceTokens:
    """Issues, revokes and recognises them."""

    def __init__(self, tsm: Tsm) -> None:
        self._tsm = tsm

    def granted(self, token: str) -> Granted:
        """What the token grants. UNAUTHENTICATED when it is not one of ours, expired or revoked."""
        parts = TOKEN.fullmatch(token)
        state = self._state(parts[1]) if parts else None
        if not parts or state is None or not hmac.compare_digest(digest(parts[2]), state.sha256):
            raise refused("that is no service token of this server")
        if not state.is_good(self._tsm.now()):
            raise refused(f"{state.id} that is revoked or has expired")
        name = f"service-token-{state.id}"
        return Granted(state.role, state.tenant, name, f"service-token:{state.id}", state.expires_at)

    def issue(
        self,
        name: str,
        role: str,
        tenant: str,
        expires_at: datetime,
        context: Context,
        random: Callable[[int], bytes],
    ) -> Issued:
        """Make a token. INVALID_INPUT. Role and tenant must fit each other: see `api.access.viewer_of`."""
        id, secret = random(ID_OCTETS).hex(), base64url(random(SECRET_OCTETS))
        issued = ServiceTokenIssued(
            id=id, name=name, sha256=digest(secret), role=role, tenant=tenant, expires_at=expires_at
        )
        now = self._tsm.now()
        facts = service_token.issue(self._state(id), issued, now)
        change = Change(service_token.stream(id), 0, facts)
        return Issued(f"{PREFIX}{id}_{secret}", id, self._tsm.commit(change, context=context, occurred_at=now))

    def revoke(self, id: str, context: Context) -> int:
        """It opens nothing from now on; the log's position. NOT_FOUND. Safe to repeat."""
        stream = service_token.stream(id)
        loaded = self._tsm.load(stream, service_token.evolve)
        change = Change(stream, loaded.version, service_token.revoke(loaded.state))
        return self._tsm.commit(change, context=context, occurred_at=self._tsm.now())

    def one(self, id: str) -> ServiceToken:
        """NOT_FOUND."""
        state = self._state(id)
        if state is None:
            raise TsmError(ErrorCode.NOT_FOUND, "no such service token")
        return state

    def all(self) -> list[ServiceToken]:
        """Every token that was ever issued, in that order. Looks through the whole log."""
        found: dict[str, None] = {}
        position, end = 0, self._tsm.position
        while position < end:
            events, position = self._tsm.page(position, PAGE, TOPICS)
            found.update((event.originator_id.removeprefix("service-token-"), None) for event in events)
        return [state for state in map(self._state, found) if state is not None]

    def _state(self, id: str) -> ServiceToken | None:
        return self._tsm.load(service_token.stream(id), service_token.evolve).state


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
