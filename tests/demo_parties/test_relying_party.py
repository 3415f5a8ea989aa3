"""The relying party lets in who holds a valid phone certificate's key, and nobody else."""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from functools import partial

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from parties import Caller, now

from api.demo.relying_party import CHALLENGE_LIFE, Challenge, Doorkeeper, Login
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificate_authority import CertificateRequest, HoldRequest, ReleaseRequest
from tsm.jpki.certificates import Kind, read_certificate
from tsm.jpki.key_transport import unwrap_keys
from tsm.jpki.ocsp import MALFORMED, TRY_LATER, UNAUTHORIZED
from tsm.keys.vault import SoftwareVault

SITE, STATUS = "https://relying-party", "http://status.authority"
PROVIDER = "JPKI0001"


@dataclass
class World:
    """A relying party, the authority behind it, and what a test may change."""

    client: Caller
    at: datetime
    authority_says: Callable[[bytes], bytes]
    authority_silent: bool = False


@dataclass(frozen=True)
class Credential:
    """A phone's certificate for user authentication and its key."""

    certificate: bytes
    key: rsa.RSAPrivateKey

    def sign(self, challenge: str) -> Login:
        return Login(
            self.certificate, challenge, self.key.sign(challenge.encode(), padding.PKCS1v15(), hashes.SHA256())
        )


@pytest.fixture
def world(authority: Authority) -> World:
    def answer(request: httpx.Request) -> httpx.Response:
        if made.authority_silent:
            raise httpx.ConnectError("silent")
        assert (request.method, request.headers["content-type"]) == ("POST", "application/ocsp-request")
        return httpx.Response(200, content=made.authority_says(request.content))

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    certificate = authority.certificate(Kind.AUTHENTICATION)
    door = Doorkeeper(SITE, certificate, f"{STATUS}/ocsp/authentication", http, lambda: made.at)
    made = World(Caller(door.application()), now(), partial(authority.ocsp, Kind.AUTHENTICATION))
    return made


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> SoftwareVault:
    folder = tmp_path_factory.mktemp("provider")
    made = SoftwareVault.create(folder / "vault", folder.with_suffix(".kek"))
    made.generate_transport_key("transport")
    return made


@pytest.fixture(scope="module")
def credential(authority: Authority, main_credential: MainCredential, vault: SoftwareVault) -> Credential:
    return issued(authority, main_credential, vault, "phone-1")


