"""Blocking-style work on the event loop: it waits like a thread, and the loop goes on like with a coroutine."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from tsm.store.loop import Ticket, aside, run, wake

speaker: ContextVar[str] = ContextVar("speaker", default="nobody")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def settle_in_a_thread(ticket: "Ticket[str]", outcome: str | Exception) -> str:
    """As the committer does."""

    def settle() -> None:
        ticket.settle(outcome)
        wake([ticket])

    threading.Thread(target=settle).start()
    return ticket.wait()


def test_work_that_never_waits_is_simply_done() -> None:
    assert asyncio.run(run(lambda a, b: a + b, 1, 2)) == 3


def test_the_result_comes_back_through_ordinary_functions() -> None:
    def deep(levels: int) -> str:
        return deep(levels - 1) + "." if levels else settle_in_a_thread(Ticket(), "done")

    assert asyncio.run(run(deep, 30)) == "done" + "." * 30
    assert deep(3) == "done..."  # the same in a thread that has no loop


def test_an_exception_is_raised_where_it_is_waited_for_and_may_be_handled_there() -> None:
    def work(handle: bool) -> str:
        try:
            return settle_in_a_thread(Ticket(), ValueError("refused"))
        except ValueError:
            if not handle:
                raise
        return settle_in_a_thread(Ticket(), "handled")

    assert asyncio.run(run(work, True)) == "handled"
    with pytest.raises(ValueError, match="refused"):
        asyncio.run(run(work, False))


def test_an_exception_of_the_work_itself_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run(lambda: 1 // 0))


def test_while_one_waits_others_go_on_in_the_same_thread() -> None:
    """Each waits for the one before it: with a loop that were held up, nobody would ever end."""
    said: list[str] = []

    async def story() -> list[str]:
        tickets: list[Ticket[str]] = []

        def work(number: int) -> str:
            said.append(f"{number} begins in {threading.current_thread().name}")
            tickets.append(Ticket())
            result = tickets[number].wait()
            said.append(f"{number} ends")
            return result

        tasks = [asyncio.create_task(run(work, number)) for number in range(3)]
        await asyncio.sleep(0)
        for number in (2, 0, 1):
            tickets[number].settle(f"result {number}")
            wake([tickets[number]])
            await tasks[number]
        return await asyncio.gather(*tasks)

    assert asyncio.run(story()) == ["result 0", "result 1", "result 2"]
    name = threading.current_thread().name
    assert said == [*(f"{n} begins in {name}" for n in range(3)), "2 ends", "0 ends", "1 ends"]


def test_context_variables_are_those_of_the_caller_and_stay_with_the_work() -> None:
    def work(name: str) -> list[str]:
        heard = [speaker.get()]
        speaker.set(f"{name} at work")
        settle_in_a_thread(Ticket(), "done")
        return [*heard, speaker.get()]

    async def request(name: str) -> list[str]:
        speaker.set(name)
        return [*await run(work, name), speaker.get()]

    async def story() -> list[list[str]]:
        return await asyncio.gather(*(request(name) for name in ("yuki", "ken")))

    assert asyncio.run(story()) == [["yuki", "yuki at work", "yuki"], ["ken", "ken at work", "ken"]]
    assert speaker.get() == "nobody"


def test_whoever_is_cancelled_meets_it_where_he_waits_and_can_tidy_up() -> None:
    said: list[str] = []

    async def story() -> None:
        tickets: list[Ticket[str]] = []

        def work() -> None:
            tickets.append(Ticket())
            try:
                tickets[0].wait()
            finally:
                said.append("tidied up")

        task = asyncio.create_task(run(work))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        tickets[0].settle("too late")
        wake(tickets)  # nobody waits any more, and nobody minds

    asyncio.run(story())
    assert said == ["tidied up"]


def test_work_may_wait_for_something_more_while_it_tidies_up() -> None:
    said: list[str] = []

    async def story() -> None:
        def work() -> None:
            try:
                Ticket[str]().wait()
            finally:
                said.append(settle_in_a_thread(Ticket(), "one thing more"))

        task = asyncio.create_task(run(work))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert said == ["one thing more"]


def test_a_time_limit_of_the_caller_holds() -> None:
    async def story() -> None:
        async with asyncio.timeout(0.01):
            await run(lambda: Ticket[str]().wait())

    with pytest.raises(TimeoutError):
        asyncio.run(story())


def test_what_would_hold_up_the_loop_is_done_aside(threads: ThreadPoolExecutor) -> None:
    gate = threading.Event()

    def read() -> str:
        gate.wait()
        return threading.current_thread().name

    async def story() -> str:
        task = asyncio.create_task(run(aside, threads, read))
        await asyncio.sleep(0)
        gate.set()  # the loop goes on, or nobody would open the gate
        return await task

    assert asyncio.run(story()) != threading.current_thread().name
    assert aside(threads, read) == threading.current_thread().name  # without a loop there is nothing to hold up


def test_what_fails_aside_is_raised_where_it_is_waited_for(threads: ThreadPoolExecutor) -> None:
    def fail() -> None:
        raise KeyError("aside")

    with pytest.raises(KeyError):
        asyncio.run(run(aside, threads, fail))


def test_tickets_of_several_loops_and_threads_are_woken_together() -> None:
    tickets: list[Ticket[str]] = []
    ready = threading.Semaphore(0)

    def work() -> str:
        ticket: Ticket[str] = Ticket()
        tickets.append(ticket)
        ready.release()
        return ticket.wait()

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lambda: asyncio.run(run(work)))]
        ready.acquire()
        waiting.append(pool.submit(lambda: asyncio.run(run(work))))
        ready.acquire()
        waiting.append(pool.submit(work))
        ready.acquire()
        for number, ticket in enumerate(tickets):
            ticket.settle(str(number))
        wake(tickets)
        assert [one.result(60) for one in waiting] == ["0", "1", "2"]
