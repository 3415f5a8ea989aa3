"""CAMARA sim-swap-subscriptions: who may subscribe to what, what is shown to whom, and what is refused how."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.app import create_app
from api.bootstrap import Settings, build
from api.camara.sinks import Sinks
from tests.api.camara_world import BEGIN, NUMBER, OTHER_IMSI, OTHER_NUMBER, SYSTEM, UNKNOWN, World, refused
from tests.api.tls_sink import NO_CONTENT, sink_in, status
from tsm.application import Change
from tsm.errors import ErrorCode, TsmError
from tsm.flows import swap_notices
from tsm.flows.subscriptions import CREDENTIAL, commit, read
from tsm.flows.swap_notices import Answer
from tsm.model import subscription
from tsm.model.line import SignalKind

PATH = "/sim-swap-subscriptions/v0.3/subscriptions"
EVENT = "org.camaraproject.sim-swap-subscriptions.v0.swapped"
CREATE = f"sim-swap-subscriptions:{EVENT}:create"
READ, DELETE = "sim-swap-subscriptions:read", "sim-swap-subscriptions:delete"
ALL = (CREATE, READ, DELETE)
SINK = "https://bank.example/sink?for=swaps"
LATER = BEGIN + timedelta(days=30)
SECRET = "yJ2ZXIiOiIxLjAiLCJ0eXAiO"
CREDENTIALED = {
    "credentialType": "ACCESSTOKEN",
    "accessToken": SECRET,
    "accessTokenExpiresUtc": LATER.isoformat(),
    "accessTokenType": "bearer",
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, subscriptions=3)
    made.signal(SignalKind.SUBSCRIBED)
    made.map_subject("alice")
    yield made
    made.close()


def wish(number: str | None = NUMBER, **changes: Any) -> dict[str, Any]:
    """A request as specified; `config` is added to, a None takes a member out."""
    config = {"subscriptionDetail": {"phoneNumber": number} if number else {}, **changes.pop("config", {})}
    asked = {"protocol": "HTTP", "sink": SINK, "types": [EVENT], "config": config, **changes}
    return {name: value for name, value in asked.items() if value is not None}


class Client:
    """A relying party with a token."""

    def __init__(self, world: World, sub: str | None = None, scopes: tuple[str, ...] = ALL, **claims: Any) -> None:
        self.world = world
        self.headers = {"Authorization": f"Bearer {world.token(scopes, sub=sub, **claims)}"}

    def ask(self, method: str, place: str = "", **options: Any) -> httpx.Response:
        return self.world.send(method, PATH + place, headers=self.headers, **options)

    def create(self, body: Any) -> httpx.Response:
        return self.ask("POST", json=body)

    def created(self, *, number: str | None = NUMBER, **changes: Any) -> dict[str, Any]:
        answer = self.create(wish(number, **changes))
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def listed(self) -> list[dict[str, Any]]:
        answer = self.ask("GET")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]


@pytest.fixture
def bank(world: World) -> Client:
    return Client(world)


@pytest.fixture
def alice(world: World) -> Client:
    """The bank, with the token of the line's holder."""
    return Client(world, sub="alice")


# Create, read, delete


