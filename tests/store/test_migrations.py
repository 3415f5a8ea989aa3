"""Numbered steps: a store comes to the newest or stays as it was, and roles get what they need and no more."""

import multiprocessing
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo
import pytest
from samples import OPERATOR
from stores import NOON, Store, as_owner, fill, findings, make, stored

from api.bench.postgres import OWNER, RUNTIME, Database, PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.store import migrations
from tsm.store.migrations import NEWEST, migrate_postgres, migrate_sqlite
from tsm.store.opening import open_recorder
from tsm.store.rows import open_rows

ENGINES = ("sqlite", "postgresql")
EARLIER = """
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tsm FROM PUBLIC, {role};
GRANT USAGE ON SCHEMA tsm TO {role};
GRANT SELECT ON tsm.event, tsm.payload, tsm.migration TO {role};
"""


@pytest.fixture(params=ENGINES)
def nothing(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Store:
    """Where a store may be made."""
    if request.param == "sqlite":
        return Store(tmp_path / "log.sqlite", tmp_path / "log.sqlite")
    database = postgres.fresh_database()
    return Store(database.runtime_dsn, database.owner_dsn)


def migrate(store: Store) -> list[int]:
    if isinstance(store.owner, Path):
        return migrate_sqlite(store.owner)
    return migrate_postgres(store.owner, RUNTIME)


def migrate_up_to(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As the program did when that step was the newest."""
    with monkeypatch.context() as earlier:
        earlier.setattr(migrations, "NEWEST", number)
        earlier.setattr(migrations, "POSTGRES_RIGHTS", EARLIER)
        return migrate(store)


def number_of(store: Store) -> int:
    with as_owner(store) as execute:
        [(number,)] = execute("SELECT max(number) FROM tsm.migration")
    assert isinstance(number, int)
    return number


def test_a_new_store_takes_all_steps_and_a_second_time_none(nothing: Store, vault: SoftwareVault) -> None:
    assert migrate(nothing) == list(range(2, NEWEST + 1))
    assert migrate(nothing) == []
    assert findings(nothing, vault) == []


def test_a_store_of_step_2_comes_to_the_newest_with_what_it_holds(
    nothing: Store, vault: SoftwareVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrate_up_to(nothing, 2, monkeypatch) == [2]
    event = stored(vault, "operator-MNO00001", 1, OPERATOR)
    row = (1, event.originator_id, 1, event.topic, event.state, "2026-11-21T12:00:00.000000Z")
    sealed = vault.seal_payload("operator-MNO00001", "name", b"content")
    with as_owner(nothing) as execute:
        execute("INSERT INTO tsm.event VALUES (?, ?, ?, ?, ?, ?)", *row)
        execute("INSERT INTO tsm.payload VALUES (?, ?, ?)", "operator-MNO00001", "name", sealed)
    with pytest.raises(TsmError, match="stop the server and run `tsm store migrate`") as refused:
        open_recorder(nothing.place, vault)
    assert refused.value.code is ErrorCode.STORE_FORMAT

    assert migrate(nothing) == list(range(3, NEWEST + 1))

    assert findings(nothing, vault) == []
    with closing(open_recorder(nothing.place, vault)) as recorder:
        [found] = recorder.select_events("operator-MNO00001")
        assert (found.id, found.state, found.recorded_at) == (1, event.state, NOON)
        assert recorder.payload("operator-MNO00001", "name") == b"content"


def test_a_step_that_fails_in_the_middle_leaves_the_former_number(
    nothing: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_up_to(nothing, 2, monkeypatch)
    name, statements = migrations.SQLITE_STEPS[3]
    broken = {**migrations.SQLITE_STEPS, 3: (name, (*statements[:2], "CREATE NONSENSE"))}
    monkeypatch.setattr(migrations, "SQLITE_STEPS", broken)
    name, script = migrations.POSTGRES_STEPS[3]
    monkeypatch.setattr(migrations, "POSTGRES_STEPS", {**migrations.POSTGRES_STEPS, 3: (name, script + "NONSENSE;")})
    with pytest.raises(TsmError):
        migrate(nothing)
    assert number_of(nothing) == 2
    monkeypatch.undo()
    assert migrate(nothing) == list(range(3, NEWEST + 1))


def migrate_and_tell(store: Store, told: Any) -> None:
    told.put(migrate(store))


def test_migrations_at_once_take_turns(nothing: Store, vault: SoftwareVault) -> None:
    """One of them takes all steps, the others find nothing to do."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    processes = [context.Process(target=migrate_and_tell, args=(nothing, told)) for _ in range(4)]
    for process in processes:
        process.start()
    taken = sorted((told.get(timeout=60) for _ in processes), key=len)
    for process in processes:
        process.join()
    assert taken == [[], [], [], list(range(2, NEWEST + 1))]
    assert findings(nothing, vault) == []


def test_a_newer_format_is_refused_and_says_what_to_do(nothing: Store, vault: SoftwareVault) -> None:
    migrate(nothing)
    with as_owner(nothing) as execute:
        execute("INSERT INTO tsm.migration VALUES (?, 'of the future', '2030-01-01T00:00:00Z')", NEWEST + 1)
    for use in (
        lambda: migrate(nothing),
        lambda: open_recorder(nothing.place, vault),
        lambda: open_rows(nothing.place),
    ):
        assert_refused(use, ErrorCode.STORE_FORMAT, "take a newer program")


def test_format_1_is_refused_and_left_as_it_is(tmp_path: Path, vault: SoftwareVault) -> None:
    path = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE event (position INTEGER PRIMARY KEY)")
        file.execute("CREATE TABLE store_format (number INTEGER)")
    for use in (lambda: migrate_sqlite(path), lambda: open_recorder(path, vault), lambda: open_rows(path)):
        assert_refused(use, ErrorCode.STORE_FORMAT, "begin with a new store")
    with closing(sqlite3.connect(path)) as file:
        assert len(file.execute("SELECT name FROM sqlite_master").fetchall()) == 2


def test_a_database_without_a_store_says_what_to_do(postgres: PostgresServer, vault: SoftwareVault) -> None:
    place = postgres.fresh_database().runtime_dsn
    assert_refused(lambda: open_recorder(place, vault), ErrorCode.STORE_FORMAT, "run `tsm store migrate`")


def test_a_store_whose_import_has_not_ended_is_not_opened(nothing: Store, vault: SoftwareVault) -> None:
    migrate(nothing)
    with as_owner(nothing) as execute:
        execute("INSERT INTO tsm.migration VALUES (0, 'an import has not ended', '2030-01-01T00:00:00Z')")
    assert_refused(lambda: open_recorder(nothing.place, vault), ErrorCode.STORE_CORRUPT, "repeat `tsm store import`")


def assert_refused(use: Callable[[], object], code: ErrorCode, words: str) -> None:
    with pytest.raises(TsmError) as refused:
        use()
    assert refused.value.code is code
    assert words in refused.value.detail


# Roles


@pytest.fixture
def database(postgres: PostgresServer) -> Database:
    return postgres.fresh_database()


@pytest.fixture
def admin(postgres: PostgresServer) -> Callable[[str], Any]:
    def execute(statement: str) -> None:
        with psycopg.connect(postgres.admin_dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    return execute


def test_the_owner_is_a_plain_role(database: Database, postgres: PostgresServer) -> None:
    """`tsm.append` runs as the owner: a superuser's function would be a way to everything."""
    dsn = database.owner_dsn.replace(f"//{OWNER}@", "//postgres@")
    assert_refused(lambda: migrate_postgres(dsn, RUNTIME), ErrorCode.INVALID_INPUT, "not a superuser")


@pytest.mark.parametrize(
    ("role", "words"),
    [("nobody_knows", "there is no role"), (OWNER, "is the owner"), ("postgres", "may do too much")],
)
def test_the_runtime_role_is_there_and_is_nobody_in_particular(role: str, words: str, database: Database) -> None:
    assert_refused(lambda: migrate_postgres(database.owner_dsn, role), ErrorCode.INVALID_INPUT, words)
    with psycopg.connect(database.owner_dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('tsm')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("give", "take"),
    [
        ("ALTER ROLE tsm_runtime CREATEROLE", "ALTER ROLE tsm_runtime NOCREATEROLE"),
        ("ALTER ROLE tsm_runtime REPLICATION", "ALTER ROLE tsm_runtime NOREPLICATION"),
        ("GRANT tsm_owner TO tsm_runtime", "REVOKE tsm_owner FROM tsm_runtime"),
        ("GRANT pg_write_all_data TO tsm_runtime", "REVOKE pg_write_all_data FROM tsm_runtime"),
        ("GRANT pg_execute_server_program TO tsm_runtime", "REVOKE pg_execute_server_program FROM tsm_runtime"),
    ],
)
def test_a_runtime_role_that_may_do_more_is_refused(
    give: str, take: str, database: Database, admin: Callable[[str], Any]
) -> None:
    admin(give)
    try:
        assert_refused(
            lambda: migrate_postgres(database.owner_dsn, RUNTIME), ErrorCode.INVALID_INPUT, "may do too much"
        )
    finally:
        admin(take)


def test_a_schema_that_somebody_else_made_is_refused(database: Database, postgres: PostgresServer) -> None:
    """Who owns a schema may drop whatever lies in it."""
    name = psycopg.conninfo.conninfo_to_dict(database.owner_dsn)["dbname"]
    with psycopg.connect(postgres.dsn("postgres", str(name)), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA tsm AUTHORIZATION {RUNTIME}".encode())
    assert_refused(
        lambda: migrate_postgres(database.owner_dsn, RUNTIME), ErrorCode.INVALID_INPUT, "belongs to another role"
    )


def test_default_privileges_of_the_owner_do_not_leak_into_the_store(database: Database, vault: SoftwareVault) -> None:
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, {RUNTIME}".encode())
        connection.execute(b"ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC")
    migrate_postgres(database.owner_dsn, RUNTIME)
    assert findings(Store(database.runtime_dsn, database.owner_dsn), vault) == []


def test_a_third_role_with_rights_is_refused(database: Database, admin: Callable[[str], Any]) -> None:
    admin("CREATE ROLE tsm_reporter")
    try:
        with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
            connection.execute(b"ALTER DEFAULT PRIVILEGES GRANT UPDATE ON TABLES TO tsm_reporter")
        assert_refused(
            lambda: migrate_postgres(database.owner_dsn, RUNTIME), ErrorCode.INVALID_INPUT, "tsm_reporter may UPDATE"
        )
        with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
            connection.execute(b"ALTER DEFAULT PRIVILEGES REVOKE UPDATE ON TABLES FROM tsm_reporter")
    finally:
        admin("DROP ROLE tsm_reporter")


def test_migrating_again_takes_back_what_somebody_granted(
    tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    with as_owner(store) as execute:
        execute(f"GRANT ALL ON ALL TABLES IN SCHEMA tsm TO PUBLIC, {RUNTIME}")
        execute(f"GRANT ALL ON SCHEMA tsm TO PUBLIC, {RUNTIME}")
    assert findings(store, vault) != []
    assert migrate(store) == []
    assert findings(store, vault) == []


FORBIDDEN = [
    "INSERT INTO tsm.event VALUES (99, 'x', 1, 't', '', now())",
    "UPDATE tsm.event SET topic = 'x'",
    "DELETE FROM tsm.event",
    "TRUNCATE tsm.event",
    "MERGE INTO tsm.event USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    "COPY tsm.event FROM PROGRAM 'true'",
    "ALTER TABLE tsm.event DISABLE TRIGGER ALL",
    "DROP TRIGGER event_is_not_changed ON tsm.event",
    "DROP TABLE tsm.event",
    "DROP SCHEMA tsm CASCADE",
    "LOCK TABLE tsm.event IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE tsm.mine (x int)",
    "CREATE OR REPLACE FUNCTION tsm.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    "SET session_replication_role = replica",
    "SET ROLE tsm_owner",
    "INSERT INTO tsm.payload VALUES ('a', 'b', '')",
    "DELETE FROM tsm.person_index",
    "UPDATE tsm.command SET digest = ''",
    "UPDATE tsm.migration SET number = 9",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_runtime_role_can_do_nothing_but_read_and_append(
    statement: str, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    fill(store, vault)
    with psycopg.connect(str(store.place), autocommit=True) as runtime, pytest.raises(psycopg.Error):
        runtime.execute(statement.encode())
    assert findings(store, vault) == []


def test_a_temporary_table_does_not_lead_append_astray(
    tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    """The function looks for its tables in its own schema, whatever the caller has made or searches."""
    store = make("postgresql", tmp_path, postgres)
    with psycopg.connect(str(store.place), autocommit=True) as runtime:
        runtime.execute(b"CREATE TEMPORARY TABLE event (LIKE tsm.event)")
        runtime.execute(b"SET search_path = pg_temp")
        runtime.execute(called().encode())
    with as_owner(store) as execute:
        assert execute("SELECT position, originator_id FROM tsm.event") == [(1, "a")]


# A batch that is not well formed is refused as a whole


ARRAYS = {
    "clock": "now()",
    "w_append": "'{0}'", "w_stream": "'{a}'", "w_version": "'{0}'",
    "e_append": "'{0}'", "e_stream": "'{a}'", "e_topic": "'{t}'", "e_state": "ARRAY['\\x7b7d'::bytea]",
    "d_append": "'{}'", "d_stream": "'{}'",
    "p_append": "'{}'", "p_stream": "'{}'", "p_name": "'{}'", "p_sealed": "'{}'",
    "s_append": "'{}'", "s_subject": "'{}'",
    "i_append": "'{}'", "i_index": "'{}'", "i_stream": "'{}'", "i_subject": "'{}'",
    "c_append": "'{}'", "c_id": "'{}'", "c_digest": "'{}'", "c_keep_until": "'{}'",
}  # fmt: skip


def called(**changed: str) -> str:
    return f"SELECT * FROM tsm.append({', '.join((ARRAYS | changed).values())})"  # noqa: S608 - constants only


MALFORMED: dict[str, dict[str, str]] = {
    "no clock": {"clock": "NULL"},
    "a clock that never comes": {"clock": "'infinity'"},
    "fewer states than events": {"e_append": "'{0,0}'", "e_stream": "'{a,a}'", "e_topic": "'{t,t}'"},
    "fewer topics than events": {"e_topic": "'{}'"},
    "fewer versions than streams": {"w_version": "'{}'"},
    "no array of versions": {"w_version": "NULL"},
    "no array of events": {"e_append": "NULL"},
    "no array of commands": {"c_id": "NULL"},
    "an event whose stream is not named": {"e_stream": "'{b}'"},
    "an event of another append": {"e_append": "'{1}'"},
    "an event of no append": {"e_append": "'{NULL}'"},
    "an event of no stream": {"e_stream": "'{NULL}'"},
    "an event without topic": {"e_topic": "'{NULL}'"},
    "an event without state": {"e_state": "'{NULL}'"},
    "a stream of no append": {"w_append": "'{NULL}'"},
    "a stream without name": {
        "w_append": "'{0,0}'", "w_stream": "'{a,NULL}'", "w_version": "'{0,0}'",
    },
    "a stream without version, which is not looked at": {
        "w_append": "'{0,0}'", "w_stream": "'{a,b}'", "w_version": "'{0,NULL}'",
    },
    "a stream that is named twice": {"w_append": "'{0,0}'", "w_stream": "'{a,a}'", "w_version": "'{0,0}'"},
    "a stream that two appends change": {
        "w_append": "'{0,1}'", "w_stream": "'{a,a}'", "w_version": "'{0,0}'",
        "e_append": "'{0,1}'", "e_stream": "'{a,a}'", "e_topic": "'{t,t}'", "e_state": "ARRAY['','']::bytea[]",
    },
    "payloads of unequal number": {"p_append": "'{0}'"},
    "a payload without content": {
        "p_append": "'{0}'", "p_stream": "'{a}'", "p_name": "'{n}'", "p_sealed": "'{NULL}'",
    },
    "a stream of payloads of no append": {"d_append": "'{NULL}'", "d_stream": "'{a}'"},
    "subjects of unequal number": {"s_subject": "'{x}'"},
    "index rows of unequal number": {"i_index": "'{x}'"},
    "an index row without subject": {
        "i_append": "'{0}'", "i_index": "'{x}'", "i_stream": "'{a}'", "i_subject": "'{NULL}'",
    },
    "commands of unequal number": {"c_id": "'{x}'"},
    "a command without digest": {
        "c_append": "'{0}'", "c_id": "'{x}'", "c_digest": "'{NULL}'", "c_keep_until": "'{2030-01-01}'",
    },
    "a command that is given twice": {
        "c_append": "'{0,0}'", "c_id": "'{x,x}'", "c_digest": "'{d,d}'", "c_keep_until": "'{2030-01-01,2030-01-01}'",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def open_store(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Store:
    return make("postgresql", tmp_path_factory.mktemp("open"), postgres)


@pytest.mark.parametrize("name", MALFORMED)
def test_append_refuses_a_malformed_batch_as_a_whole(name: str, open_store: Store) -> None:
    with psycopg.connect(str(open_store.place), autocommit=True) as runtime:
        with pytest.raises(psycopg.Error):
            runtime.execute(called(**MALFORMED[name]).encode())
        assert runtime.execute(b"SELECT count(*) FROM tsm.event").fetchone() == (0,)


def test_append_takes_a_batch_that_is_well_formed(tmp_path: Path, postgres: PostgresServer) -> None:
    """Or the refusals above would prove nothing."""
    store = make("postgresql", tmp_path, postgres)
    with psycopg.connect(str(store.place), autocommit=True) as runtime:
        row = runtime.execute(called().encode()).fetchone()
        assert row is not None and row[0] == 0 and row[3] == []


# DSNs


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://tsm:p%zzSECRET@127.0.0.1/tsm",
        "postgresql://tsm:p@SECRET@127.0.0.1/tsm",
        "postgresql://tsm:p/SECRET@127.0.0.1/tsm",
        "postgresql://tsm:1/SECRET@127.0.0.1/tsm",
        "postgresql://tsm:SECRET/@127.0.0.1/tsm",
        "postgresql://tsm:SECRET@127.0.0.1:port/tsm",
        "postgresql://tsm:SECRET@127.0.0.1/tsm?sslmode",
        "postgresql://tsm:SECRET@127.0.0.1/tsm?nonsense=SECRET",
        "postgresql://tsm:SECRET@[::1/tsm",
        "postgresql://tsm:SECRET@127.0.0.1:1/tsm",  # nobody is there
    ],
)
def test_no_part_of_a_password_is_repeated(
    dsn: str, vault: SoftwareVault, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    uses: tuple[Callable[[], object], ...] = (
        lambda: migrate_postgres(dsn, RUNTIME),
        lambda: open_recorder(dsn, vault),
        lambda: open_rows(dsn),
    )
    for use in uses:
        with pytest.raises(TsmError) as refused:
            use()
        said = f"{refused.value} {refused.value.__cause__} {caplog.text} {''.join(capfd.readouterr())}"
        assert "SECRET" not in said
