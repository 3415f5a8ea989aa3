"""What is known of lines: signals read back from their streams, and the keyed rows that lead to them.

    line.msisdn   a number          the stream of that number
    line.card     a card            the stream of what was told of it without a number
    line.iccid    a card            every stream that names it; so do line.imsi and line.imei
    line.signal   "source|id"       the stream in which that signal lies: two are never recorded under one name
    line.told     "source|card"     every stream in which that source names the card
    line.tenure   a stream          itself, and whose tenure is the present one: told without reading the stream

A signal of an erased tenure does not count any more: it is left out here, and its rows are gone. When tenures began,
and whose they are, is told without anything personal, so that it stays known: what is told of the next holder does not
count for the one before whom an erased one was.

What is told of a card without a number lies in the card's stream, and in that of the number that has the card as well
where something follows for it: whoever asks for the number has to find it there.

All that is known around a card is read whenever a signal comes. So what one source may tell is bounded, far above what
lines live to see: `MOST_SIGNALS` of one line, `MOST_NAMES` cards of a number, and as many numbers of a card. What comes
every day and the rest are counted apart, so that whoever makes the one happen often does not silence the other.
"""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from tsm.application import ERASED, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model.bindings import Known, Moment, begins_tenure, cards_of, cards_of_number, moment, turn
from tsm.model.event import Event
from tsm.model.line import ENDS_TENURE, Signal, SignalKind, SignalRecorded, TenureErased

MSISDN, CARD, SIGNAL = "line.msisdn", "line.card", "line.signal"
TOLD, TENURE = "line.told", "line.tenure"
ICCID, IMSI, IMEI = "line.iccid", "line.imsi", "line.imei"
SEALED = SignalRecorded.sealed
EVERYDAY = frozenset({
    SignalKind.OBSERVED, SignalKind.INDICATION, SignalKind.CREDENTIAL_WRITTEN, SignalKind.CREDENTIAL_USED,
    SignalKind.WRONG_CARD, SignalKind.COUNTER_JUMPED,
})  # fmt: skip
MOST_SIGNALS = 1000  # of one source in one line, that are not erased: everyday ones, and others
MOST_NAMES = 32  # cards in one line, or lines of one card, as one source tells
MOST_BESIDE = 4  # streams in which it tells of a number's cards, for each of the lines that are read

Place = tuple[str, str]  # purpose and value of a row


class Filed(NamedTuple):
    """A signal in its stream."""

    known: Known
    subject: str
    begins: bool  # from it on the number of this stream is another holder's


