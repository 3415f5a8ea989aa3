"""Secure channels of a card's domains, and what goes through them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.uicc.certificates import credential, new_key
from tests.uicc.off_card import (
    DOMAIN_AID,
    ISSUER_DOMAIN_AID,
    ISSUER_KEYS,
    PROVIDER_KEYS,
    PROVISIONAL_KEYS,
    Host,
    Refusal,
    card_with_domain,
    create_domain,
    encrypted_dgis,
    encrypted_keys,
    give_keys,
    groupings,
    install_applet,
    issue_card,
    issuer,
    load,
    new_card,
    provider,
    put_key,
    store,
)
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu
from tsm.globalplatform.commands import (
    EncryptedKey,
    GetData,
    GetStatus,
    InitializeUpdate,
    InstallForPersonalization,
    PutKey,
    Select,
    StoreData,
)
from tsm.globalplatform.dgi import key_dgis
from tsm.globalplatform.responses import CardRecognitionData, InitializeUpdateResponse, KeyInformation
from tsm.keys.primitives import KeySet, kcv_aes
from tsm.uicc import faults, jpki, jpki_cap
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.my_number import key_dgis as key_groupings

STATUS = GetStatus(0x80).apdu()


def send(card: SimulatedUicc, command: str) -> str:
    return card.transmit(bytes.fromhex(command)).hex().upper()


def refused_with(sw: int) -> "pytest.RaisesExc[Refusal]":
    return pytest.raises(Refusal, match=f"{sw:04X}")


# the channel


def test_the_first_challenge_is_the_one_that_another_card_gave() -> None:
    """Vector scp03_pseudo_random_card_challenge_seq0, observed on a card that nobody here wrote."""
    keys = KeySet(*[bytes.fromhex("404142434445464748494A4B4C4D4E4F")] * 3)
    card = SimulatedUicc.manufacture("8981100000000000010", b"", b"", bytes(10), keys)
    answer = InitializeUpdateResponse.parse(card.transmit(InitializeUpdate(bytes(8)).apdu().encode())[:-2])
    assert (answer.scp, answer.i, answer.sequence_counter.hex()) == (3, 0x70, "000000")
    assert answer.card_challenge.hex() == "4d2614d48b5a5572"


def test_each_session_has_another_challenge_also_after_a_power_cut(tmp_path: Path) -> None:
    card = new_card()
    card.save(tmp_path / "card.json")
    first = issuer(card).identity
    second = issuer(SimulatedUicc.load(tmp_path / "card.json")).identity
    assert (first.sequence_counter.hex(), second.sequence_counter.hex()) == ("000000", "000001")
    assert first.card_challenge != second.card_challenge
    assert first.key_diversification == bytes(range(10))


@pytest.mark.parametrize("level", [0x01, 0x03, 0x11, 0x13, 0x33])
def test_every_level_carries_commands_and_answers(level: int) -> None:
    host = issuer(new_card(), level)
    for _ in range(3):
        assert ISSUER_DOMAIN_AID in host.send(STATUS)
    assert host.secured(GetData(0x9F7F).apdu()).sw == 0x6A88  # errors pass too
    assert ISSUER_DOMAIN_AID in host.send(STATUS)


@pytest.mark.parametrize("command", [STATUS, StoreData(0, b"x").apdu(), CommandApdu(0x80, 0xE6, 2, 0, b"x")])
def test_without_a_channel_nothing_is_managed(command: CommandApdu) -> None:
    card = new_card()
    assert card.transmit(command.encode()).hex() == "6982"
    secured = CommandApdu(0x84, command.ins, command.p1, command.p2, command.data + bytes(8))
    assert card.transmit(secured.encode()).hex() == "6982"


def test_a_wrong_key_gets_no_channel_and_the_cryptogram_cannot_be_tried_again() -> None:
    card = new_card()
    challenge = InitializeUpdate(bytes(8)).apdu().encode()
    card.transmit(challenge)
    wrong = "8482330010" + "00" * 16
    assert send(card, wrong) == "6300"
    assert send(card, wrong) == "6985"
    assert card.transmit(STATUS.encode()).hex() == "6982"
    issuer(card)  # the right key still may


@pytest.mark.parametrize("level", ["00", "02", "10", "30", "FF"])
def test_a_channel_protects_something(level: str) -> None:
    card = new_card()
    card.transmit(InitializeUpdate(bytes(8)).apdu().encode())
    assert send(card, f"8482{level}0010" + "00" * 16) == "6A86"


@pytest.mark.parametrize("breach", ["plain", "changed", "repeated", "short"])
def test_a_command_that_breaks_the_protection_ends_the_channel(breach: str) -> None:
    card = new_card()
    host = issuer(card)
    wrapped = host.channel.wrap(STATUS)
    broken = {
        "plain": STATUS.encode(),
        "changed": replace(wrapped, p1=0x40).encode(),
        "repeated": wrapped.encode(),
        "short": bytes.fromhex("84F2800201FF"),
    }[breach]
    if breach == "repeated":
        card.transmit(wrapped.encode())
    assert card.transmit(broken).hex() == "6982"
    assert card.transmit(host.channel.wrap(STATUS).encode()).hex() == "6982"


@pytest.mark.parametrize("end", ["reset", "select", "initialize update"])
def test_a_channel_ends(end: str) -> None:
    card = new_card()
    host = issuer(card)
    if end == "reset":
        card.reset()
    else:
        command = Select(ISSUER_DOMAIN_AID) if end == "select" else InitializeUpdate(bytes(8))
        card.transmit(command.apdu().encode())
    assert host.plain(host.channel.wrap(STATUS)).sw == 0x6982


def test_an_unknown_key_version_or_domain_is_refused() -> None:
    card = new_card()
    assert send(card, "80507F0008" + "00" * 8 + "00") == "6A88"
    assert card.transmit(Select(DOMAIN_AID).apdu().encode()).hex() == "6a82"
    create_domain(issuer(card))
    assert card.transmit(Select(DOMAIN_AID).apdu().encode())[-2:].hex() == "9000"
    assert send(card, "8050000008" + "00" * 8 + "00") == "6A88"  # it has no keys yet


# what anybody may ask


def test_the_issuers_domain_is_selected_by_its_aid_or_by_none() -> None:
    card = new_card()
    for command in ("00A4040008A00000015100000000", "00A4040000"):
        assert send(card, command) == "6F108408A000000151000000A5049F6501FF9000"
    assert send(card, "00A4040007A000000151000000") == "6A82"


def test_a_card_tells_what_it_is() -> None:
    card = new_card()
    assert CardRecognitionData.parse(card.transmit(GetData(0x66).apdu().encode())[:-2]).secure_channels == ((3, 0x70),)
    assert send(card, "80CA004200") == "4204123456789000"
    assert send(card, "80CA004500") == "450800000000000000009000"
    assert send(card, "80CA00CF00") == "CF0A000102030405060708099000"
    assert send(card, "80CA00E000") == "E012C00401018810C00402018810C004030188109000"
    assert send(card, "80CA006700").startswith("67")
    assert send(card, "80CA9F7F00") == "6A88"


def test_a_providers_domain_tells_of_its_keys_but_not_of_the_card() -> None:
    host = provider(card_with_domain())
    assert {key.version for key in KeyInformation.parse(host.send(GetData(0xE0).apdu())).keys} == {0x02}
    for tag in (0x42, 0x45):
        with refused_with(0x6A88):
            host.send(GetData(tag).apdu())


@pytest.mark.parametrize(
    ("command", "answer"),
    [("80FF000000", "6D00"), ("90F2800000", "6E00"), ("00CADF3005", "6D00"), ("00CB3FFF", "6D00"), ("00A404", "6700")],
)
def test_refuses_what_it_does_not_know(command: str, answer: str) -> None:
    assert send(new_card(), command) == answer


# keys


def test_provisional_keys_come_through_the_parent_and_the_providers_replace_them() -> None:
    card = new_card()
    create_domain(issuer(card))
    give_keys(issuer(card), DOMAIN_AID, 0x01, PROVISIONAL_KEYS)
    host = Host(card, DOMAIN_AID, PROVISIONAL_KEYS, 0x01)

    answer = put_key(host, 0x01, 0x02, PROVIDER_KEYS)

    assert answer[0] == 0x02
    assert answer[1:] == b"".join(kcv_aes(key) for key in (PROVIDER_KEYS.enc, PROVIDER_KEYS.mac, PROVIDER_KEYS.dek))
    provider(card)
    assert send(card, "8050010008" + "00" * 8 + "00") == "6A88"  # the operator's way in is gone


def test_put_key_takes_keys_without_a_length_octet_too() -> None:
    card = card_with_domain()
    host = provider(card)
    keys = tuple(replace(key, key_length=None) for key in encrypted_keys(PROVIDER_KEYS.dek, ISSUER_KEYS))
    host.send(PutKey(0x02, 0x03, keys).apdu())
    Host(card, DOMAIN_AID, ISSUER_KEYS, 0x03)


def test_a_key_version_is_added_beside_the_others() -> None:
    card = card_with_domain()
    put_key(provider(card), 0x00, 0x05, PROVISIONAL_KEYS)
    Host(card, DOMAIN_AID, PROVISIONAL_KEYS, 0x05)
    Host(card, DOMAIN_AID, PROVIDER_KEYS, 0x02)


def test_the_session_goes_on_under_the_keys_that_it_began_with() -> None:
    card = card_with_domain()
    host = provider(card)
    put_key(host, 0x02, 0x03, PROVISIONAL_KEYS)
    put_key(host, 0x03, 0x04, PROVISIONAL_KEYS)  # wrapped by the first DEK
    Host(card, DOMAIN_AID, PROVISIONAL_KEYS, 0x04)


def wrong_keys(**changes: object) -> PutKey:
    keys = encrypted_keys(PROVIDER_KEYS.dek, PROVISIONAL_KEYS)
    return replace(PutKey(0x02, 0x03, keys), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        (wrong_keys(keys=encrypted_keys(PROVISIONAL_KEYS.dek, PROVISIONAL_KEYS)), 0x9485),  # another DEK
        (wrong_keys(keys=encrypted_keys(PROVIDER_KEYS.dek, PROVISIONAL_KEYS)[:2]), 0x6A80),
        (wrong_keys(keys=(EncryptedKey(bytes(24), bytes(3)),) * 3), 0x6A80),
        (wrong_keys(keys=(EncryptedKey(bytes(16), bytes(3), 0x80),) * 3), 0x6A80),  # DES
        (wrong_keys(key_version=0x09), 0x6A88),
        (wrong_keys(key_version=0x00, new_key_version=0x02), 0x6A80),  # there already
        (wrong_keys(new_key_version=0x80), 0x6A80),
        (wrong_keys(key_identifier=2), 0x6A86),
    ],
)
def test_put_key_refused_leaves_the_old_keys(command: PutKey, sw: int) -> None:
    card = card_with_domain()
    with refused_with(sw):
        provider(card).send(command.apdu())
    provider(card)


def test_an_operator_cannot_give_keys_to_a_domain_that_has_its_own() -> None:
    with refused_with(0x6985):
        give_keys(issuer(card_with_domain()), DOMAIN_AID, 0x01, PROVISIONAL_KEYS)


def test_key_groupings_that_do_not_fit_are_not_stored() -> None:
    card = new_card()
    create_domain(issuer(card))
    wrong = key_dgis(0x01, encrypted_keys(PROVIDER_KEYS.dek, PROVISIONAL_KEYS))
    for content, sw in ((wrong, 0x9485), (b"\x00\xb9\x00", 0x6A80), (b"\x01", 0x6A80)):
        host = issuer(card)
        host.send(InstallForPersonalization(DOMAIN_AID).apdu())
        with refused_with(sw):
            store(host, content, encrypted=True)
    give_keys(issuer(card), DOMAIN_AID, 0x01, PROVISIONAL_KEYS)


# personalisation


@pytest.fixture(scope="module")
def content() -> dict[int, bytes]:
    return groupings(credential(), "1234", "ABC123")


def personalize(host: Host, content: dict[int, bytes], dek: bytes | None = None) -> None:
    host.send(InstallForPersonalization(jpki.APPLICATION_AID).apdu())
    store(host, encrypted_dgis(dek or host.keys.dek, content.items()), encrypted=True)


def is_personalized(card: SimulatedUicc) -> bool:
    card.transmit(Select(jpki.APPLICATION_AID).apdu().encode())
    return send(card, "00200098") == "63C3"


def test_an_applet_is_personalised_through_its_domain() -> None:
    card = issue_card(credential(), authentication_pin="1234", signature_pin="ABC123")
    assert is_personalized(card)
    assert b"\x9f\x70\x01\x0f" in issuer(card).send(GetStatus(0x40, jpki.APPLICATION_AID).apdu())


def test_only_its_own_domain_personalises_an_applet(content: dict[int, bytes]) -> None:
    card = card_with_domain()
    with refused_with(0x6985):
        personalize(issuer(card), content)
    assert not is_personalized(card)


def test_an_applet_is_personalised_once(content: dict[int, bytes]) -> None:
    card = card_with_domain()
    personalize(provider(card), content)
    with refused_with(0x6A80):  # the applet's own word: its domain may come again, with less
        personalize(provider(card), content)


def test_nothing_reaches_an_applet_outside_a_secure_channel(content: dict[int, bytes]) -> None:
    card = card_with_domain()
    card.transmit(Select(jpki.APPLICATION_AID).apdu().encode())
    assert send(card, "80E2E80001" + "00") == "6D00"
    card.transmit(Select(DOMAIN_AID).apdu().encode())
    assert card.transmit(InstallForPersonalization(jpki.APPLICATION_AID).apdu().encode()).hex() == "6982"


def damaged(content: dict[int, bytes], how: str) -> bytes:
    if how == "a key that is not the certificate's":
        content = content | key_groupings(0x8300, new_key())
    if how == "no PIN":
        content = {tag: value for tag, value in content.items() if tag != 0x8010}
    dgis = encrypted_dgis(PROVISIONAL_KEYS.dek if how == "another DEK" else PROVIDER_KEYS.dek, content.items())
    if how == "a grouping twice":
        dgis += encrypted_dgis(PROVIDER_KEYS.dek, [(0x8010, b"1234")])
    if how == "plain":
        dgis = bytes.fromhex("801004") + b"1234"
    return dgis[:-1] if how == "cut off" else dgis


@pytest.mark.parametrize(
    "how",
    ["a key that is not the certificate's", "no PIN", "another DEK", "a grouping twice", "plain", "cut off"],
)
def test_all_or_nothing(content: dict[int, bytes], how: str) -> None:
    card = card_with_domain()
    host = provider(card)
    host.send(InstallForPersonalization(jpki.APPLICATION_AID).apdu())
    with refused_with(0x6A80):
        store(host, damaged(content, how), encrypted=True)
    assert not is_personalized(card)
    personalize(provider(card), content)
    assert is_personalized(card)


def test_content_must_be_encrypted(content: dict[int, bytes]) -> None:
    host = provider(card_with_domain())
    host.send(InstallForPersonalization(jpki.APPLICATION_AID).apdu())
    with refused_with(0x6982):
        store(host, encrypted_dgis(PROVIDER_KEYS.dek, content.items()), encrypted=False)


def test_blocks_come_in_order(content: dict[int, bytes]) -> None:
    host = provider(card_with_domain())
    host.send(InstallForPersonalization(jpki.APPLICATION_AID).apdu())
    host.send(StoreData(0, b"\x01", last=False, encrypted=True).apdu())
    with refused_with(0x6A86):
        host.send(StoreData(2, b"\x01", last=False, encrypted=True).apdu())


def test_a_connection_cut_before_the_last_block_leaves_an_empty_applet(
    content: dict[int, bytes], tmp_path: Path
) -> None:
    card = card_with_domain()
    card.save(tmp_path / "card.json")
    host = provider(card)
    host.card = Relayed(faults.cut_before(card.transmit, 10))  # type: ignore[assignment]
    with pytest.raises(faults.ConnectionCut):
        personalize(host, content)

    card = SimulatedUicc.load(tmp_path / "card.json")
    assert not is_personalized(card)
    personalize(provider(card), content)
    assert is_personalized(SimulatedUicc.load(tmp_path / "card.json"))


class Relayed:
    """Something with a `transmit`, as a host sees a card."""

    def __init__(self, transmit) -> None:  # type: ignore[no-untyped-def]
        self.transmit = transmit


def test_random_octets_never_break_a_card() -> None:
    card = card_with_domain()
    for length in [*range(40), 255, 256, 300] * 5:
        command = os.urandom(length)
        assert len(card.transmit(command)) >= 2
    host = issuer(card)
    for ins in (0xE6, 0xE8, 0xD8, 0xE2, 0xF2, 0xCA):
        for p1 in (0x00, 0x02, 0x04, 0x0C, 0x08, 0x20, 0x40, 0x60, 0x80, 0xE8):
            answer: ResponseApdu = host.secured(CommandApdu(0x80, ins, p1, 0, os.urandom(20)))
            assert answer.sw != 0x6F00
    assert host.secured(STATUS).sw == 0x9000


def test_an_applet_belongs_to_the_domain_of_its_load_file() -> None:
    card = new_card()
    host = issuer(card)
    load(host, jpki_cap.build(), b"")
    install_applet(host)
    personalize(issuer(card), groupings(credential(), "1234", "ABC123"))
    assert is_personalized(card)
