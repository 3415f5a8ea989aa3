"""`tsm store ...` as the administrator types it: what it prints, what it refuses, and how it ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api import administration
from api.bench.postgres import RUNTIME, Database, PostgresServer
from tsm.store.migrations import NEWEST

ROOT = Path(__file__).parent.parent.parent
SECRET = "s3cr3tpassw0rd"
OPERATOR = {"operator": "MNO00001", "name": "Simulated Mobile", "certificate_fingerprint": "ab" * 32}
STREAM = "operator-MNO00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A server with an operator; the folder in which `data` and `kek` lie."""
    administration.initialise(tmp_path / "data", tmp_path / "kek", "127.0.0.1", 8443)
    administration.enrol(tmp_path / "data", "operator", json.dumps(OPERATOR).encode())
    return tmp_path


def tsm(
    folder: Path, *words: str, dsn: str = "", given: bytes = b"", expected: int = 0
) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *words],
        input=given,
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TSM_OWNER_DSN": dsn},
        timeout=60,
    )
    assert done.returncode == expected, done
    assert b"Traceback" not in done.stderr
    return done


DATA = ("--data", "data")


def test_a_store_is_made_by_its_steps_and_then_has_them(folder: Path) -> None:
    (folder / "data" / "log.sqlite").rename(folder / "elsewhere")
    first = tsm(folder, "store", "migrate", *DATA).stdout.decode()
    assert first.splitlines()[0].startswith("step 2: ")
    assert first.splitlines()[-1] == f"the store has format {NEWEST}"
    assert tsm(folder, "store", "migrate", *DATA).stdout.decode() == f"the store has format {NEWEST}, as before\n"


def test_a_server_on_postgresql_from_init_to_its_first_party(tmp_path: Path, postgres: PostgresServer) -> None:
    database = postgres.fresh_database()
    tsm(tmp_path, "init", *DATA, "--kek", "kek", "--store", database.runtime_dsn)
    assert json.loads((tmp_path / "data" / "config.json").read_text())["store"] == database.runtime_dsn
    refused = tsm(tmp_path, "serve", *DATA, expected=2)
    assert b"run `tsm store migrate`" in refused.stderr
    done = tsm(tmp_path, "store", "migrate", "--runtime-role", RUNTIME, dsn=database.owner_dsn)
    assert b"step 2" in done.stdout
    assert (
        b"as before"
        in tsm(tmp_path, "store", "migrate", "--runtime-role", RUNTIME, "--owner-dsn", database.owner_dsn).stdout
    )
    said = json.dumps(OPERATOR).encode()
    assert tsm(tmp_path, "enrol", "operator", "-", *DATA, given=said).stdout == b"position 1\n"
    assert b"1 events in 1 streams" in tsm(tmp_path, "store", "check", *DATA).stdout


def test_a_server_does_not_serve_from_another_format(folder: Path) -> None:
    (folder / "data" / "log.sqlite").unlink()
    refused = tsm(folder, "serve", *DATA, expected=2)
    assert len(refused.stderr.splitlines()) == 1


def test_migrating_postgresql_needs_to_know_the_runtime_role(tmp_path: Path, postgres: PostgresServer) -> None:
    refused = tsm(tmp_path, "store", "migrate", dsn=postgres.fresh_database().owner_dsn, expected=2)
    assert b"--runtime-role" in refused.stderr


def test_a_store_on_postgresql_is_migrated_by_its_owner_only(tmp_path: Path, postgres: PostgresServer) -> None:
    tsm(tmp_path, "init", *DATA, "--kek", "kek", "--store", postgres.fresh_database().runtime_dsn)
    assert b"--owner-dsn" in tsm(tmp_path, "store", "migrate", *DATA, expected=2).stderr


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://tsm:{SECRET}@127.0.0.1:1/tsm",
        f"postgresql://tsm:{SECRET}%zz@127.0.0.1/tsm",
        f"postgresql://tsm:x@{SECRET}@127.0.0.1/tsm",
        f"postgresql://tsm:x/{SECRET}@127.0.0.1/tsm",
    ],
)
def test_no_password_is_ever_printed(dsn: str, tmp_path: Path) -> None:
    migrate = ("store", "migrate", "--runtime-role", RUNTIME)
    said = [tsm(tmp_path, *migrate, dsn=dsn, expected=2), tsm(tmp_path, *migrate, "--owner-dsn", dsn, expected=2)]
    init = subprocess.run(
        [sys.executable, "-m", "api.cli", "init", *DATA, "--kek", "kek", "--store", dsn],
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    said.append(init)
    if init.returncode == 0:  # a DSN that is understood: nobody answers there
        said += [tsm(tmp_path, *words, *DATA, expected=2) for words in (("serve",), ("show",), ("store", "check"))]
    assert all(SECRET.encode() not in done.stdout + done.stderr for done in said)


def test_check_ends_with_0_when_nothing_is_found_and_with_1_when_something_is(folder: Path) -> None:
    assert b"no findings" in tsm(folder, "store", "check", *DATA).stdout
    report = json.loads(tsm(folder, "store", "check", *DATA, "--json").stdout)
    assert (report["head"], report["found"], report["findings"]) == (1, 0, [])
    change(folder, "DROP TRIGGER event_is_not_changed", "UPDATE event SET topic = 'x'")
    done = tsm(folder, "store", "check", *DATA, expected=1).stdout.decode()
    assert "trigger event_is_not_changed is missing\n" in done
    assert f"1 {STREAM}: " in done
    report = json.loads(tsm(folder, "store", "check", *DATA, "--json", expected=1).stdout)
    assert report["found"] == 2
    missing = {"position": None, "stream": None, "what": "trigger event_is_not_changed is missing"}
    assert report["findings"][0] == missing


def change(folder: Path, *statements: str) -> None:
    """By another process, as somebody with the sqlite3 program would."""
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); [c.execute(s) for s in sys.argv[2:]]; c.commit()"
    subprocess.run([sys.executable, "-c", script, str(folder / "data" / "log.sqlite"), *statements], check=True)


