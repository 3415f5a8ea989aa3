"""HTTPS servers: one for the tsm server, the same for every other party.

Any client may connect; one that shows a certificate of the parties' authority is known by it, and one that shows
another's does not get in. Which routes demand an identity is decided in `api.access`. uvicorn keeps the certificate to
itself, so a subclass of its protocol puts it where the ASGI extension for TLS says: `scope["extensions"]["tls"]`.
Beside it lies `cut`, by which an application ends a connection in the middle of an answer.

Nobody holds a connection by being slow: there is a time for the headers of a request, for what is left of its body once
it is answered, and for silence between requests. The body of a request under way has its time in `api.errors`. Nobody
holds all connections (`api.connections`).
"""

import asyncio
import gc
import json
import math
import ssl
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, create_server, socket
from typing import Any, Protocol

import uvicorn
import websockets.http11
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api.connections import Door, Guests
from api.limits import Budgets, EdgeLimits
from tsm.errors import MESSAGES, ErrorCode

MAX_HEAD = 16 * 1024  # octets of a request line and its headers, or of trailers
MAX_URL = 8 * 1024  # octets
MAX_MESSAGE = 256 * 1024  # octets of a websocket's message
MAX_FRAMES = 600  # that a websocket may send in a minute: messages, pieces of them, pings and pongs
MAX_PIPELINED = 16  # requests that wait for an answer on one connection
SWITCHING_PROTOCOLS = 101
POLICY_VIOLATION = 1008
PIECE = 4096  # octets that are read at once: nothing that counts hides behind more than these
FAREWELL = 1.0  # seconds for the last octets of a connection that we end
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


class EdgeConfig(uvicorn.Config):
    """uvicorn's configuration, and our limits for its protocols."""

    limits = EdgeLimits()
    guests: Guests


class Phase(Enum):
    """What a connection is waiting for."""

    HEAD = "the headers of a request"
    WORK = "our answer"
    REST = "what is left of the body of a request that has been answered"
    NEXT = "the next request"


class TooMuch(Exception):
    """A request that is too large, or one too many: raised inside the parser, which ends the connection."""


class PartyProtocol(HttpToolsProtocol):
    """HTTP/1.1 with the client's certificate (DER) in the scope of every request of the connection."""

    config: EdgeConfig
    client_cert_der: bytes | None = None
    _crowded = False  # too many connections of this party
    _served: RequestResponseCycle = None  # type: ignore[assignment]  # as `cycle`, which is the last one that came
    _in_head = True  # from the beginning: whoever connects has something to say
    _in_body = False
    _head = 0  # octets of the request line and the headers so far
    _unread = 0  # octets of which the parser has not made anything yet
    _refused_as = 400
    _phase: Phase | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.client_cert_der = tls.getpeercert(binary_form=True) if tls else None
        if self.client_cert_der:
            peer = transport.get_extra_info("peername")
            self._crowded = not self.config.guests.show(peer, self.client_cert_der)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self._tell_application()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """In pieces: all that is unread of a piece counts as read when the parser makes something of a part of it."""
        for start in range(0, len(data), PIECE):
            if self.transport.is_closing() or self.transport.get_protocol() is not self:  # it has become a websocket
                return
            self._read(data[start : start + PIECE])

    def _read(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return
        if self._unread > MAX_HEAD:
            self._refused_as = 431
            self.send_400_response("")
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def handle_websocket_upgrade(self) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """What is no request, or too large a one, is answered unless an answer has begun, and ends the connection."""
        if not (self._busy() and self._served.response_started):
            self.transport.write(last_words(self._refused_as))
        self._tell_application()
        self._end()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _busy(self) -> bool:
        return self._served is not None and not self._served.response_complete

    def _tell_application(self) -> None:
        """That its client is gone, so that it writes no more: uvicorn tells only the last request that came."""
        if self._busy():
            self._served.disconnected = True
            self._served.message_event.set()

    def _watch(self) -> None:
        """Starts the timer of what the connection waits for now; one that runs already goes on."""
        if self.transport.is_closing():
            return
        phase = self._waits_for()
        if phase is not self._phase:
            self._stop_watching()
            self._phase = phase
            limits = self.config.limits
            seconds = {
                Phase.HEAD: limits.header_seconds,
                Phase.REST: limits.body_seconds,
                Phase.NEXT: limits.keep_alive_seconds,
            }.get(phase)
            self._timer = None if seconds is None else self.loop.call_later(seconds, self._out_of_time)

    def _waits_for(self) -> Phase:
        if self._busy():
            return Phase.WORK
        if self._in_body:
            return Phase.REST
        return Phase.HEAD if self._in_head else Phase.NEXT

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._phase = None

    def _out_of_time(self) -> None:
        if self._phase is Phase.HEAD and (self._head or self._unread):
            self.transport.write(last_words(408))
        self._end()

    def _end(self) -> None:
        """Closes, and does not wait long for a client that does not answer a TLS farewell."""
        self._stop_watching()
        self.pipeline.clear()
        self.transport.close()
        self.loop.call_later(FAREWELL, self.transport.abort)

    def _cut(self) -> None:
        """For an answer of which its client takes nothing: as if he had gone away."""
        self._tell_application()
        self._end()

    def shutdown(self) -> None:
        """The server stops: an idle client that keeps its connection will not answer a TLS farewell."""
        idle = not self._busy()
        super().shutdown()
        if idle:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"tls": {"client_cert_der": self.client_cert_der}, "cut": {"connection": self._cut}}
        self._in_head, self._head, self._unread = True, 0, 0

    def on_url(self, url: bytes) -> None:
        if self._crowded:
            self._refused_as = 429
            raise TooMuch
        super().on_url(url)
        self._count(len(url))
        if len(self.url) > MAX_URL:
            self._refused_as = 414
            raise TooMuch

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def _count(self, octets: int) -> None:
        self._unread = 0
        self._head += octets
        if self._head > MAX_HEAD:
            self._refused_as = 431
            raise TooMuch

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._head, self._unread = False, True, 0, 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooMuch
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._unread = False, 0
        super().on_message_complete()


