"""What a store of the newest format looks like, and what is otherwise: a guard that somebody dropped, a table that
somebody changed, a right that somebody granted."""

import sqlite3
from collections.abc import Mapping, Sequence

import psycopg

from tsm.store.migrations import (
    APPEND_BODY,
    REFUSE_BODY,
    REMAINS_BODY,
    SQLITE_STEPS,
    SQLITE_STEPS_TAKEN,
    UNFINISHED,
)
from tsm.store.rights import rights_faults

TABLES = """
SELECT c.relname::text, c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relhasrules AND NOT c.relrowsecurity
         AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhparent, inhrelid)),
       (SELECT array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE
                 WHEN a.attcollation = 0 THEN '' ELSE ' ' || (
                   SELECT l.collname FROM pg_collation AS l WHERE l.oid = a.attcollation) END
                 || CASE WHEN a.attnotnull THEN '' ELSE ' null' END ORDER BY a.attnum)
          FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT coalesce(array_agg(i.indisprimary::int || ' ' || (
                 SELECT string_agg(a.attname, ' ' ORDER BY k.ordinal) FROM unnest(i.indkey) WITH ORDINALITY
                   AS k (attnum, ordinal) JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum)
                 ORDER BY i.indisprimary DESC, i.indexrelid), '{}')
          FROM pg_index AS i
          WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL)
FROM pg_class AS c WHERE c.relnamespace = 'tsm'::regnamespace AND c.relkind NOT IN ('i', 'I', 't')
"""
TEXT = "text C"
POSTGRES_TABLES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "event": (
        ("position bigint", f"originator_id {TEXT}", "originator_version bigint", f"topic {TEXT}", "state bytea",
         "recorded_at timestamp with time zone"),
        ("1 position", "0 originator_id originator_version"),
    ),
    "payload": ((f"stream {TEXT}", f"name {TEXT}", "sealed bytea"), ("1 stream name",)),
    "person_index": ((f"index_value {TEXT}", f"stream {TEXT}", f"subject {TEXT}"), ("1 index_value stream",)),
    "command": (
        (f"id {TEXT}", f"digest {TEXT}", "first bigint", "last bigint", "head bigint",
         "keep_until timestamp with time zone"),
        ("1 id",),
    ),
    "migration": (("number integer", "name text default", "applied_at timestamp with time zone"), ("1 number",)),
}  # fmt: skip

TRIGGERS = """
SELECT c.relname || '.' || t.tgname, t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr = '' AND t.tgnargs = 0
         AND t.tgfoid = to_regproc('tsm.refuse'), t.tgtype::int
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'tsm'::regnamespace AND NOT t.tgisinternal
"""
BEFORE_EACH_ROW, BEFORE_STATEMENT, ON_DELETE, ON_UPDATE, ON_TRUNCATE = 3, 2, 8, 16, 32  # bits of pg_trigger.tgtype
POSTGRES_TRIGGERS = {
    "event.event_is_not_changed": BEFORE_EACH_ROW | ON_DELETE | ON_UPDATE,
    "event.event_is_not_truncated": BEFORE_STATEMENT | ON_TRUNCATE,
}

FUNCTIONS = """
SELECT p.proname::text, p.prosrc, p.prosecdef, coalesce(p.proconfig, '{}'), l.lanname::text, p.pronargs
FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang WHERE p.pronamespace = 'tsm'::regnamespace
"""
POSTGRES_FUNCTIONS = {
    "append": (APPEND_BODY, True, ["search_path=tsm, pg_temp"], "plpgsql", 24),
    "erase_remains": (REMAINS_BODY, True, ["search_path=tsm, pg_temp", "lock_timeout=100ms"], "plpgsql", 0),
    "refuse": (REFUSE_BODY, False, [], "plpgsql", 0),
}


def sqlite_faults(connection: sqlite3.Connection) -> list[str]:
    """What is otherwise than the steps made it, in words; the file's own pages included."""
    fresh = sqlite3.connect(":memory:")
    fresh.execute(SQLITE_STEPS_TAKEN)
    for _, statements in SQLITE_STEPS.values():
        for statement in statements:
            fresh.execute(statement)
    expected, found = _sqlite_things(fresh), _sqlite_things(connection)
    fresh.close()
    faults = _differences(expected, found)
    rows = connection.execute("PRAGMA integrity_check(10)").fetchall()
    faults += [f"the file is damaged: {row[0]}" for row in rows if row[0] != "ok"]
    if connection.execute("SELECT 1 FROM migration WHERE number = ?", (UNFINISHED,)).fetchone():
        faults.append("an import has not ended")
    return faults


def postgres_faults(connection: psycopg.Connection, role: str | None = None) -> list[str]:
    """What is otherwise than the steps made it, in words. `role`: the runtime role (by default who asks)."""
    tables = {
        name: (tuple(columns), tuple(keys)) if plain else None
        for name, plain, columns, keys in connection.execute(TABLES).fetchall()
    }
    triggers = {name: kind if active else None for name, active, kind in connection.execute(TRIGGERS).fetchall()}
    functions = {name: tuple(rest) for name, *rest in connection.execute(FUNCTIONS).fetchall()}
    faults = _differences(
        {f"table {n}": t for n, t in POSTGRES_TABLES.items()}, {f"table {n}": t for n, t in tables.items()}
    )
    faults += _differences(
        {f"trigger {n}": t for n, t in POSTGRES_TRIGGERS.items()}, {f"trigger {n}": t for n, t in triggers.items()}
    )
    faults += _differences(
        {f"function {n}": f for n, f in POSTGRES_FUNCTIONS.items()}, {f"function {n}": f for n, f in functions.items()}
    )
    if connection.execute("SELECT 1 FROM tsm.migration WHERE number = %s", (UNFINISHED,)).fetchone():
        faults.append("an import has not ended")
    return faults + rights_faults(connection, role)


def _sqlite_things(connection: sqlite3.Connection) -> dict[str, object]:
    rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'")
    return dict(rows.fetchall())


def _differences(expected: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in found]
    changed = [f"{name} is changed" for name in expected if name in found and found[name] != expected[name]]
    return missing + changed + [f"{name} is not ours" for name in found if name not in expected]
