"""The shape of a store, as numbered steps, and how a store comes to the newest.

A step, once released, is not changed: what is different afterwards is a new step. Number 1 was the format before the
steps; nothing leads from it to here. A program works with a store of the newest number only, and never changes one by
itself: `tsm store migrate` does.

On PostgreSQL two roles share the work. The owner runs the steps and owns all tables. The runtime role, as which the
server connects, reads events and calls `tsm.append`, and can do nothing else to them: that function runs as the owner,
numbers the events itself, and is the only way in. The other function, `tsm.erase_remains`, changes nothing that one can
see.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from tsm.errors import ErrorCode, TsmError
from tsm.keys.database import open_database, writing
from tsm.store.dsn import check_dsn
from tsm.store.rights import rights_faults

NEWEST = 3
BEFORE = 1  # the format before the steps
UNFINISHED = 0  # a mark among the steps: an import into this store has not ended

NOT_NEXT_IN_STREAM = "this version of the stream exists, or does not follow the last one"

SQLITE_STEPS_TAKEN = """CREATE TABLE migration (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at TEXT NOT NULL
) STRICT"""

SQLITE_GUARDS = {
    # While one statement inserts many rows the sequence still tells the position before it, so both are asked.
    "event_is_appended": f"""CREATE TRIGGER event_is_appended BEFORE INSERT ON event BEGIN
  SELECT RAISE(ABORT, 'a position follows the last one')
    WHERE NEW.position <> 1 + max(
      coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0),
      coalesce((SELECT max(position) FROM event), 0));
  SELECT RAISE(ABORT, '{NOT_NEXT_IN_STREAM}')
    WHERE NEW.originator_version <> 1 + coalesce(
      (SELECT max(originator_version) FROM event WHERE originator_id = NEW.originator_id), 0);
  SELECT RAISE(ABORT, 'recorded_at never decreases')
    WHERE NEW.recorded_at < (SELECT recorded_at FROM event ORDER BY position DESC LIMIT 1);
END""",  # noqa: S608 - constants only
    "event_is_not_changed": """CREATE TRIGGER event_is_not_changed BEFORE UPDATE ON event BEGIN
  SELECT RAISE(ABORT, 'an event is not changed');
END""",
    "event_is_not_removed": """CREATE TRIGGER event_is_not_removed BEFORE DELETE ON event BEGIN
  SELECT RAISE(ABORT, 'an event is not removed');
