"""The log in one SQLite file.

The database itself refuses UPDATE, DELETE and every INSERT that is not the next in the log and in its stream: INSERT OR
REPLACE walks past triggers on UPDATE and DELETE, but not past one before INSERT. A batch is inserted by few statements
with many rows, for each statement hands the interpreter over to other threads and has to ask for it back.

Several threads share one recorder, several processes one file.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from eventsourcing.persistence import IntegrityError

from tsm.errors import ErrorCode, TsmError
from tsm.keys.database import BUSY_TIMEOUT, erase_remains, open_database, writing
from tsm.store.migrations import refuse_other_sqlite
from tsm.store.recorder import (
    MOST,
    Append,
    Clock,
    Command,
    Heading,
    IndexRow,
    PayloadSealer,
    Recorded,
    RecordedEvent,
    Recorder,
    answered_before,
    refuse_overlap,
    utc_now,
)

COLUMNS = "position, originator_id, originator_version, topic, state, recorded_at"
HEADINGS = """SELECT position, originator_id, originator_version, topic FROM event
  WHERE position > ? AND position <= ? ORDER BY position"""
LAST = "SELECT position, recorded_at FROM event ORDER BY position DESC LIMIT 1"
CHANGED = """SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?) WHERE
  json_extract(value, '$[2]') <> coalesce(
    (SELECT max(originator_version) FROM event WHERE originator_id = json_extract(value, '$[1]')), 0)"""
ROWS = 500  # of one INSERT: SQLite binds 32766 values at most


class SQLiteRecorder(Recorder):
    """One file, made by `tsm.store.migrations`."""

    def __init__(self, path: Path, sealer: PayloadSealer, clock: Clock = utc_now) -> None:
        """`TsmError`: NOT_FOUND without a file, STORE_FORMAT for another format, STORE_CORRUPT when it is damaged."""
        super().__init__(sealer, clock)
        if not path.exists():
            raise TsmError(ErrorCode.NOT_FOUND, f"{path}: no store was made here")
        self._writer, self._writer_lock = open_database(path, erasing=True), Lock()
        try:
            with _refusing():
                refuse_other_sqlite(self._writer)
            self._reader, self._reader_lock = open_database(path), Lock()
            self._reader.execute("PRAGMA query_only=ON")
            self.head = self.max_notification_id() or 0
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._writer.close()
            self._reader.close()

    def append(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        with self._writer_lock:
            return self._record(batch)

    def append_at_once(self, batch: Sequence[Append]) -> list[Recorded | Exception] | None:
        if not self._writer_lock.acquire(blocking=False):
            return None
        try:
            self._writer.execute("PRAGMA busy_timeout=0")
            return self._record(batch)
        except TsmError as error:
            if _is_busy(error):
                return None
            raise
        finally:
            self._writer.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000:.0f}")
            self._writer_lock.release()

    def _record(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        refuse_overlap(batch)
        sealed = [self._seal(append) for append in batch]
        with _refusing(), writing(self._writer) as transaction:
            outcomes = self._append(transaction, batch)
            for append, payloads, outcome in zip(batch, sealed, outcomes, strict=True):
                if isinstance(outcome, Recorded) and not outcome.repeated:
                    _write_beside(transaction, append, payloads, outcome)
        self.tell_committed(max((o.head for o in outcomes if isinstance(o, Recorded)), default=0))
        return outcomes

    def prune(self, now: datetime) -> int:
        with _refusing(), self._writer_lock, writing(self._writer) as transaction:
            return transaction.execute("DELETE FROM command WHERE keep_until < ?", (_text(now),)).rowcount

    def erase_remains(self) -> None:
        """What is deleted is overwritten with zeros at once, but the write-ahead log keeps pages as they were."""
        with _refusing(), self._writer_lock:
            erase_remains(self._writer)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[RecordedEvent]:
        return self._select(
            "originator_id = ? AND originator_version BETWEEN ? AND ?",
            [str(originator_id), 0 if gt is None else gt + 1, MOST if lte is None else lte],
            f"originator_version {'DESC' if desc else 'ASC'}",
            limit,
        )

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[RecordedEvent]:
        first = 0 if start is None else start if inclusive_of_start else start + 1
        condition, values = "position BETWEEN ? AND ?", [first, MOST if stop is None else stop, *topics]
        if topics:
            condition += f" AND topic IN ({', '.join('?' * len(topics))})"
        return self._select(condition, values, "position", limit)

    def select_headings(self, after: int, last: int) -> Sequence[Heading]:
        with self._reading() as reader:
            return list(map(Heading._make, reader.execute(HEADINGS, (after, last))))

    def select_positions(self, positions: Sequence[int]) -> Sequence[RecordedEvent]:
        condition = "position IN (SELECT value FROM json_each(?))"
        return self._select(condition, [json.dumps(list(positions))], "position", None)

    @property
    def last_recorded_at(self) -> datetime | None:
        row = self._read_one(LAST)
        return None if row is None else datetime.fromisoformat(row[1])

    def max_notification_id(self) -> int | None:
        row = self._read_one(LAST)
        return None if row is None else int(row[0])

    def payload(self, stream: str, name: str) -> bytes | None:
        row = self._read_one("SELECT sealed FROM payload WHERE stream = ? AND name = ?", stream, name)
        return None if row is None else self._sealer.unseal_payload(stream, name, row[0])

    def indexed(self, index: str) -> list[IndexRow]:
        query = "SELECT index_value, stream, subject FROM person_index WHERE index_value = ? ORDER BY stream"
        with self._reading() as reader:
            return [IndexRow(*row) for row in reader.execute(query, (index,))]

    def indexed_many(self, indexes: Sequence[str]) -> list[IndexRow]:
        query = """SELECT index_value, stream, subject FROM person_index
          WHERE index_value IN (SELECT value FROM json_each(?)) ORDER BY index_value, stream"""
        with self._reading() as reader:
            return list(map(IndexRow._make, reader.execute(query, (json.dumps(list(indexes)),))))

    def select_streams(self, streams: Sequence[str], *, lte: int | None = None) -> Sequence[RecordedEvent]:
        return self._select(
            "originator_id IN (SELECT value FROM json_each(?)) AND originator_version <= ?",
            [json.dumps(list(streams)), MOST if lte is None else lte],
            "originator_id, originator_version",
            None,
        )

    def answered(self, command: Command) -> Recorded | None:
        with self._reading() as reader:
            return _answered(reader, command)

    def _append(self, transaction: sqlite3.Connection, batch: Sequence[Append]) -> list[Recorded | Exception]:
        head, last = transaction.execute(LAST).fetchone() or (0, None)
        recorded_at = _text(self._not_before(self._now(), None if last is None else datetime.fromisoformat(last)))
        refused = _refusals(transaction, batch)
        outcomes: list[Recorded | Exception] = []
        rows: list[Sequence[object]] = []
        for number, append in enumerate(batch):
            known = _known(transaction, append) or refused.get(number)
            if known is not None:
                outcomes.append(known)
                continue
            first = head + 1
            for head, event in enumerate(append.events, first):
                stream = str(event.originator_id)
                rows.append((head, stream, event.originator_version, event.topic, event.state, recorded_at))
            outcomes.append(Recorded(range(first, head + 1), head))
        for part in _parts(rows):
            transaction.execute(_insert(len(part)), [value for row in part for value in row])
        return outcomes

    def _select(self, condition: str, values: Sequence[object], order: str, limit: int | None) -> list[RecordedEvent]:
        query = f"SELECT {COLUMNS} FROM event WHERE {condition} ORDER BY {order} LIMIT ?"  # noqa: S608 - constants only
        with self._reading() as reader:
            rows = reader.execute(query, (*values, -1 if limit is None else limit)).fetchall()
        return [
            RecordedEvent(stream, version, topic, state, position, datetime.fromisoformat(recorded_at))
            for position, stream, version, topic, state, recorded_at in rows
        ]

    def _read_one(self, query: str, *values: object) -> Any:
        with self._reading() as reader:
            return reader.execute(query, values).fetchone()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _refusing(), self._reader_lock:
            yield self._reader


@contextmanager
def _refusing() -> Iterator[None]:
    """What SQLite says becomes what we say."""
    try:
        yield
    except sqlite3.OperationalError as error:  # locked, full, not to be read
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, str(error)) from error
    except (sqlite3.DatabaseError, ValueError) as error:  # a guard refused; a page or a time is damaged
        raise TsmError(ErrorCode.STORE_CORRUPT, str(error)) from error


def _is_busy(error: TsmError) -> bool:
    """Another process writes. A transaction learns that when it begins, before anything is done."""
    return getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _refusals(transaction: sqlite3.Connection, batch: Sequence[Append]) -> dict[int, Exception]:
    """By their numbers, the appends that rest on what is no longer so."""
    refused: dict[int, Exception] = {}
    wanted: list[tuple[int, str, int]] = []
    for number, append in enumerate(batch):
        try:
            wanted += [(number, stream, version) for stream, version in append.rests_on().items()]
        except IntegrityError as error:
            refused[number] = error
    for number, stream in transaction.execute(CHANGED, (json.dumps(wanted),)):
        refused.setdefault(number, IntegrityError(f"{stream} has gone on, or is not there yet"))
    return refused


def _known(transaction: sqlite3.Connection, append: Append) -> Recorded | Exception | None:
    if append.command is None:
        return None
    try:
        return _answered(transaction, append.command)
    except TsmError as reused:
        return reused


def _answered(connection: sqlite3.Connection, command: Command) -> Recorded | None:
    query = "SELECT digest, first, last, head FROM command WHERE id = ?"
    return answered_before(connection.execute(query, (command.id,)).fetchone(), command)


def _write_beside(
    transaction: sqlite3.Connection,
    append: Append,
    payloads: Sequence[tuple[str, str, bytes]],
    recorded: Recorded,
) -> None:
    """What lies beside the log: most appends have none of it, or one."""
    if append.drop_payloads:
        transaction.executemany("DELETE FROM payload WHERE stream = ?", [(s,) for s in append.drop_payloads])
    if payloads:
        transaction.executemany("INSERT OR REPLACE INTO payload VALUES (?, ?, ?)", payloads)
    if append.drop_index:
        transaction.executemany("DELETE FROM person_index WHERE subject = ?", [(s,) for s in append.drop_index])
    if append.put_index:
        transaction.executemany("INSERT OR REPLACE INTO person_index VALUES (?, ?, ?)", append.put_index)
    if append.command is not None:
        id_, digest, keep_until = append.command
        first, last = recorded.positions.start, recorded.positions.stop - 1
        values = (id_, digest, first, last, recorded.head, _text(keep_until))
        transaction.execute("INSERT INTO command VALUES (?, ?, ?, ?, ?, ?)", values)


def _parts(rows: Sequence[Sequence[object]]) -> Iterator[Sequence[Sequence[object]]]:
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]


@lru_cache(maxsize=ROWS)
def _insert(rows: int) -> str:
    return f"INSERT INTO event ({COLUMNS}) VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * rows)}"  # noqa: S608 - constants


def _text(time: datetime) -> str:
    """2026-11-21T02:12:00.000000Z: text order is time order."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
