"""The edge of CAMARA's APIs: tokens and scopes, x-correlator, error bodies of whatever answers, limits, documents."""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api import cli, local_login
from api.bootstrap import Settings, build
from api.camara import tokens
from api.camara.answers import MESSAGES, STATUS, Code
from api.tokens import LEEWAY
from tests.api.camara_world import ALL_SCOPES, CAMARA_AUDIENCE, CAMARA_ISSUER, NUMBER, SIGNER, UNKNOWN, World, refused
from tests.api.jwt_signer import NOW, Signer, claims_of
from tsm.errors import ErrorCode, TsmError
from tsm.model.local_token import LocalTokenIssued

CHECK = "/sim-swap/v2/check"
PATHS = ("/sim-swap/v2/retrieve-date", CHECK, "/device-swap/v1/retrieve-date", "/device-swap/v1/check")
ASKED = {"phoneNumber": NUMBER}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path)
    made.signal()
    yield made
    made.close()


# Who asks


def test_whoever_shows_no_token_is_nobody(world: World) -> None:
    for path in PATHS:
        answer = world.ask(path, ASKED, token="")
        refused(answer, 401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example/realms/tsm"},
        {"aud": "https://tsm.example"},
        {"exp": NOW - 60},
        {"client_id": None},
        {"jti": None},
        {"scope": 7},
        {"scope": "sim-swap " + "x" * 4096},
        {"scope": "sim-swap dpv:One dpv:Two"},
        {"scope": "sim-swap dpv:" + "x" * 200},
        {"sub": "white space"},
        {"cnf": {"jkt": "abc"}},
        {"cnf": {"x5t#S256": "abc"}},
    ],
)
def test_a_token_that_is_not_in_order_is_none(world: World, changes: dict[str, Any]) -> None:
    answer = world.ask(CHECK, ASKED, world.token(**changes))
    refused(answer, 401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_that_somebody_else_signed_is_none(world: World) -> None:
    claims = claims_of(iss=CAMARA_ISSUER, aud=CAMARA_AUDIENCE, client_id="bank", sub=None, scope="sim-swap")
    refused(world.ask(CHECK, ASKED, Signer.elliptic(SIGNER.kid).token(claims)), 401, "UNAUTHENTICATED")


def test_a_token_ends(world: World) -> None:
    token = world.token()
    assert world.ask(CHECK, ASKED, token).status_code == 200
    world.clock.now += timedelta(hours=1, seconds=LEEWAY + 1)
    refused(world.ask(CHECK, ASKED, token), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize("path", PATHS)
def test_either_of_two_scopes_opens_an_operation_and_no_other(world: World, path: str) -> None:
    _, api, _, operation = path.split("/")
    good = (api, f"{api}:{operation}")
    names = ("sim-swap", "device-swap")
    every = [*names, *(f"{name}:{o}" for name in names for o in ("check", "retrieve-date")), "SIM-SWAP", "openid"]
    for scope in every:
        answer = world.ask(path, {"phoneNumber": "+4477009"}, world.token([scope, "other"]))
        refused(answer, *((404, "IDENTIFIER_NOT_FOUND") if scope in good else (403, "PERMISSION_DENIED")))
    refused(world.ask(path, ASKED, world.token([])), 403, "PERMISSION_DENIED")


def test_no_token_opens_both_the_admin_api_and_camara(world: World) -> None:
    parts = world.parts
    url, life, now = parts.settings.public_url, timedelta(hours=1), world.clock()
    ours = tokens.sign(parts.vault, url, "bank", ALL_SCOPES, life, now, "ab" * 16)
    admin = local_login.sign(parts.vault, url, "auditor", "*", "alice", life, now, "cd" * 16)
    query = {"query": "{ __typename }"}

    assert world.ask(CHECK, ASKED, ours).status_code == 200
    refused(world.ask(CHECK, ASKED, admin), 401, "UNAUTHENTICATED")
    assert world.ask("/graphql", query, admin).status_code == 200
    for token in (ours, world.token(roles=["auditor"], tenant="*", sub="alice")):
        assert world.ask("/graphql", query, token).status_code == 401


# Tokens of our own


def test_a_token_of_the_command_line_opens_camara_and_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.map_subject("alice")
    data = str(world.parts.settings.data)
    made = "tsm admin camara-token --json --client bank --scope sim-swap:check --scope dpv:Testing --data"
    monkeypatch.setattr("sys.argv", [*made.split(), data])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)

    issued = [e.fact for e in world.parts.tsm.read(0, 1000) if isinstance(e.fact, LocalTokenIssued)]
    assert [(fact.id, fact.person, fact.role) for fact in issued] == [(told["id"], "bank", "relying-party")]
    world.clock.now = issued[0].expires_at - timedelta(minutes=1)
    assert world.ask(CHECK, ASKED, told["token"]).status_code == 200
    refused(world.ask("/device-swap/v1/check", ASKED, told["token"]), 403, "PERMISSION_DENIED")


@pytest.mark.parametrize("host", ["192.0.2.1", "tsm.example"])
def test_where_others_come_in_there_are_no_tokens_of_our_own(tmp_path: Path, host: str) -> None:
    world = World.make(tmp_path)
    world.close()
    config = tmp_path / "server" / "config.json"
    said = {**json.loads(config.read_bytes()), "host": host, "access": {"local_login": "even-from-the-network"}}
    config.write_text(json.dumps(said))
    settings = Settings.load(tmp_path / "server")
    assert settings.local_login
    assert not settings.camara_login
    parts = build(settings)
    token = tokens.sign(
        parts.vault, settings.public_url, "bank", ALL_SCOPES, timedelta(hours=1), parts.clock(), "ab" * 16
    )
    with pytest.raises(TsmError) as refusal:
        parts.door.admit({"headers": [(b"authorization", b"Bearer " + token.encode())]}, ALL_SCOPES)
    assert refusal.value.code is ErrorCode.UNAUTHENTICATED
    parts.close()


# Settings


@pytest.mark.parametrize(
    ("camara", "access"),
    [
        ({"issuers": [{}, {}]}, {}),
        ({"issuers": [{"issuer": "https://127.0.0.1:8443/camara"}]}, {}),
        ({"issuers": [{}]}, {"issuers": [{}]}),
        ({"issuers": [{"jwks": "http://login.example/keys"}]}, {}),
        ({"issuers": [{"operator": ""}]}, {}),
        ({}, {"issuers": [{"operator": "MNO00001"}]}),
        ({"monitored_days": 9}, {}),
        ({"requests_per_day": 0}, {}),
        ({"purpose": ""}, {}),
    ],
)
def test_settings_that_would_let_in_others_than_was_meant_are_refused(
    tmp_path: Path, camara: dict[str, Any], access: dict[str, Any]
) -> None:
    World.make(tmp_path).close()
    config = tmp_path / "server" / "config.json"
    for block in (camara, access):
        if "issuers" in block:
            block["issuers"] = [{**ISSUER, **changes} for changes in block["issuers"]]
    config.write_text(json.dumps({**json.loads(config.read_bytes()), "camara": camara, "access": access}))
    with pytest.raises(TsmError) as refusal:
        Settings.load(tmp_path / "server")
    assert refusal.value.code is ErrorCode.INVALID_INPUT


ISSUER = {"issuer": CAMARA_ISSUER, "audience": CAMARA_AUDIENCE, "algorithms": ["ES256"], "jwks": "keys.json"}


# x-correlator


@pytest.mark.parametrize("value", ["", "b4333c46-49c0-4f62-80d7-f0ef930f1c46", "aZ09-_:;./<>{}", "x" * 256])
def test_x_correlator_comes_back_whatever_the_answer_is(world: World, value: str) -> None:
    for answer in (
        world.ask(CHECK, ASKED, x_correlator=value),
        world.ask(CHECK, ASKED, token="", x_correlator=value),
        world.ask("/sim-swap/v2/nothing", x_correlator=value),
        world.send("GET", CHECK, headers={"x-correlator": value}),
        world.send("GET", "/sim-swap/v2/openapi.json", headers={"x-correlator": value}),
    ):
        assert answer.headers.get_list("x-correlator") == [value]


@pytest.mark.parametrize("value", ["white space", "x" * 257, "ä".encode().decode("latin-1"), "a,b", "a\\b", "(a)"])
def test_one_that_is_not_as_specified_is_refused_and_not_repeated(world: World, value: str) -> None:
    answer = world.send("POST", CHECK, json=ASKED, headers=[("x-correlator", value.encode("latin-1"))])
    refused(answer, 400, "INVALID_ARGUMENT")
    assert value not in answer.headers["x-correlator"]


def test_two_of_them_are_refused(world: World) -> None:
    refused(
        world.send("POST", CHECK, json=ASKED, headers=[("x-correlator", "a"), ("x-correlator", "b")]),
        400,
        "INVALID_ARGUMENT",
    )


def test_without_one_the_answer_names_the_request(world: World) -> None:
    answer = world.ask(CHECK, ASKED)
    (reading,) = world.readings()
    assert answer.headers["x-correlator"] == reading.context.request != ""


# Bodies


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_ARGUMENT"),
        (b"null", "INVALID_ARGUMENT"),
        (b"[]", "INVALID_ARGUMENT"),
        (b"{", "INVALID_ARGUMENT"),
        (b"\xff", "INVALID_ARGUMENT"),
        (b"[" * 4000, "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "\xff"}', "INVALID_ARGUMENT"),
        (b'\xef\xbb\xbf{"phoneNumber": "+447700900001"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "more": ' + b"[" * 2000 + b"]" * 2000 + b"}", "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "maxAge": 240.0}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900002", "phoneNumber": "+447700900001"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900002", "phone\\u004eumber": "+447700900001"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "device": {"ipv4Address": 1, "ipv4Address": 2}}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "device": "\xff"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": null}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": 447700900001}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "447700900001"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001\\n"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+047700900001"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+1234"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+1234567890123456"}', "INVALID_ARGUMENT"),
        ('{"phoneNumber": "+44770090000٣"}'.encode(), "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "maxAge": null}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "maxAge": "240"}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "maxAge": 1.5}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "maxAge": true}', "INVALID_ARGUMENT"),
        (b'{"phoneNumber": "+447700900001", "maxAge": 0}', "OUT_OF_RANGE"),
        (b'{"phoneNumber": "+447700900001", "maxAge": -1}', "OUT_OF_RANGE"),
        (b'{"phoneNumber": "+447700900001", "maxAge": 2401}', "OUT_OF_RANGE"),
        (b'{"phoneNumber": "+447700900001", "maxAge": 99999999999999999999}', "OUT_OF_RANGE"),
    ],
)
def test_a_body_that_is_not_as_specified_is_refused_and_nothing_of_it_repeated(
    world: World, body: bytes, code: str
) -> None:
    answer = world.send("POST", CHECK, content=body, headers=good_headers(world))
    refused(answer, 400, code)
    assert "44770" not in answer.text
    assert world.readings() == []


def test_what_a_definition_does_not_name_is_passed_over(world: World) -> None:
    assert world.ask(CHECK, {**ASKED, "device": {"ipv4Address": 1}}).json() == {"swapped": False}


def test_a_body_that_is_too_large_is_not_read(world: World) -> None:
    refused(world.ask(CHECK, {**ASKED, "more": "x" * 4096}), 413, "CONTENT_TOO_LARGE")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/xml", "application/json; charset=latin-1"])
def test_a_body_of_another_type_is_refused(world: World, kind: str) -> None:
    headers = {**good_headers(world), "Content-Type": kind}
    refused(world.send("POST", CHECK, content=json.dumps(ASKED), headers=headers), 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", 'APPLICATION/JSON;charset="UTF-8"'])
def test_json_in_utf_8_is_taken_however_it_is_written(world: World, kind: str) -> None:
    headers = {**good_headers(world), "Content-Type": kind}
    assert world.send("POST", CHECK, content=json.dumps(ASKED), headers=headers).status_code == 200


def good_headers(world: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.token()}", "Content-Type": "application/json"}


# What the framework and the inside refuse


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
def test_another_method_is_refused_in_the_same_form(world: World, method: str) -> None:
    answer = world.send(method, CHECK)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        refused(answer, 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    "path",
    ["/sim-swap/v2", "/sim-swap/v2/", "/sim-swap/v2/check/", "/sim-swap/v2/nothing", "/device-swap/v1/x/y",
     "/sim-swap-subscriptions/v0.3"],
)  # fmt: skip
def test_another_path_is_refused_in_the_same_form(world: World, path: str) -> None:
    answer = world.ask(path, ASKED, x_correlator="story-1")
    refused(answer, 404, "NOT_FOUND")
    assert answer.headers["x-correlator"] == "story-1"


@pytest.mark.parametrize("path", ["/health/", "/graphql/", "/sim-swap/v22", "/sim-swap/v2\n"])
def test_a_path_that_is_nearly_one_is_none_and_leads_nowhere(world: World, path: str) -> None:
    answer = world.send("GET", path.replace("\n", "%0a"))
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_an_error_that_nobody_expected_tells_nothing_of_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("the inside of the file")

    monkeypatch.setattr("api.camara.swaps.line_swaps", breaks)
    answer = world.ask(CHECK, ASKED, x_correlator="story-1")
    refused(answer, 500, "INTERNAL")
    assert "inside" not in answer.text
    assert answer.headers["x-correlator"] == "story-1"


def test_while_the_read_model_is_built_nobody_is_told_anything(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.record()
    answer = world.ask(CHECK, ASKED)
    refused(answer, 503, "UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    world.catch_up()
    assert world.ask(CHECK, ASKED).status_code == 200
    world.close()


def test_every_code_has_a_status_and_a_message() -> None:
    assert set(STATUS) == set(MESSAGES) == set(Code)


# How much


def test_more_in_a_minute_than_a_relying_party_may_is_refused_and_says_when_to_ask_again(tmp_path: Path) -> None:
    world = World.make(tmp_path, requests_per_minute=2)
    world.signal()
    assert [world.ask(CHECK, ASKED).status_code for _ in range(2)] == [200, 200]
    answer = world.ask(CHECK, ASKED, world.token(sub="alice"))  # another person's, the same relying party's
    refused(answer, 429, "TOO_MANY_REQUESTS")
    assert 0 < int(answer.headers["retry-after"]) <= 30
    assert world.ask(CHECK, ASKED, world.token(client_id="shop")).status_code == 200
    assert len(world.readings()) == 3
    world.close()


def test_more_in_a_day_than_was_agreed_upon_is_refused_as_such(tmp_path: Path) -> None:
    world = World.make(tmp_path, requests_per_day=2)
    world.signal()
    assert [world.ask(CHECK, ASKED).status_code for _ in range(2)] == [200, 200]
    answer = world.ask(CHECK, ASKED)
    refused(answer, 429, "QUOTA_EXCEEDED")
    assert 60 < int(answer.headers["retry-after"]) <= 43_200
    world.close()


# Documents


@pytest.mark.parametrize(("api", "version"), [("/sim-swap/v2", "2.1.0"), ("/device-swap/v1", "1.0.0")])
def test_anybody_may_read_the_document_of_an_api(world: World, api: str, version: str) -> None:
    document = world.send("GET", f"{api}/openapi.json").json()
    assert (document["openapi"], document["info"]["version"]) == ("3.0.3", version)
    assert document["servers"] == [{"url": api}]
    assert document["components"]["securitySchemes"]["openId"]["openIdConnectUrl"].startswith(CAMARA_ISSUER)


def test_neither_log_nor_metrics_nor_read_models_know_who_was_asked_about(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "httpx")  # the client
    world.map_subject("alice-of-the-tests")
    bodies = [ASKED, {**ASKED, "maxAge": 0}, {"phoneNumber": UNKNOWN}, {"phoneNumber": [NUMBER]}, {}]
    for token in (world.token(), world.token(sub="alice-of-the-tests"), world.token([])):
        for body in bodies:
            world.ask(CHECK, body, token)
    world.ask(f"/sim-swap/v2/{NUMBER}")
    parts, life = world.parts, timedelta(hours=1)
    admin = local_login.sign(
        parts.vault, parts.settings.public_url, "administrator", "*", "bob", life, world.clock(), "cd" * 16
    )
    metrics = world.send("GET", "/metrics", headers={"Authorization": f"Bearer {admin}"}).text
    assert "/sim-swap/v2/check" in metrics
    data = world.parts.settings.data
    kept = b"".join(file.read_bytes() for file in data.rglob("*.sqlite*"))
    for personal in (NUMBER[1:], UNKNOWN[1:], "alice-of-the-tests"):
        assert personal not in caplog.text + metrics
        assert personal.encode() not in kept