def issued(authority: Authority, main: MainCredential, vault: SoftwareVault, name: str) -> Credential:
    certificates = authority.issue(CertificateRequest(name, PROVIDER, main.signature_certificate))
    wrapped = authority.wrapped_keys(name, PROVIDER, vault.public_key("transport"))
    bundle = unwrap_keys(wrapped, name, PROVIDER, lambda data, label: vault.decrypt("transport", data, label))
    key = load_der_private_key(bundle.authentication, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return Credential(certificates.authentication, key)


def challenge(world: World) -> str:
    return msgspec.json.decode(world.client.get("/challenge").content, type=Challenge).challenge


def login(world: World, message: Login) -> str:
    """ "welcome", or the code of the refusal."""
    response = world.client.post("/login", content=msgspec.json.encode(message))
    return "welcome" if response.status_code == 200 else str(response.json()["code"])


def test_a_signed_challenge_lets_in(world: World, credential: Credential) -> None:
    assert login(world, credential.sign(challenge(world))) == "welcome"


def test_the_challenge_names_the_site(world: World) -> None:
    assert challenge(world).startswith(f"{SITE} ")


def test_a_challenge_is_good_once(world: World, credential: Credential) -> None:
    signed = credential.sign(challenge(world))
    assert [login(world, signed), login(world, signed)] == ["welcome", "BAD_SIGNATURE"]


def test_a_challenge_is_good_for_a_minute(world: World, credential: Credential) -> None:
    signed = credential.sign(challenge(world))
    world.at += CHALLENGE_LIFE
    assert login(world, signed) == "BAD_SIGNATURE"


def test_a_challenge_of_ones_own_is_none(world: World, credential: Credential) -> None:
    assert login(world, credential.sign(f"{SITE} made up")) == "BAD_SIGNATURE"


def test_a_copied_certificate_without_its_key_is_refused(world: World, credential: Credential) -> None:
    other = Credential(credential.certificate, rsa.generate_private_key(65537, 2048))
    assert login(world, other.sign(challenge(world))) == "BAD_SIGNATURE"


def test_a_my_number_cards_certificate_is_for_other_doors(world: World, main_credential: MainCredential) -> None:
    card = Credential(main_credential.authentication_certificate, main_credential.authentication_key)
    assert login(world, card.sign(challenge(world))) == "CERTIFICATE_INVALID"


def test_an_expired_certificate_is_refused(world: World, credential: Credential) -> None:
    world.at = read_certificate(credential.certificate).not_valid_after_utc + timedelta(seconds=1)
    assert login(world, credential.sign(challenge(world))) == "CERTIFICATE_EXPIRED"


def test_a_revoked_certificate_is_refused_at_once(
    world: World, authority: Authority, main_credential: MainCredential, vault: SoftwareVault
) -> None:
    lost = issued(authority, main_credential, vault, "lost-phone")
    world.at = now()
    assert login(world, lost.sign(challenge(world))) == "welcome"
    serial = read_certificate(lost.certificate).serial_number
    authority.revoke(Kind.AUTHENTICATION, serial, x509.ReasonFlags.key_compromise)
    world.at = now()
    assert login(world, lost.sign(challenge(world))) == "CERTIFICATE_REVOKED"


def test_whoever_is_on_hold_is_refused_until_it_ends(
    world: World, authority: Authority, main_credential: MainCredential, vault: SoftwareVault
) -> None:
    moved = issued(authority, main_credential, vault, "moved-phone")
    named = [hashlib.sha256(each).hexdigest() for each in astuple(authority.certificates("moved-phone"))]
    authority.hold(HoldRequest("moved-phone", *named))
    world.at = now()
    assert login(world, moved.sign(challenge(world))) == "CERTIFICATE_REVOKED"
    authority.release(ReleaseRequest("moved-phone", *named))
    world.at = now()
    assert login(world, moved.sign(challenge(world))) == "welcome"


@pytest.mark.parametrize("answer", [TRY_LATER, MALFORMED, UNAUTHORIZED, b"", b"junk"])
def test_an_authority_that_does_not_tell_lets_nobody_in(world: World, credential: Credential, answer: bytes) -> None:
    world.authority_says = lambda _: answer
    assert login(world, credential.sign(challenge(world))) == "REVOCATION_UNKNOWN"


def test_an_answer_that_was_recorded_lets_nobody_in(world: World, credential: Credential, authority: Authority) -> None:
    recorded: list[bytes] = []
    world.authority_says = lambda asked: recorded.append(authority.ocsp(Kind.AUTHENTICATION, asked)) or recorded[0]
    assert [login(world, credential.sign(challenge(world))) for _ in range(2)] == ["welcome", "REVOCATION_UNKNOWN"]


def test_nobody_is_let_in_while_revocation_cannot_be_known(world: World, credential: Credential) -> None:
    world.authority_silent = True
    assert login(world, credential.sign(challenge(world))) == "REVOCATION_UNKNOWN"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"certificate":"!","challenge":"","signature":""}'])
def test_a_malformed_login_is_refused(world: World, body: bytes) -> None:
    response = world.client.post("/login", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "MALFORMED_MESSAGE")


def test_an_oversized_login_is_refused(world: World) -> None:
    response = world.client.post("/login", content=b" " * 20_000)
    assert (response.status_code, response.json()["code"]) == (413, "MESSAGE_TOO_LARGE")
