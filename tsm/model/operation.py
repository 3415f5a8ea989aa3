"""An operation: what somebody asked to be done and is not done at once.

Something on a card waits for the card's next contact. Something that destroys waits for a second person where policy
says so. Either can be followed, and taken back until it is carried out. What it did to the card, the card's own stream
says; here is who asked, who agreed, and how it ended.

Stream: `operation-<uuid>`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from tsm.model.event import Fact


class OperationKind(StrEnum):
    """What is to be done. The first group needs the card, and is done through the issuer's security domain."""

    CREATE_DOMAIN = "create-domain"  # INSTALL [for install] of a security domain, and provisional keys for it
    INSTALL = "install"  # INSTALL [for load], LOAD, INSTALL [for install and make selectable]
    LOCK = "lock"  # SET STATUS of a domain or an application
    UNLOCK = "unlock"
    DELETE = "delete"  # DELETE of a domain, an application or a load file
    ROTATE_KEYS = "rotate-keys"  # PUT KEY: the issuer's domain gets new keys
    AUDIT = "audit"  # GET STATUS: the card tells what it holds

    REVOKE_CREDENTIAL = "revoke-credential"
    ERASE_PERSON = "erase-person"
    WITHDRAW_PARTY = "withdraw-party"


ON_CARD = frozenset(OperationKind) - {
    OperationKind.REVOKE_CREDENTIAL,
    OperationKind.ERASE_PERSON,
    OperationKind.WITHDRAW_PARTY,
}


class OperationState(StrEnum):
    """Where an operation stands."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    WAITING = "WAITING"  # for the card's next contact, or to be carried out
    DELEGATED = "DELEGATED"  # a phone has been told to fetch it
    DONE = "DONE"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


ENDS = frozenset({
    OperationState.DONE, OperationState.FAILED, OperationState.REJECTED, OperationState.CANCELLED,
    OperationState.EXPIRED,
})  # fmt: skip


class OperationRequested(Fact, frozen=True, kw_only=True):
    """Somebody asked for it."""

    topic: ClassVar[str] = "operation.requested"
    operation: str  # UUID
    kind: str  # an OperationKind
    target: str  # AID (hex) of what it is done to; a credential's id; `<role>/<party>` of a party
    reason: str  # why; empty only where nothing is destroyed
    requested_by: str  # the actor
    needs_approval: bool  # by a second person
    expires_at: datetime
    iccid: str = ""  # of the card, for what is done on one
    operator: str = ""  # the card's
    provider: str = ""  # whose domain, application or credential it is; empty when it is nobody's
    domain: str = ""  # AID of the security domain that the target is, or belongs to
    values: Mapping[str, str] = msgspec.field(default_factory=dict)  # what else the kind needs


class OperationApproved(Fact, frozen=True, kw_only=True):
    """A second person agreed."""

    topic: ClassVar[str] = "operation.approved"
    approved_by: str


class OperationDelegated(Fact, frozen=True, kw_only=True):
    """The card is in contact: its commands were delegated in the operator's name."""

    topic: ClassVar[str] = "operation.delegated"
    reception: str


class OperationPutBack(Fact, frozen=True, kw_only=True):
    """The contact came to nothing and nothing was sent to the card: it waits for the next."""

    topic: ClassVar[str] = "operation.put_back"
    status: str  # strProcStatus of the delegation


class OperationEnded(Fact, frozen=True, kw_only=True):
    """It is over."""

    topic: ClassVar[str] = "operation.ended"
    state: str  # one of `ENDS`
    code: str = ""  # why it failed: an ErrorCode or strProcStatus
    ended_by: str = ""  # the actor, where a person ended it
    reason: str = ""  # why that person did


def stream(operation: str) -> str:
    """The stream of an operation."""
    return f"operation-{operation}"


FACTS: tuple[type[Fact], ...] = (
    OperationRequested,
    OperationApproved,
    OperationDelegated,
    OperationPutBack,
    OperationEnded,
)
