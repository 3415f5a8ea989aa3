"""The authority's desk: what it gives to everybody, to the TSM server, to the provider."""

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import pytest
from anyio import to_thread
from cryptography.x509.ocsp import OCSPCertStatus
from parties import Caller, now
from starlette.applications import Starlette

from api.demo.authority import (
    LARGEST_OCSP_REQUEST,
    MOST_STATUS_REQUESTS,
    AuthorityConfig,
    Desk,
    EnrolledProvider,
    StatusDesk,
)
from api.demo.party import Tls
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificate_authority import DestructionReceipt
from tsm.jpki.certificates import Kind, RevocationList, read_certificate
from tsm.jpki.key_transport import WrappedKeys, unwrap_keys
from tsm.jpki.ocsp import MALFORMED, TRY_LATER, UNAUTHORIZED, ask, check
from tsm.keys.vault import SoftwareVault

PROVIDER, OTHER, TSM = b"the provider's certificate", b"another provider's", b"the server's"
NOBODY = Path("/nowhere")


@dataclass
class Office:
    """The desk as each caller meets it, and the TSM server to which it reports."""

    app: Starlette
    main_certificate: bytes
    reports: list[httpx.Request] = field(default_factory=list)
    tsm_silent: bool = False

    def seen_by(self, certificate: bytes | None) -> Caller:
        return Caller(self.app, certificate=certificate)

    def written(self, provider: bytes, credential: str, issued: httpx.Response) -> httpx.Response:
        """The provider says that both certificates are in the card."""
        certificates = [hashlib.sha256(base64.b64decode(der)).hexdigest() for der in issued.json().values()]
        return self.seen_by(provider).post(f"/credentials/{credential}/written", json={"certificates": certificates})

    def issue(self, provider: str = "JPKI0001") -> tuple[str, httpx.Response]:
        credential = str(uuid4())
        content = {
            "credentialId": credential,
            "provider": provider,
            "mainCertificate": base64.b64encode(self.main_certificate).decode(),
        }
        return credential, self.seen_by(TSM).post("/credentials", json=content)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareVault]:
    folder = tmp_path_factory.mktemp("provider")
    made = SoftwareVault.create(folder / "vault", folder.with_suffix(".kek"))
    made.generate_transport_key("transport")
    yield made
    made.close()


@pytest.fixture
def office(authority: Authority, main_credential: MainCredential, vault: SoftwareVault) -> Office:
    def tsm(request: httpx.Request) -> httpx.Response:
        if made.tsm_silent:
            raise httpx.ConnectError("silent")
        made.reports.append(request)
        return httpx.Response(200, json={})

    transport_key = vault.public_key("transport").hex()
    config = AuthorityConfig(
        authority="CA000001",
        name="Simulated JPKI",
        tls=Tls(NOBODY, NOBODY, NOBODY),
        kek_file=NOBODY,
        tsm_url="https://tsm",
        tsm_certificate_fingerprint=hashlib.sha256(TSM).hexdigest(),
        providers={
            "JPKI0001": EnrolledProvider(hashlib.sha256(PROVIDER).hexdigest(), transport_key),
            "OTHER001": EnrolledProvider(hashlib.sha256(OTHER).hexdigest(), transport_key),
        },
    )
    desk = Desk(authority, config, httpx.AsyncClient(transport=httpx.MockTransport(tsm)))
    made = Office(desk.application(vault), main_credential.signature_certificate)
    return made


@pytest.mark.parametrize("kind", list(Kind))
def test_certificates_and_revocation_lists_are_for_everybody(office: Office, kind: Kind) -> None:
    anybody = office.seen_by(None)
    certificate = read_certificate(anybody.get(f"/ca/{kind}.der").content)
    RevocationList.read(anybody.get(f"/crl/{kind}.crl").content, certificate, now())


def test_there_is_no_third_authority(office: Office) -> None:
    assert office.seen_by(None).get("/ca/other.der").status_code == 404


def test_the_server_asks_for_certificates_and_gets_no_key(office: Office) -> None:
    _, response = office.issue()
    assert set(response.json()) == {"authentication", "signature"}


def test_only_the_server_may_ask_for_certificates(office: Office) -> None:
    assert office.seen_by(PROVIDER).post("/credentials", json={}).status_code == 403
    assert office.seen_by(None).post("/credentials", json={}).status_code == 401


def test_nothing_is_issued_for_a_provider_without_a_contract(office: Office) -> None:
    _, response = office.issue("NOBODY01")
    assert response.json()["code"] == "UNKNOWN_SERVICE_PROVIDER"


def revocation(issued: httpx.Response, **changes: str) -> dict[str, str]:
    """What the server says of the certificates that it was given."""
    sha256 = {kind: hashlib.sha256(base64.b64decode(der)).hexdigest() for kind, der in issued.json().items()}
    return {
        "authenticationSha256": sha256["authentication"], "signatureSha256": sha256["signature"],
        "reason": "cessationOfOperation",
    } | changes  # fmt: skip


