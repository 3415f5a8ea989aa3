"""Sinks: which addresses are posted to, and what a peer may do to an attempt. The peer is a real one, over real TLS."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from socket import create_server
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.camara import sinks
from api.camara.sinks import Sinks, is_public, networks, seconds_of
from tests.api.tls_sink import TlsSink, sink_in, status
from tsm.errors import ErrorCode, TsmError
from tsm.flows.swap_notices import Answer

LOOPBACK = networks(["127.0.0.0/8"])
HEADERS = {"Content-Type": "application/cloudevents+json", "x-correlator": "story-1"}
BODY = b'{"specversion": "1.0"}'


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[TlsSink]:
    with sink_in(tmp_path) as made:
        yield made


def local(*_: object) -> list[str]:
    return ["127.0.0.1"]


def posts_to(sink: TlsSink, resolve: Any = local) -> Sinks:
    """Loopback is on the list of what is allowed."""
    return Sinks(LOOPBACK, resolve, sink.trust())


def failed(sinks: Sinks, url: str) -> str:
    with pytest.raises(TsmError) as refusal:
        sinks.post(url, BODY, HEADERS)
    assert refusal.value.code is ErrorCode.UPSTREAM_UNAVAILABLE
    return refusal.value.detail


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
        "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "64:ff9b:1::a00:1",
        "100::1", "2001::1", "2001:2::1", "2001:db8::1", "2002:a00:1::1", "2002:808:808::1", "3fff::1", "5f00::1",
        "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%1", "2606:4700::1111%1", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_what_is_near_us_or_nobodys_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(TsmError) as refusal:
        Sinks().refuse(f"https://{f'[{address}]' if ':' in address else address}/sink")
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.INVALID_INPUT, ("sink",))


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "172.32.0.1", "223.255.255.255", "2606:4700::1111"])
def test_what_is_somebodys_is_public(address: str) -> None:
    assert is_public(ip_address(address))
    Sinks().refuse(f"https://{f'[{address}]' if ':' in address else address}/sink")


@given(st.ip_addresses(v=4))
def test_no_public_address_is_a_special_one_and_none_hides_in_one_of_version_6(address: IPv4Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast)
    number = int(address)
    for prefix, shift in (("::ffff:0:0", 0), ("::", 0), ("64:ff9b::", 0), ("64:ff9b:1::", 0), ("2002::", 80)):
        assert not is_public(IPv6Address(int(IPv6Address(prefix)) | number << shift))


@given(st.one_of(st.ip_addresses(v=6), st.ip_addresses(v=6, network="2000::/3")))
def test_no_public_address_of_version_6_is_a_special_one(address: IPv6Address) -> None:
    special = not address.is_global or address.is_multicast or address.is_site_local
    hidden = address.ipv4_mapped or address.sixtofour or address.teredo
    assert not is_public(address) or not (special or hidden)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "localhost", "", "10.0.0.0/33", "::/129"])
def test_an_allowed_network_is_one(text: str) -> None:
    with pytest.raises(TsmError):
        networks([text])


def test_an_allowed_network_opens_nothing_else() -> None:
    allowed = Sinks(networks(["10.1.2.0/24", "fd00::/64"]))
    for host in ("10.1.2.3", "[fd00::1]", "bank.example"):
        allowed.refuse(f"https://{host}/")
    for host in ("10.1.3.3", "[fd00:0:0:1::1]", "[::ffff:10.1.2.3]", "127.0.0.1"):
        with pytest.raises(TsmError):
            allowed.refuse(f"https://{host}/")


# Names


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["fe80::1%1"], []],
)
def test_a_name_that_means_any_address_that_is_not_public_is_not_connected_to(
    sink: TlsSink, addresses: list[str]
) -> None:
    assert failed(Sinks((), lambda *_: addresses, sink.trust()), sink.url) == "not a public address"
    assert sink.requests == []


def test_a_name_is_resolved_once_for_each_attempt_and_what_was_checked_is_connected_to(sink: TlsSink) -> None:
    """A name that means something else a moment later changes nothing."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return next(answers)

    client = posts_to(sink, rebinding)
    assert client.post(sink.url, BODY, HEADERS) == Answer(204)
    assert asked == [("localhost", sink.port)]
    assert failed(client, sink.url) == "not a public address"
    assert len(sink.requests) == 1


