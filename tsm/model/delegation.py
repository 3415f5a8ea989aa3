"""A delegation: the APDU script that a party handed over for one card (MC-05 interface 2), and what became of it.

The APDUs themselves never enter the log. They lie sealed beside it until the delegation ends; the log holds header,
length and, over the whole content, one blind index by which a repeated reception number is told from a changed one.

Stream: `delegation-<spId>-<rcptNum>`.
"""

from datetime import datetime
from typing import ClassVar, Self

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact

FAILURE_NOTICE = 0  # the order of a NOTIFY that tells of a session's failure, not of one command


class DelegatedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What may be known of a delegated command: its place, its header and the length of its data."""

    order: int  # iApduOrder, from 1 on without gaps
    header: str  # CLA INS P1 P2, hex
    length: int  # octets of command data


class DelegationAccepted(Fact, frozen=True, kw_only=True):
    """DELEGATE was answered with status 00: the script waits for its START."""

    topic: ClassVar[str] = "delegation.accepted"
    provider: str  # the party that delegates: a service provider or an operator
    operator: str  # the card's operator
    reception: str
    iccid: str
    domain: str  # AID of the security domain that will receive the commands
    correlation: str  # the story that this delegation belongs to
    generated_at: str  # strApduGeneDate, as claimed: YYYYMMDDhhmmss
    received_at: datetime  # becomes strApduRcptDate
    commands: tuple[DelegatedCommand, ...]
    content_index: str  # blind index over card and whole content
    expires_at: datetime  # START is not accepted from then on


class ResultNotified(Fact, frozen=True, kw_only=True):
    """NOTIFY of one result came to its end: acknowledged by the party, refused by it, or given up."""

    topic: ClassVar[str] = "delegation.result_notified"
    order: int
    acknowledged: bool
    attempts: int  # since the server last started


class DelegationEnded(Fact, frozen=True, kw_only=True):
    """Nothing more will be sent to the card for this delegation; its APDUs are gone from the server."""

    topic: ClassVar[str] = "delegation.ended"
    status: str  # strProcStatus
    executed: int  # commands that the card acknowledged


class Delegation(msgspec.Struct, frozen=True, kw_only=True):
    """The delegation as its facts say."""

    accepted: DelegationAccepted
    notified: frozenset[int] = frozenset()  # orders whose NOTIFY came to its end
    acknowledged: frozenset[int] = frozenset()  # those of them that the party acknowledged
    ended: DelegationEnded | None = None

    def refuse_other_content(self, content_index: str) -> Self:
        """RECEPTION_REUSED unless DELEGATE under this number has the content that was accepted first."""
        if self.accepted.content_index != content_index:
            raise TsmError(ErrorCode.RECEPTION_REUSED, self.accepted.reception)
        return self

    def refuse_unless_open(self, at: datetime) -> Self:
        """RECEPTION_CLOSED when the delegation has ended or its time is over."""
        if self.ended is not None:
            raise TsmError(ErrorCode.RECEPTION_CLOSED, f"ended with status {self.ended.status}")
        if at >= self.accepted.expires_at:
            raise TsmError(ErrorCode.RECEPTION_CLOSED, "not started in time")
        return self


def stream(provider: str, reception: str) -> str:
    """The delegation's stream: a reception number is unique per party only."""
    return f"delegation-{provider}-{reception}"


def notify(state: Delegation, order: int, acknowledged: bool, attempts: int) -> list[ResultNotified]:
    """Decide that a NOTIFY came to its end; only the first outcome counts."""
    if order in state.notified:
        return []
    return [ResultNotified(order=order, acknowledged=acknowledged, attempts=attempts)]


def end(state: Delegation, status: str, executed: int) -> list[DelegationEnded]:
    """Decide that the delegation is over."""
    return [] if state.ended is not None else [DelegationEnded(status=status, executed=executed)]


def evolve(state: Delegation | None, fact: Fact) -> Delegation:
    """Fold one fact."""
    if isinstance(fact, DelegationAccepted):
        return Delegation(accepted=fact)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a delegation begins with its acceptance")
    if isinstance(fact, ResultNotified):
        acknowledged = state.acknowledged | {fact.order} if fact.acknowledged else state.acknowledged
        return msgspec.structs.replace(state, notified=state.notified | {fact.order}, acknowledged=acknowledged)
    if isinstance(fact, DelegationEnded):
        return msgspec.structs.replace(state, ended=fact)
    return state


FACTS: tuple[type[Fact], ...] = (DelegationAccepted, ResultNotified, DelegationEnded)
