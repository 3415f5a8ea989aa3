"""What is on a card, now or at a past position or time, as one tree."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry.types import Info

from api.graphql.context import Context
from api.graphql.types.scalars import Position, refuse
from projections.domain_tree import CardRow, DomainRow
from projections.domain_tree import at as card_at


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
