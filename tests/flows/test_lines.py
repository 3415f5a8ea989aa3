"""Signals are recorded, led to by keyed rows, decided on, and erased."""

import itertools
import logging
from datetime import UTC, datetime, timedelta
from os import urandom

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from line_samples import (
    IMSI,
    IMSIS,
    NOON,
    NUMBER,
    NUMBERS,
    OTHER_IMSI,
    OTHER_NUMBER,
    OTHER_PHONE,
    OTHER_SIM,
    PHONE,
    PHONES,
    SIM,
    SIMS,
    SOURCE,
    THIRD_NUMBER,
    THIRD_SIM,
    arrivals,
    at,
    signal,
)
from line_world import OPERATOR, SYSTEM, LineWorld

from tsm.errors import ErrorCode, TsmError
from tsm.flows import known_signals, lines
from tsm.flows.lines import Outcome
from tsm.keys.vault import SoftwareVault
from tsm.model.event import Context
from tsm.model.line import SignalKind, SignalRecorded
from tsm.model.standing import Proof, Verdict
from tsm.model.swap_policy import Level
from tsm.store.memory import MemoryRecorder
from tsm.store.opening import open_recorder

K = SignalKind
BOUND = {"msisdn": NUMBER, "imsi": IMSI, "iccid": SIM, "imei": PHONE}
SUBSCRIBED = signal(K.SUBSCRIBED, 0, **BOUND)
MOVED = signal(K.OBSERVED, 3, msisdn=NUMBER, imei=OTHER_PHONE)
HERS = signal(K.SUBSCRIBED, 90, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM, imei=OTHER_PHONE)
PHONE_CONTEXT = Context(actor="phone", role="phone", tenant="MNO00001", correlation="x")
TERMINAL_CONTEXT = Context(actor="terminal:T-13101-01", role="clerk", tenant="x", correlation="x")


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    vault = SoftwareVault.create(folder / "vault", folder / "kek")
    yield vault
    vault.close()


@pytest.fixture
def world(vault, tmp_path):
    world = LineWorld(vault, tmp_path / "log.sqlite")
    world.register()
    yield world
    world.close()


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


class Crash(Exception):
    pass


def crashes(*_, **__):
    raise Crash


def facts(world, stream):
    return [event.fact for event in world.tsm.history(stream)]


def followed(world, number=NUMBER):
    """What the number's latest event says that relying parties may ask."""
    last = facts(world, world.lines.stream_of_number(number))[-1]
    return last.sim_changed_at, last.device_changed_at, last.in_service


# Recording


def test_what_follows_is_in_force_when_the_source_gets_its_answer(world):
    world.record(SUBSCRIBED)
    assert not world.standing().on_hold
    [outcome] = world.record(MOVED)
    assert world.standing().on_hold
    [suspicion] = world.standing().open
    assert world.ids(suspicion.raised.evidence) == {SUBSCRIBED.id, MOVED.id}
    assert outcome.position in suspicion.raised.evidence


def test_each_event_has_its_own_time_and_the_caller_s_context(world):
    positions = [outcome.position for outcome in world.record(SUBSCRIBED, MOVED, context=OPERATOR)]
    events = world.tsm.at(positions)
    assert [event.occurred_at for event in events] == [at(0), at(3)]
    assert {event.context for event in events} == {OPERATOR}


def test_a_signal_may_tell_of_any_time_until_now(world):
    first = msgspec.structs.replace(SUBSCRIBED, occurred_at=datetime.min.replace(tzinfo=UTC))
    ahead = signal(K.OBSERVED, 400 + 4 / 60, msisdn=NUMBER, imei=OTHER_PHONE)  # the source's clock is
    assert [outcome.error for outcome in world.record(ahead, first)] == [None, None]
    assert followed(world) == (first.occurred_at, ahead.occurred_at, True)
    assert world.conditions() == ["DEVICE_CHANGED"]


def test_what_is_told_at_the_same_time_is_told_in_one_order(vault):
    """Whichever came first: the last of them, by source and id, is what the number has."""
    told = [signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=imsi, iccid=SIM, imei=imei) for imsi in IMSIS for imei in PHONES]
    views = []
    for order in (told, told[::-1]):
        world = LineWorld(vault, MemoryRecorder)
        world.register()
        in_batches(world, [SUBSCRIBED, *order], [2])
        views.append(seen(world))
        world.close()
    assert views[0] == views[1]


@pytest.mark.parametrize("together", [True, False])
def test_a_name_is_one_signal_s_also_of_another_number(world, together):
    told = [signal(K.OBSERVED, 1, msisdn=number, id="same") for number in (NUMBER, OTHER_NUMBER)]
    outcomes = world.record(*told) if together else [world.record(one)[0] for one in told]
    assert [outcome.error and outcome.error.code for outcome in outcomes] == [None, ErrorCode.COMMAND_REUSED]
    assert world.lines.stream_of_number(OTHER_NUMBER) is None
    assert world.record(signal(K.OBSERVED, 1, msisdn=OTHER_NUMBER, id="same", source="app"))[0].error is None


def test_the_same_signal_is_no_news(world):
    [first] = world.record(SUBSCRIBED)
    before = world.tsm.position
    assert world.record(SUBSCRIBED, SUBSCRIBED) == [Outcome(first.position, repeated=True)] * 2
    assert world.tsm.position == before


def test_a_signal_that_is_told_twice_in_one_batch_is_recorded_once(world):
    first, second = world.record(SUBSCRIBED, SUBSCRIBED)
    assert (first.repeated, second.repeated, second.position) == (False, True, first.position)
    assert len(facts(world, world.lines.stream_of_number(NUMBER))) == 1


@pytest.mark.parametrize("other", [{"imei": OTHER_PHONE}, {"msisdn": OTHER_NUMBER}, {"occurred_at": at(1)}])
@pytest.mark.parametrize("together", [True, False])
def test_another_signal_under_a_known_name_is_refused(world, other, together):
    again = msgspec.structs.replace(SUBSCRIBED, **other)
    outcomes = world.record(SUBSCRIBED, again) if together else [*world.record(SUBSCRIBED), *world.record(again)]
    assert [outcome.error and outcome.error.code for outcome in outcomes] == [None, ErrorCode.COMMAND_REUSED]


