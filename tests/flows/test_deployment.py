"""The operator prepares a card for a provider: domain, provisional keys, the provider's own, application."""

import base64
from hashlib import sha256
from os import urandom
from pathlib import Path

import msgspec
import pytest
from mas_world import DOMAIN, ICCID, ISD, OPERATOR, PROVIDER, RETURN_URLS, World

from tsm.errors import ErrorCode, TsmError
from tsm.flows.contacts import Contacts
from tsm.flows.deployment import Deployments, next_step
from tsm.flows.domain_keys import DomainKeys
from tsm.flows.operations import Operations, Policy
from tsm.flows.scripts import Scripts
from tsm.globalplatform.cap import CapFile
from tsm.globalplatform.commands import EncryptedKey, PutKey
from tsm.identifiers import ReceptionNumber
from tsm.jpki.personalisation import APPLICATION, LOAD_FILE, MODULE
from tsm.keys.vault import SoftwareVault
from tsm.mas.launch import LaunchParameters, mas_signed
from tsm.mas.messages import LinkRequest, Process, Return
from tsm.mas.signing import MAS_SIGNING_KEY, MAS_TRANSPORT_KEY
from tsm.model.card import (
    ApplicationInstalled,
    KeysPut,
    KeysShared,
    LoadFileLoaded,
    ProvisionalKeysHandedOut,
    SecurityDomainCreated,
)
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.deployment import DeploymentDelegated, DeploymentReturned, DeploymentStep
from tsm.model.event import Context
from tsm.uicc.jpki_cap import build

RETURN_URL = RETURN_URLS[PROVIDER]
BLOCK = CapFile.read(build()).load_file_data_block()
CONTEXT = Context(actor="test", role="administrator", tenant="test", correlation="test")


class Deployment:
    """The server's deployments and the provider's own vault, around the world of sessions."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.vault = SoftwareVault.create(folder / "provider", folder / "provider-kek")
        self.vault.generate_transport_key("transport")
        world.vault.generate_transport_key(MAS_TRANSPORT_KEY)
        enrolled = world.facts(f"provider-{PROVIDER}")[0]
        transport = self.vault.public_key("transport").hex()
        world.record(f"provider-{PROVIDER}", msgspec.structs.replace(enrolled, transport_key=transport))
        world.tsm.register_load_file(registered(), BLOCK, CONTEXT)
        self.contacts = Contacts(world.tsm, world.vault, world.sessions, RETURN_URLS[OPERATOR], world.tsm.now, urandom)
        self.operations = Operations(world.tsm, self.contacts, Scripts(world.tsm, world.vault), Policy(), {})
        self.deployments = Deployments(world.tsm, world.vault, self.contacts, self.operations, world.tsm.now)
        self.keys = DomainKeys(world.tsm, world.vault)

    def deploy(self) -> LaunchParameters:
        launch = self.deployments.deploy(PROVIDER, ICCID, RETURN_URL).launch
        assert launch is not None
        return launch

    def step(self) -> DeploymentStep:
        return self.deployments.deploy(PROVIDER, ICCID, RETURN_URL).step

    def carry_out(self, launch: LaunchParameters, transmit=None) -> str:
        """The phone, from START to END; masSign."""
        phone = self.world.phone(transmit)
        answer = phone.say(
            LinkRequest(Process.START, provider=launch.provider, reception=launch.reception, signature=launch.signature)
        )
        while answer.process is not Return.END:
            answer = phone.say(phone.obey(answer))
        return answer.mas_sign

    def rotate(self) -> None:
        """What the provider does between the operator's steps."""
        given = self.keys.provisional(PROVIDER, ICCID)
        self.vault.import_key_set("provisional", given.wrapped, "transport", given.label, given.check_values)
        self.vault.generate_aes_key_set("own")
        label = f"{PROVIDER}|{ICCID}|{DOMAIN}|02".encode()
        wrapped = self.vault.export_key_set("own", self.keys.transport_key(), label, ("enc", "mac"))
        self.keys.take(PROVIDER, ICCID, 2, self.vault.check_values("own"), wrapped)
        keys = tuple(EncryptedKey(k.encrypted, k.check_value) for k in self.vault.wrap_key_set("own", "provisional"))
        reception, _ = self.world.run([PutKey(1, 2, keys).apdu()], PROVIDER)
        assert self.world.session(reception, PROVIDER).failed is None


