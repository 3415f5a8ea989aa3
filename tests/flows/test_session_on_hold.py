"""A card on hold: no provider gets at it, from the next exchange on; its operator does."""

from functools import partial

import pytest
from issuance_world import IssuanceWorld, key_pool
from mas_world import GET_KEY_INFORMATION, ICCID, OPERATOR, OTHER_ICCID, PROVIDER

from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import verify_signature
from tsm.mas.launch import verify_mas_sign
from tsm.mas.messages import NotificationRequest, Return
from tsm.mas.signing import MAS_SIGNING_KEY
from tsm.mas.status import Status
from tsm.model import standing
from tsm.model.session import SessionFailed
from tsm.model.standing import LevelChanged, Use, UseRefused
from tsm.model.swap_policy import Level


@pytest.fixture(autouse=True)
def with_a_domain(world):
    world.create_domain()


def refused(code: ErrorCode = ErrorCode.CARD_ON_HOLD):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def put(world, level, iccid=ICCID):
    world.record(standing.stream(iccid), LevelChanged(level=level))


def final_status(world, reception, phone, provider=PROVIDER):
    verify = partial(verify_signature, world.vault.public_key(MAS_SIGNING_KEY))
    return verify_mas_sign(verify, provider, reception, phone.said[-1].mas_sign)


def go_on(phone, answer):
    while answer.process is not Return.END:
        answer = phone.say(phone.obey(answer))


def notice(world, reception, order):
    message = world.tsm.payload(f"notification-{PROVIDER}-{reception}-{order}", "request")
    return message and NotificationRequest.parse(message).status


# Before a session


@pytest.mark.parametrize("level", [Level.HOLD, Level.LOCK, Level.REVOKE])
def test_a_provider_neither_delegates_nor_starts(world, level):
    waiting = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    put(world, level)
    events = len(world.events())
    with refused():
        world.delegate([GET_KEY_INFORMATION], PROVIDER)
    with refused():
        world.phone().start(waiting, PROVIDER)
    assert [event.fact for event in world.events()[events:]] == [delegate(), start(waiting)]


def delegate():
    return UseRefused(use=Use.DELEGATE, provider=PROVIDER)


def start(reception):
    return UseRefused(use=Use.START, provider=PROVIDER, reception=reception)


def tried(world):
    """Who asked for what in vain."""
    return [event for event in world.events() if isinstance(event.fact, UseRefused)]


def test_whoever_tried_is_in_the_log_once_for_each_delegation_that_there_was(world):
    waiting, other = (world.delegate([GET_KEY_INFORMATION], PROVIDER) for _ in range(2))
    put(world, Level.HOLD)
    for reception in (waiting, waiting, other, waiting):
        with refused():
            world.phone().start(reception, PROVIDER)
        with refused():
            world.delegate([GET_KEY_INFORMATION], PROVIDER)
    assert [event.fact for event in tried(world)] == [start(waiting), delegate(), start(other)]
    story = standing.stream(ICCID)
    assert {(event.originator_id, event.context.correlation) for event in tried(world)} == {(story, story)}
    assert [event.context.actor for event in tried(world)] == ["phone", f"provider:{PROVIDER}", "phone"]
    assert {(event.context.tenant, event.context.tenants) for event in tried(world)} == {(OPERATOR, (PROVIDER,))}


def test_whoever_tries_in_another_hold_is_in_the_log_again(world):
    for level in (Level.HOLD, Level.LOCK, Level.NONE, Level.HOLD):
        put(world, level)
        if level is not Level.NONE:
            with refused():
                world.delegate([GET_KEY_INFORMATION], PROVIDER)
    assert [event.fact for event in tried(world)] == [delegate(), delegate()]


def test_a_wrong_signature_or_a_closed_delegation_leaves_nothing_in_the_log(world):
    waiting = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    put(world, Level.HOLD)
    with refused(ErrorCode.BAD_SIGNATURE):
        world.sessions.link(world.start_request(waiting, PROVIDER, signer=OPERATOR))
    world.clock.pass_by(minutes=15)
    with refused(ErrorCode.RECEPTION_CLOSED):
        world.phone().start(waiting, PROVIDER)
    assert tried(world) == []


def test_a_release_that_comes_between_refusal_and_commit_lets_it_start(world, monkeypatch):
    waiting, commit = world.delegate([GET_KEY_INFORMATION], PROVIDER), world.tsm.commit
    put(world, Level.HOLD)

    def overtaken(*changes, **options):
        monkeypatch.setattr(world.tsm, "commit", commit)
        put(world, Level.NONE)
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", overtaken)
    world.phone().run(waiting, PROVIDER)
    assert tried(world) == []


def test_what_was_accepted_before_is_answered_as_it_was(world):
    request = world.request([GET_KEY_INFORMATION], PROVIDER)
    first = world.sessions.delegate(request, party=PROVIDER, iccid=ICCID)
    put(world, Level.HOLD)
    assert world.sessions.delegate(request, party=PROVIDER, iccid=ICCID) == first


