"""The main job with log and read models in a PostgreSQL database: the same story, the same checks."""

import json
from pathlib import Path

from api.bench.postgres import Database
from tests.conftest import run_demo


def test_everything_is_verified_on_postgresql_too(tmp_path: Path, postgres_store: Database) -> None:
    run = run_demo(tmp_path / "demo", "--store", postgres_store.runtime_dsn)
    assert run.report["ok"] is True
    assert len(run.report["checks"]) == 12
    assert all(run.report["checks"].values())
    assert not list(run.folder.rglob("log.sqlite*")) and not list(run.folder.rglob("views.sqlite*"))
    assert json.loads((run.folder / "tsm" / "config.json").read_text())["store"] == postgres_store.runtime_dsn
