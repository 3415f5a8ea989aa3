"""The log in a PostgreSQL database.

A batch is one call of the function `tsm.append` (`tsm.store.migrations`): one round trip, one transaction, one flush.
An advisory lock makes order of positions and order of commits the same, whichever process writes; it is held for as
long as that one call takes. The runtime role cannot write events in any other way.

When the answer to a commit is lost, nobody knows whether it happened. So the batch is sent again: whatever is refused
then, and lies in the log with the same bytes, was recorded the first time.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Lock
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from eventsourcing.persistence import IntegrityError
from psycopg.errors import LockNotAvailable, ReadOnlySqlTransaction
from psycopg_pool import ConnectionPool, PoolTimeout

from tsm.errors import ErrorCode, TsmError
from tsm.store.dsn import check_dsn, connection_options
from tsm.store.loop import aside
from tsm.store.migrations import refuse_other_postgres
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
from tsm.store.signals import Signals

COLUMNS = "originator_id, originator_version, topic, state, position, recorded_at"
HEADINGS = """SELECT position, originator_id, originator_version, topic FROM tsm.event
  WHERE position > %s AND position <= %s ORDER BY position"""
LAST = "SELECT position, recorded_at FROM tsm.event ORDER BY position DESC LIMIT 1"
# The arrays of `tsm.append` are typed: an empty one would not tell of what it is.
APPEND = """SELECT * FROM tsm.append(%b::timestamptz, %b::int[], %b::text[], %b::bigint[],
  %b::int[], %b::text[], %b::text[], %b::bytea[], %b::int[], %b::text[],
  %b::int[], %b::text[], %b::text[], %b::bytea[], %b::int[], %b::text[],
  %b::int[], %b::text[], %b::text[], %b::text[], %b::int[], %b::text[], %b::text[], %b::timestamptz[])"""

READERS = 8  # connections
POOL_TIMEOUT = 5  # seconds that a read waits for a connection
LOCK_TIMEOUT = 8_000  # milliseconds that a batch waits for those of other processes
RECONNECT_FOR = 20.0  # seconds in which a batch is tried again after the connection broke
REMAINS_WITHIN = 5.0  # seconds in which those who hold up an erasure may end
PAUSE = 0.2  # seconds between the tries
# Any other isolation would look at the log before the lock is held, whatever the role's own setting says.
SESSION = rf"-c timezone=UTC -c lock_timeout={LOCK_TIMEOUT} -c default_transaction_isolation=read\ committed"
READING = "-c timezone=UTC -c default_transaction_read_only=on"

Result = TypeVar("Result")
Row = tuple[Any, ...]
log = logging.getLogger(__name__)


class PostgresRecorder(Recorder):
    """One database, reached as the runtime role. Any number of processes share it."""

    def __init__(self, dsn: str, sealer: PayloadSealer, clock: Clock = utc_now) -> None:
        """`TsmError`: STORE_UNAVAILABLE, STORE_FORMAT, INVALID_INPUT for a server that does not flush its commits."""
        super().__init__(sealer, clock)
        self._dsn = check_dsn(dsn)
        self._writer_lock = Lock()
        self._last_seen: datetime | None = None
        self._writer: psycopg.Connection | None = self._connect()
        try:
            with _refusing():
                refuse_other_postgres(self._writer)
                _refuse_careless(self._writer)
                row = self._writer.execute(LAST).fetchone()
                if row is not None:
                    self.head, self._last_seen = row
        except BaseException:
            self._writer.close()
            raise
        self._pool = ConnectionPool(
            dsn,
            min_size=1,
            max_size=READERS,
            timeout=POOL_TIMEOUT,
            kwargs={"autocommit": True, **connection_options(dsn, READING)},
            open=True,
        )
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="reader")  # for whoever is on an event loop
        self._signals = Signals(dsn, self._hear)

    def close(self) -> None:
        with self._writer_lock:
            if self._writer is not None:
                self._writer.close()
        self._signals.close()
        self._threads.shutdown()
        self._pool.close()

    # Writing

    def append(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        refuse_overlap(batch)
        gaps = _gaps(batch)
        refused = dict(gaps)
        arguments = self._arguments(batch, refused)
        with self._writer_lock:
            row, repeated = self._call(arguments)
        before, last_recorded_at, stamped, changed, changed_streams, known = row
        self._not_before(arguments[0], last_recorded_at)  # counts and reports a clock that jumped back
        head = before
        for number, stream in zip(changed, changed_streams, strict=True):
            refused.setdefault(number, IntegrityError(f"{stream} has gone on, or is not there yet"))
        outcomes: list[Recorded | Exception] = []
        for number, append in enumerate(batch):
            outcome: Recorded | Exception | None = refused.get(number)
            if append.command is not None and (number in known or number in gaps):
                outcome = _surely(self._answer, append.command, refused.get(number))
            elif outcome is not None and repeated:
                outcome = _surely(self._recorded_before, append) or outcome
            if outcome is None:
                outcome = Recorded(range(head + 1, head + 1 + len(append.events)), head + len(append.events))
                head += len(append.events)
            outcomes.append(outcome)
        self._see(stamped if head > before else last_recorded_at)
        self.tell_committed(head)
        if head > before:
            self._signals.tell()
        return outcomes

    def prune(self, now: datetime) -> int:
        return self._beside("DELETE FROM tsm.command WHERE keep_until < %s", now)

    def erase_remains(self) -> None:
        """Writes the table of index rows anew, without the dead ones, once no open transaction may see those any more.

        What the database's write-ahead log and backups hold is for its owner to let go, and so are the pages of
        payloads, which are sealed.
        """
        deadline = time.monotonic() + REMAINS_WITHIN
        while True:
            try:
                self._beside("SELECT tsm.erase_remains()")
                return
            except TsmError as error:
                if error.code is not ErrorCode.STORE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)

    def _beside(self, statement: str, *values: object) -> int:
        """How many rows. After a restart of the database the connection fails once: such a statement is done again."""
        with _refusing(), self._writer_lock:
            try:
                return self._living_writer().execute(statement, values).rowcount
            except psycopg.OperationalError:
                if self._writer is not None and not self._writer.closed:
                    raise
                return self._living_writer().execute(statement, values).rowcount

    def _living_writer(self) -> psycopg.Connection:
        if self._writer is None or self._writer.closed:
            self._writer = self._connect()
        return self._writer

    def _arguments(self, batch: Sequence[Append], refused: dict[int, Exception]) -> list[Any]:
        """One row for each thing of a group, then one array for each column."""
        watched: list[Row] = []
        events: list[Row] = []
        dropped: list[Row] = []
        payloads: list[Row] = []
        forgotten: list[Row] = []
        indexed: list[Row] = []
        commands: list[Row] = []
        for n, append in enumerate(batch):
            if n in refused:
                continue
            watched += [(n, stream, version) for stream, version in append.rests_on().items()]
            events += [(n, str(e.originator_id), e.topic, e.state) for e in append.events]
            dropped += [(n, stream) for stream in append.drop_payloads]
            payloads += [(n, *payload) for payload in self._seal(append)]
            forgotten += [(n, subject) for subject in append.drop_index]
            indexed += [(n, *row) for row in {row[:2]: row for row in append.put_index}.values()]  # the last is valid
            if append.command is not None:
                commands.append((n, *append.command))
        groups = ((watched, 3), (events, 4), (dropped, 2), (payloads, 4), (forgotten, 2), (indexed, 4), (commands, 4))
        return [self._now(), *(column for rows, width in groups for column in _columns(rows, width))]

    def _call(self, arguments: list[Any]) -> tuple[Row, bool]:
        """The answer, and whether the batch may have been recorded by a try before this one."""
        doubtful, deadline = False, time.monotonic() + RECONNECT_FOR
        while True:
            try:
                return self._try(arguments), doubtful
            except (_Disconnected, LockNotAvailable) as reason:
                if isinstance(reason, _Disconnected):
                    doubtful = doubtful or reason.sent
                elif not doubtful:  # for that is what STORE_BUSY says: nothing was recorded
                    raise TsmError(ErrorCode.STORE_BUSY, _words(reason)) from None
                if time.monotonic() > deadline:
                    raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(reason)) from None
                log.warning("no connection to the database, or none to its primary server: %s", _words(reason))
                time.sleep(PAUSE)

    def _try(self, arguments: list[Any]) -> Row:
        if self._writer is None:
            try:
                self._writer = self._connect()
            except TsmError as error:
                raise _Disconnected(error.detail, sent=False) from None
        try:
            row = self._writer.execute(APPEND, arguments, binary=True).fetchone()
        except LockNotAvailable:
            raise
        except (psycopg.OperationalError, ReadOnlySqlTransaction) as error:
            if not self._writer.broken and not isinstance(error, ReadOnlySqlTransaction):  # a full disk, for example
                raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(error)) from None
            self._writer.close()
            self._writer = None
            raise _Disconnected(_words(error), sent=True) from None
        except psycopg.Error as error:
            raise TsmError(ErrorCode.STORE_CORRUPT, _words(error)) from None
        if row is None:
            raise TsmError(ErrorCode.STORE_CORRUPT, "tsm.append gave no answer")
        return row

    def _recorded_before(self, append: Append) -> Recorded | None:
        """Where the log holds exactly these events: our own commit, whose answer was lost."""
        found = [
            stored
            for event in append.events
            for stored in self.select_events(
                event.originator_id, gt=event.originator_version - 1, lte=event.originator_version
            )
            if stored.state == event.state and stored.topic == event.topic
        ]
        if not found or len(found) < len(append.events):
            return None
        return Recorded(range(found[0].id, found[-1].id + 1), found[-1].id)

    def _answer(self, command: Command, otherwise: Exception | None) -> Recorded | Exception:
        try:
            recorded = self.answered(command)
        except TsmError as error:
            if error.code is not ErrorCode.COMMAND_REUSED:
                raise
            return error
        return recorded or otherwise or TsmError(ErrorCode.INTERNAL, f"command {command.id} was forgotten meanwhile")

    # Reading

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
            "originator_id = %s AND originator_version > %s AND originator_version <= %s",
            [str(originator_id), gt or 0, MOST if lte is None else lte],
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
        condition = "position BETWEEN %s AND %s"
        values: list[object] = [first, MOST if stop is None else stop]
        if topics:
            condition += " AND topic = ANY(%s)"
            values.append(list(topics))
        return self._select(condition, values, "position", limit)

    def select_headings(self, after: int, last: int) -> Sequence[Heading]:
        return list(map(Heading._make, self._read(HEADINGS, after, last)))

    def select_positions(self, positions: Sequence[int]) -> Sequence[RecordedEvent]:
        return self._select("position = ANY(%s)", [list(positions)], "position", None)

    @property
    def last_recorded_at(self) -> datetime | None:
        """As this process saw it: in what it recorded or read. Its followers read all there is."""
        return self._last_seen

    def max_notification_id(self) -> int | None:
        row = self._read_one(LAST)
        return None if row is None else int(row[0])

    def payload(self, stream: str, name: str) -> bytes | None:
        row = self._read_one("SELECT sealed FROM tsm.payload WHERE stream = %s AND name = %s", stream, name)
        return None if row is None else self._sealer.unseal_payload(stream, name, row[0])

    def indexed(self, index: str) -> list[IndexRow]:
        query = "SELECT index_value, stream, subject FROM tsm.person_index WHERE index_value = %s ORDER BY stream"
        return [IndexRow(*row) for row in self._read(query, index)]

    def indexed_many(self, indexes: Sequence[str]) -> list[IndexRow]:
        query = """SELECT index_value, stream, subject FROM tsm.person_index
          WHERE index_value = ANY(%s) ORDER BY index_value, stream"""
        return list(map(IndexRow._make, self._read(query, list(indexes))))

    def select_streams(self, streams: Sequence[str], *, lte: int | None = None) -> Sequence[RecordedEvent]:
        return self._select(
            "originator_id = ANY(%s) AND originator_version <= %s",
            [list(streams), MOST if lte is None else lte],
            "originator_id, originator_version",
            None,
        )

    def answered(self, command: Command) -> Recorded | None:
        query = "SELECT digest, first, last, head FROM tsm.command WHERE id = %s"
        return answered_before(self._read_one(query, command.id), command)

    def _select(self, condition: str, values: Sequence[object], order: str, limit: int | None) -> list[RecordedEvent]:
        query = f"SELECT {COLUMNS} FROM tsm.event WHERE {condition} ORDER BY {order} LIMIT %s"  # noqa: S608 - constants
        found = [RecordedEvent(*row) for row in self._read(query, *values, limit)]
        if found:
            self._see(max(event.recorded_at for event in found))
        return found

    def _read_one(self, query: str, *values: object) -> Row | None:
        return next(iter(self._read(query, *values)), None)

    def _read(self, query: str, *values: object) -> list[Row]:
        def rows(connection: psycopg.Connection) -> list[Row]:
            return connection.execute(query, values, binary=True).fetchall()

        return aside(self._threads, self._reading, rows)

    def _reading(self, read: Callable[[psycopg.Connection], Result]) -> Result:
        """After a restart of the database every idle connection fails once: such a read is done again."""
        with _refusing():
            try:
                with self._pool.connection() as connection:
                    return read(connection)
            except psycopg.OperationalError:
                self._pool.check()
                with self._pool.connection() as connection:
                    return read(connection)

    # Inside

    def _see(self, recorded_at: datetime | None) -> None:
        if recorded_at is not None and (self._last_seen is None or recorded_at > self._last_seen):
            self._last_seen = recorded_at

    def _hear(self) -> None:
        """Another process, or this one, recorded something."""
        with suppress(TsmError):  # whoever waits looks by himself, too
            self.tell_committed(self.max_notification_id() or 0)

    def _connect(self) -> psycopg.Connection:
        with _refusing():
            return psycopg.connect(self._dsn, autocommit=True, **connection_options(self._dsn, SESSION))


class _Disconnected(Exception):
    """The batch has to be sent again; `sent` tells that it may have been recorded."""

    def __init__(self, words: str, *, sent: bool) -> None:
        super().__init__(words)
        self.sent = sent


@contextmanager
def _refusing() -> Iterator[None]:
    """What PostgreSQL says becomes what we say."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(error)) from None
    except psycopg.Error as error:
        raise TsmError(ErrorCode.STORE_CORRUPT, _words(error)) from None


def _surely(read: Callable[..., Result], *arguments: Any) -> Result:
    """Reads what came of a batch that is recorded: repeated while the database is away, for the caller must know."""
    deadline = time.monotonic() + RECONNECT_FOR
    while True:
        try:
            return read(*arguments)
        except TsmError as error:
            if error.code is not ErrorCode.STORE_UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def _refuse_careless(connection: psycopg.Connection) -> None:
    """A commit that is acknowledged has to be on the disk."""
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        row = connection.execute(f"SHOW {setting}").fetchone()
        if row is None or row[0] in ("off", "local"):
            raise TsmError(ErrorCode.INVALID_INPUT, f"the database server has {setting} off: commits could be lost")


def _gaps(batch: Sequence[Append]) -> dict[int, Exception]:
    """By their numbers, the appends that do not even follow themselves."""
    refused: dict[int, Exception] = {}
    for number, append in enumerate(batch):
        try:
            append.rests_on()
        except IntegrityError as error:
            refused[number] = error
    return refused


def _columns(rows: Sequence[Row], width: int) -> Sequence[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _words(error: Exception) -> str:
    """The first line: what follows may quote the data."""
    return str(error).partition("\n")[0].strip()
