"""The common app's report: taken for the card of its own session, and never in anybody's favour."""

import asyncio
from datetime import timedelta
from os import urandom
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from api.access import Access
from api.errors import RequestIds, refuse
from api.rest import common_app
from api.xml import mas
from tests.flows.mas_world import GET_IIN, ICCID, OPERATOR, OTHER_ICCID, PROVIDER, World
from tests.line_samples import OTHER_PHONE, PHONE, THIRD_PHONE
from tsm.application import Change
from tsm.errors import TsmError
from tsm.flows.app_reports import AppReports
from tsm.flows.issuance_follower import JPKI_APPLICATION
from tsm.flows.lines import Lines
from tsm.mas.messages import UICC, LinkRequest, LinkResponse, Process, Return
from tsm.model import card as cards
from tsm.model.card import ApplicationPersonalized
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind
from tsm.model.swap_policy import Condition

REPORT = {"imei": PHONE, "iccids": [ICCID]}
NUMBER = "+447700900001"
GET_STATUS = bytes.fromhex("80F28002024F0000")  # of the issuer's domain: its answer says something of the card


class Phone:
    """A phone with a session: it talks to the server's routes, and has a cookie."""

    def __init__(self, world):
        self.world = world
        self.lines = Lines(world.tsm, world.vault, world.tsm.now, urandom)
        parts = SimpleNamespace(app_reports=AppReports(world.tsm, world.sessions, self.lines))
        self.app = Starlette(
            routes=[*mas.routes(world.sessions, Access(world.tsm)), *common_app.routes(parts)],
            middleware=[Middleware(RequestIds)],
            exception_handlers={TsmError: refuse, Exception: refuse},
        )
        self.cookies = httpx.Cookies()

    def post(self, path, **content):
        async def run():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="https://tsm.example", cookies=self.cookies
            ) as http:
                answer = await http.post(path, **content)
                self.cookies = http.cookies
                return answer

        return asyncio.run(run())

    def say(self, request):
        return LinkResponse.parse(self.post("/mas/link", content=request.encode()).content)

    def start(self, commands=(GET_IIN,), party=OPERATOR):
        """To CONNECT; the reception number."""
        self.party, self.reception = party, self.world.delegate(list(commands), party)
        assert self.say(self.world.start_request(self.reception, party)).process is Return.CONNECT
        return self.reception

    def go_on(self):
        """From CONNECT to DISCONNECT."""
        relay = self.world.phone()
        answer = self.say(LinkRequest(Process.CONNECT_RESULT, card=UICC))
        while answer.process is Return.COMMAND:
            answer = self.say(relay.obey(answer))
        return answer

    def end(self):
        assert self.say(LinkRequest(Process.DISCONNECT_RESULT)).process is Return.END

    def report(self, **values):
        answer = self.post("/mas/report", json=REPORT | values)
        return answer.status_code, answer.json().get("code", "")

    def operator_says(self, kind, hours, **values):
        signal = Signal(
            id=urandom(8).hex(),
            source=f"operator:{OPERATOR}",
            kind=kind,
            occurred_at=self.world.clock.now + timedelta(hours=hours),
            iccid=ICCID,
            **values,
        )
        context = Context(actor="test", role="operator", tenant=OPERATOR, correlation="test")
        [outcome] = self.lines.record([signal], context)
        assert outcome.error is None

    def told(self, iccid=ICCID):
        return [known.signal for known in self.lines.history(iccid=iccid).signals if known.signal.source == "app"]

    def kinds(self):
        return [signal.kind.name for signal in self.told()]

    def suspected(self):
        """Conditions of open suspicions, with how often."""
        return sorted(one.raised.condition for one in self.lines.standings.of(ICCID).open)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def phone(world):
    return Phone(world)


def personalise(world, command):
    """The card acknowledges, in the session of that command, that it holds a credential."""
    context = Context(actor="phone", role="phone", tenant=PROVIDER, correlation="story", command=command)
    stream = cards.stream(ICCID)
    version = world.tsm.load(stream, cards.evolve).version
    fact = ApplicationPersonalized(application=JPKI_APPLICATION, domain="A000000151000000")
    world.tsm.commit(Change(stream, version, [fact]), context=context, occurred_at=world.clock())


# What is taken


def test_a_phone_tells_where_the_card_is_before_any_command_and_when_it_is_let_go(world, phone):
    phone.start()
    started = world.clock.now
    assert phone.report(subscription="001010000000001") == (200, "")
    [signal] = phone.told()
    assert (signal.kind, signal.iccid, signal.imei, signal.msisdn) == (SignalKind.OBSERVED, ICCID, PHONE, "")
    assert (signal.imsi, signal.occurred_at) == ("001010000000001", started)
    phone.go_on()
    assert phone.report() == (200, "")
    phone.end()
    assert phone.kinds() == ["OBSERVED", "OBSERVED"]


