"""The JSON routes of the server: shapes, who may call, what is refused and with which code."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from api import administration
from api.app import create_app
from api.bootstrap import Settings, build
from api.certificates import certify, fingerprint, request
from api.rest.messages import LARGEST_MESSAGE
from tsm.globalplatform.cap import build_cap
from tsm.jpki.application import ApplicationDocument
from tsm.jpki.authority import Authority
from tsm.jpki.certificate_authority import CertificateRequest, IssuedCertificates
from tsm.jpki.certificates import Holder, Kind
from tsm.jpki.personalisation import APPLICATION, LOAD_FILE, MODULE
from tsm.keys.vault import SoftwareVault
from tsm.mas.launch import LaunchParameters

OPERATOR, PROVIDER, TERMINAL, AUTHORITY = "MNO00001", "JPKI0001", "T-13101-01", "jpki"
ROLES = {OPERATOR: "operator", PROVIDER: "provider", TERMINAL: "terminal", AUTHORITY: "authority", "audit": "auditor"}
ICCID = "8981100000000000010"
DOMAIN = "D392F0002601FE01"
RETURN_URL = "https://provider.example/mobile/prepare"
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")
CREDENTIAL = "8d5fae0c-1d9e-4b0b-8f9f-9b2f5ce60b0a"
RECEIPTS = f"/authority/credentials/{CREDENTIAL}/key-copies-destroyed"


@dataclass
class Direct:
    """The authority without the way to it."""

    authority: Authority

    def issue(self, url: str, asked: CertificateRequest) -> IssuedCertificates:
        return self.authority.issue(asked)

    def revocation_list(self, url: str) -> bytes:
        return self.authority.revocation_list(Kind.SIGNATURE)


class Server:
    """The whole application in this process, and a certificate for each party."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "server"
        administration.initialise(self.data, folder / "kek", "127.0.0.1", 8443)
        self.vault = SoftwareVault.create(folder / "authority" / "vault", folder / "authority-kek")
        self.authority = Authority(folder / "authority", self.vault, lambda: datetime.now(UTC))
        self.main = self.authority.issue_main(HANAKO)
        self.certificates = {party: self.certify(folder / party, party, role) for party, role in ROLES.items()}
        self.vault.generate_signing_key("provider/signing")
        self.vault.generate_transport_key("provider/transport")
        self.enrol()
        self.parts = build(Settings.load(self.data))
        self.parts.issuance._authority = Direct(self.authority)  # type: ignore[assignment]
        self.parts.card_releases._authority = Direct(self.authority)  # type: ignore[assignment]
        self.app = create_app(self.parts)

    def certify(self, folder: Path, party: str, role: str) -> bytes:
        wanted = request(folder, party).read_bytes()
        return certify(self.data / "tls", wanted, party, role, [])

    def enrol(self) -> None:
        shown = {party: fingerprint(pem) for party, pem in self.certificates.items()}
        self.describe("operator", operator=OPERATOR, name="Operator", certificate_fingerprint=shown[OPERATOR])
        self.describe("terminal", terminal=TERMINAL, municipality="13101", certificate_fingerprint=shown[TERMINAL])
        self.describe(
            "authority",
            authority=AUTHORITY,
            name="Simulated JPKI",
            certificate_fingerprint=shown[AUTHORITY],
            url="https://ca.example",
            signature_ca=self.authority.certificate(Kind.SIGNATURE).hex(),
            authentication_ca=self.authority.certificate(Kind.AUTHENTICATION).hex(),
            signature_crl_url="https://ca.example/crl/signature.crl",
            authentication_crl_url="https://ca.example/crl/authentication.crl",
        )
        self.describe(
            "provider",
            provider=PROVIDER,
            name="Provider",
            certificate_fingerprint=shown[PROVIDER],
            public_key=self.vault.public_key("provider/signing").hex(),
            transport_key=self.vault.public_key("provider/transport").hex(),
            notify_url="https://provider.example/notify",
            return_urls=[RETURN_URL],
            domain=DOMAIN,
            authority=AUTHORITY,
        )
        administration.import_master_key(self.data, OPERATOR, "isd", 1, "40" * 16)
        production = f"iccid,iin,cin,key_set,profile\n{ICCID},89811000,0000000000000001,isd,demo\n"
        administration.register_cards(self.data, OPERATOR, production.encode())
        cap = build_cap(LOAD_FILE, (MODULE,), bytes.fromhex("01307A"), "tsm/jpki")
        administration.register_load_file(self.data, PROVIDER, "1.0", APPLICATION.hex(), cap)

    def describe(self, role: str, **description: Any) -> None:
        administration.enrol(self.data, role, json.dumps(description).encode())

    def call(self, method: str, path: str, party: str = "", **content: Any) -> httpx.Response:
        return asyncio.run(self._call(method, path, party, **content))

    async def _call(self, method: str, path: str, party: str, **content: Any) -> httpx.Response:
        der = x509.load_pem_x509_certificate(self.certificates[party]).public_bytes(Encoding.DER) if party else None

        async def seen(scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "extensions": {"tls": {"client_cert_der": der}}}, receive, send)

        transport = httpx.ASGITransport(seen)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as client:
            return await client.request(method, path, **content)

    def close(self) -> None:
        self.parts.close()
        self.authority.close()
        self.vault.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("rest"))
    yield made
    made.close()