def test_the_server_has_both_certificates_revoked(office: Office, authority: Authority) -> None:
    credential, issued = office.issue()
    for _ in range(2):
        answer = office.seen_by(TSM).post(f"/credentials/{credential}/revoked", json=revocation(issued))
        assert answer.status_code == 200
    for kind in Kind:
        crl = office.seen_by(None).get(f"/crl/{kind}.crl").content
        certificate = read_certificate(base64.b64decode(issued.json()[kind]))
        with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.CERTIFICATE_REVOKED):
            RevocationList.read(crl, read_certificate(authority.certificate(kind)), now()).check(certificate)


def test_a_revocation_of_something_else_is_refused(office: Office) -> None:
    credential, issued = office.issue()
    server, path = office.seen_by(TSM), f"/credentials/{credential}/revoked"
    assert server.post(path, json=revocation(issued, signatureSha256="00" * 32)).json()["code"] == "INVALID_INPUT"
    assert server.post(path, json=revocation(issued, reason="stolen")).json()["code"] == "MALFORMED_MESSAGE"
    assert server.post(f"/credentials/{uuid4()}/revoked", json=revocation(issued)).status_code == 404


@pytest.mark.parametrize("what", ["revoked", "held", "released"])
@pytest.mark.parametrize(("caller", "status"), [(PROVIDER, 403), (None, 401)])
def test_only_the_server_may_revoke_hold_or_release(
    office: Office, what: str, caller: bytes | None, status: int
) -> None:
    credential, issued = office.issue()
    asked = office.seen_by(caller).post(f"/credentials/{credential}/{what}", json=revocation(issued))
    assert asked.status_code == status


def test_the_server_has_a_credential_held_and_released(office: Office, authority: Authority) -> None:
    credential, issued = office.issue()
    server = office.seen_by(TSM)
    assert server.post(f"/credentials/{credential}/held", json=named(issued)).status_code == 200
    assert status_of(authority, issued, Kind.AUTHENTICATION) is OCSPCertStatus.REVOKED
    released = server.post(f"/credentials/{credential}/released", json=named(issued)).json()
    assert status_of(authority, issued, Kind.AUTHENTICATION) is OCSPCertStatus.GOOD
    assert status_of(authority, issued, Kind.SIGNATURE) is OCSPCertStatus.REVOKED
    keys = office.seen_by(PROVIDER).get(f"/credentials/{credential}/keys").json()
    assert keys["signature"] == released["signature"] != issued.json()["signature"]
    assert server.post(f"/credentials/{credential}/released", json=named(issued)).json() == released


def test_receipts_are_for_the_certificates_that_were_named(office: Office) -> None:
    credential, issued = office.issue()
    server = office.seen_by(TSM)
    server.post(f"/credentials/{credential}/held", json=named(issued))
    released = server.post(f"/credentials/{credential}/released", json=named(issued))
    office.written(PROVIDER, credential, issued)
    assert office.seen_by(PROVIDER).get(f"/credentials/{credential}/keys").status_code == 200
    office.written(PROVIDER, credential, released)
    assert office.seen_by(PROVIDER).get(f"/credentials/{credential}/keys").json()["code"] == "UNKNOWN_KEY"
    assert [len(msgspec.json.decode(report.content)["receipts"]) for report in office.reports] == [2, 1]


def named(issued: httpx.Response) -> dict[str, str]:
    """Both certificates, as a hold or its release names them."""
    return {name: value for name, value in revocation(issued).items() if name != "reason"}


def status_of(authority: Authority, issued: httpx.Response, kind: Kind) -> OCSPCertStatus:
    certificate = read_certificate(base64.b64decode(issued.json()[kind]))
    return authority.status(kind, certificate.serial_number).certificate


# --- the status desk ---


class Window:
    """The status desk, as everybody meets it."""

    def __init__(self, authority: Authority, issued: httpx.Response) -> None:
        self.client = Caller(StatusDesk(authority).application(), "http://status")
        self.issuer = read_certificate(authority.certificate(Kind.SIGNATURE))
        self.certificate = read_certificate(base64.b64decode(issued.json()["signature"]))
        self.request = ask(self.certificate, self.issuer, bytes(32))

    def is_good(self, response: httpx.Response) -> bool:
        check(response.content, self.certificate, self.issuer, bytes(32), now())
        kind, cache = response.headers["content-type"], response.headers["cache-control"]
        return (response.status_code, kind, cache) == (200, "application/ocsp-response", "no-store")


@pytest.fixture
def window(office: Office, authority: Authority) -> Window:
    return Window(authority, office.issue()[1])


def test_ocsp_is_answered_by_post_and_by_get(window: Window) -> None:
    headers = {"Content-Type": "application/ocsp-request"}
    path = quote(base64.b64encode(window.request), safe="")
    assert window.is_good(window.client.post("/ocsp/signature", content=window.request, headers=headers))
    assert window.is_good(window.client.get(f"/ocsp/signature/{path}"))


def test_one_authority_does_not_answer_for_the_other(window: Window) -> None:
    assert window.client.post("/ocsp/authentication", content=window.request).content == UNAUTHORIZED
    assert window.client.post("/ocsp/other", content=window.request).status_code == 404


