"""The rows that a page of events touches, in memory until the page is folded.

Each table is asked once for the rows whose keys the page is known to need, and written once. A row that nobody foresaw
is found when it is needed, so foreseeing makes folds fast, never right or wrong.
"""

from collections.abc import Collection, Iterator
from typing import Any, Generic, TypeVar

from projections.projection import Rows

R = TypeVar("R")


class Held(Generic[R]):
    """The rows of one table. The first column of a row is its key."""

    def __init__(self, rows: Rows, table: str, row: type[R]) -> None:
        self._rows = rows
        self._table = table
        self._make = row._make  # type: ignore[attr-defined]  # rows are named tuples
        self._before: dict[str, R | None] = {}  # as they are stored; None where nothing is
        self._now: dict[str, R] = {}

    def foresee(self, keys: Collection[str]) -> None:
        """Fetches the rows with these keys, as far as they are not here."""
        missing = [key for key in keys if key not in self._before]
        if missing:
            self._before.update(dict.fromkeys(missing))
            self._take(self._rows.find(self._table, missing))

    def get(self, key: str) -> R | None:
        if key not in self._before:
            self.foresee([key])
        return self._now.get(key)

    def put(self, row: Any) -> None:
        """A row as it is from now on; one that was not asked for is asked for now."""
        if row[0] not in self._before:
            self.foresee([row[0]])
        self._now[row[0]] = row

    def add(self, row: Any) -> None:
        """A row with a key that no other ever had, or of which it is known whether one has it."""
        self._before.setdefault(row[0])
        self._now[row[0]] = row

    def having(self, column: str, values: Collection[str]) -> list[R]:
        """All rows with one of these values in a column, as they are now. The column is indexed."""
        found = self._rows.find(self._table, values, by=column) if values else []
        self._take([row for row in found if row[0] not in self._now])
        return [row for row in self._now.values() if getattr(row, column) in values]

    def drop(self, row: R) -> None:
        """A row that is no more."""
        del self._now[row[0]]  # type: ignore[index]  # rows are named tuples

    def dropped(self) -> Iterator[R]:
        """The rows that were stored before the page, and are no more."""
        return (row for key, row in self._before.items() if row is not None and key not in self._now)

    def __iter__(self) -> Iterator[R]:
        """The rows that are here, as they are now."""
        return iter(list(self._now.values()))

    def changes(self) -> Iterator[tuple[R | None, R]]:
        """Each row that the page changed or made: as it was before, and as it is now."""
        for key, row in self._now.items():
            if (before := self._before[key]) is not row:
                yield before, row

    def write(self) -> None:
        changed = list(self.changes())
        self._rows.insert(self._table, [row for before, row in changed if before is None])  # type: ignore[misc]
        self._rows.upsert(self._table, [row for before, row in changed if before is not None])  # type: ignore[misc]
        self._rows.delete(self._table, [row[0] for row in self.dropped()])  # type: ignore[index]

    def _take(self, found: Collection[Any]) -> None:
        for row in map(self._make, found):
            self._before[row[0]] = self._now[row[0]] = row
