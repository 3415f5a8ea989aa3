"""Exports: everything the caller may see, once, whatever happens on the way, and harmless in a spreadsheet."""

import asyncio
import csv
import io
import itertools
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from msgspec.structs import replace as changed
from starlette.applications import Starlette

from api import exports
from api.access import Role
from api.app import create_app
from api.errors import refuse
from api.exports import COLUMNS
from api.graphql.authorization import RULES
from api.limits import EdgeLimits
from api.metrics import Metrics
from tests.api.audit_world import AuditWorld, audit_world
from tests.api.edge_world import status_of
from tests.api.https import serving
from tests.api.test_attacks import errors, leave
from tests.projections.many_parties import tell_as
from tests.projections.story import CREDENTIAL, ICCID, SECRETS
from tsm.application import Change
from tsm.errors import TsmError
from tsm.model import card

EVENTS = "/exports/events"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AuditWorld]:
    with audit_world(tmp_path) as made:
        yield made


@pytest.fixture
def auditor(world: AuditWorld) -> str:
    return world.token("auditor", "*").token


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def exported(world: AuditWorld, token: str, **parameters: Any) -> list[dict[str, Any]]:
    """The events of an export that is complete."""
    answer = world.get(EVENTS, token, **parameters)
    assert answer.status_code == 200, answer.text
    *events, last = lines(answer.text)
    assert last == {"complete": True, "cursor": last["cursor"], "events": len(events)}
    return events


def test_every_event_is_a_line_in_the_order_of_the_log_with_all_that_it_says(world: AuditWorld, auditor: str) -> None:
    events = exported(world, auditor, readings="true")

    assert [event["position"] for event in events] == list(range(1, world.parts.tsm.position + 1))
    assert [(event["topic"], event["stream"], event["number"]) for event in events[: len(world.log.events)]] == [
        (event.topic, event.originator_id, event.originator_version) for event in world.log.events
    ]
    told = next(event for event in events if event["topic"] == "card.keys_put")
    assert told["text"].startswith("security domain A00000015100000001 got keys")
    assert (told["card"], told["values"]["key_version"], told["tenants"]) == (ICCID, 2, ["MNO00001"])


def test_nothing_is_unsealed(world: AuditWorld, auditor: str) -> None:
    for form in ("jsonl", "csv"):
        text = world.get(EVENTS, auditor, format=form).text
        assert CREDENTIAL in text and "[sealed]" in text
        assert [secret for secret in SECRETS if secret != "operator/MNO00001/isd" and secret in text] == []


def test_each_sees_his_own_and_of_others_outlines_only(world: AuditWorld) -> None:
    operator = exported(world, world.token("operator", "operator:MNO00001").token)
    assert {event["operator"] for event in operator} == {"MNO00001"}
    foreign = [event for event in operator if event["tenant"] == "JPKI0001"]
    assert {event["topic"] for event in foreign} == {"session.started", "session.ended"}
    assert {
        event[name] and name for event in foreign for name in ("text", "values", "tenants", "request", "correlation")
    } == {None}
    own = [event for event in operator if event["tenant"] not in ("JPKI0001", "BANK0001")]
    assert own and all(event["text"] and event["values"] is None for event in own)

    provider = exported(world, world.token("provider", "provider:BANK0001").token)
    assert {event["provider"] for event in provider} == {"BANK0001"}
    assert {event["values"] and "told" for event in provider} == {None}


@pytest.mark.parametrize("role", ["auditor", "security-officer"])
def test_what_else_events_say_is_for_auditors_and_officers_as_in_graphql(world: AuditWorld, role: str) -> None:
    assert {Role.AUDITOR, Role.SECURITY_OFFICER} == RULES["Event.values"]
    events = exported(world, world.token(role, "operator:MNO00001").token)
    assert {bool(event["values"]) for event in events if event["tenant"] == "MNO00001"} == {True}
    assert {bool(event["values"]) for event in events if event["tenant"] == "JPKI0001"} == {False}


