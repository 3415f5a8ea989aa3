"""From a card's level to its credentials and its applet, and back; on the simulated card, with a real authority."""

import time
from datetime import timedelta
from functools import partial
from itertools import cycle
from os import urandom

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from issuance_world import IssuanceWorld, key_pool
from mas_world import ICCID, OPERATOR, OTHER_ICCID, PROVIDER, NoPosition
from test_deployment import APPLICATION, Deployment
from test_issuance import write

from tsm.errors import ErrorCode, TsmError
from tsm.flows import follower, orders
from tsm.flows.contacts import Contacts
from tsm.flows.follower import StoredPosition
from tsm.flows.holds import HoldFollower, Holds
from tsm.flows.operations import Operations, OperationsWorker, Policy
from tsm.flows.revocation import Revocation, RevocationFollower
from tsm.flows.scripts import Scripts
from tsm.flows.swap_response import ACTOR, SwapResponse, SwapResponseFollower
from tsm.globalplatform.commands import Select
from tsm.jpki.certificates import Kind
from tsm.mas.messages import LinkRequest, Process
from tsm.model import standing as standings
from tsm.model.credential import Hold
from tsm.model.delegation import DelegationAccepted
from tsm.model.detection import Finding
from tsm.model.event import Context
from tsm.model.operation import OperationRequested
from tsm.model.standing import LevelChanged, Proof, Verdict
from tsm.model.swap_policy import DEFAULT, Condition, Level

