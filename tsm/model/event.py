"""What every event carries: a fact, and who, why and when twice.

A `Fact` is what happened, in plain values; each aggregate's file declares its own. `decide` functions return facts.
The application puts each into an `Event`: the place in its stream, the claimed time and the context in which it
happened. The store adds the position in the one log and `recorded_at`, which never decreases along positions.
"""

from datetime import datetime
from typing import ClassVar

import msgspec


class Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened, named in the past tense. Never a key, a PIN, an access code or command data."""

    topic: ClassVar[str]  # the stored name ("card.keys_put"): modules may move, it may not
    class_version: ClassVar[int] = 1  # raise it when fields change, and add `upcast_v1_v2(data)`
    sealed: ClassVar[tuple[str, ...]] = ()  # text fields that hold personal data; such a fact has a field `subject`


class Context(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who acted, for whom, and what caused it."""

    actor: str  # "provider:JPKI0001", "terminal:T-13101-01", "phone", "system:notification"
    role: str  # "provider", "operator", "clerk", "phone", "authority", "administrator", "system"
    tenant: str  # the party that owns what happened
    tenants: tuple[str, ...] = ()  # the others that it concerns
    correlation: str  # one story: the same from application to activation
    causation: str = ""  # position or id of what caused this
    request: str = ""  # the id of the request at the edge
    command: str = ""  # the idempotency key of the edge, scoped by client
    reason: str = ""  # why, where a person acted
    person: str = ""  # "https://id.example|alice": the same in every role; empty for programs and machines


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact in its place. The names of the first two fields are the eventsourcing library's contract."""

    originator_id: str  # the stream: "card-8981100000000000010"
    originator_version: int  # 1, 2, 3 ... within the stream
    occurred_at: datetime  # UTC, as the source claims it
    context: Context
    fact: Fact
    position: int = 0  # in the one log, given by the store; 0 before
    recorded_at: datetime | None = None  # UTC, given by the store

    @property
    def topic(self) -> str:
        return self.fact.topic
