"""Enrolled parties, and the load files that providers registered."""

from typing import Annotated

import strawberry

from api.graphql.types.cards import Card, SecurityDomain
from api.graphql.types.credentials import Credential
from api.graphql.types.events import Event, history
from api.graphql.types.lists import Registered, below, kept_in
from api.graphql.types.paging import Connection
from api.graphql.types.scalars import Position
from api.graphql.types.work import Delegation, Operation, Session
from projections.registry.lists import (
    CARDS,
    CATALOGUE,
    CREDENTIALS,
    DELEGATIONS,
    DOMAINS,
    OPERATIONS,
    PARTIES,
    SESSIONS,
)

CatalogueType = Annotated["CatalogueEntry", strawberry.lazy("api.graphql.types.parties")]

ENROLLED = "Whether a certificate lets it in; false once that was withdrawn."
FINGERPRINT = "SHA-256 of its certificate (DER), hex; null once that was withdrawn."
ENROLMENT = "Position of its first enrolment."


@kept_in(PARTIES, ("kind", "operator"))
@strawberry.type(description="A mobile network operator: it issues cards.")
class Operator(Registered):
    party: str = strawberry.field(description="Its spId.")
    name: str | None = strawberry.field(description="Its name.")
    enrolled: bool = strawberry.field(description=ENROLLED)
    certificate_fingerprint: str | None = strawberry.field(description=FINGERPRINT)
    position: Position = strawberry.field(description=ENROLMENT)
    cards: Connection[Card] = below(Card, CARDS, {"operator": "party"}, "The cards that it issued.")
    sessions: Connection[Session] = below(Session, SESSIONS, {"operator": "party"}, "The conversations with its cards.")
    operations: Connection[Operation] = below(
        Operation, OPERATIONS, {"operator": "party"}, "What was asked to be done on its cards."
    )


@kept_in(PARTIES, ("kind", "provider"))
@strawberry.type(
    description="A service provider: security domains on operators' cards are its own, and credentials in them."
)
class Provider(Registered):
    party: str = strawberry.field(description="Its spId.")
    name: str | None = strawberry.field(description="Its name.")
    domain: str = strawberry.field(description="AID of its security domains, hex.")
    authority: str = strawberry.field(description="The authority that certifies its credentials.")
    enrolled: bool = strawberry.field(description=ENROLLED)
    certificate_fingerprint: str | None = strawberry.field(description=FINGERPRINT)
    position: Position = strawberry.field(description=ENROLMENT)
    security_domains: Connection[SecurityDomain] = below(
        SecurityDomain, DOMAINS, {"provider": "party"}, "Its security domains, on whatever card."
    )
    credentials: Connection[Credential] = below(
        Credential, CREDENTIALS, {"provider": "party"}, "The credentials that were applied for with it."
    )
    catalogue: Connection[CatalogueType] = below(
        CatalogueType, CATALOGUE, {"provider": "party"}, "The load files that it registered."
    )
    delegations: Connection[Delegation] = below(
        Delegation, DELEGATIONS, {"provider": "party"}, "What was handed over for its domains."
    )
    sessions: Connection[Session] = below(
        Session, SESSIONS, {"provider": "party"}, "The conversations with its domains."
    )
    issuance_history: Connection[Event] = history("Every event that concerns it, oldest first.", provider="party")


@kept_in(PARTIES, ("kind", "terminal"))
@strawberry.type(description="A counter terminal of a municipality, where credentials are applied for.")
class Terminal(Registered):
    party: str = strawberry.field(description="Its id.")
    name: str | None = strawberry.field(description="Its name.")
    municipality: str = strawberry.field(description="The municipality that it stands in.")
    enrolled: bool = strawberry.field(description=ENROLLED)
    certificate_fingerprint: str | None = strawberry.field(description=FINGERPRINT)
    position: Position = strawberry.field(description=ENROLMENT)
    credentials: Connection[Credential] = below(
        Credential, CREDENTIALS, {"terminal": "party"}, "The credentials that were applied for at it."
    )


@kept_in(PARTIES, ("kind", "authority"))
@strawberry.type(description="A certificate authority: it makes the key pairs and certificates of credentials.")
class Authority(Registered):
    party: str = strawberry.field(description="Its id.")
    name: str | None = strawberry.field(description="Its name.")
    enrolled: bool = strawberry.field(description=ENROLLED)
    certificate_fingerprint: str | None = strawberry.field(description=FINGERPRINT)
    position: Position = strawberry.field(description=ENROLMENT)
    credentials: Connection[Credential] = below(
        Credential, CREDENTIALS, {"authority": "party"}, "The credentials that it issued."
    )


@kept_in(CATALOGUE)
@strawberry.type(description="A provider's load file in its current version, ready to be loaded into cards.")
class CatalogueEntry(Registered):
    load_file: str = strawberry.field(description="AID of the load file, hex.")
    provider: str = strawberry.field(description="The provider that registered it.")
    version: str = strawberry.field(description="Its version, as the provider calls it.")
    sha256: str = strawberry.field(description="SHA-256 of the load file data block, hex.")
    size: int = strawberry.field(description="Octets of the load file data block.")
    module: str = strawberry.field(description="AID of the executable module to install from it, hex.")
    application: str = strawberry.field(description="AID of the application to install, hex.")
    position: Position = strawberry.field(description="Position of its first registration.")
    changed: Position = strawberry.field(description="Position of the registration of this version.")


@strawberry.input(description="Which parties.")
class PartiesFilter:
    party: str | None = strawberry.field(default=None, description="With this id.")
    enrolled: bool | None = strawberry.field(default=None, description="Whether a certificate lets them in.")


@strawberry.input(description="Which providers.")
class ProvidersFilter(PartiesFilter):
    domain: str | None = strawberry.field(default=None, description="With this AID for their domains, hex, capitals.")


@strawberry.input(description="Which terminals.")
class TerminalsFilter(PartiesFilter):
    municipality: str | None = strawberry.field(default=None, description="In this municipality.")


@strawberry.input(description="Which registered load files.")
class CatalogueFilter:
    provider: str | None = strawberry.field(default=None, description="Of this provider.")
