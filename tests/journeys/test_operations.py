"""What an operator asks for, from the request to the card: over the real session service, on the simulated card.

Alice asks, Bob agrees where two are needed, a phone carries. What is true in the end, the card itself tells.
"""

from datetime import UTC, datetime

import msgspec
import pytest
from mas_world import DOMAIN, GET_KEY_INFORMATION, ICCID, ISD, OPERATOR, OTHER_ICCID, PROVIDER, RETURN_URLS, NoPosition
from test_deployment import APPLICATION, LOAD_FILE, Deployment, registered

from tsm.errors import ErrorCode, TsmError
from tsm.flows.audit import INSTANCES, WITNESS, ask
from tsm.flows.deployment import Deployments
from tsm.flows.follower import StoredPosition
from tsm.flows.operations import Operations, OperationsWorker, Policy
from tsm.flows.retired_keys import RetiredKeysWorker
from tsm.flows.scripts import Scripts
from tsm.globalplatform.commands import Select
from tsm.mas.messages import LinkRequest, Process, Return
from tsm.model.card import (
    ApplicationInstalled,
    CardAuthenticationFailed,
    ContentAudited,
    ContentDeleted,
    KeysDestroyed,
    KeysProved,
    KeysPut,
    LifeCycleChanged,
    SecurityDomainCreated,
)
from tsm.model.deployment import DeploymentStep
from tsm.model.event import Context
from tsm.model.operation import (
    OperationApproved,
    OperationDelegated,
    OperationEnded,
    OperationKind,
    OperationPutBack,
    OperationRequested,
)
from tsm.store.recorder import Command
from tsm.uicc.faults import ConnectionCut, cut_after, cut_before, deny, from_command

APP, FILE, WITNESS_AID = APPLICATION.hex().upper(), LOAD_FILE.hex().upper(), WITNESS.hex().upper()
OTHER_APP = "A00000000101"
ALICE = Context(actor="alice", role="operator", tenant=OPERATOR, correlation="", person="alice")
BOB = Context(actor="bob", role="operator", tenant=OPERATOR, correlation="", person="bob")
OPENING = 3  # SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE
INSTALLED = ApplicationInstalled(
    application=APP, module=APP, load_file=FILE, domain=DOMAIN, privileges="00", life_cycle="SELECTABLE"
)
NO_WAIT_FOR_ANYBODY = Policy(four_eyes=frozenset())


class Desk(Deployment):
    """An operator's desk: operations, the workers of one server, and a phone."""

    def __init__(self, world, folder, policy=NO_WAIT_FOR_ANYBODY, executors=None):
        super().__init__(world, folder)
        self.operations = Operations(world.tsm, self.contacts, Scripts(world.tsm, world.vault), policy, executors or {})
        self.deployments = Deployments(world.tsm, world.vault, self.contacts, self.operations, world.tsm.now)
        self.worker = OperationsWorker(world.tsm, self.operations, NoPosition())
        self.retired = RetiredKeysWorker(world.tsm, world.vault, NoPosition())

    def prepare(self):
        """The card as a provider has it before personalisation."""
        self.carry_out(self.deploy())
        self.rotate()
        self.carry_out(self.deploy())

    def follow(self):
        """One round of the workers."""
        for worker in (self.worker, self.retired):
            worker._catch_up()
            worker.act()

    def contact(self, operation, transmit=None):
        """The phone is at hand; then the workers look."""
        launch = self.operations.contact(operation, ALICE)
        try:
            self.carry_out(launch, transmit)
        except ConnectionCut:
            self.world.clock.pass_by(seconds=61)
            self.world.sessions.expire(OPERATOR, launch.reception)
            self.world.card.reset()
        self.follow()

    def state(self, operation):
        return self.operations.find(operation).state

    def facts(self, operation):
        return [type(fact) for fact in self.world.facts(f"operation-{operation}")]

    def selects(self, aid):
        self.world.card.reset()
        return self.world.card.transmit(Select(bytes.fromhex(aid)).apdu().encode())[-2:].hex().upper()

    @property
    def free(self):
        return self.world.card._content.free_octets


@pytest.fixture
def desk(world, tmp_path):
    made = Desk(world, tmp_path)
    yield made
    made.vault.close()


@pytest.fixture
def strict(world, tmp_path):
    """Where policy wants a second person for what destroys."""
    made = Desk(world, tmp_path, Policy())
    made.prepare()
    yield made
    made.vault.close()


@pytest.fixture
def prepared(desk):
    desk.prepare()
    return desk


def refused(code):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


# what is done on a card


