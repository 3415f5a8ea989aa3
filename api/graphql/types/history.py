"""What happened to a card: its history, page by page."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry
from strawberry.types import Info

from api.graphql.context import Context
from api.graphql.types.nodes import Node, node_id
from api.graphql.types.scalars import MAX_POSITION, Position, refuse
from projections.issuance_history import entries, positions
from projections.issuance_history import entry as read_entry
from projections.lines import line
from tsm.model.event import Event
from tsm.store.log import Unreadable

DEFAULT_PAGE = 50
MAX_PAGE = 100


@strawberry.type(description="An event that concerns a card: what happened, who acted, why, and when twice.")
class HistoryEntry(Node):
    position: Position = strawberry.field(description="Place in the one log.")
    topic: str = strawberry.field(description="The kind of event, for machines: `card.keys_put`.")
    text: str = strawberry.field(description="What happened, for people.")
    actor: str = strawberry.field(description="Who acted: `provider:JPKI0001`, `phone`, `system:notification`.")
    role: str = strawberry.field(description="In which role the actor acted.")
    tenant: str = strawberry.field(description="The party that owns what happened.")
    tenants: list[str] = strawberry.field(description="The other parties that it concerns.")
    occurred_at: datetime = strawberry.field(description="When it happened, as its source claims.")
    recorded_at: datetime = strawberry.field(description="When it was recorded; never decreases along positions.")
    correlation: str = strawberry.field(description="The story that it belongs to, one id from beginning to end.")
    causation: str | None = strawberry.field(description="Position or id of what caused it.")
    request: str | None = strawberry.field(description="Id of the request at the server's edge.")
    command: str | None = strawberry.field(description="Idempotency key of the command, scoped by client.")
    reason: str | None = strawberry.field(description="Why, where a person acted.")
    stream: str = strawberry.field(description="The stream that it belongs to.")
    number: int = strawberry.field(description="Place in its stream, from 1 on.")

    @classmethod
    def of(cls, event: Event) -> Self:
        context = event.context
        assert event.recorded_at is not None  # noqa: S101  it comes from the log
        return cls(
            id=node_id("HistoryEntry", str(event.position)),
            position=Position(event.position),
            topic=event.topic,
            text=line(event.fact),
            actor=context.actor,
            role=context.role,
            tenant=context.tenant,
            tenants=list(context.tenants),
            occurred_at=event.occurred_at,
            recorded_at=event.recorded_at,
            correlation=context.correlation,
            causation=context.causation or None,
            request=context.request or None,
            command=context.command or None,
            reason=context.reason or None,
            stream=event.originator_id,
            number=event.originator_version,
        )


@strawberry.type(description="An entry and its cursor.")
class HistoryEdge:
    cursor: str = strawberry.field(description="The position as text: stands for `after` and `before`.")
    node: HistoryEntry | None = strawberry.field(
        description="The entry; null, and an error, when what lies at this position cannot be read any more."
    )


@strawberry.type(description="Where a page stands among the others (Relay).")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there are entries after this page now.")
    has_previous_page: bool = strawberry.field(description="Whether there are entries before this page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first entry; null on an empty page.")
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last entry; null on an empty page. Ask again after it for what happened since."
    )


@strawberry.type(description="A page of a card's history, in the order of the log (Relay).")
class HistoryConnection:
    edges: list[HistoryEdge] = strawberry.field(description="The entries with their cursors.")
    page_info: PageInfo = strawberry.field(description="Where this page stands among the others.")


def history(
    card: strawberry.Parent["Card"],
    info: Info[Context, None],
    first: Annotated[int | None, strawberry.argument(description="How many, from the beginning.")] = None,
    after: Annotated[str | None, strawberry.argument(description="Only entries after this cursor.")] = None,
    last: Annotated[int | None, strawberry.argument(description="How many, from the end.")] = None,
    before: Annotated[str | None, strawberry.argument(description="Only entries before this cursor.")] = None,
) -> HistoryConnection:
    """One page by key, not by offset: its cost does not depend on where it lies, and new events never shift it."""
    if first is not None and last is not None:
        raise refuse("first and last exclude each other")
    size = page_size("first" if last is None else "last", last if last is not None else first)
    context = info.context
    start, end = cursor("after", after) or 0, cursor("before", before)
    backwards = last is not None
    found = entries(context.views, context.log, card.iccid, start, end, size + 1, newest_first=backwards)
    page = found[:size][::-1] if backwards else found[:size]
    more = len(found) > size
    beyond = _is_any_beyond(context, card.iccid, page, backwards) if page else False
    return HistoryConnection(
        edges=[HistoryEdge(cursor=str(found.position), node=_entry(found)) for found in page],
        page_info=PageInfo(
            has_next_page=beyond if backwards else more,
            has_previous_page=more if backwards else beyond,
            start_cursor=str(page[0].position) if page else None,
            end_cursor=str(page[-1].position) if page else None,
        ),
    )


def _entry(found: Event | Unreadable) -> Any:
    """An error in the place of a value becomes an error of that field alone."""
    return found.error if isinstance(found, Unreadable) else HistoryEntry.of(found)


def _is_any_beyond(context: Context, iccid: str, page: Sequence[Event | Unreadable], backwards: bool) -> bool:
    """Whether entries lie on the side that the page was not read towards."""
    if backwards:
        return bool(positions(context.views, iccid, page[-1].position, None, 1))
    return bool(positions(context.views, iccid, 0, page[0].position, 1))


def page_size(name: str, value: int | None) -> int:
    if value is None:
        return DEFAULT_PAGE
    if not 1 <= value <= MAX_PAGE:
        raise refuse(f"{name} must be from 1 to {MAX_PAGE}")
    return value


def cursor(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 16 or int(value) > MAX_POSITION:
        raise refuse(f"{name} is not a cursor of this server")
    return int(value)


def find_entry(context: Context, position: str) -> HistoryEntry | None:
    found = read_entry(context.views, context.log, cursor("id", position) or 0)
    if isinstance(found, Unreadable):
        raise found.error
    return None if found is None else HistoryEntry.of(found)
