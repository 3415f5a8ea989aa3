"""Bindings over occurred time: lives of numbers, and that the order in which they are told does not matter."""

from itertools import pairwise

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from line_samples import (
    IMSI,
    NUMBER,
    NUMBERS,
    OTHER_IMSI,
    OTHER_NUMBER,
    OTHER_PHONE,
    OTHER_SIM,
    PHONE,
    SIM,
    SIMS,
    arrivals,
    at,
    known,
    names,
    signal,
)

from tsm.model.bindings import about_cards, bindings_of_number, changes_of_number, devices_of_card, ordered
from tsm.model.line import Signal, SignalKind

K = SignalKind
BOUND = {"msisdn": NUMBER, "imsi": IMSI, "iccid": SIM, "imei": PHONE}
SUBSCRIBED = signal(K.SUBSCRIBED, 0, **BOUND)
OBSERVED = signal(K.OBSERVED, 0, **BOUND)


def told(*life: Signal) -> list[tuple[str, str, str, float, float | None]]:
    """IMSI, ICCID, IMEI, from and until which hour, for each binding of the number."""
    return [
        (b.imsi, b.iccid, b.imei, hour(b.since), None if b.until is None else hour(b.until))
        for b in bindings_of_number(NUMBER, known(life))
    ]


def hour(time: object) -> float:
    return (time - at(0)).total_seconds() / 3600  # type: ignore[operator,no-any-return]


LIVES = {
    "seen for the first time": ([OBSERVED], [(IMSI, SIM, PHONE, 0, None)]),
    "seen again": ([OBSERVED, signal(K.OBSERVED, 2, **BOUND)], [(IMSI, SIM, PHONE, 0, None)]),
    "seen in part: what was not told stays": (
        [OBSERVED, signal(K.OBSERVED, 2, msisdn=NUMBER, imei=OTHER_PHONE)],
        [(IMSI, SIM, PHONE, 0, 2), (IMSI, SIM, OTHER_PHONE, 2, None)],
    ),
    "on another card: its IMSI is not known": (
        [OBSERVED, signal(K.OBSERVED, 2, msisdn=NUMBER, iccid=OTHER_SIM)],
        [(IMSI, SIM, PHONE, 0, 2), ("", OTHER_SIM, PHONE, 2, None)],
    ),
    "with another IMSI: its card is not known": (
        [OBSERVED, signal(K.OBSERVED, 2, msisdn=NUMBER, imsi=OTHER_IMSI)],
        [(IMSI, SIM, PHONE, 0, 2), (OTHER_IMSI, "", PHONE, 2, None)],
    ),
    "with another IMSI whose card is told later": (
        [
            OBSERVED,
            signal(K.OBSERVED, 2, msisdn=NUMBER, imsi=OTHER_IMSI),
            signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM),
        ],
        [(IMSI, SIM, PHONE, 0, 2), (OTHER_IMSI, OTHER_SIM, PHONE, 2, None)],
    ),
    "with its IMSI, which went over to the new card": (
        [
            OBSERVED,
            signal(K.SIM_REPLACED, 2, msisdn=NUMBER, iccid=OTHER_SIM, previous=SIM),
            signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=IMSI),
        ],
        [(IMSI, SIM, PHONE, 0, 2), ("", OTHER_SIM, PHONE, 2, 3), (IMSI, OTHER_SIM, PHONE, 3, None)],
    ),
    "with its IMSI, which went over to the new card, as was told of the cards alone": (
        [
            OBSERVED,
            signal(K.SIM_REPLACED, 2, iccid=OTHER_SIM, previous=SIM),
            signal(K.OBSERVED, 3, msisdn=NUMBER, iccid=OTHER_SIM),
            signal(K.OBSERVED, 4, msisdn=NUMBER, imsi=IMSI),
        ],
        [(IMSI, SIM, PHONE, 0, 3), ("", OTHER_SIM, PHONE, 3, 4), (IMSI, OTHER_SIM, PHONE, 4, None)],
    ),
    "with the IMSI of the card in which it was before: it is back": (
        [
            OBSERVED,
            signal(K.OBSERVED, 2, msisdn=NUMBER, iccid=OTHER_SIM),
            signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=IMSI),
        ],
        [(IMSI, SIM, PHONE, 0, 2), ("", OTHER_SIM, PHONE, 2, 3), (IMSI, SIM, PHONE, 3, None)],
    ),
    "recycled with its IMSI": (
        [
            OBSERVED,
            signal(K.SUBSCRIBED, 2, msisdn=NUMBER, iccid=OTHER_SIM),
            signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=IMSI),
        ],
        [(IMSI, SIM, PHONE, 0, 2), ("", OTHER_SIM, "", 2, 3), (IMSI, OTHER_SIM, "", 3, None)],
    ),
    "begun, told twice, once without its card": (
        [
            SUBSCRIBED,
            msgspec.structs.replace(SUBSCRIBED, id="z", iccid=""),
            signal(K.OBSERVED, 2, msisdn=NUMBER, imsi=IMSI),
        ],
        [(IMSI, SIM, PHONE, 0, 0), (IMSI, SIM, PHONE, 0, None)],
    ),
    "a new subscription inherits nothing": (
        [OBSERVED, signal(K.SUBSCRIBED, 2, msisdn=NUMBER)],
        [(IMSI, SIM, PHONE, 0, 2), ("", "", "", 2, None)],
    ),
    "a port-in brings another SIM, and the same phone": (
        [OBSERVED, signal(K.PORTED_IN, 2, msisdn=NUMBER, iccid=OTHER_SIM, imsi=OTHER_IMSI)],
        [(IMSI, SIM, PHONE, 0, 2), (OTHER_IMSI, OTHER_SIM, PHONE, 2, None)],
    ),
    "terminated": ([OBSERVED, signal(K.TERMINATED, 2, msisdn=NUMBER)], [(IMSI, SIM, PHONE, 0, 2)]),
    "seen after its end": (
        [OBSERVED, signal(K.TERMINATED, 2, msisdn=NUMBER), signal(K.OBSERVED, 3, **BOUND)],
        [(IMSI, SIM, PHONE, 0, 2)],
    ),
    "the end of a card that it has no more": (
        [
            OBSERVED,
            signal(K.SIM_REPLACED, 2, msisdn=NUMBER, iccid=OTHER_SIM, imsi=OTHER_IMSI, previous=SIM),
            signal(K.TERMINATED, 3, msisdn=NUMBER, iccid=SIM),
        ],
        [(IMSI, SIM, PHONE, 0, 2), (OTHER_IMSI, OTHER_SIM, PHONE, 2, None)],
    ),
    "the operator that it left says so late": (
        [
            SUBSCRIBED,
            signal(K.PORTED_IN, 2, source="operator:MNO00002", msisdn=NUMBER, iccid=OTHER_SIM, imsi=OTHER_IMSI),
            signal(K.PORTED_OUT, 3, msisdn=NUMBER),
        ],
        [(IMSI, SIM, PHONE, 0, 2), (OTHER_IMSI, OTHER_SIM, PHONE, 2, None)],
    ),
    "changed into another number": (
        [OBSERVED, signal(K.NUMBER_CHANGED, 2, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM)],
        [(IMSI, SIM, PHONE, 0, 2)],
    ),
    "changed from another number": (
        [OBSERVED, signal(K.NUMBER_CHANGED, 2, msisdn=NUMBER, previous=OTHER_NUMBER, iccid=OTHER_SIM)],
        [(IMSI, SIM, PHONE, 0, 2), ("", OTHER_SIM, "", 2, None)],
    ),
    "a signal that binds nothing": ([OBSERVED, signal(K.LOST, 2, **BOUND)], [(IMSI, SIM, PHONE, 0, None)]),
}


