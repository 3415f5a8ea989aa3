"""Detection: what is suspicious about a card, by a policy, as far as its signals are known.

A pure function of the set of signals: what came late or twice changes nothing but what was known meanwhile. Only its
own operator, counter terminals, the card itself and the common app can bring a card under suspicion, or explain one
away: or else any operator could have the customers of another revoked, by saying of their numbers whatever it likes.

Each condition of `tsm.model.swap_policy` is a function here that finds cases: the signals that make the case (they name
it for ever), those that explain it to a reader, and the time at which it began.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from tsm.model.bindings import BINDS, Known, Step, about_cards, by_number, moment, ordered, steps
from tsm.model.line import APP, BY_OPERATOR, Signal, SignalKind
from tsm.model.swap_policy import Condition, Level, Policy, Rule

__all__ = ["Finding", "Known", "assess"]

OCTETS = 16  # of a suspicion's name


class Finding(NamedTuple):
    """A rule that applies."""

    suspicion: str  # 16 octets hex, of card, rule and the signals that make the case
    rule: str
    condition: Condition
    level: Level
    since: datetime
    until: datetime | None
    evidence: tuple[int, ...]  # positions, ascending
    revoke_from: datetime | None  # of the level REVOKE: the settle window after the record of the last evidence


class Case(NamedTuple):
    """A condition that is met."""

    since: datetime
    made_by: tuple[Known, ...]
    explained_by: tuple[Known, ...] = ()


class Card(NamedTuple):
    """A card, and what is known around it."""

    iccid: str
    known: Sequence[Known]  # all, in order
    own: Sequence[Known]  # what is about this card, in order
    numbers: dict[str, list[Step]]  # of all numbers
    announced: Sequence[Signal]  # changes of phones that the holder said she would make


class Stay(NamedTuple):
    """The card was seen in a device, and in no other between."""

    imei: str  # empty: another device than before, and nobody told which
    first: Known
    last: Known
    named: str  # the same, but where a phone alone told which: it could say the one that was announced
    claimed: bool  # by the phone in it, and by nobody else so far


def assess(iccid: str, known: Iterable[Known], policy: Policy, operator: str) -> tuple[Finding, ...]:
    """What the policy finds suspicious about that operator's card, in the order of its beginning."""
    everything = [one for one in ordered(known) if _counts(one.signal, operator)]
    own = [one for one, card in about_cards(everything) if card == iccid]
    numbers = {number: steps(number, about) for number, about in by_number(everything).items()}
    announced = [one.signal for one in own if one.signal.kind is SignalKind.MODEL_CHANGE_ANNOUNCED]
    card = Card(iccid, everything, own, numbers, announced)
    findings = {
        finding.suspicion: finding
        for rule in policy.rules
        for case in CONDITIONS[rule.condition](card, rule)
        for finding in [_finding(iccid, rule, case, policy)]
    }
    return tuple(sorted(findings.values(), key=lambda finding: (finding.since, finding.suspicion)))


def _counts(signal: Signal, operator: str) -> bool:
    return not signal.source.startswith(BY_OPERATOR) or signal.source == f"{BY_OPERATOR}{operator}"


def _finding(iccid: str, rule: Rule, case: Case, policy: Policy) -> Finding:
    evidence = (*case.made_by, *case.explained_by)
    names = [f"{one.signal.source} {one.signal.id}" for one in case.made_by]
    settled = max(one.recorded_at for one in evidence) + timedelta(hours=policy.settle_hours)
    return Finding(
        suspicion=sha256("\n".join([iccid, rule.name, *names]).encode()).hexdigest()[: 2 * OCTETS],
        rule=rule.name,
        condition=rule.condition,
        level=rule.level,
        since=case.since,
        until=None if rule.lasts_hours is None else case.since + timedelta(hours=rule.lasts_hours),
        evidence=tuple(sorted({one.position for one in evidence})),
        revoke_from=settled if rule.level is Level.REVOKE else None,
    )


# Devices


def _device_changed(card: Card, rule: Rule) -> list[Case]:
    found = []
    stays = _stays(card)
    for number, stay in enumerate(stays):
        moved = number > 0 or stay.first.signal.kind is SignalKind.DEVICE_CHANGED
        if moved and not _is_announced(card, stay):
            at = stay.first.signal.occurred_at
            found.append(Case(at, (stay.first,), tuple(before.last for before in stays[max(0, number - 1) : number])))
    return found


def _two_devices(card: Card, rule: Rule) -> list[Case]:
    """Moves to and fro are a case when one of them at least was not announced."""
    found = []
    stays = _stays(card)
    seen: dict[str, int] = {}  # the latest stay in each device, but for the one just before
    for number, back in enumerate(stays):
        if number > 1:
            seen[stays[number - 2].imei] = number - 2
        left = seen.get(back.imei) if back.imei else None
        if left is None or _age(stays[left].last, back.first) > _window(rule):
            continue
        if not all(_is_announced(card, stay) for stay in stays[left + 1 : number + 1]):
            between = tuple(stay.first for stay in stays[left + 1 : number])
            found.append(Case(back.first.signal.occurred_at, (back.first,), (stays[left].last, *between)))
    return found


