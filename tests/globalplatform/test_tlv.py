"""BER-TLV: one encoding for each value, and no other is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.tlv import Tlv, ber_lv, encode_length, find, lv, octets, parse_tlvs, tlv

short_tags = st.integers(0x01, 0xFF).filter(lambda tag: tag & 0x1F != 0x1F)
long_tags = st.builds(lambda first, second: (first | 0x1F) << 8 | second, st.integers(0, 0xFF), st.integers(0, 0x7F))
data_objects = st.builds(Tlv, short_tags | long_tags, st.binary(max_size=300))

VECTORS = [
    (Tlv(0x4F, b""), "4f00"),
    (Tlv(0x9F70, b"\x07"), "9f700107"),
    (Tlv(0xC4, bytes(0x7F)), "c47f" + "00" * 0x7F),
    (Tlv(0xC4, bytes(0x80)), "c48180" + "00" * 0x80),
    (Tlv(0xC4, bytes(0xFF)), "c481ff" + "00" * 0xFF),
    (Tlv(0xC4, bytes(0x100)), "c4820100" + "00" * 0x100),
    (Tlv(0xC4, bytes(0xFFFF)), "c482ffff" + "00" * 0xFFFF),
]


@pytest.mark.parametrize(("data_object", "wire"), VECTORS)
def test_a_data_object_is_written_and_read_in_its_shortest_form(data_object: Tlv, wire: str) -> None:
    assert data_object.encode().hex() == wire
    assert parse_tlvs(bytes.fromhex(wire)) == [data_object]


@given(st.lists(data_objects, max_size=5))
def test_data_objects_that_are_written_read_as_the_same(written: list[Tlv]) -> None:
    assert parse_tlvs(b"".join(each.encode() for each in written)) == written


@given(st.binary(max_size=200))
def test_what_reads_is_written_as_the_same(wire: bytes) -> None:
    try:
        read = parse_tlvs(wire)
    except TsmError as refusal:
        assert refusal.code is ErrorCode.INVALID_INPUT
    else:
        assert b"".join(each.encode() for each in read) == wire


@pytest.mark.parametrize(
    "wire",
    [
        "4f",  # no length
        "4f02aa",  # too little
        "4f01aabb",  # too much
        "9f",  # half a tag
        "9f8170" + "00",  # a tag of three octets
        "0000",  # no tag
        "4f8101aa",  # lengths not in their shortest form
        "4f820001aa",
        "4f82007faa",
        "4f80" + "0000",  # an indefinite length
        "4f8300000100",  # a length of four octets
        "4f81",
        "4f8201",
    ],
)
def test_nothing_else_is_read(wire: str) -> None:
    refuses(lambda: parse_tlvs(bytes.fromhex(wire)))


@pytest.mark.parametrize("tag", [0, -1, 0x1F, 0xFF, 0x4F00, 0x9F80, 0x1000, 0x10000, 0x7F2181])
def test_what_is_no_tag_is_not_written(tag: int) -> None:
    refuses(lambda: tlv(tag, b""))


@pytest.mark.parametrize(
    ("length", "encoded"),
    [(0, "00"), (0x7F, "7f"), (0x80, "8180"), (0xFF, "81ff"), (0x100, "820100"), (0xFFFF, "82ffff")],
)
def test_a_length_takes_one_to_three_octets(length: int, encoded: str) -> None:
    assert encode_length(length).hex() == encoded
    assert ber_lv(bytes(length)) == bytes.fromhex(encoded) + bytes(length)


def test_what_is_too_long_is_refused() -> None:
    refuses(lambda: encode_length(0x10000))
    refuses(lambda: lv(bytes(256)))


@pytest.mark.parametrize("values", [(256,), (-1,), (0, 1, 300)])
def test_a_number_beyond_one_octet_is_refused(values: tuple[int, ...]) -> None:
    refuses(lambda: octets(*values))


def test_the_first_of_equal_tags_is_found() -> None:
    read = parse_tlvs(bytes.fromhex("4f0101 4f0102 840103"))
    assert find(read, 0x4F) == b"\x01"
    assert find(read, 0x84) == b"\x03"
    assert find(read, 0x66) is None


def refuses(call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is ErrorCode.INVALID_INPUT
