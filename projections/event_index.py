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

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from projections.projection import Kind as ColumnKind
from projections.projection import Projection, Row, Rows, Table
from projections.viewer import Viewer
from projections.views import Views
from tsm.errors import ErrorCode, TsmError
from tsm.model import card, credential, session, standing
from tsm.model.checks import check_hex
from tsm.model.credential import CredentialApplied, ErasureOrdered
from tsm.model.domain import DomainClaimed
from tsm.model.event import Event, Fact
from tsm.model.operator import OperatorEnrolled
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled
from tsm.store.mapper import ERASED, SEALED

MOST = 2**63 - 1  # beyond the last position
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TEXT: ColumnKind = "text"
CREDENTIAL = credential.stream("")
STANDING = standing.stream("")
READING = "reading."
PARTIES = ("operator", "provider", "municipality")
UNTOLD = {ERASED, SEALED}
AID = re.compile(r"(?:[0-9A-F]{2}){5,16}", re.ASCII)  # ISO/IEC 7816-4 section 12.2.3

# What an operator sees of other parties' doings on its cards: that it is there, its life cycle, and that it is gone.
SHARED = {
    card.SecurityDomainCreated.topic,
    card.ApplicationInstalled.topic,
    card.LifeCycleChanged.topic,
    card.ContentDeleted.topic,
    session.SessionStarted.topic,
    session.SessionEnded.topic,
    session.SessionExpired.topic,
}

# Well-known names of fields, and what they say. Of those that tell an AID the most particular comes first.
FIELDS = {
    "iccid": "card",
    "domain": "domain",
    "isd": "domain",
    "application": "aid",
    "instance": "aid",
    "load_file": "aid",
    "module": "aid",
    "reception": "reception",
    "credential": "credential",
    "subject": "subject",
    "operator": "operator",
    "provider": "provider",
    "municipality": "municipality",
}
AIDS = ("domain", "isd", "parent", "application", "instance", "load_file", "module")

TABLES = (
    Table(
        "event",
        {
            "position": "integer",
            "kind": "integer",
            "recorded_at": "integer",  # microseconds since 1970, as the next
            "occurred_at": "integer",
            "stream": "text",
            "number": "integer",
            "correlation": "text",
            "reception": "text",
            "card": "text",
            "credential": "text",
            "subject": "text",
            "for_operator": "text",  # who may see it; readings lie in nobody's own index
            "for_provider": "text",
            "for_municipality": "text",
            "reading": "integer",  # 1: it tells who saw personal data
        },
        indexes=(
            ("kind", "position"),
            ("stream", "position"),
            ("correlation", "position"),
            ("reception", "position"),
            ("card", "position"),
            ("credential", "position"),
            ("for_operator", "position"),
            ("for_provider", "position"),
            ("for_municipality", "position"),
            ("reading", "position"),  # for those who see everything
        ),
    ),
    Table(
        "kind",
        {
            "kind": "integer",
            **dict.fromkeys(("topic", "actor", "role", "tenant", *PARTIES, "domain", "aid", "aids"), TEXT),
            **dict.fromkeys(("for_operator", "for_provider", "for_municipality"), TEXT),
            "reading": "integer",
        },
    ),
    Table(
        "mention",
        {"mention": "text", "subject": "text", "position": "integer"},
        indexes=(("subject", "position"),),
    ),
    Table(
        "stream",
        {
            "stream": "text",
            **dict.fromkeys(("card", "domain", "aid", "reception", "credential", "subject", *PARTIES), TEXT),
        },
        indexes=(("credential",),),
    ),
    Table("party", {"party": "text"}),
    Table("claim", {"domain": "text", "provider": "text"}),
)
STORIES = ("credential", "reception", "stream", "correlation", "card")
OF_KIND = ("tenant", "provider", "domain")
WHOLE = "(k.provider = '' OR k.tenant = ?)"  # what an operator does not see in outline only (`in_outline`)
SHOWN = (
    "e.position, e.recorded_at, e.occurred_at, k.topic, e.stream, e.number, k.actor, k.role, k.tenant, k.operator,"
    " k.provider, k.municipality, e.correlation, e.reception, e.card, k.domain, k.aid, e.credential, e.subject"
)


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
    """What an event has to be: all that is given has to hold. `TsmError(INVALID_INPUT)` for an AID that is not hex."""

    first: int = 1  # positions, both included: `span` finds those of a time
    last: int = MOST - 1
    topics: tuple[str, ...] = ()  # any of these; one that ends with a dot stands for all that begin so
    readings: bool = False  # whether reading.* (who saw personal data) is among them: for auditors and officers
    actor: str = ""  # one that ends with a slash stands for all that begin so: the people and programs of a party
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
        for name in ("aid", "domain"):
            if getattr(self, name):
                check_hex(getattr(self, name), name)


