"""What a person's My Number card signs at a counter.

A document is canonical JSON: exactly the members of its class, all texts, sorted, no spaces, UTF-8. It binds the
server's challenge and what is asked for; the card's signature key signs its octets. The certificate alone proves
nothing, for it can be copied: the signature over a fresh challenge shows that the card is there.
"""

import hashlib
import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import ClassVar, Self

from cryptography import x509

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificates import Carrier, Kind, read_certificate, verify_certificate, verify_signature

MAX_DOCUMENT = 4096  # octets
MAX_CERTIFICATE = 8192


@dataclass(frozen=True, slots=True)
class Document:
    """What is signed; each kind has its own members."""

    what: ClassVar[str]  # its name in errors

    @abstractmethod
    def check(self) -> None:
        """INVALID_INPUT for a member that is not as specified."""

    def encode(self) -> bytes:
        """The octets to sign."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def read(cls, document: bytes) -> Self:
        """INVALID_INPUT unless `document` is the canonical form of one; MESSAGE_TOO_LARGE."""
        try:
            if len(document) > MAX_DOCUMENT:
                raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, f"the {cls.what}")
            members = json.loads(document)
            read = cls(**members)
            canonical = all(isinstance(value, str) for value in members.values()) and read.encode() == document
        except (ValueError, TypeError, RecursionError) as error:
            raise TsmError(ErrorCode.INVALID_INPUT, f"no {cls.what}") from error
        if not canonical:
            raise TsmError(ErrorCode.INVALID_INPUT, f"the {cls.what} is not in canonical form")
        read.check()
        return read


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What the counter sends: octets, signature and the certificate of the signing key."""

    document: bytes
    signature: bytes
    certificate: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.document).hexdigest()

    def refuse_too_large(self) -> None:
        """MESSAGE_TOO_LARGE when the certificate is."""
        if len(self.certificate) > MAX_CERTIFICATE:
            raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, "the certificate")


def verify_signed(signed: SignedDocument, authority: x509.Certificate, at: datetime) -> x509.Certificate:
    """The My Number card's signature certificate, once possession, chain and validity are proven.

    BAD_SIGNATURE for a certificate without its key, CERTIFICATE_INVALID for one that is not a My Number card's
    signature certificate of this authority, CERTIFICATE_EXPIRED outside its validity. Revocation is asked separately,
    for it needs the outside.
    """
    certificate = read_certificate(signed.certificate)
    verify_signature(certificate, signed.document, signed.signature)
    verify_certificate(certificate, authority, Kind.SIGNATURE, at, Carrier.CARD)
    return certificate
