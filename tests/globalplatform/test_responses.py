"""What cards answer: real answers, and the way back of our own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import vector, vectors
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.responses import (
    CardRecognitionData,
    InitializeUpdateResponse,
    KeyComponent,
    KeyInformation,
    StatusEntry,
)

octet = st.integers(0, 255)


@pytest.mark.parametrize("name", vectors("scp03-session"))
def test_initialize_update_is_answered_as_by_real_cards(name: str) -> None:
    v = vector(name)
    data = bytes.fromhex(v["init_update_response"])[:32]
    answer = InitializeUpdateResponse.parse(data)

    assert (answer.key_version, answer.scp, answer.i) == (data[10], 3, 0x70)
    assert answer.key_diversification == data[:10]
    assert answer.card_cryptogram.hex() == v.get("card_cryptogram", answer.card_cryptogram.hex())
    assert answer.sequence_counter == data[-3:]
    assert answer.encode() == data


def test_a_random_challenge_comes_without_a_sequence_counter() -> None:
    data = bytes(10) + b"\x30\x03\x60" + bytes(16)
    assert InitializeUpdateResponse.parse(data).sequence_counter == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(28),
        bytes(10) + b"\x30\x02" + bytes(16),  # SCP02
        bytes(10) + b"\x30\x02\x15" + bytes(16),
        bytes(10) + b"\x30\x03\x70" + bytes(16),  # a pseudo-random challenge without its counter
        bytes(10) + b"\x30\x03\x60" + bytes(19),
        bytes(10) + b"\x30\x03\x71" + bytes(35),  # S16
    ],
)
def test_an_answer_that_is_not_of_scp03_in_s8_is_refused(data: bytes) -> None:
    refuses(lambda: InitializeUpdateResponse.parse(data))


@pytest.mark.parametrize("name", ["key_information_template_5", "key_information_template_4"])
def test_key_information_of_real_cards_is_read(name: str) -> None:
    v = vector(name)
    information = KeyInformation.parse(bytes.fromhex(v["response"]))

    assert len(information.keys) == v["number_of_keys"]
    assert [(key.identifier, key.version) for key in information.keys[:3]] == [(1, 1), (2, 1), (3, 1)]
    assert information.keys[0].kind in (0x80, 0x88)


def test_the_extended_form_tells_kind_and_length_too() -> None:
    v = vector("key_information_template_4")
    assert KeyInformation.parse(bytes.fromhex(v["response"])).keys[3] == KeyComponent(0x01, 0x73, 0xA1, 0x80)


keys_told = st.builds(
    KeyComponent,
    octet,
    octet,
    octet.filter(lambda kind: kind != 0xFF),
    octet,
    st.lists(st.tuples(octet, octet), max_size=2).map(tuple),
)


@given(st.lists(keys_told, max_size=60))
def test_key_information_that_is_written_reads_as_the_same(keys: list[KeyComponent]) -> None:
    information = KeyInformation(tuple(keys))
    assert KeyInformation.parse(information.encode()) == information


def test_key_information_is_written_as_real_cards_write_it() -> None:
    expected = vector("key_information_template_5")["response"]
    information = KeyInformation.parse(bytes.fromhex(expected))
    assert information.encode().hex() == expected


@pytest.mark.parametrize(
    ("name", "protocols"),
    [
        ("kaoh_test_parse_card_recognition_vector_1", ((3, 0x70),)),
        ("kaoh_test_parse_card_recognition_vector_multibyte_scp_impl", ((3, 0x60), (0x11, 3462))),
    ],
)
def test_card_recognition_data_of_real_cards_is_read(name: str, protocols: tuple[tuple[int, int], ...]) -> None:
    recognition = CardRecognitionData.parse(bytes.fromhex(vector(name)["response"]))
    assert recognition.secure_channels == protocols


def test_card_recognition_data_is_written_as_a_real_card_writes_it() -> None:
    expected = vector("kaoh_test_parse_card_recognition_vector_multibyte_scp_impl")["response"]
    written = CardRecognitionData(((3, 0x60), (0x11, 3462)), version=(2, 3, 1))
    assert written.encode().hex() == expected


@given(
    st.lists(st.tuples(st.integers(1, 0x7F), st.integers(0, 1 << 20)), max_size=4),
    st.lists(st.integers(0, 0x7F), min_size=1, max_size=3),
)
def test_card_recognition_data_that_is_written_reads_as_the_same(
    protocols: list[tuple[int, int]], version: list[int]
) -> None:
    recognition = CardRecognitionData(tuple(protocols), tuple(version))
    assert CardRecognitionData.parse(recognition.encode()) == recognition


def test_status_of_a_real_card_is_read() -> None:
    v = vector("get_status_tlv_isd_and_apps")
    cut_off = bytes.fromhex("e3304f09a00000015141434c009f700107")  # an entry that the next answer goes on with
    answer = bytes.fromhex(v["response"]).removesuffix(bytes.fromhex(v["status_word"])).removesuffix(cut_off)
    first, *others = StatusEntry.parse_list(answer)

    assert first.aid.hex() == v["first_aid"]
    assert f"{first.life_cycle:02x}" == v["first_lifecycle"]
    assert first.privileges.hex() == v["first_privileges"]
    assert first.load_file.hex() == v["first_load_file"]
    assert first.associated_domain.hex() == v["first_associated_sd"]
    assert [entry.life_cycle for entry in others] == [7, 7, 7]


entries = st.builds(
    StatusEntry,
    st.binary(min_size=5, max_size=16),
    octet,
    st.binary(min_size=3, max_size=3) | st.just(b""),
    st.binary(max_size=16),
    st.binary(max_size=16),
    st.lists(st.binary(min_size=1, max_size=16), max_size=3).map(tuple),
)


@given(st.lists(entries, max_size=4))
def test_status_that_is_written_reads_as_the_same(written: list[StatusEntry]) -> None:
    assert StatusEntry.parse_list(b"".join(entry.encode() for entry in written)) == written


WRONG = [
    (KeyInformation.parse, "6600"),
    (KeyInformation.parse, "e003c00101"),
    (KeyInformation.parse, "e006c0040101ff88"),
    (KeyInformation.parse, "e007c005010188100a"),
    (CardRecognitionData.parse, ""),
    (CardRecognitionData.parse, "6602 7300"),
    (CardRecognitionData.parse, "660b 7309 0607 2a864886fc6b02"),  # another object identifier
    (CardRecognitionData.parse, "6615 7313 0607 2a864886fc6b01 6408 0606 2a864886fc6b"),
    (StatusEntry.parse_list, "e303 4f01aa"),  # no life cycle
    (StatusEntry.parse_list, "e304 9f700107"),  # no AID
    (StatusEntry.parse_list, "e306 4f01aa 9f7000"),
    (StatusEntry.parse_list, "e302 4f01"),
]


@pytest.mark.parametrize(("parse", "wire"), WRONG)
def test_what_is_incomplete_is_refused(parse: object, wire: str) -> None:
    assert callable(parse)
    refuses(lambda: parse(bytes.fromhex(wire)))


@pytest.mark.parametrize(
    "written",
    [
        KeyInformation((KeyComponent(1, 1, 0x88, 256),)),
        CardRecognitionData(((300, 0x70),)),
        CardRecognitionData(((3, -1),)),
        CardRecognitionData(((3, 0x70),), (2, 3, 999)),
        StatusEntry(bytes(5), 256),
        InitializeUpdateResponse(bytes(10), 256, 3, 0x70, bytes(8), bytes(8), bytes(3)),
    ],
)
def test_what_does_not_fit_is_not_written(
    written: KeyInformation | CardRecognitionData | StatusEntry | InitializeUpdateResponse,
) -> None:
    refuses(written.encode)


@given(st.binary(max_size=120), st.sampled_from([b"", b"\xe0", b"\x66", b"\xe3"]))
def test_any_octets_are_read_or_refused(data: bytes, tag: bytes) -> None:
    wire = tag + bytes([len(data)]) + data if tag else data
    kinds = (InitializeUpdateResponse, KeyInformation, CardRecognitionData)
    for parse in (*(kind.parse for kind in kinds), StatusEntry.parse_list):
        try:
            parse(wire)
        except TsmError as refusal:
            assert refusal.code is ErrorCode.INVALID_INPUT


def refuses(call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is ErrorCode.INVALID_INPUT
