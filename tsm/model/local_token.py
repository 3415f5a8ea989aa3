"""A local token: an access token that this server signed itself, for whoever administers its machine.

It cannot be revoked, so all there is to tell is that it was made: for whom, with which role and tenant, until when.
Which person of the machine asked for it nobody knows here. The token itself is shown once and kept nowhere.

Stream: `local-token-<id>`.
"""

import re
from datetime import datetime
from typing import ClassVar

from tsm.model.checks import check_name, refusal
from tsm.model.event import Fact

ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class LocalTokenIssued(Fact, frozen=True, kw_only=True):
    """A token was signed, to be shown once."""

    topic: ClassVar[str] = "local_token.issued"
    id: str  # the token's `jti`
    person: str  # its `sub`
    role: str
    tenant: str  # whose eyes and hands its holder has: "operator:MNO00001", "*"
    expires_at: datetime


def stream(id: str) -> str:
    """The token's stream."""
    return f"local-token-{id}"


def issue(issued: LocalTokenIssued, at: datetime) -> list[LocalTokenIssued]:
    """Decide to issue a token. INVALID_INPUT. Whether role and tenant fit each other is the edge's to check."""
    if not ID.fullmatch(issued.id):
        raise refusal("id", "not 32 hex digits")
    check_name(issued.person, "person")
    if issued.expires_at <= at:
        raise refusal("expires_at", "not in the future")
    return [issued]


FACTS: tuple[type[Fact], ...] = (LocalTokenIssued,)
