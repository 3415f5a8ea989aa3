"""Browser and common app: what they say to site and server, and what they do when something breaks."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from api.demo.phone.browser import Browser, Page
from api.demo.phone.common_app import PAUSES, CommonApp
from api.demo.provider.pages import launch_page, ready_page
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import ReceptionNumber, SpId
from tsm.mas.launch import LaunchParameters, launch
from tsm.mas.messages import LinkRequest, LinkResponse, Process, Return
from tsm.mas.status import Status

SITE, MAS = "https://site", "https://mas/mas/link"
ICCID = "8981100000000000010"
IMEI = "001010000000016"  # of a test TAC
MAS_SIGN = base64.b64encode(bytes(64)).decode()
LAUNCH = launch(
    SpId("JPKI0001"), ReceptionNumber("2026112100000001"), f"{SITE}/mobile/return", MAS, lambda _: bytes(64)
)
COMMANDS = [bytes.fromhex("00A4040000"), bytes.fromhex("8050000000")]
ANSWERS = [bytes.fromhex("9000"), bytes.fromhex("CAFE9000")]


class ScriptedCard:
    """Answers as told, and keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.commands: list[bytes] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        if not self.answers:
            raise TsmError(ErrorCode.CONFLICT, "the card was taken out")
        return self.answers.pop(0)


@dataclass
class Mas:
    """A server that sends the commands and then ends. It sets a cookie for each step, as the real one does."""

    commands: list[bytes]
    messages: list[LinkRequest] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    lost_answers: int = 0  # how many of the next requests go unanswered
    signed_for: str = f"{SITE}/mobile/return"  # what it says with END

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        self.cookies.append(request.headers.get("Cookie", ""))
        if self.lost_answers:
            self.lost_answers -= 1
            raise httpx.ReadError("cut")
        self.messages.append(LinkRequest.parse(request.content))
        headers = {"Set-Cookie": f"mas=step-{len(self.messages)}; Secure; Path=/mas", "Server-Timing": "app;dur=1.5"}
        following = self._next()
        if following.process is Return.END and self.signed_for:
            headers["Tsm-Return-Url"] = self.signed_for
        return httpx.Response(200, content=following.encode(), headers=headers)

    def _next(self) -> LinkResponse:
        said = self.messages[-1]
        if said.process is Process.START:
            return LinkResponse(Return.CONNECT)
        if said.process is Process.DISCONNECT_RESULT:
            return LinkResponse(Return.END, mas_sign=MAS_SIGN)
        sent = sum(message.process is Process.RESPONSE for message in self.messages)
        if sent < len(self.commands) and said.status == Status.OK:
            return LinkResponse(Return.COMMAND, self.commands[sent])
        return LinkResponse(Return.DISCONNECT)


def app_of(
    answer: Callable[[httpx.Request], httpx.Response], card: ScriptedCard, events: list[dict[str, Any]]
) -> CommonApp:
    http = httpx.Client(transport=httpx.MockTransport(answer))
    return CommonApp(http, card, lambda **fields: events.append(fields), sleep=lambda _: None)


def test_the_app_carries_each_command_to_the_card_and_each_answer_back() -> None:
    mas, card, events = Mas(COMMANDS), ScriptedCard(*ANSWERS), list[dict[str, Any]]()
    back = app_of(mas.answer, card, events).run(LAUNCH.href())
    assert card.commands == COMMANDS
    assert [message.process.name for message in mas.messages] == [
        "START", "CONNECT_RESULT", "RESPONSE", "RESPONSE", "DISCONNECT_RESULT",
    ]  # fmt: skip
    assert (mas.messages[3].data, mas.messages[3].status_word) == (b"\xca\xfe", b"\x90\x00")
    assert back.startswith(f"{SITE}/mobile/return?rcptNum=2026112100000001&masSign=")


def test_start_carries_the_providers_signature_and_no_later_message_does() -> None:
    mas = Mas(COMMANDS)
    app_of(mas.answer, ScriptedCard(*ANSWERS), []).run(LAUNCH.href())
    assert [message.signature for message in mas.messages] == [LAUNCH.signature, "", "", "", ""]


