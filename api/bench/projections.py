"""Rebuilds of the read models: ours, the stock library's runner, and a raw read of the same log, in one run.

The log is a realistic history with full envelopes and sealed fields. Every side folds with the same functions into the
same tables. A rebuild counts from the call to the switch: tables, rows, indexes, and the old ones dropped. The raw read
fetches all columns of all events through a binary server-side cursor and decodes nothing.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import psycopg
from eventsourcing.persistence import StoredEvent
from rich.progress import Progress

from api.bench import stock
from api.bench.history import Filler, History
from api.bench.postgres import RUNTIME, PostgresServer
from api.bench.report import Line, faster, medians, tell, told, wide_console
from api.bench.store import SAVED_TOGETHER, engine, postgres
from projections.building import clear_abandoned, rebuild
from projections.domain_tree import DOMAIN_TREE
from projections.folding import PAGE, fold
from projections.issuance_history import ISSUANCE_HISTORY
from projections.opening import open_views
from projections.projection import Projection
from projections.views import Views
from tsm.application import Tsm
from tsm.keys.vault import SoftwareVault
from tsm.model.event import Event
from tsm.model.topics import FACTS
from tsm.store.mapper import JsonMapper, Unseals
from tsm.store.migrations import migrate_postgres, migrate_sqlite

MEASURED = (ISSUANCE_HISTORY, DOMAIN_TREE)  # those that the goals are set for: of all events, and of few
SEED = 5
FETCHED = 5000  # rows of a raw fetch
EVERYTHING = b"""SELECT originator_id, originator_version, topic, state, position, recorded_at
  FROM tsm.event ORDER BY position"""
RUNNER, ONE_BY_ONE = 60.0, 20.0  # the goals
RAW_DOMAIN_TREE, RAW_ISSUANCE_HISTORY = 0.4, 0.2


class Sizes(NamedTuple):
    """Events of the log, and those that the slow sides read: more for `domain_tree`, which few of them concern."""

    log: int = 100_000
    slow: int = 2_000
    slow_domain_tree: int = 14_000

    def of(self, projection: Projection) -> int:
        return self.slow_domain_tree if projection is DOMAIN_TREE else self.slow


class ReadingMapper(JsonMapper):
    """Unseals for the library what the projection declares, and no more."""

    def __init__(self, vault: SoftwareVault, declared: Unseals) -> None:
        super().__init__(FACTS, vault)
        self._declared = declared

    def to_domain_event(self, stored_event: StoredEvent, unseals: Unseals | None = None) -> Event:
        return super().to_domain_event(stored_event, self._declared)


def rebuilt(tsm: Tsm, views: Views, projection: Projection) -> float:
    """Events a second."""
    began = time.perf_counter()
    rebuild(tsm, views, projection)
    return tsm.position / (time.perf_counter() - began)


def one_by_one(tsm: Tsm, views: Views, projection: Projection, number: int) -> float:
    """Events a second, of the first so many: the same pages and folds, but a transaction for each event."""
    clear_abandoned(views, projection)
    owner = views.begin(projection)
    if owner is None:
        raise RuntimeError(f"somebody builds {projection.name}")
    with owner:
        began, read, folded = time.perf_counter(), 0, 0
        while read < number:
            limit = min(PAGE, number - read)
            page = tsm.page(read, limit, projection.topics, projection.unseals, headings=projection.headings)
            for event in page.events:
                fold(owner, [event], folded, event.position)
                folded = event.position
            read = page.last
        return number / (time.perf_counter() - began)


def raw_read(dsn: str) -> float:
    """Events a second."""
    with psycopg.connect(dsn) as connection, connection.cursor("raw", binary=True) as cursor:
        began, rows = time.perf_counter(), 0
        cursor.execute(EVERYTHING)
        while fetched := cursor.fetchmany(FETCHED):
            rows += len(fetched)
        return rows / (time.perf_counter() - began)


class Runner:
    """The stock library's, with a log and a read model of its own."""

    def __init__(self, dsn: str, vault: SoftwareVault, projection: Projection, number: int) -> None:
        self._dsn = dsn
        self._mapper = ReadingMapper(vault, projection.unseals)
        self._projection = projection
        self._number = number
        self._names = (f"stock_{projection.name}_{run}" for run in count())
        events = islice(History(SEED).events(), number)
        with stock.open_log(dsn, self._mapper) as log:
            while some := list(islice(events, SAVED_TOGETHER)):
                log.save(*some)

    def run(self) -> float:
        """Events a second, from nothing."""
        return self._number / stock.project(self._dsn, self._mapper, self._projection, next(self._names))


