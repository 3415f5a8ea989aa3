"""One row for each mutation: what it is called and asked, what it does, and what its payload shows.

From the rows the schema's `Mutation` and all payload types are made, so none lacks a key, a position or a place for
faults. Who may ask for which says `rules`.
"""

import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import strawberry
from strawberry.tools import create_type
from strawberry.types import Info
from strawberry.utils.str_converters import to_camel_case

from api.graphql.context import Context
from api.graphql.mutations import rules
from api.graphql.mutations.mutate import MutationPayload, Work, mutate
from api.graphql.types.lists import one
from api.graphql.types.reading import wait_for
from api.graphql.types.scalars import Position
from tsm.store.recorder import Recorded

Find = Callable[[Context, Any, Recorded], Any]  # of the input, and what came of it


class Shown(NamedTuple):
    """A field of a payload: what was changed, as it is now. Found only when it is asked for."""

    name: str  # in Python
    kind: Any
    description: str
    find: Find


def changed(name: str, kind: Any, key: Find, what: str) -> Shown:
    """The thing that was changed, by its key, as its own queries show it."""

    def find(context: Context, given: Any, recorded: Recorded) -> Any:
        wait_until_shown(context, recorded)
        return one(context, kind, key(context, given, recorded))

    return Shown(name, kind, what, find)


def wait_until_shown(context: Context, recorded: Recorded) -> None:
    """Until the read models have come to what was recorded; for an answer of old to what is true now."""
    wait_for(context, context.log.position if recorded.repeated else recorded.head)


class Row(NamedTuple):
    """A mutation."""

    name: str  # in the schema, noun first
    description: str
    given: type  # its input
    work: Work
    shown: tuple[Shown, ...]


def mutation_type(rows: Sequence[Row]) -> type:
    """The schema's `Mutation`."""
    return create_type("Mutation", [mutation_of(row) for row in rows], description="What can be done, each once.")


def mutation_of(row: Row) -> Any:
    payload = payload_of(row)

    def resolve(info: Info[Context, None], input: Any) -> Any:
        outcome = mutate(info.context, row.name, input, row.work)
        if isinstance(outcome, list):
            return payload(log_position=None, repeated=False, user_errors=outcome, came=None)
        return payload(
            log_position=Position(outcome.head),
            repeated=outcome.repeated,
            user_errors=[],
            came=(input, outcome),
        )

    asked = Annotated[row.given, strawberry.argument(description="What is asked, and the key under which.")]  # type: ignore[name-defined]
    resolve.__name__ = row.name
    resolve.__annotations__ = {"info": Info, "input": asked, "return": payload}
    return strawberry.mutation(resolver=resolve, name=row.name, description=row.description)


def payload_of(row: Row) -> Any:
    """Its payload type, with the fields that all payloads have."""
    fields = {shown.name: field_of(shown) for shown in row.shown}
    made = types.new_class(rules.payload_of(row.name), (MutationPayload,), {}, lambda body: body.update(fields))
    return strawberry.type(made, description=f"What `{row.name}` answers.")


def field_of(shown: Shown) -> Any:
    def resolve(root: Any, info: Info[Context, None]) -> Any:
        return None if root.came is None else shown.find(info.context, *root.came)

    resolve.__annotations__ = {"root": Any, "info": Info, "return": shown.kind | None}
    description = f"{shown.description} Null when it was refused."
    return strawberry.field(resolver=resolve, name=to_camel_case(shown.name), description=description)
