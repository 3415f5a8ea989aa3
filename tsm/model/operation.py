"""An operation: what somebody asked to be done and is not done at once.

Something on a card waits for the card's next contact. Something that destroys waits for a second person where policy
says so. Either can be followed, and taken back until it is carried out. What it did to the card, the card's own stream
says; here is who asked, who agreed, and how it ended.

A second person is another human being, not another name. So whoever asks for what needs one, and whoever agrees, must
be persons (`Context.person`): programs with a certificate or a service token are nobody's second pair of eyes, nor the
first. And the two must differ as persons, whatever their roles and tenants. A program may take something back; what is
whose, the edge knows.

Two questions are apart: whether it may be done (a person says so), and whether it is done. What is done on a card is
done when the card's record says so, however that came about. A contact that broke off leaves the operation waiting, for
the next one begins with asking the card; what a card refused has failed.

Stream: `operation-<uuid>`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Aid, Iccid
from tsm.model.checks import check_text
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
    ADOPT_SWAP_POLICY = "adopt-swap-policy"


ON_CARD = frozenset(OperationKind) - {
    OperationKind.REVOKE_CREDENTIAL,
    OperationKind.ERASE_PERSON,
    OperationKind.WITHDRAW_PARTY,
    OperationKind.ADOPT_SWAP_POLICY,
}

NEEDS_REASON = frozenset({
    OperationKind.LOCK, OperationKind.UNLOCK, OperationKind.DELETE, OperationKind.ROTATE_KEYS,
    OperationKind.REVOKE_CREDENTIAL, OperationKind.ERASE_PERSON, OperationKind.WITHDRAW_PARTY,
    OperationKind.ADOPT_SWAP_POLICY,
})  # fmt: skip


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
    target: str  # AID (hex) of what it is done to; a credential's id; `<role>/<party>` of a party; `swap-policy/<n>`
    reason: str  # why; empty only where nothing is destroyed
    requested_by: str  # the actor
    person: str = ""  # who that is in whatever role: `Context.person`; empty for a program
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
    approved_by: str  # the actor
    person: str = ""  # who that is in whatever role


class OperationDelegated(Fact, frozen=True, kw_only=True):
    """The card is in contact: its commands were delegated in the operator's name."""

    topic: ClassVar[str] = "operation.delegated"
    reception: str


class OperationPutBack(Fact, frozen=True, kw_only=True):
    """The contact broke off before it was done: it waits for the next, which asks the card first if need be."""

    topic: ClassVar[str] = "operation.put_back"
    status: str  # strProcStatus of the delegation


class OperationEnded(Fact, frozen=True, kw_only=True):
    """It is over."""

    topic: ClassVar[str] = "operation.ended"
    state: str  # one of `ENDS`
    code: str = ""  # why it failed: an ErrorCode or strProcStatus
    ended_by: str = ""  # the actor, where a person ended it
    reason: str = ""  # why that person did


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """The operation as its facts say."""

    requested: OperationRequested
    state: OperationState
    approver: str = ""  # the person
    reception: str = ""  # of the contact that is under way, or was the last
    put_back: str = ""  # strProcStatus of the last contact, when that did not bring it about
    ended: OperationEnded | None = None

    @property
    def kind(self) -> OperationKind:
        return OperationKind(self.requested.kind)

    @property
    def is_on_card(self) -> bool:
        return self.kind in ON_CARD

    @property
    def is_over(self) -> bool:
        return self.state in ENDS


def stream(operation: str) -> str:
    """The stream of an operation."""
    return f"operation-{operation}"


def request(state: Operation | None, requested: OperationRequested, at: datetime) -> list[OperationRequested]:
    """Decide that something is asked for.

    INVALID_INPUT for an unknown kind, a time that is over, no card for what needs one, or no reason for what destroys.
    ALREADY_EXISTS for an id that is taken. FORBIDDEN for a program, where a second person has to approve.
    """
    if state is not None:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"operation {requested.operation}")
    kind = kind_of(requested.kind)
    if requested.reason or kind in NEEDS_REASON or requested.needs_approval:
        check_text(requested.reason, "reason")
    if requested.needs_approval and not requested.person:
        raise TsmError(ErrorCode.FORBIDDEN, "what a second person has to approve, a person asks for")
    if requested.expires_at <= at:
        raise TsmError(ErrorCode.INVALID_INPUT, "expires_at: the time is over")
    if kind in ON_CARD:
        Iccid(requested.iccid)
        Aid(requested.target)
    elif not requested.target:
        raise TsmError(ErrorCode.INVALID_INPUT, "target")
    return [requested]


