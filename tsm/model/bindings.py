"""Bindings: which SIM and which phone a number had when, and which number and phone a card.

Pure folds over what is known. Whatever order signals came in, they are folded in the order of the times that they
claim, so the result depends on the set alone. Of signals at one time those that end a tenure come first, those that end
a suspicion last; otherwise source and id decide: arbitrary, but fixed.

An IMSI without a card is taken for the card that the number's other signals name with it, as long as no SIM was put in
its place: one SIM has one IMSI at a time, and a new one may get the old one's. A signal without a number says nothing
about numbers. Nothing goes over from one holder of a number to the next.
A subscription is its operator's: what another says of its number binds nothing and ends nothing, until it says that the
number came to it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

import msgspec

from tsm.model.line import BY_OPERATOR, ENDS_SUSPICION, ENDS_TENURE, Signal, SignalKind

BINDS = frozenset({
    SignalKind.OBSERVED, SignalKind.SUBSCRIBED, SignalKind.PORTED_IN, SignalKind.SIM_REPLACED,
    SignalKind.NUMBER_CHANGED, SignalKind.DEVICE_CHANGED,
})  # fmt: skip
Moment = tuple[datetime, int, str, str]  # by which signals are ordered
NEW_SIM = frozenset({SignalKind.SUBSCRIBED, SignalKind.PORTED_IN, SignalKind.NUMBER_CHANGED})
REPLACES = NEW_SIM | {SignalKind.SIM_REPLACED}  # the SIM of a number: its IMSI may go over to the new one


class Known(NamedTuple):
    """A signal, and where and when it was recorded."""

    position: int  # 0 while it is not
    recorded_at: datetime
    signal: Signal


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What belonged together for a time; an identifier that nobody told is empty."""

    msisdn: str
    imsi: str
    iccid: str
    imei: str
    since: datetime
    until: datetime | None
    evidence: tuple[int, ...]  # positions, ascending


class Held(NamedTuple):
    """What a number has, as far as it was told."""

    imsi: str = ""
    iccid: str = ""
    imei: str = ""
    source: str = ""  # who said that the subscription began; others' ends are those of one before


class Step(NamedTuple):
    """What one signal did to a number. None: the number has no subscription, or none was heard of."""

    known: Known
    before: Held | None
    after: Held | None
    sim_changed: bool
    device_changed: bool
    card: str  # what the signal is about: the card that it names, or the number's; empty when nobody told


class Changes(NamedTuple):
    """What followed for a number."""

    sim_changed_at: datetime | None
    device_changed_at: datetime | None
    in_service: bool


def ordered(known: Iterable[Known]) -> list[Known]:
    """In the order of the times claimed, each signal once: as it was recorded first."""
    once: dict[tuple[str, str], Known] = {}
    for one in known:
        other = once.setdefault((one.signal.source, one.signal.id), one)
        if one.position < other.position:
            once[one.signal.source, one.signal.id] = one
    return sorted(once.values(), key=lambda one: moment(one.signal))


def moment(signal: Signal) -> Moment:
    """By which signals are ordered."""
    return signal.occurred_at, turn(signal.kind), signal.source, signal.id


def turn(kind: str) -> int:
    """The order of what is told for one and the same time, also where days are all that is told: what ends a tenure
    comes before the next one begins, what ends a suspicion after what began it."""
    return 0 if kind in ENDS_TENURE else 2 if kind in ENDS_SUSPICION else 1


def begins_tenure(msisdn: str, signal: Signal) -> bool:
    """Whether from this signal on the number is another holder's."""
    kinds = (SignalKind.SUBSCRIBED, SignalKind.NUMBER_CHANGED)
    return signal.kind in kinds and signal.msisdn == msisdn