class Log(Protocol):
    """The one log: `tsm.application.Tsm`."""

    def position_at(self, recorded_at: datetime) -> int: ...


def span(log: Log, recorded_from: datetime | None, recorded_to: datetime | None) -> tuple[int, int]:
    """The first and the last position recorded between these times, both included: `first` and `last` of a filter."""
    first = 1 if recorded_from is None else log.position_at(max(recorded_from, EPOCH) - MICROSECOND) + 1
    return first, MOST - 1 if recorded_to is None else log.position_at(recorded_to)


# Reading


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
    """At most `limit` events with `after` < position < `before`, from that end, in the order asked for.

    `TsmError(READ_MODEL_BEHIND)` while the rows are being made.
    """
    low, high = max(after, filters.first - 1), min(MOST if before is None else before, filters.last + 1)
    bounds = Bounds(low, high, limit, newest_first)
    query, values = _query(views, viewer, filters, bounds)
    return rows_of(views.read(EVENT_INDEX, query, values), viewer) if query else []


def find(views: Views, viewer: Viewer, position: int, *, readings: bool = False) -> EventRow | None:
    """The event at this position, if this viewer may see it."""
    at = EventFilter(first=position, last=position, readings=readings)
    return next(iter(page(views, viewer, at, position - 1, position + 1, 1)), None)


def in_outline(row: EventRow, viewer: Viewer) -> bool:
    """Whether the viewer sees of it no more than the row: an operator, of what another party owns."""
    return viewer.kind == "operator" and row.provider != "" and row.tenant != viewer.party


class Bounds(NamedTuple):
    """Which stretch of the log is asked for, both ends left out, and from which end."""

    after: int
    before: int
    limit: int
    newest_first: bool

    @property
    def direction(self) -> str:
        return "DESC" if self.newest_first else "ASC"

    @property
    def first(self) -> str:
        """What finds the first position of several."""
        return "max" if self.newest_first else "min"

    @property
    def nowhere(self) -> int:
        """A position that comes after all others."""
        return 0 if self.newest_first else MOST


class Where(NamedTuple):
    """Conditions that all hold, and the values that they are bound to."""

    conditions: Sequence[str]
    values: Sequence[object]

    def __str__(self) -> str:
        return " AND ".join(self.conditions)


def _query(views: Views, viewer: Viewer, filters: EventFilter, bounds: Bounds) -> tuple[str, Sequence[object]]:
    """The query of a page and its values; an empty one when nothing can be found."""
    if viewer.kind == "nothing" or (viewer.kind != "everything" and not viewer.party):
        return "", ()  # what lies under no name is nobody's
    story, kind = _story(filters), _kind(viewer, filters)
    if story.conditions:
        return _along_story(story, kind, bounds, "mention" if filters.subject else "event")
    if bounds.before - bounds.after == 2:  # one position
        return _along_story(Where((), ()), kind, bounds, "event")
    if not _narrows(viewer, filters):
        return _along_view(viewer, filters.readings, bounds)
    return _along_kinds(views, kind, bounds)


def _narrows(viewer: Viewer, filters: EventFilter) -> bool:
    """Whether the filter leaves anything out of what lies in the viewer's own index."""
    given = filters.topics or any(getattr(filters, name) for name in ("actor", "tenant", "provider", "domain", "aid"))
    return bool(given) or (filters.readings and viewer.kind != "everything")


