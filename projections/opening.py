"""Where the read models lie: beside the log, in its engine."""

from collections.abc import Sequence
from pathlib import Path

from projections.postgres import PostgresViews
from projections.projection import Projection
from projections.sqlite import SQLiteViews
from projections.views import Views
from tsm.store.opening import is_postgresql


def open_views(store: str | Path, file: Path, projections: Sequence[Projection]) -> Views:
    """In the log's database, or in a `file` of their own beside a log in SQLite.

    `TsmError`: STORE_CORRUPT, STORE_UNAVAILABLE, STORE_FORMAT.
    """
    if is_postgresql(store):
        return PostgresViews(str(store), projections)
    return SQLiteViews(file, projections)
