"""Relying parties: whose tokens open CAMARA's APIs, of whose line they speak, and how often they may ask.

Access tokens as everywhere (RFC 9068, `api.tokens`), but of issuers of their own (`camara.issuers` in the settings),
with `scope` in place of roles. So none of them opens the admin API, and no token of the admin API opens anything here.

A token of two legs speaks for its client alone: it has no `sub`, or the client's own. A request with it names the line.
With three legs, `sub` is somebody who logged in at the operator; the operator has said which line is hers
(`tsm.flows.lines`), and the request must not name one.

The purpose of asking, which every look-up records, is the token's: a scope `dpv:<purpose>` (CAMARA Security and
Interoperability Profile), or what the settings say for tokens without one.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec

from api import local_login
from api.access import Caller, bearer_token, certificate_of, thumbprint
from api.camara.answers import Code, Refused
from api.errors import Scope
from api.limits import Budgets
from api.tokens import Confirmation, Issuer, Name, Tokens, Word, refused
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import KeyRef
from tsm.keys.vault import SoftwareVault
from tsm.model.checks import check_text

RELYING_PARTY = "relying-party"
PURPOSE = "dpv:"
FRAUD_PREVENTION = "dpv:FraudPreventionAndDetection"
KEY, KID = KeyRef("camara/local-login"), "camara-local-login"
DAY = 86_400.0  # seconds


class Claims(msgspec.Struct, frozen=True):
    """What we read of a token whose registered claims are in order."""

    exp: float
    client_id: Name
    scope: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    sub: Word | None = None
    cnf: Confirmation | None = None


class Consumer(NamedTuple):
    """A relying party, as one of its tokens shows it."""

    issuer: str
    client: str  # `client_id`
    subject: str  # the `sub` of three legs; empty with two
    scopes: frozenset[str]
    purpose: str
    caller: Caller  # for logs, limits and events
    expires_at: datetime
    thumbprint: str = ""  # the holder must show the certificate with this SHA-256 (Base64url); empty: none


class ConsumerTokens(Tokens[Consumer]):
    """Tokens of relying parties."""

    def __init__(self, issuers: Iterable[Issuer], purpose: str, clock: Callable[[], datetime]) -> None:
        """`purpose` is that of tokens which name none."""
        super().__init__(issuers, clock)
        self._purpose = purpose

    def grant(self, issuer: Issuer, claims: dict[str, Any]) -> Consumer:
        said = msgspec.convert(claims, Claims)
        scopes = frozenset(said.scope.split(" ")) - {""}
        purposes = sorted(scope for scope in scopes if scope.startswith(PURPOSE))
        purpose = purposes[0] if purposes else self._purpose
        if len(purposes) > 1 or len(purpose) > 200 or not purpose.isprintable():
            raise refused("whose purpose is not one")
        expires_at = datetime.fromtimestamp(said.exp, UTC)
        client = f"{issuer.name}|{said.client_id}"
        return Consumer(
            issuer=issuer.name,
            client=said.client_id,
            subject=said.sub if said.sub is not None and said.sub != said.client_id else "",
            scopes=scopes,
            purpose=purpose,
            caller=Caller(client, RELYING_PARTY, "", client=client, expires_at=expires_at),
            expires_at=expires_at,
            thumbprint=said.cnf.thumbprint if said.cnf else "",
        )


class Door:
    """Who is let in: with a token that is good, has one of the scopes, and whose client has something left."""

    def __init__(self, tokens: ConsumerTokens, per_minute: int, per_day: int | None) -> None:
        """How many requests a client may make; `per_day` is what was agreed upon with all of them, or None."""
        self._tokens = tokens
        self._rate, self._per_minute = Budgets(), per_minute
        self._quota, self._per_day = Budgets(seconds=DAY), per_day

    def admit(self, scope: Scope, scopes: Collection[str]) -> Consumer:
        """The consumer, from now on the request's `caller` for logs and metrics. To be called in `tsm.store.loop.run`.

        UNAUTHENTICATED, PERMISSION_DENIED, TOO_MANY_REQUESTS, QUOTA_EXCEEDED; UPSTREAM_UNAVAILABLE when an issuer's
        keys are not to be had.
        """
        consumer = self._consumer(scope)
        scope["caller"] = consumer.caller
        if consumer.scopes.isdisjoint(scopes):
            raise Refused(Code.PERMISSION_DENIED)
        self._spend(consumer.caller.client)
        return consumer

    def _consumer(self, scope: Scope) -> Consumer:
        token = bearer_token(scope)
        if token is None:
            raise TsmError(ErrorCode.UNAUTHENTICATED, "no token")
        consumer, der = self._tokens.granted(token), certificate_of(scope)
        if consumer.thumbprint and (not der or thumbprint(der) != consumer.thumbprint):
            raise refused("that is bound to another certificate")
        return consumer

    def _spend(self, client: str) -> None:
        wait = self._rate.spend(client, 1, self._per_minute).wait
        if wait:
            raise Refused(Code.TOO_MANY_REQUESTS, retry_after=wait)
        wait = self._quota.spend(client, 1, self._per_day).wait if self._per_day is not None else 0
        if wait:
            raise Refused(Code.QUOTA_EXCEEDED, retry_after=wait)


def check_purpose(purpose: str) -> None:
    """INVALID_INPUT: not one that can be recorded."""
    check_text(purpose, "camara.purpose")


# Tokens of our own, for a demo or a test on one machine: as `api.local_login`, under another name and key.


def local_name(public_url: str) -> str:
    """Our own `iss` and `aud` for relying parties."""
    return f"{public_url}/camara"


def local_issuer(vault: SoftwareVault, public_url: str, clock: Callable[[], datetime]) -> Issuer:
    """This server as an issuer of tokens for relying parties."""
    name = local_name(public_url)
    return Issuer(name, name, (local_login.ALGORITHM,), local_login.LocalKey(vault, KEY, KID), clock)


def sign(
    vault: SoftwareVault,
    public_url: str,
    client: str,
    scopes: Iterable[str],
    life: timedelta,
    now: datetime,
    id: str,
    subject: str = "",
) -> str:
    """A token of three legs for that subject, or without one of two."""
    claims = {
        **local_login.registered(local_name(public_url), life, now, id),
        "sub": subject or client,
        "client_id": client,
        "scope": " ".join(scopes),
    }
    return local_login.signed_by(vault, KEY, KID, claims)