@pytest.mark.parametrize("life", LIVES)
def test_a_number_is_bound_to_what_was_told(life: str) -> None:
    signals, expected = LIVES[life]
    assert told(*signals) == expected
    assert told(*reversed(signals)) == expected


CHANGES = {
    "only seen": ([OBSERVED], (None, 0, True)),
    "a new subscription": ([SUBSCRIBED], (0, 0, True)),
    "never seen in a device": ([signal(K.SUBSCRIBED, 1, msisdn=NUMBER, iccid=SIM)], (1, None, True)),
    "another IMSI": ([SUBSCRIBED, signal(K.OBSERVED, 2, msisdn=NUMBER, imsi=OTHER_IMSI)], (2, 0, True)),
    "another card": ([SUBSCRIBED, signal(K.OBSERVED, 2, msisdn=NUMBER, iccid=OTHER_SIM)], (2, 0, True)),
    "the card that took its place, said twice": (
        [
            SUBSCRIBED,
            signal(K.OBSERVED, 2, msisdn=NUMBER, iccid=OTHER_SIM),
            signal(K.SIM_REPLACED, 3, msisdn=NUMBER, iccid=OTHER_SIM, previous=SIM),
        ],
        (2, 0, True),
    ),
    "another device": ([SUBSCRIBED, signal(K.OBSERVED, 2, msisdn=NUMBER, imei=OTHER_PHONE)], (0, 2, True)),
    "another device, which nobody named": ([SUBSCRIBED, signal(K.DEVICE_CHANGED, 2, msisdn=NUMBER)], (0, 2, True)),
    "a port-in": ([SUBSCRIBED, signal(K.PORTED_IN, 2, msisdn=NUMBER, iccid=OTHER_SIM)], (2, 0, True)),
    "a port-out": ([SUBSCRIBED, signal(K.PORTED_OUT, 2, msisdn=NUMBER)], (0, 0, False)),
    "ported out and in again": (
        [SUBSCRIBED, signal(K.PORTED_OUT, 2, msisdn=NUMBER), signal(K.PORTED_IN, 3, msisdn=NUMBER)],
        (3, 0, True),
    ),
    "its number changed": (
        [SUBSCRIBED, signal(K.NUMBER_CHANGED, 2, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM)],
        (0, 0, False),
    ),
    "a number that came by a change": (
        [signal(K.NUMBER_CHANGED, 2, msisdn=NUMBER, previous=OTHER_NUMBER, iccid=SIM, imei=PHONE)],
        (2, 2, True),
    ),
    "a recycled number": ([SUBSCRIBED, signal(K.SUBSCRIBED, 2, msisdn=NUMBER, iccid=OTHER_SIM)], (2, None, True)),
    "suspended": ([SUBSCRIBED, signal(K.SUSPENDED, 2, msisdn=NUMBER)], (0, 0, True)),
    "ended before anything else was heard": ([signal(K.TERMINATED, 2, msisdn=NUMBER)], (None, None, False)),
}


