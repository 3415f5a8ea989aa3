"""The backup and restore that docs/postgresql.md describes, with the programs that come with PostgreSQL."""

import os
import re
import shlex
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from stores import CARD_STREAM, RELEASED, Store, fill, findings, make, stored

from api.bench.postgres import OWNER, RUNTIME, SUPERUSER, PostgresServer, wheel_binaries
from api.cli import parser
from tsm.keys.vault import SoftwareVault
from tsm.store import transfer
from tsm.store.migrations import migrate_postgres
from tsm.store.opening import open_recorder
from tsm.store.rows import open_rows

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "postgresql.md").read_text()


def documented(program: str) -> list[str]:
    """The one command of the document's shell blocks that begins so."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL))
    [line] = [line for line in blocks.splitlines() if line.startswith(f"{program} ")]
    return shlex.split(line)


def run(command: list[str], folder: Path, server: PostgresServer, database: dict[str, str]) -> None:
    """As written, but on the server of the tests."""
    dsn = re.compile(r"postgresql://(\w+)@[^/]*/(\w+)\?.*")
    words = [dsn.sub(lambda said: server.dsn(said[1], database[said[2]]), word) for word in command]
    words = [database.get(word, word) for word in words]
    named = os.environ.get("TSM_TEST_POSTGRES")
    binaries = Path(named) if named else wheel_binaries()
    done = subprocess.run(
        [binaries / words[0], *words[1:]],
        cwd=folder,
        env=os.environ | {"PGHOST": str(server.folder), "PGUSER": SUPERUSER},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", re.findall(r"^tsm .*", DOCUMENT, re.MULTILINE))
def test_every_command_of_the_document_is_understood(line: str) -> None:
    assert parser().parse_args(shlex.split(line)[1:]).run


def exported(store: Store, path: Path) -> str:
    with closing(open_rows(store.place)) as rows:
        return transfer.export_file(rows, path, lambda *_: None).sha256


@pytest.fixture
def restored(tmp_path: Path, postgres: PostgresServer, vault: SoftwareVault) -> tuple[Store, Store]:
    """A store, and what the document's commands made of its dump."""
    original = make("postgresql", tmp_path, postgres)
    fill(original, vault)
    name = str(conninfo_to_dict(str(original.owner))["dbname"])
    databases = {"tsm": name, "tsm_restored": f"{name}_restored"}
    for program in ("pg_dump", "createdb", "pg_restore"):
        run(documented(program), tmp_path, postgres, databases)
    new = databases["tsm_restored"]
    return original, Store(postgres.dsn(RUNTIME, new), postgres.dsn(OWNER, new))


def test_a_restored_store_is_the_same_to_the_last_byte(
    restored: tuple[Store, Store], vault: SoftwareVault, tmp_path: Path
) -> None:
    original, copy = restored
    assert migrate_postgres(str(copy.owner), RUNTIME) == []
    assert exported(copy, tmp_path / "copy") == exported(original, tmp_path / "original")
    assert findings(copy, vault) == []
    with closing(open_recorder(copy.place, vault)) as recorder:  # and it goes on
        assert recorder.insert_events([stored(vault, CARD_STREAM, 7, RELEASED)]) == [14]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO tsm.event VALUES (14, 'x', 1, 't', '', now())",
        "UPDATE tsm.event SET topic = 'x'",
        "DELETE FROM tsm.event",
        "TRUNCATE tsm.event",
        "ALTER TABLE tsm.event DISABLE TRIGGER ALL",
    ],
)
def test_in_a_restored_store_the_runtime_role_still_cannot_write(
    statement: str, restored: tuple[Store, Store], vault: SoftwareVault
) -> None:
    """Nor can the owner by mistake: the guards came back, too."""
    _, copy = restored
    with psycopg.connect(str(copy.place), autocommit=True) as runtime, pytest.raises(psycopg.Error) as refused:
        runtime.execute(statement.encode())
    assert refused.value.sqlstate == "42501"
    with psycopg.connect(str(copy.owner), autocommit=True) as owner:
        for change in ("UPDATE tsm.event SET topic = 'x'", "DELETE FROM tsm.event", "TRUNCATE tsm.event"):
            with pytest.raises(psycopg.Error, match="not changed or removed"):
                owner.execute(change.encode())
    assert findings(copy, vault) == []
