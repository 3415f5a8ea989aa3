"""Logs, metrics, health and readiness: they say what is going on, and nothing of anybody's data."""

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.routing import Route

from api import exports, logs
from api.app import create_app
from api.health import Readiness
from api.issuer_keys import in_event_loop
from api.logs import Lines, Text
from api.metrics import Metrics
from projections.runner import Observer
from tests.api.audit_world import AuditWorld, audit_world
from tests.api.edge_world import Edge, status_of
from tests.api.test_attacks import UPGRADE
from tests.projections.story import ICCID, SECRETS
from tsm.application import Change
from tsm.errors import ErrorCode, TsmError
from tsm.model import card
from tsm.store.loop import on_loop

MARK = "YAMADA-HANAKO-19871123"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AuditWorld]:
    with audit_world(tmp_path) as made:
        yield made


@pytest.fixture
def administrator(world: AuditWorld) -> str:
    return world.token("administrator", "*").token


@pytest.fixture(params=[Lines, lambda: Text(logs.TEXT)], ids=["json", "text"])
def written(request: pytest.FixtureRequest) -> Iterator[StringIO]:
    """What the server's log has, in either style."""
    yield from written_with(request.param())


@pytest.fixture
def written_json() -> Iterator[StringIO]:
    yield from written_with(Lines())


def written_with(formatter: logging.Formatter) -> Iterator[StringIO]:
    stream, root = StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(formatter)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    for name, quiet in logs.QUIET.items():
        logging.getLogger(name).setLevel(quiet)
    yield stream
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    root.removeHandler(handler)
    root.setLevel(level)


class Figures:
    """What the metrics say now."""

    def __init__(self, world: AuditWorld, token: str) -> None:
        answer = world.get("/metrics", token)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(answer.text)
        self._found = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def __call__(self, name: str, /, **labels: str) -> float | None:
        return self._found.get((name, frozenset(labels.items())))


def test_a_request_is_a_line_of_json_with_its_id_and_caller(world: AuditWorld, written_json: StringIO) -> None:
    auditor = world.token("auditor", "provider:JPKI0001")
    answer = world.get(exports.PATH, auditor.token, card=ICCID)
    world.get("/nowhere")

    told = [json.loads(line) for line in written_json.getvalue().splitlines()]
    export, nowhere = (line for line in told if line["logger"] == "api.requests")
    assert export == {
        "time": export["time"],
        "level": "INFO",
        "logger": "api.requests",
        "message": "GET /exports/events 200",
        "requestId": answer.headers["tsm-request-id"],
        "actor": f"auditor:JPKI0001/service-token-{auditor.id}",
        "role": "auditor",
        "status": "200",
        "milliseconds": export["milliseconds"],
    }
    assert export["milliseconds"] > 0
    assert nowhere["message"] == "GET none 404" and "actor" not in nowhere
    about_it = [
        line for line in told if line.get("requestId") == export["requestId"] and line["logger"] == "api.exports"
    ]
    assert about_it and about_it[0]["actor"] == export["actor"]


