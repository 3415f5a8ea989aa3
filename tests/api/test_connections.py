"""How many connections there may be: counted on real sockets, from when they are accepted until they are closed."""

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import create_connection, socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from api.certificates import create_authority
from api.connections import Guests, subscriber
from api.limits import EdgeLimits
from api.tls import client_context
from tests.api.edge_world import Edge, Server, read_to_end, status_of
from tests.api.https import serving
from tests.api.test_attacks import begin, dial
from tests.api.test_tls import Files, party

GET = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
TURNS = 200  # looks of a test at a server that has something to notice, a twentieth of a second apart


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    create_authority(folder)
    return folder


@pytest.fixture(scope="module")
def files(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return party(authority, tmp_path_factory.mktemp("server"), "tsm-server", "server")


class Visitors:
    """Connections to one server."""

    def __init__(self, port: int, anybody: ssl.SSLContext, stack: ExitStack) -> None:
        self._port, self._anybody, self._stack = port, anybody, stack

    def plain(self, address: str = "127.0.0.1") -> socket:
        """Without a handshake."""
        return self._stack.enter_context(create_connection(("127.0.0.1", self._port), 10, (address, 0)))

    def come(self, address: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        plain = self.plain(address)
        return self._stack.enter_context((context or self._anybody).wrap_socket(plain, server_hostname="127.0.0.1"))

    def is_refused(self, address: str = "127.0.0.1") -> bool:
        try:
            with self.come(address) as connection:
                answered(connection)
        except (ConnectionError, ssl.SSLError):
            return True
        return False


@contextmanager
def visited(files: Files, **limits: Any) -> Iterator[Visitors]:
    anybody = ssl.create_default_context(cafile=str(files.party_ca))
    app = Starlette(routes=[Route("/", hello)])
    with serving(app, files, limits=EdgeLimits(**limits)) as url, ExitStack() as stack:
        yield Visitors(int(url.rpartition(":")[2]), anybody, stack)


def answered(connection: ssl.SSLSocket) -> int:
    connection.sendall(GET)
    return status_of(connection.recv(4096))


def eventually(holds: Callable[[], bool]) -> bool:
    """What the server notices when it comes to it."""
    return any(holds() or time.sleep(0.05) for _ in range(TURNS))


def test_one_connection_too_many_is_closed_and_the_others_are_served(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with visited(files, connections=3) as visitors:
        first, *others = [visitors.come() for _ in range(3)]
        assert [visitors.is_refused() for _ in range(5)] == [True] * 5
        assert [answered(one) for one in (first, *others)] == [200] * 3
        first.close()
        assert eventually(lambda: not visitors.is_refused())
        warned = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == ["connections are refused, for there are too many"], "once a minute"


def test_whoever_makes_no_handshake_has_a_place_all_the_same(files: Files) -> None:
    with visited(files, connections=3) as visitors:
        silent = [visitors.plain() for _ in range(3)]
        assert eventually(visitors.is_refused)
        for connection in silent:
            connection.close()
        assert eventually(lambda: not visitors.is_refused())


def test_a_handshake_that_fails_gives_its_place_back(files: Files) -> None:
    nobody_trusted = ssl.create_default_context()
    with visited(files, connections=2) as visitors:
        for _ in range(3):
            visitors.plain().sendall(b"no handshake at all")
            assert eventually(lambda: not visitors.is_refused())
            with pytest.raises(ssl.SSLCertVerificationError):
                visitors.come(context=nobody_trusted)
            assert eventually(lambda: not visitors.is_refused())


def test_no_address_takes_the_places_of_the_others(files: Files) -> None:
    with visited(files, connections=5, connections_per_address=2) as visitors:
        held = [visitors.come("127.0.0.2") for _ in range(2)]
        assert visitors.is_refused("127.0.0.2")
        assert [answered(visitors.come("127.0.0.3")) for _ in range(2)] == [200, 200]
        assert visitors.is_refused("127.0.0.3")
        held.pop().close()
        assert eventually(lambda: not visitors.is_refused("127.0.0.2"))


def test_no_party_takes_the_places_of_the_others_and_is_told_so(files: Files, authority: Path, tmp_path: Path) -> None:
    names = ("JPKI0001", "BANK0001")
    for name in names:
        (tmp_path / name).mkdir()
    one, other = (client_context(party(authority, tmp_path / name, name, "provider")) for name in names)
    with visited(files, connections_per_party=2) as visitors:
        held = [visitors.come(context=one) for _ in range(2)]
        assert [answered(connection) for connection in held] == [200, 200]
        refused = visitors.come(context=one)
        refused.sendall(GET)
        answer = read_to_end(refused)
        assert status_of(answer) == 429 and b"RATE_LIMITED" in answer
        assert answered(visitors.come(context=other)) == 200
        assert answered(visitors.come()) == 200, "of nobody"
        held.pop().close()
        assert eventually(lambda: answered(visitors.come(context=one)) == 200)


def test_a_websocket_keeps_its_place_until_it_ends(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    with edge.serving(EdgeLimits(connections=1)) as server:
        with dial(server, edge) as held:
            begin(held)
            with pytest.raises((ConnectionError, ssl.SSLError)):
                knock(server)
        assert eventually(lambda: knocks(server))
    edge.close()


def knock(server: Server) -> None:
    with server.connect() as connection:
        answered(connection)


def knocks(server: Server) -> bool:
    try:
        knock(server)
    except (ConnectionError, ssl.SSLError):
        return False
    return True


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_one_subscriber_may_choose_from_is_one_address(address: str, counted_as: str) -> None:
    assert subscriber(address) == counted_as


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.booleans()), max_size=60))
def test_no_limit_is_ever_passed_and_no_place_is_lost(steps: list[tuple[int, int, bool]]) -> None:
    """Somebody comes from one of three addresses, with one of two certificates or none, or the eldest one goes."""
    limits = EdgeLimits(connections=5, connections_per_address=3, connections_per_party=2)
    guests, present = Guests(limits), dict[tuple[str, int], int]()
    for port, (address, certificate, goes) in enumerate(steps):
        if goes and present:
            peer = next(iter(present))
            present.pop(peer)
            guests.leave(peer)
            continue
        peer = f"192.0.2.{address}", port
        here = sum(other[0] == peer[0] for other in present)
        assert guests.enter(peer) == (len(present) < 5 and here < 3)
        if len(present) < 5 and here < 3:
            room = list(present.values()).count(certificate) < 2
            present[peer] = certificate if certificate and room else 0
            assert not certificate or guests.show(peer, bytes([certificate])) == room
