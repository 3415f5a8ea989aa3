"""The authority's desk: what it gives to everybody, to the TSM server, to the provider."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
from parties import Caller, now
from starlette.applications import Starlette

from api.demo.authority import AuthorityConfig, Desk, EnrolledProvider
from api.demo.party import Tls
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificate_authority import DestructionReceipt
from tsm.jpki.certificates import Kind, RevocationList, read_certificate
from tsm.jpki.key_transport import WrappedKeys, unwrap_keys
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


@pytest.mark.parametrize(("caller", "status"), [(PROVIDER, 403), (None, 401)])
def test_only_the_server_may_revoke(office: Office, caller: bytes | None, status: int) -> None:
    credential, issued = office.issue()
    asked = office.seen_by(caller).post(f"/credentials/{credential}/revoked", json=revocation(issued))
    assert asked.status_code == status


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
