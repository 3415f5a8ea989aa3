"""A relying party (署名検証者) of the demo: `python -m api.demo.relying_party init|serve --folder F`.

    GET  /challenge    {"challenge": "<this site> <random>"}: good for one login within a minute
    POST /login        {"certificate": base64 DER, "challenge", "signature": base64 of the card's over the challenge}

A login is possession (the signature), chain, validity and status, in this order. The authority's OCSP responder is
asked each time, with a nonce of our own: whoever is revoked or on hold is refused from that moment, and when nobody can
tell, nobody gets in. A revocation list would be good for an hour.
"""

import argparse
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.demo.party import (
    Tls,
    answer,
    checked,
    client,
    command_line,
    config_path,
    emit,
    load_config,
    main,
    message,
    reaching,
    serve,
    starlette,
)
from tsm.errors import ErrorCode, TsmError
from tsm.jpki import ocsp
from tsm.jpki.certificates import (
    Carrier,
    Kind,
    read_certificate,
    verify_certificate,
    verify_signature,
)

CHALLENGE_LIFE = timedelta(seconds=60)
MOST_CHALLENGES = 1000  # outstanding; the oldest goes first
LARGEST_LOGIN = 16 * 1024  # octets


class RelyingPartyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of a relying party. `authentication_ca` is the root whose certificates it accepts."""

    relying_party: str  # its id
    tls: Tls
    authentication_ca: str  # DER, hex
    authentication_ocsp_url: str
    host: str = "127.0.0.1"
    port: int = 0


class Challenge(msgspec.Struct, frozen=True):
    """GET /challenge."""

    challenge: str


class Login(msgspec.Struct, frozen=True):
    """POST /login."""

    certificate: bytes
    challenge: str
    signature: bytes


class Welcome(msgspec.Struct, frozen=True):
    """Who logged in, as the certificate names its holder: a code, for it carries no name."""

    subject: str


class Doorkeeper:
    """Gives challenges, and lets in whoever signs one with a valid certificate's key."""

    def __init__(
        self,
        url: str,
        authority_der: bytes,
        ocsp_url: str,
        http: httpx.AsyncClient,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url = url
        self._authority = read_certificate(authority_der)
        self._ocsp_url = ocsp_url
        self._http = http
        self._clock = clock
        self._outstanding: dict[str, datetime] = {}

    async def challenge(self, _: Request) -> Response:
        """Names this site, so that a signature given here is of no use elsewhere."""
        challenge = f"{self._url} {secrets.token_hex(32)}"
        while len(self._outstanding) >= MOST_CHALLENGES:
            del self._outstanding[next(iter(self._outstanding))]
        self._outstanding[challenge] = self._clock() + CHALLENGE_LIFE
        return answer(Challenge(challenge))

    async def login(self, request: Request) -> Response:
        login = await message(request, Login, LARGEST_LOGIN)
        now = self._clock()
        if self._outstanding.pop(login.challenge, now) <= now:
            raise TsmError(ErrorCode.BAD_SIGNATURE, "not a challenge of ours, or too old")
        certificate = read_certificate(login.certificate)
        verify_signature(certificate, login.challenge.encode(), login.signature)
        verify_certificate(certificate, self._authority, Kind.AUTHENTICATION, now, Carrier.PHONE)
        await self._refuse_revoked(certificate)
        return answer(Welcome(certificate.subject.rfc4514_string()))

    async def _refuse_revoked(self, certificate: x509.Certificate) -> None:
        """REVOCATION_UNKNOWN when the authority is silent: nobody is let in on trust."""
        nonce = secrets.token_bytes(ocsp.NONCE_SIZE)
        asked = ocsp.ask(certificate, self._authority, nonce)
        try:
            with reaching():
                headers = {"Content-Type": ocsp.REQUEST_TYPE}
                response = checked(await self._http.post(self._ocsp_url, content=asked, headers=headers)).content
        except TsmError as error:
            raise TsmError(ErrorCode.REVOCATION_UNKNOWN, error.detail) from error
        ocsp.check(response, certificate, self._authority, nonce, self._clock())

    def application(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await self._http.aclose()

        return starlette(
            [
                Route("/challenge", self.challenge, methods=["GET"]),
                Route("/login", self.login, methods=["POST"]),
            ],
            lifespan,
        )


def init(arguments: argparse.Namespace, config: RelyingPartyConfig) -> None:
    """Make the folder. A relying party has no keys but those of its TLS, and is not enrolled."""
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    emit(relying_party=config.relying_party, certificate_fingerprint=config.tls.fingerprint)


def run(_: argparse.Namespace, config: RelyingPartyConfig) -> None:
    authority = bytes.fromhex(config.authentication_ca)
    serve(
        config,
        lambda url: Doorkeeper(url, authority, config.authentication_ocsp_url, client(config.tls)).application(),
    )


def command() -> None:
    arguments = command_line("A relying party of the demo", "init", "serve").parse_args()
    config = load_config(config_path(arguments), RelyingPartyConfig)
    {"init": init, "serve": run}[arguments.command](arguments, config)


if __name__ == "__main__":
    main(command)
