"""Blocking-style work on the event loop: where it waits, the loop goes on.

A request loads, decides and commits in plain functions, which followers call in threads of their own. On the event loop
the same functions run in a greenlet: when one of them waits for a `Ticket`, the greenlet is put aside and the loop goes
on with others, until the ticket is settled. No thread waits for a commit. What runs so must not hold a lock while it
waits, for the next request runs in the same thread.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import copy_context
from threading import Lock, local
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

Result = TypeVar("Result")


class Task(greenlet):
    """Work that began with `run`."""


class _Tasks(local):
    running = 0  # in this thread


_tasks = _Tasks()


def on_loop() -> bool:
    """Whether the caller would hold up an event loop."""
    return isinstance(getcurrent(), Task)


def alone() -> bool:
    """Whether the caller is in a thread of his own, or the only one whose work is under way on his event loop.

    On a loop others are let on first: those who are ready to begin are seen, and nobody keeps the loop for himself.
    """
    if not on_loop():
        return True
    if _tasks.running == 1:
        getcurrent().parent.switch(asyncio.sleep(0))  # type: ignore[union-attr]  # a task has one
    return _tasks.running == 1


class Ticket(Generic[Result]):
    """What one caller waits for. Made where it is waited for; settled once, by any thread."""

    __slots__ = ("_error", "_future", "_result", "_settled", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop() if on_loop() else None
        self._future = None if self.loop is None else self.loop.create_future()
        self._settled = Lock()  # held until it is settled: a quarter of the cost of an Event
        self._settled.acquire()
        self._result: Result | None = None
        self._error: Exception | None = None

    def settle(self, outcome: Result | Exception) -> None:
        """Takes the outcome; `wake` lets the caller have it."""
        if isinstance(outcome, Exception):
            self._error = outcome
        else:
            self._result = outcome

    def wake(self) -> None:
        """In the thread of the loop, when there is one."""
        self._settled.release()
        self._go_on()

    def wait(self) -> Result:
        """The result, or the error raised."""
        self.wait_for(None)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # settled without an error

    def wait_for(self, seconds: float | None) -> bool:
        """Whether it was settled within that time; None: however long it takes."""
        if self.loop is None:
            if not self._settled.acquire(timeout=-1 if seconds is None else seconds):
                return False
            self._settled.release()
            return True
        if self._settled.locked():
            timer = None if seconds is None else self.loop.call_later(seconds, self._go_on)
            getcurrent().parent.switch(self._future)  # type: ignore[union-attr]  # a task has one
            if timer is not None:
                timer.cancel()
            self._future = self.loop.create_future()
        return not self._settled.locked()

    def _go_on(self) -> None:
        if self._future is not None and not self._future.done():  # done: cancelled, or gone on already
            self._future.set_result(None)


def wake(tickets: Iterable[Ticket[Any]]) -> None:
    """Wakes all, with one call for each loop: such a call costs as much as an event."""
    of_loops: dict[asyncio.AbstractEventLoop, list[Ticket[Any]]] = {}
    for ticket in tickets:
        if ticket.loop is None:
            ticket.wake()
        else:
            of_loops.setdefault(ticket.loop, []).append(ticket)
    for loop, waiting in of_loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_wake_all, waiting)


def aside(threads: Executor, work: Callable[..., Result], *arguments: Any) -> Result:
    """Does in one of the `threads` what would hold up the loop; whoever is not on a loop does it himself."""
    if not on_loop():
        return work(*arguments)
    ticket: Ticket[Result] = Ticket()

    def settle() -> None:
        try:
            ticket.settle(work(*arguments))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            ticket.settle(error)
        wake([ticket])

    threads.submit(settle)
    return ticket.wait()


def done(future: Future[Any], seconds: float) -> bool:
    """Waits until something outside is done, however it ends, that long at most; whether it is."""
    ticket: Ticket[None] = Ticket()
    future.add_done_callback(lambda _: wake([ticket]))
    ticket.wait_for(seconds)
    return future.done()


async def run(work: Callable[..., Result], *arguments: Any) -> Result:
    """Runs `work` in this thread; while it waits for a ticket, the loop goes on.

    When the caller is cancelled, `work` meets the `CancelledError` where it waits: what it waited for may yet happen.
    """
    task = Task(work)
    task.gr_context = copy_context()
    _tasks.running += 1
    try:
        value = task.switch(*arguments)
        while not task.dead:
            try:
                await value
            except asyncio.CancelledError as error:
                value = task.throw(error)
            else:
                value = task.switch()
    finally:
        _tasks.running -= 1
    return value  # type: ignore[no-any-return]  # what `work` returned


def _wake_all(tickets: list[Ticket[Any]]) -> None:
    for ticket in tickets:
        ticket.wake()