LAST_WORDS = {
    400: ErrorCode.MALFORMED_MESSAGE,
    408: ErrorCode.MESSAGE_INCOMPLETE,
    414: ErrorCode.MESSAGE_TOO_LARGE,
    429: ErrorCode.RATE_LIMITED,
    431: ErrorCode.MESSAGE_TOO_LARGE,
}


def last_words(status: int) -> bytes:
    """The answer to what never became a request."""
    code = LAST_WORDS[status]
    content = json.dumps({"code": code, "message": MESSAGES[code], "requestId": ""}).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[status] + head.encode() + content


class PartyWebSocket(WebSocketsSansIOProtocol):
    """A websocket with the client's certificate in its scope, as every request has it, and a limit for its frames.

    Whatever a frame holds, reading it keeps the loop busy; and every ping is answered at once, whether or not
    anybody takes the answers.
    """

    _pace: Budgets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pace = Budgets(self.loop.time)

    def handle_connect(self, event: websockets.http11.Request) -> None:
        """The application is started by the loop, after this."""
        super().handle_connect(event)
        tls = self.transport.get_extra_info("ssl_object")
        if self.response.status_code == SWITCHING_PROTOCOLS:
            der = tls.getpeercert(binary_form=True) if tls else None
            self.scope["extensions"]["tls"] = {"client_cert_der": der}

    def data_received(self, data: bytes) -> None:
        """The first data are the whole head: one that is refused leaves an answer that uvicorn does not send."""
        if self.handshake_initiated:
            self._read_frames(data)
            return
        super().data_received(data)
        if not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def _read_frames(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + PIECE])

    def handle_events(self) -> None:
        frames = len(self.conn.events)
        if frames and self._pace.spend("", frames, MAX_FRAMES).wait:
            self.conn.fail(POLICY_VIOLATION, "Too many frames")
            self.handle_parser_exception()  # as with all that breaks the protocol
            self.loop.call_later(FAREWELL, self.transport.abort)
            return
        super().handle_events()


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
    limits: EdgeLimits | None = None,
) -> None:
    """Serve the ASGI application until SIGINT or SIGTERM; `ready` is called once requests are answered.

    `listener` is bound by the caller (`socket.create_server((host, 0))`), who thus knows the real port beforehand.
    """
    limits = limits or EdgeLimits()
    context = server_context(files, require_client_certificate)
    listener.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # asyncio sets it only on sockets that it made itself
    config = EdgeConfig(
        app,
        http=PartyProtocol,
        ws=PartyWebSocket,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # a few octets could unfold to any size
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the peer is who TLS says, whatever a header claims
        server_header=False,
        timeout_keep_alive=math.ceil(limits.keep_alive_seconds),
        timeout_graceful_shutdown=GRACE,
        ssl_context_factory=lambda _config, _default: context,
    )
    config.limits = limits
    config.guests = Guests(limits)
    with Door(listener, config.guests) as door:
        await AnnouncingServer(config, ready).serve(sockets=[door])


class Listening(Protocol):
    """The part of the settings that a server needs."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> TlsFiles: ...


def run_server(
    app: Any,
    settings: Listening,
    ready: Callable[[str], None] = lambda url: None,
    limits: EdgeLimits | None = None,
) -> None:
    """Listen where the settings say (port 0: any free one) and serve; `ready` learns the local URL."""
    with create_server((settings.host, settings.port), backlog=BACKLOG) as listener:
        url = f"https://{settings.host}:{listener.getsockname()[1]}"
        gc.collect()
        gc.freeze()  # what was made so far stays for good: the collector need not look at it again in mid-exchange
        asyncio.run(serve_https(app, listener, settings.tls, lambda: ready(url), limits=limits))
