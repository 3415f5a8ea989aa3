"""The built-in authority, and the checks that everybody makes of its certificates."""

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.authority import Authority, MainCredential, end_of_fifth_birthday
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    DestructionReceipt,
    IssuedCertificates,
    RevocationRequest,
)
from tsm.jpki.certificates import (
    Carrier,
    Holder,
    Kind,
    RevocationList,
    holder,
    public_key,
    read_certificate,
    verify_certificate,
)
from tsm.jpki.key_transport import unwrap_keys
from tsm.keys.vault import SoftwareVault

PROVIDER, CREDENTIAL = "JPKI0001", "8d5fae0c-1d9e-4b0b-8f9f-9b2f5ce60b0a"
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")
START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[SoftwareVault]:
    made = SoftwareVault.create(tmp_path / "ca" / "vault", tmp_path / "kek")
    yield made
    made.close()


@pytest.fixture
def authority(tmp_path: Path, vault: SoftwareVault, clock: Clock) -> Iterator[Authority]:
    made = Authority(tmp_path / "ca", vault, clock, "http://127.0.0.1:1")
    yield made
    made.close()


@pytest.fixture
def main(authority: Authority) -> MainCredential:
    return authority.issue_main(HANAKO)


def request_for(main: MainCredential, provider: str = PROVIDER) -> CertificateRequest:
    return CertificateRequest(CREDENTIAL, provider, main.signature_certificate)


def hashes_of(issued: IssuedCertificates) -> list[str]:
    return [hashlib.sha256(issued.of(kind)).hexdigest() for kind in Kind]


def refused(code: ErrorCode) -> "pytest.RaisesExc[TsmError]":
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def test_a_main_certificate_says_who_the_holder_is_only_in_the_signature_certificate(main: MainCredential) -> None:
    signature, authentication = (
        read_certificate(der) for der in (main.signature_certificate, main.authentication_certificate)
    )

    assert holder(signature) == HANAKO
    assert HANAKO.birth_date == "419900203"
    with refused(ErrorCode.CERTIFICATE_INVALID):
        holder(authentication)
    assert HANAKO.name not in signature.subject.rfc4514_string()


@pytest.mark.parametrize("kind", Kind)
def test_certificates_are_of_the_profile_that_card_readers_expect(
    authority: Authority, main: MainCredential, kind: Kind
) -> None:
    issued = authority.issue(request_for(main)).of(kind)
    certificate = read_certificate(issued)

    assert issued[:2] == bytes.fromhex("3082")
    assert 256 <= len(issued) <= 65535
    assert certificate.signature_algorithm_oid.dotted_string == "1.2.840.113549.1.1.11"  # sha256WithRSAEncryption
    assert public_key(certificate).public_numbers().e == 65537
    assert "Simulated" in certificate.subject.rfc4514_string()
    assert "Simulated" in certificate.issuer.rfc4514_string()
    verify_certificate(certificate, read_certificate(authority.certificate(kind)), kind, START, Carrier.PHONE)


