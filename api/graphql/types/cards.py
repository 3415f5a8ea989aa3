"""Cards, and what there is on them now."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry

from api.graphql.types.events import Event, history
from api.graphql.types.lists import Registered, below, kept_in, link
from api.graphql.types.paging import Connection
from api.graphql.types.scalars import Position
from api.graphql.types.tree import TreeDomain, domain_tree
from projections.registry.lists import (
    ALERTS,
    APPLICATIONS,
    CARDS,
    DELEGATIONS,
    DOMAINS,
    KEYS,
    LOAD_FILES,
    OPERATIONS,
    SESSIONS,
    STANDINGS,
)
from projections.registry.rows import key

if TYPE_CHECKING:
    from api.graphql.types.alerts import Alert, Standing
    from api.graphql.types.work import Delegation, Operation, Session

DomainType = Annotated["SecurityDomain", strawberry.lazy("api.graphql.types.cards")]
LoadFileType = Annotated["LoadFile", strawberry.lazy("api.graphql.types.cards")]
ApplicationType = Annotated["Application", strawberry.lazy("api.graphql.types.cards")]
KeySetType = Annotated["KeySet", strawberry.lazy("api.graphql.types.cards")]
DelegationType = Annotated["Delegation", strawberry.lazy("api.graphql.types.work")]
SessionType = Annotated["Session", strawberry.lazy("api.graphql.types.work")]
StandingType = Annotated["Standing", strawberry.lazy("api.graphql.types.alerts")]
AlertType = Annotated["Alert", strawberry.lazy("api.graphql.types.alerts")]
OperationType = Annotated["Operation", strawberry.lazy("api.graphql.types.work")]

ON_CARD = {"iccid": "iccid"}
IN_DOMAIN = {"iccid": "iccid", "domain": "aid"}
REMOVED = "Position of the event that told that it was deleted; null while it is there."


@kept_in(CARDS)
@strawberry.type(description="A card (UICC) as registered, and what the events say about it.")
class Card(Registered):
    iccid: str = strawberry.field(description="Integrated circuit card identifier.")
    operator: str = strawberry.field(description="The operator that issued it.")
    profile: str = strawberry.field(description="The card profile of its production file.")
    isd: str = strawberry.field(description="AID of its issuer security domain, hex.")
    position: Position = strawberry.field(description="Position of its registration.")
    changed: Position | None = strawberry.field(
        description="Position of the last event that changed the card or what is on it. Null for a provider: it could"
        " be another's."
    )
    domain_tree: TreeDomain | None = strawberry.field(
        resolver=domain_tree,
        description="The issuer's security domain, and below it all that this server put on the card and the caller may"
        " see: now, or at a past position or time (not both); null when the card was not registered then.",
    )
    security_domains: Connection[DomainType] = below(
        DomainType, DOMAINS, ON_CARD, "The security domains that are on it now."
    )
    load_files: Connection[LoadFileType] = below(LoadFileType, LOAD_FILES, ON_CARD, "The load files on it now.")
    applications: Connection[ApplicationType] = below(
        ApplicationType, APPLICATIONS, ON_CARD, "The applications that are on it now."
    )
    delegations: Connection[DelegationType] = below(
        DelegationType, DELEGATIONS, ON_CARD, "What parties handed over for it."
    )
    sessions: Connection[SessionType] = below(SessionType, SESSIONS, ON_CARD, "The conversations with it.")
    operations: Connection[OperationType] = below(
        OperationType, OPERATIONS, ON_CARD, "What was asked to be done on it, waiting or over."
    )
    standing: StandingType | None = link(
        StandingType, STANDINGS, lambda row: row.iccid, "What is made of its suspicions; null when there never was one."
    )
    alerts: Connection[AlertType] = below(AlertType, ALERTS, ON_CARD, "What was suspected of it, in force or not.")
    issuance_history: Connection[Event] = history(
        "Every event that concerns the card, and the credentials meant for it, oldest first.", card="iccid"
    )


@kept_in(DOMAINS)
@strawberry.type(
    description="A security domain on a card: whoever holds its keys manages what belongs to it. Of another party's an"
    " operator sees AID, life cycle and size only."
)
class SecurityDomain(Registered):
    renamed: ClassVar = {"failed_authentications": "failures"}
    iccid: str = strawberry.field(description="The card.")
    aid: str = strawberry.field(description="Application identifier, hex.")
    operator: str = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider that owns it; null for an operator's.")
    parent: str | None = strawberry.field(description="AID of the domain above it, hex; null for the issuer's.")
    privileges: str | None = strawberry.field(
        description="Privileges (GPCS v2.3.1 table 11-7), hex; null for the issuer's, which came with the card."
    )
    life_cycle: str = strawberry.field(
        description="Life cycle state, as far as this server caused or learned it: SELECTABLE, PERSONALIZED, LOCKED;"
        " of the issuer's domain, which is the card's: OP_READY to TERMINATED."
    )
    key_version: int | None = strawberry.field(description="Version number of the keys that it has; null without any.")
    provisional: bool = strawberry.field(
        description="Whether another than its owner chose its keys: they have to be replaced."
    )
    failed_authentications: int = strawberry.field(
        description="How many in a row failed; after too many the server leaves the domain alone, to protect its keys."
    )
    size: int = strawberry.field(description="Octets of the load files that belong to it, as far as known.")
    position: Position = strawberry.field(description="Position of the event that created it.")
    removed: Position | None = strawberry.field(description=REMOVED)
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card that it is on.")
    keys: Connection[KeySetType] = below(
        KeySetType, KEYS, IN_DOMAIN, "The keys that it was given, the present ones last."
    )
    load_files: Connection[LoadFileType] = below(LoadFileType, LOAD_FILES, IN_DOMAIN, "The load files of its own.")
    applications: Connection[ApplicationType] = below(
        ApplicationType, APPLICATIONS, IN_DOMAIN, "The applications that are its own."
    )
    issuance_history: Connection[Event] = history(
        "Every event on this card that names the domain, oldest first.", card="iccid", aid="aid"
    )


@kept_in(LOAD_FILES)
@strawberry.type(description="An executable load file on a card.")
class LoadFile(Registered):
    iccid: str = strawberry.field(description="The card.")
    aid: str = strawberry.field(description="Application identifier of the load file, hex.")
    domain: str = strawberry.field(description="AID of the security domain that it belongs to, hex.")
    operator: str = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider that owns the domain; null for an operator's.")
    sha256: str | None = strawberry.field(
        description="SHA-256 of the load file data block, which the card checked; null when the card only told of it."
    )
    size: int | None = strawberry.field(
        description="Octets of the load file data block; null when the card only told of it."
    )
    position: Position = strawberry.field(description="Position of the event that says that it is there.")
    removed: Position | None = strawberry.field(description=REMOVED)
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card that it is on.")
    security_domain: SecurityDomain | None = link(
        SecurityDomain, DOMAINS, lambda row: key(row.iccid, row.domain), "The security domain that it belongs to."
    )


@kept_in(APPLICATIONS)
@strawberry.type(description="An application on a card.")
class Application(Registered):
    iccid: str = strawberry.field(description="The card.")
    aid: str = strawberry.field(description="Application identifier of the instance, hex.")
    domain: str = strawberry.field(description="AID of the security domain that it belongs to, hex.")
    operator: str = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider that owns the domain; null for an operator's.")
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
    position: Position = strawberry.field(description="Position of the event that says that it is there.")
    removed: Position | None = strawberry.field(description=REMOVED)
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card that it is on.")
    security_domain: SecurityDomain | None = link(
        SecurityDomain, DOMAINS, lambda row: key(row.iccid, row.domain), "The security domain that it belongs to."
    )
    issuance_history: Connection[Event] = history(
        "Every event on this card that names the application, oldest first.", card="iccid", aid="aid"
    )


@kept_in(KEYS)
@strawberry.type(
    description="Keys that a security domain was given: which ones, who put them, when and in which session, and who"
    " else has had them. Never the keys: check values prove which ones they are."
)
class KeySet(Registered):
    renamed: ClassVar = {"correlation": "by_session"}
    iccid: str = strawberry.field(description="The card.")
    domain: str = strawberry.field(description="AID of the security domain, hex.")
    operator: str = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider that owns the domain; null for an operator's.")
    version: int = strawberry.field(description="Key version number, 1 to 127.")
    check_values: list[str] = strawberry.field(
        description="Key check values of ENC, MAC and DEK, three octets each in hex, as far as known."
    )
    provisional: bool = strawberry.field(
        description="Chosen by another than the domain's owner, who has to replace them."
    )
    current: bool = strawberry.field(description="Whether the domain has them now.")
    found: bool = strawberry.field(
        description="Whether the card proved them later: then the session is not the one that wrote them."
    )
    party: str | None = strawberry.field(
        description="Who delegated the session that put them; null for those that the card was made with."
    )
    reception: str | None = strawberry.field(description="Reception number of that delegation.")
    actor: str = strawberry.field(description="Who acted: `phone` where a session put them.")
    recorded_at: datetime = strawberry.field(description="When it was recorded that the domain has them.")
    correlation: str = strawberry.field(description="The story in which that was.")
    handed_out_to: str | None = strawberry.field(description="The provider that was given these provisional keys.")
    handed_out_at: datetime | None = strawberry.field(description="When it was given them.")
    shared_by: str | None = strawberry.field(description="The provider that let the server's vault have ENC and MAC.")
    shared_at: datetime | None = strawberry.field(description="When it did.")
    destroyed_at: datetime | None = strawberry.field(description="When provisional keys left the server's vault.")
    position: Position = strawberry.field(description="Position of the event that says that the domain has them.")
    session: SessionType | None = link(SessionType, SESSIONS, lambda row: row.session, "The session that put them.")
    security_domain: SecurityDomain | None = link(
        SecurityDomain, DOMAINS, lambda row: key(row.iccid, row.domain), "The security domain that was given them."
    )


@strawberry.input(description="Which cards.")
class CardsFilter:
    operator: str | None = strawberry.field(default=None, description="The operator that issued them.")
    profile: str | None = strawberry.field(default=None, description="Their card profile.")


@strawberry.input(description="Which security domains.")
class SecurityDomainsFilter:
    iccid: str | None = strawberry.field(default=None, description="On this card.")
    operator: str | None = strawberry.field(default=None, description="On cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="Of this provider.")
    aid: str | None = strawberry.field(default=None, description="With this AID, hex in capitals.")
    life_cycle: str | None = strawberry.field(default=None, description="In this state.")


@strawberry.input(description="Which load files.")
class LoadFilesFilter:
    iccid: str | None = strawberry.field(default=None, description="On this card.")
    operator: str | None = strawberry.field(default=None, description="On cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="Of this provider.")
    aid: str | None = strawberry.field(default=None, description="With this AID, hex in capitals.")
    domain: str | None = strawberry.field(default=None, description="In domains with this AID, hex in capitals.")
    sha256: str | None = strawberry.field(default=None, description="With this hash, hex.")


@strawberry.input(description="Which applications.")
class ApplicationsFilter:
    iccid: str | None = strawberry.field(default=None, description="On this card.")
    operator: str | None = strawberry.field(default=None, description="On cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="Of this provider.")
    aid: str | None = strawberry.field(default=None, description="With this AID, hex in capitals.")
    domain: str | None = strawberry.field(default=None, description="In domains with this AID, hex in capitals.")
    load_file: str | None = strawberry.field(default=None, description="From this load file, AID in hex, capitals.")
    life_cycle: str | None = strawberry.field(default=None, description="In this state.")


@strawberry.input(description="Which keys.")
class KeySetsFilter:
    iccid: str | None = strawberry.field(default=None, description="On this card.")
    domain: str | None = strawberry.field(default=None, description="Of domains with this AID, hex in capitals.")
    operator: str | None = strawberry.field(default=None, description="On cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="Of this provider.")
    current: bool | None = strawberry.field(default=None, description="Whether the domains have them now.")
    provisional: bool | None = strawberry.field(default=None, description="Whether they have to be replaced.")