def test_a_subscription_is_created_read_listed_and_deleted(bank: Client) -> None:
    limits = {"subscriptionMaxEvents": 5, "subscriptionExpireTime": "2026-12-21T10:30:00+01:00"}
    answer = bank.create(wish(config=limits, sinkCredential=CREDENTIALED))
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made == {
        "id": made["id"],
        "protocol": "HTTP",
        "sink": SINK,
        "types": [EVENT],
        "config": {
            "subscriptionDetail": {"phoneNumber": NUMBER},
            "subscriptionExpireTime": "2026-12-21T09:30:00Z",
            "subscriptionMaxEvents": 5,
        },
        "startsAt": "2026-11-21T09:30:00Z",
        "expiresAt": "2026-12-21T09:30:00Z",
        "status": "ACTIVE",
    }
    assert bank.ask("GET", f"/{made['id']}").json() == made
    assert bank.listed() == [made]
    answer = bank.ask("DELETE", f"/{made['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "DELETE"):
        refused(bank.ask(method, f"/{made['id']}"), 404, "NOT_FOUND")
    assert bank.listed() == []


def test_what_is_not_wished_for_is_not_shown(bank: Client) -> None:
    made = bank.created()
    assert made["config"] == {"subscriptionDetail": {"phoneNumber": NUMBER}}
    assert "expiresAt" not in made


def test_every_answer_has_the_correlator_of_its_request(bank: Client) -> None:
    bank.headers["x-correlator"] = "story-1"
    made = bank.create(wish())
    answers = [made, bank.ask("GET"), *(bank.ask(method, f"/{made.json()['id']}") for method in ("GET", "DELETE"))]
    answers.append(bank.create({}))
    assert [answer.status_code for answer in answers] == [201, 200, 200, 204, 400]
    assert {answer.headers["x-correlator"] for answer in answers} == {"story-1"}


def test_a_secret_is_in_no_event_and_goes_when_all_is_told(world: World, bank: Client) -> None:
    made = bank.created(sinkCredential=CREDENTIALED)
    stream = subscription.stream(made["id"])
    assert world.parts.tsm.payload(stream, CREDENTIAL) == SECRET.encode()
    bank.ask("DELETE", f"/{made['id']}")
    assert world.parts.tsm.payload(stream, CREDENTIAL) == SECRET.encode()  # with which the end is told
    found = read(world.parts.tsm, stream)
    assert found is not None
    facts = subscription.notify(found.state, subscription.ENDED, True, 1, "HTTP 204")
    commit(world.parts.tsm, found, facts, SYSTEM)
    assert world.parts.tsm.payload(stream, CREDENTIAL) is None
    raw = b"".join(row.state for row in world.parts.tsm._recorder.select_notifications(1, 1000))
    assert SECRET.encode() not in raw
    assert NUMBER.encode() not in raw


# Whose line, and who sees what


def test_with_three_legs_the_number_is_neither_asked_for_nor_told(bank: Client, alice: Client) -> None:
    made = alice.created(number=None)
    assert made["config"] == {"subscriptionDetail": {}}
    assert alice.ask("GET", f"/{made['id']}").json() == made
    assert alice.listed() == [made]
    refused(alice.create(wish()), 422, "UNNECESSARY_IDENTIFIER")
    refused(bank.create(wish(None)), 422, "MISSING_IDENTIFIER")


def test_a_token_of_two_legs_is_not_told_a_number_that_its_client_never_named(bank: Client, alice: Client) -> None:
    made = alice.created(number=None)
    assert bank.listed() == []
    for method in ("GET", "DELETE"):
        refused(bank.ask(method, f"/{made['id']}"), 404, "NOT_FOUND")


def test_with_three_legs_the_subscriptions_of_that_line_are_seen_without_the_number(
    world: World, bank: Client, alice: Client
) -> None:
    world.signal(SignalKind.SUBSCRIBED, msisdn=OTHER_NUMBER, imsi="001010000000003", iccid="8981100000000000036")
    other, own = bank.created(number=OTHER_NUMBER), bank.created()
    (seen,) = alice.listed()
    assert (seen["id"], seen["config"]["subscriptionDetail"]) == (own["id"], {})
    refused(alice.ask("GET", f"/{other['id']}"), 404, "NOT_FOUND")
    assert [one["id"] for one in bank.listed()] == [other["id"], own["id"]]


def test_what_a_holder_made_for_a_line_that_is_hers_no_more_ends_when_she_comes_again(
    world: World, alice: Client
) -> None:
    """Nobody would see it, and it would count."""
    made = alice.created(number=None)
    world.signal(SignalKind.SUBSCRIBED, msisdn=OTHER_NUMBER, imsi="001010000000003", iccid="8981100000000000036")
    world.map_subject("alice", OTHER_NUMBER)
    assert ended(world, made) is None
    assert alice.listed() == []
    end = ended(world, made)
    assert end is not None
    assert (end.reason, end.quiet) == ("NETWORK_TERMINATED", False)
    refused(alice.ask("GET", f"/{made['id']}"), 404, "NOT_FOUND")
    other = alice.created(number=None)
    assert [one["id"] for one in alice.listed()] == [other["id"]]


def ended(world: World, made: dict[str, Any]) -> subscription.SubscriptionEnded | None:
    found = read(world.parts.tsm, subscription.stream(made["id"]))
    assert found is not None
    return found.state.ended


def test_a_relying_party_whose_issuer_was_taken_out_of_the_settings_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Sinks, "post", lambda _sinks, url, *_: told.append(url) or Answer(204))
    world = World.make(tmp_path)
    world.signal(SignalKind.SUBSCRIBED)
    made = Client(world).created()
    world.close()
    config = tmp_path / "server" / "config.json"
    said = json.loads(config.read_bytes())
    config.write_text(json.dumps({**said, "camara": {**said["camara"], "issuers": []}}))
    parts = build(Settings.load(tmp_path / "server"), world.clock)
    world = World(parts, world.clock, create_app(parts))
    parts.start()
    world.record(ago=timedelta(hours=1), imsi=OTHER_IMSI)
    until = monotonic() + 20
    while (end := ended(world, made)) is None:
        assert monotonic() < until
        sleep(0.02)
    world.close()
    assert (end.reason, end.quiet) == ("NETWORK_TERMINATED", True)
    assert told == []


