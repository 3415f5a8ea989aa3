"""The second act from end to end, as `make demo-swap` does it: all checks hold, nothing of her line is in plain."""

import json
import sqlite3
from typing import Any

import pytest

from api.demo.second_act import EXPECTED
from api.demo.story import in_order
from tests.conftest import CITIZEN, DemoRun, run_demo
from tests.journeys.test_no_secret_is_left import places_of

LINE = {
    "msisdn": "+447700900461",
    "imsi": "001017305261948",
    "imei": "001010007340266",
    "otherImei": "001010005518202",
    "nextImei": "001010002967147",
    "nextImsi": "001018640227315",
}
PHONES = ("phone", "another-phone", "next-phone")  # a phone knows its own IMEI


@pytest.fixture(scope="module")
def swap_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    return run_demo(tmp_path_factory.mktemp("demo-swap") / "first", "--act", "swap", citizen=CITIZEN | LINE)


def events(run: DemoRun, topic: str = "") -> list[dict[str, Any]]:
    with sqlite3.connect(run.folder / "tsm" / "log.sqlite") as log:
        found = [json.loads(state) for (state,) in log.execute("SELECT state FROM event ORDER BY position")]
    return [event for event in found if topic in ("", event["topic"])]


def test_everything_was_verified(swap_run: DemoRun) -> None:
    checks = swap_run.report["checks"]
    assert [what for what, holds in checks.items() if not holds] == []
    assert len(checks) == 34
    assert swap_run.report["ok"] is True


def test_the_log_tells_the_case_in_its_order(swap_run: DemoRun) -> None:
    assert in_order(EXPECTED, [event["topic"] for event in events(swap_run)])


def test_each_suspicion_rests_on_signals_that_were_recorded_before_it(swap_run: DemoRun) -> None:
    topics = [event["topic"] for event in events(swap_run)]
    raised = [(n, e["data"]) for n, e in enumerate(events(swap_run), 1) if e["topic"] == "standing.suspicion_raised"]
    assert {fact["condition"] for _, fact in raised} == {
        "DEVICE_CHANGED", "TWO_DEVICES", "FOREIGN_DEVICE", "CARD_REPLACED",
    }  # fmt: skip
    for position, fact in raised:
        assert fact["evidence"] and max(fact["evidence"]) < position
        assert {topics[place - 1] for place in fact["evidence"]} == {"line.signal_recorded"}


def test_the_session_on_hold_sent_no_command_to_the_card(swap_run: DemoRun) -> None:
    (failed,) = events(swap_run, "session.failed")
    assert failed["data"]["status"] == "58"
    topics = [event["topic"] for event in events(swap_run)]
    before = topics[: topics.index("session.failed")]
    begun = len(before) - before[::-1].index("session.started")
    assert "session.command_sent" not in before[begun:]


@pytest.mark.parametrize("datum", LINE)
def test_number_sim_and_phones_are_nowhere_in_plain(swap_run: DemoRun, datum: str) -> None:
    outside = [place for place in places_of(swap_run, LINE[datum].removeprefix("+").encode()) if not at_a_phone(place)]
    assert outside == []


def at_a_phone(place: str) -> bool:
    return place.endswith(tuple(f"/{phone}/config.json" for phone in PHONES))


def test_the_search_would_find_them(swap_run: DemoRun) -> None:
    """A check that cannot fail is no check: a phone knows its own number."""
    assert [place for place in places_of(swap_run, LINE["otherImei"].encode()) if at_a_phone(place)]