def _along_story(story: Where, kind: Where, bounds: Bounds, table: str) -> tuple[str, Sequence[object]]:
    """Along the index of the story; its few rows are looked at one by one for what else is asked."""
    start = "{mention} AS s CROSS JOIN {event} AS e" if table == "mention" else "{event} AS e"
    place = "s.position" if table == "mention" else "e.position"
    also = ["e.position = s.position"] if table == "mention" else []
    conditions = [*story.conditions, f"{place} > ?", f"{place} < ?", *also, "k.kind = e.kind", *kind.conditions]
    query = (
        f"SELECT {SHOWN} FROM {start} CROSS JOIN {{kind}} AS k"  # noqa: S608 - constants only
        f" WHERE {' AND '.join(conditions)} ORDER BY {place} {bounds.direction} LIMIT ?"
    )
    return query, (*story.values, bounds.after, bounds.before, *kind.values, bounds.limit)


def _along_view(viewer: Viewer, readings: bool, bounds: Bounds) -> tuple[str, Sequence[object]]:
    """Along the index of what the viewer may see."""
    if viewer.kind == "everything":
        view = Where((), ()) if readings else Where(("reading = ?",), (0,))
    else:
        view = Where((f"for_{viewer.kind} = ?",), (viewer.party,))
    return _fetch(_stretch(view, bounds), (*view.values, bounds.after, bounds.before, bounds.limit), bounds)


def _along_kinds(views: Views, kind: Where, bounds: Bounds) -> tuple[str, Sequence[object]]:
    """The kinds whose next events come first are as many as the page has rows at most; their events are merged.

    Of the first kind all rows of the page may be; of the second all but one, for one of the first comes before; and so
    on.
    """
    kinds = _next_kinds(views, kind, bounds)
    if not kinds:
        return "", ()
    each = f"SELECT position FROM ({_stretch(Where(('kind = ?',), ()), bounds)}) AS of_kind"  # noqa: S608 - constants only
    merged = f"{' UNION ALL '.join([each] * len(kinds))} ORDER BY position {bounds.direction} LIMIT ?"
    values = [v for at, kind in enumerate(kinds) for v in (kind, bounds.after, bounds.before, bounds.limit - at)]
    return _fetch(merged, (*values, bounds.limit), bounds)


def _stretch(where: Where, bounds: Bounds) -> str:
    """The first positions of an index: it ends there, whatever the planner believes of the rows."""
    conditions = [*where.conditions, "position > ?", "position < ?"]
    return (
        f"SELECT position FROM {{event}} WHERE {' AND '.join(conditions)}"  # noqa: S608 - constants only
        f" ORDER BY position {bounds.direction} LIMIT ?"
    )


def _fetch(positions: str, values: Sequence[object], bounds: Bounds) -> tuple[str, Sequence[object]]:
    """The rows at these positions."""
    query = (
        f"SELECT {SHOWN} FROM ({positions}) AS n CROSS JOIN {{event}} AS e CROSS JOIN {{kind}} AS k"  # noqa: S608
        f" WHERE e.position = n.position AND k.kind = e.kind ORDER BY n.position {bounds.direction}"
    )
    return query, values


def _next_kinds(views: Views, kind: Where, bounds: Bounds) -> list[int]:
    query = (
        f"SELECT k.kind, coalesce((SELECT {bounds.first}(e.position) FROM {{event}} AS e"  # noqa: S608 - constants only
        " WHERE e.kind = k.kind AND e.position > ? AND e.position < ?), ?) AS next"
        f" FROM {{kind}} AS k WHERE {kind} ORDER BY next {bounds.direction} LIMIT ?"
    )
    values = (bounds.after, bounds.before, bounds.nowhere, *kind.values, bounds.limit)
    return [number for number, next_ in views.read(EVENT_INDEX, query, values) if next_ != bounds.nowhere]


def _story(filters: EventFilter) -> Where:
    """What is asked of the event itself."""
    asked = [(f"e.{name} = ?", getattr(filters, name)) for name in STORIES if getattr(filters, name)]
    if filters.subject:
        asked.insert(0, ("s.subject = ?", filters.subject))
    return Where([condition for condition, _ in asked], [value for _, value in asked])


