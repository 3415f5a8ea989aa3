"""One order for several processes on one PostgreSQL: a lock, or a sequencer? The experiment behind ARCHITECTURE.

Positions without a gap, in the order of commits, can come about in two ways. With the lock, what we have, each batch of
a process is given its positions while it is written, and the next process waits for it. Without, all write at the same
time, each row marked with its transaction; one more process then gives positions to the rows that no running
transaction can come before any more, a page at a time, and each writer waits until it sees its own.

What counts is the time until a caller holds its final position, and how many get one in a second. In both designs each
process gathers what its callers append at the same time in one transaction, every answer is durable, the database
server has one core, and all others share the other.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median, quantiles
from threading import Lock, Thread
from typing import Any, NamedTuple

import psycopg
from eventsourcing.persistence import StoredEvent
from rich.table import Table

from api.bench import raw
from api.bench.history import History
from api.bench.postgres import RUNTIME, PostgresServer
from api.bench.report import wide_console
from api.bench.store import postgres
from tsm.keys.vault import SoftwareVault
from tsm.model.topics import FACTS
from tsm.store.committer import Committer
from tsm.store.loop import Ticket, run, wake
from tsm.store.mapper import JsonMapper
from tsm.store.migrations import migrate_postgres
from tsm.store.postgres import PostgresRecorder
from tsm.store.recorder import Append as OneAppend

PROCESSES = (1, 2, 4)
CALLERS = 16  # of each process
EACH = 150  # appends of each caller
PAGE = 2000  # positions that the sequencer gives at once
PAUSE = 0.0005  # seconds between the looks of the sequencer, and of whoever polls
LONGEST_REST = 0.1  # seconds without a look, for whoever is notified

TABLES = """
CREATE TABLE free_event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  originator_id text COLLATE "C" NOT NULL,
  originator_version bigint NOT NULL,
  topic text COLLATE "C" NOT NULL,
  state bytea NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (originator_id, originator_version)
);
CREATE INDEX free_event_by_xid ON free_event (xid, id);
CREATE TABLE free_position (position bigint PRIMARY KEY, id bigint NOT NULL UNIQUE);
"""
INSERT = """INSERT INTO free_event (originator_id, originator_version, topic, state)
  SELECT * FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::bytea[]) RETURNING id"""
# The pair (xid, id) is the bookmark: ids alone do not follow the commits.
ORDER = """WITH next AS (
  SELECT xid, id, row_number() OVER (ORDER BY xid, id) AS number FROM (
    SELECT xid, id FROM free_event
    WHERE (xid, id) > (%b::xid8, %b::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, id LIMIT %b) AS page
), placed AS (INSERT INTO free_position (position, id) SELECT %b + number, id FROM next)
SELECT xid::text, id, pg_notify('ordered', '') FROM next ORDER BY number"""
POSITIONS = "SELECT id, position FROM free_position WHERE position > %b ORDER BY position"


Append = Callable[[StoredEvent], object]  # of one event; returns when its position is known
Entry = tuple[StoredEvent, Ticket[int]]


class Outcome(NamedTuple):
    """Of one design with so many processes."""

    rate: float  # appends a second
    median_ms: float  # until a caller holds its position
    late_ms: float  # the slowest hundredth


# --- The lock ---


@contextmanager
def lock(dsn: str) -> Iterator[Append]:
    """What we have: `tsm.append` through the committer of the process."""
    with closing(PostgresRecorder(dsn, NothingToSeal())) as recorder, closing(Committer(recorder)) as committer:
        yield lambda stored: committer.append(OneAppend([stored]))


class NothingToSeal:
    """No payloads are put here."""

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes:
        raise NotImplementedError

    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes:
        raise NotImplementedError


# --- The sequencer ---


@contextmanager
def sequencer(dsn: str, *, notified: bool) -> Iterator[Append]:
    """Without a lock; the sequencer is a process of its own."""
    with closing(FreeWriter(dsn, notified)) as writer:
        yield writer.append


class FreeWriter:
    """Gathers appends and writes them without a lock; their positions come later, from the sequencer."""

    def __init__(self, dsn: str, notified: bool) -> None:
        self._dsn = dsn
        self._notified = notified
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._lock = Lock()
        self._waiting: dict[int, Ticket[int]] = {}
        self._positions: dict[int, int] = {}  # of all rows: the sequencer may be faster than the answer to the insert
        self._closing = False
        self._threads = [Thread(target=self._write, daemon=True), Thread(target=self._follow, daemon=True)]
        for thread in self._threads:
            thread.start()

    def append(self, stored: StoredEvent) -> int:
        """The final position."""
        ticket: Ticket[int] = Ticket()
        self._queue.put((stored, ticket))
        return ticket.wait()

    def close(self) -> None:
        self._closing = True
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while batch := self._gathered():
                rows = [raw.row_of(stored) for stored, _ in batch]
                columns = [list(column) for column in zip(*rows, strict=True)]
                ids = [id_ for (id_,) in connection.execute(INSERT, columns, binary=True, prepare=True)]
                with self._lock:
                    self._waiting |= {id_: ticket for id_, (_, ticket) in zip(ids, batch, strict=True)}
                    placed = self._placed(ids)
                wake(placed)

    def _gathered(self) -> list[Entry]:
        """All that wait; waits for one when there is none. Nothing at the end."""
        entries = [self._queue.get()]
        with suppress(Empty):
            while True:
                entries.append(self._queue.get_nowait())
        return [entry for entry in entries if entry is not None]

    def _follow(self) -> None:
        last = 0
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            if self._notified:
                connection.execute("LISTEN ordered")
            while not self._closing:
                found = connection.execute(POSITIONS, [last], binary=True, prepare=True).fetchall()
                if not found:
                    self._rest(connection)
                    continue
                last = found[-1][1]
                with self._lock:
                    self._positions.update(found)
                    placed = self._placed([id_ for id_, _ in found])
                wake(placed)

    def _rest(self, connection: psycopg.Connection) -> None:
        if self._notified:
            list(connection.notifies(timeout=LONGEST_REST, stop_after=1))
        else:
            time.sleep(PAUSE)

    def _placed(self, ids: Sequence[int]) -> list[Ticket[int]]:
        """Those of ours whose position is known."""
        placed = []
        for id_ in ids:
            if id_ in self._positions and id_ in self._waiting:
                ticket = self._waiting.pop(id_)
                ticket.settle(self._positions[id_])
                placed.append(ticket)
        return placed


def give_positions(dsn: str, pipe: Connection) -> None:
    """The sequencer's process: until something is said."""
    place, last = ("0", 0), 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        pipe.send("ready")
        while not pipe.poll():
            placed = connection.execute(ORDER, [*place, PAGE, last], prepare=True).fetchall()
            if placed:
                place, last = placed[-1][:2], last + len(placed)
            else:
                time.sleep(PAUSE)


# --- The experiment ---


class Design(NamedTuple):
    """One way to an order."""

    name: str
    appending: Callable[[str], AbstractContextManager[Append]]  # what a process does, by the database
    sequenced: bool


DESIGNS = (
    Design("lock", lock, False),
    Design("sequencer, writers poll", partial(sequencer, notified=False), True),
    Design("sequencer, writers are notified", partial(sequencer, notified=True), True),
)


def measure(server: PostgresServer, design: Design, processes: int, each: int) -> Outcome:
    """In a database of its own, that nothing may be wrong with afterwards."""
    database = server.fresh_database()
    migrate_postgres(database.owner_dsn, RUNTIME)
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute(TABLES.encode())
    dsn = database.owner_dsn if design.sequenced else database.runtime_dsn
    with ExitStack() as stack:
        if design.sequenced:
            stack.enter_context(_started(give_positions, dsn))
        workers = [stack.enter_context(_started(work, dsn, design, number, each)) for number in range(processes)]
        for worker in workers:
            worker.send("go")
        times = [worker.recv() for worker in workers]
    refuse_gaps(database.owner_dsn, design, processes * CALLERS * each)
    taken = [end - begin for spans in times for begin, end in spans]
    begun, ended = min(b for spans in times for b, _ in spans), max(e for spans in times for _, e in spans)
    return Outcome(len(taken) / (ended - begun), median(taken) * 1000, quantiles(taken, n=100)[-1] * 1000)


def work(dsn: str, design: Design, number: int, each: int, pipe: Connection) -> None:
    """A process whose callers append, each in a closed loop. Tells when each append began and ended."""
    stories = History(number).callers(CALLERS)
    with tempfile.TemporaryDirectory() as folder:
        vault = SoftwareVault.create(Path(folder) / "vault", Path(folder) / "bench.kek")
        mapper = JsonMapper(FACTS, vault)
        callers = [[mapper.to_stored_event(e) for e in islice(chain.from_iterable(s), each)] for s in stories]
        vault.close()
    spans: list[tuple[float, float]] = []
    with design.appending(dsn) as append:

        def one(events: Sequence[StoredEvent]) -> None:
            for event in events:
                began = time.monotonic()
                append(StoredEvent(f"{number}-{event.originator_id}", *_rest_of(event)))
                spans.append((began, time.monotonic()))

        async def all_of_them() -> None:
            await asyncio.gather(*(run(one, events) for events in callers))

        pipe.send("ready")
        pipe.recv()
        asyncio.run(all_of_them())
    pipe.send(spans)


def refuse_gaps(dsn: str, design: Design, number: int) -> None:
    """`RuntimeError` unless every event has its position, and none is missing or given twice."""
    table = "free_position" if design.sequenced else "tsm.event"
    query = f"SELECT count(*), count(DISTINCT position), min(position), max(position) FROM {table}"  # noqa: S608
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    if row != (number, number, 1, number):
        raise RuntimeError(f"{design.name}: {number} events, and positions {row}")


@contextmanager
def _started(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A process that is ready, and what leads to it; it is told to end."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.recv()
    try:
        yield ours
    finally:
        with suppress(BrokenPipeError):
            ours.send("end")
        process.join()


def _rest_of(event: StoredEvent) -> tuple[int, str, bytes]:
    return event.originator_version, event.topic, event.state


def report(rounds: int) -> bool:
    """Measure and print; nothing is promised here."""
    table = Table(title=f"Order on PostgreSQL, {CALLERS} callers in each process, medians of {rounds} rounds")
    for heading in ("design", "processes", "appends/s", "until the position is held: median", "slowest 1 %"):
        table.add_column(heading, justify="left" if heading == "design" else "right")
    console = wide_console()
    with console.status("lock or sequencer"), postgres() as server:
        for processes in PROCESSES:
            outcomes: dict[str, list[Outcome]] = {}
            for number in range(rounds):
                for design in DESIGNS if number % 2 == 0 else reversed(DESIGNS):
                    outcomes.setdefault(design.name, []).append(measure(server, design, processes, EACH))
            for design in DESIGNS:
                rate, middle, late = (median(figures) for figures in zip(*outcomes[design.name], strict=True))
                table.add_row(design.name, str(processes), f"{rate:,.0f}", f"{middle:.2f} ms", f"{late:.2f} ms")
            table.add_section()
    console.print(table)
    return True
