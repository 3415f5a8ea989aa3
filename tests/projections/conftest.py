"""Read models on every engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from api.bench.postgres import RUNTIME, PostgresServer
from projections.opening import open_views
from projections.projection import Projection
from projections.views import Views
from tsm.store.migrations import migrate_postgres


class Place(NamedTuple):
    """What `open_views` takes."""

    store: str
    file: Path


class MakeViews:
    """Opens the read models of the test's store, each time as another process would."""

    def __init__(self, server: PostgresServer | None, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._opened: list[Views] = []
        self.place = self._new_place(0)

    def __call__(self, *projections: Projection, anew: bool = False) -> Views:
        """`anew`: in an empty store."""
        if anew:
            self.place = self._new_place(len(self._opened))
        self._opened.append(open_views(*self.place, projections))
        return self._opened[-1]

    def close(self) -> None:
        for views in self._opened:
            views.close()

    def _new_place(self, number: int) -> Place:
        file = self._folder / f"views-{number}.sqlite"
        if self._server is None:
            return Place(str(self._folder / "log.sqlite"), file)
        database = self._server.fresh_database()
        migrate_postgres(database.owner_dsn, RUNTIME)
        return Place(database.runtime_dsn, file)


@pytest.fixture(params=["sqlite", "postgresql"])
def make_views(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeViews]:
    made = MakeViews(None if request.param == "sqlite" else request.getfixturevalue("postgres"), tmp_path)
    yield made
    made.close()
