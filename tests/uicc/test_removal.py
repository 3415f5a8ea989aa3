"""DELETE and SET STATUS on the card: what goes, what stays, who may, and what a lock means."""

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
from tsm.globalplatform.commands import Delete, GetStatus, InitializeUpdate, Select, SetStatus
from tsm.globalplatform.responses import StatusEntry
from tsm.uicc import jpki, jpki_cap
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.memory import DOMAIN_MODULE_AID, DOMAIN_PACKAGE_AID

APPLICATION, LOAD_FILE = jpki.APPLICATION_AID, jpki_cap.PACKAGE_AID
INSTANCES, LOAD_FILES = 0x40, 0x20
INSTANCE, WITH_APPLICATIONS, CARD = 0x40, 0x60, 0x80
OTHER = bytes.fromhex("A000000001")


def refused_with(sw: int) -> "pytest.RaisesExc[Refusal]":
    return pytest.raises(Refusal, match=f"{sw:04X}")


def listed(host: Host, scope: int) -> dict[bytes, StatusEntry]:
    try:
        entries = StatusEntry.parse_list(host.send(GetStatus(scope).apdu()))
    except Refusal as refusal:
        assert refusal.sw == 0x6A88
        return {}
    return {entry.aid: entry for entry in entries}


def delete(host: Host, aid: bytes, *, related: bool = False) -> bytes:
    return host.send(Delete(aid, related).apdu())


def set_status(host: Host, aid: bytes, state: int, scope: int = INSTANCE) -> bytes:
    return host.send(SetStatus(scope, state, aid).apdu())


def selected(card: SimulatedUicc, aid: bytes) -> str:
    return card.transmit(Select(aid).apdu().encode())[-2:].hex().upper()


def free(card: SimulatedUicc) -> int:
    return card._content.free_octets


def test_a_deleted_application_is_gone_and_its_memory_is_free() -> None:
    card = card_with_domain()
    before = free(card)

    assert delete(issuer(card), APPLICATION) == b"\x00"

    assert selected(card, APPLICATION) == "6A82"
    assert set(listed(issuer(card), INSTANCES)) == {DOMAIN_AID}
    assert free(card) > before
    install_applet(issuer(card))  # its AID is free again
    assert selected(card, APPLICATION) == "9000"
    assert free(card) == before


def test_a_load_file_that_is_in_use_stays() -> None:
    host = issuer(card_with_domain())
    with refused_with(0x6985):
        delete(host, LOAD_FILE)
    assert set(listed(host, LOAD_FILES)) == {DOMAIN_PACKAGE_AID, LOAD_FILE}
    delete(host, APPLICATION)
    delete(host, LOAD_FILE)
    assert set(listed(host, LOAD_FILES)) == {DOMAIN_PACKAGE_AID}


def test_or_goes_with_its_applications() -> None:
    host = issuer(card_with_domain())
    delete(host, LOAD_FILE, related=True)
    assert set(listed(host, INSTANCES)) == {DOMAIN_AID}
    assert set(listed(host, LOAD_FILES)) == {DOMAIN_PACKAGE_AID}


def test_a_domain_with_content_stays_or_goes_with_all_of_it_and_its_keys() -> None:
    card = card_with_domain()
    whole = free(new_card())
    with refused_with(0x6985):
        delete(issuer(card), DOMAIN_AID)

    delete(issuer(card), DOMAIN_AID, related=True)

    assert free(card) == whole
    assert listed(issuer(card), INSTANCES) == {}
    assert selected(card, DOMAIN_AID) == "6A82"
    create_domain(issuer(card))  # a new one of the same AID has none of the old keys
    assert selected(card, DOMAIN_AID) == "9000"
    assert card.transmit(InitializeUpdate(bytes(8)).apdu().encode()) == b"\x6a\x88"
    assert card._memory.domains[-1].key_sets == []


def test_domains_below_a_domain_go_with_it() -> None:
    card = new_card()
    create_domain(issuer(card), DOMAIN_AID, bytes.fromhex("804000"))
    give_keys(issuer(card), DOMAIN_AID, 0x01, PROVIDER_KEYS)
    create_domain(provider(card), OTHER)
    load(issuer(card), jpki_cap.build(), OTHER)
    install_applet(issuer(card))

    with refused_with(0x6985):
        delete(issuer(card), DOMAIN_AID)
    delete(issuer(card), DOMAIN_AID, related=True)

    assert listed(issuer(card), INSTANCES) == {}
    assert set(listed(issuer(card), LOAD_FILES)) == {DOMAIN_PACKAGE_AID}


@pytest.mark.parametrize(
    ("aid", "sw"),
    [
        (OTHER, 0x6A88),  # nothing of this AID
        (DOMAIN_MODULE_AID, 0x6A88),  # a module is nothing by itself
        (ISSUER_DOMAIN_AID, 0x6985),
        (DOMAIN_PACKAGE_AID, 0x6985),  # what the card was made with
    ],
)
def test_some_things_cannot_be_deleted(aid: bytes, sw: int) -> None:
    card = card_with_domain()
    for related in (False, True):
        with refused_with(sw):
            delete(issuer(card), aid, related=related)
    assert set(listed(issuer(card), INSTANCES)) == {DOMAIN_AID, APPLICATION}


