"""The parties' certificate authority: who may speak TLS with the server, and under which name and role.

`tsm init` makes it in the data folder. A party makes its key at home and sends a request (PKCS#10); the operator of the
server decides id and role, whatever the request says, and signs. CN is the party's id, OU its role. A certificate alone
lets nobody in: operators, providers, terminals and authorities are also enrolled by its fingerprint. O is our own name,
or the tenant whose auditor the certificate is for.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tsm.errors import ErrorCode, TsmError

ROLES = ("operator", "provider", "terminal", "authority", "auditor", "server", "relying-party")
ORGANISATION = "Open TSM parties"
LONGEST_NAME = 64  # characters of O (RFC 5280 appendix A.1, ub-organization-name)
CA_LIFE = timedelta(days=3650)
PARTY_LIFE = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read (mode 0600 from its first moment)."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new P-256 key, kept in a PEM file of mode 0600."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(
        path,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    return key


def party_name(party: str, role: str, tenant: str = "") -> x509.Name:
    """CN = the party's id, OU = its role, O = an auditor's tenant, when he is not appointed for all."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, tenant or ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, party),
        ]
    )


def create_authority(folder: Path) -> None:
    """Make `ca.key` and `ca.pem`: the root of all parties of one server."""
    folder.mkdir(parents=True, exist_ok=True)
    key = make_key(folder / "ca.key")
    name, now = party_name("Open TSM parties", "root"), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def request(folder: Path, party: str) -> Path:
    """At the party's home: make `key.pem`, and `request.pem` (PKCS#10) to send to the server's operator."""
    folder.mkdir(parents=True, exist_ok=True)
    key = make_key(folder / "key.pem")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party)])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    path = folder / "request.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def certify(authority: Path, request_pem: bytes, party: str, role: str, hosts: list[str], tenant: str = "") -> bytes:
    """Sign a party's request under the id and role that the operator names; returns the certificate as PEM.

    `hosts` are the names and addresses under which the party serves; none for a party that only calls.
    `tenant` is for auditors only, as `api.access` has it; without it an auditor is appointed for all.
    INVALID_INPUT for an unknown role or a request that is damaged or not signed by its own key.
    """
    if role not in ROLES:
        raise TsmError(ErrorCode.INVALID_INPUT, f"role must be one of {', '.join(ROLES)}")
    if tenant and (role != "auditor" or len(tenant) > LONGEST_NAME):
        raise TsmError(ErrorCode.INVALID_INPUT, f"a tenant is for an auditor, {LONGEST_NAME} characters at most")
    try:
        wanted = x509.load_pem_x509_csr(request_pem)
        if not wanted.is_signature_valid:
            raise TsmError(ErrorCode.INVALID_INPUT, "the request is not signed by its own key")
    except (ValueError, InvalidSignature) as error:
        raise TsmError(ErrorCode.INVALID_INPUT, "not a certificate request (PKCS#10, PEM)") from error
    issuer = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    issuer_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)  # noqa: S101  made by create_authority
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(party_name(party, role, tenant))
        .issuer_name(issuer.subject)
        .public_key(wanted.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + PARTY_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([host_name(h) for h in hosts]), False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256 of the certificate's DER, in hex: what a party is enrolled by."""
    return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()


def host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
