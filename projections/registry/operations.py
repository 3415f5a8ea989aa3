"""Operations: what was asked for, who agreed, and how it stands."""

from projections.registry.book import Book, at, corrupt
from projections.registry.rows import OperationRow
from tsm.model.event import Event
from tsm.model.operation import (
    OperationApproved,
    OperationDelegated,
    OperationEnded,
    OperationPutBack,
    OperationRequested,
    OperationState,
)


def requested(book: Book, event: Event, fact: OperationRequested) -> None:
    state = OperationState.AWAITING_APPROVAL if fact.needs_approval else OperationState.WAITING
    row = OperationRow(
        operation=fact.operation,
        kind=fact.kind,
        state=state.value,
        iccid="" if book.is_erased(fact.target) else fact.iccid,
        operator=fact.operator,
        provider=fact.provider,
        domain=fact.domain,
        target=fact.target,
        reason=fact.reason,
        requested_by=fact.requested_by,
        approved_by="",
        reception="",
        code="",
        correlation=book.story(event.context.correlation),
        requested_at=at(event.recorded_at),
        expires_at=at(fact.expires_at),
        position=event.position,
        changed=event.position,
    )
    book.operations.put(row)


def approved(book: Book, event: Event, fact: OperationApproved) -> None:
    row = _operation(book, event)
    waiting = OperationState.WAITING.value
    book.operations.put(row._replace(state=waiting, approved_by=fact.approved_by, changed=event.position))


def delegated(book: Book, event: Event, fact: OperationDelegated) -> None:
    row = _operation(book, event)
    state = OperationState.DELEGATED.value
    book.operations.put(row._replace(state=state, reception=fact.reception, changed=event.position))


def put_back(book: Book, event: Event, _: OperationPutBack) -> None:
    row = _operation(book, event)
    book.operations.put(row._replace(state=OperationState.WAITING.value, changed=event.position))


def ended(book: Book, event: Event, fact: OperationEnded) -> None:
    book.operations.put(_operation(book, event)._replace(state=fact.state, code=fact.code, changed=event.position))


def operation_of(event: Event) -> str:
    return event.originator_id.removeprefix("operation-")


def _operation(book: Book, event: Event) -> OperationRow:
    row = book.operations.get(operation_of(event))
    if row is None:
        raise corrupt(f"{event.originator_id} does not begin with its request")
    return row
