"""What cards give away in sessions becomes signals, each once."""

from os import urandom

import pytest
from mas_world import GET_IIN, ICCID, OPERATOR, NoPosition

from tsm.flows import known_signals
from tsm.flows.card_signals import CardSignals
from tsm.flows.lines import Lines
from tsm.globalplatform.commands import InitializeUpdate
from tsm.mas.status import Status
from tsm.model.line import SignalKind, SignalRecorded
from tsm.model.session import MOST_LOST, ResponseReceived, counter_jumped

INITIALIZE_UPDATE = b"\x80\x50"


@pytest.fixture
def lines(world):
    return Lines(world.tsm, world.vault, world.tsm.now, urandom)


def follow(world, lines):
    """One round of a follower that has read nothing yet."""
    follower = CardSignals(world.tsm, lines, NoPosition())
    follower._catch_up()
    follower.act()
    assert follower.unfinished() is None


def told(lines, iccid=ICCID):
    return [known.signal for known in lines.history(iccid=iccid).signals]


def counters(world, reception):
    [answer] = [
        fact
        for fact in world.facts(f"session-{OPERATOR}-{reception}")
        if isinstance(fact, ResponseReceived) and fact.step == "INITIALIZE UPDATE"
    ]
    return answer.counter_before, answer.sequence_counter


def use_up(world, values):
    """Somebody else begins as many channels as that with the card."""
    for _ in range(values):
        world.card.transmit(InitializeUpdate(urandom(8), 1).apdu().encode())


def lying(world, counter):
    """A phone that tells another sequence counter than its card."""

    def transmit(command):
        answer = world.card.transmit(command)
        return answer[:-5] + counter.to_bytes(3, "big") + answer[-2:] if command[:2] == INITIALIZE_UPDATE else answer

    return transmit


def test_another_card_than_the_one_expected_is_told_of_the_one_expected(world, lines):
    reception, _ = world.run([GET_IIN], transmit=world.other_card.transmit)
    assert world.session(reception).failed.status == Status.WRONG_CARD
    follow(world, lines)

    [signal] = told(lines)
    assert (signal.kind, signal.source, signal.iccid, signal.msisdn) == (SignalKind.WRONG_CARD, "card", ICCID, "")
    [failed] = [event for event in world.events() if event.topic == "session.failed"]
    assert (signal.id, signal.occurred_at) == (f"position-{failed.position}", failed.occurred_at)
    assert told(lines, "8981100000000000028") == []


def test_a_session_that_fails_for_another_reason_says_nothing_against_its_card(world, lines):
    world.run([bytes.fromhex("80CAFFFF00")])
    follow(world, lines)
    assert told(lines) == []


def test_every_session_records_where_the_counter_is_and_where_it_was(world, lines):
    receptions = [world.run([GET_IIN])[0] for _ in range(3)]
    assert [counters(world, reception) for reception in receptions] == [
        ("", "000000"),
        ("000000", "000001"),
        ("000001", "000002"),
    ]
    follow(world, lines)
    assert told(lines) == []


@pytest.mark.parametrize(("others", "jumped"), [(MOST_LOST - 1, False), (MOST_LOST, True)])
def test_answers_may_be_lost_but_not_any_number_of_them(world, lines, others, jumped):
    world.run([GET_IIN])
    use_up(world, others)
    world.run([GET_IIN])
    follow(world, lines)
    assert [signal.kind for signal in told(lines)] == [SignalKind.COUNTER_JUMPED] * jumped


@pytest.mark.parametrize("counter", [0, 1])
def test_a_counter_that_stands_still_or_runs_backwards_is_told(world, lines, counter):
    world.run([GET_IIN])
    world.run([GET_IIN])
    world.run([GET_IIN], transmit=lying(world, counter))
    follow(world, lines)
    assert [signal.kind for signal in told(lines)] == [SignalKind.COUNTER_JUMPED]


def test_a_card_that_does_not_prove_its_keys_moves_no_counter(world):
    world.run([GET_IIN])

    def forged(command):
        answer = world.card.transmit(command)
        return answer[:21] + bytes(8) + b"\x7f\xff\xff" + answer[-2:] if command[:2] == INITIALIZE_UPDATE else answer

    refused, _ = world.run([GET_IIN], transmit=forged)
    after, _ = world.run([GET_IIN])
    assert world.session(refused).failed.status == Status.CARD_AUTH_FAILED
    assert counters(world, refused) == ("", "")
    assert counters(world, after) == ("000000", "000002")


def test_keys_that_were_put_anew_begin_anew(world, lines):
    """The provider's domain counts for itself, under each of its key versions."""
    world.create_domain()
    world.run([world.rotation()], "JPKI0001")
    world.run([GET_IIN], "JPKI0001")
    follow(world, lines)
    assert told(lines) == []


def test_a_follower_that_reads_everything_again_records_nothing_twice(world, lines):
    world.run([GET_IIN], transmit=world.other_card.transmit)
    follow(world, lines)
    before = len(world.events())
    follow(world, lines)
    follow(world, Lines(world.tsm, world.vault, world.tsm.now, urandom))
    assert len(world.events()) == before
    assert sum(isinstance(event.fact, SignalRecorded) for event in world.events()) == 1


def test_a_phone_that_is_heard_no_more_holds_nobody_up(world, lines, monkeypatch, caplog):
    monkeypatch.setattr(known_signals, "MOST_SIGNALS", 2)
    for _ in range(3):
        world.run([GET_IIN], transmit=world.other_card.transmit)
    follow(world, lines)
    assert [signal.kind for signal in told(lines)] == [SignalKind.WRONG_CARD] * 2
    assert "TOO_MANY_SIGNALS" in caplog.text


@pytest.mark.parametrize(
    ("before", "now", "jumped"),
    [
        ("", "000005", False),
        ("000005", "", False),
        ("000005", "000006", False),
        ("000005", "000005", True),
        ("000005", "000004", True),
        ("0000ff", "00010f", False),
        ("0000ff", "000110", True),
    ],
)
def test_a_jump_is_no_step_forward_or_too_large_a_one(before, now, jumped):
    received = ResponseReceived(
        step="INITIALIZE UPDATE",
        order=0,
        status_word="9000",
        length=34,
        wire_sha256="00",
        sequence_counter=now,
        counter_before=before,
    )
    assert counter_jumped(received) is jumped
