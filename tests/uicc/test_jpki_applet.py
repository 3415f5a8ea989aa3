"""The JPKI applet answers as the JPKI application of the My Number card does."""

from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from tests.uicc.certificates import Credential, credential, new_key
from tsm.errors import ErrorCode, TsmError
from tsm.uicc import jpki, my_number
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.memory import JpkiPersonality
from tsm.uicc.my_number import key_dgis, my_number_card
from tsm.uicc.refusal import Refused

SELECT_APPLICATION = "00A4040C0AD392F000260100000001"
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


class Wire:
    """A card, spoken to in hex."""

    def __init__(self, card: SimulatedUicc) -> None:
        self.card = card
        self.send(SELECT_APPLICATION)

    def send(self, command: str) -> str:
        """The status word; data goes to `data`."""
        answer = self.card.transmit(bytes.fromhex(command))
        self.data = answer[:-2]
        return answer[-2:].hex().upper()

    def verify(self, p2: str, pin: str) -> str:
        return self.send(f"002000{p2}{len(pin):02X}{pin.encode().hex()}")

    def sign(self, p1: str, p2: str, data: bytes) -> str:
        return self.send(f"802A{p1}{p2}{len(data):02X}{data.hex()}00")


def make_card(personality: JpkiPersonality | None = None, of: Credential | None = None) -> SimulatedUicc:
    made = of or credential()
    return my_number_card(
        made,
        authentication_ca=made.authentication_ca,
        signature_ca=made.signature_ca,
        authentication_pin="1234",
        signature_pin="ABC123",
        personality=personality or JpkiPersonality(),
    )


@pytest.fixture
def wire() -> Wire:
    return Wire(make_card())


def read(wire: Wire, file_id: str) -> bytes:
    assert wire.send(f"00A4020C02{file_id}") == "9000"
    content = b""
    while wire.send(f"00B0{len(content):04X}00") == "9000":
        content += wire.data
        if len(wire.data) < 256:
            break
    return content


def test_selecting_the_application_answers_no_data(wire: Wire) -> None:
    assert (wire.send(SELECT_APPLICATION), wire.data) == ("9000", b"")


@pytest.mark.parametrize("aid", ["D392F0002601000000", "D392F00026010000000100", "D392F000260100000002", "D392"])
def test_only_the_whole_aid_selects(wire: Wire, aid: str) -> None:
    assert wire.send(f"00A4040C{len(aid) // 2:02X}{aid}") == "6A82"


def test_free_files_read_back_as_personalised(wire: Wire) -> None:
    made = credential()
    assert read(wire, "000A") == made.authentication_certificate
    assert read(wire, "000B") == made.authentication_ca
    assert read(wire, "0002") == made.signature_ca
    assert len(read(wire, "0006")) == 160
    assert read(wire, "0008").hex() == "8f8f00"


def test_token_information_names_a_my_number_card(wire: Wire) -> None:
    content = read(wire, "0006")
    assert content[:32] == b"JPKIAPICCTOKEN2".ljust(32)
    assert content[96:100].hex() == "0000040d"
    assert content[-20:] == b"0301" + b"9" * 16


def test_the_signature_certificate_needs_the_signature_pin(wire: Wire) -> None:
    assert wire.send("00A4020C020001") == "9000"
    assert wire.send("00B0000004") == "6982"
    assert wire.verify("98", "1234") == "9000"
    assert wire.send("00B0810004") == "6982"
    assert wire.verify("9B", "ABC123") == "9000"
    assert read(wire, "0001") == credential().signature_certificate


def test_on_a_phone_the_authentication_certificate_may_need_its_pin() -> None:
    wire = Wire(make_card(JpkiPersonality(authentication_certificate_needs_pin=True)))
    assert wire.send("00B08A0004") == "6982"
    wire.verify("98", "1234")
    assert wire.send("00B08A0004") == "9000"


def test_reading_by_short_id_makes_the_file_current(wire: Wire) -> None:
    assert wire.send("00B08A0004") == "9000"
    assert wire.data == credential().authentication_certificate[:4]
    assert wire.send("00B0000404") == "9000"
    assert wire.data == credential().authentication_certificate[4:8]