def test_no_token_variable_path_or_personal_value_is_in_logs_or_metrics(
    world: AuditWorld, administrator: str, written: StringIO
) -> None:
    """What is asked with a mark in every place, what fails with one, and what shows personal data."""

    async def fails(_: Request) -> None:
        raise ValueError(f"a text that quotes {MARK}")

    world.app.router.routes.append(Route("/fails/{name}", fails))
    auditor, operator = world.token("auditor", "*").token, world.token("operator", "operator:MNO00001").token
    query = f'query Q($iccid: String!) {{ card(iccid: $iccid) {{ iccid }} other: card(iccid: "{MARK}") {{ iccid }} }}'
    unsealing = """query { nodes: credentials(first: 5) { nodes {
        personalData(purpose: "a check for a test") { applicant iccid } } } }"""
    asked: list[dict[str, Any]] = [
        {"query": query, "variables": {"iccid": MARK}},
        {"query": query, "variables": {"iccid": ICCID, MARK: MARK}},
        {"query": f"{{ {MARK.replace('-', '')} }}"},
        {"query": "{ card(iccid: 7) { iccid } }", "operationName": MARK},
        {"query": unsealing},
    ]
    answers = []
    for body in asked:
        for token in (auditor, operator, administrator, f"tsm_{MARK}", f"{auditor}x"):
            answers.append(asyncio.run(world.ask("POST", "/graphql", token, json=body)))
    for token in (auditor, operator):
        world.get(exports.PATH, token, card=MARK)
        world.get(exports.PATH, token, **{MARK: "1"})
        world.get(exports.PATH, token, format="csv", readings="true")
    assert world.get(f"/fails/{MARK}").status_code == 500
    world.get(f"/{MARK}", MARK)
    world.get(f"/sp-tsm/cards/{MARK}/keys", operator)
    asyncio.run(world.ask("POST", "/mas/link", content=f"<x>{MARK}</x>"))
    shown = world.get("/metrics", administrator).text

    text = written.getvalue()
    assert "GET /fails/{name} 500" in text and "ValueError" in text
    assert any("YAMADA TARO" in answer.text for answer in answers)  # it was shown, and is nowhere here
    secrets = [MARK, MARK.replace("-", ""), auditor, operator, administrator, ICCID, *SECRETS]
    secrets += [token.split("_", 2)[2] for token in (auditor, operator, administrator)]  # a secret may have a _ in it
    assert [secret for secret in secrets if secret in shown] == []
    assert [secret for secret in secrets if secret in text] == []


def test_nothing_of_a_websocket_s_url_is_in_the_log(tmp_path: Path, written: StringIO) -> None:
    """A browser can put a token nowhere else, so people do, though here it opens nothing."""
    edge = Edge(tmp_path)
    with edge.serving() as server, server.connect() as connection:
        connection.sendall(UPGRADE.replace(b"/graphql", f"/graphql?access_token={MARK}".encode()) + b"\r\n")
        assert status_of(connection.recv(4096)) == 101
    edge.close()
    assert MARK not in written.getvalue()


def test_the_text_of_an_error_that_nobody_expected_is_left_out_and_its_causes_are_told(written_json: StringIO) -> None:
    try:
        try:
            raise KeyError(MARK)
        except KeyError as error:
            raise TsmError(ErrorCode.STORE_CORRUPT, "what we say of it") from error
    except TsmError as error:
        logging.getLogger("api").error("it failed", exc_info=error)

    told = json.loads(written_json.getvalue())
    assert told["error"][0] == "STORE_CORRUPT: what we say of it" and "KeyError" in told["error"]
    assert MARK not in written_json.getvalue()


def test_metrics_are_for_administrators(world: AuditWorld) -> None:
    assert world.get("/metrics").status_code == 401
    for role, tenant in (("auditor", "*"), ("security-officer", "*"), ("operator", "operator:MNO00001")):
        assert world.get("/metrics", world.token(role, tenant).token).status_code == 403


def test_requests_are_counted_by_route_and_role_never_by_path(world: AuditWorld, administrator: str) -> None:
    world.get(exports.PATH, world.token("auditor", "*").token)
    world.get(exports.PATH)
    for number in range(5):
        world.get(f"/somewhere/{number}")
    asyncio.run(world.ask("BREW", "/health"))
    told = Figures(world, administrator)

    counted = "tsm_http_requests_total"
    assert told(counted, route=exports.PATH, method="GET", status="200", role="auditor") == 1
    assert told(counted, route=exports.PATH, method="GET", status="401", role="") == 1
    assert told(counted, route="none", method="GET", status="404", role="") == 5
    assert told(counted, route="/health", method="other", status="405", role="") == 1
    assert told("tsm_http_request_seconds_count", route=exports.PATH) == 2
    assert told("tsm_exported_events_total") == len(world.log.events) - 1 + 2  # no readings, two tokens


