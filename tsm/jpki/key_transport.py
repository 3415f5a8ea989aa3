"""A credential's private keys on their way from the authority to the provider.

A fresh AES-256 key encrypts both keys (GCM, 96-bit nonce); the provider's transport key encrypts that key (RSA-OAEP,
SHA-256). Both are bound to credential and provider by label and additional data, so that a package opens for nobody
else and in no other story. The server between them sees neither.
"""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tsm.errors import ErrorCode, TsmError

Decrypt = Callable[[bytes, bytes], bytes]  # RSA-OAEP ciphertext, label -> what it held

KEY_SIZE = 32
NONCE_SIZE = 12
SMALLEST_TRANSPORT_KEY = 2048  # bits


@dataclass(frozen=True, slots=True)
class KeyBundle:
    """The private keys of a phone's credential, PKCS#8 DER; None where the authority's copy is destroyed."""

    authentication: bytes | None = field(repr=False)
    signature: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class WrappedKeys:
    """A bundle that only the provider can open."""

    encrypted_key: bytes  # the AES key under RSA-OAEP
    nonce: bytes
    ciphertext: bytes


def wrap_keys(bundle: KeyBundle, credential: str, provider: str, transport_key: bytes) -> WrappedKeys:
    """For the holder of the RSA `transport_key` (SPKI DER); KEY_REFUSED for another kind of key, or one too short."""
    try:
        recipient = load_der_public_key(transport_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TsmError(ErrorCode.KEY_REFUSED, "not a public key (SPKI DER)") from error
    if not isinstance(recipient, rsa.RSAPublicKey) or recipient.key_size < SMALLEST_TRANSPORT_KEY:
        raise TsmError(ErrorCode.KEY_REFUSED, f"a transport key is RSA of {SMALLEST_TRANSPORT_KEY} bits or more")
    key, nonce, label = secrets.token_bytes(KEY_SIZE), secrets.token_bytes(NONCE_SIZE), label_of(credential, provider)
    keys = (bundle.authentication, bundle.signature)
    plain = json.dumps([None if each is None else base64.b64encode(each).decode() for each in keys])
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
    return WrappedKeys(recipient.encrypt(key, oaep), nonce, AESGCM(key).encrypt(nonce, plain.encode(), label))


def unwrap_keys(wrapped: WrappedKeys, credential: str, provider: str, decrypt: Decrypt) -> KeyBundle:
    """At the provider; `decrypt` is its vault's. KEY_REFUSED when the package was made for another or was changed."""
    label = label_of(credential, provider)
    key = decrypt(wrapped.encrypted_key, label)
    try:
        plain = AESGCM(key).decrypt(wrapped.nonce, wrapped.ciphertext, label)
    except (InvalidTag, ValueError) as error:
        raise TsmError(ErrorCode.KEY_REFUSED, "the keys do not open") from error
    return KeyBundle(*(None if each is None else base64.b64decode(each) for each in json.loads(plain)))


def label_of(credential: str, provider: str) -> bytes:
    return f"{provider}|{credential}".encode()
