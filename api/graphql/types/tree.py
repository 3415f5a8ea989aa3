"""What is on a card, now or at a past position or time, as one tree.

Whoever does not see all sees his own domains whole. Of another party's an operator sees AID, life cycle and size, and a
provider the way from the issuer's domain down to its own.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Self

import msgspec
import strawberry
from strawberry.types import Info

from api.graphql.context import Context
from api.graphql.types.scalars import Position, refuse
from projections.domain_tree import CardRow, DomainRow
from projections.domain_tree import at as card_at
from projections.domain_tree import cards as read_cards
from projections.registry.batches import find_all
from projections.registry.lists import DOMAINS
from projections.registry.rows import DomainRow as RegistryRow
from projections.registry.rows import key


@strawberry.type(description="Keys that a security domain was given. Never the keys: what proves which ones they are.")
class TreeKeys:
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
class TreeLoadFile:
    aid: str = strawberry.field(description="Application identifier of the load file, hex.")
    sha256: str | None = strawberry.field(
        description="SHA-256 of the load file data block, which the card checked; null when the card only told of it."
    )
    size: int | None = strawberry.field(
        description="Octets of the load file data block; null when the card only told of it."
    )
    position: Position = strawberry.field(description="Position of the event that says so.")


@strawberry.type(description="An application on the card.")
class TreeApplication:
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
class TreeDomain:
    aid: str = strawberry.field(description="Application identifier, hex.")
    parent: str | None = strawberry.field(description="AID of the domain above it; null for the issuer's.")
    privileges: str | None = strawberry.field(
        description="Privileges (GPCS v2.3.1 table 11-7), hex; null for the issuer's, which came with the card, and for"
        " another party's."
    )
    life_cycle: str = strawberry.field(description="Life cycle state, as far as this server caused or learned it.")
    failed_authentications: int = strawberry.field(
        description="How many in a row failed; after too many the server leaves the domain alone, to protect its keys."
    )
    size: int = strawberry.field(description="Octets of the load files that belong to it, as far as known.")
    position: Position = strawberry.field(description="Position of the event that created it.")
    keys: list[TreeKeys] = strawberry.field(description="Its keys in the order in which it was given them.")
    load_files: list[TreeLoadFile] = strawberry.field(description="The load files that belong to it.")
    applications: list[TreeApplication] = strawberry.field(description="The applications that belong to it.")
    domains: list["TreeDomain"] = strawberry.field(description="The domains directly beneath it.")

    @classmethod
    def of(cls, row: DomainRow, tree: "Seen") -> Self:
        """A domain with all that hangs below it."""
        whole = row.aid not in tree.outlined
        return cls(
            aid=row.aid,
            parent=row.parent if whole else None,
            privileges=row.privileges or None if whole else None,
            life_cycle=row.life_cycle,
            failed_authentications=row.failures if whole else 0,
            size=sum(f.size for f in row.load_files),
            position=Position(row.position),
            keys=[
                TreeKeys(
                    version=k.version,
                    check_values=list(k.check_values),
                    provisional=k.provisional,
                    current=k.current,
                    position=Position(k.position),
                )
                for k in (row.keys if whole else ())
            ],
            load_files=[
                TreeLoadFile(aid=f.aid, sha256=f.sha256 or None, size=f.size or None, position=Position(f.position))
                for f in (row.load_files if whole else ())
            ],
            applications=[
                TreeApplication(
                    aid=a.aid,
                    module=a.module or None,
                    load_file=a.load_file or None,
                    privileges=a.privileges or None,
                    life_cycle=a.life_cycle,
                    position=Position(a.position),
                )
                for a in (row.applications if whole else ())
            ],
            domains=[cls.of(below, tree) for below in tree.domains if below.parent == row.aid],
        )


class Seen(NamedTuple):
    """The domains of a card that a viewer sees, and which of these in outline only."""

    domains: Sequence[DomainRow]
    outlined: frozenset[str] = frozenset()

    def root(self) -> TreeDomain | None:
        """The issuer's domain, which all others hang below; None when nothing of the card is seen."""
        return next((TreeDomain.of(domain, self) for domain in self.domains if domain.parent is None), None)


def seen(cards: Sequence[CardRow], context: Context) -> dict[str, Seen]:
    """By ICCID. Whose a domain is, the registry knows, and it tells of those only that the viewer sees."""
    if context.viewer.kind == "everything":
        return {card.iccid: Seen(card.domains) for card in cards}
    keys = [key(card.iccid, domain.aid) for card in cards for domain in card.domains]
    rows = find_all(context.views, DOMAINS, context.viewer, keys)
    return {
        card.iccid: _seen(
            card, {d.aid: rows[k] for d in card.domains if (k := key(card.iccid, d.aid)) in rows}, context
        )
        for card in cards
    }


def _seen(card: CardRow, rows: Mapping[str, RegistryRow], context: Context) -> Seen:
    if context.viewer.kind == "operator":
        others = frozenset(aid for aid, row in rows.items() if not row.parent and aid != card.isd)
        return Seen([_beneath_issuer(d, card) if d.aid in others else d for d in card.domains if d.aid in rows], others)
    way = _way(card, rows)
    return Seen([d for d in card.domains if d.aid in rows or d.aid in way], frozenset(way - set(rows)))


def _beneath_issuer(domain: DomainRow, card: CardRow) -> DomainRow:
    """Where another party's domain hangs is that party's affair."""
    return msgspec.structs.replace(domain, parent=card.isd)


def _way(card: CardRow, own: Collection[str]) -> set[str]:
    """All domains above these."""
    parents = {domain.aid: domain.parent for domain in card.domains}
    way: set[str] = set()
    for aid in own:
        above = parents.get(aid)
        while above is not None and above not in way:
            way.add(above)
            above = parents.get(above)
    return way


def domain_tree(
    card: strawberry.Parent[Any],
    info: Info[Context, None],
    at_position: Annotated[
        Position | None, strawberry.argument(description="As it was after the event at this position of the log.")
    ] = None,
    at_time: Annotated[
        datetime | None, strawberry.argument(description="As it was recorded at this time, which names its offset.")
    ] = None,
) -> TreeDomain | None:
    """What the rows say, or what the card's own events say up to then: the same fold."""
    context = info.context
    if at_position is not None and at_time is not None:
        raise refuse("atPosition and atTime exclude each other")
    if at_time is not None and at_time.utcoffset() is None:
        raise refuse("atTime needs its offset from UTC")
    if at_position is None and at_time is None:
        trees = card.siblings.once("trees", lambda rows: _trees(context, rows))
    else:
        past = card_at(context.log, card.iccid, position=at_position, recorded_at=at_time)
        trees = {} if past is None else seen([past], context)
    tree = trees.get(card.iccid)
    return None if tree is None else tree.root()


def _trees(context: Context, rows: Sequence[Any]) -> dict[str, Seen]:
    return seen(list(read_cards(context.views, [row.iccid for row in rows]).values()), context)
