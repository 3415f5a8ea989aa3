"""Read your writes: a query that waits for what a command told it."""

from typing import Annotated

import strawberry

from api.graphql.context import Context
from api.graphql.types.scalars import Position, refuse
from tsm.errors import ErrorCode, TsmError

READ_YOUR_WRITES = 5.0  # seconds that a query waits at most

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