ROUTES = [
    ("POST", "/sp-tsm/deployments", PROVIDER),
    ("GET", "/sp-tsm/transport-key", PROVIDER),
    ("GET", f"/sp-tsm/cards/{ICCID}/provisional-keys", PROVIDER),
    ("POST", f"/sp-tsm/cards/{ICCID}/keys", PROVIDER),
    ("POST", "/sp-tsm/access-codes/check", PROVIDER),
    ("POST", "/counter/challenges", TERMINAL),
    ("POST", "/counter/applications", TERMINAL),
    ("POST", "/counter/cards/lock", TERMINAL),
    ("POST", "/counter/cards/release", TERMINAL),
    ("POST", "/counter/cards/release-by-clerk", TERMINAL),
    ("POST", RECEIPTS, AUTHORITY),
]
WITH_BODY = [(method, path, owner) for method, path, owner in ROUTES if method == "POST" and "challenges" not in path]


@pytest.mark.parametrize(("method", "path", "owner"), ROUTES)
def test_each_route_is_for_one_role(server: Server, method: str, path: str, owner: str) -> None:
    assert refusal(server.call(method, path)) == (401, "UNAUTHENTICATED")
    for party in ROLES.keys() - {owner}:
        assert refusal(server.call(method, path, party)) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("method", "path", "owner"), [r for r in ROUTES if r[0] == "POST" and "challenges" not in r[1]]
)
def test_what_is_not_the_message_is_refused_without_being_repeated(
    server: Server, method: str, path: str, owner: str
) -> None:
    for body in (b"", b"{", b"[]", b'{"secret": "0123456789"}', b"\xff\xfe"):
        response = server.call(method, path, owner, content=body)
        assert refusal(response) == (400, "INVALID_INPUT")
        assert "0123456789" not in response.text
    assert refusal(server.call(method, path, owner, content=bytes(LARGEST_MESSAGE + 1))) == (413, "MESSAGE_TOO_LARGE")


def test_a_provider_gets_launch_parameters_signed_by_the_operator(server: Server) -> None:
    asked = {"iccid": ICCID, "returnUrl": RETURN_URL}
    response = server.call("POST", "/sp-tsm/deployments", PROVIDER, json=asked)

    assert response.status_code == 200
    answer = response.json()
    assert (answer["done"], answer["step"]) == (False, "security-domain")
    launch = LaunchParameters.parse(answer["launch"])
    assert launch.provider == OPERATOR
    assert launch.return_url == "https://127.0.0.1:8443/mno/return"
    assert launch.mas_url == "https://127.0.0.1:8443/mas/link"


def test_a_deployment_goes_to_registered_addresses_and_cards_only(server: Server) -> None:
    thief = {"iccid": ICCID, "returnUrl": "https://thief.example"}
    assert refusal(server.call("POST", "/sp-tsm/deployments", PROVIDER, json=thief)) == (403, "FORBIDDEN")
    unknown = {"iccid": "8981100000000000093", "returnUrl": RETURN_URL}
    assert refusal(server.call("POST", "/sp-tsm/deployments", PROVIDER, json=unknown)) == (404, "UNKNOWN_CARD")
    broken = {"iccid": "8981100000000000011", "returnUrl": RETURN_URL}
    assert refusal(server.call("POST", "/sp-tsm/deployments", PROVIDER, json=broken)) == (400, "INVALID_INPUT")


def test_the_transport_key_is_an_rsa_key(server: Server) -> None:
    answer = server.call("GET", "/sp-tsm/transport-key", PROVIDER).json()
    key = load_der_public_key(base64.b64decode(answer["publicKey"]))
    assert isinstance(key, RSAPublicKey)


def test_there_are_no_keys_to_hand_out_before_there_is_a_domain(server: Server) -> None:
    response = server.call("GET", f"/sp-tsm/cards/{ICCID}/provisional-keys", PROVIDER)
    assert refusal(response) == (404, "UNKNOWN_SECURITY_DOMAIN")
    keys = {"keyVersion": 2, "checkValues": ["000000"] * 3, "wrapped": {"enc": "AA==", "mac": "AA=="}}
    response = server.call("POST", f"/sp-tsm/cards/{ICCID}/keys", PROVIDER, json=keys)
    assert refusal(response) == (404, "UNKNOWN_SECURITY_DOMAIN")