def test_graphql_costs_and_refusals_are_counted(world: AuditWorld, administrator: str) -> None:
    auditor, operator = world.token("auditor", "*").token, world.token("operator", "operator:MNO00001").token
    answer = asyncio.run(
        world.ask("POST", "/graphql", auditor, json={"query": "{ cards(first: 50) { nodes { iccid } } }"})
    )
    price = answer.json()["extensions"]["cost"]["requestedQueryCost"]
    for token, query in ((operator, "{ __schema { types { name } } }"), (auditor, "{ nothing }"), (auditor, "{")):
        asyncio.run(world.ask("POST", "/graphql", token, json={"query": query}))
    told = Figures(world, administrator)

    assert told("tsm_graphql_cost_objects_sum", role="auditor") == price > 1
    assert told("tsm_graphql_refusals_total", code="FORBIDDEN", role="operator") == 1
    assert told("tsm_graphql_refusals_total", code="INVALID_INPUT", role="auditor") == 2


def test_metrics_say_how_far_log_and_read_models_are(world: AuditWorld, administrator: str) -> None:
    before = Figures(world, administrator)
    event = next(event for event in world.log.events if event.topic == "card.registered")
    number = sum(other.originator_id == event.originator_id for other in world.log.events)
    change = Change(event.originator_id, number, [card.ContentAudited(domain="A000000151000000")])
    world.parts.tsm.commit(change, context=event.context, occurred_at=event.occurred_at)
    told = Figures(world, administrator)

    assert told("tsm_log_position") == world.parts.tsm.position != before("tsm_log_position")
    assert before("tsm_read_model_lag_events", name="event_index") == 0
    assert told("tsm_read_model_lag_events", name="event_index") == 1
    assert told("tsm_read_model_parked_events", name="event_index") == 0
    assert told("tsm_committer_waiting") == 0
    assert told("tsm_live_sessions") == 0
    assert told("tsm_worker_keeping_up", worker="projections") is not None
    assert (told("process_resident_memory_bytes") or 0) > 0


def test_metrics_are_there_when_the_read_models_are_not(
    world: AuditWorld, administrator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "away")

    monkeypatch.setattr(world.parts.views, "serving", away)
    told = Figures(world, administrator)
    assert told("tsm_log_position") == world.parts.tsm.position
    assert told("tsm_read_model_lag_events", name="event_index") is None


def test_whoever_asks_waits_for_the_database_alone(world: AuditWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks at the read models lets the event loop go on, where others fold them, too."""
    views, alone = world.parts.views, []
    look = views.look

    def noted(work: Any) -> Any:
        alone.append(on_loop() or not in_event_loop())
        return look(work)

    monkeypatch.setattr(views, "look", noted)
    watch = Observer(world.parts.tsm, views)
    watch.start()
    world.app = create_app(replace(world.parts, workers=(watch,), metrics=Metrics()))
    tokens = {role: world.token(role, "*").token for role in ("administrator", "auditor")}
    for path, role in (("/health", ""), ("/ready", ""), ("/metrics", "administrator"), (exports.PATH, "auditor")):
        alone.clear()
        assert world.get(path, tokens.get(role, "")).status_code == 200
        assert alone and all(alone), path


def test_health_and_readiness_are_for_anybody_and_say_what_lacks(
    world: AuditWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [worker.name for worker in world.parts.workers]
    health = world.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "behind", "workers": names})

    for worker in world.parts.workers:
        monkeypatch.setattr(type(worker), "keeping_up", lambda _: True)
    assert world.get("/health").json() == {"status": "up"}
    lacking = AuditWorldReady(world)
    assert lacking.look() == ["projections"]
    world.catch_up()
    assert lacking.look() == []
    assert world.get("/ready").json() == {"status": "ready"}


class AuditWorldReady:
    """Asks for readiness anew each time."""

    def __init__(self, world: AuditWorld) -> None:
        self.world = world

    def look(self) -> list[str]:
        return list(asyncio.run(Readiness(self.world.parts).lacks()))


def test_a_store_that_is_away_or_hangs_is_not_ready_and_is_not_asked_by_everybody(
    world: AuditWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def away(_: object) -> int:
        nonlocal asked
        asked += 1
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "away")

    monkeypatch.setattr(type(world.parts.tsm), "position", property(away))

    async def many() -> list[Any]:
        return await asyncio.gather(*(world.ask("GET", "/ready") for _ in range(20)))

    answers = asyncio.run(many())
    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].json() == {"status": "not ready", "lacks": ["store"]}
    assert asked == 1
