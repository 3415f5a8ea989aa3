"""What is SQLite's own: what the database refuses everybody, and what the log leaves in its files.

What every recorder does is in the folder `contract`.
"""

# ruff: noqa: S608 - the statements are made of constants
import multiprocessing
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent

from tsm.errors import ErrorCode, TsmError
from tsm.store.migrations import NEWEST
from tsm.store.sqlite import SQLiteRecorder


class PlainSealer:
    """Seals nothing, where the test is not about sealing."""

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes:
        return plaintext

    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes:
        return sealed


def stored(stream: str = "card-1", version: int = 1, state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(stream, version, "sample.topic", state)


ANOTHER = "(1, 'card-1', 1, 'sample.topic', x'7b7d', '2999-01-01T00:00:00.000000Z')"
SAME_VERSION = "(3, 'card-1', 1, 'sample.topic', x'7b7d', '2999-01-01T00:00:00.000000Z')"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET state = x'00'",
        "UPDATE OR REPLACE event SET originator_version = 2 WHERE originator_version = 1",
        "UPDATE OR IGNORE event SET recorded_at = '2999-01-01T00:00:00.000000Z'",
        "UPDATE event SET position = 7 WHERE position = 2",
        "DELETE FROM event",
        "DELETE FROM event WHERE position = 2",
        f"REPLACE INTO event VALUES {ANOTHER}",
        f"INSERT OR REPLACE INTO event VALUES {ANOTHER}",
        f"INSERT OR REPLACE INTO event VALUES {SAME_VERSION}",
        f"INSERT OR IGNORE INTO event VALUES {ANOTHER}",
        f"INSERT INTO event VALUES {ANOTHER} ON CONFLICT DO UPDATE SET state = excluded.state",
        f"INSERT INTO event VALUES {SAME_VERSION} "
        "ON CONFLICT (originator_id, originator_version) DO UPDATE SET state = excluded.state",
        f"INSERT INTO event VALUES {ANOTHER}",
        f"INSERT INTO event VALUES {SAME_VERSION}",
        "INSERT INTO event VALUES (4, 'card-1', 3, 't', x'00', '2999-01-01T00:00:00.000000Z')",  # a gap in the log
        "INSERT INTO event VALUES (3, 'card-1', 4, 't', x'00', '2999-01-01T00:00:00.000000Z')",  # a gap in the stream
        "INSERT INTO event VALUES (3, 'card-1', 0, 't', x'00', '2999-01-01T00:00:00.000000Z')",
        "INSERT INTO event VALUES (3, 'card-1', 3, 't', x'00', '2000-01-01T00:00:00.000000Z')",  # earlier than the last
        "INSERT INTO event VALUES (3, 'card-1', 3, 't', x'00', '2999-01-01')",  # a time of another form
        "INSERT INTO event VALUES (3, 'card-1', 3, 't', '{}', '2999-01-01T00:00:00.000000Z')",  # text is no blob
    ],
)
def test_the_database_itself_refuses_to_change_remove_or_replace_an_event(
    statement: str, recorder: SQLiteRecorder, path: Path
) -> None:
    recorder.insert_events([stored(version=1), stored(version=2)])
    before = rows(path)
    with sqlite3.connect(path) as outsider, pytest.raises(sqlite3.IntegrityError):
        outsider.execute(statement)
    assert rows(path) == before


def test_an_outsider_who_keeps_to_the_rules_may_append(recorder: SQLiteRecorder, path: Path) -> None:
    """A check that refuses everything proves nothing."""
    recorder.insert_events([stored(version=1)])
    with sqlite3.connect(path) as outsider:
        outsider.execute("INSERT INTO event VALUES (2, 'card-1', 2, 't', x'00', '2999-01-01T00:00:00.000000Z')")
    assert recorder.max_notification_id() == 2


