"""The GraphQL schema: the questions an auditor can ask. `tsm schema` prints it; `schema.graphql` is that print."""

from typing import Annotated

import strawberry
from starlette.routing import BaseRoute
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext, Info

from api.access import AUDITOR
from api.bootstrap import Parts
from api.graphql import http
from api.graphql.context import Context, contexts_of
from api.graphql.gate import Gate
from api.graphql.types.cards import Card, find_card
from api.graphql.types.history import HistoryEntry, find_entry
from api.graphql.types.nodes import Node, read_node_id
from api.graphql.types.scalars import POSITION, Position, refuse
from api.graphql.types.server import ReadModel, list_read_models
from tsm.errors import ErrorCode, TsmError

READ_YOUR_WRITES = 5.0  # seconds that a query waits at most

FINDERS = {"Card": find_card, "HistoryEntry": find_entry}

MinPosition = Annotated[
    Position | None,
    strawberry.argument(
        description="Answer only once the read models have read the log up to here: the position that a command"
        f" returned. After {READ_YOUR_WRITES:.0f} seconds the answer is the error READ_MODEL_BEHIND."
    ),
]


def wait_for(context: Context, position: int | None) -> None:
    """READ_MODEL_BEHIND after the time limit; INVALID_INPUT at once for a position that the log does not have."""
    if position is None or context.views.position >= position:
        return
    if position > context.log.position:
        raise refuse("the log has no such position yet")
    if not context.views.wait_for(position, READ_YOUR_WRITES):
        raise TsmError(ErrorCode.READ_MODEL_BEHIND, str(position))


def card(
    info: Info[Context, None],
    iccid: Annotated[str, strawberry.argument(description="19 or 20 digits, the last a Luhn digit.")],
    min_position: MinPosition = None,
) -> Card | None:
    wait_for(info.context, min_position)
    return find_card(info.context, iccid)


def node(
    info: Info[Context, None],
    id: Annotated[strawberry.ID, strawberry.argument(description="An `id` that this server gave.")],
    min_position: MinPosition = None,
) -> Node | None:
    kind, key = read_node_id(id)
    finder = FINDERS.get(kind)
    if finder is None:
        raise refuse("not an id of this server")
    wait_for(info.context, min_position)
    return finder(info.context, key)


def log_position(info: Info[Context, None]) -> Position:
    return Position(info.context.log.position)


def read_models(info: Info[Context, None]) -> list[ReadModel]:
    return list_read_models(info.context.views)


@strawberry.type(description="What an auditor can ask.")
class Query:
    card: Card | None = strawberry.field(
        resolver=card, description="The card with this ICCID; null when none is registered."
    )
    node: Node | None = strawberry.field(resolver=node, description="The object with this id; null when there is none.")
    log_position: Position = strawberry.field(
        resolver=log_position, description="Where the log ends now: the position of the last event, 0 in an empty log."
    )
    read_models: list[ReadModel] = strawberry.field(
        resolver=read_models, description="The read models that answer here: how far they have read, what they lack."
    )


class QuietSchema(strawberry.Schema):
    """The library logs every refused query whole; we log what is ours to mend, at the edge."""

    def process_errors(self, errors: object, execution_context: ExecutionContext | None = None) -> None:
        pass


SCHEMA = QuietSchema(
    query=Query,
    types=[HistoryEntry],  # found by `node` only through its interface
    config=StrawberryConfig(sort_schema=True, scalar_map={Position: POSITION}),
)


def sdl() -> str:
    """The schema in GraphQL's own language, sorted, ending in a newline."""
    return SCHEMA.as_str().rstrip("\n") + "\n"


def routes(parts: Parts) -> list[BaseRoute]:
    """`/graphql`."""
    gate = Gate(SCHEMA, contexts_of(parts), lambda *_: [])
    return http.routes(gate, parts.access, frozenset({AUDITOR}))
