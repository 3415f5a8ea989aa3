"""What the JPKI applet is given at personalisation, as STORE DATA commands.

Each data grouping identifier names one thing:

    0001 0002 000A 000B 0006    as DGI 0101 0102 010A 010B 0106: the file of that number
    8010, 8011                  PIN of user authentication, PIN of signature (ASCII)
    8201 .. 8205                user-authentication key: qInv, dQ, dP, q, p (128 octets each)
    8301 .. 8305                signature key, the same

After a hold the signature key and its certificate are written anew, and nothing else: 0101 and 8301 .. 8305. The PINs
are what they were, so whoever has the card in hand then can do no more with it than before.

Every value is encrypted under the DEK of the provider's security domain before it leaves the provider, and the server
that sends the commands holds no key that decrypts it (of a server that recorded how the DEK came to the card, see
ARCHITECTURE.md). The groupings run across the commands; the applet applies all of them at the last one, or none.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import InstallForPersonalization
from tsm.globalplatform.dgi import Dgi, store_data_blocks
from tsm.jpki.certificates import public_key, read_certificate

APPLICATION = bytes.fromhex("D392F000260100000001")
LOAD_FILE = bytes.fromhex("D392F0002601FF")
MODULE = bytes.fromhex("D392F0002601FF01")

FILE_SIGNATURE_CERTIFICATE, FILE_SIGNATURE_CA = 0x0101, 0x0102
FILE_AUTHENTICATION_CERTIFICATE, FILE_AUTHENTICATION_CA = 0x010A, 0x010B
FILE_TOKEN_INFORMATION = 0x0106
AUTHENTICATION_PIN, SIGNATURE_PIN = 0x8010, 0x8011
AUTHENTICATION_KEY, SIGNATURE_KEY = 0x8200, 0x8300  # + 1 .. 5: qInv, dQ, dP, q, p

KEY_PART = 128  # octets: half of RSA-2048
TOKEN_LABEL = b"JPKIAPICCTOKEN2"
TOKEN_FLAGS = 0x040D  # as real cards have it
LONGEST_PIN, SHORTEST_PIN = 16, 6

Encrypt = Callable[[bytes], bytes]  # under the domain's DEK, as the applet undoes it


@dataclass(frozen=True, slots=True)
class Personalisation:
    """Everything the applet holds. Certificates are DER, private keys PKCS#8 DER; PINs as the holder typed them."""

    authentication_certificate: bytes
    authentication_ca: bytes
    signature_certificate: bytes
    signature_ca: bytes
    authentication_key: bytes = field(repr=False)
    signature_key: bytes = field(repr=False)
    authentication_pin: str = field(repr=False)
    signature_pin: str = field(repr=False)

    def groupings(self) -> list[tuple[int, bytes]]:
        """Tags and plain values. INVALID_INPUT for a PIN of another form, KEY_REFUSED for a key that does not fit."""
        return [
            (FILE_SIGNATURE_CERTIFICATE, self.signature_certificate),
            (FILE_SIGNATURE_CA, self.signature_ca),
            (FILE_AUTHENTICATION_CERTIFICATE, self.authentication_certificate),
            (FILE_AUTHENTICATION_CA, self.authentication_ca),
            (FILE_TOKEN_INFORMATION, token_information()),
            (AUTHENTICATION_PIN, authentication_pin(self.authentication_pin)),
            (SIGNATURE_PIN, signature_pin(self.signature_pin)),
            *key_groupings(AUTHENTICATION_KEY, self.authentication_key, self.authentication_certificate),
            *key_groupings(SIGNATURE_KEY, self.signature_key, self.signature_certificate),
        ]


@dataclass(frozen=True, slots=True)
class SignatureRenewal:
    """A new certificate for signatures (DER) and its key (PKCS#8 DER), by the same authority as the one before."""

    signature_certificate: bytes
    signature_key: bytes = field(repr=False)

    def groupings(self) -> list[tuple[int, bytes]]:
        """Tags and plain values. KEY_REFUSED for a key that does not fit."""
        return [
            (FILE_SIGNATURE_CERTIFICATE, self.signature_certificate),
            *key_groupings(SIGNATURE_KEY, self.signature_key, self.signature_certificate),
        ]


def personalisation_commands(
    content: Personalisation | SignatureRenewal, encrypt: Encrypt, block_size: int
) -> list[CommandApdu]:
    """INSTALL [for personalization] and the STORE DATA commands, to be delegated in this order.

    `block_size` is how many octets a command may carry in the secure channel.
    """
    groupings = b"".join(Dgi(tag, encrypt(value)).encode() for tag, value in content.groupings())
    blocks = store_data_blocks(groupings, block_size, encrypted=True)
    return [InstallForPersonalization(APPLICATION).apdu(), *(block.apdu() for block in blocks)]


def authentication_pin(typed: str) -> bytes:
    """Exactly four digits; INVALID_INPUT otherwise."""
    if not re.fullmatch(r"[0-9]{4}", typed):
        raise TsmError(ErrorCode.INVALID_INPUT, "the user-authentication PIN is four digits")
    return typed.encode()


def signature_pin(typed: str) -> bytes:
    """Six to sixteen letters and digits, stored as capitals; INVALID_INPUT otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9]{6,16}", typed):
        raise TsmError(ErrorCode.INVALID_INPUT, "the signature PIN is 6 to 16 letters and digits")
    return typed.upper().encode()


def key_groupings(tag: int, key: bytes, certificate: bytes) -> list[tuple[int, bytes]]:
    """The five parts of an RSA key for the Chinese remainder theorem, once the key is shown to be the certificate's."""
    try:
        private = load_der_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise TsmError(ErrorCode.KEY_REFUSED, "not a private key (PKCS#8 DER)") from error
    fitting = public_key(read_certificate(certificate)).public_numbers()
    if not isinstance(private, rsa.RSAPrivateKey) or private.public_key().public_numbers() != fitting:
        raise TsmError(ErrorCode.KEY_REFUSED, "the private key is not the certificate's")
    numbers = private.private_numbers()
    parts = (numbers.iqmp, numbers.dmq1, numbers.dmp1, numbers.q, numbers.p)
    return [(tag + place, part.to_bytes(KEY_PART, "big")) for place, part in enumerate(parts, start=1)]


def token_information() -> bytes:
    """EF 0006: a PKCS#11 CK_TOKEN_INFO of 160 octets with 32-bit big-endian words; text is padded with spaces."""
    words = (TOKEN_FLAGS, 0, 0, 0, 0, LONGEST_PIN, SHORTEST_PIN, *[0xFFFFFFFF] * 4)
    return b"".join(
        (
            TOKEN_LABEL.ljust(32),
            b"SIMULATED".ljust(32),  # manufacturer
            b"SIMULATED UICC".ljust(16),  # model
            b"".ljust(16),  # serial number
            *(word.to_bytes(4, "big") for word in words),
            b"03",  # hardware version
            b"01",  # firmware version
            b"9" * 16,  # time
        )
    )
