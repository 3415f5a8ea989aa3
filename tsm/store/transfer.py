"""A store as a file of JSON Lines, byte for byte, and back: to keep it, to read it elsewhere, to move between engines.

    {"kind":"store","format":3}
    {"kind":"event","position":1,"stream":"card-8981...","version":1,"topic":"card.registered",
     "recorded_at":"2026-11-21T02:12:00.000000Z","state":"{\\"topic\\":...}"}
    {"kind":"payload","stream":"...","name":"...","sealed":"<Base64>"}
    {"kind":"index","index_value":"...","stream":"...","subject":"..."}
    {"kind":"command","id":"...","digest":"...","first":1,"last":2,"head":2,"keep_until":"..."}
    {"kind":"end","events":1,"payloads":1,"index":1,"commands":1,"sha256":"<of all lines before>"}

The text of `state` is, in UTF-8, the very bytes that are stored. All is read as of one moment, so a server may run
while a store is exported; for a move it must not, for what it records later is not in the file. One store has one such
file: the export of what was imported has the same SHA-256, whatever the engine. No key is in it: personal fields and
payloads stay sealed.

Both ways go on where they were when they are repeated after they were killed: events are never changed, so what was
written is the beginning of what is to be written. Nothing is imported before its line is verified. A store whose import
has not ended says so, and no server takes it.
"""

import fcntl
import hashlib
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import psycopg

from tsm.errors import ErrorCode, TsmError
from tsm.keys.database import open_database, writing
from tsm.store.migrations import APPEND_LOCK, NEWEST, UNFINISHED, postgres_owner
from tsm.store.opening import is_postgresql
from tsm.store.rows import EventRow, Rows, is_time, open_rows

BATCH = 10_000  # events of one transaction
PARTIAL = ".partial"  # behind the name of an export that has not ended

Told = Callable[[int, int], None]  # events so far, and of how many


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every line is; `kind` tells which."""


class StoreLine(Line, frozen=True, tag="store"):
    format: int


class EventLine(Line, frozen=True, tag="event", omit_defaults=True):
    position: int
    stream: str
    version: int
    topic: str
    recorded_at: str
    state: str = ""
    state_base64: bytes = b""  # instead, where the bytes are no text


class PayloadLine(Line, frozen=True, tag="payload"):
    stream: str
    name: str
    sealed: bytes


class IndexLine(Line, frozen=True, tag="index"):
    index_value: str
    stream: str
    subject: str


class CommandLine(Line, frozen=True, tag="command"):
    id: str
    digest: str
    first: int
    last: int
    head: int
    keep_until: str


class EndLine(Line, frozen=True, tag="end"):
    events: int
    payloads: int
    index: int
    commands: int
    sha256: str


class Place(msgspec.Struct, frozen=True):
    """What an event's envelope says about its place."""

    topic: str
    stream: str
    number: int


Beside = PayloadLine | IndexLine | CommandLine
BESIDE = (PayloadLine, IndexLine, CommandLine)  # in the order of the file
TABLES = {PayloadLine: "payload", IndexLine: "person_index", CommandLine: "command"}
COPY = """COPY tsm.event (position, originator_id, originator_version, topic, state, recorded_at)
  FROM STDIN (FORMAT BINARY)"""
ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(StoreLine | EventLine | PayloadLine | IndexLine | CommandLine | EndLine)
PLACE = msgspec.json.Decoder(Place)


class Transferred(NamedTuple):
    """What the file holds, and how many of its events were there before."""

    end: EndLine
    sha256: str  # of the whole file
    before: int


# Export


def export_file(rows: Rows, path: Path, told: Told) -> Transferred:
    """Writes the file (0600), going on with what is left of an export that was killed.

    `TsmError`: ALREADY_EXISTS when the file is there; CONFLICT when somebody else is writing it, or what is left is of
    another store; STORE_UNAVAILABLE when it cannot be written; STORE_CORRUPT when positions are missing.
    """
    partial = path.with_name(path.name + PARTIAL)
    if path.exists():
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"{path} is there")
    with _writing(partial) as file, rows.snapshot():
        digest, last, line = _begun(file)
        if last and [_event_line(row) for row in rows.in_order(last - 1, last)] != [line]:
            raise TsmError(ErrorCode.CONFLICT, f"{partial} is not of this store: remove it")
        made = _export(rows, file, digest, last, told)
        file.flush()
        os.fsync(file.fileno())
        partial.rename(path)
    return made


