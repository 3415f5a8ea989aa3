"""Lists of what the registry knows, and the ways from one thing to others.

A type names its columns as the registry does, and every list, be it a field of the query or of a thing, is read by one
function, with the caller's viewer. Whatever lies beneath the rows of a page is asked for all of them at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

import strawberry
from strawberry.types import Info

from api.graphql.context import Context
from api.graphql.types.nodes import Node, Siblings, node_id
from api.graphql.types.paging import After, Before, Connection, First, Last, Window, page_of, window
from api.graphql.types.reading import MinPosition, wait_for
from api.graphql.types.scalars import Position
from projections.registry.batches import find_all, pages
from projections.registry.listings import page as read_page
from projections.registry.lists import Listing
from tsm.errors import ErrorCode, TsmError

T = TypeVar("T")
Columns = Mapping[str, str]  # a column of the list, and the column of the row above it that holds its value


class Registered(Node):
    """What all types have whose values are a row of a listing."""

    listing: ClassVar[Listing[Any]]
    renamed: ClassVar[Mapping[str, str]] = {}  # fields that are not called as their columns
    row: Any
    siblings: Siblings

    @classmethod
    def of(cls, row: Any, siblings: Siblings) -> Self:
        values = {name: convert(getattr(row, column)) for name, column, convert in conversions(cls)}  # type: ignore[arg-type]  # a class is hashable
        made = cls(id=node_id(cls.__name__, row[0]), **values)
        made.row, made.siblings = row, siblings
        return made


KINDS: dict[str, Callable[[Any], type[Registered]]] = {}  # of a listing: the type of a row


def _unknown(row: Any) -> type[Registered]:
    raise TsmError(ErrorCode.INTERNAL, f"no type for a row of {type(row).__name__}")


def kept_in(listing: Listing[Any], only: tuple[str, str] = ("", "")) -> Callable[[type[T]], type[T]]:
    """Says of a type that its values are the rows of this listing, or those whose column holds that value."""

    def say(kind: Any) -> Any:
        kind.listing = listing
        column, value = only
        others = KINDS.get(listing.name, _unknown)
        KINDS[listing.name] = lambda row: kind if not column or getattr(row, column) == value else others(row)
        return kind

    return say


@lru_cache(maxsize=64)
def conversions(kind: Any) -> tuple[tuple[str, str, Callable[[Any], Any]], ...]:
    """How the columns of a row become the plain fields of the type: field, column, conversion."""
    hints = {name: hint for base in kind.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()}
    plain = [field.name for field in fields(kind) if field.init and field.name != "id"]
    return tuple((name, kind.renamed.get(name, name), conversion(hints[name])) for name in plain)


def conversion(hint: Any) -> Callable[[Any], Any]:
    if type(None) in get_args(hint):
        (present,) = [kind for kind in get_args(hint) if kind is not type(None)]
        convert = conversion(present)
        return lambda value: convert(value) if value else None
    if hint is bool:
        return bool
    if hint is datetime:
        return datetime.fromisoformat
    if hint == list[Position]:
        return lambda value: [Position(int(each)) for each in value.split(",") if each]
    if hint == list[str]:
        return lambda value: value.split(",") if value else []
    return lambda value: value


def made(row: Any, listing: Listing[Any], siblings: Siblings) -> Registered:
    return KINDS[listing.name](row).of(row, siblings)


def filter_of(given: Any) -> dict[str, str | int]:
    """The columns that an input names; a truth value is a number."""
    values = {} if given is None else vars(given)
    return {name: int(v) if isinstance(v, bool) else v for name, v in values.items() if v is not None}


def list_rows(
    context: Context, listing: Listing[Any], where: Mapping[str, str | int], asked: Window
) -> Connection[Any]:
    """A page of the list, as far as the caller may see."""
    bounds = (asked.after, asked.before, asked.limit)
    found = read_page(context.views, listing, context.viewer, where, *bounds, newest_first=asked.backwards)
    siblings = Siblings(found[: asked.size])
    return page_of(asked, found, lambda row: made(row, listing, siblings))


def listed(
    kind: Any, listing: Listing[Any], wanted: Any, description: str, only: Mapping[str, str | int] | None = None
) -> Any:
    """A field of the query: a page of the list, as far as the caller may see."""

    def resolve(
        info: Info[Context, None],
        filter: Annotated[wanted | None, strawberry.argument(description="Only what is so; all without it.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        min_position: MinPosition = None,
    ) -> Connection[kind]:
        wait_for(info.context, min_position)
        return list_rows(
            info.context, listing, {**filter_of(filter), **(only or {})}, window(first, after, last, before)
        )

    return strawberry.field(resolver=resolve, description=description)


def below(kind: Any, listing: Listing[Any], columns: Columns, description: str) -> Any:
    """A field of a thing: a page of the rows that name it, as far as the caller may see."""

    def resolve(
        parent: strawberry.Parent[Any],
        info: Info[Context, None],
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[kind]:
        asked, context = window(first, after, last, before), info.context

        def ask(rows: Sequence[Any]) -> Mapping[Any, Any]:
            wheres = [{column: getattr(row, own) for column, own in columns.items()} for row in rows]
            bounds = (asked.after, asked.before, asked.limit)
            found = pages(context.views, listing, context.viewer, wheres, *bounds, newest_first=asked.backwards)
            siblings = Siblings([row for some in found for row in some[: asked.size]])
            return {row[0]: (some, siblings) for row, some in zip(rows, found, strict=True)}

        found, siblings = parent.siblings.once((info.field_name, asked), ask)[parent.row[0]]
        return page_of(asked, found, lambda row: made(row, listing, siblings))

    return strawberry.field(resolver=resolve, description=description)


def link(kind: Any, listing: Listing[Any], key: Callable[[Any], str], description: str) -> Any:
    """A field of a thing: the one row that it names, if the caller may see that."""

    def resolve(parent: strawberry.Parent[Any], info: Info[Context, None]) -> kind | None:
        def ask(rows: Sequence[Any]) -> Mapping[Any, Any]:
            keys = [key(row) for row in rows]
            found = find_all(info.context.views, listing, info.context.viewer, [k for k in keys if k])
            siblings = Siblings(list(found.values()))
            return {k: made(row, listing, siblings) for k, row in found.items()}

        return parent.siblings.once(info.field_name, ask).get(key(parent.row))

    return strawberry.field(resolver=resolve, description=description)


def one(context: Context, kind: type[T], key: str) -> T | None:
    """The thing of this kind with that key, or None when there is none that the caller may see."""
    return find_listed(context, kind, [key]).get(key)


def find_listed(context: Context, kind: type[T], keys: Sequence[str]) -> dict[str, T]:
    """The things of this kind with those keys, by key, as far as the caller may see."""
    listing: Listing[Any] = kind.listing  # type: ignore[attr-defined]  # of all that `kept_in` made
    found = find_all(context.views, listing, context.viewer, keys)
    siblings = Siblings(list(found.values()))
    things = {key: made(row, listing, siblings) for key, row in found.items()}
    return {key: thing for key, thing in things.items() if isinstance(thing, kind)}
