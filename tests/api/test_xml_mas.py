"""Interfaces 2, 3 and 4 as a party and a phone meet them: TLS, HTTP and XML on a real socket."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access import Access
from api.certificates import certify, create_authority, fingerprint, request
from api.errors import RequestIds, refuse
from api.tls import client_context
from api.xml import mas
from api.xml.outbound import XmlClient
from tests.api.https import serving
from tests.flows.mas_world import GET_IIN, ICCID, OPERATOR, PROVIDER, RETURN_URLS, Phone, World
from tsm.errors import ErrorCode, TsmError
from tsm.mas.messages import (
    MAX_DELEGATION,
    MAX_MESSAGE,
    UICC,
    DelegationResponse,
    LinkRequest,
    LinkResponse,
    Process,
    Return,
)

XML = {"Content-Type": "application/xml"}
CARD = XML | {"Tsm-Card": ICCID}


@dataclass
class Files:
    certificate: Path
    key: Path
    party_ca: Path

    @property
    def fingerprint(self):
        return fingerprint(self.certificate.read_bytes())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate for each party, by name."""
    authority = tmp_path_factory.mktemp("ca")
    create_authority(authority)
    made = {}
    for name, role in {
        "tsm-server": "server", OPERATOR: "operator", PROVIDER: "provider", "T-1": "terminal", "A-1": "auditor",
    }.items():  # fmt: skip
        folder = tmp_path_factory.mktemp(name)
        pem = certify(authority, request(folder, name).read_bytes(), name, role, ["127.0.0.1"])
        (folder / "cert.pem").write_bytes(pem)
        made[name] = Files(folder / "cert.pem", folder / "key.pem", authority / "ca.pem")
    return made


@pytest.fixture
def world(tmp_path, files):
    world = World(tmp_path, fingerprints={OPERATOR: files[OPERATOR].fingerprint, PROVIDER: "22" * 32})
    yield world
    world.close()


@pytest.fixture
def url(world, files):
    app = Starlette(
        routes=mas.routes(world.sessions, Access(world.tsm)),
        middleware=[Middleware(RequestIds)],
        exception_handlers={TsmError: refuse, Exception: refuse},
    )
    with serving(app, files["tsm-server"]) as url:
        yield url


@pytest.fixture
def party(files, url):
    """A client of any party; without a name it has no certificate."""
    clients = []

    def connect(name=None):
        tls = client_context(files[name]) if name else ssl.create_default_context(cafile=files[OPERATOR].party_ca)
        clients.append(httpx.Client(verify=tls, trust_env=False, base_url=url))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def delegated(response):
    assert (response.status_code, response.headers["content-type"]) == (200, "application/xml")
    return DelegationResponse.parse(response.content)


def refused(response):
    assert response.headers["content-type"] == "application/json"
    return response.status_code, json.loads(response.content)["code"]


class RemotePhone(Phone):
    """The common app over HTTPS: its cookie jar is the HTTP client's."""

    def __init__(self, world, http):
        super().__init__(world, world.card.transmit, None)
        self.http = http
        self.return_urls = []

    def say(self, request):
        response = self.http.post("/mas/link", content=request.encode(), headers=XML)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/xml"
        self.said.append(LinkResponse.parse(response.content))
        self.return_urls.append(response.headers.get("tsm-return-url"))
        return self.said[-1]


def test_a_script_goes_from_the_party_to_the_card_over_https(world, party):
    script = world.request([GET_IIN])
    answer = delegated(party(OPERATOR).post("/mas/delegation", content=script.encode(), headers=CARD))
    assert answer == DelegationResponse("00", "", "20261121093000")
    http = party()
    phone = RemotePhone(world, http)
    assert phone.run(script.reception).process is Return.END
    assert world.session(script.reception).executed == 1
    assert not http.cookies
    assert phone.return_urls == [None] * (len(phone.said) - 1) + [RETURN_URLS[OPERATOR]]


def test_the_cookie_is_for_the_link_only_and_for_no_script(world, party):
    reception = world.delegate([GET_IIN])
    response = party().post("/mas/link", content=world.start_request(reception).encode(), headers=XML)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"mas={OPERATOR}.{reception}.1.")
    assert cookie.endswith("; Path=/mas; Secure; HttpOnly; SameSite=Strict")
    assert response.headers["cache-control"] == "no-store"
    assert float(response.headers["server-timing"].removeprefix("app;dur=")) > 0


def test_a_repeated_request_gets_the_same_bytes(world, party):
    reception, http = world.delegate([GET_IIN]), party()
    start = world.start_request(reception).encode()
    first, second = (http.post("/mas/link", content=start, headers=XML) for _ in range(2))
    assert (first.content, first.headers["set-cookie"]) == (second.content, second.headers["set-cookie"])


@pytest.mark.parametrize(
    ("name", "status"), [(None, "20"), (PROVIDER, "20"), ("T-1", "20"), ("A-1", "21"), ("tsm-server", "21")]
)
def test_only_enrolled_operators_and_providers_delegate(world, party, name, status):
    """The provider is enrolled with another certificate than the one that it shows."""
    response = party(name).post("/mas/delegation", content=world.request([GET_IIN]).encode(), headers=CARD)
    assert delegated(response).status == status
    assert world.topics("delegation") == []


