"""Attacks on the edge, each refused or ended at a limit of `docs/limits.md`: documents, JSON, sockets, websockets.

(Confusing tokens: `test_access_tokens.py`. Reaching what is somebody else's: `test_authorization.py`.)
"""

import json
import logging
import random
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
from graphql import get_introspection_query
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api import tls
from api.graphql import streams
from api.graphql.limits import MAX_BODY, MAX_DOCUMENT
from api.limits import Budgets, EdgeLimits
from tests.api.admin_world import World
from tests.api.edge_world import JSON, Client, Edge, Server, drip, read_to_end, status_of
from tests.api.test_limits import chained, deep, nested

SHORT = EdgeLimits(header_seconds=0.4, body_seconds=0.4, keep_alive_seconds=0.4, send_seconds=0.4)
PATIENCE = 10.0  # seconds that a test waits for an end that should come within one


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    yield made
    made.close()


@pytest.fixture
def client(edge: Edge) -> Client:
    return edge.client()


@pytest.fixture(scope="module")
def hasty(edge: Edge) -> Iterator[Server]:
    """A server that waits for nobody."""
    with edge.serving(SHORT) as server:
        yield server


@pytest.fixture(scope="module")
def server(edge: Edge) -> Iterator[Server]:
    with edge.serving() as server:
        yield server


# Documents


def quadratic(name: str, number: int) -> str:
    return "{" + f"{name} " * number + "}"


def twice(levels: int) -> str:
    """Two fields of one name, and in each of them two of one name, and so on: 2^n of them meet at the bottom."""
    return "{ id }" if levels == 0 else "{ " + f"children {twice(levels - 1)} " * 2 + "}"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "a bomb of fragments": lambda: chained(60),
    "a bomb of nested fragments": lambda: (
        "{ item { ...F0 } } "
        + " ".join(
            f"fragment F{n} on Item {{ children {{ ...F{n + 1} }} x: children {{ ...F{n + 1} }} }}" for n in range(14)
        )
        + " fragment F9 on Item { id }"
    ),
    "a flood of aliases": lambda: "{" + " ".join(f"a{n}: hello" for n in range(300)) + "}",
    "one response key a thousand times": lambda: quadratic("x", 998),
    "one response key 480 times in 960 octets": lambda: quadratic("a", 479),
    "one response key in many fragments": lambda: (
        "{"
        + " ".join(f"...F{n}" for n in range(30))
        + "} "
        + " ".join(f"fragment F{n} on Query {{ hello hello hello hello }}" for n in range(30))
    ),
    "one response key twice at every level": lambda: "{ item " + twice(6) + " }",
    "deep nesting": lambda: nested(60),
    "nesting beyond the parser": lambda: nested(240),
    "a flood of directives": lambda: "{ hello " + "@skip(if: false) " * 120 + "}",
    "a flood of operations": lambda: " ".join(f"query Q{n} {{ hello }}" for n in range(150)),
    "a flood of variables": lambda: "query (" + " ".join(f"$v{n}: Int" for n in range(200)) + ") { hello }",
    "a long comment": lambda: "{ hello } #" + "x" * 100_000,
    "a long string": lambda: '{ echo(text: "' + "\\u0041" * 20_000 + '") }',
    "a long block string": lambda: '{ echo(text: """' + "\n " * 40_000 + '""") }',
    "a list as deep as it can be": lambda: "{ echo(numbers: " + "[" * 490 + "]" * 490 + ") }",
    "a cost beyond all": lambda: (
        "{ "
        + " ".join(
            f"i{n}: items(first: 100) {{ nodes {{ children {{ children {{ children {{ id }} }} }} }} }}"
            for n in range(15)
        )
        + " }"
    ),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_documents_that_would_keep_a_server_busy_are_refused(client: Client, document: Callable[[], str]) -> None:
    answer = client.ask(document())
    assert answer.status_code in (400, 422), answer.text
    assert "data" not in answer.json() and "INTERNAL" not in answer.text
    assert len(answer.content) < 20_000


