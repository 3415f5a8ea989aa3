"""The server of tests and bench: it comes up anywhere, keeps what it acknowledges, and leaves nothing behind."""

import os
import shutil
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
import pytest
from writers import started

from api.bench.postgres import OWNER, RUNTIME, SETTINGS, PostgresServer, wheel_binaries
from tsm.errors import ErrorCode, TsmError


def test_it_runs_from_binaries_that_only_we_can_reach(tmp_path: Path) -> None:
    """As below root's home: whoever the server runs as gets a copy."""
    tmp_path.chmod(0o700)
    prefix = wheel_binaries().parent
    wheel, libraries = prefix.parent, prefix.parent.with_name(f"{prefix.parent.name}.libs")
    shutil.copytree(prefix, tmp_path / wheel.name / prefix.name, symlinks=True)
    shutil.copytree(libraries, tmp_path / libraries.name)
    with (
        PostgresServer(tmp_path / wheel.name / prefix.name / "bin") as server,
        psycopg.connect(server.runtime_dsn) as connection,
    ):
        assert connection.execute("SELECT current_user").fetchone() == (RUNTIME,)


def test_it_runs_as_somebody_who_is_not_root_in_a_folder_of_his_own(postgres: PostgresServer) -> None:
    data = (postgres.folder / "data").stat()
    assert data.st_uid != 0
    assert data.st_mode & 0o077 == 0
    if os.geteuid() != 0:
        assert data.st_uid == os.geteuid()


def test_what_it_acknowledges_is_on_the_disk(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.runtime_dsn) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == ("on",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_neither_role_has_rights_over_others(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.owner_dsn) as connection:
        rights = connection.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
            " FROM pg_roles WHERE rolname IN (%s, %s) ORDER BY rolname",
            (OWNER, RUNTIME),
        ).fetchall()
    assert rights == [(OWNER, False), (RUNTIME, False)]


def test_databases_are_apart_and_can_go(postgres: PostgresServer) -> None:
    one, other = postgres.fresh_database(), postgres.fresh_database()
    with psycopg.connect(one.owner_dsn) as connection:
        connection.execute("CREATE TABLE here (a int)")
    with closing(psycopg.connect(other.owner_dsn, autocommit=True)) as connection:
        assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)
        postgres.drop(one)
        postgres.drop(other)  # although somebody is connected to it
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(one.owner_dsn)


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "max_connections", "many")
    server = PostgresServer()
    with pytest.raises(TsmError) as refusal, server:
        pass
    assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
    assert "max_connections" in refusal.value.detail
    assert not server.folder.exists()


def test_what_was_committed_is_there_after_every_way_to_stop() -> None:
    with PostgresServer() as server:
        folder = server.folder
        with psycopg.connect(server.owner_dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        stops = [lambda: server.stop("smart"), server.stop, lambda: server.stop("immediate"), server.kill9]
        for number, stop in enumerate(stops):
            with psycopg.connect(server.owner_dsn, autocommit=True) as connection:
                connection.execute("INSERT INTO kept VALUES (%s)", (number,))
            stop()
            server.start()
        with psycopg.connect(server.owner_dsn) as connection:
            assert connection.execute("SELECT number FROM kept ORDER BY 1").fetchall() == [(n,) for n in range(4)]
    assert not folder.exists()


def serve_until_killed(report: Connection) -> None:
    with PostgresServer() as server:
        report.send((server.folder, server.runtime_dsn))
        report.recv()


def test_it_goes_with_whoever_started_it_even_when_he_is_killed() -> None:
    with started(serve_until_killed) as (process, pipe):
        folder, dsn = pipe.recv()
        connection = psycopg.connect(dsn)
        process.kill()
        with closing(connection), pytest.raises(psycopg.OperationalError):
            while connection.execute("SELECT 1"):
                time.sleep(0.01)
    while folder.exists():
        time.sleep(0.05)