def test_nobody_sees_or_ends_what_is_anothers(world: World, bank: Client) -> None:
    made = bank.created()
    shop = Client(world, client_id="shop")
    assert shop.listed() == []
    for method in ("GET", "DELETE"):
        refused(shop.ask(method, f"/{made['id']}"), 404, "NOT_FOUND")
    assert len(bank.listed()) == 1


def test_a_holder_whose_line_nobody_told_has_no_subscriptions(world: World) -> None:
    bob = Client(world, sub="bob")
    assert bob.listed() == []
    refused(bob.create(wish(None)), 422, "MISSING_IDENTIFIER")


@pytest.mark.parametrize("over", [SignalKind.TERMINATED, SignalKind.PORTED_OUT])
def test_a_line_that_is_not_in_service_cannot_be_subscribed_to(world: World, bank: Client, over: SignalKind) -> None:
    refused(bank.create(wish(UNKNOWN)), 422, "SERVICE_NOT_APPLICABLE")
    world.signal(over, ago=timedelta(days=1))
    refused(bank.create(wish()), 422, "SERVICE_NOT_APPLICABLE")


def test_whoever_is_shown_numbers_is_recorded_before(world: World, bank: Client, alice: Client) -> None:
    made = bank.created()
    assert world.readings() == []
    bank.listed()
    bank.ask("GET", f"/{made['id']}")
    alice.listed()
    readings = world.readings()
    assert [reading.context.actor for reading in readings] == ["relying-party:https://login.operator.example|bank"] * 2
    assert {reading.fact.purpose for reading in readings} == {"dpv:FraudPreventionAndDetection"}


def test_what_cannot_be_recorded_is_not_shown(world: World, bank: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.created()

    def full(*_: object) -> None:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the name of the disk")

    monkeypatch.setattr(world.parts.tsm._committer, "append", full)
    refused(bank.ask("GET"), 503, "UNAVAILABLE")


# From the request to the sink


def test_a_sink_is_told_of_swaps_and_of_the_end_as_the_definition_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_notices, "FIRST_PAUSE", 0.01)
    with sink_in(tmp_path / "bank") as sink:
        monkeypatch.setenv("SSL_CERT_FILE", str(sink.ca))
        world = World.make(tmp_path, sink_networks=["127.0.0.0/8", "::1/128"])
        world.signal(SignalKind.SUBSCRIBED)
        replies = iter([status(503), status(302, Location="https://127.0.0.1/"), b"", NO_CONTENT])
        sink.reply = lambda _: next(replies, NO_CONTENT)
        limits = {"subscriptionMaxEvents": 1}
        made = Client(world).created(sink=sink.url, config=limits, sinkCredential=CREDENTIALED)
        world.parts.start()
        world.record(ago=timedelta(hours=1), imsi=OTHER_IMSI)
        until = monotonic() + 20
        while world.parts.tsm.payload(subscription.stream(made["id"]), CREDENTIAL) is not None:
            assert monotonic() < until
            sleep(0.02)
        found = read(world.parts.tsm, subscription.stream(made["id"]))
        world.close()

    assert found is not None
    *swapped, ended = [json.loads(body) for body in sink.bodies()]
    assert len(swapped) == 4
    (swap,) = [e for e in {body: json.loads(body) for body in sink.bodies()}.values() if e["type"] == EVENT]
    common = {
        "source": "https://127.0.0.1:8443/sim-swap-subscriptions/v0.3",
        "specversion": "1.0",
        "datacontenttype": "application/json",
    }
    assert swap == {
        **common,
        "id": f"{made['id']}-{found.state.last}",
        "type": EVENT,
        "time": "2026-11-21T08:30:00Z",
        "data": {"subscriptionId": made["id"], "phoneNumber": NUMBER},
    }
    assert ended == {
        **common,
        "id": f"{made['id']}-ended",
        "type": "org.camaraproject.sim-swap-subscriptions.v0.subscription-ended",
        "time": "2026-11-21T09:30:00Z",
        "data": {
            "subscriptionId": made["id"],
            "terminationReason": "MAX_EVENTS_REACHED",
            "terminationDescription": "as many events as were asked for were told",
        },
    }
    for request in sink.requests:
        assert request.startswith(b"POST /sink HTTP/1.1\r\n")
        assert b"\r\nContent-Type: application/cloudevents+json\r\n" in request
        assert f"\r\nAuthorization: Bearer {SECRET}\r\n".encode() in request


