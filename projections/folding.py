"""Folding pages, and what becomes of an event that does not fold.

A page is folded in one transaction, rows and position together. When a fold fails the page is halved until the event is
alone that fails: it is parked with its error, which is shown, and everything else goes on. What depends on it waits:
later events of the same key are parked behind it, in order, and a retry folds them again in order. A failure of the
machine (a full disk, a lost connection) is no event's fault: it is raised, and nothing changes.
"""

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from projections.projection import Projection
from projections.views import Fenced, Gone, Owner, Page, Parked, Views
from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Event
from tsm.store import log as store
from tsm.store.log import Found, Unreadable
from tsm.store.mapper import Unseals
from tsm.store.recorder import Heading

PAGE = 2000  # positions per transaction: far faster than one by one, and still a short write
logger = logging.getLogger(__name__)


class Log(Protocol):
    """The one log: `tsm.application.Tsm`."""

    @property
    def position(self) -> int: ...
    def page(
        self, after: int, limit: int, topics: Sequence[str] = (), unseals: Unseals = ..., *, headings: bool = False
    ) -> store.Page: ...
    def wait(self, after: int, timeout: float) -> bool: ...


def never() -> bool:
    return False


def catch_up(
    log: Log,
    owner: Owner,
    stopping: Callable[[], bool] = never,
    progress: Callable[[int], None] = lambda _: None,
    limit: int | None = None,
) -> int:
    """Folds all there is, `limit` positions at a time; returns the position reached. `Fenced`.

    A page that is not full was the end when it was read: a log that grows all the time has no other.
    """
    position, size = owner.now().position, limit or PAGE
    full = True
    while full and not stopping():
        page = _read(log, owner.projection, position, size)
        if page.last <= position:
            break
        fold(owner, page.events, position, page.last)
        full = page.last == position + size
        position = page.last
        progress(position)
    return position


def fold(owner: Owner, events: Sequence[Found], after: int, last: int) -> None:
    """What lies in the positions after `after` up to `last`. `Fenced`; `TsmError(STORE_UNAVAILABLE)`."""
    try:
        with owner.advance(after, last) as page:
            owner.projection.fold(page, _take_aside(page, owner.projection, events))
    except Exception as error:
        if _is_the_machines(error):
            raise
        if len(events) == 1:
            _park_one(owner, events[0], error, after, last)
        else:
            half = len(events) // 2
            middle = events[half - 1].position
            fold(owner, events[:half], after, middle)
            fold(owner, events[half:], middle, last)


def retry(log: Log, views: Views, projection: Projection, position: int | None = None) -> int:
    """Folds parked events again, all or those that wait with the one at `position`; returns how many folded.

    Each key's events come in order, and stop at the first that does not fold. `TsmError(NOT_FOUND)`.
    """
    parked = [p for p in views.parked(projection) if position is None or p.position == position]
    if position is not None and not parked:
        raise TsmError(ErrorCode.NOT_FOUND, f"{projection.name} lacks no event at position {position}")
    return sum(_retry_key(log, views, projection, key) for key in dict.fromkeys(p.key for p in parked))


def describe(error: Exception) -> str:
    """Kind and place. The text of an error may quote the event, so it is left out."""
    kind = error.code if isinstance(error, TsmError) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{kind} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else str(kind)


def _read(log: Log, projection: Projection, after: int, limit: int) -> store.Page:
    return log.page(after, limit, projection.topics, projection.unseals, headings=projection.headings)


def _take_aside(page: Page, projection: Projection, events: Sequence[Found]) -> Sequence[Event | Heading]:
    """Parks what does not decode and what waits behind a parked event; the others."""
    waiting = page.parked_keys() if page.parked else set()
    good: list[Event | Heading] = []
    aside: list[Parked] = []
    for event in events:
        if waiting and projection.key(event) in waiting:
            aside.append(_parked(projection, event, ""))
        elif isinstance(event, Unreadable):
            waiting.add(projection.key(event))
            aside.append(_parked(projection, event, describe(event.error)))
        else:
            good.append(event)
    if aside:
        page.park(aside)
    return good


def _park_one(owner: Owner, event: Found, error: Exception, after: int, last: int) -> None:
    parked = _parked(owner.projection, event, describe(error))
    with owner.advance(after, last) as page:
        page.park([parked])
    logger.error("%s: event %d (%s) is parked: %s", owner.projection.name, parked.position, parked.topic, parked.error)


def _parked(projection: Projection, event: Found, error: str) -> Parked:
    return Parked(event.position, projection.key(event), event.originator_id, event.topic, error)


def _retry_key(log: Log, views: Views, projection: Projection, key: str) -> int:
    folded = 0
    while (position := views.first_parked(projection, key)) is not None:
        if not _retry_one(log, views, projection, key, position):
            break
        folded += 1
    return folded


def _retry_one(log: Log, views: Views, projection: Projection, key: str, position: int) -> bool:
    found = next(iter(_read(log, projection, position - 1, 1).events), None)
    if found is None:  # the log is another one now: the read model will be rebuilt
        return False
    try:
        if isinstance(found, Unreadable):
            raise found.error
        with views.page(projection) as page:
            parked = page.first_parked(key)
            if parked is not None and parked.position == position:  # nobody else was faster
                page.unpark(position)
                projection.fold(page, [found])
    except Exception as error:
        if _is_the_machines(error):
            raise
        with views.page(projection) as page:
            page.fault(position, describe(error))
        return False
    return True


def _is_the_machines(error: Exception) -> bool:
    unavailable = isinstance(error, TsmError) and error.code is ErrorCode.STORE_UNAVAILABLE
    return unavailable or isinstance(error, Fenced | Gone | OSError | MemoryError)
