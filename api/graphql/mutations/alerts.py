"""What persons say to alerts; cards are locked at the holder's word, released on proof; the policy is adopted.

Alerts are for the card's operator, and for security officers. A card is locked, unlocked and released by its operator,
and by the clerks of a municipality where a credential in it was applied for. On what a release rests follows from who
releases: a clerk has seen the holder and her papers, an operator has made sure in its own way. Whoever takes a holder's
call makes sure who calls: what is unlocked at her word is only what was locked at it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from hashlib import sha256

import msgspec
import strawberry

from api.access import SERVER
from api.graphql.mutations.inputs import WHY, Keyed, OnCard
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.operations import REQUESTED
from api.graphql.mutations.people import value_of
from api.graphql.mutations.rows import Row, changed
from api.graphql.mutations.whose import card_at_hand, issued_card, refuse_other_tenants
from api.graphql.types.alerts import Alert, Standing
from api.graphql.types.swaps import SwapLevel, SwapPolicyInput, document_of, read_policy
from tsm.errors import ErrorCode, TsmError, within
from tsm.model import event, standing, swap_policy
from tsm.model.checks import check_text, in_utc, refusal
from tsm.model.line import Signal, SignalKind
from tsm.model.operation import OperationKind
from tsm.model.standing import Proof
from tsm.model.swap_policy import Level

CALLED = (
    "When the holder said so; the time names its offset from UTC. The same again under the same key is the same call."
)


@strawberry.enum(description="What a suspicion turned out to be.")
class Verdict(Enum):
    FALSE_ALARM = strawberry.enum_value(
        standing.Verdict.FALSE_ALARM.value, description="Nothing was wrong: it is over, and counts for nothing."
    )
    CONFIRMED = strawberry.enum_value(
        standing.Verdict.CONFIRMED.value,
        description="It was so. It stays in force until the card is released; of the level REVOKE nothing waits more.",
    )


@strawberry.input
class OnAlert(OnCard):
    """An alert of a card."""

    alert: str = strawberry.field(description="The alert's name, 16 octets in hex.")


@strawberry.input(description="An alert that somebody has seen.")
class AlertAcknowledgeInput(OnAlert):
    reason: str | None = strawberry.field(default=None, description=WHY)


@strawberry.input(description="An alert that is graver than its rule says.")
class AlertEscalateInput(OnAlert):
    level: SwapLevel = strawberry.field(description="What it is to lead to; above its present level, LOCK at most.")
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="An alert of which somebody knows what it was.")
class AlertCloseInput(OnAlert):
    verdict: Verdict = strawberry.field(description="What it was.")
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A card that is where it belongs.")
class CardHoldReleaseInput(OnCard):
    reason: str = strawberry.field(description=f"How that was made sure. {WHY}")


@strawberry.input(description="A card whose holder wants it locked.")
class CardLockRequestInput(OnCard):
    called_at: datetime = strawberry.field(description=CALLED)
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A card whose holder wants it unlocked.")
class CardUnlockRequestInput(OnCard):
    called_at: datetime = strawberry.field(description=CALLED)
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A policy that is to be in force.")
class SwapPolicyAdoptInput(Keyed):
    policy: SwapPolicyInput = strawberry.field(description="The policy, whole.")
    reason: str = strawberry.field(description=WHY)


def acknowledge(act: Act, given: AlertAcknowledgeInput) -> None:
    context = act.of(issued_card(act, given.iccid).operator, given.reason or "")
    with alert_named():
        act.parts.standings.acknowledge(given.iccid, given.alert, context, act.command)


def escalate(act: Act, given: AlertEscalateInput) -> None:
    """As far as can be undone: what destroys, the policy says, or two persons do by operations of their own."""
    context = because(act, issued_card(act, given.iccid).operator, given.reason)
    level = Level[value_of(SwapLevel, given.level)]
    if level is Level.REVOKE:
        raise refusal("level", "one person takes nothing so far")
    with alert_named():
        act.parts.standings.escalate(given.iccid, given.alert, level, context, act.command)


def close(act: Act, given: AlertCloseInput) -> None:
    """What a program only suspects waits for the settle window: a revocation is confirmed by persons."""
    context = because(act, issued_card(act, given.iccid).operator, given.reason)
    verdict = standing.Verdict(value_of(Verdict, given.verdict))
    if verdict is standing.Verdict.CONFIRMED and not context.person:
        raise TsmError(ErrorCode.FORBIDDEN, f"{context.actor} is a program")
    with alert_named():
        act.parts.standings.close(given.iccid, given.alert, verdict, context, act.command)


@contextmanager
def alert_named() -> Iterator[None]:
    """What is a suspicion to the card's standing is an alert in the input."""
    try:
        yield
    except TsmError as error:
        error.field = ("alert",) if error.field == ("suspicion",) else error.field
        raise


