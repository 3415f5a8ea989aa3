"""Reading along the log: what a worker does with each event, from where it left off.

A follower is a thread. It goes in rounds: it sees every event of its topics from its position on, in order and at
least once, acts, and keeps its position, mostly in a file. The position says from where a restart must read again, so
it stays before whatever is unfinished. No fault ends a follower: a round that fails is logged and begun again. Whoever
wants to know whether rounds still come to their end asks `keeping_up`.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import ClassVar, Protocol, TypeVar

from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Event

SCAN = 10_000  # positions that are looked at in one go, for few hold what is looked for
TICK = 0.2  # seconds between rounds when nothing happens
GATHER = 0.02  # seconds after the first new event: what follows at once is read in one go
KEEP_EVERY = 1.0  # seconds between writes of the position
PAUSE = 1.0  # seconds after a fault
LATE = 10.0  # seconds without a complete round after which a follower does not keep up
log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Position(Protocol):
    """Where a follower begins."""

    def read(self) -> int: ...

    def write(self, position: int) -> None: ...


class StoredPosition:
    """A position in a file of its own.

    To lose it is harmless, for a follower that reads again does nothing twice. So the file is not forced to the disk:
    what a power cut leaves, an old position, an empty file or none, counts for what it says, or as 0.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): the log is read from its beginning", self._path, error)
            return 0

    def write(self, position: int) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(str(position))
        beside.replace(self._path)


class Follower(ABC):
    """A worker that reads along. Events of other topics than its own are not decoded, nor is anything unsealed."""

    name = "follower"
    topics: ClassVar[tuple[str, ...]]  # that it sees; empty: all

    def __init__(self, tsm: Tsm, position: Position) -> None:
        self._tsm = tsm
        self._position = position
        self._after = 0  # all events up to here were seen
        self._kept = 0  # what the file says
        self._keep_next = 0.0
        self._completed = 0.0  # when the last round was complete
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name=self.name, daemon=True)

    @abstractmethod
    def see(self, event: Event) -> None:
        """Take note of one event; what it asks for waits until the follower has caught up."""

    @abstractmethod
    def act(self) -> None:
        """Do what is due: the follower has seen all events there are. Called at least every `TICK` seconds."""

    @abstractmethod
    def unfinished(self) -> int | None:
        """The position of the oldest event that a restart must see again; None when all is done."""

    def start(self) -> None:
        self._after = self._kept = self._position.read()
        if self._after > self._tsm.position:
            log.warning("%s has read beyond the end of the log, as after a restored backup: it begins anew", self.name)
            self._after = 0
        self._completed = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def keeping_up(self) -> bool:
        """Whether the thread lives, and has lately seen and done all there was."""
        return self._thread.is_alive() and time.monotonic() - self._completed < LATE

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._round()
            except Exception:  # whatever it was, it is tried again
                log.exception("%s stumbled after position %d", self.name, self._after)
                self._stopping.wait(PAUSE)
        try:
            self._keep()
        except (OSError, TsmError):
            log.exception("%s could not keep its position", self.name)

    def _round(self) -> None:
        self._catch_up()
        self.act()
        if time.monotonic() >= self._keep_next:
            self._keep()
        self._completed = time.monotonic()
        if self._tsm.wait(self._after, TICK):
            self._stopping.wait(GATHER)

    def _catch_up(self) -> None:
        while (page := self._tsm.page(self._after, SCAN, self.topics)).last > self._after:
            for event in page.events:
                if not isinstance(event, Event):
                    raise TsmError(ErrorCode.STORE_CORRUPT, f"{event.topic} at position {event.position}")
                self.see(event)
            self._after = page.last

    def _keep(self) -> None:
        oldest = self.unfinished()
        reached = self._after if oldest is None else oldest - 1
        if reached != self._kept:
            self._position.write(reached)
            self._kept, self._keep_next = reached, time.monotonic() + KEEP_EVERY


def for_each(items: Iterable[Item], do: Callable[[Item], None]) -> None:
    """Do it for each; the faults of some are raised when the others are done."""
    faults = []
    for item in items:
        try:
            do(item)
        except Exception as fault:  # noqa: BLE001 - raised below
            faults.append(fault)
    if faults:
        raise ExceptionGroup(f"{len(faults)} failed", faults)