class CardsOfImsis:
    """Which card an IMSI of a number means, where a signal does not say."""

    def __init__(self, msisdn: str, about: Sequence[Known], renewals: Sequence[Signal]) -> None:
        """`renewals` were told without a number: of its cards they say the same."""
        self._named: dict[str, list[tuple[Moment, str]]] = {}  # by IMSI: what names it together with a card
        for signal in (one.signal for one in about):
            if signal.msisdn == msisdn and signal.kind in BINDS and signal.imsi and signal.iccid:
                self._named.setdefault(signal.imsi, []).append((moment(signal), signal.iccid))
        cards = {iccid for named in self._named.values() for _, iccid in named}
        replaced = [one.signal for one in about if one.signal.kind in REPLACES]
        replaced += [signal for signal in renewals if signal.previous in cards]
        once: dict[tuple[str, str, datetime], Moment] = {}  # told twice, it is one
        for signal in sorted(replaced, key=moment):
            once.setdefault((signal.kind, signal.source, signal.occurred_at), moment(signal))
        self._replaced = list(once.values())  # when another SIM took the place of the number's

    def card(self, signal: Signal) -> str:
        """What it names, or others name with its IMSI while no SIM was replaced: last before it, else first after it;
        empty when none does, as then it is the number's own."""
        named = self._named.get(signal.imsi, [])
        if signal.iccid or not named:
            return signal.iccid
        at = moment(signal)
        after = bisect_left(named, at, key=itemgetter(0))
        near = [*named[max(after - 1, 0) : after], *named[after : after + 1]]
        return next((iccid for when, iccid in near if self._era(when) == self._era(at)), "")

    def _era(self, at: Moment) -> int:
        """How many SIMs of the number had been replaced by then."""
        return bisect_right(self._replaced, at)


def steps(msisdn: str, known: Iterable[Known], *, with_cards: bool = False) -> list[Step]:
    """What each signal about the number did to it.

    `with_cards`: also what an operator told without a number, of the card that the number had then, and that this
    operator has named with it.
    """
    told = ordered(known)
    named = cards_of_number(msisdn, told) if with_cards else set()
    about = [one for one in told if msisdn in numbers_of(one.signal)]
    cards = CardsOfImsis(msisdn, about, [one.signal for one in told if _renews_a_card(one.signal)])
    taken: list[Step] = []
    held: Held | None = None
    ended = False
    for one in told if with_cards else about:
        if msisdn not in numbers_of(one.signal) and not _is_of_its_card(one.signal, held, named):
            continue
        step = _step(msisdn, one, held, ended, cards)
        ended = step.after is None and (ended or _ends(msisdn, one.signal))
        held = step.after
        taken.append(step)
    return _told_later(taken)


def by_number(known: Iterable[Known]) -> dict[str, list[Known]]:
    """What is about each number: one pass, for a card may have had many. Renewals without a number are about all."""
    found: dict[str, list[Known]] = {}
    renewals = []
    for one in known:
        for number in numbers_of(one.signal):
            found.setdefault(number, []).append(one)
        if _renews_a_card(one.signal):
            renewals.append(one)
    return {number: [*about, *renewals] for number, about in found.items()}


def numbers_of(signal: Signal) -> tuple[str, ...]:
    """The numbers in whose streams the signal lies."""
    if signal.kind is SignalKind.NUMBER_CHANGED:
        return signal.msisdn, signal.previous
    return (signal.msisdn,) if signal.msisdn else ()


def cards_of(signal: Signal) -> tuple[str, ...]:
    """The cards that the signal names."""
    replaced = (signal.previous,) if signal.kind is SignalKind.SIM_REPLACED else ()
    return (*((signal.iccid,) if signal.iccid else ()), *replaced)


def changes_of_number(msisdn: str, known: Iterable[Known]) -> Changes:
    """The latest SIM change and device change of the present holder's tenure, and whether there is a subscription.

    A new subscription, a port-in and a change of number count as SIM changes; None: none was told. What was told of its
    card alone counts.
    """
    sim: datetime | None = None
    device: datetime | None = None
    in_service = True
    for step in steps(msisdn, known, with_cards=True):
        at = step.known.signal.occurred_at
        if begins_tenure(msisdn, step.known.signal):
            device = None
        sim = at if step.sim_changed else sim
        device = at if step.device_changed else device
        in_service = step.after is not None or (in_service and not _ends(msisdn, step.known.signal))
    return Changes(sim, device, in_service)


