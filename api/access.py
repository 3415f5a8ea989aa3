"""Who is calling and what they may do.

A party proves itself by a TLS client certificate of the parties' authority: CN is its id, OU its role. That alone
lets nobody in. Operators, providers, terminals and authorities are enrolled by the fingerprint of one certificate:
enrolling another replaces it at once, and one that was withdrawn opens nothing any more. An auditor reads only, and is
admitted by the role.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from starlette.requests import Request

from projections.viewer import NOTHING, Viewer
from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model import authority, operator, service_provider, terminal

ENROLLED = {
    "operator": operator,
    "provider": service_provider,
    "terminal": terminal,
    "authority": authority,
}
AUDITOR = "auditor"


class Role(StrEnum):
    """What a caller is. The first four are enrolled parties, the others people of a party or of the house."""

    OPERATOR = "operator"
    PROVIDER = "provider"
    TERMINAL = "terminal"
    AUTHORITY = "authority"
    CLERK = "clerk"
    AUDITOR = "auditor"
    SECURITY_OFFICER = "security-officer"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Caller:
    """A party, or a person of one, whose identity is proven."""

    party: str
    role: str
    tenant: str  # whose data it acts upon: its own, or for a terminal its municipality's; empty: everybody's
    viewer: Viewer = NOTHING  # whose eyes its queries are made for
    person: str = ""  # who of the party, where a token says so
    client: str = ""  # whose idempotency keys, limits and costs these are
    expires_at: datetime | None = None  # when the proof of its identity ends

    @property
    def actor(self) -> str:
        """As events name it: `operator:MNO00001`, `operator:MNO00001/alice`."""
        return f"{self.role}:{self.party}/{self.person}" if self.person else f"{self.role}:{self.party}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a client certificate says."""

    party: str
    role: str
    fingerprint: str  # SHA-256 of the DER, hex


class Access:
    """Callers against the enrolments in the log."""

    def __init__(self, tsm: Tsm) -> None:
        self._tsm = tsm

    def demand(self, request: Request, *roles: str) -> Caller:
        """The caller, if it has one of the roles: UNAUTHENTICATED without a known certificate, FORBIDDEN otherwise."""
        caller = self.caller(request)
        if caller.role not in roles:
            raise TsmError(ErrorCode.FORBIDDEN, f"{caller.role} {caller.party} is none of {', '.join(roles)}")
        return caller

    def caller(self, request: Request) -> Caller:
        """The caller; UNAUTHENTICATED without a certificate, or with one that nobody enrolled."""
        der = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_der")
        if not der:
            raise TsmError(ErrorCode.UNAUTHENTICATED, "no client certificate")
        shown = read_certificate(der)
        if shown.role == AUDITOR:
            return Caller(shown.party, AUDITOR, shown.party)
        model = ENROLLED.get(shown.role)
        if model is None:
            raise TsmError(ErrorCode.FORBIDDEN, f"role {shown.role}")
        enrolled = self._tsm.load(model.stream(shown.party), model.evolve).state
        if enrolled is None or enrolled.certificate_fingerprint != shown.fingerprint:
            raise TsmError(ErrorCode.UNAUTHENTICATED, f"{shown.role} {shown.party} is not enrolled by this certificate")
        return Caller(shown.party, shown.role, getattr(enrolled, "municipality", shown.party))


@lru_cache(maxsize=256)
def read_certificate(der: bytes) -> Certificate:
    """Id and role of a certificate that TLS has verified; UNAUTHENTICATED when it lacks either."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        (party,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (role,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    except ValueError as error:
        raise TsmError(ErrorCode.UNAUTHENTICATED, "a certificate without one CN and one OU") from error
    return Certificate(str(party.value), str(role.value), certificate.fingerprint(SHA256()).hex())
