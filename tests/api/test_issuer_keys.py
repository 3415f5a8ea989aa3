"""The keys of an issuer: fetched over real TLS when they are needed, not more often than allowed, and kept."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api import issuer_keys
from api.certificates import certify, create_authority, request
from api.issuer_keys import FLOOR, MAX_AGE, IssuerKeys, fetch, read_keys
from tests.api.https import serving
from tests.api.jwt_signer import Signer, key_set
from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import run

ONE, TWO = Signer.elliptic("one"), Signer.rsa("two")
BEGIN = 1000.0  # on the clock of the tests, seconds


@dataclass
class Files:
    certificate: Path
    key: Path
    party_ca: Path


class Provider:
    """An identity provider's address: what it answers, and how often it was asked."""

    def __init__(self):
        self.body, self.status, self.asked = key_set(ONE), 200, 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def answer(self, request):
        self.asked += 1
        await asyncio.to_thread(self.may_answer.wait)
        if self.status == 302:
            return RedirectResponse("/elsewhere")
        return Response(self.body, self.status)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ca")
    create_authority(folder)
    wanted = request(folder / "provider", "provider").read_bytes()
    (folder / "provider" / "cert.pem").write_bytes(certify(folder, wanted, "provider", "server", ["127.0.0.1"]))
    return Files(folder / "provider" / "cert.pem", folder / "provider" / "key.pem", folder / "ca.pem")


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def url(files, provider, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(files.party_ca))
    with serving(Starlette(routes=[Route("/jwks", provider.answer)]), files) as base:
        yield f"{base}/jwks"
        provider.may_answer.set()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as made:
        yield made


class Seconds:
    def __init__(self):
        self.now = BEGIN

    def __call__(self):
        return self.now


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def keys(url, threads, seconds):
    return IssuerKeys(url, Path(), threads, seconds)


def looked(keys):
    """Waits for a look that nobody waits for."""
    keys._look.result(10)


def test_keys_are_fetched_when_first_needed_and_then_known(keys, provider):
    assert provider.asked == 0
    assert keys.find("one").kid == "one"
    assert keys.find("one") is keys.get("one")
    assert provider.asked == 1


def test_an_unknown_key_is_looked_for_but_not_more_often_than_allowed(keys, provider, seconds):
    keys.find("one")
    provider.body = key_set(ONE, TWO)
    for _ in range(10):
        assert keys.find("two") is None
    assert provider.asked == 1
    seconds.now += FLOOR
    assert keys.find("two").kid == "two"
    for _ in range(10):
        keys.find("made up")
    assert provider.asked == 2


def test_a_known_set_is_read_anew_after_its_time_and_nobody_waits(keys, provider, seconds):
    before = keys.find("one")
    provider.body = key_set(TWO)
    seconds.now += MAX_AGE
    assert keys.get("one") is before
    looked(keys)
    assert keys.get("one") is None
    assert keys.get("two")


def test_the_same_set_again_leaves_the_same_keys(keys, seconds):
    before = keys.find("one")
    seconds.now += MAX_AGE
    keys.get("one")
    looked(keys)
    assert keys.get("one") is before


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (404, key_set(TWO)),
        (302, b""),
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"keys": 1}'),
        (200, b"x" * 300_000),
    ],
    ids=["fault", "not found", "redirection", "no JSON", "a list", "no keys", "too large"],
)
def test_while_the_set_cannot_be_had_the_last_one_counts(keys, provider, seconds, status, body, caplog):
    keys.find("one")
    provider.status, provider.body = status, body
    seconds.now += MAX_AGE
    assert keys.find("two") is None
    assert keys.get("one").kid == "one"
    assert provider.asked == 2
    assert "no keys can be read from" in caplog.text
    provider.status, provider.body = 200, key_set(ONE, TWO)
    seconds.now += FLOOR
    assert keys.find("two").kid == "two"


