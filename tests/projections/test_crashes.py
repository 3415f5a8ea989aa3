"""What survives: processes killed at any moment, rebuilds that are cut short, a database that is restarted."""

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from api.bench.postgres import PostgresServer
from projections.building import build, rebuild, tidy
from projections.folding import catch_up
from projections.projection import Projection, Rows, Table
from projections.runner import Runner
from projections.views import BUILDING, Owner, Session, Views
from tests.projections.conftest import MakeViews, Place
from tests.projections.read_models import COUNTS, TOPICS, counts, topics
from tests.projections.story import MemoryLog, registered
from tests.projections.worker import STREAMS, MadeUpLog
from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Event

ROOT = Path(__file__).parents[2]
EVENTS = 3000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE", "STAND_BY", "RETRY"):
        monkeypatch.setattr(f"projections.runner.{name}", 0.01)


def begin(work: str, place: Place, events: int = EVENTS) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.projections.worker", work, place.store, str(place.file), str(events)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def assert_each_was_folded_once(views: Views, events: int = EVENTS) -> None:
    assert views.position == events
    assert topics(views) == list(range(1, events + 1))
    assert counts(views) == {
        f"card-{stream}": len(range(stream or STREAMS, events + 1, STREAMS)) for stream in range(STREAMS)
    }


@pytest.mark.parametrize("seed", range(2))
def test_workers_that_are_killed_at_any_moment_fold_each_event_once(make_views: MakeViews, seed: int) -> None:
    """Two at a time, so that one stands by and takes over."""
    moments = Random(seed)  # noqa: S311 - moments are no secret
    views = make_views(TOPICS, COUNTS)
    place = make_views.place
    workers = [begin("run", place), begin("run", place)]
    for _ in range(4):
        time.sleep(moments.random() * 0.3)
        kill(workers.pop(moments.randrange(2)))
        workers.append(begin("run", place))
    for worker in workers:
        assert worker.wait(60) == 0
        worker.communicate()

    assert_each_was_folded_once(views)


@pytest.mark.parametrize("seed", range(2))
def test_a_rebuild_that_is_killed_leaves_the_old_rows_and_the_next_one_succeeds(
    make_views: MakeViews, seed: int
) -> None:
    moments = Random(seed)  # noqa: S311 - moments are no secret
    views, log = make_views(TOPICS, COUNTS), MadeUpLog(EVENTS)
    Runner(log, views).catch_up()
    for _ in range(3):
        worker = begin("rebuild", make_views.place)
        time.sleep(moments.random() * 0.2)
        kill(worker)
        assert_each_was_folded_once(views)
    worker = begin("rebuild", make_views.place)
    assert worker.wait(60) == 0
    worker.communicate()

    assert_each_was_folded_once(views)
    assert len(views.generations()) == 2


def test_what_a_killed_rebuild_left_is_cleared_away_by_the_runner(make_views: MakeViews) -> None:
    views, log = make_views(COUNTS), MadeUpLog(10)
    Runner(log, views).catch_up()
    abandoned = views.begin(COUNTS)
    assert abandoned is not None
    abandoned.release()
    Runner(log, views).catch_up()

    assert [g.state for g in views.generations()] == ["serving"]


