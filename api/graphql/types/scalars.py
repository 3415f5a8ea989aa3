"""The schema's own scalars, and the refusal of arguments."""

from typing import Any, NewType

import strawberry
from graphql import GraphQLError

from tsm.errors import ErrorCode

MAX_POSITION = 2**53 - 1  # what every JSON reader keeps exactly

Position = NewType("Position", int)
Values = NewType("Values", object)


def refuse(message: str) -> GraphQLError:
    """An argument that is not as documented; the message is for the caller."""
    return GraphQLError(message, extensions={"code": ErrorCode.INVALID_INPUT})


def parse_position(value: object) -> Position:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_POSITION:
        raise refuse("a position is a whole number from 0 to 9007199254740991")
    return Position(value)


def parse_nothing(_: object) -> Values:
    raise refuse("such values are answered, never asked with")


POSITION = strawberry.scalar(
    name="Position",
    description="A place in the one log of the server, from 1 on without gaps; a whole number below 2^53.",
    serialize=int,
    parse_value=parse_position,
)
VALUES = strawberry.scalar(
    name="Values",
    description="The values of an event by their names, as JSON. What is personal reads `[sealed]`.",
    serialize=lambda value: value,
    parse_value=parse_nothing,
)
SCALARS: dict[Any, Any] = {Position: POSITION, Values: VALUES}
