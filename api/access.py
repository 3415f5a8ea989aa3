"""Who is calling and what they may see.

A party proves itself by a TLS client certificate of the parties' authority: CN is its id, OU its role. That alone
lets nobody in. Operators, providers, terminals and authorities are enrolled by the fingerprint of one certificate:
enrolling another replaces it at once, and one that was withdrawn opens nothing any more. An auditor is admitted by the
role: for the tenant in the subject's O, or for all when there is none.

People come with an access token of an issuer that the settings name (`api.tokens`), programs also with a service token
of ours (`api.service_tokens`), both in `Authorization: Bearer`. Such a token names the caller, whatever certificate the
connection shows; one that is bound to a certificate counts with that certificate only. When the token is no good the
request is refused, even if the certificate alone would have done. A token of an operator or provider is good only
while that party is enrolled.

The interfaces between machines (MC-05, REST) take certificates only: `Access.demand`.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from starlette.requests import Request

from api.certificates import ORGANISATION
from api.service_tokens import PREFIX, ServiceTokens
from api.tokens import AccessTokens, Granted, Issuer
from projections.viewer import EVERYTHING, NOTHING, Kind, Viewer
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
SERVER = "tsm-server"  # the tenant of what belongs to no party
ALL = "*"  # the tenant of those who are appointed for all
BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)  # RFC 6750 section 2.1


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


TENANTS: Mapping[str, tuple[str, ...]] = {  # of which kinds the tenant of a token may be, by role
    Role.OPERATOR: ("operator",),
    Role.PROVIDER: ("provider",),
    Role.CLERK: ("municipality",),
    Role.AUDITOR: ("operator", "provider", "municipality", ALL),
    Role.SECURITY_OFFICER: ("operator", "provider", ALL),
    Role.ADMINISTRATOR: (ALL,),
}
SEEN_BY_PARTY: Mapping[str, Kind] = {"operator": "operator", "provider": "provider", "terminal": "municipality"}


@dataclass(frozen=True, slots=True)
class Caller:
    """A party, or a person of one, whose identity is proven."""

    party: str  # for those who are appointed for all: the person
    role: str
    tenant: str  # whose data it acts upon: its own, or for a terminal its municipality's; empty: everybody's
    viewer: Viewer = NOTHING  # whose eyes its queries are made for
    person: str = ""  # who of the party, where a token says so
    client: str = ""  # whose idempotency keys, limits and costs these are
    expires_at: datetime | None = None  # when the proof of its identity ends
    identity: str = ""  # which person that is, in every role and tenant; empty for programs and machines

    @property
    def actor(self) -> str:
        """As events name it: `operator:MNO00001`, `operator:MNO00001/alice`."""
        return f"{self.role}:{self.party}/{self.person}" if self.person else f"{self.role}:{self.party}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a client certificate says."""

    party: str
    role: str
    tenant: str  # of an auditor: `ALL`, or as in tokens
    fingerprint: str  # SHA-256 of the DER, hex
    expires_at: datetime