def kind_of(kind: str) -> OperationKind:
    """INVALID_INPUT for what is no kind of operation."""
    try:
        return OperationKind(kind)
    except ValueError:
        raise TsmError(ErrorCode.INVALID_INPUT, "kind") from None


def approve(state: Operation, by: str, person: str, at: datetime) -> list[OperationApproved]:
    """Decide that a second person agreed, as this actor; once more by the same is no news.

    FORBIDDEN for a program, and for whoever asked for it; WRONG_ORDER when nobody's approval is awaited.
    """
    refuse_unless_second(state, person)
    if state.approver == person and not state.is_over:
        return []
    require(state, at, OperationState.AWAITING_APPROVAL)
    return [OperationApproved(approved_by=by, person=person)]


def reject(state: Operation, by: str, person: str, reason: str, at: datetime) -> list[OperationEnded]:
    """Decide that a second person refused, as this actor.

    FORBIDDEN for a program, and for whoever asked for it: both may cancel. WRONG_ORDER.
    """
    refuse_unless_second(state, person)
    check_text(reason, "reason")
    require(state, at, OperationState.AWAITING_APPROVAL)
    return [OperationEnded(state=OperationState.REJECTED, ended_by=by, reason=reason)]


def refuse_unless_second(state: Operation, person: str) -> None:
    """FORBIDDEN for a program, and for the person who asked for it, in whatever role."""
    if person in ("", state.requested.person):
        raise TsmError(ErrorCode.FORBIDDEN, "not a second person")


def cancel(state: Operation, by: str, reason: str) -> list[OperationEnded]:
    """Decide that it is taken back, whatever it waits for: a contact that has begun, its caller has looked at.

    WRONG_ORDER when it is over.
    """
    check_text(reason, "reason")
    if state.is_over:
        raise TsmError(ErrorCode.WRONG_ORDER, f"the operation is {state.state}")
    return [OperationEnded(state=OperationState.CANCELLED, ended_by=by, reason=reason)]


def delegate(state: Operation, reception: str, at: datetime) -> list[OperationDelegated]:
    """Decide that the card is in contact. WRONG_ORDER unless it waits for that."""
    require(state, at, OperationState.WAITING)
    return [OperationDelegated(reception=reception)]


def put_back(state: Operation, reception: str, status: str) -> list[OperationPutBack]:
    """Decide that a contact did not bring it about; of another contact it is no news."""
    under_way = state.state is OperationState.DELEGATED and state.reception == reception
    return [OperationPutBack(status=status)] if under_way else []


def end(state: Operation, end_state: OperationState, code: str = "") -> list[OperationEnded]:
    """Decide that it is done, or has failed; once it is over, it stays what it was."""
    return [] if state.is_over else [OperationEnded(state=end_state, code=code)]


def expire(state: Operation, at: datetime) -> list[OperationEnded]:
    """Decide that nobody brought it about in time. A contact that is under way comes to its own end first."""
    waits = state.state in (OperationState.AWAITING_APPROVAL, OperationState.WAITING)
    return [OperationEnded(state=OperationState.EXPIRED)] if waits and is_late(state, at) else []


def is_late(state: Operation, at: datetime) -> bool:
    """Whether its time is over."""
    return at >= state.requested.expires_at


def require(state: Operation, at: datetime, wanted: OperationState) -> None:
    """WRONG_ORDER unless the operation is in this state, and in time."""
    if state.state is not wanted or is_late(state, at):
        raise TsmError(ErrorCode.WRONG_ORDER, f"the operation is {state.state}, not {wanted} in time")


def evolve(state: Operation | None, fact: Fact) -> Operation:
    """Fold one fact."""
    if isinstance(fact, OperationRequested):
        first = OperationState.AWAITING_APPROVAL if fact.needs_approval else OperationState.WAITING
        return Operation(requested=fact, state=first)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "an operation begins with its request")
    match fact:
        case OperationApproved():
            return msgspec.structs.replace(state, state=OperationState.WAITING, approver=fact.person)
        case OperationDelegated():
            return msgspec.structs.replace(state, state=OperationState.DELEGATED, reception=fact.reception)
        case OperationPutBack():
            return msgspec.structs.replace(state, state=OperationState.WAITING, put_back=fact.status)
        case OperationEnded():
            return msgspec.structs.replace(state, state=OperationState(fact.state), ended=fact)
        case _:
            return state


FACTS: tuple[type[Fact], ...] = (
    OperationRequested,
    OperationApproved,
    OperationDelegated,
    OperationPutBack,
    OperationEnded,
)
