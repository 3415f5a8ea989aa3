"""Hold and release at the built-in authority: what each certificate's status is, whatever is asked how often."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509.ocsp import OCSPCertStatus
from hypothesis import given, settings
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.jpki import authority as authority_module
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    HoldRequest,
    IssuedCertificates,
    ReleaseRequest,
    RevocationRequest,
)
from tsm.jpki.certificates import (
    Carrier,
    Holder,
    Kind,
    holder,
    public_key,
    read_certificate,
    verify_certificate,
)
from tsm.jpki.key_transport import unwrap_keys
from tsm.keys.vault import SoftwareVault

PROVIDER = "JPKI0001"
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")
START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
HOLD, SUPERSEDED = x509.ReasonFlags.certificate_hold, x509.ReasonFlags.superseded
FOR_GOOD = x509.ReasonFlags.key_compromise


class World:
    """An authority whose time a test sets, and the credentials that it issues."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.vault = SoftwareVault.create(folder / "vault", folder.with_suffix(".kek"))
        self.vault.generate_transport_key("transport")
        self.authority = Authority(folder, self.vault, lambda: self.now, "http://status")
        self.main: MainCredential = self.authority.issue_main(HANAKO)
        self._made = 0

    def issue(self) -> "Credential":
        self._made += 1
        return Credential(self, f"credential-{self._made}")

    def close(self) -> None:
        self.authority.close()
        self.vault.close()