def test_a_runner_that_goes_on_clears_away_what_is_left_meanwhile(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.TIDY", 0.05)
    views, log = make_views(COUNTS), MadeUpLog(10)
    runner = Runner(log, views)
    runner.start()
    assert views.wait_for(10, 10)
    abandoned = views.begin(COUNTS)
    assert abandoned is not None
    abandoned.release()
    eventually(lambda: [g.state for g in views.generations()] == ["serving"])
    runner.stop()


def test_a_first_build_that_was_cut_short_is_gone_on_with(make_views: MakeViews) -> None:
    views, log = make_views(COUNTS), MadeUpLog(10)
    owner = views.begin(COUNTS)
    assert owner is not None
    with owner, owner.advance(0, 4) as page:
        page.insert("stream", [("an earlier page", 4)])
    Runner(log, views).catch_up()

    assert counts(views)["an earlier page"] == 4
    assert sum(counts(views).values()) == 10


def test_readers_and_followers_see_no_gap_and_no_way_back_while_rebuilds_go_on(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.building.PAGE", 20)
    log, views, elsewhere = MemoryLog(), make_views(TOPICS), make_views(TOPICS)
    for number in range(300):
        log.add(f"card-{number}", registered())
    runner = Runner(log, views)
    runner.start()
    assert views.wait_for(300, 10)
    done, faults, reads = threading.Event(), [], []

    def write() -> None:
        while not done.is_set():
            log.add("card-1", registered())
            time.sleep(0.001)

    def read() -> None:
        before = 300
        while not done.is_set():
            found = topics(elsewhere)
            if found != list(range(1, len(found) + 1)) or len(found) < before:
                faults.append((before, len(found)))
            before = len(found)
            reads.append(before)

    threads = [threading.Thread(target=work) for work in (write, read)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        rebuild(log, elsewhere, TOPICS)
    done.set()
    for thread in threads:
        thread.join()
    assert views.wait_for(log.position, 10)
    runner.stop()

    assert not faults
    assert len(reads) > 5
    assert topics(views) == list(range(1, log.position + 1))
    assert max(g.generation for g in views.generations()) == 6


def test_two_rebuilds_at_once_are_one_too_many(make_views: MakeViews) -> None:
    views, log = make_views(COUNTS), MadeUpLog(10)
    Runner(log, views).catch_up()
    owner = views.begin(COUNTS)
    assert owner is not None
    with owner, pytest.raises(TsmError) as refused:
        rebuild(log, views, COUNTS)
    assert refused.value.code is ErrorCode.CONFLICT


def test_a_rebuild_that_comes_to_serve_while_it_is_looked_at_is_not_taken_for_an_abandoned_one(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, elsewhere, log = make_views(COUNTS), make_views(COUNTS), MadeUpLog(10)
    Runner(log, views).catch_up()
    owner = elsewhere.begin(COUNTS)
    assert owner is not None
    own = views.own

    def slowly(projection: Projection, generation: int) -> Owner | None:
        if generation == 2 and elsewhere.generations()[-1].state == BUILDING:
            with owner:
                build(log, elsewhere, owner)
        return own(projection, generation)

    monkeypatch.setattr(views, "own", slowly)
    tidy(views, COUNTS)

    assert [(g.generation, g.state) for g in views.generations()] == [(2, "serving")]
    assert sum(counts(views).values()) == 10


@pytest.mark.parametrize("make_views", ["sqlite"], indirect=True)
def test_a_lock_on_a_file_that_was_dropped_meanwhile_is_none(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = make_views(COUNTS)
    file = make_views.place.file.with_suffix(".owners") / "counts-1"
    opened, flock = iter([True]), fcntl.flock

    def late(descriptor: int, how: int) -> None:
        if next(opened, False):
            file.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    first, second = views.own(COUNTS, 1), views.own(COUNTS, 1)
    assert first is not None
    assert second is None
    first.release()


def test_a_generation_that_could_not_be_begun_is_owned_by_nobody(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full at the very commit."""
    views, log = make_views(COUNTS), MadeUpLog(10)
    change = views.change

    @contextmanager
    def full() -> Iterator[Session]:
        with change() as session:
            yield session
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, "database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(views, "change", full)
        with pytest.raises(TsmError):
            views.begin(COUNTS)
    Runner(log, views).catch_up()

    assert sum(counts(views).values()) == 10


@pytest.mark.parametrize("make_views", ["sqlite"], indirect=True)
def test_a_damaged_file_parks_nothing(make_views: MakeViews) -> None:
    views, log = make_views(TOPICS), MadeUpLog(3000)
    Runner(log, views).catch_up()
    [[page]] = views.look(lambda s: s.execute("SELECT rootpage FROM sqlite_master WHERE name = 'topics_1_topic'"))
    views.close()
    with make_views.place.file.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    views = make_views(TOPICS)
    log.position += 5
    with pytest.raises(TsmError) as refused:
        Runner(log, views).catch_up()

    assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
    assert (views.position, views.parked(TOPICS)) == (3000, [])


@pytest.mark.parametrize("make_views", ["postgresql"], indirect=True)
def test_a_database_that_takes_no_writes_parks_nothing(make_views: MakeViews) -> None:
    """As after a fail-over to a standby that was not promoted."""
    views, log = make_views(TOPICS), MadeUpLog(10)
    Runner(log, views).catch_up()
    owner = views.own(TOPICS, 1)
    with owner:
        with owner.change() as session:
            session.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        log.position += 5
        with pytest.raises(TsmError) as refused:
            catch_up(log, owner)
    assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
    assert (views.position, views.parked(TOPICS)) == (10, [])


@pytest.mark.parametrize("make_views", ["postgresql"], indirect=True)
def test_an_owner_whose_connection_was_cut_notices_though_nothing_happens_and_owns_again(make_views: MakeViews) -> None:
    log, views, elsewhere = MadeUpLog(10), make_views(TOPICS), make_views(TOPICS)
    runner = Runner(log, views)
    runner.start()

    def owned() -> bool:
        found = elsewhere.own(TOPICS, 1)
        if found is not None:
            found.release()
            time.sleep(0.2)  # or it would stand by for ever, as who asks all the time owns it
        return found is None

    eventually(owned)
    with elsewhere.change() as session:
        assert session.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    eventually(owned)
    runner.stop()


def numbers(rows: Rows, events: Sequence[Event]) -> None:
    """What the next version of the read model keeps."""
    rows.insert("number", [(event.position,) for event in events])


NEWER = replace(TOPICS, version=2, tables=(Table("number", {"position": "integer"}),), fold=numbers)


def test_a_new_version_is_built_beside_the_old_one_and_replaces_it(make_views: MakeViews) -> None:
    log, old = MadeUpLog(50), make_views(TOPICS)
    Runner(log, old).catch_up()
    new = make_views(NEWER)
    assert new.positions() == {"topics": 0}
    log.position = 60
    Runner(log, new).catch_up()

    assert new.read(NEWER, "SELECT count(*), max(position) FROM {number}") == [(60, 60)]
    assert [(g.version, g.state) for g in new.generations()] == [(2, "serving")]
    with pytest.raises(TsmError) as refused:
        topics(old)
    assert refused.value.code is ErrorCode.READ_MODEL_BEHIND


def test_the_old_version_serves_for_as_long_as_a_program_folds_it(make_views: MakeViews) -> None:
    log, old, new = MadeUpLog(50), make_views(TOPICS), make_views(NEWER)
    runner = Runner(log, old)
    runner.start()
    assert old.wait_for(50, 10)
    Runner(log, new).catch_up()
    log.position = 55
    assert old.wait_for(55, 10)

    assert topics(old) == list(range(1, 56))
    assert new.position == 50
    runner.stop()
    Runner(log, new).catch_up()
    assert [g.version for g in new.generations()] == [2]


def test_a_program_that_was_put_back_leaves_the_rows_of_the_newer_one(make_views: MakeViews) -> None:
    log, old, new = MadeUpLog(50), make_views(TOPICS), make_views(NEWER)
    Runner(log, new).catch_up()
    Runner(log, old).catch_up()

    assert topics(old) == list(range(1, 51))
    assert new.position == 50


def test_a_read_model_that_no_longer_exists_leaves_nothing_behind(make_views: MakeViews) -> None:
    log, both = MadeUpLog(10), make_views(TOPICS, COUNTS)
    Runner(log, both).catch_up()
    one = make_views(TOPICS)
    Runner(log, one).catch_up()

    assert [g.name for g in one.generations()] == ["topics"]
    assert one.look(lambda session: one.tables(session, "counts_")) == []


def test_an_interrupted_drop_is_completed(make_views: MakeViews, monkeypatch: pytest.MonkeyPatch) -> None:
    log, views = MadeUpLog(10), make_views(COUNTS)
    Runner(log, views).catch_up()
    with monkeypatch.context() as killed:
        killed.setattr("projections.building.drop_retired", lambda *_: None)
        rebuild(log, views, COUNTS)
    assert [g.state for g in views.generations()] == ["retired", "serving"]
    Runner(log, views).catch_up()

    assert [g.state for g in views.generations()] == ["serving"]
    assert len(views.look(lambda session: views.tables(session, "counts_"))) == 1


def test_a_build_that_read_beyond_the_end_of_the_log_is_begun_again(make_views: MakeViews) -> None:
    views = make_views(COUNTS)
    owner = views.begin(COUNTS)
    assert owner is not None
    with owner, owner.advance(0, 40):
        pass
    assert views.look(lambda s: s.execute("SELECT state FROM projection_generation")) == [(BUILDING,)]
    Runner(MadeUpLog(10), views).catch_up()

    assert sum(counts(views).values()) == 10


@pytest.mark.parametrize("make_views", ["postgresql"], indirect=True)
def test_a_restart_of_the_database_is_ridden_out(
    postgres: PostgresServer, make_views: MakeViews, caplog: pytest.LogCaptureFixture
) -> None:
    log, views = MadeUpLog(100), make_views(TOPICS, COUNTS)
    runner = Runner(log, views)
    runner.start()
    assert views.wait_for(100, 10)
    for how in (postgres.restart, lambda: (postgres.kill9(), postgres.start())):
        how()
        log.position += 100
        eventually(lambda: views.position == log.position)
    runner.stop()

    assert_each_was_folded_once(views, 300)
    assert "could not be brought up to date" in caplog.text


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if condition():
                return
        except TsmError as error:
            assert error.code is ErrorCode.STORE_UNAVAILABLE
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
