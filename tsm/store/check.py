"""Is the store what it says it is?

Everything that a store promises is looked at anew: its shape and who can do what to it; positions without a gap and
times that never decrease; every stream without a gap, every row where its envelope says it is, every event decoded, its
personal fields opened (or erased), and folded by its aggregate; what lies beside the log.

It reads the log twice, in its own order and stream after stream, a page at a time, and keeps one stream's state in
memory. A server may run meanwhile: what is recorded after the beginning is not looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.model.streams import Evolve, evolve_of
from tsm.store.mapper import ERASED, JsonMapper
from tsm.store.recorder import RecordedEvent
from tsm.store.rows import EventRow, Rows, is_time

MOST_FINDINGS = 1000  # kept; all are counted
TOLD_EVERY = 1000  # rows
SUBJECT = "subject"  # the field of every fact with personal fields that says whose they are

Told = Callable[[str, int, int], None]  # what is being done, how far it is, how far it goes


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it should be, and where."""

    position: int | None
    stream: str | None
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what was found."""

    head: int
    events: int
    streams: int
    erased: int  # personal fields that do not open any more
    lost: int  # of these, so many whose key is missing, but was not destroyed: the store of data keys is too old
    payloads: int
    index_rows: int
    commands: int
    found: int
    findings: tuple[Finding, ...]  # the first of them


class Check:
    """One look at one store."""

    def __init__(
        self,
        rows: Rows,
        mapper: JsonMapper,
        vault: SoftwareVault,
        told: Told,
        evolve_of: Callable[[str], Evolve | None] = evolve_of,
    ) -> None:
        self._rows = rows
        self._mapper = mapper
        self._vault = vault
        self._told = told
        self._evolve_of = evolve_of
        self._findings: list[Finding] = []
        self._found = self._erased = self._lost = self._events = self._streams = 0
        self._payloads = self._index_rows = self._commands = 0

    def run(self) -> Report:
        """`TsmError(STORE_UNAVAILABLE)` when the database goes away; what it holds is a finding, whatever it is."""
        head = self._rows.head()
        try:
            for fault in self._rows.faults():
                self._find(fault)
            self._look_at_order(head)
            self._look_at_streams(head)
            self._look_beside()
        except TsmError as error:
            if error.code is not ErrorCode.STORE_CORRUPT:
                raise
            self._find(error.detail)
        return Report(
            head,
            self._events,
            self._streams,
            self._erased,
            self._lost,
            self._payloads,
            self._index_rows,
            self._commands,
            self._found,
            tuple(self._findings),
        )

    def _find(self, what: str, position: int | None = None, stream: str | None = None) -> None:
        self._found += 1
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append(Finding(position, stream, what))

    # The order of the log

    def _look_at_order(self, head: int) -> None:
        expected, latest = 1, ""
        for position, recorded_at in self._rows.times(head):
            if position != expected:
                self._find(f"{expected} is the next position, not {position}", position)
            if not is_time(recorded_at):
                self._find("recorded_at is no time as we write it", position)
            elif recorded_at < latest:
                self._find("recorded_at is before that of the event before", position)
            expected, latest = position + 1, max(latest, recorded_at or "")
            self._events += 1
            if position % TOLD_EVERY == 0:
                self._told("order", position, head)
        if self._rows.given() > max(head, self._rows.head()):
            self._find("events behind it are missing: their positions were given", head)

    # Streams

    def _look_at_streams(self, head: int) -> None:
        seen = 0
        for stream, rows in groupby(self._rows.by_stream(head), attrgetter("stream")):
            seen += self._look_at_stream(stream, rows, seen, head)
            self._streams += 1
        if seen != self._events:
            self._find(f"{self._events} events in the order of the log, but {seen} in the order of streams")

    def _look_at_stream(self, stream: str, rows: Iterator[EventRow], before: int, head: int) -> int:
        evolve = self._evolve_of(stream)
        if evolve is None:
            self._find("no aggregate has such streams", stream=stream)
        state: Any = None
        expected = 1
        for number, row in enumerate(rows, before + 1):
            if row.version != expected:
                self._find(f"version {expected} is expected, {row.version} is here", row.position, stream)
                evolve = None  # what follows from there proves nothing
            expected = row.version + 1
            fact = self._decoded(row)
            if fact is None:
                evolve = None
            elif evolve is not None:
                state, evolve = self._folded(evolve, state, fact, row)
            if number % TOLD_EVERY == 0:
                self._told("streams", number, head)
        return number - before

    def _decoded(self, row: EventRow) -> Any:
        """The fact, or None when it does not decode."""
        try:
            recorded_at = datetime.fromisoformat(row.recorded_at) if is_time(row.recorded_at) else datetime.min
            recorded = RecordedEvent(row.stream, row.version, row.topic, row.state, row.position, recorded_at)
            fact = self._mapper.to_domain_event(recorded).fact
        except TsmError as error:
            self._find(error.detail or str(error), row.position, row.stream)
            return None
        erased = sum(getattr(fact, field) == ERASED for field in fact.sealed)
        if erased:
            self._erased += erased
            self._lost += 0 if self._vault.subject_destroyed(getattr(fact, SUBJECT)) else erased
        return fact

    def _folded(self, evolve: Evolve, state: Any, fact: Any, row: EventRow) -> tuple[Any, Evolve | None]:
        try:
            return evolve(state, fact), evolve
        except Exception as error:  # noqa: BLE001 - whatever a fold meets in a damaged stream is a finding
            detail = error.detail if isinstance(error, TsmError) else type(error).__name__
            self._find(f"it does not fold: {detail}", row.position, row.stream)
            return state, None

    # Beside the log

    def _look_beside(self) -> None:
        for stream, what in self._rows.strays():
            self._find(what, stream=stream)
        for payload in self._rows.payloads():
            self._payloads += 1
            try:
                self._vault.unseal_payload(*payload)
            except TsmError as error:
                self._find(f"payload {payload.name} does not open: {error.code}", stream=payload.stream)
        self._index_rows = sum(1 for _ in self._rows.index_rows())
        for command in self._rows.commands():
            self._commands += 1
            if not is_time(command.keep_until):
                self._find(f"command {command.id}: keep_until is no time as we write it")
