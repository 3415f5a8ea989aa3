"""Certificate status, asked live (RFC 6960): the responder's answer, and the relying party's check of it.

The authority signs with its own key. A delegated responder (id-kp-OCSPSigning with id-pkix-ocsp-nocheck) would keep
that key away from a machine that faces strangers; here one process holds both keys, so it would guard nothing, and
every relying party had one more certificate to judge. An authority that moves its responder elsewhere has to make one.

Every answer is made for its request, at its time, and repeats its nonce. It may be used for a minute at most. A request
that is not about one certificate of this very authority is answered `unauthorized` (RFC 5019 2.2.3), for nobody can
sign for another authority; `unknown` is a serial number that this one never issued.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import ocsp

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificates import CLOCK_SKEW, public_key, utc_second

ANSWER_LIFE = timedelta(seconds=60)
NONCE = x509.OCSPNonce.oid
LONGEST_NONCE = 128  # octets; RFC 9654 2.1
NONCE_SIZE = 32  # octets of ours

REQUEST_TYPE, RESPONSE_TYPE = "application/ocsp-request", "application/ocsp-response"


@dataclass(frozen=True, slots=True)
class Status:
    """What an authority knows of a serial number."""

    certificate: ocsp.OCSPCertStatus
    revoked_at: datetime | None = None
    reason: x509.ReasonFlags | None = None

    @classmethod
    def revoked(cls, at: datetime, reason: x509.ReasonFlags) -> Self:
        """A reason that says nothing is not named (RFC 5280 5.3.1)."""
        named = None if reason is x509.ReasonFlags.unspecified else reason
        return cls(ocsp.OCSPCertStatus.REVOKED, at, named)


GOOD = Status(ocsp.OCSPCertStatus.GOOD)
UNKNOWN = Status(ocsp.OCSPCertStatus.UNKNOWN)


def refusal(status: ocsp.OCSPResponseStatus) -> bytes:
    """DER of an answer that is none: it is not signed, and nobody may believe more of it than that."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)


TRY_LATER = refusal(ocsp.OCSPResponseStatus.TRY_LATER)
MALFORMED = refusal(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
UNAUTHORIZED = refusal(ocsp.OCSPResponseStatus.UNAUTHORIZED)


@dataclass(frozen=True, slots=True)
class Responder:
    """One authority that answers for the certificates that it issued."""

    issuer: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    status_of: Callable[[int], Status]  # by serial number

    def answer(self, request: bytes, now: datetime) -> bytes:
        """DER of the response to a DER request, whatever was sent."""
        try:
            asked = ocsp.load_der_ocsp_request(request)
            nonce, algorithm = nonce_of(asked.extensions), asked.hash_algorithm
        except (NotImplementedError, UnsupportedAlgorithm):  # several certificates; a hash that nobody here knows
            return UNAUTHORIZED
        except (ValueError, x509.DuplicateExtension):
            return MALFORMED
        if nonce is not None and not 0 < len(nonce) <= LONGEST_NONCE:
            return MALFORMED
        if asked.serial_number < 0:  # no certificate has one (RFC 5280 4.1.2.2), and nobody could repeat it
            return MALFORMED
        if any(extension.critical and extension.oid != NONCE for extension in asked.extensions):
            return UNAUTHORIZED
        if (asked.issuer_name_hash, asked.issuer_key_hash) != issuer_hashes(self.issuer, algorithm):
            return UNAUTHORIZED
        return self._signed(asked, nonce, utc_second(now))

    def _signed(self, asked: ocsp.OCSPRequest, nonce: bytes | None, now: datetime) -> bytes:
        status = self.status_of(asked.serial_number)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                asked.issuer_name_hash,
                asked.issuer_key_hash,
                asked.serial_number,
                asked.hash_algorithm,
                status.certificate,
                now,
                now + ANSWER_LIFE,
                status.revoked_at,
                status.reason,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.issuer)
        )
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def ask(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    """DER of a request for one certificate's status."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA256())
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(serialization.Encoding.DER)


def check(response: bytes, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes, at: datetime) -> None:
    """That the certificate is good now, as its issuer says in answer to `ask` with this nonce.

    CERTIFICATE_REVOKED when it is revoked or on hold. REVOCATION_UNKNOWN for every other answer: another's, an old
    one, one without our nonce, `unknown`, or none at all.
    """
    try:
        answer = ocsp.load_der_ocsp_response(response)
        genuine = is_answer(answer, certificate, issuer, nonce, at)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension) as error:
        raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "not an OCSP response of this authority") from error
    if not genuine or answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "the OCSP response does not answer")
    if answer.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        raise TsmError(ErrorCode.CERTIFICATE_REVOKED, "the authority says so now")


def is_answer(
    answer: ocsp.OCSPResponse,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    nonce: bytes,
    at: datetime,
) -> bool:
    """RFC 6960 3.2, for answers that the issuer signed itself. InvalidSignature for another's."""
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return False
    public_key(issuer).verify(answer.signature, answer.tbs_response_bytes, padding.PKCS1v15(), hashes.SHA256())
    asked = (*issuer_hashes(issuer, answer.hash_algorithm), certificate.serial_number)
    until = answer.next_update_utc
    return (
        (answer.issuer_name_hash, answer.issuer_key_hash, answer.serial_number) == asked
        and nonce_of(answer.extensions) == nonce
        and until is not None
        and answer.this_update_utc - CLOCK_SKEW <= at <= until
    )


def nonce_of(extensions: x509.Extensions) -> bytes | None:
    try:
        return extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


def issuer_hashes(issuer: x509.Certificate, algorithm: hashes.HashAlgorithm) -> tuple[bytes, bytes]:
    """Of the authority's name and of its key (without tag and length), as a CertID has them (RFC 6960 4.1.1)."""
    octets = public_key(issuer).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    return digest(issuer.subject.public_bytes(), algorithm), digest(octets, algorithm)


def digest(octets: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    hashing = hashes.Hash(algorithm)
    hashing.update(octets)
    return hashing.finalize()
