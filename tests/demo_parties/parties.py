"""Helpers of these tests: who a caller is, and a party's TLS identity."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from api.certificates import certify, request
from api.demo.party import Tls


class Caller:
    """A client of an ASGI application, in this process, with a cookie jar. `certificate` (DER) is what it showed."""

    def __init__(self, app: Any, url: str = "https://party", certificate: bytes | None = None) -> None:
        self._transport = httpx.ASGITransport(knows(app, certificate))
        self._url = url
        self.cookies = httpx.Cookies()

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self._send("GET", path))

    def post(self, path: str, **content: Any) -> httpx.Response:
        return asyncio.run(self._send("POST", path, **content))

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=self._transport, base_url=self._url, cookies=self.cookies) as client:
            response = await client.request(method, path, **content)
            self.cookies = client.cookies
            return response


def now() -> datetime:
    return datetime.now(UTC)


def identity(party_ca: Path, folder: Path, party: str, role: str) -> Tls:
    """A party's key and certificate, as the operator of the server makes them out."""
    wanted = request(folder, party).read_bytes()
    (folder / "cert.pem").write_bytes(certify(party_ca, wanted, party, role, ["127.0.0.1"]))
    return Tls(folder / "cert.pem", folder / "key.pem", party_ca / "ca.pem")


def knows(app: Any, certificate: bytes | None) -> Any:
    """`app` as it sees a client that showed this certificate (DER)."""

    async def seen(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "extensions": {"tls": {"client_cert_der": certificate}}}
        await app(scope, receive, send)

    return seen
