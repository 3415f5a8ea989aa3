"""Reading along the log: pages in position order, and a wait for the next.

A follower keeps its own position and never misses an event: positions have no gap and appear in commit order. Commits
of this process wake it at once; those of other processes are seen within `POLL` seconds.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from tsm.errors import TsmError
from tsm.model.event import Event
from tsm.store.mapper import JsonMapper, Unseals
from tsm.store.recorder import Heading, RecordedEvent, Recorder

POLL = 0.2  # seconds
NOTHING: Unseals = {}


class Unreadable(NamedTuple):
    """An event that is there and does not decode."""

    position: int
    originator_id: str
    originator_version: int
    topic: str
    error: TsmError


Found = Event | Heading | Unreadable


class Page(NamedTuple):
    """Events in order, and the position up to which the log was read for them."""

    events: Sequence[Found]
    last: int


def read(recorder: Recorder, mapper: JsonMapper, after: int, limit: int) -> list[Event]:
    """At most `limit` events with positions greater than `after`."""
    page = recorder.select_notifications(after, limit, inclusive_of_start=False)
    if not page:
        _believe(recorder, after)
    return [mapper.to_domain_event(recorded) for recorded in page]


def page(
    recorder: Recorder,
    mapper: JsonMapper,
    after: int,
    limit: int,
    topics: Sequence[str] = (),
    unseals: Unseals = NOTHING,
    *,
    headings: bool = False,
) -> Page:
    """What the `limit` positions after `after` hold of these topics, or of all. What does not decode is said to be so.

    Of personal fields only those of `unseals` are unsealed. With `headings`, events of other topics are not left out:
    they are neither fetched nor decoded, but their `Heading` is given.
    """
    end = recorder.max_notification_id() or 0
    last = min(after + limit, end)
    if last <= after:
        _believe(recorder, after)
        return Page((), after)
    recorded = recorder.select_notifications(after, limit, last, topics, inclusive_of_start=False)
    events = decoded(mapper, recorded, unseals)
    if not headings:
        return Page(events, last)
    whole = {event.position: event for event in events}
    return Page([whole.get(heading.position, heading) for heading in recorder.select_headings(after, last)], last)


def decoded(mapper: JsonMapper, found: Sequence[RecordedEvent], unseals: Unseals | None) -> list[Event | Unreadable]:
    """Each event, or that it is unreadable: one that is damaged takes no other with it."""
    events: list[Event | Unreadable] = []
    for recorded in found:
        try:
            events.append(mapper.to_domain_event(recorded, unseals))
        except TsmError as error:
            place = recorded.id, str(recorded.originator_id), recorded.originator_version, recorded.topic
            events.append(Unreadable(*place, error))
    return events


def _believe(recorder: Recorder, after: int) -> None:
    """Nothing was found where something was heard of: a log that was put back is shorter than it was."""
    if recorder.head > after:
        with recorder.committed:
            recorder.head = recorder.max_notification_id() or 0


def wait(recorder: Recorder, after: int, timeout: float) -> bool:
    """Waits until the log reaches beyond `after`, `timeout` seconds at most; whether it does.

    The database is asked only when nothing was heard for a while: there are many who wait, and they are woken together.
    """
    deadline = time.monotonic() + timeout
    while True:
        with recorder.committed:
            if recorder.head <= after:
                recorder.committed.wait(max(0.0, min(deadline - time.monotonic(), POLL)))
            if recorder.head > after:
                return True
        if (recorder.max_notification_id() or 0) > after:
            return True
        if time.monotonic() >= deadline:
            return False
