"""HTTPS servers: one for the tsm server, the same for every other party.

Any client may connect; one that shows a certificate of the parties' authority is known by it, and one that shows
another's does not get in. Which routes demand an identity is decided in `api.access`. uvicorn keeps the certificate to
itself, so a subclass of its protocol puts it where the ASGI extension for TLS says: `scope["extensions"]["tls"]`.
"""

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, create_server, socket
from typing import Any, Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE = 75  # seconds: longer than a phone's session may be silent
GRACE = 5  # seconds for requests under way when the server stops
BACKLOG = 1024


class TlsFiles(Protocol):
    """A party's TLS identity and the root that it trusts, as PEM files."""

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def party_ca(self) -> Path: ...


class PartyProtocol(HttpToolsProtocol):
    """HTTP/1.1 with the client's certificate (DER) in the scope of every request of the connection."""

    client_cert_der: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.client_cert_der = tls.getpeercert(binary_form=True) if tls else None

    def shutdown(self) -> None:
        """The server stops: an idle client that keeps its connection will not answer a TLS farewell."""
        idle = self.cycle is None or self.cycle.response_complete
        super().shutdown()
        if idle:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"tls": {"client_cert_der": self.client_cert_der}}


def server_context(files: TlsFiles, require_client_certificate: bool = False) -> ssl.SSLContext:
    """TLS 1.2 or later with our certificate; client certificates of the parties' authority are asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.party_ca)
    context.verify_mode = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or later, showing our certificate, trusting the parties' authority alone."""
    context = ssl.create_default_context(cafile=str(files.party_ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    return context


class AnnouncingServer(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()


async def serve_https(
    app: Any,
    listener: socket,
    files: TlsFiles,
    ready: Callable[[], None] = lambda: None,
    require_client_certificate: bool = False,
) -> None:
    """Serve the ASGI application until SIGINT or SIGTERM; `ready` is called once requests are answered.

    `listener` is bound by the caller (`socket.create_server((host, 0))`), who thus knows the real port beforehand.
    """
    context = server_context(files, require_client_certificate)
    listener.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # asyncio sets it only on sockets that it made itself
    config = uvicorn.Config(
        app,
        http=PartyProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the peer is who TLS says, whatever a header claims
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ssl_context_factory=lambda _config, _default: context,
    )
    await AnnouncingServer(config, ready).serve(sockets=[listener])


class Listening(Protocol):
    """The part of the settings that a server needs."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> TlsFiles: ...


def run_server(app: Any, settings: Listening, ready: Callable[[str], None] = lambda url: None) -> None:
    """Listen where the settings say (port 0: any free one) and serve; `ready` learns the local URL."""
    with create_server((settings.host, settings.port), backlog=BACKLOG) as listener:
        url = f"https://{settings.host}:{listener.getsockname()[1]}"
        gc.collect()
        gc.freeze()  # what was made so far stays for good: the collector need not look at it again in mid-exchange
        asyncio.run(serve_https(app, listener, settings.tls, lambda: ready(url)))
