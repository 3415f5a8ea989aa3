"""Reading along the log: pages in position order, and a wait for the next.

A follower keeps its own position and never misses an event: positions have no gap and appear in commit order. Commits
of this process wake it at once; those of other processes are seen within `POLL` seconds.
"""

import time

from tsm.model.event import Event
from tsm.store.mapper import JsonMapper
from tsm.store.recorder import SQLiteRecorder

POLL = 0.2  # seconds


def read(recorder: SQLiteRecorder, mapper: JsonMapper, after: int, limit: int) -> list[Event]:
    """At most `limit` events with positions greater than `after`."""
    page = recorder.select_notifications(after, limit, inclusive_of_start=False)
    return [mapper.to_domain_event(recorded) for recorded in page]


def wait(recorder: SQLiteRecorder, after: int, timeout: float) -> bool:
    """Waits until the log reaches beyond `after`, `timeout` seconds at most; whether it does."""
    deadline = time.monotonic() + timeout
    with recorder.committed:
        while (recorder.max_notification_id() or 0) <= after:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            recorder.committed.wait(min(remaining, POLL))
    return True
