"""PostgreSQL: an erasure is over when no page of the database holds the person's index row any more."""

import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent

from api.bench.postgres import RUNTIME, Database, PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.store import postgres as recording
from tsm.store.migrations import migrate_postgres
from tsm.store.postgres import PostgresRecorder
from tsm.store.recorder import IndexRow

VALUE = secrets.token_hex(32)


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    made = postgres.fresh_database()
    migrate_postgres(made.owner_dsn, RUNTIME)
    yield made
    postgres.drop(made)


@pytest.fixture
def recorder(database: Database, vault: SoftwareVault, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresRecorder]:
    """One person's index row, and others that stay."""
    monkeypatch.setattr(recording, "REMAINS_WITHIN", 0.0)
    with closing(PostgresRecorder(database.runtime_dsn, vault)) as recorder:
        rows = [IndexRow(VALUE, "a", "erased"), *(IndexRow(f"{n}", "a", "others") for n in range(5))]
        recorder.insert_events([StoredEvent("a", 1, "t", b"{}")], put_index=rows)
        yield recorder


def pages_hold(value: str, server: PostgresServer) -> bool:
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute("CHECKPOINT")
    files = [path for path in (Path(server.folder) / "data" / "base").rglob("*") if path.is_file()]
    return any(value.encode() in octets_of(path) for path in files)


def octets_of(path: Path) -> bytes:
    """None of a file that the server has removed since it was found: it makes those of its caches anew."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


@pytest.mark.parametrize("dropped", [["erased"], ["erased", "others"]])
def test_what_was_dropped_is_in_no_page(
    dropped: list[str], recorder: PostgresRecorder, postgres: PostgresServer
) -> None:
    assert recorder.indexed(VALUE)
    recorder.insert_events([StoredEvent("a", 2, "t", b"{}")], drop_index=dropped)
    recorder.erase_remains()
    assert not pages_hold(VALUE, postgres)


def test_it_is_not_over_while_a_transaction_may_still_see_the_row(
    recorder: PostgresRecorder, database: Database, postgres: PostgresServer
) -> None:
    """Such as an export, which has not come to the index rows yet."""
    with psycopg.connect(database.runtime_dsn, autocommit=True) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        reader.execute("SELECT FROM tsm.event").fetchall()
        recorder.insert_events([StoredEvent("a", 2, "t", b"{}")], drop_index=["erased"])
        with pytest.raises(TsmError) as refusal:
            recorder.erase_remains()
        assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
    recorder.erase_remains()
    assert not pages_hold(VALUE, postgres)
