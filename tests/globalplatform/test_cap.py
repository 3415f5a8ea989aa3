"""CAP files: two real ones down to the octets that a card receives, damaged ones, and our own."""

import hashlib
import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import vector
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.cap import CapFile, build_cap, load_commands, load_file

PACKAGE, APPLET = bytes.fromhex("D392F0002601FF"), bytes.fromhex("D392F0002601FF01")


def archive(components: dict[str, str], folder: str = "org/toorcamp/stk") -> bytes:
    """A CAP file as Java Card's converter leaves it: among other files, in any order."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        for name, content in reversed(components.items()):
            file.writestr(f"{folder}/javacard/{name}.cap", bytes.fromhex(content))
    return packed.getvalue()


def test_a_cap_file_becomes_the_load_file_of_the_vector() -> None:
    v = vector("cap_to_load_file_toorcamp")
    cap = CapFile.read(archive(v["components"]))
    block = cap.load_file_data_block()

    assert cap.package_aid.hex() == v["load_file_aid"]
    assert [aid.hex() for aid in cap.applet_aids] == [v["applet_aid"]]
    assert block.hex() == v["load_file"]
    assert hashlib.sha1(block).hexdigest() == v["lfdbh_sha1"]  # noqa: S324  as the vector has it
    assert hashlib.sha256(block).hexdigest() == v["lfdbh_sha256"]


def test_load_commands_are_those_of_the_vector() -> None:
    v = vector("load_blocks_helloworld_cap")
    block = CapFile.read(archive(v["components"])).load_file_data_block()

    assert load_file(block).hex() == v["c4_load_file"]
    commands = [command.apdu() for command in load_commands(block, 239)]
    expected = [CommandApdu.parse(bytes.fromhex(wire)) for wire in v["load_commands_plain"]]
    assert [(command.header, command.data) for command in commands] == [(each.header, each.data) for each in expected]
    assert commands[-1] == expected[-1]  # before the last, that tool leaves Le out


def test_without_its_descriptor_a_load_file_is_another() -> None:
    v = vector("cap_to_load_file_toorcamp")
    block = CapFile.read(archive(v["components"])).load_file_data_block(descriptor=False)
    assert block.hex() + v["components"]["Descriptor"] == v["load_file"]


def test_debug_never_goes_to_a_card() -> None:
    v = vector("cap_to_load_file_toorcamp")
    cap = CapFile.read(archive(v["components"] | {"Debug": "0c0001ff"}))
    assert cap.load_file_data_block().hex() == v["load_file"]


def test_a_load_file_data_block_reads_as_its_cap_file() -> None:
    """What a card received names package and applets again."""
    v = vector("cap_to_load_file_toorcamp")
    assert CapFile.read(bytes.fromhex(v["load_file"])) == CapFile.read(archive(v["components"]))


@pytest.mark.parametrize("folder", ["", "a", "jp/go/soumu/jpki/applet"])
def test_the_package_may_lie_anywhere(folder: str) -> None:
    v = vector("cap_to_load_file_toorcamp")
    assert CapFile.read(archive(v["components"], folder)).package_aid.hex() == v["load_file_aid"]


@given(st.integers(1, 60_000), st.integers(1, 255))
def test_load_commands_carry_the_whole_load_file_in_order(length: int, size: int) -> None:
    block = bytes(length)
    if len(load_file(block)) > 256 * size:
        refuses(lambda: load_commands(block, size))
        return
    commands = load_commands(block, size)
    assert b"".join(command.block for command in commands) == load_file(block)
    assert [command.block_number for command in commands] == list(range(len(commands)))
    assert [command.last for command in commands] == [False] * (len(commands) - 1) + [True]
    assert max(len(command.block) for command in commands) <= size


@pytest.mark.parametrize("size", [0, -1])
def test_blocks_have_a_size(size: int) -> None:
    refuses(lambda: load_commands(bytes(10), size))


# Our own


def test_a_cap_file_that_is_built_reads_as_built_and_always_the_same() -> None:
    built = build_cap(PACKAGE, (APPLET,), bytes(300), "tsm/jpki")
    cap = CapFile.read(built)

    assert cap.package_aid == PACKAGE
    assert cap.applet_aids == (APPLET,)
    assert CapFile.read(cap.load_file_data_block()).components == cap.components
    assert build_cap(PACKAGE, (APPLET,), bytes(300), "tsm/jpki") == built


def test_the_directory_of_a_built_cap_file_tells_the_sizes_of_its_components() -> None:
    components = CapFile.read(build_cap(PACKAGE, (APPLET,), bytes(300), "tsm/jpki")).components
    sizes = components[2][3 : 3 + 22]
    for tag in range(1, 12):
        told = int.from_bytes(sizes[2 * tag - 2 : 2 * tag], "big")
        assert told == len(components.get(tag, bytes(3))) - 3


def test_what_does_not_fit_is_not_built() -> None:
    refuses(lambda: build_cap(PACKAGE, (APPLET,), bytes(0x10000), "tsm/jpki"))
    refuses(lambda: build_cap(bytes(4), (APPLET,), b"", "tsm/jpki"))
    refuses(lambda: build_cap(PACKAGE, (APPLET, bytes(17)), b"", "tsm/jpki"))


# Damage

COMPONENTS: dict[str, str] = vector("cap_to_load_file_toorcamp")["components"]


@pytest.mark.parametrize(
    "components",
    [
        {},
        {"Header": COMPONENTS["Header"]},
        {**COMPONENTS, "Header": "01000fdecaffee010204000105d07002ca44"},  # another magic number
        {**COMPONENTS, "Header": COMPONENTS["Header"] + "00"},
        {**COMPONENTS, "Header": "010007decaffed010204"},
        {**COMPONENTS, "Header": "01000edecaffed010204000104d07002ca"},  # an AID of four octets
        {**COMPONENTS, "Header": "01000fdecaffed010204000106d07002ca44"},  # an AID that goes on
        {**COMPONENTS, "Applet": "03000c0208d07002ca449001010020"},  # one applet fewer than told
        {**COMPONENTS, "Applet": "030000"},
        {**COMPONENTS, "Method": COMPONENTS["Class"]},
        {**COMPONENTS, "Method": ""},
    ],
)
def test_a_damaged_cap_file_is_refused(components: dict[str, str]) -> None:
    refuses(lambda: CapFile.read(archive(components)))


def test_a_component_that_is_not_known_is_refused_not_left_out() -> None:
    """Without it the card would get another program than the developer tested."""
    refuses(lambda: CapFile.read(archive({**COMPONENTS, "StaticResources": "0d000100"})))


def test_a_component_that_is_there_twice_is_refused() -> None:
    packed = io.BytesIO(archive(COMPONENTS))
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr("another/javacard/Header.cap", bytes.fromhex(COMPONENTS["Header"]))
    refuses(lambda: CapFile.read(packed.getvalue()))
    refuses(lambda: CapFile.read(bytes.fromhex(COMPONENTS["Header"] * 2 + COMPONENTS["Directory"])))


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = archive({**COMPONENTS, "Method": "00" * (2 << 20)})
    assert len(bomb) < 10_000
    refuses(lambda: CapFile.read(bomb))


def test_a_file_larger_than_any_card_is_not_looked_at() -> None:
    with pytest.raises(TsmError) as refusal:
        CapFile.read(bytes(2 << 20))
    assert refusal.value.code is ErrorCode.MESSAGE_TOO_LARGE


@given(st.binary(max_size=300))
def test_any_octets_are_read_or_refused(data: bytes) -> None:
    for octets in (data, b"PK\x03\x04" + data, bytes.fromhex(COMPONENTS["Header"]) + data):
        read_or_refuse(octets)


WHOLE = archive(COMPONENTS)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_archive_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for at, instead in changes:
        damaged[at] = instead
    read_or_refuse(bytes(damaged))


@given(st.integers(0, len(WHOLE)))
def test_an_archive_cut_off_is_refused(length: int) -> None:
    if length < len(WHOLE):
        refuses(lambda: CapFile.read(WHOLE[:length]))


def read_or_refuse(octets: bytes) -> None:
    try:
        CapFile.read(octets).load_file_data_block()
    except TsmError as refusal:
        assert refusal.code is ErrorCode.INVALID_INPUT


def refuses(call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is ErrorCode.INVALID_INPUT
