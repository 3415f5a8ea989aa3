"""Data groupings (EMV CPS section 3.2.2, used by STORE DATA): two octets of tag, a length, a value; and the groupings
that carry a security domain's first keys (GPCS v2.3.1 section 11.11, GPC Amendment A)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.commands import AES, AES_128, EncryptedKey, StoreData
from tsm.globalplatform.tlv import find, octets, parse_tlvs, take, tlv

LONG_FORM = 0xFF  # followed by two octets of length
LONGEST = 0xFFFF
KEY_DGI, ENCRYPTED_KEY_DGI = 0x00B9, 0x8113  # attributes of keys; one key under the DEK
KEY_SET_TEMPLATE, KEY_TEMPLATE = 0xB7, 0xB9
KEY_TYPE, KEY_LENGTH, KEY_IDENTIFIER, KEY_VERSION, CHECK_VALUE, KEY_ACCESS, KEY_USAGE = (
    0x80, 0x81, 0x82, 0x83, 0x84, 0x96, 0x97,
)  # fmt: skip
USED_BY_DOMAIN_ONLY = b"\x01"
SECURE_CHANNEL_BASE_KEYS = b"\x00\x03"
MOST_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class Dgi:
    """A data grouping."""

    tag: int
    value: bytes = field(repr=False)

    def encode(self) -> bytes:
        length = len(self.value)
        if length > LONGEST or not 0 <= self.tag <= 0xFFFF:
            raise TsmError(ErrorCode.INVALID_INPUT, "longer than a data grouping may be, or no tag of two octets")
        short = length < LONG_FORM
        head = bytes([length]) if short else bytes([LONG_FORM]) + length.to_bytes(2, "big")
        return self.tag.to_bytes(2, "big") + head + self.value


class KeyGroupings(NamedTuple):
    """A key set on its way into a security domain."""

    key_version: int
    keys: tuple[EncryptedKey, ...]

    @property
    def check_values(self) -> tuple[str, ...]:
        """In hex."""
        return tuple(key.check_value.hex() for key in self.keys)


def parse_dgis(data: bytes) -> list[Dgi]:
    """Data groupings one after the other, to the last octet; INVALID_INPUT for anything else."""
    found, at = [], 0
    while at < len(data):
        tag = int.from_bytes(take(data, at, 2), "big")
        length, at = take(data, at + 2, 1)[0], at + 3
        if length == LONG_FORM:
            length, at = int.from_bytes(take(data, at, 2), "big"), at + 2
            if length < LONG_FORM:
                raise TsmError(ErrorCode.INVALID_INPUT, "a length in another than its shortest form")
        found.append(Dgi(tag, take(data, at, length)))
        at += length
    return found


def key_dgis(key_version: int, keys: tuple[EncryptedKey, ...]) -> bytes:
    """The groupings for a key set: 00B9 with attributes and check values, then one 8113 for each key.

    Key identifiers count from 1. The keys are AES-128 under the DEK of the open channel, 16 octets each.
    """
    attributes = b"".join(
        (
            tlv(KEY_TYPE, bytes([AES])),
            tlv(KEY_LENGTH, bytes([AES_128])),
            tlv(KEY_VERSION, octets(key_version)),
            tlv(KEY_ACCESS, USED_BY_DOMAIN_ONLY),
            tlv(KEY_USAGE, SECURE_CHANNEL_BASE_KEYS),
        )
    )
    templates = b"".join(
        tlv(KEY_TEMPLATE, tlv(KEY_IDENTIFIER, octets(number)) + tlv(CHECK_VALUE, key.check_value))
        for number, key in enumerate(keys, start=1)
    )
    groupings = [Dgi(KEY_DGI, tlv(KEY_SET_TEMPLATE, attributes) + templates)]
    groupings += [Dgi(ENCRYPTED_KEY_DGI, key.encrypted) for key in keys]
    return b"".join(grouping.encode() for grouping in groupings)


def parse_key_dgis(data: bytes) -> KeyGroupings:
    """The reverse of `key_dgis`.

    INVALID_INPUT when attributes are missing, do not fit the keys, or the keys are not for a secure channel.
    """
    attributes, *encrypted = parse_dgis(data) or [Dgi(0, b"")]
    if attributes.tag != KEY_DGI or any(grouping.tag != ENCRYPTED_KEY_DGI for grouping in encrypted):
        raise TsmError(ErrorCode.INVALID_INPUT, "not the groupings of one key set")
    objects = parse_tlvs(attributes.value)
    common = parse_tlvs(_needed(find(objects, KEY_SET_TEMPLATE)))
    if find(common, KEY_USAGE) != SECURE_CHANNEL_BASE_KEYS:
        raise TsmError(ErrorCode.INVALID_INPUT, "keys for another use than a secure channel")
    version, kind, length = (_octet(find(common, tag)) for tag in (KEY_VERSION, KEY_TYPE, KEY_LENGTH))
    keys = [parse_tlvs(value) for tag, value in objects if tag == KEY_TEMPLATE]
    identifiers = [_octet(find(key, KEY_IDENTIFIER)) for key in keys]
    if identifiers != list(range(1, len(encrypted) + 1)):
        raise TsmError(ErrorCode.INVALID_INPUT, "key identifiers and keys do not fit")
    check_values = [_needed(find(key, CHECK_VALUE)) for key in keys]
    made = (EncryptedKey(key.value, check, kind, length) for key, check in zip(encrypted, check_values, strict=True))
    return KeyGroupings(version, tuple(made))


def store_data_blocks(dgis: bytes, size: int, encrypted: bool) -> list[StoreData]:
    """Groupings cut into STORE DATA commands of at most `size` octets; `encrypted`: the values are under the DEK."""
    blocks = [dgis[at : at + size] for at in range(0, len(dgis), max(size, 1))]
    if not 0 < len(blocks) <= MOST_BLOCKS or size < 1:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{len(blocks)} blocks")
    last = len(blocks) - 1
    return [StoreData(number, block, number == last, encrypted) for number, block in enumerate(blocks)]


def _needed(value: bytes | None) -> bytes:
    if not value:
        raise TsmError(ErrorCode.INVALID_INPUT, "a key attribute is missing")
    return value


def _octet(value: bytes | None) -> int:
    if len(_needed(value)) != 1:
        raise TsmError(ErrorCode.INVALID_INPUT, "a key attribute is not one octet")
    return _needed(value)[0]
