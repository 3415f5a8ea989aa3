"""The port to the authority that makes key pairs and certificates for phones.

The server asks for certificates and never sees a private key: the authority keeps a copy of each key, hands it to the
provider alone, and destroys it when the write to the card is acknowledged. A receipt, signed by the authority whose
certificate the key belongs to, says so. It also revokes, holds and releases: both certificates of a credential, named
by their hashes, for their serial numbers are personal data and may be erased here.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Protocol, Self

from cryptography import x509

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificates import Kind, verify_signature


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Asks for the two certificates of one credential. Asking again with the same id gives the same certificates."""

    credential: str
    provider: str  # who may fetch the keys
    main_certificate: bytes  # DER of the My Number card's signature certificate: the authority knows its holder


@dataclass(frozen=True, slots=True)
class IssuedCertificates:
    """DER of the phone's two certificates."""

    authentication: bytes
    signature: bytes

    def of(self, kind: Kind) -> bytes:
        return self.signature if kind is Kind.SIGNATURE else self.authentication


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """Asks that both certificates of one credential are put on the revocation lists. Asking again changes nothing."""

    credential: str
    authentication_sha256: str  # of the certificate, hex
    signature_sha256: str
    reason: x509.ReasonFlags  # RFC 5280 5.3.1


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Asks that both certificates of one credential are on hold from now on. Asking again changes nothing."""

    credential: str
    authentication_sha256: str  # of the certificate, hex
    signature_sha256: str


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """Asks that the hold of one credential ends: its authentication certificate is good again, that for signatures
    superseded by a new one. The hashes are of the certificates that were held, so asking again is known as such."""

    credential: str
    authentication_sha256: str
    signature_sha256: str


class CertificateAuthority(Protocol):
    """What the server needs of an authority at its enrolled address. UPSTREAM_UNAVAILABLE when it does not answer."""

    def issue(self, url: str, request: CertificateRequest) -> IssuedCertificates: ...

    def revoke(self, url: str, request: RevocationRequest) -> None:
        """Returns once the authority has acknowledged: the next lists hold both."""
        ...

    def hold(self, url: str, request: HoldRequest) -> None:
        """Returns once the authority has acknowledged: both are `revoked` with reason certificateHold(6)."""
        ...

    def release(self, url: str, request: ReleaseRequest) -> bytes:
        """DER of the new certificate for signatures. Safe to repeat: the same request gets the same certificate."""
        ...

    def revocation_list(self, url: str) -> bytes:
        """The DER at the address of a revocation list."""
        ...


@dataclass(frozen=True, slots=True)
class DestructionStatement:
    """What a receipt says: this copy of this private key exists no more."""

    credential: str
    kind: Kind
    certificate_sha256: str
    destroyed_at: str  # ISO 8601, UTC

    def encode(self) -> bytes:
        """The octets that the authority signs: canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def read(cls, octets: bytes) -> Self:
        """INVALID_INPUT unless `octets` is the canonical form of one statement."""
        try:
            members = json.loads(octets)
            read = cls(**{**members, "kind": Kind(members["kind"])})
            sound = datetime.fromisoformat(read.destroyed_at).tzinfo is not None and read.encode() == octets
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise TsmError(ErrorCode.INVALID_INPUT, "not a destruction statement") from error
        if not sound:
            raise TsmError(ErrorCode.INVALID_INPUT, "the destruction statement is not in canonical form")
        return read


@dataclass(frozen=True, slots=True)
class DestructionReceipt:
    """A statement and the signature of the authority that issued the key's certificate (PKCS#1 v1.5, SHA-256)."""

    statement: bytes
    signature: bytes

    def verify(self, authorities: dict[Kind, x509.Certificate]) -> DestructionStatement:
        """The statement, once it is shown to be the authority's. BAD_SIGNATURE otherwise."""
        statement = DestructionStatement.read(self.statement)
        verify_signature(authorities[statement.kind], self.statement, self.signature)
        return statement
