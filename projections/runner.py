"""The runner: reads pages from the log, folds them, and writes rows and position in one transaction.

Every read model stands behind the log by some milliseconds, never beside it: rows without their position, or the other
way round, cannot be seen. An event that does not fold is parked with its error, which the API shows, and the rest goes
on. A failure of the machine (a full disk, a locked file) is no event's fault: the page is tried again.
"""

import logging
import sqlite3
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from projections.views import Projection, Views
from tsm.errors import TsmError
from tsm.model.event import Event

PAGE = 2000  # events per transaction: 25 times the speed of one by one, and still a short write
IDLE = 0.5  # seconds between looks at the log, and the longest time that stopping takes
RETRY = 1.0  # seconds after a failure
LATE = 10.0  # seconds without having caught up after which the runner does not keep up

logger = logging.getLogger(__name__)


class Log(Protocol):
    """The one log: `tsm.application.Tsm`."""

    @property
    def position(self) -> int: ...
    def read(self, after: int, limit: int) -> Sequence[Event]: ...
    def wait(self, after: int, timeout: float) -> bool: ...


class Runner:
    """Keeps the read models of one file up to date, in a thread or by steps. Two runners on one file do no harm."""

    name = "projections"

    def __init__(self, log: Log, views: Views) -> None:
        self._log = log
        self._views = views
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._caught_up = 0.0

    def start(self) -> None:
        """Follows the log in a thread of its own until `stop`."""
        self._caught_up = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def keeping_up(self) -> bool:
        """Whether the thread lives, and has lately been at the end of the log."""
        alive = self._thread is not None and self._thread.is_alive()
        return alive and time.monotonic() - self._caught_up < LATE

    def catch_up(self) -> int:
        """Folds all there is; returns the position reached."""
        self._begin()
        while self.step():
            pass
        return self._views.position

    def _begin(self) -> None:
        """Starts again from nothing when the rows come from a longer log than this one, as after a restored backup."""
        read = max(self._views.positions().values(), default=0)
        if read > self._log.position:
            logger.warning("the read models have read up to %d, beyond the end of the log: they are rebuilt", read)
            self._views.reset()

    def step(self) -> bool:
        """Folds the next page; whether there was one."""
        after = self._views.position
        page, refusal = self._page(after)
        if not page and refusal is None:
            return False
        last = page[-1].position if page else after
        with self._views.transaction() as connection:
            for projection in self._views.projections:
                _advance(connection, projection, after, page, last, refusal)
        return True

    def _page(self, after: int) -> tuple[list[Event], TsmError | None]:
        """The next events, up to the first that does not decode, and what it was refused for."""
        try:
            return list(self._log.read(after, PAGE)), None
        except TsmError:
            return self._page_one_by_one(after)

    def _page_one_by_one(self, after: int) -> tuple[list[Event], TsmError | None]:
        page: list[Event] = []
        while len(page) < PAGE:
            try:
                following = self._log.read(after + len(page), 1)
            except TsmError as refusal:
                return page, refusal
            if not following:
                break
            page.extend(following)
        return page, None

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self.catch_up()
                self._caught_up = time.monotonic()
                self._log.wait(self._views.position, IDLE)
            except Exception:  # the thread must outlive a full disk, and say so
                logger.exception("the read models could not be brought up to date")
                self._stopping.wait(RETRY)


def _advance(
    connection: sqlite3.Connection,
    projection: Projection,
    after: int,
    page: Sequence[Event],
    last: int,
    refusal: TsmError | None,
) -> None:
    """One read model, one page. It may have read a part of the page before: each keeps its own position."""
    (own,) = connection.execute("SELECT position FROM position WHERE projection = ?", (projection.name,)).fetchone()
    if own < after:  # another process began it again: it comes with the next page
        return
    _fold(connection, projection, [event for event in page if event.position > own])
    if refusal is not None:  # positions have no gap: the event that does not decode is the next one
        last += 1
        if last > own:
            _park(connection, projection, last, "", "", refusal)
    connection.execute("UPDATE position SET position = ? WHERE projection = ?", (max(own, last), projection.name))


def _fold(connection: sqlite3.Connection, projection: Projection, events: Sequence[Event]) -> None:
    """All at once; when that fails one by one, and what fails alone is parked."""
    if not events:
        return
    connection.execute("SAVEPOINT fold")
    try:
        projection.fold(connection, events)
    except sqlite3.OperationalError:
        raise  # the machine, not the event
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an event, the others go on
        connection.execute("ROLLBACK TO fold")
        if len(events) == 1:
            _park(connection, projection, events[0].position, events[0].fact.topic, events[0].originator_id, error)
        else:
            for event in events:
                _fold(connection, projection, [event])
    connection.execute("RELEASE fold")


def _park(
    connection: sqlite3.Connection, projection: Projection, position: int, topic: str, stream: str, error: Exception
) -> None:
    what = describe(error)
    logger.error("%s: event %d (%s) is parked: %s", projection.name, position, topic or "unreadable", what)
    connection.execute(
        "INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?, ?)",
        (projection.name, position, topic, stream, what),
    )


def describe(error: Exception) -> str:
    """Kind and place. The text of an error may quote the event, so it is left out."""
    kind = error.code if isinstance(error, TsmError) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{kind} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else str(kind)