BAD = {
    "a number that is none": {"msisdn": "0447700900001"},
    "a card whose digit is wrong": {"iccid": "8981100000000000011"},
    "a device whose digit is wrong": {"imei": "001010000000010"},
    "an IMSI with letters": {"imsi": "00101000000000a"},
    "neither a number nor a card": {"msisdn": "", "iccid": ""},
    "an id with a space": {"id": "no id"},
    "a time to come": {"occurred_at": at(401)},
    "a time that is not UTC": {"occurred_at": (NOON).replace(tzinfo=None)},
    "a card before it where there is none": {"previous": SIM},
    "an indication where there is none": {"indication": "proxy"},
    "an end where there is none": {"until": at(5)},
    "a replaced card without the new one": {"kind": K.SIM_REPLACED, "iccid": "", "previous": SIM},
    "a replaced card that is the new one": {"kind": K.SIM_REPLACED, "previous": SIM},
    "a change of number without the former": {"kind": K.NUMBER_CHANGED},
    "a change of number, on which card nobody tells": {
        "kind": K.NUMBER_CHANGED,
        "msisdn": OTHER_NUMBER,
        "previous": NUMBER,
        "iccid": "",
    },
    "a port-out of no number": {"kind": K.PORTED_OUT, "msisdn": ""},
    "an announcement without an end": {"kind": K.MODEL_CHANGE_ANNOUNCED},
    "an announcement whose end is not UTC": {"kind": K.MODEL_CHANGE_ANNOUNCED, "until": at(1).replace(tzinfo=None)},
    "an announcement for ever": {"kind": K.MODEL_CHANGE_ANNOUNCED, "until": at(31 * 24 + 1)},
    "a time to come in six minutes": {"occurred_at": at(400.1)},
    "an id of 65 letters": {"id": "a" * 65},
    "an id that looks like another": {"id": "ｓ-1"},
    "a number with other digits": {"msisdn": "+４４7700900001"},
    "a card with other digits": {"iccid": "８９81100000000000010"},
    "an indication that is not printable": {"kind": K.INDICATION, "indication": "night\u202echange"},
    "an indication of 33 letters": {"kind": K.INDICATION, "indication": "a" * 33},
    "an indication with an underscore": {"kind": K.INDICATION, "indication": "call_forwarding"},
    "an indication with capitals": {"kind": K.INDICATION, "indication": "Call-Forwarding"},
    "an indication that tells a number": {"kind": K.INDICATION, "indication": "forwarded to +447700900077"},
    "an indication of digits": {"kind": K.INDICATION, "indication": "447700900077"},
    "an indication with a space behind it": {"kind": K.INDICATION, "indication": "proxy "},
    "an indication with a line's end behind it": {"kind": K.INDICATION, "indication": "proxy\n"},
    "an indication that ends with a hyphen": {"kind": K.INDICATION, "indication": "proxy-"},
    "an indication that begins with one": {"kind": K.INDICATION, "indication": "-proxy"},
    "an indication of other letters": {"kind": K.INDICATION, "indication": "pr\u043exy"},
    "an announcement that ends before it begins": {"kind": K.MODEL_CHANGE_ANNOUNCED, "until": at(-1)},
    "an indication of nothing": {"kind": K.INDICATION},
}


@pytest.mark.parametrize("word", ["proxy", "remote-channel", "known-to-a-later-policy-only", "a", "a" * 32])
def test_an_indication_is_a_word(world, word):
    [outcome] = world.record(signal(K.INDICATION, 0, msisdn=NUMBER, indication=word))
    assert outcome.error is None


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_signal_is_refused_alone(world, fault):
    bad = msgspec.structs.replace(signal(K.OBSERVED, 0, **BOUND), **BAD[fault])
    outcomes = world.record(SUBSCRIBED, bad, MOVED)
    assert [outcome.error and outcome.error.code for outcome in outcomes] == [None, ErrorCode.INVALID_INPUT, None]
    assert world.standing().on_hold


@pytest.mark.parametrize(
    ("context", "source", "speaks"),
    [
        (OPERATOR, SOURCE, True),
        (OPERATOR, "operator:MNO00002", False),
        (OPERATOR, "card", False),
        (SYSTEM, "card", True),
        (PHONE_CONTEXT, "app", True),
        (PHONE_CONTEXT, SOURCE, False),
        (TERMINAL_CONTEXT, "terminal:T-13101-01", True),
        (TERMINAL_CONTEXT, "terminal:T-13101-02", False),
    ],
)
def test_a_caller_speaks_for_itself_only(world, context, source, speaks):
    [outcome] = world.record(signal(K.OBSERVED, 0, source=source, iccid=SIM, imei=PHONE), context=context)
    assert (outcome.error is None) is speaks
    assert speaks or outcome.error.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize("named", [{"iccid": SIMS[2]}, {"kind": K.SIM_REPLACED, "iccid": SIM, "previous": SIMS[2]}])
def test_an_operator_cannot_name_another_operator_s_card(world, named):
    world.register(SIMS[2], operator="MNO00002")
    [outcome] = world.record(signal(**{"kind": K.OBSERVED, "hours": 0, "msisdn": NUMBER, **named}), context=OPERATOR)
    assert outcome.error.code is ErrorCode.FORBIDDEN
    assert world.lines.stream_of_number(NUMBER) is None


def test_another_operator_changes_the_dates_of_a_number_and_no_standing(world):
    another = Context(actor="operator:MNO00002", role="operator", tenant="MNO00002", correlation="feed")
    world.record(SUBSCRIBED)
    told = [
        signal(kind, 3 + n, source="operator:MNO00002", msisdn=NUMBER, imsi=OTHER_IMSI)
        for n, kind in enumerate((K.LOST, K.OBSERVED, K.SUSPENDED, K.PORTED_OUT, K.TERMINATED, K.SUBSCRIBED))
    ]
    assert [outcome.error for outcome in world.record(*told, context=another)] == [None] * 6
    assert facts(world, f"standing-{SIM}") == []
    assert followed(world) == (at(8), None, True)


