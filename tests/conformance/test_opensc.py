"""The card that a demo run issued works with Debian's OpenSC and OpenSSL, which nobody here wrote.

The fixture `issued_card` is a copy of the phone's card in a reader, for one of the tests blocks a PIN. The certificates
to compare with come from the authority that issued them; the PINs are those that the citizen of the run typed.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.conformance.reader import (
    OPENSC_MODULE,
    ReaderUnavailable,
    Room,
    missing_packages,
    reader,
    running,
)
from tests.conftest import CITIZEN, DemoRun
from tests.ports import free_pair_of_ports
from tests.tools import unavailable
from tests.uicc.certificates import credential
from tests.uicc.off_card import issue_card, provider
from tests.uicc.test_jpki_applet import make_card
from tests.uicc.test_signature_renewal import new_signature, renewal, write
from tsm.jpki.authority import Authority
from tsm.jpki.certificates import Kind
from tsm.keys.vault import SoftwareVault
from tsm.uicc.card import SimulatedUicc

PINS = {"authentication": "1234", "signature": "ABC123"}
KINDS = ("authentication", "signature")
OBJECT = {"authentication": "01", "signature": "02"}  # how OpenSC numbers certificate, key and PIN
AUTHORITY_OBJECT = {"authentication": "03", "signature": "04"}
SLOT = {"authentication": "0", "signature": "1"}


@dataclass(frozen=True)
class IssuedCard:
    """A personalised card in the reader of a room."""

    folder: Path
    pins: dict[str, str]
    room: Room

    def certificate(self, name: str) -> bytes:
        return (self.folder / f"{name}.der").read_bytes()

    def pkcs11(self, kind: str, *arguments: str | Path, pin: str | None = None, check: bool = True) -> str:
        """pkcs11-tool, logged in for this kind of key."""
        login = ("--slot", SLOT[kind], "--login", "--pin", self.pins[kind] if pin is None else pin)
        done = self.room.run("pkcs11-tool", "--module", OPENSC_MODULE, *login, *arguments, check=check)
        return done.stdout + done.stderr

    def sign(self, kind: str, message: Path, signature: Path) -> None:
        mechanism = ("--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", OBJECT[kind])
        self.pkcs11(kind, *mechanism, "--input-file", message, "--output-file", signature)


def take_from(run: DemoRun, folder: Path) -> None:
    """The run's card, what was issued for it, and its PINs."""
    shutil.copy(run.card, folder / "card.json")
    vault = SoftwareVault.open(run.folder / "authority" / "vault", run.folder / "authority.kek")
    authority = Authority(run.folder / "authority", vault, lambda: datetime.now(UTC))
    issued = authority.certificates(run.report["subjects"]["credential"])
    for kind in Kind:
        (folder / f"{kind}.der").write_bytes(issued.of(kind))
        (folder / f"{kind}_ca.der").write_bytes(authority.certificate(kind))
    authority.close()
    vault.close()
    pins = {"authentication": CITIZEN["authenticationPin"], "signature": CITIZEN["signaturePin"]}
    (folder / "pins.json").write_text(json.dumps(pins))


def describe(folder: Path, card: SimulatedUicc) -> None:
    made = credential()
    card.save(folder / "card.json")
    (folder / "authentication.der").write_bytes(made.authentication_certificate)
    (folder / "authentication_ca.der").write_bytes(made.authentication_ca)
    (folder / "signature.der").write_bytes(made.signature_certificate)
    (folder / "signature_ca.der").write_bytes(made.signature_ca)
    (folder / "pins.json").write_text(json.dumps(PINS))


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """Without the tools there is nothing to test; continuous integration has them."""
    if missing := missing_packages():
        unavailable(f"missing here: apt-get install {' '.join(missing)}")


@pytest.fixture(scope="module")
def issued_card(demo_run: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuedCard]:
    folder = tmp_path_factory.mktemp("issued")
    take_from(demo_run, folder)
    with in_reader(folder) as card:
        yield card


@contextmanager
def in_reader(folder: Path, *, listen: bool = False) -> Iterator[IssuedCard]:
    with ExitStack() as until_end:
        try:
            room = until_end.enter_context(reader(folder / "card.json", folder, listen=listen))
        except ReaderUnavailable as reason:
            unavailable(str(reason))
        yield IssuedCard(folder, json.loads((folder / "pins.json").read_text()), room)


def test_a_my_number_card_works_too(tmp_path: Path) -> None:
    """The other use of the applet, personalised in a factory; here the reader's driver connects to the card."""
    describe(tmp_path, make_card())
    with in_reader(tmp_path, listen=True) as card:
        assert card.room.run("opensc-tool", "--name").stdout.strip() == "jpki"
        (tmp_path / "message").write_bytes(b"message")
        card.sign("signature", tmp_path / "message", tmp_path / "signature")
        assert (tmp_path / "signature").stat().st_size == 256


def test_opensc_names_the_card(issued_card: IssuedCard) -> None:
    assert issued_card.room.run("opensc-tool", "--name").stdout.strip() == "jpki"


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_read_back_equal_to_those_issued(issued_card: IssuedCard, tmp_path: Path, kind: str) -> None:
    pin = ("--verify-pin", "--auth-id", OBJECT[kind], "--pin", issued_card.pins[kind])
    for name, number in {kind: OBJECT[kind], f"{kind}_ca": AUTHORITY_OBJECT[kind]}.items():
        file = tmp_path / f"{name}.pem"
        issued_card.room.run("pkcs15-tool", *pin, "--read-certificate", number, "--output", file)
        assert der(file) == issued_card.certificate(name)


