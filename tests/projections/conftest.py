"""Read models on every engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from api.bench.postgres import RUNTIME, PostgresServer
from projections.opening import open_views
from projections.projection import Projection
from projections.views import Views
from tsm.store.migrations import migrate_postgres


class MakeViews(Protocol):
    """Opens the read models of the test's store: each call as another process would; `anew` in an empty place."""

    def __call__(self, *projections: Projection, anew: bool = False) -> Views: ...


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def make_views(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeViews]:
    opened: list[Views] = []
    places: list[str] = []

    def place() -> str:
        """Of the next empty store: for `open_views`."""
        if request.param == "sqlite":
            return str(tmp_path / f"log-{len(places)}.sqlite")
        database = request.getfixturevalue("server").fresh_database()
        migrate_postgres(database.owner_dsn, RUNTIME)
        return str(database.runtime_dsn)

    def make(*projections: Projection, anew: bool = False) -> Views:
        if anew or not places:
            places.append(place())
        file = tmp_path / f"views-{len(places)}.sqlite"
        opened.append(open_views(places[-1], file, projections))
        return opened[-1]

    yield make
    for views in opened:
        views.close()
