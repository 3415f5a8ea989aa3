"""The runner: rows and position together, bad events parked, rebuilds, waiting for one's own writes."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from projections import PROJECTIONS
from projections.runner import PAGE, Runner
from projections.views import Projection, Views
from tests.projections.story import ICCID, MemoryLog, registered, tell
from tsm.errors import ErrorCode, TsmError
from tsm.model import card
from tsm.model.event import Event


def note(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    """A read model that keeps topics, and stumbles over refused commands."""
    for event in events:
        connection.execute("INSERT INTO topic_1 VALUES (?, ?)", (event.position, event.fact.topic))
        if isinstance(event.fact, card.CommandRefused):
            raise ValueError("a text with data of the event")


TOPICS = Projection(
    name="topics", version=1, tables={"topic_1": "CREATE TABLE topic_1 (position INTEGER, topic TEXT)"}, fold=note
)
BAD = card.CommandRefused(domain="", command="COMMAND", header="80E60C00", status_word="6A80")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def views(tmp_path: Path) -> Iterator[Views]:
    opened = Views(tmp_path / "views.sqlite", [TOPICS])
    yield opened
    opened.close()


def topics(views: Views) -> list[int]:
    return [position for (position,) in views.read("SELECT position FROM topic_1 ORDER BY position")]


def contents(views: Views) -> dict[str, list[object]]:
    tables = [name for (name,) in views.read("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {table: sorted(views.read(f"SELECT * FROM {table}"), key=repr) for table in tables}  # noqa: S608


def test_every_event_is_folded_once_over_many_pages(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.PAGE", 3)
    for _ in range(8):
        log.add("card-1", registered())

    assert Runner(log, views).catch_up() == 8
    assert Runner(log, views).catch_up() == 8
    assert topics(views) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_bad_event_is_parked_with_its_error_and_the_rest_goes_on(log: MemoryLog, views: Views) -> None:
    for fact in (registered(), BAD, registered()):
        log.add("card-1", fact)

    assert Runner(log, views).catch_up() == 3

    assert topics(views) == [1, 3]
    (parked,) = views.parked("topics")
    assert (parked.position, parked.topic, parked.stream) == (2, "card.command_refused", "card-1")
    assert parked.error.startswith("ValueError at test_runner.py:")
    assert "data of the event" not in parked.error


@pytest.mark.parametrize("bad", [1, 3, 5])
def test_an_event_that_does_not_decode_is_parked_at_its_position(log: MemoryLog, views: Views, bad: int) -> None:
    for _ in range(5):
        log.add("card-1", registered())
    log.unreadable = {bad}

    assert Runner(log, views).catch_up() == 5

    assert topics(views) == [position for position in range(1, 6) if position != bad]
    assert [(p.position, p.topic, p.error[:13]) for p in views.parked("topics")] == [(bad, "", "STORE_CORRUPT")]


def test_a_fault_of_the_machine_parks_nothing_and_leaves_the_position(log: MemoryLog, views: Views) -> None:
    log.add("card-1", registered())

    def full(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
        connection.execute("INSERT INTO topic_1 VALUES (99, 'half')")
        raise sqlite3.OperationalError("database or disk is full")

    views.projections = (replace(TOPICS, fold=full),)
    with pytest.raises(sqlite3.OperationalError):
        Runner(log, views).step()

    assert (views.position, topics(views), views.parked("topics")) == (0, [], [])


def test_a_new_version_reads_the_log_again_while_the_others_go_on(log: MemoryLog, tmp_path: Path) -> None:
    path = tmp_path / "two.sqlite"
    other = Projection(
        name="other", version=1, tables={"other_1": "CREATE TABLE other_1 (position INTEGER)"}, fold=lambda c, e: None
    )
    log.add("card-1", registered())
    first = Views(path, [TOPICS, other])
    Runner(log, first).catch_up()
    first.close()

    def fold(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
        connection.executemany("INSERT INTO topic_2 VALUES (?)", [(event.position,) for event in events])

    newer = replace(
        TOPICS, version=2, tables={"topic_2": "CREATE TABLE topic_2 (position INTEGER PRIMARY KEY)"}, fold=fold
    )
    second = Views(path, [newer, other])
    assert second.positions() == {"topics": 0, "other": 1}
    log.add("card-1", registered())
    Runner(log, second).catch_up()

    assert second.read("SELECT position FROM topic_2") == [(1,), (2,)]
    assert "topic_1" not in contents(second)
    second.close()


def test_a_read_model_that_no_longer_exists_leaves_nothing_behind(log: MemoryLog, tmp_path: Path) -> None:
    path = tmp_path / "gone.sqlite"
    first = Views(path, [TOPICS, replace(TOPICS, name="gone", tables={"gone_1": "CREATE TABLE gone_1 (x)"})])
    first.close()
    log.add("card-1", registered())
    second = Views(path, [TOPICS])

    assert Runner(log, second).catch_up() == 1
    assert second.positions() == {"topics": 1}
    second.close()


def test_the_deleted_file_comes_back_the_same(log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(log)
    found = []
    for name, page in (("a.sqlite", 2000), ("b.sqlite", 1)):
        monkeypatch.setattr("projections.runner.PAGE", page)
        views = Views(tmp_path / name, PROJECTIONS)
        Runner(log, views).catch_up()
        found.append(contents(views))
        views.close()

    assert found[0] == found[1]
    assert found[0]["parked"] == []


def test_rows_of_a_longer_log_are_rebuilt(log: MemoryLog, views: Views) -> None:
    for _ in range(5):
        log.add("card-1", registered())
    Runner(log, views).catch_up()

    restored = MemoryLog()
    restored.add("card-1", registered())
    assert Runner(restored, views).catch_up() == 1
    assert topics(views) == [1]


def test_two_runners_on_one_file_fold_each_event_once(log: MemoryLog, views: Views, tmp_path: Path) -> None:
    for _ in range(300):
        log.add("card-1", registered())
    second = Views(tmp_path / "views.sqlite", [TOPICS])
    threads = [threading.Thread(target=Runner(log, v).catch_up) for v in (views, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.close()

    assert topics(views) == list(range(1, 301))


def test_a_reader_waits_for_its_own_write(log: MemoryLog, views: Views) -> None:
    runner = Runner(log, views)
    runner.start()
    try:
        assert not views.wait_for(1, timeout=0.05)
        log.add("card-1", registered())
        assert views.wait_for(1, timeout=5)
    finally:
        runner.stop()


def test_the_thread_outlives_a_fault_and_says_so(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("projections.runner.RETRY", 0.01)
    log.add("card-1", registered())
    faults = iter([sqlite3.OperationalError("disk full"), RuntimeError("odd")])
    read = log.read

    def sometimes(after: int, limit: int) -> Sequence[Event]:
        for fault in faults:
            raise fault
        return read(after, limit)

    monkeypatch.setattr(log, "read", sometimes)
    runner = Runner(log, views)
    runner.start()
    try:
        assert views.wait_for(1, timeout=5)
    finally:
        runner.stop()
    assert "the read models could not be brought up to date" in caplog.text


def test_a_runner_that_cannot_catch_up_says_so_until_it_can(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(after: int, limit: int) -> Sequence[Event]:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr("projections.runner.RETRY", 0.01)
    monkeypatch.setattr("projections.runner.IDLE", 0.01)
    monkeypatch.setattr("projections.runner.LATE", 0.2)
    runner = Runner(log, views)
    assert not runner.keeping_up()
    runner.start()
    try:
        eventually(runner.keeping_up)
        with monkeypatch.context() as disk:
            disk.setattr(log, "read", broken)
            eventually(lambda: not runner.keeping_up())
        eventually(runner.keeping_up)
    finally:
        runner.stop()
    assert not runner.keeping_up()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def test_the_file_is_for_its_owner_only(views: Views, tmp_path: Path) -> None:
    assert (tmp_path / "views.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda p: p.name)
def test_tables_carry_name_and_version_of_their_read_model(projection: Projection) -> None:
    for table in projection.tables:
        assert table.startswith(f"{projection.name}_") and table.endswith(f"_{projection.version}")


def test_a_rebuild_takes_a_transaction_for_a_page_not_for_an_event(
    log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(log)
    for _ in range(5000):
        log.events.append(
            Event(
                originator_id=f"card-{ICCID}",
                originator_version=log.position,
                occurred_at=log.events[0].occurred_at,
                context=log.events[0].context,
                fact=BAD,
                position=log.position + 1,
                recorded_at=log.events[0].recorded_at,
            )
        )
    views = Views(tmp_path / "views.sqlite", PROJECTIONS)
    transactions = []
    transaction = views.transaction
    monkeypatch.setattr(views, "transaction", lambda: transactions.append(1) or transaction())
    Runner(log, views).catch_up()
    assert views.position == log.position
    assert len(transactions) <= log.position // PAGE + 2
    views.close()


def test_an_error_without_a_place_is_still_described() -> None:
    from projections.runner import describe

    assert describe(TsmError(ErrorCode.STORE_CORRUPT, "with a detail")) == "STORE_CORRUPT"
