"""Pages (Relay cursor connections), by key and not by offset.

A cursor is the position of the event that made the row. So what a page costs does not depend on where it lies, and what
is added later never shifts it. Cursors are opaque, and the same in all lists.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import strawberry

from api.graphql.types.scalars import MAX_POSITION, refuse

DEFAULT_PAGE = 50
MAX_PAGE = 100

First = Annotated[
    int | None,
    strawberry.argument(description=f"How many, from the beginning: {DEFAULT_PAGE} by default, {MAX_PAGE} at most."),
]
After = Annotated[str | None, strawberry.argument(description="Only what comes after this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description=f"How many, from the end: {MAX_PAGE} at most, and not with `first`.")
]
Before = Annotated[str | None, strawberry.argument(description="Only what comes before this cursor.")]

T = TypeVar("T")


@strawberry.type(description="Something in a list, and its cursor (Relay).")
class Edge(Generic[T]):
    cursor: str = strawberry.field(description="Its place in the list: for `after` and `before`.")
    node: T = strawberry.field(description="What lies there.")


@strawberry.type(description="Where a page stands in its list (Relay).")
class PageInfo:
    has_next_page: bool = strawberry.field(
        description="Whether anything comes after this page; of a page before a cursor: what is at that cursor."
    )
    has_previous_page: bool = strawberry.field(
        description="Whether anything comes before this page; of a page after a cursor: what is at that cursor."
    )
    start_cursor: str | None = strawberry.field(description="Cursor of the first; null on an empty page.")
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last; null on an empty page. Ask again after it for what was added since."
    )


@strawberry.type(description="A page of a list, in the order in which things came into the log (Relay).")
class Connection(Generic[T]):
    edges: list[Edge[T]] = strawberry.field(description="What is on the page, with cursors.")
    nodes: list[T] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where this page stands in its list.")


class Window(NamedTuple):
    """Which rows a page asks for."""

    after: int
    before: int | None
    size: int
    backwards: bool  # counted from the end

    @property
    def limit(self) -> int:
        """One more than the page has tells whether there are more."""
        return self.size + 1


def window(first: int | None, after: str | None, last: int | None, before: str | None) -> Window:
    """INVALID_INPUT for sizes and cursors that are none."""
    if first is not None and last is not None:
        raise refuse("first and last exclude each other")
    backwards = last is not None
    size = page_size("last", last) if backwards else page_size("first", first)
    return Window(read_cursor("after", after) or 0, read_cursor("before", before), size, backwards)


def page_size(name: str, value: int | None) -> int:
    if value is None:
        return DEFAULT_PAGE
    if not 1 <= value <= MAX_PAGE:
        raise refuse(f"{name} must be from 1 to {MAX_PAGE}")
    return value


def cursor(position: int) -> str:
    return base64.b64encode(b"%d" % position).decode()


def read_cursor(name: str, value: str | None) -> int | None:
    """The position; INVALID_INPUT for anything that `cursor` would not write."""
    if value is None:
        return None
    try:
        position = int(base64.b64decode(value, validate=True)) if len(value) <= 24 else -1
    except (binascii.Error, ValueError):
        position = -1
    if not 0 <= position <= MAX_POSITION or cursor(position) != value:
        raise refuse(f"{name} is not a cursor of this server")
    return position


def page_of(asked: Window, found: Sequence[Any], make: Callable[[Any], Any]) -> Connection[Any]:
    """The page, of the rows that were found from its end on: at most `asked.limit` of them."""
    rows = found[: asked.size][::-1] if asked.backwards else found[: asked.size]
    more = len(found) > asked.size
    nodes = [make(row) for row in rows]
    edges = [Edge(cursor=cursor(row.position), node=node) for row, node in zip(rows, nodes, strict=True)]
    return Connection(
        edges=edges,
        nodes=nodes,
        page_info=PageInfo(
            has_next_page=asked.before is not None if asked.backwards else more,
            has_previous_page=more if asked.backwards else asked.after > 0,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )
