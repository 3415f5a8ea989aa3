"""Events: what happened, who acted, why, and when twice.

Most of an event's fields lie in the index and cost nothing. Its words, its context and its values come from the log,
for the whole page at once, and only when the selection has one of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import strawberry
from graphql import FieldNode, FragmentSpreadNode, SelectionSetNode
from strawberry.types import Info
from strawberry.utils.str_converters import to_camel_case

from api.graphql.authorization import OVERSEERS
from api.graphql.context import Context
from api.graphql.types.nodes import Node, node_id
from api.graphql.types.paging import After, Before, Connection, First, Last, Window, page_of, window
from api.graphql.types.reading import MinPosition, wait_for
from api.graphql.types.scalars import Position, Values, refuse
from projections import event_index
from projections.event_batches import pages as read_pages
from projections.event_index import EventFilter, EventRow, in_outline
from projections.lines import line
from tsm.model.event import Event as Recorded
from tsm.store.log import Unreadable

MAX_KINDS = 20
MAX_TEXT = 255  # characters of a filter


@strawberry.input(description="What an event has to be: everything that is given has to hold.")
class EventsFilter:
    recorded_from: datetime | None = strawberry.field(
        default=None, description="Recorded at this time or later; the time names its offset from UTC."
    )
    recorded_to: datetime | None = strawberry.field(
        default=None, description="Recorded at this time or earlier; the time names its offset from UTC."
    )
    kinds: list[str] | None = strawberry.field(
        default=None,
        description=f"Any of these kinds, {MAX_KINDS} at most: a topic, or how topics begin, up to a dot: `card.`.",
    )
    actor: str | None = strawberry.field(
        default=None,
        description="Who acted: `provider:JPKI0001`, `phone`; or how actors begin, up to a slash: `operator:MNO00001/`"
        " for all people of a party, and its programs with tokens.",
    )
    tenant: str | None = strawberry.field(default=None, description="The party that owns what happened.")
    card: str | None = strawberry.field(default=None, description="ICCID of the card concerned.")
    domain: str | None = strawberry.field(default=None, description="AID of the security domain concerned, hex.")
    aid: str | None = strawberry.field(default=None, description="AID that the event names, of whatever, hex.")
    provider: str | None = strawberry.field(default=None, description="The service provider concerned.")
    correlation: str | None = strawberry.field(default=None, description="The story that it belongs to.")
    reception: str | None = strawberry.field(default=None, description="The reception number of a delegation.")
    credential: str | None = strawberry.field(default=None, description="The credential concerned.")
    subject: str | None = strawberry.field(default=None, description="The person concerned, by pseudonym.")
    stream: str | None = strawberry.field(default=None, description="The stream that it belongs to.")
    readings: bool = strawberry.field(
        default=False, description="Whether to tell, too, who was shown personal data; for auditors and officers."
    )


@strawberry.type(description="Something that happened. It never changes, and what it is made of proves itself.")
class Event(Node):
    position: Position = strawberry.field(description="Place in the one log.")
    topic: str = strawberry.field(description="The kind of event, for machines: `card.keys_put`.")
    actor: str = strawberry.field(description="Who acted: `provider:JPKI0001`, `phone`, `system:notification`.")
    role: str = strawberry.field(description="In which role the actor acted.")
    tenant: str = strawberry.field(description="The party that owns what happened.")
    operator: str | None = strawberry.field(description="The operator concerned.")
    provider: str | None = strawberry.field(description="The service provider concerned.")
    municipality: str | None = strawberry.field(description="The municipality concerned.")
    occurred_at: datetime = strawberry.field(description="When it happened, as its source claims.")
    recorded_at: datetime = strawberry.field(description="When it was recorded; never decreases along positions.")
    correlation: str = strawberry.field(description="The story that it belongs to, one id from beginning to end.")
    reception: str | None = strawberry.field(description="Reception number of the delegation concerned.")
    card: str | None = strawberry.field(description="ICCID of the card concerned.")
    domain: str | None = strawberry.field(description="AID of the security domain concerned, hex.")
    aid: str | None = strawberry.field(description="AID of the application, load file or module concerned, hex.")
    credential: str | None = strawberry.field(description="The credential concerned.")
    subject: str | None = strawberry.field(description="The person concerned, by pseudonym.")
    stream: str = strawberry.field(description="The stream that it belongs to.")
    number: int = strawberry.field(description="Place in its stream, from 1 on.")
    text: str | None = strawberry.field(
        description="What happened, for people; null where another party's event is seen in outline only."
    )
    tenants: list[str] | None = strawberry.field(description="The other parties that it concerns; null in outline.")
    causation: str | None = strawberry.field(description="Position or id of what caused it; null in outline.")
    request: str | None = strawberry.field(description="Id of the request at the server's edge; null in outline.")
    command: str | None = strawberry.field(
        description="Idempotency key of the command, scoped by client; null in outline."
    )
    reason: str | None = strawberry.field(description="Why, where a person acted; null in outline.")
    values: Values | None = strawberry.field(description="What else the event says; null in outline.")


class Source(NamedTuple):
    """Where a field of an event comes from."""

    field: str  # as it is selected
    attribute: str
    read: Callable[[Any], Any]


def sources(reads: Mapping[str, Callable[[Any], Any]]) -> Sequence[Source]:
    return [Source(to_camel_case(attribute), attribute, read) for attribute, read in reads.items()]


def column(name: str) -> Callable[[EventRow], str | None]:
    """A column of the index that is empty where there is nothing."""
    return lambda row: getattr(row, name) or None


ALWAYS = (
    "position", "topic", "actor", "role", "tenant", "occurred_at", "recorded_at", "correlation", "stream", "number",
)  # fmt: skip
PERHAPS = ("operator", "provider", "municipality", "reception", "card", "domain", "aid", "credential", "subject")
FROM_INDEX = sources(
    {
        "id": lambda row: node_id("Event", str(row.position)),
        **{name: attrgetter(name) for name in ALWAYS},
        **{name: column(name) for name in PERHAPS},
    }
)
FROM_LOG = sources(
    {
        "text": lambda event: line(event.fact),
        "tenants": lambda event: list(event.context.tenants),
        "causation": lambda event: event.context.causation or None,
        "request": lambda event: event.context.request or None,
        "command": lambda event: event.context.command or None,
        "reason": lambda event: event.context.reason or None,
        "values": lambda event: msgspec.to_builtins(event.fact),
    }
)


def events_of(info: Info[Context, None], rows: Sequence[EventRow]) -> list[Event]:
    return list(map(maker(info, rows), rows))


def maker(info: Info[Context, None], rows: Sequence[EventRow]) -> Callable[[EventRow], Event]:
    """What makes an event of each of these rows; the log is asked once for all.

    The events have what is selected, and no other attributes: a page needs a few of very many values.
    """
    wanted = selected(info)
    from_index = [source for source in FROM_INDEX if source.field in wanted]
    from_log = [source for source in FROM_LOG if source.field in wanted]
    told = told_of(info.context, rows) if from_log else {}
    return lambda row: made(row, from_index, told.get(row.position), from_log)


def told_of(context: Context, rows: Sequence[EventRow]) -> dict[int, Recorded | Unreadable]:
    """By position, what the log says of these events, where the viewer may see it."""
    positions = [row.position for row in rows if not in_outline(row, context.viewer)]
    return {event.position: event for event in context.log.at(positions)} if positions else {}


def made(
    row: EventRow, from_index: Sequence[Source], told: Recorded | Unreadable | None, from_log: Sequence[Source]
) -> Event:
    event = Event.__new__(Event)
    for _, attribute, read in from_index:
        setattr(event, attribute, read(row))
    for _, attribute, read in from_log:
        setattr(event, attribute, None if told is None else value_of(told, read))
    return event


def value_of(told: Recorded | Unreadable, read: Callable[[Recorded], Any]) -> Any:
    """An error in the place of a value becomes an error of that field alone."""
    return told.error if isinstance(told, Unreadable) else read(told)


def selected(info: Info[Context, None]) -> set[str]:
    """The names of all fields beneath this one, at whatever depth."""
    raw = info._raw_info
    names: set[str] = set()
    spread: set[str] = set()
    waiting: list[SelectionSetNode | None] = [node.selection_set for node in raw.field_nodes]
    while waiting:
        selection_set = waiting.pop()
        for node in selection_set.selections if selection_set is not None else ():
            if isinstance(node, FragmentSpreadNode):
                if node.name.value not in spread:
                    spread.add(node.name.value)
                    waiting.append(raw.fragments[node.name.value].selection_set)
                continue
            if isinstance(node, FieldNode):
                names.add(node.name.value)
            waiting.append(getattr(node, "selection_set", None))
    return names


def read_filter(context: Context, given: EventsFilter | None) -> EventFilter:
    """The filter for the index. INVALID_INPUT."""
    if given is None:
        return EventFilter()
    if given.readings and context.caller.role not in OVERSEERS:
        raise refuse("readings are for auditors and security officers")
    first, last = event_index.span(
        context.log, time_of("recordedFrom", given.recorded_from), time_of("recordedTo", given.recorded_to)
    )
    values = {
        name: getattr(given, name) or ""
        for name in (
            "actor", "tenant", "provider", "domain", "aid", "stream", "card", "credential", "subject", "reception",
            "correlation",
        )
    }  # fmt: skip
    kinds = tuple(given.kinds or ())
    if len(kinds) > MAX_KINDS:
        raise refuse(f"at most {MAX_KINDS} kinds")
    for value in (*values.values(), *kinds):
        if len(value) > MAX_TEXT or not value.isprintable():
            raise refuse("no event has such a value")
    return EventFilter(first=first, last=last, topics=kinds, readings=given.readings, **values)


def time_of(name: str, value: datetime | None) -> datetime | None:
    """INVALID_INPUT for a time that does not name its offset from UTC."""
    if value is not None and value.utcoffset() is None:
        raise refuse(f"{name} needs its offset from UTC")
    return value


Filter = Annotated[EventsFilter | None, strawberry.argument(description="Only events that are so; all without it.")]


def list_events(
    info: Info[Context, None],
    filter: Filter = None,
    first: First = None,
    after: After = None,
    last: Last = None,
    before: Before = None,
    min_position: MinPosition = None,
) -> Connection[Event]:
    asked, context = window(first, after, last, before), info.context
    wait_for(context, min_position)
    wanted = read_filter(context, filter)
    bounds = asked.after, asked.before, asked.limit
    found = event_index.page(context.views, context.viewer, wanted, *bounds, newest_first=asked.backwards)
    [page] = pages_of(info, asked, [found])
    return page


def pages_of(info: Info[Context, None], asked: Window, found: Sequence[Sequence[EventRow]]) -> list[Connection[Event]]:
    """A page for each of these lists of rows; the log is asked once for all."""
    make = maker(info, [row for rows in found for row in rows[: asked.size]])
    return [page_of(asked, rows, make) for rows in found]


def history(description: str, **columns: str) -> Any:
    """A field of a thing: the events that concern it. Each of the `columns` has to be what that one of its row says."""

    def resolve(
        thing: strawberry.Parent[Any],
        info: Info[Context, None],
        filter: Filter = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Event]:
        asked, context = window(first, after, last, before), info.context

        def ask(rows: Sequence[Any]) -> Mapping[Any, Connection[Event]]:
            given = read_filter(context, filter)
            wanted = [narrowed(given, {name: getattr(row, column) for name, column in columns.items()}) for row in rows]
            bounds = asked.after, asked.before, asked.limit
            found = read_pages(context.views, context.viewer, wanted, *bounds, newest_first=asked.backwards)
            return dict(zip([row[0] for row in rows], pages_of(info, asked, found), strict=True))

        what = (info.path.key, asked)  # the path: two aliases may have two filters
        pages: Mapping[Any, Connection[Event]] = thing.siblings.once(what, ask)
        return pages[thing.row[0]]

    return strawberry.field(resolver=resolve, description=description)


def narrowed(given: EventFilter, fixed: Mapping[str, Any]) -> EventFilter:
    """INVALID_INPUT when the filter wants something else than what the place of the field says."""
    for name, value in fixed.items():
        if getattr(given, name) not in ("", value):
            raise refuse(f"{name} is given by the place of the field")
    return replace(given, **fixed)


def find_events(info: Info[Context, None], keys: Sequence[str]) -> dict[str, Event]:
    """The events at these positions, as far as the caller may see; INVALID_INPUT for what is no position."""
    if not all(key.isascii() and key.isdigit() and len(key) <= 16 for key in keys):
        raise refuse("not an id of this server")
    context = info.context
    readings = context.caller.role in OVERSEERS
    wanted = [EventFilter(first=int(key), last=int(key), readings=readings) for key in keys]
    found = [row for rows in read_pages(context.views, context.viewer, wanted, 0, None, 1) for row in rows]
    return {str(row.position): event for row, event in zip(found, events_of(info, found), strict=True)}
