"""The tests that the eventsourcing library ships for whoever writes a recorder, on each engine."""

import sys
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from uuid import uuid4

import pytest
from engines import Engine, PlainSealer, make

from tsm.store.recorder import Recorder

# The library's tests of its own cipher import a package that neither we nor the recorder's tests need.
sys.modules.setdefault("eventsourcing.cipher", SimpleNamespace(AESCipher=None))  # type: ignore[arg-type]
from eventsourcing.tests.persistence import ApplicationRecorderTestCase  # noqa: E402


class TestInMemory(ApplicationRecorderTestCase[Recorder]):
    """As the library wrote them, on a store of ours."""

    engine_name = "memory"
    engine: Engine

    @pytest.fixture(autouse=True)
    def _engine(self, request: pytest.FixtureRequest) -> Iterator[None]:
        with closing(make(self.engine_name, PlainSealer(), request)) as self.engine:
            yield

    def create_recorder(self) -> Recorder:
        return self.engine.open()

    def new_originator_id(self) -> str:
        return str(uuid4())

    test_performance = None  # these two measure, as `make bench` does
    test_concurrent_throughput = None
    test_concurrent_no_conflicts = None  # numbers streams from 0, ours begin at 1: see `test_races` for our own


class TestOnSQLite(TestInMemory):
    engine_name = "sqlite"


class TestOnPostgreSQL(TestInMemory):
    engine_name = "postgresql"


del ApplicationRecorderTestCase  # or pytest collects the abstract class, too
