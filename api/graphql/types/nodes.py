"""Things with an id of their own (Relay)."""

import base64
import binascii

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