APP = APPLICATION.hex().upper()
SETTLE = timedelta(hours=24)
PERSON = Context(actor="alice", role="operator", tenant=OPERATOR, correlation="", person="alice")


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr("tsm.jpki.authority.new_key", partial(next, cycle(key_pool())))
    for name, seconds in (("PAUSE", 0.01), ("TICK", 0.01), ("KEEP_EVERY", 0.0)):
        monkeypatch.setattr(follower, name, seconds)
    monkeypatch.setattr(orders, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(orders, "LONGEST_PAUSE", 0.02)


class Desk(Deployment):
    """A server with the workers that a standing sets to work; the card has the applet."""

    def __init__(self, world, folder):
        super().__init__(world, folder)
        self.response = SwapResponse(world.tsm, self.operations)
        self.carry_out(self.deploy())
        self.rotate()
        self.carry_out(self.deploy())
        self.start()

    def start(self):
        """The workers of a server that has lost its positions: they read the log from the beginning."""
        tsm, line = self.world.tsm, self.world.line
        self.workers = [
            SwapResponseFollower(tsm, self.response, NoPosition()),
            HoldFollower(tsm, line, NoPosition()),
            RevocationFollower(tsm, line, NoPosition()),
            OperationsWorker(tsm, self.operations, NoPosition()),
        ]

    def follow(self):
        """Rounds of the workers, until nothing comes of them."""
        before = -1
        while before != (before := len(self.world.events())):
            for worker in self.workers:
                worker._catch_up()
                worker.act()

    def suspect(self, *levels, condition=Condition.LOST, iccid=ICCID):
        """These suspicions there are now, and no others."""
        now = self.world.tsm.now()
        findings = [
            Finding(f"{n:032x}", f"rule-{n}", condition, level, now, None, (1,), revoke_from(level, now))
            for n, level in enumerate(levels)
        ]
        self.decide(lambda state: standings.reassess(state, findings, DEFAULT, now), iccid)

    def release(self):
        now = self.world.tsm.now()
        self.decide(lambda state: standings.release(state, Proof.CLERK, "", now))

    def decide(self, decide, iccid=ICCID):
        stream = standings.stream(iccid)
        self.world.record(stream, *decide(self.world.tsm.load(stream, standings.evolve).state))
        self.follow()

    @property
    def asked(self):
        """Kinds and states of what the system asked for, in order."""
        wanted = [fact for fact in self.world.facts("operation-") if isinstance(fact, OperationRequested)]
        mine = [fact.operation for fact in wanted if fact.requested_by == ACTOR]
        states = [self.operations.find(operation) for operation in mine]
        return [(str(state.kind), str(state.state)) for state in states]

    def contact(self):
        """The phone is in contact: what waits is brought to the card."""
        while (launch := self.operations.next_contact(ICCID, PROVIDER, "https://sp.example/")) is not None:
            self.carry_out(launch)
            self.follow()

    def selects(self):
        self.world.card.reset()
        return self.world.card.transmit(Select(bytes.fromhex(APP)).apdu().encode())[-2:].hex()


def revoke_from(level, now):
    return now + SETTLE if level is Level.REVOKE else None


@pytest.fixture
def world(tmp_path):
    world = IssuanceWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def desk(world, tmp_path):
    made = Desk(world, tmp_path)
    yield made
    made.vault.close()


@pytest.fixture
def credential(world, desk):
    return written(world)


def written(world):
    slip = world.apply()
    world.check(slip)
    write(world, slip)
    world.follow()
    return slip.credential


def reasons(world, credential):
    """Why the authority's lists hold both certificates as they are now."""
    certificates, found = world.authority.certificates(credential), []
    for kind in Kind:
        serial = x509.load_der_x509_certificate(certificates.of(kind)).serial_number
        entry = x509.load_der_x509_crl(world.authority.revocation_list(kind)).get_revoked_certificate_by_serial_number(
            serial
        )
        found.append(entry and entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value)
    return found


def topics(world, credential, last):
    return [topic.removeprefix("credential.") for topic in world.topics(f"credential-{credential}")][-last:]


# Hold and release


def test_a_hold_reaches_the_authority_and_its_end_brings_another_certificate_for_signatures(world, desk, credential):
    first = world.authority.certificates(credential)
    desk.suspect(Level.HOLD)
    assert topics(world, credential, 2) == ["hold_ordered", "held"]
    assert reasons(world, credential) == ["certificateHold", "certificateHold"]
    assert desk.asked == []

    desk.release()

    assert topics(world, credential, 3) == ["release_ordered", "released", "signature_reissued"]
    assert reasons(world, credential) == [None, None]
    now = world.authority.certificates(credential)
    assert now.authentication == first.authentication and now.signature != first.signature
    serial = x509.load_der_x509_certificate(now.signature).serial_number
    assert world.credential(credential).reissued.signature_serial == f"{serial:X}"


def test_an_alert_leads_to_nothing(world, desk, credential):
    desk.suspect(Level.ALERT)
    assert (world.credential(credential).hold, desk.asked) == (Hold.NONE, [])


def test_who_did_it_and_why_can_be_read(world, desk, credential):
    desk.suspect(Level.HOLD)
    ordered, held = world.events()[-2:]
    level = world.events()[-3]
    assert (ordered.context.actor, ordered.context.role, ordered.context.causation) == (
        ACTOR, "system", str(level.position),
    )  # fmt: skip
    assert ordered.context.reason == f"HOLD: rule-0 ({0:032x})"
    assert (ordered.context.tenant, ordered.context.correlation) == (PROVIDER, credential)
    assert (held.context.actor, held.context.causation) == ("system:hold", str(ordered.position))


def test_another_cards_credential_is_left_alone_and_one_that_no_card_has(world, desk):
    slip = world.apply()
    desk.suspect(Level.HOLD)
    desk.suspect(Level.HOLD, iccid=OTHER_ICCID)
    assert world.credential(slip.credential).hold is Hold.NONE


def test_a_write_that_began_while_the_hold_came_is_held_too(world, desk):
    slip = world.apply()
    world.check(slip)
    desk.suspect(Level.HOLD)
    write(world, slip)  # as it was delegated just before
    world.follow()
    desk.follow()
    assert world.credential(slip.credential).hold is Hold.HELD


def test_an_authority_that_was_silent_is_told_what_is_wanted_then(world, desk, credential):
    world.line.silent = True
    desk.suspect(Level.HOLD)
    desk.release()
    assert world.credential(credential).hold is Hold.RELEASE_ORDERED
    world.line.silent = False
    time.sleep(0.03)
    desk.follow()
    assert topics(world, credential, 3) == ["hold_ordered", "release_ordered", "released"]
    assert reasons(world, credential) == [None, None]


def test_a_real_follower_goes_on_after_a_restart(world, desk, credential):
    world.line.silent = True
    desk.suspect(Level.HOLD)
    world.line.silent = False
    made = HoldFollower(world.tsm, world.line, StoredPosition(world.folder / "hold"))
    made.start()
    deadline = time.monotonic() + 5
    while world.credential(credential).hold is not Hold.HELD:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    made.stop()


def test_a_hold_of_which_the_authority_hears_after_its_end_is_ended_again(world, desk, credential, monkeypatch):
    """Two servers: the request of one was slow."""
    other, stream = Holds(world.tsm, world.line), standings.stream(ICCID)
    hold = world.line.hold

    def overtaken(url, request):
        monkeypatch.setattr(world.line, "hold", hold)
        other.carry_out(credential, PERSON)
        now = world.tsm.now()
        cleared = standings.release(world.tsm.load(stream, standings.evolve).state, Proof.CLERK, "", now)
        world.record(stream, *cleared)
        desk.response.respond(ICCID)
        other.carry_out(credential, PERSON)
        assert reasons(world, credential) == [None, None]
        hold(url, request)

    monkeypatch.setattr(world.line, "hold", overtaken)
    desk.suspect(Level.HOLD)
    assert world.credential(credential).hold is Hold.NONE
    assert reasons(world, credential) == [None, None]
    latest = x509.load_der_x509_certificate(world.authority.certificates(credential).signature).serial_number
    assert world.credential(credential).reissued.signature_serial == f"{latest:X}"


def test_the_hold_of_an_expired_credential_ends_nowhere_and_is_no_fault(world, desk, credential):
    desk.suspect(Level.HOLD)
    world.clock.pass_by(days=365 * 6)
    desk.release()
    time.sleep(0.03)
    desk.follow()
    assert world.credential(credential).hold is Hold.RELEASE_ORDERED


def test_a_certificate_that_is_not_the_authoritys_is_no_release(world, desk, credential, monkeypatch):
    desk.suspect(Level.HOLD)
    monkeypatch.setattr(world.line, "release", lambda *_: world.main.signature_certificate)
    desk.release()
    assert topics(world, credential, 1) == ["release_ordered"]


# Lock and unlock


def test_a_lock_waits_for_the_card_and_its_end_undoes_it(world, desk, credential):
    desk.suspect(Level.LOCK)
    assert (desk.asked, desk.selects()) == ([("lock", "WAITING")], "9000")
    desk.contact()
    assert (desk.asked, desk.selects()) == ([("lock", "DONE")], "6a82")

    desk.release()

    assert desk.asked == [("lock", "DONE"), ("unlock", "WAITING")]
    desk.contact()
    assert (desk.asked[-1], desk.selects()) == (("unlock", "DONE"), "9000")


def test_a_lock_that_still_waits_is_taken_back(world, desk):
    desk.suspect(Level.LOCK)
    desk.suspect(Level.HOLD)
    assert desk.asked == [("lock", "CANCELLED")]
    desk.suspect(Level.LOCK)
    assert desk.asked == [("lock", "CANCELLED"), ("lock", "WAITING")]


def test_an_unlock_that_still_waits_is_taken_back_and_asked_for_when_it_is_time(world, desk):
    desk.suspect(Level.LOCK)
    desk.contact()
    desk.suspect()
    desk.suspect(Level.LOCK)
    assert desk.asked == [("lock", "DONE"), ("unlock", "CANCELLED")]
    desk.suspect()
    assert desk.asked[2:] == [("unlock", "WAITING")]


def test_a_lock_that_a_phone_is_carrying_is_undone_afterwards(world, desk):
    desk.suspect(Level.LOCK)
    launch = desk.operations.next_contact(ICCID, PROVIDER, "https://sp.example/")
    phone = world.phone()
    answer = phone.start(launch.reception, OPERATOR)
    desk.suspect()
    assert desk.asked == [("lock", "DELEGATED")]
    while answer.process.name != "END":
        answer = phone.say(phone.obey(answer))
    for _ in range(2):  # the contact is settled, then looked at again
        world.clock.pass_by(seconds=3)
        desk.follow()
    assert desk.asked == [("lock", "DONE"), ("unlock", "WAITING")]


def test_what_somebody_else_locked_stays_locked(world, desk):
    locked = desk.operations.lock(ICCID, APP, "a test", PERSON).operation
    desk.contact()
    desk.suspect(Level.LOCK)
    desk.suspect()
    assert desk.asked == []
    assert desk.operations.find(locked).state == "DONE"


def test_what_a_person_took_back_is_not_asked_for_again_at_the_same_level(world, desk):
    desk.suspect(Level.LOCK)
    (row,) = desk.operations.waiting(ICCID)
    desk.operations.cancel(row, "it is a test phone", PERSON)
    desk.suspect(Level.LOCK, Level.LOCK)
    desk.start()
    desk.follow()
    assert desk.asked == [("lock", "CANCELLED")]
    desk.suspect()
    desk.suspect(Level.LOCK)
    assert desk.asked[1:] == [("lock", "WAITING")]


def test_what_waited_too_long_is_asked_for_again(world, desk):
    desk.suspect(Level.LOCK)
    world.clock.pass_by(days=30)
    desk.follow()
    assert desk.asked == [("lock", "EXPIRED"), ("lock", "WAITING")]


def test_a_card_without_the_applet_is_asked_for_nothing(world, desk):
    desk.suspect(Level.REVOKE, iccid=OTHER_ICCID)
    world.clock.pass_by(hours=25)
    desk.follow()
    assert desk.asked == []


# A lock left behind, a phone that lies


def begin(desk):
    """A phone fetches what waits and brings it as far as the command itself; the phone, and what it holds."""
    launch = desk.operations.next_contact(ICCID, PROVIDER, "https://sp.example/")
    phone = desk.world.phone()
    answer = phone.start(launch.reception, OPERATOR)
    for _ in range(4):  # connect, SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE
        answer = phone.say(phone.obey(answer))
    return phone, answer


def swallow(desk):
    """The card executes it, and nobody hears of that."""
    phone, answer = begin(desk)
    phone.obey(answer)


def lie(desk):
    """The card executes it, and the phone says that it refused."""
    phone, answer = begin(desk)
    phone.obey(answer)
    answer = phone.say(LinkRequest(Process.RESPONSE, status_word=b"\x69\x85"))
    while answer.process.name != "END":
        answer = phone.say(phone.obey(answer))
    desk.follow()


def later(desk, **time):
    """Time passes, and what waited for it is done: sessions that nobody continued end."""
    desk.world.clock.pass_by(**time)
    for delegation in [f for f in desk.world.facts("delegation-") if isinstance(f, DelegationAccepted)]:
        desk.world.sessions.expire(delegation.provider, delegation.reception)
    desk.follow()


def test_while_the_card_is_on_hold_nothing_is_unlocked(world, desk):
    desk.suspect(Level.LOCK)
    desk.contact()
    desk.suspect(Level.HOLD)  # the loss is explained, the strange phone is not
    desk.contact()
    assert (desk.asked, desk.selects()) == ([("lock", "DONE")], "6a82")
    desk.suspect()
    desk.contact()
    assert (desk.asked, desk.selects()) == ([("lock", "DONE"), ("unlock", "DONE")], "9000")


def test_a_lock_that_waits_serves_again_when_the_level_fell_and_rose_unseen(world, desk):
    desk.suspect(Level.LOCK)
    world.record(standings.stream(ICCID), *(LevelChanged(level=level) for level in (Level.HOLD, Level.LOCK)))
    desk.follow()
    assert desk.asked == [("lock", "WAITING")]


@pytest.mark.parametrize("level", [Level.HOLD, Level.LOCK])
def test_an_unlock_that_waits_when_the_card_is_on_hold_again_is_taken_back(world, desk, level):
    desk.suspect(Level.LOCK)
    desk.contact()
    desk.suspect()
    desk.suspect(level)
    assert desk.asked == [("lock", "DONE"), ("unlock", "CANCELLED")]


def test_nor_does_a_phone_get_the_unlock_that_a_person_asked_for_before(world, desk):
    desk.operations.lock(ICCID, APP, "a test", PERSON)
    desk.contact()
    unlock = desk.operations.unlock(ICCID, APP, "the test is over", PERSON).operation
    desk.suspect(Level.HOLD)
    desk.contact()
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.CARD_ON_HOLD):
        desk.operations.contact(unlock, PERSON)
    [tried] = [event for event in world.events() if event.topic == "standing.use_refused"][-1:]
    assert (tried.fact.use, tried.fact.provider, tried.context.actor) == ("UNLOCK", "", PERSON.actor)
    assert (desk.operations.find(unlock).state, desk.selects()) == ("WAITING", "6a82")
    desk.suspect()
    desk.contact()
    assert (desk.operations.find(unlock).state, desk.selects()) == ("DONE", "9000")


