"""Alerts and standings: what is suspected of cards, on what that rests, and what it leads to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar

import strawberry
from strawberry.types import Info

from api.graphql.context import Context
from api.graphql.types.cards import Card
from api.graphql.types.events import Event, pages_of, time_of
from api.graphql.types.lists import Registered, below, filter_of, kept_in, link, made
from api.graphql.types.nodes import Siblings
from api.graphql.types.paging import After, Before, Connection, First, Last, page_of, window
from api.graphql.types.reading import MinPosition, wait_for
from api.graphql.types.scalars import Position
from projections import event_index
from projections.event_batches import pages as read_pages
from projections.event_index import EventFilter, EventRow
from projections.registry.listings import Where
from projections.registry.listings import page as read_page
from projections.registry.lists import ALERTS, CARDS, STANDINGS
from projections.registry.rows import AlertRow
from tsm.model import card as cards
from tsm.model import credential, operation, session, standing
from tsm.model.event import Fact

# What is asked of a card is a story of its own, as is each credential: so they are found by the card.
DONE: tuple[type[Fact], ...] = (
    credential.HoldOrdered, credential.CredentialHeld, credential.ReleaseOrdered, credential.CredentialReleased,
    credential.SignatureReissued, credential.SignatureRewritten, credential.RevocationOrdered,
    credential.CredentialRevoked, *operation.FACTS, cards.LifeCycleChanged, cards.ContentDeleted,
    session.SessionFailed,
)  # fmt: skip
FOLLOWED = tuple(fact.topic for fact in DONE)
NOT_TOLD = "null for providers and counters"


def evidence_of(row: AlertRow) -> list[EventFilter]:
    """One for each signal. A viewer who is not told the evidence has none in his row."""
    return at_each(row.evidence)


def at_each(positions: str) -> list[EventFilter]:
    """For each of these, with commas between them."""
    return [EventFilter(first=int(position), last=int(position)) for position in positions.split(",") if position]


def case_of(row: AlertRow) -> list[EventFilter]:
    """The evidence and what overtook it; and the story of the card's standing, its applet and credentials from then."""
    story = EventFilter(correlation=standing.stream(row.iccid), first=row.position)
    done = EventFilter(card=row.iccid, topics=FOLLOWED, first=row.position)
    return [*evidence_of(row), *at_each(row.overtaken), story, done]


def merged(description: str, filters: Callable[[Any], list[EventFilter]]) -> Any:
    """A field of an alert: the events that any of these filters finds, in the order of the log."""

    def resolve(
        alert: strawberry.Parent[Any],
        info: Info[Context, None],
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Event]:
        asked, context = window(first, after, last, before), info.context

        def ask(rows: Sequence[Any]) -> Mapping[Any, Connection[Event]]:
            wanted = [(row[0], each) for row in rows for each in filters(row)]
            bounds = asked.after, asked.before, asked.limit
            asks = [each for _, each in wanted]
            some = read_pages(context.views, context.viewer, asks, *bounds, newest_first=asked.backwards)
            found: dict[str, set[EventRow]] = {row[0]: set() for row in rows}
            for (name, _), events in zip(wanted, some, strict=True):
                found[name].update(events)
            lists = [sorted(events, reverse=asked.backwards)[: asked.limit] for events in found.values()]
            return dict(zip(found, pages_of(info, asked, lists), strict=True))

        pages: Mapping[Any, Connection[Event]] = alert.siblings.once((info.path.key, asked), ask)
        return pages[alert.row[0]]

    return strawberry.field(resolver=resolve, description=description)


AlertType = Annotated["Alert", strawberry.lazy("api.graphql.types.alerts")]


@kept_in(STANDINGS)
@strawberry.type(description="What is made of a card's suspicions; of a card of which anything was ever suspected.")
class Standing(Registered):
    renamed: ClassVar = {"released_at": "cleared_at"}
    iccid: str = strawberry.field(description="The card.")
    operator: str = strawberry.field(description="The operator of the card.")
    level: str = strawberry.field(
        description="NONE; ALERT: somebody is told; HOLD: sessions of providers are refused, certificates are on hold;"
        " LOCK: and the applet is locked at the card's next contact; REVOKE: and once the settle window is over, or a"
        " person confirmed it, revoked and deleted."
    )
    on_hold: bool = strawberry.field(description="Whether the level is HOLD or above.")
    since: datetime = strawberry.field(description="When it came to this level.")
    on_hold_since: datetime | None = strawberry.field(description="Since when it is on hold; null when it is not.")
    revoke_from: datetime | None = strawberry.field(
        description="Of the level REVOKE: when the settle window is over; null below."
    )
    released_at: datetime | None = strawberry.field(description="When it was released last; null before.")
    proof: str | None = strawberry.field(
        description="On what that release rests: MY_NUMBER_CARD, CLERK or OPERATOR; null before."
    )
    position: Position = strawberry.field(description="Position of the first that was suspected.")
    changed: Position = strawberry.field(description="Position of the last event that changed it.")
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card.")
    alerts: Connection[AlertType] = below(
        AlertType, ALERTS, {"iccid": "iccid"}, "All that was suspected of the card, in force or not."
    )


