"""The server itself, and the caller as it sees him: read models and what they lack, counts, who asks."""

from collections.abc import Sequence
from datetime import datetime

import strawberry
from graphql import GraphQLError
from strawberry.types import Info

from api.graphql.authorization import RULES, as_role
from api.graphql.context import Context
from api.graphql.types.scalars import Position
from projections.projection import Projection
from projections.registry import listings
from projections.views import SERVING, Generation
from tsm.errors import MESSAGES, ErrorCode

MAX_PARKED = 100
OF_THE_WHOLE = ("everything", "nothing")  # viewers who are no tenant's: an administrator sees no rows, but the system


@strawberry.type(
    description="An event that a read model lacks: it could not be folded, or waits behind one that could not."
)
class ParkedEvent:
    position: Position = strawberry.field(description="Place in the one log.")
    topic: str = strawberry.field(description="The kind of event.")
    stream: str = strawberry.field(description="Its stream.")
    error: str = strawberry.field(description="Kind and place of the error, or the position that holds it back.")


def parked(model: strawberry.Parent["ReadModel"], info: Info[Context, None]) -> list[ParkedEvent]:
    """Streams of all tenants: for whoever is no tenant's."""
    context = info.context
    if context.viewer.kind not in OF_THE_WHOLE:
        raise GraphQLError(MESSAGES[ErrorCode.FORBIDDEN], extensions={"code": ErrorCode.FORBIDDEN})
    found = context.views.parked(model.projection, MAX_PARKED) if model.parked_count else []
    return [ParkedEvent(position=Position(p.position), topic=p.topic, stream=p.stream, error=p.error) for p in found]


@strawberry.type(description="Rows made from the log to answer one question; they can be deleted and made again.")
class ReadModel:
    name: str = strawberry.field(description="Named after its question.")
    version: int = strawberry.field(description="Raised when its rows change: it then reads the log again.")
    position: Position = strawberry.field(description="How far it has read the log.")
    parked_count: int = strawberry.field(description="How many events it lacks: 0, or its answers are incomplete.")
    parked: list[ParkedEvent] = strawberry.field(
        resolver=parked,
        description=f"The events that it lacks, the first {MAX_PARKED}. FORBIDDEN for whoever acts for one tenant.",
    )
    projection: strawberry.Private[Projection]


def list_read_models(info: Info[Context, None]) -> list[ReadModel]:
    views = info.context.views
    serving = {(g.name, g.version): g for g in views.generations() if g.state == SERVING}
    return [_read_model(model, serving.get((model.name, model.version))) for model in views.projections]


def _read_model(model: Projection, serving: Generation | None) -> ReadModel:
    """One that does not serve yet has read nothing."""
    return ReadModel(
        name=model.name,
        version=model.version,
        position=Position(0 if serving is None else serving.position),
        parked_count=0 if serving is None else serving.parked,
        projection=model,
    )


def log_position(info: Info[Context, None]) -> Position:
    return Position(info.context.log.position)


@strawberry.type(description="How many there are of something, as far as the caller may see.")
class Count:
    kind: str = strawberry.field(description="The list that is counted: `cards`, `sessions`, `credentials`.")
    value: str | None = strawberry.field(
        description="Of the list only those in this state, stage or kind; null for the whole list."
    )
    count: int = strawberry.field(description="How many there are.")


def counts(info: Info[Context, None]) -> list[Count]:
    """Kept up to date as events are folded: nothing is scanned."""
    made = []
    for name, count in listings.counts(info.context.views, info.context.viewer).items():
        kind, _, value = name.partition(".")
        made.append(Count(kind=kind, value=value or None, count=count))
    return made


@strawberry.type(description="Who asks, as the server knows him, and what he may see.")
class Viewer:
    actor: str = strawberry.field(description="As events name him: `operator:MNO00001`, `operator:MNO00001/alice`.")
    role: str = strawberry.field(description="What he is: it says which fields he may select.")
    party: str = strawberry.field(description="The party that he belongs to.")
    person: str | None = strawberry.field(description="Who of the party, where a token says so.")
    sees: str = strawberry.field(
        description="Whose rows he sees: everything, those of an operator, a provider or a municipality, or nothing."
    )
    tenant: str | None = strawberry.field(description="Which operator, provider or municipality that is.")
    expires_at: datetime | None = strawberry.field(description="When the proof of his identity ends.")
    may_ask: list[str] = strawberry.field(description="The fields of `Query` that his role may select.")
    may_do: list[str] = strawberry.field(description="The mutations that his role may ask for.")


def viewer(info: Info[Context, None]) -> Viewer:
    caller = info.context.caller
    return Viewer(
        actor=caller.actor,
        role=caller.role,
        party=caller.party,
        person=caller.person or None,
        sees=caller.viewer.kind,
        tenant=caller.viewer.party or None,
        expires_at=caller.expires_at,
        may_ask=_fields("Query", caller.role),
        may_do=_fields("Mutation", caller.role),
    )


def _fields(kind: str, role: str) -> list[str]:
    ruled: Sequence[str] = [name for name, roles in RULES.items() if as_role(role) in roles]
    return sorted(name.partition(".")[2] for name in ruled if name.startswith(f"{kind}.") and "__" not in name)
