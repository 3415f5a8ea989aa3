"""The policy: a document that a person can read, checked, and adopted version by version."""

import json
from typing import Any

import msgspec
import pytest
from given import given

from tsm.errors import ErrorCode, TsmError
from tsm.model.swap_policy import DEFAULT, Condition, Level, Policy, PolicyAdopted, adopt, check, evolve, read_policy

RULE = {"name": "lost", "condition": "LOST", "level": "LOCK"}
WEAK = {
    "name": "weak", "condition": "WEAK_SIGNALS", "level": "ALERT", "within_hours": 72, "weights": {"proxy": 1},
    "threshold": 3,
}  # fmt: skip


def document(**values: Any) -> bytes:
    return json.dumps({"version": 2, "settle_hours": 24, "rules": [RULE], **values}).encode()


def next_policy() -> Policy:
    return msgspec.structs.replace(DEFAULT, version=2, settle_hours=48)


def test_the_default_is_sound() -> None:
    check(DEFAULT)


def test_a_policy_is_read_with_its_levels_by_name() -> None:
    [rule] = read_policy(document()).rules
    assert (rule.name, rule.condition, rule.level) == ("lost", Condition.LOST, Level.LOCK)


def test_the_default_is_read_from_its_own_text() -> None:
    assert read_policy(msgspec.json.encode(DEFAULT)) == DEFAULT


def rule(**values: Any) -> dict[str, Any]:
    return {"rules": [{**RULE, **values}]}


def weak(**values: Any) -> dict[str, Any]:
    return {"rules": [RULE, {**WEAK, **values}]}


FAULTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"version": 0}, ("version",)),
    ({"version": "two"}, ("version",)),
    ({"settle_hours": -1}, ("settle_hours",)),
    ({"settle_hours": 100_000}, ("settle_hours",)),
    ({"surprise": 1}, ("surprise",)),
    ({"rules": 7}, ("rules",)),
    (rule(level="VERY HIGH"), ("rules", "0", "level")),
    (rule(level=9), ("rules", "0", "level")),
    (rule(condition="BAD LUCK"), ("rules", "0", "condition")),
    (rule(name="no name"), ("rules", "0", "name")),
    (rule(lasts_hours=0), ("rules", "0", "lasts_hours")),
    (rule(within_hours=24), ("rules", "0", "within_hours")),
    (rule(weights={"proxy": 1}), ("rules", "0", "weights")),
    (rule(threshold=1), ("rules", "0", "threshold")),
    ({"rules": [RULE, RULE]}, ("rules", "1", "name")),
    (weak(within_hours=None), ("rules", "1", "within_hours")),
    (weak(within_hours=100_000), ("rules", "1", "within_hours")),
    (weak(weights={}), ("rules", "1", "weights")),
    (weak(weights={"proxy": 0}), ("rules", "1", "weights")),
    (weak(threshold=0), ("rules", "1", "threshold")),
]


@pytest.mark.parametrize(("values", "field"), FAULTS, ids=str)
def test_a_fault_is_told_with_its_field(values: dict[str, Any], field: tuple[str, ...]) -> None:
    with pytest.raises(TsmError) as refusal:
        read_policy(document(**values))
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.INVALID_INPUT, field)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"policy"', b'{"version": 2}', b"\xff"])
def test_what_is_no_policy_is_refused(text: bytes) -> None:
    with pytest.raises(TsmError) as refusal:
        read_policy(text)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


def test_the_next_version_is_adopted_once() -> None:
    adopted = PolicyAdopted(policy=next_policy())
    given(evolve).when(adopt, next_policy()).then(adopted)
    given(evolve, adopted).when(adopt, next_policy()).then_nothing()
    given(evolve).when(adopt, DEFAULT).then_nothing()


@pytest.mark.parametrize("version", [1, 3])
def test_no_version_is_left_out_or_written_over(version: int) -> None:
    policy = msgspec.structs.replace(next_policy(), version=version)
    given(evolve).when(adopt, policy).then_refused(ErrorCode.WRONG_ORDER)


def test_an_unsound_policy_is_not_adopted() -> None:
    policy = msgspec.structs.replace(next_policy(), settle_hours=-1)
    given(evolve).when(adopt, policy).then_refused(ErrorCode.INVALID_INPUT)
