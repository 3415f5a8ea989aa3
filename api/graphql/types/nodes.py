"""Things with an id of their own (Relay), and those that came with them."""

import base64
import binascii
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import strawberry

from api.graphql.types.scalars import refuse


@strawberry.interface(description="Anything with an id of its own, which `node` finds again.")
class Node:
    id: strawberry.ID = strawberry.field(description="Opaque, and the same for ever.")


def node_id(kind: str, key: str) -> strawberry.ID:
    return strawberry.ID(base64.urlsafe_b64encode(f"{kind}:{key}".encode()).decode())


def read_node_id(value: str) -> tuple[str, str]:
    """Kind and key; an error for the caller when this server never gave such an id."""
    try:
        kind, _, key = base64.b64decode(value, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        raise refuse("not an id of this server") from None
    if not key:
        raise refuse("not an id of this server")
    return kind, key


class Siblings:
    """The rows that one query brought. What one of them needs is asked for all of them at once.

    So a page costs as many queries as its selection has levels with queries of their own, however many rows it has.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows
        self._known: dict[Hashable, Any] = {}

    def once(self, what: Hashable, ask: Callable[[Sequence[Any]], Mapping[Any, Any]]) -> Mapping[Any, Any]:
        """What `ask` finds for the rows, asked by the first of them that needs it."""
        if what not in self._known:
            self._known[what] = ask(self.rows)
        found: Mapping[Any, Any] = self._known[what]
        return found
