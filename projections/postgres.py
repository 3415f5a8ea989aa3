"""The read models in a PostgreSQL database: the schema `tsm_views` beside the log.

Ownership is an advisory lock of the very connection that the owner writes with. When that breaks, both end together: an
owner that the database has given up cannot write any more. Readers take short snapshots from a pool.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256

import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolTimeout

from projections.projection import Kind, Projection, Row
from projections.views import CONTROL_TABLES, Generation, Gone, Owner, Result, Session, Views, not_retired
from tsm.errors import ErrorCode, TsmError
from tsm.store.dsn import check_dsn, connection_options
from tsm.store.loop import aside

TYPES = {"text": 'text COLLATE "C"', "integer": "bigint"}
ARRAYS = {"text": "text[]", "integer": "bigint[]"}
READERS = 8  # connections
POOL_TIMEOUT = 5  # seconds that a read waits for a connection
LOCK_TIMEOUT = 8_000  # milliseconds
OPTIONS = f"-c search_path=tsm_views -c timezone=UTC -c lock_timeout={LOCK_TIMEOUT}"
# Pages are ranges of an index, in its order, and end at their limit. Where the planner knows little of new rows it
# would rather collect all that fit, and sort them: what a page costs would then grow with the log. And as long as a
# step to another page of the disk counts as much as four to the next one, it would rather walk the whole log for the
# few of a kind.
READING = f"{OPTIONS} -c enable_bitmapscan=off -c random_page_cost=1.1"


class PostgresSession(Session):
    """A connection inside a transaction."""

    for_update = " FOR UPDATE"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        with _refusing():
            found = self._connection.execute(_query(query), values, binary=True)
            return found.fetchall() if found.description is not None else []

    def insert(self, table: str, width: int, rows: Sequence[Row]) -> None:
        query = f"COPY {table} FROM STDIN"
        with _refusing(), self._connection.cursor().copy(query.encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def upsert(self, table: str, columns: Sequence[tuple[str, Kind]], rows: Sequence[Row]) -> None:
        self.execute(_upsert(table, tuple(columns)), [list(column) for column in zip(*rows, strict=True)])

    def find(self, query: str, values: Collection[str | int]) -> list[Row]:
        return self.execute(f"{query} = ANY(?)", [list(values)])

    def create(self, table: str, columns: Sequence[tuple[str, Kind]]) -> None:
        (key, kind), *others = columns
        made = [f"{key} {TYPES[kind]} PRIMARY KEY", *(f"{name} {TYPES[kind]} NOT NULL" for name, kind in others)]
        self.execute(f"CREATE TABLE {table} ({', '.join(made)})")


class PostgresOwner(Owner):
    """A connection that holds the lock on the generation."""

    def __init__(self, views: Views, projection: Projection, generation: int, connection: psycopg.Connection) -> None:
        super().__init__(views, projection, generation)
        self._connection = connection

    @contextmanager
    def change(self) -> Iterator[Session]:
        with _refusing(), self._connection.transaction():
            yield PostgresSession(self._connection)

    def now(self) -> Generation:
        """Asked for by the connection that holds the lock: whoever has lost it notices, though nothing is written."""
        with self.change() as session:
            return not_retired(session, self.projection.name, self.generation)

    def release(self) -> None:
        self._connection.close()


class PostgresViews(Views):
    """The schema `tsm_views`, reached as the runtime role, which may make tables there."""

    def __init__(self, dsn: str, projections: Sequence[Projection]) -> None:
        """`TsmError`: STORE_UNAVAILABLE, STORE_FORMAT without the schema or the right to make tables in it."""
        super().__init__(projections)
        self._dsn = check_dsn(dsn)
        with self.change() as session:
            self.take_turns(session)
            [[found]] = session.execute("SELECT to_regclass('projection_parked_by_key') IS NOT NULL")
            for statement in () if found else CONTROL_TABLES:
                session.execute(statement.format(**TYPES))
        self._pool = ConnectionPool(
            self._dsn,
            min_size=1,
            max_size=READERS,
            timeout=POOL_TIMEOUT,
            kwargs={"autocommit": True, **connection_options(dsn, READING)},
            configure=_for_snapshots,
            open=True,
        )
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="views")  # for whoever is on an event loop

    def close(self) -> None:
        super().close()
        self._threads.shutdown()
        self._pool.close()

    def look(self, work: Callable[[Session], Result]) -> Result:
        return aside(self._threads, self._look_again, work)  # type: ignore[no-any-return]  # what `work` returned

    def _look_again(self, work: Callable[[Session], Result]) -> Result:
        """After a restart of the database every idle connection fails once: then it is done again."""
        with _refusing():
            try:
                return self._look(work)
            except TsmError as error:
                if error.code is not ErrorCode.STORE_UNAVAILABLE:
                    raise
            except psycopg.OperationalError:
                pass
            self._pool.check()
            return self._look(work)

    def _look(self, work: Callable[[Session], Result]) -> Result:
        with self._pool.connection() as connection, connection.transaction():
            return work(PostgresSession(connection))

    @contextmanager
    def change(self) -> Iterator[Session]:
        with _refusing(), self._connect() as connection, connection.transaction():
            yield PostgresSession(connection)

    def own(self, projection: Projection, generation: int) -> Owner | None:
        with _refusing():
            connection = self._connect()
            try:
                key = _lock_of(f"{projection.name} {generation}")
                row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
            except BaseException:
                connection.close()
                raise
        if row is None or not row[0]:
            connection.close()
            return None
        return PostgresOwner(self, projection, generation, connection)

    def tables(self, session: Session, prefix: str) -> list[str]:
        query = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'tsm_views' AND starts_with(tablename, ?)"
        return [name for (name,) in session.execute(query, (prefix,))]

    def take_turns(self, session: Session) -> None:
        session.execute("SELECT pg_advisory_xact_lock(?)", (_lock_of("turns"),))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._dsn, autocommit=True, **connection_options(self._dsn, OPTIONS))


def _for_snapshots(connection: psycopg.Connection) -> None:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True


@contextmanager
def _refusing() -> Iterator[None]:
    """What is the machine's fault is said so; what is an event's fault stays as it is."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InternalError, PoolTimeout) as error:  # internal: damaged, read-only
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, _words(error)) from None
    except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as error:
        what = f"the read models have no place in the database, see `tsm store migrate`: {_words(error)}"
        raise TsmError(ErrorCode.STORE_FORMAT, what) from None
    except errors.UndefinedTable:
        raise Gone from None


def _lock_of(name: str) -> int:
    """Locks are numbers that all programs on the database share: 64 bits of a hash do not meet by chance."""
    return int.from_bytes(sha256(f"tsm_views {name}".encode()).digest()[:8], signed=True)


@lru_cache(maxsize=256)
def _query(query: str) -> bytes:
    return query.replace("?", "%s").encode()


@lru_cache(maxsize=64)
def _upsert(table: str, columns: tuple[tuple[str, Kind], ...]) -> str:
    names = ", ".join(name for name, _ in columns)
    arrays = ", ".join(f"?::{ARRAYS[kind]}" for _, kind in columns)
    sets = ", ".join(f"{name} = excluded.{name}" for name, _ in columns[1:])
    return (
        f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608 - declared names only
        f" ON CONFLICT ({columns[0][0]}) DO UPDATE SET {sets}"
    )


def _words(error: Exception) -> str:
    """The first line: what follows may quote the data."""
    return str(error).partition("\n")[0].strip()
