"""What a card answers to INITIALIZE UPDATE, GET DATA and GET STATUS."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.tlv import find, octets, parse_tlvs, tlv

GLOBALPLATFORM = bytes.fromhex("2A864886FC6B")  # OID 1.2.840.114283
OID = 0x06
EXTENDED = 0xFF  # in place of the kind of a key: kind and a length of two octets follow
PSEUDO_RANDOM = 0x10  # in i: the card's challenge (GPC Amendment D section 5.1)


@dataclass(frozen=True, slots=True)
class InitializeUpdateResponse:
    """Answer to INITIALIZE UPDATE (GPC Amendment D section 7.1.1.6): 29 octets, and the sequence counter."""

    key_diversification: bytes  # 10 octets
    key_version: int
    scp: int
    i: int
    card_challenge: bytes  # 8 octets
    card_cryptogram: bytes  # 8 octets
    sequence_counter: bytes = b""  # 3 octets when i says that the challenge is pseudo-random

    def encode(self) -> bytes:
        information = octets(self.key_version, self.scp, self.i)
        challenges = self.card_challenge + self.card_cryptogram + self.sequence_counter
        return self.key_diversification + information + challenges

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """INVALID_INPUT for anything but SCP03 in S8 mode."""
        if len(data) not in (29, 32) or data[11] != 3 or (len(data) == 32) != bool(data[12] & PSEUDO_RANDOM):
            raise TsmError(ErrorCode.INVALID_INPUT, "not an answer of SCP03 in S8 mode")
        return cls(data[:10], data[10], data[11], data[12], data[13:21], data[21:29], data[29:])


class KeyComponent(NamedTuple):
    """A key as the card tells of it: never its value."""

    identifier: int
    version: int
    kind: int
    length: int  # octets
    others: tuple[tuple[int, int], ...] = ()  # kind and length of further components, such as an exponent

    def encode(self) -> bytes:
        components = (part for other in self.others for part in other)
        return tlv(0xC0, octets(self.identifier, self.version, self.kind, self.length, *components))


@dataclass(frozen=True, slots=True)
class KeyInformation:
    """Key information template (GPCS v2.3.1 section 11.3.3.1, tag E0), written in its basic form."""

    keys: tuple[KeyComponent, ...]

    def encode(self) -> bytes:
        return tlv(0xE0, b"".join(key.encode() for key in self.keys))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Reads the basic form whole, and of keys in the extended form the first component."""
        template = find(parse_tlvs(data), 0xE0)
        if template is None:
            raise TsmError(ErrorCode.INVALID_INPUT, "no key information")
        return cls(tuple(key_component(value) for tag, value in parse_tlvs(template) if tag == 0xC0))


def key_component(value: bytes) -> KeyComponent:
    if len(value) < 4 or (len(value) % 2 and value[2] != EXTENDED):
        raise TsmError(ErrorCode.INVALID_INPUT, "key information is not as its table says")
    identifier, version, kind, length = value[:4]
    if kind != EXTENDED:
        others = tuple(zip(value[4::2], value[5::2], strict=True))
        return KeyComponent(identifier, version, kind, length, others)
    if len(value) < 6:
        raise TsmError(ErrorCode.INVALID_INPUT, "key information is too short")
    return KeyComponent(identifier, version, value[3], int.from_bytes(value[4:6], "big"))


@dataclass(frozen=True, slots=True)
class CardRecognitionData:
    """Card recognition data (GPCS v2.3.1 annex H.2, tags 66 and 73)."""

    secure_channels: tuple[tuple[int, int], ...]  # (SCP number, i)
    version: tuple[int, ...] = (2, 3, 1)

    def encode(self) -> bytes:
        protocols = b"".join(
            tlv(0x64, tlv(OID, GLOBALPLATFORM + octets(4, scp) + encode_base128(i))) for scp, i in self.secure_channels
        )
        version = tlv(0x60, tlv(OID, GLOBALPLATFORM + octets(2, *self.version)))
        scheme = tlv(0x63, tlv(OID, GLOBALPLATFORM + b"\x03"))
        return tlv(0x66, tlv(0x73, tlv(OID, GLOBALPLATFORM + b"\x01") + version + scheme + protocols))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """INVALID_INPUT when it is not GlobalPlatform's."""
        recognition = find(parse_tlvs(find(parse_tlvs(data), 0x66) or b""), 0x73)
        objects = parse_tlvs(recognition or b"")
        if find(objects, OID) != GLOBALPLATFORM + b"\x01":
            raise TsmError(ErrorCode.INVALID_INPUT, "not card recognition data")
        protocols = tuple(protocol(value) for tag, value in objects if tag == 0x64)
        version = oid_after(find(objects, 0x60) or b"", 2)
        return cls(protocols, tuple(version))


def protocol(value: bytes) -> tuple[int, int]:
    scp, *i = oid_after(value, 4) or b"\x00"
    if not i:
        raise TsmError(ErrorCode.INVALID_INPUT, "a secure channel protocol without i")
    return scp, base128(i)


def base128(components: Iterable[int]) -> int:
    """The first component of what is left of an object identifier, seven bits an octet (ITU-T X.690 section 8.19)."""
    number = 0
    for octet in components:
        number = number << 7 | octet & 0x7F
        if octet < 0x80:
            return number
    raise TsmError(ErrorCode.INVALID_INPUT, "an object identifier ends too early")


def encode_base128(number: int) -> bytes:
    """The reverse of `base128`."""
    if number < 0:
        raise TsmError(ErrorCode.INVALID_INPUT, "an object identifier has no negative component")
    encoded = octets(number & 0x7F)
    while number := number >> 7:
        encoded = octets(0x80 | number & 0x7F) + encoded
    return encoded


def oid_after(value: bytes, arc: int) -> bytes:
    """What follows GlobalPlatform's OID and one arc."""
    oid = find(parse_tlvs(value), OID) or b""
    prefix = GLOBALPLATFORM + bytes([arc])
    if not oid.startswith(prefix):
        raise TsmError(ErrorCode.INVALID_INPUT, "another object identifier is expected")
    return oid[len(prefix) :]


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """An entry of GET STATUS in TLV form (GPCS v2.3.1 table 11-36, tag E3)."""

    aid: bytes
    life_cycle: int
    privileges: bytes = b""
    load_file: bytes = b""  # executable load file of an application
    associated_domain: bytes = b""
    modules: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        optional = ((0xC5, self.privileges), (0xC4, self.load_file), *((0x84, m) for m in self.modules))
        body = tlv(0x4F, self.aid) + tlv(0x9F70, octets(self.life_cycle))
        body += b"".join(tlv(tag, value) for tag, value in (*optional, (0xCC, self.associated_domain)) if value)
        return tlv(0xE3, body)

    @classmethod
    def parse_list(cls, data: bytes) -> list[Self]:
        """All entries; tags that are not known are passed over.

        A card may cut an entry in two when it has more to say (6310): join its answers first.
        """
        return [cls._of(value) for tag, value in parse_tlvs(data) if tag == 0xE3]

    @classmethod
    def _of(cls, value: bytes) -> Self:
        objects = parse_tlvs(value)
        aid, life_cycle = find(objects, 0x4F), find(objects, 0x9F70)
        if aid is None or not life_cycle:
            raise TsmError(ErrorCode.INVALID_INPUT, "an entry without AID or life cycle")
        privileges, load_file, domain = (find(objects, tag) or b"" for tag in (0xC5, 0xC4, 0xCC))
        modules = tuple(value for tag, value in objects if tag == 0x84)
        return cls(aid, life_cycle[0], privileges, load_file, domain, modules)