def _kind(viewer: Viewer, filters: EventFilter) -> Where:
    """What is asked of its kind: what the viewer may see, and the rest of the filter."""
    asked: list[tuple[str, Sequence[object]]] = []
    if viewer.kind != "everything":
        asked.append((f"k.for_{viewer.kind} = ?", (viewer.party,)))
    if not filters.readings:
        asked.append(("k.reading = ?", (0,)))
    if filters.topics:
        topics = [_named("topic", topic, ".") for topic in filters.topics]
        any_of = " OR ".join(condition for condition, _ in topics)
        asked.append((f"({any_of})", [value for _, values in topics for value in values]))
    if filters.actor:
        asked.append(_named("actor", filters.actor, "/"))
    asked += [(f"k.{name} = ?", (value,)) for name in OF_KIND if (value := getattr(filters, name))]
    if filters.aid:
        asked.append(_naming(viewer, filters.aid.upper()))
    if filters.correlation and viewer.kind == "operator":
        asked.append((WHOLE, (viewer.party,)))
    return Where([condition for condition, _ in asked], [value for _, values in asked for value in values])


def _naming(viewer: Viewer, aid: str) -> tuple[str, Sequence[str]]:
    """Whatever names the AID; of what the viewer sees in outline (`in_outline`), only by the AIDs that he is shown."""
    anywhere, values = "k.aids LIKE ?", (f"% {aid} %",)
    if viewer.kind != "operator":
        return anywhere, values
    return f"(({WHOLE} AND {anywhere}) OR k.domain = ? OR k.aid = ?)", (viewer.party, *values, aid, aid)


def _named(column: str, name: str, mark: str) -> tuple[str, Sequence[str]]:
    """`card.keys_put` as it is; `card.`, for it ends with the mark, for all that begin so."""
    if name.endswith(mark):
        return f"k.{column} >= ? AND k.{column} < ?", (name, name[:-1] + chr(ord(mark) + 1))
    return f"k.{column} = ?", (name,)


def rows_of(found: Iterable[Sequence[Any]], viewer: Viewer) -> list[EventRow]:
    """The rows as the viewer sees them: to which story another party's event belongs is not in its outline."""
    rows = [_row(*columns) for columns in found]
    if viewer.kind != "operator":
        return rows
    return [row._replace(correlation="") if in_outline(row, viewer) else row for row in rows]


def _row(position: int, recorded_at: int, occurred_at: int, *rest: Any) -> EventRow:
    return EventRow(position, _moment(recorded_at), _moment(occurred_at), *rest)


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


# Folding


def fold(rows: Rows, events: Sequence[Event]) -> None:
    """One row per event, whatever it is; STORE_CORRUPT when what it rests on was never read."""
    abouts = list(_abouts(rows, events))
    parties = Parties.known(rows, events, abouts)
    kinds = [parties.learn(event).kind_of(event, about) for event, about in zip(events, abouts, strict=True)]
    numbers = {kind: _number(kind) for kind in dict.fromkeys(kinds)}
    known = {number for number, *_ in rows.find("kind", numbers.values())}
    rows.insert("kind", [(number, *kind) for kind, number in numbers.items() if number not in known])
    rows.insert("party", [(party,) for party in parties.new])
    rows.insert("claim", parties.new_claims)
    rows.insert("event", [_made(*given, numbers) for given in zip(events, abouts, kinds, strict=True)])
    rows.insert("mention", [made for given in zip(events, abouts, strict=True) for made in _mentions(*given)])
    _forget(rows, {event.originator_id for event in events if event.topic == ErasureOrdered.topic})


class About(NamedTuple):
    """What an event concerns, by itself or by the event that opened its stream."""

    card: str = ""
    domain: str = ""
    aid: str = ""
    reception: str = ""
    credential: str = ""
    subject: str = ""
    operator: str = ""
    provider: str = ""  # or the operator, where that acts as a party like any other
    municipality: str = ""

    def over(self, other: "About") -> "About":
        """The other where this one says nothing."""
        return About(*map(_either, self, other))


