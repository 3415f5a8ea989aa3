"""No room on the disk: what does not fit is refused as a whole, and what fits afterwards is recorded."""

import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
from engines import PlainSealer, PostgresEngine, SQLiteEngine, stored, whole_log
from writers import started, whole

from tsm.errors import ErrorCode, TsmError
from tsm.store.committer import Committer
from tsm.store.opening import open_recorder
from tsm.store.recorder import Append, Recorder
from tsm.store.sqlite import SQLiteRecorder

MOST = 10_000  # appends: far more than there is room for
PATIENCE = 60  # seconds for what a process has to say


class Full(NamedTuple):
    """What was recorded before there was no room, and what those heard who came later."""

    recorded: int
    code: ErrorCode


def fill(recorder: Recorder, name: str) -> Full:
    for number in range(MOST):
        try:
            recorder.append([whole(name, number)])
        except TsmError as error:
            return Full(number, error.code)
    raise AssertionError("there was room for everything")


def fill_a_batch(recorder: Recorder, name: str) -> Full:
    """Batches of ten: none of the ten is recorded when one does not fit."""
    for number in range(0, MOST, 10):
        batch = [Append([stored(f"{name}-{n}", 1, b"x" * 999)]) for n in range(number, number + 10)]
        try:
            recorder.append(batch)
        except TsmError as error:
            return Full(number, error.code)
    raise AssertionError("there was room for everything")


def test_sqlite_a_full_file_refuses_the_whole_append_and_is_used_again_when_there_is_room(tmp_path: Path) -> None:
    with closing(SQLiteEngine(PlainSealer(), tmp_path)) as engine:
        recorder = engine.open()
        set_pages(recorder, 60)
        full = fill(recorder, "w")
        assert full.code is ErrorCode.STORE_UNAVAILABLE
        assert full.recorded > 10
        check_whole(recorder, "w", full.recorded)
        assert recorder.held == 0
        set_pages(recorder, 10**6)
        recorder.append([whole("w", full.recorded)])
        check_whole(recorder, "w", full.recorded + 1)


def test_sqlite_a_batch_that_does_not_fit_is_refused_as_a_whole(tmp_path: Path) -> None:
    with closing(SQLiteEngine(PlainSealer(), tmp_path)) as engine:
        recorder = engine.open()
        set_pages(recorder, 60)
        full = fill_a_batch(recorder, "w")
        assert full.code is ErrorCode.STORE_UNAVAILABLE
        assert len(whole_log(recorder)) == full.recorded > 10


def test_sqlite_every_caller_of_the_committer_hears_that_there_is_no_room(tmp_path: Path) -> None:
    with closing(SQLiteEngine(PlainSealer(), tmp_path)) as engine:
        recorder = engine.open()
        set_pages(recorder, 60)
        with closing(Committer(recorder)) as committer:
            fill(recorder, "w")
            with pytest.raises(TsmError) as refusal:
                committer.append(Append([stored("big", 1, b"x" * 100_000)]))
            assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
            set_pages(recorder, 10**6)
            assert committer.append(Append([stored("big", 1, b"x" * 100_000)])).positions


def set_pages(recorder: Recorder, most: int) -> None:
    assert isinstance(recorder, SQLiteRecorder)
    recorder._writer.execute(f"PRAGMA max_page_count = {most}")


def fill_a_limited_file(place: Path, octets: int, filling: Callable[[Recorder, str], Full], report: Connection) -> None:
    """No file of this process may be larger than that: as on a full disk, a write fails in the middle."""
    with closing(open_recorder(place, PlainSealer())) as recorder:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
        full = filling(recorder, "w")
        found = len(whole_log(recorder))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        again = recorder.insert_events([stored("afterwards", 1)])
        report.send((full, found, again))


@pytest.mark.parametrize("octets", [150_000, 400_000, 1_000_000])
def test_sqlite_a_write_that_ends_in_the_middle_leaves_nothing_half_done(octets: int, tmp_path: Path) -> None:
    """The limit meets the write-ahead log first, or, when that is emptied into the file early enough, the file."""
    with closing(SQLiteEngine(PlainSealer(), tmp_path)) as engine:
        with started(fill_a_limited_file, engine.place, octets, fill) as (_, pipe):
            assert pipe.poll(PATIENCE)
            full, found, again = pipe.recv()
        assert full.code is ErrorCode.STORE_UNAVAILABLE
        assert (found, again) == (2 * full.recorded, [2 * full.recorded + 1])
        recorder = engine.open()
        check_whole(recorder, "w", full.recorded)
        assert recorder.insert_events([stored("afterwards", 2)]) == [2 * full.recorded + 2]
        with sqlite3.connect(engine.place) as outsider:
            assert outsider.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_sqlite_nor_does_a_batch(tmp_path: Path) -> None:
    with closing(SQLiteEngine(PlainSealer(), tmp_path)) as engine:
        with started(fill_a_limited_file, engine.place, 300_000, fill_a_batch) as (_, pipe):
            assert pipe.poll(PATIENCE)
            full, found, again = pipe.recv()
        assert full.code is ErrorCode.STORE_UNAVAILABLE
        assert (found, again) == (full.recorded, [full.recorded + 1])


@pytest.mark.parametrize("table", ["event", "payload", "person_index", "command"])
def test_postgresql_refuses_the_whole_append_whatever_of_it_has_no_room(
    table: str, on_postgres: PostgresEngine
) -> None:
    """The owner makes the server say what it says when the disk is full (53100), at every place where it may."""
    recorder = on_postgres.open()
    recorder.append([whole("w", 0)])
    before = on_postgres.everything()
    with on_postgres.owner() as owner:
        owner.execute(
            "CREATE FUNCTION public.no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        owner.execute(f"CREATE TRIGGER no_room BEFORE INSERT ON tsm.{table} EXECUTE FUNCTION public.no_room()".encode())
        with pytest.raises(TsmError) as refusal:
            recorder.append([Append([stored("other", 1)], command=None), whole("w", 1)])
        assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
        assert on_postgres.everything() == before
        owner.execute("DROP FUNCTION public.no_room CASCADE")
    recorder.append([whole("w", 1)])
    check_whole(recorder, "w", 2)


def check_whole(recorder: Recorder, name: str, appends: int) -> None:
    """So many appends are recorded, each with all that belongs to it, and nothing else of this name."""
    for stream in (name, f"{name}-too"):
        assert [e.originator_version for e in recorder.select_events(stream)] == list(range(1, appends + 1))
    last = whole(name, appends - 1)
    assert recorder.payload(name, "last") == last.put_payloads[name, "last"]
    assert len(recorder.indexed(f"{name}-value")) == appends
    assert last.command is not None and recorder.answered(last.command) is not None
    following = whole(name, appends).command
    assert following is not None and recorder.answered(following) is None
