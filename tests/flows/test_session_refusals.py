"""Sessions when something is wrong: a code each, an event where something happened, nothing half-done unseen."""

import base64

import pytest
from mas_world import DOMAIN, GET_IIN, GET_KEY_INFORMATION, ICCID, ISD, MASTER, OPERATOR, OTHER_ICCID, PROVIDER

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import InstallForInstall, InstallForLoad, Load
from tsm.keys.primitives import KeySet
from tsm.mas.messages import UICC, LinkRequest, LinkResponse, NotificationRequest, Process, Return
from tsm.mas.status import Status
from tsm.model.card import (
    MAX_FAILURES,
    CardAuthenticated,
    CardAuthenticationFailed,
    CardReleased,
    CommandRefused,
    LoadFileLoaded,
)
from tsm.model.delegation import DelegationEnded
from tsm.model.event import Context
from tsm.model.party import CertificateWithdrawn
from tsm.model.session import CommandSent, SessionFailed
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.faults import ConnectionCut, corrupt_answer, cut_after, cut_before, refuse


def refused(code, function, *arguments, **options):
    with pytest.raises(TsmError) as refusal:
        function(*arguments, **options)
    assert refusal.value.code == code


# DELEGATE


def test_the_same_delegation_gets_the_same_answer_even_after_its_end(world):
    request = world.request([GET_IIN])
    first = world.sessions.delegate(request, party=OPERATOR, iccid=ICCID)
    before = len(world.events())
    world.clock.pass_by(seconds=5)
    assert world.sessions.delegate(request, party=OPERATOR, iccid=ICCID) == first
    assert len(world.events()) == before
    world.phone().run(request.reception)
    assert world.sessions.delegate(request, party=OPERATOR, iccid=ICCID) == first


def test_a_reception_number_used_again_with_other_content_is_refused(world):
    reception = world.delegate([GET_IIN])
    refused(ErrorCode.RECEPTION_REUSED, world.delegate, [GET_IIN, GET_IIN], reception=reception)
    refused(ErrorCode.RECEPTION_REUSED, world.delegate, [GET_IIN], reception=reception, iccid=OTHER_ICCID)
    refused(ErrorCode.RECEPTION_REUSED, world.delegate, [GET_IIN], reception=reception, generated_at="20261121093001")


def test_a_reception_number_is_unique_per_party_only(world):
    world.create_domain()
    reception = world.delegate([GET_IIN])
    world.delegate([GET_IIN], PROVIDER, reception=reception)


def test_a_party_delegates_under_its_own_name_for_its_own_cards_and_domains(world):
    request = world.request([GET_IIN], PROVIDER)
    refused(ErrorCode.FORBIDDEN, world.sessions.delegate, request, party=OPERATOR, iccid=ICCID)
    refused(ErrorCode.UNKNOWN_SECURITY_DOMAIN, world.delegate, [GET_IIN], PROVIDER)
    refused(ErrorCode.UNKNOWN_CARD, world.delegate, [GET_IIN], iccid="8981100000000000036")
    refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER, world.delegate, [GET_IIN], "BANK0001")
    assert world.topics("delegation") == []


def test_nothing_of_a_withdrawn_party_is_accepted_or_starts_any_more(world):
    delegated = world.delegate([GET_IIN])
    world.record(f"operator-{OPERATOR}", CertificateWithdrawn(certificate_fingerprint="00" * 32))
    refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER, world.delegate, [GET_IIN])
    refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER, world.sessions.link, world.start_request(delegated))


def test_without_the_domains_keys_nothing_can_be_delegated(world):
    world.create_domain()
    world.vault.destroy(f"card/{ICCID}/{DOMAIN}/01")
    refused(ErrorCode.UNKNOWN_KEY, world.delegate, [GET_IIN], PROVIDER)


@pytest.mark.parametrize("command", [b"\x84\xca\x00\x42\x00", b"\x00\xa4\x04\x00\x00", b"\x80\xe2"])
def test_a_command_that_may_not_be_delegated_refuses_the_whole_script(world, command):
    refused(ErrorCode.INVALID_INPUT, world.delegate, [GET_IIN, command])
    assert world.topics("delegation") == []


# START


def test_a_forged_or_foreign_signature_starts_nothing(world):
    reception = world.delegate([GET_IIN])
    honest = world.start_request(reception)
    for wrong in (
        world.start_request(reception, signer=PROVIDER),
        world.start_request(reception, return_url="https://evil.example/"),
        world.start_request(reception, mas_url="https://evil.example/mas/link"),
        LinkRequest(
            Process.START, provider=OPERATOR, reception=reception, signature=base64.b64encode(bytes(64)).decode()
        ),
        LinkRequest(Process.START, provider=OPERATOR, reception=reception, signature="c2ln"),
    ):
        refused(ErrorCode.BAD_SIGNATURE, world.sessions.link, wrong)
    assert world.topics("session") == []
    assert world.sessions.link(honest)


