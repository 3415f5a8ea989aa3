"""Lines: signals are recorded, and what follows for cards is decided before their source gets its answer.

    check     each signal by itself: a bad one is refused alone
    file      one commit for all: the events, and the keyed rows that lead to them
    decide    every registered card that the streams concerned name is assessed (`tsm.flows.standings`)

The decisions come in a commit of their own, for they name the positions of their evidence, and a position is given
with the commit. A source that got its answer knows that what follows is in force. One that did not may say the same
again: a signal that is known is not recorded twice, but decided on again. Where nobody does, `StandingWorker` does.

A number's stream has a random id, known by the number's row only. Whoever first hears of a number in this process
gives it one, and others that hear of it at the same moment use the same. Another process may do so as well: then the
number has two streams, its later signals go to the first of them, and all are folded together.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from threading import Lock
from typing import NamedTuple
from uuid import UUID

from tsm.application import Change, IndexRow, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.known_signals import (
    CARD,
    ICCID,
    IMEI,
    MOST_BESIDE,
    MOST_NAMES,
    MSISDN,
    TENURE,
    Line,
    Place,
    cards_in,
    homes,
    name_of,
    places_of,
    read_beside,
    read_lines,
    told_of,
)
from tsm.flows.standings import Standings
from tsm.identifiers import Msisdn
from tsm.keys.vault import SoftwareVault
from tsm.model import card as cards
from tsm.model import line as lines
from tsm.model.bindings import (
    Binding,
    Changes,
    Known,
    bindings_among,
    cards_of,
    cards_of_number,
    changes_of_number,
    ordered,
    teller_of_number,
)
from tsm.model.checks import check_text, refusal
from tsm.model.event import Context
from tsm.model.line import BY_OPERATOR, Signal, SignalKind, SignalRecorded, SubjectMapped, TenureErased
from tsm.model.standing import Standing

SUBJECT = "camara.sub"  # purpose of the rows that lead from a token's subject to a line
NO_CHANGES = Changes(None, None, True)
ASSIGNED = 10_000  # new streams that are remembered until their rows are there

Clock = Callable[[], datetime]
Random = Callable[[int], bytes]


class Outcome(NamedTuple):
    """What became of a signal."""

    position: int  # 0 when it was refused
    repeated: bool = False  # it was known
    error: TsmError | None = None


class History(NamedTuple):
    """What was told of a number, a card or a device. Whoever shows it records the reading of these subjects."""

    bindings: tuple[Binding, ...]
    signals: tuple[Known, ...]  # over occurred time
    subjects: tuple[str, ...]


class Filing(NamedTuple):
    """A batch on its way into the log."""

    outcomes: list[Outcome]
    lines: list[Line]
    positions: range


class Lines:
    """Safe to share between threads."""

    def __init__(self, tsm: Tsm, vault: SoftwareVault, clock: Clock, random: Random) -> None:
        self._tsm = tsm
        self._vault = vault
        self._clock = clock
        self._random = random
        self._assigned: OrderedDict[str, str] = OrderedDict()  # streams by the keyed hash of their number or card
        self._assigned_lock = Lock()
        self._mapping_lock = Lock()
        self.standings = Standings(tsm, clock)

    def record(self, signals: Sequence[Signal], context: Context) -> list[Outcome]:
        """Record what a source says, and decide on it; one outcome for each, in order.

        Refused alone: INVALID_INPUT; FORBIDDEN for another source than the caller, and for an operator that names
        another's card; COMMAND_REUSED for a signal that is known with other content; TOO_MANY_SIGNALS for more of a
        line or a card than its source may tell (`tsm.flows.known_signals`). All: STORE_BUSY, STORE_UNAVAILABLE,
        CONFLICT when others were faster five times; the same may be said again.
        """
        refused = self._refusals(signals, context)
        accepted = [signal for number, signal in enumerate(signals) if number not in refused]
        filing = decided(partial(self._file, accepted, context))
        self.standings.reassess_all(cards_in(filing.lines), context)
        self.standings.settled(filing.positions)
        outcomes = iter(filing.outcomes)
        return [refused[number] if number in refused else next(outcomes) for number in range(len(signals))]

    def stream_of_number(self, msisdn: str) -> str | None:
        """The stream of a number whose present holder is known, and not erased."""
        rows = self._tsm.indexed(MSISDN, msisdn)
        held = self._tsm.indexed_many((TENURE, row.stream) for row in rows)
        return next((row.stream for row in rows if (TENURE, row.stream) in held), None)

    def history(self, *, msisdn: str = "", iccid: str = "", imei: str = "") -> History:
        """What was told of one of these, unsealed. INVALID_INPUT unless one is named."""
        place = _one_of((MSISDN, msisdn), (ICCID, iccid), (IMEI, imei))
        read = list(read_lines(self._tsm, [row.stream for row in self._tsm.indexed(*place)]).values())
        known = ordered(known for line in read for known in line.known())
        signals = ordered(filed.known for line in read for filed in line.filed)
        told = {one.position for one in signals}
        bindings = bindings_among(known, msisdn=msisdn, iccid=iccid, imei=imei)
        return History(
            bindings=tuple(binding for binding in bindings if told & {*binding.evidence}),
            signals=tuple(signals),
            subjects=tuple(sorted({subject for line in read for subject in line.subjects})),
        )

    def map_subject(self, issuer: str, sub: str, msisdn: str, context: Context) -> int:
        """Say by which subject an issuer's tokens name the number's present holder; the log's position.

        Whoever mapped it may map it to another number: then it means that one only. INVALID_INPUT; FORBIDDEN for an
        operator that has not told of the number's present subscription; NOT_FOUND for a number that nothing is known
        of; ALREADY_EXISTS for a subject that another operator mapped.
        """
        check_text(issuer, "issuer")
        check_text(sub, "sub")
        if "|" in issuer:  # which ends it in the rows
            raise refusal("issuer", "not an issuer's name")
        place = (MSISDN, Msisdn(msisdn))

        def attempt() -> int:
            known_as = self._tsm.indexed(*place)
            lines = list(read_lines(self._tsm, {row.stream: place for row in known_as}).values())
            known = [one for line in lines for one in line.known()]
            teller = f"{BY_OPERATOR}{context.tenant}"
            if context.role == "operator" and teller_of_number(msisdn, known) != teller:
                raise TsmError(ErrorCode.FORBIDDEN, f"not a number of {teller}", ("msisdn",))
            if not lines or not lines[0].latest:
                raise TsmError(ErrorCode.NOT_FOUND, "nothing is known of it, or its present holder is erased")
            line, before = lines[0], self.stream_of_subject(issuer, sub)
            if before == line.stream:
                return self._tsm.position
            if before is not None and not self._mapped(before, issuer, context):
                raise TsmError(ErrorCode.ALREADY_EXISTS, "another operator's subject", ("sub",))
            others = {row.stream for row in self._tsm.indexed(SUBJECT, f"{issuer}|{sub}")}  # no longer hers
            streams = sorted({line.stream} | others)
            return self._tsm.commit(
                Change(line.stream, line.version, [SubjectMapped(issuer=issuer)]),
                context=context,
                occurred_at=self._clock(),
                put_index=[self._tsm.index_row(SUBJECT, f"{issuer}|{sub}", each, line.latest) for each in streams],
            )

        with self._mapping_lock:  # no stream is the subject's own, so two at once would not notice each other
            return decided(attempt)

    def stream_of_subject(self, issuer: str, sub: str) -> str | None:
        """The line that the issuer's tokens mean by `sub`, while its number is the same holder's."""
        rows = self._tsm.indexed(SUBJECT, f"{issuer}|{sub}")
        present = self._tsm.indexed_many((TENURE, row.stream) for row in rows)
        tenures = {(one.stream, one.subject) for found in present.values() for one in found}
        return next((row.stream for row in rows if (row.stream, row.subject) in tenures), None)

    def erase(self, context: Context, *, msisdn: str = "", iccid: str = "", subject: str = "") -> int:
        """Erase the tenure of `subject`, or the present one, of a number, or what was told of a card without a number.

        Its data key is destroyed, no row leads to it any more, and its signals count for nothing. Safe to repeat.
        A signal that came before anybody told that the tenure had begun lies under the former holder's key: that goes
        as well, with what else it sealed.
        INVALID_INPUT; NOT_FOUND; WRONG_ORDER while a card that it names is on hold, and not revoked by now:
        it is the evidence; and while it explains what would put a card on hold without it.
        STORE_UNAVAILABLE when a file is held by others: repeat it.
        """
        place = _one_of((MSISDN, msisdn), (CARD, iccid))
        found = self._lines_at(place)
        tenures = [(line, each) for line in found for each in line.to_erase(subject)]
        if not tenures or (subject and not any(subject in line.subjects for line in found)):
            raise TsmError(ErrorCode.NOT_FOUND, "no such tenure", ("subject",))
        named = cards_in(found)
        keys = list(dict.fromkeys((line, each) for line, meant in tenures for each in line.sealed_for(meant)))
        if any(self._needs_evidence(self.standings.of(card)) for card in named):
            raise TsmError(ErrorCode.WRONG_ORDER, "a card of this line is on hold")
        left = {at: known for line, sealed in keys for at, known in line.left_of(sealed).items()}
        if self.standings.would_hold(named, left):
            raise TsmError(ErrorCode.WRONG_ORDER, "it explains what would put a card on hold")
        for line, sealed in keys:
            # The vault before the log: a key that is gone can be destroyed again, an event that is early would lie.
            self._vault.destroy_subject(sealed)
            position = decided(partial(self._record_erasure, line.stream, place, sealed, context))
        self._tsm.erase_remains()
        with self._assigned_lock:
            self._assigned.pop(self._vault.blind_index(*place), None)
        return position

    # Inside

    def _mapped(self, stream: str, issuer: str, context: Context) -> bool:
        """Whether the caller has mapped subjects of that issuer to this line."""
        return context.role != "operator" or any(
            isinstance(event.fact, SubjectMapped)
            and event.fact.issuer == issuer
            and event.context.tenant == context.tenant
            for event in self._tsm.history(stream)
        )

    def _record_erasure(self, stream: str, place: Place, subject: str, context: Context) -> int:
        """The rows go; those that other tenures need as well are put anew."""
        line = read_lines(self._tsm, {stream: place})[stream]
        left = {place: (place, line.stream, filed.subject) for filed in line.by_time() for place in line.places(filed)}
        return self._tsm.commit(
            Change(line.stream, line.version, [TenureErased(subject=subject)]),
            context=context,
            occurred_at=self._clock(),
            drop_index=[subject],
            put_index=self._rows(left.values()),
        )

    def _needs_evidence(self, standing: Standing) -> bool:
        revoked = standing.revoke_from is not None and standing.revoke_from <= self._clock()
        return standing.on_hold and not revoked

    def _rows(self, rows: Iterable[tuple[Place, str, str]]) -> list[IndexRow]:
        return [self._tsm.index_row(purpose, value, stream, subject) for (purpose, value), stream, subject in rows]

    def _refusals(self, signals: Sequence[Signal], context: Context) -> dict[int, Outcome]:
        now = self._clock()
        foreign = self._foreign_cards(signals, context)
        refused = {}
        for number, signal in enumerate(signals):
            try:
                lines.check(signal, context, now)
                if not foreign.isdisjoint(cards_of(signal)):
                    raise TsmError(ErrorCode.FORBIDDEN, "the card of another operator", ("iccid",))
            except TsmError as error:
                refused[number] = Outcome(0, error=error)
        return refused

    def _foreign_cards(self, signals: Iterable[Signal], context: Context) -> set[str]:
        """Of an operator's signals, the registered cards that are not its own."""
        if context.role != "operator":
            return set()
        named = {iccid for signal in signals for iccid in cards_of(signal)}
        existing = self._tsm.existing([cards.stream(iccid) for iccid in named])
        registered = [iccid for iccid in named if cards.stream(iccid) in existing]
        return {iccid for iccid in registered if self._tsm.card_of(iccid).operator != context.tenant}

    def _file(self, signals: Sequence[Signal], context: Context) -> Filing:
        told = {told_of(signal, iccid) for signal in signals for iccid in cards_of(signal)}
        places = {place for signal in signals for place in homes(signal)} | self._numbers_with(signals)
        rows = self._tsm.indexed_many({*places, *told, *map(name_of, signals)})
        streams = {
            place: [row.stream for row in rows[place]] if place in rows else [self._assign(place)] for place in places
        }
        read = read_lines(self._tsm, {stream: place for place, found in streams.items() for stream in found})
        for first, *others in streams.values():
            read[first].beside = [read[stream] for stream in others]
        cards_told = {place for line in read.values() for place in line.cards()} | told
        elsewhere = any(row.stream not in read for place in told for row in rows.get(place, ()))
        desk = Desk(
            {place: read[first] for place, (first, *_) in streams.items()},
            read_beside(self._tsm, cards_told, read, MOST_BESIDE * len(read)) if elsewhere or cards_told - told else [],
            {place: {row.stream for row in rows.get(place, ())} for place in told},
            self._clock(),
            self._new_subject,
        )
        filed = [desk.take(signal, name_of(signal) in rows) for signal in signals]
        last = self._commit(desk, context)
        unknown = [place for place in places if place not in rows]
        read |= self._heard_of_elsewhere(unknown, read)
        positions = range(last - len(desk.entries) + 1, last + 1)
        outcomes = [
            entry._replace(position=positions[-entry.position - 1]) if entry.position < 0 else entry for entry in filed
        ]
        return Filing(outcomes, list(read.values()), positions)

    def _heard_of_elsewhere(self, places: Collection[Place], read: Collection[str]) -> dict[str, Line]:
        """Other streams of these, which another process made at the same moment: what follows, follows from all."""
        rows = self._tsm.indexed_many(places)
        return read_lines(self._tsm, {row.stream for found in rows.values() for row in found} - set(read))

    def _numbers_with(self, signals: Sequence[Signal]) -> set[Place]:
        """The numbers that have, or had, the cards of which operators tell here without a number."""
        unnumbered = [one for one in signals if not one.msisdn and one.source.startswith(BY_OPERATOR)]
        told = {told_of(signal, iccid) for signal in unnumbered for iccid in cards_of(signal)}
        lines = read_beside(self._tsm, told, {}, MOST_BESIDE * len(told))
        return {(MSISDN, line.number) for line in lines if line.number}

    def _commit(self, desk: "Desk", context: Context) -> int:
        if not desk.entries:
            return self._tsm.position
        self._vault.make_data_keys(desk.new_subjects)
        changes = {line.stream: desk.changes(line) for line in desk.lines.values() if line.changed}
        try:
            return self._tsm.commit(
                *(entry.change(changes[entry.line.stream]) for entry in desk.entries),
                context=context,
                occurred_at=self._clock(),
                put_index=self._rows(desk.rows()),
            )
        except TsmError as error:
            if error.code is ErrorCode.UNKNOWN_KEY:  # erased since it was read
                raise TsmError(ErrorCode.CONFLICT, "a tenure was erased meanwhile") from error
            raise

    def _lines_at(self, place: Place) -> list[Line]:
        """The streams of a number, or of a card, at least one. NOT_FOUND."""
        rows = self._tsm.indexed(*place)
        if not rows:
            raise TsmError(ErrorCode.NOT_FOUND, "nothing is known of it")
        return list(read_lines(self._tsm, {row.stream: place for row in rows}).values())

    def _assign(self, place: Place) -> str:
        """The stream for a number, or a card, that has none."""
        index = self._vault.blind_index(*place)
        with self._assigned_lock:
            stream = self._assigned.setdefault(index, lines.stream(str(self._new_id())))
            if len(self._assigned) > ASSIGNED:
                self._assigned.popitem(last=False)
        return stream

    def _new_subject(self) -> str:
        return f"{lines.TENURE}{self._new_id()}"

    def _new_id(self) -> UUID:
        return UUID(bytes=self._random(16), version=4)


