"""What the applet is given, as STORE DATA commands."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import StoreData
from tsm.globalplatform.dgi import parse_dgis
from tsm.jpki.authority import Authority
from tsm.jpki.certificates import Holder, Kind
from tsm.jpki.personalisation import Personalisation, personalisation_commands, token_information
from tsm.keys.vault import SoftwareVault

HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")
LARGEST = 239  # octets of command data in a session at level 33


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Personalisation:
    folder: Path = tmp_path_factory.mktemp("authority")
    vault = SoftwareVault.create(folder / "ca" / "vault", folder / "kek")
    authority = Authority(folder / "ca", vault, lambda: datetime(2026, 11, 21, tzinfo=UTC))
    main = authority.issue_main(HANAKO)
    made = Personalisation(
        authentication_certificate=main.authentication_certificate,
        authentication_ca=authority.certificate(Kind.AUTHENTICATION),
        signature_certificate=main.signature_certificate,
        signature_ca=authority.certificate(Kind.SIGNATURE),
        authentication_key=octets(main.authentication_key),
        signature_key=octets(main.signature_key),
        authentication_pin="1234",
        signature_pin="abc123",
    )
    authority.close()
    vault.close()
    return made


def octets(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def plain(commands: list[CommandApdu]) -> dict[int, bytes]:
    blocks = b"".join(StoreData.parse(command).block for command in commands[1:])
    return {dgi.tag: dgi.value for dgi in parse_dgis(blocks)}


def test_commands_fit_the_channel_and_only_the_last_says_that_it_is(content: Personalisation) -> None:
    first, *blocks = personalisation_commands(content, lambda value: value, LARGEST)

    assert first.encode()[:4].hex() == "80e62000"
    assert "d392f000260100000001" in first.encode().hex()
    assert all(len(block.data) <= LARGEST for block in blocks)
    assert {block.encode()[2] for block in blocks[:-1]} == {0x68}
    assert blocks[-1].encode()[2] == 0xE8
    assert [block.encode()[3] for block in blocks] == list(range(len(blocks)))


def test_the_groupings_hold_files_pins_and_keys(content: Personalisation) -> None:
    found = plain(personalisation_commands(content, lambda value: value, LARGEST))

    assert found[0x0101] == content.signature_certificate
    assert found[0x010A] == content.authentication_certificate
    assert found[0x8010] == b"1234"
    assert found[0x8011] == b"ABC123"
    q, p = (int.from_bytes(found[tag]) for tag in (0x8204, 0x8205))
    assert (int.from_bytes(found[0x8201]) * q) % p == 1
    assert all(len(found[tag]) == 128 for base in (0x8200, 0x8300) for tag in range(base + 1, base + 6))


def test_everything_is_encrypted_before_it_leaves(content: Personalisation) -> None:
    sent: list[bytes] = []

    def encrypt(value: bytes) -> bytes:
        sent.append(value)
        return bytes(16)

    found = plain(personalisation_commands(content, encrypt, LARGEST))

    assert len(sent) == len(found) == 17
    assert set(found.values()) == {bytes(16)}


@pytest.mark.parametrize("pin", ["123", "12345", "abcd", "１２３４", "", "1234\n"])
def test_an_authentication_pin_is_four_digits(content: Personalisation, pin: str) -> None:
    refuses(ErrorCode.INVALID_INPUT, replace(content, authentication_pin=pin))


@pytest.mark.parametrize("pin", ["abc12", "a" * 17, "abc 123", "あいうえおか", "abc123\n"])
def test_a_signature_pin_is_six_to_sixteen_letters_and_digits(content: Personalisation, pin: str) -> None:
    refuses(ErrorCode.INVALID_INPUT, replace(content, signature_pin=pin))


def test_a_key_that_is_not_the_certificates_is_refused(content: Personalisation) -> None:
    refuses(ErrorCode.KEY_REFUSED, replace(content, signature_key=content.authentication_key))


def test_secrets_do_not_show_in_a_log(content: Personalisation) -> None:
    shown = repr(content)

    assert "1234" not in shown.replace(repr(content.signature_certificate), "")
    assert "signature_key" not in shown
    assert "signature_pin" not in shown


def test_the_token_information_is_a_pkcs11_structure_of_160_octets() -> None:
    information = token_information()

    assert len(information) == 160
    assert information.startswith(b"JPKIAPICCTOKEN2 ")
    assert information[96:100].hex() == "0000040d"
    assert information.endswith(b"9" * 16)


def refuses(code: ErrorCode, content: Personalisation) -> None:
    with pytest.raises(TsmError) as refusal:
        personalisation_commands(content, lambda value: value, LARGEST)
    assert refusal.value.code is code