def release(act: Act, given: CardHoldReleaseInput) -> None:
    card, tenants = card_at_hand(act, given.iccid)
    proof = Proof.OPERATOR if act.caller.viewer.kind == "operator" else Proof.CLERK
    context = because(act, card.operator, given.reason, tenants)
    act.parts.standings.release(card.iccid, proof, "", context, act.command)


def lock(act: Act, given: CardLockRequestInput) -> None:
    call(act, given, SignalKind.LOCK_REQUESTED)


def unlock(act: Act, given: CardUnlockRequestInput) -> None:
    call(act, given, SignalKind.UNLOCK_REQUESTED)


def call(act: Act, given: CardLockRequestInput | CardUnlockRequestInput, kind: SignalKind) -> None:
    """What the holder wants is filed as a signal, named by the key: the same again, also after a crash, is no news."""
    card, tenants = card_at_hand(act, given.iccid)
    is_operators = act.caller.viewer.kind == "operator"
    called_at = in_utc(given.called_at, "called_at")
    context = because(act, card.operator, given.reason, tenants)
    asked = Signal(
        id=sha256(act.command.id.encode()).hexdigest(),
        source=f"operator:{card.operator}" if is_operators else f"clerk:{act.caller.viewer.party}",
        kind=kind,
        occurred_at=called_at,
        iccid=card.iccid,
    )
    (outcome,) = act.parts.lines.record([asked], context)
    if outcome.error is not None:
        raise TsmError(outcome.error.code, outcome.error.detail, ("called_at",))
    tsm = act.parts.tsm
    tsm.commit(context=context, occurred_at=tsm.now(), command=act.command)


def because(act: Act, tenant: str, reason: str, tenants: tuple[str, ...] = ()) -> event.Context:
    """Who acts, for whom and why. INVALID_INPUT for a reason that tells nothing."""
    check_text(reason, "reason")
    return msgspec.structs.replace(act.of(tenant, reason), tenants=tenants)


def adopt(act: Act, given: SwapPolicyAdoptInput) -> None:
    refuse_other_tenants(act)
    with within("policy"):
        policy = read_policy(given.policy)
        swap_policy.adopt(act.parts.standings.policy(), policy)
    act.parts.operations.request_other(
        OperationKind.ADOPT_SWAP_POLICY,
        f"swap-policy/{policy.version}",
        given.reason,
        act.of(SERVER, given.reason),
        act.command,
        values={"policy": document_of(given.policy).decode()},
    )


ALERT = changed("alert", Alert, lambda _, given, __: given.alert, "The alert.")
STANDING = changed("standing", Standing, lambda _, given, __: given.iccid, "What is made of the card's suspicions now.")

ROWS = (
    Row(
        "alertAcknowledge",
        "Say that an alert was seen, and is dealt with. NOT_FOUND unless it is in force.",
        AlertAcknowledgeInput,
        acknowledge,
        (ALERT,),
    ),
    Row(
        "alertEscalate",
        "Take an alert further than its rule does. NOT_FOUND unless it is in force; WRONG_ORDER unless the level is"
        " above its own; INVALID_INPUT for REVOKE: to revoke and to delete are operations, and two persons' affair.",
        AlertEscalateInput,
        escalate,
        (ALERT,),
    ),
    Row(
        "alertClose",
        "Say what an alert was. NOT_FOUND unless it is in force; FORBIDDEN for a program to confirm it.",
        AlertCloseInput,
        close,
        (ALERT,),
    ),
    Row(
        "cardHoldRelease",
        "Release a card that is on hold: whatever began by now, and leads to no revocation, is settled. It is for the"
        " card's operator, and for clerks where a credential in it was applied for: the record says which. WRONG_ORDER"
        " when it is not on hold, or to be revoked.",
        CardHoldReleaseInput,
        release,
        (STANDING,),
    ),
    Row(
        "cardLockRequest",
        "The holder wants the card locked: it is on hold from now on, and its applet is locked at the next contact, if"
        " the policy says so. Nobody has to prove anything for that.",
        CardLockRequestInput,
        lock,
        (STANDING,),
    ),
    Row(
        "cardUnlockRequest",
        "The holder wants the card unlocked, and whoever asks has made sure that it is the holder: what was locked at"
        " her word is over, and nothing else is.",
        CardUnlockRequestInput,
        unlock,
        (STANDING,),
    ),
    Row(
        "swapPolicyAdopt",
        "Judge signals by this policy, and assess all cards anew; for security officers who are appointed for all."
        " WRONG_ORDER unless its version is the next.",
        SwapPolicyAdoptInput,
        adopt,
        (REQUESTED,),
    ),
)