def rows(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM event ORDER BY position").fetchall()
    finally:
        connection.close()


def test_a_cut_tail_is_noticed_before_anything_takes_its_place(recorder: SQLiteRecorder, path: Path) -> None:
    recorder.insert_events([stored(version=1), stored(version=2)])
    with sqlite3.connect(path) as intruder:
        intruder.execute("DROP TRIGGER event_is_not_removed")
        intruder.execute("DELETE FROM event WHERE position = 2")
    with pytest.raises(TsmError) as refusal:
        recorder.insert_events([stored(version=2)])
    assert refusal.value.code is ErrorCode.STORE_CORRUPT


def append_next(path: Path, version: int) -> None:
    recorder = SQLiteRecorder(path, PlainSealer())
    recorder.insert_events([stored("card-1", version)])
    recorder.close()


def test_a_process_that_comes_and_goes_takes_nothing_with_it(recorder: SQLiteRecorder, path: Path) -> None:
    """The last to close a log tidies up its write-ahead log: it must see that we still use it."""
    spawn = multiprocessing.get_context("spawn")
    for version in (1, 3, 5):
        recorder.insert_events([stored("card-1", version)])
        visitor = spawn.Process(target=append_next, args=(path, version + 1))
        visitor.start()
        visitor.join(60)
        assert visitor.exitcode == 0
    assert [e.id for e in recorder.select_events("card-1")] == [1, 2, 3, 4, 5, 6]


def test_no_payload_is_readable_in_any_file(recorder: SQLiteRecorder, path: Path) -> None:
    secret = b"80E2B800-plain-command-data"
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "commands"): secret * 50})
    assert recorder.payload("s", "commands") == secret * 50
    for file in path.parent.glob("store.sqlite*"):
        assert secret not in file.read_bytes()


def test_every_file_of_the_store_is_its_owners_alone(recorder: SQLiteRecorder, path: Path) -> None:
    recorder.insert_events([stored()])
    files = list(path.parent.glob("store.sqlite*"))
    assert len(files) == 3  # the file, its write-ahead log, the index of that
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_store_that_others_could_read_is_closed_to_them(path: Path) -> None:
    SQLiteRecorder(path, PlainSealer()).close()
    path.chmod(0o644)
    SQLiteRecorder(path, PlainSealer()).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_time_is_kept_as_a_text_whose_order_is_that_of_time(path: Path) -> None:
    tokyo = datetime.fromisoformat("2026-11-21T21:00:00.000005+09:00")
    with closing(SQLiteRecorder(path, PlainSealer(), lambda: tokyo)) as recorder:
        recorder.insert_events([stored()])
        [recorded] = recorder.select_notifications(1, 10)
    assert (recorded.recorded_at, recorded.recorded_at.tzinfo) == (tokyo, UTC)
    assert rows(path)[0][-1] == "2026-11-21T12:00:00.000005Z"


def test_what_is_committed_survives_a_power_cut(recorder: SQLiteRecorder) -> None:
    assert recorder._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert recorder._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.parametrize("number", [NEWEST - 1, NEWEST + 1])
def test_another_format_is_refused(number: int, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM migration")
        other.execute("INSERT INTO migration VALUES (?, 'a step', '2026-11-21T12:00:00+00:00')", (number,))
    refuses_to_open(path, ErrorCode.STORE_FORMAT)


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.sqlite"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE event (id INTEGER)")
    refuses_to_open(path, ErrorCode.STORE_FORMAT)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"this is not a database file, though it is long enough to be one" * 100)
    refuses_to_open(path, ErrorCode.STORE_CORRUPT)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    refuses_to_open(tmp_path / "missing" / "store.sqlite", ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("guard", ["event_is_appended", "event_is_not_changed", "event_is_not_removed"])
def test_a_store_that_has_lost_a_guard_is_refused(guard: str, path: Path) -> None:
    SQLiteRecorder(path, PlainSealer()).close()
    with sqlite3.connect(path) as intruder:
        intruder.execute(f"DROP TRIGGER {guard}")
    refuses_to_open(path, ErrorCode.STORE_CORRUPT)


def refuses_to_open(path: Path, code: ErrorCode) -> None:
    with pytest.raises(TsmError) as refusal:
        SQLiteRecorder(path, PlainSealer())
    assert refusal.value.code is code
