"""The log: what it promises the library, what it refuses everybody, and what it leaves in its file."""

# ruff: noqa: S608 - the statements are made of constants
import multiprocessing
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.store.sqlite import SQLiteRecorder

# The library's tests of its own cipher import a package that neither we nor the recorder's tests need.
sys.modules.setdefault("eventsourcing.cipher", SimpleNamespace(AESCipher=None))  # type: ignore[arg-type]
from eventsourcing.tests.persistence import ApplicationRecorderTestCase  # noqa: E402

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class PlainSealer:
    """Seals nothing, where the test is not about sealing."""

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes:
        return plaintext

    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes:
        return sealed


def stored(stream: str = "card-1", version: int = 1, state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(stream, version, "sample.topic", state)


class TestTheLibrarysOwnContract(ApplicationRecorderTestCase[SQLiteRecorder]):
    """The tests that the library ships for whoever writes a recorder."""

    @pytest.fixture(autouse=True)
    def _recorder(self, tmp_path: Path) -> Iterator[None]:
        self.recorder = SQLiteRecorder(tmp_path / "store.sqlite", PlainSealer())
        yield
        self.recorder.close()

    def create_recorder(self) -> SQLiteRecorder:
        return self.recorder

    def new_originator_id(self) -> str:
        return str(uuid4())

    test_performance = None  # these two measure, as `make bench` does
    test_concurrent_throughput = None
    test_concurrent_no_conflicts = None  # numbers streams from 0, ours begin at 1: see our own tests of it below


del ApplicationRecorderTestCase  # or pytest collects the abstract class, too


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


def test_a_conflict_leaves_no_gap_and_nothing_half_done(recorder: SQLiteRecorder) -> None:
    recorder.insert_events([stored("card-1", 1)])
    with pytest.raises(IntegrityError):
        recorder.insert_events(
            [stored("card-2", 1), stored("card-1", 1)],
            put_payloads={("card-2", "answer"): b"new"},
            drop_payloads=["card-1"],
        )
    assert recorder.insert_events([stored("card-1", 2)]) == [2]
    assert recorder.select_events("card-2") == []
    assert recorder.payload("card-2", "answer") is None


def test_a_stream_that_should_be_unchanged_and_is_not_stops_everything(recorder: SQLiteRecorder) -> None:
    recorder.insert_events([stored("card-1", 1)])
    for unchanged in ({"card-1": 0}, {"card-1": 2}, {"card-1": 1, "card-3": 1}):
        with pytest.raises(IntegrityError):
            recorder.insert_events(
                [stored("card-2", 1)], unchanged=unchanged, put_payloads={("card-2", "answer"): b"new"}
            )
        with pytest.raises(IntegrityError):
            recorder.insert_events([], unchanged=unchanged)
    assert (recorder.max_notification_id(), recorder.payload("card-2", "answer")) == (1, None)
    assert recorder.insert_events([stored("card-2", 1)], unchanged={"card-1": 1, "card-3": 0}) == [2]


def test_a_stream_has_no_gap(recorder: SQLiteRecorder) -> None:
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(version=2)])


def test_a_cut_tail_is_noticed_before_anything_takes_its_place(recorder: SQLiteRecorder, path: Path) -> None:
    recorder.insert_events([stored(version=1), stored(version=2)])
    with sqlite3.connect(path) as intruder:
        intruder.execute("DROP TRIGGER event_is_not_removed")
        intruder.execute("DELETE FROM event WHERE position = 2")
    with pytest.raises(TsmError) as refusal:
        recorder.insert_events([stored(version=2)])
    assert refusal.value.code is ErrorCode.STORE_CORRUPT


