"""Where the read models lie: beside the log, in its engine."""

from collections.abc import Sequence
from pathlib import Path

from projections.projection import Projection
from projections.sqlite import SQLiteViews
from projections.views import Views


def open_views(store: str | Path, file: Path, projections: Sequence[Projection]) -> Views:
    """`file` of its own for a log in SQLite. `TsmError`: STORE_CORRUPT, STORE_UNAVAILABLE, STORE_FORMAT."""
    return SQLiteViews(file, projections)
