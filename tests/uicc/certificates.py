"""Certificates and keys for cards under test, made once for a run."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Credential:
    """What goes into an applet."""

    authentication_certificate: bytes
    authentication_key: rsa.RSAPrivateKey
    authentication_ca: bytes
    signature_certificate: bytes
    signature_key: rsa.RSAPrivateKey
    signature_ca: bytes


@cache
def credential() -> Credential:
    authentication_ca, authentication_certificate, authentication_key = certified("user authentication")
    signature_ca, signature_certificate, signature_key = certified("digital signature")
    return Credential(
        authentication_certificate,
        authentication_key,
        authentication_ca,
        signature_certificate,
        signature_key,
        signature_ca,
    )


def certified(purpose: str) -> tuple[bytes, bytes, rsa.RSAPrivateKey]:
    """Certificates (DER) of an authority and of a holder, and the holder's key."""
    authority_key, key = new_key(), new_key()
    authority = certificate(f"Simulated authority for {purpose}", authority_key, authority_key, None)
    holder = certificate(f"Simulated holder for {purpose}", key, authority_key, authority)
    return authority.public_bytes(Encoding.DER), holder.public_bytes(Encoding.DER), key


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(
    name: str, key: rsa.RSAPrivateKey, issuer_key: rsa.RSAPrivateKey, issuer: x509.Certificate | None
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )
