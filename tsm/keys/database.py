"""SQLite files of our own: private to their owner, durable, shared between processes.

Every file has mode 0600 (SQLite gives its write-ahead log and index the same), journal mode WAL and synchronous FULL:
what was committed survives a power cut. Transactions begin IMMEDIATE, so a writer waits for its turn before it reads.

Do not open such a file by other means in a process that uses it: closing any descriptor of a file gives up all locks
that the process holds on it (POSIX), and the next process to leave then takes the write-ahead log with it.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from tsm.errors import ErrorCode, TsmError

CACHE = 64 * 1024  # KiB of pages that a writer keeps: keyed rows lie anywhere in their tables
BUSY_TIMEOUT = 10.0  # seconds that a writer waits for the writers of other processes
WAL_RETRY = 0.01  # seconds
_opening = Lock()


def open_database(path: Path, *, erasing: bool = False) -> sqlite3.Connection:
    """Opens or creates the file; the connection may be used from any thread, one at a time.

    `erasing` overwrites with zeros whatever is deleted. `TsmError`: STORE_CORRUPT when it is no SQLite file, NOT_FOUND
    when it cannot be opened.
    """
    try:
        with _opening:  # nobody of ours may hold a lock while the file is being made
            _make_private(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.OperationalError) as error:
        raise TsmError(ErrorCode.NOT_FOUND, f"{path}: {error}") from error
    try:
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{CACHE}")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute(f"PRAGMA secure_delete={'ON' if erasing else 'OFF'}")
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # also what it says may be damaged
        connection.close()
        raise TsmError(ErrorCode.STORE_CORRUPT, f"{path}: {error}") from error
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction: all of it is committed, or nothing.

    `TsmError(STORE_UNAVAILABLE)` when others hold the file for too long, or there is no room.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, str(error)) from error
        raise


def erase_remains(connection: sqlite3.Connection) -> None:
    """After a deletion in an `erasing` file: no earlier version of a page stays in the write-ahead log.

    What a file system or a flash controller keeps elsewhere is out of our reach, which is why keys are also wrapped.
    `TsmError(STORE_UNAVAILABLE)` when another process reads for so long that the log cannot be emptied: repeat.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the write-ahead log is held by a reader: repeat the erasure")


def _make_private(path: Path) -> None:
    path.touch(mode=0o600)  # opens nothing when the file is there
    path.chmod(0o600)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The switch needs the file for itself and does not wait for it: processes that start together take turns here."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(WAL_RETRY)
