"""Events: what happened, who acted, why, and when twice.

Most of an event's fields lie in the index and cost nothing. Its words, its context and its values come from the log,
for the whole page at once, and only when the selection has one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Self

import msgspec
import strawberry
from graphql import FieldNode, FragmentSpreadNode, SelectionSetNode
from strawberry.types import Info

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
FROM_LOG = frozenset({"text", "tenants", "causation", "request", "command", "reason", "values"})


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

    @classmethod
    def of(cls, row: EventRow, told: "Told") -> Self:
        return cls(
            id=node_id("Event", str(row.position)),
            position=Position(row.position),
            topic=row.topic,
            actor=row.actor,
            role=row.role,
            tenant=row.tenant,
            operator=row.operator or None,
            provider=row.provider or None,
            municipality=row.municipality or None,
            occurred_at=row.occurred_at,
            recorded_at=row.recorded_at,
            correlation=row.correlation,
            reception=row.reception or None,
            card=row.card or None,
            domain=row.domain or None,
            aid=row.aid or None,
            credential=row.credential or None,
            subject=row.subject or None,
            stream=row.stream,
            number=row.number,
            text=told.text,
            tenants=told.tenants,
            causation=told.causation,
            request=told.request,
            command=told.command,
            reason=told.reason,
            values=told.values,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What the log says of an event. An error in the place of a value becomes an error of that field alone."""

    text: Any = None
    tenants: Any = None
    causation: Any = None
    request: Any = None
    command: Any = None
    reason: Any = None
    values: Any = None

    @classmethod
    def by(cls, event: Recorded | Unreadable) -> Self:
        if isinstance(event, Unreadable):
            return cls(*[event.error] * len(FROM_LOG))
        context = event.context
        return cls(
            text=line(event.fact),
            tenants=list(context.tenants),
            causation=context.causation or None,
            request=context.request or None,
            command=context.command or None,
            reason=context.reason or None,
            values=msgspec.to_builtins(event.fact),
        )


NOT_TOLD = Told()


def events_of(info: Info[Context, None], rows: Sequence[EventRow]) -> list[Event]:
    """The events, with what the log says of them where the selection asks for it and the viewer may see it."""
    told: dict[int, Told] = {}
    if not FROM_LOG.isdisjoint(selected(info)):
        viewer = info.context.viewer
        open_to_viewer = [row.position for row in rows if not in_outline(row, viewer)]
        found = info.context.log.at(open_to_viewer) if open_to_viewer else ()
        told = {event.position: Told.by(event) for event in found}
    return [Event.of(row, told.get(row.position, NOT_TOLD)) for row in rows]


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
        context.log, _time("recordedFrom", given.recorded_from), _time("recordedTo", given.recorded_to)
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


def _time(name: str, value: datetime | None) -> datetime | None:
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
    events = {event.position: event for event in events_of(info, [row for rows in found for row in rows[: asked.size]])}
    return [page_of(asked, rows, lambda row: events[row.position]) for rows in found]


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
    return {str(event.position): event for event in events_of(info, found)}