def test_a_credential_is_written_when_the_card_has_proved_it_in_this_session(world, phone):
    phone.start([GET_STATUS])
    phone.go_on()
    personalise(world, f"{OPERATOR}/{phone.reception}/7")
    assert phone.report() == (200, "")
    assert sorted(phone.kinds()) == ["CREDENTIAL_WRITTEN", "OBSERVED"]


@pytest.mark.parametrize("command", [GET_IIN, GET_STATUS])
def test_a_credential_that_another_session_wrote_is_used(world, phone, command):
    personalise(world, f"{OPERATOR}/2026112199999999/7")
    phone.start([command])
    assert phone.report() == (200, "")
    assert sorted(phone.kinds()) == ["CREDENTIAL_USED", "OBSERVED"]
    phone.go_on()
    personalise(world, f"{OPERATOR}/2026112199999998/7")
    assert phone.report() == (200, "")
    assert sorted(phone.kinds()) == ["CREDENTIAL_USED", "OBSERVED", "OBSERVED"]


def test_of_a_cards_long_history_only_what_the_session_added_is_read(world, phone, monkeypatch):
    for reception in range(20):
        personalise(world, f"{OPERATOR}/{2026112199999900 + reception}/7")
    phone.start([GET_STATUS])
    phone.go_on()
    personalise(world, f"{OPERATOR}/{phone.reception}/7")
    read, history = [], world.tsm.history

    def counted(stream, **bounds):
        for event in history(stream, **bounds):
            read.append(event.originator_id)
            yield event

    monkeypatch.setattr(world.tsm, "history", counted)
    assert phone.report() == (200, "")
    assert 1 <= read.count(cards.stream(ICCID)) <= 5
    assert "CREDENTIAL_WRITTEN" in phone.kinds()


def test_a_phone_that_sees_other_cards_than_its_sessions_says_so_of_its_own_only(phone):
    phone.start()
    assert phone.report(iccids=[OTHER_ICCID]) == (200, "")
    assert sorted(phone.kinds()) == ["OBSERVED", "WRONG_CARD"]
    assert phone.told(OTHER_ICCID) == []
    assert phone.suspected() == [Condition.WRONG_CARD]


def test_a_card_in_another_phone_is_on_hold_before_it_gets_a_command(world, phone):
    world.create_domain()
    phone.operator_says(SignalKind.OBSERVED, -48, imei=PHONE)
    phone.start(party=PROVIDER)
    assert phone.report(imei=OTHER_PHONE) == (200, "")
    assert phone.lines.standings.of(ICCID).on_hold
    assert phone.say(LinkRequest(Process.CONNECT_RESULT, card=UICC)).process is Return.END
    assert world.session(phone.reception, PROVIDER).failed.error == "CARD_ON_HOLD"


def test_the_same_report_again_is_answered_as_before_and_another_is_refused(phone):
    phone.start()
    assert phone.post("/mas/report", json=REPORT).json() == phone.post("/mas/report", json=REPORT).json()
    assert phone.report(imei=OTHER_PHONE) == (409, "COMMAND_REUSED")
    assert phone.kinds() == ["OBSERVED"]


def test_the_report_belongs_to_the_cards_operator_and_not_to_the_provider(world, phone):
    world.create_domain()
    phone.start(party=PROVIDER)
    phone.report()
    [event] = [event for event in world.events() if event.topic == "line.signal_recorded"]
    assert (event.context.tenant, event.context.tenants) == (OPERATOR, ())
    assert (event.context.role, event.context.correlation) == ("phone", f"session-{PROVIDER}-{phone.reception}")


# What is not


def test_a_phone_without_a_session_tells_nothing(phone):
    assert phone.report() == (404, "UNKNOWN_SESSION")
    phone.cookies.set("mas", f"{OPERATOR}.2026112100000001.1.{'00' * 16}", domain="tsm.example", path="/mas")
    assert phone.report() == (404, "UNKNOWN_SESSION")


def test_another_phones_token_opens_no_session(phone):
    phone.start()
    phone.cookies = httpx.Cookies()
    phone.cookies.set("mas", f"{OPERATOR}.{phone.reception}.1.{'00' * 16}", domain="tsm.example", path="/mas")
    assert phone.report() == (404, "UNKNOWN_SESSION")
    assert phone.told() == []


def test_in_the_middle_of_its_commands_a_session_takes_no_report(phone):
    phone.start()
    assert phone.say(LinkRequest(Process.CONNECT_RESULT, card=UICC)).process is Return.COMMAND
    assert phone.report() == (409, "WRONG_ORDER")


def test_a_session_that_is_over_takes_no_report(world, phone):
    phone.start()
    world.clock.pass_by(seconds=60)
    assert phone.report() == (410, "SESSION_EXPIRED")
    phone.start()
    phone.go_on()
    cookies = httpx.Cookies(phone.cookies)
    phone.end()
    phone.cookies = cookies
    assert phone.report() == (409, "WRONG_ORDER")


