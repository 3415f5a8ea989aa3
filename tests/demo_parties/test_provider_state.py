"""What the provider of the demo remembers."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.demo.provider.state import VISIT_LIFE, Purpose, State
from tsm.errors import ErrorCode, TsmError

ICCID = "8981100000000000010"
LATE = datetime(2026, 11, 20, 14, 59, tzinfo=UTC)  # one minute to midnight in Japan


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = LATE

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> Iterator[State]:
    made = State(tmp_path / "provider.sqlite", clock)
    yield made
    made.close()


def refused(code: ErrorCode) -> "pytest.RaisesExc[TsmError]":
    return pytest.raises(TsmError, check=lambda error: error.code is code)


def test_receptions_are_numbered_by_the_day_in_japan(state: State, clock: Clock) -> None:
    numbers = [state.receive(ICCID, Purpose.ROTATION, 1) for _ in range(2)]
    clock.now += timedelta(minutes=1)
    numbers.append(state.receive(ICCID, Purpose.ROTATION, 1))
    assert numbers == ["2026112000000001", "2026112000000002", "2026112100000001"]


def test_numbers_go_on_after_a_restart(state: State, clock: Clock, tmp_path: Path) -> None:
    state.receive(ICCID, Purpose.ROTATION, 1)
    again = State(tmp_path / "provider.sqlite", clock)
    assert again.receive(ICCID, Purpose.ROTATION, 1) == "2026112000000002"
    again.close()


def test_a_number_that_was_never_given_out_is_unknown(state: State) -> None:
    with refused(ErrorCode.UNKNOWN_RECEPTION):
        state.reception("2026112000000001")


def test_a_reception_is_acknowledged_when_every_command_was_notified_with_9000(state: State) -> None:
    number = state.receive(ICCID, Purpose.PERSONALISATION, 2, credential="c")
    state.record_result(number, 1, 0x9000, "first")
    assert not state.reception(number).acknowledged
    state.record_result(number, 2, 0x9000, "second")
    assert state.reception(number).acknowledged
    assert [each.number for each in state.unsettled()] == [number]


def test_one_refused_command_is_enough_not_to_be_acknowledged(state: State) -> None:
    number = state.receive(ICCID, Purpose.PERSONALISATION, 2, credential="c")
    state.record_result(number, 1, 0x9000, "first")
    state.record_result(number, 2, 0x6A80, "second")
    assert not state.reception(number).acknowledged
    assert state.unsettled() == []


def test_a_result_is_known_once_and_never_changed(state: State) -> None:
    number = state.receive(ICCID, Purpose.ROTATION, 1)
    assert state.record_result(number, 1, 0x9000, "digest")
    assert not state.record_result(number, 1, 0x9000, "digest")
    with refused(ErrorCode.CONFLICT):
        state.record_result(number, 1, 0x9000, "another")


def test_the_notice_of_a_failed_session_is_no_commands_result(state: State) -> None:
    number = state.receive(ICCID, Purpose.ROTATION, 1)
    state.record_result(number, 0, 0, "failed")
    assert state.reception(number).results == ()


def test_a_settled_reception_stays_settled(state: State) -> None:
    number = state.receive(ICCID, Purpose.PERSONALISATION, 1, credential="c")
    state.record_result(number, 1, 0x9000, "digest")
    state.settle(number)
    assert state.unsettled(ICCID) == []


def test_a_visit_ends_by_itself(state: State, clock: Clock) -> None:
    token = state.begin_visit(ICCID)
    assert state.visitor(token) == ICCID
    clock.now += VISIT_LIFE
    with refused(ErrorCode.FORBIDDEN):
        state.visitor(token)


def test_the_file_does_not_hold_the_visits_token(state: State, tmp_path: Path) -> None:
    token = state.begin_visit(ICCID)
    assert not any(token.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_card_keeps_the_number_from_which_its_keys_are_derived(state: State) -> None:
    state.meet_card(ICCID, "00" * 10, 1)
    state.meet_card(ICCID, "00" * 10, 1)
    state.own_keys_put(ICCID, 2)
    assert (state.card(ICCID).diversification, state.card(ICCID).key_version) == ("00" * 10, 2)
    with refused(ErrorCode.CONFLICT):
        state.meet_card(ICCID, "11" * 10, 1)
