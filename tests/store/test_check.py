"""`tsm store check`: it finds nothing in a sound store, and whatever somebody has done to another."""

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent
from stores import (
    CARD_STREAM,
    LOAD_FILE_STREAM,
    RELEASED,
    Execute,
    Store,
    as_owner,
    fill,
    findings,
    make,
    stored,
    unguarded,
)

from api.bench.postgres import PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.model.topics import FACTS
from tsm.store.check import MOST_FINDINGS, Check, Finding
from tsm.store.mapper import JsonMapper
from tsm.store.migrations import migrate_sqlite
from tsm.store.opening import open_recorder
from tsm.store.recorder import Append
from tsm.store.rows import open_rows

ENGINES = ("sqlite", "postgresql")
PAGE_OF_A_FILE = 4096  # octets


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault) -> Store:
    made = make(request.param, tmp_path, postgres)
    fill(made, vault)
    return made


def test_nothing_is_found_in_a_sound_store(store: Store, vault: SoftwareVault) -> None:
    with closing(open_rows(store.place)) as rows:
        report = Check(rows, JsonMapper(FACTS, vault), vault, lambda *_: None).run()
    assert report.findings == ()
    assert (report.head, report.events, report.streams) == (13, 13, 8)
    assert (report.payloads, report.index_rows, report.commands, report.erased) == (1, 1, 1, 0)


def test_nothing_is_found_in_an_empty_store(tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault) -> None:
    assert [findings(make(engine, tmp_path, postgres), vault) for engine in ENGINES] == [[], []]


def test_erased_fields_are_counted_and_are_no_finding(store: Store, vault: SoftwareVault) -> None:
    vault.destroy_subject("credential-1")
    with closing(open_rows(store.place)) as rows:
        report = Check(rows, JsonMapper(FACTS, vault), vault, lambda *_: None).run()
    assert (report.findings, report.erased, report.lost) == ((), 2, 0)


def test_keys_that_were_lost_and_not_destroyed_are_counted_apart(
    store: Store, vault: SoftwareVault, tmp_path: Path
) -> None:
    """As after a restored copy of the key store from before these persons applied."""
    with closing(sqlite3.connect(tmp_path / "vault" / "datakeys.sqlite", isolation_level=None)) as keys:
        keys.execute("DELETE FROM data_key WHERE subject = 'credential-2'")
    vault.destroy_subject("credential-1")
    with closing(open_rows(store.place)) as rows:
        report = Check(rows, JsonMapper(FACTS, vault), vault, lambda *_: None).run()
    assert (report.findings, report.erased, report.lost) == ((), 4, 2)


def edited(change: Callable[[dict[str, object]], object], position: int) -> Callable[[Execute], None]:
    """Somebody edits the envelope of one event."""

    def tamper(execute: Execute) -> None:
        [(state,)] = execute("SELECT state FROM tsm.event WHERE position = ?", position)
        assert isinstance(state, bytes)
        envelope = json.loads(state)
        change(envelope)
        execute("UPDATE tsm.event SET state = ? WHERE position = ?", json.dumps(envelope).encode(), position)

    return tamper


def said(statement: str, *values: object) -> Callable[[Execute], None]:
    def tamper(execute: Execute) -> None:
        execute(statement, *values)

    return tamper


def swapped_ciphertexts(execute: Execute) -> None:
    rows = execute("SELECT state FROM tsm.event WHERE position IN (7, 8) ORDER BY position")
    first, second = (json.loads(state) for (state,) in rows)  # type: ignore[arg-type]
    first["data"]["applicant"], second["data"]["applicant"] = second["data"]["applicant"], first["data"]["applicant"]
    for position, envelope in ((7, first), (8, second)):
        execute("UPDATE tsm.event SET state = ? WHERE position = ?", json.dumps(envelope).encode(), position)


def swapped_rows(execute: Execute) -> None:
    for taken, given in ((10, 100), (11, 10), (100, 11)):
        execute("UPDATE tsm.event SET position = ? WHERE position = ?", given, taken)


