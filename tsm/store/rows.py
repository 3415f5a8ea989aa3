"""The rows of a store as they lie there, on both engines, whatever became of its guards.

For whoever looks at a store from outside its recorder: `check`, `export` and `import`. Events come in pages, each read
by itself, so that a long reading holds up nobody; what was committed before it began does not change meanwhile. Inside
`snapshot` all is read as it was at one moment.
"""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tsm.errors import ErrorCode, TsmError
from tsm.keys.database import open_database
from tsm.store.dsn import check_dsn
from tsm.store.guards import postgres_faults, sqlite_faults
from tsm.store.migrations import postgres_number, refuse_other, sqlite_number
from tsm.store.opening import is_postgresql
from tsm.store.recorder import MOST

PAGE = 2000  # rows
CONNECT_TIMEOUT = 5  # seconds
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


class EventRow(NamedTuple):
    """A row of the log. `recorded_at` is 2026-11-21T02:12:00.000000Z on both engines."""

    position: int
    stream: str
    version: int
    topic: str
    state: bytes
    recorded_at: str


class PayloadRow(NamedTuple):
    stream: str
    name: str
    sealed: bytes


class PersonIndexRow(NamedTuple):
    index_value: str
    stream: str
    subject: str


class CommandRow(NamedTuple):
    id: str
    digest: str
    first: int
    last: int
    head: int
    keep_until: str


class Rows(ABC):
    """A store that is only read."""

    mark: str  # of a value in a statement
    schema: str  # before the name of a table
    time: str  # a column of times as text

    @abstractmethod
    def faults(self) -> list[str]:
        """What is otherwise than our migrations made it."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """A context in which everything is read as of its beginning."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a statement, which is written with `?` for values and `{event}` for tables."""

    def head(self) -> int:
        [(head,)] = self.select("SELECT coalesce(max(position), 0) FROM {event}")
        return int(head)

    def given(self) -> int:
        """The last position that was ever given, as far as the database remembers."""
        return self.head()

    def in_order(self, after: int = 0, upto: int = MOST) -> Iterator[EventRow]:
        """In the order of the log."""
        while True:
            page = self.select(
                "SELECT {columns} FROM {event} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
                after,
                upto,
                PAGE,
            )
            yield from map(EventRow._make, page)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def by_stream(self, upto: int = MOST) -> Iterator[EventRow]:
        """Stream after stream, each in the order of its versions."""
        stream, version = "", -1
        while True:
            page = self.select(
                "SELECT {columns} FROM {event} WHERE (originator_id, originator_version) > (?, ?)"
                " AND position <= ? ORDER BY originator_id, originator_version LIMIT ?",
                stream,
                version,
                upto,
                PAGE,
            )
            yield from map(EventRow._make, page)
            if len(page) < PAGE:
                return
            stream, version = page[-1][1:3]

    def times(self, upto: int) -> Iterator[tuple[int, str]]:
        """Positions and recorded_at only."""
        after = -MOST
        while True:
            page = self.select(
                "SELECT position, {recorded_at} FROM {event} WHERE position > ? AND position <= ?"
                " ORDER BY position LIMIT ?",
                after,
                upto,
                PAGE,
            )
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def payloads(self) -> Iterator[PayloadRow]:
        """One after another, for one may be large."""
        for stream, name in self.select("SELECT stream, name FROM {payload} ORDER BY stream, name"):
            rows = self.select("SELECT stream, name, sealed FROM {payload} WHERE stream = ? AND name = ?", stream, name)
            yield from map(PayloadRow._make, rows)  # none when it was dropped meanwhile

    def index_rows(self) -> Iterator[PersonIndexRow]:
        value = stream = ""
        while True:
            page = self.select(
                "SELECT index_value, stream, subject FROM {person_index} WHERE (index_value, stream) > (?, ?)"
                " ORDER BY index_value, stream LIMIT ?",
                value,
                stream,
                PAGE,
            )
            yield from map(PersonIndexRow._make, page)
            if len(page) < PAGE:
                return
            value, stream = page[-1][:2]

    def commands(self) -> Iterator[CommandRow]:
        after = ""
        while True:
            page = self.select(
                "SELECT id, digest, first, last, head, {keep_until} FROM {command} WHERE id > ? ORDER BY id LIMIT ?",
                after,
                PAGE,
            )
            yield from map(CommandRow._make, page)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def strays(self) -> list[tuple[str | None, str]]:
        """Rows beside the log that refer to what is not in it: the stream, if it is of one, and what is wrong."""
        payloads = self.select(
            "SELECT DISTINCT stream FROM {payload} AS p WHERE NOT EXISTS"
            " (SELECT 1 FROM {event} WHERE originator_id = p.stream AND originator_version = 1) ORDER BY stream"
        )
        index_rows = self.select(
            "SELECT DISTINCT stream FROM {person_index} AS p WHERE NOT EXISTS"
            " (SELECT 1 FROM {event} WHERE originator_id = p.stream AND originator_version = 1) ORDER BY stream"
        )
        commands = self.select(
            "SELECT id FROM {command} WHERE first < 1 OR last < first - 1 OR head < last"
            " OR head > (SELECT coalesce(max(position), 0) FROM {event}) ORDER BY id"
        )
        return [
            *((stream, "a payload of a stream without events") for (stream,) in payloads),
            *((stream, "an index row of a stream without events") for (stream,) in index_rows),
            *((None, f"command {id_} names positions that are not in the log") for (id_,) in commands),
        ]

    def _statement(self, query: str) -> str:
        """`{event}` is a table, `{recorded_at}` a column as text, `{columns}` those of an `EventRow`."""
        recorded_at = self.time.format("recorded_at")
        return query.format(
            event=f"{self.schema}event",
            payload=f"{self.schema}payload",
            person_index=f"{self.schema}person_index",
            command=f"{self.schema}command",
            columns=f"position, originator_id, originator_version, topic, state, {recorded_at}",
            recorded_at=recorded_at,
            keep_until=self.time.format("keep_until"),
        ).replace("?", self.mark)


