"""The server itself: its read models, and what they lack."""

import strawberry

from api.graphql.types.scalars import Position
from projections.projection import Projection
from projections.views import SERVING, Generation, Views

MAX_PARKED = 100


@strawberry.type(
    description="An event that a read model lacks: it could not be folded, or waits behind one that could not."
)
class ParkedEvent:
    position: Position = strawberry.field(description="Place in the one log.")
    topic: str = strawberry.field(description="The kind of event.")
    stream: str = strawberry.field(description="Its stream.")
    error: str = strawberry.field(description="Kind and place of the error, or the position that holds it back.")


@strawberry.type(description="Rows made from the log to answer one question; they can be deleted and made again.")
class ReadModel:
    name: str = strawberry.field(description="Named after its question.")
    version: int = strawberry.field(description="Raised when its rows change: it then reads the log again.")
    position: Position = strawberry.field(description="How far it has read the log.")
    parked_count: int = strawberry.field(description="How many events it lacks: 0, or its answers are incomplete.")
    parked: list[ParkedEvent] = strawberry.field(description=f"The events that it lacks, the first {MAX_PARKED}.")


def list_read_models(views: Views) -> list[ReadModel]:
    serving = {(g.name, g.version): g for g in views.generations() if g.state == SERVING}
    return [_read_model(views, model, serving.get((model.name, model.version))) for model in views.projections]


def _read_model(views: Views, model: Projection, serving: Generation | None) -> ReadModel:
    """One that does not serve yet has read nothing."""
    parked = views.parked(model, MAX_PARKED) if serving is not None and serving.parked else []
    return ReadModel(
        name=model.name,
        version=model.version,
        position=Position(0 if serving is None else serving.position),
        parked_count=0 if serving is None else serving.parked,
        parked=[
            ParkedEvent(position=Position(p.position), topic=p.topic, stream=p.stream, error=p.error) for p in parked
        ],
    )
