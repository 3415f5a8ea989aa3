"""The OCSP responder and the relying party's check of what it says (RFC 6960, RFC 5019, RFC 9654)."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.tlv import tlv
from tsm.jpki.authority import Issuer, new_key
from tsm.jpki.certificates import Carrier, Holder, Kind, read_certificate
from tsm.jpki.ocsp import (
    ANSWER_LIFE,
    GOOD,
    MALFORMED,
    NONCE_SIZE,
    TRY_LATER,
    UNAUTHORIZED,
    UNKNOWN,
    Responder,
    Status,
    ask,
    check,
    issuer_hashes,
)

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
HELD = Status.revoked(NOW - timedelta(hours=1), x509.ReasonFlags.certificate_hold)
NONCE = bytes(range(NONCE_SIZE))
SHA1 = hashes.SHA1()  # noqa: S303  names an issuer in most requests, and proves nothing
SHA1_ALGORITHM = tlv(0x30, bytes.fromhex("06052b0e03021a0500"))
UNKNOWN_ALGORITHM = tlv(0x30, bytes.fromhex("06032a030a"))
NONCE_OID = bytes.fromhex("06092b0601050507300102")
OTHER_OID = bytes.fromhex("06032a030b")
TRUE = bytes.fromhex("0101ff")

KEY = new_key()
ISSUER = Issuer.make(Kind.AUTHENTICATION, NOW)
OTHER_ISSUER = Issuer.make(Kind.AUTHENTICATION, NOW)  # of the same name, with another key
CERTIFICATE = read_certificate(
    ISSUER.certify(
        Kind.AUTHENTICATION,
        Carrier.PHONE,
        Holder.of("", "2", NOW.date(), ""),
        KEY.public_key(),
        NOW,
        NOW + timedelta(days=1),
        "http://status",
    )
)


def responder(status: Status = GOOD) -> Responder:
    return Responder(
        ISSUER.certificate, ISSUER.key, lambda serial: status if serial == CERTIFICATE.serial_number else UNKNOWN
    )


def answer(status: Status = GOOD, nonce: bytes = NONCE) -> ocsp.OCSPResponse:
    asked = ask(CERTIFICATE, ISSUER.certificate, nonce)
    return ocsp.load_der_ocsp_response(responder(status).answer(asked, NOW))


def cert_id(
    algorithm: bytes = SHA1_ALGORITHM, issuer: x509.Certificate = ISSUER.certificate, serial: bytes = b"\x05"
) -> bytes:
    name, key = issuer_hashes(issuer, SHA1)
    return tlv(0x30, algorithm + tlv(0x04, name) + tlv(0x04, key) + tlv(0x02, serial))


def request(*cert_ids: bytes, extensions: bytes = b"") -> bytes:
    """As RFC 6960 4.1.1 writes it."""
    asked = tlv(0x30, b"".join(tlv(0x30, each) for each in cert_ids))
    return tlv(0x30, tlv(0x30, asked + (tlv(0xA2, tlv(0x30, extensions)) if extensions else b"")))


def refused(code: ErrorCode) -> "pytest.RaisesExc[TsmError]":
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def judge(response: bytes, at: datetime = NOW, nonce: bytes = NONCE) -> None:
    check(response, CERTIFICATE, ISSUER.certificate, nonce, at)


def test_an_answer_is_live_and_lives_for_a_minute_at_most() -> None:
    said = answer()
    assert said.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert said.this_update_utc == NOW
    assert said.next_update_utc == NOW + ANSWER_LIFE <= NOW + timedelta(seconds=60)


def test_the_authority_signs_itself_and_repeats_the_nonce() -> None:
    said = answer()
    ISSUER.key.public_key().verify(said.signature, said.tbs_response_bytes, padding.PKCS1v15(), hashes.SHA256())
    assert said.responder_key_hash == issuer_hashes(ISSUER.certificate, SHA1)[1]
    assert said.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE
    assert said.certificates == []


@pytest.mark.parametrize("reason", [x509.ReasonFlags.certificate_hold, x509.ReasonFlags.superseded])
def test_a_revoked_certificate_comes_with_time_and_reason(reason: x509.ReasonFlags) -> None:
    said = answer(Status.revoked(NOW - timedelta(days=1), reason))
    assert said.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert (said.revocation_time_utc, said.revocation_reason) == (NOW - timedelta(days=1), reason)


def test_a_reason_that_says_nothing_is_left_out() -> None:
    assert answer(Status.revoked(NOW, x509.ReasonFlags.unspecified)).revocation_reason is None


def test_a_serial_number_that_was_never_issued_is_unknown() -> None:
    said = ocsp.load_der_ocsp_response(responder().answer(request(cert_id()), NOW))
    assert (said.serial_number, said.certificate_status) == (5, ocsp.OCSPCertStatus.UNKNOWN)
    assert len(said.extensions) == 0  # no nonce was sent


@pytest.mark.parametrize("serial", [b"\x00", b"\x7f" * 20, b"\x7f" * 1000])
def test_so_is_one_that_no_certificate_can_have(serial: bytes) -> None:
    said = ocsp.load_der_ocsp_response(responder().answer(request(cert_id(serial=serial)), NOW))
    assert (said.serial_number, said.certificate_status) == (int.from_bytes(serial), ocsp.OCSPCertStatus.UNKNOWN)


@pytest.mark.parametrize("algorithm", [SHA1, hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_the_issuer_may_be_named_by_any_hash(algorithm: hashes.HashAlgorithm) -> None:
    built = ocsp.OCSPRequestBuilder().add_certificate(CERTIFICATE, ISSUER.certificate, algorithm).build()
    said = ocsp.load_der_ocsp_response(responder().answer(built.public_bytes(Encoding.DER), NOW))
    assert said.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert said.hash_algorithm.name == algorithm.name


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(request(cert_id(issuer=OTHER_ISSUER.certificate)), id="another authority's key"),
        pytest.param(request(cert_id(), cert_id()), id="two certificates"),
        pytest.param(request(), id="no certificate"),
        pytest.param(request(cert_id(UNKNOWN_ALGORITHM)), id="a hash that nobody knows"),
        pytest.param(
            request(cert_id(), extensions=tlv(0x30, OTHER_OID + TRUE + tlv(0x04, b"\x05\x00"))),
            id="a critical extension that is not understood",
        ),
    ],
)
def test_what_we_cannot_answer_for_is_unauthorized(asked: bytes) -> None:
    assert responder().answer(asked, NOW) == UNAUTHORIZED


def test_an_extension_that_is_not_critical_is_left_alone() -> None:
    asked = request(cert_id(), extensions=tlv(0x30, OTHER_OID + tlv(0x04, b"\x05\x00")))
    said = ocsp.load_der_ocsp_response(responder().answer(asked, NOW))
    assert said.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL


def nonce_extension(nonce: bytes) -> bytes:
    return tlv(0x30, NONCE_OID + tlv(0x04, tlv(0x04, nonce)))


@pytest.mark.parametrize("length", [1, 16, 32, 128])
def test_a_nonce_of_any_lawful_length_is_repeated(length: int) -> None:
    said = answer(nonce=bytes(length))
    assert said.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == bytes(length)


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"\x30\x00",
        b"GET / HTTP/1.1",
        request(cert_id())[:-1],
        request(cert_id()) + b"\x00",
        request(cert_id(serial=b"\xff")),  # a negative serial number
        request(cert_id(serial=b"\x80" + bytes(19))),
        request(cert_id(serial=b"")),
        request(cert_id(), extensions=nonce_extension(b"")),
        request(cert_id(), extensions=nonce_extension(bytes(129))),
        request(cert_id(), extensions=nonce_extension(NONCE) * 2),
    ],
)
def test_what_is_no_request_is_malformed(asked: bytes) -> None:
    assert responder().answer(asked, NOW) == MALFORMED


@given(st.binary(max_size=200) | st.binary(min_size=1, max_size=40).map(lambda junk: request(tlv(0x30, junk))))
def test_whatever_comes_is_answered(asked: bytes) -> None:
    ocsp.load_der_ocsp_response(responder().answer(asked, NOW))


def test_a_good_certificate_passes_for_a_minute() -> None:
    response = responder().answer(ask(CERTIFICATE, ISSUER.certificate, NONCE), NOW)
    judge(response)
    judge(response, NOW + timedelta(seconds=60))
    with refused(ErrorCode.REVOCATION_UNKNOWN):
        judge(response, NOW + timedelta(seconds=61))


@pytest.mark.parametrize("status", [HELD, Status.revoked(NOW, x509.ReasonFlags.unspecified)])
def test_a_certificate_that_is_held_or_revoked_does_not_pass(status: Status) -> None:
    with refused(ErrorCode.CERTIFICATE_REVOKED):
        judge(responder(status).answer(ask(CERTIFICATE, ISSUER.certificate, NONCE), NOW))


ASKED = ask(CERTIFICATE, ISSUER.certificate, NONCE)
WITHOUT_NONCE = ocsp.OCSPRequestBuilder().add_certificate(CERTIFICATE, ISSUER.certificate, hashes.SHA256()).build()


def forged(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> bytes:
    """All as it should be, but for who signs."""
    algorithm, until = hashes.SHA256(), NOW + ANSWER_LIFE
    return (
        ocsp.OCSPResponseBuilder()
        .add_response(CERTIFICATE, ISSUER.certificate, algorithm, GOOD.certificate, NOW, until, None, None)
        .responder_id(ocsp.OCSPResponderEncoding.HASH, certificate)
        .add_extension(x509.OCSPNonce(NONCE), critical=False)
        .sign(key, algorithm)
        .public_bytes(Encoding.DER)
    )


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(responder(UNKNOWN).answer(ASKED, NOW), id="unknown"),
        pytest.param(forged(OTHER_ISSUER.certificate, OTHER_ISSUER.key), id="signed by another of that name"),
        pytest.param(forged(CERTIFICATE, KEY), id="signed by the holder"),
        pytest.param(responder().answer(ask(CERTIFICATE, ISSUER.certificate, bytes(32)), NOW), id="another's nonce"),
        pytest.param(responder().answer(WITHOUT_NONCE.public_bytes(Encoding.DER), NOW), id="no nonce"),
        pytest.param(responder().answer(ASKED, NOW - timedelta(minutes=5)), id="too old"),
        pytest.param(responder().answer(ASKED, NOW + timedelta(minutes=6)), id="from the future"),
        pytest.param(
            Responder(ISSUER.certificate, ISSUER.key, lambda _: GOOD).answer(
                request(cert_id(), extensions=nonce_extension(NONCE)), NOW
            ),
            id="about another certificate",
        ),
        pytest.param(TRY_LATER, id="try later"),
        pytest.param(UNAUTHORIZED, id="unauthorized"),
        pytest.param(MALFORMED, id="malformed request"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30\x03\x0a\x01\x00", id="successful, and empty"),
    ],
)
def test_whoever_does_not_get_an_answer_knows_nothing(response: bytes) -> None:
    with refused(ErrorCode.REVOCATION_UNKNOWN):
        judge(response)


@given(st.data())
def test_whatever_is_asked_is_answered(data: st.DataObject) -> None:
    asked = bytearray(ASKED)
    for place in data.draw(st.lists(st.integers(0, len(asked) - 1), min_size=1, max_size=4)):
        asked[place] = data.draw(st.integers(0, 255))
    ocsp.load_der_ocsp_response(responder().answer(bytes(asked), NOW))


@given(st.data())
def test_no_change_of_an_octet_makes_a_held_certificate_good(data: st.DataObject) -> None:
    response = bytearray(responder(HELD).answer(ASKED, NOW))
    place = data.draw(st.integers(0, len(response) - 1))
    response[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TsmError):
        judge(bytes(response))
