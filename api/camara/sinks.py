"""Sinks: addresses that relying parties name, and that this server then posts to. So nobody's word is taken.

A name is resolved anew for each attempt, and every address that it has must be a public one; what is connected to is
one of these very addresses, so a name that means something else a moment later changes nothing. TLS then verifies the
name, against the trust store of the system. Networks that are not public but meant can be named in the settings.

An attempt ends after `SECONDS`, whatever the sink does, or drips (but for the time that the system's resolver takes).
No redirect is followed and no proxy is asked. Of the answer the status and `Retry-After` are read; a head of more than
`LARGEST_HEAD` is none, and the body is left unread.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import httptools

from tsm.errors import ErrorCode, TsmError
from tsm.flows.swap_notices import Answer

SECONDS = 10.0  # for resolving, connecting, TLS, sending and the head of the answer
CONNECT_SECONDS = 3.0  # to one address, of several
LARGEST_HEAD = 16 * 1024  # octets
MOST_ADDRESSES = 4  # of a name that are tried
INTERIM = 200  # statuses below it announce another answer (RFC 9110 section 15.2)
SECRET = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII)  # RFC 6750 section 2.1
TARGET = re.compile(r"[!-~]*", re.ASCII)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

# IANA's registries of special purpose addresses, and multicast; whatever is in none of these is public.
RESERVED_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# Of IPv6 only what is given to networks, without what leads to IPv4 addresses (Teredo, 6to4) and documentation. So
# mapped addresses, NAT64, unique local, link-local and multicast ones are all refused.
GLOBAL_6 = IPv6Network("2000::/3")
RESERVED_6 = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the public internet, and nothing near us."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in RESERVED_4)
    return address.scope_id is None and address in GLOBAL_6 and not any(address in one for one in RESERVED_6)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """As the settings name them. INVALID_INPUT."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError:
        raise TsmError(ErrorCode.INVALID_INPUT, "camara.sink_networks: not a network") from None


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system's resolver has them. `OSError`, `UnicodeError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class Sinks:
    """Posts to sinks. Safe to use from several threads."""

    def __init__(
        self, allowed: Sequence[Network] = (), resolve: Resolve = resolved, tls: ssl.SSLContext | None = None
    ) -> None:
        """`allowed`: networks that may be posted to though they are not public."""
        self._allowed = allowed
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2

    def refuse(self, url: str) -> None:
        """INVALID_INPUT for an address that would be refused without asking anybody. Names are not resolved here.

        CAMARA writes the scheme in small letters, also where it is shown again.
        """
        if not url.startswith("https://"):
            raise TsmError(ErrorCode.INVALID_INPUT, "not an https address", ("sink",))
        host = urlsplit(url).hostname or ""
        try:
            address = ip_address(host)
        except ValueError:
            return
        if not self._may(address):
            raise TsmError(ErrorCode.INVALID_INPUT, "not a public address", ("sink",))

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One attempt. UPSTREAM_UNAVAILABLE unless there is an answer; its detail says why, and names nothing."""
        until = time.monotonic() + SECONDS
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        try:
            message = request(host, port, target(url), body, headers)
            addresses = self._checked(host, port)
            with connected(addresses, port, until) as plain:
                plain.settimeout(left(until))
                with self._tls.wrap_socket(plain, server_hostname=host) as sink:
                    sink.settimeout(left(until))
                    sink.sendall(message)
                    return answered(sink, until)
        except (OSError, UnicodeError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise unavailable(type(error).__name__) from error

    def _checked(self, host: str, port: int) -> list[Address]:
        """All addresses of the host, each of which may be connected to."""
        addresses = [ip_address(text) for text in self._resolve(host, port)]
        if not addresses or not all(self._may(address) for address in addresses):
            raise unavailable("not a public address")
        return addresses

    def _may(self, address: Address) -> bool:
        return is_public(address) or any(address in network for network in self._allowed)


def connected(addresses: Sequence[Address], port: int, until: float) -> socket.socket:
    """A connection to the first address that takes one. `OSError`."""
    refusal = OSError("no address")
    for address in addresses[:MOST_ADDRESSES]:
        family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
        plain = socket.socket(family, socket.SOCK_STREAM)
        try:
            plain.settimeout(min(CONNECT_SECONDS, left(until)))
            plain.connect((str(address), port))
        except OSError as error:
            plain.close()
            refusal = error
        else:
            return plain
    raise refusal


def left(until: float) -> float:
    """Seconds; `TimeoutError` when there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def target(url: str) -> str:
    """What is asked of the host: path and query."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def request(host: str, port: int, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 request. UPSTREAM_UNAVAILABLE for what would not be one."""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {name}" if port == 443 else f"Host: {name}:{port}",
        *(f"{header}: {value}" for header, value in headers.items()),
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if not TARGET.fullmatch(path) or any("\r" in line or "\n" in line for line in lines):
        raise unavailable("not an address")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class Head:
    """The head of an answer, as it is read (the callbacks of httptools)."""

    def __init__(self) -> None:
        self.retry_after = ""
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.complete = True


def answered(sink: ssl.SSLSocket, until: float) -> Answer:
    """The final answer's status. `OSError`, `HttpParserError`, `HttpParserUpgrade`, UPSTREAM_UNAVAILABLE."""
    received = b""
    while len(received) <= LARGEST_HEAD:
        sink.settimeout(left(until))
        chunk = sink.recv(LARGEST_HEAD)
        if not chunk:
            raise unavailable("no answer")
        received += chunk
        while b"\r\n\r\n" in received:
            status, head, received = parsed(received)
            if status >= INTERIM:
                return Answer(status, seconds_of(head.retry_after))
    raise unavailable("too long an answer")


def parsed(received: bytes) -> tuple[int, Head, bytes]:
    """The status, the head, and what follows it. `HttpParserError`; `HttpParserUpgrade`, which is none of these."""
    text, _, rest = received.partition(b"\r\n\r\n")
    head = Head()
    parser = httptools.HttpResponseParser(head)
    parser.feed_data(text + b"\r\n\r\n")
    return parser.get_status_code(), head, rest


def seconds_of(retry_after: str) -> float:
    """Of `Retry-After`, seconds or a date (RFC 9110 section 10.2.3); 0 for anything else."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        wished = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):  # a year, a day or a zone of more digits than a number of the machine has
        return 0.0
    aware = wished if wished.tzinfo else wished.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def unavailable(why: str) -> TsmError:
    return TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, why)
