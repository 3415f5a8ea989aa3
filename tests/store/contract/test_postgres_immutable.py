"""PostgreSQL: whoever has the server's own connection can append, and can do nothing else to what is recorded."""

# ruff: noqa: S608 - the statements are made of constants
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from engines import PlainSealer, PostgresEngine, stored, whole_log
from psycopg import errors
from writers import FAR, whole

from api.bench.postgres import OWNER, RUNTIME, PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.store.guards import postgres_faults
from tsm.store.migrations import APPEND_LOCK, NEWEST, migrate_postgres
from tsm.store.opening import open_recorder
from tsm.store.postgres import APPEND
from tsm.store.recorder import Recorder

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NEW = "(3, 'w', 2, 't', '\\x00', now())"
AGAIN = "(1, 'w', 1, 't', '\\x00', now())"


@pytest.fixture
def recorder(on_postgres: PostgresEngine) -> Recorder:
    """Two events, a payload, an index row and a command."""
    recorder = on_postgres.open()
    recorder.append([whole("w", 0)])
    return recorder


@pytest.fixture(scope="module")
def attacked(postgres: PostgresServer) -> Iterator[PostgresEngine]:
    """One store for all that is tried: whoever tries it has to leave it as it was."""
    database = postgres.fresh_database()
    migrate_postgres(database.owner_dsn, RUNTIME)
    with closing(PostgresEngine(PlainSealer(), database)) as engine:
        engine.open().append([whole("w", 0)])
        yield engine
    postgres.drop(database)


@pytest.fixture
def intruder(attacked: PostgresEngine) -> Iterator["psycopg.Connection[Any]"]:
    """With the rights of the server; nothing may be otherwise after he has tried."""
    before = attacked.everything()
    with attacked.runtime() as connection:
        yield connection
    assert attacked.everything() == before
    with attacked.owner() as owner:
        assert postgres_faults(owner, RUNTIME) == []  # tables, guards, functions and rights are as they were


