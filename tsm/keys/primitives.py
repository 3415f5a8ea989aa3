"""AES primitives of GlobalPlatform: derivation, check values, key wrapping, session keys. Pure: nothing is stored here.

AES-128 throughout (SCP03 S8). Whoever holds one of these objects holds keys, so none of them shows its content.
"""

from typing import Self

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

from tsm.errors import ErrorCode, TsmError

BLOCK = 16  # octets
MAC_SIZE = 8  # octets of a C-MAC, R-MAC, cryptogram or challenge in S8 mode
ZEROS = bytes(BLOCK)
PADDING = tuple(b"\x80" + bytes(-(length + 1) % BLOCK) for length in range(BLOCK))  # by length modulo 16
RESPONSE = 0x80 << 120  # added to a command's counter, gives that of its response (GPC Amendment D section 6.2.7)

# Data derivation constants (GPC Amendment D v1.2 table 4-1)
CARD_CRYPTOGRAM, HOST_CRYPTOGRAM, CARD_CHALLENGE, S_ENC, S_MAC, S_RMAC = 0x00, 0x01, 0x02, 0x04, 0x06, 0x07
# The labels of KDF3, one for each key
KDF3_ENC, KDF3_MAC, KDF3_DEK = 0x01, 0x02, 0x03


def aes_cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC, 16 octets (NIST SP 800-38B). KEY_REFUSED for a key of another size than AES has."""
    mac = CMAC(_aes(key))
    mac.update(message)
    return mac.finalize()


def kcv_aes(key: bytes) -> bytes:
    """Key check value, 3 octets: AES over sixteen octets 01 (GPC Amendment D section 4.1.3)."""
    return Cipher(_aes(key), ECB()).encryptor().update(b"\x01" * BLOCK)[:3]  # noqa: S305  one block


def kdf(key: bytes, constant: int, context: bytes, bits: int = 128) -> bytes:
    """Data derivation in counter mode with CMAC, 64 or 128 `bits` long (GPC Amendment D section 4.1.5)."""
    if not 0 <= constant <= 0xFF or bits not in (64, 128):
        raise TsmError(ErrorCode.INVALID_INPUT, "one octet of constant, 64 or 128 bits")
    fixed = bytes(11) + bytes((constant, 0)) + bits.to_bytes(2, "big") + b"\x01"  # one block: the counter is 1
    return aes_cmac(key, fixed + context)[: bits // 8]


class KeySet:
    """The static keys of a security domain: ENC, MAC and, where the holder may have it, DEK (16 octets each)."""

    __slots__ = ("dek", "enc", "mac")

    def __init__(self, enc: bytes, mac: bytes, dek: bytes = b"") -> None:
        if len(enc) != BLOCK or len(mac) != BLOCK or len(dek) not in (0, BLOCK):
            raise TsmError(ErrorCode.KEY_REFUSED, "an AES-128 key has 16 octets")
        self.enc, self.mac, self.dek = enc, mac, dek

    def __repr__(self) -> str:
        return "KeySet(hidden)"


def kdf3(master: bytes, diversification: bytes) -> KeySet:
    """A card's key set from a master key and the card's 10 octets of diversification data.

    SP 800-108 in counter mode with CMAC: counter (1 octet), label (4), 00, diversification data; no length field.
    """
    labels = (label.to_bytes(4, "big") for label in (KDF3_ENC, KDF3_MAC, KDF3_DEK))
    return KeySet(*(aes_cmac(master, b"\x01" + label + b"\x00" + diversification) for label in labels))


def wrap_dek(dek: bytes, data: bytes) -> bytes:
    """Sensitive data under a DEK: AES-CBC, zero ICV, whole blocks (GPC Amendment D section 6.2.8)."""
    return Cipher(_aes(dek), CBC(ZEROS)).encryptor().update(_whole_blocks(data))


def unwrap_dek(dek: bytes, data: bytes) -> bytes:
    """The reverse of `wrap_dek`."""
    return Cipher(_aes(dek), CBC(ZEROS)).decryptor().update(_whole_blocks(data))


def card_challenge(enc_key: bytes, sequence_counter: bytes, aid: bytes) -> bytes:
    """Pseudo-random card challenge, 8 octets (GPC Amendment D section 6.2.2.1)."""
    return kdf(enc_key, CARD_CHALLENGE, sequence_counter + aid, 64)


class SessionKeys:
    """S-ENC, S-MAC and S-RMAC of one session, with their contexts kept. One thread at a time.

    Making a context costs several times what using it does, so a session has one CBC stream in each direction. Each
    message begins with its own ICV, which is its counter encrypted: put through the stream in front of the message,
    the counter becomes the ICV and chains into the first block. What the stream held before is taken out by XOR.
    """

    __slots__ = ("_challenges", "_decryptor", "_encryptor", "_icvs", "_last", "_mac", "_rmac", "_s_mac")

    def __init__(self, s_enc: bytes, s_mac: bytes, s_rmac: bytes, challenges: bytes) -> None:
        """`challenges`: the host's and the card's, 8 octets each."""
        enc = _aes(s_enc)
        self._s_mac, self._challenges = s_mac, challenges
        self._icvs = Cipher(enc, ECB()).encryptor()  # noqa: S305  single blocks: ICVs
        self._encryptor = Cipher(enc, CBC(ZEROS)).encryptor()
        self._decryptor = Cipher(enc, CBC(ZEROS)).decryptor()
        self._last = 0  # the last block that came out of the encryptor
        self._mac, self._rmac = CMAC(_aes(s_mac)), CMAC(_aes(s_rmac))

    def __repr__(self) -> str:
        return "SessionKeys(hidden)"

    @classmethod
    def derive(cls, keys: KeySet, host_challenge: bytes, card_challenge: bytes) -> Self:
        """The session keys of SCP03 (GPC Amendment D section 6.2.1); INVALID_INPUT unless challenges have 8 octets."""
        if len(host_challenge) != MAC_SIZE or len(card_challenge) != MAC_SIZE:
            raise TsmError(ErrorCode.INVALID_INPUT, f"a challenge has {MAC_SIZE} octets")
        context = host_challenge + card_challenge
        s_enc, s_mac, s_rmac = (
            kdf(keys.enc, S_ENC, context),
            kdf(keys.mac, S_MAC, context),
            kdf(keys.mac, S_RMAC, context),
        )
        return cls(s_enc, s_mac, s_rmac, context)

    def card_cryptogram(self) -> bytes:
        """8 octets by which the card proves its keys (section 6.2.2.2)."""
        return kdf(self._s_mac, CARD_CRYPTOGRAM, self._challenges, 64)

    def host_cryptogram(self) -> bytes:
        """8 octets by which the host proves its keys (section 6.2.2.3)."""
        return kdf(self._s_mac, HOST_CRYPTOGRAM, self._challenges, 64)

    def cmac_command(self, message: bytes) -> bytes:
        """CMAC under S-MAC, 16 octets: the MAC chaining value, whose first 8 are the C-MAC."""
        mac = self._mac.copy()
        mac.update(message)
        return mac.finalize()

    def cmac_response(self, message: bytes) -> bytes:
        """CMAC under S-RMAC, 16 octets, whose first 8 are the R-MAC."""
        mac = self._rmac.copy()
        mac.update(message)
        return mac.finalize()

    def encrypt(self, counter: int, data: bytes) -> bytes:
        """`data` padded, AES-CBC under S-ENC (sections 6.2.6 and 6.2.7).

        `counter` is the command's, plus RESPONSE for its response.
        """
        counter_block = (counter ^ self._last).to_bytes(BLOCK, "big")
        encrypted = self._encryptor.update(counter_block + data + PADDING[len(data) % BLOCK])[BLOCK:]
        self._last = int.from_bytes(encrypted[-BLOCK:], "big")
        return encrypted

    def decrypt(self, counter: int, data: bytes) -> bytes:
        """The reverse of `encrypt`; KEY_REFUSED when nothing padded comes out."""
        icv = self._icvs.update(counter.to_bytes(BLOCK, "big"))
        return unpad(self._decryptor.update(icv + _whole_blocks(data))[BLOCK:])


def pad(data: bytes) -> bytes:
    """80 00 .. 00 up to whole blocks, at least one octet (ISO/IEC 7816-4, GPC Amendment D section 4.1.4)."""
    return data + PADDING[len(data) % BLOCK]


def unpad(data: bytes) -> bytes:
    """The reverse of `pad`; KEY_REFUSED when the padding is not there."""
    stripped = data.rstrip(b"\x00")
    if stripped[-1:] != b"\x80" or len(data) - len(stripped) >= BLOCK:
        raise TsmError(ErrorCode.KEY_REFUSED, "no padding where there must be")
    return stripped[:-1]


def _aes(key: bytes) -> AES:
    if len(key) not in (16, 24, 32):
        raise TsmError(ErrorCode.KEY_REFUSED, "an AES key has 16, 24 or 32 octets")
    return AES(key)


def _whole_blocks(data: bytes) -> bytes:
    if not data or len(data) % BLOCK:
        raise TsmError(ErrorCode.KEY_REFUSED, "not whole blocks")
    return data
