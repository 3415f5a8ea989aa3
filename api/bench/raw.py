"""The other side: the database used naively, one statement and one commit for each event.

The rows are made beforehand, as bytes; the table has the columns and the indexes of ours, and nothing that guards it.
"""

import multiprocessing
import os
import sqlite3
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier, Thread

import psycopg
from eventsourcing.persistence import StoredEvent

CONNECTIONS = 8
Rows = Sequence[tuple[str, int, str, bytes]]

POSTGRES_TABLE = """CREATE TABLE {name} (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  originator_id text COLLATE "C" NOT NULL,
  originator_version bigint NOT NULL,
  topic text COLLATE "C" NOT NULL,
  state bytea NOT NULL,
  recorded_at timestamptz NOT NULL,
  UNIQUE (originator_id, originator_version)
)"""
POSTGRES_INSERT = """INSERT INTO {name} (originator_id, originator_version, topic, state, recorded_at)
  VALUES (%b, %b, %b, %b, clock_timestamp()) RETURNING position"""
SQLITE_TABLE = """CREATE TABLE raw_event (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  originator_id TEXT NOT NULL,
  originator_version INTEGER NOT NULL,
  topic TEXT NOT NULL,
  state BLOB NOT NULL,
  recorded_at TEXT NOT NULL,
  UNIQUE (originator_id, originator_version)
) STRICT"""
SQLITE_INSERT = """INSERT INTO raw_event (originator_id, originator_version, topic, state, recorded_at)
  VALUES (?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))"""


def row_of(stored: StoredEvent) -> tuple[str, int, str, bytes]:
    return str(stored.originator_id), stored.originator_version, stored.topic, stored.state


def insert_all(connection: psycopg.Connection, table: str, rows: Rows) -> None:
    """A prepared statement, run and committed for each row; its position comes back."""
    cursor, query = connection.cursor(), POSTGRES_INSERT.format(name=table).encode()
    for row in rows:
        cursor.execute(query, row, prepare=True)
        cursor.fetchone()


class PostgresThreads:
    """Eight connections in eight threads of this process."""

    def __init__(self, dsn: str, table: str) -> None:
        self._table = table
        self._connections = [psycopg.connect(dsn, autocommit=True) for _ in range(CONNECTIONS)]

    def insert(self, shares: Sequence[Rows]) -> float:
        """Seconds until all is committed."""
        start = Barrier(len(shares) + 1)

        def work(connection: psycopg.Connection, rows: Rows) -> None:
            start.wait()
            insert_all(connection, self._table, rows)

        pairs = zip(self._connections, shares, strict=True)
        threads = [Thread(target=work, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        start.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class PostgresProcesses:
    """Eight connections in eight processes."""

    def __init__(self, dsn: str, table: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(CONNECTIONS):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_insert_on_demand, args=(dsn, table, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def insert(self, shares: Sequence[Rows]) -> float:
        """Seconds until all is committed."""
        for pipe, rows in zip(self._pipes, shares, strict=True):
            pipe.send(rows)
            pipe.recv()
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(None)
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - began

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()


def _insert_on_demand(dsn: str, table: str, pipe: Connection) -> None:
    """Rows come, then the word to begin."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        pipe.send(os.getpid())
        try:
            while True:
                rows = pipe.recv()
                pipe.send(len(rows))
                pipe.recv()
                insert_all(connection, table, rows)
                pipe.send(len(rows))
        except EOFError:
            return


class SQLiteLoop:
    """One connection, one commit after the other, as durable as ours."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(SQLITE_TABLE)

    def insert(self, rows: Rows) -> float:
        """Seconds until all is committed."""
        began = time.perf_counter()
        for row in rows:
            self._connection.execute(SQLITE_INSERT, row)
        return time.perf_counter() - began

    def rows(self) -> list[tuple[str, int, str, bytes]]:
        query = "SELECT originator_id, originator_version, topic, state FROM raw_event ORDER BY position"
        return self._connection.execute(query).fetchall()

    def close(self) -> None:
        self._connection.close()