def test_an_unknown_provider_or_reception_starts_nothing(world):
    request = world.start_request(next(world.receptions))
    refused(ErrorCode.UNKNOWN_RECEPTION, world.sessions.link, request)
    stranger = LinkRequest(Process.START, provider="BANK0001", reception=request.reception, signature=request.signature)
    refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER, world.sessions.link, stranger)


def test_a_delegation_is_started_in_time_and_once(world):
    late = world.delegate([GET_IIN])
    world.clock.pass_by(minutes=15)
    refused(ErrorCode.RECEPTION_CLOSED, world.sessions.link, world.start_request(late))
    reception, _ = world.run([GET_IIN])
    refused(ErrorCode.RECEPTION_CLOSED, world.sessions.link, world.start_request(reception))


# Order and binding


def test_a_message_out_of_order_is_refused_and_the_session_goes_on(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    answer = phone.start(reception)
    for wrong in (
        LinkRequest(Process.RESPONSE, status_word=b"\x90\x00"),
        LinkRequest(Process.DISCONNECT_RESULT),
    ):
        refused(ErrorCode.WRONG_ORDER, world.sessions.link, wrong, phone.cookie)
    refused(ErrorCode.WRONG_ORDER, world.sessions.link, LinkRequest(Process.CONNECT_RESULT), ahead(phone.cookie))
    while answer.process is not Return.END:
        answer = phone.say(phone.obey(answer))
    assert world.session(reception).executed == 1


def ahead(cookie):
    provider, reception, step, token = cookie.split(".")
    return f"{provider}.{reception}.{int(step) + 1}.{token}"


def test_a_request_without_the_sessions_own_cookie_is_refused(world):
    reception, other = world.delegate([GET_IIN]), world.delegate([GET_IIN])
    phone, stranger = world.phone(), world.phone()
    phone.start(reception)
    stranger.start(other)
    token = stranger.cookie.split(".")[3]
    request = LinkRequest(Process.CONNECT_RESULT, card=UICC)
    foreign = f"{OPERATOR}.{reception}.1.{token}"
    for cookie in (
        "",
        "nonsense",
        "a.b.c.d",
        f"{OPERATOR}.{reception}.1.",
        foreign,
        f"{PROVIDER}.{reception}.1.{token}",
    ):
        refused(ErrorCode.UNKNOWN_SESSION, world.sessions.link, request, cookie)
    named = LinkRequest(Process.CONNECT_RESULT, provider=OPERATOR, reception=other, card=UICC)
    refused(ErrorCode.UNKNOWN_SESSION, world.sessions.link, named, phone.cookie)


def test_every_repeated_request_gets_the_same_bytes_and_the_card_nothing_twice(world):
    reception, phone = world.delegate([GET_IIN, GET_IIN]), world.phone()
    request, cookie = world.start_request(reception), ""
    while True:
        answer = world.sessions.link(request, cookie)
        before = len(world.events())
        assert world.sessions.link(request, cookie) == answer
        assert world.worker()[2].link(request, cookie) == answer
        assert len(world.events()) == before
        if not answer.cookie:
            break
        request, cookie = phone.obey(LinkResponse.parse(answer.body)), answer.cookie
    sent = [fact for fact in world.facts("session") if isinstance(fact, CommandSent)]
    assert len({fact.wire_sha256 for fact in sent}) == len(sent) == 5


def test_a_repeated_step_with_other_content_is_refused(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    phone.start(reception)
    cookie = phone.cookie
    phone.say(LinkRequest(Process.CONNECT_RESULT, card=UICC))
    changed = LinkRequest(Process.CONNECT_RESULT, card=UICC, error="changed")
    refused(ErrorCode.WRONG_ORDER, world.sessions.link, changed, cookie)


def test_two_workers_that_take_the_same_request_at_once_give_one_answer(world, monkeypatch):
    """The second loses the race for the stream, decides anew and finds the first's answer."""
    reception, phone = world.delegate([GET_IIN]), world.phone()
    answer = phone.start(reception)
    request, (_, other_tsm, other) = phone.obey(answer), world.worker()
    commit, answers = other_tsm.commit, []

    def raced(*changes, **options):
        if not answers:
            answers.append(world.sessions.link(request, phone.cookie))
        return commit(*changes, **options)

    monkeypatch.setattr(other_tsm, "commit", raced)
    assert other.link(request, phone.cookie) == answers[0]


# The card


def test_a_phone_that_cannot_connect_ends_the_session_at_once(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    phone.start(reception)
    answer = phone.say(LinkRequest(Process.CONNECT_RESULT, status="50", error="no card"))
    assert answer.process is Return.END
    assert world.delegation(reception).ended == DelegationEnded(status=Status.CONNECT_FAILED, executed=0)
    assert notice(world, reception, 0).status == Status.CONNECT_FAILED


def notice(world, reception, order, provider=OPERATOR):
    return NotificationRequest.parse(world.tsm.payload(f"notification-{provider}-{reception}-{order}", "request"))


def test_another_card_than_the_expected_one_gets_nothing_under_its_keys(world):
    reception, phone = world.run([GET_IIN], transmit=world.other_card.transmit)
    assert phone.processes == ["CONNECT", "COMMAND", "COMMAND", "DISCONNECT", "END"]
    assert world.session(reception).failed == SessionFailed(status=Status.WRONG_CARD, error="WRONG_CARD")
    assert notice(world, reception, 0).error == "WRONG_CARD"
    assert world.card_record().failures == {}


def impostor(world):
    """A card that claims to be ours and does not know its keys."""
    keys = KeySet(MASTER, MASTER, MASTER)
    return SimulatedUicc.manufacture(ICCID, b"\x89\x81\x10\x00", b"\x00\x00\x00\x01", bytes(range(10)), keys)


def forged(transmit):
    """Each card cryptogram (octets 21 to 28 of the answer to INITIALIZE UPDATE) is another."""

    def forge(command):
        answer = transmit(command)
        return answer[:21] + bytes(8) + answer[29:] if command[1] == 0x50 else answer

    return forge


def test_a_wrong_cryptogram_counts_and_no_external_authenticate_follows(world):
    reception, phone = world.run([GET_IIN], transmit=impostor(world).transmit)
    headers = [answer.apdu[:2].hex() for answer in phone.said if answer.process is Return.COMMAND]
    assert headers == ["00a4", "8050"]
    assert world.session(reception).failed.status == Status.CARD_AUTH_FAILED
    assert world.facts(f"card-{ICCID}")[-1] == CardAuthenticationFailed(domain=ISD, key_version=1, failures=1)


def test_the_failure_budget_protects_the_card_and_outlasts_a_restart(world):
    waiting = world.delegate([GET_IIN])
    for _ in range(MAX_FAILURES):
        world.run([GET_IIN], transmit=impostor(world).transmit)
    refused(ErrorCode.CARD_AUTHENTICATION_EXHAUSTED, world.delegate, [GET_IIN])
    refused(ErrorCode.CARD_AUTHENTICATION_EXHAUSTED, world.worker()[2].link, world.start_request(waiting))


def test_failures_in_one_domain_leave_the_others_alone(world):
    world.create_domain()
    for _ in range(MAX_FAILURES):
        world.run([GET_KEY_INFORMATION], PROVIDER, transmit=forged(world.card.transmit))
    refused(ErrorCode.CARD_AUTHENTICATION_EXHAUSTED, world.delegate, [GET_KEY_INFORMATION], PROVIDER)
    reception, _ = world.run([GET_IIN])
    assert world.session(reception).executed == 1


def test_sessions_that_began_in_time_do_not_exceed_the_budget(world):
    phones = [world.phone(impostor(world).transmit) for _ in range(MAX_FAILURES + 2)]
    receptions = [world.delegate([GET_IIN]) for _ in phones]
    waiting = [phone.start(reception) for phone, reception in zip(phones, receptions, strict=True)]
    for phone, answer in zip(phones, waiting, strict=True):
        while answer.process is not Return.END:
            answer = phone.say(phone.obey(answer))
    assert world.card_record().failures == {ISD: MAX_FAILURES}
    assert [world.session(reception).failed.error for reception in receptions[-3:]] == [
        "CARD_AUTH_FAILED",
        "CARD_AUTH_EXHAUSTED",
        "CARD_AUTH_EXHAUSTED",
    ]
    assert not any(answer.apdu[1:2] == b"\x50" for answer in phones[-1].said if answer.process is Return.COMMAND)


def test_a_domain_that_its_operator_released_may_be_tried_again(world):
    for _ in range(MAX_FAILURES):
        world.run([GET_IIN], transmit=impostor(world).transmit)
    context = Context(actor="test", role="administrator", tenant="test", correlation="test")
    world.tsm.release_card(OPERATOR, ICCID, CardReleased(domain=ISD, reason="another phone"), context)
    reception, _ = world.run([GET_IIN])
    assert world.session(reception).executed == 1


def test_success_gives_the_budget_back(world):
    world.run([GET_IIN], transmit=impostor(world).transmit)
    world.run([GET_IIN])
    assert world.facts(f"card-{ICCID}")[-1] == CardAuthenticated(domain=ISD, key_version=1)
    assert world.card_record().failures == {ISD: 0}


def test_nonsense_instead_of_an_initialize_update_answer_proves_nothing(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    answer = phone.start(reception)
    answer = phone.say(phone.obey(answer))
    answer = phone.say(phone.obey(answer))
    answer = phone.say(LinkRequest(Process.RESPONSE, data=b"nonsense", status_word=b"\x90\x00"))
    assert answer.process is Return.DISCONNECT
    assert world.session(reception).failed.status == Status.CARD_AUTH_FAILED
    assert world.card_record().failures == {}  # no card answers so: the phone may not use up the card's budget


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_card_that_refuses_a_command_of_the_servers_own_stops_the_session(world, nth):
    reception, phone = world.run([GET_IIN], transmit=refuse(world.card.transmit, nth, 0x6A88))
    assert phone.processes[-2:] == ["DISCONNECT", "END"]
    assert world.session(reception).executed == 0
    assert world.session(reception).failed.order == 0
    assert notice(world, reception, 0).status in (Status.CARD_REFUSED, Status.CARD_AUTH_FAILED)


def test_a_card_that_refuses_a_delegated_command_gets_no_later_one(world):
    unknown = CommandApdu(0x80, 0xCA, 0x12, 0x34, b"", 0x100)
    reception, phone = world.run([GET_IIN, unknown, GET_IIN])
    assert phone.processes == ["CONNECT", *["COMMAND"] * 5, "DISCONNECT", "END"]
    assert world.facts(f"card-{ICCID}")[-1] == CommandRefused(
        domain=ISD, command="COMMAND", header="80ca1234", status_word="6a88", verified=False
    )
    assert world.session(reception).failed == SessionFailed(status="54", error="CARD_REFUSED", order=2)
    assert world.delegation(reception).ended == DelegationEnded(status="54", executed=1)
    assert notice(world, reception, 1).status == "00"
    assert (notice(world, reception, 2).status, notice(world, reception, 2).status_word) == ("54", b"\x6a\x88")
    assert world.tsm.payload(f"notification-{OPERATOR}-{reception}-3", "request") is None


def test_a_card_without_memory_says_so(world):
    reception, _ = world.run([GET_IIN], transmit=refuse(world.card.transmit, 4, 0x6A84))
    assert world.session(reception).failed.error == "CARD_OUT_OF_MEMORY"


def test_an_answer_that_was_changed_on_the_way_is_not_believed(world):
    reception, _ = world.run([GET_IIN, GET_IIN], transmit=corrupt_answer(world.card.transmit, 4))
    assert world.session(reception).failed == SessionFailed(status="56", error="CHANNEL_BROKEN", order=1)
    assert world.delegation(reception).ended.executed == 0
    assert notice(world, reception, 1).data == b""


def test_success_that_the_phone_invents_is_not_believed(world):
    reception, _ = world.run([GET_IIN], transmit=refuse(world.card.transmit, 4, 0x9000))
    assert world.session(reception).failed.status == Status.CHANNEL_BROKEN


def test_a_load_that_breaks_off_is_no_load_file(world):
    file = bytes(300)
    script = [
        InstallForLoad(bytes.fromhex("D392F0002601FF")).apdu(),
        Load(0, b"\xc4\x82\x01\x2c" + file[:196], last=False).apdu(),
        Load(1, file[196:], last=True).apdu(),
    ]
    reception, _ = world.run(script, transmit=refuse(world.card.transmit, 6, 0x6A84))
    assert not any(isinstance(fact, LoadFileLoaded) for fact in world.facts("card"))
    assert world.delegation(reception).ended == DelegationEnded(status="55", executed=2)


def test_a_domain_that_exists_is_not_created_twice_in_the_record(world):
    world.create_domain()
    again = InstallForInstall(
        bytes.fromhex("A0000001515350"), bytes.fromhex("A000000151535041"), bytes.fromhex(DOMAIN), b"\x80"
    ).apdu()
    world.run([again])
    assert world.topics(f"card-{ICCID}").count("card.security_domain_created") == 1
    assert world.topics(f"card-{ICCID}")[-1] == "card.command_refused"


# The connection


def lose(phone, reception):
    with pytest.raises(ConnectionCut):
        phone.run(reception)


@pytest.mark.parametrize("cut", [cut_before, cut_after])
@pytest.mark.parametrize("nth", range(1, 7))
def test_a_connection_lost_anywhere_ends_in_expiry_and_shows_how_far_it_came(world, cut, nth):
    reception, phone = world.delegate([GET_IIN] * 3), world.phone(cut(world.card.transmit, nth))
    lose(phone, reception)
    world.clock.pass_by(seconds=59)
    assert world.sessions.expire(OPERATOR, reception) is not None
    world.clock.pass_by(seconds=1)
    assert world.sessions.expire(OPERATOR, reception) is None
    executed = max(nth - 4, 0)
    assert world.delegation(reception).ended == DelegationEnded(status=Status.SESSION_EXPIRED, executed=executed)
    assert world.session(reception).expired
    assert notice(world, reception, 0).status == Status.SESSION_EXPIRED
    assert not any(stream.startswith(("session", "delegation")) for stream, _ in world.payloads())
    refused(ErrorCode.SESSION_EXPIRED, phone.say, LinkRequest(Process.RESPONSE, status_word=b"\x90\x00"))
    refused(ErrorCode.RECEPTION_CLOSED, world.sessions.link, world.start_request(reception))


def test_a_late_answer_is_refused_before_the_worker_comes_round(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    answer = phone.start(reception)
    world.clock.pass_by(seconds=60)
    refused(ErrorCode.SESSION_EXPIRED, phone.say, phone.obey(answer))


def test_a_phone_that_lost_its_card_says_so_and_the_session_ends_in_order(world):
    reception, phone = world.delegate([GET_IIN, GET_IIN]), world.phone()
    answer = phone.start(reception)
    while len(phone.said) < 6:
        answer = phone.say(phone.obey(answer))
    answer = phone.say(LinkRequest(Process.RESPONSE, status="50", error="card removed"))
    assert answer.process is Return.DISCONNECT
    assert phone.say(phone.obey(answer)).process is Return.END
    assert world.session(reception).failed == SessionFailed(status="50", error="CONNECT_FAILED", order=2)
    assert notice(world, reception, 2).status == Status.CONNECT_FAILED


def test_a_delegation_that_nobody_starts_ends_quietly(world):
    reception = world.delegate([GET_IIN])
    assert world.sessions.expire(OPERATOR, reception) is not None
    world.clock.pass_by(minutes=15)
    assert world.sessions.expire(OPERATOR, reception) is None
    assert world.delegation(reception).ended.status == Status.SESSION_EXPIRED
    assert world.payloads() == []
    assert world.topics("session") == []


def between_decision_and_commit(monkeypatch, world, happens):
    """What somebody else does in the narrowest place: once, at the next commit."""
    commit = world.tsm.commit

    def late(*changes, **options):
        monkeypatch.setattr(world.tsm, "commit", commit)
        happens()
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", late)


def test_a_start_that_loses_against_expiry_starts_nothing(world, monkeypatch):
    reception = world.delegate([GET_IIN])
    world.clock.pass_by(seconds=899)

    def expire():
        world.clock.pass_by(seconds=2)
        assert world.sessions.expire(OPERATOR, reception) is None

    between_decision_and_commit(monkeypatch, world, expire)
    refused(ErrorCode.RECEPTION_CLOSED, world.phone().start, reception)
    assert world.session(reception) is None


def test_an_expiry_that_loses_against_start_ends_nothing(world, monkeypatch):
    reception, phone, in_time = world.delegate([GET_IIN]), world.phone(), world.clock.now
    world.clock.pass_by(minutes=15)

    def start():
        world.clock.now = in_time
        phone.start(reception)

    between_decision_and_commit(monkeypatch, world, start)
    assert world.sessions.expire(OPERATOR, reception) is not None
    assert world.delegation(reception).ended is None
    assert phone.say(phone.obey(phone.said[-1])).process is Return.COMMAND


def test_a_clock_that_is_put_back_brings_no_session_back(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    answer = phone.start(reception)
    world.clock.pass_by(minutes=2)
    world.delegate([GET_IIN])  # anything that is recorded
    world.clock.pass_by(hours=-1)
    refused(ErrorCode.SESSION_EXPIRED, phone.say, phone.obey(answer))


def test_a_response_without_status_word_is_refused_and_may_be_sent_again(world):
    reception, phone = world.delegate([GET_IIN]), world.phone()
    answer = phone.say(phone.obey(phone.start(reception)))
    refused(ErrorCode.INVALID_INPUT, phone.say, LinkRequest(Process.RESPONSE, data=b"\x01"))
    assert phone.say(phone.obey(answer)).process is Return.COMMAND
