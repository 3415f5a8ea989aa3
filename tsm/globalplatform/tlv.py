"""BER-TLV as GlobalPlatform uses it: tags of one or two octets, lengths of one to three in their shortest form.

Each value has one encoding, so whatever parses encodes to the same octets again.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tsm.errors import ErrorCode, TsmError

LONGEST = 0xFFFF
MORE_TAG = 0x1F  # these bits of a first octet: the tag goes on


class Tlv(NamedTuple):
    """A data object."""

    tag: int
    value: bytes

    def encode(self) -> bytes:
        return tlv(self.tag, self.value)


def encode_length(length: int) -> bytes:
    """BER length: one octet below 80, else 81 xx or 82 xx xx (ISO/IEC 7816-4 section 5.2.2.2)."""
    if length < 0x80:
        return bytes([length])
    if length <= 0xFF:
        return bytes([0x81, length])
    if length <= LONGEST:
        return b"\x82" + length.to_bytes(2, "big")
    raise TsmError(ErrorCode.INVALID_INPUT, "longer than a data object may be")


def octets(*values: int) -> bytes:
    """Numbers, one octet each; INVALID_INPUT for one that does not fit."""
    try:
        return bytes(values)
    except ValueError:
        raise TsmError(ErrorCode.INVALID_INPUT, "a number does not fit one octet") from None


def lv(data: bytes) -> bytes:
    """One length octet and the data, as INSTALL wants it; at most 255 octets."""
    if len(data) > 0xFF:
        raise TsmError(ErrorCode.INVALID_INPUT, "longer than one length octet can say")
    return bytes([len(data)]) + data


def ber_lv(data: bytes) -> bytes:
    """A BER length and the data."""
    return encode_length(len(data)) + data


def tlv(tag: int, value: bytes) -> bytes:
    """A data object; the tag as its octets read: 0x4F, 0x9F70. INVALID_INPUT for what is no tag."""
    if 0 < tag <= 0xFF and tag & MORE_TAG != MORE_TAG:
        return bytes([tag]) + ber_lv(value)
    if 0xFF < tag <= 0xFFFF and tag >> 8 & MORE_TAG == MORE_TAG and not tag & 0x80:
        return tag.to_bytes(2, "big") + ber_lv(value)
    raise TsmError(ErrorCode.INVALID_INPUT, f"{tag:x} is no tag of one or two octets")


def parse_tlvs(data: bytes) -> list[Tlv]:
    """Data objects one after the other, to the last octet; INVALID_INPUT for anything else."""
    found, at = [], 0
    while at < len(data):
        tag, at = _parse_tag(data, at)
        length, at = parse_length(data, at)
        found.append(Tlv(tag, take(data, at, length)))
        at += length
    return found


def find(tlvs: Iterable[Tlv], tag: int) -> bytes | None:
    """The value of the first data object with this tag."""
    return next((value for found, value in tlvs if found == tag), None)


def parse_length(data: bytes, at: int) -> tuple[int, int]:
    """A BER length, and where it ends."""
    first = take(data, at, 1)[0]
    if first < 0x80:
        return first, at + 1
    end = at + 1 + (first & 0x7F)
    length = int.from_bytes(take(data, at + 1, first & 0x7F), "big")
    if encode_length(length) != data[at:end]:
        raise TsmError(ErrorCode.INVALID_INPUT, "a length in another than its shortest form")
    return length, end


def take(data: bytes, at: int, length: int) -> bytes:
    """`length` octets from `at` on; INVALID_INPUT when there are fewer."""
    part = data[at : at + length]
    if len(part) != length:
        raise TsmError(ErrorCode.INVALID_INPUT, "the data end too early")
    return part


def _parse_tag(data: bytes, at: int) -> tuple[int, int]:
    if data[at] & MORE_TAG != MORE_TAG:
        if not data[at]:
            raise TsmError(ErrorCode.INVALID_INPUT, "a tag is zero")
        return data[at], at + 1
    second = take(data, at + 1, 1)[0]
    if second & 0x80:
        raise TsmError(ErrorCode.INVALID_INPUT, "a tag of three octets is not used here")
    return data[at] << 8 | second, at + 2
