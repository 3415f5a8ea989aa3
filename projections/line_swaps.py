"""Line swaps: when the SIM and the phone behind a telephone number changed last: what relying parties ask (CAMARA).

What followed from a signal for its number is in the signal's own event (`tsm.model.line`), so the newest event of a
line says it all, and folding is writing down: one row for each signal, of which the newest counts. Rows are only ever
added, in the order of the log, and indexes come last: ten million lines are built anew as fast as the log can be read.
Older rows tell what would have been answered then. Only whose the line is now is told by time, for a late signal may be
of an earlier holder's tenure: by the tenure that began last, or where none was told to begin, by the latest signal.

Nothing personal is unsealed: a row has the line's stream and the pseudonym of its holder's tenure, no number. Whoever
has a number finds the stream through the keyed rows beside the log (`tsm.flows.lines`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from projections.projection import Projection, Rows, Table
from projections.views import Views
from tsm.model.event import Event
from tsm.model.line import SignalRecorded

NEVER = -(2**63)  # a time that there is none of; others are microseconds since the epoch, from the year 1 on
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

TABLES = (
    Table(
        "line",
        {
            "position": "integer",
            "stream": "text",
            "subject": "text",
            "begins_tenure": "integer",
            "occurred_at": "integer",
            "sim_changed_at": "integer",
            "device_changed_at": "integer",
            "in_service": "integer",
        },
        indexes=(("stream", "position"), ("stream", "begins_tenure", "occurred_at")),
    ),
)


class LineSwaps(NamedTuple):
    """A line as its newest signal left it."""

    subject: str  # the pseudonym of its present holder's tenure
    sim_changed_at: datetime | None  # None: no change was told, nor its activation
    device_changed_at: datetime | None  # None: it was never seen in a phone
    in_service: bool


def line_swaps(views: Views, stream: str) -> LineSwaps | None:
    """None for a line of which no signal is known. READ_MODEL_BEHIND while a newer signal of it waits for a retry."""
    query = """
        SELECT (SELECT subject FROM {line} WHERE stream = ? ORDER BY begins_tenure DESC, occurred_at DESC LIMIT 1),
               sim_changed_at, device_changed_at, in_service
        FROM {line} WHERE stream = ? ORDER BY position DESC LIMIT 1
    """
    for subject, sim, device, in_service in views.read(LINE_SWAPS, query, (stream, stream), whole=stream):
        return LineSwaps(subject, _time(sim), _time(device), bool(in_service))
    return None


def fold(rows: Rows, events: Sequence[Event]) -> None:
    """One row for each signal."""
    rows.insert("line", [_row(event, event.fact) for event in events])


def _row(event: Event, fact: object) -> tuple[int | str, ...]:
    assert isinstance(fact, SignalRecorded)  # noqa: S101  its topic alone is declared
    return (
        event.position,
        event.originator_id,
        fact.subject,
        int(fact.begins_tenure),
        _number(event.occurred_at),
        _number(fact.sim_changed_at),
        _number(fact.device_changed_at),
        int(fact.in_service),
    )


def _number(time: datetime | None) -> int:
    return NEVER if time is None else (time - EPOCH) // MICROSECOND


def _time(number: int) -> datetime | None:
    return None if number == NEVER else EPOCH + number * MICROSECOND


LINE_SWAPS = Projection(
    name="line_swaps",
    version=3,
    tables=TABLES,
    fold=fold,
    topics=(SignalRecorded.topic,),
)
