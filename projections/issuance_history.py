"""Issuance history: what happened to a card and to the credentials meant for it, in the order of the log.

One row per event says to which card it belongs; what the event says is read from the log itself, so nothing is kept
twice and nothing here can differ from it. The server does not fold it: `projections.event_index` answers
`Card.issuanceHistory`. The bench does, for the goals of rebuilds are set for it: it is the least that a read model of
all events can cost.

A stream belongs to a card by its first event: most name the ICCID openly. An application for a credential seals it, for
there it ties a person to a card; this read model has it unsealed and so knows which card the credential's rows, and
those of its access codes, belong to. Of personal data it has nothing else.

When the person's erasure is ordered, that tie goes: the rows stay, under no card. Whoever reads the log again
afterwards finds the ICCID erased and makes the same rows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from projections.projection import Projection, Rows, Table
from projections.views import Views
from tsm.errors import ErrorCode, TsmError
from tsm.model import credential
from tsm.model.access_code import AccessCodeHandedOut
from tsm.model.card import CardRegistered
from tsm.model.credential import CredentialApplied, ErasureOrdered
from tsm.model.delegation import DelegationAccepted
from tsm.model.deployment import DeploymentDelegated
from tsm.model.event import Event
from tsm.model.operation import OperationRequested
from tsm.model.session import SessionStarted
from tsm.store.log import Unreadable
from tsm.store.mapper import ERASED
from tsm.store.recorder import Heading

NO_CARD = ""
MOST = 2**63 - 1  # the largest position

TABLES = (
    Table("stream", {"stream": "text", "card": "text", "credential": "text"}, indexes=(("credential",),)),
    Table(
        "entry",
        {"position": "integer", "card": "text", "stream": "text"},
        indexes=(("card", "position"),),
    ),
)


class Log(Protocol):
    """The one log: `tsm.application.Tsm`."""

    def at(self, positions: Sequence[int]) -> Sequence[Event | Unreadable]: ...


class Place(NamedTuple):
    """Where a stream belongs."""

    card: str  # ICCID, or `NO_CARD` where none is concerned, or its person is erased
    credential: str  # the stream of the credential that ties it to the card; empty when the log does so openly


def entries(
    views: Views, log: Log, card: str, after: int, before: int | None, limit: int, *, newest_first: bool = False
) -> list[Event | Unreadable]:
    """At most `limit` events of a card with `after` < position < `before`, from that end, in the order asked for."""
    found = log.at(positions(views, card, after, before, limit, newest_first=newest_first))
    return list(found)[::-1] if newest_first else list(found)


def positions(
    views: Views, card: str, after: int, before: int | None, limit: int, *, newest_first: bool = False
) -> list[int]:
    """Where they are. The index ends after `limit` rows: the cost does not grow with the history."""
    order = "DESC" if newest_first else "ASC"
    query = (
        "SELECT position FROM {entry}"  # noqa: S608 - constants only
        f" WHERE card = ? AND position > ? AND position < ? ORDER BY position {order} LIMIT ?"
    )
    values = (card, after, MOST if before is None else before, limit)
    return [position for (position,) in views.read(ISSUANCE_HISTORY, query, values)]


def entry(views: Views, log: Log, position: int) -> Event | Unreadable | None:
    """The event at this position, if that concerns a card."""
    query = "SELECT position FROM {entry} WHERE position = ?"
    found = views.read(ISSUANCE_HISTORY, query, (position,))
    return next(iter(log.at([at for (at,) in found])), None)


def fold(rows: Rows, events: Sequence[Event | Heading]) -> None:
    """One row per event of a stream that belongs to a card; STORE_CORRUPT when nothing said to which."""
    places = _known(rows, events)
    opened: list[tuple[str, str, str]] = []
    made: list[tuple[int, str, str]] = []
    for event in events:
        stream = event.originator_id
        place_of = PLACE_OF.get(event.topic)
        if place_of is not None:
            assert isinstance(event, Event)  # noqa: S101  their topics are declared
            places[stream] = place_of(places, event)
            opened.append((stream, *places[stream]))
        if stream in places or not stream.startswith(WITHOUT_CARD_STREAMS):
            made.append((event.position, _place(places, stream).card, stream))
    rows.insert("stream", opened)
    rows.insert("entry", made)
    _forget(rows, {event.originator_id for event in events if event.topic == ErasureOrdered.topic})


def _known(rows: Rows, events: Sequence[Event | Heading]) -> dict[str, Place]:
    """Where the streams belong that were opened before this page."""
    needed = {event.originator_id for event in events if event.originator_version > 1}
    facts = [event.fact for event in events if isinstance(event, Event)]
    needed.update(credential.stream(fact.credential) for fact in facts if isinstance(fact, AccessCodeHandedOut))
    return {stream: Place(*place) for stream, *place in rows.find("stream", needed)}


def _place(places: Mapping[str, Place], stream: str) -> Place:
    place = places.get(stream)
    if place is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"no event says which card {stream} concerns")
    return place


def _forget(rows: Rows, credentials: Collection[str]) -> None:
    """Unties the credentials, and what belongs to them, from their cards."""
    if not credentials:
        return
    tied = [
        (stream, card, tie) for stream, card, tie in rows.find("stream", list(credentials), by="credential") if card
    ]
    streams = {stream for stream, _, _ in tied}
    entries_of = rows.find("entry", list({card for _, card, _ in tied}), by="card")
    rows.upsert("stream", [(stream, NO_CARD, tie) for stream, _, tie in tied])
    rows.upsert("entry", [(p, NO_CARD, stream) for p, _, stream in entries_of if stream in streams])


def _openly(_: Mapping[str, Place], event: Event) -> Place:
    fact: Any = event.fact
    return Place(str(fact.iccid), "")


def _applied(_: Mapping[str, Place], event: Event) -> Place:
    fact: Any = event.fact
    return Place(NO_CARD if fact.iccid == ERASED else str(fact.iccid), event.originator_id)


def _handed_out(places: Mapping[str, Place], event: Event) -> Place:
    fact: Any = event.fact
    return _place(places, credential.stream(fact.credential))


# Streams (and topics) of parties, of what is theirs on every card, of goods, and of who reads: no card is concerned.
WITHOUT_CARD = (
    "party", "operator", "provider", "terminal", "authority", "domain", "catalogue", "service-token", "reading",
)  # fmt: skip
WITHOUT_CARD_STREAMS = tuple(f"{kind}-" for kind in WITHOUT_CARD)

# The first event of every other stream says whose it is; of an operation that needs no card, that it is nobody's.
PLACE_OF: Mapping[str, Callable[[Mapping[str, Place], Event], Place]] = {
    CardRegistered.topic: _openly,
    DelegationAccepted.topic: _openly,
    SessionStarted.topic: _openly,
    DeploymentDelegated.topic: _openly,
    OperationRequested.topic: _openly,
    CredentialApplied.topic: _applied,
    AccessCodeHandedOut.topic: _handed_out,
}

ISSUANCE_HISTORY = Projection(
    name="issuance_history",
    version=4,
    tables=TABLES,
    fold=fold,
    topics=tuple(PLACE_OF),
    headings=True,
    unseals={CredentialApplied.topic: ("iccid",)},
)
