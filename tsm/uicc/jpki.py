"""The JPKI applet, as the JPKI application of the My Number card answers (公的個人認証AP).

Five files with certificates and token data, two PINs, two RSA-2048 keys. Whatever is selected or verified lives in
`JpkiApplet` and dies with it: selecting the application again makes a new one, which is how clients log out.

The applet knows two ways to its content. In the field it is `personalize`d with data grouping identifiers (DGIs),
which its security domain has taken from a secure channel and decrypted. A factory calls `personalize` itself. Once it
is personalised, its domain may `renew` the signature key and its certificate (0101 and 8301 .. 8305), nothing else.

| DGI          | content                                                                    |
|--------------|----------------------------------------------------------------------------|
| 0101, 0102   | EF 0001 signature certificate, EF 0002 its CA's certificate                |
| 010A, 010B   | EF 000A user-authentication certificate, EF 000B its CA's certificate      |
| 0106         | EF 0006 token information                                                  |
| 8010, 8011   | user-authentication PIN, signature PIN (ASCII)                             |
| 8201 .. 8205 | user-authentication key: qInv, d mod (q-1), d mod (p-1), q, p              |
| 8301 .. 8305 | signature key, in the same order                                           |
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from math import lcm

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord
from tsm.uicc.memory import JpkiMemory, JpkiPersonality, Pin, PrivateKey
from tsm.uicc.refusal import Refused, require

APPLICATION_AID = bytes.fromhex("D392F000260100000001")

SIGNATURE_CERTIFICATE, SIGNATURE_CA = 0x0001, 0x0002
AUTHENTICATION_CERTIFICATE, AUTHENTICATION_CA = 0x000A, 0x000B
TOKEN_INFORMATION, AVAILABILITY = 0x0006, 0x0008
AUTHENTICATION_KEY, AUTHENTICATION_PIN = 0x0017, 0x0018
SIGNATURE_KEY, SIGNATURE_PIN = 0x001A, 0x001B

CERTIFICATES = {
    AUTHENTICATION_CERTIFICATE: AUTHENTICATION_CA,
    SIGNATURE_CERTIFICATE: SIGNATURE_CA,
}  # each with the file of its CA
PIN_OF_KEY = {AUTHENTICATION_KEY: AUTHENTICATION_PIN, SIGNATURE_KEY: SIGNATURE_PIN}
PIN_FORMAT = {AUTHENTICATION_PIN: re.compile(rb"[0-9]{4}"), SIGNATURE_PIN: re.compile(rb"[A-Z0-9]{6,16}")}
PIN_TRIES = {AUTHENTICATION_PIN: 3, SIGNATURE_PIN: 5}

FILE_DGIS = {
    0x0101: SIGNATURE_CERTIFICATE,
    0x0102: SIGNATURE_CA,
    0x010A: AUTHENTICATION_CERTIFICATE,
    0x010B: AUTHENTICATION_CA,
    0x0106: TOKEN_INFORMATION,
}
PIN_DGIS = {0x8010: AUTHENTICATION_PIN, 0x8011: SIGNATURE_PIN}
KEY_DGIS = {0x8200: AUTHENTICATION_KEY, 0x8300: SIGNATURE_KEY}  # 1 to 5 are added for the parts
CERTIFICATE_OF_KEY = {AUTHENTICATION_KEY: AUTHENTICATION_CERTIFICATE, SIGNATURE_KEY: SIGNATURE_CERTIFICATE}
ALL_DGIS = FILE_DGIS.keys() | PIN_DGIS.keys() | {base + part for base in KEY_DGIS for part in range(1, 6)}

RENEWAL_DGIS = {0x0101} | {0x8300 + part for part in range(1, 6)}

PUBLIC_EXPONENT = 65537
KEY_OCTETS = 256
TOKEN_INFORMATION_LENGTH = 160
MY_NUMBER_CARD_LABEL = "JPKIAPICCTOKEN2"


class JpkiApplet:
    """One selection of the applet. `process` answers a command or raises `Refused`."""

    def __init__(self, memory: JpkiMemory, personality: JpkiPersonality, random: Callable[[int], bytes]) -> None:
        self._memory = memory
        self._personality = personality
        self._random = random
        self._current: int | None = None
        self._verified: set[int] = set()

    def process(self, command: CommandApdu) -> ResponseApdu:
        """Answer one command other than SELECT of an application."""
        require(command.cla != 0x08, 0x69FC)  # seen on real cards: no secure messaging in this application
        handler = COMMANDS.get((command.cla, command.ins))
        if handler is None:
            known_class = any(command.cla == cla for cla, _ in COMMANDS)
            raise Refused(StatusWord.INSTRUCTION_NOT_SUPPORTED if known_class else StatusWord.CLASS_NOT_SUPPORTED)
        return handler(self, command)

    def select_file(self, command: CommandApdu) -> ResponseApdu:
        """SELECT an elementary file under the current application: P1-P2 020C and a file id."""
        require((command.p1, command.p2) == (0x02, 0x0C), StatusWord.WRONG_P1_P2)
        require(len(command.data) == 2, StatusWord.WRONG_LENGTH)
        file_id = int.from_bytes(command.data, "big")
        require(self._exists(file_id), StatusWord.FILE_NOT_FOUND)
        self._current = file_id
        return done()

    def read_binary(self, command: CommandApdu) -> ResponseApdu:
        """READ BINARY from the current file at a 15-bit offset, or by short file id (P1 bit 8) at an 8-bit offset."""
        file_id, offset = self._current, command.p1 << 8 | command.p2
        if command.p1 & 0x80:
            file_id, offset = command.p1 & 0x1F, command.p2
        if file_id is None:
            raise Refused(StatusWord.NO_CURRENT_FILE)
        content = self._content(file_id)
        require(offset < len(content), StatusWord.WRONG_OFFSET)
        self._current = file_id
        return done(content[offset : offset + (command.le or 256)])

    def verify(self, command: CommandApdu) -> ResponseApdu:
        """VERIFY a PIN, or without data ask for the tries left, which must be 63Cx even when it is verified."""
        require(command.p1 == 0x00, StatusWord.WRONG_P1_P2)
        reference, pin = self._pin(command.p2)
        if not command.data:
            return ResponseApdu(b"", tries_left(pin))
        require(pin.tries > 0, self._personality.blocked_status)
        self._verified.discard(reference)
        if command.data != pin.value:
            pin.tries -= 1
            return ResponseApdu(b"", tries_left(pin))
        pin.tries = pin.limit
        self._verified.add(reference)
        return done()

    def change_reference_data(self, command: CommandApdu) -> ResponseApdu:
        """CHANGE REFERENCE DATA: the new PIN alone (P1 01), after VERIFY of the old one."""
        require(command.p1 == 0x01, StatusWord.WRONG_P1_P2)
        reference, pin = self._pin(command.p2)
        require(reference in self._verified, StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        require(PIN_FORMAT[reference].fullmatch(command.data) is not None, StatusWord.WRONG_DATA)
        pin.value = command.data
        return done()

    def compute_digital_signature(self, command: CommandApdu) -> ResponseApdu:
        """COMPUTE DIGITAL SIGNATURE (80 2A) with the key selected, or named by short file id in P2."""
        file_id = self._reference(command.p2)
        key, sign = self._memory.keys.get(file_id), SIGNATURES.get(command.p1)
        if key is None:
            raise Refused(StatusWord.CONDITIONS_NOT_SATISFIED)
        if sign is None:
            raise Refused(StatusWord.WRONG_P1_P2)
        require(PIN_OF_KEY[file_id] in self._verified, StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        return done(sign(rsa_key(key), command.data))

    def get_challenge(self, command: CommandApdu) -> ResponseApdu:
        """GET CHALLENGE: Le random octets."""
        require((command.p1, command.p2) == (0, 0), StatusWord.WRONG_P1_P2)
        return done(self._random(command.le or 8))

    def _exists(self, file_id: int) -> bool:
        memory = self._memory
        if file_id == AVAILABILITY:
            return bool(memory.files)
        return file_id in memory.files or file_id in memory.pins or file_id in memory.keys

    def _content(self, file_id: int) -> bytes:
        require(self._exists(file_id), StatusWord.FILE_NOT_FOUND)
        require(file_id not in self._memory.pins, StatusWord.NO_BINARY_FILE)
        require(file_id not in self._memory.keys, StatusWord.NO_BINARY_FILE)
        if file_id == AVAILABILITY:
            present = [file in self._memory.files for file in (SIGNATURE_CERTIFICATE, AUTHENTICATION_CERTIFICATE)]
            return bytes([0x8F if there else 0x00 for there in present]) + b"\x00"
        needed = self._pin_to_read(file_id)
        require(needed is None or needed in self._verified, StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        return self._memory.files[file_id]

    def _pin_to_read(self, file_id: int) -> int | None:
        if file_id == SIGNATURE_CERTIFICATE:  # it names a person; the authentication certificate does not
            return SIGNATURE_PIN
        if file_id == AUTHENTICATION_CERTIFICATE and self._personality.authentication_certificate_needs_pin:
            return AUTHENTICATION_PIN
        return None

    def _reference(self, p2: int) -> int:
        """The file that P2 means: 80 the current one, 80|sfi the one with that short id."""
        require(p2 & 0xE0 == 0x80, StatusWord.WRONG_P1_P2)
        file_id = p2 & 0x1F or self._current
        if file_id is None:
            raise Refused(StatusWord.NO_CURRENT_FILE)
        return file_id

    def _pin(self, p2: int) -> tuple[int, Pin]:
        reference = self._reference(p2)
        pin = self._memory.pins.get(reference)
        if pin is None:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        return reference, pin


COMMANDS: dict[tuple[int, int], Callable[[JpkiApplet, CommandApdu], ResponseApdu]] = {
    (0x00, 0xA4): JpkiApplet.select_file,
    (0x00, 0xB0): JpkiApplet.read_binary,
    (0x00, 0x20): JpkiApplet.verify,
    (0x00, 0x24): JpkiApplet.change_reference_data,
    (0x00, 0x84): JpkiApplet.get_challenge,
    (0x80, 0x2A): JpkiApplet.compute_digital_signature,
}


def done(data: bytes = b"") -> ResponseApdu:
    """9000."""
    return ResponseApdu(data, StatusWord.OK)


def tries_left(pin: Pin) -> int:
    """63Cx: x more tries."""
    return 0x63C0 | pin.tries


# P1 of COMPUTE DIGITAL SIGNATURE says what the input is and what the card adds to it.


def sign_as_given(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """P1 00: pad the input as it is, normally a DigestInfo, by PKCS#1 v1.5."""
    require(1 <= len(data) <= KEY_OCTETS - 11, StatusWord.WRONG_LENGTH)
    return key.sign(data, padding.PKCS1v15(), utils.NoDigestInfo())


