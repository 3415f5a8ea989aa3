"""The log: one SQLite file in which an event, once recorded, can neither be changed nor removed.

Position order is commit order and has no gap, nor has a stream. The database itself refuses UPDATE, DELETE and every
INSERT that is not the next in the log and in its stream: INSERT OR REPLACE walks past triggers on UPDATE and DELETE,
but not past one before INSERT. `recorded_at` is stamped inside the write transaction and never decreases along
positions: a clock that jumps back is held at the last recorded time, counted and reported.

Beside the log lies a table of payloads: what is needed for a while only (delegated commands, the bytes that a repeated
request must get again). Payloads are sealed before they touch the file, and change in the transaction of the events
that make them needed or needless.

Several threads share one recorder, several processes one file.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Lock
from typing import Any, NoReturn, Protocol
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    OperationalError,
    StoredEvent,
    Subscription,
)

from tsm.errors import ErrorCode, TsmError
from tsm.keys.database import open_database, writing

FORMAT = 1
NOT_NEXT_IN_STREAM = "this version of the stream exists, or does not follow the last one"

TABLES = """
CREATE TABLE IF NOT EXISTS format (number INTEGER NOT NULL) STRICT;

CREATE TABLE IF NOT EXISTS event (
  position INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, even if the last row were cut off
  originator_id TEXT NOT NULL,
  originator_version INTEGER NOT NULL,
  topic TEXT NOT NULL,
  state BLOB NOT NULL,
  recorded_at TEXT NOT NULL CHECK (length(recorded_at) = 27), -- 2026-11-21T02:12:00.000000Z: text order is time order
  UNIQUE (originator_id, originator_version)
) STRICT;

CREATE TABLE IF NOT EXISTS payload (
  stream TEXT NOT NULL,
  name TEXT NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;
"""

GUARDS = {
    "event_is_appended": f"""CREATE TRIGGER event_is_appended BEFORE INSERT ON event BEGIN
  SELECT RAISE(ABORT, 'a position follows the last one')
    WHERE NEW.position <> 1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0);
  SELECT RAISE(ABORT, '{NOT_NEXT_IN_STREAM}')
    WHERE NEW.originator_version <> 1 + coalesce(
      (SELECT max(originator_version) FROM event WHERE originator_id = NEW.originator_id), 0);
  SELECT RAISE(ABORT, 'recorded_at never decreases')
    WHERE NEW.recorded_at < (SELECT recorded_at FROM event ORDER BY position DESC LIMIT 1);
END""",  # noqa: S608 - constants only
    "event_is_not_changed": """CREATE TRIGGER event_is_not_changed BEFORE UPDATE ON event BEGIN
  SELECT RAISE(ABORT, 'an event is not changed');
END""",
    "event_is_not_removed": """CREATE TRIGGER event_is_not_removed BEFORE DELETE ON event BEGIN
  SELECT RAISE(ABORT, 'an event is not removed');
