"""Group commit: everybody gets his own outcome, in the order of his stream, whatever happens to the others."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from engines import Engine, Entry, PlainSealer, entries, stored, whole_log
from eventsourcing.persistence import IntegrityError
from writers import FAR

from tsm.errors import ErrorCode, TsmError
from tsm.store.committer import Committer
from tsm.store.loop import Ticket, run, wake
from tsm.store.memory import MemoryRecorder
from tsm.store.migrations import migrate_sqlite
from tsm.store.recorder import Append, Command, Recorded
from tsm.store.sqlite import SQLiteRecorder

TASKS, THREADS, TIMES = 64, 16, 5


class Gated(MemoryRecorder):
    """Every transaction waits until the test lets it go on; the test sees what went into each."""

    def __init__(self) -> None:
        super().__init__(PlainSealer())
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.transactions: list[Sequence[Append]] = []
        self.fails_with: Exception | None = None

    def append(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        self.transactions.append(batch)
        self.begun.release()
        self.gate.wait()
        if self.fails_with is not None:
            raise self.fails_with
        return super().append(batch)

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.transactions]


@pytest.fixture
def gated() -> Gated:
    return Gated()


@pytest.fixture
def threads(gated: Gated) -> Iterator[ThreadPoolExecutor]:
    """Callers; whatever happens to the test, none of them waits for ever."""
    with ThreadPoolExecutor(32) as pool:
        yield pool
        gated.gate.set()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def until_waiting(committer: Committer, appends: int) -> None:
    until(lambda: committer._queue.qsize() + len(committer._left) == appends)


def one(stream: str, version: int = 1) -> Append:
    return Append([stored(stream, version)])


def one_begins(gated: Gated, committer: Committer, threads: ThreadPoolExecutor) -> "Future[Recorded]":
    """A transaction is under way; whoever comes now has to wait."""
    first = threads.submit(committer.append, one("first"))
    gated.begun.acquire()
    return first


def wait_behind(
    gated: Gated, appends: Sequence[Append], committer: Committer, threads: ThreadPoolExecutor
) -> list["Future[Recorded]"]:
    """They come one after the other."""
    waiting = []
    for append in appends:
        waiting.append(threads.submit(committer.append, append))
        until_waiting(committer, len(waiting))
    return waiting


def code_of(future: "Future[Recorded]") -> ErrorCode | None:
    error = future.exception(60)
    return error.code if isinstance(error, TsmError) else None


# --- all engines ---


def test_tasks_and_threads_are_all_recorded_each_in_its_own_order(engine: Engine) -> None:
    recorder = engine.open()

    def work(committer: Committer, name: str) -> list[Entry]:
        found = []
        for version in range(1, TIMES + 1):
            [position] = committer.append(one(name, version)).positions
            found.append(Entry(position, name, version, b"{}"))
        return found

    async def tasks(committer: Committer) -> list[list[Entry]]:
        return await asyncio.gather(*(run(work, committer, f"task-{n}") for n in range(TASKS)))

    with closing(Committer(recorder)) as committer, ThreadPoolExecutor(THREADS) as pool:
        others = [pool.submit(work, committer, f"thread-{n}") for n in range(THREADS)]
        found = asyncio.run(tasks(committer)) + [other.result() for other in others]
    assert entries(whole_log(recorder)) == sorted(entry for part in found for entry in part)
    assert len(whole_log(recorder)) == (TASKS + THREADS) * TIMES
    assert all(part == sorted(part) for part in found)


def test_tasks_that_write_to_one_stream_take_turns_and_all_but_one_are_refused_each_time(engine: Engine) -> None:
    recorder = engine.open()

    async def tasks(committer: Committer) -> list[object]:
        work = (run(committer.append, Append([stored("s", 1, str(n).encode())])) for n in range(TASKS))
        return await asyncio.gather(*work, return_exceptions=True)

    with closing(Committer(recorder)) as committer:
        outcomes = asyncio.run(tasks(committer))
    [winner] = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Recorded)]
    assert sum(isinstance(outcome, IntegrityError) for outcome in outcomes) == TASKS - 1
    assert entries(whole_log(recorder)) == [Entry(1, "s", 1, str(winner).encode())]


def test_a_command_that_is_sent_by_many_at_once_is_carried_out_once(engine: Engine) -> None:
    recorder = engine.open()
    command = Command("key-1", "digest", FAR)

    async def tasks(committer: Committer) -> list[Recorded]:
        work = (run(committer.append, Append([stored(f"s-{n}", 1)], command=command)) for n in range(TASKS))
        return await asyncio.gather(*work)

    with closing(Committer(recorder)) as committer:
        outcomes = asyncio.run(tasks(committer))
    first, again = Recorded(range(1, 2), 1), Recorded(range(1, 2), 1, repeated=True)
    assert (outcomes.count(first), outcomes.count(again)) == (1, TASKS - 1)
    assert recorder.max_notification_id() == 1


# --- who goes with whom ---


def test_all_that_wait_go_into_one_transaction(gated: Gated, threads: ThreadPoolExecutor) -> None:
    with closing(Committer(gated)) as committer:
        one_begins(gated, committer, threads)
        waiting = wait_behind(gated, [one(f"s-{n}") for n in range(10)], committer, threads)
        gated.gate.set()
        positions = [future.result().positions for future in waiting]
    assert positions == [range(n, n + 1) for n in range(2, 12)]  # in order of arrival
    assert gated.sizes() == [1, 10]


def test_who_touches_what_another_changes_comes_after_him_and_the_rest_does_not_wait(
    gated: Gated, threads: ThreadPoolExecutor
) -> None:
    appends = [
        one("a", 1),
        one("a", 2),
        Append([stored("b", 1)], unchanged={"a": 2}),
        one("c"),
        one("a", 3),
        Append([stored("d", 1)], unchanged={"b": 1}),
    ]
    with closing(Committer(gated)) as committer:
        one_begins(gated, committer, threads)
        waiting = wait_behind(gated, appends, committer, threads)
        gated.gate.set()
        for future in waiting:
            future.result()
    streams = [[str(append.events[0].originator_id) for append in batch] for batch in gated.transactions]
    assert streams == [["first"], ["a", "c"], ["a"], ["b"], ["a", "d"]]


def test_a_refusal_does_no_harm_to_the_others_of_its_transaction(gated: Gated, threads: ThreadPoolExecutor) -> None:
    with closing(Committer(gated)) as committer:
        one_begins(gated, committer, threads)
        waiting = wait_behind(gated, [one("a"), one("b", 7), one("c")], committer, threads)
        gated.gate.set()
        assert waiting[0].result().positions == range(2, 3)
        assert isinstance(waiting[1].exception(), IntegrityError)
        assert waiting[2].result().positions == range(3, 4)
    assert gated.sizes() == [1, 3]


# --- when it goes wrong ---


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TsmError(ErrorCode.STORE_UNAVAILABLE, "no room"), ErrorCode.STORE_UNAVAILABLE),
        (RuntimeError("nobody thought of that"), ErrorCode.INTERNAL),
    ],
)
def test_a_transaction_that_fails_tells_every_caller_and_the_next_goes_on(
    error: Exception, code: ErrorCode, gated: Gated, threads: ThreadPoolExecutor
) -> None:
    with closing(Committer(gated)) as committer:
        one_begins(gated, committer, threads)
        waiting = wait_behind(gated, [one("a"), one("b"), one("a", 2)], committer, threads)
        gated.fails_with = error
        gated.gate.set()
        assert [code_of(future) for future in waiting] == [code] * 3
        gated.fails_with = None
        assert committer.append(one("a")).positions == range(1, 2)


def test_an_append_that_the_database_does_not_take_harms_nobody_else(engine: Engine) -> None:
    """PostgreSQL takes no NUL in a text, and nobody takes half a character."""
    appends = [one("a"), Append([stored("odd\0")]), one("b"), Append([stored("odd\ud800")]), one("c")]
    with closing(engine.open()) as recorder, closing(Committer(recorder)) as committer:
        outcomes = asyncio.run(all_at_once(committer, appends))
        assert [isinstance(outcomes[number], Recorded) for number in (0, 2, 4)] == [True] * 3
        log = entries(whole_log(recorder))
        assert {entry.stream for entry in log} >= {"a", "b", "c"}
        recorded = sum(len(outcome.positions) for outcome in outcomes if isinstance(outcome, Recorded))
        assert [entry.position for entry in log] == list(range(1, recorded + 1))


async def all_at_once(committer: Committer, appends: Sequence[Append]) -> list[Recorded | BaseException]:
    return await asyncio.gather(*(run(committer.append, append) for append in appends), return_exceptions=True)


class Noting(MemoryRecorder):
    """Notes in which thread it records."""

    def __init__(self) -> None:
        super().__init__(PlainSealer())
        self.threads: list[str] = []

    def append(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        self.threads.append(threading.current_thread().name)
        return super().append(batch)


def test_whoever_is_alone_records_himself_and_several_tasks_are_recorded_together() -> None:
    recorder, here = Noting(), threading.current_thread().name
    with closing(Committer(recorder)) as committer:
        committer.append(one("a"))
        asyncio.run(all_at_once(committer, [one("b")]))
        assert recorder.threads == [here, here]
        asyncio.run(both_under_way(committer))
        assert recorder.threads[2:] == ["committer"]


async def both_under_way(committer: Committer) -> None:
    """The second task begins before the first appends."""
    begun: list[Ticket[None]] = []

    def work(stream: str) -> None:
        begun.append(Ticket())
        begun[-1].wait()
        committer.append(one(stream))

    tasks = [asyncio.create_task(run(work, stream)) for stream in "cd"]
    while len(begun) < 2:
        await asyncio.sleep(0)
    for ticket in begun:
        ticket.settle(None)
    wake(begun)
    await asyncio.gather(*tasks)


def test_the_loop_goes_on_while_another_process_writes_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    migrate_sqlite(path)
    with closing(SQLiteRecorder(path, PlainSealer())) as recorder, closing(Committer(recorder)) as committer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def story() -> Recorded:
            waiting = asyncio.create_task(run(committer.append, one("a")))
            for _ in range(20):
                await asyncio.sleep(0.001)
                assert not waiting.done()
            other.execute("ROLLBACK")
            return await waiting

        assert asyncio.run(story()).positions == range(1, 2)
        other.close()


def test_a_crowd_is_refused_at_once(gated: Gated, threads: ThreadPoolExecutor) -> None:
    with closing(Committer(gated, most_waiting=3)) as committer:
        one_begins(gated, committer, threads)
        waiting = wait_behind(gated, [one(f"s-{n}") for n in range(3)], committer, threads)
        with pytest.raises(TsmError) as refusal:
            committer.append(one("late"))
        assert refusal.value.code is ErrorCode.STORE_BUSY
        gated.gate.set()
        assert [len(future.result().positions) for future in waiting] == [1, 1, 1]
        assert committer.append(one("late")).positions == range(5, 6)


def test_who_waits_too_long_is_told_so_although_the_database_hangs_and_is_not_recorded(
    gated: Gated, threads: ThreadPoolExecutor
) -> None:
    with closing(Committer(gated, patience=0.02)) as committer:
        first = one_begins(gated, committer, threads)
        with pytest.raises(TsmError) as refusal:
            committer.append(one("late"))
        [on_loop] = asyncio.run(all_at_once(committer, [one("late too")]))
        assert isinstance(on_loop, TsmError)
        assert refusal.value.code is on_loop.code is ErrorCode.STORE_BUSY
        gated.gate.set()
        assert first.result().positions == range(1, 2)
    assert gated.max_notification_id() == 1


def test_who_has_his_transaction_waits_for_what_becomes_of_it(gated: Gated, threads: ThreadPoolExecutor) -> None:
    with closing(Committer(gated, patience=0.02)) as committer:
        with committer._turn:  # somebody records, so this one is queued
            slow = threads.submit(committer.append, one("slow"))
            until_waiting(committer, 1)
        gated.begun.acquire()
        time.sleep(0.05)
        assert not slow.done()
        gated.gate.set()
        assert slow.result().positions == range(1, 2)


def test_closing_records_what_waits_and_takes_nothing_more(gated: Gated, threads: ThreadPoolExecutor) -> None:
    committer = Committer(gated)
    one_begins(gated, committer, threads)
    waiting = wait_behind(gated, [one("a"), one("a", 2), one("b")], committer, threads)
    closers = [threads.submit(committer.close) for _ in range(2)]
    until(lambda: committer._closing)
    with pytest.raises(TsmError) as refusal:
        committer.append(one("late"))
    assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
    gated.gate.set()
    for closer in closers:
        closer.result(60)
    assert [future.result().positions for future in waiting] == [range(2, 3), range(4, 5), range(3, 4)]
    committer.close()
    assert gated.max_notification_id() == 4


def test_a_caller_who_goes_away_holds_up_nobody(gated: Gated, threads: ThreadPoolExecutor) -> None:
    """What he asked for may have happened all the same: nobody can take it back from a transaction."""

    async def story(committer: Committer) -> Recorded:
        leaving = asyncio.create_task(run(committer.append, one("leaving")))
        staying = asyncio.create_task(run(committer.append, one("staying")))
        await asyncio.sleep(0)
        await asyncio.to_thread(until_waiting, committer, 2)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gated.gate.set()
        return await staying

    with closing(Committer(gated)) as committer:
        one_begins(gated, committer, threads)
        assert len(asyncio.run(story(committer)).positions) == 1
    assert len(gated.select_events("leaving")) == 1


def test_a_loop_that_has_ended_holds_up_nobody(gated: Gated, threads: ThreadPoolExecutor) -> None:
    async def leave(committer: Committer) -> None:
        asyncio.create_task(run(committer.append, one("leaving")))  # noqa: RUF006 - nobody waits for it
        await asyncio.sleep(0)

    with closing(Committer(gated)) as committer:
        one_begins(gated, committer, threads)
        asyncio.run(leave(committer))
        waiting = threads.submit(committer.append, one("staying"))
        until_waiting(committer, 2)
        gated.gate.set()
        assert waiting.result(60).positions == range(3, 4)
