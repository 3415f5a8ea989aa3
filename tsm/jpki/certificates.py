"""Certificates of the simulated JPKI: what they look like, and the checks that everybody makes who relies on one.

Two authorities issue, one for digital signature and one for user authentication, each for two carriers: the My Number
card (the main certificate) and the phone (the sub-certificate). The profile follows the service's: RSA-2048, SHA-256,
policies and the holder's attributes as otherName. Every name says "Simulated", so that none can be taken for real.
Possession of the key is not checked here: a certificate is public, and a copy of it proves nothing.
"""

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.tlv import parse_tlvs, tlv


class Kind(StrEnum):
    """What a key is for; each kind has its own authority."""

    SIGNATURE = "signature"
    AUTHENTICATION = "authentication"


class Carrier(StrEnum):
    """What holds the key: the unit (OU) in the subject of a certificate."""

    CARD = "Simulated My Number card"
    PHONE = "Simulated mobile device"


POLICY = {
    # The service's own test environment uses the first; for the second only the value in use is known.
    Kind.SIGNATURE: x509.ObjectIdentifier("1.2.392.200149.8.5.1.0.20"),
    Kind.AUTHENTICATION: x509.ObjectIdentifier("1.2.392.200149.8.5.1.3.30"),
}
HOLDER_ATTRIBUTE = "1.2.392.200149.8.5.5."  # .1 name .. .6 address substitution, in this order in `Holder`
UTF8_STRING = 0x0C
ERAS = ((date(2019, 5, 1), "5"), (date(1989, 1, 8), "4"), (date(1926, 12, 25), "3"), (date(1912, 7, 30), "2"))
MEIJI = "1"
CRITICAL = {  # extensions that these checks understand; RFC 5280 4.2: any other critical one refuses the certificate
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
KEY_BITS = 2048
CLOCK_SKEW = timedelta(minutes=5)
SMALLEST, LARGEST = 256, 65535  # octets of DER that start 30 82: card readers take the file's size from there


@dataclass(frozen=True, slots=True)
class Holder:
    """The four attributes (name, sex, birth date, address) as the signature certificate carries them.

    A substitution is a string of digits as long as its text: 1 where a character of the register could not be written.
    """

    name: str
    name_substitution: str
    sex: str  # 1 male, 2 female, 3 other
    birth_date: str  # EYYYYMMDD, E the era's number
    address: str
    address_substitution: str

    @classmethod
    def of(cls, name: str, sex: str, born: date, address: str) -> Self:
        """A holder whose name and address could be written as they are registered."""
        era = next((number for since, number in ERAS if born >= since), MEIJI)
        return cls(name, "0" * len(name), sex, f"{era}{born:%Y%m%d}", address, "0" * len(address))

    @property
    def born(self) -> date:
        try:
            return datetime.strptime(self.birth_date[1:], "%Y%m%d").date()
        except ValueError as error:
            raise TsmError(ErrorCode.CERTIFICATE_INVALID, "the birth date is not EYYYYMMDD") from error

    def other_names(self) -> list[x509.GeneralName]:
        """The attributes for the subject's alternative names."""
        return [
            x509.OtherName(
                x509.ObjectIdentifier(f"{HOLDER_ATTRIBUTE}{number}"),
                tlv(UTF8_STRING, getattr(self, field.name).encode()),
            )
            for number, field in enumerate(fields(self), start=1)
        ]


def holder(certificate: x509.Certificate) -> Holder:
    """The attributes in a signature certificate; CERTIFICATE_INVALID where one is missing."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = {n.type_id.dotted_string: n.value for n in names if isinstance(n, x509.OtherName)}
        return Holder(*(utf8_string(found[f"{HOLDER_ATTRIBUTE}{n}"]) for n in range(1, len(fields(Holder)) + 1)))
    except (x509.ExtensionNotFound, KeyError, ValueError, TsmError) as error:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "the holder's attributes are not as specified") from error


def utf8_string(der: bytes) -> str:
    [value] = parse_tlvs(der)
    if value.tag != UTF8_STRING:
        raise ValueError("not a UTF8String")
    return value.value.decode()


def read_certificate(der: bytes) -> x509.Certificate:
    """A certificate from its DER; CERTIFICATE_INVALID for anything else, and for keys that are not RSA-2048."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "not an X.509 certificate in DER") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != KEY_BITS:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "the key is not RSA-2048")
    return certificate


def public_key(certificate: x509.Certificate) -> rsa.RSAPublicKey:
    """The key of a certificate that `read_certificate` has accepted."""
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "the key is not RSA")
    return key