def export_stream(rows: Rows, out: BinaryIO, told: Told) -> Transferred:
    """Writes to what cannot be gone back in. `TsmError`: as `export_file`."""
    try:
        with rows.snapshot():
            return _export(rows, out, hashlib.sha256(), 0, told)
    except OSError as error:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, f"it cannot be written: {error.strerror}") from error


def _export(rows: Rows, out: BinaryIO, digest: "hashlib._Hash", last: int, told: Told) -> Transferred:
    """All that follows the event at position `last`; `digest` is of what stands before."""
    head, position = rows.head(), last
    if last == 0:
        _write(out, digest, [_line(StoreLine(NEWEST))])
    lines: list[bytes] = []
    for position, row in enumerate(rows.in_order(last), last + 1):
        if row.position != position:
            raise TsmError(ErrorCode.STORE_CORRUPT, f"{position} is the next position, not {row.position}: see check")
        lines.append(_event_line(row))
        if len(lines) == BATCH:
            _write(out, digest, lines)
            told(position, head)
            lines.clear()
    _write(out, digest, lines)
    counts = dict.fromkeys(BESIDE, 0)
    for line in _beside(rows):
        counts[type(line)] += 1
        _write(out, digest, [_line(line)])
    end = EndLine(position, counts[PayloadLine], counts[IndexLine], counts[CommandLine], digest.hexdigest())
    _write(out, digest, [_line(end)])
    told(position, head)
    return Transferred(end, digest.hexdigest(), last)


def _beside(rows: Rows) -> Iterator[Beside]:
    return chain(
        (PayloadLine(*row) for row in rows.payloads()),
        (IndexLine(*row) for row in rows.index_rows()),
        (CommandLine(*row) for row in rows.commands()),
    )


def _write(out: BinaryIO, digest: "hashlib._Hash", lines: Sequence[bytes]) -> None:
    octets = b"".join(lines)
    digest.update(octets)
    out.write(octets)


def _line(line: Line) -> bytes:
    return ENCODER.encode(line) + b"\n"


