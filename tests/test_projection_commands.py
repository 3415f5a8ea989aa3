"""`tsm projections`: what it shows, making anew, trying again, and folding in a process apart."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from api import administration
from api.bootstrap import CONFIG_FILE
from projections import PROJECTIONS
from projections.domain_tree import card
from projections.runner import Runner
from tests.projections.story import ICCID, domain_created, keys_put, registered
from tsm.application import Change
from tsm.model.event import Context, Fact
from tsm.store.recorder import utc_now

ROOT = Path(__file__).parent.parent
CONTEXT = Context(actor="test", role="system", tenant="test", correlation="test")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A server whose log has a card, and nobody folds yet."""
    folder = tmp_path / "data"
    administration.initialise(folder, tmp_path / "kek", "127.0.0.1", 8443)
    record(folder, 0, registered(), domain_created(), keys_put(1, True))
    return folder


def record(data: Path, version: int, *facts: Fact) -> None:
    with administration.opened(data) as parts:
        change = Change(f"card-{ICCID}", version, facts)
        parts.tsm.commit(change, context=CONTEXT, occurred_at=utc_now())


def command(data: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", "projections", *words, "--data", str(data)]


def run(data: Path, *words: str, status: int = 0, columns: int = 160) -> str:
    """What it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(columns)}
    done = subprocess.run(command(data, *words), capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def listed(data: Path) -> dict[str, tuple[object, ...]]:
    columns = ("generation", "state", "position", "lag", "parked", "owner")
    return {row["name"]: tuple(row[c] for c in columns) for row in json.loads(run(data, "list", "--json"))}


def test_a_read_model_is_made_anew_and_the_list_says_how_far_it_is(data: Path) -> None:
    assert listed(data) == {}
    assert "domain_tree is made anew from 3 events" in run(data, "rebuild", "domain_tree")
    assert "made anew" in run(data, "rebuild", "domain_tree")
    record(data, 3, keys_put(2, False))

    assert listed(data) == {"domain_tree": (2, "serving", 3, 1, 0, "none")}
    shown = run(data, "list")
    assert "domain_tree" in shown and "serving" in shown


def test_what_is_parked_is_shown_and_tried_again(data: Path) -> None:
    record(data, 3, domain_created(), keys_put(2, False))
    run(data, "rebuild", "domain_tree")

    found = json.loads(run(data, "park", "--json"))["domain_tree"]
    assert [event["position"] for event in found] == [4, 5]
    assert found[0]["error"].startswith("STORE_CORRUPT at domain_tree.py:")
    assert found[1]["error"] == "held back by position 4"
    assert "held back by position 4" in run(data, "park")
    assert run(data, "park", "retry", "domain_tree", "4", status=1) == "0 folded, 2 still parked\n"
    assert "lacks no event at position 3" in run(data, "park", "retry", "domain_tree", "3", status=2)


def test_a_narrow_terminal_cuts_neither_names_nor_streams(data: Path) -> None:
    record(data, 3, domain_created())
    for projection in PROJECTIONS:
        run(data, "rebuild", projection.name)
    listed, parked = run(data, "list", columns=80), run(data, "park", columns=80)

    assert all(projection.name in listed for projection in PROJECTIONS)
    cells = [line.split("│")[3].strip() for line in parked.splitlines() if line.startswith("│")]
    assert f"card-{ICCID}" in "".join(cells)


def test_nothing_parked_is_said_so(data: Path) -> None:
    run(data, "rebuild", "domain_tree")
    assert run(data, "park") == "nothing is parked\n"
    assert run(data, "park", "retry", "domain_tree") == "0 folded, 0 still parked\n"


def test_an_unknown_read_model_is_refused(data: Path) -> None:
    assert "invalid choice" in run(data, "rebuild", "nothing", status=2)


def test_a_process_apart_folds_for_a_server_that_does_not(data: Path) -> None:
    config = data / CONFIG_FILE
    settings = msgspec.json.decode(config.read_bytes())
    config.write_bytes(msgspec.json.encode(settings | {"projections": "separate"}))
    with (
        administration.opened(data) as parts,
        subprocess.Popen(command(data, "run"), stdout=subprocess.PIPE, text=True, cwd=ROOT) as worker,
    ):
        assert not [part for part in parts.workers if isinstance(part, Runner)]
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline()) == {"projections": [projection.name for projection in PROJECTIONS]}
        assert parts.views.wait_for(3, 20)
        record(data, 3, keys_put(2, False))
        assert parts.views.wait_for(4, 20)
        tree = card(parts.views, ICCID)
        assert tree is not None
        assert [keys.version for keys in tree.domains[1].keys] == [1, 2]
        assert listed(data)["domain_tree"] == (1, "serving", 4, 0, 0, "alive")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
