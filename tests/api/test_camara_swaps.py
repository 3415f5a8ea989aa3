"""CAMARA sim-swap and device-swap: what a relying party is told of a line, and that it is recorded before."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.api.camara_world import (
    IMEI,
    NUMBER,
    OTHER_ICCID,
    OTHER_IMEI,
    OTHER_IMSI,
    OTHER_NUMBER,
    SYSTEM,
    UNKNOWN,
    World,
    refused,
)
from tsm.errors import ErrorCode, TsmError
from tsm.model.line import SignalKind

SIM, DEVICE = "/sim-swap/v2", "/device-swap/v1"
APIS = pytest.mark.parametrize(("api", "latest"), [(SIM, "latestSimChange"), (DEVICE, "latestDeviceChange")])
ASKED = {"phoneNumber": NUMBER}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A line that has had its SIM and its phone for 400 days."""
    made = World.make(tmp_path)
    made.signal(SignalKind.SUBSCRIBED, imei=IMEI)
    yield made
    made.close()


@pytest.fixture
def monitored(tmp_path: Path) -> Iterator[World]:
    """The same, where no more than 30 days may be told of."""
    made = World.make(tmp_path, monitored_days=30)
    made.signal(SignalKind.SUBSCRIBED, imei=IMEI)
    yield made
    made.close()


# What is told


@APIS
def test_a_line_that_never_changed_has_the_time_of_its_activation(world: World, api: str, latest: str) -> None:
    answer = world.ask(f"{api}/retrieve-date", ASKED)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {latest: "2025-10-17T09:30:00Z"}
    assert world.ask(f"{api}/check", {**ASKED, "maxAge": 2400}).json() == {"swapped": False}


@pytest.mark.parametrize(
    ("change", "api", "other"), [({"imsi": OTHER_IMSI}, SIM, DEVICE), ({"imei": OTHER_IMEI}, DEVICE, SIM)]
)
def test_a_change_is_told_by_the_api_that_it_concerns(
    world: World, change: dict[str, str], api: str, other: str
) -> None:
    world.signal(ago=timedelta(hours=100, seconds=1), **change)
    assert world.ask(f"{api}/check", {**ASKED, "maxAge": 100}).json() == {"swapped": False}
    assert world.ask(f"{api}/check", {**ASKED, "maxAge": 101}).json() == {"swapped": True}
    assert world.ask(f"{other}/check", {**ASKED, "maxAge": 2400}).json() == {"swapped": False}


@pytest.mark.parametrize(("hours", "swapped"), [(239, True), (240, True), (241, False)])
def test_without_an_age_240_hours_are_meant_the_last_included(world: World, hours: int, swapped: bool) -> None:
    world.signal(ago=timedelta(hours=hours), imsi=OTHER_IMSI)
    assert world.ask(f"{SIM}/check", ASKED).json() == {"swapped": swapped}


@APIS
def test_a_change_before_the_monitored_period_is_null_and_the_period_is_named(
    monitored: World, api: str, latest: str
) -> None:
    assert monitored.ask(f"{api}/retrieve-date", ASKED).json() == {latest: None, "monitoredPeriod": 30}
    monitored.signal(ago=timedelta(days=29), imsi=OTHER_IMSI, imei=OTHER_IMEI)
    assert monitored.ask(f"{api}/retrieve-date", ASKED).json() == {latest: "2026-10-23T09:30:00Z"}


@APIS
def test_nobody_asks_beyond_the_monitored_period(monitored: World, api: str, latest: str) -> None:
    assert monitored.ask(f"{api}/check", {**ASKED, "maxAge": 720}).status_code == 200
    answer = monitored.ask(f"{api}/check", {**ASKED, "maxAge": 721})
    refused(answer, 400, "OUT_OF_RANGE")
    assert answer.json()["message"] == "maxAge is 1 to 720 hours here"


