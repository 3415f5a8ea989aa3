"""A service token: what a program of a party shows instead of a client certificate or of a person's token.

The token itself is `tsm_<id>_<secret>`, shown once, to whoever asked for it. The log knows the id, the SHA-256 of the
secret (256 random bits, so nobody can try them out), what its holder may be, and until when. A revoked token is nobody
from that commit on, for every use of one asks the log.

Stream: `service-token-<id>`.
"""

import re
from datetime import datetime
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.checks import SHA256_OCTETS, check_hex, check_text, refusal
from tsm.model.event import Fact

ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


class ServiceTokenIssued(Fact, frozen=True, kw_only=True):
    """A token was made and shown, once."""

    topic: ClassVar[str] = "service_token.issued"
    id: str
    name: str  # what it is for
    sha256: str  # of the secret, hex
    role: str
    tenant: str  # whose eyes and hands its holder has: "operator:MNO00001", "*"
    expires_at: datetime


class ServiceTokenRevoked(Fact, frozen=True, kw_only=True):
    """The token opens nothing any more."""

    topic: ClassVar[str] = "service_token.revoked"
    id: str


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """The token as its facts say."""

    id: str
    name: str
    sha256: str
    role: str
    tenant: str
    expires_at: datetime
    revoked: bool = False

    def is_good(self, at: datetime) -> bool:
        """Whether it opens anything at that time."""
        return not self.revoked and at < self.expires_at


def stream(id: str) -> str:
    """The token's stream."""
    return f"service-token-{id}"


def issue(state: ServiceToken | None, issued: ServiceTokenIssued, at: datetime) -> list[Fact]:
    """Decide to issue a token. INVALID_INPUT; ALREADY_EXISTS when this id was drawn before: draw another.

    Whether role and tenant fit each other is the edge's to check, which knows the roles.
    """
    if not ID.fullmatch(issued.id):
        raise refusal("id", "not 16 hex digits")
    check_text(issued.name, "name")
    check_hex(issued.sha256, "sha256", SHA256_OCTETS)
    if issued.expires_at <= at:
        raise refusal("expires_at", "not in the future")
    if state is not None:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"service token {issued.id}")
    return [issued]


def revoke(state: ServiceToken | None) -> list[Fact]:
    """Decide to revoke a token; once more is no news. NOT_FOUND for one that was never issued."""
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such service token")
    return [] if state.revoked else [ServiceTokenRevoked(id=state.id)]


def evolve(state: ServiceToken | None, fact: Fact) -> ServiceToken:
    """Fold one fact."""
    if isinstance(fact, ServiceTokenIssued):
        return ServiceToken(**msgspec.structs.asdict(fact))
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a service token begins with its issue")
    return msgspec.structs.replace(state, revoked=True) if isinstance(fact, ServiceTokenRevoked) else state


FACTS: tuple[type[Fact], ...] = (ServiceTokenIssued, ServiceTokenRevoked)
