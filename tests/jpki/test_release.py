"""The release document and its signature by the My Number card."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.application import ApplicationDocument
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificate_authority import CertificateRequest
from tsm.jpki.certificates import Holder, Kind, read_certificate
from tsm.jpki.documents import MAX_CERTIFICATE, MAX_DOCUMENT, verify_signed
from tsm.jpki.release import ReleaseDocument, SignedRelease
from tsm.keys.vault import SoftwareVault

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")
ICCID = "8981100000000000010"
DOCUMENT = ReleaseDocument("a-challenge", ICCID)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    folder: Path = tmp_path_factory.mktemp("authority")
    vault = SoftwareVault.create(folder / "ca" / "vault", folder / "kek")
    made = Authority(folder / "ca", vault, lambda: NOW)
    yield made
    made.close()
    vault.close()


@pytest.fixture(scope="module")
def main(authority: Authority) -> MainCredential:
    return authority.issue_main(HANAKO)


def signed(key: rsa.RSAPrivateKey, certificate: bytes, document: bytes = DOCUMENT.encode()) -> SignedRelease:
    return SignedRelease(document, key.sign(document, padding.PKCS1v15(), hashes.SHA256()), certificate)


def issuer(authority: Authority) -> x509.Certificate:
    return read_certificate(authority.certificate(Kind.SIGNATURE))


def test_the_octets_that_are_signed_are_these() -> None:
    assert DOCUMENT.encode() == (b'{"challenge":"a-challenge","iccid":"8981100000000000010","purpose":"release-card"}')
    assert ReleaseDocument.read(DOCUMENT.encode()) == DOCUMENT


def test_what_the_holders_card_signed_is_hers(authority: Authority, main: MainCredential) -> None:
    release = signed(main.signature_key, main.signature_certificate)
    assert verify_signed(release, issuer(authority), NOW) == read_certificate(main.signature_certificate)
    assert release.read_document() == DOCUMENT


@pytest.mark.parametrize(
    ("case", "code", "later"),
    [
        ("a copied certificate", ErrorCode.BAD_SIGNATURE, timedelta()),
        ("a signature over something else", ErrorCode.BAD_SIGNATURE, timedelta()),
        ("the card's other key", ErrorCode.CERTIFICATE_INVALID, timedelta()),
        ("nothing that is a certificate", ErrorCode.CERTIFICATE_INVALID, timedelta()),
        ("an expired certificate", ErrorCode.CERTIFICATE_EXPIRED, timedelta(days=6 * 365)),
    ],
)
def test_nothing_else_is(authority: Authority, main: MainCredential, case: str, code: ErrorCode, later) -> None:
    holders = signed(main.signature_key, main.signature_certificate)
    release = {
        "a copied certificate": lambda: signed(rsa.generate_private_key(65537, 2048), main.signature_certificate),
        "a signature over something else": lambda: replace(holders, document=ReleaseDocument("b", ICCID).encode()),
        "the card's other key": lambda: signed(main.authentication_key, main.authentication_certificate),
        "nothing that is a certificate": lambda: replace(holders, certificate=b"\x30\x00"),
        "an expired certificate": lambda: holders,
    }[case]()
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is code):
        verify_signed(release, issuer(authority), NOW + later)


def test_the_phones_own_key_releases_nothing(authority: Authority, main: MainCredential, monkeypatch) -> None:
    """It is of the same authority and of the same person, and whoever has the phone has it."""
    key = rsa.generate_private_key(65537, 2048)
    monkeypatch.setattr("tsm.jpki.authority.new_key", lambda: key)
    issued = authority.issue(CertificateRequest("credential-1", "JPKI0001", main.signature_certificate))
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.CERTIFICATE_INVALID):
        verify_signed(signed(key, issued.signature), issuer(authority), NOW)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        json.dumps({"challenge": "a", "iccid": ICCID, "purpose": "release-card"}).encode(),  # with spaces
        b'{"challenge":"a","iccid":"8981100000000000010"}',
        b'{"challenge":"a","iccid":"8981100000000000010","purpose":"other"}',
        b'{"challenge":"a","iccid":"8981100000000000011","purpose":"release-card"}',  # its check digit is wrong
        b'{"challenge":1,"iccid":"8981100000000000010","purpose":"release-card"}',
        ApplicationDocument("a", ICCID, "JPKI0001", HANAKO.name).encode(),
    ],
)
def test_what_is_not_the_document_is_refused(document: bytes) -> None:
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.INVALID_INPUT):
        ReleaseDocument.read(document)


def test_neither_document_can_be_taken_for_the_other() -> None:
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.INVALID_INPUT):
        ApplicationDocument.read(DOCUMENT.encode())


@pytest.mark.parametrize(
    "release",
    [
        SignedRelease(bytes(MAX_DOCUMENT + 1), b"", b""),
        SignedRelease(DOCUMENT.encode(), b"", bytes(MAX_CERTIFICATE + 1)),
    ],
)
def test_what_is_too_large_is_not_read(release: SignedRelease) -> None:
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.MESSAGE_TOO_LARGE):
        release.read_document()


@given(st.binary(max_size=200))
def test_any_octets_are_either_refused_or_canonical(octets: bytes) -> None:
    try:
        document = ReleaseDocument.read(octets)
    except TsmError as refusal:
        assert refusal.code in (ErrorCode.INVALID_INPUT, ErrorCode.MESSAGE_TOO_LARGE)
    else:
        assert document.encode() == octets


@given(st.text(max_size=50).filter(lambda text: text.isprintable()))
def test_what_was_encoded_reads_back(challenge: str) -> None:
    document = ReleaseDocument(challenge, ICCID)
    assert ReleaseDocument.read(document.encode()) == document
