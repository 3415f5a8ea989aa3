"""Read models on every engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from projections.projection import Projection
from projections.sqlite import SQLiteViews
from projections.views import Views


class MakeViews(Protocol):
    """Opens the read models of the test's store: each call as another process would; `anew` in an empty place."""

    def __call__(self, *projections: Projection, anew: bool = False) -> Views: ...


@pytest.fixture
def make_views(tmp_path: Path) -> Iterator[MakeViews]:
    opened: list[Views] = []

    def make(*projections: Projection, anew: bool = False) -> Views:
        name = f"views-{len(opened)}.sqlite" if anew else "views.sqlite"
        opened.append(SQLiteViews(tmp_path / name, projections))
        return opened[-1]

    yield make
    for views in opened:
        views.close()