def test_the_systems_resolver_is_asked_and_odd_ways_to_write_an_address_lead_nowhere(sink: TlsSink) -> None:
    for host in ("localhost", "127.1", "0x7f.0.0.1", "2130706433", "017700000001"):
        assert failed(Sinks((), tls=sink.trust()), f"https://{host}:{sink.port}/") in {
            "not a public address",
            "gaierror",
        }
    assert sink.requests == []


def test_the_next_address_is_tried_when_one_takes_no_connection(sink: TlsSink) -> None:
    assert posts_to(sink, lambda *_: ["127.0.0.2", "127.0.0.1"]).post(sink.url, BODY, HEADERS) == Answer(204)


def test_a_name_that_is_not_known_is_no_fault_of_ours() -> None:
    assert failed(Sinks(), "https://no-such-host.invalid/") == "gaierror"
    assert failed(Sinks(), f"https://{'a' * 70}.example/") in {"UnicodeError", "gaierror"}


# TLS


def test_the_name_has_to_be_in_the_certificate_whatever_address_was_connected_to(tmp_path: Path) -> None:
    with sink_in(tmp_path, "bank.example") as sink:
        client = posts_to(sink)
        assert client.post(f"https://bank.example:{sink.port}/", BODY, HEADERS) == Answer(204)
        for host in ("shop.example", "127.0.0.1"):
            assert failed(client, f"https://{host}:{sink.port}/") == "SSLCertVerificationError"


def test_the_system_says_whom_to_trust(sink: TlsSink, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failed(Sinks(LOOPBACK, local), sink.url) == "SSLCertVerificationError"
    monkeypatch.setenv("SSL_CERT_FILE", str(sink.ca))
    assert Sinks(LOOPBACK, local).post(sink.url, BODY, HEADERS) == Answer(204)


def test_no_proxy_of_the_environment_is_asked(sink: TlsSink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert posts_to(sink).post(sink.url, BODY, HEADERS) == Answer(204)


def test_who_speaks_no_tls_is_told_nothing(tmp_path: Path, sink: TlsSink) -> None:
    sink._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate
    assert failed(posts_to(sink), sink.url) in {"SSLError", "ConnectionResetError", "SSLEOFError"}
    assert sink.requests == []


# What is sent, and what is read of the answer


def test_the_request_is_a_whole_one(sink: TlsSink) -> None:
    posts_to(sink).post(f"https://localhost:{sink.port}/a/b?c=d&e", BODY, {**HEADERS, "Authorization": "Bearer abc"})
    head, _, body = sink.requests[0].partition(b"\r\n\r\n")
    assert body == BODY
    assert head.decode().split("\r\n") == [
        "POST /a/b?c=d&e HTTP/1.1",
        f"Host: localhost:{sink.port}",
        "Content-Type: application/cloudevents+json",
        "x-correlator: story-1",
        "Authorization: Bearer abc",
        f"Content-Length: {len(BODY)}",
        "Connection: close",
    ]


@pytest.mark.parametrize("header", ["a\r\nX-Evil: 1", "a\nb"])
def test_nothing_adds_a_header(sink: TlsSink, header: str) -> None:
    with pytest.raises(TsmError):
        posts_to(sink).post(sink.url, BODY, {"Authorization": header})
    assert sink.requests == []


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (status(200), Answer(200)),
        (status(202), Answer(202)),
        (b"HTTP/1.0 204 \r\n\r\n", Answer(204)),
        (status(302, Location="https://127.0.0.1/"), Answer(302)),
        (status(410), Answer(410)),
        (status(429, Retry_After=120), Answer(429, 120)),
        (status(503, retry_after="x"), Answer(503)),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + status(204), Answer(204)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + status(401), Answer(401)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nwhatever", Answer(200)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", Answer(200)),
        (status(503, retry_after="Mon, 01 Jan 99999999999 00:00:00 GMT"), Answer(503)),
    ],
)
def test_of_an_answer_the_status_counts(sink: TlsSink, reply: bytes, answer: Answer) -> None:
    sink.reply = lambda _: reply
    assert posts_to(sink).post(sink.url, BODY, HEADERS) == answer
    assert len(sink.requests) == 1  # no redirect is followed


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"", "no answer"),
        (b"HTTP/1.1 204 No Content\r\n", "no answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "HttpParserInvalidStatusLineError"),
        (b"HTTP/1.1 20x OK\r\n\r\n", "HttpParserInvalidStatusLineError"),
        (b"HTTP/1.1 204 OK\r\nX: " + b"a" * 100_000, "too long an answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "no answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "HttpParserUpgrade"),
    ],
)
def test_what_is_no_answer_is_none(sink: TlsSink, reply: bytes, why: str) -> None:
    sink.reply = lambda _: reply
    detail = failed(posts_to(sink), sink.url)
    assert detail == why or detail.startswith("HttpParser")