def test_cycles_of_fragments_are_refused(client: Client) -> None:
    loops = [
        "{ ...A } fragment A on Query { ...A }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    ]
    assert [client.ask(loop).status_code for loop in loops] == [422, 422]


def test_who_may_not_introspect_learns_no_name(edge: Edge) -> None:
    """Over the real schema; names in the errors are those that the client sent."""
    world = World(edge.parts.settings.data.parent / "world")
    try:
        clerk = world.person("clerk", "municipality:13101", "carol")
        for query in (
            get_introspection_query(),
            '{ __type(name: "Query") { name } }',
            "{ cards { nodes { iccidd } } }",
        ):
            answer = clerk.ask(query)
            assert "data" not in answer
            assert "Did you mean" not in json.dumps(answer)
    finally:
        world.close()


# JSON


def test_a_batch_is_no_request(client: Client) -> None:
    answer = client.post([{"query": "{ hello }"}] * 100)
    assert answer.status_code == 422 and "hello" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"query": "{ hello }", "variables": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, 400),
        (b'{"query": "{ hello }", "variables": {"a": ' + b"9" * 5_000 + b"}}", 400),
        (b'{"query": "{ hello }", "variables": {"a": 1e999999}}', 400),
        (b'{"query": "{ hello }", "variables": {"a": NaN}}', 400),
        (b'{"query": "{ hello }", "variables": {"a": Infinity}}', 400),
        (b'{"query": "{ hello }", "variables": {"\\ud800": 1}}', 400),
        (b'{"query": "{ hello }", "query": "mutation { enrol }"}', 400),
        (b'{"query": "{ hello }", "\\u0071uery": "mutation { enrol }"}', 400),
        (b'{"query": "{ hello \\u0000 }"}', 400),
        (b'{"__proto__": {}, "query": "{ hello }"}', 200),
        (b'{"query": "{ hello }", "variables": {"' + b"k" * 200_000 + b'": 1}}', 200),
        (b'{"query": "{ hello }", "variables": {"a": [' + b"1," * 100_000 + b"1]}}", 422),
        (json.dumps({"query": "{ hello }", "variables": {"a": deep(10)}}).encode(), 422),
        (b"x" * (MAX_BODY + 1), 413),
    ],
    ids=str,
)
def test_json_that_is_meant_to_hurt(client: Client, body: bytes, status: int) -> None:
    assert client.post(body).status_code == status


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63, 10**300, 1.0e300, 1.5, True, "1", [], {}])
def test_a_number_that_does_not_fit_is_refused(client: Client, value: Any) -> None:
    answer = client.ask("query ($n: Int!) { echo(number: $n) }", variables={"n": value})
    assert answer.status_code == 422 and "data" not in answer.json()


