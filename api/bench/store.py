"""Appends and commands: ours, the stock library and the raw database, in one run.

The same 64 callers tell the same stories to every side, each in a closed loop: who has been answered says the next.
All is durable when it is answered. The database server has one core, whoever calls it the other. What is appended is
made beforehand; ours seals, encodes, checks and commits within the measured time, and so does the stock library, while
the raw loops find their bytes ready.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from itertools import chain, count, islice
from pathlib import Path
from random import Random
from statistics import median
from threading import Barrier, Thread
from typing import NamedTuple
from uuid import UUID

import psycopg

from api.bench import raw
from api.bench.history import History
from api.bench.postgres import RUNTIME, PostgresServer
from api.bench.report import Line, adds, faster, medians, on_other_core, pin_server, tell, told, wide_console
from api.bench.stock import StockLog, StockSession, StockSessions, open_log
from tsm.application import Change, Loaded, Tsm
from tsm.keys.vault import SoftwareVault
from tsm.model import session
from tsm.model.event import Context, Event
from tsm.model.topics import FACTS
from tsm.store import loop
from tsm.store.committer import Committer
from tsm.store.mapper import JsonMapper
from tsm.store.migrations import migrate_postgres, migrate_sqlite
from tsm.store.opening import open_recorder
from tsm.store.recorder import Append, Recorder, utc_now

SEED = 3
CALLERS = 64
STORY = 210  # events
FAR = 10**6  # stories that no caller comes to
STREAM_LENGTH = 30  # events of a stream that a command loads
APPEND_STOCK, APPEND_RAW, APPEND_SQLITE = 9.0, 1.0, 3.0  # the goals
COMMAND_MANY, COMMAND_ONE = 5.0, 2.0
COMMITTER_MS = 0.1
SAVED_TOGETHER = 100  # events that the stock library is given at once: some thousands are too much for its pipeline
DRAWN = Random(SEED)  # noqa: S311 - as quick as the hash that it stands for, and no secret
NOTHING_KNOWN: Loaded[session.Session] = Loaded(None, 0)


class Sizes(NamedTuple):
    """How much is done in a round: events of each caller, streams of each caller, single appends."""

    ours: int = 96
    stock: int = 16
    raw: int = 48
    streams: int = 12
    singles: int = 300


# --- Callers ---


class Callers:
    """The callers of one side. Each side has its own, who all tell the same."""

    def __init__(self) -> None:
        history = History(SEED)
        self._stories = [chain.from_iterable(caller) for caller in history.callers(CALLERS)]
        self.begun = list(chain.from_iterable(history.parties()))
        for number, story in enumerate(self._stories):  # they are at different places of their stories
            self.begun += islice(story, number * STORY // CALLERS)

    def next(self, each: int) -> list[list[Event]]:
        """What each caller is about to record."""
        return [list(islice(story, each)) for story in self._stories]

    def mixed(self) -> Iterator[Event]:
        """What they record when nobody keeps them in step: first what they have begun, then without end."""
        yield from self.begun
        turns = Random(SEED)  # noqa: S311 - nothing secret is drawn
        while True:
            yield next(turns.choice(self._stories))


def at_once(work: Sequence[Callable[[], None]]) -> float:
    """Seconds in which all is done, in one event loop."""

    async def all_of_it() -> None:
        await asyncio.gather(*(loop.run(one) for one in work))

    began = time.perf_counter()
    asyncio.run(all_of_it())
    return time.perf_counter() - began


def in_threads(work: Sequence[Callable[[], None]]) -> float:
    """Seconds in which all is done, in a thread for each."""
    start = Barrier(len(work) + 1)

    def begin(one: Callable[[], None]) -> None:
        start.wait()
        one()

    threads = [Thread(target=begin, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


# --- Append ---


class OurLog:
    """`Tsm.commit`, one event after the other."""

    def __init__(self, tsm: Tsm, callers: Callers) -> None:
        """What the callers have begun is recorded already."""
        self._tsm = tsm
        self._callers = callers

    def append(self, each: int) -> float:
        """Events a second."""

        def tell(events: Sequence[Event]) -> None:
            for e in events:
                change = Change(e.originator_id, e.originator_version - 1, [e.fact])
                self._tsm.commit(change, context=e.context, occurred_at=e.occurred_at)

        work = [lambda events=events: tell(events) for events in self._callers.next(each)]
        return CALLERS * each / at_once(work)


def our_log(ours: "Engine") -> OurLog:
    """In an empty store."""
    callers = Callers()
    ours.record(callers.begun)
    return OurLog(ours.tsm, callers)


class TheirLog:
    """`Application.save` of the stock library, in a thread for each caller."""

    def __init__(self, log: StockLog) -> None:
        self._log = log
        self._callers = Callers()
        begun = iter(self._callers.begun)
        while some := list(islice(begun, SAVED_TOGETHER)):
            log.save(*some)

    def append(self, each: int) -> float:
        """Events a second."""

        def tell(events: Sequence[Event]) -> None:
            for event in events:
                self._log.save(event)

        work = [lambda events=events: tell(events) for events in self._callers.next(each)]
        return CALLERS * each / in_threads(work)


class RawLog:
    """Rows of the same events, dealt out to so many connections."""

    def __init__(self, mapper: JsonMapper, insert: Callable[[list[raw.Rows]], float], connections: int) -> None:
        self._mapper = mapper
        self._insert = insert
        self._connections = connections
        self._callers = Callers()
        self._insert(self._dealt_out([self._callers.begun]))

    def append(self, each: int) -> float:
        """Events a second."""
        return CALLERS * each / self._insert(self._dealt_out(self._callers.next(each)))

    def _dealt_out(self, callers: Sequence[Sequence[Event]]) -> list[raw.Rows]:
        rows = [[raw.row_of(self._mapper.to_stored_event(event)) for event in events] for events in callers]
        return [list(chain.from_iterable(rows[first :: self._connections])) for first in range(self._connections)]


# --- Commands ---


class OurCommands:
    """Load a session, decide on its next command, commit."""

    def __init__(self, tsm: Tsm, streams: Sequence[str], context: Context) -> None:
        self._tsm = tsm
        self._streams = streams
        self._context = context

    def many(self, *, kept: bool) -> float:
        """Commands a second, of all callers."""
        shares = [self._streams[first::CALLERS] for first in range(CALLERS)]
        return len(self._streams) / at_once([lambda share=share: self._each(share, kept) for share in shares])  # type: ignore[misc]

    def one(self, *, kept: bool) -> float:
        """Commands a second, of one caller."""
        return len(self._streams) / at_once([lambda: self._each(self._streams, kept)])

    def _each(self, streams: Sequence[str], kept: bool) -> None:
        for stream in streams:
            loaded = self._tsm.load(stream, session.evolve, None if kept else NOTHING_KNOWN)
            fact = next_command(_order(loaded.state))
            self._tsm.commit(Change(stream, loaded.version, [fact]), context=self._context, occurred_at=utc_now())


def our_commands(ours: "Engine", streams: int) -> OurCommands:
    """On so many new streams for each caller."""
    sessions = list(islice(sessions_begun(STREAM_LENGTH), CALLERS * streams))
    ours.record(list(chain.from_iterable(sessions)))
    return OurCommands(ours.tsm, [events[0].originator_id for events in sessions], sessions[0][-1].context)


class TheirCommands:
    """The same through the stock library's repository and aggregate."""

    def __init__(self, sessions: StockSessions, streams: int) -> None:
        self._sessions = sessions
        self._ids: list[UUID] = []
        for begun in islice(sessions_begun(STREAM_LENGTH), CALLERS * streams):
            aggregate = StockSession()
            for event in begun[1:]:
                aggregate.exchange(event.fact, event.context)
            sessions.save(aggregate)
            self._ids.append(aggregate.id)
        self._context = begun[-1].context

    def many(self) -> float:
        """Commands a second, of all callers."""
        shares = [self._ids[first::CALLERS] for first in range(CALLERS)]
        return len(self._ids) / in_threads([lambda share=share: self._each(share) for share in shares])  # type: ignore[misc]

    def one(self) -> float:
        """Commands a second, of one caller."""
        return len(self._ids) / in_threads([lambda: self._each(self._ids)])

    def _each(self, ids: Sequence[UUID]) -> None:
        for aggregate_id in ids:
            aggregate: StockSession = self._sessions.repository.get(aggregate_id)
            aggregate.exchange(next_command(aggregate.order), self._context)
            self._sessions.save(aggregate)


