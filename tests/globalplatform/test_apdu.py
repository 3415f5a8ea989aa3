"""APDUs: the cases of ISO/IEC 7816-3, what readers make of them, and that their data do not show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord

octet = st.integers(0, 255)
commands = st.builds(
    CommandApdu,
    octet,
    octet,
    octet,
    octet,
    st.binary(max_size=300),
    st.none() | st.integers(1, 256) | st.integers(1, 0x10000),
)

CASES = [
    ("1", CommandApdu(0x00, 0x20, 0x00, 0x80), "00200080"),
    ("2 short", CommandApdu(0x80, 0xCA, 0x00, 0x66, le=256), "80ca006600"),
    ("2 short", CommandApdu(0x00, 0xB0, 0x03, 0x00, le=0x81), "00b0030081"),
    ("2 extended", CommandApdu(0x00, 0xB0, 0x00, 0x00, le=0x10000), "00b00000000000"),
    ("2 extended", CommandApdu(0x00, 0xB0, 0x00, 0x00, le=257), "00b00000000101"),
    ("3 short", CommandApdu(0x00, 0xA4, 0x02, 0x0C, b"\x2f\xe2"), "00a4020c022fe2"),
    ("3 extended", CommandApdu(0x80, 0xE2, 0x80, 0x00, bytes(256)), "80e28000000100" + "00" * 256),
    ("4 short", CommandApdu(0x80, 0xF2, 0x40, 0x02, b"\x4f\x00", 256), "80f24002024f0000"),
    ("4 extended", CommandApdu(0x80, 0x2A, 0x00, 0x80, b"\x01", 257), "802a0080000001010101"),
]


@pytest.mark.parametrize(("case", "command", "wire"), CASES)
def test_a_command_is_written_and_read_as_its_case_says(case: str, command: CommandApdu, wire: str) -> None:
    assert command.encode().hex() == wire
    assert CommandApdu.parse(bytes.fromhex(wire)) == command


@given(commands)
def test_a_command_that_is_written_reads_as_the_same(command: CommandApdu) -> None:
    assert CommandApdu.parse(command.encode()) == command


def test_what_a_t0_reader_makes_of_case_1_has_no_data() -> None:
    """It appends P3 = 00, which must not be taken for an empty PIN."""
    command = CommandApdu.parse(bytes.fromhex("0020008000"))
    assert command.data == b""
    assert command.le == 256


@pytest.mark.parametrize(
    "wire",
    [
        "",
        "00",
        "00a404",
        "00a404000501020304",
        "00a40400010102ff",
        "00a404000000",
        "00a40400000000ff",
    ],
)
def test_a_length_that_does_not_fit_is_refused(wire: str) -> None:
    refuses(lambda: CommandApdu.parse(bytes.fromhex(wire)))


@pytest.mark.parametrize(
    "fields",
    [
        (256, 0, 0, 0),
        (0, -1, 0, 0),
        (0, 0, 0x100, 0),
        (0, 0, 0, -5),
        (0, 0, 0, 0, bytes(0x10000)),
        (0, 0, 0, 0, b"", 0),
        (0, 0, 0, 0, b"", -1),
        (0, 0, 0, 0, b"", 0x10001),
    ],
)
def test_there_is_no_command_that_cannot_be_written(fields: tuple[int, ...]) -> None:
    refuses(lambda: CommandApdu(*fields))


def test_the_header_is_the_first_four_octets() -> None:
    assert CommandApdu(0x80, 0xE6, 0x0C, 0x00, b"data").header.hex() == "80e60c00"


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_a_response_that_is_written_reads_as_the_same(data: bytes, sw: int) -> None:
    response = ResponseApdu.parse(ResponseApdu(data, sw).encode())
    assert response == ResponseApdu(data, sw)
    assert response.ok == (sw == StatusWord.OK)


@pytest.mark.parametrize("wire", [b"", b"\x90"])
def test_a_response_has_a_status_word(wire: bytes) -> None:
    refuses(lambda: ResponseApdu.parse(wire))


@pytest.mark.parametrize("sw", [-1, 0x10000])
def test_a_status_word_has_two_octets(sw: int) -> None:
    refuses(lambda: ResponseApdu(b"", sw))


def test_data_do_not_show() -> None:
    """A command may be VERIFY with a PIN, a response a certificate."""
    assert "8046" not in repr(CommandApdu(0x00, 0x20, 0x00, 0x80, b"8046"))
    assert "8046" not in repr(ResponseApdu(b"8046", 0x9000))


def refuses(call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is ErrorCode.INVALID_INPUT
