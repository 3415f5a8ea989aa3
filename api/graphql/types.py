"""What an auditor can ask about: the types of the GraphQL schema and where their values come from.

Plain attributes wherever possible, made from the rows of one query: the executor spends its time on fields, and a field
with a resolver of its own costs more.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NewType, Self

import strawberry
from graphql import GraphQLError
from strawberry.types import Info

from api.graphql.context import Context
from projections.domain_tree import CardRow, DomainRow
from projections.domain_tree import at as card_at
from projections.domain_tree import card as read_card
from projections.issuance_history import entries, positions
from projections.issuance_history import entry as read_entry
from projections.lines import line
from projections.projection import Projection
from projections.views import SERVING, Generation, Views
from tsm.errors import ErrorCode
from tsm.identifiers import Iccid
from tsm.model.event import Event
from tsm.store.log import Unreadable

DEFAULT_PAGE = 50
MAX_PAGE = 100
MAX_PARKED = 100
MAX_POSITION = 2**53 - 1  # what every JSON reader keeps exactly


Position = NewType("Position", int)


def refuse(message: str) -> GraphQLError:
    """An argument that is not as documented; the message is for the caller."""
    return GraphQLError(message, extensions={"code": ErrorCode.INVALID_INPUT})


def parse_position(value: object) -> Position:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_POSITION:
        raise refuse("a position is a whole number from 0 to 9007199254740991")
    return Position(value)


POSITION = strawberry.scalar(
    name="Position",
    description="A place in the one log of the server, from 1 on without gaps; a whole number below 2^53.",
    serialize=int,
    parse_value=parse_position,
)


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


@strawberry.type(description="Keys that a security domain was given. Never the keys: what proves which ones they are.")
class KeySet:
    version: int = strawberry.field(description="Key version number, 1 to 127.")
    check_values: list[str] = strawberry.field(
        description="Key check values of ENC, MAC and DEK, three octets each in hex, as far as known."
    )
    provisional: bool = strawberry.field(
        description="Chosen by another than the domain's owner, who has to replace them."
    )
    current: bool = strawberry.field(description="The keys that the domain has now.")
    position: Position = strawberry.field(description="Position of the event that says so.")


@strawberry.type(description="An executable load file on the card.")
class LoadFile:
    aid: str = strawberry.field(description="Application identifier of the load file, hex.")
    sha256: str | None = strawberry.field(
        description="SHA-256 of the load file data block, which the card checked; null when the card only told of it."
    )
    size: int | None = strawberry.field(
        description="Octets of the load file data block; null when the card only told of it."
    )
    position: Position = strawberry.field(description="Position of the event that says so.")


@strawberry.type(description="An application on the card.")
class Application:
    aid: str = strawberry.field(description="Application identifier of the instance, hex.")
    module: str | None = strawberry.field(
        description="AID of the executable module that it runs, hex; null when the card never told."
    )
    load_file: str | None = strawberry.field(
        description="AID of the load file that holds the module, hex; null when the card never told."
    )
    privileges: str | None = strawberry.field(
        description="Privileges (GPCS v2.3.1 table 11-7), hex; null when the card never told."
    )
    life_cycle: str = strawberry.field(description="INSTALLED, SELECTABLE, PERSONALIZED or LOCKED.")
    position: Position = strawberry.field(description="Position of the last event that changed it.")


@strawberry.type(description="A security domain: whoever holds its keys manages what belongs to it.")
class SecurityDomain:
    aid: str = strawberry.field(description="Application identifier, hex.")
    parent: str | None = strawberry.field(description="AID of the domain above it; null for the issuer's.")
    privileges: str | None = strawberry.field(
        description="Privileges (GPCS v2.3.1 table 11-7), hex; null for the issuer's, which came with the card."
    )
    life_cycle: str = strawberry.field(description="Life cycle state, as far as this server caused or learned it.")
    failed_authentications: int = strawberry.field(
        description="How many in a row failed; after too many the server leaves the domain alone, to protect its keys."
    )
    position: Position = strawberry.field(description="Position of the event that created it.")
    keys: list[KeySet] = strawberry.field(description="Its keys in the order in which it was given them.")
    load_files: list[LoadFile] = strawberry.field(description="The load files that belong to it.")
    applications: list[Application] = strawberry.field(description="The applications that belong to it.")
    domains: list["SecurityDomain"] = strawberry.field(description="The domains directly beneath it.")

    @classmethod
    def of(cls, card: CardRow) -> Self:
        """The issuer's domain, which all others hang below."""
        return cls.tree(next(domain for domain in card.domains if domain.parent is None), card.domains)

    @classmethod
    def tree(cls, row: DomainRow, every: Sequence[DomainRow]) -> Self:
        """A domain with all that hangs below it."""
        return cls(
            aid=row.aid,
            parent=row.parent,
            privileges=row.privileges or None,
            life_cycle=row.life_cycle,
            failed_authentications=row.failures,
            position=Position(row.position),
            keys=[
                KeySet(
                    version=k.version,
                    check_values=list(k.check_values),
                    provisional=k.provisional,
                    current=k.current,
                    position=Position(k.position),
                )
                for k in row.keys
            ],
            load_files=[
                LoadFile(aid=f.aid, sha256=f.sha256 or None, size=f.size or None, position=Position(f.position))
                for f in row.load_files
            ],
            applications=[
                Application(
                    aid=a.aid,
                    module=a.module or None,
                    load_file=a.load_file or None,
                    privileges=a.privileges or None,
                    life_cycle=a.life_cycle,
                    position=Position(a.position),
                )
                for a in row.applications
            ],
            domains=[cls.tree(below, every) for below in every if below.parent == row.aid],
        )


