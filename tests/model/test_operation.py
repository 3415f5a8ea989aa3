"""Who may have an operation done, and when it is over: decided on its facts alone."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from given import given
from samples import ICCID, SSD

from tsm.errors import ErrorCode
from tsm.model import operation
from tsm.model.operation import (
    ENDS,
    OperationApproved,
    OperationDelegated,
    OperationEnded,
    OperationKind,
    OperationPutBack,
    OperationRequested,
    OperationState,
)

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
ASKED = OperationRequested(
    operation="5b6a",
    kind=OperationKind.DELETE,
    target=SSD,
    reason="the contract has ended",
    requested_by="operator:MNO00001/alice",
    person="alice",
    needs_approval=True,
    expires_at=LATER,
    iccid=ICCID,
    operator="MNO00001",
)
AT_ONCE = msgspec.structs.replace(ASKED, kind=OperationKind.AUDIT, needs_approval=False, reason="")
BOB = "operator:MNO00001/bob", "bob"  # as he acts, and who he is
APPROVED = OperationApproved(approved_by=BOB[0], person=BOB[1])
DELEGATED = OperationDelegated(reception="2026112100000001")
PUT_BACK = OperationPutBack(status="41")
DONE = OperationEnded(state="DONE")


def without_card(kind: OperationKind) -> OperationRequested:
    return msgspec.structs.replace(ASKED, kind=kind, target="provider/JPKI0001", iccid="", operator="")


@pytest.mark.parametrize("wanted", [ASKED, AT_ONCE, without_card(OperationKind.WITHDRAW_PARTY)])
def test_something_is_asked_for(wanted: OperationRequested) -> None:
    given(operation.evolve).when(operation.request, wanted, NOW).then(wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "dance"},
        {"reason": ""},
        {"reason": "a\nb"},
        {"iccid": ""},
        {"target": "no AID"},
        {"expires_at": NOW},
        {"kind": OperationKind.AUDIT, "reason": ""},  # policy wants a second person, who wants to know why
    ],
)
def test_what_lacks_something_is_not(wrong: dict[str, str]) -> None:
    wanted = msgspec.structs.replace(ASKED, **wrong)
    given(operation.evolve).when(operation.request, wanted, NOW).then_refused(ErrorCode.INVALID_INPUT)


def test_what_concerns_no_card_has_a_target_all_the_same() -> None:
    wanted = msgspec.structs.replace(without_card(OperationKind.ERASE_PERSON), target="")
    given(operation.evolve).when(operation.request, wanted, NOW).then_refused(ErrorCode.INVALID_INPUT)


def test_an_id_is_used_once() -> None:
    given(operation.evolve, ASKED).when(operation.request, ASKED, NOW).then_refused(ErrorCode.ALREADY_EXISTS)


def test_a_second_person_approves_and_once_more_is_no_news() -> None:
    given(operation.evolve, ASKED).when(operation.approve, *BOB, NOW).then(APPROVED)
    given(operation.evolve, ASKED, APPROVED).when(operation.approve, *BOB, NOW).then_nothing()
    given(operation.evolve, ASKED, APPROVED).when(operation.approve, "security-officer:bob", "bob", NOW).then_nothing()


@pytest.mark.parametrize(
    ("actor", "person"),
    [
        ("operator:MNO00001/alice", "alice"),
        ("security-officer:alice", "alice"),  # who asked for it, in another role
        ("operator:MNO00001", ""),  # a program
    ],
)
def test_nobody_but_another_person_approves_or_rejects(actor: str, person: str) -> None:
    given(operation.evolve, ASKED).when(operation.approve, actor, person, NOW).then_refused(ErrorCode.FORBIDDEN)
    given(operation.evolve, ASKED).when(operation.reject, actor, person, "no", NOW).then_refused(ErrorCode.FORBIDDEN)


def test_a_program_asks_for_what_needs_no_second_person_only() -> None:
    given(operation.evolve).when(operation.request, by_a_program(ASKED), NOW).then_refused(ErrorCode.FORBIDDEN)
    given(operation.evolve).when(operation.request, by_a_program(AT_ONCE), NOW).then(by_a_program(AT_ONCE))


def by_a_program(asked: OperationRequested) -> OperationRequested:
    return msgspec.structs.replace(asked, requested_by="operator:MNO00001", person="")


def test_nobody_approves_what_awaits_no_approval() -> None:
    for facts in ((AT_ONCE,), (ASKED, APPROVED), (ASKED, APPROVED, DONE)):
        given(operation.evolve, *facts).when(operation.approve, "carol", "carol", NOW).then_refused(
            ErrorCode.WRONG_ORDER
        )
    given(operation.evolve, ASKED).when(operation.approve, *BOB, LATER).then_refused(ErrorCode.WRONG_ORDER)


def test_a_rejection_says_who_and_why() -> None:
    rejected = OperationEnded(state="REJECTED", ended_by=BOB[0], reason="the wrong card")
    given(operation.evolve, ASKED).when(operation.reject, *BOB, "the wrong card", NOW).then(rejected)
    given(operation.evolve, ASKED).when(operation.reject, *BOB, " ", NOW).then_refused(ErrorCode.INVALID_INPUT)


@pytest.mark.parametrize("before", [(ASKED,), (ASKED, APPROVED), (ASKED, APPROVED, DELEGATED), (AT_ONCE,)])
def test_anybody_takes_back_what_is_not_over(before: tuple[OperationRequested, ...]) -> None:
    cancelled = OperationEnded(state="CANCELLED", ended_by="carol", reason="a mistake")
    given(operation.evolve, *before).when(operation.cancel, "carol", "a mistake").then(cancelled)
    given(operation.evolve, *before).when(operation.cancel, "carol", "").then_refused(ErrorCode.INVALID_INPUT)


@pytest.mark.parametrize("end", sorted(ENDS))
def test_what_is_over_stays_what_it_was(end: OperationState) -> None:
    over = given(operation.evolve, ASKED, APPROVED, DELEGATED, OperationEnded(state=end))
    over.when(operation.cancel, "carol", "a mistake").then_refused(ErrorCode.WRONG_ORDER)
    over.when(operation.delegate, "2026112100000002", NOW).then_refused(ErrorCode.WRONG_ORDER)
    over.when(operation.put_back, "2026112100000001", "41").then_nothing()
    over.when(operation.end, OperationState.DONE).then_nothing()
    over.when(operation.expire, LATER).then_nothing()
    assert over.state.is_over


def test_a_contact_needs_the_approval_and_is_one_at_a_time() -> None:
    given(operation.evolve, AT_ONCE).when(operation.delegate, DELEGATED.reception, NOW).then(DELEGATED)
    given(operation.evolve, ASKED, APPROVED).when(operation.delegate, DELEGATED.reception, NOW).then(DELEGATED)
    for facts in ((ASKED,), (AT_ONCE, DELEGATED)):
        given(operation.evolve, *facts).when(operation.delegate, "2026112100000002", NOW).then_refused(
            ErrorCode.WRONG_ORDER
        )
    given(operation.evolve, AT_ONCE).when(operation.delegate, DELEGATED.reception, LATER).then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_only_the_contact_that_is_under_way_puts_it_back() -> None:
    under_way = given(operation.evolve, AT_ONCE, DELEGATED)
    under_way.when(operation.put_back, DELEGATED.reception, "41").then(PUT_BACK)
    under_way.when(operation.put_back, "2026112100000002", "41").then_nothing()
    again = given(operation.evolve, AT_ONCE, DELEGATED, PUT_BACK)
    again.when(operation.put_back, DELEGATED.reception, "41").then_nothing()
    assert again.state.state is OperationState.WAITING


def test_what_waits_expires_and_a_contact_comes_to_its_own_end() -> None:
    expired = OperationEnded(state="EXPIRED")
    for waiting in ((ASKED,), (AT_ONCE,), (AT_ONCE, DELEGATED, PUT_BACK)):
        given(operation.evolve, *waiting).when(operation.expire, LATER).then(expired)
        given(operation.evolve, *waiting).when(operation.expire, NOW).then_nothing()
    given(operation.evolve, AT_ONCE, DELEGATED).when(operation.expire, LATER).then_nothing()
    given(operation.evolve, AT_ONCE, DELEGATED).when(operation.end, OperationState.FAILED, "54").then(
        OperationEnded(state="FAILED", code="54")
    )
