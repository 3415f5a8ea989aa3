"""The other side: the eventsourcing library as it comes, on PostgreSQL.

`StockLog` saves our events in our bytes, so that an append differs in nothing but how it is recorded. `StockSessions`
is the library throughout: its aggregate, its events, its transcoder.
"""

from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Mapper
from psycopg.conninfo import conninfo_to_dict

from tsm.model.event import Context, Fact
from tsm.store.mapper import JsonMapper

POOL = 16  # connections: more wait for the table's lock all the same


def environment(dsn: str, **others: str) -> dict[str, str]:
    """The library's settings for a database."""
    parts = conninfo_to_dict(dsn)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(parts["dbname"]),
        "POSTGRES_HOST": str(parts["host"]),
        "POSTGRES_PORT": str(parts.get("port", 5432)),
        "POSTGRES_USER": str(parts["user"]),
        "POSTGRES_PASSWORD": str(parts.get("password", "none")),
        "POSTGRES_POOL_SIZE": str(POOL),
        "POSTGRES_CONNECT_TIMEOUT": "120",
        **others,
    }


class StockLog(Application[str]):
    """Saves events of ours as they are."""

    name = "stocklog"

    def __init__(self, dsn: str, mapper: JsonMapper) -> None:
        self._given = mapper
        super().__init__(environment(dsn, ORIGINATOR_ID_TYPE="text"))

    def construct_mapper(self) -> Mapper[str]:
        return self._given


class StockSession(Aggregate):
    """A session with a card, as the library would have one written."""

    order = 0  # of the delegated command that was sent last

    class Exchanged(Aggregate.Event):
        """One message there or back, with what our events carry."""

        what: str
        data: dict[str, Any]
        context: dict[str, Any]

        def apply(self, aggregate: Any) -> None:
            aggregate.order = self.data.get("order", aggregate.order)

    def exchange(self, fact: Fact, context: Context) -> None:
        self.trigger_event(
            self.Exchanged, what=fact.topic, data=msgspec.to_builtins(fact), context=msgspec.to_builtins(context)
        )


class StockSessions(Application[UUID]):
    """The library throughout."""

    name = "stocksessions"

    def __init__(self, dsn: str) -> None:
        super().__init__(environment(dsn))
