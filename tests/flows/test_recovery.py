"""A card that did what we never heard of: wherever an answer was lost or denied, trying again completes the work.

Each test lets the real simulated card execute a command whose answer then goes astray, and carries on with an honest
phone until the provider's application stands on the card.
"""

import pytest
from mas_world import DOMAIN, GET_KEY_INFORMATION, ICCID, ISD, OPERATOR, PROVIDER, RETURN_URLS
from test_deployment import BLOCK, Deployment

from tsm.channels.scp03 import max_command_data
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.cap import load_commands
from tsm.globalplatform.commands import EncryptedKey, PutKey
from tsm.jpki.personalisation import APPLICATION, LOAD_FILE
from tsm.mas.messages import LinkRequest, Process, Return
from tsm.model.card import CommandRefused, CommandUnanswered, ContentAudited, KeysPut, LoadFileLoaded
from tsm.model.deployment import DeploymentStep
from tsm.uicc.faults import ConnectionCut, cut_after, cut_before, deny, refuse

OPENING = 3  # SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE
DOMAIN_STEP = OPENING + 3  # INSTALL, INSTALL [for personalization], STORE DATA
ROTATION = OPENING + 1  # PUT KEY
APPLICATION_STEP = OPENING + 1 + len(load_commands(BLOCK, max_command_data())) + 1  # INSTALL [for load], LOADs, INSTALL
FAULTS = [cut_before, cut_after, deny]
OWN, PROVISIONAL = "own", "provisional"  # in the provider's vault


class Visits(Deployment):
    """The provider's back end and one phone, which come back until nothing is left to do."""

    def attempt(self, commands, transmit):
        """One session of the provider's, to its end or until the phone is lost; its reception."""
        reception = self.world.delegate(commands, PROVIDER)
        self.lose(lambda: self.world.phone(transmit).run(reception, PROVIDER), PROVIDER, reception)
        return reception

    def operate(self, launch, transmit=None):
        """One session of the operator's, likewise."""
        self.lose(lambda: self.carry_out(launch, transmit), OPERATOR, launch.reception)

    def lose(self, session, party, reception):
        try:
            session()
        except ConnectionCut:
            self.world.clock.pass_by(seconds=61)
            assert self.world.sessions.expire(party, reception) is None
            self.world.card.reset()

    def put_own_keys(self, transmit=None):
        """The provider's rotation; nothing when its provisional keys are known to be replaced."""
        try:
            given = self.keys.provisional(PROVIDER, ICCID)
        except TsmError as refusal:
            assert refusal.code is ErrorCode.UNKNOWN_KEY
            return
        self.vault.import_key_set(PROVISIONAL, given.wrapped, "transport", given.label, given.check_values)
        self.attempt([self.put_key(1, 2, OWN, PROVISIONAL)], transmit)

    def put_key(self, replaced, version, name, under):
        """PUT KEY of a key set that the provider has made and shared."""
        if not self.vault.has(name):
            self.vault.generate_aes_key_set(name)
        label = f"{PROVIDER}|{ICCID}|{DOMAIN}|{version:02x}".encode()
        wrapped = self.vault.export_key_set(name, self.keys.transport_key(), label, ("enc", "mac"))
        self.keys.take(PROVIDER, ICCID, version, self.vault.check_values(name), wrapped)
        keys = self.vault.wrap_key_set(name, under)
        return PutKey(replaced, version, tuple(EncryptedKey(k.encrypted, k.check_value) for k in keys)).apdu()

    def complete(self):
        """All that is left, one visit of an honest phone after the other: the steps."""
        steps = []
        while (
            following := self.deployments.deploy(PROVIDER, ICCID, RETURN_URLS[PROVIDER])
        ).step != DeploymentStep.DONE:
            steps.append(following.step)
            assert len(steps) < 7, steps
            if following.launch is None:
                self.put_own_keys()
            else:
                self.operate(following.launch)
        return steps

    def check(self):
        """The record says what the card holds, and the domain opens under the provider's own keys."""
        record = self.world.card_record()
        memory = self.world.card._memory
        assert {domain.aid.hex().upper() for domain in memory.domains} == set(record.domains) == {ISD, DOMAIN}
        assert [keys.version for keys in memory.domains[1].key_sets] == [record.domain(DOMAIN).key_version] == [2]
        assert record.domain(DOMAIN).life_cycle == "PERSONALIZED" and not record.domain(DOMAIN).provisional
        assert set(record.load_files) == {LOAD_FILE.hex().upper()}
        assert record.load_files[LOAD_FILE.hex().upper()].domain == DOMAIN
        assert [application.aid for application in memory.applications] == [APPLICATION]
        installed = record.applications[APPLICATION.hex().upper()]
        assert (installed.domain, installed.life_cycle) == (DOMAIN, "SELECTABLE")
        reception, _ = self.world.run([GET_KEY_INFORMATION], PROVIDER)
        assert self.world.session(reception, PROVIDER).executed == 1