def test_a_lock_of_which_nobody_heard_does_not_lock_its_owner_out(world, desk):
    desk.suspect(Level.LOCK)
    swallow(desk)
    desk.release()
    later(desk, minutes=2)
    assert desk.selects() == "6a82"
    assert desk.asked == [("lock", "CANCELLED"), ("audit", "WAITING")]
    desk.contact()
    assert (desk.asked[1:], desk.selects()) == ([("audit", "DONE"), ("unlock", "DONE")], "9000")


def test_nor_does_one_that_a_lying_phone_carried(world, desk):
    desk.suspect(Level.LOCK)
    lie(desk)
    desk.release()
    assert desk.asked == [("lock", "FAILED"), ("audit", "WAITING")]
    desk.contact()
    assert (desk.asked[1:], desk.selects()) == ([("audit", "DONE"), ("unlock", "DONE")], "9000")


def test_a_lock_that_never_reached_the_card_is_no_news_to_its_owner(world, desk):
    desk.suspect(Level.LOCK)
    begin(desk)  # and the command never comes to the card
    desk.release()
    later(desk, minutes=2)
    desk.contact()
    assert (desk.asked, desk.selects()) == ([("lock", "CANCELLED"), ("audit", "DONE")], "9000")


def test_an_unlock_of_which_nobody_heard_does_not_leave_the_thief_an_open_applet(world, desk):
    desk.suspect(Level.LOCK)
    desk.contact()
    desk.suspect()
    swallow(desk)
    desk.suspect(Level.LOCK)
    later(desk, minutes=2)
    assert (desk.selects(), desk.asked[2:]) == ("9000", [("audit", "WAITING")])
    desk.contact()
    assert (desk.asked[2:], desk.selects()) == ([("audit", "DONE"), ("lock", "DONE")], "6a82")