@pytest.mark.parametrize(("role", "tenant"), [("clerk", "municipality:13101"), ("administrator", "*")])
def test_others_export_nothing(world: AuditWorld, role: str, tenant: str) -> None:
    refused = world.get(EVENTS, world.token(role, tenant).token)
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert world.get(EVENTS).status_code == 401


def test_who_saw_personal_data_is_exported_to_overseers_only(world: AuditWorld, auditor: str) -> None:
    assert "reading.data_accessed" in {event["topic"] for event in exported(world, auditor, readings="true")}
    assert "reading.data_accessed" not in {event["topic"] for event in exported(world, auditor)}
    operator = world.token("operator", "operator:MNO00001").token
    assert world.get(EVENTS, operator, readings="true").status_code == 403


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_export_goes_on_behind_any_line_as_if_it_had_never_been_cut(
    world: AuditWorld, auditor: str, monkeypatch: pytest.MonkeyPatch, form: str, size: int
) -> None:
    monkeypatch.setattr(exports, "PAGE", size)
    whole = world.get(EVENTS, auditor, format=form).text
    ending = "\r\n" if form == "csv" else "\n"
    whole_lines = whole.split(ending)
    heading = 1 if form == "csv" else 0

    for kept in (1, 5, 17):
        part = whole_lines[: kept + heading]
        cursor = part[-1].split(",")[0] if form == "csv" else json.loads(part[-1])["cursor"]
        rest = world.get(EVENTS, auditor, format=form, after=cursor).text.split(ending)
        assert (part + rest)[:-2] == whole_lines[:-2]


def test_the_cursor_at_the_end_begins_the_next_export(world: AuditWorld, auditor: str) -> None:
    last = lines(world.get(EVENTS, auditor).text)[-1]
    end = world.parts.tsm.position
    tell = tell_as(world.log, card.stream(ICCID), card.ContentAudited(domain="A000000151000000"), "MNO00001")
    world.parts.tsm.commit(
        Change(tell.originator_id, tell.originator_version - 1, [tell.fact]),
        context=tell.context,
        occurred_at=tell.occurred_at,
    )
    world.catch_up()

    assert [event["position"] for event in exported(world, auditor, after=last["cursor"])] == [end + 1]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"kinds": ["card.keys_put"], "provider": "BANK0001"}, {"card.keys_put"}),
        ({"kinds": ["session.", "card.keys_put"], "card": ICCID}, {"session.started", "session.card_connected",
                                                                  "session.ended", "card.keys_put"}),
        ({"subject": "subject-13102", "kinds": "credential."}, {"credential.applied",
                                                                "credential.holder_authenticated"}),
        ({"recordedTo": "2020-01-01T00:00:00+09:00"}, set()),
        ({"recordedFrom": "0001-01-01T00:00:00+14:00", "actor": "auditor:MNO00001/alice"}, set()),
    ],
)  # fmt: skip
def test_the_filters_are_those_of_the_index(
    world: AuditWorld, auditor: str, parameters: dict[str, Any], expected: set[str]
) -> None:
    assert {event["topic"] for event in exported(world, auditor, **parameters)} == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"format": "xml"},
        {"after": "12"},
        {"after": "LTE="},
        {"kind": "card."},
        {"aid": "%"},
        {"recordedFrom": "yesterday"},
        {"recordedFrom": "2026-11-21T00:00:00"},
        {"readings": "1"},
        {"card": "x" * 256},
        {"card": "a\x00"},
        {"card": ["a", "b"]},
        {"kinds": ["card."] * 21},
    ],
)
def test_what_is_not_as_described_is_refused(world: AuditWorld, auditor: str, parameters: dict[str, Any]) -> None:
    refused = world.get(EVENTS, auditor, **parameters)
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_INPUT")


