"""The three engines, seen alike: a store, recorders on it, and an outsider who reads its rows."""

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent

from api.bench.postgres import Database
from tsm.store.memory import MemoryRecorder
from tsm.store.migrations import migrate_sqlite
from tsm.store.opening import open_recorder
from tsm.store.recorder import Clock, PayloadSealer, RecordedEvent, Recorder, utc_now

TOPIC = "sample.topic"
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TABLES = ("event", "payload", "person_index", "command", "migration")
OTHERS = "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
Row = tuple[object, ...]


class PlainSealer:
    """Seals nothing, where the test is not about sealing."""

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes:
        return plaintext

    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes:
        return sealed


class SettableClock:
    """Tells the real time until somebody sets it."""

    now: datetime | None = None

    def __call__(self) -> datetime:
        return self.now or utc_now()


class Entry(NamedTuple):
    """What of an event is decided by whoever appends it."""

    position: int
    stream: str
    version: int
    state: bytes


def stored(stream: str = "card-1", version: int = 1, state: bytes = b"{}", topic: str = TOPIC) -> StoredEvent:
    return StoredEvent(stream, version, topic, state)


def entries(found: Sequence[RecordedEvent]) -> list[Entry]:
    return [Entry(e.id, str(e.originator_id), e.originator_version, e.state) for e in found]


def whole_log(recorder: Recorder) -> list[RecordedEvent]:
    return list(recorder.select_notifications(None, 10**6))


class Engine(ABC):
    """One store."""

    name: str
    place: Path | str  # for whoever else opens the store; none can where it is in memory

    def __init__(self, sealer: PayloadSealer) -> None:
        self.sealer = sealer
        self.clock = SettableClock()
        self._opened: list[Recorder] = []

    def open(self) -> Recorder:
        """A recorder as the server of another process has it; in memory there is only one."""
        self._opened.append(self._open(self.clock))
        return self._opened[-1]

    def close(self) -> None:
        for recorder in self._opened:
            recorder.close()

    @abstractmethod
    def _open(self, clock: Clock) -> Recorder: ...

    @abstractmethod
    def rows(self, table: str) -> list[Row]:
        """All rows of a table, as an outsider sees them, in an order that does not change."""

    @abstractmethod
    def exchange_payloads(self) -> None:
        """As an outsider: the two sealed payloads of stream "s" change places."""

    def wait_for_the_dead(self) -> None:  # noqa: B027 - on most engines there is nothing to wait for
        """Until nothing is done any more for processes that were killed."""

    def everything(self) -> dict[str, list[Row]]:
        return {table: self.rows(table) for table in TABLES}


class MemoryEngine(Engine):
    name = "memory"

    def __init__(self, sealer: PayloadSealer) -> None:
        super().__init__(sealer)
        self._recorder = MemoryRecorder(sealer, self.clock)

    def _open(self, clock: Clock) -> Recorder:
        return self._recorder

    def rows(self, table: str) -> list[Row]:
        recorder = self._recorder
        kept: dict[str, list[Row]] = {
            "event": [(e,) for e in recorder._log],
            "payload": sorted((*place, sealed) for place, sealed in recorder._payloads.items()),
            "person_index": sorted(recorder._index.values()),
            "command": sorted(recorder._commands.values()),
            "migration": [],
        }
        return kept[table]

    def exchange_payloads(self) -> None:
        kept = self._recorder._payloads
        first, second = [place for place in kept if place[0] == "s"]
        kept[first], kept[second] = kept[second], kept[first]


class SQLiteEngine(Engine):
    name = "sqlite"

    def __init__(self, sealer: PayloadSealer, folder: Path) -> None:
        super().__init__(sealer)
        self.place = folder / "log.sqlite"
        migrate_sqlite(self.place)

    def _open(self, clock: Clock) -> Recorder:
        return open_recorder(self.place, self.sealer, clock)

    def rows(self, table: str) -> list[Row]:
        with closing(self.raw()) as outsider:
            return outsider.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608 - one of TABLES

    def exchange_payloads(self) -> None:
        with closing(self.raw()) as outsider, outsider:
            rows = outsider.execute("SELECT name, sealed FROM payload WHERE stream = 's'").fetchall()
            for (name, _), (_, sealed) in zip(rows, reversed(rows), strict=True):
                outsider.execute("UPDATE payload SET sealed = ? WHERE stream = 's' AND name = ?", (sealed, name))

    def raw(self) -> sqlite3.Connection:
        """Any program that opens the file; it leaves the guards as they are. Not while processes share the file."""
        return sqlite3.connect(self.place)


class PostgresEngine(Engine):
    name = "postgresql"

    def __init__(self, sealer: PayloadSealer, database: Database) -> None:
        super().__init__(sealer)
        self.database = database
        self.place = database.runtime_dsn

    def _open(self, clock: Clock) -> Recorder:
        return open_recorder(self.place, self.sealer, clock)

    def rows(self, table: str) -> list[Row]:
        with self.owner() as owner:
            return owner.execute(f"SELECT * FROM tsm.{table} ORDER BY 1, 2".encode()).fetchall()  # noqa: S608 - as above

    def exchange_payloads(self) -> None:
        with self.owner() as owner:
            owner.execute(
                "UPDATE tsm.payload SET sealed = (SELECT other.sealed FROM tsm.payload AS other"
                " WHERE other.stream = 's' AND other.name <> payload.name) WHERE stream = 's'"
            )

    def wait_for_the_dead(self) -> None:
        with self.runtime() as runtime:
            while any(state != "idle" for _, state in runtime.execute(OTHERS)):
                time.sleep(0.01)

    def break_connections(self) -> None:
        """Those of all recorders, as at a restart."""
        with self.runtime() as runtime:
            pids = {pid for pid, _ in runtime.execute(OTHERS)}
            for pid in pids:
                runtime.execute("SELECT pg_terminate_backend(%s)", (pid,))
            while pids & {pid for pid, _ in runtime.execute(OTHERS)}:
                time.sleep(0.005)

    def owner(self) -> "psycopg.Connection[Row]":
        return psycopg.connect(self.database.owner_dsn, autocommit=True)

    def runtime(self) -> "psycopg.Connection[Row]":
        """Whoever has the server's password, and a client of his own."""
        return psycopg.connect(self.database.runtime_dsn, autocommit=True)


def make(name: str, sealer: PayloadSealer, request: pytest.FixtureRequest) -> Engine:
    if name == "memory":
        return MemoryEngine(sealer)
    if name == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return SQLiteEngine(sealer, folder)
    return PostgresEngine(sealer, request.getfixturevalue("postgres_store"))