def _event_line(row: EventRow) -> bytes:
    try:
        text, octets = row.state.decode(), b""
    except UnicodeDecodeError:
        text, octets = "", row.state
    return _line(EventLine(row.position, row.stream, row.version, row.topic, row.recorded_at, text, octets))


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """The file, for this process alone, as it was left."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
    except BlockingIOError:
        raise TsmError(ErrorCode.CONFLICT, f"somebody else is writing {path}") from None
    except OSError as error:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, f"{path} cannot be written: {error.strerror}") from error


def _begun(file: BinaryIO) -> tuple["hashlib._Hash", int, bytes]:
    """What stands in the file already: digest, last position and its line. What cannot be gone on with is cut off."""
    digest, last, line, size = hashlib.sha256(), 0, b"", 0
    for number, found in enumerate(file):
        if not _goes_on(found, number):
            break
        digest.update(found)
        last, line, size = number, found, size + len(found)
    if last == 0:  # the first line alone is soon written again
        digest, size = hashlib.sha256(), 0
    file.seek(size)
    file.truncate()
    return digest, last, line


def _goes_on(line: bytes, number: int) -> bool:
    """Whether it is the whole line with this number, and of those that no later export would write otherwise."""
    try:
        read = DECODER.decode(line)
    except msgspec.MsgspecError:
        return False
    expected = isinstance(read, StoreLine) if number == 0 else isinstance(read, EventLine) and read.position == number
    return expected and line == _line(read)


# Import


class Target(ABC):
    """A store that is being filled."""

    rows: Rows

    @abstractmethod
    def append(self, events: Sequence[EventRow]) -> None:
        """Records them as they are, in one transaction. CONFLICT when the store does not end where they begin."""

    @abstractmethod
    def put(self, lines: Iterable[Beside]) -> None:
        """Writes what lies beside the log, in one transaction, and that the import has ended."""


def import_file(path: Path, target: Target, told: Told) -> Transferred:
    """Fills the target from the file, going on with what an import that was killed has left.

    The file is verified as a whole before anything is written, and each line before it is written. `TsmError`:
    NOT_FOUND; INVALID_INPUT when it is not whole or not as written; STORE_FORMAT when it is of another format;
    ALREADY_EXISTS when the target is not the beginning of the file; CONFLICT when somebody else writes to the target.
    """
    try:
        with path.open("rb") as file:
            end = _verified_end(file)
            file.seek(0)
            return _import(file, target, told, end.events)
    except OSError as error:
        raise TsmError(ErrorCode.NOT_FOUND, f"{path}: {error.strerror}") from error


def import_stream(lines: Iterable[bytes], target: Target, told: Told) -> Transferred:
    """The same from what can be read once: a damage that lines do not show is found at the end."""
    return _import(lines, target, told, 0)


def _import(lines: Iterable[bytes], target: Target, told: Told, expected: int) -> Transferred:
    reader = _Reader(lines)
    before = target.rows.head()
    if next(target.rows.commands(), None) or next(target.rows.payloads(), None) or next(target.rows.index_rows(), None):
        return _compare(reader, target)
    known = target.rows.in_order()
    batch: list[EventRow] = []
    for row in reader.events():
        if row.position <= before:
            _refuse_unless(next(known, None) == row, f"position {row.position}")
            continue
        batch.append(row)
        if len(batch) == BATCH:
            target.append(batch)
            told(row.position, expected)
            batch = []
    if batch:
        target.append(batch)
    _refuse_unless(before <= reader.position, "what follows the last event")
    told(reader.position, expected)
    target.put(reader.beside())
    return Transferred(reader.end, reader.sha256, before)


def _compare(reader: "_Reader", target: Target) -> Transferred:
    """A target with rows beside its log was filled to the end, or is another store."""
    before = target.rows.head()
    known = target.rows.in_order()
    for row in reader.events():
        _refuse_unless(next(known, None) == row, f"position {row.position}")
    _refuse_unless(before == reader.position, "what follows the last event")
    beside = _beside(target.rows)
    for line in reader.beside():
        _refuse_unless(next(beside, None) == line, "what lies beside the log")
    _refuse_unless(next(beside, None) is None, "what lies beside the log")
    return Transferred(reader.end, reader.sha256, before)


class _Reader:
    """Line after line, verified: first events, then what lies beside them, then the end."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._digest = hashlib.sha256()
        self._number = 0
        self._versions: dict[str, int] = {}
        self._recorded_at = ""
        self._next: Any = None
        self.position = 0
        self.end = EndLine(0, 0, 0, 0, "")
        self.sha256 = ""

    def events(self) -> Iterator[EventRow]:
        first = self._read()
        if not isinstance(first, StoreLine):
            raise self._refused("it does not begin as an export does")
        if first.format != NEWEST:
            raise TsmError(ErrorCode.STORE_FORMAT, f"the file has format {first.format}, this program {NEWEST}")
        while isinstance(line := self._read(), EventLine):
            yield self._verified(line)
        self._next = line

    def beside(self) -> Iterator[Beside]:
        counts, line = [0, 0, 0], self._next
        latest: tuple[Any, ...] = ()
        while isinstance(line, BESIDE):
            kind = BESIDE.index(type(line))
            order = (kind, *_key(line))
            if order <= latest:
                raise self._refused("it is out of order")
            latest = order
            counts[kind] += 1
            yield line
            line = self._read()
        self._verify_end(line, counts)

    def _read(self) -> Line:
        octets = next(self._lines, b"")
        self._number += 1
        if not octets:
            raise self._refused("the file ends before its end")
        try:
            line: Line = DECODER.decode(octets)
        except msgspec.MsgspecError:
            raise self._refused("it is no line of an export") from None
        if _line(line) != octets:  # or the export of what we import would be another
            raise self._refused("it is not written as an export writes it")
        self.sha256 = self._digest.hexdigest() if isinstance(line, EndLine) else ""
        self._digest.update(octets)
        return line

    def _verified(self, line: EventLine) -> EventRow:
        state = line.state_base64 or line.state.encode()
        try:
            place = PLACE.decode(state)
        except msgspec.MsgspecError:
            raise self._refused("the event does not decode") from None
        if (place.topic, place.stream, place.number) != (line.topic, line.stream, line.version):
            raise self._refused("the event lies in another place than it says")
        if line.position != self.position + 1:
            raise self._refused(f"{self.position + 1} is the next position, not {line.position}")
        if line.version != self._versions.get(line.stream, 0) + 1:
            raise self._refused(f"version {line.version} does not follow in {line.stream}")
        if line.recorded_at != self._recorded_at:
            if not is_time(line.recorded_at):
                raise self._refused("recorded_at is no time as we write it")
            if line.recorded_at < self._recorded_at:
                raise self._refused("recorded_at is before that of the event before")
        self.position, self._versions[line.stream], self._recorded_at = line.position, line.version, line.recorded_at
        return EventRow(line.position, line.stream, line.version, line.topic, state, line.recorded_at)

    def _verify_end(self, line: Line, counts: Sequence[int]) -> None:
        if not isinstance(line, EndLine):
            raise self._refused("it is not expected here")
        if line != EndLine(self.position, counts[0], counts[1], counts[2], self.sha256):
            raise self._refused("the file does not hold what its end says: it is damaged")
        if next(self._lines, b""):
            raise self._refused("something follows the end")
        self.end, self.sha256 = line, self._digest.hexdigest()

    def _refused(self, why: str) -> TsmError:
        return TsmError(ErrorCode.INVALID_INPUT, f"line {self._number}: {why}")


