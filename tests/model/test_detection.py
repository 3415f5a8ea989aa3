"""Every condition of the policy: what meets it, what does not, and that only the set of signals counts."""

from datetime import timedelta

import pytest
from hypothesis import given
from line_samples import (
    IMSI,
    NOON,
    NUMBER,
    OTHER_IMSI,
    OTHER_NUMBER,
    OTHER_PHONE,
    OTHER_SIM,
    PHONE,
    SIM,
    SIMS,
    THIRD_PHONE,
    arrivals,
    at,
    known,
    names,
    signal,
)
from msgspec import structs

from tsm.model.bindings import Known
from tsm.model.detection import CONDITIONS, assess
from tsm.model.line import Signal, SignalKind
from tsm.model.swap_policy import DEFAULT, Condition, Level, Policy, Rule

K, C = SignalKind, Condition
OPERATOR, ANOTHER = "MNO00001", "operator:MNO00002"
BOUND = {"msisdn": NUMBER, "imsi": IMSI, "iccid": SIM, "imei": PHONE}
SUBSCRIBED = signal(K.SUBSCRIBED, 0, **BOUND)
WRITTEN = signal(K.CREDENTIAL_WRITTEN, 1, source="card", iccid=SIM, imei=PHONE)
EVERY_DAY = [SUBSCRIBED, WRITTEN, signal(K.OBSERVED, 2, **BOUND)]


def moved(hours: float, imei: str = OTHER_PHONE) -> Signal:
    return signal(K.OBSERVED, hours, msisdn=NUMBER, imsi=IMSI, iccid=SIM, imei=imei)


def announced(hours: float, until: float, imei: str = "") -> Signal:
    return signal(K.MODEL_CHANGE_ANNOUNCED, hours, msisdn=NUMBER, until=at(until), imei=imei)


def weak(hours: float, indication: str = "call-forwarding") -> Signal:
    return signal(K.INDICATION, hours, msisdn=NUMBER, indication=indication)


def found(signals: list[Signal], iccid: str = SIM) -> list[tuple[Condition, float]]:
    """Conditions, and the hour since when."""
    findings = assess(iccid, known(signals), DEFAULT, OPERATOR)
    return sorted((f.condition, (f.since - NOON) / timedelta(hours=1)) for f in findings)


def in_app(hours: float, imei: str) -> Signal:
    return signal(K.OBSERVED, hours, source="app", iccid=SIM, imei=imei)


def told_as(one: Signal, id: str) -> Signal:
    return structs.replace(one, id=id)


def used(hours: float, imei: str) -> Signal:
    return signal(K.CREDENTIAL_USED, hours, source="app", iccid=SIM, imei=imei)


