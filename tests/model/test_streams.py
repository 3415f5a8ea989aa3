"""Every aggregate can be found by the name of its streams."""

import importlib
import pkgutil

import pytest

import tsm.model
from tsm.model.streams import EVOLVES, evolve_of

MODULES = [importlib.import_module(f"tsm.model.{module.name}") for module in pkgutil.iter_modules(tsm.model.__path__)]
AGGREGATES = [module for module in MODULES if hasattr(module, "stream") and hasattr(module, "evolve")]


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda module: module.__name__)
def test_a_stream_leads_to_its_own_aggregate(aggregate: object) -> None:
    names = ("one", "two")[: aggregate.stream.__code__.co_argcount]  # type: ignore[attr-defined]
    assert evolve_of(aggregate.stream(*names)) is aggregate.evolve  # type: ignore[attr-defined]


def test_no_aggregate_is_known_that_is_not_there() -> None:
    assert set(EVOLVES.values()) == {aggregate.evolve for aggregate in AGGREGATES}
    assert evolve_of("nonsense-1") is None


def test_no_prefix_begins_another() -> None:
    assert [(a, b) for a in EVOLVES for b in EVOLVES if a != b and b.startswith(a)] == []
