"""The application document and its signature by the My Number card."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.application import ApplicationDocument, SignedApplication, verify_application
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificates import Holder, Kind, read_certificate
from tsm.keys.vault import SoftwareVault

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")
DOCUMENT = ApplicationDocument("a-challenge", "8981100000000000010", "JPKI0001", HANAKO.name)


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


def signed(key: rsa.RSAPrivateKey, certificate: bytes, document: bytes | None = None) -> SignedApplication:
    octets = DOCUMENT.encode() if document is None else document
    return SignedApplication(octets, key.sign(octets, padding.PKCS1v15(), hashes.SHA256()), certificate)


def issuer(authority: Authority) -> x509.Certificate:
    return read_certificate(authority.certificate(Kind.SIGNATURE))


def test_an_application_signed_by_the_card_is_accepted(authority: Authority, main: MainCredential) -> None:
    application = signed(main.signature_key, main.signature_certificate)

    certificate = verify_application(application, issuer(authority), NOW)

    assert certificate == read_certificate(main.signature_certificate)


def test_a_copied_certificate_without_its_key_proves_nothing(authority: Authority, main: MainCredential) -> None:
    thief = rsa.generate_private_key(65537, 2048)

    refuses(ErrorCode.BAD_SIGNATURE, signed(thief, main.signature_certificate), authority)


def test_the_other_key_of_the_card_does_not_sign_applications(authority: Authority, main: MainCredential) -> None:
    application = signed(main.authentication_key, main.authentication_certificate)

    refuses(ErrorCode.CERTIFICATE_INVALID, application, authority)


def test_an_expired_certificate_is_refused(authority: Authority, main: MainCredential) -> None:
    application = signed(main.signature_key, main.signature_certificate)

    refuses(ErrorCode.CERTIFICATE_EXPIRED, application, authority, NOW + timedelta(days=6 * 365))


def test_the_certificate_must_name_the_applicant(authority: Authority, main: MainCredential) -> None:
    other = replace(DOCUMENT, applicant="見本太郎").encode()

    refuses(ErrorCode.CERTIFICATE_INVALID, signed(main.signature_key, main.signature_certificate, other), authority)


def test_what_is_no_certificate_is_refused(authority: Authority, main: MainCredential) -> None:
    refuses(ErrorCode.CERTIFICATE_INVALID, signed(main.signature_key, b"\x30\x82"), authority)
    refuses(ErrorCode.MESSAGE_TOO_LARGE, signed(main.signature_key, bytes(10_000)), authority)


def test_a_document_is_read_as_it_was_written() -> None:
    assert ApplicationDocument.read(DOCUMENT.encode()) == DOCUMENT


MEMBERS = json.loads(DOCUMENT.encode())
BAD_DOCUMENTS = [
    b"",
    b"\xff",
    b"[]",
    b"null",
    b"[" * 3000,
    DOCUMENT.encode() + b"\n",
    json.dumps(MEMBERS).encode(),
    json.dumps({**MEMBERS, "more": "1"}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(),
    json.dumps({**MEMBERS, "applicant": 5}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(),
    replace(DOCUMENT, iccid="8981100000000000011").encode(),
    replace(DOCUMENT, provider="jpki").encode(),
    b'{"applicant":"\\ud800","challenge":"a","iccid":"8981100000000000010","provider":"JPKI0001"}',
]


@pytest.mark.parametrize("document", BAD_DOCUMENTS)
def test_a_document_in_another_form_is_refused(document: bytes) -> None:
    with pytest.raises(TsmError) as refusal:
        ApplicationDocument.read(document)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


def test_an_oversized_document_is_refused() -> None:
    with pytest.raises(TsmError) as refusal:
        ApplicationDocument.read(replace(DOCUMENT, applicant="x" * 5000).encode())
    assert refusal.value.code is ErrorCode.MESSAGE_TOO_LARGE


def refuses(code: ErrorCode, application: SignedApplication, authority: Authority, at: datetime = NOW) -> None:
    with pytest.raises(TsmError) as refusal:
        verify_application(application, issuer(authority), at)
    assert refusal.value.code is code