CASES: dict[str, tuple[list[Signal], list[tuple[Condition, float]]]] = {
    "nothing happens": ([], []),
    # Another device
    "the card is in another device": ([moved(3)], [(C.DEVICE_CHANGED, 3)]),
    "seen there twice": ([moved(3), moved(4)], [(C.DEVICE_CHANGED, 3)]),
    "seen there by its number only": (
        [signal(K.OBSERVED, 3, msisdn=NUMBER, imei=OTHER_PHONE)],
        [(C.DEVICE_CHANGED, 3)],
    ),
    "the operator says so, not which device": ([signal(K.DEVICE_CHANGED, 3, iccid=SIM)], [(C.DEVICE_CHANGED, 3)]),
    "and then somebody tells which": (
        [signal(K.DEVICE_CHANGED, 3, iccid=SIM), moved(4)],
        [(C.DEVICE_CHANGED, 3)],
    ),
    "announced": ([announced(2, 10), moved(3), moved(30)], []),
    "announced for this device": ([announced(2, 10, OTHER_PHONE), moved(3)], []),
    "announced for another device": ([announced(2, 10, THIRD_PHONE), moved(3)], [(C.DEVICE_CHANGED, 3)]),
    "announced for later": ([announced(4, 10), moved(3)], [(C.DEVICE_CHANGED, 3)]),
    "announced, but too long ago": ([announced(2, 3), moved(4)], [(C.DEVICE_CHANGED, 4)]),
    "used after an announced change": (
        [announced(2, 10), moved(3), signal(K.CREDENTIAL_USED, 40, source="app", iccid=SIM, imei=OTHER_PHONE)],
        [],
    ),
    "it moved once more, and nobody ever tells where": (
        [signal(K.DEVICE_CHANGED, h, iccid=SIM) for h in (3, 100, 200)],
        [(C.DEVICE_CHANGED, 3), (C.DEVICE_CHANGED, 100), (C.DEVICE_CHANGED, 200)],
    ),
    "an announced move, then another of which nobody tells where": (
        [announced(2, 10), *(signal(K.DEVICE_CHANGED, h, iccid=SIM) for h in (3, 100))],
        [(C.DEVICE_CHANGED, 100)],
    ),
    "it moved, nobody told where, and then it moved into a device that is named": (
        [announced(2, 10), *(signal(K.DEVICE_CHANGED, h, iccid=SIM, imei=p) for h, p in ((3, ""), (100, OTHER_PHONE)))],
        [(C.DEVICE_CHANGED, 100)],
    ),
    "the phone says that it moved as announced, the operator says that it moves into that phone now": (
        [announced(2, 10), in_app(3, OTHER_PHONE), signal(K.DEVICE_CHANGED, 100, iccid=SIM, imei=OTHER_PHONE)],
        [(C.DEVICE_CHANGED, 100)],
    ),
    "the operator has seen it there before it says so": (
        [announced(2, 10), moved(3), signal(K.DEVICE_CHANGED, 100, iccid=SIM, imei=OTHER_PHONE)],
        [],
    ),
    "used after an announced change, into which device only the phone told": (
        [announced(2, 10), signal(K.DEVICE_CHANGED, 3, iccid=SIM), in_app(40, OTHER_PHONE), used(40, OTHER_PHONE)],
        [],
    ),
    "it moved, and only the phone tells whereto when it is used there": (
        [signal(K.DEVICE_CHANGED, 3, iccid=SIM), used(450, OTHER_PHONE), in_app(450, OTHER_PHONE)],
        [(C.DEVICE_CHANGED, 3), (C.FOREIGN_DEVICE, 450)],
    ),
    "it moved, the phone tells whereto, and then it moves there as the operator says": (
        [
            *(signal(K.DEVICE_CHANGED, h, iccid=SIM, imei=p) for h, p in ((3, ""), (5, OTHER_PHONE))),
            in_app(4, OTHER_PHONE),
        ],
        [(C.DEVICE_CHANGED, 3), (C.DEVICE_CHANGED, 5)],
    ),
    # To and fro
    "back within a day": (
        [moved(3), moved(20, PHONE)],
        [(C.DEVICE_CHANGED, 3), (C.DEVICE_CHANGED, 20), (C.TWO_DEVICES, 20)],
    ),
    "back after more than a day": ([moved(3), moved(27, PHONE)], [(C.DEVICE_CHANGED, 3), (C.DEVICE_CHANGED, 27)]),
    "to and fro, announced: she moves her data": (
        [announced(2, 30), *(moved(h, imei) for h, imei in ((3, OTHER_PHONE), (4, PHONE), (5, OTHER_PHONE)))],
        [],
    ),
    "back by a third device, announced": (
        [announced(2, 30), moved(3), moved(4, THIRD_PHONE), moved(20, PHONE)],
        [],
    ),
    "to and fro, and the way back was no more announced": (
        [announced(2, 10), moved(3), moved(20, PHONE)],
        [(C.DEVICE_CHANGED, 20), (C.TWO_DEVICES, 20)],
    ),
    "to and fro, and the way there was not announced yet": (
        [announced(4, 30), moved(3), moved(20, PHONE)],
        [(C.DEVICE_CHANGED, 3), (C.TWO_DEVICES, 20)],
    ),
    "to and fro, and only one phone was announced": (
        [announced(2, 30, OTHER_PHONE), moved(3), moved(20, PHONE), moved(21)],
        [(C.DEVICE_CHANGED, 20), (C.TWO_DEVICES, 20), (C.TWO_DEVICES, 21)],
    ),
    # Use
    "used where it was written": ([signal(K.CREDENTIAL_USED, 3, source="app", iccid=SIM, imei=PHONE)], []),
    "used elsewhere, twice": (
        [signal(K.CREDENTIAL_USED, h, source="app", iccid=SIM, imei=OTHER_PHONE) for h in (3, 4)],
        [(C.FOREIGN_DEVICE, 3)],
    ),
    "used where the card was seen before": (
        [moved(3), signal(K.CREDENTIAL_USED, 5, source="app", iccid=SIM, imei=OTHER_PHONE)],
        [(C.DEVICE_CHANGED, 3), (C.FOREIGN_DEVICE, 3)],
    ),
    # SIM
    "another IMSI, on which card nobody said": (
        [signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=OTHER_IMSI)],
        [(C.IMSI_CHANGED, 3)],
    ),
    "another IMSI on the same card, as was told later": (
        [
            signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=OTHER_IMSI),
            signal(K.OBSERVED, 9, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=SIM),
        ],
        [],
    ),
    "another IMSI on another card, as was told later": (
        [
            signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=OTHER_IMSI),
            signal(K.OBSERVED, 9, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM),
        ],
        [(C.CARD_REPLACED, 3)],
    ),
    "the number is on another card": (
        [signal(K.OBSERVED, 3, msisdn=NUMBER, iccid=OTHER_SIM)],
        [(C.CARD_REPLACED, 3)],
    ),
    "another card took its place, said twice": (
        [
            signal(K.OBSERVED, 3, msisdn=NUMBER, iccid=OTHER_SIM),
            signal(K.SIM_REPLACED, 2, iccid=OTHER_SIM, previous=SIM),
        ],
        [(C.CARD_REPLACED, 2)],
    ),
    "ported in to another card": (
        [signal(K.PORTED_IN, 3, msisdn=NUMBER, iccid=OTHER_SIM)],
        [(C.CARD_REPLACED, 3)],
    ),
    "ported out": ([signal(K.PORTED_OUT, 3, msisdn=NUMBER)], [(C.PORTED_OUT, 3)]),
    "ported out, and in elsewhere": (
        [
            signal(K.PORTED_OUT, 3, msisdn=NUMBER),
            signal(K.PORTED_IN, 4, source="operator:MNO00002", msisdn=NUMBER, iccid=OTHER_SIM),
        ],
        [(C.PORTED_OUT, 3)],
    ),
    "terminated": ([signal(K.TERMINATED, 3, msisdn=NUMBER)], [(C.TERMINATED, 3)]),
    "terminated, then the number is somebody else's": (
        [signal(K.TERMINATED, 3, msisdn=NUMBER), signal(K.SUBSCRIBED, 900, msisdn=NUMBER, iccid=OTHER_SIM)],
        [(C.TERMINATED, 3)],
    ),
    "the number is somebody else's": (
        [signal(K.SUBSCRIBED, 3, msisdn=NUMBER, iccid=OTHER_SIM)],
        [(C.TERMINATED, 3)],
    ),
    "the number is somebody else's, on which card nobody said": (
        [signal(K.SUBSCRIBED, 3, msisdn=NUMBER)],
        [(C.TERMINATED, 3)],
    ),
    # Number
    "another number": ([signal(K.OBSERVED, 3, msisdn=OTHER_NUMBER, iccid=SIM)], [(C.OTHER_NUMBER, 3)]),
    "to and fro between two numbers": (
        [signal(K.OBSERVED, h, msisdn=n, iccid=SIM) for h, n in ((3, OTHER_NUMBER), (4, NUMBER), (5, OTHER_NUMBER))],
        [(C.OTHER_NUMBER, 3)],
    ),
    "a change of number": (
        [
            signal(K.NUMBER_CHANGED, 3, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM),
            signal(K.OBSERVED, 4, msisdn=OTHER_NUMBER, iccid=SIM, imei=PHONE),
        ],
        [],
    ),
    "a change of number, told after the number was seen": (
        [
            signal(K.OBSERVED, 3, msisdn=OTHER_NUMBER, iccid=SIM, imei=PHONE),
            signal(K.NUMBER_CHANGED, 4, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM),
        ],
        [],
    ),
    # What was told
    "suspended": ([signal(K.SUSPENDED, 3, msisdn=NUMBER)], [(C.SUSPENDED, 3)]),
    "suspended twice": ([signal(K.SUSPENDED, h, msisdn=NUMBER) for h in (3, 4)], [(C.SUSPENDED, 3), (C.SUSPENDED, 4)]),
    "suspended and restored": ([signal(K.SUSPENDED, 3, msisdn=NUMBER), signal(K.RESTORED, 4, msisdn=NUMBER)], []),
    "restricted": ([signal(K.RESTRICTED, 3, msisdn=NUMBER)], [(C.RESTRICTED, 3)]),
    "restricted and restored": ([signal(K.RESTRICTED, 3, msisdn=NUMBER), signal(K.RESTORED, 4, msisdn=NUMBER)], []),
    "lost": ([signal(K.LOST, 3, msisdn=NUMBER)], [(C.LOST, 3)]),
    "the end is told for the very same time": (
        [
            told_as(signal(kind, 3, msisdn=NUMBER), name)
            for kind, name in ((K.SUSPENDED, "b"), (K.RESTORED, "a"), (K.LOST, "d"), (K.RECOVERED, "c"))
        ],
        [],
    ),
    "lost and found": ([signal(K.LOST, 3, msisdn=NUMBER), signal(K.RECOVERED, 4, iccid=SIM)], []),
    "found before it was lost": ([signal(K.LOST, 3, msisdn=NUMBER), signal(K.RECOVERED, 2, iccid=SIM)], [(C.LOST, 3)]),
    "the owner called": ([signal(K.LOCK_REQUESTED, 3, msisdn=NUMBER)], [(C.OWNER_CALLED, 3)]),
    "the owner called again": (
        [signal(K.LOCK_REQUESTED, 3, msisdn=NUMBER), signal(K.UNLOCK_REQUESTED, 4, msisdn=NUMBER)],
        [],
    ),
    "another card answered": ([signal(K.WRONG_CARD, 3, source="card", iccid=SIM)], [(C.WRONG_CARD, 3)]),
    "the counter jumped": ([signal(K.COUNTER_JUMPED, 3, source="card", iccid=SIM)], [(C.COUNTER_JUMPED, 3)]),
    # Weak signals
    "one weak signal": ([weak(3)], []),
    "two within three days": ([weak(3), weak(75)], [(C.WEAK_SIGNALS, 75)]),
    "two within more": ([weak(3), weak(76)], []),
    "three within ten days, and two of them within three": (
        [weak(3), weak(100), weak(140)],
        [(C.WEAK_SIGNALS, 140), (C.WEAK_SIGNALS, 140)],
    ),
    "what the policy does not know counts nothing": ([weak(3), weak(4, "unheard-of")], []),
}


