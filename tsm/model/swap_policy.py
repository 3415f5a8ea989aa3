"""The policy by which signals are judged: a list of rules, each one condition, how grave it is, and for how long.

It is data that a person can read, and every version of it is an event. What a condition means is code
(`tsm.model.detection`); which of them count, within which window, and what they lead to, is said here.

Stream: `swap-policy` (one for the server).
"""

from enum import IntEnum, StrEnum
from typing import ClassVar

import msgspec

from tsm.model.event import Fact


class Level(IntEnum):
    """What a suspicion leads to; each includes the ones before it."""

    NONE = 0
    ALERT = 1  # somebody is told
    HOLD = 2  # sessions are refused, certificates are on hold
    LOCK = 3  # and the applet is locked at the card's next contact
    REVOKE = 4  # and after the settle window, or when a person says so, revoked and deleted; no release


class Condition(StrEnum):
    """What can be suspicious about a card."""

    DEVICE_CHANGED = "DEVICE_CHANGED"  # it moved into another device, and nobody had announced that
    TWO_DEVICES = "TWO_DEVICES"  # it was in one device, another, and the first again, within the window
    IMSI_CHANGED = "IMSI_CHANGED"  # its number got another IMSI, on which card nobody said
    CARD_REPLACED = "CARD_REPLACED"  # its number moved to another card
    OTHER_NUMBER = "OTHER_NUMBER"  # it got another number, and no NUMBER_CHANGED said so
    PORTED_OUT = "PORTED_OUT"
    TERMINATED = "TERMINATED"
    SUSPENDED = "SUSPENDED"  # and not restored since
    RESTRICTED = "RESTRICTED"
    LOST = "LOST"  # and not recovered since
    OWNER_CALLED = "OWNER_CALLED"  # the holder asked for the lock, and not for the unlock since
    FOREIGN_DEVICE = "FOREIGN_DEVICE"  # the credential was used from a device that it was not written in
    WRONG_CARD = "WRONG_CARD"
    COUNTER_JUMPED = "COUNTER_JUMPED"
    WEAK_SIGNALS = "WEAK_SIGNALS"  # indications within the window whose weights add up to the threshold


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One condition, and what it leads to."""

    name: str  # unique in its policy: "card-in-another-device"
    condition: Condition
    level: Level
    within_hours: int | None = None  # the window, of conditions that have one
    lasts_hours: int | None = None  # None: until it is released
    weights: dict[str, int] = {}  # WEAK_SIGNALS: by indication
    threshold: int = 0  # WEAK_SIGNALS


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All rules, and how long a revocation waits for late signals."""

    version: int
    settle_hours: int
    rules: tuple[Rule, ...]


class PolicyAdopted(Fact, frozen=True, kw_only=True):
    """From now on signals are judged by this."""

    topic: ClassVar[str] = "swap_policy.adopted"
    policy: Policy


STREAM = "swap-policy"
FACTS: tuple[type[Fact], ...] = (PolicyAdopted,)
