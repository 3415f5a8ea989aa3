"""What is under way with cards: delegations, sessions and operations."""

from datetime import datetime

import strawberry

from api.graphql.types.cards import Card, SecurityDomain
from api.graphql.types.events import Event, history
from api.graphql.types.lists import Registered, kept_in, link
from api.graphql.types.paging import Connection
from api.graphql.types.scalars import Position
from projections.registry.lists import CARDS, DELEGATIONS, DOMAINS, OPERATIONS, SESSIONS
from projections.registry.rows import key


@kept_in(SESSIONS)
@strawberry.type(description="A conversation with a card, through a phone (MC-05 interface 3).")
class Session(Registered):
    party: str = strawberry.field(description="Who delegated it.")
    reception: str = strawberry.field(description="Reception number of the delegation.")
    operator: str = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider whose domain it is with; null for an operator's.")
    iccid: str = strawberry.field(description="The card.")
    domain: str = strawberry.field(description="AID of the security domain, hex.")
    key_version: int = strawberry.field(description="Version number of the keys that open its secure channel.")
    state: str = strawberry.field(
        description="STARTED, CONNECTED, AUTHENTICATED, DISCONNECTING, ENDED or EXPIRED: how far it came."
    )
    live: bool = strawberry.field(description="Whether it goes on.")
    exchanges: int = strawberry.field(description="How many commands were sent to the card.")
    correlation: str = strawberry.field(description="The story that it belongs to.")
    started_at: datetime = strawberry.field(description="When it began.")
    last_heard_at: datetime = strawberry.field(description="When the phone was heard last.")
    expires_at: datetime | None = strawberry.field(description="When it ends if the phone stays silent.")
    status: str | None = strawberry.field(description="Its final status (strProcStatus of MC-05); null before that.")
    position: Position = strawberry.field(description="Position of its beginning.")
    changed: Position = strawberry.field(description="Position of the last event that changed it.")
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card.")
    security_domain: SecurityDomain | None = link(
        SecurityDomain, DOMAINS, lambda row: key(row.iccid, row.domain), "The security domain."
    )
    events: Connection[Event] = history(
        "Every event of its story that concerns its delegation, oldest first.",
        correlation="correlation",
        reception="reception",
    )


@kept_in(DELEGATIONS)
@strawberry.type(description="Commands that a party handed over for one card (MC-05 interface 2).")
class Delegation(Registered):
    party: str = strawberry.field(description="Who delegated.")
    reception: str = strawberry.field(description="Its reception number.")
    operator: str = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider whose domain it is for; null for an operator's.")
    iccid: str = strawberry.field(description="The card.")
    domain: str = strawberry.field(description="AID of the security domain, hex.")
    correlation: str = strawberry.field(description="The story that it belongs to.")
    commands: int = strawberry.field(description="How many commands it has.")
    executed: int = strawberry.field(description="How many of them the card acknowledged.")
    status: str | None = strawberry.field(description="Its final status (strProcStatus of MC-05); null before.")
    expires_at: datetime = strawberry.field(description="Until when its session may begin.")
    position: Position = strawberry.field(description="Position of its acceptance.")
    changed: Position = strawberry.field(description="Position of the last event that changed it.")
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card.")
    session: Session | None = link(
        Session, SESSIONS, lambda row: key(row.party, row.reception), "Its session; null before that has begun."
    )
    events: Connection[Event] = history(
        "Every event of its story that names its reception number, oldest first.",
        correlation="correlation",
        reception="reception",
    )


@kept_in(OPERATIONS)
@strawberry.type(
    description="What somebody asked to be done and is not done at once: it waits for a second person, or for the"
    " card's next contact. An administrator sees that it is there, and nothing of what it is about."
)
class Operation(Registered):
    operation: str = strawberry.field(description="Its id (UUID).")
    kind: str = strawberry.field(
        description="create-domain, install, lock, unlock, delete, rotate-keys, audit, revoke-credential, erase-person,"
        " withdraw-party or adopt-swap-policy."
    )
    state: str = strawberry.field(
        description="AWAITING_APPROVAL, WAITING (for the card, or to be carried out), DELEGATED, and of those that are"
        " over DONE, FAILED, REJECTED, CANCELLED or EXPIRED."
    )
    iccid: str | None = strawberry.field(description="The card, where it is about one.")
    operator: str | None = strawberry.field(description="The operator of the card.")
    provider: str | None = strawberry.field(description="The provider concerned.")
    domain: str | None = strawberry.field(description="AID of the security domain concerned, hex.")
    target: str | None = strawberry.field(
        description="AID (hex) of what it is done to, a credential's id, `<role>/<party>` of a party, or"
        " `swap-policy/<version>`."
    )
    reason: str | None = strawberry.field(description="Why it was asked for.")
    requested_by: str | None = strawberry.field(description="Who asked for it.")
    approved_by: str | None = strawberry.field(description="The second person, where one agreed.")
    reception: str | None = strawberry.field(description="Reception number of its delegation, once the card was there.")
    code: str | None = strawberry.field(description="Why it failed: an error code, or a final status of MC-05.")
    correlation: str | None = strawberry.field(description="The story that it belongs to.")
    requested_at: datetime = strawberry.field(description="When it was asked for.")
    expires_at: datetime = strawberry.field(description="Until when it waits.")
    position: Position = strawberry.field(description="Position of the request.")
    changed: Position = strawberry.field(description="Position of the last event that changed it.")
    card: Card | None = link(Card, CARDS, lambda row: row.iccid, "The card, where it is about one.")
    events: Connection[Event] = history("Every event of its story, oldest first.", correlation="correlation")


@strawberry.input(description="Which sessions.")
class SessionsFilter:
    live: bool | None = strawberry.field(default=None, description="Whether they go on.")
    iccid: str | None = strawberry.field(default=None, description="With this card.")
    party: str | None = strawberry.field(default=None, description="Delegated by this party.")
    operator: str | None = strawberry.field(default=None, description="With cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="With domains of this provider.")
    domain: str | None = strawberry.field(default=None, description="With domains of this AID, hex in capitals.")
    reception: str | None = strawberry.field(default=None, description="With this reception number.")
    correlation: str | None = strawberry.field(default=None, description="In this story.")
    state: str | None = strawberry.field(default=None, description="In this state.")


@strawberry.input(description="Which delegations.")
class DelegationsFilter:
    iccid: str | None = strawberry.field(default=None, description="For this card.")
    party: str | None = strawberry.field(default=None, description="Of this party.")
    operator: str | None = strawberry.field(default=None, description="For cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="For domains of this provider.")
    domain: str | None = strawberry.field(default=None, description="For domains of this AID, hex in capitals.")
    reception: str | None = strawberry.field(default=None, description="With this reception number.")
    correlation: str | None = strawberry.field(default=None, description="In this story.")
    status: str | None = strawberry.field(
        default=None, description="With this final status; an empty text for those that are open."
    )


@strawberry.input(description="Which operations.")
class OperationsFilter:
    state: str | None = strawberry.field(default=None, description="In this state.")
    kind: str | None = strawberry.field(default=None, description="Of this kind.")
    iccid: str | None = strawberry.field(default=None, description="On this card.")
    operator: str | None = strawberry.field(default=None, description="On cards of this operator.")
    provider: str | None = strawberry.field(default=None, description="That concern this provider.")
    target: str | None = strawberry.field(default=None, description="To this target.")
    reception: str | None = strawberry.field(default=None, description="With this reception number.")
    correlation: str | None = strawberry.field(default=None, description="In this story.")
