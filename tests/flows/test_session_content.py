"""What an acknowledged command did to its card: the facts, and when there are none."""

from hashlib import sha256

import pytest
from mas_world import DOMAIN, DOMAIN_FILE, DOMAIN_MODULE, ICCID, ISD, World

from tsm.channels.scp03 import max_command_data
from tsm.flows.content import card_facts
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.cap import CapFile, load_commands
from tsm.globalplatform.commands import (
    Delete,
    EncryptedKey,
    GetData,
    InstallForInstall,
    InstallForLoad,
    InstallForMakeSelectable,
    InstallForPersonalization,
    Load,
    PutKey,
    SetStatus,
    StoreData,
)
from tsm.globalplatform.dgi import Dgi, key_dgis, store_data_blocks
from tsm.model import card as cards
from tsm.model.card import (
    ApplicationInstalled,
    ApplicationPersonalized,
    ContentDeleted,
    KeysPut,
    LifeCycleChanged,
    LoadFileLoaded,
    SecurityDomainCreated,
    key_reference,
)
from tsm.uicc import jpki_cap

APPLICATION = "D392F000260100000001"
KEYS = tuple(EncryptedKey(bytes(16), bytes([n] * 3)) for n in (1, 2, 3))
CHECK_VALUES = ("010101", "020202", "030303")


@pytest.fixture
def card(tmp_path):
    world = World(tmp_path)
    world.create_domain()
    yield world.card_record()
    world.close()


def facts(card, commands, domain=ISD):
    *earlier, last = [command if isinstance(command, CommandApdu) else command.apdu() for command in commands]
    return card_facts(lambda: card, domain, last, lambda: earlier)


def test_a_module_with_the_privilege_becomes_a_domain_any_other_an_application(card):
    aid = bytes.fromhex(APPLICATION)
    assert facts(card, [InstallForInstall(DOMAIN_FILE, DOMAIN_MODULE, aid, b"\x80\x00\x00")]) == [
        SecurityDomainCreated(domain=APPLICATION, parent=ISD, privileges="800000", life_cycle="SELECTABLE")
    ]
    [installed] = facts(card, [InstallForInstall(DOMAIN_FILE, DOMAIN_MODULE, aid, b"\x00", make_selectable=False)])
    assert installed == ApplicationInstalled(
        application=APPLICATION,
        module=DOMAIN_MODULE.hex().upper(),
        load_file=DOMAIN_FILE.hex().upper(),
        domain=ISD,
        privileges="00",
        life_cycle="INSTALLED",
    )


def test_an_instance_becomes_selectable_by_a_command_of_its_own(card):
    command = InstallForMakeSelectable(bytes.fromhex(APPLICATION))
    assert facts(card, [command]) == [LifeCycleChanged(instance=APPLICATION, domain=ISD, life_cycle="SELECTABLE")]


def test_a_load_file_is_there_with_its_last_block_and_named_by_its_hash(card):
    block = bytes(range(256)) * 2
    blocks = load_commands(block, 200)
    script = [InstallForLoad(DOMAIN_FILE, bytes.fromhex(DOMAIN)), *blocks]
    assert facts(card, script[:-1]) == []
    assert facts(card, script) == [
        LoadFileLoaded(
            load_file=DOMAIN_FILE.hex().upper(), domain=DOMAIN, sha256=sha256(block).hexdigest(), size=len(block)
        )
    ]
    assert facts(card, [InstallForLoad(DOMAIN_FILE), *blocks])[0].domain == ISD


def test_keys_that_another_domain_puts_are_provisional_those_of_its_own_are_not(card):
    version_2 = {"domain": DOMAIN, "key_version": 2, "check_values": CHECK_VALUES}
    key = key_reference(ICCID, DOMAIN, 2)
    assert key == f"card/{ICCID}/{DOMAIN}/02"
    stored = store_data_blocks(key_dgis(2, KEYS), 60, encrypted=False)
    given = [InstallForPersonalization(bytes.fromhex(DOMAIN)), *stored]
    assert facts(card, given) == [KeysPut(**version_2, provisional=True, key=key)]
    assert facts(card, given[:-1]) == []
    assert facts(card, stored, DOMAIN) == [KeysPut(**version_2, provisional=False, key=key)]
    assert facts(card, [PutKey(1, 2, KEYS)], DOMAIN) == [KeysPut(**version_2, provisional=False, key=key)]


def test_an_application_is_personalised_with_the_last_block(card):
    blocks = store_data_blocks(Dgi(0x0101, bytes(300)).encode(), 200, encrypted=True)
    script = [InstallForPersonalization(bytes.fromhex(APPLICATION)), *blocks]
    assert facts(card, script[:-1], DOMAIN) == []
    assert facts(card, script, DOMAIN) == [ApplicationPersonalized(application=APPLICATION, domain=DOMAIN)]


