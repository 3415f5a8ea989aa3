"""Command and response APDUs (ISO/IEC 7816-3 section 12.1), and the status words we meet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from tsm.errors import ErrorCode, TsmError

Transmit = Callable[[bytes], bytes]
"""The seam to a card: a command APDU in, a response APDU out."""

SHORT_DATA, EXTENDED_DATA = 0xFF, 0xFFFF
SHORT_LE, EXTENDED_LE = 0x100, 0x10000


class StatusWord(IntEnum):
    """The card's own vocabulary (ISO/IEC 7816-4 section 5.6, GPCS section 11.1.3)."""

    OK = 0x9000
    MORE_DATA = 0x6310
    AUTHENTICATION_FAILED = 0x6300
    WARNING_SELECTED_LOCKED = 0x6283
    MEMORY_FAILURE = 0x6581
    WRONG_LENGTH = 0x6700
    LOGICAL_CHANNEL_NOT_SUPPORTED = 0x6881
    SECURE_MESSAGING_NOT_SUPPORTED = 0x6882
    SECURITY_STATUS_NOT_SATISFIED = 0x6982
    AUTHENTICATION_METHOD_BLOCKED = 0x6983
    REFERENCE_DATA_NOT_USABLE = 0x6984
    NO_BINARY_FILE = 0x6981
    CONDITIONS_NOT_SATISFIED = 0x6985
    NO_CURRENT_FILE = 0x6986
    SECURE_MESSAGING_INCORRECT = 0x6988
    WRONG_DATA = 0x6A80
    FUNCTION_NOT_SUPPORTED = 0x6A81
    FILE_NOT_FOUND = 0x6A82
    RECORD_NOT_FOUND = 0x6A83
    NOT_ENOUGH_MEMORY = 0x6A84
    WRONG_P1_P2 = 0x6A86
    REFERENCED_DATA_NOT_FOUND = 0x6A88
    WRONG_OFFSET = 0x6B00
    INSTRUCTION_NOT_SUPPORTED = 0x6D00
    CLASS_NOT_SUPPORTED = 0x6E00
    UNKNOWN = 0x6F00


@dataclass(frozen=True, slots=True)
class CommandApdu:
    """A command. `le` is the number of octets expected: None for none, 256 for as many as a short answer holds.

    INVALID_INPUT when a field is out of range. Data do not show in `repr`: they may be a PIN.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = field(default=b"", repr=False)
    le: int | None = None

    def __post_init__(self) -> None:
        header = self.cla | self.ins | self.p1 | self.p2  # beyond one octet, or negative, when one of them is
        expected = 1 if self.le is None else self.le
        if not (0 <= header <= 0xFF and 0 < expected <= EXTENDED_LE and len(self.data) <= EXTENDED_DATA):
            raise TsmError(ErrorCode.INVALID_INPUT, "a field of a command is out of range")

    @property
    def header(self) -> bytes:
        return bytes((self.cla, self.ins, self.p1, self.p2))

    def encode(self) -> bytes:
        """Short form when it fits, extended otherwise."""
        if len(self.data) > SHORT_DATA or (self.le or 0) > SHORT_LE:
            return self._encode_extended()
        lc = bytes([len(self.data)]) + self.data if self.data else b""
        return self.header + lc + (b"" if self.le is None else bytes([self.le & 0xFF]))

    def _encode_extended(self) -> bytes:
        lc = len(self.data).to_bytes(2, "big") + self.data if self.data else b""
        le = b"" if self.le is None else (self.le & 0xFFFF).to_bytes(2, "big")
        return self.header + b"\x00" + lc + le

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """All cases, short and extended; INVALID_INPUT for anything else.

        Five octets with P3 = 00 are read as case 2: what a reader with T=0 makes of case 1, too.
        """
        if len(octets) < 4:
            raise TsmError(ErrorCode.INVALID_INPUT, "shorter than an APDU")
        cla, ins, p1, p2 = octets[:4]
        data, le = _body(octets[4:])
        return cls(cla, ins, p1, p2, data, le)


def _body(body: bytes) -> tuple[bytes, int | None]:
    if not body:
        return b"", None
    if len(body) == 1:
        return b"", body[0] or SHORT_LE
    if body[0]:
        return _data_and_le(body[1:], body[0], 1, SHORT_LE)
    if len(body) == 3:
        return b"", int.from_bytes(body[1:], "big") or EXTENDED_LE
    length = int.from_bytes(body[1:3], "big")
    if not length:
        raise TsmError(ErrorCode.INVALID_INPUT, "Lc is zero")
    return _data_and_le(body[3:], length, 2, EXTENDED_LE)


def _data_and_le(rest: bytes, length: int, le_octets: int, maximum: int) -> tuple[bytes, int | None]:
    if len(rest) == length:
        return rest, None
    if len(rest) == length + le_octets:
        return rest[:length], int.from_bytes(rest[length:], "big") or maximum
    raise TsmError(ErrorCode.INVALID_INPUT, "Lc does not fit the data")


@dataclass(frozen=True, slots=True)
class ResponseApdu:
    """An answer: data and status word. INVALID_INPUT for a status word of other than two octets."""

    data: bytes = field(repr=False)
    sw: int

    def __post_init__(self) -> None:
        if not 0 <= self.sw <= 0xFFFF:
            raise TsmError(ErrorCode.INVALID_INPUT, "a status word has two octets")

    @property
    def ok(self) -> bool:
        return self.sw == StatusWord.OK

    def encode(self) -> bytes:
        return self.data + self.sw.to_bytes(2, "big")

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """INVALID_INPUT for less than a status word."""
        if len(octets) < 2:
            raise TsmError(ErrorCode.INVALID_INPUT, "shorter than a status word")
        return cls(octets[:-2], int.from_bytes(octets[-2:], "big"))
