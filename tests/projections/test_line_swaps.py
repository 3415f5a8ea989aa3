"""When SIM and phone of a line changed last: as its newest signal says, live or built anew, on both engines."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projections.building import rebuild
from projections.folding import retry
from projections.line_swaps import EPOCH, LINE_SWAPS, LineSwaps, _number, _time, line_swaps
from projections.runner import Runner
from projections.views import Views
from tests.projections.conftest import MakeViews
from tests.projections.read_models import contents
from tests.projections.story import MemoryLog, registered
from tsm.errors import ErrorCode, TsmError
from tsm.model.line import SignalKind, SignalRecorded, SubjectMapped

LINE, OTHER = "line-1", "line-2"
ACTIVATED = datetime(2026, 1, 5, 8, 30, 0, 123456, tzinfo=UTC)
MOVED = datetime(2026, 11, 20, 23, 59, tzinfo=UTC)
NUMBER = "+819012340001"


def signal(
    sim: datetime | None = ACTIVATED,
    device: datetime | None = None,
    in_service: bool = True,
    subject: str = "tenure-1",
    begins: bool = False,
) -> SignalRecorded:
    return SignalRecorded(
        subject=subject,
        signal="s-1",
        source="operator:MNO00001",
        kind=SignalKind.OBSERVED,
        msisdn=NUMBER,
        sim_changed_at=sim,
        device_changed_at=device,
        in_service=in_service,
        begins_tenure=begins,
    )


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(LINE_SWAPS)


def test_the_newest_signal_of_a_line_counts(log: MemoryLog, views: Views) -> None:
    log.add(LINE, signal())
    log.add(OTHER, signal(sim=None))
    log.add("card-1", registered())
    Runner(log, views).catch_up()
    assert line_swaps(views, LINE) == LineSwaps("tenure-1", ACTIVATED, None, True)
    assert line_swaps(views, OTHER) == LineSwaps("tenure-1", None, None, True)

    log.add(LINE, signal(device=MOVED))
    log.add(LINE, SubjectMapped(issuer="https://id.example"))
    log.add(LINE, signal(sim=MOVED, device=MOVED, in_service=False, subject="tenure-2"))
    Runner(log, views).catch_up()
    assert line_swaps(views, LINE) == LineSwaps("tenure-2", MOVED, MOVED, False)
    assert line_swaps(views, OTHER) == LineSwaps("tenure-1", None, None, True)


def test_a_line_without_a_signal_is_none(log: MemoryLog, views: Views) -> None:
    log.add(LINE, SubjectMapped(issuer="https://id.example"))
    Runner(log, views).catch_up()
    assert line_swaps(views, LINE) is None


def test_the_beginning_of_the_epoch_is_a_time_as_any_other(log: MemoryLog, views: Views) -> None:
    """Old systems say it where they know no better: then the line was activated, long ago."""
    log.add(LINE, signal(sim=EPOCH, device=EPOCH))
    Runner(log, views).catch_up()
    assert line_swaps(views, LINE) == LineSwaps("tenure-1", EPOCH, EPOCH, True)


def test_a_late_signal_that_takes_a_change_back_counts_as_well(log: MemoryLog, views: Views) -> None:
    """What is newest is decided by the order of the log, not by the times that signals claim."""
    log.add(LINE, signal(sim=MOVED))
    Runner(log, views).catch_up()
    log.add(LINE, signal(sim=ACTIVATED))
    Runner(log, views).catch_up()
    assert line_swaps(views, LINE) == LineSwaps("tenure-1", ACTIVATED, None, True)


def test_a_late_signal_of_an_earlier_holder_does_not_make_the_line_hers_again(log: MemoryLog, views: Views) -> None:
    log.add(LINE, signal(subject="tenure-1"))
    log.add(LINE, signal(subject="tenure-2", begins=True, sim=MOVED))
    log.add(LINE, signal(subject="tenure-1", sim=MOVED))
    Runner(log, views).catch_up()
    assert line_swaps(views, LINE) == LineSwaps("tenure-2", MOVED, None, True)


def test_built_anew_in_pages_it_answers_the_same(log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(20):
        log.add(f"line-{n % 7}", signal(device=MOVED + timedelta(minutes=n)))
        Runner(log, views).catch_up()
    before = [line_swaps(views, f"line-{n}") for n in range(7)]

    monkeypatch.setattr("projections.building.PAGE", 6)
    rebuild(log, views, LINE_SWAPS)
    assert [line_swaps(views, f"line-{n}") for n in range(7)] == before
    assert [swaps.device_changed_at for swaps in before if swaps] == [
        MOVED + timedelta(minutes=n) for n in (14, 15, 16, 17, 18, 19, 13)
    ]


def test_while_a_signal_of_a_line_waits_for_a_retry_nobody_is_told_an_older_state(log: MemoryLog, views: Views) -> None:
    log.add(LINE, signal())
    log.add(OTHER, signal())
    log.add(LINE, signal(sim=MOVED))
    log.unreadable.add(3)
    Runner(log, views).catch_up()

    with pytest.raises(TsmError) as refusal:
        line_swaps(views, LINE)
    assert refusal.value.code is ErrorCode.READ_MODEL_BEHIND
    assert line_swaps(views, OTHER) == LineSwaps("tenure-1", ACTIVATED, None, True)

    log.unreadable.clear()
    assert retry(log, views, LINE_SWAPS) == 1
    assert line_swaps(views, LINE) == LineSwaps("tenure-1", MOVED, None, True)


def test_no_row_has_a_number(log: MemoryLog, views: Views) -> None:
    log.add(LINE, signal(device=MOVED))
    Runner(log, views).catch_up()
    assert NUMBER not in str(contents(views))


@given(st.datetimes(timezones=st.just(UTC)))
@example(EPOCH)
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
def test_a_time_comes_back_to_the_microsecond(time: datetime) -> None:
    assert _time(_number(time)) == time


def test_no_time_is_no_time() -> None:
    assert _time(_number(None)) is None
