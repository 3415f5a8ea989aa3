"""Subscriptions by server-sent events and websockets: how they go on and how they end (attacks: `test_attacks.py`)."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from api.graphql import streams
from api.limits import EdgeLimits
from tests.api.edge_world import JSON, Client, Edge, Server, read_to_end, status_of
from tests.api.test_attacks import begin, closed, dial, events, head, heard, say
from tests.samples import OPERATOR
from tsm.model import operator
from tsm.model.event import Context

PATIENCE = 10.0
TICKS = "subscription { ticks }"
LONG = "subscription { ticks(count: 1000, every: 0.05) }"
HOUSE = Context(actor="system:test", role="system", tenant="MNO00001", correlation="test")


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(edge: Edge) -> Iterator[Server]:
    with edge.serving() as server:
        yield server


def heard_events(text: str) -> list[tuple[str, Any]]:
    """Names and contents of all events of a stream."""
    found = []
    for part in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"]) if fields.get("data") else None))
    return found


def ask(client: Client, query: str, **members: Any) -> tuple[int, str, list[tuple[str, Any]]]:
    answer = client.post({"query": query, **members}, Accept="text/event-stream")
    return answer.status_code, answer.headers["content-type"], heard_events(answer.text)


# Server-sent events


def test_results_come_one_by_one_and_then_it_is_complete(edge: Edge) -> None:
    status, kind, told = ask(edge.client(), TICKS)
    assert (status, kind) == (200, "text/event-stream; charset=utf-8")
    assert [name for name, _ in told] == ["next", "next", "next", "complete"]
    assert [content["data"]["ticks"] for _, content in told[:-1]] == ["0", "1", "2"]


def test_a_query_is_one_result(edge: Edge) -> None:
    _, _, told = ask(edge.client(), "{ hello }")
    assert [(name, content and content["data"]) for name, content in told] == [
        ("next", {"hello": "world"}),
        ("complete", None),
    ]


@pytest.mark.parametrize("query", ["{", "{ nope }", "subscription { nope }", "subscription { ticks(count: true) }"])
def test_what_is_refused_is_told_in_the_stream(edge: Edge, query: str) -> None:
    """A browser's EventSource would show nothing of a status."""
    status, kind, told = ask(edge.client(), query)
    assert (status, kind) == (200, "text/event-stream; charset=utf-8")
    assert [name for name, _ in told] == ["next", "complete"]
    assert "data" not in told[0][1] and told[0][1]["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


def test_variables_that_do_not_fit_are_told_in_the_stream(edge: Edge) -> None:
    _, _, told = ask(edge.client(), "subscription ($n: Int!) { ticks(count: $n) }", variables={"n": "x"})
    assert told[0][1]["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


def test_a_mutation_is_no_stream(edge: Edge) -> None:
    before = edge.parts.tsm.position
    _, _, told = ask(edge.client(), "mutation { enrol }")
    assert "data" not in told[0][1] and edge.parts.tsm.position == before


def test_what_breaks_in_the_middle_is_told_by_its_code_only(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    _, _, told = ask(edge.client(), "subscription { breaks }")
    assert told[0] == ("next", {"data": {"breaks": "first"}, "extensions": told[0][1]["extensions"]})
    assert told[1][1]["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert "inside" not in str(told) and "the inside of the file" in caplog.text


def test_silence_is_filled_with_comments(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PULSE", 0.05)
    answer = edge.client().post({"query": "subscription { ticks(count: 1, every: 0.5) }"}, Accept="text/event-stream")
    before, _, _ = answer.text.partition("event: next")
    assert before.startswith(":\n\n:\n\n") and set(before) == {":", "\n"}


def test_a_stream_ends_with_its_time_and_is_not_complete(edge: Edge) -> None:
    _, _, told = ask(edge.client(limits=EdgeLimits(stream_seconds=2.0)), LONG)
    assert told and {name for name, _ in told} == {"next"}


def test_a_stream_ends_with_the_token(edge: Edge) -> None:
    client = Client(edge.app(), edge.token(life=2))
    _, _, told = ask(client, "subscription { ticks(count: 1000, every: 0.2) }")
    assert told and {name for name, _ in told} == {"next"}


def test_who_is_withdrawn_hears_no_more(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person of an operator, whose operator goes while the stream runs."""
    monkeypatch.setattr(streams, "LOOK_AGAIN", 0.1)
    tsm = edge.parts.tsm
    tsm.enrol_operator(msgspec.structs.replace(OPERATOR, operator="MNO00009"), HOUSE)
    token = edge.token("operator", tenant="operator:MNO00009")
    with edge.serving() as server, server.connect() as connection:
        connection.sendall(events(edge, LONG, token))
        assert status_of(connection.recv(65536)) == 200
        tsm.withdraw(operator.stream("MNO00009"), operator.evolve, HOUSE)
        answer = b""
        while b"event: complete" not in answer:
            answer += connection.recv(65536)
    assert b"FORBIDDEN" in answer and len(heard_events(answer.decode(errors="replace"))) < 200


def test_a_client_that_goes_away_ends_its_subscription(edge: Edge) -> None:
    """And gives its place back."""
    with edge.serving(EdgeLimits(streams_per_client=1)) as server:
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(events(edge, LONG))
                answer = b""
                while b"event: next" not in answer:
                    answer += connection.recv(65536)
                while b"RATE_LIMITED" in answer:  # the place of the one before is not given back yet
                    connection.sendall(events(edge, LONG))
                    answer = connection.recv(65536)
                connection.shutdown(socket.SHUT_RDWR)


def test_a_subscription_needs_post(edge: Edge) -> None:
    assert edge.client().get({"Accept": "text/event-stream"}, query=TICKS).status_code == 406


def test_the_connection_serves_other_requests_after_a_stream(edge: Edge, server: Server) -> None:
    body = b'{"query": "{ hello }"}'
    with server.connect() as connection:
        connection.sendall(events(edge, TICKS))
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += connection.recv(65536)
        lines = (f"Content-Type: {JSON}", f"Content-Length: {len(body)}", "Connection: close")
        connection.sendall(head(edge, *lines) + body)
        assert b'"hello":"world"' in read_to_end(connection)


# Websockets


def test_a_whole_conversation(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        assert socket.subprotocol == "graphql-transport-ws"
        say(socket, type="ping", payload={"x": 1})
        assert heard(socket) == {"type": "pong"}
        begin(socket)
        say(socket, type="pong")
        say(socket, type="subscribe", id="a", payload={"query": TICKS, "operationName": None, "variables": None})
        told = [heard(socket) for _ in range(4)]
    assert [(message["type"], message["id"]) for message in told] == [("next", "a")] * 3 + [("complete", "a")]
    assert [message["payload"]["data"]["ticks"] for message in told[:-1]] == ["0", "1", "2"]


def test_operations_share_a_websocket_and_an_id_is_free_when_it_is_complete(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        say(socket, type="subscribe", id="long", payload={"query": LONG})
        for _ in range(3):
            say(socket, type="subscribe", id="short", payload={"query": "{ hello }"})
            told: list[dict[str, Any]] = []
            while not told or told[-1]["type"] != "complete":
                message = heard(socket)
                told += [message] if message["id"] == "short" else []
            assert [message["type"] for message in told] == ["next", "complete"]


def test_a_client_may_end_an_operation(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        say(socket, type="subscribe", id="long", payload={"query": LONG})
        assert heard(socket)["type"] == "next"
        say(socket, type="complete", id="long")
        say(socket, type="complete", id="one that never was")
        say(socket, type="ping")
        while heard(socket)["type"] != "pong":
            pass
        say(socket, type="subscribe", id="long", payload={"query": "{ hello }"})
        assert heard(socket)["payload"]["data"] == {"hello": "world"}


def test_every_operation_of_a_websocket_is_a_request_of_its_own(edge: Edge, server: Server) -> None:
    """Who is shown personal data is recorded once for each request: a second one is another."""
    with dial(server, edge) as socket:
        begin(socket)
        ids = []
        for _ in range(2):
            say(socket, type="subscribe", id="x", payload={"query": "{ request }"})
            ids.append(heard(socket)["payload"]["data"]["request"])
            assert heard(socket)["type"] == "complete"
    connection = ids[0].removesuffix("-1")
    assert len(connection) == 16
    assert ids == [f"{connection}-1", f"{connection}-2"]


def test_what_is_refused_is_told_under_its_id_and_the_websocket_goes_on(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        for query in ("{", "{ nope }", "{ secret }", "subscription { breaks }"):
            say(socket, type="subscribe", id="x", payload={"query": query})
            message = heard(socket)
            while message["type"] == "next":
                message = heard(socket)
            assert (message["type"], message["id"]) == ("error", "x")
            assert message["payload"][0]["extensions"]["code"] in ("INVALID_INPUT", "FORBIDDEN", "INTERNAL")


def test_who_is_withdrawn_begins_nothing_more(edge: Edge, server: Server) -> None:
    tsm = edge.parts.tsm
    tsm.enrol_operator(msgspec.structs.replace(OPERATOR, operator="MNO00008"), HOUSE)
    with dial(server, edge, token=edge.token("operator", tenant="operator:MNO00008")) as socket:
        begin(socket)
        tsm.withdraw(operator.stream("MNO00008"), operator.evolve, HOUSE)
        say(socket, type="subscribe", id="x", payload={"query": TICKS})
        message = heard(socket)
    assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "FORBIDDEN")


def test_a_websocket_ends_with_its_longest_time(edge: Edge) -> None:
    with edge.serving(EdgeLimits(stream_seconds=2.0)) as server, dial(server, edge) as socket:
        begin(socket)
        say(socket, type="subscribe", id="x", payload={"query": LONG})
        assert closed(socket) == 4401