@pytest.mark.parametrize(("level", "kind"), [(Level.LOCK, "lock"), (Level.REVOKE, "delete")])
def test_what_a_phone_says_the_card_refused_is_asked_for_again_another_day(world, desk, level, kind):
    """Not at once, for whoever has the card in hand would never get to anything else."""
    desk.suspect(level)
    if level is Level.REVOKE:
        desk.contact()
        later(desk, hours=25)
    phone, answer = begin(desk)
    answer = phone.say(LinkRequest(Process.RESPONSE, status_word=b"\x69\x85"))  # the card was never told
    while answer.process.name != "END":
        answer = phone.say(phone.obey(answer))
    desk.follow()
    assert desk.asked[-1] == (kind, "FAILED")
    later(desk, hours=23)
    assert desk.asked[-1] == (kind, "FAILED")
    later(desk, hours=2)
    assert desk.asked[-2:] == [(kind, "FAILED"), (kind, "WAITING")]
    desk.contact()
    assert (desk.asked[-1], desk.selects()) == ((kind, "DONE"), "6a82")


def test_what_somebody_locked_while_ours_waited_stays_locked(world, desk):
    desk.suspect(Level.LOCK)
    theirs = desk.operations.lock(ICCID, APP, "a test", PERSON).operation
    desk.carry_out(desk.operations.contact(theirs, PERSON))
    desk.follow()
    desk.release()
    assert (desk.asked, desk.selects()) == ([("lock", "CANCELLED")], "6a82")


