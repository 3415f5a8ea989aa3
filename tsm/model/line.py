"""A line: what was signalled about a telephone number, and the SIM and the phone behind it.

A signal says that something was so at a time: these identifiers belonged together, this card took the place of that
one, this subscription ended. Signals come from operators, from the common app, from the cards themselves; late, twice,
in any order. So what is recorded is what was said, and whatever follows from it (`tsm.model.bindings`, which SIM and
phone a number had when; `tsm.model.detection`, what is suspicious) is computed from the *set* of signals, in the order
of the times that they claim. The order in which they came in is only told by their positions.

A signal with a number is recorded in the stream of that number; without one, in the stream of its card, a line whose
number nobody told, and also where it changes what is known of the number that has the card. Keyed rows beside the log
lead from number, card, IMSI and device to the streams that name them.

Personal data is sealed under the data key of `subject`, one person's tenure of the number, as far as was known when the
signal came: a recycled number's new holder has another.

Stream: `line-<uuid>`.
"""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, Imei, Imsi, Msisdn
from tsm.model.checks import check_identifier, check_name, refusal
from tsm.model.event import Context, Fact

APP = "app"  # the source that a phone speaks for; it holds no secret, so what it says may raise suspicion, never end it
TENURE = "tenure-"  # what the subject of a tenure begins with
BY_OPERATOR = "operator:"  # what its source begins with
SOURCE = re.compile(rf"{APP}|card|(?:operator|terminal|clerk):[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}", re.ASCII)
INDICATION = re.compile(r"[a-z](?:[a-z-]{0,30}[a-z])?", re.ASCII)  # it stands in the log in plain: no text
AHEAD = timedelta(minutes=5)  # a source's clock may be this much ahead of ours
ANNOUNCED = timedelta(days=31)  # the longest that a change of phones may be announced for: meanwhile none is suspicious


class SignalKind(StrEnum):
    """What a signal says; names of GlobalPlatform System Messaging notifications are mapped to these (`tsm.mno`)."""

    OBSERVED = "OBSERVED"  # these identifiers belong together: attach, provisioning, the common app's report
    SUBSCRIBED = "SUBSCRIBED"  # a new subscription: from now on the number is a new holder's
    PORTED_IN = "PORTED_IN"  # the same, with a number brought along: the holder stays, the SIM does not
    SIM_REPLACED = "SIM_REPLACED"  # the card `previous` is dead, `iccid` took its place (HandleSERenewal)
    NUMBER_CHANGED = "NUMBER_CHANGED"  # the number was `previous`, and is `msisdn` now: same holder, same card
    DEVICE_CHANGED = "DEVICE_CHANGED"  # the card moved into the device `imei` (HandleSEDeviceChanged)
    PORTED_OUT = "PORTED_OUT"
    TERMINATED = "TERMINATED"
    SUSPENDED = "SUSPENDED"
    RESTRICTED = "RESTRICTED"
    RESTORED = "RESTORED"  # ends SUSPENDED and RESTRICTED
    LOST = "LOST"  # card or phone lost or stolen
    RECOVERED = "RECOVERED"  # ends LOST
    LOCK_REQUESTED = "LOCK_REQUESTED"  # the holder called (R-LC-16)
    UNLOCK_REQUESTED = "UNLOCK_REQUESTED"  # ends LOCK_REQUESTED
    MODEL_CHANGE_ANNOUNCED = "MODEL_CHANGE_ANNOUNCED"  # the holder said that she will change phones, until `until`
    CREDENTIAL_WRITTEN = "CREDENTIAL_WRITTEN"  # a credential went into this card in this device
    CREDENTIAL_USED = "CREDENTIAL_USED"  # it was used in this card from this device
    WRONG_CARD = "WRONG_CARD"  # another card answered than the one expected
    COUNTER_JUMPED = "COUNTER_JUMPED"  # the card's sequence counter is not where our sessions left it
    INDICATION = "INDICATION"  # something weak, named by `indication`: "call-forwarding", "night-change" ...


ENDS_TENURE = frozenset({SignalKind.TERMINATED, SignalKind.PORTED_OUT})
ENDS_SUSPICION = frozenset({SignalKind.RESTORED, SignalKind.RECOVERED, SignalKind.UNLOCK_REQUESTED})
HAS_PREVIOUS = frozenset({SignalKind.SIM_REPLACED, SignalKind.NUMBER_CHANGED})
APP_MAY_SAY = frozenset({
    SignalKind.OBSERVED, SignalKind.CREDENTIAL_WRITTEN, SignalKind.CREDENTIAL_USED, SignalKind.WRONG_CARD,
})  # fmt: skip
BEGINS_TENURE = frozenset({SignalKind.SUBSCRIBED, SignalKind.NUMBER_CHANGED})  # of the number `msisdn`


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One signal as its source gave it: `source` and `id` name it for ever, and the same again is no news."""

    id: str  # the source's own, 1 to 64 characters, nothing personal in it
    source: str  # "operator:MNO00001", "app", "card", "terminal:T-13101-01"
    kind: SignalKind
    occurred_at: datetime  # UTC, as the source claims it
    msisdn: str = ""
    imsi: str = ""
    iccid: str = ""
    imei: str = ""
    previous: str = ""  # of SIM_REPLACED the old ICCID, of NUMBER_CHANGED the old MSISDN
    indication: str = ""
    until: datetime | None = None  # of MODEL_CHANGE_ANNOUNCED


class SignalRecorded(Fact, frozen=True, kw_only=True):
    """A source said so; when it happened is the event's `occurred_at`. The last three: what followed for the number."""

    topic: ClassVar[str] = "line.signal_recorded"
    sealed: ClassVar[tuple[str, ...]] = ("msisdn", "imsi", "iccid", "imei", "previous")
    subject: str
    signal: str  # the source's id of it
    source: str
    kind: str  # a SignalKind
    msisdn: str = ""
    imsi: str = ""
    iccid: str = ""
    imei: str = ""
    previous: str = ""
    indication: str = ""
    until: datetime | None = None
    sim_changed_at: datetime | None = None  # the number's latest SIM change, over occurred time, as known now
    device_changed_at: datetime | None = None  # the same of its device; None: never seen in one
    in_service: bool = True  # whether the number has a subscription, as known now
    begins_tenure: bool = False  # from it on the number of this stream is another holder's than before