class Entry(NamedTuple):
    """One event to be recorded."""

    line: Line
    number: int  # its place in the stream
    signal: Signal
    subject: str
    begins: bool

    def change(self, followed: Changes) -> Change:
        signal = self.signal
        fact = SignalRecorded(
            subject=self.subject,
            signal=signal.id,
            source=signal.source,
            kind=signal.kind,
            msisdn=signal.msisdn,
            imsi=signal.imsi,
            iccid=signal.iccid,
            imei=signal.imei,
            previous=signal.previous,
            indication=signal.indication,
            until=signal.until,
            sim_changed_at=followed.sim_changed_at,
            device_changed_at=followed.device_changed_at,
            in_service=followed.in_service,
            begins_tenure=self.begins,
        )
        return Change(self.line.stream, self.number - 1, [fact], signal.occurred_at)


class Desk:
    """Where a batch is put in order: which signals are news, where they go, and under whose key."""

    def __init__(
        self,
        read: Mapping[Place, Line],
        beside: Iterable[Line],
        told: Mapping[Place, set[str]],
        now: datetime,
        new_subject: Callable[[], str],
    ) -> None:
        """`beside` has what else is told of their cards, `told` the streams in which a source names a card."""
        self.lines = read
        self._naming: dict[str, dict[str, Line]] = {}  # streams of cards, by each card that they name
        self._renewals: list[Known] = []  # that were told in these
        self._carried: dict[str, tuple[tuple[int, int], set[str]]] = {}  # by stream: from what, and which cards
        self._followed: dict[str, tuple[list[tuple[str, int]], Changes]] = {}  # by stream: from what, and what follows
        for card in (line for line in (*read.values(), *beside) if not line.number):
            for known in card.known():
                self._hear(card, known)
        self._told = told
        self.entries: list[Entry] = []
        self.new_subjects: list[str] = []
        self._now = now
        self._new_subject = new_subject
        self._led = {line.stream: line.named() for line in read.values()}
        self._latest = {line.stream: line.latest for line in read.values()}
        self._taken: dict[Place, tuple[Signal, int]] = {}  # in this batch: the signal, and which entry

    def take(self, signal: Signal, known_name: bool) -> Outcome:
        """The outcome; of news, in place of the position, minus the number of its entry minus one."""
        at_home = [self.lines[home] for home in homes(signal)]
        taken = self._taken.get(name_of(signal))
        if taken is not None:
            return Outcome(-taken[1] - 1, repeated=True) if taken[0] == signal else _reused(signal)
        if known_name:
            known = at_home[0].find(signal.source, signal.id)
            return Outcome(known.position, repeated=True) if known and known.signal == signal else _reused(signal)
        try:
            self._refuse_more(signal, at_home)
        except TsmError as error:
            return Outcome(0, error=error)
        self._taken[name_of(signal)] = signal, len(self.entries)
        outcome = Outcome(-len(self.entries) - 1)
        before = [] if signal.msisdn else [(line, self.changes(line)) for line in self._numbers_that_had(signal)]
        for line in at_home:
            self._file(line, signal)
        for line, changes in before:
            if self.changes(line) != changes:  # whoever asks for the number finds it there
                self._file(line, signal)
        return outcome

    def changes(self, line: Line) -> Changes:
        """What follows for the number; a card's own stream is no number's."""
        if not line.number:
            return NO_CHANGES
        cards = {stream: card for iccid in self._cards_of(line) for stream, card in self._naming.get(iccid, {}).items()}
        read = [(one.stream, one.version) for one in (line, *line.beside, *cards.values())]
        known_from, changes = self._followed.get(line.stream, (None, NO_CHANGES))
        if known_from != read:
            told = [known for card in cards.values() for known in card.known()]
            changes = changes_of_number(line.number, [*line.known(), *told])
            self._followed[line.stream] = read, changes
        return changes

    def rows(self) -> list[tuple[Place, str, str]]:
        """The keyed rows that are not there yet."""
        found = {}
        for line, _, signal, subject, _ in self.entries:
            led = self._led[line.stream]
            for place in places_of(line.place, signal):
                if (place, subject) not in led:
                    led.add((place, subject))
                    found[place, line.stream] = subject
        for line in self.lines.values():
            if line.latest != self._latest[line.stream]:
                found[(TENURE, line.stream), line.stream] = line.latest
        return [(place, stream, subject) for (place, stream), subject in found.items()]

    def _numbers_that_had(self, signal: Signal) -> list[Line]:
        """The lines of the numbers whose card, or one in its place, the signal may be about."""
        named = set(cards_of(signal))
        return [line for line in self.lines.values() if line.number and named & self._cards_of(line)]

    def _cards_of(self, line: Line) -> set[str]:
        """The number's, and those that came in their place, as was told without a number."""
        read = line.version, len(self._renewals)
        known_from, cards = self._carried.get(line.stream, (None, set()))
        if known_from != read:
            cards = {iccid for _, iccid in cards_of_number(line.number, [*line.known(), *self._renewals])}
            self._carried[line.stream] = read, cards
        return cards

    def _hear(self, card: Line, known: Known) -> None:
        for iccid in cards_of(known.signal):
            self._naming.setdefault(iccid, {})[card.stream] = card
        if known.signal.kind is SignalKind.SIM_REPLACED:
            self._renewals.append(known)

    def _refuse_more(self, signal: Signal, at_home: Sequence[Line]) -> None:
        for line in at_home:
            line.refuse_more(signal)
        streams = {line.stream for line in at_home}
        named = [self._told[told_of(signal, iccid)] for iccid in cards_of(signal)]
        if any(len(others | streams) > MOST_NAMES for others in named):
            raise TsmError(ErrorCode.TOO_MANY_SIGNALS, f"{MOST_NAMES} lines of a card by {signal.source}")
        for others in named:
            others |= streams

    def _file(self, line: Line, signal: Signal) -> None:
        begins = line.begins(signal)
        subject = "" if begins else line.subject_at(signal)
        if not subject:
            subject = self._new_subject()
            self.new_subjects.append(subject)
        known = Known(0, self._now, signal)
        line.file(known, subject, begins=begins)
        if not line.number:
            self._hear(line, known)
        self.entries.append(Entry(line, line.version, signal, subject, begins))


def _reused(signal: Signal) -> Outcome:
    return Outcome(0, error=TsmError(ErrorCode.COMMAND_REUSED, f"{signal.source} {signal.id}"))


def _one_of(*places: Place) -> Place:
    named = [place for place in places if place[1]]
    if len(named) != 1:
        raise TsmError(ErrorCode.INVALID_INPUT, "one of a number, a card and a device")
    return named[0]