@kept_in(ALERTS)
@strawberry.type(
    description="A suspicion of a card: a rule of the policy applied to what was known. Whoever has a domain or a"
    " credential in the card, and the municipality where that was applied for, is told rule, level and times."
)
class Alert(Registered):
    renamed: ClassVar = {"evidence_positions": "evidence"}
    alert: str = strawberry.field(description="Its name, 16 octets in hex: the same in whatever order signals came.")
    iccid: str = strawberry.field(description="The card.")
    operator: str = strawberry.field(description="The operator of the card.")
    rule: str = strawberry.field(description="The rule that applied, by its name in the policy.")
    condition: str = strawberry.field(description="What is suspicious: `DEVICE_CHANGED`, `CARD_REPLACED`, `LOST` ...")
    level: str = strawberry.field(
        description="What it leads to: ALERT, HOLD, LOCK or REVOKE, by its rule or by a person who took it further."
    )
    policy: int = strawberry.field(description="Version of the policy that the rule is of.")
    since: datetime = strawberry.field(description="When it began, as the signals claim.")
    until: datetime | None = strawberry.field(description="When it ends by itself; null: not before somebody acts.")
    state: str = strawberry.field(
        description="OPEN: nobody has said anything; ACKNOWLEDGED; CLOSED, with a verdict; WITHDRAWN: by what became"
        " known it does not apply, or its time is over; RELEASED."
    )
    in_force: bool = strawberry.field(
        description="Whether it counts for the card's level: a CLOSED one that was confirmed does, until the release."
    )
    verdict: str | None = strawberry.field(description="What it was: FALSE_ALARM or CONFIRMED; null before.")
    raised_at: datetime = strawberry.field(description="When it was first raised.")
    acknowledged_at: datetime | None = strawberry.field(description="When somebody had seen it; null before.")
    acknowledged_by: str | None = strawberry.field(description=f"Who that was; {NOT_TOLD}.")
    escalated_by: str | None = strawberry.field(description=f"Who took it further than its rule; {NOT_TOLD}.")
    closed_at: datetime | None = strawberry.field(description="When somebody said what it was; null before.")
    closed_by: str | None = strawberry.field(description=f"Who did; {NOT_TOLD}.")
    ended_at: datetime | None = strawberry.field(description="When it was no longer in force; null while it is.")
    ended_by: str | None = strawberry.field(description=f"By whom; {NOT_TOLD}.")
    position: Position = strawberry.field(description="Position of the event that raised it first.")
    changed: Position = strawberry.field(description="Position of the last event that changed it.")
    evidence_positions: list[Position] = strawberry.field(
        description="Positions of the signals on which it rests; none for providers and counters."
    )
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card.")
    standing: Standing | None = link(
        Standing, STANDINGS, lambda row: row.iccid, "What the card's suspicions lead to together."
    )
    evidence: Connection[Event] = merged(
        "The signals on which it rests, as far as the caller may see them, in the order in which they were recorded.",
        evidence_of,
    )
    timeline: Connection[Event] = merged(
        "The whole case, as far as the caller may see it, in the order in which it was recorded: the signals, also that"
        " with which it was withdrawn, and from the alert on whatever was suspected, said, decided and done about the"
        " card, its applet and its credentials.",
        case_of,
    )


@strawberry.input(description="Which alerts.")
class AlertsFilter:
    state: str | None = strawberry.field(default=None, description="In this state.")
    level: str | None = strawberry.field(default=None, description="Of this level now, no other.")
    condition: str | None = strawberry.field(default=None, description="For this condition.")
    iccid: str | None = strawberry.field(default=None, description="Of this card.")
    operator: str | None = strawberry.field(default=None, description="Of cards of this operator.")
    raised_from: datetime | None = strawberry.field(
        default=None, description="First raised at this time or later; the time names its offset from UTC."
    )
    raised_to: datetime | None = strawberry.field(
        default=None, description="First raised at this time or earlier; the time names its offset from UTC."
    )


@strawberry.input(description="Which standings.")
class StandingsFilter:
    on_hold: bool | None = strawberry.field(default=None, description="Whether the card is on hold now.")
    level: str | None = strawberry.field(default=None, description="Of this level now, no other.")
    operator: str | None = strawberry.field(default=None, description="Of cards of this operator.")


def read_filter(given: AlertsFilter | None) -> tuple[Where, tuple[datetime | None, datetime | None]]:
    """Columns and their values; and between which times. INVALID_INPUT for a time without its offset."""
    if given is None:
        return {}, (None, None)
    times = time_of("raisedFrom", given.raised_from), time_of("raisedTo", given.raised_to)
    return filter_of(replace(given, raised_from=None, raised_to=None)), times


def list_alerts(
    info: Info[Context, None],
    filter: Annotated[AlertsFilter | None, strawberry.argument(description="Only what is so; all without it.")] = None,
    first: First = None,
    after: After = None,
    last: Last = None,
    before: Before = None,
    min_position: MinPosition = None,
) -> Connection[Alert]:
    """An alert's place is where it was raised, so a time is a stretch of the list."""
    context, asked = info.context, window(first, after, last, before)
    wait_for(context, min_position)
    where, times = read_filter(filter)
    begin, end = event_index.span(context.log, *times)
    low = max(asked.after, begin - 1)
    high = end + 1 if asked.before is None else min(asked.before, end + 1)
    found = read_page(
        context.views, ALERTS, context.viewer, where, low, high, asked.limit, newest_first=asked.backwards
    )
    siblings = Siblings(found[: asked.size])
    return page_of(asked, found, lambda row: made(row, ALERTS, siblings))