@pytest.mark.parametrize("case", CASES)
def test_a_condition_is_met_or_not(case: str) -> None:
    signals, expected = CASES[case]
    assert found([*EVERY_DAY, *signals]) == sorted(expected)
    assert found([*signals[::-1], *EVERY_DAY]) == sorted(expected)


BY_ANOTHER = {
    "lost": signal(K.LOST, 3, source=ANOTHER, msisdn=NUMBER),
    "terminated": signal(K.TERMINATED, 3, source=ANOTHER, msisdn=NUMBER),
    "ported out": signal(K.PORTED_OUT, 3, source=ANOTHER, msisdn=NUMBER),
    "ported in": signal(K.PORTED_IN, 3, source=ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM),
    "subscribed": signal(K.SUBSCRIBED, 3, source=ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM),
    "suspended": signal(K.SUSPENDED, 3, source=ANOTHER, msisdn=NUMBER),
    "restricted": signal(K.RESTRICTED, 3, source=ANOTHER, msisdn=NUMBER),
    "the owner called": signal(K.LOCK_REQUESTED, 3, source=ANOTHER, msisdn=NUMBER),
    "another IMSI": signal(K.OBSERVED, 3, source=ANOTHER, msisdn=NUMBER, imsi=OTHER_IMSI),
    "another device": signal(K.OBSERVED, 3, source=ANOTHER, msisdn=NUMBER, imei=OTHER_PHONE),
    "another card": signal(K.OBSERVED, 3, source=ANOTHER, msisdn=NUMBER, iccid=OTHER_SIM),
    "replaced": signal(K.SIM_REPLACED, 3, source=ANOTHER, iccid=OTHER_SIM, previous=SIM),
    "a change of number": signal(
        K.NUMBER_CHANGED, 3, source=ANOTHER, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=OTHER_SIM
    ),
}


