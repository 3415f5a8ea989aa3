"""The main job from end to end, as `make demo` does it: every check of the story holds, and it can be told again."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from api.demo.first_act import EXPECTED
from api.demo.story import in_order
from tests.conftest import DemoRun, run_demo
from tsm.uicc.card import SimulatedUicc


def events(run: DemoRun) -> list[dict[str, Any]]:
    """The log, read by hand: what an auditor without our code would do."""
    with sqlite3.connect(run.folder / "tsm" / "log.sqlite") as log:
        return [json.loads(state) for (state,) in log.execute("SELECT state FROM event ORDER BY position")]


def test_everything_was_verified(demo_run: DemoRun) -> None:
    assert demo_run.report["ok"] is True
    assert len(demo_run.report["checks"]) == 12
    assert all(demo_run.report["checks"].values())


def test_the_log_tells_the_story_in_its_order(demo_run: DemoRun) -> None:
    assert in_order(EXPECTED, [event["topic"] for event in events(demo_run)])


def test_each_step_says_what_it_cost(demo_run: DemoRun) -> None:
    steps = {step["name"]: step for step in demo_run.report["steps"]}
    sessions = [steps["preparation"], steps["writing"]]
    for step in sessions:
        assert step["events"] > 0 and step["exchanges"] > 0
        assert step["card_ms"] > 0 and step["server_ms"] > 0 and step["wire_ms"] > 0
        assert step["card_ms"] + step["server_ms"] + step["wire_ms"] < step["total_ms"]


def test_results_are_notified_for_delegated_commands_only(demo_run: DemoRun) -> None:
    """Not for the server's own SELECT, INITIALIZE UPDATE and EXTERNAL AUTHENTICATE."""
    found = events(demo_run)
    commands = [e["data"] for e in found if e["topic"] == "session.command_sent"]
    delegated = [c for c in commands if c["step"] == "COMMAND"]
    notified = [e["data"] for e in found if e["topic"] == "delegation.result_notified"]
    assert len(commands) - len(delegated) == 4 * 3
    assert sorted(n["order"] for n in notified) == sorted(c["order"] for c in delegated)
    assert all(n["acknowledged"] for n in notified)


def test_the_certificates_in_the_log_are_those_on_the_card(demo_run: DemoRun) -> None:
    (issued,) = [e["data"] for e in events(demo_run) if e["topic"] == "credential.issued"]
    on_card = read_certificate(demo_run.card, "000A")
    assert hashlib.sha256(on_card).hexdigest() == issued["authentication_certificate_sha256"]


def read_certificate(card_file: Path, file_id: str) -> bytes:
    card = SimulatedUicc.load(card_file)
    assert card.transmit(bytes.fromhex("00A4040C0AD392F000260100000001")) == b"\x90\x00"
    assert card.transmit(bytes.fromhex("00A4020C02" + file_id)) == b"\x90\x00"
    read, offset = b"", 0
    while (part := card.transmit(bytes((0x00, 0xB0, offset >> 8, offset & 0xFF, 0x00))))[-2:] == b"\x90\x00":
        read, offset = read + part[:-2], offset + len(part) - 2
    return read[: int.from_bytes(read[2:4], "big") + 4]


def test_it_works_twice(demo_run: DemoRun, tmp_path: Path) -> None:
    again = run_demo(tmp_path / "second")
    assert again.report["ok"] is True
    assert again.report["subjects"] != demo_run.report["subjects"]
