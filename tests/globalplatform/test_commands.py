"""Each command as its table says, both ways, in outside vectors and by the tables of GPCS v2.3.1 chapter 11."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import vector
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import (
    Command,
    Delete,
    EncryptedKey,
    ExternalAuthenticate,
    GetData,
    GetStatus,
    InitializeUpdate,
    InstallForInstall,
    InstallForLoad,
    InstallForMakeSelectable,
    InstallForPersonalization,
    Load,
    PutKey,
    Select,
    SetStatus,
    StoreData,
    parse_command,
)

SSD_PACKAGE = bytes.fromhex("A0000001515350")
SSD_MODULE = bytes.fromhex("A000000151535041")
DOMAIN = bytes.fromhex("D392F0002601FE01")

BY_THE_TABLES: list[tuple[Command, str]] = [
    (Select(b""), "00a4040000"),
    (Select(DOMAIN, next=True), "00a40402 08d392f0002601fe01 00"),
    (InitializeUpdate(bytes(8), 0x30), "80503000 08 0000000000000000 00"),
    (ExternalAuthenticate(bytes(8), 0x33), "84823300 08 0000000000000000"),
    (InstallForLoad(SSD_PACKAGE), "80e60200 0c 07a0000001515350 00 00 00 00 00"),
    (
        InstallForLoad(SSD_PACKAGE, DOMAIN, b"\xaa" * 20, b"\xef\x00", b"\xbb" * 128),
        "80e60200 ab 07a0000001515350 08d392f0002601fe01 14" + "aa" * 20 + "02ef00 8180" + "bb" * 128 + "00",
    ),
    (
        InstallForInstall(SSD_PACKAGE, SSD_MODULE, DOMAIN, b"\x80\xc0\x00"),
        "80e60c00 22 07a0000001515350 08a000000151535041 08d392f0002601fe01 0380c000 02c900 00 00",
    ),
    (
        InstallForInstall(SSD_PACKAGE, SSD_MODULE, DOMAIN, b"\x80", make_selectable=False),
        "80e60400 20 07a0000001515350 08a000000151535041 08d392f0002601fe01 0180 02c900 00 00",
    ),
    (InstallForMakeSelectable(DOMAIN), "80e60800 0f 00 00 08d392f0002601fe01 0100 00 00 00"),
    (InstallForPersonalization(DOMAIN), "80e62000 0e 00 00 08d392f0002601fe01 00 00 00 00"),
    (Load(0, b"\xc4\x01", last=False), "80e80000 02 c401 00"),
    (Load(255, b"\xff", last=True), "80e880ff 01 ff 00"),
    (StoreData(0, b"\x01", last=False, encrypted=True), "80e26800 01 01"),
    (StoreData(7, b"\x01", last=True, encrypted=True), "80e2e807 01 01"),
    (StoreData(0, b"\x01", last=True), "80e28800 01 01"),
    (StoreData(0, b"\x01", last=True, dgi=False), "80e28000 01 01"),
    (GetStatus(0x40), "80f24002 02 4f00 00"),
    (GetStatus(0x40, next=True), "80f24003 02 4f00 00"),
    (GetStatus(0x20, b"\xa0\x00", tag_list=b"\x9f\x70\xc5"), "80f22002 09 4f02a000 5c039f70c5 00"),
    (Delete(DOMAIN), "80e40000 0a 4f08d392f0002601fe01 00"),
    (Delete(DOMAIN, related=True), "80e40080 0a 4f08d392f0002601fe01 00"),
    (SetStatus(0x40, 0x80, DOMAIN), "80f04080 08 d392f0002601fe01"),
    (SetStatus(0x40, 0x00, DOMAIN), "80f04000 08 d392f0002601fe01"),
    (SetStatus(0x60, 0x80, DOMAIN), "80f06080 08 d392f0002601fe01"),
    (SetStatus(0x80, 0x7F), "80f0807f"),
    (GetData(0x66), "80ca0066 00"),
    (GetData(0x9F7F), "80ca9f7f 00"),
]


@pytest.mark.parametrize(("command", "wire"), BY_THE_TABLES)
def test_a_command_is_written_and_read_as_its_table_says(command: Command, wire: str) -> None:
    assert command.apdu().encode().hex() == wire.replace(" ", "")
    assert parse_command(CommandApdu.parse(bytes.fromhex(wire))) == command


# DELETE and SET STATUS, as others write them


def test_delete_is_what_another_project_sends_with_an_octet_for_the_answer() -> None:
    plain = bytes.fromhex(vector("kaoh_scp03_delete_application")["plain_commands"][0])
    command = parse_command(CommandApdu.parse(plain))
    assert command == Delete(bytes.fromhex("a00100015141434c"), related=True)
    assert command.apdu().encode() == plain + b"\x00"


@pytest.mark.parametrize(
    ("wire", "command"),
    [  # jcexpress, GPSessionCommandTest
        ("80F0408008A000000062030101", SetStatus(0x40, 0x80, bytes.fromhex("A000000062030101"))),
        ("80F0400008A000000062030101", SetStatus(0x40, 0x00, bytes.fromhex("A000000062030101"))),
        ("80F0608008A000000151000000", SetStatus(0x60, 0x80, bytes.fromhex("A000000151000000"))),
        ("80F080FF", SetStatus(0x80, 0xFF)),
    ],
)
def test_set_status_is_what_another_project_sends(wire: str, command: SetStatus) -> None:
    assert command.apdu().encode() == bytes.fromhex(wire)
    assert parse_command(CommandApdu.parse(bytes.fromhex(wire))) == command
    assert command.locks == (wire[6:8] in ("80", "FF"))


# PUT KEY, against vectors


@pytest.mark.parametrize(
    ("name", "key_length"),
    [("put_key_aes128_3keys_kvn30_keylen_prefixed", 16), ("put_key_aes128_3keys_kvn30_basic", None)],
)
def test_put_key_has_two_encodings_and_both_are_read(name: str, key_length: int | None) -> None:
    v = vector(name)
    data = bytes.fromhex(v["data_field"])
    apdu = CommandApdu(0x80, 0xD8, 0x00, v["p2"], data, 256)
    put_key = parse_command(apdu)

    assert isinstance(put_key, PutKey)
    assert (put_key.key_version, put_key.new_key_version, put_key.key_identifier) == (0, 0x30, 1)
    assert [key.key_length for key in put_key.keys] == [key_length] * 3
    assert [key.encrypted.hex()[:8] for key in put_key.keys] == ["d533e59b", "3ef0b1a5", "adde68f7"]
    assert [key.check_value.hex() for key in put_key.keys] == ["504a77", "f2a8df", "d7d0e4"]
    assert put_key.apdu() == apdu


def test_the_form_of_amendment_d_is_written_unless_another_is_asked_for() -> None:
    key = EncryptedKey(bytes(16), b"\x01\x02\x03")
    assert key.encode().hex() == "8811" + "10" + "00" * 16 + "03010203"
    assert EncryptedKey(bytes(16), b"\x01\x02\x03", key_length=None).encode().hex() == "8810" + "00" * 16 + "03010203"


def test_put_key_answers_version_and_check_values() -> None:
    keys = tuple(EncryptedKey(bytes(16), bytes([number] * 3)) for number in (1, 2, 3))
    assert PutKey(0x01, 0x02, keys).answer().hex() == "02" + "010101" + "020202" + "030303"


# The way back


aids = st.binary(max_size=16)
whole_aids = st.binary(min_size=5, max_size=16)
blocks = st.binary(min_size=1, max_size=255)
octet = st.integers(0, 255)
keys = st.builds(
    EncryptedKey,
    st.integers(1, 3).flatmap(lambda count: st.binary(min_size=16 * count, max_size=16 * count)),
    st.binary(max_size=3),
    octet,
    st.none() | octet,
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Select, aids, st.booleans()),
    st.builds(InitializeUpdate, st.binary(min_size=8, max_size=8), octet, octet),
    st.builds(InstallForLoad, aids, aids, st.binary(max_size=64), st.binary(max_size=40), st.binary(max_size=100)),
    st.builds(
        InstallForInstall,
        aids,
        aids,
        aids,
        st.sampled_from([b"\x00", b"\x80\xc0\x00"]),
        st.binary(max_size=40),
        st.binary(max_size=100),
        st.booleans(),
    ),
    st.builds(InstallForMakeSelectable, aids, st.sampled_from([b"\x00", bytes(3)]), st.binary(max_size=200)),
    st.builds(InstallForPersonalization, aids),
    st.builds(Load, octet, blocks, st.booleans()),
    st.builds(
        PutKey, st.integers(0, 0x7F), octet, st.lists(keys, min_size=1, max_size=3).map(tuple), st.integers(0, 0x7F)
    ),
    st.builds(StoreData, octet, blocks, st.booleans(), st.booleans(), st.booleans()),
    st.builds(GetStatus, st.sampled_from([0x80, 0x40, 0x20, 0x10]), aids, st.booleans(), st.binary(max_size=20)),
    st.builds(GetData, st.integers(0, 0xFFFF)),
    st.builds(Delete, whole_aids, st.booleans()),
    st.builds(SetStatus, st.sampled_from([0x40, 0x60, 0x80]), octet, whole_aids),
)


@given(commands)
def test_a_command_that_is_written_reads_as_the_same(command: Command) -> None:
    assert parse_command(CommandApdu.parse(command.apdu().encode())) == command


INSTRUCTIONS = st.sampled_from([0xA4, 0x50, 0x82, 0xE6, 0xE8, 0xD8, 0xE2, 0xE4, 0xF0, 0xF2, 0xCA])


@given(
    cla=st.sampled_from([0x00, 0x80, 0x84]) | octet,
    ins=INSTRUCTIONS | octet,
    p1=st.sampled_from([0x00, 0x02, 0x04, 0x08, 0x0C, 0x20, 0x80]) | octet,
    p2=st.sampled_from([0x00, 0x02, 0x81]) | octet,
    data=st.binary(max_size=60),
)
def test_any_command_is_read_or_refused(cla: int, ins: int, p1: int, p2: int, data: bytes) -> None:
    apdu = CommandApdu(cla, ins, p1, p2, data)
    try:
        command = parse_command(apdu)
    except TsmError as refusal:
        assert refusal.code is ErrorCode.INVALID_INPUT
    else:
        assert command.apdu().data == data[: len(command.apdu().data)]


# What is not as its table says

KEY_FIELD = "8810" + "00" * 16 + "03010203"
WRONG = [
    ("another class", "00e60200", "07a0000001515350 00 00 00 00"),
    ("secured", "84f24002", "4f00"),
    ("an ISO command with the same instruction", "00ca0066", ""),
    ("an unknown instruction", "80110000", ""),
    ("INSTALL for several things at once", "80e60e00", "07a0000001515350 00 00 00 00"),
    ("INSTALL with a field missing", "80e60200", "07a0000001515350 00 00 00"),
    ("INSTALL with something after the last field", "80e60200", "07a0000001515350 00 00 00 00 00"),
    ("INSTALL whose field ends too early", "80e60200", "05a000"),
    ("INSTALL with another P2", "80e60201", "07a0000001515350 00 00 00 00"),
    ("INSTALL with privileges of two octets", "80e60c00", "00 00 00 028000 00 00"),
    ("INSTALL [for personalization] with a module", "80e62000", "00 01aa 00 00 00 00"),
    ("INSTALL [for make selectable] with a load file", "80e60800", "01aa 00 00 0100 00 00"),
    ("LOAD without a block", "80e80000", ""),
    ("LOAD with another P1", "80e80100", "aa"),
    ("PUT KEY without keys", "80d80081", "30"),
    ("PUT KEY cut off", "80d80081", "30 8810 00"),
    ("PUT KEY of one key that says several", "80d80081", "30" + KEY_FIELD),
    ("PUT KEY of several that says one", "80d80001", "30" + KEY_FIELD * 2),
    ("PUT KEY to be continued", "80d88101", "30" + KEY_FIELD),
    ("STORE DATA without a block", "80e28800", ""),
    ("STORE DATA with application-dependent encryption", "80e2a800", "aa"),
    ("STORE DATA in BER-TLV", "80e29000", "aa"),
    ("GET STATUS without criteria", "80f24002", ""),
    ("GET STATUS in its old form", "80f24000", "4f00"),
    ("GET STATUS with other criteria", "80f24002", "840101"),
    ("GET STATUS of another scope", "80f24102", "4f00"),
    ("DELETE of a key", "80e40000", "d00101 d20101"),
    ("DELETE of two things", "80e40000", "4f05a000000001 4f05a000000002"),
    ("DELETE with a token", "80e40000", "4f05a000000001 9e01aa"),
    ("DELETE of nothing", "80e40000", ""),
    ("DELETE of less than an AID", "80e40000", "4f04a0000000"),
    ("DELETE to be continued", "80e48000", "4f05a000000001"),
    ("DELETE with another P2", "80e40001", "4f05a000000001"),
    ("SET STATUS of another scope", "80f02080", "a000000001"),
    ("SET STATUS of nothing", "80f04080", ""),
    ("SET STATUS of less than an AID", "80f04080", "a0000000"),
    ("GET DATA with data", "80ca0066", "aa"),
    ("INITIALIZE UPDATE with another challenge", "80500000", "00" * 7),
    ("EXTERNAL AUTHENTICATE without a cryptogram", "84823300", ""),
    ("SELECT by file", "00a4000c", "3f00"),
    ("SELECT with 17 octets", "00a40400", "00" * 17),
]


@pytest.mark.parametrize(("what", "header", "data"), WRONG)
def test_what_is_not_as_its_table_says_is_refused(what: str, header: str, data: str) -> None:
    with pytest.raises(TsmError) as refusal:
        parse_command(CommandApdu(*bytes.fromhex(header), bytes.fromhex(data)))
    assert refusal.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    "command",
    [
        Load(256, b"\x00", last=False),
        StoreData(-1, b"\x00"),
        GetData(0x10000),
        GetStatus(0x140),
        InitializeUpdate(bytes(8), 300),
        InstallForPersonalization(bytes(256)),
        PutKey(0, 300, (EncryptedKey(bytes(16), b""),)),
        PutKey(0, 1, (EncryptedKey(bytes(16), b"", 300),)),
        PutKey(0, 1, (EncryptedKey(bytes(256), b""),)),
    ],
)
def test_what_does_not_fit_is_not_written(command: Command) -> None:
    with pytest.raises(TsmError) as refusal:
        command.apdu()
    assert refusal.value.code is ErrorCode.INVALID_INPUT


def test_keys_and_personalisation_data_do_not_show() -> None:
    assert "secret" not in repr(PutKey(0, 1, (EncryptedKey(b"secret", b""),)))
    assert "secret" not in repr(StoreData(0, b"secret"))