@pytest.mark.parametrize("what", BY_ANOTHER)
def test_another_operator_brings_no_card_under_suspicion(what: str) -> None:
    assert found([*EVERY_DAY, BY_ANOTHER[what]]) == []


@pytest.mark.parametrize(
    ("accused", "excuse"),
    [
        (moved(3), signal(K.MODEL_CHANGE_ANNOUNCED, 2, source=ANOTHER, msisdn=NUMBER, until=at(9))),
        (signal(K.LOST, 3, msisdn=NUMBER), signal(K.RECOVERED, 4, source=ANOTHER, msisdn=NUMBER)),
        (signal(K.SUSPENDED, 3, msisdn=NUMBER), signal(K.RESTORED, 4, source=ANOTHER, msisdn=NUMBER)),
        (signal(K.OBSERVED, 3, msisdn=NUMBER, iccid=OTHER_SIM), signal(K.TERMINATED, 2, source=ANOTHER, msisdn=NUMBER)),
    ],
)
def test_nor_does_it_explain_anything_away(accused: Signal, excuse: Signal) -> None:
    assert found([*EVERY_DAY, accused, excuse]) == found([*EVERY_DAY, accused]) != []


@given(arrivals())
def test_what_other_operators_say_changes_no_finding(told_twice: tuple[list[Signal], list[Signal]]) -> None:
    told, _ = told_twice
    for iccid in SIMS:
        assert found(told, iccid) == found([one for one in told if one.source != ANOTHER], iccid)


