"""The way to a PostgreSQL elsewhere: the recorder speaks to the server that it means, or not at all."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from engines import PlainSealer, entries, stored, whole_log

from api import certificates
from api.bench.postgres import RUNTIME, Database, PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.store.migrations import migrate_postgres
from tsm.store.opening import open_recorder


@pytest.fixture(scope="module")
def over_tls(postgres_binaries: Path) -> Iterator[Database]:
    with PostgresServer(postgres_binaries, tls=True) as server:
        database = server.fresh_database()
        migrate_postgres(database.owner_dsn, RUNTIME)
        yield database


def other_root(folder: Path) -> str:
    certificates.create_authority(folder)
    return quote(str(folder / "ca.pem"), safe="")


def refused(dsn: str) -> TsmError:
    with pytest.raises(TsmError) as refusal:
        open_recorder(dsn, PlainSealer())
    return refusal.value


def test_with_the_right_root_everything_goes_over_tls(over_tls: Database) -> None:
    assert "sslmode=verify-full" in over_tls.runtime_dsn
    with psycopg.connect(over_tls.runtime_dsn) as connection:
        assert connection.pgconn.ssl_in_use
    with closing(open_recorder(over_tls.runtime_dsn, PlainSealer())) as recorder:
        head = recorder.max_notification_id() or 0
        assert recorder.insert_events([stored("a", head + 1, b"x" * 100_000)]) == [head + 1]
        assert entries(whole_log(recorder))[-1].state == b"x" * 100_000


def test_a_server_of_another_root_is_refused(over_tls: Database, tmp_path: Path) -> None:
    before, _, _ = over_tls.runtime_dsn.partition("sslrootcert=")
    refusal = refused(f"{before}sslrootcert={other_root(tmp_path)}")
    assert refusal.code is ErrorCode.STORE_UNAVAILABLE
    assert "certificate verify failed" in refusal.detail


def test_a_server_of_another_name_is_refused(over_tls: Database) -> None:
    refusal = refused(over_tls.runtime_dsn.replace("@127.0.0.1:", "@localhost:"))
    assert refusal.code is ErrorCode.STORE_UNAVAILABLE


def test_a_root_that_is_missing_is_refused(over_tls: Database, tmp_path: Path) -> None:
    before, _, _ = over_tls.runtime_dsn.partition("sslrootcert=")
    missing = quote(str(tmp_path / "missing.pem"), safe="")
    assert refused(f"{before}sslrootcert={missing}").code is ErrorCode.STORE_UNAVAILABLE


def test_the_server_here_speaks_to_nobody_without_tls(over_tls: Database) -> None:
    open_way = over_tls.runtime_dsn.replace("sslmode=verify-full", "sslmode=disable&connect_timeout=5")
    assert refused(open_way).code is ErrorCode.STORE_UNAVAILABLE
