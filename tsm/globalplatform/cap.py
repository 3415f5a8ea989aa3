"""CAP files (Java Card VM specification chapter 6): read, cut into LOAD commands, and write a minimal one.

A CAP file is a ZIP with one file per component. On its way to a card the components stand one after the other in
a fixed order: the load file data block, whose hash INSTALL [for load] announces. Debug is never part of it;
whether Descriptor is changes the hash, so the caller says.
"""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Self

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.commands import LOAD_FILE_DATA_BLOCK, Load
from tsm.globalplatform.tlv import take, tlv

MAGIC = bytes.fromhex("DECAFFED")
(
    HEADER,
    DIRECTORY,
    APPLET,
    IMPORT,
    CONSTANT_POOL,
    CLASS,
    METHOD,
    STATIC_FIELD,
    REF_LOCATION,
    EXPORT,
    DESCRIPTOR,
    DEBUG,
) = range(1, 13)  # component tags (table 6-2)
NAMES = {
    HEADER: "Header", DIRECTORY: "Directory", APPLET: "Applet", IMPORT: "Import", CONSTANT_POOL: "ConstantPool",
    CLASS: "Class", METHOD: "Method", STATIC_FIELD: "StaticField", REF_LOCATION: "RefLocation", EXPORT: "Export",
    DESCRIPTOR: "Descriptor", DEBUG: "Debug",
}  # fmt: skip
LOAD_ORDER = (
    HEADER, DIRECTORY, IMPORT, APPLET, CLASS, METHOD, STATIC_FIELD, EXPORT, CONSTANT_POOL, REF_LOCATION, DESCRIPTOR,
)  # fmt: skip
LARGEST_FILE = 1 << 20  # octets: more than any card holds
MOST_BLOCKS = 256
AID_LENGTHS = range(5, 17)
LARGEST_METHODS = 0xFFFF - 1  # octets, after the number of exception handlers
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)
JAVACARD_FRAMEWORK = bytes.fromhex("A0000000620101")


@dataclass(frozen=True, slots=True)
class CapFile:
    """The components of a CAP file by tag, each whole: tag, size, content."""

    components: dict[int, bytes]

    @classmethod
    def read(cls, data: bytes) -> Self:
        """A CAP file, or a load file data block. INVALID_INPUT for anything else; MESSAGE_TOO_LARGE for a bomb."""
        if len(data) > LARGEST_FILE:
            raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, "a CAP file")
        components = from_zip(data) if data[:2] == b"PK" else from_block(data)
        if not components.keys() >= {HEADER, DIRECTORY} or components[HEADER][3:7] != MAGIC:
            raise TsmError(ErrorCode.INVALID_INPUT, "not a CAP file")
        made = cls(components)
        if any(len(aid) not in AID_LENGTHS for aid in (made.package_aid, *made.applet_aids)):
            raise TsmError(ErrorCode.INVALID_INPUT, "an AID has 5 to 16 octets")
        return made

    @property
    def package_aid(self) -> bytes:
        """AID of the package: what the load file is called."""
        header = self.components[HEADER]
        return take(header, 13, take(header, 12, 1)[0])

    @property
    def applet_aids(self) -> tuple[bytes, ...]:
        """AIDs of the applets: the executable modules."""
        component = self.components.get(APPLET)
        if component is None:
            return ()
        found, at = [], 4
        for _ in range(take(component, 3, 1)[0]):
            length = take(component, at, 1)[0]
            found.append(take(component, at + 1, length))
            at += 1 + length + 2  # the offset of its install method
        return tuple(found)

    def load_file_data_block(self, descriptor: bool = True) -> bytes:
        """The components in the order in which a card takes them (JCVM section 6.2), without Debug."""
        wanted = [tag for tag in LOAD_ORDER if tag != DESCRIPTOR or descriptor]
        return b"".join(self.components[tag] for tag in wanted if tag in self.components)