LYING = {
    "it is where it was": signal(K.OBSERVED, 4, source="app", iccid=SIM, imei=PHONE),
    "it is in the phone that was announced": signal(K.OBSERVED, 4, source="app", iccid=SIM, imei=THIRD_PHONE),
    "it is used where it was written": signal(K.CREDENTIAL_USED, 4, source="app", iccid=SIM, imei=PHONE),
    "it was written here": signal(K.CREDENTIAL_WRITTEN, 4, source="app", iccid=SIM, imei=OTHER_PHONE),
    "before, it was written here": signal(K.CREDENTIAL_WRITTEN, 2, source="app", iccid=SIM, imei=OTHER_PHONE),
}


@pytest.mark.parametrize("lie", LYING)
@pytest.mark.parametrize(
    "seen",
    [moved(3), signal(K.OBSERVED, 3, msisdn=NUMBER, imei=OTHER_PHONE), signal(K.DEVICE_CHANGED, 3, iccid=SIM)],
)
def test_a_lying_phone_hides_nothing_that_others_saw(lie: str, seen: Signal) -> None:
    told = [*EVERY_DAY, announced(0, 99, THIRD_PHONE), seen]
    assert set(found(told)) == {(C.DEVICE_CHANGED, 3)} <= set(found([*told, LYING[lie]]))


