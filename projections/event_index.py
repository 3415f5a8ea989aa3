"""Event index: every event of the log, found by whom and what it concerns.

Answers `events` and the exports. A row says where an event lies, when it was recorded, who acted, whose it is and what
it is about. What the event says is read from the log itself, and only when it is asked for.

Much is common to many events: topic, actor, parties, domain, AIDs. That is a kind, and there are as many kinds as
parties and topics make, however long the log is; `event` rows name theirs. So a page is found in one of three ways,
each a range of an index whose cost does not grow with the log:

- a story (card, credential, person, session, stream, correlation): a walk along that story, which is short;
- nothing but the viewer: a walk along what this viewer may see;
- anything else: the kinds that fit, one look for the next event of each, and a merge of those that come first.

What a viewer may see is decided when an event is folded, and asked for in every query. What an event is about comes
from its context and from fields of well-known names (`FIELDS`), its own or those of the event that opened its stream.

A credential's events know their card, for the application's sealed ICCID is unsealed here; when the person's erasure is
ordered that tie goes, and whoever reads the log again finds the ICCID erased. The pseudonym of the person stays.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Protocol

from projections.projection import Projection, Rows, Table
from projections.viewer import Viewer
from projections.views import Views
from tsm.errors import ErrorCode, TsmError
from tsm.model import credential
from tsm.model.checks import check_hex
from tsm.model.credential import CredentialApplied, ErasureOrdered
from tsm.model.domain import DomainClaimed
from tsm.model.event import Event, Fact
from tsm.model.operation import OperationKind
from tsm.model.operator import OperatorEnrolled
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled
from tsm.store.mapper import ERASED

MOST = 2**63 - 1  # beyond the last position
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class EventRow(NamedTuple):
    """Where an event lies, who acted, and what it concerns; text is empty where there is no such thing."""

    position: int
    recorded_at: datetime
    occurred_at: datetime
    topic: str
    stream: str
    number: int  # within the stream
    actor: str
    role: str
    tenant: str  # the party that owns what happened
    operator: str  # the operator concerned
    provider: str  # the service provider concerned
    municipality: str
    correlation: str
    reception: str
    card: str  # ICCID
    domain: str  # AID of the security domain
    aid: str  # AID of the application, load file or module that it is about
    credential: str
    subject: str  # pseudonym of the person


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What an event has to be. Everything that is given has to hold; `TsmError(INVALID_INPUT)` for an AID not in hex."""

    first: int = 1  # positions, both included: `span` finds those of a time
    last: int = MOST - 1
    topics: tuple[str, ...] = ()  # any of these; one that ends with a dot stands for all that begin so
    readings: bool = False  # whether reading.* (who saw personal data) is among them: for auditors and officers
    actor: str = ""
    tenant: str = ""
    provider: str = ""
    domain: str = ""
    aid: str = ""  # of anything that the event names, domains included
    stream: str = ""
    card: str = ""
    credential: str = ""
    subject: str = ""
    reception: str = ""
    correlation: str = ""

    def __post_init__(self) -> None:
        if self.aid:
            check_hex(self.aid, "aid")


class Log(Protocol):
    """The one log: `tsm.application.Tsm`."""

    def position_at(self, recorded_at: datetime) -> int: ...


def span(log: Log, recorded_from: datetime | None, recorded_to: datetime | None) -> tuple[int, int]:
    """The first and the last position recorded between these times, both included: `first` and `last` of a filter."""
    first = 1 if recorded_from is None else log.position_at(recorded_from - MICROSECOND) + 1
    return first, MOST - 1 if recorded_to is None else log.position_at(recorded_to)


def page(
    views: Views,
    viewer: Viewer,
    filters: EventFilter,
    after: int,
    before: int | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[EventRow]:
    """At most `limit` events with `after` < position < `before`, from that end, in the order asked for."""
    raise NotImplementedError


def find(views: Views, viewer: Viewer, position: int, *, readings: bool = False) -> EventRow | None:
    """The event at this position, if this viewer may see it."""
    raise NotImplementedError


def in_outline(row: EventRow, viewer: Viewer) -> bool:
    """Whether the viewer sees of it no more than the row: an operator, of what another party owns."""
    return viewer.kind == "operator" and row.provider != "" and row.tenant != viewer.party
