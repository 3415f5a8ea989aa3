"""Operations are followed, agreed to or refused by a second person, taken back, and brought to a phone."""

import strawberry

from api.access import SERVER
from api.graphql.context import Context
from api.graphql.mutations.inputs import WHY, Keyed
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.rows import Find, Row, Shown, changed
from api.graphql.mutations.whose import operation_to_approve, operation_to_end, party_of, seen_operation
from api.graphql.types.work import Operation
from tsm.errors import ErrorCode, TsmError
from tsm.model import event
from tsm.model import operation as operations
from tsm.model.event import Event
from tsm.model.operation import OperationKind
from tsm.model.party import refuse_other_certificate
from tsm.store.recorder import Recorded


@strawberry.input
class OnOperation(Keyed):
    """An operation."""

    operation: str = strawberry.field(description="Its id (UUID).")


@strawberry.input(description="An operation that awaits a second person.")
class OperationApproveInput(OnOperation):
    pass


@strawberry.input(description="An operation that awaits a second person.")
class OperationRejectInput(OnOperation):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="An operation that is not over.")
class OperationCancelInput(OnOperation):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="An operation that waits for its card.")
class OperationContactInput(OnOperation):
    pass


def approve(act: Act, given: OperationApproveInput) -> None:
    asked = operation_to_approve(act, given.operation).requested
    if asked.kind == OperationKind.WITHDRAW_PARTY:
        refuse_other_certificate(party_of(act, asked.target), asked.values.get("certificate_fingerprint", ""))
    act.parts.operations.approve(given.operation, concerning(act, given), act.command)


def reject(act: Act, given: OperationRejectInput) -> None:
    operation_to_end(act, given.operation)
    act.parts.operations.reject(given.operation, given.reason, concerning(act, given, given.reason), act.command)


def cancel(act: Act, given: OperationCancelInput) -> None:
    operation_to_end(act, given.operation)
    act.parts.operations.cancel(given.operation, given.reason, concerning(act, given, given.reason), act.command)


def contact(act: Act, given: OperationContactInput) -> None:
    """Where a contact is under way that nobody has begun, its launch is given again, and only the key is new."""
    context, tsm = concerning(act, given), act.parts.tsm
    act.parts.operations.contact(given.operation, context, act.command)
    if tsm.answered(act.command) is None:
        tsm.commit(context=context, occurred_at=tsm.now(), command=act.command)


def concerning(act: Act, given: OnOperation, reason: str = "") -> event.Context:
    """In the name of whose operation it is. NOT_FOUND for one that the caller does not see."""
    asked = seen_operation(act, given.operation).requested
    return act.of(asked.operator or asked.provider or SERVER, reason)


def launch(context: Context, given: OperationContactInput, _: Recorded) -> str | None:
    parameters = context.parts.operations.launch(given.operation)
    return None if parameters is None else parameters.encode()


def asked_for(context: Context, _: object, recorded: Recorded) -> str:
    """The operation that was asked for: its first event came of the mutation."""
    [asked] = context.log.at(recorded.positions)
    if not isinstance(asked, Event):
        raise TsmError(ErrorCode.STORE_CORRUPT, f"position {recorded.head}")
    return asked.originator_id.removeprefix(operations.stream(""))


def operation(which: Find, what: str) -> Shown:
    return changed("operation", Operation, which, what)


REQUESTED = operation(asked_for, "The operation that brings it about: it can be followed, and taken back.")
DECIDED = operation(lambda _, given, __: given.operation, "The operation.")

ROWS = (
    Row(
        "operationApprove",
        "Agree to what another person asked for. FORBIDDEN for the person who asked for it, in whatever role, and for"
        " programs, and when the other party asked for it, but not for a security officer. WRONG_ORDER unless it awaits"
        " that, and when the party whose certificate is to be withdrawn has"
        " another by now.",
        OperationApproveInput,
        approve,
        (DECIDED,),
    ),
    Row(
        "operationReject",
        "Refuse what another person asked for. FORBIDDEN for the person who asked for it, in whatever role, and for"
        " programs, which may cancel; for a provider, when another party asked; WRONG_ORDER unless it awaits that.",
        OperationRejectInput,
        reject,
        (DECIDED,),
    ),
    Row(
        "operationCancel",
        "Take an operation back: whatever is asked for on its cards an operator, and a provider what it asked for"
        " itself, else FORBIDDEN. WRONG_ORDER when it is over, or a session with its card runs.",
        OperationCancelInput,
        cancel,
        (DECIDED,),
    ),
    Row(
        "operationContact",
        "The phone with the card is at hand: delegate the commands, and get what the phone needs to fetch them, the"
        " same again until it has. WRONG_ORDER unless it waits for its card; what the card's record forbids by now ends"
        " the operation as FAILED.",
        OperationContactInput,
        contact,
        (
            DECIDED,
            Shown(
                "launch",
                str,
                "The parameters with which the phone's common app is launched (MC-05 tables 1-3 to 1-5), while the"
                " operation is DELEGATED.",
                launch,
            ),
        ),
    ),
)
