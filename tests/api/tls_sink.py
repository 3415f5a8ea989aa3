"""A relying party's sink for tests: real sockets, real TLS, an answer to each request, or whatever a peer may do."""

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket
from threading import Event, Thread
from typing import Any

from api.certificates import certify, create_authority, request

Reply = bytes | Callable[[ssl.SSLSocket], None]
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class TlsSink:
    """Answers one connection after the other with what `reply` says; keeps what came in."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        create_authority(folder)
        wanted = request(folder / "sink", "sink").read_bytes()
        pem = certify(folder, wanted, "sink", "server", list(hosts) or ["127.0.0.1", "localhost"])
        (folder / "sink" / "cert.pem").write_bytes(pem)
        self.ca = folder / "ca.pem"
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(folder / "sink" / "cert.pem", folder / "sink" / "key.pem")
        self._listener = create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.reply: Callable[[bytes], Reply] = lambda _: NO_CONTENT
        self.requests: list[bytes] = []
        self.arrived = Event()
        self._closing = False
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/sink"

    def trust(self) -> ssl.SSLContext:
        """Of a client that knows this sink's authority."""
        return ssl.create_default_context(cafile=str(self.ca))

    def bodies(self) -> list[bytes]:
        return [one.partition(b"\r\n\r\n")[2] for one in self.requests]

    def close(self) -> None:
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while not self._closing:
            with suppress(OSError):
                plain, _ = self._listener.accept()
                Thread(target=self._answer, args=(plain,), daemon=True).start()

    def _answer(self, plain: socket) -> None:
        with suppress(OSError), plain, self._tls.wrap_socket(plain, server_side=True) as peer:
            received = read_request(peer)
            self.requests.append(received)
            self.arrived.set()
            reply = self.reply(received)
            if callable(reply):
                reply(peer)
            else:
                peer.sendall(reply)


def read_request(peer: ssl.SSLSocket) -> bytes:
    """Head and body."""
    received = b""
    while chunk := peer.recv(65536):
        received += chunk
        head, end, body = received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return received


@contextmanager
def sink_in(folder: Path, *hosts: str) -> Iterator[TlsSink]:
    sink = TlsSink(folder, *hosts)
    try:
        yield sink
    finally:
        sink.close()


def status(code: int, **headers: Any) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {code} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()
