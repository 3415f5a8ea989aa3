"""Shared by every room's tests: this folder on the path, and one run of the demo."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CITIZEN = {
    "name": "Simulated Yuki Testperson",
    "sex": "2",
    "born": "1987-11-23",
    "address": "Simulated Ward 9-8-7",
    "authenticationPin": "8046",
    "signaturePin": "ZQ7XW2KV",
    "myNumberAuthenticationPin": "5173",
    "myNumberSignaturePin": "VJ4HN9TB",
}
TIME_LIMIT = 180  # seconds; it takes some fifteen


@dataclass(frozen=True)
class DemoRun:
    """What a run of the demo left: its report and its folder."""

    report: dict[str, Any]
    folder: Path

    @property
    def card(self) -> Path:
        return self.folder / "phone" / "card.json"

    @property
    def slip(self) -> str:
        return (self.folder / "terminal" / "slip.txt").read_text()


def run_demo(folder: Path) -> DemoRun:
    """The command of the README, with a citizen whose data one can search for."""
    citizen = folder.parent / f"{folder.name}-citizen.json"
    citizen.write_text(json.dumps(CITIZEN))
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "demo", "--json", "--folder", str(folder), "--citizen", str(citizen)],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return DemoRun(json.loads(done.stdout), folder)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    return run_demo(tmp_path_factory.mktemp("demo") / "first")