@strawberry.type(description="An event that concerns a card: what happened, who acted, why, and when twice.")
class HistoryEntry(Node):
    position: Position = strawberry.field(description="Place in the one log.")
    topic: str = strawberry.field(description="The kind of event, for machines: `card.keys_put`.")
    text: str = strawberry.field(description="What happened, for people.")
    actor: str = strawberry.field(description="Who acted: `provider:JPKI0001`, `phone`, `system:notification`.")
    role: str = strawberry.field(description="In which role the actor acted.")
    tenant: str = strawberry.field(description="The party that owns what happened.")
    tenants: list[str] = strawberry.field(description="The other parties that it concerns.")
    occurred_at: datetime = strawberry.field(description="When it happened, as its source claims.")
    recorded_at: datetime = strawberry.field(description="When it was recorded; never decreases along positions.")
    correlation: str = strawberry.field(description="The story that it belongs to, one id from beginning to end.")
    causation: str | None = strawberry.field(description="Position or id of what caused it.")
    request: str | None = strawberry.field(description="Id of the request at the server's edge.")
    command: str | None = strawberry.field(description="Idempotency key of the command, scoped by client.")
    reason: str | None = strawberry.field(description="Why, where a person acted.")
    stream: str = strawberry.field(description="The stream that it belongs to.")
    number: int = strawberry.field(description="Place in its stream, from 1 on.")

    @classmethod
    def of(cls, event: Event) -> Self:
        context = event.context
        assert event.recorded_at is not None  # noqa: S101  it comes from the log
        return cls(
            id=node_id("HistoryEntry", str(event.position)),
            position=Position(event.position),
            topic=event.topic,
            text=line(event.fact),
            actor=context.actor,
            role=context.role,
            tenant=context.tenant,
            tenants=list(context.tenants),
            occurred_at=event.occurred_at,
            recorded_at=event.recorded_at,
            correlation=context.correlation,
            causation=context.causation or None,
            request=context.request or None,
            command=context.command or None,
            reason=context.reason or None,
            stream=event.originator_id,
            number=event.originator_version,
        )


@strawberry.type(description="An entry and its cursor.")
class HistoryEdge:
    cursor: str = strawberry.field(description="The position as text: stands for `after` and `before`.")
    node: HistoryEntry | None = strawberry.field(
        description="The entry; null, and an error, when what lies at this position cannot be read any more."
    )


@strawberry.type(description="Where a page stands among the others (Relay).")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there are entries after this page now.")
    has_previous_page: bool = strawberry.field(description="Whether there are entries before this page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first entry; null on an empty page.")
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last entry; null on an empty page. Ask again after it for what happened since."
    )


@strawberry.type(description="A page of a card's history, in the order of the log (Relay).")
class HistoryConnection:
    edges: list[HistoryEdge] = strawberry.field(description="The entries with their cursors.")
    page_info: PageInfo = strawberry.field(description="Where this page stands among the others.")


def history(
    card: strawberry.Parent["Card"],
    info: Info[Context, None],
    first: Annotated[int | None, strawberry.argument(description="How many, from the beginning.")] = None,
    after: Annotated[str | None, strawberry.argument(description="Only entries after this cursor.")] = None,
    last: Annotated[int | None, strawberry.argument(description="How many, from the end.")] = None,
    before: Annotated[str | None, strawberry.argument(description="Only entries before this cursor.")] = None,
) -> HistoryConnection:
    """One page by key, not by offset: its cost does not depend on where it lies, and new events never shift it."""
    if first is not None and last is not None:
        raise refuse("first and last exclude each other")
    size = page_size("first" if last is None else "last", last if last is not None else first)
    context = info.context
    start, end = cursor("after", after) or 0, cursor("before", before)
    backwards = last is not None
    found = entries(context.views, context.log, card.iccid, start, end, size + 1, newest_first=backwards)
    page = found[:size][::-1] if backwards else found[:size]
    more = len(found) > size
    beyond = _is_any_beyond(context, card.iccid, page, backwards) if page else False
    return HistoryConnection(
        edges=[HistoryEdge(cursor=str(found.position), node=_entry(found)) for found in page],
        page_info=PageInfo(
            has_next_page=beyond if backwards else more,
            has_previous_page=more if backwards else beyond,
            start_cursor=str(page[0].position) if page else None,
            end_cursor=str(page[-1].position) if page else None,
        ),
    )


def _entry(found: Event | Unreadable) -> Any:
    """An error in the place of a value becomes an error of that field alone."""
    return found.error if isinstance(found, Unreadable) else HistoryEntry.of(found)