@pytest.fixture
def visits(world, tmp_path):
    made = Visits(world, tmp_path)
    yield made
    made.vault.close()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", range(1, DOMAIN_STEP + 1))
def test_a_domain_step_is_completed_wherever_its_answer_went_astray(world, visits, fault, nth):
    visits.operate(visits.deploy(), fault(world.card.transmit, nth))
    steps = visits.complete()
    visits.check()
    assert (steps[0] == "audit") is (nth > OPENING)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", range(1, ROTATION + 1))
def test_a_rotation_is_completed_wherever_its_answer_went_astray(world, visits, fault, nth):
    visits.operate(visits.deploy())
    visits.put_own_keys(fault(world.card.transmit, nth))
    visits.complete()
    visits.check()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", range(1, APPLICATION_STEP + 1))
def test_an_application_step_is_completed_wherever_its_answer_went_astray(world, visits, fault, nth):
    visits.operate(visits.deploy())
    visits.put_own_keys()
    visits.operate(visits.deploy(), fault(world.card.transmit, nth))
    steps = visits.complete()
    visits.check()
    assert ("audit" in steps) is (nth > OPENING)


def test_what_was_sent_without_an_answer_and_what_was_found_later_is_in_the_record(world, visits):
    visits.operate(visits.deploy(), cut_after(world.card.transmit, OPENING + 3))
    unanswered = world.facts(f"card-{ICCID}")[-1]
    assert unanswered == CommandUnanswered(domain=ISD, header="80e28800")
    assert world.card_record().doubtful == {ISD}
    visits.operate(visits.deploy())
    put, audited = world.facts(f"card-{ICCID}")[-2:]
    assert (put.domain, put.key_version, put.provisional, put.found) == (DOMAIN, 1, True, True)
    assert put.check_values == world.vault.check_values(f"card/{ICCID}/{DOMAIN}/01")
    assert audited == ContentAudited(domain=ISD)
    assert world.card_record().doubtful == frozenset()


def test_a_domain_that_was_found_with_keys_that_are_not_ours_is_left_alone(world, visits):
    visits.operate(visits.deploy(), cut_after(world.card.transmit, DOMAIN_STEP))
    world.vault.destroy(f"card/{ICCID}/{DOMAIN}/01")
    visits.operate(visits.deploy())
    assert world.card_record().domain(DOMAIN).life_cycle == "PERSONALIZED"
    with pytest.raises(TsmError, match="UNKNOWN_KEY"):
        visits.deploy()
    assert not world.vault.has(f"card/{ICCID}/{DOMAIN}/01")  # none is made that the record could take for the card's


def test_of_a_load_file_that_was_found_its_hash_is_not_claimed(world, visits):
    visits.operate(visits.deploy())
    visits.put_own_keys()
    visits.operate(visits.deploy(), deny(world.card.transmit, APPLICATION_STEP - 1))
    assert [fact.verified for fact in world.facts("card") if isinstance(fact, CommandRefused)] == [False]
    visits.operate(visits.deploy())
    assert LoadFileLoaded(
        load_file=LOAD_FILE.hex().upper(), domain=DOMAIN, sha256="", size=0, found=True
    ) in world.facts("card")


def test_an_answer_that_was_changed_leaves_the_command_in_doubt(world, visits):
    def change(command):
        answer = world.card.transmit(command)
        return b"\x00" + answer[1:] if command[1] == 0xE6 else answer

    visits.operate(visits.deploy(), change)
    assert world.facts(f"card-{ICCID}")[-1] == CommandUnanswered(domain=ISD, header="80e60c00")
    visits.complete()
    visits.check()


def test_a_phone_that_loses_its_card_leaves_the_command_in_doubt(world, visits):
    launch, phone = visits.deploy(), world.phone()
    answer = phone.say(
        LinkRequest(Process.START, provider=launch.provider, reception=launch.reception, signature=launch.signature)
    )
    for _ in range(OPENING + 1):
        answer = phone.say(phone.obey(answer))
    assert answer.process is Return.COMMAND
    phone.obey(answer)
    phone.say(LinkRequest(Process.RESPONSE, status="50", error="card removed"))
    assert world.facts(f"card-{ICCID}")[-1] == CommandUnanswered(domain=ISD, header="80e60c00")


