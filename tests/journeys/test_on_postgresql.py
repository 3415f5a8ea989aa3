"""Both acts of the demo with log and read models in a PostgreSQL database: the same stories, the same checks."""

import json
from pathlib import Path

import pytest

from api.bench.postgres import Database
from tests.conftest import run_demo


@pytest.mark.parametrize(("act", "checks"), [("issue", 12), ("swap", 34)])
def test_everything_is_verified_on_postgresql_too(
    tmp_path: Path, postgres_store: Database, act: str, checks: int
) -> None:
    run = run_demo(tmp_path / "demo", "--act", act, "--store", postgres_store.runtime_dsn)
    assert run.report["ok"] is True
    assert len(run.report["checks"]) == checks
    assert all(run.report["checks"].values())
    assert not list(run.folder.rglob("log.sqlite*")) and not list(run.folder.rglob("views.sqlite*"))
    assert json.loads((run.folder / "tsm" / "config.json").read_text())["store"] == postgres_store.runtime_dsn