@pytest.mark.parametrize(
    "values",
    [
        {"imei": ""},
        {"imei": "123456789012345"},
        {"iccids": ["1"]},
        {"iccids": [ICCID] * 9},
        {"subscription": "Alice"},
        {"msisdn": NUMBER},
        {"until": "2027-01-01T00:00:00Z"},
        {"kind": "MODEL_CHANGE_ANNOUNCED"},
        {"occurred_at": "2020-01-01T00:00:00Z"},
    ],
)
def test_what_is_no_report_is_refused(phone, values):
    phone.start()
    assert phone.report(**values) == (400, "INVALID_INPUT")
    assert phone.told() == []


@pytest.mark.parametrize(
    "kind", sorted(set(SignalKind) - {"OBSERVED", "CREDENTIAL_WRITTEN", "CREDENTIAL_USED", "WRONG_CARD"})
)
def test_lines_take_nothing_else_from_a_phone_whatever_route_it_comes_by(phone, kind):
    signal = Signal(id="x", source="app", kind=SignalKind(kind), occurred_at=phone.world.clock.now, iccid=ICCID)
    context = Context(actor="phone", role="phone", tenant=OPERATOR, correlation="test")
    [outcome] = phone.lines.record([signal], context)
    assert outcome.error.code == "FORBIDDEN"


def test_lines_take_no_number_from_a_phone(phone):
    signal = Signal(
        id="x", source="app", kind=SignalKind.OBSERVED, occurred_at=phone.world.clock.now, iccid=ICCID, msisdn=NUMBER
    )
    context = Context(actor="phone", role="phone", tenant=OPERATOR, correlation="test")
    [outcome] = phone.lines.record([signal], context)
    assert outcome.error.code == "FORBIDDEN"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"imei": "\x82\xa0"}', b'{"imei": ' + b"[" * 9000, b'{"iccids": ' + b"[" * 9000, b"[]"],
)
def test_what_is_no_message_is_refused_without_a_word_of_it(phone, body):
    phone.start()
    answer = phone.post("/mas/report", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT")


def test_however_often_a_phone_reports_a_session_has_a_few_signals(world, phone):
    personalise(world, f"{OPERATOR}/2026112199999999/7")
    phone.start()
    said = [{"imei": imei, "iccids": seen} for imei in (PHONE, OTHER_PHONE) for seen in ([ICCID], [OTHER_ICCID], [])]
    for _ in range(3):
        for values in said:
            phone.report(**values)
    phone.go_on()
    for values in said:
        phone.report(**values)
    assert sorted(phone.kinds()) == ["CREDENTIAL_USED", "OBSERVED", "OBSERVED", "WRONG_CARD", "WRONG_CARD"]


def test_of_another_report_at_the_same_moment_counts_what_it_adds_against_its_own_card(phone):
    phone.start()
    assert phone.report() == (200, "")
    assert phone.report(imei=OTHER_PHONE, iccids=[OTHER_ICCID]) == (409, "COMMAND_REUSED")
    assert [(signal.kind.name, signal.imei) for signal in phone.told()] == [
        ("OBSERVED", PHONE),
        ("WRONG_CARD", OTHER_PHONE),
    ]


# What a lying phone can do


@pytest.mark.parametrize("claimed", [PHONE, OTHER_PHONE, THIRD_PHONE])
def test_whatever_a_phone_claims_to_be_no_suspicion_ends(phone, claimed):
    """The card moved, the operator did not say into which device, and one device had been announced by name."""
    phone.operator_says(SignalKind.OBSERVED, -48, imei=PHONE)
    until = phone.world.clock.now + timedelta(hours=24)
    phone.operator_says(SignalKind.MODEL_CHANGE_ANNOUNCED, -47, imei=OTHER_PHONE, until=until)
    phone.operator_says(SignalKind.DEVICE_CHANGED, -1)
    before = {one.raised.suspicion for one in phone.lines.standings.of(ICCID).open}
    assert before
    phone.start()
    assert phone.report(imei=claimed) == (200, "")
    assert before <= {one.raised.suspicion for one in phone.lines.standings.of(ICCID).open}


def test_the_operator_that_names_the_announced_device_after_the_phone_did_ends_it(phone):
    phone.operator_says(SignalKind.OBSERVED, -48, imei=PHONE)
    until = phone.world.clock.now + timedelta(hours=24)
    phone.operator_says(SignalKind.MODEL_CHANGE_ANNOUNCED, -47, imei=OTHER_PHONE, until=until)
    phone.operator_says(SignalKind.DEVICE_CHANGED, -1)
    phone.start()
    phone.report(imei=OTHER_PHONE)
    phone.world.clock.pass_by(hours=2)
    phone.operator_says(SignalKind.OBSERVED, -1, imei=OTHER_PHONE)
    assert phone.suspected() == []
