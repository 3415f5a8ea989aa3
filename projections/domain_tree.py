"""Domain tree: what is on a card now. Security domains, their key versions, load files and applications.

Answers `Card.domainTree`. It says what the cards acknowledged to this server, or told when they were asked: what
somebody else changed on a card is not in it. Each row names the position of the event that made it so.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from projections.views import Projection, Views
from tsm.errors import ErrorCode, TsmError
from tsm.model.card import (
    ApplicationInstalled,
    ApplicationPersonalized,
    CardAuthenticated,
    CardAuthenticationFailed,
    CardRegistered,
    CardReleased,
    KeysPut,
    LifeCycle,
    LifeCycleChanged,
    LoadFileLoaded,
    SecurityDomainCreated,
)
from tsm.model.event import Event, Fact

TABLES = {
    "domain_tree_card_1": """CREATE TABLE domain_tree_card_1 (
        card TEXT PRIMARY KEY, operator TEXT NOT NULL, profile TEXT NOT NULL, isd TEXT NOT NULL,
        position INTEGER NOT NULL) STRICT""",
    "domain_tree_domain_1": """CREATE TABLE domain_tree_domain_1 (
        card TEXT NOT NULL, aid TEXT NOT NULL, parent TEXT, privileges TEXT NOT NULL, life_cycle TEXT NOT NULL,
        failures INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (card, aid)) STRICT""",
    "domain_tree_key_set_1": """CREATE TABLE domain_tree_key_set_1 (
        card TEXT NOT NULL, domain TEXT NOT NULL, position INTEGER NOT NULL, version INTEGER NOT NULL,
        check_values TEXT NOT NULL, provisional INTEGER NOT NULL, PRIMARY KEY (card, domain, position)) STRICT""",
    "domain_tree_load_file_1": """CREATE TABLE domain_tree_load_file_1 (
        card TEXT NOT NULL, aid TEXT NOT NULL, domain TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
        position INTEGER NOT NULL, PRIMARY KEY (card, aid)) STRICT""",
    "domain_tree_application_1": """CREATE TABLE domain_tree_application_1 (
        card TEXT NOT NULL, aid TEXT NOT NULL, module TEXT NOT NULL, load_file TEXT NOT NULL, domain TEXT NOT NULL,
        privileges TEXT NOT NULL, life_cycle TEXT NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY (card, aid)) STRICT""",
}


@dataclass(frozen=True)
class KeySetRow:
    """The keys that a domain was given: which ones, never what they are."""

    version: int
    check_values: tuple[str, ...]  # hex, in the order ENC, MAC, DEK; empty where the card never told
    provisional: bool  # chosen by another than the domain's owner
    current: bool
    position: int


@dataclass(frozen=True)
class LoadFileRow:
    """An executable load file on the card."""

    aid: str
    domain: str
    sha256: str  # empty, and size 0, when the card told only that it is there
    size: int  # octets of the load file data block
    position: int


@dataclass(frozen=True)
class ApplicationRow:
    """An application on the card."""

    aid: str
    module: str
    load_file: str
    domain: str
    privileges: str
    life_cycle: str
    position: int


@dataclass(frozen=True)
class DomainRow:
    """A security domain and what belongs to it."""

    aid: str
    parent: str | None  # None: the issuer security domain
    privileges: str
    life_cycle: str
    failures: int  # authentications in a row that failed
    position: int
    keys: tuple[KeySetRow, ...]
    load_files: tuple[LoadFileRow, ...]
    applications: tuple[ApplicationRow, ...]


@dataclass(frozen=True)
class CardRow:
    """A card with all its domains, the issuer's first, then in the order of their creation."""

    iccid: str
    operator: str
    profile: str
    isd: str
    position: int
    domains: tuple[DomainRow, ...]