class Line:
    """One stream, as far as its tenures are not erased."""

    def __init__(self, stream: str, place: Place | None = None) -> None:
        """`place` is the number, or the card, whose own stream it is; None where that does not matter."""
        self.stream = stream
        self.place = place
        self.version = 0
        self.filed: list[Filed] = []
        self.changed = False  # since it was read
        self.beside: list[Line] = []  # others of the same number: two servers heard of it at the same moment
        self._begun: list[tuple[Moment, str]] = []  # tenures: when, and the subject
        self._subjects: list[tuple[Moment, str]] = []  # of all signals
        self._erased: set[str] = set()
        self._gone: set[str] = set()  # whose keys are: also where the log does not say so, or not yet
        self._number = place[1] if place is not None and place[0] == MSISDN else ""
        self._lost: list[tuple[Event, SignalRecorded]] = []  # erased, and a tenure began with it
        self._told: Counter[tuple[str, bool]] = Counter()  # signals by source, and whether they are everyday ones
        self._named: dict[str, set[str]] = {}  # cards by source

    def fold(self, event: Event) -> None:
        self.version = event.originator_version
        match event.fact:
            case SignalRecorded() as fact:
                at = (event.occurred_at, turn(fact.kind), fact.source, fact.signal)
                self._note(at, fact.subject, begins=fact.begins_tenure)
                signal = signal_of(event, fact)
                if signal is not None:
                    assert event.recorded_at is not None  # noqa: S101  it comes from the log
                    self._take(
                        Filed(Known(event.position, event.recorded_at, signal), fact.subject, fact.begins_tenure)
                    )
                    away = signal.kind is SignalKind.NUMBER_CHANGED and not fact.begins_tenure
                    self._number = self._number or (signal.previous if away else signal.msisdn)
                else:
                    self._gone.add(fact.subject)
                    if fact.begins_tenure:
                        self._lost.append((event, fact))
            case TenureErased(subject=subject):
                self._erased.add(subject)

    def file(self, known: Known, subject: str, *, begins: bool) -> None:
        """Take a signal that will be recorded next."""
        self.version += 1
        self.changed = True
        self._take(Filed(known, subject, begins))
        self._note(moment(known.signal), subject, begins=begins)

    def begins(self, signal: Signal) -> bool:
        """Whether the number of this stream is another holder's from this signal on."""
        anew = self.place is not None and self.place[0] == MSISDN and begins_tenure(self.place[1], signal)
        return anew and not self._told_again(signal)

    def subject_at(self, signal: Signal) -> str:
        """Whose tenure of the number the signal tells of; empty when nothing of it is known, or it is erased."""
        return self._told_again(signal) or self._subject_of(self._period(moment(signal)))

    def refuse_more(self, signal: Signal) -> None:
        """TOO_MANY_SIGNALS when its source has told enough of this line, or named too many cards."""
        if self._told[signal.source, signal.kind in EVERYDAY] >= MOST_SIGNALS:
            raise TsmError(ErrorCode.TOO_MANY_SIGNALS, f"{MOST_SIGNALS} of {self.stream} by {signal.source}")
        if len(self._named.get(signal.source, set()).union(cards_of(signal))) > MOST_NAMES:
            raise TsmError(ErrorCode.TOO_MANY_SIGNALS, f"{MOST_NAMES} cards in {self.stream} by {signal.source}")

    @property
    def latest(self) -> str:
        """The subject of the present tenure; empty when nothing of it is known, or it is erased."""
        return self._subject_of(len(self._begun))

    def sealed_for(self, subject: str) -> list[str]:
        """Whose keys seal the signals of its tenure: those that came before anybody told that it had begun, others'."""
        periods = {period for period, (_, owner) in enumerate(self._begun, 1) if owner == subject}
        others = {s for at, s in self._subjects if s not in self._erased and self._period(at) in periods}
        return [*sorted(others - {subject}), subject]

    def to_erase(self, subject: str) -> list[str]:
        """That tenure, or without one the present; and those whose erasure was cut off."""
        return sorted(({subject or self.latest} & self.subjects) | (self._gone - self._erased))

    def left_of(self, subject: str) -> dict[int, Known | None]:
        """By position, what will be known of its signals when that key is gone: that a tenure began, or nothing."""
        return {
            known.position: known._replace(signal=begun(known.signal)) if begins else None
            for known, owner, begins in self.filed
            if owner == subject
        }

    @property
    def subjects(self) -> set[str]:
        """Of all tenures that are not erased."""
        return {subject for _, subject in self._subjects} - self._erased

    def known(self) -> list[Known]:
        """With what lies beside it, and with the beginnings of tenures that are erased."""
        lines = (self, *self.beside)
        return [one for line in lines for one in (*(filed.known for filed in line.filed), *line.beginnings())]

    def beginnings(self) -> list[Known]:
        """Of erased tenures, of the number that the signals left here are about: that they began, and nothing else."""
        return [
            Known(event.position, event.recorded_at or event.occurred_at, begun_by(event, fact, self._number))
            for event, fact in self._lost
            if self._number
        ]

    @property
    def number(self) -> str:
        """Whose stream this is; empty for a card's, and where nothing tells it any more."""
        return self._number

    def cards(self) -> set[Place]:
        """The rows that lead to what is told elsewhere, by whoever told of them here, of the number's cards; from a
        card's stream, of those in whose place it came."""
        if self._number:
            return {(TOLD, f"{source}|{iccid}") for source, iccid in cards_of_number(self._number, self.known())}
        signals = [filed.known.signal for filed in self.filed if filed.known.signal.kind is SignalKind.SIM_REPLACED]
        return {told_of(signal, iccid) for signal in signals for iccid in cards_of(signal)}

    def find(self, source: str, id: str) -> Known | None:
        """The signal of that name, if it lies here or beside it."""
        return next((k for k in self.known() if (k.signal.source, k.signal.id) == (source, id)), None)

    def named(self) -> set[tuple[Place, str]]:
        """The rows that lead here, each with the subject whose it is."""
        return {(place, filed.subject) for filed in self.filed for place in self.places(filed)}

    def places(self, filed: Filed) -> list[Place]:
        """What leads to a signal that lies here."""
        return places_of(self.place, filed.known.signal)

    def by_time(self) -> list[Filed]:
        """In the order of the times claimed."""
        return sorted(self.filed, key=lambda filed: moment(filed.known.signal))

    def _take(self, filed: Filed) -> None:
        self.filed.append(filed)
        signal = filed.known.signal
        self._told[signal.source, signal.kind in EVERYDAY] += 1
        self._named.setdefault(signal.source, set()).update(cards_of(signal))

    def _note(self, at: Moment, subject: str, *, begins: bool) -> None:
        # A beginning that is told again under another id belongs to the tenure that it began, however ids are ordered.
        began = (when for when, owner in self._begun if owner == subject and when[0] == at[0])
        self._subjects.append((max(at, next(began, at)), subject))
        if begins:
            insort(self._begun, (at, subject))

    def _told_again(self, signal: Signal) -> str:
        """Whose tenure began with the very same subscription, told under another id, as a file and a feed may."""
        if signal.kind is not SignalKind.SUBSCRIBED:
            return ""
        at_once = [filed for filed in self.filed if filed.known.signal.occurred_at == signal.occurred_at]
        if any(filed.known.signal.kind in ENDS_TENURE for filed in at_once):  # one ended, and another began
            return ""
        return next((filed.subject for filed in at_once if _is_same_beginning(filed.known.signal, signal)), "")

    def _subject_of(self, period: int) -> str:
        gone = self._erased | self._gone
        if period and (owner := self._begun[period - 1][1]) not in gone:
            return owner
        living = ((at, subject) for at, subject in self._subjects if subject not in gone)
        return next((subject for at, subject in living if self._period(at) == period), "")

    def _period(self, at: Moment) -> int:
        """How many tenures had begun by then."""
        return bisect_right(self._begun, at, key=itemgetter(0))


