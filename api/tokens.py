"""JWT access tokens (RFC 9068, bearer tokens of RFC 6750): who issued them, what they grant.

An issuer is one that the settings name, with the audience that we are for it, the algorithms that it signs with and the
place of its keys. What a token says of its own verification counts for nothing: the algorithm must be one of its
issuer's, all of which are asymmetric, and the key one that this issuer publishes. Keys and addresses in the header are
ignored; a critical extension (`crit`) is refused, for we know none.

A token that verified is remembered by its hash until it expires, or until its issuer's keys change. Nothing of a token
enters a log: refusals say what is wrong, never what was there.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from threading import Lock
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError

from api.issuer_keys import PublicKey
from tsm.errors import ErrorCode, TsmError

Algorithm = Literal["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]
Word = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=255)]  # visible ASCII
Name = Annotated[str, msgspec.Meta(pattern=r"^[!-{}~]+$", max_length=255)]  # the same without |

TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068 section 4
LEEWAY = 30  # seconds between the issuer's clock and ours
LARGEST = 8192  # octets
REMEMBERED = 4096  # tokens


class Granted(NamedTuple):
    """What a token says that its holder may."""

    role: str
    tenant: str
    person: str  # who of the tenant
    client: str
    expires_at: datetime
    identity: str = ""  # which person that is, whatever role and tenant: issuer and subject; empty for a program
    thumbprint: str = ""  # the holder must show the certificate with this SHA-256 (Base64url); empty: none


class Keys(Protocol):
    """Where the keys of an issuer come from: `api.issuer_keys`, or the vault for our own."""

    def get(self, kid: str) -> PublicKey | None: ...  # as far as known; the same object until the keys change
    def find(self, kid: str) -> PublicKey | None: ...  # looked for


class Issuer:
    """One whose tokens are accepted: what they must look like, and who has its keys."""

    def __init__(
        self, name: str, audience: str, algorithms: Iterable[str], keys: Keys, clock: Callable[[], datetime]
    ) -> None:
        self.name = name
        self.keys = keys
        self.registry = jws.JWSRegistry(algorithms=tuple(algorithms), strict_check_header=False)
        self.claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock().timestamp()),
            leeway=LEEWAY,
            iss={"essential": True, "value": name},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
            client_id={"essential": True},
            jti={"essential": True},
        )


class Confirmation(msgspec.Struct, frozen=True):
    """To what the token is bound (RFC 8705 section 3.1). Any other binding is one that we cannot check."""

    thumbprint: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="x5t#S256")


class Claims(msgspec.Struct, frozen=True):
    """What we read of a token whose registered claims are in order."""

    exp: float
    sub: Word
    client_id: Name
    roles: list[str]
    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    cnf: Confirmation | None = None


class Grant(Protocol):
    """What is made of a token: `Granted`, or what another interface makes of its own tokens."""

    @property
    def expires_at(self) -> datetime: ...


G = TypeVar("G", bound=Grant)


class Known(NamedTuple, Generic[G]):
    """A token that verified."""

    issuer: Issuer
    key: PublicKey
    granted: G


class Tokens(ABC, Generic[G]):
    """Verifies tokens of the issuers, for one interface. Safe to share between threads."""

    def __init__(self, issuers: Iterable[Issuer], clock: Callable[[], datetime]) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._clock = clock
        self._known: OrderedDict[bytes, Known[G]] = OrderedDict()
        self._lock = Lock()

    @abstractmethod
    def grant(self, issuer: Issuer, claims: dict[str, Any]) -> G:
        """What a token grants whose registered claims are in order. `msgspec.ValidationError`, `TsmError`."""

    def granted(self, token: str) -> G:
        """What the token grants. UNAUTHENTICATED; UPSTREAM_UNAVAILABLE when its issuer's keys are not to be had."""
        digest = hashlib.sha256(token.encode()).digest()
        with self._lock:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
        if known is None or not self._still_good(known):
            known = self._verified(token)
            self._remember(digest, known)
        return known.granted

    def _still_good(self, known: Known[G]) -> bool:
        issuer, key, granted = known
        return self._clock() < granted.expires_at and issuer.keys.get(str(key.kid)) is key

    def _remember(self, digest: bytes, known: Known[G]) -> None:
        with self._lock:
            self._known[digest] = known
            self._known.move_to_end(digest)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _verified(self, token: str) -> Known[G]:
        if len(token) > LARGEST:
            raise refused("that is too long")
        try:
            signed = jws.extract_compact(token.encode())
            claims = msgspec.json.decode(signed.payload, type=dict[str, Any])
            issuer = self._issuer_of(claims)
            key = key_of(signed.headers(), issuer)
            if not jws.validate_compact(signed, key, registry=issuer.registry):
                raise refused("whose signature does not verify")
            issuer.claims.validate(claims)
            granted = self.grant(issuer, claims)
        except JoseError as error:
            raise refused(f"not in order, {error.error} {getattr(error, 'claim', '')}".strip()) from None
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, OSError) as error:
            raise refused(f"not as specified, {type(error).__name__}") from None
        return Known(issuer, key, granted)

    def _issuer_of(self, claims: dict[str, Any]) -> Issuer:
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise refused("of no issuer that is trusted here")
        return issuer


class AccessTokens(Tokens[Granted]):
    """Tokens of people and programs for what a `Role` opens."""

    def __init__(self, issuers: Iterable[Issuer], roles: Iterable[str], clock: Callable[[], datetime]) -> None:
        """`roles` are those that a token may name; what else it names is other servers' business."""
        super().__init__(issuers, clock)
        self._roles = frozenset(roles)

    def grant(self, issuer: Issuer, claims: dict[str, Any]) -> Granted:
        said = msgspec.convert(claims, Claims)
        roles = list(self._roles.intersection(said.roles))
        if len(roles) != 1:
            raise TsmError(ErrorCode.FORBIDDEN, f"a token with {len(roles)} of the roles, not one")
        return Granted(
            role=roles[0],
            tenant=said.tenant,
            person=said.sub,
            client=f"{issuer.name}|{said.client_id}|{said.sub}",
            expires_at=datetime.fromtimestamp(said.exp, UTC),
            identity="" if said.sub == said.client_id else f"{issuer.name}|{said.sub}",  # RFC 9068 section 2.2
            thumbprint=said.cnf.thumbprint if said.cnf else "",
        )


def key_of(header: object, issuer: Issuer) -> PublicKey:
    """The issuer's key that the header names. The header must be one of an access token, without extensions."""
    if not isinstance(header, dict):
        raise refused("without a header")
    kind, kid = header.get("typ"), header.get("kid")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise refused("not an access token by its type")
    if "crit" in header or "b64" in header:
        raise refused("with an extension that we do not know")
    issuer.registry.get_alg(str(header.get("alg")))  # before anybody is asked for a key
    key = issuer.keys.find(kid) if isinstance(kid, str) else None
    if key is None:
        raise refused("signed with a key that its issuer does not have")
    return key


def refused(why: str) -> TsmError:
    """`why` never repeats anything of the token."""
    return TsmError(ErrorCode.UNAUTHENTICATED, f"a token {why}")