# Revocation


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (Condition.TERMINATED, "cessationOfOperation"),
        (Condition.PORTED_OUT, "cessationOfOperation"),
        (Condition.CARD_REPLACED, "cessationOfOperation"),
        (Condition.LOST, "keyCompromise"),
    ],
)
def test_after_the_settle_window_it_is_revoked_and_the_applet_is_to_go(world, desk, credential, condition, reason):
    desk.suspect(Level.REVOKE, condition=condition)
    assert world.credential(credential).hold is Hold.HELD
    assert desk.asked == [("lock", "WAITING")]
    world.clock.pass_by(hours=23)
    desk.follow()
    assert world.credential(credential).revocation is None

    world.clock.pass_by(hours=2)
    desk.follow()

    assert topics(world, credential, 2) == ["revocation_ordered", "revoked"]
    assert reasons(world, credential) == [reason, reason]
    assert desk.asked == [("lock", "WAITING"), ("delete", "WAITING")]
    desk.contact()
    assert (desk.asked[-1], desk.selects()) == (("delete", "DONE"), "6a82")
    assert APP not in world.card_record().applications


def test_no_second_person_is_asked_for_what_the_policy_says(world, desk):
    desk.suspect(Level.REVOKE)
    world.clock.pass_by(hours=25)
    desk.follow()
    delete = [f for f in world.facts("operation-") if isinstance(f, OperationRequested) and f.kind == "delete"]
    assert [(fact.needs_approval, fact.requested_by) for fact in delete] == [(False, ACTOR)]
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.FORBIDDEN):
        program = Context(actor="operator:program", role="operator", tenant=OPERATOR, correlation="")
        desk.operations.delete(ICCID, APP, False, "a program asks", program)