def registered(provider: str = PROVIDER) -> LoadFileRegistered:
    return LoadFileRegistered(
        load_file=LOAD_FILE.hex().upper(),
        provider=provider,
        version="1.0",
        sha256=sha256(BLOCK).hexdigest(),
        size=len(BLOCK),
        module=MODULE.hex().upper(),
        application=APPLICATION.hex().upper(),
    )


@pytest.fixture
def deployment(world, tmp_path):
    made = Deployment(world, tmp_path)
    yield made
    made.vault.close()


def refused(code: ErrorCode):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def test_a_card_is_prepared_step_by_step(world, deployment):
    assert next_step(world.card_record(), DOMAIN, APPLICATION.hex().upper()) is DeploymentStep.SECURITY_DOMAIN
    deployment.carry_out(deployment.deploy())
    assert deployment.step() is DeploymentStep.KEY_ROTATION
    deployment.rotate()
    deployment.carry_out(deployment.deploy())

    assert deployment.step() is DeploymentStep.DONE
    created, put, handed_out, shared, own, loaded, installed = world.facts(f"card-{ICCID}")[1:]
    assert created == SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="80", life_cycle="SELECTABLE")
    assert isinstance(put, KeysPut)
    assert (put.key_version, put.provisional) == (1, True)
    assert put.check_values == world.vault.check_values(f"card/{ICCID}/{DOMAIN}/01")
    assert handed_out == ProvisionalKeysHandedOut(domain=DOMAIN, key_version=1, provider=PROVIDER)
    enc_and_mac = deployment.vault.check_values("own")[:2]
    assert shared == KeysShared(domain=DOMAIN, key_version=2, check_values=enc_and_mac, provider=PROVIDER)
    assert isinstance(own, KeysPut)
    assert (own.key_version, own.provisional) == (2, False)
    assert own.check_values == deployment.vault.check_values("own")
    assert isinstance(loaded, LoadFileLoaded)
    assert (loaded.domain, loaded.sha256, loaded.size) == (DOMAIN, registered().sha256, len(BLOCK))
    assert isinstance(installed, ApplicationInstalled)
    assert (installed.application, installed.domain) == (APPLICATION.hex().upper(), DOMAIN)


def test_the_step_is_recorded_with_whom_it_is_for_and_the_story_is_one(world, deployment):
    launch = deployment.deploy()
    deployment.carry_out(launch)
    deployment.rotate()
    second = deployment.deploy()

    events = [e for e in world.events() if isinstance(e.fact, DeploymentDelegated)]
    assert [e.fact.reception for e in events] == [launch.reception, second.reception]
    assert [e.fact.step for e in events] == ["security-domain", "application"]
    assert {(e.fact.provider, e.fact.return_url, e.context.actor) for e in events} == {
        (PROVIDER, RETURN_URL, f"provider:{PROVIDER}")
    }
    stories = {e.context.correlation for e in events}
    accepted = [e for e in world.events() if e.originator_id == f"delegation-{OPERATOR}-{launch.reception}"]
    assert stories == {accepted[0].context.correlation}


def test_a_return_url_that_is_not_registered_is_refused(deployment):
    with refused(ErrorCode.FORBIDDEN):
        deployment.deployments.deploy(PROVIDER, ICCID, "https://thief.example/")


def test_a_card_that_is_not_registered_or_a_provider_without_load_file_is_refused(deployment):
    with refused(ErrorCode.UNKNOWN_CARD):
        deployment.deployments.deploy(PROVIDER, "8981100000000000093", RETURN_URL)
    with refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER):
        deployment.deployments.deploy("NOBODY01", ICCID, RETURN_URL)


def test_the_browser_comes_back_and_goes_on_to_the_provider(world, deployment):
    launch = deployment.deploy()
    mas_sign = deployment.carry_out(launch)

    assert deployment.deployments.come_back(launch.reception, mas_sign) == RETURN_URL
    assert deployment.deployments.come_back(launch.reception, mas_sign) == RETURN_URL  # a reload
    assert world.facts(f"deployment-{launch.reception}")[1:] == [DeploymentReturned(status="01")]