def _foreign_device(card: Card, rule: Rule) -> list[Case]:
    """Once for each device that the credential was not written in; from when on the card was seen there.

    Where only the phone tells which device it is, from when on it did: a release before that does not speak of it. But
    a change was announced, or not, for the time at which the card moved.
    """
    written: Known | None = None
    found: dict[tuple[str, str], tuple[Case, datetime]] = {}
    stays = _stays(card)
    for one in card.own:
        signal = one.signal
        if signal.kind is SignalKind.CREDENTIAL_WRITTEN and signal.imei:
            written = one
        elif signal.kind is SignalKind.CREDENTIAL_USED and signal.imei and written is not None:
            place = (written.signal.imei, signal.imei)
            if signal.imei != written.signal.imei and place not in found:
                stay, seen = _stay_in(stays, signal.imei, written), _seen_in(card, signal.imei, written)
                moved = _later(stay.first, written) if stay is not None else signal.occurred_at
                since = moved if stay is not None and stay.named else seen or signal.occurred_at
                found[place] = Case(min(since, signal.occurred_at), (one,), (written,)), min(moved, signal.occurred_at)
    return [case for (_, imei), (case, moved) in found.items() if not _announced(card, imei, moved)]


def _stays(card: Card) -> list[Stay]:
    """That it moved is always news, but for the device that others than the phone in it have named already."""
    stays: list[Stay] = []
    for one in card.own:
        signal = one.signal
        moves, by_phone = signal.kind is SignalKind.DEVICE_CHANGED, signal.source == APP
        if signal.kind not in BINDS or not (signal.imei or moves):
            continue
        last, named = stays[-1] if stays else None, "" if by_phone else signal.imei
        if last is not None and last.imei == signal.imei != "" and not (moves and last.claimed):
            stays[-1] = last._replace(last=one, named=last.named or named, claimed=last.claimed and by_phone)
        elif last is not None and last.imei == "" and not moves:  # now somebody told which
            stays[-1] = Stay(signal.imei, last.first, one, named, claimed=by_phone)
        else:
            stays.append(Stay(signal.imei, one, one, signal.imei, claimed=by_phone))
    return stays


def _is_announced(card: Card, stay: Stay) -> bool:
    """Whether the move that the stay began with was."""
    return _announced(card, stay.named, stay.first.signal.occurred_at)


def _announced(card: Card, imei: str, at: datetime) -> bool:
    """Whether the holder said that she would change phones then; however late it came.

    Where she named the phone, that is about moves into it alone, and not about one back into the phone she came from.
    """
    return any(
        one.until is not None and one.occurred_at <= at <= one.until and one.imei in ("", imei)
        for one in card.announced
    )


def _stay_in(stays: Sequence[Stay], imei: str, after: Known) -> Stay | None:
    """The first in that device that lasts beyond some signal."""
    return next((s for s in stays if s.imei == imei and moment(s.last.signal) > moment(after.signal)), None)


def _seen_in(card: Card, imei: str, after: Known) -> datetime | None:
    """When the card was first seen in that device, after some signal."""
    times = (
        one.signal.occurred_at
        for one in card.own
        if one.signal.kind in BINDS and one.signal.imei == imei and moment(one.signal) > moment(after.signal)
    )
    return next(times, None)


def _later(one: Known, other: Known) -> datetime:
    return max(one.signal.occurred_at, other.signal.occurred_at)


# Numbers and SIMs


def _imsi_changed(card: Card, rule: Rule) -> list[Case]:
    """Where the card of the other IMSI is told, be it later, it is another condition, or none."""
    found = []
    for number in card.numbers.values():
        last: Known | None = None  # that had the number on this card
        for step in number:
            if last is not None and _is_imsi_change(step):
                found.append(Case(step.known.signal.occurred_at, (step.known,), (last,)))
            last = step.known if step.after is not None and step.after.iccid == card.iccid else None
    return found


def _card_replaced(card: Card, rule: Rule) -> list[Case]:
    """Once for each card that took its place: by the first signal that says so."""
    told: dict[str, Case] = {}
    for one in card.known:
        if one.signal.kind is SignalKind.SIM_REPLACED and one.signal.previous == card.iccid:
            told.setdefault(one.signal.iccid, Case(one.signal.occurred_at, (one,)))
    for number in card.numbers.values():
        for left, step in _departures(card.iccid, number):
            if step.after is not None and step.after.iccid and step.known.signal.kind is not SignalKind.SUBSCRIBED:
                case = Case(step.known.signal.occurred_at, (step.known,), (left,))
                other = told.get(step.after.iccid)
                if other is None or moment(step.known.signal) < moment(other.made_by[0].signal):
                    told[step.after.iccid] = case
    return list(told.values())