def test_a_domain_deletes_what_is_under_it_when_it_may_manage_content_and_never_itself() -> None:
    card = new_card()
    create_domain(issuer(card), DOMAIN_AID, bytes.fromhex("804000"))
    give_keys(issuer(card), DOMAIN_AID, 0x01, PROVIDER_KEYS)
    create_domain(issuer(card), OTHER)
    load(provider(card), jpki_cap.build(), b"")
    install_applet(provider(card))

    with refused_with(0x6985):
        delete(provider(card), OTHER)  # beside it
    with refused_with(0x6985):
        delete(provider(card), DOMAIN_AID, related=True)
    delete(provider(card), APPLICATION)
    assert set(listed(issuer(card), INSTANCES)) == {DOMAIN_AID, OTHER}


def test_a_domain_that_may_not_manage_content_deletes_nothing() -> None:
    card = card_with_domain()
    with refused_with(0x6985):
        delete(provider(card), APPLICATION)


def test_nothing_is_deleted_or_locked_outside_of_a_secure_channel() -> None:
    card = card_with_domain()
    selected(card, ISSUER_DOMAIN_AID)
    for command in (Delete(APPLICATION).apdu(), SetStatus(INSTANCE, 0x80, APPLICATION).apdu()):
        assert card.transmit(command.encode()) == b"\x69\x82"


# the lock


@pytest.mark.parametrize("by", [issuer, provider])
def test_a_locked_application_cannot_be_selected_until_it_is_unlocked(by: "type[Host]") -> None:
    card = card_with_domain()
    before = listed(issuer(card), INSTANCES)[APPLICATION].life_cycle

    assert set_status(by(card), APPLICATION, 0x80) == b""
    assert selected(card, APPLICATION) == "6A82"
    assert listed(issuer(card), INSTANCES)[APPLICATION].life_cycle == before | 0x80

    set_status(by(card), APPLICATION, 0x00)
    assert selected(card, APPLICATION) == "9000"
    assert listed(issuer(card), INSTANCES)[APPLICATION].life_cycle == before


def test_a_locked_domain_opens_no_channel_and_its_applications_go_on() -> None:
    card = card_with_domain()
    set_status(issuer(card), DOMAIN_AID, 0x80)
    with refused_with(0x6A82):
        provider(card)
    assert selected(card, APPLICATION) == "9000"

    set_status(issuer(card), DOMAIN_AID, 0x00)
    assert listed(provider(card), INSTANCES)[APPLICATION].life_cycle == 0x07


def test_a_domain_may_be_locked_with_the_applications_in_it() -> None:
    card = card_with_domain()
    set_status(issuer(card), DOMAIN_AID, 0x80, WITH_APPLICATIONS)
    assert (selected(card, DOMAIN_AID), selected(card, APPLICATION)) == ("6A82", "6A82")
    set_status(issuer(card), DOMAIN_AID, 0x00, WITH_APPLICATIONS)
    assert (selected(card, DOMAIN_AID), selected(card, APPLICATION)) == ("9000", "9000")


@pytest.mark.parametrize(
    ("scope", "state", "aid", "sw"),
    [
        (INSTANCE, 0x80, OTHER, 0x6A88),
        (INSTANCE, 0x80, LOAD_FILE, 0x6A88),  # it has no states to change
        (INSTANCE, 0x00, APPLICATION, 0x6985),  # it is not locked
        (INSTANCE, 0x80, ISSUER_DOMAIN_AID, 0x6985),
        (WITH_APPLICATIONS, 0x80, APPLICATION, 0x6A80),  # no domain
        (CARD, 0x7F, ISSUER_DOMAIN_AID, 0x6A81),
    ],
)
def test_some_states_cannot_be_set(scope: int, state: int, aid: bytes, sw: int) -> None:
    card = card_with_domain()
    with refused_with(sw):
        set_status(issuer(card), aid, state, scope)
    assert selected(card, APPLICATION) == "9000"


def test_what_is_locked_is_not_locked_again() -> None:
    card = card_with_domain()
    set_status(issuer(card), APPLICATION, 0x80)
    with refused_with(0x6985):
        set_status(issuer(card), APPLICATION, 0x80)
    set_status(issuer(card), APPLICATION, 0x00)
    assert selected(card, APPLICATION) == "9000"


def test_a_domain_locks_nothing_beside_it() -> None:
    card = card_with_domain()
    create_domain(issuer(card), OTHER)
    give_keys(issuer(card), OTHER, 0x01, PROVISIONAL_KEYS)
    with refused_with(0x6985):
        set_status(Host(card, OTHER, PROVISIONAL_KEYS), APPLICATION, 0x80)


def test_the_card_tells_what_a_tag_list_asks_for() -> None:
    host = issuer(card_with_domain())
    brief = host.send(GetStatus(INSTANCES, tag_list=bytes.fromhex("4F9F70")).apdu())
    assert brief.hex().upper() == "E3 0E 4F08D392F0002601FE01 9F70010F E310 4F0AD392F000260100000001 9F700107".replace(
        " ", ""
    )
