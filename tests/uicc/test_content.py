"""What a domain may load and install, and what the card keeps when something is wrong."""

from hashlib import sha1, sha256, sha384, sha512

import pytest

from tests.uicc.off_card import (
    DOMAIN_AID,
    ISSUER_DOMAIN_AID,
    PROVIDER_KEYS,
    PROVISIONAL_KEYS,
    Host,
    Refusal,
    card_with_domain,
    create_domain,
    give_keys,
    install_applet,
    issuer,
    load,
    new_card,
    provider,
)
from tsm.channels.scp03 import max_command_data
from tsm.globalplatform.cap import CapFile, build_cap, load_commands
from tsm.globalplatform.commands import (
    GetStatus,
    InstallForInstall,
    InstallForLoad,
    InstallForMakeSelectable,
    Load,
    Select,
)
from tsm.globalplatform.responses import StatusEntry
from tsm.uicc import jpki, jpki_cap
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.memory import DOMAIN_MODULE_AID, DOMAIN_PACKAGE_AID

BLOCK = CapFile.read(jpki_cap.build()).load_file_data_block()
SIZE = max_command_data(0x33)


def status(host: Host, scope: int, aid: bytes = b"") -> dict[bytes, StatusEntry]:
    try:
        entries = StatusEntry.parse_list(host.send(GetStatus(scope, aid).apdu()))
    except Refusal as refusal:
        assert refusal.sw == 0x6A88
        return {}
    return {entry.aid: entry for entry in entries}


def refused_with(sw: int) -> "pytest.RaisesExc[Refusal]":
    return pytest.raises(Refusal, match=f"{sw:04X}")


def announce(host: Host, digest: bytes = b"", aid: bytes = jpki_cap.PACKAGE_AID, domain: bytes = b"") -> None:
    host.send(InstallForLoad(aid, domain, digest).apdu())


def load_files(host: Host) -> set[bytes]:
    return set(status(host, 0x20)) - {DOMAIN_PACKAGE_AID}


# the registry


def test_a_new_card_has_the_issuers_domain_and_nothing_else() -> None:
    host = issuer(new_card())
    assert status(host, 0x80)[ISSUER_DOMAIN_AID].life_cycle == 0x0F
    assert status(host, 0x40) == {}
    assert status(host, 0x10)[DOMAIN_PACKAGE_AID].modules == (DOMAIN_MODULE_AID,)


def test_the_registry_of_a_card_with_an_applet() -> None:
    host = issuer(card_with_domain())
    applications = status(host, 0x40)
    assert applications.keys() == {DOMAIN_AID, jpki.APPLICATION_AID}
    assert applications[DOMAIN_AID].associated_domain == ISSUER_DOMAIN_AID
    assert applications[DOMAIN_AID].privileges.hex() == "800000"
    assert applications[DOMAIN_AID].life_cycle == 0x0F
    applet = applications[jpki.APPLICATION_AID]
    assert (applet.load_file, applet.associated_domain, applet.life_cycle) == (jpki_cap.PACKAGE_AID, DOMAIN_AID, 0x07)
    load_file = status(host, 0x10)[jpki_cap.PACKAGE_AID]
    assert (load_file.associated_domain, load_file.modules) == (DOMAIN_AID, (jpki_cap.MODULE_AID,))


def test_a_domain_sees_what_is_under_it_only() -> None:
    host = provider(card_with_domain())
    assert status(host, 0x80) == {}
    assert status(host, 0x40).keys() == {jpki.APPLICATION_AID}
    assert status(host, 0x20).keys() == {jpki_cap.PACKAGE_AID}


def test_status_asks_for_the_beginning_of_an_aid() -> None:
    host = issuer(card_with_domain())
    assert status(host, 0x40, DOMAIN_AID[:5]).keys() == {DOMAIN_AID, jpki.APPLICATION_AID}
    assert status(host, 0x40, DOMAIN_AID).keys() == {DOMAIN_AID}
    assert status(host, 0x40, bytes(5)) == {}


def test_a_long_status_comes_in_parts() -> None:
    host = issuer(new_card())
    wanted = {bytes.fromhex(f"A00000000100{number:02X}") for number in range(12)}
    for aid in wanted:
        create_domain(host, aid)
    answer, found = host.secured(GetStatus(0x40).apdu()), set()
    while answer.sw == 0x6310:
        found |= {entry.aid for entry in StatusEntry.parse_list(answer.data)}
        answer = host.secured(GetStatus(0x40, next=True).apdu())
    assert answer.sw == 0x9000
    assert found | {entry.aid for entry in StatusEntry.parse_list(answer.data)} == wanted