@pytest.mark.parametrize(
    "source", ["", "Hanako, +447700900001", "operator:", "operator:MNO00001\n", "person:alice", "app "]
)
def test_a_source_has_a_name_of_one_of_four_kinds(world, source):
    [outcome] = world.record(msgspec.structs.replace(SUBSCRIBED, source=source), context=SYSTEM)
    assert outcome.error.code is ErrorCode.INVALID_INPUT


def test_whoever_was_slower_decides_anew(world):
    """Another server records of the same number between our reading and our commit."""
    rival, rivals = world.another(), itertools.chain([signal(K.OBSERVED, 1, **BOUND)])

    def random(size):
        for one in rivals:
            rival.record([one], SYSTEM)
        return urandom(size)

    world.record(SUBSCRIBED)
    slower = world.another(random)
    [outcome] = slower.record([msgspec.structs.replace(HERS)], SYSTEM)
    assert outcome.error is None
    assert [fact.kind for fact in facts(world, world.lines.stream_of_number(NUMBER))] == [
        K.SUBSCRIBED,
        K.OBSERVED,
        K.SUBSCRIBED,
    ]


def test_two_servers_that_hear_of_a_number_at_the_same_moment_agree_afterwards(world):
    rival, rivals = world.another(), itertools.chain([MOVED])

    def random(size):
        for one in rivals:
            rival.record([one], SYSTEM)
        return urandom(size)

    world.another(random).record([SUBSCRIBED], SYSTEM)
    assert len({stream.stream for stream in world.tsm.indexed("line.msisdn", NUMBER)}) == 2
    assert [binding.imei for binding in world.lines.history(msisdn=NUMBER).bindings] == [PHONE, OTHER_PHONE]
    assert world.standing().on_hold
    assert all(outcome.repeated for outcome in world.record(SUBSCRIBED, MOVED))
    world.record(signal(K.OBSERVED, 4, msisdn=NUMBER))
    assert followed(world) == (at(0), at(3), True)


TOO_MANY = {
    "signals of a line": [signal(K.OBSERVED, n, msisdn=NUMBER, iccid=SIM) for n in range(9)],
    "signals of a card": [signal(K.OBSERVED, n, iccid=SIM, imei=PHONE) for n in range(9)],
    "cards of a number": [signal(K.OBSERVED, n, msisdn=NUMBER, iccid=SIMS[n]) for n in range(3)],
    "cards that were replaced": [
        signal(K.SIM_REPLACED, n, msisdn=NUMBER, iccid=SIMS[n], previous=SIMS[n - 1]) for n in range(1, 3)
    ],
    "numbers of a card": [signal(K.OBSERVED, n, msisdn=NUMBERS[n], iccid=SIM) for n in range(3)],
}


@pytest.mark.parametrize("first", [K.INDICATION, K.LOST])
def test_what_is_told_every_day_does_not_silence_the_rest_nor_the_other_way_round(world, monkeypatch, first):
    monkeypatch.setattr(known_signals, "MOST_SIGNALS", 3)
    told = {
        K.INDICATION: [signal(K.INDICATION, n, msisdn=NUMBER, indication="failed-authentication") for n in range(4)],
        K.LOST: [signal(K.LOST, n, msisdn=NUMBER) for n in range(4)],
    }
    for kind in (first, *told.keys() - {first}):
        codes = [outcome.error and outcome.error.code for outcome in world.record(*told[kind])]
        assert codes == [None, None, None, ErrorCode.TOO_MANY_SIGNALS]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("what", TOO_MANY)
def test_one_source_tells_only_so_much_of_a_line_or_a_card(world, monkeypatch, what, together):
    """What it has told may be said again, other sources go on, and so does this one elsewhere."""
    monkeypatch.setattr(known_signals, "MOST_SIGNALS", 8)
    monkeypatch.setattr(known_signals, "MOST_NAMES", 2)
    monkeypatch.setattr(lines, "MOST_NAMES", 2)
    told = TOO_MANY[what]
    outcomes = world.record(*told) if together else [world.record(one)[0] for one in told]
    assert [outcome.error and outcome.error.code for outcome in outcomes] == [
        *[None] * (len(told) - 1),
        ErrorCode.TOO_MANY_SIGNALS,
    ]
    assert all(outcome.repeated for outcome in world.record(*told[:-1]))
    another = msgspec.structs.replace(told[-1], source="operator:MNO00002")
    elsewhere = signal(K.OBSERVED, 1, msisdn="+447700900009", iccid="8981100000000000044")
    assert [outcome.error for outcome in world.record(another, elsewhere)] == [None, None]


def test_unregistered_cards_have_no_standing(world):
    world.record(
        signal(K.OBSERVED, 0, msisdn=NUMBER, iccid=SIMS[2], imei=PHONE),
        signal(K.OBSERVED, 1, msisdn=NUMBER, iccid=SIMS[2], imei=OTHER_PHONE),
    )
    assert facts(world, f"standing-{SIMS[2]}") == []


PERSONAL = (*NUMBERS, IMSI, OTHER_IMSI, PHONE, OTHER_PHONE)


