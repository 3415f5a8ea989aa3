"""Reading the event index for several stories at once, in one query: see `projections.union`."""

from collections.abc import Sequence

from projections.event_index import EVENT_INDEX, MOST, Bounds, EventFilter, EventRow, _query, rows_of
from projections.union import read_all
from projections.viewer import Viewer
from projections.views import Views


def pages(
    views: Views,
    viewer: Viewer,
    filters: Sequence[EventFilter],
    after: int,
    before: int | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[list[EventRow]]:
    """What `event_index.page` gives for each of these filters. Those that name a story cost one query together."""
    if viewer.kind == "nothing":
        return [[] for _ in filters]
    queries = []
    for each in filters:
        low, high = max(after, each.first - 1), min(MOST if before is None else before, each.last + 1)
        queries.append(_query(views, viewer, each, Bounds(low, high, limit, newest_first)))
    found = read_all(views, EVENT_INDEX, queries)
    return [sorted(rows_of(rows, viewer), reverse=newest_first) for rows in found]