def card(views: Views, iccid: str) -> CardRow | None:
    """One card as the events read so far say; None when none registered it."""
    with views.snapshot() as connection:

        def rows(table: str, columns: str) -> list[Any]:
            query = f"SELECT {columns} FROM {table} WHERE card = ? ORDER BY position"  # noqa: S608 - constants only
            return connection.execute(query, (iccid,)).fetchall()

        head = rows("domain_tree_card_1", "operator, profile, isd, position")
        domains = rows("domain_tree_domain_1", "aid, parent, privileges, life_cycle, failures, position")
        keys = rows("domain_tree_key_set_1", "domain, version, check_values, provisional, position")
        files = rows("domain_tree_load_file_1", "aid, domain, sha256, size, position")
        applications = rows(
            "domain_tree_application_1", "aid, module, load_file, domain, privileges, life_cycle, position"
        )
    if not head:
        return None
    load_files = [LoadFileRow(*row) for row in files]
    installed = [ApplicationRow(*row) for row in applications]

    def belongings(aid: str) -> tuple[tuple[Any, ...], ...]:
        return (
            _key_sets([key[1:] for key in keys if key[0] == aid]),
            tuple(file for file in load_files if file.domain == aid),
            tuple(application for application in installed if application.domain == aid),
        )

    operator, profile, isd, position = head[0]
    tree = tuple(DomainRow(*row, *belongings(row[0])) for row in domains)
    return CardRow(iccid, operator, profile, isd, position, tree)


def _key_sets(rows: Sequence[tuple[int, str, int, int]]) -> tuple[KeySetRow, ...]:
    """The last that a domain was given is the one it has: PUT KEY replaces."""
    return tuple(
        KeySetRow(version, tuple(json.loads(check_values)), bool(provisional), row_number == len(rows), position)
        for row_number, (version, check_values, provisional, position) in enumerate(rows, start=1)
    )


def fold(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    """Each fact changes one or two rows; STORE_CORRUPT for one that does not fit what came before it."""
    for event in events:
        change = CHANGES.get(type(event.fact))
        if change is not None:
            change(connection, event.originator_id.removeprefix("card-"), event.position, event.fact)


def _registered(connection: sqlite3.Connection, iccid: str, position: int, fact: CardRegistered) -> None:
    connection.execute(
        "INSERT INTO domain_tree_card_1 VALUES (?, ?, ?, ?, ?)",
        (iccid, fact.operator, fact.profile, fact.isd, position),
    )
    _add_domain(connection, iccid, position, (fact.isd, None, "", LifeCycle.SECURED))
    _add_keys(connection, iccid, position, (fact.isd, fact.key_version, "[]", False))


def _domain_created(connection: sqlite3.Connection, iccid: str, position: int, fact: SecurityDomainCreated) -> None:
    _need_domain(connection, iccid, fact.parent)
    _add_domain(connection, iccid, position, (fact.domain, fact.parent, fact.privileges, fact.life_cycle))


def _keys_put(connection: sqlite3.Connection, iccid: str, position: int, fact: KeysPut) -> None:
    _need_domain(connection, iccid, fact.domain)
    check_values = json.dumps(fact.check_values)
    _add_keys(connection, iccid, position, (fact.domain, fact.key_version, check_values, fact.provisional))
    connection.execute(  # with its first keys a selectable domain becomes personalized (GPCS v2.3.1 section 5.3.2.3)
        "UPDATE domain_tree_domain_1 SET life_cycle = ? WHERE card = ? AND aid = ? AND life_cycle = ?",
        (LifeCycle.PERSONALIZED, iccid, fact.domain, LifeCycle.SELECTABLE),
    )


def _loaded(connection: sqlite3.Connection, iccid: str, position: int, fact: LoadFileLoaded) -> None:
    _need_domain(connection, iccid, fact.domain)
    connection.execute(
        "INSERT OR REPLACE INTO domain_tree_load_file_1 VALUES (?, ?, ?, ?, ?, ?)",
        (iccid, fact.load_file, fact.domain, fact.sha256, fact.size, position),
    )


def _installed(connection: sqlite3.Connection, iccid: str, position: int, fact: ApplicationInstalled) -> None:
    _need_domain(connection, iccid, fact.domain)
    connection.execute(
        "INSERT OR REPLACE INTO domain_tree_application_1 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            iccid,
            fact.application,
            fact.module,
            fact.load_file,
            fact.domain,
            fact.privileges,
            fact.life_cycle,
            position,
        ),
    )


