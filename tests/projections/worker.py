"""A process that folds or rebuilds until it is killed.

    python -m tests.projections.worker run|rebuild STORE FILE EVENTS

Its log is made up, the same in every process: event n lies in one of seven streams.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from projections import building, folding
from projections.building import rebuild
from projections.opening import open_views
from projections.runner import Runner
from tests.projections.read_models import COUNTS, TOPICS
from tests.projections.story import BEGIN, registered
from tsm.model.event import Context, Event
from tsm.store.log import NOTHING, Page
from tsm.store.mapper import Unseals

STREAMS = 7
CONTEXT = Context(actor="test", role="system", tenant="test", correlation="test")


class MadeUpLog:
    """As many events as one likes."""

    def __init__(self, position: int) -> None:
        self.position = position

    def page(
        self,
        after: int,
        limit: int,
        topics: Sequence[str] = (),
        unseals: Unseals = NOTHING,
        *,
        headings: bool = False,
    ) -> Page:
        last = max(after, min(after + limit, self.position))
        return Page(tuple(map(event, range(after + 1, last + 1))), last)

    def wait(self, after: int, timeout: float) -> bool:
        time.sleep(0 if self.position > after else timeout)
        return self.position > after


def event(position: int) -> Event:
    return Event(
        originator_id=f"card-{position % STREAMS}",
        originator_version=position // STREAMS + 1,
        occurred_at=BEGIN,
        context=CONTEXT,
        fact=registered(),
        position=position,
        recorded_at=BEGIN,
    )


def main(work: str, store: str, file: str, events: str) -> None:
    folding.PAGE = building.PAGE = 10
    log, views = MadeUpLog(int(events)), open_views(store, Path(file), [TOPICS, COUNTS])
    print("ready", flush=True)
    if work == "rebuild":
        rebuild(log, views, COUNTS)
    else:
        runner = Runner(log, views)
        runner.start()
        views.wait_for(log.position, 60)
        runner.stop()
    views.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