def test_nothing_personal_lies_open_in_the_store_nor_in_what_is_logged_or_answered(vault, tmp_path, caplog):
    """Of cards the store knows the ICCID; which number or phone one had, it does not tell."""
    caplog.set_level(logging.DEBUG)
    world = LineWorld(vault, tmp_path / "log.sqlite")
    world.register()
    bad = [msgspec.structs.replace(signal(K.OBSERVED, 0, **BOUND), **BAD[fault]) for fault in BAD]
    reused = msgspec.structs.replace(SUBSCRIBED, imei=OTHER_PHONE)
    told = [
        SUBSCRIBED,
        MOVED,
        signal(K.CREDENTIAL_WRITTEN, 4, source="app", iccid=SIM, imei=PHONE),
        HERS,
        signal(K.NUMBER_CHANGED, 95, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=OTHER_SIM),
        reused,
        *bad,
    ]
    outcomes = world.record(*told)
    world.lines.map_subject("https://id.example", "alice", OTHER_NUMBER, OPERATOR)
    standing = [str(event) for iccid in (SIM, OTHER_SIM) for event in world.tsm.history(f"standing-{iccid}")]
    answered = [f"{outcome!r} {outcome.error} {outcome.error and vars(outcome.error)}" for outcome in outcomes]
    world.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    spoken = "\n".join([caplog.text, *answered, *standing])
    assert SIM.encode() in stored
    for value in PERSONAL:
        assert value.encode() not in stored
        assert value.removeprefix("+") not in spoken
    assert SIM not in spoken.replace(f"standing-{SIM}", "")


# What relying parties ask


def test_an_event_says_what_the_number_s_bindings_are_after_it(world):
    world.record(SUBSCRIBED)
    assert followed(world) == (at(0), at(0), True)
    world.record(MOVED)
    assert followed(world) == (at(0), at(3), True)
    world.record(signal(K.OBSERVED, 2, msisdn=NUMBER, imsi=OTHER_IMSI))  # late
    assert followed(world) == (at(2), at(3), True)
    world.record(signal(K.TERMINATED, 5, msisdn=NUMBER))
    assert followed(world) == (at(2), at(3), False)
    world.record(signal(K.SUBSCRIBED, 6, msisdn=NUMBER))
    assert followed(world) == (at(6), None, True)


