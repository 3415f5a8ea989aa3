"""The way to the certificate authority: what it is asked, and what becomes of an answer that is none."""

import base64
import json
import ssl
from collections.abc import Callable

import httpx
import pytest
from cryptography.x509 import ReasonFlags

from api.rest.authority_client import LARGEST_ANSWER, AuthorityClient
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    HoldRequest,
    IssuedCertificates,
    ReleaseRequest,
    RevocationRequest,
)

URL = "https://ca.example"
ASKED = CertificateRequest("credential-1", "JPKI0001", b"main certificate")
REVOCATION = RevocationRequest("credential-1", "aa" * 32, "bb" * 32, ReasonFlags.key_compromise)
HOLD = HoldRequest("credential-1", "aa" * 32, "bb" * 32)
RELEASE = ReleaseRequest("credential-1", "aa" * 32, "bb" * 32)
ISSUED = {"authentication": "YQ==", "signature": "cw=="}

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> AuthorityClient:
    made = AuthorityClient(ssl.create_default_context())
    made._http = httpx.Client(transport=httpx.MockTransport(answer))
    return made


def test_certificates_are_asked_for_as_described() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=ISSUED)

    assert client(answer).issue(f"{URL}/", ASKED) == IssuedCertificates(authentication=b"a", signature=b"s")
    assert str(asked[0].url) == f"{URL}/credentials"
    assert json.loads(asked[0].content) == {
        "credentialId": "credential-1",
        "provider": "JPKI0001",
        "mainCertificate": base64.b64encode(b"main certificate").decode(),
    }


def test_a_revocation_is_asked_for_as_described() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    client(answer).revoke(f"{URL}/", REVOCATION)
    assert (asked[0].method, str(asked[0].url)) == ("POST", f"{URL}/credentials/credential-1/revoked")
    assert json.loads(asked[0].content) == {
        "authenticationSha256": "aa" * 32, "signatureSha256": "bb" * 32, "reason": "keyCompromise",
    }  # fmt: skip


def test_a_hold_and_its_release_are_asked_for_as_described() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"signature": "cw=="})

    client(answer).hold(f"{URL}/", HOLD)
    assert client(answer).release(f"{URL}/", RELEASE) == b"s"
    assert [(each.method, str(each.url)) for each in asked] == [
        ("POST", f"{URL}/credentials/credential-1/held"),
        ("POST", f"{URL}/credentials/credential-1/released"),
    ]
    named = {"authenticationSha256": "aa" * 32, "signatureSha256": "bb" * 32}
    assert [json.loads(each.content) for each in asked] == [named, named]


@pytest.mark.parametrize("answer", [{}, [], {"signature": None}, {"signature": "?"}])
def test_a_release_without_the_new_certificate_is_to_be_repeated(answer: object) -> None:
    with pytest.raises(TsmError) as refusal:
        client(lambda _: httpx.Response(200, json=answer)).release(URL, RELEASE)
    assert refusal.value.code is ErrorCode.UPSTREAM_UNAVAILABLE


@pytest.mark.parametrize("status", [302, 400, 404, 500])
def test_a_revocation_that_is_not_acknowledged_is_to_be_repeated(status: int) -> None:
    with pytest.raises(TsmError) as refusal:
        client(lambda _: httpx.Response(status, json={"code": "NOT_FOUND"})).revoke(URL, REVOCATION)
    assert refusal.value.code is ErrorCode.UPSTREAM_UNAVAILABLE


def test_a_revocation_list_is_handed_on_as_it_comes() -> None:
    assert client(lambda _: httpx.Response(200, content=b"\x30\x00")).revocation_list(URL) == b"\x30\x00"


def silent(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("no answer", request=request)


@pytest.mark.parametrize(
    "answer",
    [
        silent,
        lambda _: httpx.Response(500, text="out of order"),
        lambda _: httpx.Response(403, json={"code": "FORBIDDEN"}),
        lambda _: httpx.Response(302, headers={"Location": "https://thief.example"}),
        lambda _: httpx.Response(200, text="hello"),
        lambda _: httpx.Response(200, json=[]),
        lambda _: httpx.Response(200, json={"authentication": "YQ=="}),
        lambda _: httpx.Response(200, json=ISSUED | {"signature": "?"}),
        lambda _: httpx.Response(200, json=ISSUED | {"signature": 5}),
        lambda _: httpx.Response(200, content=bytes(LARGEST_ANSWER + 1)),
    ],
)
def test_an_answer_that_is_none_means_try_again(answer: Answer) -> None:
    with pytest.raises(TsmError) as refusal:
        client(answer).issue(URL, ASKED)
    assert refusal.value.code is ErrorCode.UPSTREAM_UNAVAILABLE


def test_what_the_authority_says_of_the_certificate_is_handed_on() -> None:
    refused = client(lambda _: httpx.Response(400, json={"code": "CERTIFICATE_REVOKED"}))
    with pytest.raises(TsmError) as refusal:
        refused.issue(URL, ASKED)
    assert refusal.value.code is ErrorCode.CERTIFICATE_REVOKED
