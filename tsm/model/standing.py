"""A card's standing: what is suspected of it, what people said to that, and what it leads to.

What is suspicious follows from the set of signals (`tsm.model.detection`). Here is what was made of it, when, with what
was known then: each suspicion raised or withdrawn, with the positions of its evidence; acknowledged, escalated, closed,
released by a person; and the level that results, which is what sessions, certificates and card operations go by.

A release says: at that time somebody made sure that the card is where it belongs. So it settles every suspicion that
began at or before it, also one that turns up late, but none of the level REVOKE.

Stream: `standing-<iccid>`.
"""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from tsm.model.event import Fact


class Proof(StrEnum):
    """On what a release rests."""

    MY_NUMBER_CARD = "MY_NUMBER_CARD"  # the holder signed with it
    CLERK = "CLERK"  # a clerk saw the holder and her papers
    OPERATOR = "OPERATOR"  # the operator made sure


class Verdict(StrEnum):
    """What it turned out to be."""

    FALSE_ALARM = "FALSE_ALARM"
    CONFIRMED = "CONFIRMED"


class SuspicionRaised(Fact, frozen=True, kw_only=True):
    """A rule applied to what is known of the card."""

    topic: ClassVar[str] = "standing.suspicion_raised"
    suspicion: str  # 16 octets hex, of rule and evidence: the same whatever the order in which that came
    rule: str
    condition: str  # a swap_policy.Condition
    level: int  # a swap_policy.Level
    policy: int  # version
    since: datetime  # when it began, over occurred time
    until: datetime | None = None  # when it ends by itself
    evidence: tuple[int, ...]  # positions of the signals, ascending; 0 never


class SuspicionWithdrawn(Fact, frozen=True, kw_only=True):
    """By what is known now it does not apply (any more): explained, overtaken by a late signal, or its time is over."""

    topic: ClassVar[str] = "standing.suspicion_withdrawn"
    suspicion: str


class SuspicionAcknowledged(Fact, frozen=True, kw_only=True):
    """A person has seen it; who, and why, is in the context."""

    topic: ClassVar[str] = "standing.suspicion_acknowledged"
    suspicion: str


class SuspicionEscalated(Fact, frozen=True, kw_only=True):
    """A person takes it more seriously than its rule."""

    topic: ClassVar[str] = "standing.suspicion_escalated"
    suspicion: str
    level: int


class SuspicionClosed(Fact, frozen=True, kw_only=True):
    """A person says what it was. FALSE_ALARM ends it; a CONFIRMED one of the level REVOKE waits for nothing more."""

    topic: ClassVar[str] = "standing.suspicion_closed"
    suspicion: str
    verdict: str  # a Verdict


class CardCleared(Fact, frozen=True, kw_only=True):
    """Released: at this time the card was where it belongs. The event's `occurred_at` is when."""

    topic: ClassVar[str] = "standing.card_cleared"
    proof: str  # a Proof
    document_sha256: str = ""  # of what the holder signed, hex


class LevelChanged(Fact, frozen=True, kw_only=True):
    """What follows from all that is open, from now on."""

    topic: ClassVar[str] = "standing.level_changed"
    level: int
    revoke_from: datetime | None = None  # of the level REVOKE: when the settle window is over; at once when confirmed


FACTS: tuple[type[Fact], ...] = (
    SuspicionRaised,
    SuspicionWithdrawn,
    SuspicionAcknowledged,
    SuspicionEscalated,
    SuspicionClosed,
    CardCleared,
    LevelChanged,
)


def stream(iccid: str) -> str:
    """The stream of a card's standing."""
    return f"standing-{iccid}"