def test_a_forged_return_goes_nowhere(world, deployment):
    launch = deployment.deploy()
    forged = base64.b64encode(urandom(64)).decode()
    with refused(ErrorCode.BAD_SIGNATURE):
        deployment.deployments.come_back(launch.reception, forged)
    of_another = world.vault.sign(MAS_SIGNING_KEY, mas_signed(OPERATOR, "2026112199999999", "00"))
    with refused(ErrorCode.BAD_SIGNATURE):
        deployment.deployments.come_back(launch.reception, base64.b64encode(of_another).decode())
    with refused(ErrorCode.UNKNOWN_RECEPTION):
        deployment.deployments.come_back(ReceptionNumber("2026112199999999"), forged)
    with refused(ErrorCode.INVALID_INPUT):
        deployment.deployments.come_back("", forged)
    assert len(world.facts(f"deployment-{launch.reception}")) == 1


def test_a_step_that_the_card_refuses_does_not_send_the_browser_round_in_circles(world, deployment):
    def refuse_install(command: bytes) -> bytes:
        return bytes.fromhex("6A84") if command[1] == 0xE6 else world.card.transmit(command)

    launch = deployment.deploy()
    mas_sign = deployment.carry_out(launch, refuse_install)

    with refused(ErrorCode.CARD_OUT_OF_MEMORY):
        deployment.deployments.come_back(launch.reception, mas_sign)
    assert world.facts(f"deployment-{launch.reception}")[1:] == [DeploymentReturned(status="55")]
    assert deployment.step() is DeploymentStep.AUDIT  # nothing proves that the card refused


def test_a_domain_that_lacks_only_its_keys_gets_them_and_they_stay_the_same(world, deployment):
    """The phone dies after the first command of the step: the next attempt goes on where the record stops."""
    launch = deployment.deploy()
    check_values = world.vault.check_values(f"card/{ICCID}/{DOMAIN}/01")
    phone = world.phone()
    answer = phone.say(
        LinkRequest(Process.START, provider=launch.provider, reception=launch.reception, signature=launch.signature)
    )
    while DOMAIN not in world.card_record().domains:
        answer = phone.say(phone.obey(answer))

    deployment.carry_out(deployment.deploy())

    assert deployment.step() is DeploymentStep.KEY_ROTATION
    assert world.card_record().domain(DOMAIN).check_values == check_values


def test_a_load_that_broke_off_is_begun_again(world, deployment):
    deployment.carry_out(deployment.deploy())
    deployment.rotate()
    launch = deployment.deploy()
    phone = world.phone()
    answer = phone.say(
        LinkRequest(Process.START, provider=launch.provider, reception=launch.reception, signature=launch.signature)
    )
    for _ in range(8):
        answer = phone.say(phone.obey(answer))
    assert world.card_record().load_files == {}
    world.card.reset()

    deployment.carry_out(deployment.deploy())

    assert deployment.step() is DeploymentStep.DONE


def test_provisional_keys_go_to_the_domains_owner_until_they_are_replaced(world, deployment):
    with refused(ErrorCode.UNKNOWN_SECURITY_DOMAIN):
        deployment.keys.provisional(PROVIDER, ICCID)
    deployment.carry_out(deployment.deploy())

    given = deployment.keys.provisional(PROVIDER, ICCID)
    assert "wrapped" not in repr(given)
    deployment.rotate()

    with refused(ErrorCode.UNKNOWN_KEY):
        deployment.keys.provisional(PROVIDER, ICCID)


def test_only_the_owners_new_keys_are_taken_and_the_same_again_is_no_news(world, deployment):
    deployment.carry_out(deployment.deploy())
    deployment.vault.generate_aes_key_set("own")
    label = f"{PROVIDER}|{ICCID}|{DOMAIN}|02".encode()
    check_values = deployment.vault.check_values("own")
    wrapped = deployment.vault.export_key_set("own", deployment.keys.transport_key(), label, ("enc", "mac"))

    with refused(ErrorCode.INVALID_INPUT):  # the version that is on the card
        deployment.keys.take(PROVIDER, ICCID, 1, check_values, wrapped)
    with refused(ErrorCode.KEY_REFUSED):  # wrapped for another version
        deployment.keys.take(PROVIDER, ICCID, 3, check_values, wrapped)
    deployment.keys.take(PROVIDER, ICCID, 2, check_values, wrapped)
    deployment.keys.take(PROVIDER, ICCID, 2, check_values, wrapped)
    facts = deployment.world.facts(f"card-{ICCID}")
    assert len([fact for fact in facts if isinstance(fact, KeysShared)]) == 1  # the same again is no news