def sign_bare_hash(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """P1 01: hash on the card, pad the bare hash."""
    return sign_as_given(key, sha256(data).digest())


def sign_hash(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """P1 02: the input is a SHA-256 hash, the card adds the DigestInfo."""
    return key.sign(hash_value(data), padding.PKCS1v15(), prehashed())


def hash_and_sign(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """P1 03: hash on the card, DigestInfo, PKCS#1 v1.5."""
    return key.sign(data, padding.PKCS1v15(), SHA256())


def sign_hash_pss(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """P1 04: the input is a SHA-256 hash, the card pads by PSS."""
    return key.sign(hash_value(data), pss(), prehashed())


def hash_and_sign_pss(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """P1 05: hash on the card, PSS."""
    return key.sign(data, pss(), SHA256())


SIGNATURES = {
    0x00: sign_as_given,
    0x01: sign_bare_hash,
    0x02: sign_hash,
    0x03: hash_and_sign,
    0x04: sign_hash_pss,
    0x05: hash_and_sign_pss,
}


def hash_value(data: bytes) -> bytes:
    require(len(data) == SHA256.digest_size, StatusWord.CONDITIONS_NOT_SATISFIED)
    return data


def prehashed() -> utils.Prehashed:
    return utils.Prehashed(SHA256())


def pss() -> padding.PSS:
    """The salt is as long as the hash, which is what verifiers assume when nothing is said."""
    return padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size)


def personalize(dgis: Mapping[int, bytes]) -> JpkiMemory:
    """The memory that these DGIs (decrypted) make; `Refused(6A80)` unless all are there and fit each other."""
    require(dgis.keys() == ALL_DGIS, StatusWord.WRONG_DATA)
    memory = JpkiMemory(
        files={file_id: dgis[dgi] for dgi, file_id in FILE_DGIS.items()},
        pins={reference: new_pin(reference, dgis[dgi]) for dgi, reference in PIN_DGIS.items()},
        keys={file_id: new_key(dgis, base) for base, file_id in KEY_DGIS.items()},
    )
    require(len(memory.files[TOKEN_INFORMATION]) == TOKEN_INFORMATION_LENGTH, StatusWord.WRONG_DATA)
    for certificate, ca in CERTIFICATES.items():
        rsa_public_numbers(memory.files[certificate])
        rsa_public_numbers(memory.files[ca])
    for file_id, key in memory.keys.items():
        require(fits(key, rsa_public_numbers(memory.files[CERTIFICATE_OF_KEY[file_id]])), StatusWord.WRONG_DATA)
    return memory


def renew(memory: JpkiMemory, dgis: Mapping[int, bytes]) -> JpkiMemory:
    """The memory with another signature key and certificate; `Refused(6A80)` for more or less, or if they do not fit.

    PINs, their tries, and the other key stay as they are.
    """
    require(dgis.keys() == RENEWAL_DGIS, StatusWord.WRONG_DATA)
    certificate, key = dgis[0x0101], new_key(dgis, 0x8300)
    require(fits(key, rsa_public_numbers(certificate)), StatusWord.WRONG_DATA)
    return JpkiMemory(
        files=memory.files | {SIGNATURE_CERTIFICATE: certificate},
        pins=memory.pins,
        keys=memory.keys | {SIGNATURE_KEY: key},
    )


def new_pin(reference: int, value: bytes) -> Pin:
    require(PIN_FORMAT[reference].fullmatch(value) is not None, StatusWord.WRONG_DATA)
    return Pin(value=value, limit=PIN_TRIES[reference], tries=PIN_TRIES[reference])


def new_key(dgis: Mapping[int, bytes], base: int) -> PrivateKey:
    parts = [dgis[base + part] for part in range(1, 6)]
    require(all(len(part) == KEY_OCTETS // 2 for part in parts), StatusWord.WRONG_DATA)
    qinv, dq, dp, q, p = parts
    return PrivateKey(p=p, q=q, dp=dp, dq=dq, qinv=qinv)


def rsa_public_numbers(certificate: bytes) -> rsa.RSAPublicNumbers:
    """Of a DER certificate that clients of this applet can read: RSA-2048, e = 65537, a length field of four octets."""
    require(certificate[:2] == b"\x30\x82", StatusWord.WRONG_DATA)
    require(len(certificate) == 4 + int.from_bytes(certificate[2:4], "big"), StatusWord.WRONG_DATA)
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Refused(StatusWord.WRONG_DATA) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise Refused(StatusWord.WRONG_DATA)
    numbers = key.public_numbers()
    require(key.key_size == KEY_OCTETS * 8 and numbers.e == PUBLIC_EXPONENT, StatusWord.WRONG_DATA)
    return numbers


def fits(key: PrivateKey, public: rsa.RSAPublicNumbers) -> bool:
    """Whether all five parts belong to the public key: a wrong one would give signatures that betray the key."""
    p, q, dp, dq, qinv = (int.from_bytes(part, "big") for part in (key.p, key.q, key.dp, key.dq, key.qinv))
    if p * q != public.n or min(p, q) < 2:
        return False
    return (
        dp < p - 1
        and dq < q - 1
        and dp * public.e % (p - 1) == 1
        and dq * public.e % (q - 1) == 1
        and qinv < p
        and qinv * q % p == 1
    )


def rsa_key(key: PrivateKey) -> rsa.RSAPrivateKey:
    """The key as the library wants it; the parts were checked when they came."""
    p, q, dp, dq, qinv = (int.from_bytes(part, "big") for part in (key.p, key.q, key.dp, key.dq, key.qinv))
    public = rsa.RSAPublicNumbers(PUBLIC_EXPONENT, p * q)
    d = pow(PUBLIC_EXPONENT, -1, lcm(p - 1, q - 1))
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qinv, public).private_key(unsafe_skip_rsa_key_validation=True)


def token_information(label: str = MY_NUMBER_CARD_LABEL, serial_number: str = "00000000") -> bytes:
    """EF 0006: a PKCS#11 CK_TOKEN_INFO of 160 octets, words of 32 bits big-endian, text padded with spaces."""

    def text(value: str, length: int) -> bytes:
        return value.encode("ascii").ljust(length)[:length]

    def words(*values: int) -> bytes:
        return b"".join(value.to_bytes(4, "big") for value in values)

    unknown = 0xFFFFFFFF
    return b"".join(
        (
            text(label, 32),
            text("Simulated", 32),  # manufacturer
            text("JPKI", 16),  # model
            text(serial_number, 16),
            words(0x040D),  # flags, as observed
            words(0, 0, 0, 0),  # sessions: most, open, most read-write, open read-write
            words(16, 6),  # PIN lengths: most, least
            words(unknown, unknown, unknown, unknown),  # memory
            b"03" + b"01",  # hardware and firmware version
            b"9" * 16,  # time
        )
    )
