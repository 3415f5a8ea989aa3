"""Launch and re-access: what passes through the browser, and the signatures that make it safe."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import ReceptionNumber, SpId
from tsm.mas.launch import (
    LaunchParameters,
    launch,
    mas_signed,
    re_access_url,
    signed_return_url,
    sp_signed,
    verify_mas_sign,
)
from tsm.mas.status import FINAL_STATUSES, Status

PROVIDER, RECEPTION = SpId("JPKI0001"), ReceptionNumber("2026112100000001")
RETURN, MAS = "https://sp.example/return?lang=ja&x=1", "https://mas.example/mas/link"


class Signer:
    """A P-256 key with the two functions that the module asks for."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, data):
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    def verify(self, data, raw):
        signature = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        try:
            self.key.public_key().verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


SIGNER = Signer()


def test_the_signed_strings_are_as_transmitted():
    assert sp_signed(PROVIDER, RECEPTION, RETURN, MAS) == (
        b"spId=JPKI0001&rcptNum=2026112100000001&rtnUrl=https%3A%2F%2Fsp.example%2Freturn%3Flang%3Dja%26x%3D1"
        b"&masUrl=https%3A%2F%2Fmas.example%2Fmas%2Flink"
    )
    assert mas_signed(PROVIDER, RECEPTION, "00") == b"spId=JPKI0001&rcptNum=2026112100000001&procStatus=00"


def test_launch_parameters_carry_what_was_signed():
    parameters = launch(PROVIDER, RECEPTION, RETURN, MAS, SIGNER.sign)
    signed = sp_signed(PROVIDER, RECEPTION, RETURN, MAS).decode()
    assert parameters.encode().startswith(signed + "&spSign=")
    assert len(parameters.signature) == 88


@pytest.mark.parametrize("prefix", ["", "commonApl:", "commonApl: ", "commonApl:%20"])
def test_the_common_app_reads_them_with_or_without_the_scheme_and_its_space(prefix):
    parameters = launch(PROVIDER, RECEPTION, RETURN, MAS, SIGNER.sign)
    assert LaunchParameters.parse(prefix + parameters.encode()) == parameters
    assert parameters.href() == "commonApl: " + parameters.encode()


GOOD = launch(PROVIDER, RECEPTION, RETURN, MAS, SIGNER.sign).encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace("&spSign=", "&other="),
        GOOD.partition("&spSign=")[0],
        GOOD + "&spId=JPKI0001",
        GOOD.replace("JPKI0001", ""),
        GOOD.replace("JPKI0001", "jpki"),
        GOOD.replace("2026112100000001", "1"),
        GOOD.replace("https", "http"),
        GOOD.replace("https", "javascript"),
        GOOD.replace("mas.example", "user%40mas.example"),
        GOOD.replace("mas.example", "%FF"),
        GOOD + "AAAA",
        GOOD + "x" * 5000,
    ],
)
def test_launch_parameters_that_are_not_as_specified_are_refused(text):
    with pytest.raises(TsmError):
        LaunchParameters.parse(text)


def test_the_server_finds_which_registered_return_url_was_signed():
    signature = launch(PROVIDER, RECEPTION, RETURN, MAS, SIGNER.sign).signature
    registered = ("https://sp.example/other", RETURN)
    assert signed_return_url(SIGNER.verify, PROVIDER, RECEPTION, registered, MAS, signature) == RETURN


@pytest.mark.parametrize(
    ("provider", "reception", "registered", "mas_url", "verify"),
    [
        ("BANK0001", RECEPTION, (RETURN,), MAS, SIGNER.verify),
        (PROVIDER, "2026112100000002", (RETURN,), MAS, SIGNER.verify),
        (PROVIDER, RECEPTION, ("https://evil.example/",), MAS, SIGNER.verify),
        (PROVIDER, RECEPTION, (), MAS, SIGNER.verify),
        (PROVIDER, RECEPTION, (RETURN,), "https://other-mas.example/", SIGNER.verify),
        (PROVIDER, RECEPTION, (RETURN,), MAS, Signer().verify),
    ],
)
def test_a_signature_over_anything_else_or_by_anyone_else_is_refused(provider, reception, registered, mas_url, verify):
    signature = launch(PROVIDER, RECEPTION, RETURN, MAS, SIGNER.sign).signature
    with pytest.raises(TsmError) as refused:
        signed_return_url(verify, provider, reception, registered, mas_url, signature)
    assert refused.value.code == ErrorCode.BAD_SIGNATURE


@pytest.mark.parametrize("signature", ["", "!", "c2ln", "A" * 88, base64.b64encode(bytes(64)).decode(), "ü"])
def test_what_is_no_signature_is_refused_as_one(signature):
    with pytest.raises(TsmError) as refused:
        signed_return_url(SIGNER.verify, PROVIDER, RECEPTION, (RETURN,), MAS, signature)
    assert refused.value.code == ErrorCode.BAD_SIGNATURE


@pytest.mark.parametrize("status", FINAL_STATUSES)
def test_the_site_learns_the_final_status_from_the_signature_that_verifies(status):
    mas_sign = base64.b64encode(SIGNER.sign(mas_signed(PROVIDER, RECEPTION, status))).decode()
    assert verify_mas_sign(SIGNER.verify, PROVIDER, RECEPTION, mas_sign) is status


def test_the_site_refuses_a_signature_of_somebody_else_or_over_another_reception():
    mas_sign = base64.b64encode(SIGNER.sign(mas_signed(PROVIDER, RECEPTION, Status.OK))).decode()
    for verify, reception in ((Signer().verify, RECEPTION), (SIGNER.verify, "2026112100000002")):
        with pytest.raises(TsmError) as refused:
            verify_mas_sign(verify, PROVIDER, reception, mas_sign)
        assert refused.value.code == ErrorCode.BAD_SIGNATURE


def test_re_access_joins_a_query_that_is_there():
    assert re_access_url("https://sp.example/r", RECEPTION, "a+/=") == (
        "https://sp.example/r?rcptNum=2026112100000001&masSign=a%2B%2F%3D"
    )
    assert re_access_url("https://sp.example/r?x=1", RECEPTION, "a").startswith("https://sp.example/r?x=1&rcptNum=")