def test_an_audit_that_is_told_lies_about_absence_is_asked_again(world, visits):
    """That something is absent has no R-MAC: it is not believed, and the next refusal leads back to the question."""
    visits.operate(visits.deploy(), cut_after(world.card.transmit, OPENING + 1))
    launch = visits.deploy()

    def hide(command):
        return b"\x6a\x88" if command[1] == 0xF2 else world.card.transmit(command)

    visits.operate(launch, hide)
    assert DOMAIN not in world.card_record().domains
    assert world.session(launch.reception).failed is None
    assert visits.complete()[:3] == ["security-domain", "audit", "security-domain"]
    visits.check()


# Keys that nobody acknowledged


def lost_rotation(world, visits):
    visits.operate(visits.deploy())
    visits.put_own_keys(deny(world.card.transmit, ROTATION))
    assert world.card_record().domain(DOMAIN).provisional


def test_keys_that_the_card_proves_are_recorded_and_the_script_for_others_is_not_sent(world, visits):
    lost_rotation(world, visits)
    reception = visits.attempt([GET_KEY_INFORMATION], world.card.transmit)
    ended = world.session(reception, PROVIDER)
    assert (ended.failed.error, ended.executed) == ("KEYS_REPLACED", 0)
    own = world.facts(f"card-{ICCID}")[-1]
    assert isinstance(own, KeysPut)
    assert (own.key_version, own.provisional, own.found, own.key) == (2, False, True, f"card/{ICCID}/{DOMAIN}/02")
    visits.complete()
    visits.check()


def test_a_faked_lack_of_keys_leads_to_the_shared_ones_and_back(world, visits):
    """6A88 proves nothing: the keys that were shared are asked for, and the recorded ones the next time."""
    visits.operate(visits.deploy())
    given = visits.keys.provisional(PROVIDER, ICCID)
    visits.vault.import_key_set(PROVISIONAL, given.wrapped, "transport", given.label, given.check_values)
    visits.put_key(1, 2, OWN, PROVISIONAL)  # shared, and never put
    phone = world.phone(refuse(world.card.transmit, 2, 0x6A88))
    reception = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    phone.run(reception, PROVIDER)
    assert versions_asked(phone) == [1, 2]
    assert world.facts(f"card-{ICCID}")[-1] == CommandRefused(
        domain=DOMAIN, command="INITIALIZE UPDATE", header="80500200", status_word="6a88"
    )
    _, honest = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert versions_asked(honest) == [1]
    visits.complete()
    visits.check()


def test_keys_that_were_never_put_are_asked_for_after_a_doubt_and_the_recorded_ones_serve(world, visits):
    visits.operate(visits.deploy())
    visits.put_own_keys(cut_before(world.card.transmit, ROTATION))
    phone = world.phone()
    reception = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    phone.run(reception, PROVIDER)
    assert versions_asked(phone) == [2, 1]
    assert world.session(reception, PROVIDER).executed == 1


def test_a_session_that_began_before_the_rotation_does_not_record_its_keys_again(world, visits):
    visits.operate(visits.deploy())
    phone, early = world.phone(), world.delegate([GET_KEY_INFORMATION], PROVIDER)
    answer = phone.start(early, PROVIDER)
    visits.put_own_keys()
    while answer.process is not Return.END:
        answer = phone.say(phone.obey(answer))
    assert world.session(early, PROVIDER).failed.error == "KEYS_REPLACED"
    assert [fact.key_version for fact in world.facts("card") if isinstance(fact, KeysPut)] == [1, 2]


def test_new_keys_that_stand_beside_the_old_are_found_too(world, visits):
    visits.complete()
    visits.attempt([visits.put_key(0, 3, "next", OWN)], cut_after(world.card.transmit, ROTATION))
    assert world.card_record().domain(DOMAIN).key_version == 2
    visits.attempt([GET_KEY_INFORMATION], world.card.transmit)
    assert world.card_record().domain(DOMAIN).key_version == 3


def versions_asked(phone):
    asked = [answer.apdu for answer in phone.said if answer.process is Return.COMMAND]
    return [apdu[2] for apdu in asked if apdu[1] == 0x50]
