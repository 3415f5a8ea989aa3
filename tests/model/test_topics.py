"""The list of facts: complete, and each under a name of its own."""

import importlib
import pkgutil
import re

import msgspec
import pytest

import tsm.model
from tsm.model.event import Fact
from tsm.model.topics import FACTS


def declared() -> set[type[Fact]]:
    for module in pkgutil.iter_modules(tsm.model.__path__):
        importlib.import_module(f"tsm.model.{module.name}")
    return {fact for fact in Fact.__subclasses__() if fact.__module__.startswith("tsm.model.")}


def test_every_fact_of_the_model_is_listed() -> None:
    assert set(FACTS) == declared()


def test_no_two_facts_share_a_topic() -> None:
    assert len({fact.topic for fact in FACTS}) == len(FACTS)


@pytest.mark.parametrize("fact", FACTS)
def test_a_topic_reads_as_aggregate_and_past_tense(fact: type[Fact]) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", fact.topic)


@pytest.mark.parametrize("fact", FACTS)
def test_a_sealed_fact_names_its_subject_and_seals_text(fact: type[Fact]) -> None:
    types = {field.name: field.type for field in msgspec.structs.fields(fact)}
    assert all(types[name] is str for name in fact.sealed)
    assert not fact.sealed or types["subject"] is str


@pytest.mark.parametrize("fact", FACTS)
def test_no_fact_has_a_field_for_a_secret(fact: type[Fact]) -> None:
    secret = {"pin", "password", "access_code", "token", "data", "apdu", "secret", "private_key"}
    assert not secret & {field.name for field in msgspec.structs.fields(fact)}