def test_a_locked_application_refuses_until_it_is_unlocked(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    assert (prepared.state(locked), prepared.selects(APP)) == ("WAITING", "9000")
    prepared.contact(locked)
    assert (prepared.state(locked), prepared.selects(APP)) == ("DONE", "6A82")
    assert world.card_record().applications[APP].life_cycle == "LOCKED"

    unlocked = prepared.operations.unlock(ICCID, APP, "found again", ALICE).operation
    prepared.contact(unlocked)

    assert (prepared.state(unlocked), prepared.selects(APP)) == ("DONE", "9000")
    changes = [fact for fact in world.facts(f"card-{ICCID}") if isinstance(fact, LifeCycleChanged)]
    assert [(fact.life_cycle, fact.found) for fact in changes] == [("LOCKED", False), ("SELECTABLE", False)]
    assert prepared.facts(locked) == [OperationRequested, OperationDelegated, OperationEnded]


def test_a_locked_domain_returns_to_what_it_was_and_what_is_in_it_is_locked_by_itself(world, prepared):
    prepared.contact(prepared.operations.lock(ICCID, DOMAIN, "an incident", ALICE).operation)
    assert (prepared.selects(DOMAIN), prepared.selects(APP)) == ("6A82", "9000")
    assert world.card_record().domain(DOMAIN).life_cycle == "LOCKED"
    assert world.card_record().applications[APP].life_cycle == "SELECTABLE"
    prepared.contact(prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation)

    prepared.contact(prepared.operations.unlock(ICCID, DOMAIN, "it is over", ALICE).operation)

    assert (prepared.selects(DOMAIN), prepared.selects(APP)) == ("9000", "6A82")
    assert world.card_record().domain(DOMAIN).life_cycle == "PERSONALIZED"


def test_a_deleted_application_gives_its_memory_back_and_can_come_again(world, prepared):
    before = prepared.free
    deleted = prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    prepared.contact(deleted)

    assert (prepared.state(deleted), prepared.selects(APP)) == ("DONE", "6A82")
    assert prepared.free > before
    assert APP not in world.card_record().applications
    assert prepared.step() is DeploymentStep.APPLICATION
    installed = prepared.operations.install(ICCID, FILE, "", ALICE).operation
    prepared.contact(installed)
    assert (prepared.state(installed), prepared.selects(APP)) == ("DONE", "9000")
    assert prepared.free == before


def test_a_domain_goes_with_all_that_is_in_it_and_leaves_no_key_behind(world, prepared):
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.delete(ICCID, DOMAIN, False, "the contract has ended", ALICE)
    assert world.vault.has(f"card/{ICCID}/{DOMAIN}/02")

    deleted = prepared.operations.delete(ICCID, DOMAIN, True, "the contract has ended", ALICE).operation
    prepared.contact(deleted)

    assert prepared.state(deleted) == "DONE"
    assert [domain.aid for domain in world.card._memory.domains] == [bytes.fromhex(ISD)]
    record = world.card_record()
    assert (set(record.domains), record.load_files, record.applications) == ({ISD}, {}, {})
    assert not world.vault.has(f"card/{ICCID}/{DOMAIN}/02")
    gone = [fact.key_version for fact in world.facts(f"card-{ICCID}") if isinstance(fact, KeysDestroyed)]
    assert sorted(gone) == [1, 2]  # the provisional ones, and ENC and MAC of the owner's


def test_keys_that_a_provider_had_replaced_itself_go_with_its_domain_too(world, prepared):
    world.vault.generate_aes_key_set(f"card/{ICCID}/{DOMAIN}/03")
    third = world.vault.wrap_key_set(f"card/{ICCID}/{DOMAIN}/03", under=f"card/{ICCID}/{DOMAIN}/03")
    values = tuple(key.check_value.hex() for key in third)
    put = KeysPut(domain=DOMAIN, key_version=3, check_values=values, provisional=False, key=f"card/{ICCID}/{DOMAIN}/03")
    world.record(f"card-{ICCID}", put)
    prepared.follow()
    assert world.vault.has(f"card/{ICCID}/{DOMAIN}/02")

    prepared.contact(prepared.operations.delete(ICCID, DOMAIN, True, "the contract has ended", ALICE).operation)

    assert not any(world.vault.has(f"card/{ICCID}/{DOMAIN}/{version}") for version in ("01", "02", "03"))


def test_keys_that_a_provider_shared_and_never_put_go_with_its_domain_too(world, desk):
    desk.carry_out(desk.deploy())
    desk.vault.generate_aes_key_set("own")
    label = f"{PROVIDER}|{ICCID}|{DOMAIN}|02".encode()
    wrapped = desk.vault.export_key_set("own", desk.keys.transport_key(), label, ("enc", "mac"))
    desk.keys.take(PROVIDER, ICCID, 2, desk.vault.check_values("own"), wrapped)
    desk.follow()
    assert world.vault.has(f"card/{ICCID}/{DOMAIN}/02")

    desk.contact(desk.operations.delete(ICCID, DOMAIN, False, "the contract has ended", ALICE).operation)

    assert not any(world.vault.has(f"card/{ICCID}/{DOMAIN}/{version}") for version in ("01", "02"))


def test_a_domain_that_was_deleted_is_made_anew_with_other_keys(world, prepared):
    prepared.contact(prepared.operations.delete(ICCID, DOMAIN, True, "a mistake", ALICE).operation)
    again = prepared.operations.create_domain(ICCID, DOMAIN, "", ALICE).operation
    prepared.contact(again)
    assert prepared.state(again) == "DONE"
    assert world.card_record().domain(DOMAIN).provisional
    with refused(ErrorCode.ALREADY_EXISTS):
        prepared.operations.create_domain(ICCID, DOMAIN, "", ALICE)


def test_keys_of_an_earlier_domain_are_never_put_into_a_later_one(world, desk):
    """Also when the worker has not come by: the provisional keys were never replaced, and lie in the vault."""
    desk.contact(desk.operations.create_domain(ICCID, DOMAIN, "", ALICE).operation)
    first = world.card_record().domain(DOMAIN).check_values
    launch = desk.operations.contact(desk.operations.delete(ICCID, DOMAIN, False, "a mistake", ALICE).operation, ALICE)
    desk.carry_out(launch)

    again = desk.operations.create_domain(ICCID, DOMAIN, "", ALICE).operation
    desk.carry_out(desk.operations.contact(again, ALICE))
    desk.follow()

    second = world.card_record().domain(DOMAIN)
    assert second.check_values != first
    assert world.vault.check_values(second.key) == second.check_values  # and the worker destroyed none of these


def test_an_unused_launch_puts_no_keys_that_the_vault_destroyed_meanwhile(world, desk):
    """The provider's step was offered twice; one launch made the domain, a deletion took it and its keys."""
    unused, used = desk.deploy(), desk.deploy()
    desk.carry_out(used)
    desk.carry_out(
        desk.operations.contact(desk.operations.delete(ICCID, DOMAIN, False, "ended", ALICE).operation, ALICE)
    )
    for _ in range(2):  # before the worker has destroyed them, and afterwards
        with refused(ErrorCode.RECEPTION_CLOSED):
            desk.carry_out(unused)
        desk.follow()
    assert set(world.card_record().domains) == {ISD}
    assert [domain.aid for domain in world.card._memory.domains] == [bytes.fromhex(ISD)]

    desk.carry_out(desk.deploy())
    assert world.card_record().domain(DOMAIN).provisional


def test_the_issuers_keys_rotate_and_the_old_go_when_the_card_has_proved_the_new(world, desk):
    for version in (2, 3):
        rotated = desk.operations.rotate_keys(ICCID, "every year", ALICE).operation
        desk.contact(rotated)
        assert desk.state(rotated) == "DONE"
        assert world.card_record().domain(ISD).key_version == version
    second = f"card/{ICCID}/{ISD}/02"
    assert world.vault.has(second)  # version 3 is acknowledged, but the card has not yet authenticated itself with it
    assert [keys.version for keys in world.card._memory.issuer_domain.key_sets] == [3]

    desk.contact(desk.operations.audit(ICCID, "", ALICE).operation)

    assert not world.vault.has(second)
    facts = [fact for fact in world.facts(f"card-{ICCID}") if isinstance(fact, KeysProved | KeysDestroyed)]
    assert [(type(fact), fact.key_version) for fact in facts] == [(KeysProved, 2), (KeysProved, 3), (KeysDestroyed, 2)]
    assert world.vault.has(f"operator/{OPERATOR}/isd")  # the master key is for all cards


def test_a_put_key_that_was_never_answered_is_found_when_the_card_proves_the_keys(world, desk):
    rotated = desk.operations.rotate_keys(ICCID, "every year", ALICE).operation
    desk.contact(rotated, cut_after(world.card.transmit, OPENING + 1))
    assert (desk.state(rotated), world.card_record().domain(ISD).key_version) == ("WAITING", 1)
    desk.contact(rotated)  # the card is opened with what it has
    assert (desk.state(rotated), world.card_record().domain(ISD).key_version) == ("DONE", 2)


def test_what_is_done_while_the_servers_workers_destroy_old_keys_is_believed(world, desk):
    """With the first command the card has proved its new keys: the worker records in mid-session that the old went."""
    desk.prepare()
    for _ in range(2):
        desk.contact(desk.operations.rotate_keys(ICCID, "every year", ALICE).operation)
    locked = desk.operations.lock(ICCID, APP, "reported stolen", ALICE).operation

    def while_workers_work(command):
        answer = world.card.transmit(command)
        desk.follow()
        return answer

    desk.contact(locked, while_workers_work)

    assert desk.state(locked) == "DONE"
    tail = [type(fact) for fact in world.facts(f"card-{ICCID}")][-3:]
    assert tail == [KeysProved, KeysDestroyed, LifeCycleChanged]


def test_an_answer_whose_keys_are_gone_leaves_a_doubt(world, prepared):
    """The card deleted; the phone keeps the answer until the keys that could read it were replaced and destroyed."""
    prepared.contact(prepared.operations.rotate_keys(ICCID, "every year", ALICE).operation)
    deleted = prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    launch = prepared.operations.contact(deleted, ALICE)
    phone = world.phone()
    answer = phone.say(
        LinkRequest(Process.START, provider=launch.provider, reception=launch.reception, signature=launch.signature)
    )
    for _ in range(1 + OPENING):
        answer = phone.say(phone.obey(answer))
    kept = phone.obey(answer)
    prepared.contact(prepared.operations.rotate_keys(ICCID, "every year", ALICE).operation)
    world.run([GET_KEY_INFORMATION])  # the card proves the third
    prepared.follow()
    assert not world.vault.has(f"card/{ICCID}/{ISD}/02")

    answer = phone.say(kept)
    while answer.process is not Return.END:
        answer = phone.say(phone.obey(answer))
    prepared.follow()

    assert (prepared.state(deleted), world.card_record().doubtful) == ("WAITING", {ISD})
    prepared.contact(deleted)  # asks
    assert (prepared.state(deleted), APP in world.card_record().applications) == ("DONE", False)


def test_an_audit_finds_what_nobody_recorded(world, prepared):
    application = world.card._memory.applications[0]
    application.life_cycle |= 0x80  # by whoever else has the issuer's keys
    asked = prepared.operations.audit(ICCID, "", ALICE).operation
    prepared.contact(asked)
    assert prepared.state(asked) == "DONE"
    assert world.card_record().applications[APP].life_cycle == "LOCKED"
    locked = LifeCycleChanged(instance=APP, domain=DOMAIN, life_cycle="LOCKED", found=True)
    assert [f for f in world.facts(f"card-{ICCID}") if isinstance(f, LifeCycleChanged)] == [locked]


def test_an_audit_finds_what_somebody_deleted(world, prepared):
    world.card._memory.applications.clear()
    prepared.contact(prepared.operations.audit(ICCID, "", ALICE).operation)
    gone = ContentDeleted(target=APP, domain=DOMAIN, deleted=(APP,), found=True)
    assert [f for f in world.facts(f"card-{ICCID}") if isinstance(f, ContentDeleted)] == [gone]


# answers that are lost or forged


def test_a_lock_whose_answer_was_lost_is_found_at_the_next_contact(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.contact(locked, cut_after(world.card.transmit, OPENING + 1))
    assert prepared.state(locked) == "WAITING"
    assert world.card_record().doubtful == {ISD}

    prepared.contact(locked)

    assert prepared.state(locked) == "DONE"
    assert world.card_record().applications[APP].life_cycle == "LOCKED"
    assert world.card_record().doubtful == frozenset()
    assert prepared.facts(locked) == [
        OperationRequested, OperationDelegated, OperationPutBack, OperationDelegated, OperationEnded,
    ]  # fmt: skip


def test_a_lock_that_never_reached_the_card_is_sent_again_after_the_question(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.contact(locked, cut_before(world.card.transmit, OPENING + 1))
    prepared.contact(locked)  # asks: it is not locked
    assert (prepared.state(locked), prepared.selects(APP)) == ("WAITING", "9000")
    prepared.contact(locked)
    assert (prepared.state(locked), prepared.selects(APP)) == ("DONE", "6A82")


def test_a_deletion_whose_answer_was_lost_is_proved_by_a_list_that_lacks_it(world, prepared):
    """The last thing on the card goes: the list would be empty, which nobody can prove, so a witness is in it."""
    deleted = prepared.operations.delete(ICCID, DOMAIN, True, "the contract has ended", ALICE).operation
    prepared.contact(deleted, cut_after(world.card.transmit, OPENING + 3))  # application, load file, domain
    assert set(world.card_record().domains) == {ISD, DOMAIN}
    assert [domain.aid for domain in world.card._memory.domains] == [bytes.fromhex(ISD)]

    prepared.contact(deleted)

    assert (prepared.state(deleted), set(world.card_record().domains)) == ("DONE", {ISD})
    tail = [f for f in world.facts(f"card-{ICCID}") if isinstance(f, SecurityDomainCreated | ContentDeleted)][-3:]
    assert isinstance(tail[0], SecurityDomainCreated) and tail[0].domain == WITNESS_AID
    assert tail[1] == ContentDeleted(target=DOMAIN, domain=ISD, deleted=(DOMAIN,), found=True)
    assert tail[2] == ContentDeleted(target=WITNESS_AID, domain=ISD, deleted=(WITNESS_AID,))
    assert [domain.aid for domain in world.card._memory.domains] == [bytes.fromhex(ISD)]


def test_a_full_card_is_asked_without_a_witness_and_can_be_emptied(world, prepared):
    world.card._memory.capacity -= prepared.free
    deleted = prepared.operations.delete(ICCID, APP, False, "it is full", ALICE).operation
    prepared.contact(deleted, cut_before(world.card.transmit, OPENING + 1))
    prepared.contact(deleted)  # asks: there is no room for a witness
    assert (prepared.state(deleted), world.card_record().doubtful) == ("WAITING", {ISD})

    prepared.contact(deleted)  # asks without

    assert (prepared.state(deleted), world.card_record().doubtful) == ("WAITING", frozenset())
    prepared.contact(deleted)
    assert (prepared.state(deleted), prepared.selects(APP)) == ("DONE", "6A82")
    assert OperationPutBack(status="55") in world.facts(f"operation-{deleted}")


def test_a_list_without_a_witness_ends_a_doubt_only_when_something_is_in_it(world, prepared):
    """A phone says that there is no room, and then that there is nothing; the operation does not go round for ever."""
    deleted = prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    prepared.contact(deleted, cut_before(world.card.transmit, OPENING + 1))
    prepared.contact(deleted, deny(world.card.transmit, OPENING + 2, 0x6A84))
    prepared.contact(deleted, from_command(world.card.transmit, OPENING + 1, lambda _: b"\x6a\x88"))
    assert (prepared.state(deleted), world.card_record().doubtful) == ("WAITING", {ISD})
    assert APP in world.card_record().applications

    for _ in range(2):
        prepared.contact(deleted, from_command(world.card.transmit, OPENING + 1, lambda _: b"\x6a\x84"))
    assert prepared.state(deleted) == "FAILED"


def test_a_list_that_names_something_unknown_ends_no_doubt_before_the_card_was_asked_for_that(world, prepared):
    """Somebody else's application is there: it might be what came of the command whose answer was lost."""
    [known] = world.card._memory.applications
    world.card._memory.applications.append(msgspec.structs.replace(known, aid=bytes.fromhex(OTHER_APP)))
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.contact(locked, cut_before(world.card.transmit, OPENING + 1))

    prepared.contact(locked)  # asks for what it is about

    assert (prepared.state(locked), world.card_record().doubtful) == ("WAITING", {ISD})
    assert world.card_record().unknown == [("40", OTHER_APP)]
    assert prepared.deployments.commands(DeploymentStep.AUDIT, world.card_record(), DOMAIN, registered())[3:-2] == ask(
        (INSTANCES, OTHER_APP)
    )

    prepared.contact(locked)  # asks for the other one, too

    assert world.card_record().applications[OTHER_APP].domain == DOMAIN
    assert (world.card_record().doubtful, world.card_record().unknown) == (frozenset(), [])
    prepared.contact(locked)
    assert prepared.state(locked) == "DONE"


def test_a_witness_that_was_left_behind_serves_again_and_goes(world, prepared):
    deleted = prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    prepared.contact(deleted, cut_after(world.card.transmit, OPENING + 1))
    prepared.contact(deleted, cut_after(world.card.transmit, OPENING + 3))  # question, witness, list: not heard
    assert WITNESS_AID in world.card_record().domains

    prepared.contact(deleted)

    assert prepared.state(deleted) == "DONE"
    assert set(world.card_record().domains) == {ISD, DOMAIN}
    assert len(world.card._memory.domains) == 2


def test_that_there_is_nothing_6a88_does_not_prove(world, prepared):
    """A phone says of everything that it is not there: the record stays, and the operation waits."""
    deleted = prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    prepared.contact(deleted, cut_before(world.card.transmit, OPENING + 1))
    nothing_there = from_command(world.card.transmit, OPENING + 1, lambda _: b"\x6a\x88")
    prepared.contact(deleted, nothing_there)
    assert prepared.state(deleted) == "FAILED"  # the witness was refused, they say
    assert APP in world.card_record().applications
    assert world.card_record().doubtful == {ISD}


def test_what_the_card_refused_has_failed_and_what_a_phone_pretended_an_audit_mends(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.contact(locked, deny(world.card.transmit, OPENING + 1))
    assert prepared.state(locked) == "FAILED"
    assert world.facts(f"operation-{locked}")[-1] == OperationEnded(state="FAILED", code="54")
    assert world.card_record().applications[APP].life_cycle == "SELECTABLE"  # but nobody knows

    prepared.contact(prepared.operations.audit(ICCID, "after a refusal", ALICE).operation)

    assert world.card_record().applications[APP].life_cycle == "LOCKED"
    assert any(isinstance(fact, ContentAudited) for fact in world.facts(f"card-{ICCID}"))


def test_an_answer_that_a_phone_held_back_says_nothing_of_a_domain_that_is_gone(world, prepared):
    """The provider's session waits for an answer while the operator deletes the domain."""
    reception = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    phone = world.phone()
    answer = phone.start(reception, PROVIDER)
    for _ in range(OPENING + 1):
        answer = phone.say(phone.obey(answer))
    prepared.contact(prepared.operations.delete(ICCID, DOMAIN, True, "the contract has ended", ALICE).operation)
    before = len(world.facts(f"card-{ICCID}"))

    phone.say(LinkRequest(Process.RESPONSE, data=b"", status_word=b"\x69\x82"))

    assert len(world.facts(f"card-{ICCID}")) == before
    assert set(world.card_record().domains) == {ISD}


def test_an_acknowledgement_that_a_phone_held_back_does_not_undo_what_came_after_it(world, prepared):
    """The card unlocked and was locked again; then the phone delivers what it had kept: only the card can tell."""
    prepared.contact(prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation)
    unlocked = prepared.operations.unlock(ICCID, APP, "found again", ALICE).operation
    launch = prepared.operations.contact(unlocked, ALICE)
    phone = world.phone()
    answer = phone.say(
        LinkRequest(Process.START, provider=launch.provider, reception=launch.reception, signature=launch.signature)
    )
    for _ in range(1 + OPENING):
        answer = phone.say(phone.obey(answer))
    kept = phone.obey(answer)  # the card has unlocked the application
    world.card._memory.applications[0].life_cycle |= 0x80  # and another session locks it again, in the record too:
    world.record(f"card-{ICCID}", LifeCycleChanged(instance=APP, domain=DOMAIN, life_cycle="LOCKED"))

    answer = phone.say(kept)
    while answer.process is not Return.END:
        answer = phone.say(LinkRequest(Process.DISCONNECT_RESULT) if answer.process is Return.DISCONNECT else kept)
    prepared.follow()

    assert world.card_record().applications[APP].life_cycle == "LOCKED"
    assert world.card_record().doubtful == {ISD}
    prepared.contact(unlocked)  # asks
    assert (prepared.state(unlocked), world.card_record().doubtful) == ("WAITING", frozenset())
    prepared.contact(unlocked)
    assert (prepared.state(unlocked), prepared.selects(APP)) == ("DONE", "9000")


# two persons


def test_whoever_asks_does_not_approve_and_nothing_happens_before_a_second_person_did(world, strict):
    deleted = strict.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    assert strict.state(deleted) == "AWAITING_APPROVAL"
    with refused(ErrorCode.FORBIDDEN):
        strict.operations.approve(deleted, ALICE)
    with refused(ErrorCode.WRONG_ORDER):
        strict.operations.contact(deleted, ALICE)
    assert strict.step() is DeploymentStep.DONE  # and the next contact does not bring it

    strict.operations.approve(deleted, BOB)
    strict.operations.approve(deleted, BOB)  # again: no news
    strict.contact(deleted)

    assert (strict.state(deleted), strict.selects(APP)) == ("DONE", "6A82")
    assert strict.facts(deleted) == [OperationRequested, OperationApproved, OperationDelegated, OperationEnded]
    asked, approved = (
        e
        for e in world.events()
        if e.originator_id == f"operation-{deleted}" and isinstance(e.fact, OperationRequested | OperationApproved)
    )
    assert (asked.context.actor, asked.context.tenant, asked.context.tenants) == ("alice", OPERATOR, (PROVIDER,))
    assert (approved.context.actor, approved.context.correlation) == ("bob", deleted)


def test_a_second_person_may_refuse(strict):
    deleted = strict.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    with refused(ErrorCode.FORBIDDEN):
        strict.operations.reject(deleted, "no", ALICE)
    with refused(ErrorCode.INVALID_INPUT):
        strict.operations.reject(deleted, "", BOB)
    strict.operations.reject(deleted, "the wrong card", BOB)
    assert strict.state(deleted) == "REJECTED"
    for again in (strict.operations.approve, strict.operations.contact):
        with refused(ErrorCode.WRONG_ORDER):
            again(deleted, BOB)
    assert strict.operations.waiting(ICCID) == []


def test_what_came_after_the_request_is_not_deleted_with_the_rest(world, strict):
    """Both persons saw the application and the load file; a second application is nothing that they agreed on."""
    asked = strict.operations.delete(ICCID, DOMAIN, True, "the contract has ended", ALICE).operation
    assert strict.operations.find(asked).requested.values == {"related": f"{APP} {FILE}"}
    strict.operations.approve(asked, BOB)
    world.record(f"card-{ICCID}", msgspec.structs.replace(INSTALLED, application=f"{APP}01"))

    with refused(ErrorCode.WRONG_ORDER):
        strict.operations.contact(asked, ALICE)

    assert world.facts(f"operation-{asked}")[-1] == OperationEnded(state="FAILED", code="WRONG_ORDER")
    assert strict.selects(APP) == "9000"


def test_what_has_gone_since_the_request_does_not_stand_in_its_way(world, strict):
    asked = strict.operations.delete(ICCID, DOMAIN, True, "the contract has ended", ALICE).operation
    alone = strict.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    for operation in (asked, alone):
        strict.operations.approve(operation, BOB)
    strict.contact(alone)
    strict.contact(asked)
    assert (strict.state(asked), set(world.card_record().domains)) == ("DONE", {ISD})


# the contact


def test_a_providers_next_contact_brings_what_waits_for_the_card_first(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    offered = prepared.deployments.deploy(PROVIDER, ICCID, RETURN_URLS[PROVIDER])
    assert offered.step is DeploymentStep.OPERATION

    mas_sign = prepared.carry_out(offered.launch)

    assert prepared.deployments.come_back(offered.launch.reception, mas_sign) == RETURN_URLS[PROVIDER]
    assert prepared.step() is DeploymentStep.DONE  # settled by asking for the next step, before any worker looks
    assert prepared.state(locked) == "DONE"


def test_what_no_contact_can_bring_does_not_stand_in_a_providers_way(world, prepared):
    """The issuer's domain is left alone after too many failures; the provider's own needs nothing of it."""
    waits = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    failed = [CardAuthenticationFailed(domain=ISD, key_version=1, failures=number) for number in range(1, 6)]
    world.record(f"card-{ICCID}", *failed)
    assert prepared.step() is DeploymentStep.DONE
    assert prepared.state(waits) == "WAITING"


def test_an_operators_own_contact_has_nowhere_to_go_back_to(prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    launch = prepared.operations.contact(locked, ALICE)
    mas_sign = prepared.carry_out(launch)
    assert prepared.deployments.come_back(launch.reception, mas_sign) == ""


def test_a_browser_that_asks_again_gets_the_same_contact_until_the_phone_has_begun(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    first = prepared.operations.contact(locked, ALICE)
    assert prepared.operations.contact(locked, ALICE).reception == first.reception
    world.phone().say(
        LinkRequest(Process.START, provider=first.provider, reception=first.reception, signature=first.signature)
    )
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.contact(locked, ALICE)
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.cancel(locked, "too late", ALICE)
    assert prepared.step() is DeploymentStep.DONE  # and nobody else waits for it


def test_two_contacts_at_the_same_moment_get_one_launch(world, prepared):
    """The other server has delegated between our look at the operation and our own commit."""
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    delegate, first = prepared.contacts.delegate, []

    def while_another_is_faster(*given):
        prepared.contacts.delegate = delegate
        first.append(prepared.operations.contact(locked, BOB))
        return delegate(*given)

    prepared.contacts.delegate = while_another_is_faster
    second = prepared.operations.contact(locked, ALICE)

    assert [second.reception] == [launch.reception for launch in first]
    assert prepared.facts(locked).count(OperationDelegated) == 1


def test_a_contact_that_nobody_starts_puts_the_operation_back(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    launch = prepared.operations.contact(locked, ALICE)
    world.clock.pass_by(seconds=901)
    world.sessions.expire(OPERATOR, launch.reception)
    prepared.follow()
    assert prepared.state(locked) == "WAITING"
    prepared.contact(locked)
    assert prepared.state(locked) == "DONE"


def test_what_was_cancelled_can_not_be_started_any_more(world, prepared):
    early, late = (prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation for _ in range(2))
    prepared.operations.cancel(early, "found again", ALICE)
    launch = prepared.operations.contact(late, ALICE)
    prepared.operations.cancel(late, "found again", BOB)

    with refused(ErrorCode.RECEPTION_CLOSED):
        prepared.carry_out(launch)
    assert (prepared.state(early), prepared.state(late), prepared.selects(APP)) == ("CANCELLED", "CANCELLED", "9000")
    left = {stream for stream, _ in world.payloads()}
    assert not any(stream.startswith((f"delegation-{OPERATOR}", f"session-{OPERATOR}")) for stream in left)
    assert prepared.operations.waiting(ICCID) == []
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.cancel(late, "again", ALICE)


def test_a_contact_that_has_done_it_is_not_cancelled_although_no_worker_has_looked(prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.carry_out(prepared.operations.contact(locked, ALICE))
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.cancel(locked, "too late", ALICE)
    assert prepared.state(locked) == "DONE"


def test_nobody_waits_for_ever(world, strict):
    waiting = strict.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    unapproved = strict.operations.delete(ICCID, APP, False, "made anew", ALICE).operation
    world.clock.pass_by(days=29)
    strict.follow()
    assert (strict.state(waiting), strict.state(unapproved)) == ("WAITING", "AWAITING_APPROVAL")
    world.clock.pass_by(days=2)
    with refused(ErrorCode.WRONG_ORDER):
        strict.operations.approve(unapproved, BOB)
    strict.follow()
    assert (strict.state(waiting), strict.state(unapproved)) == ("EXPIRED", "EXPIRED")
    assert strict.operations.waiting(ICCID) == []


def test_what_was_done_meanwhile_is_done(world, prepared):
    first, second = (prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation for _ in range(2))
    prepared.contact(first)
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.contact(second, ALICE)
    assert prepared.state(second) == "DONE"


def test_a_deletion_that_was_done_already_never_meets_what_came_after_it(world, prepared):
    first, second = (prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation for _ in range(2))
    prepared.carry_out(prepared.operations.contact(first, ALICE))
    prepared.contact(prepared.operations.install(ICCID, FILE, "", ALICE).operation)
    with refused(ErrorCode.WRONG_ORDER):
        prepared.operations.contact(second, ALICE)
    assert (prepared.state(first), prepared.state(second), prepared.selects(APP)) == ("DONE", "DONE", "9000")


def test_a_launch_that_nobody_used_does_nothing_to_what_came_after_it(world, prepared):
    first, second = (prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation for _ in range(2))
    launch = prepared.operations.contact(second, ALICE)
    prepared.contact(first)
    prepared.contact(prepared.operations.install(ICCID, FILE, "", ALICE).operation)
    with refused(ErrorCode.RECEPTION_CLOSED):
        prepared.carry_out(launch)
    assert (prepared.state(second), prepared.selects(APP)) == ("DONE", "9000")


def test_what_cannot_be_done_any_more_fails_and_stands_in_nobodys_way(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.contact(prepared.operations.delete(ICCID, APP, False, "made anew", ALICE).operation)
    assert prepared.step() is DeploymentStep.APPLICATION
    assert world.facts(f"operation-{locked}")[-1] == OperationEnded(state="FAILED", code="NOT_FOUND")


def test_two_servers_that_settle_one_contact_record_one_end(world, prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    prepared.carry_out(prepared.operations.contact(locked, ALICE))
    _, tsm, _ = world.worker()
    elsewhere = OperationsWorker(
        tsm, Operations(tsm, prepared.contacts, Scripts(tsm, world.vault), Policy(), {}), NoPosition()
    )
    for worker in (prepared.worker, elsewhere):
        worker._catch_up()
    for worker in (elsewhere, prepared.worker):
        worker.act()
    assert prepared.facts(locked).count(OperationEnded) == 1
    assert elsewhere.unfinished() is None
    tsm.close()


def test_a_worker_that_starts_again_goes_on_with_what_is_open(world, prepared, tmp_path):
    """It was killed between the end of the contact and its own record; its position stays before what is open."""
    position = StoredPosition(tmp_path / "position")
    first = OperationsWorker(world.tsm, prepared.operations, position)
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    launch = prepared.operations.contact(locked, ALICE)
    first._catch_up()
    first.act()
    first._keep()
    prepared.carry_out(launch)

    second = OperationsWorker(world.tsm, prepared.operations, position)
    second._after = position.read()
    second._catch_up()
    second.act()

    assert prepared.state(locked) == "DONE"
    assert second.unfinished() is None


# what concerns no card


class Executor:
    """Carries out; falls over first when it is told to."""

    def __init__(self, *faults):
        self.faults, self.done = list(faults), []

    def __call__(self, operation, context):
        self.done.append((operation.requested.target, context.reason, context.causation))
        if self.faults:
            raise self.faults.pop(0)
        return 0


def other(world, tmp_path, executor, policy=NO_WAIT_FOR_ANYBODY):
    return Desk(world, tmp_path, policy, {OperationKind.WITHDRAW_PARTY: executor})


def withdrawal(desk, **options):
    return desk.operations.request_other(
        OperationKind.WITHDRAW_PARTY, "provider/JPKI0001", "left", ALICE, provider=PROVIDER, **options
    ).operation


def test_what_concerns_no_card_is_carried_out_when_a_second_person_agreed(world, tmp_path):
    executor = Executor()
    desk = other(world, tmp_path, executor, Policy())
    asked = withdrawal(desk)
    desk.follow()
    assert executor.done == []
    desk.operations.approve(asked, msgspec.structs.replace(BOB, role="administrator", tenant=PROVIDER))
    desk.follow()
    desk.follow()
    assert executor.done == [("provider/JPKI0001", "left", f"operation-{asked}")]
    assert desk.state(asked) == "DONE"
    desk.vault.close()


def test_a_passing_fault_is_tried_again_and_another_is_the_end(world, tmp_path):
    executor = Executor(TsmError(ErrorCode.UPSTREAM_UNAVAILABLE), TsmError(ErrorCode.WRONG_ORDER))
    desk = other(world, tmp_path, executor)
    asked = withdrawal(desk)
    with pytest.raises(ExceptionGroup):
        desk.follow()
    assert desk.state(asked) == "WAITING"
    desk.follow()
    assert world.facts(f"operation-{asked}")[-1] == OperationEnded(state="FAILED", code="WRONG_ORDER")
    desk.vault.close()


def test_a_worker_that_dies_after_the_deed_does_it_again_and_records_it_once(world, tmp_path):
    executor = Executor(RuntimeError("the process was killed here"))
    desk = other(world, tmp_path, executor)
    asked = withdrawal(desk)
    with pytest.raises(ExceptionGroup):
        desk.follow()
    desk.worker = OperationsWorker(world.tsm, desk.operations, NoPosition())
    desk.follow()
    assert len(executor.done) == 2
    assert desk.facts(asked) == [OperationRequested, OperationEnded]
    desk.vault.close()


# asking


def test_the_same_command_is_one_operation_and_other_content_is_refused(world, prepared):
    until = datetime(2027, 1, 1, tzinfo=UTC)
    command = Command("alice:1", "a", until)
    first = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE, command)
    prepared.contact(first.operation)
    again = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE, command)  # although it is locked by now
    assert again == first
    with refused(ErrorCode.COMMAND_REUSED):
        prepared.operations.lock(ICCID, DOMAIN, "reported stolen", ALICE, Command("alice:1", "b", until))
    position = prepared.operations.unlock(ICCID, APP, "found again", ALICE, Command("alice:2", "c", until))
    cancelled = Command("alice:3", "d", until)
    once = prepared.operations.cancel(position.operation, "not yet", ALICE, cancelled)
    assert prepared.operations.cancel(position.operation, "not yet", ALICE, cancelled) == once


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda o: o.lock(ICCID, "A00000000101", "why", ALICE), ErrorCode.NOT_FOUND),
        (lambda o: o.lock(ICCID, ISD, "why", ALICE), ErrorCode.INVALID_INPUT),
        (lambda o: o.lock(ICCID, FILE, "why", ALICE), ErrorCode.INVALID_INPUT),
        (lambda o: o.lock(ICCID, APP, "", ALICE), ErrorCode.INVALID_INPUT),
        (lambda o: o.lock(ICCID, "no AID", "why", ALICE), ErrorCode.INVALID_INPUT),
        (lambda o: o.unlock(ICCID, APP, "why", ALICE), ErrorCode.WRONG_ORDER),
        (lambda o: o.delete(ICCID, ISD, True, "why", ALICE), ErrorCode.INVALID_INPUT),
        (lambda o: o.delete(ICCID, FILE, False, "why", ALICE), ErrorCode.WRONG_ORDER),
        (lambda o: o.delete(ICCID, "A00000000101", True, "why", ALICE), ErrorCode.NOT_FOUND),
        (lambda o: o.create_domain(ICCID, DOMAIN, "", ALICE), ErrorCode.ALREADY_EXISTS),
        (lambda o: o.create_domain(ICCID, "A00000000101", "", ALICE), ErrorCode.NOT_FOUND),
        (lambda o: o.install(ICCID, FILE, "", ALICE), ErrorCode.ALREADY_EXISTS),
        (lambda o: o.install(ICCID, "A00000000101", "", ALICE), ErrorCode.NOT_FOUND),
        (lambda o: o.install(OTHER_ICCID, FILE, "", ALICE), ErrorCode.UNKNOWN_SECURITY_DOMAIN),
        (lambda o: o.audit("8981100000000000093", "", ALICE), ErrorCode.UNKNOWN_CARD),
        (lambda o: o.audit(ICCID, "", Context(actor="eve", role="operator", tenant="MNO00002", correlation="")),
         ErrorCode.FORBIDDEN),
        (lambda o: o.request_other(OperationKind.LOCK, "x", "why", ALICE), ErrorCode.INVALID_INPUT),
    ],
)  # fmt: skip
def test_what_the_cards_record_forbids_is_not_even_asked_for(world, prepared, ask, code):
    before = world.tsm.position
    with refused(code):
        ask(prepared.operations)
    assert world.tsm.position == before


def test_an_operation_is_nobodys_business_but_its_parties(prepared):
    locked = prepared.operations.lock(ICCID, APP, "reported stolen", ALICE).operation
    eve = Context(actor="eve", role="operator", tenant="MNO00002", correlation="")
    for touch in (prepared.operations.approve, prepared.operations.contact):
        with refused(ErrorCode.FORBIDDEN):
            touch(locked, eve)
    for touch in (prepared.operations.reject, prepared.operations.cancel):
        with refused(ErrorCode.FORBIDDEN):
            touch(locked, "why", eve)
    with refused(ErrorCode.NOT_FOUND):
        prepared.operations.approve("none", ALICE)
