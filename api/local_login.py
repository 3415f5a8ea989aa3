"""The local login: access tokens that this server signs itself, where no identity provider stands beside it.

Whoever may read the data folder and its key-encryption key may have one: `tsm admin token`. The key lies in the vault
and signs nothing else; tokens look like those of any other issuer and are verified the same way. There is no password
and no way to revoke one of them, so they are short-lived, each is told of in the log, and they are accepted only where
the settings say so: without a word in the settings, on a server that only its own machine can reach.
"""

import ipaddress
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from joserfc.jwk import ECKey

from api.service_tokens import base64url
from api.tokens import Issuer
from tsm.identifiers import KeyRef
from tsm.keys.vault import SoftwareVault

KEY = KeyRef("access/local-login")
KID, ALGORITHM, CLIENT = "local-login", "ES256", "tsm-admin"
LONGEST = timedelta(hours=12)  # of a token's life
ID_OCTETS = 16


class LocalKey:
    """The public half of a key of our own, as `api.tokens.Keys`."""

    def __init__(self, vault: SoftwareVault, key: KeyRef = KEY, kid: str = KID) -> None:
        self._vault = vault
        self._key = key
        self._kid = kid

    def get(self, kid: str) -> ECKey | None:
        """None while nobody ever logged in here."""
        known = kid == self._kid and self._vault.has(self._key)
        return read_key(self._vault.public_key(self._key), kid) if known else None

    find = get


@lru_cache(maxsize=2)
def read_key(spki: bytes, kid: str) -> ECKey:
    public_key: Any = load_der_public_key(spki)  # on P-256: the vault signs with nothing else
    return ECKey.import_key(public_key, {"kid": kid})


def issuer(vault: SoftwareVault, public_url: str, clock: Callable[[], datetime]) -> Issuer:
    """This server as an issuer of tokens for itself."""
    return Issuer(public_url, public_url, (ALGORITHM,), LocalKey(vault), clock)


def sign(
    vault: SoftwareVault,
    public_url: str,
    role: str,
    tenant: str,
    person: str,
    life: timedelta,
    now: datetime,
    id: str,
) -> str:
    """A token for that person (RFC 9068), whose role and tenant fit each other (`api.access.viewer_of`)."""
    claims = {
        **registered(public_url, life, now, id),
        "sub": person,
        "client_id": CLIENT,
        "roles": [role],
        "tenant": tenant,
    }
    return signed_by(vault, KEY, KID, claims)


def registered(name: str, life: timedelta, now: datetime, id: str) -> dict[str, object]:
    """The registered claims of a token of ours, which is for ourselves."""
    issued_at = int(now.timestamp())
    end = issued_at + int(life.total_seconds())
    return {"iss": name, "aud": name, "jti": id, "iat": issued_at, "exp": end}


def signed_by(vault: SoftwareVault, key: KeyRef, kid: str, claims: dict[str, object]) -> str:
    """The token, signed with a key of the vault that is made when it is not there."""
    if not vault.has(key):
        vault.generate_signing_key(key)
    header = {"typ": "at+jwt", "alg": ALGORITHM, "kid": kid}
    signed = ".".join(base64url(msgspec.json.encode(part)) for part in (header, claims))
    return f"{signed}.{base64url(vault.sign(key, signed.encode()))}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there. A name that we cannot be sure of is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
