"""Read models small enough to see through, for the tests of what is common to all."""

from collections.abc import Sequence

from projections.projection import Projection, Rows, Table
from projections.views import Views
from tsm.model import card
from tsm.model.event import Event


def note(rows: Rows, events: Sequence[Event]) -> None:
    """Keeps topics, one row per event, and stumbles over refused commands."""
    rows.insert("topic", [(event.position, event.fact.topic) for event in events])
    if any(isinstance(event.fact, card.CommandRefused) for event in events):
        raise ValueError("a text with data of the event")


def count(rows: Rows, events: Sequence[Event]) -> None:
    """Counts the events of each stream: who is projected twice is counted twice."""
    streams = {event.originator_id for event in events}
    known = dict(rows.find("stream", streams))
    counted = dict(known)
    for event in events:
        counted[event.originator_id] = counted.get(event.originator_id, 0) + 1
    rows.upsert("stream", list(counted.items()))


TOPICS = Projection(
    name="topics",
    version=1,
    tables=(Table("topic", {"position": "integer", "topic": "text"}, indexes=(("topic",),)),),
    fold=note,
)
COUNTS = Projection(
    name="counts", version=1, tables=(Table("stream", {"stream": "text", "events": "integer"}),), fold=count
)
BAD = card.CommandRefused(domain="", command="COMMAND", header="80E60C00", status_word="6A80")


def topics(views: Views, projection: Projection = TOPICS) -> list[int]:
    """The positions of the events that were folded."""
    return [position for (position,) in views.read(projection, "SELECT position FROM {topic} ORDER BY position")]


def counts(views: Views) -> dict[str, int]:
    return dict(views.read(COUNTS, "SELECT stream, events FROM {stream}"))


def contents(views: Views) -> dict[str, list[object]]:
    """All rows of all read models."""
    return {
        f"{projection.name} {table.name}": views.read(
            projection,
            f"SELECT * FROM {{{table.name}}} ORDER BY {table.key}",  # noqa: S608
        )
        for projection in views.projections
        for table in projection.tables
    }
