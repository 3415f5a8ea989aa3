"""A measured server: its data on one engine, and its process on a core of its own.

The data of both engines are made at once, in a process for each. What is measured afterwards finds a quiet machine: the
server has nothing left to do, and the disk has taken what was written.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import Progress

from api import administration
from api.bench.postgres import RUNTIME, PostgresServer
from api.bench.report import SERVER_CORE, on_other_core
from api.bench.store import engine
from api.bootstrap import CONFIG_FILE, STORE, VIEWS_FILE, Settings
from api.demo.stage import Server
from projections import PROJECTIONS
from projections.building import rebuild
from projections.opening import open_views
from projections.projection import Projection
from tsm.keys.vault import SoftwareVault
from tsm.store.migrations import migrate_postgres

HOST = "127.0.0.1"
PORT = 8443  # of its address; where it listens is another
SQLITE, POSTGRES = "SQLite", "PostgreSQL"
UNLIMITED = 10**12  # a minute: the budget of clients is not what is measured
QUIET = 0.5  # seconds between looks whether the server has come to rest
IDLE = 0.2  # of a core
RESTS_WITHIN = 900.0  # seconds


class OpenSite:
    """A server's data, open. Whoever has it open is no server."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self.data = data
        self.settings = settings = Settings.load(data)
        self.vault = SoftwareVault.open(data / "vault", settings.kek_file, os.urandom, settings.destroyed_keys)
        stack.callback(self.vault.close)
        log = stack.enter_context(engine(settings.store_place, self.vault))
        self.recorder, self.tsm = log.recorder, log.tsm
        self.views = stack.enter_context(closing(open_views(settings.store_place, data / VIEWS_FILE, PROJECTIONS)))

    def rebuild(self, projections: Sequence[Projection], progress: Progress) -> None:
        head = self.tsm.position
        for projection in projections:
            task = progress.add_task(projection.name, total=head)
            rebuild(self.tsm, self.views, projection, lambda at, task=task: progress.update(task, completed=at))  # type: ignore[misc]


def set_up(data: Path, store: str, **settings: Any) -> None:
    """An empty site."""
    administration.initialise(data, data.with_suffix(".kek"), HOST, PORT, store)
    change_settings(data, **settings)


def change_settings(data: Path, **settings: Any) -> None:
    file = data / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_bytes()) | settings))


@contextmanager
def stores(folder: Path) -> Iterator[Mapping[str, tuple[Path, str]]]:
    """Of each engine: where its data belong, and what its store is called in the settings."""
    with ExitStack() as stack:
        with on_other_core():  # it stays there
            server = stack.enter_context(PostgresServer())
        database = server.fresh_database()
        migrate_postgres(database.owner_dsn, RUNTIME)
        yield {SQLITE: (folder / "sqlite", STORE), POSTGRES: (folder / "postgresql", database.runtime_dsn)}


def at_once(progress: Progress, what: str, work: Mapping[str, partial[None]]) -> None:
    """Each in a process of its own, where nobody sees how far it has come. Raises what the first to fail raised."""
    tasks = {name: progress.add_task(f"{name}: {what}", total=None) for name in work}
    with ProcessPoolExecutor(len(work), get_context("spawn")) as pool:
        begun = {name: pool.submit(one) for name, one in work.items()}
        for name, future in begun.items():
            future.result()
            progress.update(tasks[name], total=1, completed=1)


@contextmanager
def serving(data: Path, measured: str) -> Iterator[Server]:
    """A server process on its core; which, is said as in `api.bench.__main__`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})  # what is started now has it from the first thread on
    try:
        server = Server("api", ["api.bench", measured, "--data", str(data)], data.with_suffix(".log"))
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield server
    finally:
        server.stop()


def cpu_ms(pid: int) -> float:
    """Milliseconds that all threads of a process have had a core, from the kernel's scheduler."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def rests(server: Server) -> None:
    """Returns when all who read along have read what there is, the server has nothing to do, and all is on the disk:
    whoever commits while gigabytes are written back waits for them."""
    ends, quiet = time.monotonic() + RESTS_WITHIN, 0
    while quiet < 3:
        before = cpu_ms(server.pid)
        time.sleep(QUIET)
        quiet = quiet + 1 if cpu_ms(server.pid) - before < IDLE * QUIET * 1000 else 0
        if time.monotonic() > ends:
            raise RuntimeError(f"the server does not come to rest: see {server.log}")
    os.sync()