class Parties:
    """The parties and their domains, as far as the log has told."""

    def __init__(self, known: Collection[str], claims: Mapping[str, str]) -> None:
        self._known = set(known)
        self._claims = dict(claims)
        self.new: list[str] = []
        self.new_claims: list[tuple[str, str]] = []

    @classmethod
    def known(cls, rows: Rows, events: Sequence[Event], abouts: Sequence[About]) -> "Parties":
        """Those that the events name, as they were told before."""
        names = {name for event in events for name in (event.context.tenant, *event.context.tenants)}
        names.update(about.provider for about in abouts)
        names.update(about.municipality for about in abouts)
        aids = {aid for event, about in zip(events, abouts, strict=True) for aid in _aids(event.fact, about)}
        enrolled = rows.find("party", [f"{what}:{name}" for what in PARTIES for name in names])
        return cls([party for (party,) in enrolled], dict(rows.find("claim", aids)))

    def learn(self, event: Event) -> "Parties":
        """What an enrolment tells."""
        match event.fact:
            case OperatorEnrolled(operator=party):
                self._enrol(f"operator:{party}")
            case ProviderEnrolled(provider=party):
                self._enrol(f"provider:{party}")
            case TerminalEnrolled(municipality=party):
                self._enrol(f"municipality:{party}")
            case DomainClaimed(domain=domain, provider=party) if domain not in self._claims:
                self._claims[domain] = party
                self.new_claims.append((domain, party))
        return self

    def kind_of(self, event: Event, about: About) -> "Kind":
        """What it has in common with others, and who may see it."""
        context, aids = event.context, _aids(event.fact, about)
        named = {context.tenant, *context.tenants}
        operators = {name for name in named if self._is("operator", name)}
        providers = {name for name in named if self._is("provider", name)}
        municipalities = {name for name in named if self._is("municipality", name)}
        operators.add(about.operator)
        (operators if self._is("operator", about.provider) else providers).add(about.provider)
        municipalities.add(about.municipality)
        providers.update(self._claims[aid] for aid in aids if aid in self._claims)
        for concerned in (operators, providers, municipalities):
            concerned.discard("")
        operator, provider = _only(operators), _only(providers)
        owned = context.tenant == operator or not providers | municipalities
        return Kind(
            topic=event.topic,
            actor=context.actor,
            role=context.role,
            tenant=context.tenant,
            operator=operator,
            provider=provider,
            municipality=_only(municipalities),
            domain=about.domain,
            aid=about.aid,
            aids=f" {' '.join(sorted(aids))} ",
            for_operator=operator if owned or event.topic in SHARED else "",
            for_provider=provider,
            for_municipality=_only(municipalities) if about.credential else "",
            reading=int(event.topic.startswith(READING)),
        )

    def _is(self, what: str, name: str) -> bool:
        return f"{what}:{name}" in self._known

    def _enrol(self, party: str) -> None:
        if party not in self._known:
            self._known.add(party)
            self.new.append(party)


class Kind(NamedTuple):
    """What is common to many events."""

    topic: str
    actor: str
    role: str
    tenant: str
    operator: str
    provider: str
    municipality: str
    domain: str
    aid: str
    aids: str  # all that the events name, each between spaces
    for_operator: str  # who may see them
    for_provider: str
    for_municipality: str
    reading: int  # 1: they tell who saw personal data


def _abouts(rows: Rows, events: Sequence[Event]) -> Iterator[About]:
    """What each event concerns; the streams that they open are kept."""
    own = [_own(event) for event in events]
    needed = {event.originator_id for event in events if event.originator_version > 1}
    needed.update(credential.stream(about.credential) for about in own if about.credential)
    streams = {stream: About(*about) for stream, *about in rows.find("stream", needed)}
    opened = []
    for event, about in zip(events, own, strict=True):
        stream = event.originator_id
        if about.credential and credential.stream(about.credential) != stream:
            about = about.over(_opened(streams, credential.stream(about.credential)))
        if event.originator_version > 1:
            about = about.over(_opened(streams, stream))
        if event.originator_version == 1:
            streams[stream] = about
            opened.append((stream, *about))
        yield about
    rows.insert("stream", opened)


def _opened(streams: Mapping[str, About], stream: str) -> About:
    about = streams.get(stream)
    if about is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"no event opened {stream}")
    return about


