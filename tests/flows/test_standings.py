"""Journeys of cards whose standing changes, what persons say, what time alone does, and policies tried on the past."""

import time
from datetime import timedelta
from os import urandom

import msgspec
import pytest
from line_samples import (
    IMSI,
    NUMBER,
    OTHER_IMSI,
    OTHER_NUMBER,
    OTHER_PHONE,
    OTHER_SIM,
    PHONE,
    SIM,
    SIMS,
    at,
    signal,
)
from line_world import CLERK, OPERATOR, LineWorld

from tsm.application import Command
from tsm.errors import ErrorCode, TsmError
from tsm.flows import follower, standings
from tsm.flows.follower import StoredPosition
from tsm.flows.standings import Missed, RuleTrial, StandingWorker
from tsm.keys.vault import SoftwareVault
from tsm.model.line import SignalKind
from tsm.model.standing import LevelChanged, Proof, Verdict
from tsm.model.swap_policy import DEFAULT, Condition, Level, Policy, Rule

K = SignalKind
BOUND = {"msisdn": NUMBER, "imsi": IMSI, "iccid": SIM, "imei": PHONE}
SUBSCRIBED = signal(K.SUBSCRIBED, 0, **BOUND)
WRITTEN = signal(K.CREDENTIAL_WRITTEN, 1, source="card", iccid=SIM, imei=PHONE)
MOVED = signal(K.DEVICE_CHANGED, 3, iccid=SIM, imei=OTHER_PHONE)
HERS = signal(K.SUBSCRIBED, 390, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM, imei=OTHER_PHONE)
REPLACED = signal(K.SIM_REPLACED, 3, msisdn=NUMBER, iccid=OTHER_SIM, imsi=OTHER_IMSI, previous=SIM)
NO_RULES = Policy(version=2, settle_hours=24, rules=())


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    for name, seconds in (("PAUSE", 0.01), ("TICK", 0.01), ("GATHER", 0.0), ("KEEP_EVERY", 0.0)):
        monkeypatch.setattr(follower, name, seconds)
    monkeypatch.setattr(standings, "GRACE", 0.0)


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


@pytest.fixture
def position(tmp_path):
    return StoredPosition(tmp_path / "position")


def refused(code):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def let_the_worker_run_until(world, position, condition):
    """Until it is so, and nothing is left to be done."""
    worker = StandingWorker(world.tsm, world.standings, position, world.clock)
    worker.start()
    try:
        deadline = time.monotonic() + 5
        while not (condition() and worker.unfinished() is None):
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.005)
    finally:
        worker.stop()


def levels(world, iccid=SIM):
    facts = [event.fact for event in world.tsm.history(f"standing-{iccid}")]
    return [Level(fact.level) for fact in facts if isinstance(fact, LevelChanged)]


# What domain.md 4.4 lists