def test_a_person_who_confirms_it_waits_for_nothing(world, desk, credential):
    desk.suspect(Level.REVOKE, condition=Condition.TERMINATED)
    now = world.tsm.now()
    desk.decide(lambda state: standings.close(state, f"{0:032x}", Verdict.CONFIRMED, now))
    assert world.credential(credential).revoked


def test_a_late_signal_that_explains_it_in_time_ends_it(world, desk, credential):
    desk.suspect(Level.REVOKE, condition=Condition.TERMINATED)
    desk.suspect()
    world.clock.pass_by(hours=25)
    desk.follow()
    assert world.credential(credential).revocation is None
    assert world.credential(credential).hold is Hold.NONE
    assert desk.asked == [("lock", "CANCELLED")]


def test_what_is_revoked_stays_so_when_the_suspicion_is_lifted(world, desk, credential):
    desk.suspect(Level.REVOKE)
    world.clock.pass_by(hours=25)
    desk.follow()
    desk.decide(lambda state: standings.close(state, f"{0:032x}", Verdict.FALSE_ALARM, world.tsm.now()))
    assert topics(world, credential, 1) == ["revoked"]
    assert desk.asked == [("lock", "CANCELLED"), ("delete", "CANCELLED")]


def test_a_revocation_that_somebody_ordered_takes_the_place_of_the_hold(world, desk, credential):
    Revocation(world.tsm, world.line).revoke(credential, "superseded", PERSON)
    desk.suspect(Level.HOLD)
    assert topics(world, credential, 2) == ["revocation_ordered", "revoked"]
    assert reasons(world, credential) == ["superseded", "superseded"]


def test_the_way_to_a_new_credential_on_another_card_is_open(world, desk, credential):
    desk.suspect(Level.REVOKE, condition=Condition.CARD_REPLACED)
    world.clock.pass_by(hours=25)
    desk.follow()
    assert world.credential(credential).revoked

    slip = world.apply(world.signed(world.document(iccid=OTHER_ICCID)))
    world.check(slip, OTHER_ICCID)
    write(world, slip, iccid=OTHER_ICCID)
    world.follow()
    desk.follow()

    assert (world.credential(slip.credential).in_use, world.credential(slip.credential).hold) == (True, Hold.NONE)
    assert reasons(world, slip.credential) == [None, None]
    assert reasons(world, credential) == ["cessationOfOperation"] * 2


def test_a_window_that_ends_while_no_server_runs_ends_at_the_next_start(world, desk, credential):
    place = StoredPosition(world.folder / "swap-response")

    def served():
        made = SwapResponseFollower(world.tsm, desk.response, place)
        made.start()
        deadline = time.monotonic() + 5
        while made._after < world.tsm.position or not made.keeping_up():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        made.stop()
        return world.credential(credential).revocation

    desk.suspect(Level.REVOKE, condition=Condition.TERMINATED)
    world.clock.pass_by(hours=23, minutes=59)
    assert served() is None
    world.clock.pass_by(minutes=1)
    assert served() is not None


# Crash and repetition


