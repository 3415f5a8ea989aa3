"""HTTPS servers: who connects is known by its certificate or by none; another authority's does not get in."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.x509 import load_der_x509_certificate
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from api.certificates import certify, create_authority, request
from api.tls import MAX_HEAD, EdgeConfig, PartyProtocol, client_context
from tests.api.https import serving


@dataclass
class Files:
    certificate: Path
    key: Path
    party_ca: Path


def party(authority, folder, name, role):
    (folder / "cert.pem").write_bytes(certify(authority, request(folder, name).read_bytes(), name, role, ["127.0.0.1"]))
    return Files(folder / "cert.pem", folder / "key.pem", authority / "ca.pem")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ca")
    create_authority(folder)
    return folder


async def who(request):
    der = request.scope["extensions"]["tls"]["client_cert_der"]
    if not der:
        return PlainTextResponse("nobody")
    (name,) = load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return PlainTextResponse(str(name.value))


WHO = Starlette(routes=[Route("/", who)])


@pytest.fixture(scope="module")
def server(authority, tmp_path_factory):
    return party(authority, tmp_path_factory.mktemp("server"), "tsm-server", "server")


def test_a_party_is_known_by_its_certificate_on_every_request_of_a_connection(authority, server, tmp_path):
    client = client_context(party(authority, tmp_path, "JPKI0001", "provider"))
    with serving(WHO, server) as url, httpx.Client(verify=client, trust_env=False) as http:
        assert [http.get(url).text for _ in range(3)] == ["JPKI0001"] * 3


def test_a_client_without_certificate_is_nobody(server):
    anonymous = ssl.create_default_context(cafile=str(server.party_ca))
    with serving(WHO, server) as url, httpx.Client(verify=anonymous, trust_env=False) as http:
        assert http.get(url).text == "nobody"


def test_a_certificate_of_another_authority_does_not_get_in(server, tmp_path):
    create_authority(tmp_path / "other")
    (tmp_path / "party").mkdir()
    foreign = party(tmp_path / "other", tmp_path / "party", "JPKI0001", "provider")
    foreign.party_ca = server.party_ca  # it trusts us; we do not trust it
    with (
        serving(WHO, server) as url,
        httpx.Client(verify=client_context(foreign), trust_env=False) as http,
        pytest.raises(httpx.TransportError),
    ):
        http.get(url)


def test_a_server_may_demand_a_certificate(server):
    anonymous = ssl.create_default_context(cafile=str(server.party_ca))
    with (
        serving(WHO, server, require_client_certificate=True) as url,
        httpx.Client(verify=anonymous, trust_env=False) as http,
        pytest.raises(httpx.TransportError),
    ):
        http.get(url)


def test_a_head_without_end_is_refused_also_when_all_of_it_comes_at_once() -> None:
    """As it does where the loop was busy meanwhile: what the parser made something of lies in the same octets."""

    class Wire(asyncio.Transport):
        written, closed = b"", False

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += bytes(data)

        def is_closing(self) -> bool:
            return self.closed

        def close(self) -> None:
            self.closed = True

        def abort(self) -> None:
            self.closed = True

        def get_protocol(self) -> asyncio.BaseProtocol:
            return protocol

    async def at_once() -> bytes:
        protocol.connection_made(wire)
        protocol.data_received(b"GET /graphql HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * MAX_HEAD * 4)
        return wire.written

    wire = Wire()
    loop = asyncio.new_event_loop()
    config = EdgeConfig(PlainTextResponse("never"))
    config.load()
    protocol = PartyProtocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    answer = loop.run_until_complete(at_once())
    loop.close()
    assert answer.startswith(b"HTTP/1.1 431 ") and b"MESSAGE_TOO_LARGE" in answer