def test_a_line_that_was_never_seen_in_a_phone_has_no_device_swap(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.signal(SignalKind.SUBSCRIBED)
    for operation in ("check", "retrieve-date"):
        refused(world.ask(f"{DEVICE}/{operation}", ASKED), 422, "SERVICE_NOT_APPLICABLE")
        assert world.ask(f"{SIM}/{operation}", ASKED).status_code == 200
    world.close()


@pytest.mark.parametrize("camara", [{}, {"monitored_days": 30}])
def test_a_line_whose_activation_nobody_told_of_has_no_date_until_its_sim_changes(
    tmp_path: Path, camara: dict[str, int]
) -> None:
    """Nor a period: with one it would say that there was no change in it, and nobody knows."""
    world = World.make(tmp_path, **camara)
    world.signal(SignalKind.OBSERVED)
    assert world.ask(f"{SIM}/retrieve-date", ASKED).json() == {"latestSimChange": None}
    assert world.ask(f"{SIM}/check", ASKED).json() == {"swapped": False}
    world.signal(ago=timedelta(days=1), imsi=OTHER_IMSI)
    assert world.ask(f"{SIM}/retrieve-date", ASKED).json() == {"latestSimChange": "2026-11-20T09:30:00Z"}
    assert world.ask(f"{SIM}/check", ASKED).json() == {"swapped": True}
    world.close()


@APIS
def test_a_number_that_is_not_ours_or_not_any_more_is_no_line_of_ours(world: World, api: str, latest: str) -> None:
    refused(world.ask(f"{api}/check", {"phoneNumber": UNKNOWN}), 404, "IDENTIFIER_NOT_FOUND")
    world.signal(SignalKind.TERMINATED, ago=timedelta(days=1))
    for operation in ("check", "retrieve-date"):
        refused(world.ask(f"{api}/{operation}", ASKED), 404, "IDENTIFIER_NOT_FOUND")


def test_a_number_that_was_changed_is_no_line_any_more_and_the_new_one_was_swapped(world: World) -> None:
    world.signal(SignalKind.NUMBER_CHANGED, ago=timedelta(hours=5), msisdn=OTHER_NUMBER, previous=NUMBER, imei=IMEI)
    refused(world.ask(f"{SIM}/check", ASKED), 404, "IDENTIFIER_NOT_FOUND")
    assert world.ask(f"{SIM}/check", {"phoneNumber": OTHER_NUMBER, "maxAge": 5}).json() == {"swapped": True}
    assert world.ask(f"{SIM}/check", {"phoneNumber": OTHER_NUMBER, "maxAge": 4}).json() == {"swapped": False}


def test_the_new_holder_of_a_number_inherits_nothing(world: World) -> None:
    world.map_subject("alice")
    world.ask(f"{SIM}/check", ASKED)
    world.signal(SignalKind.TERMINATED, ago=timedelta(days=100))
    world.signal(SignalKind.SUBSCRIBED, ago=timedelta(days=2), imsi=OTHER_IMSI, iccid=OTHER_ICCID)
    assert world.ask(f"{SIM}/retrieve-date", ASKED).json() == {"latestSimChange": "2026-11-19T09:30:00Z"}
    refused(world.ask(f"{DEVICE}/retrieve-date", ASKED), 422, "SERVICE_NOT_APPLICABLE")
    refused(world.ask(f"{SIM}/check", {}, world.token(sub="alice")), 422, "MISSING_IDENTIFIER")

    world.signal(ago=timedelta(days=300), imei=IMEI)  # late, of the earlier holder
    world.ask(f"{SIM}/check", ASKED)
    first, *others = [reading.fact.subjects for reading in world.readings()]
    assert first not in others
    assert len(set(others)) == 1


# Whose line is meant


@APIS
def test_a_token_of_three_legs_says_whose_line_is_meant(world: World, api: str, latest: str) -> None:
    world.map_subject("alice")
    alice, bob = world.token(sub="alice"), world.token(sub="bob")
    assert world.ask(f"{api}/retrieve-date", {}, alice).json() == {latest: "2025-10-17T09:30:00Z"}
    refused(world.ask(f"{api}/check", ASKED, alice), 422, "UNNECESSARY_IDENTIFIER")
    refused(world.ask(f"{api}/check", {}, bob), 422, "MISSING_IDENTIFIER")
    refused(world.ask(f"{api}/check", ASKED, bob), 422, "UNNECESSARY_IDENTIFIER")


@APIS
def test_a_token_of_two_legs_does_not(world: World, api: str, latest: str) -> None:
    for token in (world.token(), world.token(sub="bank")):
        refused(world.ask(f"{api}/check", {}, token), 422, "MISSING_IDENTIFIER")
        assert world.ask(f"{api}/check", ASKED, token).status_code == 200


def test_a_subject_is_one_of_its_issuer(world: World) -> None:
    """Somebody of the same name at another issuer is somebody else."""
    world.parts.lines.map_subject("https://other.example", "alice", NUMBER, SYSTEM)
    refused(world.ask(f"{SIM}/check", {}, world.token(sub="alice")), 422, "MISSING_IDENTIFIER")


# What is recorded


def test_who_asked_whose_line_and_what_for_is_in_the_log(world: World) -> None:
    answer = world.ask(f"{SIM}/check", {**ASKED, "maxAge": 120}, x_correlator="story-1")
    assert answer.status_code == 200
    (reading,) = world.readings()
    (subject,) = reading.fact.subjects
    assert reading.fact.purpose == "dpv:FraudPreventionAndDetection"
    assert reading.fact.query_sha256 == hashlib.sha256(b"POST /sim-swap/v2/check maxAge=120").hexdigest()
    assert NUMBER[1:] not in subject
    assert (reading.context.actor, reading.context.role) == (
        "relying-party:https://login.operator.example|bank",
        "relying-party",
    )


def test_the_purpose_is_the_tokens_own_where_it_names_one(world: World) -> None:
    world.ask(f"{SIM}/check", ASKED, world.token(["dpv:CreditChecking", "sim-swap:check"]))
    assert [reading.fact.purpose for reading in world.readings()] == ["dpv:CreditChecking"]


def test_a_line_whose_answer_is_a_refusal_was_read_as_well(world: World) -> None:
    world.signal(SignalKind.PORTED_OUT, ago=timedelta(days=1))
    world.ask(f"{SIM}/check", ASKED)
    assert len(world.readings()) == 1


def test_of_a_number_that_nobody_has_there_is_nothing_to_record(world: World) -> None:
    world.ask(f"{SIM}/check", {"phoneNumber": UNKNOWN})
    assert world.readings() == []


@pytest.mark.parametrize(
    ("why", "status", "code"),
    [
        (ErrorCode.STORE_UNAVAILABLE, 503, "UNAVAILABLE"),
        (ErrorCode.STORE_BUSY, 429, "TOO_MANY_REQUESTS"),
    ],
)
def test_what_cannot_be_recorded_is_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch, why: ErrorCode, status: int, code: str
) -> None:
    def full(*_: object) -> None:
        raise TsmError(why, "the name of the disk")

    monkeypatch.setattr(world.parts.tsm._committer, "append", full)
    answer = world.ask(f"{SIM}/retrieve-date", ASKED)
    refused(answer, status, code)
    assert answer.headers["retry-after"] == "1"
    assert "disk" not in answer.text
    assert world.readings() == []
