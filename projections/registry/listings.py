"""Reading the registry: pages, single rows and counts, each as far as its viewer may see.

A viewer's condition is part of the query, so a page is full of what he may see, and its cost does not depend on what he
may not.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import json

from projections.registry import REGISTRY
from projections.registry.lists import (
    ALERTS,
    APPLICATIONS,
    CARDS,
    CATALOGUE,
    CREDENTIALS,
    DELEGATIONS,
    DOMAINS,
    KEYS,
    LISTINGS,
    LOAD_FILES,
    OPERATIONS,
    PARTIES,
    SESSIONS,
    STANDINGS,
    Listing,
    Sight,
    tally_viewer,
)
from projections.viewer import Kind, Viewer
from projections.views import Views
from tsm.errors import ErrorCode, TsmError

__all__ = [
    "ALERTS", "APPLICATIONS", "CARDS", "CATALOGUE", "CREDENTIALS", "DELEGATIONS", "DOMAINS", "KEYS", "LISTINGS",
    "LOAD_FILES", "MOST", "OPERATIONS", "PARTIES", "SESSIONS", "STANDINGS", "Listing", "Query", "Where", "counts",
    "find", "find_query", "page", "page_query",
]  # fmt: skip

R = TypeVar("R")
MOST = 2**63 - 1  # the largest position
Where = Mapping[str, str | int]
Query = tuple[str, Sequence[object]]  # as `Views.read` takes it
NOBODYS: Query = ("", ())


def page(
    views: Views,
    listing: Listing[R],
    viewer: Viewer,
    where: Where,
    after: int,
    before: int | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[R]:
    """At most `limit` rows that the viewer sees, with `after` < position < `before`, from that end, in that order.

    Each column named in `where` holds the value given there. What was removed is left out.
    `TsmError(INVALID_INPUT)` for what the list is not filtered by, READ_MODEL_BEHIND while it is being built.
    """
    query = page_query(listing, viewer, where, after, before, limit, newest_first=newest_first)
    return _rows(views, listing, query)


def find(views: Views, listing: Listing[R], viewer: Viewer, key: str) -> R | None:
    """One row by its key, also what was removed; None when there is none that the viewer sees."""
    return next(iter(_rows(views, listing, find_query(listing, viewer, key))), None)


def counts(views: Views, viewer: Viewer) -> Mapping[str, int]:
    """How many rows the viewer sees of each list, by name, and of some by a value as well: `sessions.ENDED`.

    What was removed does not count, and a name is missing where there is nothing. No row is looked at for it.
    """
    if not is_storable(viewer.party):
        return {}
    query = "SELECT counts FROM {tally} WHERE viewer = ?"
    [[found]] = views.read(REGISTRY, query, (tally_viewer(viewer.kind, viewer.party),)) or [["{}"]]
    return json.decode(found, type=dict[str, int])


def page_query(
    listing: Listing[Any],
    viewer: Viewer,
    where: Where,
    after: int,
    before: int | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> Query:
    """The query of `page`, an empty one for a viewer who sees nothing. `TsmError(INVALID_INPUT)`."""
    values = [_checked(listing, column, value) for column, value in where.items()]
    sight = _sight(listing, viewer)
    if sight is None:
        return NOBODYS
    bounds = (after, MOST if before is None else before, limit)
    return _page_text(listing.name, viewer.kind, tuple(where), newest_first), (*_party(sight, viewer), *values, *bounds)


def find_query(listing: Listing[Any], viewer: Viewer, key: str) -> Query:
    """The query of `find`, an empty one where no row can be found."""
    sight = _sight(listing, viewer)
    if sight is None or not is_storable(key):
        return NOBODYS
    return _find_text(listing.name, viewer.kind), (*_party(sight, viewer), key)


def is_storable(text: str) -> bool:
    """Whether a text can be in a row at all: PostgreSQL knows no NUL, and neither engine half a character."""
    return "\0" not in text and text.isprintable()


def _rows(views: Views, listing: Listing[R], query: Query) -> list[R]:
    row: Any = listing.row
    return [row._make(found) for found in views.read(REGISTRY, *query)] if query[0] else []


def _sight(listing: Listing[Any], viewer: Viewer) -> Sight | None:
    """What he sees of the list. Of what is somebody's, nobody in particular sees nothing."""
    sight = listing.sights.get(viewer.kind)
    if sight is None or (sight.column and not (viewer.party and is_storable(viewer.party))):
        return None
    return sight


def _party(sight: Sight, viewer: Viewer) -> tuple[str, ...]:
    return (viewer.party,) if sight.column else ()


def _checked(listing: Listing[Any], column: str, value: str | int) -> str | int:
    if column not in (*listing.narrow, *listing.wide):
        raise TsmError(ErrorCode.INVALID_INPUT, f"{listing.name} are not filtered by that")
    wanted = listing.columns[column]
    fits = is_storable(value) if isinstance(value, str) else abs(value) <= MOST
    if not isinstance(value, wanted) or not fits:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{column}: no value of this column")
    return int(value) if wanted is int else value  # a truth value is a number


@lru_cache(maxsize=1024)
def _page_text(name: str, kind: Kind, filters: tuple[str, ...], newest_first: bool) -> str:
    listing = LISTINGS[name]
    sight = listing.sights[kind]
    narrow = any(column in listing.narrow for column in filters)
    conditions = [
        *_seen(sight, narrow),
        *(f"{_place(sight, column)} = ?" for column in filters),
        *([f"({sight.unless})"] if set(filters) & set(sight.blank) else []),  # blank is blank, whatever lies below
        *(["removed = 0"] if listing.removable else []),
    ]
    position = _place(sight, "position")
    bounds = [f"{position} > ?", f"{position} < ?"]
    order = "DESC" if newest_first else "ASC"
    return f"{_select(listing, sight)} WHERE {' AND '.join((*conditions, *bounds))} ORDER BY {position} {order} LIMIT ?"


@lru_cache(maxsize=64)
def _find_text(name: str, kind: Kind) -> str:
    listing = LISTINGS[name]
    sight = listing.sights[kind]
    return f"{_select(listing, sight)} WHERE {' AND '.join((*_seen(sight, True), f'listed.{listing.key} = ?'))}"


def _select(listing: Listing[Any], sight: Sight) -> str:
    columns = ", ".join(_shown(column, kind, sight) for column, kind in listing.columns.items())
    through = f" JOIN {{{sight.through}}} AS seen ON seen.{listing.key} = listed.{listing.key}" if sight.through else ""
    return f"SELECT {columns} FROM {{{listing.name}}} AS listed{through}"  # noqa: S608 - declared names only


def _shown(column: str, kind: type, sight: Sight) -> str:
    if column not in sight.blank:
        return f"listed.{column}"
    blank = "''" if kind is str else "0"
    return f"CASE WHEN {sight.unless} THEN {column} ELSE {blank} END AS {column}"


def _seen(sight: Sight, found_otherwise: bool) -> list[str]:
    """The viewer's condition. One that leaves more rows than another is written so that its own index is not taken."""
    if not sight.column:
        return []
    unindexed = " || ''" if found_otherwise else ""
    only = [f"{sight.only[0]} || '' = '{sight.only[1]}'"] if sight.only[0] else []
    return [f"{_place(sight, sight.column)}{unindexed} = ?", *only]


def _place(sight: Sight, column: str) -> str:
    return f"{'seen' if sight.through else 'listed'}.{column}"