@pytest.mark.parametrize(
    ("born", "issued", "ends"),
    [
        (date(1990, 2, 3), START, datetime(2031, 2, 3, 14, 59, 59, tzinfo=UTC)),
        (date(1990, 12, 31), START, datetime(2030, 12, 31, 14, 59, 59, tzinfo=UTC)),
        (date(1990, 11, 21), START, datetime(2031, 11, 21, 14, 59, 59, tzinfo=UTC)),  # issued on a birthday
        (date(2000, 2, 29), START, datetime(2031, 2, 28, 14, 59, 59, tzinfo=UTC)),
        (date(1990, 11, 22), START + timedelta(hours=13), datetime(2031, 11, 22, 14, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_certificate_ends_with_the_fifth_birthday_in_japan(born: date, issued: datetime, ends: datetime) -> None:
    assert end_of_fifth_birthday(born, issued) == ends


def test_a_phones_certificate_does_not_outlive_the_main_certificate(
    authority: Authority, main: MainCredential, clock: Clock
) -> None:
    clock.now += timedelta(days=365 * 2)

    issued = read_certificate(authority.issue(request_for(main)).signature)

    assert issued.not_valid_after_utc == read_certificate(main.signature_certificate).not_valid_after_utc


def test_asking_again_gives_the_same_certificates(authority: Authority, main: MainCredential) -> None:
    assert authority.issue(request_for(main)) == authority.issue(request_for(main))
    with refused(ErrorCode.ALREADY_EXISTS):
        authority.issue(request_for(main, provider="JPKI0002"))


def test_an_authority_opens_again_as_the_same(
    tmp_path: Path, authority: Authority, main: MainCredential, vault: SoftwareVault, clock: Clock
) -> None:
    issued = authority.issue(request_for(main))
    authority.close()

    reopened = Authority(tmp_path / "ca", vault, clock)

    assert reopened.issue(request_for(main)) == issued
    assert reopened.certificate(Kind.SIGNATURE) == authority.certificate(Kind.SIGNATURE)
    reopened.close()


def test_only_a_valid_main_certificate_gives_a_phone_a_certificate(
    authority: Authority, main: MainCredential, clock: Clock
) -> None:
    phone = authority.issue(request_for(main))
    with refused(ErrorCode.CERTIFICATE_INVALID):  # a phone's certificate is none for a My Number card
        authority.issue(CertificateRequest("other", PROVIDER, phone.signature))
    with refused(ErrorCode.CERTIFICATE_INVALID):  # nor is one of the other authority
        authority.issue(CertificateRequest("other", PROVIDER, main.authentication_certificate))
    serial = read_certificate(main.signature_certificate).serial_number
    authority.revoke(Kind.SIGNATURE, serial, x509.ReasonFlags.cessation_of_operation)
    with refused(ErrorCode.CERTIFICATE_REVOKED):
        authority.issue(CertificateRequest("other", PROVIDER, main.signature_certificate))
    clock.now += timedelta(days=365 * 6)
    with refused(ErrorCode.CERTIFICATE_EXPIRED):
        authority.issue(CertificateRequest("other", PROVIDER, main.signature_certificate))


def test_a_certificate_of_another_authority_with_the_same_name_is_refused(
    tmp_path: Path, main: MainCredential, vault: SoftwareVault, clock: Clock
) -> None:
    foreign_vault = SoftwareVault.create(tmp_path / "foreign" / "vault", tmp_path / "foreign-kek")
    foreign = Authority(tmp_path / "foreign", foreign_vault, clock)

    with refused(ErrorCode.CERTIFICATE_INVALID):
        verify_certificate(
            read_certificate(main.signature_certificate),
            read_certificate(foreign.certificate(Kind.SIGNATURE)),
            Kind.SIGNATURE,
            START,
        )
    foreign.close()
    foreign_vault.close()


def test_a_revocation_list_is_fresh_complete_and_the_authoritys_own(authority: Authority, main: MainCredential) -> None:
    issuer = read_certificate(authority.certificate(Kind.SIGNATURE))
    crl = authority.revocation_list(Kind.SIGNATURE)
    certificate = read_certificate(main.signature_certificate)

    read = RevocationList.read(crl, issuer, START)
    read.check(certificate)

    assert read.as_of == START
    for bad, at in ((crl, START + timedelta(hours=2)), (crl, START - timedelta(minutes=6)), (crl[:-1], START)):
        with refused(ErrorCode.REVOCATION_UNKNOWN):
            RevocationList.read(bad, issuer, at)
    with refused(ErrorCode.REVOCATION_UNKNOWN):
        RevocationList.read(authority.revocation_list(Kind.AUTHENTICATION), issuer, START)


def test_a_revoked_certificate_is_on_the_next_list_with_its_reason(authority: Authority, main: MainCredential) -> None:
    certificate = read_certificate(main.signature_certificate)
    authority.revoke(Kind.SIGNATURE, certificate.serial_number, x509.ReasonFlags.key_compromise)
    authority.revoke(Kind.SIGNATURE, certificate.serial_number, x509.ReasonFlags.superseded)

    read = RevocationList.read(
        authority.revocation_list(Kind.SIGNATURE), read_certificate(authority.certificate(Kind.SIGNATURE)), START
    )

    with refused(ErrorCode.CERTIFICATE_REVOKED):
        read.check(certificate)
    entry = read.crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    assert entry is not None
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    with refused(ErrorCode.NOT_FOUND):
        authority.revoke(Kind.SIGNATURE, 1, x509.ReasonFlags.superseded)


def test_both_certificates_of_a_credential_are_revoked_together_and_once(
    authority: Authority, main: MainCredential
) -> None:
    issued = authority.issue(request_for(main))
    sha256 = {kind: hashlib.sha256(issued.of(kind)).hexdigest() for kind in Kind}
    asked = RevocationRequest(
        CREDENTIAL, sha256[Kind.AUTHENTICATION], sha256[Kind.SIGNATURE], x509.ReasonFlags.superseded
    )

    with refused(ErrorCode.NOT_FOUND):
        authority.revoke_credential(replace(asked, credential="another"))
    with refused(ErrorCode.INVALID_INPUT):
        authority.revoke_credential(replace(asked, signature_sha256=sha256[Kind.AUTHENTICATION]))
    assert not any(revoked(authority, kind) for kind in Kind)

    authority.revoke_credential(asked)
    authority.revoke_credential(replace(asked, reason=x509.ReasonFlags.key_compromise))

    for kind in Kind:
        [entry] = revoked(authority, kind)
        assert entry.serial_number == read_certificate(issued.of(kind)).serial_number
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.superseded


def revoked(authority: Authority, kind: Kind) -> list[x509.RevokedCertificate]:
    return list(x509.load_der_x509_crl(authority.revocation_list(kind)))


def test_openssl_accepts_chain_and_revocation_list(tmp_path: Path, authority: Authority, main: MainCredential) -> None:
    """A program that nobody here wrote builds the path and reads the list."""
    files = {
        "ca.der": authority.certificate(Kind.SIGNATURE),
        "crl.der": authority.revocation_list(Kind.SIGNATURE),
        "me.der": main.signature_certificate,
    }
    for name, der in files.items():
        (tmp_path / name).write_bytes(der)
        form = "crl" if name == "crl.der" else "x509"
        run = ["openssl", form, "-inform", "DER", "-in", name, "-out", name.replace(".der", ".pem")]
        subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)

    verify = ["openssl", "verify", "-x509_strict", "-crl_check", "-attime", str(int(START.timestamp()) + 1)]
    answer = subprocess.run(
        [*verify, "-CAfile", "ca.pem", "-CRLfile", "crl.pem", "me.pem"], cwd=tmp_path, capture_output=True, text=True
    )

    assert answer.stdout == "me.pem: OK\n", answer.stderr


def test_keys_travel_to_the_provider_alone_and_their_copies_die(
    tmp_path: Path, authority: Authority, main: MainCredential
) -> None:
    provider = SoftwareVault.create(tmp_path / "provider", tmp_path / "provider-kek")
    transport = provider.generate_transport_key("provider/transport")
    issued = authority.issue(request_for(main))
    decrypt = partial(provider.decrypt, "provider/transport")

    wrapped = authority.wrapped_keys(CREDENTIAL, PROVIDER, transport)
    bundle = unwrap_keys(wrapped, CREDENTIAL, PROVIDER, decrypt)

    for octets, der in ((bundle.authentication, issued.authentication), (bundle.signature, issued.signature)):
        key = load_der_private_key(octets, password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        assert spki(key.public_key()) == spki(public_key(read_certificate(der)))
    with refused(ErrorCode.NOT_FOUND):
        authority.wrapped_keys(CREDENTIAL, "JPKI0002", transport)
    with refused(ErrorCode.KEY_REFUSED):
        unwrap_keys(wrapped, "another", PROVIDER, decrypt)

    receipts = authority.destroy_key_copies(CREDENTIAL, PROVIDER, hashes_of(issued))

    with refused(ErrorCode.UNKNOWN_KEY):
        authority.wrapped_keys(CREDENTIAL, PROVIDER, transport)
    assert authority.destroy_key_copies(CREDENTIAL, PROVIDER, hashes_of(issued)) == receipts
    provider.close()


def test_a_receipt_names_the_certificate_and_cannot_be_forged(authority: Authority, main: MainCredential) -> None:
    issued = authority.issue(request_for(main))
    authorities = {kind: read_certificate(authority.certificate(kind)) for kind in Kind}

    receipts = authority.destroy_key_copies(CREDENTIAL, PROVIDER, hashes_of(issued))

    said = [receipt.verify(authorities) for receipt in receipts]
    assert {each.kind: each.certificate_sha256 for each in said} == {
        kind: hashlib.sha256(issued.of(kind)).hexdigest() for kind in Kind
    }
    changed = receipts[0].statement.replace(CREDENTIAL.encode(), b"8d5fae0c-1d9e-4b0b-8f9f-000000000000")
    with refused(ErrorCode.BAD_SIGNATURE):
        DestructionReceipt(changed, receipts[0].signature).verify(authorities)
    for junk in (b"", b"[]", b'{"kind":"signature"}', receipts[0].statement + b" "):
        with refused(ErrorCode.INVALID_INPUT):
            DestructionReceipt(junk, receipts[0].signature).verify(authorities)


def test_no_private_key_lies_readable_in_the_authoritys_files(
    tmp_path: Path, authority: Authority, main: MainCredential
) -> None:
    authority.issue(request_for(main))
    marker = bytes.fromhex("06092a864886f70d0101010500048204")  # how an unencrypted PKCS#8 RSA key goes on

    for path in (tmp_path / "ca").rglob("*"):
        if path.is_file():
            assert marker not in path.read_bytes(), path


def spki(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
