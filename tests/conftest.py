"""Shared by every room's tests: this folder on the path, one run of the demo, and one PostgreSQL server.

The server is started when the first test asks for it. `TSM_TEST_POSTGRES=/usr/lib/postgresql/15/bin` names other
binaries than those of the wheel.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.bench.postgres import RUNTIME, Database, PostgresServer, wheel_binaries
from tsm.store.migrations import migrate_postgres

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


def run_demo(folder: Path, *arguments: str, citizen: Mapping[str, str] = CITIZEN) -> DemoRun:
    """The command of the README, with a citizen whose data one can search for."""
    described = folder.parent / f"{folder.name}-citizen.json"
    described.write_text(json.dumps(citizen))
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "demo", "--json", "--folder", folder, "--citizen", described, *arguments],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return DemoRun(json.loads(done.stdout), folder)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    return run_demo(tmp_path_factory.mktemp("demo") / "first")


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    named = os.environ.get("TSM_TEST_POSTGRES")
    return Path(named) if named else wheel_binaries()


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[PostgresServer]:
    with PostgresServer(postgres_binaries) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_database(postgres: PostgresServer) -> Database:
    return postgres.fresh_database()


@pytest.fixture
def postgres_store(postgres_database: Database) -> Database:
    """An empty store of the newest format; the database is one for all tests, for a new one takes time."""
    with psycopg.connect(postgres_database.owner_dsn) as owner:
        owner.execute("DROP SCHEMA IF EXISTS tsm, tsm_views CASCADE")
    migrate_postgres(postgres_database.owner_dsn, RUNTIME)
    return postgres_database