def verify_signature(certificate: x509.Certificate, data: bytes, signature: bytes) -> None:
    """PKCS#1 v1.5 with SHA-256 over `data`: proof that the signer holds the key. BAD_SIGNATURE otherwise."""
    try:
        public_key(certificate).verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise TsmError(ErrorCode.BAD_SIGNATURE, "the signature is not by the certificate's key") from error


def verify_certificate(
    certificate: x509.Certificate,
    authority: x509.Certificate,
    kind: Kind,
    at: datetime,
    carrier: Carrier | None = None,
) -> None:
    """Chain, profile and validity of an end entity's certificate (RFC 5280 section 6, for a path of length one).

    CERTIFICATE_INVALID when it is not the authority's, or for another use or carrier; CERTIFICATE_EXPIRED when it or
    the authority's own certificate is outside its validity period. Revocation is `RevocationList.check`.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "not issued by this authority") from error
    try:
        verify_profile(certificate, kind)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "an extension is missing or malformed") from error
    if carrier is not None and carrier not in units(certificate):
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "a certificate for another carrier")
    for each in (certificate, authority):
        if not each.not_valid_before_utc <= at <= each.not_valid_after_utc:
            raise TsmError(ErrorCode.CERTIFICATE_EXPIRED, "outside its validity period")


def verify_profile(certificate: x509.Certificate, kind: Kind) -> None:
    extensions = certificate.extensions
    if any(e.critical and e.oid not in CRITICAL for e in extensions):
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "a critical extension that is not understood")
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "an authority's certificate, not a holder's")
    if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "not for signatures")
    policies = extensions.get_extension_for_class(x509.CertificatePolicies).value
    if POLICY[kind] not in {policy.policy_identifier for policy in policies}:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "issued under another policy")


def units(certificate: x509.Certificate) -> set[str]:
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return {str(attribute.value) for attribute in found}


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A certificate revocation list whose signature and freshness have been checked."""

    crl: x509.CertificateRevocationList

    @classmethod
    def read(cls, der: bytes, authority: x509.Certificate, at: datetime) -> Self:
        """REVOCATION_UNKNOWN unless the list is the authority's, complete, and its next update lies ahead.

        A list may seem to be made a little later than now: the authority's clock need not be ours.
        """
        try:
            crl = x509.load_der_x509_crl(der)
            genuine = crl.issuer == authority.subject and crl.is_signature_valid(public_key(authority))
            partial = any(e.critical for e in crl.extensions)  # a delta, or one point's share (RFC 5280 5.2)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "not a revocation list in DER") from error
        if not genuine or partial:
            raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "not a complete list of this authority")
        if crl.next_update_utc is None or not crl.last_update_utc - CLOCK_SKEW <= at <= crl.next_update_utc:
            raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "the revocation list is out of date")
        return cls(crl)

    @property
    def as_of(self) -> datetime:
        return self.crl.last_update_utc

    def check(self, certificate: x509.Certificate) -> None:
        """CERTIFICATE_REVOKED when the certificate is on the list."""
        self.check_serial(certificate.serial_number)

    def check_serial(self, serial_number: int) -> None:
        """The same for the authority's certificate with this number."""
        if self.crl.get_revoked_certificate_by_serial_number(serial_number) is not None:
            raise TsmError(ErrorCode.CERTIFICATE_REVOKED, "on the revocation list")


def serial_text(certificate: x509.Certificate) -> str:
    """The serial number as upper-case hex: personal data wherever it names a holder's certificate."""
    return f"{certificate.serial_number:X}"


def utc_second(at: datetime) -> datetime:
    """X.509 times have no fractions."""
    return at.astimezone(UTC).replace(microsecond=0)