BY_ANOTHER = "operator:MNO00002"
DATES = {
    "ported in": ([signal(K.PORTED_IN, 3, source=BY_ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM)], (3, 0, True)),
    "ported in, and the former operator says so late": (
        [
            signal(K.PORTED_IN, 3, source=BY_ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM),
            signal(K.PORTED_OUT, 4, msisdn=NUMBER),
        ],
        (3, 0, True),
    ),
    "another number, and back": (
        [
            signal(K.NUMBER_CHANGED, 3, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM, imei=PHONE),
            signal(K.NUMBER_CHANGED, 5, msisdn=NUMBER, previous=OTHER_NUMBER, iccid=SIM, imei=PHONE),
        ],
        (5, 5, True),
    ),
    "recycled": ([signal(K.TERMINATED, 3, msisdn=NUMBER), HERS], (90, 90, True)),
    "recycled, both told for one time": (
        [msgspec.structs.replace(signal(K.TERMINATED, 90, msisdn=NUMBER), id="z"), HERS],
        (90, 90, True),
    ),
    "another operator, to which the number never came, binds it and ends it": (
        [
            signal(K.OBSERVED, 3, source=BY_ANOTHER, msisdn=NUMBER, imsi=OTHER_IMSI, imei=OTHER_PHONE),
            signal(K.SIM_REPLACED, 4, source=BY_ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM, previous=THIRD_SIM),
            signal(K.DEVICE_CHANGED, 5, source=BY_ANOTHER, msisdn=NUMBER, imei=OTHER_PHONE),
            signal(K.NUMBER_CHANGED, 6, source=BY_ANOTHER, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=OTHER_SIM),
            signal(K.TERMINATED, 7, source=BY_ANOTHER, msisdn=NUMBER),
            signal(K.PORTED_OUT, 8, source=BY_ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM),
        ],
        (0, 0, True),
    ),
    "its card was renewed, as was told of the cards alone": (
        [signal(K.SIM_REPLACED, 3, iccid=OTHER_SIM, previous=SIM)],
        (3, 0, True),
    ),
    "the renewed card moved, and is seen with the number later": (
        [
            signal(K.SIM_REPLACED, 3, iccid=OTHER_SIM, previous=SIM),
            signal(K.DEVICE_CHANGED, 4, iccid=OTHER_SIM, imei=OTHER_PHONE),
            signal(K.OBSERVED, 9, msisdn=NUMBER, iccid=OTHER_SIM, imei=OTHER_PHONE),
        ],
        (3, 4, True),
    ),
    "its card moved, as was told of the card alone": (
        [signal(K.DEVICE_CHANGED, 3, iccid=SIM, imei=OTHER_PHONE)],
        (0, 3, True),
    ),
    "its card moved, nobody said into which phone": ([signal(K.DEVICE_CHANGED, 3, iccid=SIM)], (0, 3, True)),
    "the subscription of its card ended": ([signal(K.TERMINATED, 3, iccid=SIM)], (0, 0, False)),
    "a card that it has no more moved": (
        [
            signal(K.SIM_REPLACED, 3, msisdn=NUMBER, iccid=OTHER_SIM, previous=SIM),
            signal(K.DEVICE_CHANGED, 4, iccid=SIM, imei=OTHER_PHONE),
        ],
        (3, 0, True),
    ),
    "another operator tells of its card": (
        [signal(K.SIM_REPLACED, 3, source=BY_ANOTHER, iccid=OTHER_SIM, previous=SIM)],
        (0, 0, True),
    ),
    "two SIMs that take turns: each turn is a pairing that was not there before it": (
        [signal(K.OBSERVED, 3 + n, msisdn=NUMBER, imsi=imsi) for n, imsi in enumerate([OTHER_IMSI, IMSI, OTHER_IMSI])],
        (5, 0, True),
    ),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("case", DATES)
def test_a_number_s_latest_changes_are_these(world, case, late):
    told, (sim, device, in_service) = DATES[case]
    for one in [SUBSCRIBED, *told][:: -1 if late else 1]:
        world.record(one)
    assert followed(world) == (at(sim), at(device), in_service)


@pytest.mark.parametrize("id", ["a-file", "z-feed"])
def test_a_subscription_that_is_told_under_two_ids_is_one_holder_s(world, id):
    world.record(SUBSCRIBED, signal(K.OBSERVED, 5, msisdn=NUMBER, imei=PHONE))
    world.record(msgspec.structs.replace(SUBSCRIBED, id=id))
    told = facts(world, world.lines.stream_of_number(NUMBER))
    assert len({fact.subject for fact in told}) == 1
    assert [fact.begins_tenure for fact in told] == [True, False, False]
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert world.lines.history(iccid=SIM).signals == ()


@pytest.mark.parametrize("id", ["a-file", "z-feed"])
def test_the_former_holder_of_a_number_whose_beginning_was_told_twice_is_erased_alone(world, id):
    world.record(SUBSCRIBED, signal(K.TERMINATED, 3, msisdn=NUMBER), HERS, msgspec.structs.replace(HERS, id=id))
    world.now += timedelta(days=2)  # the former holder's card is revoked
    former = facts(world, world.lines.stream_of_number(NUMBER))[0].subject
    world.lines.erase(OPERATOR, msisdn=NUMBER, subject=former)
    assert {known.signal.id for known in world.lines.history(msisdn=NUMBER).signals} == {HERS.id, id}
    assert world.lines.stream_of_number(NUMBER) is not None


def test_of_two_holders_told_for_one_time_the_second_is_another(world):
    """Days are all that is told: the first subscription, its end, and the next one, whose card nobody named."""
    signals = [SUBSCRIBED, signal(K.TERMINATED, 0, msisdn=NUMBER), signal(K.SUBSCRIBED, 0, msisdn=NUMBER)]
    world.record(*signals)
    first, _, second = facts(world, world.lines.stream_of_number(NUMBER))
    assert first.subject != second.subject and second.begins_tenure


def test_a_change_of_number_is_told_to_both_lines(world):
    world.record(SUBSCRIBED)
    world.record(signal(K.NUMBER_CHANGED, 3, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM, imei=PHONE))
    assert followed(world) == (at(0), at(0), False)
    assert followed(world, OTHER_NUMBER) == (at(3), at(3), True)
    assert world.conditions() == []


def test_what_is_told_of_another_number_is_not_read_with_the_one_that_it_was_changed_from(world):
    """Another operator may say that a number changed into many of its own, and tell a thousand things of each."""
    world.record(SUBSCRIBED)
    there = signal(K.OBSERVED, 4, source=BY_ANOTHER, msisdn=OTHER_NUMBER, imei=OTHER_PHONE)
    away = signal(K.NUMBER_CHANGED, 3, source=BY_ANOTHER, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=OTHER_SIM)
    world.record(away, there)
    around = known_signals.gather(world.tsm, [SIM, OTHER_SIM])
    assert {known.signal.id for known in around[SIM]} == {SUBSCRIBED.id, away.id}
    assert there.id in {known.signal.id for known in around[OTHER_SIM]}


# Looking back


def test_a_history_is_found_by_number_card_and_device(world):
    world.record(SUBSCRIBED, MOVED, signal(K.OBSERVED, 4, msisdn=OTHER_NUMBER, iccid=OTHER_SIM, imei=PHONE))
    by_number, by_card = world.lines.history(msisdn=NUMBER), world.lines.history(iccid=SIM)
    assert [binding.imei for binding in by_number.bindings] == [PHONE, OTHER_PHONE]
    assert by_card == by_number
    by_device = world.lines.history(imei=PHONE)
    assert [(b.msisdn, b.iccid) for b in by_device.bindings] == [(NUMBER, SIM), (OTHER_NUMBER, OTHER_SIM)]
    assert len(by_device.subjects) == 2
    assert world.ids(by_device.bindings[0].evidence) == {SUBSCRIBED.id}


def test_what_a_card_told_without_a_number_is_in_its_history(world):
    world.record(signal(K.OBSERVED, 0, source="app", iccid=SIM, imei=PHONE))
    [binding] = world.lines.history(iccid=SIM).bindings
    assert (binding.msisdn, binding.imei) == ("", PHONE)


@pytest.mark.parametrize("asked", [{}, {"msisdn": NUMBER, "imei": PHONE}])
def test_a_history_is_of_one_thing(world, asked):
    with pytest.raises(TsmError) as refusal:
        world.lines.history(**asked)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


# Tokens' subjects


def test_a_token_s_subject_leads_to_the_line_until_its_number_is_somebody_else_s(world):
    world.record(SUBSCRIBED)
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(NUMBER)
    assert world.lines.stream_of_subject("https://id.example", "bob") is None
    world.record(HERS)
    assert world.lines.stream_of_subject("https://id.example", "alice") is None


def test_whose_line_a_subject_means_is_told_without_reading_it(world, monkeypatch):
    world.record(SUBSCRIBED, MOVED)
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    stream = world.lines.stream_of_number(NUMBER)
    for reads in ("histories", "history", "load"):
        monkeypatch.setattr(world.tsm, reads, crashes)
    assert world.lines.stream_of_subject("https://id.example", "alice") == stream


def test_a_late_signal_of_an_earlier_holder_takes_no_subject_away(world):
    world.record(HERS)
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    world.record(SUBSCRIBED, MOVED)
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(NUMBER)


def test_a_former_number_does_not_get_its_subject_back(world):
    world.record(SUBSCRIBED)
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    world.record(signal(K.NUMBER_CHANGED, 3, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM))
    world.lines.map_subject("https://id.example", "alice", OTHER_NUMBER, OPERATOR)
    world.record(signal(K.NUMBER_CHANGED, 5, msisdn=NUMBER, previous=OTHER_NUMBER, iccid=SIM))
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(OTHER_NUMBER)
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(NUMBER)


def test_a_subject_is_mapped_once(world):
    world.record(SUBSCRIBED)
    position = world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR) == position