def _terminated(card: Card, rule: Rule) -> list[Case]:
    """It was said, or the number has a new subscription on another card."""
    found = _told(SignalKind.TERMINATED)(card, rule)
    for number in card.numbers.values():
        for left, step in _departures(card.iccid, number):
            if step.known.signal.kind is SignalKind.SUBSCRIBED:
                found.append(Case(step.known.signal.occurred_at, (step.known,), (left,)))
    return found


def _other_number(card: Card, rule: Rule) -> list[Case]:
    """Once for each number after the first that no change of number leads to."""
    changes = {
        (one.signal.previous, one.signal.msisdn) for one in card.known if one.signal.kind is SignalKind.NUMBER_CHANGED
    }
    explained: set[str] = set()
    had: list[Known] = []
    found = []
    for one in card.own:
        number = one.signal.msisdn
        if one.signal.kind not in BINDS or not number or number in explained:
            continue
        if had and not any((before, number) in changes for before in explained):
            found.append(Case(one.signal.occurred_at, (one,), (had[-1],)))
        explained.add(number)
        had.append(one)
    return found


def _departures(iccid: str, number: Sequence[Step]) -> list[tuple[Known, Step]]:
    """Where the number left the card: the last signal that had it there, and the first that has it elsewhere.

    A number whose subscription has ended is nowhere, so it leaves nothing behind when it is given to somebody else.
    """
    found = []
    left: Known | None = None
    for step in number:
        if step.after is None:
            left = None
        elif step.after.iccid == iccid:
            left = step.known
        elif left is not None and (step.after.iccid or step.known.signal.kind is SignalKind.SUBSCRIBED):
            found.append((left, step))
            left = None
    return found


def _is_imsi_change(step: Step) -> bool:
    """Another SIM, nobody said which, and nobody said that it was to be so."""
    unknown = step.after is not None and not step.after.iccid
    return step.sim_changed and unknown and step.known.signal.kind in (SignalKind.OBSERVED, SignalKind.DEVICE_CHANGED)


# What was told


def _told(kind: SignalKind) -> Callable[[Card, Rule], list[Case]]:
    """Each signal of that kind is a case."""

    def find(card: Card, rule: Rule) -> list[Case]:
        return [Case(one.signal.occurred_at, (one,)) for one in card.own if one.signal.kind is kind]

    return find


def _not_ended(kind: SignalKind, end: SignalKind) -> Callable[[Card, Rule], list[Case]]:
    """Each signal of that kind after the last that ends it: what is said again after a release counts again."""

    def find(card: Card, rule: Rule) -> list[Case]:
        begun: list[Known] = []
        for one in card.own:
            if one.signal.kind is end:
                begun = []
            elif one.signal.kind is kind:
                begun.append(one)
        return [Case(one.signal.occurred_at, (one,)) for one in begun]

    return find


def _weak_signals(card: Card, rule: Rule) -> list[Case]:
    """Those that made one case do not count for the next."""
    found = []
    recent: deque[Known] = deque()
    for one in card.own:
        if one.signal.kind is not SignalKind.INDICATION or one.signal.indication not in rule.weights:
            continue
        recent.append(one)
        while _age(recent[0], one) > _window(rule):
            recent.popleft()
        if sum(rule.weights[weak.signal.indication] for weak in recent) >= rule.threshold:
            found.append(Case(one.signal.occurred_at, tuple(recent)))
            recent.clear()
    return found


def _age(earlier: Known, later: Known) -> timedelta:
    return later.signal.occurred_at - earlier.signal.occurred_at


def _window(rule: Rule) -> timedelta:
    return timedelta(hours=rule.within_hours or 0)


CONDITIONS: dict[Condition, Callable[[Card, Rule], list[Case]]] = {
    Condition.DEVICE_CHANGED: _device_changed,
    Condition.TWO_DEVICES: _two_devices,
    Condition.IMSI_CHANGED: _imsi_changed,
    Condition.CARD_REPLACED: _card_replaced,
    Condition.OTHER_NUMBER: _other_number,
    Condition.PORTED_OUT: _told(SignalKind.PORTED_OUT),
    Condition.TERMINATED: _terminated,
    Condition.SUSPENDED: _not_ended(SignalKind.SUSPENDED, SignalKind.RESTORED),
    Condition.RESTRICTED: _not_ended(SignalKind.RESTRICTED, SignalKind.RESTORED),
    Condition.LOST: _not_ended(SignalKind.LOST, SignalKind.RECOVERED),
    Condition.OWNER_CALLED: _not_ended(SignalKind.LOCK_REQUESTED, SignalKind.UNLOCK_REQUESTED),
    Condition.FOREIGN_DEVICE: _foreign_device,
    Condition.WRONG_CARD: _told(SignalKind.WRONG_CARD),
    Condition.COUNTER_JUMPED: _told(SignalKind.COUNTER_JUMPED),
    Condition.WEAK_SIGNALS: _weak_signals,
}