JOURNEYS = {
    "another IMSI on the number": ([signal(K.OBSERVED, 3, msisdn=NUMBER, imsi=OTHER_IMSI)], Level.HOLD),
    "another UICC": ([REPLACED], Level.REVOKE),
    "another UICC, told by the card's operator without the number": (
        [msgspec.structs.replace(REPLACED, msisdn="")],
        Level.REVOKE,
    ),
    "another phone": ([MOVED], Level.HOLD),
    "port-out": ([signal(K.PORTED_OUT, 3, msisdn=NUMBER)], Level.REVOKE),
    "port-in elsewhere": (
        [signal(K.PORTED_IN, 3, msisdn=NUMBER, iccid=OTHER_SIM)],
        Level.REVOKE,
    ),
    "port-in elsewhere, as another operator says": (
        [signal(K.PORTED_IN, 3, source="operator:MNO00002", msisdn=NUMBER, iccid=OTHER_SIM)],
        Level.NONE,
    ),
    "a recycled number": ([HERS], Level.REVOKE),
    "suspended": ([signal(K.SUSPENDED, 3, msisdn=NUMBER)], Level.HOLD),
    "restricted": ([signal(K.RESTRICTED, 3, msisdn=NUMBER)], Level.ALERT),
    "terminated": ([signal(K.TERMINATED, 3, msisdn=NUMBER)], Level.REVOKE),
    "lost or stolen": ([signal(K.LOST, 3, msisdn=NUMBER)], Level.LOCK),
    "the owner called": ([signal(K.LOCK_REQUESTED, 3, msisdn=NUMBER)], Level.LOCK),
    "calls forwarded and a change at night": (
        [
            signal(K.INDICATION, 340, msisdn=NUMBER, indication="call-forwarding"),
            signal(K.INDICATION, 390, msisdn=NUMBER, indication="night-change"),
        ],
        Level.ALERT,
    ),
    "many weak signals": (
        [signal(K.INDICATION, 200 + 50 * n, msisdn=NUMBER, indication="contact-changed") for n in range(3)],
        Level.HOLD,
    ),
    "the app sees another card": ([signal(K.WRONG_CARD, 390, source="app", iccid=SIM)], Level.ALERT),
    "the card's counter jumped": ([signal(K.COUNTER_JUMPED, 3, source="card", iccid=SIM)], Level.HOLD),
    "used in a foreign phone": (
        [signal(K.CREDENTIAL_USED, 3, source="app", iccid=SIM, imei=OTHER_PHONE)],
        Level.HOLD,
    ),
    "a change of number": (
        [signal(K.NUMBER_CHANGED, 3, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM, imei=PHONE)],
        Level.NONE,
    ),
    "another number, and nobody said why": ([signal(K.OBSERVED, 390, msisdn=OTHER_NUMBER, iccid=SIM)], Level.ALERT),
    "a change of phones that was announced": (
        [signal(K.MODEL_CHANGE_ANNOUNCED, 2, msisdn=NUMBER, until=at(10)), MOVED],
        Level.NONE,
    ),
    "nothing": ([signal(K.OBSERVED, 3, **BOUND)], Level.NONE),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("journey", JOURNEYS)
def test_a_signal_leads_to_its_level_when_it_is_accepted_also_late(world, journey, late):
    signals, level = JOURNEYS[journey]
    told = [SUBSCRIBED, WRITTEN, *signals]
    for one in reversed(told) if late else told:
        assert world.record(one)[0].error is None
    standing = world.standing()
    assert standing.level is level
    assert standing.on_hold is (level >= Level.HOLD)
    assert (standing.revoke_from is not None) is (level is Level.REVOKE)
    assert world.standing(OTHER_SIM).level is Level.NONE


def test_a_revocation_waits_for_the_settle_window(world):
    world.record(SUBSCRIBED, REPLACED)
    assert world.standing().revoke_from == world.now + timedelta(hours=DEFAULT.settle_hours)


def test_within_the_settle_window_a_late_signal_tells_why_and_a_person_calls_a_revocation_off(world):
    world.record(SUBSCRIBED, signal(K.OBSERVED, 6, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM))
    assert world.conditions() == [Condition.CARD_REPLACED]
    world.now += timedelta(hours=2)
    world.record(signal(K.TERMINATED, 4, msisdn=NUMBER, iccid=SIM))
    [suspicion] = world.standing().open
    assert suspicion.raised.condition == Condition.TERMINATED
    world.standings.close(SIM, suspicion.id, Verdict.FALSE_ALARM, CLERK)
    assert world.standing().level is Level.NONE


def test_the_new_holder_of_a_number_inherits_nothing(world):
    world.record(SUBSCRIBED, WRITTEN, signal(K.LOST, 3, msisdn=NUMBER), signal(K.TERMINATED, 4, msisdn=NUMBER))
    world.record(HERS, signal(K.OBSERVED, 391, msisdn=NUMBER, imei=OTHER_PHONE))
    assert world.standing(OTHER_SIM).open == ()
    assert world.standing().level is Level.REVOKE


def test_an_announcement_that_comes_late_ends_the_hold(world):
    world.record(SUBSCRIBED, WRITTEN, MOVED)
    world.record(signal(K.MODEL_CHANGE_ANNOUNCED, 2, msisdn=NUMBER, until=at(10)))
    assert levels(world) == [Level.HOLD, Level.NONE]


def test_each_decision_names_the_last_signal_that_was_known_or_the_policy_that_led_to_it(world, position):
    let_the_worker_run_until(world, position, lambda: True)
    moved = world.record(SUBSCRIBED, WRITTEN, MOVED)[-1].position
    announced = world.record(signal(K.MODEL_CHANGE_ANNOUNCED, 2, msisdn=NUMBER, until=at(10)))[-1].position
    lost = world.record(signal(K.LOST, 20, msisdn=NUMBER))[-1].position
    adopted = world.standings.adopt(NO_RULES, CLERK)
    let_the_worker_run_until(world, position, lambda: world.standing().level is Level.NONE)
    told = {event.position: event.context.causation for event in world.tsm.history(f"standing-{SIM}")}
    assert list(dict.fromkeys(told.values())) == [str(moved), str(announced), str(lost), str(adopted)]


def test_a_loss_that_is_told_again_after_a_release_holds_again(world):
    world.record(SUBSCRIBED, signal(K.LOST, 3, msisdn=NUMBER))
    world.standings.release(SIM, Proof.CLERK, "", CLERK)
    world.now += timedelta(hours=5)
    world.record(signal(K.LOST, 404, msisdn=NUMBER))
    assert levels(world) == [Level.LOCK, Level.NONE, Level.LOCK]


# Persons


def test_whoever_proves_herself_gets_her_card_back_and_keeps_it(world):
    world.record(SUBSCRIBED, WRITTEN, MOVED)
    world.standings.release(SIM, Proof.MY_NUMBER_CARD, "ab" * 32, CLERK)
    world.record(signal(K.CREDENTIAL_USED, 399, source="app", iccid=SIM, imei=OTHER_PHONE))
    world.record(signal(K.COUNTER_JUMPED, 4, source="card", iccid=SIM))  # late, and from before the release
    assert levels(world) == [Level.HOLD, Level.NONE]


def test_what_persons_say_is_recorded_as_theirs_in_the_card_s_story(world):
    world.record(SUBSCRIBED, MOVED)
    [suspicion] = world.standing().open
    world.standings.acknowledge(SIM, suspicion.id, CLERK)
    world.standings.escalate(SIM, suspicion.id, Level.LOCK, CLERK)
    world.standings.close(SIM, suspicion.id, Verdict.CONFIRMED, CLERK)
    assert levels(world) == [Level.HOLD, Level.LOCK]
    said = [event for event in world.tsm.history(f"standing-{SIM}") if event.context.actor == CLERK.actor]
    assert [event.topic.split(".")[1] for event in said] == [
        "suspicion_acknowledged", "suspicion_escalated", "level_changed", "suspicion_closed",
    ]  # fmt: skip
    assert {(event.context.tenant, event.context.reason) for event in said} == {("MNO00001", CLERK.reason)}


def test_a_person_s_command_is_carried_out_once(world):
    world.record(SUBSCRIBED, MOVED)
    command = Command("release-1", "digest", world.now + timedelta(days=1))
    first = world.standings.release(SIM, Proof.CLERK, "", CLERK, command)
    assert world.standings.release(SIM, Proof.CLERK, "", CLERK, command) == first


@pytest.mark.parametrize("told", [[], [SUBSCRIBED, REPLACED]])
def test_there_is_no_release_without_a_hold_nor_from_a_revocation(world, told):
    world.record(*told)
    with refused(ErrorCode.WRONG_ORDER):
        world.standings.release(SIM, Proof.CLERK, "", CLERK)


def test_an_operator_decides_on_its_own_cards_only(world):
    world.register(SIMS[2], operator="MNO00002")
    with refused(ErrorCode.FORBIDDEN):
        world.standings.release(SIMS[2], Proof.OPERATOR, "", OPERATOR)
    with refused(ErrorCode.UNKNOWN_CARD):
        world.standings.release("8981100000000000044", Proof.OPERATOR, "", OPERATOR)


# What time alone changes, and what a crash left


def test_a_window_ends_without_a_signal(world, position):
    world.record(SUBSCRIBED, signal(K.WRONG_CARD, 399, source="card", iccid=SIM))
    assert levels(world) == [Level.ALERT]
    world.now = at(399 + 24)
    let_the_worker_run_until(world, position, lambda: levels(world) == [Level.ALERT, Level.NONE])


def test_a_new_policy_is_applied_to_all_that_is_known(world, position):
    world.record(SUBSCRIBED, MOVED)
    world.standings.adopt(NO_RULES, CLERK)
    let_the_worker_run_until(world, position, lambda: levels(world) == [Level.HOLD, Level.NONE])
    assert world.standings.policy() == NO_RULES


def test_a_card_that_is_registered_late_has_the_standing_that_its_signals_give_it(world, position):
    world.record(signal(K.LOST, 3, iccid=SIMS[2]))
    assert levels(world, SIMS[2]) == []
    world.register(SIMS[2])
    let_the_worker_run_until(world, position, lambda: levels(world, SIMS[2]) == [Level.LOCK])


def record_and_die(world, monkeypatch, told):
    """A server that dies between recording signals and deciding on them."""

    class Crash(Exception):
        pass

    def crash(*_):
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(world.standings, "reassess_all", crash)
        with pytest.raises(Crash):
            world.record(told)
    assert levels(world) == []


@pytest.fixture
def cut_off(world, monkeypatch):
    world.record(SUBSCRIBED)
    record_and_die(world, monkeypatch, MOVED)


@pytest.mark.usefixtures("cut_off")
def test_what_was_cut_off_is_decided_by_the_worker(world, position):
    let_the_worker_run_until(world, position, lambda: levels(world) == [Level.HOLD])


def test_what_was_cut_off_is_decided_by_the_worker_also_where_another_stream_of_the_number_names_the_card(
    world, position, monkeypatch
):
    """Two servers heard of the number at the same moment; what is told later lies in the first of its streams."""
    rival, rivals = world.another(bytes), [signal(K.OBSERVED, 1, msisdn=NUMBER, imei=PHONE)]

    def random(size):
        while rivals:
            rival.record([rivals.pop()], CLERK_OF_THE_SYSTEM)
        return urandom(size)

    world.another(random).record([SUBSCRIBED], CLERK_OF_THE_SYSTEM)
    assert len(world.tsm.indexed("line.msisdn", NUMBER)) == 2
    position.write(world.tsm.position)
    record_and_die(world, monkeypatch, signal(K.LOST, 3, msisdn=NUMBER))
    let_the_worker_run_until(world, position, lambda: levels(world) == [Level.LOCK])


@pytest.mark.usefixtures("cut_off")
def test_what_was_cut_off_is_decided_when_the_source_says_it_again(world):
    assert world.record(MOVED)[0].repeated
    assert levels(world) == [Level.HOLD]


@pytest.mark.usefixtures("cut_off")
def test_what_was_cut_off_is_decided_on_demand(world):
    world.standings.reassess(SIM, CLERK)
    assert levels(world) == [Level.HOLD]


@pytest.mark.usefixtures("cut_off")
def test_a_long_log_is_read_in_parts(world, position, monkeypatch):
    monkeypatch.setattr(standings, "BACKLOG", 0)
    monkeypatch.setattr(standings, "GRACE", 3600.0)
    let_the_worker_run_until(world, position, lambda: levels(world) == [Level.HOLD])


def test_cards_of_a_long_log_are_assessed_in_parts(world, position, monkeypatch):
    monkeypatch.setattr(standings, "BACKLOG", 0)
    monkeypatch.setattr(standings, "TOGETHER", 1)
    told = [signal(K.LOST, 3, iccid=iccid) for iccid in SIMS]
    world.record(*told)
    world.register(SIMS[2])
    worker = StandingWorker(world.tsm, world.standings, position, world.clock)
    for event in world.tsm.read(0, 100):
        worker.see(event)
    assert levels(world, SIMS[2]) == [Level.LOCK]


def test_the_worker_leaves_alone_what_is_decided(world, position, monkeypatch):
    position.write(world.tsm.position)
    world.record(SUBSCRIBED, MOVED)
    asked = []
    monkeypatch.setattr(world.standings, "reassess_all", lambda iccids, _: asked.extend(iccids))
    let_the_worker_run_until(world, position, lambda: position.read() == world.tsm.position)
    assert asked == []


def test_two_servers_that_record_at_once_end_in_what_both_know(world, monkeypatch):
    """The other records an announcement, and decides, between our reading and our commit."""
    world.record(SUBSCRIBED)
    announced = signal(K.MODEL_CHANGE_ANNOUNCED, 2, source="app", iccid=SIM, until=at(10))
    rival, rivals, commit = world.another(), [announced], world.tsm.commit

    def slowly(*changes, **values):
        if rivals and changes[0].stream.startswith("standing-"):
            rival.record([rivals.pop()], CLERK_OF_THE_SYSTEM)
        return commit(*changes, **values)

    monkeypatch.setattr(world.tsm, "commit", slowly)
    world.record(MOVED)
    assert rivals == []
    assert world.standing().level is Level.NONE


def test_what_another_server_has_put_on_hold_is_not_let_go_by_one_that_read_its_signals_before(world, monkeypatch):
    """Not even for a moment: a session could begin in it."""
    world.record(SUBSCRIBED)
    rival, rivals, gather = world.another(), [MOVED], standings.gather

    def overtaken(tsm, iccids):
        known = gather(tsm, iccids)
        if rivals:
            rival.record([rivals.pop()], CLERK_OF_THE_SYSTEM)
        return known

    monkeypatch.setattr(standings, "gather", overtaken)
    world.record(SUBSCRIBED)
    assert rivals == []
    assert levels(world) == [Level.HOLD]


@pytest.mark.parametrize("verdict", [None, Verdict.CONFIRMED])
def test_a_policy_that_makes_more_of_what_is_long_known_gives_the_settle_window_to_object(world, position, verdict):
    world.record(SUBSCRIBED, signal(K.LOST, 3, msisdn=NUMBER), MOVED)
    for suspicion in world.standing().open if verdict else ():
        world.standings.close(SIM, suspicion.id, verdict, CLERK)
    world.standings.release(SIM, Proof.CLERK, "", CLERK)
    world.now += timedelta(days=400)
    rules = tuple(
        msgspec.structs.replace(rule, level=Level.REVOKE, name=rule.name if verdict else f"graver-{rule.name}")
        for rule in DEFAULT.rules
        if rule.condition in (Condition.LOST, Condition.DEVICE_CHANGED)
    )
    world.standings.adopt(msgspec.structs.replace(DEFAULT, version=2, rules=rules), CLERK)
    let_the_worker_run_until(world, position, lambda: world.standing().level is Level.REVOKE)
    assert world.standing().revoke_from == world.now + timedelta(hours=DEFAULT.settle_hours)


def test_a_daily_file_that_tells_of_the_same_move_takes_nothing_back_of_what_a_person_said(world):
    world.record(SUBSCRIBED, MOVED)
    [suspicion] = world.standing().open
    world.standings.escalate(SIM, suspicion.id, Level.LOCK, CLERK)
    world.record(signal(K.DEVICE_CHANGED, 2.5, iccid=SIM, imei=OTHER_PHONE))
    assert levels(world) == [Level.HOLD, Level.LOCK]
    [suspicion] = world.standing().open
    world.standings.close(SIM, suspicion.id, Verdict.FALSE_ALARM, CLERK)
    world.record(signal(K.DEVICE_CHANGED, 2.2, iccid=SIM, imei=OTHER_PHONE))
    assert levels(world) == [Level.HOLD, Level.LOCK, Level.NONE]


@pytest.mark.parametrize(
    ("told", "level"),
    [
        (signal(K.LOST, 399, iccid=SIM), Level.NONE),  # she has it in her hand, and it is the one that was lost
        (signal(K.LOST, 400 + 4 / 60, iccid=SIM), Level.NONE),  # by a clock that is ahead
        (msgspec.structs.replace(REPLACED, msisdn=""), Level.REVOKE),
    ],
)
def test_a_signal_that_comes_while_a_release_is_decided_is_settled_by_it_or_refuses_it(world, monkeypatch, told, level):
    world.record(SUBSCRIBED, MOVED)
    rivals, commit = [told], world.tsm.commit

    def slowly(*changes, **values):
        if rivals:
            world.another().record([rivals.pop()], CLERK_OF_THE_SYSTEM)
        return commit(*changes, **values)

    monkeypatch.setattr(world.tsm, "commit", slowly)
    if level is Level.REVOKE:
        with refused(ErrorCode.WRONG_ORDER):
            world.standings.release(SIM, Proof.CLERK, "", CLERK)
    else:
        world.standings.release(SIM, Proof.CLERK, "", CLERK)
    assert rivals == []
    assert world.standing().level is level


def test_a_release_settles_nothing_that_comes_after_it(world):
    world.record(SUBSCRIBED, MOVED)
    world.standings.release(SIM, Proof.CLERK, "", CLERK)
    world.record(signal(K.LOST, 400 + 4 / 60, iccid=SIM))
    assert world.standing().level is Level.LOCK


CLERK_OF_THE_SYSTEM = msgspec.structs.replace(CLERK, role="system")


# The past


def test_a_policy_is_tried_on_the_past_and_changes_nothing(world):
    world.register(SIMS[2])
    world.record(SUBSCRIBED, WRITTEN, MOVED, signal(K.LOST, 4, msisdn=NUMBER))
    world.record(signal(K.LOST, 5, iccid=OTHER_SIM), signal(K.LOST, 6, iccid=SIMS[2]))
    for iccid, verdict in ((SIM, Verdict.CONFIRMED), (OTHER_SIM, Verdict.FALSE_ALARM)):
        for suspicion in world.standing(iccid).open:
            world.standings.close(iccid, suspicion.id, verdict, CLERK)
    [moved] = [s.id for s in world.standing().open if s.raised.condition == Condition.DEVICE_CHANGED]
    before = world.tsm.position
    milder = Policy(
        version=7, settle_hours=1, rules=(Rule(name="any-loss", condition=Condition.LOST, level=Level.ALERT),)
    )
    trial = world.standings.trial(milder)
    assert trial.rules == (RuleTrial("any-loss", caught=3, confirmed=1, false_alarms=1, open=1),)
    assert trial.missed == (Missed(SIM, moved),)
    assert trial.cards == 3
    assert world.tsm.position == before


def test_a_trial_may_begin_later(world):
    world.record(signal(K.LOST, 5, iccid=SIM), signal(K.LOST, 9, iccid=OTHER_SIM))
    trial = world.standings.trial(DEFAULT, since=at(6))
    assert sum(rule.caught for rule in trial.rules) == 1


def test_an_unsound_policy_is_not_tried(world):
    with refused(ErrorCode.INVALID_INPUT):
        world.standings.trial(msgspec.structs.replace(DEFAULT, settle_hours=-1))
