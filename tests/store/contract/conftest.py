"""One store for each test, on each engine."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from engines import Engine, PlainSealer, PostgresEngine, make

from tsm.store.recorder import Recorder

ENGINES = ("memory", "sqlite", "postgresql")
SHARED = ("sqlite", "postgresql")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with closing(make(request.param, PlainSealer(), request)) as engine:
        yield engine


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine whose store several processes can open."""
    with closing(make(request.param, PlainSealer(), request)) as engine:
        yield engine


@pytest.fixture(params=ENGINES)
def sealing(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine whose payloads a vault seals."""
    with closing(make(request.param, request.getfixturevalue("vault"), request)) as engine:
        yield engine


@pytest.fixture
def on_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresEngine]:
    with closing(PostgresEngine(PlainSealer(), request.getfixturevalue("postgres_store"))) as engine:
        yield engine


@pytest.fixture
def recorder(engine: Engine) -> Recorder:
    return engine.open()