class SubjectMapped(Fact, frozen=True, kw_only=True):
    """An operator said that an issuer's tokens name this line by some `sub`; which one, only a keyed row knows."""

    topic: ClassVar[str] = "line.subject_mapped"
    issuer: str  # `iss` of the tokens


class TenureErased(Fact, frozen=True, kw_only=True):
    """The data key of one person's tenure is destroyed: what was sealed under it counts for nothing any more."""

    topic: ClassVar[str] = "line.tenure_erased"
    subject: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line, as far as it can be told without personal data."""

    signals: int = 0
    subjects: tuple[str, ...] = ()  # tenures, in the order in which they were heard of
    erased: frozenset[str] = frozenset()  # those that are
    sim_changed_at: datetime | None = None
    device_changed_at: datetime | None = None
    in_service: bool = True


def stream(id: str) -> str:
    """The stream of a line, which has a random id: without the keyed row nobody can tell whose it is."""
    return f"line-{id}"


def check(signal: Signal, context: Context, now: datetime) -> None:
    """INVALID_INPUT for a signal that is not as specified; FORBIDDEN when this source is not the caller's to name."""
    check_name(signal.id, "id")
    if not SOURCE.fullmatch(signal.source):
        raise refusal("source", "neither an operator, a terminal or a municipality's clerks, nor the app or the card")
    if not speaks_for(context, signal.source):
        raise TsmError(ErrorCode.FORBIDDEN, f"{context.actor} does not speak for {signal.source}", ("source",))
    for kind, field in ((Msisdn, "msisdn"), (Imsi, "imsi"), (Iccid, "iccid"), (Imei, "imei")):
        if value := getattr(signal, field):
            check_identifier(kind, value, field)
    if context.role == "phone" and (signal.kind not in APP_MAY_SAY or signal.msisdn):
        raise TsmError(ErrorCode.FORBIDDEN, "a phone tells of its card, and ends nothing", ("kind",))
    for time, field in ((signal.occurred_at, "occurred_at"), (signal.until, "until")):
        if time is not None and time.utcoffset() != timedelta(0):
            raise refusal(field, "not in UTC")
    _check_kind(signal)
    if signal.occurred_at > now + AHEAD:
        raise refusal("occurred_at", "in the future")


def speaks_for(context: Context, source: str) -> bool:
    """Operators, terminals and clerks for theirs, a phone for its app; the server and administrators for anybody."""
    match context.role:
        case "system" | "administrator":
            return True
        case "operator":
            return source == f"{BY_OPERATOR}{context.tenant}"
        case "phone":
            return source == APP
        case "clerk":
            return source in (context.actor, context.actor.partition("/")[0])
        case _:
            return source == context.actor


def _check_kind(signal: Signal) -> None:
    """Each kind has what it speaks of, and nothing that it does not."""
    if not signal.msisdn and not signal.iccid:
        raise refusal("msisdn", "neither a number nor a card")
    match signal.kind:
        case SignalKind.SUBSCRIBED | SignalKind.PORTED_IN | SignalKind.PORTED_OUT if not signal.msisdn:
            raise refusal("msisdn", "which number")
        case SignalKind.SIM_REPLACED:
            if not signal.iccid:
                raise refusal("iccid", "which card")
            check_identifier(Iccid, signal.previous, "previous")
        case SignalKind.NUMBER_CHANGED:
            if not signal.msisdn:
                raise refusal("msisdn", "which number")
            if not signal.iccid:  # or nothing that is told of the new number would reach the card
                raise refusal("iccid", "on which card")
            check_identifier(Msisdn, signal.previous, "previous")
        case SignalKind.INDICATION:
            if not INDICATION.fullmatch(signal.indication):
                raise refusal("indication", "not a word of small letters and hyphens")
        case SignalKind.MODEL_CHANGE_ANNOUNCED:
            if signal.until is None or not timedelta(0) <= signal.until - signal.occurred_at <= ANNOUNCED:
                raise refusal("until", f"an announcement ends after its beginning, within {ANNOUNCED.days} days")
        case _:
            pass
    if signal.previous and (signal.previous in (signal.msisdn, signal.iccid) or signal.kind not in HAS_PREVIOUS):
        raise refusal("previous", "the same, or not of this kind")
    if signal.indication and signal.kind is not SignalKind.INDICATION:
        raise refusal("indication", "not of this kind")
    if signal.until is not None and signal.kind is not SignalKind.MODEL_CHANGE_ANNOUNCED:
        raise refusal("until", "not of this kind")


def evolve(state: Line | None, fact: Fact) -> Line:
    """Fold one fact."""
    state = state or Line()
    match fact:
        case SignalRecorded():
            return Line(
                signals=state.signals + 1,
                subjects=tuple(dict.fromkeys((*state.subjects, fact.subject))),
                erased=state.erased,
                sim_changed_at=fact.sim_changed_at,
                device_changed_at=fact.device_changed_at,
                in_service=fact.in_service,
            )
        case TenureErased():
            return msgspec.structs.replace(state, erased=state.erased | {fact.subject})
        case _:
            return state


FACTS: tuple[type[Fact], ...] = (SignalRecorded, SubjectMapped, TenureErased)