END""",
}

SQLITE_STEPS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    2: (
        "the log, its guards, and payloads beside it",
        (
            """CREATE TABLE event (
  position INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, even if the last row were cut off
  originator_id TEXT NOT NULL,
  originator_version INTEGER NOT NULL,
  topic TEXT NOT NULL,
  state BLOB NOT NULL,
  recorded_at TEXT NOT NULL CHECK (length(recorded_at) = 27), -- 2026-11-21T02:12:00.000000Z: text order is time order
  UNIQUE (originator_id, originator_version)
) STRICT""",
            *SQLITE_GUARDS.values(),
            """CREATE TABLE payload (
  stream TEXT NOT NULL,
  name TEXT NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID""",
        ),
    ),
    3: (
        "index rows of persons, and idempotency keys",
        (
            """CREATE TABLE person_index (
  index_value TEXT NOT NULL,
  stream TEXT NOT NULL,
  subject TEXT NOT NULL,
  PRIMARY KEY (index_value, stream)
) STRICT, WITHOUT ROWID""",
            "CREATE INDEX person_index_by_subject ON person_index (subject)",
            """CREATE TABLE command (
  id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  first INTEGER NOT NULL, -- positions of what came of it: none when last < first
  last INTEGER NOT NULL,
  head INTEGER NOT NULL,
  keep_until TEXT NOT NULL
) STRICT, WITHOUT ROWID""",
            "CREATE INDEX command_by_keep_until ON command (keep_until)",
        ),
    ),
}

APPEND_LOCK = 0x54534D  # advisory lock of the log: whoever holds it may give positions

REFUSE_BODY = " BEGIN RAISE EXCEPTION 'an event is not changed or removed' USING ERRCODE = '23000'; END "

APPEND_BODY = f"""
#variable_conflict use_column
DECLARE
  skipped int[];
  wanted bigint;
  written bigint;
BEGIN
  -- Arrays that do not fit would be padded with NULL, and NULL compares with nothing: such a batch says nothing clear.
  -- A time that no client can read back would make the whole log unreadable.
  IF (clock BETWEEN '0001-01-02 UTC' AND '9999-12-31 UTC'
      AND cardinality(w_append) = ALL (ARRAY[cardinality(w_stream), cardinality(w_version)])
      AND cardinality(e_append) = ALL (ARRAY[cardinality(e_stream), cardinality(e_topic), cardinality(e_state)])
      AND cardinality(d_append) = cardinality(d_stream)
      AND cardinality(p_append) = ALL (ARRAY[cardinality(p_stream), cardinality(p_name), cardinality(p_sealed)])
      AND cardinality(s_append) = cardinality(s_subject)
      AND cardinality(i_append) = ALL (ARRAY[cardinality(i_index), cardinality(i_stream), cardinality(i_subject)])
      AND cardinality(c_append) = ALL (ARRAY[cardinality(c_id), cardinality(c_digest), cardinality(c_keep_until)])
      AND num_nulls(array_position(w_append, NULL), array_position(w_stream, NULL), array_position(w_version, NULL),
        array_position(e_append, NULL), array_position(d_append, NULL), array_position(d_stream, NULL),
        array_position(p_append, NULL), array_position(s_append, NULL), array_position(s_subject, NULL),
        array_position(i_append, NULL), array_position(c_append, NULL)) = 11) IS NOT TRUE THEN
    RAISE EXCEPTION 'the batch is malformed' USING ERRCODE = '22023';
  END IF;
  PERFORM pg_advisory_xact_lock({APPEND_LOCK});
  SELECT e.position, e.recorded_at INTO head, last_recorded_at FROM event AS e ORDER BY e.position DESC LIMIT 1;
  head := coalesce(head, 0);
  stamped := greatest(clock, last_recorded_at);
  known := '{{}}';
  IF cardinality(c_id) > 0 THEN
    SELECT coalesce(array_agg(c.n), '{{}}') INTO known
      FROM unnest(c_append, c_id) AS c (n, id) JOIN command ON command.id = c.id;
  END IF;
  SELECT coalesce(array_agg(w.n), '{{}}'), coalesce(array_agg(w.stream), '{{}}') INTO changed, changed_stream
    FROM unnest(w_append, w_stream, w_version) AS w (n, stream, version)
    WHERE w.version <> coalesce((SELECT e.originator_version FROM event AS e WHERE e.originator_id = w.stream
                                 ORDER BY e.originator_version DESC LIMIT 1), 0);
  skipped := known || changed;
  INSERT INTO event (position, originator_id, originator_version, topic, state, recorded_at)
    SELECT head + row_number() OVER (ORDER BY e.ordinal), e.stream,
           w.version + row_number() OVER (PARTITION BY e.n, e.stream ORDER BY e.ordinal), e.topic, e.state, stamped
    FROM unnest(e_append, e_stream, e_topic, e_state) WITH ORDINALITY AS e (n, stream, topic, state, ordinal)
    LEFT JOIN unnest(w_append, w_stream, w_version) AS w (n, stream, version) ON w.n = e.n AND w.stream = e.stream
    WHERE e.n <> ALL (skipped)
    ORDER BY e.ordinal;
  GET DIAGNOSTICS written = ROW_COUNT;
  SELECT count(*) INTO wanted FROM unnest(e_append) AS e (n) WHERE e.n <> ALL (skipped);
  IF written <> wanted THEN -- a stream was named twice
    RAISE EXCEPTION 'the batch is malformed' USING ERRCODE = '22023';
  END IF;
  IF cardinality(d_append) > 0 THEN
    DELETE FROM payload USING unnest(d_append, d_stream) AS d (n, stream)
      WHERE payload.stream = d.stream AND d.n <> ALL (skipped);
  END IF;
  IF cardinality(p_append) > 0 THEN
    INSERT INTO payload (stream, name, sealed)
      SELECT p.stream, p.name, p.sealed FROM unnest(p_append, p_stream, p_name, p_sealed) AS p (n, stream, name, sealed)
      WHERE p.n <> ALL (skipped) ON CONFLICT (stream, name) DO UPDATE SET sealed = excluded.sealed;
  END IF;
  IF cardinality(s_append) > 0 THEN
    DELETE FROM person_index USING unnest(s_append, s_subject) AS s (n, subject)
      WHERE person_index.subject = s.subject AND s.n <> ALL (skipped);
  END IF;
  IF cardinality(i_append) > 0 THEN
    INSERT INTO person_index (index_value, stream, subject)
      SELECT i.value, i.stream, i.subject FROM unnest(i_append, i_index, i_stream, i_subject)
        AS i (n, value, stream, subject)
      WHERE i.n <> ALL (skipped) ON CONFLICT (index_value, stream) DO UPDATE SET subject = excluded.subject;
  END IF;
  IF cardinality(c_append) > 0 THEN
    INSERT INTO command (id, digest, first, last, head, keep_until)
      SELECT c.id, c.digest, head + placed.upto - placed.own + 1, head + placed.upto, head + placed.upto, c.keep_until
      FROM unnest(c_append, c_id, c_digest, c_keep_until) AS c (n, id, digest, keep_until)
      JOIN ( -- also those without events have their turn in the batch
        SELECT counted.n, counted.own, sum(counted.own) OVER (ORDER BY counted.n) AS upto
        FROM (SELECT named.n, sum(named.event) AS own
              FROM (SELECT e.n, 1 FROM unnest(e_append) AS e (n)
                    UNION ALL SELECT c.n, 0 FROM unnest(c_append) AS c (n)) AS named (n, event)
              WHERE named.n <> ALL (skipped) GROUP BY named.n) AS counted) AS placed ON placed.n = c.n;
  END IF;
END """  # noqa: S608 - constants only

# A deleted row's octets stay in the pages until they are used again: the table is written anew, without them. While
# somebody else holds it, as a backup does, this gives up at once, for whoever appends would wait behind it; and also
# when a transaction that began before the deletion still runs, for what that may see is written anew as well.
REMAINS_BODY = """
DECLARE
  written bigint; -- an index that was just built counts dead rows that somebody may see, too
  living bigint;
BEGIN
  CLUSTER person_index USING person_index_pkey;
  SELECT reltuples INTO written FROM pg_class WHERE oid = 'person_index_pkey'::regclass;
  SELECT count(*) INTO living FROM person_index;
  IF written > living THEN
    RAISE EXCEPTION 'a transaction that began before the deletion still runs' USING ERRCODE = '55006';
  END IF;
END """

POSTGRES_STEPS: Mapping[int, tuple[str, str]] = {
    2: (
        "the log, its guards, and payloads beside it",
        f"""
CREATE TABLE tsm.event (
  position bigint PRIMARY KEY CHECK (position > 0),
  originator_id text COLLATE "C" NOT NULL,
  originator_version bigint NOT NULL CHECK (originator_version > 0),
  topic text COLLATE "C" NOT NULL,
  state bytea NOT NULL,
  recorded_at timestamptz NOT NULL,
  UNIQUE (originator_id, originator_version)
);
CREATE FUNCTION tsm.refuse() RETURNS trigger LANGUAGE plpgsql AS $${REFUSE_BODY}$$;
CREATE TRIGGER event_is_not_changed BEFORE UPDATE OR DELETE ON tsm.event FOR EACH ROW EXECUTE FUNCTION tsm.refuse();
CREATE TRIGGER event_is_not_truncated BEFORE TRUNCATE ON tsm.event FOR EACH STATEMENT EXECUTE FUNCTION tsm.refuse();
ALTER TABLE tsm.event ENABLE ALWAYS TRIGGER event_is_not_changed;
ALTER TABLE tsm.event ENABLE ALWAYS TRIGGER event_is_not_truncated;
CREATE TABLE tsm.payload (
  stream text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  sealed bytea NOT NULL,
  PRIMARY KEY (stream, name)
);
""",
    ),
    3: (
        "index rows of persons, and idempotency keys",
        f"""
CREATE TABLE tsm.person_index (
  index_value text COLLATE "C" NOT NULL,
  stream text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  PRIMARY KEY (index_value, stream)
);
CREATE INDEX person_index_by_subject ON tsm.person_index (subject);
CREATE TABLE tsm.command (
  id text COLLATE "C" PRIMARY KEY,
  digest text COLLATE "C" NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  head bigint NOT NULL,
  keep_until timestamptz NOT NULL
);
CREATE INDEX command_by_keep_until ON tsm.command (keep_until);

-- One call is one batch of appends, each numbered within the batch: the first column of every group of arrays.
-- w: streams that an append rests on and their versions; e: events; d: streams whose payloads go; p: payloads that
-- come; s: subjects whose index rows go; i: index rows that come; c: commands.
CREATE FUNCTION tsm.append(
  clock timestamptz,
  w_append int[], w_stream text[], w_version bigint[],
  e_append int[], e_stream text[], e_topic text[], e_state bytea[],
  d_append int[], d_stream text[],
  p_append int[], p_stream text[], p_name text[], p_sealed bytea[],
  s_append int[], s_subject text[],
  i_append int[], i_index text[], i_stream text[], i_subject text[],
  c_append int[], c_id text[], c_digest text[], c_keep_until timestamptz[],
  OUT head bigint, OUT last_recorded_at timestamptz, OUT stamped timestamptz,
  OUT changed int[], OUT changed_stream text[], OUT known int[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = tsm, pg_temp AS $${APPEND_BODY}$$;
REVOKE ALL ON FUNCTION tsm.append FROM PUBLIC;
CREATE FUNCTION tsm.erase_remains() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = tsm, pg_temp SET lock_timeout = '100ms' AS $${REMAINS_BODY}$$;
REVOKE ALL ON FUNCTION tsm.erase_remains FROM PUBLIC;
""",
    ),
}

POSTGRES_RIGHTS = """
REVOKE ALL ON SCHEMA tsm FROM PUBLIC, {role};
REVOKE ALL ON ALL TABLES IN SCHEMA tsm FROM PUBLIC, {role};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tsm FROM PUBLIC, {role};
GRANT USAGE ON SCHEMA tsm TO {role};
GRANT SELECT ON tsm.event, tsm.payload, tsm.person_index, tsm.command, tsm.migration TO {role};
GRANT DELETE ON tsm.command TO {role};
GRANT EXECUTE ON FUNCTION tsm.append, tsm.erase_remains TO {role};
CREATE SCHEMA IF NOT EXISTS tsm_views;
REVOKE ALL ON SCHEMA tsm_views FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA tsm_views TO {role};
"""


def migrate_sqlite(path: Path) -> list[int]:
    """Brings the file to the newest step, making it when it is missing; the numbers of the steps taken.

    All of them are taken, or none. `TsmError`: STORE_FORMAT for a format that no step leads from, STORE_UNAVAILABLE
    when the file is held by others or has no room, STORE_CORRUPT when it is damaged.
    """
    connection = open_database(path, erasing=True)
    try:
        with writing(connection):
            found = sqlite_number(connection)
            if found == 0:
                connection.execute(SQLITE_STEPS_TAKEN)
            taken = _steps_from(found)
            for number in taken:
                name, statements = SQLITE_STEPS[number]
                for statement in statements:
                    connection.execute(statement)
                connection.execute("INSERT INTO migration VALUES (?, ?, ?)", (number, name, _now().isoformat()))
    except sqlite3.OperationalError as error:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, f"{path}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"{path}: {error}") from error
    finally:
        connection.close()
    return taken


def refuse_other_sqlite(connection: sqlite3.Connection) -> None:
    """`TsmError`: STORE_FORMAT unless the store is of the newest number, STORE_CORRUPT when its guards are not ours or
    an import into it has not ended."""
    refuse_other(sqlite_number(connection))
    guards = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())
    if guards != SQLITE_GUARDS:
        raise TsmError(ErrorCode.STORE_CORRUPT, "the triggers that guard the log are missing or changed")
    if connection.execute("SELECT 1 FROM migration WHERE number = ?", (UNFINISHED,)).fetchone():
        _refuse_unfinished()


def migrate_postgres(owner_dsn: str, runtime_role: str) -> list[int]:
    """Brings the schema `tsm` to the newest step as its owner, and gives the runtime role its rights; the numbers of
    the steps taken.

    All of it happens, or nothing. `TsmError`: STORE_FORMAT; INVALID_INPUT when one of the roles is missing or not fit
    for its part; STORE_UNAVAILABLE.
    """
    with postgres_owner(owner_dsn) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))  # two migrations take turns
        _refuse_owner(connection)
        _refuse_role(connection, runtime_role)
        found = postgres_number(connection)
        if found == 0:
            connection.execute("CREATE SCHEMA IF NOT EXISTS tsm")
            connection.execute(
                "CREATE TABLE tsm.migration"
                " (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL)"
            )
        taken = _steps_from(found)
        for number in taken:
            name, script = POSTGRES_STEPS[number]
            connection.execute(script.encode())
            connection.execute("INSERT INTO tsm.migration VALUES (%s, %s, %s)", (number, name, _now()))
        connection.execute(sql.SQL(POSTGRES_RIGHTS).format(role=sql.Identifier(runtime_role)))
        faults = rights_faults(connection, runtime_role)
        if faults:
            raise TsmError(ErrorCode.INVALID_INPUT, "; ".join(faults))
    return taken


@contextmanager
def postgres_owner(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection as the owner. What PostgreSQL refuses becomes what we say: INVALID_INPUT, STORE_UNAVAILABLE."""
    check_dsn(dsn)
    try:
        with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC", connect_timeout=10) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(error)) from None
    except psycopg.Error as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"the database refuses it: {_words(error)}") from None


def refuse_other_postgres(connection: psycopg.Connection) -> None:
    """`TsmError`: STORE_FORMAT unless the schema is of the newest number and the role may read it, STORE_CORRUPT when
    an import into it has not ended."""
    try:
        refuse_other(postgres_number(connection))
        unfinished = connection.execute("SELECT 1 FROM tsm.migration WHERE number = %s", (UNFINISHED,)).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        raise TsmError(ErrorCode.STORE_FORMAT, "this role has no rights here: `tsm store migrate` gives them") from None
    if unfinished:
        _refuse_unfinished()


def sqlite_number(connection: sqlite3.Connection) -> int:
    """The number of the last step; 0 for an empty file."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "migration" in tables:
        (number,) = connection.execute("SELECT coalesce(max(number), 1) FROM migration").fetchone()
        return int(number)
    return BEFORE if tables else 0


def postgres_number(connection: psycopg.Connection) -> int:
    """The number of the last step; 0 without a schema."""
    row = connection.execute("SELECT to_regclass('tsm.migration')").fetchone()
    if row is None or row[0] is None:
        return 0
    row = connection.execute("SELECT coalesce(max(number), 1) FROM tsm.migration").fetchone()
    return 0 if row is None else int(row[0])


def step_name(number: int) -> str:
    return SQLITE_STEPS[number][0]


def refuse_other(number: int) -> None:
    """`TsmError(STORE_FORMAT)` unless it is the newest."""
    if number != NEWEST:
        raise TsmError(ErrorCode.STORE_FORMAT, _advice(number))


def _advice(number: int) -> str:
    if number == 0:
        return "no store was made here: run `tsm store migrate`"
    if number == BEFORE:
        return "format 1 cannot be read any more: begin with a new store"
    if number > NEWEST:
        return f"format {number} is newer than this program, which knows {NEWEST}: take a newer program"
    return f"format {number} is older than this program's, {NEWEST}: stop the server and run `tsm store migrate`"


def _refuse_unfinished() -> None:
    raise TsmError(ErrorCode.STORE_CORRUPT, "an import has not ended: repeat `tsm store import`")


def _refuse_owner(connection: psycopg.Connection) -> None:
    """What the function `tsm.append` does, it does as its owner: that must not be somebody who may do anything."""
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row is None or row[0]:
        raise TsmError(ErrorCode.INVALID_INPUT, "the owner must be a role of its own, not a superuser")
    row = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname IN ('tsm', 'tsm_views') AND nspowner <> current_user::regrole"
    ).fetchone()
    if row is not None:
        raise TsmError(ErrorCode.INVALID_INPUT, f"the schema {row[0]} belongs to another role")


def _refuse_role(connection: psycopg.Connection, role: str) -> None:
    row = connection.execute("SELECT rolname = current_user FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    if row is None:
        raise TsmError(ErrorCode.INVALID_INPUT, f"there is no role {role}: make it first")
    if row[0]:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{role} is the owner: the server must run as another role")


def _steps_from(found: int) -> list[int]:
    if found == BEFORE or found > NEWEST:
        refuse_other(found)
    return [number for number in SQLITE_STEPS if found < number <= NEWEST]


def _words(error: Exception) -> str:
    """The first line: what follows may quote the data."""
    return str(error).partition("\n")[0].strip()


def _now() -> datetime:
    return datetime.now(UTC)