@pytest.mark.parametrize("level", [Level.HOLD, Level.LOCK, Level.REVOKE])
def test_servers_that_read_the_whole_log_again_do_nothing_twice(world, desk, credential, level):
    desk.suspect(level)
    world.clock.pass_by(hours=25)
    desk.follow()
    events = len(world.events())
    for _ in range(2):
        desk.start()
        desk.follow()
    assert len(world.events()) == events


def test_a_server_that_died_between_its_steps_goes_on(world, desk, credential, monkeypatch):
    """It dies before each of its commits, one after the other."""
    commit, deaths = world.tsm.commit, 0

    def dying(*changes, **options):
        nonlocal deaths
        if deaths % 2 == 0:
            deaths += 1
            raise ZeroDivisionError
        deaths += 1
        return commit(*changes, **options)

    world.record(standings.stream(ICCID), *standings.reassess(None, [finding(world)], DEFAULT, world.tsm.now()))
    world.clock.pass_by(hours=25)
    monkeypatch.setattr(world.tsm, "commit", dying)
    for _ in range(12):
        desk.start()
        try:
            desk.follow()
        except ExceptionGroup as group:
            assert group.subgroup(ZeroDivisionError)
    monkeypatch.undo()
    assert world.credential(credential).revoked
    assert desk.asked == [("delete", "WAITING")]


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_server_that_dies_at_each_commit_holds_and_releases_once(world, desk, credential, monkeypatch, dies):
    """It dies before each of them, or before it hears that it was done; and begins anew each time."""
    commit = world.tsm.commit
    known = set()

    def dying(*changes, **options):
        what = tuple((fact.topic, getattr(fact, "kind", "")) for change in changes for fact in change.facts)
        recorded = commit(*changes, **options) if dies == "after" or what in known else 0
        if what not in known:
            known.add(what)
            raise ZeroDivisionError
        return recorded

    def to_the_end():
        monkeypatch.setattr(world.tsm, "commit", dying)
        for _ in range(12):
            desk.start()
            try:
                desk.follow()
            except ExceptionGroup as group:
                assert group.subgroup(ZeroDivisionError)
        monkeypatch.undo()

    stream = standings.stream(ICCID)
    world.record(stream, *standings.reassess(None, [finding(world, Level.LOCK)], DEFAULT, world.tsm.now()))
    to_the_end()
    desk.contact()
    cleared = standings.release(world.tsm.load(stream, standings.evolve).state, Proof.CLERK, "", world.tsm.now())
    world.record(stream, *cleared)
    to_the_end()
    desk.contact()
    assert topics(world, credential, 5) == ["hold_ordered", "held", "release_ordered", "released", "signature_reissued"]
    assert desk.asked == [("lock", "DONE"), ("unlock", "DONE")]
    assert reasons(world, credential) == [None, None]


def test_two_servers_on_one_log_do_it_once(world, desk, credential):
    _, tsm, sessions = world.worker()
    contacts = Contacts(tsm, world.vault, sessions, "https://tsm.example/mno/return", tsm.now, urandom)
    other = Operations(tsm, contacts, Scripts(tsm, world.vault), Policy(), {})
    servers = [
        [
            SwapResponseFollower(world.tsm, desk.response, NoPosition()),
            HoldFollower(world.tsm, world.line, NoPosition()),
        ],
        [
            SwapResponseFollower(tsm, SwapResponse(tsm, other), NoPosition()),
            HoldFollower(tsm, world.line, NoPosition()),
        ],
    ]
    stream = standings.stream(ICCID)
    for worker in [worker for server in servers for worker in server]:
        worker.start()
    for level in (Level.LOCK, Level.HOLD, Level.LOCK, Level.NONE, Level.LOCK):
        found = [] if level is Level.NONE else [finding(world, level)]
        world.clock.pass_by(seconds=5)
        state = world.tsm.load(stream, standings.evolve).state
        world.record(stream, *standings.reassess(state, found, DEFAULT, world.tsm.now()))
    deadline = time.monotonic() + 10
    while world.credential(credential).hold is not Hold.HELD or desk.asked[-1:] != [("lock", "WAITING")]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for worker in [worker for server in servers for worker in server]:
        worker.stop()
    tsm.close()
    assert [kind for kind, state in desk.asked if state == "WAITING"] == ["lock"]
    events = len(world.events())
    desk.start()
    desk.follow()
    assert len(world.events()) == events