TAMPERED: dict[str, tuple[Callable[[Execute], None], list[tuple[int | None, str | None, str]]]] = {
    "a state that is cut off": (
        said("UPDATE tsm.event SET state = ? WHERE position = 3", b'{"topic": "provider.enr'),
        [(3, "provider-JPKI0001", "DecodeError")],
    ),
    "a state of another kind": (
        edited(lambda e: e.update(data={"operator": 7}), 1),
        [(1, "operator-MNO00001", "ValidationError")],
    ),
    "an envelope of another stream": (
        edited(lambda e: e.update(stream="operator-MNO00002"), 1),
        [(1, "operator-MNO00001", "lies in another place than it says")],
    ),
    "an envelope with another number": (
        edited(lambda e: e.update(number=4), 10),
        [(10, CARD_STREAM, "lies in another place than it says")],
    ),
    "a row with another topic": (
        said("UPDATE tsm.event SET topic = 'card.registered' WHERE position = 9"),
        [(9, CARD_STREAM, "lies in another place than it says")],
    ),
    "a topic that nobody knows": (
        edited(lambda e: e.update(version=99), 2),
        [(2, "authority-jpki", "newer than we are")],
    ),
    "two ciphertexts that were swapped": (
        swapped_ciphertexts,
        [(7, "credential-1", "was sealed elsewhere"), (8, "credential-2", "was sealed elsewhere")],
    ),
    "a ciphertext that was changed": (
        edited(lambda e: e["data"]["applicant"].update(value="AAAA" * 12), 8),  # type: ignore[index]
        [(8, "credential-2", "was sealed elsewhere")],
    ),
    "a row that was deleted in the middle": (
        said("DELETE FROM tsm.event WHERE position = 10"),
        [(11, None, "10 is the next position, not 11"), (11, CARD_STREAM, "version 3 is expected, 4 is here")],
    ),
    "a first event that was deleted": (
        said("DELETE FROM tsm.event WHERE position = 1"),
        [(2, None, "1 is the next position, not 2")],
    ),
    "a stream that begins in the middle": (
        said("DELETE FROM tsm.event WHERE position = 6"),
        [(7, None, "6 is the next position, not 7"), (9, CARD_STREAM, "version 1 is expected, 2 is here")],
    ),
    "two rows that changed places": (
        swapped_rows,
        [
            (11, None, "recorded_at is before that of the event before"),
        ],
    ),
    "a time that was put back": (
        said("UPDATE tsm.event SET recorded_at = '2026-11-21T11:00:00.000000Z' WHERE position = 4"),
        [(4, None, "recorded_at is before that of the event before")],
    ),
    "a time that was put forward": (
        said("UPDATE tsm.event SET recorded_at = '2027-11-21T11:00:00.000000Z' WHERE position = 12"),
        [(13, None, "recorded_at is before that of the event before")],
    ),
    "a payload that was changed": (
        said("UPDATE tsm.payload SET sealed = ?", bytes(64)),
        [(None, LOAD_FILE_STREAM, "does not open")],
    ),
    "a payload of another stream": (
        said("UPDATE tsm.payload SET stream = 'catalogue-00'"),
        [
            (None, "catalogue-00", "a payload of a stream without events"),
            (None, "catalogue-00", "does not open"),
        ],
    ),
    "an index row that leads nowhere": (
        said("UPDATE tsm.person_index SET stream = 'credential-9'"),
        [(None, "credential-9", "an index row of a stream without events")],
    ),
    "a command that names positions to come": (
        said("UPDATE tsm.command SET head = 99, last = 99"),
        [(None, None, "command key-1 names positions that are not in the log")],
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_whoever_changes_the_content_is_found_out(name: str, store: Store, vault: SoftwareVault) -> None:
    tamper, expected = TAMPERED[name]
    with unguarded(store) as execute:
        tamper(execute)
    assert_found(findings(store, vault), expected)


def assert_found(found: list[Finding], expected: list[tuple[int | None, str | None, str]]) -> None:
    assert len(found) == len(expected), found
    for finding, (position, stream, what) in zip(found, expected, strict=True):
        assert (finding.position, finding.stream) == (position, stream), found
        assert what in finding.what


@pytest.mark.parametrize("missing", [12, 13])
def test_a_sqlite_file_knows_that_its_end_was_cut_off(
    missing: int, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("sqlite", tmp_path, postgres)
    fill(store, vault)
    with unguarded(store) as execute:
        execute("DELETE FROM event WHERE position >= ?", missing)
    assert_found(findings(store, vault), [(missing - 1, None, "their positions were given")])


def test_an_event_that_does_not_fold_is_found(store: Store, vault: SoftwareVault) -> None:
    """Also one in a stream of no aggregate. What follows in such a stream is decoded, but not judged."""
    with closing(open_recorder(store.place, vault)) as recorder:
        recorder.insert_events([stored(vault, "card-8981100000000000028", n, RELEASED) for n in (1, 2)])
        recorder.insert_events([stored(vault, "nonsense-1", 1, RELEASED)])
    assert_found(
        findings(store, vault),
        [
            (14, "card-8981100000000000028", "it does not fold: a card begins with its registration"),
            (None, "nonsense-1", "no aggregate has such streams"),
        ],
    )


def test_findings_are_kept_up_to_a_number_and_all_counted(store: Store, vault: SoftwareVault) -> None:
    with closing(open_recorder(store.place, vault)) as recorder:
        streams = range(MOST_FINDINGS + 7)
        recorder.append([Append([StoredEvent(f"nonsense-{n:05}", 1, "x", b"{}")]) for n in streams])
    with closing(open_rows(store.place)) as rows:
        report = Check(rows, JsonMapper(FACTS, vault), vault, lambda *_: None).run()
    assert (report.found, len(report.findings)) == (2 * (MOST_FINDINGS + 7), MOST_FINDINGS)


def test_a_server_may_record_meanwhile(store: Store, vault: SoftwareVault) -> None:
    """What comes after the beginning is not looked at, and nothing of it is taken for a fault."""
    stopped = threading.Event()

    def record() -> None:
        with closing(open_recorder(store.place, vault)) as recorder:
            version = 7
            while not stopped.is_set():
                recorder.insert_events([stored(vault, CARD_STREAM, version, RELEASED)])
                version += 1

    thread = threading.Thread(target=record)
    thread.start()
    try:
        for _ in range(5):
            assert findings(store, vault) == []
    finally:
        stopped.set()
        thread.join()


SQLITE_FAULTS = {
    "trigger event_is_not_changed is missing": ["DROP TRIGGER event_is_not_changed"],
    "trigger event_is_not_removed is changed": [
        "DROP TRIGGER event_is_not_removed",
        "CREATE TRIGGER event_is_not_removed BEFORE DELETE ON event WHEN 0 BEGIN SELECT RAISE(ABORT, 'no'); END",
    ],
    "trigger mine is not ours": ["CREATE TRIGGER mine AFTER INSERT ON event BEGIN DELETE FROM payload; END"],
    "table shadow is not ours": ["CREATE TABLE shadow (x)"],
    "index command_by_keep_until is missing": ["DROP INDEX command_by_keep_until"],
    "table event is changed": ["ALTER TABLE event ADD COLUMN note TEXT"],
    "an import has not ended": ["INSERT INTO migration VALUES (0, 'an import has not ended', '')"],
}


@pytest.mark.parametrize("fault", SQLITE_FAULTS)
def test_whoever_changes_the_shape_of_a_file_is_found_out(
    fault: str, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("sqlite", tmp_path, postgres)
    fill(store, vault)
    with as_owner(store) as execute:
        for statement in SQLITE_FAULTS[fault]:
            execute(statement)
    assert_found(findings(store, vault), [(None, None, fault)])


def test_a_damaged_file_is_a_finding(tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault) -> None:
    store = make("sqlite", tmp_path, postgres)
    fill(store, vault, releases=200)
    path = Path(store.place)
    with as_owner(store) as execute:
        execute("PRAGMA wal_checkpoint(TRUNCATE)")
    octets = bytearray(path.read_bytes())
    octets[-30_000:-20_000] = bytes(10_000)
    path.write_bytes(octets)
    assert findings(store, vault)


def test_whatever_page_is_damaged_is_a_finding_or_a_refusal(
    tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    """Of whoever opens the file; some pages hold nothing that matters."""
    store = make("sqlite", tmp_path, postgres)
    fill(store, vault)
    with as_owner(store) as execute:
        execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sound = Path(store.place).read_bytes()
    for number, start in enumerate(range(100, len(sound), PAGE_OF_A_FILE)):  # the file's header is behind us
        path = tmp_path / f"damaged-{number}.sqlite"
        path.write_bytes(sound[:start] + b"\xff" * 2000 + sound[start + 2000 :])
        for look in (
            partial(findings, Store(path, path), vault),
            partial(migrate_sqlite, path),
            lambda path=path: open_recorder(path, vault).close(),
        ):
            try:
                look()
            except TsmError as refusal:
                assert refusal.code is ErrorCode.STORE_CORRUPT


def test_a_database_that_goes_away_is_no_finding(
    postgres: PostgresServer, tmp_path: Path, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    with closing(open_rows(store.place)) as rows:
        with as_owner(Store(store.place, postgres.admin_dsn)) as execute:
            execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tsm_runtime'")
        with pytest.raises(TsmError) as refusal:
            rows.faults()
        assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
        with pytest.raises(TsmError) as refusal, rows.snapshot():
            rows.head()
        assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE


GUARD = "event_is_not_changed"
POSTGRES_FAULTS = {
    "trigger event.event_is_not_changed is missing": [f"DROP TRIGGER {GUARD} ON tsm.event"],
    "trigger event.event_is_not_truncated is changed": ["ALTER TABLE tsm.event DISABLE TRIGGER event_is_not_truncated"],
    "trigger event.event_is_not_changed is changed": [f"ALTER TABLE tsm.event ENABLE TRIGGER {GUARD}"],
    "function refuse is changed": [
        "CREATE OR REPLACE FUNCTION tsm.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"
    ],
    "function append is changed": ["ALTER FUNCTION tsm.append RESET ALL"],
    "function mine is not ours": [
        "CREATE FUNCTION tsm.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "REVOKE ALL ON FUNCTION tsm.mine FROM PUBLIC",
    ],
    "PUBLIC may EXECUTE function append": ["GRANT EXECUTE ON FUNCTION tsm.append TO PUBLIC"],
    "table shadow is not ours": ["CREATE TABLE tsm.shadow (x int)"],
    "table event is changed": ["ALTER TABLE tsm.event DROP CONSTRAINT event_originator_id_originator_version_key"],
    "table payload is changed": ["ALTER TABLE tsm.payload SET UNLOGGED"],
    "table command is changed": ["ALTER TABLE tsm.command ALTER COLUMN digest DROP NOT NULL"],
    "table person_index is changed": ["CREATE RULE quiet AS ON DELETE TO tsm.person_index DO INSTEAD NOTHING"],
    "PUBLIC may SELECT event": ["GRANT SELECT ON tsm.event TO PUBLIC"],
    "an import has not ended": ["INSERT INTO tsm.migration VALUES (0, 'an import has not ended', now())"],
}


@pytest.mark.parametrize("fault", POSTGRES_FAULTS)
def test_whoever_changes_the_shape_of_a_schema_is_found_out(
    fault: str, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    fill(store, vault)
    with as_owner(store) as execute:
        for statement in POSTGRES_FAULTS[fault]:
            execute(statement)
    assert_found(findings(store, vault), [(None, None, fault)])


@pytest.mark.parametrize(
    ("grant", "fault"),
    [
        ("GRANT UPDATE ON tsm.event TO tsm_runtime", "tsm_runtime may UPDATE event"),
        ("GRANT INSERT (topic) ON tsm.event TO tsm_runtime", "tsm_runtime may INSERT event.topic"),
        ("GRANT TRUNCATE ON tsm.event TO tsm_runtime", "tsm_runtime may TRUNCATE event"),
        ("GRANT CREATE ON SCHEMA tsm TO tsm_runtime", "tsm_runtime may CREATE schema tsm"),
        ("GRANT DELETE ON tsm.payload TO tsm_runtime", "tsm_runtime may DELETE payload"),
        ("ALTER DATABASE {database} OWNER TO tsm_runtime", ""),
    ],
)
def test_whoever_gives_the_runtime_role_more_is_found_out(
    grant: str, fault: str, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    database = str(store.owner).partition("?")[0].rpartition("/")[2]
    admin = Store(store.place, postgres.dsn("postgres", database))
    with as_owner(admin) as execute:
        execute(grant.format(database=database))
    expected = [(None, None, "the runtime role tsm_runtime may do too much as tsm_runtime")]
    assert_found(findings(store, vault), expected + [(None, None, fault)] * bool(fault))


@pytest.mark.parametrize(
    ("grant", "fault"),
    [
        ("GRANT EXECUTE ON FUNCTION tsm.append TO somebody", "somebody may EXECUTE function append"),
        ("GRANT DELETE ON tsm.command TO somebody", "somebody may DELETE command"),
        ("GRANT SELECT ON tsm.event TO somebody", ""),
    ],
)
def test_another_role_may_read_and_nothing_else(
    grant: str, fault: str, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    with as_owner(Store(store.place, postgres.admin_dsn)) as admin, as_owner(store) as execute:
        admin("CREATE ROLE somebody")
        try:
            execute(grant)
            assert_found(findings(store, vault), [(None, None, fault)] if fault else [])
        finally:
            execute(grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
            admin("DROP ROLE somebody")


@pytest.mark.parametrize(
    ("give", "take", "whom"),
    [
        ("GRANT tsm_owner TO tsm_runtime", "REVOKE tsm_owner FROM tsm_runtime", "tsm_owner"),
        ("GRANT pg_write_all_data TO tsm_runtime", "REVOKE pg_write_all_data FROM tsm_runtime", "pg_write_all_data"),
        ("ALTER ROLE tsm_runtime CREATEROLE", "ALTER ROLE tsm_runtime NOCREATEROLE", "tsm_runtime"),
    ],
)
def test_a_runtime_role_that_can_become_somebody_else_is_found_out(
    give: str, take: str, whom: str, tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault
) -> None:
    store = make("postgresql", tmp_path, postgres)
    with as_owner(Store(store.place, postgres.admin_dsn)) as execute:
        execute(give)
        try:
            what = [finding.what for finding in findings(store, vault)]
        finally:
            execute(take)
    assert f"the runtime role tsm_runtime may do too much as {whom}" in what