def test_a_content_key_is_not_taken(server: Server) -> None:
    keys = {"keyVersion": 2, "checkValues": ["000000"] * 3, "wrapped": dict.fromkeys(("enc", "mac", "dek"), "AA==")}
    response = server.call("POST", f"/sp-tsm/cards/{ICCID}/keys", PROVIDER, json=keys)
    assert refusal(response) == (400, "INVALID_INPUT")


def test_from_the_counter_to_the_receipts(server: Server) -> None:
    application = signed_application(server)
    response = server.call("POST", "/counter/applications", TERMINAL, json=application)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    accepted = response.json()
    slip, credential = accepted["slip"], accepted["credentialId"]
    assert set(slip) == {"accessCode", "password", "expiresAt", "text"}
    assert datetime.fromisoformat(slip["expiresAt"]) > datetime.now(UTC)
    assert "アクセスコード" in slip["text"]
    assert refusal(server.call("POST", "/counter/applications", TERMINAL, json=application)) == (409, "WRONG_ORDER")

    asked = {"accessCode": slip["accessCode"], "password": slip["password"].lower(), "iccid": ICCID}
    response = server.call("POST", "/sp-tsm/access-codes/check", PROVIDER, json=asked)
    assert response.json() == {"credentialId": credential}
    wrong = asked | {"password": "222222222222"}
    response = server.call("POST", "/sp-tsm/access-codes/check", PROVIDER, json=wrong)
    assert response.json()["code"] == "ACCESS_CODE_REFUSED"

    issued = server.authority.certificates(credential)
    written = [hashlib.sha256(der).hexdigest() for der in (issued.authentication, issued.signature)]
    receipts = [
        {"statement": text(receipt.statement), "signature": text(receipt.signature)}
        for receipt in server.authority.destroy_key_copies(credential, PROVIDER, written)
    ]
    path = f"/authority/credentials/{credential}/key-copies-destroyed"
    assert server.call("POST", path, AUTHORITY, json={"receipts": receipts}).json() == {"recorded": 2}
    assert refusal(server.call("POST", path, AUTHORITY, json={"receipts": []})) == (400, "INVALID_INPUT")
    forged = [receipts[0] | {"signature": text(bytes(256))}]
    assert refusal(server.call("POST", path, AUTHORITY, json={"receipts": forged})) == (403, "BAD_SIGNATURE")
    assert refusal(server.call("POST", RECEIPTS, AUTHORITY, json={"receipts": receipts})) == (404, "NOT_FOUND")


def test_a_refusal_names_the_request_that_the_log_knows(server: Server) -> None:
    application = signed_application(server)
    application["signature"] = text(bytes(256))

    response = server.call("POST", "/counter/applications", TERMINAL, json=application)

    assert refusal(response) == (403, "BAD_SIGNATURE")
    last = server.parts.tsm.read(server.parts.tsm.position - 1, 1)[0]
    assert last.fact.topic == "credential.application_refused"
    assert last.context.request == response.json()["requestId"]
    assert last.context.actor == f"terminal:{TERMINAL}"


def test_a_browser_without_a_signature_of_ours_goes_nowhere(server: Server) -> None:
    signature = text(bytes(64))
    assert refusal(server.call("GET", "/mno/return")) == (400, "INVALID_INPUT")
    unknown = {"rcptNum": "2026112100000001", "masSign": signature}
    assert refusal(server.call("GET", "/mno/return", params=unknown)) == (404, "UNKNOWN_RECEPTION")
    asked = {"iccid": ICCID, "returnUrl": RETURN_URL}
    launch = server.call("POST", "/sp-tsm/deployments", PROVIDER, json=asked).json()["launch"]
    forged = {"rcptNum": LaunchParameters.parse(launch).reception, "masSign": signature}
    assert refusal(server.call("GET", "/mno/return", params=forged)) == (403, "BAD_SIGNATURE")


def signed_application(server: Server) -> dict[str, str]:
    challenge = server.call("POST", "/counter/challenges", TERMINAL).json()["challenge"]
    document = ApplicationDocument(challenge, ICCID, PROVIDER, HANAKO.name).encode()
    signature = server.main.signature_key.sign(document, padding.PKCS1v15(), hashes.SHA256())
    octets = {"document": document, "signature": signature, "certificate": server.main.signature_certificate}
    return {name: text(value) for name, value in octets.items()}


def text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code; every refusal has code, message and request id."""
    assert set(response.json()) == {"code", "message", "requestId"}
    return response.status_code, response.json()["code"]
