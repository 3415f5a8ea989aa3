"""The public keys of a token issuer: a JWK Set (RFC 7517) from a file or an https address.

Read when first needed, again when a token names a key that is not known, and once it is `MAX_AGE` old, so that a key
that the issuer has withdrawn is gone here as well. Between two looks pass `FLOOR` seconds at least, whatever tokens
come. While the set cannot be had, the last one counts. Looking happens in a thread; whoever needs a new key waits for
it where that holds up nobody else, and is refused where it would.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Lock
from typing import Any, Final

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import done, on_loop

FLOOR = 30.0  # seconds
MAX_AGE = 300.0  # seconds
TIME_LIMIT = 5.0  # seconds that a request waits, and that an issuer has for its answer
LARGEST_SET = 256 * 1024  # octets
SMALLEST_RSA_KEY_BITS = 2048
PUBLIC_MEMBERS = ("kty", "kid", "use", "alg", "n", "e", "crv", "x", "y")
KINDS: Final[Mapping[str, type[ECKey] | type[RSAKey]]] = {"EC": ECKey, "RSA": RSAKey}

PublicKey = ECKey | RSAKey
log = logging.getLogger(__name__)


class IssuerKeys:
    """The keys of one issuer, by their `kid`. Safe to share between threads."""

    def __init__(
        self, place: str, folder: Path, threads: Executor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`place` is an https address, or the path of a file from the folder; `clock` counts seconds."""
        self._place = place
        self._folder = folder
        self._threads = threads
        self._clock = clock
        self._lock = Lock()
        self._keys: Mapping[str, PublicKey] | None = None
        self._read_at = 0.0
        self._look: Future[None] | None = None
        self._look_again_at = 0.0

    def get(self, kid: str) -> PublicKey | None:
        """The key as it was read last, if there was one: the same object until the set changes. Never waits."""
        if self._clock() >= self._read_at + MAX_AGE:
            self._look_again()
        return self._keys.get(kid) if self._keys is not None else None

    def find(self, kid: str) -> PublicKey | None:
        """None when the issuer has no such key. UPSTREAM_UNAVAILABLE when its keys were never to be had."""
        known = self.get(kid)
        if known is not None:
            return known
        wait_for(self._look_again())
        if self._keys is None:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the issuer's keys are not to be had")
        return self._keys.get(kid)

    def _look_again(self) -> Future[None]:
        """The look that is under way, or was made a moment ago; otherwise a new one."""
        with self._lock:
            now = self._clock()
            if self._look is None or (self._look.done() and now >= self._look_again_at):
                self._look_again_at = now + FLOOR
                self._look = self._threads.submit(self._load)
            return self._look

    def _load(self) -> None:
        try:
            keys = read_keys(read(self._place, self._folder))
        except (OSError, httpx.HTTPError, ValueError, msgspec.MsgspecError) as error:
            log.warning("no keys can be read from %s, the last ones count: %s", self._place, type(error).__name__)
            return
        if keys != self._keys:
            self._keys = keys
        self._read_at = self._clock()


def wait_for(look: Future[None]) -> None:
    """At most `TIME_LIMIT`, and not at all where an event loop would stand still."""
    if on_loop() or not in_event_loop():
        done(look, TIME_LIMIT)


def in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def read(place: str, folder: Path) -> bytes:
    """OSError, httpx.HTTPError."""
    return fetch(place) if "://" in place else (folder / place).read_bytes()


def fetch(url: str) -> bytes:
    """Of at most `LARGEST_SET` octets, within about `TIME_LIMIT`; no redirection is followed. httpx.HTTPError."""
    deadline = time.monotonic() + TIME_LIMIT
    headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
    trust = ssl.create_default_context()
    with (
        httpx.Client(verify=trust, timeout=TIME_LIMIT, trust_env=False) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise httpx.HTTPError(f"status {answer.status_code}")
        body = bytearray()
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) > LARGEST_SET or time.monotonic() > deadline:
                raise httpx.HTTPError("too long")
    return bytes(body)


def read_keys(text: bytes) -> dict[str, PublicKey]:
    """The keys of a JWK Set that verify signatures, their public halves only. ValueError when it is no such set.

    Others are left out, as RFC 7517 section 5 asks: of another kind, for encryption, too short, or without a name.
    A symmetric key is never one: what is published is no secret.
    """
    published = msgspec.json.decode(text, type=dict[str, Any])
    entries = published.get("keys")
    if not isinstance(entries, list):
        raise ValueError("not a JWK Set")
    keys = [read_key(entry) for entry in entries]
    return {str(key.kid): key for key in keys if key is not None}


def read_key(entry: object) -> PublicKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig":
        return None
    kind = KINDS.get(str(entry.get("kty")))
    try:
        key = kind.import_key({name: entry[name] for name in PUBLIC_MEMBERS if name in entry}) if kind else None
    except (JoseError, ValueError, KeyError, TypeError):
        return None
    too_short = isinstance(key, RSAKey) and key.public_key.key_size < SMALLEST_RSA_KEY_BITS
    return None if too_short else key
