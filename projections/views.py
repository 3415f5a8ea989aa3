"""The file of the read models: their rows, how far each has read, and the events that could not be folded.

Nothing here is a source of truth. Delete the file and every row comes back from the log; the same happens to one read
model when its version is raised, for its tables carry the version in their names and those of other versions go.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsm.model.event import Event

POLL = 0.05  # seconds between looks when the runner works in another process
LOCK_TIMEOUT = 10.0  # seconds

OWN_TABLES: Mapping[str, str] = {
    "position": """CREATE TABLE position (
        projection TEXT PRIMARY KEY, version INTEGER NOT NULL, position INTEGER NOT NULL) STRICT""",
    "parked": """CREATE TABLE parked (
        projection TEXT NOT NULL, position INTEGER NOT NULL, topic TEXT NOT NULL, stream TEXT NOT NULL,
        error TEXT NOT NULL, PRIMARY KEY (projection, position)) STRICT""",
}


@dataclass(frozen=True)
class Projection:
    """One read model: one question, its tables, and how a page of events changes them."""

    name: str
    version: int  # raise it, and rename the tables, when rows of the same events would differ
    tables: Mapping[str, str]  # table name to CREATE TABLE; indexes after a semicolon
    fold: Callable[[sqlite3.Connection, Sequence[Event]], None]  # raises for an event that does not fit


@dataclass(frozen=True)
class Parked:
    """An event that a read model could not fold: it is missing there, and said to be missing."""

    projection: str
    position: int
    topic: str  # empty when the event could not even be read
    stream: str
    error: str  # kind and place of the error; never its text, which may quote data


class Views:
    """Opens or makes the file; one writer and one reader connection, safe to share between threads."""

    def __init__(self, path: Path, projections: Sequence[Projection]) -> None:
        self.projections = tuple(projections)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._writer, self._reader = connect(path), connect(path)
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._advanced = threading.Condition()
        with self.transaction() as connection:
            _prepare(connection, self.projections)

    def close(self) -> None:
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of one query."""
        with self._reading:
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several queries that see one and the same state."""
        with self._reading:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Rows and positions, together or not at all. Waiting readers are woken afterwards."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")
        with self._advanced:
            self._advanced.notify_all()

    def positions(self) -> dict[str, int]:
        """How far each read model has read."""
        return dict(self.read("SELECT projection, position FROM position"))

    @property
    def position(self) -> int:
        """How far all of them have read."""
        return min(self.positions().values(), default=0)

    def wait_for(self, position: int, timeout: float) -> bool:
        """Read your writes: waits until all have read up to `position`, or `timeout` seconds; whether they have."""
        deadline = time.monotonic() + timeout
        with self._advanced:
            while self.position < position:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._advanced.wait(min(remaining, POLL))
        return True

    def parked(self, projection: str) -> list[Parked]:
        """The events that this read model lacks, in order."""
        query = "SELECT projection, position, topic, stream, error FROM parked WHERE projection = ? ORDER BY position"
        return [Parked(*row) for row in self.read(query, (projection,))]

    def reset(self) -> None:
        """Forgets everything: the next page is the first of the log."""
        with self.transaction() as connection:
            for table in _tables(connection):
                connection.execute(f"DROP TABLE {table}")
            _prepare(connection, self.projections)


def connect(path: Path) -> sqlite3.Connection:
    """WAL, so that readers never wait for the writer. NORMAL is enough: what a power cut takes, the log gives again."""
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _prepare(connection: sqlite3.Connection, projections: Sequence[Projection]) -> None:
    """Makes what is missing, drops what no read model of this program knows."""
    found = _tables(connection)
    known = {**OWN_TABLES, **{name: make for p in projections for name, make in p.tables.items()}}
    for table in sorted(found - known.keys()):
        connection.execute(f"DROP TABLE {table}")
    for table in (name for name in known if name not in found):
        for statement in known[table].split(";"):
            connection.execute(statement)
    names = {projection.name for projection in projections}
    for (name,) in connection.execute("SELECT projection FROM position").fetchall():
        if name not in names:
            _forget(connection, name)
    for projection in projections:
        _begin_again_if_new(connection, projection)


def _begin_again_if_new(connection: sqlite3.Connection, projection: Projection) -> None:
    row = connection.execute("SELECT version FROM position WHERE projection = ?", (projection.name,)).fetchone()
    if row == (projection.version,):
        return
    _forget(connection, projection.name)
    connection.execute("INSERT INTO position VALUES (?, ?, 0)", (projection.name, projection.version))


def _forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM parked WHERE projection = ?", (name,))
    connection.execute("DELETE FROM position WHERE projection = ?", (name,))