@pytest.mark.parametrize("lead", [*list("=+-@\t\r"), "＝"])
def test_no_cell_is_a_formula(world: AuditWorld, auditor: str, lead: str) -> None:
    event = world.log.events[-1]
    fact = card.CardReleased(domain="A000000151000000", reason=f'{lead}HYPERLINK("https://evil.example","x")')
    context = event.context.__class__(
        actor="administrator:console", role="administrator", tenant="server", correlation="c", reason=fact.reason
    )
    version = sum(e.originator_id == card.stream(ICCID) for e in world.log.events)
    world.parts.tsm.commit(Change(card.stream(ICCID), version, [fact]), context=context, occurred_at=event.occurred_at)
    world.catch_up()

    answer = world.get(EVENTS, auditor, format="csv", kinds="card.released")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    heading, row, last = csv.reader(io.StringIO(answer.text, newline=""))
    assert heading == list(COLUMNS)
    assert row[COLUMNS.index("reason")] == f"'{fact.reason}".replace("\r", " ")  # one line is one event
    assert not [cell for cell in row if cell.startswith(exports.FORMULA)]
    assert last[0] == "complete" and last[2] == "1" and len(last) == len(COLUMNS)


def test_an_export_is_a_download_that_nobody_keeps(world: AuditWorld, auditor: str) -> None:
    answer = world.get(EVENTS, auditor)
    end = world.parts.tsm.position
    assert answer.headers["content-disposition"] == f'attachment; filename="events-{end}.jsonl"'
    assert answer.headers["tsm-export-end"] == str(end)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/x-ndjson"
    head = asyncio.run(world.ask("HEAD", EVENTS, auditor))
    assert (head.status_code, head.content) == (200, b"")


def test_a_token_that_is_revoked_ends_the_export_which_says_so(
    world: AuditWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE", 5)
    issued = world.token("auditor", "*")
    made = exports.write

    def revoked_at_the_second(*arguments: Any) -> Any:
        if arguments[3]:
            world.tokens.revoke(issued.id, world.log.events[0].context)
        return made(*arguments)

    monkeypatch.setattr(exports, "write", revoked_at_the_second)
    answer = world.get(EVENTS, issued.token)
    *events, last = lines(answer.text)

    assert len(events) == 10
    assert last == {
        "complete": False, "cursor": events[-1]["cursor"], "events": 10, "code": "UNAUTHENTICATED",
        "requestId": answer.headers["tsm-request-id"],
    }  # fmt: skip


def test_an_event_that_cannot_be_read_has_its_line_and_says_so(world: AuditWorld, auditor: str) -> None:
    """The index knows it from before it was damaged."""
    position = 3
    world.parts.tsm._mapper._decoders.clear()  # type: ignore[attr-defined]
    world.parts.tsm._mapper._facts.pop("domain.claimed")  # type: ignore[attr-defined]

    event = exported(world, auditor)[3]
    assert event["position"] == position + 1 and event["topic"] == "domain.claimed"
    assert (event["text"], event["values"], event["error"]) == (None, None, "STORE_CORRUPT")


def test_nothing_is_read_that_the_client_has_no_room_for_and_pages_are_made_in_threads(
    world: AuditWorld, auditor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE", 2)
    pages: list[str] = []
    made = exports.write

    def counted(*arguments: Any) -> Any:
        pages.append(threading.current_thread().name)
        return made(*arguments)

    monkeypatch.setattr(exports, "write", counted)
    bodies, room = 0, asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        nonlocal bodies
        bodies += message["type"] == "http.response.body"
        if bodies == 2:
            await room.wait()  # the connection is full

    async def slow() -> None:
        scope = {
            "type": "http", "method": "GET", "path": EVENTS, "query_string": b"", "extensions": {},
            "headers": [(b"authorization", f"Bearer {auditor}".encode())],
        }  # fmt: skip
        never = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await never.wait()
            return {}

        task = asyncio.create_task(world.app(scope, receive, send))
        await asyncio.sleep(0.3)
        assert bodies == 2 and len(pages) <= 2
        room.set()
        await task

    asyncio.run(slow())
    assert len(pages) > 5
    assert "MainThread" not in pages


def test_whoever_takes_nothing_is_cut(world: AuditWorld, auditor: str) -> None:
    settings = world.parts.settings
    limits = EdgeLimits(send_seconds=0.1)
    app = create_app(replace(world.parts, settings=changed(settings, limits=limits), metrics=Metrics()))
    sent: list[str] = []

    async def takes_the_heading_only(message: dict[str, Any]) -> None:
        sent.append(message["type"])
        if len(sent) == 2:
            await asyncio.Event().wait()

    async def stays() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    scope = {
        "type": "http", "method": "GET", "path": EVENTS, "query_string": b"", "extensions": {},
        "headers": [(b"authorization", f"Bearer {auditor}".encode())],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, stays, takes_the_heading_only), 10))
    assert sent == ["http.response.start", "http.response.body"]


