"""Subscriptions: events, sessions and operations as they come, for whoever may see them.

A subscription reads the same rows as a query, after a position, and waits for the read models to go on. So it can be
resumed: whoever names the position of the last thing that he got misses nothing and gets little twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from api.graphql.context import Context
from api.graphql.types.alerts import Alert, AlertsFilter
from api.graphql.types.alerts import read_filter as read_alerts_filter
from api.graphql.types.events import Event, Filter, events_of, read_filter
from api.graphql.types.lists import filter_of, find_listed
from api.graphql.types.nodes import Siblings
from api.graphql.types.scalars import Position, refuse
from api.graphql.types.work import Operation, OperationsFilter, Session, SessionsFilter
from projections import event_index
from projections.event_index import EventFilter, EventRow
from projections.registry.batches import pages
from projections.registry.listings import Where
from projections.registry.lists import ALERTS
from projections.registry.rows import key
from tsm.store.loop import run

PAGE = 100  # events that are read at once
MOST_OF_A_CARD = 100  # alerts: the newest

AfterPosition = Annotated[
    Position | None,
    strawberry.argument(
        description="Begin after this position, that of the last thing that was received; without it, with what happens"
        " from now on."
    ),
]


@strawberry.type(description="A session that began, went on or ended.")
class SessionChange:
    position: Position = strawberry.field(description="Position of what happened last: for `after`.")
    session: Session = strawberry.field(description="The session as it is now.")


@strawberry.type(description="An operation that was asked for, went on or ended.")
class OperationChange:
    position: Position = strawberry.field(description="Position of what happened last: for `after`.")
    operation: Operation = strawberry.field(description="The operation as it is now.")


async def events(
    info: Info[Context, None], filter: Filter = None, after: AfterPosition = None
) -> AsyncGenerator[Event, None]:
    wanted = await run(read_filter, info.context, filter)
    async for rows in stretches(info.context, wanted, after):
        for event in await run(events_of, info, rows):
            yield event


async def sessions(
    info: Info[Context, None],
    filter: Annotated[
        SessionsFilter | None, strawberry.argument(description="Only sessions that are so now; all without it.")
    ] = None,
    after: AfterPosition = None,
) -> AsyncGenerator[SessionChange, None]:
    async for position, session in changes(info.context, Session, "session.", _session_key, filter_of(filter), after):
        yield SessionChange(position=position, session=session)


async def operations(
    info: Info[Context, None],
    filter: Annotated[
        OperationsFilter | None, strawberry.argument(description="Only operations that are so now; all without it.")
    ] = None,
    after: AfterPosition = None,
) -> AsyncGenerator[OperationChange, None]:
    async for position, one in changes(info.context, Operation, "operation.", _operation_key, filter_of(filter), after):
        yield OperationChange(position=position, operation=one)


@strawberry.type(description="An alert that was raised, or changed.")
class AlertChange:
    position: Position = strawberry.field(description="Position of what happened last: for `after`.")
    alert: Alert = strawberry.field(description="The alert as it is now.")


async def alerts(
    info: Info[Context, None],
    filter: Annotated[
        AlertsFilter | None, strawberry.argument(description="Only alerts that are so now; all without it.")
    ] = None,
    after: AfterPosition = None,
) -> AsyncGenerator[AlertChange, None]:
    """A card's events tell which alerts may have changed; which did, their rows."""
    context = info.context
    columns = await run(where_of, filter)
    async for rows in stretches(context, EventFilter(topics=("standing.",)), after):
        await context.news.beyond(rows[-1].position - 1)  # the registry may not have come so far as the index
        cards = list(dict.fromkeys(row.card for row in rows))
        for alert in await run(changed_alerts, context, cards, rows[0].position, rows[-1].position, columns):
            yield AlertChange(position=Position(alert.row.changed), alert=alert)


@strawberry.type(
    description="What can be followed, as far as the caller may see it. A subscription ends with the proof of the"
    " caller's identity at the latest."
)
class Subscription:
    events: AsyncGenerator[Event, None] = strawberry.subscription(
        resolver=events,
        description="Events as they are recorded, in the order of the one log. Who was shown personal data is told only"
        " to auditors and security officers who ask for it.",
    )
    sessions: AsyncGenerator[SessionChange, None] = strawberry.subscription(
        resolver=sessions, description="Sessions with cards as they change; changes at one moment come as one."
    )
    alerts: AsyncGenerator[AlertChange, None] = strawberry.subscription(
        resolver=alerts, description="Alerts as they are raised and change; changes at one moment come as one."
    )
    operations: AsyncGenerator[OperationChange, None] = strawberry.subscription(
        resolver=operations, description="Operations as they change; changes at one moment come as one."
    )


async def stretches(
    context: Context, wanted: EventFilter, after: int | None
) -> AsyncGenerator[Sequence[EventRow], None]:
    """The events after that position, up to `PAGE` at a time, until the caller's proof of identity ends.

    INVALID_INPUT for a position that the log does not have yet.
    """
    reached = await run(_position, context)
    if after is not None and after > await run(_end, context):
        raise refuse("the log has no such position yet")
    position = reached if after is None else after
    while context.seconds_left() != 0:
        rows = await run(event_index.page, context.views, context.viewer, wanted, position, None, PAGE)
        if rows:
            position = rows[-1].position
            yield rows
        if len(rows) < PAGE:
            position = max(position, reached)  # up to there nothing else is for this subscriber
            try:
                async with asyncio.timeout(context.seconds_left()):
                    reached = await context.news.beyond(reached)
            except TimeoutError:
                return


async def changes(
    context: Context,
    kind: type[Any],
    topics: str,
    key_of: Callable[[str], str],
    columns: Mapping[str, str | int],
    after: int | None,
) -> AsyncGenerator[tuple[Position, Any], None]:
    """The things that events of these topics are about, each as it is now, in the order of its last event."""
    async for rows in stretches(context, EventFilter(topics=(topics,)), after):
        last = {key_of(row.stream): row.position for row in rows}
        found = await run(find_listed, context, kind, list(last))
        for name, position in sorted(last.items(), key=lambda each: each[1]):
            thing = found.get(name)
            if thing is not None and all(getattr(thing.row, column) == value for column, value in columns.items()):
                yield Position(position), thing


def changed_alerts(context: Context, cards: Sequence[str], first: int, last: int, where: Where) -> list[Alert]:
    """The alerts of these cards that changed last between these positions, in that order.

    What changed again later comes with the stretch in which it did.
    """
    wheres: list[Where] = [{**where, "iccid": card} for card in cards if where.get("iccid", card) == card]
    found = pages(context.views, ALERTS, context.viewer, wheres, 0, None, MOST_OF_A_CARD, newest_first=True)
    rows = sorted((row for some in found for row in some if first <= row.changed <= last), key=lambda row: row.changed)
    siblings = Siblings(rows)
    return [Alert.of(row, siblings) for row in rows]


def where_of(given: AlertsFilter | None) -> Where:
    """INVALID_INPUT for times: who follows alerts names a position."""
    where, times = read_alerts_filter(given)
    if times != (None, None):
        raise refuse("alerts are followed after a position, not a time")
    return where


def _position(context: Context) -> int:
    return context.views.position


def _end(context: Context) -> int:
    return context.log.position


def _session_key(stream: str) -> str:
    party, _, reception = stream.removeprefix("session-").rpartition("-")
    return key(party, reception)


def _operation_key(stream: str) -> str:
    return stream.removeprefix("operation-")