@pytest.mark.parametrize("drop", [b"a", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a head", "interim answers"])
def test_a_peer_that_drips_for_ever_ends_an_attempt_nevertheless(
    sink: TlsSink, monkeypatch: pytest.MonkeyPatch, drop: bytes
) -> None:
    """Without an end of its own the attempt would go on as long as the peer does, which is longer than any test."""

    def drip(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"" if drop != b"a" else b"HTTP/1.1 204 No Content\r\nX: ")
        until = monotonic() + 60
        while monotonic() < until:
            peer.sendall(drop)
            sleep(0.01)

    sink.reply = lambda _: drip
    monkeypatch.setattr(sinks, "SECONDS", 0.5)
    assert failed(posts_to(sink), sink.url) == "TimeoutError"


def test_a_peer_that_drips_into_the_handshake_ends_an_attempt(sink: TlsSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins a record of 16 KiB, and takes its time."""

    def drip() -> None:
        peer, _ = listener.accept()
        with peer, suppress(OSError):
            peer.sendall(b"\x16\x03\x03\x40\x00")
            until = monotonic() + 60
            while monotonic() < until:
                peer.sendall(b"\x02")
                sleep(0.01)

    with create_server(("127.0.0.1", 0)) as listener:
        dripping = Thread(target=drip)
        dripping.start()
        monkeypatch.setattr(sinks, "SECONDS", 0.5)
        detail = failed(posts_to(sink), f"https://localhost:{listener.getsockname()[1]}/")
        dripping.join()
    assert detail in {"TimeoutError", "SSLError"}


def test_a_peer_that_says_nothing_ends_an_attempt(sink: TlsSink, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.reply = lambda _: lambda peer: peer.recv(1)  # until we hang up
    monkeypatch.setattr(sinks, "SECONDS", 0.3)
    assert failed(posts_to(sink), sink.url) == "TimeoutError"


def test_nobody_there_is_no_answer(sink: TlsSink) -> None:
    sink.close()
    assert failed(posts_to(sink), sink.url) == "ConnectionRefusedError"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("120", 120), ("0", 0), ("9" * 500, 999_999_999), ("", 0), ("-5", 0), ("1.5", 0), ("soon", 0), ("\u0663", 0),
     ("Fri, 31 Dec 1999 23:59:59 GMT", 0), ("Mon, 01 Jan 99999999999 00:00:00 GMT", 0),
     (f"Mon, {'9' * 30} Jan 2020 00:00:00 GMT", 0), (f"Mon, 01 Jan 2020 00:00:00 +{'9' * 30}", 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_or_nothing(said: str, seconds: float) -> None:
    assert seconds_of(said) == seconds


@given(st.text())
def test_whatever_retry_after_says_it_is_a_number_of_seconds(said: str) -> None:
    assert seconds_of(said) >= 0
    assert seconds_of(f"Mon, 01 Jan 2020 00:00:00 {said}") >= 0


def test_a_date_to_retry_after_is_so_far_ahead() -> None:
    assert 3500 < seconds_of(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)) <= 3600