def from_zip(data: bytes) -> dict[int, bytes]:
    tags = {f"{name}.cap".lower(): tag for tag, name in NAMES.items()}
    components: dict[int, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = entry.filename.rpartition("/")[2].lower()
                if not name.endswith(".cap"):
                    continue  # the manifest and what tools add
                tag = tags.get(name)
                if tag is None or tag in components or entry.file_size > LARGEST_FILE:
                    raise TsmError(ErrorCode.INVALID_INPUT, "a component is not known, there twice or too large")
                components[tag] = checked(tag, archive.read(entry))
    except DAMAGED as error:
        raise TsmError(ErrorCode.INVALID_INPUT, "not a CAP file: the archive is damaged") from error
    return components


def from_block(data: bytes) -> dict[int, bytes]:
    components: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        tag, size = data[at], int.from_bytes(take(data, at + 1, 2), "big")
        if tag not in NAMES or tag in components:
            raise TsmError(ErrorCode.INVALID_INPUT, "not a load file data block")
        components[tag] = take(data, at, 3 + size)
        at += 3 + size
    return components


def checked(tag: int, component: bytes) -> bytes:
    if component[:1] != bytes([tag]) or int.from_bytes(take(component, 1, 2), "big") != len(component) - 3:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{NAMES[tag]} is damaged")
    return component


def load_file(block: bytes) -> bytes:
    """The load file: the data block in its tag C4 (GPCS v2.3.1 table 11-58)."""
    return tlv(LOAD_FILE_DATA_BLOCK, block)


def load_commands(block: bytes, size: int) -> list[Load]:
    """A load file data block as LOAD commands of at most `size` octets each."""
    whole = load_file(block)
    parts = [whole[at : at + size] for at in range(0, len(whole), max(size, 1))]
    if len(parts) > MOST_BLOCKS or size < 1:
        raise TsmError(ErrorCode.INVALID_INPUT, "more blocks than LOAD can number")
    return [Load(number, part, last=number == len(parts) - 1) for number, part in enumerate(parts)]


def build_cap(package_aid: bytes, applet_aids: tuple[bytes, ...], methods: bytes, folder: str) -> bytes:
    """A minimal CAP file (format 2.1) that imports javacard.framework; `methods` is the body of its Method component.

    Equal arguments give equal octets. `folder` is the package's path in the archive. INVALID_INPUT for what no CAP file
    can hold.
    """
    if len(methods) > LARGEST_METHODS or any(len(aid) not in AID_LENGTHS for aid in (package_aid, *applet_aids)):
        raise TsmError(ErrorCode.INVALID_INPUT, "an AID or the methods do not fit a CAP file")
    bodies = {
        HEADER: MAGIC + bytes((1, 2, 4, 0, 1, len(package_aid))) + package_aid,
        APPLET: bytes([len(applet_aids)]) + b"".join(bytes([len(aid)]) + aid + b"\x00\x01" for aid in applet_aids),
        IMPORT: bytes((1, 1, 1, len(JAVACARD_FRAMEWORK))) + JAVACARD_FRAMEWORK,
        CONSTANT_POOL: bytes(2),
        CLASS: b"",
        METHOD: bytes(1) + methods,
        STATIC_FIELD: bytes(10),
        REF_LOCATION: bytes(4),
    }
    bodies[DIRECTORY] = directory(bodies, len(applet_aids))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for tag in sorted(bodies):
            entry = zipfile.ZipInfo(f"{folder}/javacard/{NAMES[tag]}.cap", date_time=(1980, 1, 1, 0, 0, 0))
            file.writestr(entry, struct.pack(">BH", tag, len(bodies[tag])) + bodies[tag])
    return archive.getvalue()


def directory(bodies: dict[int, bytes], applets: int) -> bytes:
    """Directory (section 6.4): the sizes of all components, its own 31 octets included."""
    own_size = 31
    sizes = [own_size if tag == DIRECTORY else len(bodies.get(tag, b"")) for tag in range(HEADER, DEBUG)]
    return struct.pack(">11H", *sizes) + bytes(6) + bytes((1, applets, 0))
