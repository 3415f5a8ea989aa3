"""The software vault: callers hold a reference, never a key.

Derivation, wrapping for a card, opening a secure channel, signing, decrypting and comparing happen in here. A folder
holds two SQLite files: `vault.sqlite`, the keys, each wrapped under the key-encryption key (AES-256-GCM, bound to
reference and kind), and `datakeys.sqlite`, the data keys of persons. The key-encryption key and the list of destroyed
data keys lie outside the folder.

A reference such as `operator/MNO00001/isd?kdf3=<10 octets in hex>` names a key set that is derived from the master key
before the question mark and never stored; it works wherever a stored key set does.

Every process that keeps keys has a vault of its own. Threads may share one; so may a server and a command-line tool.
"""

import hashlib
import hmac
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from os import urandom
from pathlib import Path
from threading import RLock
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import KeyRef
from tsm.keys.data_keys import DataKeys, data_version
from tsm.keys.database import erase_remains, open_database, writing
from tsm.keys.destroyed_keys import DestroyedKeys, beside, utc_now
from tsm.keys.key_encryption import KEY_SIZE, NONCE_SIZE, KeyEncryptionKey, Random, open_sealed
from tsm.keys.primitives import KeySet, SessionKeys, kcv_aes, kdf3, pad, wrap_dek

FORMAT = 1
AES_KEY_SIZE = 16  # octets: SCP03 with AES-128
COORDINATE_SIZE = 32  # octets of r and of s: P-256
TRANSPORT_KEY_BITS = 3072
SMALLEST_TRANSPORT_KEY_BITS = 2048
SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}  # 16 MiB and some tens of milliseconds for one guess
SALT_SIZE = 16  # octets
PARTS = ("enc", "mac", "dek")  # the keys of a set, in the order of the standard (GPC Amendment D section 6.2)

KEY_SET, MASTER_KEY, SIGNING_KEY, TRANSPORT_KEY = "key set", "master key", "signing key", "transport key"
SECRET, VERIFIER, OWN = "secret", "verifier", "own"  # OWN: what the vault needs for itself
BLIND_INDEX_KEY, PAYLOAD_KEY = "vault.blind-index", "vault.payload"

SCHEMA = """
CREATE TABLE IF NOT EXISTS vault_format (number INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS item (
  reference TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  wrapped BLOB NOT NULL
) STRICT;
"""


class EncryptedKeyValue(NamedTuple):
    """A key on its way to a card: 16 octets under the receiving domain's DEK, and the check value of the plain key."""

    encrypted: bytes
    check_value: bytes  # 3 octets