def der(pem: Path) -> bytes:
    return x509.load_pem_x509_certificate(pem.read_bytes()).public_bytes(Encoding.DER)


def test_the_signature_certificate_is_not_told_without_its_pin(issued_card: IssuedCard) -> None:
    read = issued_card.room.run("pkcs15-tool", "--read-certificate", OBJECT["signature"], check=False)
    assert "BEGIN CERTIFICATE" not in read.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_both_keys_sign_and_openssl_verifies(issued_card: IssuedCard, tmp_path: Path, kind: str) -> None:
    signs(issued_card, kind, issued_card.certificate(kind), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_signature_key_is_renewed_both_sign(tmp_path: Path, kind: str) -> None:
    card = issue_card(credential(), authentication_pin=PINS["authentication"], signature_pin=PINS["signature"])
    write(provider(card), renewal())
    describe(tmp_path, card)
    (tmp_path / "signature.der").write_bytes(new_signature()[0])
    with in_reader(tmp_path) as renewed:
        signs(renewed, kind, renewed.certificate(kind), tmp_path)
        pin = ("--verify-pin", "--auth-id", OBJECT[kind], "--pin", PINS[kind])
        renewed.room.run("pkcs15-tool", *pin, "--read-certificate", OBJECT[kind], "--output", tmp_path / "read.pem")
        read = x509.load_pem_x509_certificate((tmp_path / "read.pem").read_bytes())
        assert read.public_bytes(Encoding.DER) == renewed.certificate(kind)


def signs(card: IssuedCard, kind: str, der: bytes, folder: Path) -> None:
    """What the card signs, OpenSSL verifies, and nothing else."""
    message, signature, key = folder / "message", folder / "message.signature", folder / "key.pem"
    message.write_bytes(os.urandom(300))
    certificate = x509.load_der_x509_certificate(der)
    key.write_bytes(certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    card.sign(kind, message, signature)

    verify = ("openssl", "dgst", "-sha256", "-verify", key, "-signature", signature, message)
    assert card.room.run(*verify).stdout == "Verified OK\n"
    message.write_bytes(os.urandom(300))
    assert card.room.run(*verify, check=False).returncode != 0


def test_opensc_tests_itself_on_the_card(issued_card: IssuedCard) -> None:
    assert "No errors" in issued_card.pkcs11("signature", "--test")


def test_openssl_logs_in_to_openssl_with_the_card(issued_card: IssuedCard, tmp_path: Path) -> None:
    """TLS 1.2, because 1.3 signs by PSS, which OpenSC does not do with this kind of card."""
    room = issued_card.room
    server_key, server_certificate = tmp_path / "server.key", tmp_path / "server.pem"
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1")
    room.run(*new, "-keyout", server_key, "-out", server_certificate)
    authority, mine = tmp_path / "authority.pem", tmp_path / "mine.pem"
    authority.write_bytes(pem(issued_card.certificate("authentication_ca")))
    mine.write_bytes(pem(issued_card.certificate("authentication")))

    port = str(free_pair_of_ports())
    server_log = tmp_path / "server.log"
    server = ("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", server_certificate, "-key", server_key)
    demand = ("-Verify", "1", "-verify_return_error", "-CAfile", authority, "-www")
    client = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-sigalgs", "RSA+SHA256", "-quiet")
    pin = issued_card.pins["authentication"]
    token = f"pkcs11:token=JPKI%20%28User%20Authentication%20PIN%29;id=%01;type=private;pin-value={pin}"
    card = ("-engine", "pkcs11", "-keyform", "engine", "-key", token, "-cert", mine)
    request = "GET / HTTP/1.0\r\n\r\n"
    with server_log.open("w") as log, running(room, *server, *demand, log=log):
        wait_for_server(server_log)
        logged_in = room.run(*client, *card, stdin=request, environment={"PKCS11_MODULE_PATH": str(OPENSC_MODULE)})
        refused = room.run(*client, stdin=request, check=False)

    assert "HTTP/1.0 200" in logged_in.stdout
    assert "HTTP/1.0 200" not in refused.stdout  # without a certificate nobody gets in
    subject = x509.load_der_x509_certificate(issued_card.certificate("authentication")).subject
    assert "depth=0" in server_log.read_text()
    assert subject.rdns[-1].rfc4514_string().partition("=")[2] in server_log.read_text()


def pem(certificate: bytes) -> bytes:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)


def wait_for_server(log: Path) -> None:
    deadline = time.monotonic() + 10
    while "ACCEPT" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_wrong_pin_is_refused_and_the_third_blocks(issued_card: IssuedCard, tmp_path: Path) -> None:
    """The last test: it leaves the card's authentication PIN blocked."""
    message = tmp_path / "message"
    message.write_bytes(b"message")
    sign = ("--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", OBJECT["authentication"], "--input-file", message)
    wrong = "0000" if issued_card.pins["authentication"] != "0000" else "1111"

    answers = [issued_card.pkcs11("authentication", *sign, pin=wrong, check=False) for _ in range(3)]
    assert all("CKR_PIN_INCORRECT" in answer or "CKR_PIN_LOCKED" in answer for answer in answers)

    assert "CKR_PIN_LOCKED" in issued_card.pkcs11("authentication", *sign, check=False)  # the right one, too late
    issued_card.sign("signature", message, tmp_path / "signature")  # the other PIN lives