def test_an_alert_stops_nothing_nor_does_another_cards_hold(world):
    put(world, Level.ALERT)
    put(world, Level.REVOKE, OTHER_ICCID)
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert world.session(reception, PROVIDER).executed == 1


def test_once_it_is_released_the_same_delegation_starts(world):
    waiting = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    put(world, Level.HOLD)
    with refused():
        world.phone().start(waiting, PROVIDER)
    assert world.delegation(waiting, PROVIDER).ended is None
    put(world, Level.NONE)
    world.phone().run(waiting, PROVIDER)
    assert world.session(waiting, PROVIDER).executed == 1


# A session under way


SCRIPT = [GET_KEY_INFORMATION] * 3
SELECT, FIRST, LAST = 1, 4, 6  # exchanges after START before their answers


@pytest.mark.parametrize("exchanges", range(LAST))
def test_a_session_under_way_is_stopped_at_the_next_exchange(world, exchanges):
    reception, phone = world.delegate(SCRIPT, PROVIDER), world.phone()
    answer = phone.start(reception, PROVIDER)
    for _ in range(exchanges):
        answer = phone.say(phone.obey(answer))
    put(world, Level.HOLD)

    answer = phone.say(phone.obey(answer))
    assert answer.process is (Return.DISCONNECT if exchanges else Return.END)
    go_on(phone, answer)

    executed = max(0, exchanges - FIRST + 1)
    assert final_status(world, reception, phone) is Status.CARD_ON_HOLD
    assert world.delegation(reception, PROVIDER).ended.executed == executed
    failed = [fact for fact in world.facts(f"session-{PROVIDER}") if isinstance(fact, SessionFailed)]
    assert failed == [SessionFailed(status="58", error="CARD_ON_HOLD")]
    told = [notice(world, reception, order) for order in range(len(SCRIPT) + 1)]
    assert told == ["58", *["00"] * executed, *[None] * (len(SCRIPT) - executed)]
    assert not [name for stream, name in world.payloads() if stream.startswith("delegation")]


def test_a_session_whose_last_command_the_card_has_answered_ends_as_it_was(world):
    reception, phone = world.delegate(SCRIPT, PROVIDER), world.phone()
    answer = phone.start(reception, PROVIDER)
    while answer.process is not Return.DISCONNECT:
        answer = phone.say(phone.obey(answer))
    put(world, Level.HOLD)
    go_on(phone, answer)
    assert final_status(world, reception, phone) is Status.NOT_ALL_ACKNOWLEDGED  # no worker runs here


def test_a_phone_that_asks_again_gets_the_answer_that_it_did_not_hear(world):
    reception, phone = world.delegate(SCRIPT, PROVIDER), world.phone()
    answer = phone.start(reception, PROVIDER)
    request, cookie = phone.obey(answer), phone.cookie
    heard = world.sessions.link(request, cookie)
    put(world, Level.HOLD)
    assert world.sessions.link(request, cookie) == heard


@pytest.mark.parametrize("exchanges", [SELECT, FIRST])
def test_a_hold_that_comes_between_decision_and_commit_is_seen(world, monkeypatch, exchanges):
    reception, phone = world.delegate(SCRIPT, PROVIDER), world.phone()
    answer = phone.start(reception, PROVIDER)
    for _ in range(exchanges):
        answer = phone.say(phone.obey(answer))
    commit = world.tsm.commit

    def overtaken(*changes, **options):
        monkeypatch.setattr(world.tsm, "commit", commit)
        put(world, Level.HOLD)
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", overtaken)
    assert phone.say(phone.obey(answer)).process is Return.DISCONNECT


def test_the_operator_goes_on(world):
    reception, phone = world.delegate(SCRIPT), world.phone()
    answer = phone.start(reception)
    put(world, Level.LOCK)
    go_on(phone, answer)
    assert world.session(reception, OPERATOR).executed == len(SCRIPT)
    world.run(SCRIPT)


# The holder


@pytest.fixture
def issuing(tmp_path, monkeypatch):
    monkeypatch.setattr("tsm.jpki.authority.new_key", iter(key_pool()).__next__)
    (tmp_path / "issuing").mkdir()
    world = IssuanceWorld(tmp_path / "issuing")
    yield world
    world.close()


def test_the_holder_is_not_let_in_until_the_card_is_released(issuing):
    slip = issuing.apply()
    put(issuing, Level.HOLD)
    with refused():
        issuing.check(slip)
    assert issuing.the_credential_topics()[-1] == "slip_handed_out"
    assert [event.fact for event in tried(issuing)] == [UseRefused(use=Use.ACCESS_CODE, provider=PROVIDER)]
    put(issuing, Level.NONE)
    assert issuing.check(slip) == slip.credential


def test_a_wrong_password_is_told_and_counted_as_ever(issuing):
    slip = issuing.apply()
    put(issuing, Level.HOLD)
    with refused(ErrorCode.ACCESS_CODE_REFUSED):
        issuing.issuance.check_access_code(PROVIDER, OTHER_ICCID, slip.code)
    assert issuing.topics("access-code")[-1] == "access_code.refused"
    assert tried(issuing) == []