class SQLiteTarget(Target):
    """A file that `tsm store migrate` made. Its guards look at every event."""

    def __init__(self, rows: Rows, connection: sqlite3.Connection) -> None:
        self.rows = rows
        self._connection = connection

    def append(self, events: Sequence[EventRow]) -> None:
        with writing(self._connection) as transaction:
            transaction.execute("INSERT OR IGNORE INTO migration VALUES (?, ?, ?)", _mark())
            transaction.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", events)

    def put(self, lines: Iterable[Beside]) -> None:
        with writing(self._connection) as transaction:
            for kind, group in groupby(lines, type):
                transaction.executemany(_insert(kind, "", "?"), map(msgspec.structs.astuple, group))
            transaction.execute("DELETE FROM migration WHERE number = ?", (UNFINISHED,))


class PostgresTarget(Target):
    """A database that `tsm store migrate` made, reached as its owner, who may write beside `tsm.append`."""

    def __init__(self, rows: Rows, connection: psycopg.Connection) -> None:
        self.rows = rows
        self._connection = connection

    def append(self, events: Sequence[EventRow]) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))
            head = cursor.execute("SELECT coalesce(max(position), 0) FROM tsm.event").fetchone()
            if head != (events[0].position - 1,):
                raise TsmError(ErrorCode.CONFLICT, "somebody else writes to this store")
            cursor.execute("INSERT INTO tsm.migration VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", _mark())
            with cursor.copy(COPY) as copy:
                copy.set_types(("int8", "text", "int8", "text", "bytea", "timestamptz"))
                for event in events:
                    copy.write_row((*event[:-1], datetime.fromisoformat(event.recorded_at)))

    def put(self, lines: Iterable[Beside]) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            for kind, group in groupby(lines, type):
                cursor.executemany(_insert(kind, "tsm.", "%s").encode(), map(msgspec.structs.astuple, group))
            cursor.execute("DELETE FROM tsm.migration WHERE number = %s", (UNFINISHED,))
        self._connection.execute("ANALYZE tsm.event, tsm.payload, tsm.person_index, tsm.command")


@contextmanager
def opened_target(place: str | Path) -> Iterator[Target]:
    """A file, or a database by the DSN of its owner.

    `TsmError`: NOT_FOUND, STORE_FORMAT, STORE_CORRUPT, STORE_UNAVAILABLE, INVALID_INPUT; CONFLICT when a guard refuses.
    """
    with closing(open_rows(place)) as rows:
        if is_postgresql(place):
            with postgres_owner(str(place)) as connection:
                yield PostgresTarget(rows, connection)
        else:
            with _sqlite(Path(place)) as connection:
                yield SQLiteTarget(rows, connection)


@contextmanager
def _sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(path, erasing=True)) as connection:
        connection.execute("PRAGMA cache_size=-65536")  # KiB: the index over streams is written here and there
        try:
            yield connection
        except sqlite3.IntegrityError as error:
            raise TsmError(ErrorCode.CONFLICT, f"somebody else writes to this store: {error}") from error
        except sqlite3.OperationalError as error:
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, f"{path}: {error}") from error


def _insert(kind: type[Beside], schema: str, mark: str) -> str:
    marks = ", ".join([mark] * len(kind.__struct_fields__))
    return f"INSERT INTO {schema}{TABLES[kind]} VALUES ({marks})"  # noqa: S608 - constants only


def _key(line: Beside) -> tuple[str, ...]:
    return (line.id,) if isinstance(line, CommandLine) else msgspec.structs.astuple(line)[:2]


def _mark() -> tuple[int, str, datetime | str]:
    return UNFINISHED, "an import has not ended", datetime.now(UTC).isoformat()


def _verified_end(file: BinaryIO) -> EndLine:
    """The last line, when the file is as the export left it."""
    digest, last = hashlib.sha256(), b""
    for line in file:
        digest.update(last)
        last = line
    try:
        end = DECODER.decode(last)
    except msgspec.MsgspecError:
        end = None
    if not isinstance(end, EndLine) or last != _line(end) or end.sha256 != digest.hexdigest():
        raise TsmError(ErrorCode.INVALID_INPUT, "the file is not whole, or damaged")
    return end


def _refuse_unless(same: bool, where: str) -> None:
    if not same:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"the store is not the beginning of the file: {where}")