def test_a_subject_that_is_mapped_to_another_number_means_that_one_only(world):
    world.record(SUBSCRIBED, signal(K.SUBSCRIBED, 0, msisdn=OTHER_NUMBER))
    for number in (NUMBER, OTHER_NUMBER, NUMBER, OTHER_NUMBER):
        world.lines.map_subject("https://id.example", "alice", number, OPERATOR)
        line = world.lines.stream_of_number(number)
        assert world.lines.stream_of_subject("https://id.example", "alice") == line
    world.record(signal(K.SUBSCRIBED, 9, msisdn=OTHER_NUMBER))
    assert world.lines.stream_of_subject("https://id.example", "alice") is None


OTHERS = {
    "nobody told that it began": [signal(K.OBSERVED, 0, msisdn=NUMBER)],
    "another operator did": [signal(K.SUBSCRIBED, 0, source=BY_ANOTHER, msisdn=NUMBER)],
    "it was ported to another": [SUBSCRIBED, signal(K.PORTED_IN, 3, source=BY_ANOTHER, msisdn=NUMBER)],
    "it ended": [SUBSCRIBED, signal(K.TERMINATED, 3, msisdn=NUMBER)],
}


@pytest.mark.parametrize("case", OTHERS)
def test_no_subject_is_mapped_to_a_number_of_which_the_operator_did_not_tell(world, case):
    for one in OTHERS[case]:
        world.record(one)
    with pytest.raises(TsmError) as refusal:
        world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.FORBIDDEN, ("msisdn",))


def test_a_subject_of_a_number_that_was_ported_away_is_still_its_mappers_to_map(world):
    other = msgspec.structs.replace(OPERATOR, tenant="MNO00002")
    world.record(SUBSCRIBED, signal(K.SUBSCRIBED, 0, msisdn=OTHER_NUMBER))
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    world.record(signal(K.PORTED_IN, 3, source=BY_ANOTHER, msisdn=NUMBER))
    world.record(signal(K.SUBSCRIBED, 3, source=BY_ANOTHER, msisdn=THIRD_NUMBER))
    with pytest.raises(TsmError) as refusal:
        world.lines.map_subject("https://id.example", "alice", THIRD_NUMBER, other)
    assert refusal.value.code is ErrorCode.ALREADY_EXISTS
    world.lines.map_subject("https://id.example", "alice", OTHER_NUMBER, OPERATOR)
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(OTHER_NUMBER)


def test_a_number_whose_present_holder_is_erased_is_nobodys_whoever_had_it_before(world):
    world.record(SUBSCRIBED, HERS)
    world.now += timedelta(days=2)  # the former holder's card is revoked
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert world.lines.stream_of_number(NUMBER) is None
    with pytest.raises(TsmError) as refusal:
        world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert refusal.value.code is ErrorCode.NOT_FOUND


def test_a_subject_follows_its_holder_to_another_number(world):
    world.record(SUBSCRIBED)
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    world.record(signal(K.NUMBER_CHANGED, 3, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM))
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(NUMBER)
    world.lines.map_subject("https://id.example", "alice", OTHER_NUMBER, OPERATOR)
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(OTHER_NUMBER)


def test_no_subject_is_mapped_to_a_number_that_is_not_known(world):
    with pytest.raises(TsmError) as refusal:
        world.lines.map_subject("https://id.example", "alice", NUMBER, SYSTEM)
    assert refusal.value.code is ErrorCode.NOT_FOUND


# Tenures and erasure


def test_a_recycled_number_s_holders_share_no_data_key(world):
    world.record(SUBSCRIBED, MOVED, HERS, signal(K.OBSERVED, 91, msisdn=NUMBER), signal(K.OBSERVED, 4, msisdn=NUMBER))
    subjects = [fact.subject for fact in facts(world, world.lines.stream_of_number(NUMBER))]
    first, second = subjects[0], subjects[2]
    assert subjects == [first, first, second, second, first]
    assert first != second


def test_an_erased_line_is_found_by_nothing(world):
    world.record(SUBSCRIBED, signal(K.OBSERVED, 1, **BOUND))
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    stream = world.lines.stream_of_number(NUMBER)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert world.lines.stream_of_number(NUMBER) is None
    assert world.lines.stream_of_subject("https://id.example", "alice") is None
    for asked in ({"msisdn": NUMBER}, {"iccid": SIM}, {"imei": PHONE}):
        assert world.lines.history(**asked) == ((), (), ())
    recorded = [fact for fact in facts(world, stream) if isinstance(fact, SignalRecorded)]
    assert {fact.msisdn for fact in recorded} == {"[erased]"}
    assert world.recorder.indexed(world.vault.blind_index("line.signal", f"{SOURCE}|{SUBSCRIBED.id}")) == []


def test_what_is_told_of_an_erased_number_begins_a_new_line(world):
    world.record(SUBSCRIBED)
    before = world.lines.stream_of_number(NUMBER)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.record(signal(K.OBSERVED, 5, **BOUND))
    assert world.lines.stream_of_number(NUMBER) not in (None, before)
    assert [binding.since for binding in world.lines.history(msisdn=NUMBER).bindings] == [at(5)]


@pytest.mark.parametrize("former", [True, False])
def test_of_two_holders_one_is_erased_and_the_other_found(world, former):
    world.record(SUBSCRIBED, HERS)
    subjects = [fact.subject for fact in facts(world, world.lines.stream_of_number(NUMBER))]
    world.now += timedelta(days=2)  # the former holder's card is revoked
    world.lines.erase(OPERATOR, msisdn=NUMBER, subject=subjects[0 if former else 1])
    gone, left = (SIM, OTHER_SIM) if former else (OTHER_SIM, SIM)
    assert [binding.iccid for binding in world.lines.history(msisdn=NUMBER).bindings] == [left]
    assert world.lines.history(iccid=left).subjects == (subjects[1 if former else 0],)
    assert world.lines.history(iccid=gone) == ((), (), ())
    assert world.record(signal(K.OBSERVED, 91, msisdn=NUMBER))[0].error is None


def test_what_came_before_the_beginning_of_its_tenure_was_told_is_erased_with_it(world):
    early = signal(K.OBSERVED, 95, msisdn=NUMBER, imei=OTHER_PHONE)
    world.record(early)
    world.record(HERS)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    for asked in ({"msisdn": NUMBER}, {"iccid": OTHER_SIM}, {"imei": OTHER_PHONE}):
        assert world.lines.history(**asked) == ((), (), ())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals(), st.tuples(SIZES, SIZES))