def test_never_more_octets_than_asked_for_and_none_beyond_the_end(wire: Wire) -> None:
    length = len(credential().authentication_certificate)
    wire.send("00A4020C02000A")
    assert (wire.send("00B0000010"), len(wire.data)) == ("9000", 16)
    assert (wire.send(f"00B0{length - 3:04X}10"), len(wire.data)) == ("9000", 3)
    assert wire.send(f"00B0{length:04X}10") == "6B00"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("00A4020C020003", "6A82"),  # no such file
        ("00A4000C023F00", "6A86"),  # as real cards answer
        ("00B0000000", "6986"),  # nothing selected
        ("00B0970000", "6981"),  # a key is not to be read
        ("00B0980000", "6981"),  # nor a PIN
        ("08200080", "69FC"),  # no secure messaging
        ("00CADF3005", "6D00"),
        ("00CB3FFF00", "6D00"),
        ("80CA006600", "6D00"),
        ("90CA006600", "6E00"),
        ("00", "6700"),
        ("", "6700"),
    ],
)
def test_refuses(wire: Wire, command: str, answer: str) -> None:
    assert wire.send(command) == answer


def test_the_pin_query_tells_the_tries_left_even_when_verified(wire: Wire) -> None:
    wire.send("00A4020C020018")
    assert wire.send("00200080") == "63C3"
    wire.verify("80", "1234")
    assert wire.send("00200080") == "63C3"
    assert wire.send("0020009B") == "63C5"


def test_a_query_with_the_length_octet_that_t0_adds_costs_no_try(wire: Wire) -> None:
    wire.send("00A4020C020018")
    assert [wire.send("0020008000") for _ in range(5)] == ["63C3"] * 5


def test_the_third_wrong_pin_blocks_and_reset_does_not_help(wire: Wire) -> None:
    assert [wire.verify("98", "0000") for _ in range(3)] == ["63C2", "63C1", "63C0"]
    wire.card.reset()
    wire.send(SELECT_APPLICATION)
    assert wire.verify("98", "1234") == "6983"
    assert wire.send("00200098") == "63C0"
    assert wire.verify("9B", "ABC123") == "9000"  # the other PIN lives


def test_a_blocked_pin_may_answer_as_jicsap_says() -> None:
    wire = Wire(make_card(JpkiPersonality(blocked_status=0x6984)))
    for _ in range(5):
        wire.verify("9B", "WRONG1")
    assert wire.verify("9B", "ABC123") == "6984"


def test_the_right_pin_gives_all_tries_back(wire: Wire) -> None:
    wire.verify("98", "0000")
    assert wire.send("00200098") == "63C2"
    assert wire.verify("98", "1234") == "9000"
    assert wire.send("00200098") == "63C3"


def test_a_wrong_pin_takes_back_the_verification(wire: Wire) -> None:
    wire.verify("98", "1234")
    wire.verify("98", "4321")
    assert wire.sign("00", "97", DIGEST_INFO + bytes(32)) == "6982"


def test_selecting_the_application_again_logs_out(wire: Wire) -> None:
    wire.verify("98", "1234")
    wire.send(SELECT_APPLICATION)
    assert wire.sign("00", "97", DIGEST_INFO + bytes(32)) == "6982"


def test_a_failed_selection_leaves_the_applet_selected(wire: Wire) -> None:
    wire.verify("98", "1234")
    assert wire.send("00A4040007D2760001240102") == "6A82"
    assert wire.sign("00", "97", DIGEST_INFO + bytes(32)) == "9000"


def test_changing_a_pin_needs_the_old_one_first(wire: Wire) -> None:
    assert wire.send("00240198" + "04" + b"9876".hex()) == "6982"
    wire.verify("98", "1234")
    assert wire.send("00240198" + "04" + b"98A6".hex()) == "6A80"
    assert wire.send("00240198" + "04" + b"9876".hex()) == "9000"
    wire.send(SELECT_APPLICATION)
    assert wire.verify("98", "1234") == "63C2"
    assert wire.verify("98", "9876") == "9000"


@pytest.mark.parametrize("command", ["00240080", "0024009804"])
def test_a_pin_changes_only_by_the_command_of_real_cards(wire: Wire, command: str) -> None:
    assert wire.send(command) == "6A86"


MESSAGE = b"a challenge of a relying party"
HASH = sha256(MESSAGE).digest()
PKCS1, PSS = padding.PKCS1v15(), padding.PSS(padding.MGF1(SHA256()), 32)


@pytest.mark.parametrize(
    ("p1", "given", "scheme", "algorithm", "signed"),
    [
        ("00", DIGEST_INFO + HASH, PKCS1, SHA256(), MESSAGE),
        ("00", b"x" * 245, PKCS1, utils.NoDigestInfo(), b"x" * 245),
        ("01", MESSAGE, PKCS1, utils.NoDigestInfo(), HASH),
        ("02", HASH, PKCS1, SHA256(), MESSAGE),
        ("03", MESSAGE, PKCS1, SHA256(), MESSAGE),
        ("04", HASH, PSS, SHA256(), MESSAGE),
        ("05", MESSAGE, PSS, SHA256(), MESSAGE),
    ],
)
@pytest.mark.parametrize("kind", ["authentication", "signature"])
def test_signs(wire: Wire, kind: str, p1: str, given: bytes, scheme, algorithm, signed: bytes) -> None:
    pin, p2 = {"authentication": ("1234", "98"), "signature": ("ABC123", "9B")}[kind]
    key = {"authentication": "0017", "signature": "001A"}[kind]
    certificate = getattr(credential(), f"{kind}_certificate")
    wire.verify(p2, pin)
    wire.send(f"00A4020C02{key}")

    assert wire.sign(p1, "80", given) == "9000"

    public_key = x509.load_der_x509_certificate(certificate).public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    public_key.verify(wire.data, signed, scheme, algorithm)