def test_every_exchange_is_told_with_its_times() -> None:
    events: list[dict[str, Any]] = []
    app_of(Mas(COMMANDS).answer, ScriptedCard(*ANSWERS), events).run(LAUNCH.href())
    exchanges = [event for event in events if "answer" in event]
    assert [event["step"] for event in exchanges] == ["START", "CONNECT", "RESPONSE", "RESPONSE", "DISCONNECT"]
    assert [event["answer"] for event in exchanges] == ["CONNECT", "COMMAND", "COMMAND", "DISCONNECT", "END"]
    assert all(event["ms"] >= 0 and event["card_ms"] >= 0 and event["server_ms"] == 1.5 for event in exchanges)


def test_the_cookie_of_the_last_answer_goes_with_the_next_request() -> None:
    mas = Mas(COMMANDS)
    app_of(mas.answer, ScriptedCard(*ANSWERS), []).run(LAUNCH.href())
    assert mas.cookies == ["", "mas=step-1", "mas=step-2", "mas=step-3", "mas=step-4"]


@dataclass
class Reports:
    """A server that takes reports, beside the one that sends commands; or does not."""

    mas: Mas
    status: int = 200
    taken: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)  # after how many messages, cookie, body

    def answer(self, request: httpx.Request) -> httpx.Response:
        if str(request.url) == MAS:
            return self.mas.answer(request)
        assert str(request.url) == "https://mas/mas/report"
        self.taken.append((len(self.mas.messages), request.headers["Cookie"], json.loads(request.content)))
        return httpx.Response(self.status, json={})


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_phone_tells_which_it_is_before_its_card_is_connected_and_before_it_is_let_go(status: int) -> None:
    number = [b"\x90\x00", bytes.fromhex("981801000000000010F0") + b"\x90\x00"]  # SELECT, READ BINARY
    reports, card = Reports(Mas(COMMANDS), status), ScriptedCard(*number, *ANSWERS, *number)
    events: list[dict[str, Any]] = []
    http = httpx.Client(transport=httpx.MockTransport(reports.answer))
    app = CommonApp(http, card, lambda **fields: events.append(fields), lambda _: None, imei=IMEI)

    assert app.run(LAUNCH.href()).startswith(f"{SITE}/mobile/return")

    told = {"imei": IMEI, "iccids": [ICCID]}
    assert reports.taken == [(1, "mas=step-1", told), (4, "mas=step-4", told)]
    assert [event["status"] for event in events if event["step"] == "REPORT"] == [status] * 2
    assert len(reports.mas.messages) == 5


def test_a_phone_that_cannot_read_its_card_reports_nothing_and_goes_on() -> None:
    mas, events = Mas([]), list[dict[str, Any]]()
    http = httpx.Client(transport=httpx.MockTransport(mas.answer))
    CommonApp(http, ScriptedCard(), lambda **fields: events.append(fields), lambda _: None, imei=IMEI).run(
        LAUNCH.href()
    )
    assert [event["failed"] for event in events if event["step"] == "REPORT"] == ["TsmError", "TsmError"]


def test_a_new_session_begins_without_the_last_ones_cookie() -> None:
    mas = Mas([])
    app = app_of(mas.answer, ScriptedCard(), [])
    app.run(LAUNCH.href())
    app.run(LAUNCH.href())
    assert mas.cookies[3] == ""


def test_after_a_broken_connection_the_same_octets_go_under_the_same_cookie_and_the_card_gets_nothing_twice() -> None:
    mas, card, events = Mas(COMMANDS), ScriptedCard(*ANSWERS), list[dict[str, Any]]()
    answer = mas.answer

    def lose_two_answers_to_the_first_response(request: httpx.Request) -> httpx.Response:
        if len(mas.bodies) == 2:
            mas.lost_answers = 2
        return answer(request)

    app_of(lose_two_answers_to_the_first_response, card, events).run(LAUNCH.href())
    assert card.commands == COMMANDS
    assert len(set(mas.bodies[2:5])) == len(set(mas.cookies[2:5])) == 1
    assert [event["step"] for event in events].count("REPEAT") == 2


def test_a_connection_that_stays_broken_is_given_up() -> None:
    mas = Mas(COMMANDS, lost_answers=100)
    with pytest.raises(TsmError, check=lambda error: error.code is ErrorCode.UPSTREAM_UNAVAILABLE):
        app_of(mas.answer, ScriptedCard(), []).run(LAUNCH.href())
    assert len(mas.bodies) == len(PAUSES) + 1


def test_a_card_that_is_taken_out_is_reported_and_the_session_ended() -> None:
    mas = Mas(COMMANDS)
    app_of(mas.answer, ScriptedCard(ANSWERS[0]), []).run(LAUNCH.href())
    assert [(m.process.name, m.status) for m in mas.messages[3:]] == [("RESPONSE", "50"), ("DISCONNECT_RESULT", "00")]