def with_application(card):
    """The card with a load file and an application in the provider's domain."""
    loaded = LoadFileLoaded(load_file="D392F0002601FF", domain=DOMAIN, sha256="ab" * 32, size=1)
    installed = ApplicationInstalled(
        application=APPLICATION,
        module="",
        load_file="D392F0002601FF",
        domain=DOMAIN,
        privileges="00",
        life_cycle="PERSONALIZED",
    )
    return cards.evolve(cards.evolve(card, loaded), installed)


@pytest.mark.parametrize("related", [True, False])
def test_what_is_deleted_is_gone_with_what_belonged_to_it(card, related):
    """A card deletes nothing to which something belongs, unless that goes too: so its 9000 means the same."""
    card = with_application(card)
    assert facts(card, [Delete(bytes.fromhex(DOMAIN), related)]) == [
        ContentDeleted(target=DOMAIN, domain=ISD, deleted=(DOMAIN, APPLICATION, "D392F0002601FF"))
    ]
    assert facts(card, [Delete(bytes.fromhex(APPLICATION), related)]) == [
        ContentDeleted(target=APPLICATION, domain=DOMAIN, deleted=(APPLICATION,))
    ]
    assert facts(card, [Delete(bytes.fromhex("A00000000101"), related)]) == [  # it came with the card
        ContentDeleted(target="A00000000101", domain=ISD, deleted=("A00000000101",))
    ]


def test_set_status_locks_and_returns_to_what_was_before(card):
    card = with_application(card)
    aid = bytes.fromhex(APPLICATION)
    [locked] = facts(card, [SetStatus(0x40, 0x80, aid)])
    assert locked == LifeCycleChanged(instance=APPLICATION, domain=DOMAIN, life_cycle="LOCKED")
    card = cards.evolve(card, locked)
    for state in (0x00, 0x03):  # the bits beside the lock do not count
        [unlocked] = facts(card, [SetStatus(0x40, state, aid)])
        assert unlocked == LifeCycleChanged(instance=APPLICATION, domain=DOMAIN, life_cycle="PERSONALIZED")


def test_set_status_of_a_domain_may_include_its_applications(card):
    card = with_application(card)
    changed = facts(card, [SetStatus(0x60, 0x80, bytes.fromhex(DOMAIN))])
    assert [(fact.instance, fact.domain, fact.life_cycle) for fact in changed] == [
        (DOMAIN, ISD, "LOCKED"),
        (APPLICATION, DOMAIN, "LOCKED"),
    ]


def test_of_an_instance_that_nobody_recorded_the_state_is_what_was_set(card):
    locked = SetStatus(0x40, 0x80, bytes.fromhex("A00000000101"))
    assert facts(card, [locked]) == [LifeCycleChanged(instance="A00000000101", domain=ISD, life_cycle="LOCKED")]


@pytest.mark.parametrize(
    "commands",
    [
        [GetData(0x66)],
        [CommandApdu(0x00, 0xE2, 0x80, 0x00, b"\x01")],  # APPEND RECORD of ISO 7816-4, not STORE DATA
        [CommandApdu(0x80, 0x10, 0x00, 0x00)],
        [CommandApdu(0x80, 0xE6, 0x0C, 0x00, b"\xff")],
        [Load(0, b"\xc4\x01\x00", last=True)],  # nothing announced it
        [InstallForLoad(DOMAIN_FILE), Load(0, b"nonsense", last=True)],
        [StoreData(0, Dgi(0x0070, b"data").encode())],
        [StoreData(0, b"\x00")],
    ],
)
def test_what_changes_nothing_that_is_recorded_has_no_facts(card, commands):
    assert facts(card, commands) == []


def test_the_record_after_a_real_load_is_what_the_card_holds(tmp_path):
    world = World(tmp_path)
    world.create_domain()
    cap = CapFile.read(jpki_cap.build())
    block = cap.load_file_data_block()
    digest = sha256(block).digest()
    install = InstallForInstall(cap.package_aid, cap.applet_aids[0], bytes.fromhex(APPLICATION), b"\x00")
    announce = InstallForLoad(cap.package_aid, bytes.fromhex(DOMAIN), digest)
    script = [announce, *load_commands(block, max_command_data()), install]
    reception, _ = world.run([command.apdu() for command in script])
    record = world.card_record()
    assert world.session(reception).executed == len(script)
    assert record.load_files[cap.package_aid.hex().upper()].sha256 == digest.hex()
    assert record.applications[APPLICATION].domain == DOMAIN  # that of its load file, whoever installed it
    world.close()