def test_a_credential_that_is_written_anew_elsewhere_takes_back_no_suspicion() -> None:
    told = [*EVERY_DAY, signal(K.CREDENTIAL_USED, 3, source="app", iccid=SIM, imei=OTHER_PHONE)]
    assert found([*told, LYING["it was written here"]]) == found(told) == [(C.FOREIGN_DEVICE, 3)]


def test_every_condition_has_a_rule_a_meaning_and_a_case() -> None:
    met = {condition for _, expected in CASES.values() for condition, _ in expected}
    assert met == set(Condition) == set(CONDITIONS) == {rule.condition for rule in DEFAULT.rules}


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("the number is", "ported", "lost"))])
def test_the_card_of_a_new_holder_inherits_nothing(case: str) -> None:
    signals, _ = CASES[case]
    assert found([*EVERY_DAY, *signals], OTHER_SIM) == []


def test_evidence_names_the_signals_that_make_and_explain_a_case() -> None:
    [finding] = assess(SIM, known([*EVERY_DAY, moved(3)]), DEFAULT, OPERATOR)
    assert finding.evidence == (3, 4)
    assert (finding.rule, finding.level, finding.revoke_from) == ("another-device", Level.HOLD, None)


def test_a_suspicion_keeps_its_name_when_more_is_told_of_it() -> None:
    [before] = assess(SIM, known([*EVERY_DAY, change := moved(3)]), DEFAULT, OPERATOR)
    later = [moved(4), signal(K.OBSERVED, 2.5, **BOUND), change, *EVERY_DAY]
    [after] = assess(SIM, known(later), DEFAULT, OPERATOR)
    assert before.suspicion == after.suspicion
    assert len(bytes.fromhex(before.suspicion)) == 16


def test_two_cards_never_share_a_suspicion() -> None:
    signals = [*EVERY_DAY, signal(K.OBSERVED, 1, msisdn=OTHER_NUMBER, iccid=OTHER_SIM)]
    lost = [signal(K.LOST, 3, msisdn=number, id="lost", source=source) for number, source in ((NUMBER, "app"),)]
    both = [*signals, *lost]
    assert {f.suspicion for f in assess(SIM, known(both), DEFAULT, OPERATOR)}.isdisjoint(
        f.suspicion for f in assess(OTHER_SIM, known(both), DEFAULT, OPERATOR)
    )


def test_a_window_ends_a_suspicion_only_where_its_rule_says_so() -> None:
    rule = Rule(name="lost", condition=C.LOST, level=Level.HOLD, lasts_hours=72)
    policy = Policy(version=2, settle_hours=1, rules=(rule,))
    [finding] = assess(SIM, known([*EVERY_DAY, signal(K.LOST, 3, msisdn=NUMBER)]), policy, OPERATOR)
    assert finding.until == at(75)
    assert all(rule.lasts_hours is None for rule in DEFAULT.rules if rule.level >= Level.HOLD)


def test_a_revocation_waits_from_the_record_of_its_latest_evidence() -> None:
    told = [*EVERY_DAY, signal(K.OBSERVED, 3, msisdn=NUMBER, iccid=OTHER_SIM)]
    recorded = [Known(n, at(10 * n), one) for n, one in enumerate(told, 1)]
    [finding] = assess(SIM, recorded, DEFAULT, OPERATOR)
    assert (finding.level, finding.revoke_from) == (Level.REVOKE, at(10 * 4 + DEFAULT.settle_hours))


@given(arrivals())
def test_the_order_and_repetition_of_what_is_told_change_no_finding(
    told_twice: tuple[list[Signal], list[Signal]],
) -> None:
    views = [
        [
            (*finding[:6], names(finding.evidence, arrived))
            for iccid in SIMS
            for finding in assess(iccid, arrived, DEFAULT, OPERATOR)
        ]
        for arrived in map(known, told_twice)
    ]
    assert views[0] == views[1]