class SoftwareVault:
    """The keys of one party. Made by `create`, used through `open`."""

    def __init__(
        self, folder: Path, key_encryption_key: KeyEncryptionKey, destroyed: DestroyedKeys, random: Random
    ) -> None:
        self._kek = key_encryption_key
        self._random = random
        self._lock = RLock()
        self._connection = open_database(folder / "vault.sqlite", erasing=True)
        self._data_keys = DataKeys(folder / "datakeys.sqlite", key_encryption_key, destroyed, random)
        self._seen = 0  # the version of the file that the caches reflect
        self._key_set = lru_cache(maxsize=4096)(self._open_key_set)
        self._private_key = lru_cache(maxsize=64)(self._open_private_key)
        self._own_key = lru_cache(maxsize=8)(lambda name: self._read(name, OWN))
        self._payload_cipher = lru_cache(maxsize=4096)(self._open_payload_cipher)

    @classmethod
    def create(cls, folder: Path, kek_file: Path, random: Random = urandom, destroyed_keys: Path | None = None) -> Self:
        """Makes folder, key-encryption key and list of destroyed keys (unless they are there) and an empty vault.

        The list lies beside the key-encryption key unless said otherwise.
        `TsmError`: ALREADY_EXISTS, KEY_ENCRYPTION_KEY_EXPOSED, KEY_REFUSED, INVALID_INPUT for a list in the folder.
        """
        if (folder / "vault.sqlite").exists():
            raise TsmError(ErrorCode.ALREADY_EXISTS, f"there is a vault in {folder}")
        key_encryption_key = KeyEncryptionKey.create(kek_file, folder, random)
        destroyed = DestroyedKeys.create(destroyed_keys or beside(kek_file), folder, utc_now)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        vault = cls(folder, key_encryption_key, destroyed, random)
        with vault._lock, writing(vault._connection) as connection:
            for statement in SCHEMA.strip().split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO vault_format VALUES (?)", (FORMAT,))
            vault._insert(BLIND_INDEX_KEY, OWN, random(KEY_SIZE))
            vault._insert(PAYLOAD_KEY, OWN, random(KEY_SIZE))
        return vault

    @classmethod
    def open(cls, folder: Path, kek_file: Path, random: Random = urandom, destroyed_keys: Path | None = None) -> Self:
        """Opens the vault once the data keys that its list names as destroyed are so.

        `TsmError`: NOT_FOUND, also for a missing list; KEY_ENCRYPTION_KEY_EXPOSED, STORE_FORMAT, STORE_CORRUPT;
        KEY_REFUSED for another vault's key file.
        """
        key_encryption_key = KeyEncryptionKey.read(kek_file, folder, random)
        if not (folder / "vault.sqlite").exists():
            raise TsmError(ErrorCode.NOT_FOUND, f"there is no vault in {folder}")
        destroyed = DestroyedKeys.open(destroyed_keys or beside(kek_file), folder, utc_now)
        vault = cls(folder, key_encryption_key, destroyed, random)
        try:
            vault._refuse_other_format()
            vault._own_key(BLIND_INDEX_KEY)  # the key-encryption key is the right one, or this raises
            vault._data_keys.replay()
        except TsmError:
            vault.close()
            raise
        return vault

    def close(self) -> None:
        with self._lock:
            self._forget()
            self._connection.close()
            self._data_keys.close()

    # Key sets and master keys (AES-128)

    def generate_aes_key_set(self, ref: str) -> tuple[str, str, str]:
        """Makes ENC, MAC and DEK; answers their check values in hex. ALREADY_EXISTS when the reference is taken."""
        keys = [self._random(AES_KEY_SIZE) for _ in PARTS]
        self._store(ref, KEY_SET, b"".join(keys))
        enc, mac, dek = (kcv_aes(key).hex() for key in keys)
        return enc, mac, dek

    def import_master_key(self, ref: str, key: bytes) -> str:
        """Takes an operator's master key of 16 octets; answers its check value in hex. Safe to repeat with one key."""
        if len(key) != AES_KEY_SIZE:
            raise TsmError(ErrorCode.KEY_REFUSED, f"a master key has {AES_KEY_SIZE} octets")
        self._store(ref, MASTER_KEY, key)
        return kcv_aes(key).hex()

    def import_key_set(
        self, ref: str, wrapped: Mapping[str, bytes], transport: str, label: bytes, check_values: Sequence[str]
    ) -> None:
        """Takes the parts "enc", "mac" and perhaps "dek", each under our `transport` key (RSA-OAEP, SHA-256, `label`).

        `check_values` are in hex, in the order enc, mac, dek; that of an absent dek is not looked at. KEY_REFUSED when
        a part does not open or does not have its check value; ALREADY_EXISTS when the reference holds other keys.
        """
        if tuple(sorted(wrapped)) not in (("enc", "mac"), ("dek", "enc", "mac")):
            raise TsmError(ErrorCode.KEY_REFUSED, "a key set has enc, mac and perhaps dek")
        keys = [self.decrypt(transport, wrapped[part], label) for part in PARTS if part in wrapped]
        if any(len(key) != AES_KEY_SIZE for key in keys):
            raise TsmError(ErrorCode.KEY_REFUSED, f"a key of a set has {AES_KEY_SIZE} octets")
        expected = [value.lower() for value in check_values[: len(keys)]]
        if [kcv_aes(key).hex() for key in keys] != expected:
            raise TsmError(ErrorCode.KEY_REFUSED, "the check values are of other keys")
        self._store(ref, KEY_SET, b"".join(keys))

    def export_key_set(
        self, ref: str, recipient: bytes, label: bytes, parts: Sequence[str] = PARTS
    ) -> dict[str, bytes]:
        """The parts for another party, under its RSA key (`recipient`: SPKI DER), for its `import_key_set`."""
        public_key = _public_key(recipient)
        if not isinstance(public_key, rsa.RSAPublicKey) or public_key.key_size < SMALLEST_TRANSPORT_KEY_BITS:
            raise TsmError(ErrorCode.KEY_REFUSED, f"a transport key is RSA, {SMALLEST_TRANSPORT_KEY_BITS} bits or more")
        key_set = self._find_key_set(ref)
        return {part: public_key.encrypt(_part(key_set, part), _oaep(label)) for part in parts}

    def check_values(self, ref: str) -> tuple[str, ...]:
        """Check values in hex of ENC, MAC and, where we hold it, DEK; of a master key its only one."""
        if self._kind(ref) == MASTER_KEY and "?" not in ref:
            return (kcv_aes(self._find(ref, MASTER_KEY)).hex(),)
        key_set = self._find_key_set(ref)
        return tuple(kcv_aes(key).hex() for key in (key_set.enc, key_set.mac, key_set.dek) if key)

    def has(self, ref: str) -> bool:
        """Whether something is stored under the reference; for a derived one, under its master key's."""
        return self._kind(ref) is not None

    def session_keys(self, ref: str, host_challenge: bytes, card_challenge: bytes) -> SessionKeys:
        """Opens a secure channel: the session keys of SCP03 (GPC Amendment D section 6.2.1)."""
        return SessionKeys.derive(self._find_key_set(ref), host_challenge, card_challenge)

    def wrap_key_set(self, ref: str, under: str) -> tuple[EncryptedKeyValue, EncryptedKeyValue, EncryptedKeyValue]:
        """The keys of `ref` for PUT KEY or key DGIs, under the DEK of `under` (GPC Amendment D section 7.2)."""
        key_set, dek = self._find_key_set(ref), _part(self._find_key_set(under), "dek")
        enc, mac, own_dek = (
            EncryptedKeyValue(wrap_dek(dek, key), kcv_aes(key)) for key in (_part(key_set, part) for part in PARTS)
        )
        return enc, mac, own_dek

    def encrypt_content(self, ref: str, data: bytes) -> bytes:
        """Personalisation data under the DEK of `ref`: AES-CBC, zero ICV, over 16 random octets, `data`, 80 00 .. 00.

        The random octets make equal data unequal on the wire; the card drops them.
        """
        return wrap_dek(_part(self._find_key_set(ref), "dek"), pad(self._random(AES_KEY_SIZE) + data))

    # Signing (ECDSA P-256, SHA-256) and transport (RSA-OAEP, SHA-256)

    def generate_signing_key(self, ref: str) -> bytes:
        """Makes a P-256 key; answers the public key as SPKI DER. The randomness is OpenSSL's own."""
        return self._store_private_key(ref, SIGNING_KEY, ec.generate_private_key(ec.SECP256R1()))

    def sign(self, ref: str, data: bytes) -> bytes:
        """ECDSA signature of 64 octets: r, then s."""
        key = self._find_private_key(ref)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TsmError(ErrorCode.KEY_REFUSED, f"{ref} does not sign")
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(COORDINATE_SIZE, "big") + s.to_bytes(COORDINATE_SIZE, "big")

    def generate_transport_key(self, ref: str) -> bytes:
        """Makes an RSA key of 3072 bits, under which others send us keys; answers the public key as SPKI DER."""
        return self._store_private_key(ref, TRANSPORT_KEY, rsa.generate_private_key(65537, TRANSPORT_KEY_BITS))

    def decrypt(self, ref: str, ciphertext: bytes, label: bytes) -> bytes:
        """What came under our transport key; `TsmError(KEY_REFUSED)` when it or the label is not as sent."""
        key = self._find_private_key(ref)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TsmError(ErrorCode.KEY_REFUSED, f"{ref} does not decrypt")
        try:
            return key.decrypt(ciphertext, _oaep(label))
        except ValueError:
            raise TsmError(ErrorCode.KEY_REFUSED, f"not encrypted for {ref} with this label") from None

    def public_key(self, ref: str) -> bytes:
        """SPKI DER of a signing or transport key."""
        return _spki(self._find_private_key(ref))

    # Secrets and verifiers

    def put_secret(self, ref: str, secret: bytes) -> None:
        """Keeps octets that must come out again, such as a key pair until it is handed over. Safe to repeat."""
        self._store(ref, SECRET, secret)

    def secret(self, ref: str) -> bytes:
        """The octets; UNKNOWN_KEY after `destroy`."""
        return self._find(ref, SECRET)

    def put_verifier(self, ref: str, secret: str) -> None:
        """Keeps what recognises `secret`, never the secret (scrypt, and wrapped: a stolen file allows no guessing)."""
        salt = self._random(SALT_SIZE)
        self._store(ref, VERIFIER, salt + _scrypt(secret, salt))

    def check_verifier(self, ref: str, secret: str) -> bool:
        """Whether it is the secret; takes as long for an unknown reference. How often one may try, the caller rules."""
        try:
            stored = self._find(ref, VERIFIER)
        except TsmError as refusal:
            if refusal.code is not ErrorCode.UNKNOWN_KEY:
                raise
            stored = bytes(SALT_SIZE)  # no hash follows, so nothing equals it
        return hmac.compare_digest(stored[SALT_SIZE:], _scrypt(secret, stored[:SALT_SIZE]))

    def destroy(self, ref: str) -> None:
        """Erases whatever the reference names, from the file and its write-ahead log. Safe to repeat."""
        if self._kind(ref) == OWN or "?" in ref:
            raise TsmError(ErrorCode.KEY_REFUSED, f"{ref} cannot be destroyed by itself")
        with self._lock:
            with writing(self._connection):
                self._connection.execute("DELETE FROM item WHERE reference = ?", (ref,))
            self._forget()
            erase_remains(self._connection)

    def destroy_key_set(self, ref: str, check_values: Sequence[str]) -> None:
        """Erases the key set under the reference unless it is another by now: its check values tell. Safe to repeat."""
        with self._lock:
            self._forget_what_others_changed()
            with writing(self._connection):
                if self._stored_kind(ref) == KEY_SET and _has_check_values(self._open_key_set(ref), check_values):
                    self._connection.execute("DELETE FROM item WHERE reference = ?", (ref,))
            self._forget()
            erase_remains(self._connection)

    # Personal data and payloads

    def blind_index(self, purpose: str, value: str) -> str:
        """HMAC-SHA-256 in hex: equal values meet, and nobody without the vault can try values out."""
        message = f"{len(purpose)}|{purpose}|{value}".encode()
        with self._lock:
            key = self._own_key(BLIND_INDEX_KEY)
        return hmac.digest(key, message, "sha256").hex()

    def seal(self, subject: str, plaintext: bytes, aad: bytes) -> tuple[str, bytes]:
        """Seals a personal field under the subject's data key: the key's id, and nonce, ciphertext and tag."""
        return self._data_keys.seal(subject, plaintext, aad)

    def make_data_keys(self, subjects: Collection[str]) -> None:
        """Before much is sealed for new subjects: their data keys in one transaction. Others have theirs already."""
        self._data_keys.make(subjects)

    def unseal(self, key_id: str, sealed: bytes, aad: bytes) -> bytes:
        """`TsmError`: UNKNOWN_KEY when the subject was destroyed, KEY_REFUSED when it was not sealed so."""
        return self._data_keys.unseal(key_id, sealed, aad)

    def destroy_subject(self, subject: str) -> None:
        """Erases a person: nothing sealed for the subject opens again, and the list of destroyed keys says so.

        Safe to repeat. `TsmError`: NOT_FOUND, STORE_UNAVAILABLE (`tsm.keys.data_keys`): repeat it then.
        """
        self._data_keys.destroy(subject)

    def subject_destroyed(self, subject: str) -> bool:
        """Whether the subject's key was destroyed, and not merely never made."""
        return self._data_keys.is_destroyed(subject)

    def destroyed_subjects(self) -> list[str]:
        """All subjects whose keys were destroyed, as far as this copy of the vault knows."""
        return self._data_keys.destroyed_subjects()

    def compared_with_log(self) -> tuple[int, str] | None:
        """Up to which position of the log all that it erased is destroyed here, and when that event was recorded."""
        return self._data_keys.compared()

    def note_compared_with_log(self, position: int, recorded_at: str) -> None:
        """It goes with every copy of the data keys, so an older copy is known by it. STORE_UNAVAILABLE."""
        self._data_keys.note_compared(position, recorded_at)

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes:
        """Seals what the store keeps outside the log, under a key of its stream and bound to its name."""
        with self._lock:
            cipher = self._payload_cipher(stream)
        nonce = self._random(NONCE_SIZE)
        return nonce + cipher.encrypt(nonce, plaintext, name.encode())

    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes:
        """`TsmError(KEY_REFUSED)` when it was sealed for another stream or name, or changed."""
        with self._lock:
            cipher = self._payload_cipher(stream)
        return open_sealed(cipher, sealed, name.encode())

    # Inside

    def _store_private_key(self, ref: str, kind: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
        self._store(ref, kind, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        return _spki(key)

    def _store(self, ref: str, kind: str, plain: bytes) -> None:
        if "?" in KeyRef(ref):
            raise TsmError(ErrorCode.KEY_REFUSED, "a derived key is not stored")
        with self._lock, writing(self._connection):
            if self._stored_kind(ref) is None:
                self._insert(ref, kind, plain)
            elif self._stored_kind(ref) != kind or not hmac.compare_digest(self._read(ref, kind), plain):
                raise TsmError(ErrorCode.ALREADY_EXISTS, f"{ref} holds something else")

    def _insert(self, ref: str, kind: str, plain: bytes) -> None:
        wrapped = self._kek.wrap(plain, _name(ref, kind))
        self._connection.execute("INSERT INTO item VALUES (?, ?, ?)", (ref, kind, wrapped))

    def _find(self, ref: str, kind: str) -> bytes:
        with self._lock:
            return self._read(ref, kind)

    def _find_key_set(self, ref: str) -> KeySet:
        with self._lock:
            self._forget_what_others_changed()
            return self._key_set(ref)

    def _find_private_key(self, ref: str) -> PrivateKeyTypes:
        with self._lock:
            self._forget_what_others_changed()
            return self._private_key(ref)

    def _kind(self, ref: str) -> str | None:
        with self._lock:
            return self._stored_kind(ref.partition("?")[0])

    def _stored_kind(self, ref: str) -> str | None:
        row = self._connection.execute("SELECT kind FROM item WHERE reference = ?", (ref,)).fetchone()
        return None if row is None else str(row[0])

    def _read(self, ref: str, kind: str) -> bytes:
        row = self._connection.execute("SELECT kind, wrapped FROM item WHERE reference = ?", (ref,)).fetchone()
        if row is None:
            raise TsmError(ErrorCode.UNKNOWN_KEY, ref)
        if row[0] != kind:
            raise TsmError(ErrorCode.KEY_REFUSED, f"{ref} is a {row[0]}, not a {kind}")
        return self._kek.unwrap(row[1], _name(ref, kind))

    def _open_key_set(self, ref: str) -> KeySet:
        stored, _, derivation = ref.partition("?")
        if not derivation:
            keys = self._read(stored, KEY_SET)
            return KeySet(*(keys[at : at + AES_KEY_SIZE] for at in range(0, len(keys), AES_KEY_SIZE)))
        method, _, diversification = derivation.partition("=")
        if method != "kdf3":
            raise TsmError(ErrorCode.KEY_REFUSED, f"unknown derivation {method}")
        return kdf3(self._read(stored, MASTER_KEY), _hex(diversification))

    def _open_private_key(self, ref: str) -> PrivateKeyTypes:
        """What we sealed is what we made: testing an RSA key for primes again would take a tenth of a second."""
        kind = TRANSPORT_KEY if self._stored_kind(ref) == TRANSPORT_KEY else SIGNING_KEY
        return load_der_private_key(self._read(ref, kind), None, unsafe_skip_rsa_key_validation=True)

    def _open_payload_cipher(self, stream: str) -> AESGCM:
        """A key for each stream keeps the number of random nonces under one key small (NIST SP 800-38D section 8.3)."""
        return AESGCM(hmac.digest(self._own_key(PAYLOAD_KEY), stream.encode(), "sha256"))

    def _refuse_other_format(self) -> None:
        try:
            row = self._connection.execute("SELECT number FROM vault_format").fetchone()
        except sqlite3.OperationalError as error:
            raise TsmError(ErrorCode.STORE_FORMAT, "not a vault") from error
        if row != (FORMAT,):
            raise TsmError(ErrorCode.STORE_FORMAT, f"vault format {row}, not {FORMAT}")

    def _forget_what_others_changed(self) -> None:
        """Another process may have destroyed a key: `data_version` tells, for a few microseconds."""
        version = data_version(self._connection)
        if version != self._seen:
            self._forget()
            self._seen = version

    def _forget(self) -> None:
        self._key_set.cache_clear()
        self._private_key.cache_clear()


def verify_signature(spki: bytes, data: bytes, signature: bytes) -> bool:
    """Whether r, s (64 octets) is the ECDSA P-256 SHA-256 signature. `TsmError(INVALID_INPUT)` for no P-256 key."""
    key = _public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TsmError(ErrorCode.INVALID_INPUT, "not a P-256 public key")
    if len(signature) != 2 * COORDINATE_SIZE:
        return False
    r, s = (int.from_bytes(half, "big") for half in (signature[:COORDINATE_SIZE], signature[COORDINATE_SIZE:]))
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=256)
def _public_key(spki: bytes) -> PublicKeyTypes:
    try:
        return load_der_public_key(spki)
    except ValueError:
        raise TsmError(ErrorCode.INVALID_INPUT, "not a public key (SubjectPublicKeyInfo, DER)") from None


def _spki(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _has_check_values(key_set: KeySet, check_values: Sequence[str]) -> bool:
    """As far as both sides know them: ENC and MAC, and perhaps DEK."""
    own = [kcv_aes(key).hex() for key in (key_set.enc, key_set.mac, key_set.dek) if key]
    return all(one == other.lower() for one, other in zip(own, check_values, strict=False))


def _part(key_set: KeySet, part: str) -> bytes:
    if part not in PARTS:
        raise TsmError(ErrorCode.INVALID_INPUT, "a part of a key set is enc, mac or dek")
    key: bytes = getattr(key_set, part)
    if not key:
        raise TsmError(ErrorCode.KEY_REFUSED, f"this vault does not hold the {part}")
    return key


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise TsmError(ErrorCode.KEY_REFUSED, "the diversification is not hex") from None


def _name(ref: str, kind: str) -> bytes:
    return f"{ref}|{kind}".encode()


def _oaep(label: bytes) -> OAEP:
    return OAEP(MGF1(SHA256()), SHA256(), label)


def _scrypt(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, **SCRYPT)