def test_an_erased_tenure_leaves_the_same_standings_whatever_came_first(vault, told_twice, sizes):
    """Or it is refused for the same cards; a revocation that is due stays."""
    views = []
    for told, some in zip(told_twice, sizes, strict=True):
        world = LineWorld(vault, MemoryRecorder)
        world.register(*SIMS)
        in_batches(world, told, some)
        due = {iccid for iccid in SIMS if world.standing(iccid).level is Level.REVOKE}
        world.now += timedelta(days=2)
        try:
            world.lines.erase(OPERATOR, msisdn=NUMBER)
            refusal = None
        except TsmError as error:
            refusal = error.code
        world.standings.reassess_all(SIMS, SYSTEM)
        assert all(world.standing(iccid).level is Level.REVOKE for iccid in due)
        views.append((refusal, [known.signal for known in world.lines.history(imei=PHONE).signals if refusal]))
        world.close()
    assert views[0] == views[1]


def test_what_is_told_after_the_present_holder_is_erased_is_mapped_and_erased_as_well(world):
    world.record(SUBSCRIBED, HERS)
    world.now += timedelta(days=2)  # the former holder's card is revoked
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    with pytest.raises(TsmError) as refusal:
        world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert refusal.value.code is ErrorCode.NOT_FOUND
    world.record(signal(K.OBSERVED, 95, msisdn=NUMBER, imei=OTHER_PHONE))
    world.lines.map_subject("https://id.example", "alice", NUMBER, OPERATOR)
    assert world.lines.stream_of_subject("https://id.example", "alice") == world.lines.stream_of_number(NUMBER)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert world.lines.stream_of_subject("https://id.example", "alice") is None
    assert world.lines.history(imei=OTHER_PHONE) == ((), (), ())


def test_a_number_with_two_streams_is_erased_from_both(world):
    rival, rivals = world.another(), itertools.chain([signal(K.OBSERVED, 1, **BOUND)])

    def random(size):
        for one in rivals:
            rival.record([one], SYSTEM)
        return urandom(size)

    world.another(random).record([SUBSCRIBED], SYSTEM)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    for asked in ({"msisdn": NUMBER}, {"iccid": SIM}, {"imei": PHONE}):
        assert world.lines.history(**asked) == ((), (), ())


def test_a_revocation_that_is_due_outlives_its_evidence(world):
    world.record(SUBSCRIBED, HERS)
    world.now += timedelta(days=2)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.standings.reassess(SIM, SYSTEM)
    assert (world.standing().level, world.conditions()) == (Level.REVOKE, ["TERMINATED"])


def test_what_a_card_told_is_erased_by_its_card(world):
    world.record(signal(K.OBSERVED, 0, source="app", iccid=SIM, imei=PHONE))
    world.lines.erase(OPERATOR, iccid=SIM)
    assert world.lines.history(imei=PHONE) == ((), (), ())


def test_the_evidence_of_a_hold_is_not_erased(world):
    world.record(SUBSCRIBED, MOVED)
    with pytest.raises(TsmError) as refusal:
        world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert refusal.value.code is ErrorCode.WRONG_ORDER


def test_nor_is_what_explains_a_loss_until_the_loss_itself_is_forgotten(world):
    world.record(SUBSCRIBED, signal(K.LOST, 3, msisdn=NUMBER), signal(K.RECOVERED, 4, iccid=SIM))
    assert not world.standing().on_hold
    with pytest.raises(TsmError) as refusal:
        world.lines.erase(OPERATOR, iccid=SIM)
    assert refusal.value.code is ErrorCode.WRONG_ORDER
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.lines.erase(OPERATOR, iccid=SIM)
    world.standings.reassess(SIM, SYSTEM)
    assert world.standing().level is Level.NONE


BY_CARD = signal(K.DEVICE_CHANGED, 3.5, iccid=SIM, imei=OTHER_PHONE)
IN_APP = signal(K.OBSERVED, 4, source="app", iccid=SIM, imei=OTHER_PHONE)


@pytest.mark.parametrize("told", [[BY_CARD], [signal(K.OBSERVED, 3, **BOUND | {"imei": OTHER_PHONE}), IN_APP]])
@pytest.mark.parametrize("settle", ["release", "false alarm"])
def test_what_was_settled_stands_in_no_erasure_s_way(world, told, settle):
    world.record(SUBSCRIBED, *told)
    if settle == "release":
        world.standings.release(SIM, Proof.OPERATOR, "", SYSTEM)
    for suspicion in world.standing().open:
        world.standings.close(SIM, suspicion.id, Verdict.FALSE_ALARM, SYSTEM)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.standings.reassess(SIM, SYSTEM)
    assert world.standing().level is Level.NONE


def test_the_phone_of_a_tenure_s_beginning_explains_as_well(world):
    world.record(SUBSCRIBED, signal(K.DEVICE_CHANGED, 3, iccid=SIM, imei=PHONE))
    with pytest.raises(TsmError) as refusal:
        world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert (refusal.value.code, world.standing().level) == (ErrorCode.WRONG_ORDER, Level.NONE)
    world.lines.erase(OPERATOR, iccid=SIM)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.standings.reassess(SIM, SYSTEM)
    assert world.standing().level is Level.NONE


def test_a_hold_whose_evidence_is_erased_at_the_very_moment_stays(world, monkeypatch):
    """Whoever sent the signal was told that the card is on hold."""
    world.record(SUBSCRIBED)
    destroy = world.vault.destroy_subject

    def overtaken(subject):
        monkeypatch.setattr(world.vault, "destroy_subject", destroy)
        world.record(MOVED)
        return destroy(subject)

    monkeypatch.setattr(world.vault, "destroy_subject", overtaken)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.record(signal(K.OBSERVED, 6, iccid=SIM, imei=PHONE))
    assert world.standing().level is Level.HOLD
    world.standings.release(SIM, Proof.OPERATOR, "", SYSTEM)
    assert world.standing().level is Level.NONE


