"""The read models in a SQLite file of their own.

One connection writes, for all owners of this process in turn, another reads. Ownership is a lock on a small file in the
folder beside: the operating system gives it up with the process that holds it.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock

from projections.projection import Kind, Projection, Row
from projections.views import CONTROL_TABLES, Generation, Gone, Owner, Result, Session, Views
from tsm.errors import ErrorCode, TsmError

BUSY_TIMEOUT = 10.0  # seconds that a writer waits for those of other processes
TYPES = {"text": "TEXT", "integer": "INTEGER"}


class SQLiteSession(Session):
    """A connection inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        with _refusing():
            return self._connection.execute(query, values).fetchall()

    def insert(self, table: str, width: int, rows: Sequence[Row]) -> None:
        with _refusing():
            self._connection.executemany(_insert(table, width), rows)

    def upsert(self, table: str, columns: Sequence[tuple[str, Kind]], rows: Sequence[Row]) -> None:
        key, *others = [name for name, _ in columns]
        sets = ", ".join(f"{name} = excluded.{name}" for name in others)
        with _refusing():
            query = f"{_insert(table, len(columns))} ON CONFLICT ({key}) DO UPDATE SET {sets}"
            self._connection.executemany(query, rows)

    def find(self, query: str, values: Collection[str | int]) -> list[Row]:
        return self.execute(f"{query} IN (SELECT value FROM json_each(?))", [json.dumps(list(values))])  # noqa: S608

    def create(self, table: str, columns: Sequence[tuple[str, Kind]]) -> None:
        (key, kind), *others = columns
        made = [f"{key} {TYPES[kind]} PRIMARY KEY NOT NULL", *(f"{n} {TYPES[k]} NOT NULL" for n, k in others)]
        self.execute(f"CREATE TABLE {table} ({', '.join(made)}) STRICT")


class SQLiteOwner(Owner):
    """Holds the lock on the generation's file."""

    def __init__(self, views: "SQLiteViews", projection: Projection, generation: int, descriptor: int) -> None:
        super().__init__(views, projection, generation)
        self._descriptor = descriptor

    def change(self) -> AbstractContextManager[Session]:
        return self._views.change()

    def release(self) -> None:
        os.close(self._descriptor)


class SQLiteViews(Views):
    """The file, made when it is missing, and a folder beside it for the owners' locks."""

    def __init__(self, path: Path, projections: Sequence[Projection]) -> None:
        """`TsmError(STORE_CORRUPT)` when it is no SQLite file."""
        super().__init__(projections)
        self._owners = path.with_suffix(".owners")
        self._owners.mkdir(mode=0o700, exist_ok=True)
        opening = self._lock("opening", fcntl.LOCK_EX)  # the switch to a write-ahead log needs the file for itself
        try:
            self._writer, self._writing = _connect(path), Lock()
            self._reader, self._reading = _connect(path), Lock()
            self._reader.execute("PRAGMA query_only=ON")
            with self.change() as session:
                for statement in CONTROL_TABLES:
                    session.execute(statement.format(**TYPES))
        finally:
            os.close(opening)

    def close(self) -> None:
        super().close()
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def look(self, work: Callable[[Session], Result]) -> Result:
        with _refusing(), self._reading:
            self._reader.execute("BEGIN")
            try:
                return work(SQLiteSession(self._reader))
            finally:
                self._reader.execute("COMMIT")

    @contextmanager
    def change(self) -> Iterator[Session]:
        with _refusing(), self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield SQLiteSession(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def own(self, projection: Projection, generation: int) -> Owner | None:
        try:
            descriptor = self._lock(f"{projection.name}-{generation}", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return SQLiteOwner(self, projection, generation, descriptor)

    def drop(self, generation: Generation) -> None:
        super().drop(generation)
        (self._owners / f"{generation.name}-{generation.generation}").unlink(missing_ok=True)

    def _lock(self, name: str, how: int) -> int:
        """The descriptor that holds the lock. `BlockingIOError` when it should not wait and would have to."""
        while True:
            descriptor = os.open(self._owners / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, how)
                if _is_same_file(descriptor, self._owners / name):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def tables(self, session: Session, prefix: str) -> list[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, ?) = ?"
        return [name for (name,) in session.execute(query, (len(prefix), prefix))]

    def take_turns(self, session: Session) -> None:
        """Nothing to do: there is one writer at a time."""


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether it still has this name: a lock on a file that was dropped meanwhile keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _connect(path: Path) -> sqlite3.Connection:
    """Private to its owner; readers never wait for the writer; what is committed survives a power cut."""
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA secure_delete=ON")  # ties of erased persons lie in no free page
    except sqlite3.DatabaseError as error:
        connection.close()
        raise TsmError(ErrorCode.STORE_CORRUPT, f"{path}: {error}") from error
    return connection


@contextmanager
def _refusing() -> Iterator[None]:
    """What is the machine's fault is said so; what is an event's fault stays as it is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise Gone from error
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, str(error)) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # of one of its kinds: what an event's rows may cause
            raise
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, str(error)) from error  # the file is damaged


@lru_cache(maxsize=64)
def _insert(table: str, width: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * width)})"  # noqa: S608 - declared names only
