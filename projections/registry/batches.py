"""Reading the registry for many things at once, in one query: see `projections.union`."""

from collections.abc import Sequence
from typing import Any, TypeVar

from projections.registry import REGISTRY
from projections.registry.listings import Listing, Where, find_query, page_query
from projections.union import Query, read_all
from projections.viewer import Viewer
from projections.views import Views

R = TypeVar("R")


def pages(
    views: Views,
    listing: Listing[R],
    viewer: Viewer,
    wheres: Sequence[Where],
    after: int,
    before: int | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[list[R]]:
    """What `listings.page` gives for each of these conditions."""
    queries = [page_query(listing, viewer, where, after, before, limit, newest_first=newest_first) for where in wheres]
    found = _rows_of(views, listing, queries)
    place = list(listing.columns).index("position")
    for rows in found:
        rows.sort(key=lambda row: row[place], reverse=newest_first)
    return found


def find_all(views: Views, listing: Listing[R], viewer: Viewer, keys: Sequence[str]) -> dict[str, R]:
    """What `listings.find` gives for each of these keys, by key, where it gives anything."""
    wanted = list(dict.fromkeys(keys))
    found = _rows_of(views, listing, [find_query(listing, viewer, key) for key in wanted])
    return {key: rows[0] for key, rows in zip(wanted, found, strict=True) if rows}


def _rows_of(views: Views, listing: Listing[Any], queries: Sequence[Query]) -> list[list[Any]]:
    row: Any = listing.row
    return [[row._make(found) for found in rows] for rows in read_all(views, REGISTRY, queries)]