def sessions_begun(length: int) -> Iterator[list[Event]]:
    """The first events of sessions that have at least so many."""
    history = History(SEED + 1)
    for number in count(FAR):
        of_stream: dict[str, list[Event]] = {}
        for event in chain.from_iterable(history.story(number)):
            of_stream.setdefault(event.originator_id, []).append(event)
        for stream, events in of_stream.items():
            if stream.startswith("session-") and len(events) >= length:
                yield events[:length]


def next_command(order: int) -> session.CommandSent:
    """What is decided: the next command of the script goes to the card."""
    return session.CommandSent(
        step="COMMAND",
        order=order + 1,
        header="80e26800",
        length=253,
        wire_sha256=DRAWN.randbytes(32).hex(),
        expires_at=utc_now() + timedelta(minutes=1),
        counter=order + 1,
        chaining=DRAWN.randbytes(16).hex(),
    )


def _order(state: session.Session | None) -> int:
    return state.sent.order if state and state.sent else 0


# --- An idle committer ---


def committer_and_direct(recorder: Recorder, mapper: JsonMapper, number: int) -> tuple[float, float]:
    """Milliseconds of one append through an idle committer, and of one without: medians, one after the other."""
    committer = Committer(recorder)
    figures: tuple[list[float], list[float]] = ([], [])
    history = History(SEED + 2)
    stories = (commit for number in count(2 * FAR) for commit in history.story(number))
    for place, event in enumerate(islice(chain.from_iterable(stories), 2 * number)):
        append = Append([mapper.to_stored_event(event)])
        began = time.perf_counter()
        if place % 2:
            recorder.append([append])
        else:
            committer.append(append)
        figures[place % 2].append((time.perf_counter() - began) * 1000)
    committer.close()
    return median(figures[0]), median(figures[1])


