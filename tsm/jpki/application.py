"""The application for a credential in a phone, signed by the applicant's My Number card.

The document is canonical JSON: exactly the members of `ApplicationDocument`, sorted, no spaces, UTF-8. It binds the
server's challenge, the card in the phone, the provider and the applicant; the card's signature key signs its octets.
The certificate alone proves nothing, for it can be copied: the signature over a fresh challenge shows that the card is
there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Self

from cryptography import x509

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, SpId
from tsm.jpki.certificates import (
    Carrier,
    Kind,
    holder,
    read_certificate,
    verify_certificate,
    verify_signature,
)

MAX_DOCUMENT = 4096  # octets
MAX_CERTIFICATE = 8192


@dataclass(frozen=True, slots=True)
class ApplicationDocument:
    """What the applicant signs."""

    challenge: str
    iccid: str
    provider: str
    applicant: str  # the name, as the certificate gives it

    def encode(self) -> bytes:
        """The octets to sign."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def read(cls, document: bytes) -> Self:
        """INVALID_INPUT unless `document` is the canonical form of one application."""
        try:
            if len(document) > MAX_DOCUMENT:
                raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, "the application document")
            members = json.loads(document)
            read = cls(**members)
            canonical = all(isinstance(value, str) for value in members.values()) and read.encode() == document
        except (ValueError, TypeError, RecursionError) as error:
            raise TsmError(ErrorCode.INVALID_INPUT, "not an application document") from error
        if not canonical:
            raise TsmError(ErrorCode.INVALID_INPUT, "the application document is not in canonical form")
        Iccid(read.iccid)
        SpId(read.provider)
        return read


@dataclass(frozen=True, slots=True)
class SignedApplication:
    """What the counter sends: octets, signature and the certificate of the signing key."""

    document: bytes
    signature: bytes
    certificate: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.document).hexdigest()

    def read_document(self) -> ApplicationDocument:
        """MESSAGE_TOO_LARGE when document or certificate is; INVALID_INPUT for a document as `ApplicationDocument`."""
        if len(self.certificate) > MAX_CERTIFICATE:
            raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, "the certificate")
        return ApplicationDocument.read(self.document)


def verify_application(signed: SignedApplication, authority: x509.Certificate, at: datetime) -> x509.Certificate:
    """The My Number card's signature certificate, once possession, chain, validity and the applicant's name are proven.

    BAD_SIGNATURE for a certificate without its key, CERTIFICATE_INVALID for one that is not a My Number card's
    signature certificate of this authority or names somebody else, CERTIFICATE_EXPIRED outside its validity. Revocation
    is asked separately, for it needs the outside. MESSAGE_TOO_LARGE and INVALID_INPUT as `read_document`.
    """
    document = signed.read_document()
    certificate = read_certificate(signed.certificate)
    verify_signature(certificate, signed.document, signed.signature)
    verify_certificate(certificate, authority, Kind.SIGNATURE, at, Carrier.CARD)
    if holder(certificate).name != document.applicant:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "the certificate names another person than the application")
    return certificate