def _own(event: Event) -> About:
    """What its fact says by fields of well-known names."""
    fact: Any = event.fact
    found: dict[str, str] = {}
    for name, place in _places(fact.__class__):
        value = getattr(fact, name)
        if value and value not in UNTOLD and place not in found:
            found[place] = str(value)
    if event.originator_id.startswith(CREDENTIAL):
        found["credential"] = event.originator_id.removeprefix(CREDENTIAL)
    if event.originator_id.startswith(STANDING):
        found["card"] = event.originator_id.removeprefix(STANDING)
    found.update(_target(getattr(fact, "target", "")))
    found.update(_tenant(getattr(fact, "tenant", "")))
    return About(**found)


def _target(target: str) -> Mapping[str, str]:
    """Of an operation: an AID, `<role>/<party>`, or a credential."""
    if not target:
        return {}
    if AID.fullmatch(target):
        return {"aid": target}
    role, slash, party = target.partition("/")
    if slash:
        return {role: party} if role in PARTIES else {}
    return {"credential": target}


def _tenant(tenant: str) -> Mapping[str, str]:
    """Of a token: `operator:MNO00001`, or `*`."""
    what, _, party = tenant.partition(":")
    return {what: party} if what in PARTIES else {}


@lru_cache(maxsize=1024)
def _places(kind: type[Fact]) -> Sequence[tuple[str, str]]:
    """Which of its fields say what; of several that tell an AID the most particular comes first."""
    return [(name, place) for name, place in FIELDS.items() if name in kind.__struct_fields__]


def _aids(fact: Fact, about: About) -> set[str]:
    """All that the event names, whatever they are of."""
    named = {about.domain, about.aid, *getattr(fact, "deleted", ())}
    named.update(str(getattr(fact, name)) for name in _aid_fields(fact.__class__))
    return named - {""}


@lru_cache(maxsize=1024)
def _aid_fields(kind: type[Fact]) -> Sequence[str]:
    return [name for name in AIDS if name in kind.__struct_fields__]


def _only(parties: Collection[str]) -> str:
    """The one that is concerned; nobody is, where several are."""
    return next(iter(parties)) if len(parties) == 1 else ""


def _either(first: str, second: str) -> str:
    return first or second


@lru_cache(maxsize=4096)
def _number(kind: Kind) -> int:
    """The same whoever folds it, in whatever pages: 63 bits of a hash do not meet by chance."""
    text = "\x1f".join(str(value) for value in kind)
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 1


def _made(event: Event, about: About, kind: Kind, numbers: Mapping[Kind, int]) -> Row:
    recorded_at = event.recorded_at or event.occurred_at
    seen_by = ("", "", "") if kind.reading else (kind.for_operator, kind.for_provider, kind.for_municipality)
    return (
        event.position,
        numbers[kind],
        _microseconds(recorded_at),
        _microseconds(event.occurred_at),
        event.originator_id,
        event.originator_version,
        event.context.correlation,
        about.reception,
        about.card,
        about.credential,
        about.subject,
        *seen_by,
        kind.reading,
    )


def _mentions(event: Event, about: About) -> Iterator[Row]:
    """Whose person it concerns: one, or all whose data somebody saw."""
    for subject in dict.fromkeys((about.subject, *getattr(event.fact, "subjects", ()))):
        if subject:
            yield f"{event.position} {subject}", subject, event.position


def _forget(rows: Rows, erased: Collection[str]) -> None:
    """Unties the credentials, and what belongs to them, from their cards."""
    if not erased:
        return
    credentials = [stream.removeprefix(CREDENTIAL) for stream in erased]
    tied = [(stream, About(*about)) for stream, *about in rows.find("stream", credentials, by="credential")]
    tied = [(stream, about) for stream, about in tied if about.card]
    if not tied:
        return
    rows.upsert("stream", [(stream, *about._replace(card="")) for stream, about in tied])
    events = rows.find("event", credentials, by="credential")
    rows.upsert("event", [(*event[:CARD], "", *event[CARD + 1 :]) for event in events])


EVENT_INDEX = Projection(
    name="event_index",
    version=2,
    tables=TABLES,
    fold=fold,
    unseals={CredentialApplied.topic: ("iccid",)},
)
CARD = list(EVENT_INDEX.table("event").columns).index("card")