# loading


@pytest.mark.parametrize("algorithm", [sha256, sha384, sha512, sha1, None])
def test_a_load_file_with_the_announced_hash_is_kept(algorithm) -> None:  # type: ignore[no-untyped-def]
    host = issuer(new_card())
    load(host, jpki_cap.build(), b"", algorithm(BLOCK).digest() if algorithm else b"")
    assert load_files(host) == {jpki_cap.PACKAGE_AID}


def test_a_load_file_with_another_hash_is_refused_at_the_last_block_and_not_kept() -> None:
    host = issuer(new_card())
    announce(host, sha256(BLOCK + b"x").digest())
    *blocks, last = load_commands(BLOCK, SIZE)
    for block in blocks:
        host.send(block.apdu())
    with refused_with(0x6A80):
        host.send(last.apdu())
    assert load_files(host) == set()
    load(host, jpki_cap.build(), b"")  # and may be tried again


def test_a_load_file_of_another_name_is_not_kept() -> None:
    host = issuer(new_card())
    announce(host, aid=bytes.fromhex("D392F0002601EE"))
    with refused_with(0x6A80):
        for block in load_commands(BLOCK, SIZE):
            host.send(block.apdu())
    assert load_files(host) == set()


@pytest.mark.parametrize("content", [b"\xc4\x03abc", BLOCK[:200], b"\xc4\x82\x00", b"\xe2\x00\xc4\x00"])
def test_what_is_no_load_file_is_not_kept(content: bytes) -> None:
    host = issuer(new_card())
    announce(host)
    with refused_with(0x6A80):
        host.send(Load(0, content[:SIZE], last=True).apdu())
    assert load_files(host) == set()


def test_blocks_come_in_order_or_the_load_ends() -> None:
    host = issuer(new_card())
    announce(host)
    first, second, third, *_ = load_commands(BLOCK, SIZE)
    host.send(first.apdu())
    with refused_with(0x6A86):
        host.send(third.apdu())
    with refused_with(0x6985):
        host.send(second.apdu())


def test_another_command_ends_the_load() -> None:
    host = issuer(new_card())
    announce(host)
    first, second, *_ = load_commands(BLOCK, SIZE)
    host.send(first.apdu())
    status(host, 0x80)
    with refused_with(0x6985):
        host.send(second.apdu())


@pytest.mark.parametrize("interrupt", ["reset", "select", "session"])
def test_a_load_does_not_outlive_its_session(interrupt: str) -> None:
    card = new_card()
    host = issuer(card)
    announce(host)
    first, second, *_ = load_commands(BLOCK, SIZE)
    host.send(first.apdu())
    if interrupt == "reset":
        card.reset()
    elif interrupt == "select":
        host.plain(Select(ISSUER_DOMAIN_AID).apdu())
    with refused_with(0x6985):
        issuer(card).send(second.apdu())


def test_a_load_needs_an_announcement() -> None:
    with refused_with(0x6985):
        issuer(new_card()).send(load_commands(BLOCK, SIZE)[0].apdu())


def test_a_load_file_is_loaded_once() -> None:
    host = issuer(new_card())
    load(host, jpki_cap.build(), b"")
    with refused_with(0x6985):
        announce(host)


def test_a_load_for_an_unknown_domain_is_refused() -> None:
    with refused_with(0x6A88):
        announce(issuer(new_card()), domain=DOMAIN_AID)


def test_a_full_card_says_so_and_keeps_nothing() -> None:
    host = issuer(new_card(memory=2048))
    announce(host)
    with refused_with(0x6A84):
        for block in load_commands(BLOCK, SIZE):
            host.send(block.apdu())
    assert load_files(host) == set()


def test_no_room_for_a_domain_or_an_applet() -> None:
    host = issuer(new_card(memory=1024))
    with refused_with(0x6A84):
        create_domain(host)
    host = issuer(new_card(memory=1024 + len(BLOCK) + 8191))
    load(host, jpki_cap.build(), b"")
    with refused_with(0x6A84):
        install_applet(host)
    assert status(host, 0x40) == {}


# installing


def test_an_installed_applet_is_selectable_only_when_made_so() -> None:
    card = new_card()
    host = issuer(card)
    load(host, jpki_cap.build(), b"")
    install_applet(host, selectable=False)
    assert status(host, 0x40)[jpki.APPLICATION_AID].life_cycle == 0x03
    assert host.plain(Select(jpki.APPLICATION_AID).apdu()).sw == 0x6A82

    host = issuer(card)
    host.send(InstallForMakeSelectable(jpki.APPLICATION_AID).apdu())

    assert host.plain(Select(jpki.APPLICATION_AID).apdu()).sw == 0x9000
    host = issuer(card)
    with refused_with(0x6985):
        host.send(InstallForMakeSelectable(jpki.APPLICATION_AID).apdu())