def _is_same_beginning(one: Signal, other: Signal) -> bool:
    """Of signals of one time; what only one of them tells does not make them differ."""
    told = all(not a or not b or a == b for a, b in ((one.iccid, other.iccid), (one.imsi, other.imsi)))
    named = (one.source, one.msisdn) == (other.source, other.msisdn)
    return told and named and one.kind is other.kind is SignalKind.SUBSCRIBED


def homes(signal: Signal) -> tuple[Place, ...]:
    """In whose streams a signal lies: its number's, of a change also the former number's; without one, its card's."""
    if not signal.msisdn:
        return ((CARD, signal.iccid),)
    changed = ((MSISDN, signal.previous),) if signal.kind is SignalKind.NUMBER_CHANGED else ()
    return ((MSISDN, signal.msisdn), *changed)


def places_of(home: Place | None, signal: Signal) -> list[Place]:
    """What leads to a signal in the stream of `home`."""
    found = [] if home is None else [home]
    found += [place for iccid in cards_of(signal) for place in ((ICCID, iccid), told_of(signal, iccid))]
    found += [(purpose, value) for purpose, value in ((IMSI, signal.imsi), (IMEI, signal.imei)) if value]
    if home in (None, homes(signal)[0]):
        found.append(name_of(signal))
    return found


