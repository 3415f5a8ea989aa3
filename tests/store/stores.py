"""Stores with something in them, on both engines: for the tests of what is done to a store from outside."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
from eventsourcing.persistence import StoredEvent
from samples import AUTHORITY, BLOCK, CARD, ICCID, ISD, LOAD_FILE, OPERATOR, PROVIDER, TERMINAL

from api.bench.postgres import RUNTIME, PostgresServer
from tsm.keys.vault import SoftwareVault
from tsm.model.card import CardReleased
from tsm.model.catalogue import DATA_BLOCK
from tsm.model.credential import CredentialApplied
from tsm.model.event import Context, Event, Fact
from tsm.model.topics import FACTS
from tsm.store.check import Check, Finding
from tsm.store.mapper import JsonMapper
from tsm.store.migrations import SQLITE_GUARDS, migrate_postgres, migrate_sqlite
from tsm.store.opening import is_postgresql, open_recorder
from tsm.store.recorder import Append, Command, IndexRow
from tsm.store.rows import open_rows

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CONTEXT = Context(actor="administrator:console", role="administrator", tenant="tsm-server", correlation="story-1")
RELEASED = CardReleased(domain=ISD, reason="線路の工事")  # no ASCII: bytes and characters differ
LOAD_FILE_STREAM = f"catalogue-{LOAD_FILE.load_file}"
CARD_STREAM = f"card-{ICCID}"


class Store(NamedTuple):
    """A store, and how the server and its owner reach it."""

    place: Path | str
    owner: Path | str

    @property
    def engine(self) -> str:
        return "postgresql" if is_postgresql(self.place) else "sqlite"


def make(engine: str, folder: Path, server: PostgresServer) -> Store:
    """A new, empty one."""
    if engine == "sqlite":
        path = folder / f"store-{len(list(folder.glob('store-*')))}.sqlite"
        migrate_sqlite(path)
        return Store(path, path)
    database = server.fresh_database()
    migrate_postgres(database.owner_dsn, RUNTIME)
    return Store(database.runtime_dsn, database.owner_dsn)


def applied(subject: str) -> CredentialApplied:
    return CredentialApplied(
        subject=subject,
        provider="JPKI0001",
        terminal=TERMINAL.terminal,
        municipality=TERMINAL.municipality,
        iccid=ICCID,
        applicant=f"{subject} 太郎",
        document_sha256="ab" * 32,
    )


def stored(vault: SoftwareVault, stream: str, number: int, fact: Fact) -> StoredEvent:
    event = Event(originator_id=stream, originator_version=number, occurred_at=NOON, context=CONTEXT, fact=fact)
    return JsonMapper(FACTS, vault).to_stored_event(event)


def fill(store: Store, vault: SoftwareVault, releases: int = 5) -> None:
    """Positions 1 to 4: parties; 5: load file; 6: card; 7, 8: credentials; then releases of the card. One a second."""
    seconds = iter(range(10**6))
    recorder = open_recorder(store.place, vault, lambda: NOON + timedelta(seconds=next(seconds)))
    parties = (
        (f"operator-{OPERATOR.operator}", OPERATOR),
        (f"authority-{AUTHORITY.authority}", AUTHORITY),
        (f"provider-{PROVIDER.provider}", PROVIDER),
        (f"terminal-{TERMINAL.terminal}", TERMINAL),
    )
    appends = [Append([stored(vault, stream, 1, fact)]) for stream, fact in parties]
    appends += [
        Append([stored(vault, LOAD_FILE_STREAM, 1, LOAD_FILE)], put_payloads={(LOAD_FILE_STREAM, DATA_BLOCK): BLOCK}),
        Append([stored(vault, CARD_STREAM, 1, CARD)], command=Command("key-1", "digest", datetime.max)),
        Append(
            [stored(vault, "credential-1", 1, applied("credential-1"))],
            put_index=[IndexRow("0a" * 16, "credential-1", "credential-1")],
        ),
        Append([stored(vault, "credential-2", 1, applied("credential-2"))]),
    ]
    appends += [Append([stored(vault, CARD_STREAM, number + 2, RELEASED)]) for number in range(releases)]
    with closing(recorder):
        for append in appends:
            assert not isinstance(recorder.append([append])[0], Exception)


def findings(store: Store, vault: SoftwareVault) -> list[Finding]:
    with closing(open_rows(store.place)) as rows:
        return list(Check(rows, JsonMapper(FACTS, vault), vault, lambda *_: None).run().findings)


Execute = Callable[..., list[tuple[object, ...]]]


@contextmanager
def as_owner(store: Store) -> Iterator[Execute]:
    """Whatever the owner of a file or database may do; `?` stands for a value, tables are written `tsm.event`."""
    if isinstance(store.owner, Path):
        with closing(sqlite3.connect(store.owner, isolation_level=None)) as file:
            yield lambda statement, *values: file.execute(statement.replace("tsm.", ""), values).fetchall()
        return
    with psycopg.connect(store.owner, autocommit=True) as connection:

        def execute(statement: str, *values: object) -> list[tuple[object, ...]]:
            cursor = connection.execute(statement.replace("?", "%s").encode(), values or None)
            return cursor.fetchall() if cursor.description else []

        yield execute


@contextmanager
def unguarded(store: Store) -> Iterator[Execute]:
    """As the owner, who takes the guards away and puts them back so that nobody sees it."""
    with as_owner(store) as execute:
        if store.engine == "sqlite":
            for name in SQLITE_GUARDS:
                execute(f"DROP TRIGGER {name}")
            yield execute
            for guard in SQLITE_GUARDS.values():
                execute(guard)
        else:
            execute("ALTER TABLE tsm.event DISABLE TRIGGER USER")
            yield execute
            execute("ALTER TABLE tsm.event ENABLE ALWAYS TRIGGER event_is_not_changed")
            execute("ALTER TABLE tsm.event ENABLE ALWAYS TRIGGER event_is_not_truncated")
