"""The other side: the eventsourcing library as it comes, on PostgreSQL.

`StockLog` saves our events in our bytes, so that an append differs in nothing but how it is recorded. `StockSessions`
is the library throughout: its aggregate, its events, its transcoder. `project` runs its ProjectionRunner with our fold.
"""

import time
from collections.abc import Collection, Sequence
from threading import Event
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Mapper, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection as StockProjection
from eventsourcing.projection import ProjectionRunner
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL

from projections.projection import Projection, Row, Table
from tsm.model.event import Context, Fact
from tsm.model.event import Event as OurEvent
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
    given: ClassVar[JsonMapper]

    def construct_mapper(self) -> Mapper[str]:
        return self.given


def stock_log(mapper: JsonMapper) -> type[StockLog]:
    """The library makes its applications itself, out of a class and settings."""

    class Log(StockLog):
        name = StockLog.name
        given = mapper

    return Log


def open_log(dsn: str, mapper: JsonMapper) -> StockLog:
    return stock_log(mapper)(environment(dsn, ORIGINATOR_ID_TYPE="text"))


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


# --- Projections ---


class Remembered:
    """The rows of a read model in memory, as a fold sees them: nothing has to be asked of the database."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str | int, Row]] = {}
        self._written: list[tuple[str, Row]] = []

    def find(self, table: str, values: Collection[str | int], by: str | None = None) -> list[Row]:
        known = self._rows.get(table, {})
        return [known[value] for value in values if value in known]

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        self._rows.setdefault(table, {}).update({row[0]: row for row in rows})
        self._written += [(table, row) for row in rows]

    upsert = insert

    def delete(self, table: str, keys: Sequence[str | int]) -> None:
        raise NotImplementedError("the read models that are compared delete nothing")

    def written(self) -> list[tuple[str, Row]]:
        """Since this was asked last."""
        written, self._written = self._written, []
        return written


def stock_projection(ours: Projection, name: str, last: int, done: Event) -> tuple[type[Any], type[Any]]:
    """A projection of the library's with our fold, one event after the other, and the view that it writes.

    `done` is set when the notification `last` is recorded. The library looks nothing up: it remembers the rows.
    """
    statements = {table.name: _upsert(name, table) for table in ours.tables}

    class View(PostgresTrackingRecorder):
        """Rows and tracking in one transaction."""

        def __init__(self, datastore: PostgresDatastore, **others: Any) -> None:
            super().__init__(datastore, **others)
            self.sql_create_statements += [
                SQL(statement).format() for table in ours.tables for statement in _tables(name, table)
            ]

        def write(self, rows: Sequence[tuple[str, Row]], tracking: Tracking) -> None:
            with self.datastore.transaction(commit=True) as cursor:
                for table, row in rows:
                    cursor.execute(statements[table].encode(), row, prepare=True)
                self._insert_tracking(cursor, tracking)

    class Projecting(StockProjection[View]):
        """One event after the other."""

        topics = topics_of(ours)

        def __init__(self, view: View) -> None:
            super().__init__(view)
            self._rows = Remembered()

        def process_event(self, domain_event: OurEvent, tracking: Tracking) -> None:
            position, at = tracking.notification_id, domain_event.occurred_at
            event = msgspec.structs.replace(domain_event, position=position, recorded_at=at)
            ours.fold(self._rows, [event])
            self.view.write(self._rows.written(), tracking)
            if position >= last:
                done.set()

    Projecting.name = name
    return Projecting, View


def topics_of(ours: Projection) -> tuple[str, ...]:
    """The library knows no headings: whoever makes rows of every event is given every event."""
    return () if ours.headings else ours.topics


def project(dsn: str, mapper: JsonMapper, ours: Projection, name: str) -> float:
    """Seconds in which the library's runner projects its log, from nothing."""
    with open_log(dsn, mapper) as reading:
        last = reading.recorder.select_notifications(None, 10**6, topics=topics_of(ours))[-1].id
    done = Event()
    projection, view = stock_projection(ours, name, last, done)
    began = time.perf_counter()
    with ProjectionRunner(
        application_class=stock_log(mapper),
        projection_class=projection,
        view_class=view,
        env=environment(dsn, ORIGINATOR_ID_TYPE="text"),
    ) as runner:
        while not done.wait(1.0):
            runner.run_forever(0.001)  # raises what went wrong
        return time.perf_counter() - began


def _upsert(name: str, table: Table) -> str:
    sets = ", ".join(f"{column} = excluded.{column}" for column in list(table.columns)[1:])
    values = ", ".join(["%s"] * len(table.columns))
    place = f"{name}_{table.name}"
    return f"INSERT INTO {place} VALUES ({values}) ON CONFLICT ({table.key}) DO UPDATE SET {sets}"  # noqa: S608


def _tables(name: str, table: Table) -> list[str]:
    kinds = {"text": 'text COLLATE "C"', "integer": "bigint"}
    columns = ", ".join(f"{column} {kinds[kind]} NOT NULL" for column, kind in table.columns.items())
    made = [f"CREATE TABLE IF NOT EXISTS {name}_{table.name} ({columns}, PRIMARY KEY ({table.key}))"]
    for index in table.indexes:
        place = f"{name}_{table.name}"
        made.append(f"CREATE INDEX IF NOT EXISTS {place}_by_{'_'.join(index)} ON {place} ({', '.join(index)})")
    return made
