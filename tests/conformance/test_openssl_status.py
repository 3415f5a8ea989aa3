"""OpenSSL, which nobody here wrote, is told by the demo's authority what a certificate's status is.

The authority runs as its own process. The server's client asks it for certificates, holds, releases and revokes them;
OpenSSL asks over plain HTTP, at the addresses that the certificates themselves name.
"""

import base64
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api.certificates import certify, create_authority, request
from api.demo.party import Tls
from api.rest.authority_client import AuthorityClient
from api.tls import client_context
from tests.tools import unavailable
from tsm.jpki.authority import Authority
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    HoldRequest,
    IssuedCertificates,
    ReleaseRequest,
    RevocationRequest,
)
from tsm.jpki.certificates import Holder, Kind
from tsm.keys.vault import SoftwareVault

PROVIDER = "JPKI0001"
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")


@dataclass
class Office:
    """The authority that serves, as the server asks it, and a folder for what OpenSSL reads."""

    url: str
    client: AuthorityClient
    main_certificate: bytes
    folder: Path
    issued: int = 0

    def issue(self) -> "Phone":
        self.issued += 1
        name = f"credential-{self.issued}"
        return Phone(self, name, self.client.issue(self.url, CertificateRequest(name, PROVIDER, self.main_certificate)))


@dataclass
class Phone:
    """One credential's certificates, as the server knows them."""

    office: Office
    credential: str
    certificates: IssuedCertificates

    def hold(self) -> None:
        self.office.client.hold(self.office.url, HoldRequest(*self._names()))

    def release(self) -> bytes:
        return self.office.client.release(self.office.url, ReleaseRequest(*self._names()))

    def revoke(self) -> None:
        asked = RevocationRequest(*self._names(), x509.ReasonFlags.cessation_of_operation)
        self.office.client.revoke(self.office.url, asked)

    def file(self, kind: Kind, der: bytes = b"") -> Path:
        return pem(self.office.folder, der or self.certificates.of(kind))

    def _names(self) -> tuple[str, str, str]:
        issued = self.certificates
        return self.credential, sha256(issued.authentication).hexdigest(), sha256(issued.signature).hexdigest()


def pem(folder: Path, der: bytes) -> Path:
    path = folder / f"{sha256(der).hexdigest()[:16]}.pem"
    path.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    return path


@pytest.fixture(scope="module", autouse=True)
def tool() -> None:
    """Without the tool there is nothing to test; continuous integration has it."""
    if shutil.which("openssl") is None:
        unavailable("missing here: apt-get install openssl")