def cards_of_number(msisdn: str, known: Collection[Known]) -> set[tuple[str, str]]:
    """Which cards an operator told of with the number, or said that they came in the place of these; with the operator.

    Where operators told of its subscription, only what these did.
    """
    about = [one.signal for one in known if msisdn in numbers_of(one.signal)]
    tellers = {signal.source for signal in about if signal.kind in NEW_SIM and signal.msisdn == msisdn}
    told = [one for one in about if one.source.startswith(BY_OPERATOR) and (not tellers or one.source in tellers)]
    found = {(signal.source, iccid) for signal in told for iccid in cards_of(signal)}
    renewals = [one.signal for one in known if _renews_a_card(one.signal)]
    while new := {(one.source, one.iccid) for one in renewals if (one.source, one.previous) in found} - found:
        found |= new
    return found


def teller_of_number(msisdn: str, known: Iterable[Known]) -> str:
    """Who said that the number's present subscription began; empty when nobody did, or it has none."""
    held = [step.after for step in steps(msisdn, known)][-1:]
    return held[0].source if held and held[0] is not None else ""


def bindings_of_number(msisdn: str, known: Iterable[Known]) -> tuple[Binding, ...]:
    """What the number was bound to, in the order of time."""
    return _bindings(
        (msisdn, step.known, step.after, begins_tenure(msisdn, step.known.signal)) for step in steps(msisdn, known)
    )


def devices_of_card(iccid: str, known: Iterable[Known]) -> tuple[Binding, ...]:
    """Which devices the card was seen in, whatever its number was, in the order of time."""
    return _bindings(
        ("", one, Held(iccid=iccid, imei=one.signal.imei), False)
        for one, card in about_cards(ordered(known))
        if card == iccid and one.signal.imei and one.signal.kind in BINDS
    )


def bindings_among(known: Sequence[Known], *, msisdn: str = "", iccid: str = "", imei: str = "") -> tuple[Binding, ...]:
    """Those of the number, the card or the device, as these ordered signals say."""
    numbers = [msisdn] if msisdn else list(dict.fromkeys(n for one in known for n in numbers_of(one.signal)))
    bindings = [binding for number in numbers for binding in bindings_of_number(number, known)]
    if not msisdn:
        cards = [iccid] if iccid else list(dict.fromkeys(i for one in known for i in cards_of(one.signal)))
        unnumbered = [one for one in known if not one.signal.msisdn]
        bindings += [binding for card in cards for binding in devices_of_card(card, unnumbered)]
    return tuple(one for one in bindings if iccid in ("", one.iccid) and imei in ("", one.imei))


def about_cards(known: Sequence[Known]) -> list[tuple[Known, str]]:
    """Each of the ordered signals with the card that it is about: what it names, or its number's at that time."""
    cards = {
        (step.known.signal.source, step.known.signal.id): step.card
        for number, about in by_number(known).items()
        for step in steps(number, about)
        if step.known.signal.msisdn == number
    }
    return [(one, one.signal.iccid or cards.get((one.signal.source, one.signal.id), "")) for one in known]


def _step(msisdn: str, known: Known, held: Held | None, ended: bool, cards: CardsOfImsis) -> Step:
    signal = known.signal
    if _ends(msisdn, signal) and _is_of(signal, held):
        return Step(known, held, None, False, False, signal.iccid or (held.iccid if held else ""))
    if _ends(msisdn, signal):
        return Step(known, held, held, False, False, signal.iccid)
    if signal.kind not in BINDS or (signal.kind not in NEW_SIM and (ended or _is_anothers(signal, held))):
        return Step(known, held, held, False, False, signal.iccid or (held.iccid if held else ""))
    after, sim_changed = _bound(signal, held or Held(), cards.card(signal))
    had = "" if held is None or begins_tenure(msisdn, signal) else held.imei
    device_changed = after.imei not in ("", had) or _into_an_unknown_device(signal)
    return Step(known, held, after, sim_changed, device_changed, after.iccid)