# Refusals


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protocol": "MQTT5"}, "INVALID_PROTOCOL"),
        ({"protocol": "SMTP"}, "INVALID_ARGUMENT"),
        ({"protocol": None}, "INVALID_ARGUMENT"),
        ({"sink": None}, "INVALID_ARGUMENT"),
        ({"sink": 7}, "INVALID_ARGUMENT"),
        ({"sink": "http://bank.example/sink"}, "INVALID_SINK"),
        ({"sink": "HTTPS://bank.example/sink"}, "INVALID_SINK"),
        ({"sink": "https://"}, "INVALID_SINK"),
        ({"sink": "https://[::1"}, "INVALID_SINK"),
        ({"sink": "https://bank.example:0/"}, "INVALID_SINK"),
        ({"sink": "https://bank.example:65536/"}, "INVALID_SINK"),
        ({"sink": "https://user@bank.example/"}, "INVALID_SINK"),
        ({"sink": "https://bank.example/ /"}, "INVALID_SINK"),
        ({"sink": "https://127.0.0.1/"}, "INVALID_SINK"),
        ({"sink": "https://[::ffff:10.0.0.1]/"}, "INVALID_SINK"),
        ({"sink": "https://169.254.169.254/latest/meta-data"}, "INVALID_SINK"),
        ({"types": None}, "INVALID_ARGUMENT"),
        ({"types": []}, "INVALID_ARGUMENT"),
        ({"types": [EVENT, EVENT]}, "INVALID_ARGUMENT"),
        ({"types": ["org.camaraproject.sim-swap.v0.swapped"]}, "INVALID_ARGUMENT"),
        ({"config": None}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionDetail": None}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionDetail": {"phoneNumber": "0312345678"}}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionDetail": {"phoneNumber": None}}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionMaxEvents": 0}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionMaxEvents": "5"}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionMaxEvents": 2**31}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionExpireTime": "2026-11-21T09:30:00Z"}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionExpireTime": "2027-11-21T09:30:00"}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionExpireTime": "9999-12-31T23:59:59-23:59"}}, "INVALID_ARGUMENT"),
        ({"config": {"subscriptionExpireTime": "tomorrow"}}, "INVALID_ARGUMENT"),
        ({"protocolSettings": {"headers": {"X-Forwarded-For": "10.0.0.1"}}}, "INVALID_ARGUMENT"),
        ({"protocolSettings": {"method": "GET"}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {"credentialType": "PLAIN", "identifier": "a", "secret": "b"}}, "INVALID_CREDENTIAL"),
        ({"sinkCredential": {**CREDENTIALED, "credentialType": "REFRESHTOKEN"}}, "INVALID_CREDENTIAL"),
        ({"sinkCredential": {**CREDENTIALED, "credentialType": "TOKEN"}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {**CREDENTIALED, "accessTokenType": "mac"}}, "INVALID_TOKEN"),
        ({"sinkCredential": {"credentialType": "ACCESSTOKEN"}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {**CREDENTIALED, "accessToken": ""}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {**CREDENTIALED, "accessToken": "a\r\nX-Evil: 1"}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {**CREDENTIALED, "accessTokenExpiresUtc": "1717753038"}}, "INVALID_ARGUMENT"),
        ({"sinkCredential": {**CREDENTIALED, "accessTokenExpiresUtc": "2026-11-21T09:30:59Z"}}, "INVALID_ARGUMENT"),
    ],
)
def test_what_is_not_as_specified_is_refused_by_the_code_for_it(
    bank: Client, changes: dict[str, Any], code: str
) -> None:
    refused(bank.create(wish(**changes) if changes.get("config", {}) is not None else no_config()), 400, code)
    assert bank.listed() == []


