"""How a program uses a card that holds a JPKI applet, and how a phone reads its number (jpki: ISO 7816-4 commands)."""

import hashlib
from dataclasses import dataclass
from enum import Enum

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, Transmit
from tsm.identifiers import Iccid
from tsm.jpki.certificates import Kind
from tsm.jpki.personalisation import APPLICATION

EF_ICCID = 0x2FE2
CURRENT = 0x80  # P2: the file that is selected
SHA256_DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420")  # RFC 8017 section 9.2, note 1
HEADER = 4  # octets of DER that tell a certificate's length: 30 82 LL LL
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Place:
    """Where an applet keeps what belongs to one kind of key."""

    certificate: int
    key: int
    pin: int


class Files(Enum):
    """The elementary files of the JPKI applet."""

    SIGNATURE = Place(certificate=0x0001, key=0x001A, pin=0x001B)
    AUTHENTICATION = Place(certificate=0x000A, key=0x0017, pin=0x0018)

    @classmethod
    def of(cls, kind: Kind) -> Place:
        return cls[kind.name].value


class JpkiCard:
    """The applet, selected. A card that refuses raises CARD_REFUSED with the command and the status word."""

    def __init__(self, transmit: Transmit) -> None:
        self._transmit = transmit
        self._do("SELECT", CommandApdu(0x00, 0xA4, 0x04, 0x0C, APPLICATION))

    def verify_pin(self, kind: Kind, pin: str) -> None:
        self._select(Files.of(kind).pin)
        self._do("VERIFY", CommandApdu(0x00, 0x20, 0x00, CURRENT, pin.encode("ascii", "replace")))

    def certificate(self, kind: Kind) -> bytes:
        """DER; that of the signature needs its PIN first."""
        self._select(Files.of(kind).certificate)
        length = HEADER + int.from_bytes(self._read(0, HEADER)[2:], "big")
        return b"".join(self._read(at, min(BLOCK, length - at)) for at in range(0, length, BLOCK))

    def sign(self, kind: Kind, data: bytes) -> bytes:
        """PKCS#1 v1.5 with SHA-256, after `verify_pin`."""
        self._select(Files.of(kind).key)
        digest_info = SHA256_DIGEST_INFO + hashlib.sha256(data).digest()
        return self._do("COMPUTE DIGITAL SIGNATURE", CommandApdu(0x80, 0x2A, 0x00, CURRENT, digest_info, 256))

    def _select(self, file: int) -> None:
        self._do("SELECT", CommandApdu(0x00, 0xA4, 0x02, 0x0C, file.to_bytes(2, "big")))

    def _read(self, offset: int, length: int) -> bytes:
        return self._do("READ BINARY", CommandApdu(0x00, 0xB0, offset >> 8, offset & 0xFF, le=length))

    def _do(self, name: str, command: CommandApdu) -> bytes:
        return done(self._transmit, name, command)


def read_iccid(transmit: Transmit) -> Iccid:
    """The UICC's number (ETSI TS 102 221 section 13.2): two digits an octet, low half first, F fills."""
    done(transmit, "SELECT", CommandApdu(0x00, 0xA4, 0x00, 0x0C, EF_ICCID.to_bytes(2, "big")))
    octets = done(transmit, "READ BINARY", CommandApdu(0x00, 0xB0, 0x00, 0x00, le=10))
    return Iccid("".join(f"{octet & 0x0F:X}{octet >> 4:X}" for octet in octets).rstrip("F"))


def done(transmit: Transmit, name: str, command: CommandApdu) -> bytes:
    response = ResponseApdu.parse(transmit(command.encode()))
    if not response.ok:
        raise TsmError(ErrorCode.CARD_REFUSED, f"{name}: {response.sw:04X}")
    return response.data
