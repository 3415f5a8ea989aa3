"""A subscription: a relying party wants to be told when the SIM behind one telephone number changes.

What it has to be told is decided here, as facts, and sent later (`tsm.flows.swap_notices`): each swap, at most
`max_events` of them, and that the subscription ended. A notification has a name, the position of the signal that told
of the swap or `ENDED`, so it is the same one however often it is decided or sent. How its sending ended is one fact.

The secret with which a sink wants to be addressed, and whose token made the subscription, are never in an event: they
lie sealed beside the log and go when there is nothing left to send. The number is sealed under the data key of its
holder's tenure, and only there where the relying party named it; whoever came with a token of its holder is not told
it.

Stream: `subscription-<uuid>`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Msisdn
from tsm.model.checks import check_https, check_identifier, check_text, refusal
from tsm.model.event import Fact

NOTICE = timedelta(minutes=1)  # a subscription ends so long before its credential does, so that this can still be told
LONGEST_SINK = 2048  # characters
ENDED = "ended"  # the name of the last notification


class Reason(StrEnum):
    """Why a subscription ended, as CAMARA names it."""

    MAX_EVENTS_REACHED = "MAX_EVENTS_REACHED"
    NETWORK_TERMINATED = "NETWORK_TERMINATED"
    SUBSCRIPTION_EXPIRED = "SUBSCRIPTION_EXPIRED"
    ACCESS_TOKEN_EXPIRED = "ACCESS_TOKEN_EXPIRED"  # noqa: S105  no token, but its end
    SUBSCRIPTION_DELETED = "SUBSCRIPTION_DELETED"


class SubscriptionCreated(Fact, frozen=True, kw_only=True):
    """A relying party subscribed to the swaps of a line."""

    topic: ClassVar[str] = "subscription.created"
    sealed: ClassVar[tuple[str, ...]] = ("msisdn",)
    subject: str  # the holder's tenure of the number
    client: str  # "<issuer>|<client_id>"
    line: str  # its stream
    sink: str
    purpose: str
    msisdn: str = ""  # as the relying party named it; empty when the holder's token did
    max_events: int = 0  # 0: as many as there are
    ends_at: datetime | None = None  # as the relying party wished
    credential_ends_at: datetime | None = None  # of the sink's; None: it has none


class SwapNoted(Fact, frozen=True, kw_only=True):
    """The relying party is to be told that the SIM changed: so it is, from here on, one of those who know."""

    topic: ClassVar[str] = "subscription.swap_noted"
    subject: str
    swap: int  # position of the signal that told of it
    changed_at: datetime


class SubscriptionEnded(Fact, frozen=True, kw_only=True):
    """No further swap is noted."""

    topic: ClassVar[str] = "subscription.ended"
    reason: str  # a Reason
    detail: str = ""
    quiet: bool = False  # nothing is sent any more: the sink would not take it, or is to be told nothing


class SinkNotified(Fact, frozen=True, kw_only=True):
    """A notification came to its end: the sink took it, or it was given up."""

    topic: ClassVar[str] = "subscription.notified"
    notification: str  # its name
    acknowledged: bool
    attempts: int
    outcome: str  # of the last attempt: "HTTP 204", "ReadTimeout"; or "not sent"


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """The subscription as its facts say."""

    created: SubscriptionCreated
    noted: int = 0  # swaps
    last: int = 0  # position of the last one
    waiting: tuple[str, ...] = ()  # names of what the sink has still to be told, in order
    ended: SubscriptionEnded | None = None


def stream(id: str) -> str:
    """The stream of a subscription."""
    return f"subscription-{id}"


def create(created: SubscriptionCreated, now: datetime) -> list[Fact]:
    """Decide to create it. INVALID_INPUT, with the field that is wrong."""
    check_text(created.client, "client")
    check_text(created.purpose, "purpose")
    check_https(created.sink, "sink")
    if len(created.sink) > LONGEST_SINK:
        raise refusal("sink", "too long")
    if created.msisdn:
        check_identifier(Msisdn, created.msisdn, "msisdn")
    if created.max_events < 0:
        raise refusal("max_events", "less than none")
    if created.ends_at is not None and created.ends_at <= now:
        raise refusal("ends_at", "not in the future")
    if created.credential_ends_at is not None and created.credential_ends_at <= now + NOTICE:
        raise refusal("credential_ends_at", "over, or about to be")
    return [created]


def note_swap(state: Subscription, swap: int, changed_at: datetime) -> list[Fact]:
    """Decide to tell of a swap; the last one that was wished for ends it. No news: noted before, or it ended."""
    if state.ended is not None or swap <= state.last:
        return []
    noted = SwapNoted(subject=state.created.subject, swap=swap, changed_at=changed_at)
    if state.noted + 1 == state.created.max_events:
        return [noted, SubscriptionEnded(reason=Reason.MAX_EVENTS_REACHED)]
    return [noted]


def end(state: Subscription, reason: Reason, detail: str = "", *, quiet: bool = False) -> list[Fact]:
    """Decide to end it; no news when it ended."""
    return [] if state.ended is not None else [SubscriptionEnded(reason=reason, detail=detail, quiet=quiet)]


def notify(state: Subscription, name: str, acknowledged: bool, attempts: int, outcome: str) -> list[Fact]:
    """Decide how the sending of a notification ended; no news when it is known."""
    if name not in state.waiting:
        return []
    return [SinkNotified(notification=name, acknowledged=acknowledged, attempts=attempts, outcome=outcome)]


def deadline(created: SubscriptionCreated) -> tuple[datetime, Reason] | None:
    """When it ends by itself, and why; None: never."""
    ends = []
    if created.ends_at is not None:
        ends.append((created.ends_at, Reason.SUBSCRIPTION_EXPIRED))
    if created.credential_ends_at is not None:
        ends.append((created.credential_ends_at - NOTICE, Reason.ACCESS_TOKEN_EXPIRED))
    return min(ends, default=None)


def is_over(state: Subscription, facts: Sequence[Fact] = ()) -> bool:
    """Whether, after these facts, it has ended and nothing is left to be sent."""
    for fact in facts:
        state = evolve(state, fact)
    return state.ended is not None and not state.waiting


def evolve(state: Subscription | None, fact: Fact) -> Subscription:
    """Fold one fact."""
    if isinstance(fact, SubscriptionCreated):
        return Subscription(created=fact)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a subscription begins with its creation")
    replace = msgspec.structs.replace
    match fact:
        case SwapNoted(swap=swap):
            return replace(state, noted=state.noted + 1, last=swap, waiting=(*state.waiting, str(swap)))
        case SubscriptionEnded(quiet=quiet):
            return replace(state, ended=fact, waiting=() if quiet else (*state.waiting, ENDED))
        case SinkNotified(notification=name):
            return replace(state, waiting=tuple(one for one in state.waiting if one != name))
        case _:
            return state


FACTS: tuple[type[Fact], ...] = (SubscriptionCreated, SwapNoted, SubscriptionEnded, SinkNotified)