def test_an_issuer_that_was_never_reached_is_not_an_unknown_key(keys, provider):
    provider.status = 503
    with pytest.raises(TsmError) as refusal:
        keys.find("one")
    assert refusal.value.code == ErrorCode.UPSTREAM_UNAVAILABLE


def test_nobody_listens_or_the_certificate_is_of_another_authority(
    threads, seconds, files, provider, tmp_path, monkeypatch
):
    with serving(Starlette(routes=[Route("/jwks", provider.answer)]), files) as base:
        create_authority(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(httpx.ConnectError):
            fetch(f"{base}/jwks")
        keys = IssuerKeys(f"{base}/jwks", Path(), threads, seconds)
        with pytest.raises(TsmError):
            keys.find("one")
    assert provider.asked == 0
    with pytest.raises(httpx.ConnectError):
        fetch(f"{base}/jwks")


def test_an_issuer_that_does_not_answer_holds_up_a_request_for_a_time_and_the_event_loop_never(
    keys, provider, monkeypatch
):
    monkeypatch.setattr(issuer_keys, "TIME_LIMIT", 0.3)
    provider.may_answer.clear()

    async def ask_and_count():
        ticks, asking = 0, asyncio.create_task(run(keys.find, "one"))
        while not asking.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(TsmError):
            await asking
        return ticks

    assert asyncio.run(ask_and_count()) > 5


def test_all_who_need_a_new_key_wait_for_one_look(keys, provider):
    provider.may_answer.clear()

    async def ask():
        asking = [asyncio.create_task(run(keys.find, "one")) for _ in range(20)]
        await asyncio.sleep(0.05)
        provider.may_answer.set()
        return await asyncio.gather(*asking)

    assert [key.kid for key in asyncio.run(ask())] == ["one"] * 20
    assert provider.asked == 1


def test_where_the_event_loop_would_stand_still_nobody_waits_and_the_next_finds_the_key(keys, provider):
    provider.may_answer.clear()

    async def ask():
        with pytest.raises(TsmError):
            keys.find("one")
        provider.may_answer.set()
        await asyncio.to_thread(looked, keys)
        return keys.find("one")

    assert asyncio.run(ask()).kid == "one"


def test_a_set_in_a_file_is_read_the_same_way(tmp_path, threads, seconds):
    keys = IssuerKeys("set.json", tmp_path, threads, seconds)
    with pytest.raises(TsmError) as refusal:
        keys.find("one")
    assert refusal.value.code == ErrorCode.UPSTREAM_UNAVAILABLE
    (tmp_path / "set.json").write_bytes(key_set(ONE))
    seconds.now += FLOOR
    assert keys.find("one").kid == "one"


def test_of_a_set_only_keys_that_verify_signatures_are_taken():
    short = Signer.rsa("short", 1024)
    entries = [
        ONE.jwk,
        {**TWO.jwk, "use": "sig", "alg": "RS256", "key_ops": ["sign"]},
        {**Signer.elliptic("encryption").jwk, "use": "enc"},
        {**Signer.elliptic("x").jwk, "kid": 5},
        {name: value for name, value in Signer.elliptic("x").jwk.items() if name != "kid"},
        {"kty": "oct", "kid": "symmetric", "k": "c2VjcmV0"},
        {"kty": "AKP", "kid": "of the future"},
        {"kty": "EC", "kid": "off the curve", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "kid": "cut off", "crv": "P-256"},
        {"kty": ["EC"], "kid": "strange"},
        short.jwk,
        "no key",
    ]
    assert set(read_keys(json.dumps({"keys": entries}).encode())) == {"one", "two"}


def test_a_private_half_that_was_published_by_mistake_is_not_taken():
    private = {**ONE.jwk, "d": ONE.jwk["x"]}
    key = read_keys(json.dumps({"keys": [private]}).encode())["one"]
    assert not key.is_private
    assert "d" not in key.as_dict()