def test_an_erasure_that_was_cut_off_is_completed_when_it_is_ordered_again(world, monkeypatch):
    world.record(SUBSCRIBED)
    with monkeypatch.context() as crash:
        crash.setattr(world.tsm, "commit", crashes)
        with pytest.raises(Crash):
            world.lines.erase(OPERATOR, msisdn=NUMBER)
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert world.lines.stream_of_number(NUMBER) is None


def test_an_erasure_that_was_cut_off_holds_up_nobody_until_then(world, monkeypatch):
    """The key is gone, and the log does not say so: also when a log is put back that is older than the erasure."""
    world.record(SUBSCRIBED, signal(K.SUBSCRIBED, 0, msisdn=OTHER_NUMBER, iccid=OTHER_SIM))
    with monkeypatch.context() as crash:
        crash.setattr(world.tsm, "commit", crashes)
        with pytest.raises(Crash):
            world.lines.erase(OPERATOR, msisdn=NUMBER)
    lost = [signal(K.LOST, 5, msisdn=OTHER_NUMBER), signal(K.LOST, 6, msisdn=NUMBER)]
    assert [outcome.error for outcome in world.record(*lost)] == [None, None]
    assert world.standing(OTHER_SIM).level is Level.LOCK
    world.lines.erase(OPERATOR, msisdn=NUMBER)
    assert world.lines.stream_of_number(NUMBER) is None
    assert world.lines.history(msisdn=NUMBER).signals == ()


def test_a_tenure_that_there_is_not_is_not_erased_though_another_waits_for_its_end(world, monkeypatch):
    world.record(SUBSCRIBED)
    with monkeypatch.context() as crash:
        crash.setattr(world.tsm, "commit", crashes)
        with pytest.raises(Crash):
            world.lines.erase(OPERATOR, msisdn=NUMBER)
    with pytest.raises(TsmError) as refusal:
        world.lines.erase(OPERATOR, msisdn=NUMBER, subject="tenure-unknown")
    assert refusal.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("subject", ["", "tenure-unknown"])
def test_what_is_not_known_is_not_erased(world, subject):
    with pytest.raises(TsmError) as refusal:
        world.lines.erase(OPERATOR, msisdn=NUMBER, subject=subject)
    assert refusal.value.code is ErrorCode.NOT_FOUND


# The order in which things came


def in_batches(world, told, sizes):
    rest = list(told)
    for size in itertools.cycle(sizes):
        if not rest:
            return
        batch, rest = rest[:size], rest[size:]
        for outcome in world.record(*batch):
            assert outcome.error is None


def seen(world):
    """Everything that must not depend on how signals came."""
    standings = {
        iccid: (
            world.standing(iccid).level,
            world.standing(iccid).on_hold,
            [
                (s.id, s.raised.rule, s.level, s.raised.since, s.raised.until, world.ids(s.raised.evidence))
                for s in world.standing(iccid).open
            ],
        )
        for iccid in SIMS
    }
    bindings = [
        (b.msisdn, b.imsi, b.iccid, b.imei, b.since, b.until, world.ids(b.evidence))
        for number in NUMBERS
        for b in world.lines.history(msisdn=number).bindings
    ]
    return standings, bindings, [followed(world, n) for n in NUMBERS if world.lines.stream_of_number(n)]


def compare(worlds, told_twice, sizes_twice):
    views = []
    for world, told, sizes in zip(worlds, told_twice, sizes_twice, strict=True):
        world.register(*SIMS)
        in_batches(world, told, sizes)
        views.append(seen(world))
        world.close()
    assert views[0] == views[1]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals(), st.tuples(SIZES, SIZES))
def test_neither_order_nor_repetition_nor_batches_change_lines_and_standings(vault, told_twice, sizes):
    compare([LineWorld(vault, MemoryRecorder) for _ in range(2)], told_twice, sizes)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals(), st.tuples(SIZES, SIZES))
def test_nor_do_they_in_a_store_on_disk(vault, tmp_path_factory, told_twice, sizes):
    folder = tmp_path_factory.mktemp("stores")
    compare([LineWorld(vault, folder / f"{name}.sqlite") for name in "ab"], told_twice, sizes)


def test_a_postgresql_store_serves_as_well(vault, postgres_store):
    world = LineWorld(vault, lambda vault, clock: open_recorder(postgres_store.runtime_dsn, vault, clock))
    world.register()
    world.record(SUBSCRIBED, MOVED)
    assert world.standing().on_hold
    assert [binding.imei for binding in world.lines.history(iccid=SIM).bindings] == [PHONE, OTHER_PHONE]
    assert followed(world) == (at(0), at(3), True)
    world.close()


def test_interim_decisions_stay_in_the_log(world):
    """A change of phones that was announced: the announcement came late, and the hold until then is on record."""
    announced = signal(K.MODEL_CHANGE_ANNOUNCED, 2, msisdn=NUMBER, until=at(10))
    world.record(SUBSCRIBED, MOVED)
    world.now += timedelta(hours=1)
    world.record(announced)
    assert (world.standing().level, world.conditions()) == (Level.NONE, [])
    topics = [fact.topic for fact in facts(world, f"standing-{SIM}")]
    assert topics == [
        "standing.suspicion_raised", "standing.level_changed", "standing.suspicion_withdrawn", "standing.level_changed",
    ]  # fmt: skip


def test_a_batch_is_one_commit_and_a_signal_one_event(world):
    told = [signal(K.OBSERVED, 0, msisdn=NUMBERS[n % 2]) for n in range(20)]
    positions = [outcome.position for outcome in world.record(*told)]
    assert positions == list(range(positions[0], positions[0] + 20))
    assert [world.ids((position,)) for position in positions] == [{one.id} for one in told]


def test_an_empty_batch_is_nothing(world):
    assert world.record() == []