def test_signs_without_le_as_t0_sends_it(wire: Wire) -> None:
    wire.verify("98", "1234")
    assert (wire.send("802A009733" + (DIGEST_INFO + HASH).hex()), len(wire.data)) == ("9000", 256)


def test_one_pin_does_not_open_the_other_key(wire: Wire) -> None:
    wire.verify("98", "1234")
    assert wire.sign("00", "9A", DIGEST_INFO + HASH) == "6982"
    assert wire.sign("00", "97", DIGEST_INFO + HASH) == "9000"


@pytest.mark.parametrize(
    ("p1", "p2", "data", "answer"),
    [
        ("06", "97", HASH, "6A86"),
        ("02", "97", b"short", "6985"),
        ("00", "97", b"x" * 246, "6700"),
        ("00", "98", HASH, "6985"),
        ("00", "80", HASH, "6986"),
        ("00", "17", HASH, "6A86"),
    ],
)
def test_does_not_sign(wire: Wire, p1: str, p2: str, data: bytes, answer: str) -> None:
    wire.verify("98", "1234")
    wire.send(SELECT_APPLICATION)
    wire.verify("98", "1234")
    assert wire.sign(p1, p2, data) == answer


def test_gives_random_octets(wire: Wire) -> None:
    assert (wire.send("0084000008"), len(wire.data)) == ("9000", 8)


def test_an_applet_without_content_has_no_files_and_no_pins() -> None:
    applet = jpki.JpkiApplet(jpki.JpkiMemory(), JpkiPersonality(), bytes)
    for command, sw in {"00A4020C02000A": 0x6A82, "00200098": 0x6A88, "802A009701FF": 0x6985}.items():
        with pytest.raises(Refused) as refused:
            applet.process(jpki.CommandApdu.parse(bytes.fromhex(command)))
        assert refused.value.sw == sw


def groupings() -> dict[int, bytes]:
    made = credential()
    return my_number.groupings(
        made,
        authentication_ca=made.authentication_ca,
        signature_ca=made.signature_ca,
        authentication_pin="1234",
        signature_pin="ABC123",
    )


def test_personalisation_takes_what_fits() -> None:
    memory = jpki.personalize(groupings())
    assert (memory.pins[0x18].tries, memory.pins[0x1B].tries) == (3, 5)


@pytest.mark.parametrize(
    "change",
    [
        {0x8010: b"12345"},
        {0x8010: b"123A"},
        {0x8011: b"ABC12"},
        {0x8011: b"abc123"},
        {0x8011: b"A" * 17},
        {0x0106: b"short"},
        {0x0101: b"\x30\x03\x02\x01\x01"},
        {0x0101: b"\x30\x82\x00\x04abcd"},
        {0x8401: b"unknown"},
        key_dgis(0x8200, new_key()),
        {0x8201: bytes(128)},
        {0x8202: bytes(128)},
        {0x8303: bytes(128)},
        {0x8305: bytes(127) + b"\x01"},
    ],
    ids=repr,
)
def test_personalisation_refuses_what_does_not_fit(change: dict[int, bytes]) -> None:
    with pytest.raises(Refused) as refused:
        jpki.personalize(groupings() | change)
    assert refused.value.sw == 0x6A80


@pytest.mark.parametrize("missing", sorted(jpki.ALL_DGIS))
def test_personalisation_needs_everything(missing: int) -> None:
    incomplete = groupings()
    del incomplete[missing]
    with pytest.raises(Refused):
        jpki.personalize(incomplete)


def test_a_factory_is_told_when_key_and_certificate_do_not_fit() -> None:
    with pytest.raises(TsmError) as error:
        make_card(of=replace(credential(), signature_key=new_key()))
    assert error.value.code == ErrorCode.INVALID_INPUT


def test_nothing_secret_shows_in_a_repr() -> None:
    memory = jpki.personalize(groupings())
    shown = f"{memory!r} {memory.pins[0x18]!r} {memory.keys[0x17]!r} {[memory]}"
    assert "1234" not in shown and "ABC123" not in shown
