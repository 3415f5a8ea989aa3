"""A vault, a recorder and a mapper for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_events import FACTS

from tsm.keys.vault import SoftwareVault
from tsm.store.mapper import JsonMapper
from tsm.store.migrations import migrate_sqlite
from tsm.store.sqlite import SQLiteRecorder


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[SoftwareVault]:
    vault = SoftwareVault.create(tmp_path / "vault", tmp_path / "kek")
    yield vault
    vault.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty store."""
    path = tmp_path / "store.sqlite"
    migrate_sqlite(path)
    return path


@pytest.fixture
def recorder(path: Path, vault: SoftwareVault) -> Iterator[SQLiteRecorder]:
    recorder = SQLiteRecorder(path, vault)
    yield recorder
    recorder.close()


@pytest.fixture
def mapper(vault: SoftwareVault) -> JsonMapper:
    return JsonMapper(FACTS, vault)