def _personalized(connection: sqlite3.Connection, iccid: str, position: int, fact: ApplicationPersonalized) -> None:
    """An application that was never installed through us came with the card: what it is made of is not known."""
    _set_application(connection, iccid, position, (fact.application, fact.domain, LifeCycle.PERSONALIZED))


def _set_application(connection: sqlite3.Connection, iccid: str, position: int, values: tuple[str, str, str]) -> None:
    aid, domain, life_cycle = values
    _need_domain(connection, iccid, domain)
    connection.execute(
        "INSERT INTO domain_tree_application_1 VALUES (?, ?, '', '', ?, '', ?, ?)"
        " ON CONFLICT (card, aid) DO UPDATE SET life_cycle = excluded.life_cycle, position = excluded.position",
        (iccid, aid, domain, life_cycle, position),
    )


def _life_cycle_changed(connection: sqlite3.Connection, iccid: str, position: int, fact: LifeCycleChanged) -> None:
    """Of a domain, or else of an application, which may have come with the card."""
    of_domain = "UPDATE domain_tree_domain_1 SET life_cycle = ? WHERE card = ? AND aid = ?"
    if not connection.execute(of_domain, (fact.life_cycle, iccid, fact.instance)).rowcount:
        _set_application(connection, iccid, position, (fact.instance, fact.domain, fact.life_cycle))


def _authentication_failed(
    connection: sqlite3.Connection, iccid: str, position: int, fact: CardAuthenticationFailed
) -> None:
    _set_failures(connection, iccid, fact.domain, fact.failures)


def _authenticated(
    connection: sqlite3.Connection, iccid: str, position: int, fact: CardAuthenticated | CardReleased
) -> None:
    _set_failures(connection, iccid, fact.domain, 0)


def _set_failures(connection: sqlite3.Connection, iccid: str, aid: str, failures: int) -> None:
    _need_domain(connection, iccid, aid)
    query = "UPDATE domain_tree_domain_1 SET failures = ? WHERE card = ? AND aid = ?"
    connection.execute(query, (failures, iccid, aid))


def _add_domain(connection: sqlite3.Connection, iccid: str, position: int, values: tuple[object, ...]) -> None:
    connection.execute("INSERT INTO domain_tree_domain_1 VALUES (?, ?, ?, ?, ?, 0, ?)", (iccid, *values, position))


def _add_keys(connection: sqlite3.Connection, iccid: str, position: int, values: tuple[object, ...]) -> None:
    domain, *rest = values
    connection.execute("INSERT INTO domain_tree_key_set_1 VALUES (?, ?, ?, ?, ?, ?)", (iccid, domain, position, *rest))


def _need_domain(connection: sqlite3.Connection, iccid: str, aid: str) -> None:
    query = "SELECT 1 FROM domain_tree_domain_1 WHERE card = ? AND aid = ?"
    if connection.execute(query, (iccid, aid)).fetchone() is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"card {iccid} has no security domain {aid}")


CHANGES: Mapping[type[Fact], Callable[[sqlite3.Connection, str, int, Any], None]] = {
    CardRegistered: _registered,
    SecurityDomainCreated: _domain_created,
    KeysPut: _keys_put,
    LoadFileLoaded: _loaded,
    ApplicationInstalled: _installed,
    ApplicationPersonalized: _personalized,
    CardAuthenticationFailed: _authentication_failed,
    CardAuthenticated: _authenticated,
    CardReleased: _authenticated,
    LifeCycleChanged: _life_cycle_changed,
}

DOMAIN_TREE = Projection(name="domain_tree", version=1, tables=TABLES, fold=fold)