def all_of_them(*rates: float) -> float:
    """The rate at which one after the other is done."""
    return 1 / sum(1 / rate for rate in rates)


def fill(place: Path | str, vault: SoftwareVault, number: int, progress: Progress) -> None:
    with engine(place, vault) as ours:
        Filler(ours.recorder, vault, History(SEED).events()).fill(number, progress)


def on_postgres(
    server: PostgresServer, vault: SoftwareVault, rounds: int, sizes: Sizes, progress: Progress
) -> Iterator[Line]:
    database = server.fresh_database()
    migrate_postgres(database.owner_dsn, RUNTIME)
    fill(database.runtime_dsn, vault, sizes.log, progress)
    with ExitStack() as stack:
        tsm = stack.enter_context(engine(database.runtime_dsn, vault)).tsm
        views = stack.enter_context(closing(open_views(database.runtime_dsn, Path(), MEASURED)))
        mine = [partial(rebuilt, tsm, views, projection) for projection in MEASURED]
        theirs = [Runner(server.fresh_database().owner_dsn, vault, p, sizes.of(p)).run for p in MEASURED]
        raw, *rates = medians(rounds, partial(raw_read, database.owner_dsn), *mine, *theirs)
    yield from _compared("PostgreSQL", "stock ProjectionRunner", rates, RUNNER)
    for projection, rate in zip(MEASURED, rates, strict=False):
        goal = RAW_DOMAIN_TREE if projection is DOMAIN_TREE else RAW_ISSUANCE_HISTORY
        yield faster(f"PostgreSQL: rebuild, {projection.name}", rate, "raw read", raw, goal)


def on_sqlite(folder: Path, vault: SoftwareVault, rounds: int, sizes: Sizes, progress: Progress) -> Iterator[Line]:
    store = folder / "log.sqlite"
    migrate_sqlite(store)
    fill(store, vault, sizes.log, progress)
    with engine(store, vault) as ours, closing(open_views(store, folder / "views.sqlite", MEASURED)) as views:
        mine = [partial(rebuilt, ours.tsm, views, projection) for projection in MEASURED]
        slow = [partial(one_by_one, ours.tsm, views, p, sizes.of(p)) for p in MEASURED]
        rates = medians(rounds, *mine, *slow)
    yield from _compared("SQLite", "one event at a time", rates, ONE_BY_ONE)


def _compared(engine_name: str, against: str, rates: Sequence[float], goal: float) -> Iterator[Line]:
    """Ours, then theirs, in the order of the read models. The goal is that of all together."""
    mine, theirs = rates[: len(MEASURED)], rates[len(MEASURED) :]
    what = f"{engine_name}: rebuild"
    yield faster(f"{what}, all read models", all_of_them(*mine), against, all_of_them(*theirs), goal)
    for projection, own, other in zip(MEASURED, mine, theirs, strict=True):
        yield told(f"  {projection.name}", own, against, other)


def report(rounds: int, sizes: Sizes | None = None) -> bool:
    """Measure and print; whether every goal was met."""
    console, sizes = wide_console(), sizes or Sizes()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vault = stack.enter_context(closing(SoftwareVault.create(folder / "vault", folder / "bench.kek")))
        progress = stack.enter_context(Progress(console=console, transient=True))
        server = stack.enter_context(postgres())
        lines = list(on_postgres(server, vault, rounds, sizes, progress))
        lines += on_sqlite(folder, vault, rounds, sizes, progress)
    return tell(console, f"Read models, {sizes.log:,} events, medians of {rounds} rounds", lines)
