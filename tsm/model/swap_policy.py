"""The policy by which signals are judged: a list of rules, each one condition, how grave it is, and for how long.

It is data that a person can read, and every version of it is an event. What a condition means is code
(`tsm.model.detection`); which of them count, within which window, and what they lead to, is said here.

Stream: `swap-policy` (one for the server).
"""

import re
from enum import IntEnum, StrEnum
from typing import Any, ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError, within
from tsm.model.checks import check_name, refusal
from tsm.model.event import Fact

WEIGHTS = {  # of indications, as `DEFAULT` has them
    "call-forwarding": 2,  # calls and codes go elsewhere
    "contact-changed": 2,  # e-mail or postal address
    "failed-authentication": 1,  # at the operator's, before a change
    "night-change": 1,
    "proxy": 1,  # somebody else asked for the change
    "remote-channel": 1,  # and not in a shop
}


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
WINDOWED = frozenset({Condition.TWO_DEVICES, Condition.WEAK_SIGNALS})
LONGEST = 24 * 366  # hours
FACTS: tuple[type[Fact], ...] = (PolicyAdopted,)

DEFAULT = Policy(
    version=1,
    settle_hours=24,
    rules=(
        Rule(name="another-device", condition=Condition.DEVICE_CHANGED, level=Level.HOLD),
        Rule(name="two-devices-in-a-day", condition=Condition.TWO_DEVICES, level=Level.HOLD, within_hours=24),
        Rule(name="another-imsi", condition=Condition.IMSI_CHANGED, level=Level.HOLD),
        Rule(name="another-card", condition=Condition.CARD_REPLACED, level=Level.REVOKE),
        Rule(name="ported-out", condition=Condition.PORTED_OUT, level=Level.REVOKE),
        Rule(name="terminated", condition=Condition.TERMINATED, level=Level.REVOKE),
        Rule(name="another-number", condition=Condition.OTHER_NUMBER, level=Level.ALERT, lasts_hours=24),
        Rule(name="suspended", condition=Condition.SUSPENDED, level=Level.HOLD),
        Rule(name="restricted", condition=Condition.RESTRICTED, level=Level.ALERT),
        Rule(name="lost", condition=Condition.LOST, level=Level.LOCK),
        Rule(name="owner-called", condition=Condition.OWNER_CALLED, level=Level.LOCK),
        Rule(name="used-in-a-foreign-device", condition=Condition.FOREIGN_DEVICE, level=Level.HOLD),
        Rule(name="wrong-card", condition=Condition.WRONG_CARD, level=Level.ALERT, lasts_hours=24),
        Rule(name="counter-jumped", condition=Condition.COUNTER_JUMPED, level=Level.HOLD),
        Rule(
            name="weak-signals-in-three-days",
            condition=Condition.WEAK_SIGNALS,
            level=Level.ALERT,
            within_hours=72,
            lasts_hours=72,
            weights=WEIGHTS,
            threshold=3,
        ),
        Rule(
            name="weak-signals-in-ten-days",
            condition=Condition.WEAK_SIGNALS,
            level=Level.HOLD,
            within_hours=240,
            weights=WEIGHTS,
            threshold=6,
        ),
    ),
)


def stream() -> str:
    """The policy's stream: there is one."""
    return STREAM


def adopt(state: Policy | None, policy: Policy) -> list[PolicyAdopted]:
    """Decide that signals are judged by this from now on; the same again is no news.

    INVALID_INPUT names the field; WRONG_ORDER unless its version is the next after the present one.
    """
    check(policy)
    present = state or DEFAULT
    if policy == present:
        return []
    if policy.version != present.version + 1:
        raise TsmError(ErrorCode.WRONG_ORDER, f"version {present.version} is in force", ("version",))
    return [PolicyAdopted(policy=policy)]


def evolve(state: Policy | None, fact: Fact) -> Policy:
    """Fold one fact."""
    return fact.policy if isinstance(fact, PolicyAdopted) else state or DEFAULT


def read_policy(text: bytes) -> Policy:
    """The policy in a JSON document: levels and conditions by their names. INVALID_INPUT names the field."""
    try:
        policy = msgspec.convert(_with_numbers(msgspec.json.decode(text)), Policy)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"not a policy: {error}", _field(str(error))) from None
    check(policy)
    return policy


def check(policy: Policy) -> None:
    """INVALID_INPUT, with the field."""
    if policy.version < 1:
        raise refusal("version", "from 1 on")
    _check_hours(policy.settle_hours, "settle_hours", least=0)
    names = [rule.name for rule in policy.rules]
    for number, rule in enumerate(policy.rules):
        with within("rules", str(number)):
            check_name(rule.name, "name")
            if names.index(rule.name) != number:
                raise refusal("name", "two rules have it")
            _check_rule(rule)


def _with_numbers(document: Any) -> Any:
    """With the levels of its rules as numbers, where they are names."""
    rules = document.get("rules") if isinstance(document, dict) else None
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict) and isinstance(rule.get("level"), str) and rule["level"] in Level.__members__:
            rule["level"] = Level[rule["level"]].value
    return document


def _check_rule(rule: Rule) -> None:
    if (rule.within_hours is not None) != (rule.condition in WINDOWED):
        raise refusal("within_hours", "of the conditions that have a window, and of no other")
    for hours, field in ((rule.within_hours, "within_hours"), (rule.lasts_hours, "lasts_hours")):
        if hours is not None:
            _check_hours(hours, field, least=1)
    weak = rule.condition is Condition.WEAK_SIGNALS
    if bool(rule.weights) != weak or any(weight < 1 for weight in rule.weights.values()):
        raise refusal("weights", "of WEAK_SIGNALS, from 1 on")
    if (rule.threshold > 0) != weak:
        raise refusal("threshold", "of WEAK_SIGNALS, from 1 on")


def _check_hours(hours: int, field: str, least: int) -> None:
    if not least <= hours <= LONGEST:
        raise refusal(field, f"{least} to {LONGEST} hours")


def _field(words: str) -> tuple[str, ...]:
    """Where msgspec says that it is: ``at `$.rules[3].level` ``, or ``field `version` ``."""
    place = re.search(r"`\$((?:\.\w+|\[\d+\]|\[\.\.\.\])+)`", words)
    named = re.search(r"field `(\w+)`", words)
    path = re.findall(r"\w+", place.group(1)) if place else []
    return (*path, *([named.group(1)] if named else []))
