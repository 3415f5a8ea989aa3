"""After a hold the applet gets another signature key with its certificate, and nothing else changes."""

from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.uicc.certificates import certified, credential, new_key
from tests.uicc.off_card import (
    PROVIDER_KEYS,
    Host,
    Refusal,
    card_with_domain,
    encrypted_dgis,
    groupings,
    issue_card,
    issuer,
    provider,
    store,
)
from tests.uicc.test_jpki_applet import MESSAGE, Wire, read
from tsm.globalplatform.commands import InstallForPersonalization, SetStatus
from tsm.uicc import jpki
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.my_number import key_dgis

SIGNATURE_PIN, AUTHENTICATION_PIN = "9B", "98"
SIGNATURE_KEY, AUTHENTICATION_KEY = "9A", "97"


@cache
def new_signature() -> tuple[bytes, rsa.RSAPrivateKey]:
    _, certificate, key = certified("digital signature, once more")
    return certificate, key


def renewal() -> dict[int, bytes]:
    certificate, key = new_signature()
    return {0x0101: certificate} | key_dgis(0x8300, key)


@pytest.fixture
def card() -> SimulatedUicc:
    return issue_card(credential(), authentication_pin="1234", signature_pin="ABC123")


def write(host: Host, content: dict[int, bytes]) -> None:
    host.send(InstallForPersonalization(jpki.APPLICATION_AID).apdu())
    store(host, encrypted_dgis(PROVIDER_KEYS.dek, content.items()), encrypted=True)


def signs(wire: Wire, key: str, public: rsa.RSAPublicKey) -> None:
    assert wire.sign("03", key, MESSAGE) == "9000"
    public.verify(wire.data, MESSAGE, padding.PKCS1v15(), SHA256())


def test_signatures_are_made_with_the_new_key_and_under_the_old_pin(card: SimulatedUicc) -> None:
    write(provider(card), renewal())
    wire = Wire(card)
    assert wire.verify(SIGNATURE_PIN, "ABC123") == "9000"
    signs(wire, SIGNATURE_KEY, new_signature()[1].public_key())
    assert read(wire, "0001") == new_signature()[0]


def test_all_else_is_as_it_was(card: SimulatedUicc) -> None:
    write(provider(card), renewal())
    wire, before = Wire(card), credential()
    assert read(wire, "000A") == before.authentication_certificate
    assert read(wire, "000B") == before.authentication_ca
    assert read(wire, "0002") == before.signature_ca
    assert wire.verify(AUTHENTICATION_PIN, "1234") == "9000"
    signs(wire, AUTHENTICATION_KEY, before.authentication_key.public_key())


def test_tries_that_were_used_up_do_not_come_back(card: SimulatedUicc) -> None:
    wire = Wire(card)
    for _ in range(5):
        wire.verify(SIGNATURE_PIN, "WRONG1")
    write(provider(card), renewal())
    wire = Wire(card)
    assert wire.verify(SIGNATURE_PIN, "ABC123") == "6983"


def test_a_key_may_be_renewed_again(card: SimulatedUicc) -> None:
    write(provider(card), renewal())
    write(provider(card), {0x0101: credential().signature_certificate} | key_dgis(0x8300, credential().signature_key))
    wire = Wire(card)
    wire.verify(SIGNATURE_PIN, "ABC123")
    signs(wire, SIGNATURE_KEY, credential().signature_key.public_key())


def changed(how: str) -> dict[int, bytes]:
    content = renewal()
    match how:
        case "another PIN for signatures":
            return content | {0x8011: b"THIEF1"}
        case "the key for user authentication, too":
            return content | {0x010A: new_signature()[0]} | key_dgis(0x8200, new_signature()[1])
        case "everything":
            return groupings(credential(), "9999", "THIEF1")
        case "no certificate":
            return {tag: value for tag, value in content.items() if tag != 0x0101}
        case "no key":
            return {0x0101: content[0x0101]}
        case "a part is missing":
            return {tag: value for tag, value in content.items() if tag != 0x8305}
        case _:
            return content | key_dgis(0x8300, new_key())


@pytest.mark.parametrize(
    "how",
    [
        "another PIN for signatures",
        "the key for user authentication, too",
        "everything",
        "no certificate",
        "no key",
        "a part is missing",
        "a key that is not the certificate's",
    ],
)
def test_nothing_else_is_taken_and_then_nothing_is_changed(card: SimulatedUicc, how: str) -> None:
    with pytest.raises(Refusal, match="6A80"):
        write(provider(card), changed(how))
    wire = Wire(card)
    assert wire.verify(SIGNATURE_PIN, "ABC123") == "9000"
    signs(wire, SIGNATURE_KEY, credential().signature_key.public_key())
    assert wire.verify(AUTHENTICATION_PIN, "1234") == "9000"


def test_no_other_domain_renews(card: SimulatedUicc) -> None:
    with pytest.raises(Refusal, match="6985"):
        write(issuer(card), renewal())


def test_a_locked_applet_is_not_renewed(card: SimulatedUicc) -> None:
    issuer(card).send(SetStatus(0x40, 0x80, jpki.APPLICATION_AID).apdu())
    with pytest.raises(Refusal, match="6985"):
        write(provider(card), renewal())


def test_an_applet_that_has_nothing_takes_all_or_nothing() -> None:
    card = card_with_domain()
    with pytest.raises(Refusal, match="6A80"):
        write(provider(card), renewal())
