"""What is known of lines: signals read back from their streams, and the keyed rows that lead to them.

    line.msisdn   a number          the stream of that number
    line.card     a card            the stream of what was told of it without a number
    line.iccid    a card            every stream that names it; so do line.imsi and line.imei
    line.signal   "source|id"       the stream in which that signal lies: two are never recorded under one name

A signal of an erased tenure does not count any more: it is left out here, and its rows are gone. When tenures began,
and whose they are, is told without anything personal, so that it stays known.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from tsm.application import ERASED, Tsm
from tsm.model.bindings import Known, begins_tenure, cards_of, moment
from tsm.model.event import Event
from tsm.model.line import Signal, SignalKind, SignalRecorded, TenureErased

MSISDN, CARD, SIGNAL = "line.msisdn", "line.card", "line.signal"
ICCID, IMSI, IMEI = "line.iccid", "line.imsi", "line.imei"
SEALED = SignalRecorded.sealed

Place = tuple[str, str]  # purpose and value of a row
Moment = tuple[datetime, str, str]  # by which signals are ordered


class Filed(NamedTuple):
    """A signal in its stream."""

    known: Known
    subject: str


class Line:
    """One stream, as far as its tenures are not erased."""

    def __init__(self, stream: str, place: Place | None = None) -> None:
        """`place` is the number, or the card, whose own stream it is; None where that does not matter."""
        self.stream = stream
        self.place = place
        self.version = 0
        self.filed: list[Filed] = []
        self.in_service = True  # as the latest event says
        self.changed = False  # since it was read
        self.beside: list[Line] = []  # others of the same number: two servers heard of it at the same moment
        self._begun: list[tuple[Moment, str]] = []  # tenures: when, and the subject
        self._subjects: list[tuple[Moment, str]] = []  # of all signals
        self._erased: set[str] = set()

    def fold(self, event: Event) -> None:
        self.version = event.originator_version
        match event.fact:
            case SignalRecorded() as fact:
                at = (event.occurred_at, fact.source, fact.signal)
                self._note(at, fact.subject, begins=fact.begins_tenure)
                self.in_service = fact.in_service
                signal = signal_of(event, fact)
                if signal is not None:
                    assert event.recorded_at is not None  # noqa: S101  it comes from the log
                    self.filed.append(Filed(Known(event.position, event.recorded_at, signal), fact.subject))
            case TenureErased(subject=subject):
                self._erased.add(subject)

    def file(self, known: Known, subject: str) -> None:
        """Take a signal that will be recorded next."""
        self.version += 1
        self.changed = True
        self.filed.append(Filed(known, subject))
        self._note(moment(known.signal), subject, begins=self.begins(known.signal))

    def begins(self, signal: Signal) -> bool:
        """Whether the number of this stream is another holder's from this signal on."""
        return self.place is not None and self.place[0] == MSISDN and begins_tenure(self.place[1], signal)

    def subject_at(self, signal: Signal) -> str:
        """Whose tenure of the number the signal tells of; empty when nothing of it is known, or it is erased."""
        period = self._period(moment(signal))
        owner = [] if period == 0 else [self._begun[period - 1][1]]
        others = [subject for at, subject in self._subjects if self._period(at) == period]
        return next((subject for subject in (*owner, *others) if subject not in self._erased), "")

    @property
    def latest(self) -> str:
        """The subject of the present tenure; empty when nothing of it is known, or it is erased."""
        known = self._begun or self._subjects
        subject = known[-1][1] if known else ""
        return "" if subject in self._erased else subject

    @property
    def subjects(self) -> set[str]:
        """Of all tenures that are not erased."""
        return {subject for _, subject in self._subjects} - self._erased

    def known(self) -> list[Known]:
        """With what lies beside it."""
        return [filed.known for line in (self, *self.beside) for filed in line.filed]

    def numbers(self) -> set[str]:
        """Every number that the signals here are about."""
        return {filed.known.signal.msisdn for filed in self.filed if filed.known.signal.msisdn}

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

    def _note(self, at: Moment, subject: str, *, begins: bool) -> None:
        self._subjects.append((at, subject))
        if begins:
            self._begun = sorted([*self._begun, (at, subject)])

    def _period(self, at: Moment) -> int:
        return sum(1 for begun, _ in self._begun if begun <= at)


def homes(signal: Signal) -> tuple[Place, ...]:
    """In whose streams a signal lies: its number's, of a change also the former number's; without one, its card's."""
    if not signal.msisdn:
        return ((CARD, signal.iccid),)
    changed = ((MSISDN, signal.previous),) if signal.kind is SignalKind.NUMBER_CHANGED else ()
    return ((MSISDN, signal.msisdn), *changed)


def places_of(home: Place | None, signal: Signal) -> list[Place]:
    """What leads to a signal in the stream of `home`."""
    found = [] if home is None else [home]
    found += [(ICCID, iccid) for iccid in cards_of(signal)]
    found += [(purpose, value) for purpose, value in ((IMSI, signal.imsi), (IMEI, signal.imei)) if value]
    if home in (None, homes(signal)[0]):
        found.append(name_of(signal))
    return found


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


def gather(tsm: Tsm, iccids: Iterable[str]) -> dict[str, list[Known]]:
    """All that is known around each card: every stream that names it, and what lies beside these.

    Cards that none names are left out.
    """
    rows = tsm.indexed_many((ICCID, iccid) for iccid in iccids)
    lines = read_lines(tsm, {row.stream for found in rows.values() for row in found})
    beside = tsm.indexed_many((MSISDN, number) for line in lines.values() for number in line.numbers())
    lines |= read_lines(tsm, {row.stream for found in beside.values() for row in found} - lines.keys())
    around = {}
    for (_, iccid), found in rows.items():
        numbers = {number for row in found for number in lines[row.stream].numbers()}
        streams = {row.stream for place in numbers for row in beside.get((MSISDN, place), ())}
        around[iccid] = [k for stream in {row.stream for row in found} | streams for k in lines[stream].known()]
    return around


def cards_in(lines: Iterable[Line]) -> set[str]:
    """Every card that these streams name."""
    return {iccid for line in lines for filed in line.filed for iccid in cards_of(filed.known.signal)}