def openssl(*arguments: str | Path, code: int | None = 0) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def identity(ca: Path, folder: Path, party: str, role: str) -> Tls:
    wanted = request(folder, party).read_bytes()
    (folder / "cert.pem").write_bytes(certify(ca, wanted, party, role, ["127.0.0.1"]))
    return Tls(folder / "cert.pem", folder / "key.pem", ca / "ca.pem")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def configured(folder: Path, tls: Tls, **fields: Any) -> dict[str, Any]:
    """The authority is made; its public material."""
    files = {"certificate": str(tls.certificate), "key": str(tls.key), "party_ca": str(tls.party_ca)}
    provider = {PROVIDER: {"certificate_fingerprint": "00", "transport_key": "00"}}
    ours = {"authority": "CA000001", "name": "Simulated JPKI", "kek_file": "../kek", "providers": provider}
    (folder / "config.json").write_text(json.dumps({"tls": files} | ours | fields))
    command = [sys.executable, "-m", "api.demo.authority", "init", "--folder", str(folder)]
    made: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return made


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    place = tmp_path_factory.mktemp("status")
    create_authority(place / "parties")
    server = identity(place / "parties", place / "tsm", "TSM00001", "server")
    folder = place / "authority"
    tls = identity(place / "parties", folder, "CA000001", "authority")
    public = configured(folder, tls, status_port=free_port(), tsm_certificate_fingerprint=server.fingerprint)
    vault = SoftwareVault.open(folder / "vault", place / "kek")
    authority = Authority(folder, vault, lambda: datetime.now(UTC))
    main = authority.issue_main(HANAKO).signature_certificate
    authority.close()
    vault.close()
    for kind in Kind:
        certificate = x509.load_der_x509_certificate(bytes.fromhex(public[f"{kind}_ca"]))
        (place / f"{kind}_ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    client = AuthorityClient(client_context(server))
    arguments = [sys.executable, "-m", "api.demo.authority", "serve", "--folder", str(folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Office(json.loads(process.stdout.readline())["url"], client, main, place)
        finally:
            client.close()
            process.terminate()


@pytest.fixture
def phone(office: Office) -> Phone:
    return office.issue()


def issuer(phone: Phone, kind: Kind) -> Path:
    return phone.office.folder / f"{kind}_ca.pem"


def asked(phone: Phone, kind: Kind, der: bytes = b"", *options: str) -> str:
    """What `openssl ocsp` makes of the answer at the address in the certificate: status, and reason if there is one."""
    certificate, ca = phone.file(kind, der), issuer(phone, kind)
    url = openssl("x509", "-in", certificate, "-noout", "-ocsp_uri").strip()
    said = openssl("ocsp", "-issuer", ca, "-CAfile", ca, "-cert", certificate, "-url", url, *options)
    assert "Response verify OK" in said
    assert "WARNING" not in said  # it would be about a nonce that did not come back
    status = re.search(rf"{re.escape(str(certificate))}: (\w+)", said)
    reason = re.search(r"Reason: (\w+)", said)
    assert status is not None, said
    return status[1] + (f" {reason[1]}" if reason else "")


def listed(phone: Phone, kind: Kind, der: bytes = b"") -> str | None:
    """The reason that `openssl crl` finds on the list at the address in the certificate; None if it is not listed."""
    certificate = x509.load_der_x509_certificate(der or phone.certificates.of(kind))
    [point] = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    crl = phone.office.folder / f"{kind}.crl"
    crl.write_bytes(httpx.get(point.full_name[0].value, trust_env=False).content)
    text = openssl("crl", "-inform", "DER", "-in", crl, "-CAfile", issuer(phone, kind), "-noout", "-text")
    assert "verify OK" in text
    serial = f"{certificate.serial_number:X}"
    entries = re.findall(r"Serial Number: (\w+)(.*?)(?=Serial Number|Signature Algorithm|$)", text, re.DOTALL)
    reasons = {number.lstrip("0"): entry.rpartition("Reason Code:")[2].strip() for number, entry in entries}
    return reasons.get(serial)


def verified(phone: Phone, kind: Kind, der: bytes = b"") -> bool:
    """Whether `openssl verify` accepts it, with the list that it fetches itself."""
    certificate = phone.file(kind, der)
    options = ("-CAfile", issuer(phone, kind), "-crl_check", "-crl_download")
    said = openssl("verify", *options, certificate, code=None)
    assert ": OK" in said or "certificate revoked" in said, said
    return ": OK" in said


@pytest.mark.parametrize("kind", Kind)
def test_what_was_issued_is_good(phone: Phone, kind: Kind) -> None:
    assert asked(phone, kind) == "good"
    assert listed(phone, kind) is None
    assert verified(phone, kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_hold_is_seen_by_the_responders_and_on_the_lists(phone: Phone, kind: Kind) -> None:
    phone.hold()
    assert asked(phone, kind) == "revoked certificateHold"
    assert listed(phone, kind) == "Certificate Hold"
    assert not verified(phone, kind)


def test_after_the_release_authentication_is_good_and_signatures_are_made_with_another_certificate(
    phone: Phone,
) -> None:
    phone.hold()
    new = phone.release()
    assert asked(phone, Kind.AUTHENTICATION) == "good"
    assert listed(phone, Kind.AUTHENTICATION) is None
    assert verified(phone, Kind.AUTHENTICATION)
    assert asked(phone, Kind.SIGNATURE) == "revoked superseded"
    assert listed(phone, Kind.SIGNATURE) == "Superseded"
    assert not verified(phone, Kind.SIGNATURE)
    assert asked(phone, Kind.SIGNATURE, new) == "good"
    assert verified(phone, Kind.SIGNATURE, new)


@pytest.mark.parametrize("held_before", [False, True])
def test_a_revocation_is_for_good(phone: Phone, held_before: bool) -> None:
    if held_before:
        phone.hold()
    phone.revoke()
    for kind in Kind:
        assert asked(phone, kind) == "revoked cessationOfOperation"
        assert listed(phone, kind) == "Cessation Of Operation"
        assert not verified(phone, kind)


def test_the_answer_is_of_now_and_lives_for_a_minute(phone: Phone) -> None:
    text = response_text(phone, Kind.SIGNATURE)
    this_update, next_update = (
        datetime.strptime(re.search(rf"{name}: (.*) GMT", text)[1], "%b %d %H:%M:%S %Y")  # type: ignore[index]
        for name in ("This Update", "Next Update")
    )
    assert (next_update - this_update).total_seconds() == 60


def response_text(phone: Phone, kind: Kind) -> str:
    certificate, ca = phone.file(kind), issuer(phone, kind)
    url = openssl("x509", "-in", certificate, "-noout", "-ocsp_uri").strip()
    return openssl("ocsp", "-issuer", ca, "-CAfile", ca, "-cert", certificate, "-url", url, "-resp_text")


def test_a_request_that_openssl_made_is_answered_by_get_too(phone: Phone) -> None:
    certificate, ca = phone.file(Kind.SIGNATURE), issuer(phone, Kind.SIGNATURE)
    request_file, response_file = phone.office.folder / "request.der", phone.office.folder / "response.der"
    openssl("ocsp", "-issuer", ca, "-cert", certificate, "-reqout", request_file)
    url = openssl("x509", "-in", certificate, "-noout", "-ocsp_uri").strip()
    encoded = base64.b64encode(request_file.read_bytes()).decode().replace("/", "%2F").replace("+", "%2B")
    response_file.write_bytes(httpx.get(f"{url}/{encoded}", trust_env=False).content)
    trusted = ("-CAfile", ca, "-verify_other", ca)
    said = openssl("ocsp", *trusted, "-reqin", request_file, "-respin", response_file, "-resp_text")
    assert "Response verify OK" in said and "Cert Status: good" in said


def test_another_authoritys_responder_refuses(phone: Phone) -> None:
    certificate, ca = phone.file(Kind.SIGNATURE), issuer(phone, Kind.SIGNATURE)
    url = openssl("x509", "-in", phone.file(Kind.AUTHENTICATION), "-noout", "-ocsp_uri").strip()
    said = openssl("ocsp", "-issuer", ca, "-CAfile", ca, "-cert", certificate, "-url", url, code=None)
    assert "unauthorized (6)" in said


def test_several_certificates_in_one_request_are_refused(phone: Phone) -> None:
    ca = issuer(phone, Kind.SIGNATURE)
    first, second = phone.file(Kind.SIGNATURE), phone.office.issue().file(Kind.SIGNATURE)
    url = openssl("x509", "-in", first, "-noout", "-ocsp_uri").strip()
    said = openssl("ocsp", "-issuer", ca, "-CAfile", ca, "-cert", first, "-cert", second, "-url", url, code=None)
    assert "unauthorized (6)" in said