def test_any_octets_are_answered_with_a_refusal(client: Client) -> None:
    """Nothing that a client sends is our fault."""
    chance = random.Random(4)  # noqa: S311 - no secret is made
    seed = json.dumps({"query": "query ($n: Int) { echo(number: $n) item { id } }", "variables": {"n": 1}}).encode()
    for _ in range(150):
        body = bytearray(seed)
        for _ in range(chance.randint(1, 6)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        assert client.post(bytes(body)).status_code in (200, 294, 400, 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_site_changes_nothing(edge: Edge, client: Client, kind: str) -> None:
    before = edge.parts.tsm.position
    body = b'{"query": "mutation { enrol }", "x": "="}'
    assert client.send("POST", {"Content-Type": kind}, content=body).status_code == 415
    assert (
        client.send("GET", {"X-HTTP-Method-Override": "POST"}, params={"query": "mutation { enrol }"}).status_code
        == 405
    )
    assert edge.parts.tsm.position == before


# Sockets


def head(edge: Edge, *lines: str, method: str = "POST", token: str = "") -> bytes:
    bearer = f"Authorization: Bearer {token or edge.token()}"
    return "\r\n".join([f"{method} /graphql HTTP/1.1", "Host: 127.0.0.1", bearer, *lines, "", ""]).encode()


BODY = b'{"query": "{ hello }"}'
WHOLE = (f"Content-Type: {JSON}", f"Content-Length: {len(BODY)}")


def test_slow_headers_end_at_their_limit(hasty: Server) -> None:
    """However small the steps: each octet is too little to gain time."""
    with hasty.connect() as connection:
        connection.sendall(b"POST /graphql HTTP/1.1\r\nX-Slow: ")
        assert drip(connection, b"x", 0.05, PATIENCE) < PATIENCE / 2
    with hasty.connect() as connection:
        connection.sendall(b"POST /graphql HTTP/1.1\r\nX-Slow: ")
        assert status_of(read_to_end(connection)) == 408


def test_whoever_connects_and_says_nothing_is_let_go(hasty: Server) -> None:
    with hasty.connect() as connection:
        assert read_to_end(connection) == b""


def test_empty_lines_gain_no_time(hasty: Server) -> None:
    with hasty.connect() as connection:
        assert drip(connection, b"\r\n", 0.05, PATIENCE) < PATIENCE / 2


def test_a_slow_body_ends_at_its_limit(edge: Edge, hasty: Server) -> None:
    with hasty.connect() as connection:
        connection.sendall(head(edge, f"Content-Type: {JSON}", "Content-Length: 1000"))
        connection.sendall(b'{"query":')
        answer = read_to_end(connection)
        assert status_of(answer) == 408 and b"MESSAGE_INCOMPLETE" in answer
    with hasty.connect() as connection:
        connection.sendall(head(edge, f"Content-Type: {JSON}", "Transfer-Encoding: chunked"))
        assert drip(connection, b"1\r\nx\r\n", 0.05, PATIENCE) < PATIENCE / 2


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(hasty: Server) -> None:
    """401 is said at once; what still drips in then keeps nobody."""
    with hasty.connect() as connection:
        connection.sendall(b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert status_of(connection.recv(65536)) == 401
        assert drip(connection, b"x", 0.05, PATIENCE) < PATIENCE / 2


def test_an_idle_connection_is_kept_for_its_time_only(edge: Edge, hasty: Server) -> None:
    with hasty.connect() as connection:
        connection.sendall(head(edge, *WHOLE) + BODY)
        assert b'"hello":"world"' in read_to_end(connection)


def test_a_connection_serves_one_request_after_the_other(edge: Edge, server: Server) -> None:
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(head(edge, *WHOLE) + BODY)
            answer = b""
            while b'"hello":"world"' not in answer:
                answer += connection.recv(65536)
            assert status_of(answer) == 200


def test_requests_that_come_at_once_are_answered_in_order(edge: Edge, server: Server) -> None:
    bodies = [json.dumps({"query": f'{{ echo(text: "t{n}-") }}'}).encode() for n in range(5)]
    with server.connect() as connection:
        connection.sendall(
            b"".join(head(edge, f"Content-Type: {JSON}", f"Content-Length: {len(body)}") + body for body in bodies)
        )
        answer = b""
        while b"t4-" not in answer:
            answer += connection.recv(65536)
    places = [answer.index(f"t{n}-".encode()) for n in range(5)]
    assert places == sorted(places)


def test_a_flood_of_requests_that_wait_is_ended(edge: Edge, server: Server) -> None:
    waiting = json.dumps({"query": "{ waits(seconds: 20) }"}).encode()
    with server.connect() as connection:
        connection.sendall(head(edge, f"Content-Type: {JSON}", f"Content-Length: {len(waiting)}") + waiting)
        began = time.monotonic()
        with suppress(OSError):  # it may be ended while we still write
            connection.sendall(head(edge, method="GET") * (tls.MAX_PIPELINED + 5))
        read_to_end(connection)
        assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /graphql?query=" + b"x" * tls.MAX_URL + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /graphql HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * tls.MAX_HEAD + b"\r\n\r\n", 431),
        (b"GET /graphql HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * tls.MAX_HEAD * 4, 431),
        (b"GET /graphql HTTP/1.1\r\nHost: x\r\n" + b"X-Many: x\r\n" * 3_000 + b"\r\n", 431),
        (b"GET /graphql HTTP/1.1\r\nHost: x\r\n" + b"x" * tls.MAX_HEAD * 2 + b": y\r\n\r\n", 431),
    ],
    ids=["url", "header", "endless header", "many headers", "name"],
)
def test_heads_that_are_too_large(server: Server, request_head: bytes, status: int) -> None:
    with server.connect() as connection:
        with suppress(OSError):
            connection.sendall(request_head)
        answer = read_to_end(connection)
    assert status_of(answer) == status and b"MESSAGE_TOO_LARGE" in answer


def test_endless_trailers_are_ended(edge: Edge, server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(head(edge, f"Content-Type: {JSON}", "Transfer-Encoding: chunked"))
        connection.sendall(b"1\r\nx\r\n0\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < PATIENCE:
                connection.sendall(b"X-Trailer: " + b"x" * 1000 + b"\r\n")
        except OSError:
            return
    raise AssertionError("nobody ended it")


@pytest.mark.parametrize(
    "octets",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /graphql\r\n\r\n",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /graphql HTTP/1.1\r\nHost : x\r\n\r\n",
    ],
    ids=str,
)
def test_what_is_no_http_is_refused_and_its_connection_ended(server: Server, octets: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(octets)
        answer = read_to_end(connection)
    assert status_of(answer) in (400, 401)


# Server-sent events


def events(edge: Edge, query: str, token: str = "") -> bytes:
    body = json.dumps({"query": query}).encode()
    lines = (f"Content-Type: {JSON}", f"Content-Length: {len(body)}", "Accept: text/event-stream")
    return head(edge, *lines, token=token) + body


def test_a_reader_that_does_not_read_is_let_go(edge: Edge, hasty: Server) -> None:
    """What it does not take is not kept for it: nothing grows here but what its socket holds."""
    with hasty.connect() as connection:
        connection.sendall(events(edge, "subscription { ticks(count: 1000000, size: 60000) }"))
        assert status_of(connection.recv(200)) == 200
        time.sleep(2.5)
        read = read_to_end(connection)
    assert len(read) < 30_000_000 and b"complete" not in read


LONG = "subscription { ticks(count: 1000000, size: 60000) }"


@pytest.mark.parametrize("goes", ["away", "at once", "not"])
def test_a_stream_that_is_cut_is_no_error(
    edge: Edge, hasty: Server, caplog: pytest.LogCaptureFixture, goes: str
) -> None:
    """Whether its client goes away in the middle, or takes nothing."""
    with hasty.connect() as connection:
        connection.sendall(events(edge, LONG))
        assert status_of(connection.recv(200)) == 200
        leave(connection, goes)
    assert errors(caplog) == []


@pytest.mark.parametrize("goes", ["at once", "not"])
def test_a_websocket_that_is_cut_is_no_error(
    edge: Edge, hasty: Server, caplog: pytest.LogCaptureFixture, goes: str
) -> None:
    with dial(hasty, edge) as socket:
        begin(socket)
        say(socket, type="subscribe", id="1", payload={"query": LONG})
        assert heard(socket)["type"] == "next"
        leave(socket.socket, goes)
    assert errors(caplog) == []


def leave(connection: Any, goes: str) -> None:
    """And what the server makes of it."""
    if goes == "at once":  # without any farewell
        connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    if goes != "not":
        connection.close()
    time.sleep(2.5)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_has_so_many_subscriptions_and_no_more(edge: Edge) -> None:
    with edge.serving(EdgeLimits(streams_per_client=2)) as server:
        open_ones = [server.connect() for _ in range(2)]
        for connection in open_ones:
            connection.sendall(events(edge, "subscription { ticks(count: 100, every: 5) }"))
            assert status_of(connection.recv(65536)) == 200
        with server.connect() as third:
            third.sendall(events(edge, "subscription { ticks }"))
            answer = third.recv(65536)
            while b"RATE_LIMITED" not in answer:
                answer += third.recv(65536)
        for connection in open_ones:
            connection.close()
        for _ in range(50):
            with server.connect() as again:
                again.sendall(events(edge, "subscription { ticks }"))
                answer = b""
                while b"event: complete" not in answer:
                    answer += again.recv(65536)
            if b"RATE_LIMITED" not in answer:
                return
            time.sleep(0.1)
    raise AssertionError("places are not given back")


# Websockets


UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def dial(server: Server, edge: Edge, token: str | None = None, **options: Any) -> ClientConnection:
    bearer = {"Authorization": f"Bearer {edge.token() if token is None else token}"} if token != "" else {}
    given = {"subprotocols": ["graphql-transport-ws"], "additional_headers": bearer, "proxy": None, **options}
    return connect(f"wss://127.0.0.1:{server.port}/graphql", ssl=server.tls_of_two_threads, **given)


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def heard(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(socket.recv(timeout=PATIENCE)))


def begin(socket: ClientConnection) -> None:
    say(socket, type="connection_init")
    assert heard(socket) == {"type": "connection_ack"}


def closed(socket: ClientConnection) -> int:
    """The code with which the server closes it."""
    try:
        while True:
            socket.recv(timeout=PATIENCE)
    except ConnectionClosed as end:
        assert end.rcvd is not None
        return end.rcvd.code


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["nonsense"], 4400),
        (["[]"], 4400),
        (['{"type": "nope"}'], 4400),
        (['{"type": "connection_init", "type": "ping"}'], 4400),
        (['{"type": "subscribe", "id": "1"}'], 4400),
        (['{"type": "subscribe", "id": "", "payload": {"query": "{ hello }"}}'], 4400),
        (['{"type": "subscribe", "id": 1, "payload": {"query": "{ hello }"}}'], 4400),
        (["[" * 50_000], 4400),
        (['{"type": "ping", "payload": {"a": "\\ud800"}}'], 4400),
        ([b"\x00\x01"], 4400),
        (['{"type": "subscribe", "id": "1", "payload": {"query": "{ hello }"}}'], 4401),
        (['{"type": "connection_init"}', '{"type": "connection_init"}'], 4429),
    ],
    ids=str,
)
def test_a_websocket_that_breaks_the_protocol_is_closed(
    edge: Edge, server: Server, messages: list[Any], code: int
) -> None:
    with dial(server, edge) as socket:
        for message in messages:
            socket.send(message)
        assert closed(socket) == code


def test_what_is_no_message_costs_as_a_refused_document_does(edge: Edge) -> None:
    budgets = Budgets(lambda: 1000.0)
    with edge.serving(EdgeLimits(cost_per_minute={"auditor": 150}), budgets=budgets) as server:
        token = edge.token()
        for _ in range(2):
            with dial(server, edge, token) as socket:
                begin(socket)
                socket.send("nonsense")
                assert closed(socket) == 4400
        with dial(server, edge, token) as socket:
            begin(socket)
            say(socket, type="subscribe", id="1", payload={"query": "{ hello }"})
            refused = heard(socket)
    assert (refused["type"], refused["payload"][0]["extensions"]["code"]) == ("error", "RATE_LIMITED")


def test_a_websocket_without_the_subprotocol_is_closed(edge: Edge, server: Server) -> None:
    for offered in (None, ["graphql-ws"]):
        with dial(server, edge, subprotocols=offered) as socket:
            assert closed(socket) == 4406


def test_a_page_of_another_site_opens_no_websocket(edge: Edge, server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(server, edge, origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403


def test_a_websocket_of_nobody_is_closed(edge: Edge, server: Server) -> None:
    with dial(server, edge, token="") as socket:
        say(socket, type="connection_init")
        assert closed(socket) == 4403
    with dial(server, edge, token="") as socket:
        say(socket, type="connection_init", payload={"authorization": "Bearer nonsense"})
        assert closed(socket) == 4403


def test_a_token_may_come_with_the_first_message(edge: Edge, server: Server) -> None:
    """A browser cannot set the header of a websocket."""
    with dial(server, edge, token="") as socket:
        say(socket, type="connection_init", payload={"authorization": f"Bearer {edge.token()}"})
        assert heard(socket) == {"type": "connection_ack"}


def test_a_websocket_that_does_not_begin_is_closed(edge: Edge, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "INIT_SECONDS", 0.3)
    with dial(server, edge) as socket:
        say(socket, type="ping")
        assert closed(socket) == 4408


def test_a_websocket_on_which_nothing_runs_is_closed(
    edge: Edge, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE_SECONDS", 0.3)
    with dial(server, edge) as socket:
        begin(socket)
        assert closed(socket) == 1000


def test_a_websocket_on_which_nothing_runs_any_more_is_closed(
    edge: Edge, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE_SECONDS", 0.3)
    with dial(server, edge) as socket:
        begin(socket)
        say(socket, type="subscribe", id="1", payload={"query": "subscription { ticks(count: 3, every: 0.3) }"})
        assert [heard(socket)["type"] for _ in range(4)] == ["next"] * 3 + ["complete"]
        assert closed(socket) == 1000


def test_a_websocket_lives_as_long_as_the_token(edge: Edge, server: Server) -> None:
    with dial(server, edge, token=edge.token(life=2)) as socket:
        begin(socket)
        say(socket, type="subscribe", id="1", payload={"query": "subscription { ticks(count: 100, every: 1) }"})
        assert closed(socket) == 4401


FRAMES = {  # of websockets, from clients: all are masked, here with zeros
    "messages": b'\x81\x8f\0\0\0\0{"type":"ping"}',
    "empty messages": b"\x82\x80\0\0\0\0",
    "pings": b"\x89\xfd\0\0\0\0" + b"x" * 125,
    "empty pings": b"\x89\x80\0\0\0\0",
    "pongs": b"\x8a\x80\0\0\0\0",
    "pieces": b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 50 + b"\x80\x80\0\0\0\0",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_flood_of_frames_is_ended(server: Server, frame: bytes) -> None:
    """Of nobody yet, who takes no answer while he sends."""
    with server.connect() as connection:
        connection.sendall(UPGRADE + b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n")
        assert status_of(connection.recv(4096)) == 101
        with suppress(ConnectionError, ssl.SSLError):
            connection.sendall(frame * 2 * tls.MAX_FRAMES)
        assert b"\x03\xf0Too many frames" in read_to_end(connection)


def test_frames_are_counted_by_the_minute(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        taken = 0
        with suppress(ConnectionClosed):
            while taken < 3 * tls.MAX_FRAMES:
                say(socket, type="ping")
                taken += heard(socket) == {"type": "pong"}
        assert tls.MAX_FRAMES - 2 <= taken < 3 * tls.MAX_FRAMES
        assert closed(socket) == 1008


def test_a_flood_of_subscriptions_is_refused_one_by_one(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        for n in range(streams.MAX_OPERATIONS + 3):
            query = "subscription { ticks(count: 100, every: 5) }"
            say(socket, type="subscribe", id=f"s{n}", payload={"query": query})
        refused = [heard(socket) for _ in range(3)]
    assert {message["type"] for message in refused} == {"error"}
    assert refused[0]["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


def test_one_id_twice_closes_the_websocket(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        for _ in range(2):
            query = "subscription { ticks(count: 100, every: 5) }"
            say(socket, type="subscribe", id="1", payload={"query": query})
        assert closed(socket) == 4409


def test_one_id_twice_closes_the_websocket_however_long_it_is(edge: Edge, server: Server) -> None:
    """A close frame has room for 123 octets of reason."""
    with dial(server, edge) as socket:
        begin(socket)
        for _ in range(2):
            query = "subscription { ticks(count: 100, every: 5) }"
            say(socket, type="subscribe", id="識" * 128, payload={"query": query})
        assert closed(socket) == 4409


def test_limits_hold_on_a_websocket_as_elsewhere(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        begin(socket)
        for n, query in enumerate(
            [chained(60), "{" + "x " * 480 + "}", "{ secret }", "{ hello" + " " * MAX_DOCUMENT + "}"]
        ):
            say(socket, type="subscribe", id=str(n), payload={"query": query})
            message = heard(socket)
            assert (message["type"], message["id"]) == ("error", str(n))


def test_a_message_that_is_too_large_closes_the_websocket(edge: Edge, server: Server) -> None:
    with dial(server, edge) as socket:
        with suppress(ConnectionClosed):
            socket.send("x" * (tls.MAX_MESSAGE + 1))
        assert closed(socket) == 1009


def test_a_websocket_does_not_change_anything(edge: Edge, server: Server) -> None:
    before = edge.parts.tsm.position
    with dial(server, edge) as socket:
        begin(socket)
        say(socket, type="subscribe", id="1", payload={"query": "mutation { enrol }"})
        assert heard(socket)["type"] == "error"
    assert edge.parts.tsm.position == before


def test_an_upgrade_with_a_header_that_is_too_long_is_ended(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(UPGRADE + b"X-Long: " + b"x" * 10_000 + b"\r\n\r\n")
        assert status_of(read_to_end(connection)) == 431