class SQLiteRows(Rows):
    """A file."""

    mark, schema, time = "?", "", "{}"

    def __init__(self, path: Path) -> None:
        """`TsmError`: NOT_FOUND, STORE_FORMAT, STORE_CORRUPT."""
        if not path.exists():
            raise TsmError(ErrorCode.NOT_FOUND, f"{path}: no store was made here")
        self._connection = open_database(path)
        try:
            with _reading_sqlite():
                self._connection.execute("PRAGMA query_only=ON")
                refuse_other(sqlite_number(self._connection))
        except BaseException:
            self._connection.close()
            raise

    def faults(self) -> list[str]:
        with _reading_sqlite():
            return sqlite_faults(self._connection)

    def given(self) -> int:
        [(given,)] = self.select("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)")
        return int(given)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            self.select("SELECT 1 FROM {event} LIMIT 1")  # a transaction begins with its first look
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _reading_sqlite():
            return self._connection.execute(self._statement(query), values).fetchall()


class PostgresRows(Rows):
    """A database, reached as any role that may read."""

    mark, schema = "%s", "tsm."
    time = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

    def __init__(self, dsn: str) -> None:
        """`TsmError`: STORE_UNAVAILABLE, STORE_FORMAT, INVALID_INPUT."""
        check_dsn(dsn)
        try:
            self._connection = psycopg.connect(
                dsn, autocommit=True, options="-c timezone=UTC", connect_timeout=CONNECT_TIMEOUT
            )
        except psycopg.OperationalError as error:
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(error)) from None
        try:
            refuse_other(postgres_number(self._connection))
        except psycopg.errors.InsufficientPrivilege:
            self._connection.close()
            raise TsmError(ErrorCode.STORE_FORMAT, "this role has no rights here") from None
        except BaseException:
            self._connection.close()
            raise

    def faults(self) -> list[str]:
        with _reading_postgres():
            return postgres_faults(self._connection)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with _reading_postgres():
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            if not self._connection.closed:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _reading_postgres():
            return self._connection.execute(self._statement(query).encode(), values, binary=True).fetchall()


def open_rows(place: str | Path) -> Rows:
    """`TsmError`: NOT_FOUND, STORE_FORMAT, STORE_CORRUPT, STORE_UNAVAILABLE, INVALID_INPUT."""
    if is_postgresql(place):
        return PostgresRows(str(place))
    return SQLiteRows(Path(place))


@contextmanager
def _reading_sqlite() -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # a name that is no text is damage, too
        raise TsmError(ErrorCode.STORE_CORRUPT, f"it cannot be read: {error}") from error


@contextmanager
def _reading_postgres() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(error)) from None
    except psycopg.Error as error:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"it cannot be read: {_words(error)}") from None


def is_time(text: str | None) -> bool:
    """Whether it is a time in the one form in which we write times."""
    if text is None or not TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _words(error: Exception) -> str:
    """The first line: what follows may quote the data."""
    return str(error).partition("\n")[0].strip()
