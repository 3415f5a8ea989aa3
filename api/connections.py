"""How many connections there may be. Each costs memory (280 kB with TLS) before anybody has said who he is.

The listening socket counts: a connection from the moment it is accepted, so during its handshake, too, until its socket
is closed, whatever it has become meanwhile. One too many, of all or of one address, is closed at once: a handshake
would cost more than it is worth. Whose certificate a connection shows is known after the handshake; one too many of a
party gets an answer that says so (`api.tls`).
"""

import logging
import os
import time
from collections.abc import Callable
from ipaddress import ip_network
from socket import socket
from typing import Any

from api.limits import MINUTE, EdgeLimits, Places

Peer = tuple[Any, ...]  # address, port, and what else IPv6 has
SUBSCRIBER = 64  # bits of an IPv6 address that are one subscriber's to choose from

log = logging.getLogger(__name__)


class Guests:
    """The connections that there are. Of one server, used by its event loop alone."""

    def __init__(self, limits: EdgeLimits) -> None:
        self._all = Places(limits.connections)
        self._addresses = Places(limits.connections_per_address)
        self._parties = Places(limits.connections_per_party)
        self._party: dict[Peer, bytes] = {}  # of those who have shown a certificate and got a place
        self._tell_again = 0.0

    def enter(self, peer: Peer) -> bool:
        """Whether one more may come from there."""
        address = subscriber(peer[0])
        if not self._all.take(""):
            self._tell()
            return False
        if not self._addresses.take(address):
            self._all.leave("")
            self._tell()
            return False
        return True

    def show(self, peer: Peer, certificate: bytes) -> bool:
        """Whether one more may be of that party, by its certificate (DER)."""
        if not self._parties.take(certificate):
            self._tell()
            return False
        self._party[peer] = certificate
        return True

    def leave(self, peer: Peer) -> None:
        """Its socket is closed."""
        self._all.leave("")
        self._addresses.leave(subscriber(peer[0]))
        if peer in self._party:
            self._parties.leave(self._party.pop(peer))

    def _tell(self) -> None:
        """Once a minute: whoever floods us does not flood the log."""
        now = time.monotonic()
        if now >= self._tell_again:
            self._tell_again = now + MINUTE
            log.warning("connections are refused, for there are too many")


class Door(socket):
    """A second handle of a listening socket; through it come only those for whom there is a place."""

    def __init__(self, listener: socket, guests: Guests) -> None:
        super().__init__(fileno=os.dup(listener.fileno()))
        self._guests = guests

    def accept(self) -> tuple[socket, Any]:
        """ConnectionAbortedError for one too many: asyncio looks again when it has done other work."""
        connection, peer = super().accept()
        if not self._guests.enter(peer):
            connection.close()
            raise ConnectionAbortedError
        return Guest(connection, lambda: self._guests.leave(peer)), peer


class Guest(socket):
    """An accepted connection, which tells when it is closed."""

    def __init__(self, connection: socket, closed: Callable[[], None]) -> None:
        super().__init__(fileno=connection.detach())
        self._tell_closed: Callable[[], None] | None = closed

    def close(self) -> None:
        super().close()
        if self._tell_closed is not None:
            self._tell_closed()
            self._tell_closed = None


def subscriber(address: str) -> str:
    """What counts as one address: of IPv6 whatever one subscriber may choose from."""
    return str(ip_network(f"{address.partition('%')[0]}/{SUBSCRIBER}", strict=False)) if ":" in address else address