# --- The lines ---


class Engine(NamedTuple):
    """Ours on one engine."""

    recorder: Recorder
    mapper: JsonMapper
    tsm: Tsm

    def record(self, events: Sequence[Event]) -> None:
        """All together."""
        self.recorder.insert_events([self.mapper.to_stored_event(event) for event in events])


@contextmanager
def engine(place: Path | str, vault: SoftwareVault) -> Iterator[Engine]:
    """A store that was made already."""
    recorder = open_recorder(place, vault)
    tsm = Tsm(vault, recorder, FACTS, utc_now)
    try:
        yield Engine(recorder, JsonMapper(FACTS, vault), tsm)
    finally:
        tsm.close()


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server on its core, and this process on the other."""
    with on_other_core(), PostgresServer() as server:
        pin_server(int((server.folder / "data" / "postmaster.pid").read_text().split()[0]))
        yield server


def on_postgres(server: PostgresServer, vault: SoftwareVault, rounds: int, sizes: Sizes) -> Iterator[Line]:
    database, other = server.fresh_database(), server.fresh_database().owner_dsn
    migrate_postgres(database.owner_dsn, RUNTIME)
    with ExitStack() as stack:
        ours = stack.enter_context(engine(database.runtime_dsn, vault))
        stock = stack.enter_context(open_log(other, ours.mapper))
        with psycopg.connect(other) as connection:
            connection.execute(raw.POSTGRES_TABLE.format(name="raw_threads"))
            connection.execute(raw.POSTGRES_TABLE.format(name="raw_processes"))
        threads = stack.enter_context(closing(raw.PostgresThreads(other, "raw_threads")))
        processes = stack.enter_context(closing(raw.PostgresProcesses(other, "raw_processes")))
        yield from _appends(
            our_log(ours),
            TheirLog(stock),
            RawLog(ours.mapper, threads.insert, raw.CONNECTIONS),
            RawLog(ours.mapper, processes.insert, raw.CONNECTIONS),
            rounds,
            sizes,
        )
        sessions = stack.enter_context(StockSessions(other))
        yield from _commands(our_commands(ours, sizes.streams), TheirCommands(sessions, sizes.streams), rounds)
        yield _committer("PostgreSQL", ours, sizes)


def _appends(
    ours: OurLog, stock: TheirLog, threads: RawLog, processes: RawLog, rounds: int, sizes: Sizes
) -> Iterator[Line]:
    mine, theirs, in_threads, in_processes = medians(
        rounds,
        lambda: ours.append(sizes.ours),
        lambda: stock.append(sizes.stock),
        lambda: threads.append(sizes.raw),
        lambda: processes.append(sizes.raw),
    )
    what, best = f"PostgreSQL: append, {CALLERS} callers", max(in_processes, in_threads)
    yield faster(what, mine, "stock library", theirs, APPEND_STOCK)
    kind = "processes" if in_processes > in_threads else "threads"
    yield faster(what, mine, f"raw inserts, {raw.CONNECTIONS} {kind}", best, APPEND_RAW)


def _commands(ours: OurCommands, stock: TheirCommands, rounds: int) -> Iterator[Line]:
    fresh_many, fresh_one, many, one, stock_many, stock_one = medians(
        rounds,
        lambda: ours.many(kept=False),
        lambda: ours.one(kept=False),
        lambda: ours.many(kept=True),
        lambda: ours.one(kept=True),
        stock.many,
        stock.one,
    )
    what, library = f"PostgreSQL: command, {STREAM_LENGTH} events", "stock library"
    yield faster(f"{what}, {CALLERS} callers", many, library, stock_many, COMMAND_MANY)
    yield told("  no state kept, the whole stream is read", fresh_many, library, stock_many)
    yield faster(f"{what}, one caller", one, library, stock_one, COMMAND_ONE)
    yield told("  no state kept, the whole stream is read", fresh_one, library, stock_one)


def _committer(name: str, ours: Engine, sizes: Sizes) -> Line:
    through, direct = committer_and_direct(ours.recorder, ours.mapper, sizes.singles)
    return adds(f"{name}: append, one caller, through the committer", through, "recorder alone", direct, COMMITTER_MS)


def on_sqlite(folder: Path, vault: SoftwareVault, rounds: int, sizes: Sizes) -> Iterator[Line]:
    store = folder / "log.sqlite"
    migrate_sqlite(store)
    with engine(store, vault) as ours, closing(raw.SQLiteLoop(folder / "raw.sqlite")) as bare:
        log = our_log(ours)
        one_by_one = RawLog(ours.mapper, lambda shares: bare.insert(shares[0]), 1)
        mine, theirs = medians(rounds, lambda: log.append(sizes.ours), lambda: one_by_one.append(sizes.raw))
        yield faster(f"SQLite: append, {CALLERS} callers", mine, "raw loop, one commit each", theirs, APPEND_SQLITE)
        yield _committer("SQLite", ours, sizes)


def report(rounds: int, sizes: Sizes | None = None) -> bool:
    """Measure and print; whether every goal was met."""
    console = wide_console()
    sizes = sizes or Sizes()
    with tempfile.TemporaryDirectory() as folder, console.status("appends and commands"):
        vault = SoftwareVault.create(Path(folder) / "vault", Path(folder) / "bench.kek")
        with postgres() as server:
            lines = list(on_postgres(server, vault, rounds, sizes))
            lines += on_sqlite(Path(folder), vault, rounds, sizes)
        vault.close()
    return tell(console, f"The event store, medians of {rounds} rounds, all durable", lines)