def test_exports_take_turns(world: AuditWorld, auditor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "PAGE", 4)
    made, order, busy = exports.write, [], threading.Lock()

    def alone(*arguments: Any) -> Any:
        assert busy.acquire(blocking=False)
        order.append(arguments[2].filters.last)
        written = made(*arguments)
        busy.release()
        return written

    monkeypatch.setattr(exports, "write", alone)

    async def both() -> None:
        early = "2099-01-01T00:00:00Z"
        await asyncio.gather(
            world.ask("GET", EVENTS, auditor), world.ask("GET", EVENTS, auditor, params={"recordedTo": early})
        )

    asyncio.run(both())
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes >= len(order) // 2


def test_a_client_has_so_many_exports_at_one_time_and_gets_them_back(
    world: AuditWorld, auditor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.token("auditor", "*").token
    made, begun, go_on = exports.write, threading.Semaphore(0), threading.Event()

    def held(*arguments: Any) -> Any:
        begun.release()
        assert go_on.wait(10)
        return made(*arguments)

    monkeypatch.setattr(exports, "write", held)

    async def many() -> None:
        running = [asyncio.create_task(world.ask("GET", EVENTS, auditor)) for _ in range(2)]
        await asyncio.to_thread(begun.acquire)  # they take turns: the other waits for the first one's page
        refused = await world.ask("GET", EVENTS, auditor)
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) > 0
        running.append(asyncio.create_task(world.ask("GET", EVENTS, other)))
        go_on.set()
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200, 200]

    asyncio.run(many())
    assert [world.get(EVENTS, auditor, format="nonsense").status_code for _ in range(3)] == [400] * 3
    assert exported(world, auditor)


@pytest.mark.parametrize("goes", ["away", "at once", "not"])
def test_an_export_that_is_cut_is_no_error_and_gives_its_place_back(
    world: AuditWorld, auditor: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, goes: str
) -> None:
    """Whether its client goes away in the middle, or takes nothing: over real sockets."""
    monkeypatch.setattr(exports, "PAGE", 1)
    made = exports.write
    monkeypatch.setattr(exports, "write", lambda *asked: made(*asked)._replace(octets=b"x" * 3_000_000))
    limits, tls = EdgeLimits(send_seconds=0.4, exports_per_client=1), world.parts.settings.tls
    settings = changed(world.parts.settings, limits=limits)
    app = Starlette(
        routes=exports.routes(replace(world.parts, settings=settings)), exception_handlers={TsmError: refuse}
    )
    anybody = ssl.create_default_context(cafile=str(tls.party_ca))
    request = f"GET {EVENTS} HTTP/1.1\r\nHost: server\r\nAuthorization: Bearer {auditor}\r\n\r\n".encode()
    with serving(app, tls, limits=limits) as url:
        for _ in range(2):
            plain = create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 10)
            with anybody.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(request)
                assert status_of(connection.recv(200)) == 200
                leave(connection, goes)
        assert errors(caplog) == []
