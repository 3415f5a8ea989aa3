"""Group commit: whatever waits to be recorded goes into one transaction.

Most of what a durable commit costs is the same for one append and for a hundred: a round trip, a lock, a flush to disk.
So one thread takes all appends that wait, records them together, and tells each caller its own outcome; meanwhile the
next gather. Appends that touch one stream keep their order, in successive transactions, for the later may rest on the
earlier. Where nobody else writes or waits, a caller records his append himself: to change threads would cost as much.

A crowd is refused, not kept waiting: STORE_BUSY means that nothing was recorded.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import Ticket, alone, on_loop, wake
from tsm.store.recorder import Append, Recorded, Recorder

MOST_WAITING = 1024  # appends
MOST_TOGETHER = 256  # appends of one transaction: others of other processes want their turn
PATIENCE = 10.0  # seconds that an append waits for its transaction to begin
OF_THE_STORE = {ErrorCode.STORE_UNAVAILABLE, ErrorCode.STORE_BUSY}  # no append is at fault
Outcomes = TypeVar("Outcomes", bound=list[Recorded | Exception] | None)
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    append: Append
    changes: Set[str]
    touches: Set[str]
    begun: bool = False  # its transaction may be under way: nobody can take it back any more
    given_up: bool = False
    ticket: Ticket[Recorded] = field(default_factory=Ticket)


class Committer:
    """One thread that writes for all threads and for all tasks of the event loop."""

    def __init__(self, recorder: Recorder, *, most_waiting: int = MOST_WAITING, patience: float = PATIENCE) -> None:
        self._recorder = recorder
        self._most_waiting = most_waiting
        self._patience = patience
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._left: deque[_Waiting] = deque()  # taken from the queue, not yet recorded
        self._turn = Lock()  # whoever holds it records
        self._gate = Lock()  # nothing comes after the end of the queue, and nobody gives up what has begun
        self._closing = False
        self._ended = False
        self._thread = Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def append(self, append: Append) -> Recorded:
        """Waits until it is recorded. Raises what the recorder refused it for, or STORE_BUSY."""
        outcome = self._by_himself(append)
        if outcome is None:
            waiting = self._queued(append)
            if not waiting.ticket.wait_for(self._patience):
                self._give_up(waiting)
            return waiting.ticket.wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _by_himself(self, append: Append) -> Recorded | Exception | None:
        """None when others write or wait, or when an event loop would have to wait for more than a disk."""
        if not alone() or not self._turn.acquire(blocking=False):
            return None
        try:
            if self._closing or self._left or not self._queue.empty():
                return None
            if not on_loop():
                return self._record([append])[0]
            outcomes = self._attempt(self._recorder.append_at_once, [append])
            return outcomes[0] if isinstance(outcomes, list) else outcomes
        finally:
            self._turn.release()

    def _queued(self, append: Append) -> _Waiting:
        if self.waiting >= self._most_waiting:
            raise TsmError(ErrorCode.STORE_BUSY, f"{self._most_waiting} appends wait")
        waiting = _Waiting(append, append.changes(), append.touches())
        with self._gate:
            if self._closing:
                raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the server is stopping")
            self._queue.put(waiting)
        return waiting

    def _give_up(self, waiting: _Waiting) -> None:
        """STORE_BUSY, unless its transaction has begun: that has an end, or a time limit, of its own."""
        with self._gate:
            if waiting.begun:
                return
            waiting.given_up = True
        raise TsmError(ErrorCode.STORE_BUSY, f"no transaction within {self._patience} s")

    @property
    def waiting(self) -> int:
        """Appends that wait for their transaction."""
        return self._queue.qsize() + len(self._left)

    def close(self) -> None:
        """Records what waits, then ends. Safe to repeat."""
        with self._gate:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._wait():
            with self._turn:
                batch = self._take()
                outcomes = self._record([waiting.append for waiting in batch])
            for waiting, outcome in zip(batch, outcomes, strict=True):
                waiting.ticket.settle(outcome)
            wake(waiting.ticket for waiting in batch)

    def _wait(self) -> bool:
        """Until there is something to record; False when it is time to end."""
        if not self._left and not self._ended:
            self._arrive(self._queue.get())
        return bool(self._left)

    def _arrive(self, waiting: _Waiting | None) -> None:
        if waiting is None:
            self._ended = True
        else:
            self._left.append(waiting)

    def _take(self) -> list[_Waiting]:
        """All that may go together, in order of arrival; the others are left."""
        with suppress(Empty):
            while True:
                self._arrive(self._queue.get_nowait())
        arrived, self._left = self._left, deque()
        taken: list[_Waiting] = []
        changed: set[str] = set()
        touched: set[str] = set()
        for waiting in arrived:
            apart = touched.isdisjoint(waiting.changes) and changed.isdisjoint(waiting.touches)
            if apart and len(taken) < MOST_TOGETHER:
                taken.append(waiting)
            else:  # whoever comes later and touches the same stays behind it
                self._left.append(waiting)
            changed |= waiting.changes
            touched |= waiting.touches
        return self._begin(taken)

    def _begin(self, taken: list[_Waiting]) -> list[_Waiting]:
        """Those who still wait; from now on they get what the transaction says."""
        with self._gate:
            still = [waiting for waiting in taken if not waiting.given_up]
            for waiting in still:
                waiting.begun = True
        return still

    def _record(self, appends: Sequence[Append]) -> Sequence[Recorded | Exception]:
        """What became of each. When the transaction fails for what one of them holds, each is recorded by itself."""
        if not appends:
            return []
        outcomes = self._attempt(self._recorder.append, appends)
        if not isinstance(outcomes, TsmError):
            return outcomes
        if len(appends) > 1 and outcomes.code not in OF_THE_STORE:
            return [outcome for append in appends for outcome in self._record([append])]
        return [TsmError(outcomes.code, outcomes.detail) for _ in appends]

    def _attempt(
        self, record: Callable[[Sequence[Append]], Outcomes], appends: Sequence[Append]
    ) -> Outcomes | TsmError:
        try:
            return record(appends)
        except TsmError as error:
            return error
        except Exception as error:  # whatever it was, callers must not wait for ever
            log.exception("a transaction failed")
            return TsmError(ErrorCode.INTERNAL, type(error).__name__)