def no_config() -> dict[str, Any]:
    asked = wish()
    del asked["config"]
    return asked


def test_settings_of_http_that_say_what_is_done_anyway_are_taken(bank: Client) -> None:
    bank.created(protocolSettings={"method": "POST", "headers": {}}, unheardOf=1)


@pytest.mark.parametrize("id", [str(uuid4()), "2ghy-55gg-7iup-yuo9", "A" * 300, "%2e%2e", "%0Ax", str(uuid4()).upper()])
def test_an_id_that_is_none_is_not_found(bank: Client, id: str) -> None:
    for method in ("GET", "DELETE"):
        refused(bank.ask(method, f"/{id}"), 404, "NOT_FOUND")


@pytest.mark.parametrize(("method", "scope"), [("POST", CREATE), ("GET", READ), ("DELETE", DELETE)])
def test_each_operation_has_a_scope_of_its_own(world: World, method: str, scope: str) -> None:
    body = {"json": wish()} if method == "POST" else {}
    place = "/x" if method == "DELETE" else ""
    others = tuple(one for one in (*ALL, "sim-swap", "sim-swap-subscriptions") if one != scope)
    refused(Client(world, scopes=others).ask(method, place, **body), 403, "PERMISSION_DENIED")
    assert Client(world, scopes=(scope,)).ask(method, place, **body).status_code in (200, 201, 404)
    refused(world.send(method, PATH + place, **body), 401, "UNAUTHENTICATED")


def test_the_same_again_exists_already(bank: Client, alice: Client) -> None:
    """For the same line, at the same sink, made in the same way: so a lost answer makes no second subscription."""
    made = bank.created()
    refused(bank.create(wish(config={"subscriptionMaxEvents": 7})), 409, "ALREADY_EXISTS")
    bank.created(sink="https://bank.example/other")
    alice.created(number=None)
    bank.ask("DELETE", f"/{made['id']}")
    bank.created()


def test_a_relying_party_has_only_so_many(world: World, bank: Client) -> None:
    made = [bank.created(sink=f"https://bank.example/{number}") for number in range(3)]
    answer = bank.create(wish())
    refused(answer, 429, "QUOTA_EXCEEDED")
    assert answer.headers["retry-after"] == "3600"
    Client(world, client_id="shop").created()
    bank.ask("DELETE", f"/{made[0]['id']}")
    bank.created()


def test_a_line_that_never_stands_still_is_asked_for_again(
    world: World, bank: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal comes in between whatever is read and whatever is written."""
    commit = world.parts.tsm.commit

    def late(*changes: Change, **options: Any) -> int:
        if changes[0].stream.startswith("subscription-"):
            world.record()
        return commit(*changes, **options)

    monkeypatch.setattr(world.parts.tsm, "commit", late)
    refused(bank.create(wish()), 409, "ABORTED")


def test_a_body_that_is_larger_than_a_token_can_be_is_refused(bank: Client) -> None:
    refused(bank.create(wish(sinkCredential={**CREDENTIALED, "accessToken": "a" * 20_000})), 413, "CONTENT_TOO_LARGE")
    bank.created(sinkCredential={**CREDENTIALED, "accessToken": "a" * 12_000})


@pytest.mark.parametrize("networks", [["10.0.0.1/8"], ["localhost"], [""]])
def test_settings_that_name_no_network_are_refused(tmp_path: Path, networks: list[str]) -> None:
    with pytest.raises(TsmError) as refusal:
        World.make(tmp_path, sink_networks=networks)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


def test_our_document_is_there_for_everybody(world: World) -> None:
    answer = world.send("GET", "/sim-swap-subscriptions/v0.3/openapi.json")
    assert json.loads(answer.content)["info"]["version"] == "0.3.0"