class Access:
    """Callers against the enrolments and service tokens in the log, and the issuers that are trusted."""

    def __init__(self, tsm: Tsm, issuers: Iterable[Issuer] = ()) -> None:
        self._tsm = tsm
        self._service_tokens = ServiceTokens(tsm)
        self._access_tokens = AccessTokens(issuers, TENANTS, tsm.now)

    def demand(self, request: Request, *roles: str) -> Caller:
        """The caller by its certificate, if it has one of the roles.

        UNAUTHENTICATED without a known certificate, FORBIDDEN otherwise.
        """
        caller = request.scope["caller"] = self._by_certificate(certificate_of(request.scope))
        if caller.role not in roles:
            raise TsmError(ErrorCode.FORBIDDEN, f"{caller.role} {caller.party} is none of {', '.join(roles)}")
        return caller

    def caller(self, request: Request) -> Caller:
        """The caller, by token or by certificate: see `of`."""
        return self.of(request.scope)

    def of(self, scope: MutableMapping[str, Any]) -> Caller:
        """The caller of an ASGI connection, HTTP or websocket, and from now on its `caller` for logs and metrics.

        To be called in `tsm.store.loop.run`.

        UNAUTHENTICATED; FORBIDDEN for a role that is none here, or does not fit its tenant, or a tenant that is not
        enrolled; UPSTREAM_UNAVAILABLE when an issuer's keys are not to be had.
        """
        caller = scope["caller"] = self._of(scope)
        return caller

    def _of(self, scope: Mapping[str, Any]) -> Caller:
        token, der = bearer_token(scope), certificate_of(scope)
        if token is None:
            return self._by_certificate(der)
        known = self._service_tokens if token.startswith(PREFIX) else self._access_tokens
        granted = known.granted(token)
        if granted.thumbprint and (not der or thumbprint(der) != granted.thumbprint):
            raise TsmError(ErrorCode.UNAUTHENTICATED, "a token that is bound to another certificate")
        caller = caller_by(granted)
        self._refuse_unless_enrolled(granted.tenant)
        return caller

    def refuse_unfit(self, role: str, tenant: str) -> None:
        """FORBIDDEN for a role and a tenant with which a token would open nothing."""
        viewer_of(role, tenant)
        self._refuse_unless_enrolled(tenant)

    def _by_certificate(self, der: bytes | None) -> Caller:
        """UNAUTHENTICATED without a certificate, or with one that has expired or that nobody enrolled."""
        if not der:
            raise TsmError(ErrorCode.UNAUTHENTICATED, "no client certificate, and no token")
        shown = read_certificate(der)
        if shown.expires_at <= self._tsm.now():  # TLS asks that only when the connection begins
            raise TsmError(ErrorCode.UNAUTHENTICATED, f"the certificate of {shown.role} {shown.party} has expired")
        client = f"{shown.role}:{shown.party}"
        if shown.role == AUDITOR:
            self._refuse_unless_enrolled(shown.tenant)
            return caller_by(Granted(AUDITOR, shown.tenant, shown.party, client, shown.expires_at))
        model = ENROLLED.get(shown.role)
        if model is None:
            raise TsmError(ErrorCode.FORBIDDEN, f"role {shown.role}")
        enrolled = self._tsm.load(model.stream(shown.party), model.evolve).state
        if enrolled is None or enrolled.certificate_fingerprint != shown.fingerprint:
            raise TsmError(ErrorCode.UNAUTHENTICATED, f"{shown.role} {shown.party} is not enrolled by this certificate")
        tenant = getattr(enrolled, "municipality", shown.party)
        kind = SEEN_BY_PARTY.get(shown.role)
        viewer = Viewer(kind, tenant) if kind else NOTHING
        return Caller(shown.party, shown.role, tenant, viewer, client=client, expires_at=shown.expires_at)

    def _refuse_unless_enrolled(self, tenant: str) -> None:
        """FORBIDDEN for a tenant that is a party without a certificate: its people are nobody, as it is."""
        kind, _, party = tenant.partition(":")
        model = ENROLLED.get(kind)
        if model is None:  # a municipality, or all
            return
        enrolled = self._tsm.load(model.stream(party), model.evolve).state
        if enrolled is None or not enrolled.certificate_fingerprint:
            raise TsmError(ErrorCode.FORBIDDEN, f"tenant {tenant} is not enrolled")


def caller_by(granted: Granted) -> Caller:
    """Whom a token makes of its holder. FORBIDDEN when role and tenant do not fit each other."""
    viewer = viewer_of(granted.role, granted.tenant)
    whole = granted.tenant == ALL
    party = "" if whole else granted.tenant.partition(":")[2]
    return Caller(
        party=granted.person if whole else party,
        role=granted.role,
        tenant=party,
        viewer=viewer,
        person="" if whole else granted.person,
        identity=granted.identity,
        client=granted.client,
        expires_at=granted.expires_at,
    )


def viewer_of(role: str, tenant: str) -> Viewer:
    """Whose eyes somebody of that role and tenant (`operator:MNO00001`, `*`) has. FORBIDDEN when they do not fit."""
    kind, _, party = tenant.partition(":")
    if kind not in TENANTS.get(role, ()) or bool(party) != (kind != ALL) or not tenant.isprintable() or "/" in party:
        raise TsmError(ErrorCode.FORBIDDEN, f"a {role} is not of that tenant")
    if role == Role.ADMINISTRATOR:
        return NOTHING
    return EVERYTHING if kind == ALL else Viewer(cast(Kind, kind), party)


def bearer_token(scope: Mapping[str, Any]) -> str | None:
    """What `Authorization: Bearer` holds; None without that header. UNAUTHENTICATED for anything else in it."""
    given = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
    if not given:
        return None
    found = BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise TsmError(ErrorCode.UNAUTHENTICATED, "an Authorization header that is not one bearer token")
    return found[1].decode()


def certificate_of(scope: Mapping[str, Any]) -> bytes | None:
    """The client certificate of the connection (DER), verified by TLS."""
    der: bytes | None = scope.get("extensions", {}).get("tls", {}).get("client_cert_der")
    return der


@lru_cache(maxsize=256)
def thumbprint(der: bytes) -> str:
    """`x5t#S256`: SHA-256 of a certificate in Base64url (RFC 8705 section 3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


@lru_cache(maxsize=256)
def read_certificate(der: bytes) -> Certificate:
    """What a certificate that TLS has verified says; UNAUTHENTICATED when it lacks id or role."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        (party,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (role,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        tenants = [str(o.value) for o in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    except ValueError as error:
        raise TsmError(ErrorCode.UNAUTHENTICATED, "a certificate without one CN and one OU") from error
    return Certificate(
        party=str(party.value),
        role=str(role.value),
        tenant=ALL if tenants in ([], [ORGANISATION]) else "".join(tenants),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        expires_at=certificate.not_valid_after_utc,
    )
