"""Reading along the log: what a worker does with each event, from where it left off.

A follower is a thread. It sees every event from its stored position on, in order and at least once; after each round in
which it caught up it acts. Its position says from where a restart must read again, so it stays before whatever is
unfinished.
"""

import logging
import time
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from tsm.application import Tsm
from tsm.model.event import Event

PAGE = 500  # events
TICK = 0.2  # seconds between rounds when nothing happens
GATHER = 0.02  # seconds after the first new event: what follows at once is read in one go
KEEP_EVERY = 1.0  # seconds between writes of the position
PAUSE = 1.0  # seconds after a fault
log = logging.getLogger(__name__)


class StoredPosition:
    """A position in a file of its own. Losing the last writes only makes a follower read a little twice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return 0

    def write(self, position: int) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(str(position))
        beside.replace(self._path)


class Follower(ABC):
    """A worker that reads along."""

    name = "follower"

    def __init__(self, tsm: Tsm, position: StoredPosition) -> None:
        self._tsm = tsm
        self._position = position
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
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        after = reached = kept = self._position.read()
        due = 0.0
        while not self._stopping.is_set():
            try:
                after = self._catch_up(after)
                self.act()
            except Exception:  # a worker outlives a fault: what failed is tried again
                log.exception("%s stumbled after position %d", self.name, after)
                self._stopping.wait(PAUSE)
            oldest = self.unfinished()
            reached = after if oldest is None else oldest - 1
            if reached != kept and time.monotonic() >= due:
                self._position.write(reached)
                kept, due = reached, time.monotonic() + KEEP_EVERY
            if self._tsm.wait(after, TICK):
                self._stopping.wait(GATHER)
        if reached != kept:
            self._position.write(reached)

    def _catch_up(self, after: int) -> int:
        while page := self._tsm.read(after, PAGE):
            for event in page:
                self.see(event)
            after = page[-1].position
        return after
