"""Where the log is kept, by one setting: the path of a SQLite file, or the DSN of a PostgreSQL database."""

from pathlib import Path

from tsm.store.postgres import PostgresRecorder
from tsm.store.recorder import Clock, PayloadSealer, Recorder, utc_now
from tsm.store.sqlite import SQLiteRecorder

POSTGRESQL = ("postgresql://", "postgres://")


def is_postgresql(place: str | Path) -> bool:
    return str(place).startswith(POSTGRESQL)


def open_recorder(place: str | Path, sealer: PayloadSealer, clock: Clock = utc_now) -> Recorder:
    """`TsmError`: NOT_FOUND, STORE_FORMAT when it is not of the newest format, STORE_CORRUPT, STORE_UNAVAILABLE."""
    if is_postgresql(place):
        return PostgresRecorder(str(place), sealer, clock)
    return SQLiteRecorder(Path(place), sealer, clock)