@pytest.mark.parametrize("life", CHANGES)
def test_what_relying_parties_ask_follows_from_the_bindings(life: str) -> None:
    signals, (sim, device, in_service) = CHANGES[life]
    changes = changes_of_number(NUMBER, known(signals))
    hours = [None if time is None else hour(time) for time in changes[:2]]
    assert (*hours, changes.in_service) == (sim, device, in_service)


def test_evidence_is_what_told_of_the_binding() -> None:
    life = known([OBSERVED, signal(K.OBSERVED, 1, **BOUND), signal(K.OBSERVED, 2, msisdn=NUMBER, imei=OTHER_PHONE)])
    assert [binding.evidence for binding in bindings_of_number(NUMBER, life)] == [(1, 2), (3,)]


def test_a_card_is_in_the_device_of_its_number_and_where_it_was_seen_itself() -> None:
    life = known(
        [
            OBSERVED,
            signal(K.OBSERVED, 1, msisdn=NUMBER, imei=OTHER_PHONE),
            signal(K.OBSERVED, 2, source="app", iccid=SIM, imei=PHONE),
        ]
    )
    assert [(b.imei, b.evidence) for b in devices_of_card(SIM, life)] == [
        (PHONE, (1,)),
        (OTHER_PHONE, (2,)),
        (PHONE, (3,)),
    ]


@pytest.mark.parametrize(
    ("life", "card"),
    [
        ([OBSERVED, signal(K.LOST, 1, msisdn=NUMBER)], SIM),
        ([signal(K.LOST, -1, msisdn=NUMBER), OBSERVED], SIM),  # before anybody named the card
        ([signal(K.LOST, -1, msisdn=NUMBER), SUBSCRIBED], ""),  # another holder's
        ([signal(K.LOST, -1, msisdn=NUMBER), signal(K.SIM_REPLACED, 0, **BOUND, previous=OTHER_SIM)], OTHER_SIM),
        ([OBSERVED, signal(K.TERMINATED, 1, msisdn=NUMBER), signal(K.LOST, 2, msisdn=NUMBER)], ""),
        ([OBSERVED, signal(K.LOST, 1, msisdn=NUMBER, iccid=OTHER_SIM)], OTHER_SIM),
    ],
)
def test_a_signal_that_names_no_card_is_about_the_number_s_card_at_that_time(life: list[Signal], card: str) -> None:
    assert [c for one, c in about_cards(ordered(known(life))) if one.signal.kind is K.LOST] == [card]


@given(arrivals(), st.sampled_from(NUMBERS), st.sampled_from(SIMS))
def test_the_order_and_repetition_of_what_is_told_change_no_binding(
    told_twice: tuple[list[Signal], list[Signal]], number: str, sim: str
) -> None:
    views = []
    for arrived in map(known, told_twice):
        bindings = [*bindings_of_number(number, arrived), *devices_of_card(sim, arrived)]
        views.append(
            (
                [(b.imsi, b.iccid, b.imei, b.since, b.until, names(b.evidence, arrived)) for b in bindings],
                changes_of_number(number, arrived),
            )
        )
    assert views[0] == views[1]


@given(arrivals(), st.sampled_from(NUMBERS))
def test_bindings_of_a_number_follow_one_another(told_twice: tuple[list[Signal], list[Signal]], number: str) -> None:
    bindings = bindings_of_number(number, known(told_twice[0]))
    for before, after in pairwise(bindings):
        assert before.until is not None
        assert before.since <= before.until <= after.since


def test_source_and_id_name_a_signal() -> None:
    twice = known([OBSERVED, OBSERVED])
    assert ordered(twice) == [twice[0]]
    assert ordered([*twice, *known([msgspec.structs.replace(OBSERVED, source="app")])])[0].signal.source == "app"