def test_a_store_moves_to_postgresql_and_back(folder: Path, postgres_store: Database) -> None:
    """As docs/postgresql.md says it."""
    out = json.loads(tsm(folder, "store", "export", *DATA, "move.jsonl", "--json").stdout)
    assert (out["events"], out["before"]) == (1, 0)
    into = json.loads(tsm(folder, "store", "import", "move.jsonl", "--json", dsn=postgres_store.owner_dsn).stdout)
    assert into["sha256"] == out["sha256"]
    config = json.loads((folder / "data" / "config.json").read_text())
    for store in (postgres_store.runtime_dsn, "back.sqlite"):
        (folder / "data" / "config.json").write_text(json.dumps(config | {"store": store}))
        if store == "back.sqlite":
            tsm(folder, "store", "migrate", *DATA)
            tsm(folder, "store", "import", *DATA, "move.jsonl")
        assert b"no findings" in tsm(folder, "store", "check", *DATA).stdout
        again = tsm(folder, "store", "export", *DATA, "-", "--json")
        assert again.stdout == (folder / "move.jsonl").read_bytes()
        assert json.loads(again.stderr)["sha256"] == out["sha256"]


def test_an_import_may_come_through_a_pipe(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    tsm(other, "init", *DATA, "--kek", "kek")
    octets = tsm(folder, "store", "export", *DATA, "-").stdout
    tsm(other, "store", "import", *DATA, "-", given=octets)
    assert tsm(other, "store", "export", *DATA, "-").stdout == octets


def test_an_export_tells_that_the_server_went_on(folder: Path) -> None:
    """While the bytes wait in the pipe, somebody enrols a party."""
    words = [sys.executable, "-m", "api.cli", "store", "export", *DATA, "-"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for number in range(120):  # more than a pipe holds
        said = OPERATOR | {"operator": f"MNO{number + 100:05}", "name": "x" * 200}
        administration.enrol(folder / "data", "operator", json.dumps(said).encode())
    with subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.read(1)
        time.sleep(0.1)
        administration.enrol(folder / "data", "operator", json.dumps(OPERATOR | {"operator": "MNO00099"}).encode())
        process.stdout.read()
        assert first == b"{"
        assert b"1 events were recorded meanwhile: for a move, stop the server first" in process.stderr.read()


def test_a_file_that_is_there_is_not_overwritten(folder: Path) -> None:
    (folder / "file").write_text("mine")
    assert b"file is there" in tsm(folder, "store", "export", *DATA, "file", expected=2).stderr
    assert (folder / "file").read_text() == "mine"


def test_the_state_of_a_stream_now_and_then(folder: Path) -> None:
    again = OPERATOR | {"certificate_fingerprint": "cd" * 32}
    administration.enrol(folder / "data", "operator", json.dumps(again).encode())
    now = json.loads(tsm(folder, "store", "state", *DATA, STREAM).stdout)
    then = json.loads(tsm(folder, "store", "state", *DATA, STREAM, "--position", "1").stdout)
    before = json.loads(tsm(folder, "store", "state", *DATA, STREAM, "--recorded-at", "2020-01-01T00:00:00Z").stdout)
    later = json.loads(tsm(folder, "store", "state", *DATA, STREAM, "--recorded-at", "2999-01-01").stdout)
    assert (now["version"], then["version"], before) == (2, 1, {"stream": STREAM, "version": 0, "state": None})
    assert later == now
    assert "cd" * 32 in json.dumps(now) and "cd" * 32 not in json.dumps(then)
    refused = tsm(folder, "store", "state", *DATA, "nonsense-1", expected=2)
    assert b"no aggregate has a stream nonsense-1" in refused.stderr