END""",
}

LAST = "SELECT position, recorded_at FROM event ORDER BY position DESC LIMIT 1"
LAST_VERSION = "SELECT coalesce(max(originator_version), 0) FROM event WHERE originator_id = ?"
MOST = 2**63 - 1  # the largest integer of SQLite
COLUMNS = "position, originator_id, originator_version, topic, state, recorded_at"

Clock = Callable[[], datetime]
log = logging.getLogger(__name__)


class PayloadSealer(Protocol):
    """What seals payloads: the vault."""

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes: ...
    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes: ...


@dataclass(frozen=True)
class RecordedEvent(Notification):
    """A stored event with its position (`id`) and the time of its record."""

    recorded_at: datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


class SQLiteRecorder(ApplicationRecorder):
    """The `ApplicationRecorder` contract of the eventsourcing library over one file, made when it is missing."""

    def __init__(self, path: Path, sealer: PayloadSealer, clock: Clock = utc_now) -> None:
        """`TsmError`: STORE_FORMAT for another format, STORE_CORRUPT when the file or its guards are damaged."""
        self._sealer = sealer
        self._clock = clock
        self.held = 0  # how many transactions met a clock behind the last recorded time
        self._holding = False
        self.committed = Condition()  # notified after every commit of this process
        self._writer, self._writer_lock = open_database(path, erasing=True), Lock()
        try:
            _prepare(self._writer)
            self._reader, self._reader_lock = open_database(path), Lock()
            self._reader.execute("PRAGMA query_only=ON")
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._writer.close()
            self._reader.close()

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        unchanged: Mapping[str, int] | None = None,
        put_payloads: Mapping[tuple[str, str], bytes] | None = None,
        drop_payloads: Sequence[str] = (),
        **kwargs: Any,
    ) -> Sequence[int]:
        """Appends events, drops all payloads of `drop_payloads` (streams), then puts `put_payloads`: all or nothing.

        Answers the positions. `IntegrityError` (of the library) when a stream has gone on meanwhile: one that gets an
        event, or one of `unchanged`, which get none and must still end with the version named there.
        """
        sealed = [
            (stream, name, self._sealer.seal_payload(stream, name, plaintext))
            for (stream, name), plaintext in (put_payloads or {}).items()
        ]
        try:
            with self._writer_lock, writing(self._writer) as transaction:
                for stream, version in (unchanged or {}).items():
                    _refuse_changed(transaction, stream, version)
                positions = self._append(transaction, stored_events)
                if drop_payloads:
                    transaction.executemany("DELETE FROM payload WHERE stream = ?", [(s,) for s in drop_payloads])
                if sealed:
                    transaction.executemany("INSERT OR REPLACE INTO payload VALUES (?, ?, ?)", sealed)
        except sqlite3.IntegrityError as error:
            if str(error) == NOT_NEXT_IN_STREAM:
                raise IntegrityError(str(error)) from error
            raise TsmError(ErrorCode.STORE_CORRUPT, str(error)) from error
        except sqlite3.OperationalError as error:
            raise OperationalError(str(error)) from error
        with self.committed:
            self.committed.notify_all()
        return positions

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

    @property
    def last_recorded_at(self) -> datetime | None:
        """When the last event was recorded, whoever recorded it; None in an empty log."""
        with self._reader_lock:
            row = self._reader.execute(LAST).fetchone()
        return None if row is None else datetime.fromisoformat(row[1])

    def max_notification_id(self) -> int | None:
        with self._reader_lock:
            row = self._reader.execute(LAST).fetchone()
        return None if row is None else int(row[0])

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Not offered: followers read pages and wait between them (`tsm.store.log`), and keep their own position."""
        raise NotImplementedError

    def payload(self, stream: str, name: str) -> bytes | None:
        """The plain payload, or None. `TsmError(KEY_REFUSED)` when it was not sealed for this stream and name."""
        query = "SELECT sealed FROM payload WHERE stream = ? AND name = ?"
        with self._reader_lock:
            row = self._reader.execute(query, (stream, name)).fetchone()
        return None if row is None else self._sealer.unseal_payload(stream, name, row[0])

    def _append(self, transaction: sqlite3.Connection, stored_events: Sequence[StoredEvent]) -> list[int]:
        if not stored_events:
            return []
        last, last_recorded_at = transaction.execute(LAST).fetchone() or (0, "")
        recorded_at = self._not_before(last_recorded_at)
        positions = list(range(last + 1, last + 1 + len(stored_events)))
        transaction.executemany(
            f"INSERT INTO event ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
            [
                (position, str(e.originator_id), e.originator_version, e.topic, e.state, recorded_at)
                for position, e in zip(positions, stored_events, strict=True)
            ],
        )
        return positions

    def _not_before(self, last: str) -> str:
        now = self._clock().astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if now >= last:
            self._holding = False
            return now
        if not self._holding:  # once for each jump, not for each transaction
            log.warning("the clock says %s, but an event is recorded at %s: time is held there", now, last)
        self._holding = True
        self.held += 1
        return last

    def _select(self, condition: str, values: Sequence[object], order: str, limit: int | None) -> list[RecordedEvent]:
        query = f"SELECT {COLUMNS} FROM event WHERE {condition} ORDER BY {order} LIMIT ?"  # noqa: S608 - constants only
        with self._reader_lock:
            rows = self._reader.execute(query, (*values, -1 if limit is None else limit)).fetchall()
        return [
            RecordedEvent(stream, version, topic, state, position, datetime.fromisoformat(recorded_at))
            for position, stream, version, topic, state, recorded_at in rows
        ]


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables and guards of an empty file; refuses a file whose format or guards are not ours."""
    with writing(connection):
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            for statement in (*TABLES.split(";\n"), *GUARDS.values()):
                connection.execute(statement)
            connection.execute("INSERT INTO format VALUES (?)", (FORMAT,))
        elif "format" not in tables:
            _refuse_format("none")
        numbers = connection.execute("SELECT number FROM format").fetchall()
        if numbers != [(FORMAT,)]:
            _refuse_format(str([number for (number,) in numbers]))
        guards = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())
        if guards != GUARDS:
            raise TsmError(ErrorCode.STORE_CORRUPT, "the triggers that guard the log are missing or changed")


def _refuse_changed(transaction: sqlite3.Connection, stream: str, version: int) -> None:
    (last,) = transaction.execute(LAST_VERSION, (stream,)).fetchone()
    if last != version:
        raise IntegrityError(f"{stream} ends with version {last}, not {version}")


def _refuse_format(found: str) -> NoReturn:
    raise TsmError(ErrorCode.STORE_FORMAT, f"format {found}, not {FORMAT}")
