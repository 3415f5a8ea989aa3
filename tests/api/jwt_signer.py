"""Makes tokens as an identity provider does, and as an attacker would: nothing is checked, nothing is the server's.

Written with `cryptography` and `json` alone, so that what verifies tokens is not what made them.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://id.example/realms/tsm", "https://tsm.example"
NOW = 1_795_253_400  # 2026-11-21 09:30 UTC, when a world of the tests begins
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def part(content: Any) -> str:
    return base64url(json.dumps(content).encode())


@dataclass(frozen=True)
class Signer:
    """A private key with a name."""

    kid: str
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @classmethod
    def elliptic(cls, kid: str) -> "Signer":
        return cls(kid, ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def rsa(cls, kid: str, bits: int = 2048) -> "Signer":
        return cls(kid, rsa.generate_private_key(65537, bits))

    @property
    def jwk(self) -> dict[str, str]:
        public = self.key.public_key().public_numbers()
        if isinstance(public, rsa.RSAPublicNumbers):
            return {"kty": "RSA", "kid": self.kid, "n": number(public.n), "e": number(public.e)}
        x, y = (base64url(value.to_bytes(32, "big")) for value in (public.x, public.y))
        return {"kty": "EC", "kid": self.kid, "crv": "P-256", "x": x, "y": y}

    def sign(self, algorithm: str, text: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(text, padding.PKCS1v15() if algorithm == "RS256" else PSS, hashes.SHA256())
        r, s = decode_dss_signature(self.key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token(self, claims: dict[str, Any] | None = None, algorithm: str = "ES256", **header: Any) -> str:
        """Header members with the value None are left out."""
        head = {"typ": "at+jwt", "alg": algorithm, "kid": self.kid, **header}
        signed = f"{part({k: v for k, v in head.items() if v is not None})}.{part(claims or claims_of())}"
        return f"{signed}.{base64url(self.sign(algorithm, signed.encode()))}"

    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def claims_of(**changes: Any) -> dict[str, Any]:
    """What an access token of RFC 9068 holds, with changes; None leaves a claim out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "console",
        "jti": "one",
        "iat": NOW - 10,
        "exp": NOW + 600,
        "roles": ["operator"],
        "tenant": "operator:MNO00001",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def mac_token(secret: bytes, algorithm: str = "HS256", kid: str = "ec") -> str:
    signed = f"{part({'typ': 'at+jwt', 'alg': algorithm, 'kid': kid})}.{part(claims_of())}"
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def key_set(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()