class Credential:
    """One phone's certificates, as the server knows them: it names the latest that it heard of."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        asked = CertificateRequest(name, PROVIDER, world.main.signature_certificate)
        self.first = world.authority.issue(asked)
        self.known = self.first

    @property
    def now(self) -> IssuedCertificates:
        return self.world.authority.certificates(self.name)

    def names(self) -> tuple[str, str, str]:
        return (self.name, sha256(self.known.authentication), sha256(self.known.signature))

    def hold(self) -> None:
        self.world.authority.hold(HoldRequest(*self.names()))

    def release(self, heard: bool = True) -> bytes:
        signature = self.world.authority.release(ReleaseRequest(*self.names()))
        if heard:
            self.known = IssuedCertificates(self.known.authentication, signature)
        return signature

    def revoke(self, kind: Kind, reason: x509.ReasonFlags = FOR_GOOD) -> None:
        self.world.authority.revoke(kind, read_certificate(self.now.of(kind)).serial_number, reason)

    def reason(self, kind: Kind, der: bytes = b"") -> x509.ReasonFlags | None:
        """Why it is revoked; None while it is good."""
        serial = read_certificate(der or self.now.of(kind)).serial_number
        status = self.world.authority.status(kind, serial)
        assert status.certificate in (OCSPCertStatus.GOOD, OCSPCertStatus.REVOKED)
        assert (status.reason is None) == (status.certificate is OCSPCertStatus.GOOD)
        return status.reason

    def reasons(self) -> dict[Kind, x509.ReasonFlags | None]:
        return {kind: self.reason(kind) for kind in Kind}


@pytest.fixture(scope="module", autouse=True)
def quick_keys() -> Iterator[None]:
    """RSA keys take a while to make; here the same few come around again."""
    pool = cycle([authority_module.new_key() for _ in range(6)])
    with patch.object(authority_module, "new_key", lambda: next(pool)):
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("authority") / "ca")
    yield made
    made.close()


@pytest.fixture
def credential(world: World) -> Credential:
    return world.issue()


def sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def refused(code: ErrorCode) -> "pytest.RaisesExc[TsmError]":
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def listed(world: World, kind: Kind, der: bytes) -> x509.RevokedCertificate | None:
    crl = x509.load_der_x509_crl(world.authority.revocation_list(kind))
    return crl.get_revoked_certificate_by_serial_number(read_certificate(der).serial_number)


def test_on_hold_both_certificates_are_revoked_with_certificate_hold(world: World, credential: Credential) -> None:
    credential.hold()
    assert credential.reasons() == dict.fromkeys(Kind, HOLD)
    for kind in Kind:
        entry = listed(world, kind, credential.first.of(kind))
        assert entry is not None
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is HOLD


def test_after_the_hold_authentication_is_good_again_and_the_old_signature_superseded(
    world: World, credential: Credential
) -> None:
    credential.hold()
    signature = credential.release()
    assert credential.now == IssuedCertificates(credential.first.authentication, signature)
    assert credential.reasons() == dict.fromkeys(Kind)
    assert credential.reason(Kind.SIGNATURE, credential.first.signature) is SUPERSEDED
    assert listed(world, Kind.AUTHENTICATION, credential.first.authentication) is None
    assert listed(world, Kind.SIGNATURE, signature) is None
    assert listed(world, Kind.SIGNATURE, credential.first.signature) is not None


def test_the_new_certificate_is_for_the_same_holder_until_the_same_day_and_for_another_key(
    world: World, credential: Credential
) -> None:
    credential.hold()
    old, new = read_certificate(credential.first.signature), read_certificate(credential.release())
    verify_certificate(
        new, read_certificate(world.authority.certificate(Kind.SIGNATURE)), Kind.SIGNATURE, world.now, Carrier.PHONE
    )
    assert holder(new) == HANAKO
    assert new.not_valid_after_utc == old.not_valid_after_utc
    assert public_key(new).public_numbers() != public_key(old).public_numbers()


def test_the_provider_gets_the_new_key_and_not_the_old_one_once_the_first_are_destroyed(
    world: World, credential: Credential
) -> None:
    authority = world.authority
    first = [sha256(credential.first.of(kind)) for kind in Kind]
    authority.destroy_key_copies(credential.name, PROVIDER, first)
    credential.hold()
    new = credential.release()
    wrapped = authority.wrapped_keys(credential.name, PROVIDER, world.vault.public_key("transport"))
    bundle = unwrap_keys(wrapped, credential.name, PROVIDER, partial(world.vault.decrypt, "transport"))
    assert bundle.authentication is None and bundle.signature is not None
    key = load_der_private_key(bundle.signature, None)
    assert key.public_key() == read_certificate(new).public_key()
    [receipt] = authority.destroy_key_copies(credential.name, PROVIDER, [sha256(new)])
    anchors = {kind: read_certificate(authority.certificate(kind)) for kind in Kind}
    assert receipt.verify(anchors).certificate_sha256 == sha256(new)
    with refused(ErrorCode.UNKNOWN_KEY):
        authority.wrapped_keys(credential.name, PROVIDER, world.vault.public_key("transport"))


def test_receipts_for_the_first_keys_do_not_destroy_the_new_one(world: World, credential: Credential) -> None:
    first = [sha256(credential.first.of(kind)) for kind in Kind]
    credential.hold()
    credential.release()
    receipts = world.authority.destroy_key_copies(credential.name, PROVIDER, first)
    assert receipts == world.authority.destroy_key_copies(credential.name, PROVIDER, first)
    world.authority.wrapped_keys(credential.name, PROVIDER, world.vault.public_key("transport"))


def test_a_copy_that_was_never_fetched_dies_with_its_certificate(world: World, credential: Credential) -> None:
    world.now += timedelta(hours=1)
    credential.hold()
    credential.release()
    at = world.now
    world.now += timedelta(hours=1)
    [receipt] = world.authority.destroy_key_copies(credential.name, PROVIDER, [sha256(credential.first.signature)])
    anchors = {kind: read_certificate(world.authority.certificate(kind)) for kind in Kind}
    assert receipt.verify(anchors).destroyed_at == at.isoformat()


def test_nobody_names_a_certificate_of_another_credential(world: World, credential: Credential) -> None:
    other = world.issue()
    mixed = (credential.name, sha256(credential.first.authentication), sha256(other.first.signature))
    for ask in (
        lambda: world.authority.hold(HoldRequest(*mixed)),
        lambda: world.authority.release(ReleaseRequest(*mixed)),
        lambda: world.authority.revoke_credential(RevocationRequest(*mixed, FOR_GOOD)),
    ):
        with refused(ErrorCode.INVALID_INPUT):
            ask()
    with refused(ErrorCode.NOT_FOUND):
        world.authority.destroy_key_copies(credential.name, PROVIDER, [sha256(other.first.signature)])
    with refused(ErrorCode.NOT_FOUND):
        world.authority.hold(HoldRequest("nobody's", *mixed[1:]))


def test_a_release_that_is_asked_again_gives_the_same_certificate(credential: Credential) -> None:
    credential.hold()
    first = credential.release(heard=False)
    assert credential.release(heard=False) == first == credential.release()


def test_a_release_that_comes_late_does_not_end_the_next_hold(world: World, credential: Credential) -> None:
    credential.hold()
    late = ReleaseRequest(*credential.names())
    signature = credential.release()
    credential.hold()
    assert world.authority.release(late) == signature
    assert credential.reasons() == dict.fromkeys(Kind, HOLD)
    assert credential.release() != signature


def test_a_hold_of_certificates_whose_successor_nobody_heard_of_can_be_released(credential: Credential) -> None:
    credential.hold()
    second = credential.release(heard=False)
    credential.hold()
    assert credential.reasons() == dict.fromkeys(Kind, HOLD)
    assert credential.release() != second
    assert credential.reasons() == dict.fromkeys(Kind)


def test_a_hold_of_before_that_comes_late_does_not_keep_the_next_from_its_release(credential: Credential) -> None:
    late = HoldRequest(*credential.names())
    credential.hold()
    second = credential.release()
    credential.hold()
    credential.world.authority.hold(late)
    assert credential.release() != second
    assert credential.reasons() == dict.fromkeys(Kind)


def test_a_list_with_a_higher_number_is_never_of_an_earlier_time(tmp_path: Path) -> None:
    """The time of a list is read where no other list can come between."""
    world = World(tmp_path / "ca")
    free: list[bool] = []

    def clock() -> datetime:
        other = Thread(target=lambda: free.append(world.authority._lock.acquire(blocking=False)))
        other.start()
        other.join()
        return world.now

    world.authority._clock = clock
    numbers = [number_of(world.authority.revocation_list(Kind.SIGNATURE)) for _ in range(2)]
    assert numbers[1] == numbers[0] + 1
    assert free == [False, False]
    world.close()


def number_of(der: bytes) -> int:
    return x509.load_der_x509_crl(der).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_release_without_a_hold_changes_nothing(credential: Credential) -> None:
    assert credential.release() == credential.first.signature
    assert credential.reasons() == dict.fromkeys(Kind)


def test_a_revocation_takes_the_place_of_a_hold_from_its_beginning(world: World, credential: Credential) -> None:
    credential.hold()
    since = world.now
    world.now += timedelta(hours=3)
    world.authority.revoke_credential(RevocationRequest(*credential.names(), FOR_GOOD))
    assert credential.reasons() == dict.fromkeys(Kind, FOR_GOOD)
    for kind in Kind:
        entry = listed(world, kind, credential.first.of(kind))
        assert entry is not None and entry.revocation_date_utc == since
    credential.hold()
    assert credential.reasons() == dict.fromkeys(Kind, FOR_GOOD)


def test_a_revocation_that_names_the_old_certificate_revokes_the_new_one_too(credential: Credential) -> None:
    names = credential.names()
    credential.hold()
    credential.release()
    credential.world.authority.revoke_credential(RevocationRequest(*names, FOR_GOOD))
    assert credential.reasons() == dict.fromkeys(Kind, FOR_GOOD)
    assert credential.reason(Kind.SIGNATURE, credential.first.signature) is SUPERSEDED


@pytest.mark.parametrize("kind", Kind)
def test_a_hold_is_not_released_once_one_certificate_is_revoked_for_good(credential: Credential, kind: Kind) -> None:
    credential.hold()
    credential.revoke(kind)
    with refused(ErrorCode.CERTIFICATE_REVOKED):
        credential.release()
    assert credential.reasons() == dict.fromkeys(Kind, HOLD) | {kind: FOR_GOOD}


@pytest.mark.parametrize("reason", [FOR_GOOD, x509.ReasonFlags.unspecified])
def test_a_hold_is_not_released_once_the_main_certificate_is_revoked(tmp_path: Path, reason: x509.ReasonFlags) -> None:
    world = World(tmp_path / "ca")
    credential = world.issue()
    credential.hold()
    world.authority.revoke(Kind.SIGNATURE, read_certificate(world.main.signature_certificate).serial_number, reason)
    with refused(ErrorCode.CERTIFICATE_REVOKED):
        credential.release()
    assert credential.reasons() == dict.fromkeys(Kind, HOLD)
    world.close()


def test_an_expired_credential_is_not_made_anew(tmp_path: Path) -> None:
    world = World(tmp_path / "ca")
    credential = world.issue()
    credential.hold()
    world.now = read_certificate(credential.first.signature).not_valid_after_utc
    with refused(ErrorCode.CERTIFICATE_EXPIRED):
        credential.release()
    assert credential.reasons() == dict.fromkeys(Kind, HOLD)
    world.close()


@pytest.mark.parametrize("reason", [HOLD, x509.ReasonFlags.remove_from_crl])
def test_a_revocation_is_for_good_and_says_so(credential: Credential, reason: x509.ReasonFlags) -> None:
    with refused(ErrorCode.INVALID_INPUT):
        credential.revoke(Kind.SIGNATURE, reason)


def test_a_hold_outlives_the_process(tmp_path: Path) -> None:
    world = World(tmp_path / "ca")
    credential = world.issue()
    credential.hold()
    world.authority.close()
    world.authority = Authority(tmp_path / "ca", world.vault, lambda: START)
    assert credential.reasons() == dict.fromkeys(Kind, HOLD)
    credential.release()
    assert credential.reasons() == dict.fromkeys(Kind)
    world.close()


class Expected:
    """What the status ought to be, said anew and without a database."""

    def __init__(self) -> None:
        self.reasons: dict[Kind, x509.ReasonFlags | None] = dict.fromkeys(Kind)
        self.superseded = 0

    def hold(self) -> None:
        self.reasons = {kind: reason or HOLD for kind, reason in self.reasons.items()}

    def revoke(self, kind: Kind) -> None:
        if self.reasons[kind] in (None, HOLD):
            self.reasons[kind] = FOR_GOOD

    def release(self) -> None:
        if set(self.reasons.values()) == {HOLD}:
            self.reasons, self.superseded = dict.fromkeys(Kind), self.superseded + 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["hold", "release", "unheard release", *Kind]), max_size=8))
def test_whatever_is_asked_in_whatever_order_revoked_stays_revoked_and_nothing_superseded_returns(
    world: World, steps: list[str]
) -> None:
    credential, expected = world.issue(), Expected()
    signatures = [credential.first.signature]
    for step in steps:
        if step == "hold":
            credential.hold()
            expected.hold()
        elif isinstance(step, Kind):
            credential.revoke(step)
            expected.revoke(step)
        else:
            try:
                credential.release(heard=step == "release")
            except TsmError as error:
                assert error.code is ErrorCode.CERTIFICATE_REVOKED and FOR_GOOD in expected.reasons.values()
            expected.release()
        if credential.now.signature != signatures[-1]:
            signatures.append(credential.now.signature)
        assert credential.reasons() == expected.reasons
    assert len(signatures) == 1 + expected.superseded
    assert all(credential.reason(Kind.SIGNATURE, old) is SUPERSEDED for old in signatures[:-1])
