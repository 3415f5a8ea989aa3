"""The counter: the applicant's card signs, the terminal files, the slip comes back. And how programs use a card."""

import base64
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from parties import now

from api.demo.card_client import JpkiCard, read_iccid
from api.demo.terminal import Counter
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, SpId
from tsm.jpki.application import ApplicationDocument, SignedApplication, verify_application
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificates import Kind, read_certificate, verify_signature
from tsm.jpki.documents import verify_signed
from tsm.jpki.release import ReleaseDocument, SignedRelease
from tsm.keys.primitives import KeySet
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.my_number import my_number_card

ICCID, PROVIDER = Iccid("8981100000000000010"), SpId("JPKI0001")
SLIP = {"accessCode": "0123456789", "password": "ABCDEFGHJKLM", "expiresAt": "2026-11-22T00:00:00Z", "text": "交付票"}


@pytest.fixture
def card(authority: Authority, main_credential: MainCredential) -> SimulatedUicc:
    return my_number_card(
        main_credential,
        authentication_ca=authority.certificate(Kind.AUTHENTICATION),
        signature_ca=authority.certificate(Kind.SIGNATURE),
        authentication_pin="1234",
        signature_pin="ABC123",
    )


class Server:
    """Gives a challenge and takes an application."""

    def __init__(self) -> None:
        self.filed: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/counter/challenges":
            return httpx.Response(200, json={"challenge": "challenge-1"})
        self.filed.append(msgspec.json.decode(request.content))
        if request.url.path.startswith("/counter/cards/"):
            return httpx.Response(200, json={"position": 7})
        return httpx.Response(200, json={"credentialId": "c-1", "slip": SLIP})

    def counter(self) -> Counter:
        return Counter(httpx.Client(transport=httpx.MockTransport(self.answer)), "https://tsm")


def test_the_card_signs_the_servers_challenge_with_its_holders_name(card: SimulatedUicc, authority: Authority) -> None:
    server = Server()
    accepted = server.counter().apply(JpkiCard(card.transmit), "ABC123", ICCID, PROVIDER)
    [filed] = server.filed
    signed = SignedApplication(*(base64.b64decode(filed[name]) for name in ("document", "signature", "certificate")))
    verify_application(signed, read_certificate(authority.certificate(Kind.SIGNATURE)), now())
    document = ApplicationDocument.read(signed.document)
    assert document == ApplicationDocument("challenge-1", ICCID, PROVIDER, "見本花子")
    assert accepted.slip.access_code == SLIP["accessCode"]


def test_with_a_wrong_pin_nothing_is_filed(card: SimulatedUicc) -> None:
    server = Server()
    with pytest.raises(TsmError, check=lambda error: error.detail == "VERIFY: 63C4"):
        server.counter().apply(JpkiCard(card.transmit), "WRONG1", ICCID, PROVIDER)
    assert server.filed == []


def test_the_card_signs_that_another_card_may_be_released(card: SimulatedUicc, authority: Authority) -> None:
    server = Server()
    assert server.counter().release(JpkiCard(card.transmit), "ABC123", ICCID).position == 7
    [filed] = server.filed
    signed = SignedRelease(*(base64.b64decode(filed[name]) for name in ("document", "signature", "certificate")))
    verify_signed(signed, read_certificate(authority.certificate(Kind.SIGNATURE)), now())
    assert signed.read_document() == ReleaseDocument("challenge-1", ICCID)


def test_each_call_for_a_lock_has_a_name_of_its_own() -> None:
    server = Server()
    assert [server.counter().lock(ICCID).position for _ in range(2)] == [7, 7]
    first, second = server.filed
    assert (first["iccid"], first["call"] != second["call"]) == (ICCID, True)


def test_a_card_without_the_applet_is_no_my_number_card(tmp_path: Path) -> None:
    blank = SimulatedUicc.manufacture(ICCID, bytes(4), bytes(8), bytes(10), KeySet(*[bytes(16)] * 3))
    with pytest.raises(TsmError, check=lambda error: error.code is ErrorCode.CARD_REFUSED):
        JpkiCard(blank.transmit)


@pytest.mark.parametrize("kind", list(Kind))
def test_certificates_read_back_as_issued_and_signatures_verify(
    card: SimulatedUicc, main_credential: MainCredential, kind: Kind
) -> None:
    jpki = JpkiCard(card.transmit)
    jpki.verify_pin(kind, "ABC123" if kind is Kind.SIGNATURE else "1234")
    certificate = jpki.certificate(kind)
    assert certificate == getattr(main_credential, f"{kind}_certificate")
    verify_signature(read_certificate(certificate), b"data", jpki.sign(kind, b"data"))


@pytest.mark.parametrize("iccid", [ICCID, "89811000000000000012"])
def test_a_phone_reads_its_cards_number(iccid: str) -> None:
    card = SimulatedUicc.manufacture(iccid, bytes(4), bytes(8), bytes(10), KeySet(*[bytes(16)] * 3))
    assert read_iccid(card.transmit) == iccid
