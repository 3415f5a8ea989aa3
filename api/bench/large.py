"""`make bench-large`: what becomes of the store's speed as its log grows from ten thousand to a million events.

The log goes on growing, so each size is what the one before became. At each the same is measured on both engines:
appends and commands of 64 callers, the command of one, 50 entries of a card's issuance history, a card's domain tree.
What is asked for is spread over all cards of the log. The log lies in a temporary folder, which goes with the run.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from api.bench.history import OPERATOR, Filler, iccid_of
from api.bench.postgres import RUNTIME
from api.bench.report import medians, on_other_core, wide_console
from api.bench.store import CALLERS, STORY, Callers, Engine, OurCommands, OurLog, engine, postgres
from projections import PROJECTIONS, domain_tree, event_index
from projections.event_index import EventFilter
from projections.opening import open_views
from projections.runner import Runner
from projections.viewer import EVERYTHING
from projections.views import Views
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.model.event import Context, Event
from tsm.model.session import SessionEnded
from tsm.store.migrations import migrate_postgres, migrate_sqlite

EVENTS = (10_000, 100_000, 1_000_000)
OCTETS = 5_000  # of disk for each event: both logs, their indexes, read models and what a database writes beside them
PAGE = 50  # entries
ROUNDS = 3
ASKED = 400  # cards, of each query
EACH = 40  # appends of each caller
COMMANDS = 512  # at most, in streams of their own


class Figures(NamedTuple):
    """What was measured at one size; times in milliseconds, medians."""

    append: float  # a second, 64 callers
    command: float  # a second, 64 callers
    command_ms: float  # one caller
    history_ms: float
    tree_ms: float


WORDS = (
    f"appends/s, {CALLERS} callers",
    f"commands/s, {CALLERS} callers",
    "command of one caller, ms",
    f"{PAGE} entries of an issuance history, ms",
    "domain tree of a card, ms",
)
CONTEXT = Context(actor="phone", role="phone", tenant=OPERATOR, correlation="bench")


class Growing:
    """A log that grows, and what is measured at each size."""

    def __init__(self, ours: Engine, views: Views, vault: SoftwareVault, progress: Progress) -> None:
        self._ours = ours
        self._views = views
        self._progress = progress
        self._callers = Callers()
        self._ended: list[str] = []
        self._filler = Filler(ours.recorder, vault, self._seen(self._callers.mixed()))
        self._random = Random(0)  # noqa: S311 - nothing secret is drawn

    def grow(self, events: int) -> Figures:
        """To that size, and measured there."""
        tsm = self._ours.tsm
        self._filler.fill(events - tsm.position, self._progress)
        Runner(tsm, self._views).catch_up()
        history = self._milliseconds(self._history)
        tree = self._milliseconds(lambda card: domain_tree.card(self._views, card))
        log = OurLog(tsm, self._callers)
        append, many, one = medians(
            ROUNDS,
            lambda: log.append(EACH),
            lambda: self._commands().many(kept=True),
            lambda: self._commands().one(kept=True),
        )
        return Figures(append, many, 1000 / one, history, tree)

    def _history(self, card: str) -> object:
        """The first events of a card's issuance history, whole."""
        rows = event_index.page(self._views, EVERYTHING, EventFilter(card=card), 0, None, PAGE)
        return self._ours.tsm.at([row.position for row in rows])

    def _seen(self, events: Iterator[Event]) -> Iterator[Event]:
        """Notes the sessions that commands will load."""
        for event in events:
            if isinstance(event.fact, SessionEnded):
                self._ended.append(event.originator_id)
            yield event

    def _commands(self) -> OurCommands:
        """Of sessions anywhere in the log, 13 to 67 events long."""
        streams = self._random.sample(self._ended, min(COMMANDS, len(self._ended)))
        return OurCommands(self._ours.tsm, streams, CONTEXT)

    def _milliseconds(self, ask: Callable[[str], object]) -> float:
        """The median of questions about cards anywhere in the log."""
        begun = max(1, self._ours.tsm.position // STORY - CALLERS)
        taken = []
        for _ in range(ASKED):
            card = iccid_of(self._random.randrange(begun))
            began = time.perf_counter()
            found = ask(card)
            taken.append((time.perf_counter() - began) * 1000)
            if not found:
                raise RuntimeError(f"nothing is known of {card}")
        return statistics.median(taken)


def on_postgres(vault: SoftwareVault, sizes: Sequence[int], progress: Progress) -> list[Figures]:
    with postgres() as server:
        database = server.fresh_database()
        migrate_postgres(database.owner_dsn, RUNTIME)
        return grown(database.runtime_dsn, Path(), vault, sizes, progress)


def on_sqlite(folder: Path, vault: SoftwareVault, sizes: Sequence[int], progress: Progress) -> list[Figures]:
    migrate_sqlite(folder / "log.sqlite")
    with on_other_core():
        return grown(folder / "log.sqlite", folder / "views.sqlite", vault, sizes, progress)


def grown(
    place: Path | str, views_file: Path, vault: SoftwareVault, sizes: Sequence[int], progress: Progress
) -> list[Figures]:
    with engine(place, vault) as ours, closing(open_views(place, views_file, PROJECTIONS)) as views:
        growing = Growing(ours, views, vault, progress)
        return [growing.grow(size) for size in sizes]


def refuse_without_room(folder: Path, octets: int) -> None:
    """`TsmError(STORE_UNAVAILABLE)`."""
    free = shutil.disk_usage(folder).free
    if free < octets:
        raise TsmError(
            ErrorCode.STORE_UNAVAILABLE, f"{octets / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} free"
        )


def report(_: int, sizes: Sequence[int] = EVENTS) -> bool:
    """Measure and print; nothing is promised here."""
    console = wide_console()
    with tempfile.TemporaryDirectory() as made:
        folder, octets = Path(made), sizes[-1] * OCTETS
        console.print(f"This takes up to {octets / 1e9:.1f} GB in {folder.parent} while it runs, and some minutes.")
        refuse_without_room(folder, octets)
        with (
            closing(SoftwareVault.create(folder / "vault", folder / "bench.kek")) as vault,
            Progress(console=console, transient=True) as progress,
        ):
            figures = {"SQLite": on_sqlite(folder, vault, sizes, progress)}
            figures["PostgreSQL"] = on_postgres(vault, sizes, progress)
    for name, of_engine in figures.items():
        tell(console, name, sizes, of_engine)
    return True


def tell(console: Console, name: str, sizes: Sequence[int], figures: Sequence[Figures]) -> None:
    table = Table(title=f"{name}, as the log grows")
    table.add_column("events")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    for word, *values in zip(WORDS, *figures, strict=True):
        table.add_row(word, *(f"{value:,.0f}" if value > 100 else f"{value:.2f}" for value in values))
    console.print(table)