class Restless:
    """A suspicion that comes and goes, a phone that does as it likes, an authority that is silent at times.

    Only `follow` and what begins with `contact` let the workers see anything of it.
    """

    def __init__(self, world, desk):
        self.world, self.desk = world, desk
        self.steps = {
            **{level.name: partial(self.suspect, level) for level in (Level.NONE, Level.HOLD, Level.LOCK)},
            "release": self.release,
            "follow": self.follow,
            "silent": lambda: setattr(world.line, "silent", True),
            "speaks": lambda: setattr(world.line, "silent", False),
            "restart": desk.start,
            "contact": partial(self.contact, carry),
            "contact swallowed": partial(self.contact, swallow),
            "contact told wrongly": partial(self.contact, lie),
            "contact cut off": partial(self.contact, begin),
            "time": partial(later, desk, minutes=2),
        }

    def suspect(self, level):
        found = [] if level is Level.NONE else [finding(self.world, level, Condition.LOST)]
        self.decide(lambda state: standings.reassess(state, found, DEFAULT, self.world.tsm.now()))

    def release(self):
        now = self.world.tsm.now()
        self.decide(lambda state: standings.release(state, Proof.CLERK, "", now) if state and state.on_hold else [])

    def decide(self, decide):
        """Of another suspicion each time."""
        self.world.clock.pass_by(seconds=5)
        stream = standings.stream(ICCID)
        self.world.record(stream, *decide(self.world.tsm.load(stream, standings.evolve).state))

    def follow(self):
        time.sleep(0.02)  # as long as an authority that was silent is left in peace
        self.desk.follow()

    def contact(self, behave):
        if any(self.desk.operations.find(one).state == "WAITING" for one in self.waiting()):
            behave(self.desk)

    def waiting(self):
        return self.desk.operations.waiting(ICCID)

    def come_to_rest(self):
        """All is told and carried: two days are enough."""
        self.world.line.silent = False
        for _ in range(4):
            later(self.desk, hours=13)
            self.follow()
            self.desk.contact()


def carry(desk):
    launch = desk.operations.next_contact(ICCID, PROVIDER, "https://sp.example/")
    if launch is not None:
        desk.carry_out(launch)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_it_came_about_in_the_end_all_is_as_the_level_says(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("restless")
    world = IssuanceWorld(folder)
    desk = Desk(world, folder)
    credential, restless = written(world), Restless(world, desk)
    for step in data.draw(st.lists(st.sampled_from(sorted(restless.steps)), min_size=3, max_size=14)):
        restless.steps[step]()
    restless.come_to_rest()

    level = world.tsm.load(standings.stream(ICCID), standings.evolve).state
    level = level.level if level else Level.NONE
    wanted = Hold.HELD if level >= Level.HOLD else Hold.NONE
    assert world.credential(credential).hold is wanted
    assert reasons(world, credential) == ["certificateHold" if wanted is Hold.HELD else None] * 2
    latest = x509.load_der_x509_certificate(world.authority.certificates(credential).signature)
    known = world.credential(credential).reissued
    assert known is None or known.signature_serial == f"{latest.serial_number:X}"
    if level is not Level.HOLD:  # then it stays as it is
        assert desk.selects() == ("6a82" if level is Level.LOCK else "9000")
    assert restless.waiting() == []
    events = len(world.events())
    desk.start()
    desk.follow()
    assert len(world.events()) == events
    desk.vault.close()
    world.close()


def finding(world, level=Level.REVOKE, condition=Condition.TERMINATED):
    now = world.tsm.now()
    name = f"{now.timestamp():032.0f}"
    return Finding(name, "rule-0", condition, level, now, None, (1,), revoke_from(level, now))


def test_the_position_stays_before_what_is_not_done(world, desk):
    desk.suspect(Level.REVOKE)
    response = desk.workers[0]
    at = [event.position for event in world.events() if event.originator_id == standings.stream(ICCID)]
    assert response.unfinished() == at[-1]
    world.clock.pass_by(hours=25)
    desk.follow()
    assert response.unfinished() is None
