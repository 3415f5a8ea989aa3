"""The counter's routes for a card in a phone: from the holder's call to the release, and what stands in the way."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from test_rest import ICCID, PROVIDER, RETURN_URL, TERMINAL, Server, refusal, signed_application, text

from tsm.jpki.release import ReleaseDocument
from tsm.model.standing import CardCleared, UseRefused
from tsm.model.swap_policy import Level


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.fixture
def slip(server: Server) -> dict[str, str]:
    return server.call("POST", "/counter/applications", TERMINAL, json=signed_application(server)).json()["slip"]


def call(server: Server, path: str, **content: Any) -> Any:
    return server.call("POST", f"/counter/cards/{path}", TERMINAL, json=content)


def lock(server: Server, name: str = "call-1", **changes: str) -> Any:
    said = {"iccid": ICCID, "call": name, "calledAt": datetime.now(UTC).isoformat()} | changes
    return call(server, "lock", **said)


def signed_release(server: Server, **changes: bytes) -> dict[str, str]:
    challenge = server.call("POST", "/counter/challenges", TERMINAL).json()["challenge"]
    document = ReleaseDocument(challenge, ICCID).encode()
    signature = server.main.signature_key.sign(document, padding.PKCS1v15(), hashes.SHA256())
    octets = {"document": document, "signature": signature, "certificate": server.main.signature_certificate}
    return {name: text(value) for name, value in (octets | changes).items()}


def level(server: Server) -> Level:
    return server.parts.standings.of(ICCID).level


@pytest.mark.usefixtures("slip")
def test_the_holder_calls_and_comes_to_the_counter(server: Server) -> None:
    locked = lock(server)
    assert locked.status_code == 200
    assert locked.json().keys() == {"position"}
    assert level(server) is Level.LOCK

    release = signed_release(server)
    released = call(server, "release", **release)

    assert (released.status_code, released.headers["Cache-Control"]) == (200, "no-store")
    assert level(server) is Level.NONE
    assert call(server, "release", **release).json() == released.json()
    cleared = [e for e in server.parts.tsm.read(0, 10_000) if isinstance(e.fact, CardCleared)]
    assert [(e.fact.proof, e.context.actor) for e in cleared] == [("MY_NUMBER_CARD", f"terminal:{TERMINAL}")]
    assert all(e.context.request for e in cleared)


def test_meanwhile_neither_a_deployment_nor_the_access_code_goes_on(server: Server, slip: dict[str, str]) -> None:
    lock(server)
    asked = {"iccid": ICCID, "returnUrl": RETURN_URL}
    typed = {"accessCode": slip["accessCode"], "password": slip["password"], "iccid": ICCID}
    ways = (("/sp-tsm/deployments", asked), ("/sp-tsm/access-codes/check", typed))
    for path, content in ways:
        for _ in range(2):
            assert refusal(server.call("POST", path, PROVIDER, json=content)) == (409, "CARD_ON_HOLD")
    tried = [e for e in server.parts.tsm.read(0, 10_000) if isinstance(e.fact, UseRefused)]
    assert [(e.fact.use, e.fact.provider) for e in tried] == [("DEPLOYMENT", PROVIDER), ("ACCESS_CODE", PROVIDER)]
    assert all(e.context.actor == f"provider:{PROVIDER}" and e.context.request for e in tried)
    call(server, "release", **signed_release(server))
    for path, content in ways:
        assert server.call("POST", path, PROVIDER, json=content).status_code == 200


@pytest.mark.usefixtures("slip")
def test_a_clerk_releases_with_a_reason(server: Server) -> None:
    lock(server)
    assert refusal(call(server, "release-by-clerk", iccid=ICCID, visit="v", reason=" ")) == (400, "INVALID_INPUT")
    assert call(server, "release-by-clerk", iccid=ICCID, visit="v", reason="papers seen").status_code == 200
    assert level(server) is Level.NONE
    assert lock(server, "call-2").status_code == 200
    assert level(server) is Level.LOCK


@pytest.mark.usefixtures("slip")
def test_a_signature_of_somebody_else_releases_nothing(server: Server) -> None:
    lock(server)
    forged = signed_release(server, signature=bytes(256))
    assert refusal(call(server, "release", **forged)) == (403, "BAD_SIGNATURE")
    assert level(server) is Level.LOCK


@pytest.mark.usefixtures("slip")
def test_an_application_is_no_release_nor_a_release_an_application(server: Server) -> None:
    lock(server)
    assert refusal(call(server, "release", **signed_application(server))) == (400, "INVALID_INPUT")
    response = server.call("POST", "/counter/applications", TERMINAL, json=signed_release(server))
    assert refusal(response) == (400, "INVALID_INPUT")


def test_a_card_without_a_credential_can_be_locked_and_is_nobodys_to_release_here(server: Server) -> None:
    assert lock(server).status_code == 200
    assert refusal(call(server, "release", **signed_release(server))) == (403, "FORBIDDEN")
    assert refusal(call(server, "release-by-clerk", iccid=ICCID, visit="v", reason="papers seen")) == (403, "FORBIDDEN")


def test_what_is_asked_has_to_be_as_described(server: Server) -> None:
    assert refusal(lock(server, iccid="8981100000000000011")) == (400, "INVALID_INPUT")
    assert refusal(lock(server, iccid="8981100000000000093")) == (404, "UNKNOWN_CARD")
    assert refusal(lock(server, calledAt="2026-11-21T10:00:00+09:00")) == (400, "INVALID_INPUT")
    assert refusal(lock(server, calledAt="yesterday")) == (400, "INVALID_INPUT")
    assert lock(server, calledAt="2026-11-21T01:00:00Z").status_code == 200
    assert refusal(lock(server, calledAt="2026-11-21T02:00:00Z")) == (409, "COMMAND_REUSED")