def _into_an_unknown_device(signal: Signal) -> bool:
    return signal.kind is SignalKind.DEVICE_CHANGED and not signal.imei


def _renews_a_card(signal: Signal) -> bool:
    return signal.kind is SignalKind.SIM_REPLACED and not signal.msisdn


def _ends(msisdn: str, signal: Signal) -> bool:
    changed_away = signal.kind is SignalKind.NUMBER_CHANGED and signal.previous == msisdn
    return changed_away or signal.kind in ENDS_TENURE


def _is_of(signal: Signal, held: Held | None) -> bool:
    """Whether an end is of what the number has now: the operator that it was ported from may say so late."""
    if held is None:
        return True
    if signal.iccid and held.iccid and signal.kind is not SignalKind.NUMBER_CHANGED:
        return held.iccid == signal.iccid
    return held.source in ("", signal.source)


def _is_of_its_card(signal: Signal, held: Held | None, named: Collection[tuple[str, str]]) -> bool:
    """Whether an operator tells of the card that the number has, and names no number."""
    card = signal.previous if _renews_a_card(signal) else signal.iccid
    if numbers_of(signal) or held is None or not card:
        return False
    return held.iccid == card and (signal.source, card) in named


def _is_anothers(signal: Signal, held: Held | None) -> bool:
    """Whether an operator speaks that did not tell of the subscription."""
    teller = held.source if held is not None else ""
    return teller not in ("", signal.source) and signal.source.startswith(BY_OPERATOR)


def _bound(signal: Signal, held: Held, iccid: str) -> tuple[Held, bool]:
    """What the number has after a signal that binds, and whether that is another SIM than before."""
    if signal.kind in (SignalKind.SUBSCRIBED, SignalKind.NUMBER_CHANGED):
        return Held(signal.imsi, iccid, signal.imei, signal.source), True
    imei = signal.imei or held.imei
    if signal.kind is SignalKind.PORTED_IN:
        return Held(signal.imsi, iccid, imei, signal.source), True
    other_card = iccid != "" and held.iccid not in ("", iccid)
    other_imsi = signal.imsi != "" and held.imsi not in ("", signal.imsi)
    replaced = signal.kind is SignalKind.SIM_REPLACED and iccid != held.iccid
    after = Held(
        signal.imsi or ("" if other_card or replaced else held.imsi),
        iccid or ("" if other_imsi else held.iccid),
        imei,
        held.source,
    )
    return after, other_card or other_imsi or replaced


def _told_later(taken: list[Step]) -> list[Step]:
    """With a card for signals from before anybody named the number's: what was named first, if nothing changed."""
    later, steps_back = "", []
    for step in reversed(taken):
        signal = step.known.signal
        steps_back.append(step if step.card else step._replace(card=later))
        if step.sim_changed:
            later = signal.previous if signal.kind is SignalKind.SIM_REPLACED else ""
        elif step.after is None:
            later = step.card if step.before is not None else later
        elif step.after.iccid:
            later = step.after.iccid
    return steps_back[::-1]


def _bindings(seen: Iterable[tuple[str, Known, Held | None, bool]]) -> tuple[Binding, ...]:
    found: list[Binding] = []
    for msisdn, known, held, anew in seen:
        last = found[-1] if found and found[-1].until is None else None
        told = None if held is None else held[:3]
        if last is not None and not anew and told == (last.imsi, last.iccid, last.imei):
            if known.signal.kind in BINDS:
                found[-1] = msgspec.structs.replace(last, evidence=_with(last.evidence, known))
            continue
        if last is not None:
            found[-1] = msgspec.structs.replace(last, until=known.signal.occurred_at)
        if held is not None:
            found.append(
                Binding(
                    msisdn=msisdn,
                    imsi=held.imsi,
                    iccid=held.iccid,
                    imei=held.imei,
                    since=known.signal.occurred_at,
                    until=None,
                    evidence=(known.position,),
                )
            )
    return tuple(found)


def _with(evidence: tuple[int, ...], known: Known) -> tuple[int, ...]:
    return tuple(sorted({*evidence, known.position}))