def test_the_servers_refusal_is_raised_with_its_code() -> None:
    refusal = httpx.Response(409, json={"code": "RECEPTION_CLOSED", "message": "..", "requestId": "r"})
    with pytest.raises(TsmError, check=lambda error: error.code is ErrorCode.RECEPTION_CLOSED):
        app_of(lambda _: refusal, ScriptedCard(), []).run(LAUNCH.href())


@pytest.mark.parametrize(
    "parameter",
    ["", "commonApl: spId=JPKI0001", LAUNCH.encode().replace("https", "http"), LAUNCH.encode() + "&spId=JPKI0002"],
)
def test_launch_parameters_that_are_not_as_specified_start_nothing(parameter: str) -> None:
    mas = Mas([])
    with pytest.raises(TsmError):
        app_of(mas.answer, ScriptedCard(), []).run(parameter)
    assert mas.bodies == []


@pytest.mark.parametrize("signed_for", [f"{SITE}/mobile/return", ""])
def test_the_app_goes_nowhere_but_to_the_url_that_the_party_signed(signed_for: str) -> None:
    """Any page may start the app, with another return URL and the signature of an honest launch; or END may not say."""
    mas, events = Mas([], signed_for=signed_for), list[dict[str, Any]]()
    replaced = "https://evil.example/x" if signed_for else LAUNCH.return_url
    parameter = LaunchParameters(LAUNCH.provider, LAUNCH.reception, replaced, LAUNCH.mas_url, LAUNCH.signature)
    with pytest.raises(TsmError, check=lambda error: error.code is ErrorCode.BAD_SIGNATURE):
        app_of(mas.answer, ScriptedCard(), events).run(parameter.href())
    assert events[-1] == {"step": "REFUSED", "return_url": replaced}


class Site:
    """A mobile site that launches so many times and is then ready."""

    def __init__(self, launches: int) -> None:
        self.launches = launches
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.launches:
            self.launches -= 1
            page = launch_page(LaunchParameters.parse(LAUNCH.encode()))
        else:
            page = ready_page(ICCID)
        page.set_cookie("visit", "token", path="/mobile", secure=True)
        return httpx.Response(200, content=page.body, headers=dict(page.headers))


def visit(site: Site) -> tuple[Page, Browser]:
    app = app_of(Mas([]).answer, ScriptedCard(), [])
    browser = Browser(httpx.Client(transport=httpx.MockTransport(site.answer)), app, lambda **_: None)
    return browser.open(f"{SITE}/mobile/prepare", iccid=ICCID), browser


def test_the_browser_starts_the_app_and_goes_where_it_sends_it_until_the_page_is_ready() -> None:
    site = Site(launches=2)
    page, _ = visit(site)
    assert page.state == "ready"
    assert [request.url.path for request in site.requests] == ["/mobile/prepare", "/mobile/return", "/mobile/return"]
    assert site.requests[1].headers["Cookie"] == "visit=token"


def test_the_form_goes_to_its_action_with_its_hidden_fields() -> None:
    site = Site(launches=0)
    page, browser = visit(site)
    browser.submit(page, {"accessCode": "0123456789"})
    sent = site.requests[-1]
    assert (sent.method, sent.url.path) == ("POST", "/mobile/personalise")
    assert sent.content == f"iccid={ICCID}&accessCode=0123456789".encode()


def test_a_site_that_launches_for_ever_is_left() -> None:
    with pytest.raises(TsmError, check=lambda error: error.code is ErrorCode.UPSTREAM_UNAVAILABLE):
        visit(Site(launches=100))


def test_the_browser_never_follows_to_plain_http() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        return httpx.Response(303, headers={"Location": "http://elsewhere/"})

    app = app_of(Mas([]).answer, ScriptedCard(), [])
    browser = Browser(httpx.Client(transport=httpx.MockTransport(away)), app, lambda **_: None)
    with pytest.raises(TsmError, check=lambda error: error.code is ErrorCode.INVALID_INPUT):
        browser.open(f"{SITE}/mobile/prepare")


def test_pages_run_only_their_own_script_and_are_kept_nowhere() -> None:
    page = launch_page(LaunchParameters.parse(LAUNCH.encode()))
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    nonce = page.headers["Content-Security-Policy"].partition("script-src 'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">location.href="commonApl: spId='.encode() in bytes(page.body)