def told_of(signal: Signal, iccid: str) -> Place:
    return TOLD, f"{signal.source}|{iccid}"


def name_of(signal: Signal) -> Place:
    return SIGNAL, f"{signal.source}|{signal.id}"


def signal_of(event: Event, fact: SignalRecorded) -> Signal | None:
    """As its source gave it; None when its tenure is erased."""
    if erased(fact):
        return None
    return Signal(
        id=fact.signal,
        source=fact.source,
        kind=SignalKind(fact.kind),
        occurred_at=event.occurred_at,
        msisdn=fact.msisdn,
        imsi=fact.imsi,
        iccid=fact.iccid,
        imei=fact.imei,
        previous=fact.previous,
        indication=fact.indication,
        until=fact.until,
    )


def begun_by(event: Event, fact: SignalRecorded, msisdn: str) -> Signal:
    """What is left of an erased signal with which a tenure began."""
    return Signal(
        id=fact.signal, source=fact.source, kind=SignalKind(fact.kind), occurred_at=event.occurred_at, msisdn=msisdn
    )


def begun(signal: Signal) -> Signal:
    """The same, of one that is still to be erased."""
    return Signal(
        id=signal.id, source=signal.source, kind=signal.kind, occurred_at=signal.occurred_at, msisdn=signal.msisdn
    )


def erased(fact: SignalRecorded) -> bool:
    """Whether its personal fields can be read no more."""
    return any(getattr(fact, field) == ERASED for field in SEALED)


def read_lines(tsm: Tsm, streams: Mapping[str, Place] | Collection[str]) -> dict[str, Line]:
    """All of these streams, with one query; those that do not exist are empty. A mapping tells whose own they are."""
    histories = tsm.histories(streams)
    places = streams if isinstance(streams, Mapping) else {}
    lines = {}
    for stream in streams:
        line = lines[stream] = Line(stream, places.get(stream))
        for event in histories.get(stream, ()):
            line.fold(event)
    return lines


def read_beside(tsm: Tsm, places: Collection[Place], read: Mapping[str, Line], most: int) -> list[Line]:
    """The streams to which these rows lead, beside those that were read; and where these lead, card by card. At most
    so many: a card that goes from number to number leads anywhere."""
    found: dict[str, Line] = {}
    asked: set[Place] = set()
    while wanted := set(places) - asked:
        asked |= wanted
        streams = {row.stream for rows in tsm.indexed_many(wanted).values() for row in rows}
        new = read_lines(tsm, sorted(streams - read.keys() - found.keys())[: most - len(found)])
        found |= new
        places = {place for line in new.values() for place in line.cards()}
    return list(found.values())


def gather(tsm: Tsm, iccids: Iterable[str]) -> dict[str, list[Known]]:
    """All that is known around each card: every stream that names it, and what lies beside these.

    Cards that none names are left out.
    """
    rows = tsm.indexed_many((ICCID, iccid) for iccid in iccids)
    lines = read_lines(tsm, {row.stream for found in rows.values() for row in found})
    beside = tsm.indexed_many((MSISDN, line.number) for line in lines.values() if line.number)
    lines |= read_lines(tsm, {row.stream for found in beside.values() for row in found} - lines.keys())
    around = {}
    for (_, iccid), found in rows.items():
        numbers = {lines[row.stream].number for row in found}
        streams = {row.stream for number in numbers for row in beside.get((MSISDN, number), ())}
        around[iccid] = [k for stream in {row.stream for row in found} | streams for k in lines[stream].known()]
    return around


def cards_in(lines: Iterable[Line]) -> set[str]:
    """Every card that these streams name."""
    return {iccid for line in lines for filed in line.filed for iccid in cards_of(filed.known.signal)}
