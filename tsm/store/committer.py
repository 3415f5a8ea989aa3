"""Group commit: whatever waits to be recorded goes into one transaction.

Most of what a durable commit costs is the same for one append and for a hundred: a round trip, a lock, a flush to disk.
So one thread takes all appends that wait, records them together, and tells each caller its own outcome; meanwhile the
next gather. An append alone is recorded at once. Appends that touch one stream keep their order, in successive
transactions, for the later may rest on the earlier.

A crowd is refused, not kept waiting: STORE_BUSY means that nothing was recorded.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import Ticket, wake
from tsm.store.recorder import Append, Recorded, Recorder

MOST_WAITING = 1024  # appends
MOST_TOGETHER = 256  # appends of one transaction: others of other processes want their turn
PATIENCE = 10.0  # seconds that an append waits for its transaction to begin
OF_THE_STORE = {ErrorCode.STORE_UNAVAILABLE, ErrorCode.STORE_BUSY}  # no append is at fault
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    append: Append
    deadline: float
    changes: Set[str]
    touches: Set[str]
    ticket: Ticket[Recorded] = field(default_factory=Ticket)


class Committer:
    """One thread that writes for all threads and for all tasks of the event loop."""

    def __init__(self, recorder: Recorder, *, most_waiting: int = MOST_WAITING, patience: float = PATIENCE) -> None:
        self._recorder = recorder
        self._most_waiting = most_waiting
        self._patience = patience
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._left: deque[_Waiting] = deque()  # taken from the queue, not yet due
        self._gate = Lock()  # so that nothing comes after the end of the queue
        self._closing = False
        self._ended = False
        self._thread = Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def append(self, append: Append) -> Recorded:
        """Waits until it is recorded. Raises what the recorder refused it for, or STORE_BUSY."""
        if self._queue.qsize() + len(self._left) >= self._most_waiting:
            raise TsmError(ErrorCode.STORE_BUSY, f"{self._most_waiting} appends wait")
        waiting = _Waiting(append, time.monotonic() + self._patience, append.changes(), append.touches())
        with self._gate:
            if self._closing:
                raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the server is stopping")
            self._queue.put(waiting)
        return waiting.ticket.wait()

    def close(self) -> None:
        """Records what waits, then ends. Safe to repeat."""
        with self._gate:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            late = [waiting for waiting in batch if waiting.deadline < time.monotonic()]
            in_time = [waiting for waiting in batch if waiting not in late]
            for waiting in late:
                waiting.ticket.settle(TsmError(ErrorCode.STORE_BUSY, f"no transaction within {self._patience} s"))
            for waiting, outcome in zip(in_time, self._record([w.append for w in in_time]), strict=True):
                waiting.ticket.settle(outcome)
            wake(waiting.ticket for waiting in batch)

    def _take(self) -> list[_Waiting]:
        """All that may go together, in order of arrival; none when it is time to end."""
        arrived = list(self._arrived())
        taken: list[_Waiting] = []
        changed: set[str] = set()
        touched: set[str] = set()
        self._left.clear()
        for waiting in arrived:
            apart = touched.isdisjoint(waiting.changes) and changed.isdisjoint(waiting.touches)
            if apart and len(taken) < MOST_TOGETHER:
                taken.append(waiting)
            else:  # whoever comes later and touches the same stays behind it
                self._left.append(waiting)
            changed |= waiting.changes
            touched |= waiting.touches
        return taken

    def _arrived(self) -> Iterator[_Waiting]:
        """Those who were left, then those in the queue; waits for one when there is none."""
        yield from self._left
        may_wait = not self._left
        with suppress(Empty):
            while not self._ended:
                waiting = self._queue.get(block=may_wait)
                may_wait = False
                if waiting is None:
                    self._ended = True
                else:
                    yield waiting

    def _record(self, appends: Sequence[Append]) -> Sequence[Recorded | Exception]:
        """What became of each. When the transaction fails for what one of them holds, each is recorded by itself."""
        if not appends:
            return []
        try:
            return self._recorder.append(appends)
        except TsmError as error:
            failure = error
        except Exception as error:  # whatever it was, callers must not wait for ever
            log.exception("a transaction failed")
            failure = TsmError(ErrorCode.INTERNAL, type(error).__name__)
        if len(appends) > 1 and failure.code not in OF_THE_STORE:
            return [outcome for append in appends for outcome in self._record([append])]
        return [TsmError(failure.code, failure.detail) for _ in appends]