FORBIDDEN = [
    f"INSERT INTO tsm.event VALUES {NEW}",
    f"INSERT INTO tsm.event VALUES {AGAIN} ON CONFLICT DO NOTHING",
    f"INSERT INTO tsm.event VALUES {AGAIN} ON CONFLICT (position) DO UPDATE SET state = excluded.state",
    f"INSERT INTO tsm.event VALUES {AGAIN} ON CONFLICT (originator_id, originator_version)"
    " DO UPDATE SET state = excluded.state",
    "INSERT INTO tsm.event SELECT * FROM tsm.event",
    "UPDATE tsm.event SET state = '\\x00'",
    "UPDATE tsm.event SET recorded_at = now() WHERE position = 1",
    "UPDATE ONLY tsm.event SET position = 7 WHERE position = 2",
    "DELETE FROM tsm.event",
    "DELETE FROM tsm.event WHERE position = 2",
    "WITH gone AS (DELETE FROM tsm.event RETURNING *) SELECT * FROM gone",
    "TRUNCATE tsm.event",
    "TRUNCATE tsm.event, tsm.payload CASCADE",
    "MERGE INTO tsm.event AS e USING (SELECT 1 AS p) AS o ON e.position = o.p WHEN MATCHED THEN DELETE",
    "MERGE INTO tsm.event AS e USING (SELECT 1 AS p) AS o ON e.position = o.p"
    " WHEN MATCHED THEN UPDATE SET state = '\\x00'",
    "MERGE INTO tsm.event AS e USING (SELECT 9 AS p) AS o ON e.position = o.p"
    f" WHEN NOT MATCHED THEN INSERT VALUES {NEW}",
    "SELECT * FROM tsm.event FOR UPDATE",
    "DO $$ BEGIN LOCK TABLE tsm.event IN ACCESS EXCLUSIVE MODE; END $$",
    "DO $$ BEGIN LOCK TABLE tsm.event IN SHARE MODE; END $$",
    "DROP TRIGGER event_is_not_changed ON tsm.event",
    "ALTER TABLE tsm.event DISABLE TRIGGER event_is_not_changed",
    "ALTER TABLE tsm.event DISABLE TRIGGER ALL",
    "CREATE TRIGGER mine BEFORE INSERT ON tsm.event EXECUTE FUNCTION tsm.refuse()",
    "CREATE RULE mine AS ON INSERT TO tsm.event DO INSTEAD NOTHING",
    "ALTER TABLE tsm.event ADD COLUMN mine int",
    "ALTER TABLE tsm.event DROP CONSTRAINT event_pkey",
    "ALTER TABLE tsm.event RENAME TO other",
    "ALTER TABLE tsm.event OWNER TO CURRENT_USER",
    "ALTER TABLE tsm.event SET SCHEMA public",
    "ALTER TABLE tsm.event ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON tsm.event USING (false)",
    "CREATE TABLE tsm_views.mine () INHERITS (tsm.event)",
    "CREATE INDEX mine ON tsm.event (topic)",
    "DROP TABLE tsm.event",
    "DROP TABLE tsm.payload, tsm.person_index, tsm.command",
    "DROP SCHEMA tsm CASCADE",
    "ALTER SCHEMA tsm RENAME TO other",
    "CREATE TABLE tsm.mine (a int)",
    "CREATE FUNCTION tsm.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION tsm.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "DROP FUNCTION tsm.append",
    "DROP FUNCTION tsm.refuse CASCADE",
    "ALTER FUNCTION tsm.append SECURITY INVOKER",
    "ALTER FUNCTION tsm.append SET search_path = tsm_views",
    "ALTER FUNCTION tsm.append OWNER TO CURRENT_USER",
    "GRANT ALL ON FUNCTION tsm.refuse TO CURRENT_USER",
    "SET session_replication_role = replica",
    "SET allow_system_table_mods = on",
    f"SET ROLE {OWNER}",
    f"SET SESSION AUTHORIZATION {OWNER}",
    f"GRANT {OWNER} TO {RUNTIME}",
    f"ALTER ROLE {RUNTIME} SUPERUSER",
    "UPDATE pg_class SET relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user) WHERE relname = 'event'",
    "UPDATE pg_trigger SET tgenabled = 'D'",
    "DELETE FROM pg_trigger",
    "INSERT INTO tsm.payload VALUES ('w', 'mine', '\\x00')",
    "UPDATE tsm.payload SET sealed = '\\x00'",
    "DELETE FROM tsm.payload",
    "TRUNCATE tsm.payload",
    "INSERT INTO tsm.person_index VALUES ('v', 'w', 's')",
    "UPDATE tsm.person_index SET stream = 'other'",
    "DELETE FROM tsm.person_index",
    "TRUNCATE tsm.person_index",
    "INSERT INTO tsm.command VALUES ('k', 'd', 1, 1, 1, now())",
    "UPDATE tsm.command SET digest = 'other'",
    "TRUNCATE tsm.command",
    "INSERT INTO tsm.migration VALUES (9, 'mine', now())",
    "UPDATE tsm.migration SET number = 9",
    "DELETE FROM tsm.migration",
    "TRUNCATE tsm.migration",
    "COPY tsm.event TO PROGRAM 'true'",
    "COPY tsm.event FROM '/dev/null'",
    "DO LANGUAGE plpgsql $$ BEGIN UPDATE tsm.event SET state = '\\x00'; END $$",
    "PREPARE mine AS DELETE FROM tsm.event; EXECUTE mine",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_runtime_role_is_refused(statement: str, intruder: "psycopg.Connection[Any]") -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        intruder.execute(statement.encode())


@pytest.mark.parametrize("table", ["event", "payload", "person_index", "command", "migration"])
def test_nor_does_it_copy_rows_in(table: str, intruder: "psycopg.Connection[Any]") -> None:
    with pytest.raises(errors.InsufficientPrivilege), intruder.cursor().copy(f"COPY tsm.{table} FROM STDIN".encode()):
        pass


@pytest.mark.parametrize("grant", ["GRANT ALL ON tsm.event TO CURRENT_USER", "GRANT INSERT ON tsm.event TO PUBLIC"])
def test_it_gives_nobody_what_it_does_not_have(grant: str, intruder: "psycopg.Connection[Any]") -> None:
    """PostgreSQL only warns here; what counts is that nothing was granted."""
    intruder.execute(grant.encode())
    with pytest.raises(errors.InsufficientPrivilege):
        intruder.execute(f"INSERT INTO tsm.event VALUES {NEW}".encode())


def test_the_check_would_notice(on_postgres: PostgresEngine, recorder: Recorder) -> None:
    """A check that refuses everything proves nothing: these are the things that the role is for."""
    with on_postgres.runtime() as runtime:
        for table in ("event", "payload", "person_index", "command", "migration"):
            assert runtime.execute(f"SELECT * FROM tsm.{table}".encode()).fetchall()
        assert runtime.execute("DELETE FROM tsm.command").rowcount == 1
        runtime.execute("CREATE TABLE tsm_views.mine (a int)")
    with on_postgres.owner() as owner:
        owner.execute("ALTER TABLE tsm.event DISABLE TRIGGER event_is_not_changed")
        assert postgres_faults(owner, RUNTIME)


# --- the owner ---


OWNERS = [
    "UPDATE tsm.event SET state = '\\x00'",
    "UPDATE tsm.event SET recorded_at = now() WHERE position = 1",
    "DELETE FROM tsm.event WHERE position = 2",
    "TRUNCATE tsm.event",
    "TRUNCATE tsm.event CASCADE",
    f"INSERT INTO tsm.event VALUES {AGAIN} ON CONFLICT (position) DO UPDATE SET state = excluded.state",
    "MERGE INTO tsm.event AS e USING (SELECT 1 AS p) AS o ON e.position = o.p WHEN MATCHED THEN DELETE",
    "INSERT INTO tsm.event VALUES (0, 'x', 1, 't', '\\x00', now())",
    "INSERT INTO tsm.event VALUES (3, 'x', 0, 't', '\\x00', now())",
    f"INSERT INTO tsm.event VALUES {AGAIN}",
]


@pytest.mark.parametrize("statement", OWNERS)
def test_even_the_owner_is_refused_as_long_as_the_guards_are_there(statement: str, attacked: PostgresEngine) -> None:
    before = attacked.everything()
    with attacked.owner() as owner, pytest.raises(psycopg.IntegrityError):
        owner.execute(statement.encode())
    assert attacked.everything() == before


def test_nor_does_a_superuser_pass_the_guards_as_a_replica(
    on_postgres: PostgresEngine, recorder: Recorder, postgres: PostgresServer
) -> None:
    """The triggers fire ALWAYS: the setting that switches others off leaves them on."""
    name = psycopg.conninfo.conninfo_to_dict(on_postgres.database.owner_dsn)["dbname"]
    with psycopg.connect(postgres.dsn("postgres", str(name)), autocommit=True) as superuser:
        superuser.execute("SET session_replication_role = replica")
        for statement in ("UPDATE tsm.event SET state = '\\x00'", "DELETE FROM tsm.event", "TRUNCATE tsm.event"):
            with pytest.raises(psycopg.IntegrityError):
                superuser.execute(statement)
    assert len(whole_log(recorder)) == 2


# --- the one way in ---


ARRAYS = (
    "w_append", "w_stream", "w_version", "e_append", "e_stream", "e_topic", "e_state", "d_append", "d_stream",
    "p_append", "p_stream", "p_name", "p_sealed", "s_append", "s_subject",
    "i_append", "i_index", "i_stream", "i_subject", "c_append", "c_id", "c_digest", "c_keep_until",
)  # fmt: skip
EMPTY: dict[str, list[Any]] = {name: [] for name in ARRAYS}
SOUND = {
    **EMPTY,
    "w_append": [0], "w_stream": ["x"], "w_version": [0],
    "e_append": [0], "e_stream": ["x"], "e_topic": ["t"], "e_state": [b"{}"],
}  # fmt: skip
MALFORMED: dict[str, tuple[object, dict[str, list[Any]]]] = {
    "no time": (None, {}),
    "an endless time": ("infinity", {}),
    "a time before all times": ("-infinity", {}),
    "a time that Python cannot read": ("20000-01-01", {}),
    "a time before Christ": ("0001-01-01 BC", {}),
    "an event of a stream that it does not rest on": (NOW, {"e_stream": ["w"]}),
    "an event of an append that rests on nothing": (NOW, {"e_append": [1]}),
    "one stream named twice": (NOW, {"w_append": [0, 0], "w_stream": ["x", "x"], "w_version": [0, 0]}),
    "a known stream named twice": (
        NOW, {"w_append": [0, 0], "w_stream": ["w", "w"], "w_version": [1, 1], "e_stream": ["w"]}),
    "two appends to one stream": (NOW, {
        "w_append": [0, 1], "w_stream": ["x", "x"], "w_version": [0, 0],
        "e_append": [0, 1], "e_stream": ["x", "x"], "e_topic": ["t", "t"], "e_state": [b"1", b"2"]}),
    "no version": (NOW, {"w_version": [None]}),
    "no stream": (NOW, {"w_stream": [None]}),
    "no append": (NOW, {"w_append": [None]}),
    "an event without an append": (NOW, {"e_append": [None]}),
    "an event without a stream": (NOW, {"e_stream": [None]}),
    "an event without a topic": (NOW, {"e_topic": [None]}),
    "an event without content": (NOW, {"e_state": [None]}),
    "no array of versions": (NOW, {"w_version": None}),  # type: ignore[dict-item]
    "no array of events": (NOW, {"e_append": None}),  # type: ignore[dict-item]
    "a payload without a name": (NOW, {"p_append": [0], "p_stream": ["x"], "p_name": [None], "p_sealed": [b""]}),
    "a payload without an append": (NOW, {"p_append": [None], "p_stream": ["x"], "p_name": ["n"], "p_sealed": [b""]}),
    "streams to drop without an append": (NOW, {"d_append": [None], "d_stream": ["w"]}),
    "an index row without a subject": (
        NOW, {"i_append": [0], "i_index": ["v"], "i_stream": ["x"], "i_subject": [None]}),
    "a command without a digest": (NOW, {"c_append": [0], "c_id": ["k"], "c_digest": [None], "c_keep_until": [FAR]}),
    "a command without an append": (NOW, {"c_append": [None], "c_id": ["k"], "c_digest": ["d"], "c_keep_until": [FAR]}),
    "two commands of one name": (
        NOW, {"c_append": [0, 0], "c_id": ["k", "k"], "c_digest": ["d", "d"], "c_keep_until": [FAR, FAR]}),
    **{f"one {name} too many": (NOW, {name: [*SOUND[name], SOUND[name][0]]}) for name in (
        "w_append", "w_stream", "w_version", "e_append", "e_stream", "e_topic", "e_state")},
    **{f"one {name} too few": (NOW, {name: []}) for name in (
        "w_append", "w_stream", "w_version", "e_append", "e_stream", "e_topic", "e_state")},
    **{f"a {name} alone": (NOW, {name: [value]}) for name, value in {
        "d_append": 0, "d_stream": "w", "p_append": 0, "p_stream": "w", "p_name": "last", "p_sealed": b"",
        "s_append": 0, "s_subject": "w", "i_append": 0, "i_index": "v", "i_stream": "w", "i_subject": "w",
        "c_append": 0, "c_id": "k", "c_digest": "d", "c_keep_until": FAR}.items()},
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_batch_is_refused_as_a_whole(what: str, intruder: "psycopg.Connection[Any]") -> None:
    clock, wrong = MALFORMED[what]
    with pytest.raises(psycopg.Error):
        call(intruder, clock, {**SOUND, **wrong})


def test_a_sound_batch_is_taken_and_numbered_by_the_database(on_postgres: PostgresEngine, recorder: Recorder) -> None:
    """Nobody who calls it can choose positions, versions or an earlier time."""
    with on_postgres.runtime() as runtime:
        call(runtime, datetime(2000, 1, 1, tzinfo=UTC), SOUND)
        call(runtime, NOW, {**SOUND, "w_version": [5]})  # refused, as the answer says
    log = whole_log(recorder)
    assert [(e.id, e.originator_id, e.originator_version) for e in log] == [(1, "w", 1), (2, "w-too", 1), (3, "x", 1)]
    assert log[2].recorded_at == log[1].recorded_at


def call(connection: "psycopg.Connection[Any]", clock: object, arrays: dict[str, list[Any]]) -> object:
    assert list(arrays) == list(EMPTY)
    return connection.execute(APPEND.replace("%b", "%s"), [clock, *arrays.values()]).fetchone()


def test_the_function_does_not_take_tables_or_operators_of_others_for_its_own(
    on_postgres: PostgresEngine, recorder: Recorder
) -> None:
    """It runs as the owner: whoever calls it must not be able to put something in its way."""
    with on_postgres.runtime() as runtime:
        runtime.execute("CREATE TEMP TABLE event (LIKE tsm.event)")
        runtime.execute("CREATE TEMP TABLE payload (LIKE tsm.payload)")
        runtime.execute("CREATE TABLE tsm_views.event (LIKE tsm.event)")
        runtime.execute(
            "CREATE FUNCTION tsm_views.isfinite(timestamptz) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'called as %', current_user; END $$"
        )
        runtime.execute("SET search_path = pg_temp, tsm_views, tsm, pg_catalog")
        call(runtime, NOW, SOUND)
        assert runtime.execute("SELECT * FROM pg_temp.event").fetchall() == []
    assert recorder.max_notification_id() == 3


# --- the server ---


def test_a_server_that_would_lose_commits_is_refused(postgres: PostgresServer) -> None:
    database = postgres.fresh_database()
    migrate_postgres(database.owner_dsn, RUNTIME)
    name = psycopg.conninfo.conninfo_to_dict(database.owner_dsn)["dbname"]
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        admin.execute(f'ALTER ROLE {RUNTIME} IN DATABASE "{name}" SET synchronous_commit = off'.encode())
    with pytest.raises(TsmError) as refusal:
        open_recorder(database.runtime_dsn, PlainSealer())
    postgres.drop(database)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("number", [NEWEST - 1, NEWEST + 1])
def test_another_format_is_refused(number: int, on_postgres: PostgresEngine) -> None:
    with on_postgres.owner() as owner:
        owner.execute("DELETE FROM tsm.migration")
        owner.execute("INSERT INTO tsm.migration VALUES (%s, 'a step', now())", (number,))
    with pytest.raises(TsmError) as refusal:
        on_postgres.open()
    assert refusal.value.code is ErrorCode.STORE_FORMAT


def test_an_empty_database_is_refused(postgres: PostgresServer) -> None:
    database = postgres.fresh_database()
    with pytest.raises(TsmError) as refusal:
        open_recorder(database.runtime_dsn, PlainSealer())
    postgres.drop(database)
    assert refusal.value.code is ErrorCode.STORE_FORMAT


def test_a_server_is_not_led_astray_by_an_isolation_that_its_role_was_given(
    on_postgres: PostgresEngine, postgres: PostgresServer
) -> None:
    """A look at the log from before its lock was held would give positions that are taken."""
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {RUNTIME} SET default_transaction_isolation = 'repeatable read'")
        try:
            recorder = on_postgres.open()
        finally:
            admin.execute(f"ALTER ROLE {RUNTIME} RESET default_transaction_isolation")
    with on_postgres.owner() as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))
        appended = threads.submit(recorder.insert_events, [stored("mine")])
        while not other.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall():
            pass
        call(other, NOW, SOUND)
        other.execute("COMMIT")
        assert appended.result() == [2]