def test_a_stream_is_read_in_parts_and_backwards(recorder: SQLiteRecorder) -> None:
    recorder.insert_events([stored(version=n) for n in range(1, 6)])
    assert [e.originator_version for e in recorder.select_events("card-1", gt=1, lte=4)] == [2, 3, 4]
    assert [e.originator_version for e in recorder.select_events("card-1", desc=True, limit=2)] == [5, 4]
    assert [e.id for e in recorder.select_events("card-1", gt=4)] == [5]


def test_recorded_at_is_the_writers_clock_in_utc(path: Path) -> None:
    tokyo = (NOON + timedelta(microseconds=5)).astimezone(tz=datetime.now().astimezone().tzinfo)
    recorder = SQLiteRecorder(path, PlainSealer(), lambda: tokyo)
    recorder.insert_events([stored()])
    [recorded] = recorder.select_notifications(1, 10)
    assert recorded.recorded_at == tokyo
    assert recorded.recorded_at.tzinfo is UTC
    assert rows(path)[0][-1] == "2026-11-21T12:00:00.000005Z"


def test_a_clock_that_jumps_back_is_held_counted_and_reported(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = iter([NOON, NOON - timedelta(hours=1), NOON - timedelta(minutes=30), NOON + timedelta(seconds=1)])
    recorder = SQLiteRecorder(path, PlainSealer(), lambda: next(times))
    for version in range(1, 5):
        recorder.insert_events([stored(version=version)])
    recorded = [e.recorded_at for e in recorder.select_notifications(1, 10)]
    assert recorded == [NOON, NOON, NOON, NOON + timedelta(seconds=1)]
    assert recorder.held == 2
    assert caplog.text.count("time is held") == 1  # one jump, one report


def test_a_clock_behind_the_last_process_is_held_too(path: Path) -> None:
    SQLiteRecorder(path, PlainSealer(), lambda: NOON).insert_events([stored(version=1)])
    later = SQLiteRecorder(path, PlainSealer(), lambda: NOON - timedelta(days=1))
    later.insert_events([stored(version=2)])
    assert [e.recorded_at for e in later.select_notifications(1, 10)] == [NOON, NOON]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=4), st.integers(-5, 5)),
        max_size=12,
    )
)
def test_whatever_is_tried_positions_streams_and_time_go_on_without_gap(
    steps: list[tuple[list[tuple[str, int]], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a model: a batch is recorded if, and only if, each event is the next of its stream."""
    now = NOON
    recorder = SQLiteRecorder(tmp_path_factory.mktemp("log") / "store.sqlite", PlainSealer(), lambda: now)
    expected: list[tuple[str, int]] = []
    for batch, seconds in steps:
        now += timedelta(seconds=seconds)
        would_be = expected + batch
        sound = all(would_be[: at + 1].count((s, v)) == 1 and would_be[:at].count((s, v - 1)) == (v > 1)
                    for at, (s, v) in enumerate(would_be))  # fmt: skip
        try:
            positions = recorder.insert_events([stored(s, v) for s, v in batch])
        except IntegrityError:
            assert not sound
        else:
            assert sound
            assert positions == list(range(len(expected) + 1, len(would_be) + 1))
            expected = would_be
    log = recorder.select_notifications(None, 100)
    recorder.close()
    assert [e.id for e in log] == list(range(1, len(expected) + 1))
    assert [(e.originator_id, e.originator_version) for e in log] == expected
    assert [e.recorded_at for e in log] == sorted(e.recorded_at for e in log)


def append_many(path: Path, name: str, count: int) -> None:
    recorder = SQLiteRecorder(path, PlainSealer())
    for version in range(1, count + 1):
        recorder.insert_events([stored(name, version), stored(f"{name}-too", version)])


def test_several_processes_write_one_log(path: Path) -> None:
    """They start together on a file that does not exist yet: nobody fails, nothing is lost or out of order."""
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append_many, args=(path, f"stream-{n}", 40)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    log = SQLiteRecorder(path, PlainSealer()).select_notifications(None, 1000)
    assert [e.id for e in log] == list(range(1, 321))
    assert [e.recorded_at for e in log] == sorted(e.recorded_at for e in log)


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


def test_several_threads_share_one_recorder(recorder: SQLiteRecorder) -> None:
    def append(name: str) -> None:
        for version in range(1, 31):
            recorder.insert_events([stored(name, version)])
            assert len(recorder.select_events(name)) == version  # one reads what one has written

    threads = [threading.Thread(target=append, args=(f"stream-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.id for e in recorder.select_notifications(None, 1000)] == list(range(1, 181))


def test_a_failed_write_leaves_the_recorder_usable(recorder: SQLiteRecorder) -> None:
    with pytest.raises(sqlite3.ProgrammingError):
        recorder.insert_events([StoredEvent("card-1", 1, "t", object())])  # type: ignore[arg-type]
    assert recorder.insert_events([stored()]) == [1]


def test_payloads_come_change_and_go_with_the_events(recorder: SQLiteRecorder) -> None:
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "answer"): b"one", ("s", "commands"): b"\x00"})
    assert recorder.payload("s", "answer") == b"one"
    recorder.insert_events([stored("s", 2)], put_payloads={("s", "answer"): b"two"})
    assert recorder.payload("s", "answer") == b"two"
    recorder.insert_events([stored("s", 3)], drop_payloads=["s"])
    assert recorder.payload("s", "answer") is None
    assert recorder.payload("s", "commands") is None
    assert recorder.payload("elsewhere", "answer") is None


def test_one_commit_may_drop_all_payloads_of_a_stream_and_put_a_last_one(recorder: SQLiteRecorder) -> None:
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "commands"): b"1", ("s", "answer"): b"1"})
    recorder.insert_events([stored("s", 2)], drop_payloads=["s"], put_payloads={("s", "answer"): b"last"})
    assert recorder.payload("s", "commands") is None
    assert recorder.payload("s", "answer") == b"last"


def test_no_payload_is_readable_in_any_file(recorder: SQLiteRecorder, path: Path) -> None:
    secret = b"80E2B800-plain-command-data"
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "commands"): secret * 50})
    assert recorder.payload("s", "commands") == secret * 50
    for file in path.parent.glob("store.sqlite*"):
        assert secret not in file.read_bytes()


def test_a_payload_opens_only_in_its_own_place(recorder: SQLiteRecorder, path: Path) -> None:
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "a"): b"1", ("s", "b"): b"2", ("t", "a"): b"3"})
    for exchange in [
        "UPDATE payload SET sealed = (SELECT sealed FROM payload WHERE stream = 's' AND name = 'b') WHERE stream = 's'",
        "UPDATE payload SET sealed = (SELECT sealed FROM payload WHERE stream = 't') WHERE stream = 's' AND name = 'a'",
    ]:
        with sqlite3.connect(path) as intruder:
            intruder.execute(exchange)
        with pytest.raises(TsmError) as refusal:
            recorder.payload("s", "a")
        assert refusal.value.code is ErrorCode.KEY_REFUSED


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


def test_what_is_committed_survives_a_power_cut(recorder: SQLiteRecorder) -> None:
    assert recorder._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert recorder._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_another_format_is_refused(path: Path) -> None:
    SQLiteRecorder(path, PlainSealer()).close()
    with sqlite3.connect(path) as newer:
        newer.execute("UPDATE format SET number = 2")
    refuses_to_open(path, ErrorCode.STORE_FORMAT)


def test_a_database_of_somebody_else_is_refused(path: Path) -> None:
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


def test_the_log_reopens_where_it_was(path: Path, vault: SoftwareVault) -> None:
    first = SQLiteRecorder(path, vault)
    first.insert_events([stored(version=1)], put_payloads={("card-1", "answer"): b"again"})
    first.close()
    second = SQLiteRecorder(path, vault)
    assert second.insert_events([stored(version=2)]) == [2]
    assert second.payload("card-1", "answer") == b"again"