def test_every_refusal_of_a_delegation_is_xml_with_its_status(world, party):
    http, script = party(OPERATOR), world.request([GET_IIN])
    other = world.request([GET_IIN, GET_IIN], reception=script.reception)
    bomb = b'<?xml version="1.0"?><!DOCTYPE request [<!ENTITY a "b">]><request>&a;</request>'
    unknown = {"Tsm-Card": "8981100000000000036"}

    def post(content, headers=CARD):
        return delegated(http.post("/mas/delegation", content=content, headers=headers))

    assert post(script.encode()).status == "00"
    assert post(script.encode()).status == "00"
    assert post(other.encode()) == DelegationResponse("34", "RECEPTION_REUSED")
    assert post(b"no xml") == DelegationResponse("10", "MALFORMED_MESSAGE")
    assert post(bomb) == DelegationResponse("10", "MALFORMED_MESSAGE")
    assert post(b"<request>" + b" " * MAX_DELEGATION) == DelegationResponse("11", "MESSAGE_TOO_LARGE")
    assert post(world.request([GET_IIN], PROVIDER).encode()) == DelegationResponse("21", "FORBIDDEN")
    assert post(world.request([GET_IIN]).encode(), XML) == DelegationResponse("12", "INVALID_INPUT")
    assert post(world.request([GET_IIN]).encode(), XML | unknown) == DelegationResponse("31", "UNKNOWN_CARD")
    assert post(world.request([GET_IIN]).encode(), CARD | {"Tsm-Correlation": "a b"}).status == "12"
    assert world.topics("delegation") == ["delegation.accepted"]


def test_the_correlation_and_the_request_id_are_in_the_event(world, party):
    headers = CARD | {"Tsm-Correlation": "5f0e3a"}
    party(OPERATOR).post("/mas/delegation", content=world.request([GET_IIN]).encode(), headers=headers)
    context = world.events()[-1].context
    assert context.correlation == "5f0e3a"
    assert len(context.request) == 16
    assert context.actor == f"operator:{OPERATOR}"


def test_a_message_that_no_session_can_answer_gets_a_code(world, party):
    http, reception = party(), world.delegate([GET_IIN])
    forged = world.start_request(reception, signer=PROVIDER)
    stranger = LinkRequest(Process.START, provider="BANK0001", reception=reception, signature=forged.signature)
    result = LinkRequest(Process.CONNECT_RESULT, card=UICC).encode()

    def post(content, **options):
        return refused(http.post("/mas/link", content=content, headers=XML, **options))

    assert post(forged.encode()) == (403, "BAD_SIGNATURE")
    assert post(stranger.encode()) == (404, "UNKNOWN_SERVICE_PROVIDER")
    assert post(world.start_request(next(world.receptions)).encode()) == (404, "UNKNOWN_RECEPTION")
    assert post(result) == (404, "UNKNOWN_SESSION")
    assert post(b"<!DOCTYPE r><request/>") == (400, "MALFORMED_MESSAGE")
    assert post(b"<request>" + b" " * MAX_MESSAGE) == (413, "MESSAGE_TOO_LARGE")
    assert post(result.replace(b"002", b"009")) == (400, "INVALID_INPUT")
    http.post("/mas/link", content=world.start_request(reception).encode(), headers=XML)
    assert post(LinkRequest(Process.DISCONNECT_RESULT).encode()) == (409, "WRONG_ORDER")
    world.clock.pass_by(minutes=2)
    assert post(result) == (410, "SESSION_EXPIRED")
    assert world.topics("session") == ["session.started"]


def test_an_answer_to_a_refusal_says_nothing_of_the_inside(world, party):
    response = party().post("/mas/link", content=LinkRequest(Process.CONNECT_RESULT).encode(), headers=XML)
    assert set(response.json()) == {"code", "message", "requestId"}
    assert "cookie" not in response.text


def test_another_method_is_not_allowed(party):
    assert party().get("/mas/link").status_code == 405
    assert party().get("/mas/delegation").status_code == 405


# Interface 4


@pytest.mark.parametrize("path", ["/500", "/large", "/redirect"])
def test_a_site_that_answers_anything_but_a_small_200_has_not_acknowledged(files, path):
    async def answer(request: Request) -> Response:
        if request.url.path == "/500":
            return Response(status_code=500)
        if request.url.path == "/redirect":
            return Response(status_code=302, headers={"Location": "/large"})
        return Response(b"x" * (MAX_MESSAGE + 1))

    app = Starlette(routes=[Route("/{any}", answer, methods=["GET", "POST"])])
    client = XmlClient(client_context(files["tsm-server"]))
    with serving(app, files[PROVIDER]) as url, pytest.raises(TsmError) as unavailable:
        client.post(url + path, b"<request/>")
    client.close()
    assert unavailable.value.code == ErrorCode.UPSTREAM_UNAVAILABLE


def test_notify_is_posted_under_the_servers_certificate(files):
    seen = {}

    async def answer(request: Request) -> Response:
        der = request.scope["extensions"]["tls"]["client_cert_der"]
        seen.update(body=await request.body(), type=request.headers["content-type"], pem=ssl.DER_cert_to_PEM_cert(der))
        return Response(b"<response/>")

    client = XmlClient(client_context(files["tsm-server"]))
    with serving(Starlette(routes=[Route("/notify", answer, methods=["POST"])]), files[PROVIDER]) as url:
        assert client.post(url + "/notify", b"<request/>") == b"<response/>"
    client.close()
    assert (seen["body"], seen["type"]) == (b"<request/>", "application/xml")
    assert fingerprint(seen["pem"].encode()) == files["tsm-server"].fingerprint


def test_a_site_that_is_not_there_is_unavailable(files):
    client = XmlClient(client_context(files["tsm-server"]))
    with pytest.raises(TsmError) as unavailable:
        client.post("https://127.0.0.1:9/notify", b"<request/>")
    client.close()
    assert unavailable.value.code == ErrorCode.UPSTREAM_UNAVAILABLE
