"""Issuance history: what happened to a card and to the credentials meant for it, in the order of the log.

Answers `Card.issuanceHistory`. One row per event, with a line in plain English and all that the event says about who
and why; no row holds anything that the log seals. A stream belongs to a card by its first event: most name the ICCID,
but an application for a credential seals it and gives its blind index instead. So rows lie under one or the other, the
reader asks for both, and this file ties no person to a card.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from projections.lines import line
from projections.views import Projection, Views
from tsm.errors import ErrorCode, TsmError
from tsm.model.access_code import AccessCodeHandedOut
from tsm.model.card import CardRegistered
from tsm.model.credential import CredentialApplied
from tsm.model.delegation import DelegationAccepted
from tsm.model.deployment import DeploymentDelegated
from tsm.model.event import Event, Fact
from tsm.model.session import SessionStarted

TABLES = {
    "issuance_history_stream_1": """CREATE TABLE issuance_history_stream_1 (
        stream TEXT PRIMARY KEY, card TEXT NOT NULL) STRICT""",
    "issuance_history_entry_1": """CREATE TABLE issuance_history_entry_1 (
        position INTEGER PRIMARY KEY, card TEXT NOT NULL, stream TEXT NOT NULL, number INTEGER NOT NULL,
        topic TEXT NOT NULL, line TEXT NOT NULL, actor TEXT NOT NULL, role TEXT NOT NULL, tenant TEXT NOT NULL,
        tenants TEXT NOT NULL, occurred_at TEXT NOT NULL, recorded_at TEXT NOT NULL, correlation TEXT NOT NULL,
        causation TEXT NOT NULL, request TEXT NOT NULL, command TEXT NOT NULL, reason TEXT NOT NULL) STRICT;
        CREATE INDEX issuance_history_by_card_1 ON issuance_history_entry_1 (card, position)""",
}
COLUMNS = (
    "position, stream, number, topic, line, actor, role, tenant, tenants, occurred_at, recorded_at,"
    " correlation, causation, request, command, reason"
)


@dataclass(frozen=True)
class Entry:
    """One event that concerns a card."""

    position: int
    stream: str
    number: int
    topic: str
    text: str
    actor: str
    role: str
    tenant: str
    tenants: tuple[str, ...]
    occurred_at: datetime
    recorded_at: datetime
    correlation: str
    causation: str
    request: str
    command: str
    reason: str


def entries(
    views: Views, cards: Sequence[str], after: int, before: int | None, limit: int, *, newest_first: bool = False
) -> list[Entry]:
    """At most `limit` entries of a card with `after` < position < `before`.

    `cards` are the names under which a card's rows lie: its ICCID, and the blind index of it.
    """
    order = "DESC" if newest_first else "ASC"
    # Each name is read by its own index range, which ends after `limit` rows: the cost does not grow with the history.
    ranges = " UNION ALL ".join(
        f"SELECT * FROM (SELECT {COLUMNS} FROM issuance_history_entry_1"  # noqa: S608 - constants only
        f" WHERE card = ? AND position > ? AND position < ? ORDER BY position {order} LIMIT ?)"
        for _ in cards
    )
    values = [v for card in cards for v in (card, after, _MOST if before is None else before, limit)]
    rows = views.read(f"{ranges} ORDER BY position {order} LIMIT ?", [*values, limit])
    return [_entry(row) for row in rows]


def entry(views: Views, position: int) -> Entry | None:
    """The entry of the event at this position, if that concerns a card."""
    rows = views.read(f"SELECT {COLUMNS} FROM issuance_history_entry_1 WHERE position = ?", (position,))  # noqa: S608
    return _entry(rows[0]) if rows else None


_MOST = 2**63 - 1  # the largest position that SQLite can hold


def _entry(row: Sequence[Any]) -> Entry:
    position, stream, number, topic, text, actor, role, tenant, tenants, occurred_at, recorded_at, *why = row
    return Entry(
        position,
        stream,
        number,
        topic,
        text,
        actor,
        role,
        tenant,
        tuple(json.loads(tenants)),
        datetime.fromisoformat(occurred_at),
        datetime.fromisoformat(recorded_at),
        *why,
    )


def fold(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    """One row per event of a stream that belongs to a card; STORE_CORRUPT when nothing said to which."""
    concerning = [event for event in events if event.originator_id.partition("-")[0] not in WITHOUT_CARD]
    for event in concerning:
        if (card_of := CARD_OF.get(type(event.fact))) is not None:
            opened = (event.originator_id, card_of(connection, event.fact))
            connection.execute("INSERT INTO issuance_history_stream_1 VALUES (?, ?)", opened)
    cards = {stream: _card_of(connection, stream) for stream in {event.originator_id for event in concerning}}
    connection.executemany(
        "INSERT INTO issuance_history_entry_1 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_row(event, cards[event.originator_id]) for event in concerning],
    )


def _row(event: Event, card: str) -> tuple[object, ...]:
    context = event.context
    if event.recorded_at is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "an event of the log has no time of its recording")
    return (
        event.position,
        card,
        event.originator_id,
        event.originator_version,
        event.fact.topic,
        line(event.fact),
        context.actor,
        context.role,
        context.tenant,
        json.dumps(context.tenants),
        event.occurred_at.isoformat(),
        event.recorded_at.isoformat(),
        context.correlation,
        context.causation,
        context.request,
        context.command,
        context.reason,
    )


def _card_of(connection: sqlite3.Connection, stream: str) -> str:
    row = connection.execute("SELECT card FROM issuance_history_stream_1 WHERE stream = ?", (stream,)).fetchone()
    if row is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"no event says which card {stream} concerns")
    return str(row[0])


# Streams (and topics) of parties, of what is theirs on every card, and of goods: no card is concerned.
WITHOUT_CARD = {"party", "operator", "provider", "terminal", "authority", "domain", "catalogue"}

# The first event of every other stream says whose it is.
CARD_OF: Mapping[type[Fact], Callable[[sqlite3.Connection, Any], str]] = {
    CardRegistered: lambda _, fact: str(fact.iccid),
    DelegationAccepted: lambda _, fact: str(fact.iccid),
    SessionStarted: lambda _, fact: str(fact.iccid),
    DeploymentDelegated: lambda _, fact: str(fact.iccid),
    CredentialApplied: lambda _, fact: str(fact.iccid_index),
    AccessCodeHandedOut: lambda connection, fact: _card_of(connection, f"credential-{fact.credential}"),
}

ISSUANCE_HISTORY = Projection(name="issuance_history", version=1, tables=TABLES, fold=fold)