def _is_any_beyond(context: Context, iccid: str, page: Sequence[Event | Unreadable], backwards: bool) -> bool:
    """Whether entries lie on the side that the page was not read towards."""
    if backwards:
        return bool(positions(context.views, iccid, page[-1].position, None, 1))
    return bool(positions(context.views, iccid, 0, page[0].position, 1))


def page_size(name: str, value: int | None) -> int:
    if value is None:
        return DEFAULT_PAGE
    if not 1 <= value <= MAX_PAGE:
        raise refuse(f"{name} must be from 1 to {MAX_PAGE}")
    return value


def cursor(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 16 or int(value) > MAX_POSITION:
        raise refuse(f"{name} is not a cursor of this server")
    return int(value)


def domain_tree(
    card: strawberry.Parent["Card"],
    info: Info[Context, None],
    at_position: Annotated[
        Position | None, strawberry.argument(description="As it was after the event at this position of the log.")
    ] = None,
    at_time: Annotated[
        datetime | None, strawberry.argument(description="As it was recorded at this time, which names its offset.")
    ] = None,
) -> SecurityDomain | None:
    """What the row says, or what the card's own events say up to then: the same fold."""
    if at_position is None and at_time is None:
        return SecurityDomain.of(card.row)
    if at_position is not None and at_time is not None:
        raise refuse("atPosition and atTime exclude each other")
    if at_time is not None and at_time.utcoffset() is None:
        raise refuse("atTime needs its offset from UTC")
    row = card_at(info.context.log, card.iccid, position=at_position, recorded_at=at_time)
    return None if row is None else SecurityDomain.of(row)


@strawberry.type(description="A card (UICC) as registered, and what the events say about it.")
class Card(Node):
    iccid: str = strawberry.field(description="Integrated circuit card identifier.")
    operator: str = strawberry.field(description="The operator that issued it.")
    profile: str = strawberry.field(description="The card profile of its production file.")
    position: Position = strawberry.field(description="Position of its registration.")
    row: strawberry.Private[CardRow]
    domain_tree: SecurityDomain | None = strawberry.field(
        resolver=domain_tree,
        description="The issuer's security domain, and below it all that this server put on the card: now, or at a"
        " past position or time (not both); null when the card was not registered then.",
    )

    issuance_history: HistoryConnection = strawberry.field(
        resolver=history,
        description=f"Every event that concerns the card, oldest first. `first` (default {DEFAULT_PAGE}) counts from"
        f" `after` on, `last` back from `before`; {MAX_PAGE} at most, and not both.",
    )

    @classmethod
    def of(cls, row: CardRow) -> Self:
        return cls(
            id=node_id("Card", row.iccid),
            iccid=row.iccid,
            operator=row.operator,
            profile=row.profile,
            position=Position(row.position),
            row=row,
        )


def find_card(context: Context, iccid: str) -> Card | None:
    """The card, or None when it is not registered. `TsmError(INVALID_INPUT)` for what is no ICCID."""
    row = read_card(context.views, str(Iccid(iccid)))
    return None if row is None else Card.of(row)


def find_entry(context: Context, position: str) -> HistoryEntry | None:
    found = read_entry(context.views, context.log, cursor("id", position) or 0)
    if isinstance(found, Unreadable):
        raise found.error
    return None if found is None else HistoryEntry.of(found)


FINDERS = {"Card": find_card, "HistoryEntry": find_entry}


@strawberry.type(
    description="An event that a read model lacks: it could not be folded, or waits behind one that could not."
)
class ParkedEvent:
    position: Position = strawberry.field(description="Place in the one log.")
    topic: str = strawberry.field(description="The kind of event.")
    stream: str = strawberry.field(description="Its stream.")
    error: str = strawberry.field(description="Kind and place of the error, or the position that holds it back.")


@strawberry.type(description="Rows made from the log to answer one question; they can be deleted and made again.")
class ReadModel:
    name: str = strawberry.field(description="Named after its question.")
    version: int = strawberry.field(description="Raised when its rows change: it then reads the log again.")
    position: Position = strawberry.field(description="How far it has read the log.")
    parked_count: int = strawberry.field(description="How many events it lacks: 0, or its answers are incomplete.")
    parked: list[ParkedEvent] = strawberry.field(description=f"The events that it lacks, the first {MAX_PARKED}.")


def list_read_models(views: Views) -> list[ReadModel]:
    serving = {(g.name, g.version): g for g in views.generations() if g.state == SERVING}
    return [_read_model(views, model, serving.get((model.name, model.version))) for model in views.projections]


def _read_model(views: Views, model: Projection, serving: Generation | None) -> ReadModel:
    """One that does not serve yet has read nothing."""
    parked = views.parked(model, MAX_PARKED) if serving is not None and serving.parked else []
    return ReadModel(
        name=model.name,
        version=model.version,
        position=Position(0 if serving is None else serving.position),
        parked_count=0 if serving is None else serving.parked,
        parked=[
            ParkedEvent(position=Position(p.position), topic=p.topic, stream=p.stream, error=p.error) for p in parked
        ],
    )
