"""An access code: few tries, a short life."""

from datetime import UTC, datetime, timedelta

import pytest
from given import given

from tsm.errors import ErrorCode, TsmError
from tsm.model import access_code
from tsm.model.access_code import AccessCodeAccepted, AccessCodeHandedOut, AccessCodeLocked, AccessCodeRefused
from tsm.model.event import Fact

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY_AFTER = NOON + timedelta(hours=24)
HANDED_OUT = AccessCodeHandedOut(credential="c-1", expires_at=DAY_AFTER, tries=2)
REFUSED = AccessCodeRefused(remaining=1)


def test_a_code_is_handed_out() -> None:
    given(access_code.evolve).when(access_code.hand_out, "c-1", DAY_AFTER, 2).then(HANDED_OUT)


def test_a_code_is_never_handed_out_twice() -> None:
    given(access_code.evolve, HANDED_OUT).when(access_code.hand_out, "c-1", DAY_AFTER, 2).then_refused(
        ErrorCode.ALREADY_EXISTS
    )


def test_the_right_password_is_accepted() -> None:
    given(access_code.evolve, HANDED_OUT).when(access_code.present, True, NOON).then(AccessCodeAccepted())


def test_presenting_it_again_is_no_news() -> None:
    given(access_code.evolve, HANDED_OUT, AccessCodeAccepted()).when(access_code.present, True, NOON).then_nothing()


def test_a_wrong_password_costs_a_try() -> None:
    given(access_code.evolve, HANDED_OUT).when(access_code.present, False, NOON).then(REFUSED)


def test_the_last_wrong_password_locks() -> None:
    given(access_code.evolve, HANDED_OUT, REFUSED).when(access_code.present, False, NOON).then(
        AccessCodeRefused(remaining=0), AccessCodeLocked()
    )


def test_wrong_passwords_count_after_the_right_one_too() -> None:
    history = given(access_code.evolve, HANDED_OUT, REFUSED, AccessCodeAccepted())
    history.when(access_code.present, False, NOON).then(AccessCodeRefused(remaining=0), AccessCodeLocked())


def test_a_locked_code_refuses_the_right_password() -> None:
    history = (HANDED_OUT, AccessCodeRefused(remaining=0), AccessCodeLocked())
    given(access_code.evolve, *history).when(access_code.present, True, NOON).then_refused(ErrorCode.ACCESS_CODE_LOCKED)


def test_an_expired_code_refuses_the_right_password() -> None:
    given(access_code.evolve, HANDED_OUT).when(access_code.present, True, DAY_AFTER).then_refused(
        ErrorCode.ACCESS_CODE_EXPIRED
    )


def test_a_code_lives_to_its_last_moment() -> None:
    last = DAY_AFTER - timedelta(microseconds=1)
    given(access_code.evolve, HANDED_OUT).when(access_code.present, True, last).then(AccessCodeAccepted())


def test_a_code_that_was_never_handed_out_is_refused_like_a_wrong_password() -> None:
    given(access_code.evolve).when(access_code.present, True, NOON).then_refused(ErrorCode.ACCESS_CODE_REFUSED)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ([REFUSED], ErrorCode.ACCESS_CODE_REFUSED),
        ([AccessCodeRefused(remaining=0), AccessCodeLocked()], ErrorCode.ACCESS_CODE_LOCKED),
    ],
)
def test_the_holder_is_told_what_was_recorded(facts: list[Fact], code: ErrorCode) -> None:
    with pytest.raises(TsmError) as refusal:
        access_code.refuse(facts)
    assert refusal.value.code is code


def test_nothing_is_refused_when_the_code_was_accepted() -> None:
    access_code.refuse([AccessCodeAccepted()])
    access_code.refuse([])
