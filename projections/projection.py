"""What a read model declares: its tables, what it reads, and how a page of events changes its rows.

A fold sees rows, never an engine: it finds the rows that a page concerns, folds in memory, and hands the new rows back,
a whole page at once. So the same fold runs on SQLite and PostgreSQL, and one round trip serves thousands of events.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from tsm.store.log import NOTHING, Found
from tsm.store.mapper import Unseals

Row = tuple[Any, ...]
Kind = Literal["text", "integer"]


class Table(NamedTuple):
    """A table without its place: each engine renders it. Nothing in it is null."""

    name: str
    columns: Mapping[str, Kind]  # the first is the key
    indexes: tuple[tuple[str, ...], ...] = ()  # columns of each; made after a rebuild has filled the table

    @property
    def key(self) -> str:
        return next(iter(self.columns))


class Rows(Protocol):
    """The rows of one read model within the transaction of a page."""

    def find(self, table: str, values: Collection[str | int], by: str | None = None) -> list[Row]:
        """All rows with one of these values in column `by`, or as their key."""

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Rows with new keys."""

    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        """Rows with new or known keys; each key once."""

    def delete(self, table: str, keys: Sequence[str | int]) -> None:
        """The rows with these keys are no more: for what nobody may know any longer."""


Fold = Callable[[Rows, Sequence[Any]], None]  # `Event`s, and a `Heading` for others where `headings` asks for them


def stream_of(found: Found) -> str:
    return found.originator_id


@dataclass(frozen=True)
class Projection:
    """One read model: one question, its tables, and how a page of events changes them."""

    name: str
    version: int  # raise it when rows of the same events would differ
    tables: tuple[Table, ...]
    fold: Fold  # raises for an event that does not fit
    topics: tuple[str, ...] = ()  # those whose events it reads; empty: all
    headings: bool = False  # whether it is told of the others, too, by their headings: far cheaper than their content
    unseals: Unseals = field(default_factory=lambda: NOTHING)  # the personal fields that it has to know
    key: Callable[[Found], str] = stream_of  # what a bad event holds back: later events of the same key

    def table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)


def distinct(values: Iterable[str]) -> list[str]:
    """Each once, in order of appearance."""
    return list(dict.fromkeys(values))
