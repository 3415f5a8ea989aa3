"""A card behind PC/SC: the protocol of vsmartcard's virtual reader driver, vpcd.

Frames in both directions: a length of 2 octets, big-endian, and as many octets of payload. A payload of one octet from
the driver is about power; anything longer is a command APDU.

| payload | meaning           | answer |
|---------|-------------------|--------|
| 00      | power off         | none   |
| 01      | power on          | none   |
| 02      | reset             | none   |
| 04      | what is your ATR? | ATR    |

Normally the driver listens (port 35963, on every interface) and the card connects. A driver that is configured with
`DEVICENAME host:port` connects instead: then the card listens, and may do so on the loopback interface only. Such a
driver wants a card in each of its two slots, at two ports, and takes pcscd down when there is none, so the second slot
gets a blank one.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from tsm.errors import ErrorCode, TsmError

HOST, PORT = "127.0.0.1", 35963
RESETS = (b"\x00", b"\x01", b"\x02")
GET_ATR = b"\x04"
CONNECT_PATIENCE = 10.0  # seconds: pcscd loads its drivers after it has started


class Card(Protocol):
    """What stands in the reader."""

    @property
    def atr(self) -> bytes: ...

    def reset(self) -> None: ...

    def transmit(self, command: bytes) -> bytes: ...


def serve(card: Card, host: str = HOST, port: int = PORT, *, listen: bool = False) -> None:
    """Answer the driver until it hangs up; with `listen`, wait for it again then, and so for ever.

    `TsmError(UPSTREAM_UNAVAILABLE)` when no driver is there to connect to, or the port to listen on is taken.
    """
    if not listen:
        with connect(host, port) as connection:
            converse(card, connection)
        return
    with listening(host, port) as reader, listening(host, port + 1) as other:
        threading.Thread(target=welcome, args=(BlankCard(), other), daemon=True).start()
        welcome(card, reader)


class BlankCard:
    """Fills a slot that nobody uses: it has an ATR and knows no command."""

    atr = b"\x3b\x00"

    def reset(self) -> None:
        """Nothing to forget."""

    def transmit(self, command: bytes) -> bytes:
        return b"\x6d\x00"


def welcome(card: Card, slot: socket.socket) -> None:
    """Converse with one driver after the other, until the slot is closed."""
    while True:
        connection, _ = slot.accept()
        with connection:
            converse(card, connection)


def converse(card: Card, connection: socket.socket) -> None:
    """Answer frames until the other side hangs up."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError):
        for payload in frames(connection):
            if payload in RESETS:
                card.reset()
            elif payload == GET_ATR:
                send(connection, card.atr)
            else:
                send(connection, card.transmit(payload))


def frames(connection: socket.socket) -> Iterator[bytes]:
    """Payload after payload; ends when the connection does."""
    while (length := receive(connection, 2)) and (payload := receive(connection, int.from_bytes(length, "big"))):
        yield payload


def receive(connection: socket.socket, length: int) -> bytes:
    """Exactly `length` octets, or nothing when the connection ends."""
    received = b""
    while len(received) < length:
        # The driver sends length and payload apart, and waits with the second for our acknowledgement of the first.
        # The kernel forgets this option, so it is set again each time: 4,000 commands a second instead of 20.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = connection.recv(length - len(received))
        if not part:
            return b""
        received += part
    return received


def send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(len(payload).to_bytes(2, "big") + payload)


def connect(host: str, port: int) -> socket.socket:
    """Connect to a driver that may still be starting."""
    deadline = time.monotonic() + CONNECT_PATIENCE
    while True:
        try:
            return socket.create_connection((host, port))
        except OSError as error:
            if time.monotonic() > deadline:
                detail = f"no vpcd at {host}:{port}: {error.strerror}"
                raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, detail) from None
            time.sleep(0.1)


def listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"cannot listen on {host}:{port}: {error.strerror}") from None
