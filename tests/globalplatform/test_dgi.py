"""Data groupings: a vector for a domain's first keys, the way back, and blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import vector
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.commands import EncryptedKey, StoreData
from tsm.globalplatform.dgi import Dgi, key_dgis, parse_dgis, parse_key_dgis, store_data_blocks

KEYS_VECTOR = "kaoh_test_build_store_data_keys_scp03_aes128"
KEYS = tuple(EncryptedKey(bytes([number]) * 16, bytes([number]) * 3) for number in (1, 2, 3))

groupings = st.builds(Dgi, st.integers(0, 0xFFFF), st.binary(max_size=300))


def test_a_length_takes_one_octet_or_three() -> None:
    assert Dgi(0x0101, b"\xaa").encode().hex() == "0101" + "01" + "aa"
    assert Dgi(0x8201, bytes(254)).encode()[:3].hex() == "8201" + "fe"
    assert Dgi(0x8201, bytes(255)).encode()[:5].hex() == "8201" + "ff00ff"
    assert len(Dgi(0x0101, bytes(0xFFFF)).encode()) == 5 + 0xFFFF


@given(st.lists(groupings, max_size=5))
def test_groupings_that_are_written_read_as_the_same(written: list[Dgi]) -> None:
    assert parse_dgis(b"".join(each.encode() for each in written)) == written


@given(st.binary(max_size=100))
def test_what_reads_is_written_as_the_same(data: bytes) -> None:
    try:
        read = parse_dgis(data)
    except TsmError as refusal:
        assert refusal.code is ErrorCode.INVALID_INPUT
    else:
        assert b"".join(each.encode() for each in read) == data


@pytest.mark.parametrize("data", ["01", "0101", "010102aa", "0101ff", "0101ff00", "0101ff000aaa", "0101ff0001aa"])
def test_a_length_that_does_not_fit_is_refused(data: str) -> None:
    refuses(lambda: parse_dgis(bytes.fromhex(data)))


@pytest.mark.parametrize("grouping", [Dgi(0x10000, b""), Dgi(-1, b""), Dgi(0x0101, bytes(0x10000))])
def test_what_does_not_fit_is_not_written(grouping: Dgi) -> None:
    refuses(grouping.encode)


# Keys


def test_key_groupings_are_those_of_the_vector() -> None:
    v = vector(KEYS_VECTOR)
    read = parse_key_dgis(bytes.fromhex(v["dgi"]))

    assert read.key_version == 1
    assert list(read.check_values) == v["kcv"]
    assert [key.encrypted.hex()[:8] for key in read.keys] == ["d533e59b", "3ef0b1a5", "adde68f7"]
    assert key_dgis(read.key_version, read.keys).hex() == v["dgi"]


@given(
    version=st.integers(0, 255),
    keys=st.lists(
        st.builds(EncryptedKey, st.binary(min_size=16, max_size=16), st.binary(min_size=3, max_size=3)),
        min_size=1,
        max_size=5,
    ).map(tuple),
)
def test_key_groupings_that_are_written_read_as_the_same(version: int, keys: tuple[EncryptedKey, ...]) -> None:
    assert parse_key_dgis(key_dgis(version, keys)) == (version, keys)


def test_keys_for_something_else_than_a_secure_channel_are_refused() -> None:
    """The vector's keys verify load files: a domain that took them for its own would open to whoever knows those."""
    dgi = vector("kaoh_test_build_store_data_keys_dap_purpose")["dgi"]
    refuses(lambda: parse_key_dgis(bytes.fromhex(dgi)))


WHOLE = key_dgis(1, KEYS)
ATTRIBUTES, FIRST, SECOND, THIRD = (each.encode() for each in parse_dgis(WHOLE))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ATTRIBUTES,
        ATTRIBUTES + FIRST + SECOND,
        WHOLE + THIRD,
        FIRST + SECOND + THIRD,
        FIRST + ATTRIBUTES + SECOND + THIRD,
        ATTRIBUTES + WHOLE,
        WHOLE + Dgi(0x0101, b"\x00").encode(),
        WHOLE.replace(b"\x83\x01\x01", b"\x85\x01\x01"),  # no key version
        WHOLE.replace(b"\x80\x01\x88", b"\x85\x01\x88"),  # no key type
        WHOLE.replace(b"\x82\x01\x02", b"\x82\x01\x01"),  # the same identifier twice
        WHOLE.replace(b"\x84\x03\x02", b"\x85\x03\x02"),  # no check value
        WHOLE.replace(b"\xb7\x10", b"\xb8\x10"),
        WHOLE.replace(b"\xb7\x10", b"\xb7\x11"),
    ],
)
def test_groupings_that_do_not_fit_together_are_refused(data: bytes) -> None:
    refuses(lambda: parse_key_dgis(data))


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4))
def test_damaged_key_groupings_are_read_or_refused(at: int, instead: bytes) -> None:
    try:
        parse_key_dgis(WHOLE[:at] + instead + WHOLE[at + 1 :])
    except TsmError as refusal:
        assert refusal.code is ErrorCode.INVALID_INPUT


# Blocks


@given(st.binary(min_size=1, max_size=600), st.integers(3, 300), st.booleans())
def test_blocks_are_numbered_and_the_last_says_so(data: bytes, size: int, encrypted: bool) -> None:
    blocks = store_data_blocks(data, size, encrypted)

    assert b"".join(block.block for block in blocks) == data
    assert all(len(block.block) == size for block in blocks[:-1])
    assert [block.block_number for block in blocks] == list(range(len(blocks)))
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert {(block.encrypted, block.dgi) for block in blocks} == {(encrypted, True)}


def test_one_block_is_the_first_and_the_last() -> None:
    assert store_data_blocks(b"data", 239, encrypted=False) == [StoreData(0, b"data", last=True)]


@pytest.mark.parametrize(("data", "size"), [(b"", 239), (bytes(257), 1), (b"data", 0), (b"data", -1)])
def test_what_cannot_be_numbered_is_refused(data: bytes, size: int) -> None:
    refuses(lambda: store_data_blocks(data, size, encrypted=False))


def refuses(call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is ErrorCode.INVALID_INPUT