@pytest.mark.parametrize("path", ["AAAA", "%3F", "MA", "0" * 4000])
def test_junk_is_malformed(window: Window, path: str) -> None:
    answer = window.client.get(f"/ocsp/signature/{path}")
    assert (answer.status_code, answer.content) == (200, MALFORMED)


def test_more_than_a_request_needs_is_not_read(window: Window) -> None:
    assert window.client.post("/ocsp/signature", content=bytes(LARGEST_OCSP_REQUEST + 1)).status_code == 413


def test_nothing_else_is_told_over_plain_http(office: Office, window: Window) -> None:
    credential, _ = office.issue()
    assert window.client.get("/crl/signature.crl").status_code == 200
    for path in ("/ca/signature.der", f"/credentials/{credential}/keys", "/"):
        assert window.client.get(path).status_code == 404


def test_the_busy_responder_asks_to_try_later_and_recovers(authority: Authority, window: Window) -> None:
    free = Event()

    class Slow(Authority):
        def __init__(self) -> None:
            pass

        def ocsp(self, kind: Kind, request: bytes) -> bytes:
            free.wait()
            return authority.ocsp(kind, request)

    async def crowd() -> list[bytes]:
        app = StatusDesk(Slow()).application()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://status") as client:

            async def one() -> bytes:
                return (await client.post("/ocsp/signature", content=window.request)).content

            asked = [asyncio.create_task(one()) for _ in range(MOST_STATUS_REQUESTS + 1)]
            [refused], waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            free.set()
            return [refused.result(), *await asyncio.gather(*waiting), await one()]

    answers = asyncio.run(crowd())
    assert answers[0] == TRY_LATER
    for answer in answers[1:]:
        check(answer, window.certificate, window.issuer, bytes(32), now())


def test_strangers_who_ask_for_lists_keep_nobody_else_waiting(office: Office, authority: Authority) -> None:
    """However slow the lists are, another's work finds a thread, and the lists are refused before they pile up."""
    free = Event()

    class Slow(Authority):
        def __init__(self) -> None:
            pass

        def revocation_list(self, kind: Kind) -> bytes:
            free.wait()
            return authority.revocation_list(kind)

    async def crowd() -> list[int]:
        app = StatusDesk(Slow()).application()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://status") as client:

            async def one() -> int:
                return (await client.get("/crl/signature.crl")).status_code

            asked = [asyncio.create_task(one()) for _ in range(MOST_STATUS_REQUESTS + 1)]
            [refused], waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            await to_thread.run_sync(free.set)  # in the place of a hold
            return [refused.result(), *await asyncio.gather(*waiting)]

    assert asyncio.run(crowd()) == [503, *[200] * MOST_STATUS_REQUESTS]


def test_the_provider_opens_the_keys_with_its_transport_key(office: Office, vault: SoftwareVault) -> None:
    credential, issued = office.issue()
    keys = office.seen_by(PROVIDER).get(f"/credentials/{credential}/keys").json()
    wrapped = WrappedKeys(*(base64.b64decode(keys[name]) for name in ("encryptedKey", "nonce", "ciphertext")))
    bundle = unwrap_keys(wrapped, credential, "JPKI0001", lambda data, label: vault.decrypt("transport", data, label))
    assert bundle.authentication and bundle.signature
    assert keys["authentication"] == issued.json()["authentication"]


@pytest.mark.parametrize(("caller", "status"), [(OTHER, 404), (TSM, 403), (None, 401)])
def test_nobody_else_gets_the_keys(office: Office, caller: bytes | None, status: int) -> None:
    credential, _ = office.issue()
    assert office.seen_by(caller).get(f"/credentials/{credential}/keys").status_code == status


def test_written_destroys_the_copies_and_reports_the_receipts(office: Office, authority: Authority) -> None:
    credential, issued = office.issue()
    provider = office.seen_by(PROVIDER)
    assert office.written(PROVIDER, credential, issued).status_code == 200
    assert provider.get(f"/credentials/{credential}/keys").json()["code"] == "UNKNOWN_KEY"
    [report] = office.reports
    assert report.url.path == f"/authority/credentials/{credential}/key-copies-destroyed"
    authorities = {kind: read_certificate(authority.certificate(kind)) for kind in Kind}
    receipts = [
        DestructionReceipt(*(base64.b64decode(each[name]) for name in ("statement", "signature")))
        for each in msgspec.json.decode(report.content)["receipts"]
    ]
    statements = [receipt.verify(authorities) for receipt in receipts]
    assert {(said.credential, said.kind) for said in statements} == {(credential, kind) for kind in Kind}


def test_a_report_that_did_not_arrive_is_sent_again(office: Office) -> None:
    credential, issued = office.issue()
    office.tsm_silent = True
    assert office.written(PROVIDER, credential, issued).status_code == 502
    office.tsm_silent = False
    assert office.written(PROVIDER, credential, issued).status_code == 200
    assert len(office.reports) == 1


def test_another_provider_cannot_have_the_copies_destroyed(office: Office) -> None:
    credential, issued = office.issue()
    assert office.written(OTHER, credential, issued).status_code == 404
    assert office.seen_by(PROVIDER).get(f"/credentials/{credential}/keys").status_code == 200