def install(load_file: bytes, module: bytes, privileges: str, token: bytes = b"") -> InstallForInstall:
    return InstallForInstall(
        load_file, module, jpki.APPLICATION_AID, bytes.fromhex(privileges), b"\xc9\x00", token, make_selectable=True
    )


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        (install(bytes.fromhex("D392F0002601EE"), jpki_cap.MODULE_AID, "00"), 0x6A88),  # no such load file
        (install(jpki_cap.PACKAGE_AID, DOMAIN_MODULE_AID, "00"), 0x6A88),  # no such module in it
        (install(jpki_cap.PACKAGE_AID, jpki_cap.MODULE_AID, "80"), 0x6A80),  # no domain
        (install(jpki_cap.PACKAGE_AID, jpki_cap.MODULE_AID, "00", b"token"), 0x6A80),  # no delegated management
        (install(DOMAIN_PACKAGE_AID, DOMAIN_MODULE_AID, "00"), 0x6A80),  # a domain needs the privilege
        (install(DOMAIN_PACKAGE_AID, DOMAIN_MODULE_AID, "A0"), 0x6A80),  # delegated management
        (install(DOMAIN_PACKAGE_AID, DOMAIN_MODULE_AID, "800001"), 0x6A80),  # unknown
    ],
)
def test_does_not_install(command: InstallForInstall, sw: int) -> None:
    host = issuer(new_card())
    load(host, jpki_cap.build(), b"")
    with refused_with(sw):
        host.send(command.apdu())
    assert status(host, 0x40) == {}


def test_an_aid_is_used_once() -> None:
    host = issuer(card_with_domain())
    for again in (install_applet, create_domain):
        with refused_with(0x6985):
            again(host)


def test_a_module_that_the_card_has_no_code_for_is_kept_but_not_installed() -> None:
    """Any load file is checked and kept; what runs is what the card has in Python."""
    package, module = bytes.fromhex("A0000000010000"), bytes.fromhex("A000000001000001")
    host = issuer(new_card())
    load(host, build_cap(package, (module,), b"\x00\x00\x00", "other"), b"")
    assert status(host, 0x10)[package].modules == (module,)
    with refused_with(0x6A88):
        host.send(install(package, module, "00").apdu())


# who may manage


def test_a_domain_without_the_privilege_does_not_manage_content() -> None:
    host = provider(card_with_domain())
    with refused_with(0x6985):
        announce(host, aid=bytes.fromhex("A0000000010000"))
    with refused_with(0x6985):
        create_domain(host, bytes.fromhex("A000000001"))


def with_managing_domain() -> SimulatedUicc:
    card = new_card()
    create_domain(issuer(card), DOMAIN_AID, bytes.fromhex("804000"))
    give_keys(issuer(card), DOMAIN_AID, 0x01, PROVIDER_KEYS)
    return card


def test_a_domain_with_the_privilege_manages_its_own_content() -> None:
    card = with_managing_domain()
    host = provider(card)
    load(host, jpki_cap.build(), b"")
    install_applet(host)
    create_domain(host, bytes.fromhex("A000000001"))
    assert status(host, 0x40)[jpki.APPLICATION_AID].associated_domain == DOMAIN_AID
    assert status(issuer(card), 0x40)[bytes.fromhex("A000000001")].associated_domain == DOMAIN_AID


def test_but_not_that_of_another() -> None:
    card = with_managing_domain()
    other = bytes.fromhex("A000000001")
    host = issuer(card)
    create_domain(host, other)
    load(host, jpki_cap.build(), other)
    install_applet(host, selectable=False)

    host = provider(card)
    with refused_with(0x6985):
        announce(host, aid=bytes.fromhex("A0000000010000"), domain=other)
    with refused_with(0x6985):
        install_applet(host, bytes.fromhex("A00000000101"))
    with refused_with(0x6985):
        host.send(InstallForMakeSelectable(jpki.APPLICATION_AID).apdu())


def test_keys_of_a_new_domain_come_from_its_parent_only() -> None:
    card = with_managing_domain()
    other = bytes.fromhex("A000000001")
    create_domain(issuer(card), other)
    with refused_with(0x6985):
        give_keys(provider(card), other, 0x01, PROVISIONAL_KEYS)
