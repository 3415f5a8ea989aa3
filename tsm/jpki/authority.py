"""The built-in certificate authority: a stand-in for the JPKI service, run as its own process.

Two authorities with RSA-2048 keys, one for digital signature and one for user authentication. Each issues main
certificates for My Number cards and sub-certificates for phones, and signs a revocation list that is fresh for an hour.
For a phone the authority makes the key pairs. It keeps a sealed copy of each private key for the provider alone, and on
acknowledgement of the write destroys it: first the data key under which it was sealed, then the row. Then it signs a
receipt.

A credential may be put on hold: both certificates are revoked with reason certificateHold. When the hold ends, the one
for user authentication is good again. The one for signatures never is: nobody could say whether a signature was made
while it was on hold. It is superseded by a new one, for a new key. What is revoked for another reason stays so.

Status is told in two ways: by lists (RFC 5280) and, for one certificate, live (RFC 6960, `tsm.jpki.ocsp`).

Every private key lies sealed by the authority's own vault; the file `authority.sqlite` alone opens nothing.
"""

import hashlib
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from threading import RLock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.access_code import JAPAN
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    DestructionReceipt,
    DestructionStatement,
    HoldRequest,
    IssuedCertificates,
    ReleaseRequest,
    RevocationRequest,
)
from tsm.jpki.certificates import (
    LARGEST,
    POLICY,
    SMALLEST,
    Carrier,
    Holder,
    Kind,
    RevocationList,
    holder,
    read_certificate,
    serial_text,
    utc_second,
    verify_certificate,
)
from tsm.jpki.key_transport import KeyBundle, WrappedKeys, wrap_keys
from tsm.jpki.ocsp import GOOD, UNKNOWN, Responder, Status
from tsm.keys.database import erase_remains, open_database, writing
from tsm.keys.vault import SoftwareVault

Clock = Callable[[], datetime]

UNIT = {
    Kind.SIGNATURE: "Simulated JPKI for digital signature",
    Kind.AUTHENTICATION: "Simulated JPKI for user authentication",
}
AUTHORITY_LIFE_YEARS = 10
BIRTHDAYS = 5  # a certificate ends with the holder's fifth birthday from its issue
LIST_LIFE = timedelta(hours=1)
HOLD = x509.ReasonFlags.certificate_hold
NOT_FINAL = {HOLD, x509.ReasonFlags.remove_from_crl}  # a hold and its end: no reason for which one is revoked for good
CODE_LENGTH = 16  # octets of the code that stands where a name would
EXPONENT = 65537
SCHEMA = """
CREATE TABLE IF NOT EXISTS authority (
  kind TEXT PRIMARY KEY, certificate BLOB NOT NULL, key_id TEXT NOT NULL, sealed_key BLOB NOT NULL,
  list_number INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS certificate (
  kind TEXT NOT NULL, serial TEXT NOT NULL, certificate BLOB NOT NULL, -- sealed: it holds name and address
  sha256 TEXT NOT NULL UNIQUE,
  credential TEXT, provider TEXT, main_serial TEXT, -- NULL for a My Number card's certificate
  replaced_by TEXT, -- serial of the certificate that was made in its place
  revoked_at TEXT, reason TEXT,
  PRIMARY KEY (kind, serial)
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS certificate_of_credential
  ON certificate (credential, kind) WHERE replaced_by IS NULL;
CREATE TABLE IF NOT EXISTS hold (
  credential TEXT PRIMARY KEY, signature_sha256 TEXT NOT NULL -- as the hold was asked for: its release says the same
) STRICT;
CREATE TABLE IF NOT EXISTS key_copy (
  kind TEXT NOT NULL, serial TEXT NOT NULL, key_id TEXT NOT NULL, sealed_key BLOB,
  statement BLOB, signature BLOB, -- the receipt, once the copy is destroyed
  PRIMARY KEY (kind, serial)
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Record:
    """A certificate that the authority issued for a phone, and what became of it."""

    kind: Kind
    serial: str  # upper-case hex
    sha256: str
    credential: str
    provider: str
    main_serial: str
    replaced_by: str | None
    reason: str | None  # why it is revoked
    der: bytes

    @property
    def good(self) -> bool:
        return self.reason is None

    @property
    def on_hold(self) -> bool:
        return self.reason == HOLD.value


@dataclass(frozen=True, slots=True)
class MainCredential:
    """What a My Number card is made with; the authority keeps no copy of these keys."""

    authentication_certificate: bytes
    authentication_key: rsa.RSAPrivateKey = field(repr=False)
    signature_certificate: bytes
    signature_key: rsa.RSAPrivateKey = field(repr=False)


class Authority:
    """Both authorities. Safe to use from several threads."""

    def __init__(self, folder: Path, vault: SoftwareVault, clock: Clock, status_url: str = "") -> None:
        """Opens the authority in `folder`, or makes it.

        `status_url` is where everybody asks for status: the lists are at /crl/<kind>.crl, the responders at
        /ocsp/<kind>. Every certificate says so.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._vault = vault
        self._clock = clock
        self._status_url = status_url
        self._lock = RLock()
        self._database = open_database(folder / "authority.sqlite", erasing=True)
        for statement in SCHEMA.split(";"):
            self._database.execute(statement)
        self._issuers = {kind: self._open_or_make(kind) for kind in Kind}

    def certificate(self, kind: Kind) -> bytes:
        """DER of the authority's own certificate."""
        return self._issuers[kind].certificate.public_bytes(serialization.Encoding.DER)

    def issue_main(self, person: Holder) -> MainCredential:
        """Key pairs and certificates for a My Number card, made at its factory."""
        keys = {kind: new_key() for kind in Kind}
        with self._lock, writing(self._database):
            issued = {kind: self._certify(kind, Carrier.CARD, person, keys[kind]) for kind in Kind}
            for kind, der in issued.items():
                self._record(kind, der)
        return MainCredential(
            authentication_certificate=issued[Kind.AUTHENTICATION],
            authentication_key=keys[Kind.AUTHENTICATION],
            signature_certificate=issued[Kind.SIGNATURE],
            signature_key=keys[Kind.SIGNATURE],
        )

    def issue(self, request: CertificateRequest) -> IssuedCertificates:
        """Key pairs and certificates for a phone, for the holder of a main certificate.

        The same credential again gets the same certificates; for another provider it is ALREADY_EXISTS. The main
        certificate must be one of ours: CERTIFICATE_INVALID, CERTIFICATE_EXPIRED or CERTIFICATE_REVOKED otherwise.
        """
        if (issued := self._issued(request)) is not None:
            return issued
        main = self._valid_main(request.main_certificate)
        keys = {kind: new_key() for kind in Kind}  # takes a while, and others ask for status meanwhile: no lock is held
        with self._lock:
            if (issued := self._issued(request)) is not None:
                return issued
            with writing(self._database):
                ders = {
                    kind: self._certify(kind, Carrier.PHONE, holder(main), keys[kind], main.not_valid_after_utc)
                    for kind in Kind
                }
                for kind in Kind:
                    serial = self._record(kind, ders[kind], request.credential, request.provider, serial_text(main))
                    self._keep_copy(kind, serial, keys[kind])
            return IssuedCertificates(ders[Kind.AUTHENTICATION], ders[Kind.SIGNATURE])

    def certificates(self, credential: str) -> IssuedCertificates:
        """The phone's certificates as they are now; NOT_FOUND for an unknown credential."""
        now = self._current(credential)
        return IssuedCertificates(now[Kind.AUTHENTICATION].der, now[Kind.SIGNATURE].der)

    def wrapped_keys(self, credential: str, provider: str, transport_key: bytes) -> WrappedKeys:
        """The key copies of a credential, for its provider alone, under the provider's transport key (SPKI, RSA).

        NOT_FOUND for a credential that is unknown or another provider's, UNKNOWN_KEY once all copies are destroyed.
        """
        with self._lock:
            self._refuse_other_provider(credential, provider)
            copies = {kind: self._copy(record) for kind, record in self._current(credential).items()}
        if not any(copies.values()):
            raise TsmError(ErrorCode.UNKNOWN_KEY, "the copies are destroyed")
        bundle = KeyBundle(copies[Kind.AUTHENTICATION], copies[Kind.SIGNATURE])
        return wrap_keys(bundle, credential, provider, transport_key)

    def destroy_key_copies(
        self, credential: str, provider: str, certificates: Collection[str]
    ) -> list[DestructionReceipt]:
        """Destroys the copies of the keys of these certificates (SHA-256, hex) and signs receipts.

        Asking again gives the same receipts. NOT_FOUND for a credential or certificate that is not this provider's.
        """
        with self._lock:
            self._refuse_other_provider(credential, provider)
            records = {record.sha256: record for record in self._records(credential)}
            if not records.keys() >= set(certificates):
                raise TsmError(ErrorCode.NOT_FOUND, "another certificate than those of this credential")
            return [self._destroy_copy(records[sha256]) for sha256 in certificates]

    def revoke(self, kind: Kind, serial: int, reason: x509.ReasonFlags) -> None:
        """Revokes a certificate for good; the first such reason stays, and takes the place of a hold.

        NOT_FOUND for an unknown serial, INVALID_INPUT for a reason that is not final.
        """
        with self._lock, writing(self._database):
            self._revoke(kind, f"{serial:X}", reason)

    def revoke_credential(self, request: RevocationRequest) -> None:
        """Revokes all certificates of a credential for good, also those that were made since the named ones.

        NOT_FOUND for a credential that is unknown, INVALID_INPUT when its certificates are others.
        """
        with self._lock, writing(self._database):
            for record in self._named(request):
                self._revoke(record.kind, record.serial, request.reason)

    def hold(self, request: HoldRequest) -> None:
        """Puts both certificates of a credential on hold. What is revoked stays so, which is more.

        It is the certificates of now that are held, also when earlier ones are named: whoever did not hear of a new one
        means the credential. NOT_FOUND, INVALID_INPUT as for a revocation.
        """
        with self._lock, writing(self._database):
            self._named(request)
            current = self._current(request.credential)
            if self._held_as(request.credential) != current[Kind.SIGNATURE].sha256:  # else one of before came late
                self._database.execute(
                    "INSERT OR REPLACE INTO hold VALUES (?, ?)", (request.credential, request.signature_sha256)
                )
            for record in current.values():
                if record.good:
                    self._set_status(record, utc_second(self._clock()).isoformat(), HOLD.value)

    def release(self, request: ReleaseRequest) -> bytes:
        """Ends the hold that was asked for by the same names; DER of the certificate for signatures as it then is.

        A new one, in the place of the one that was held; the present one when there is no such hold, so that asking
        again changes nothing. CERTIFICATE_REVOKED when one of the two, or the main certificate on which they rest, is
        revoked, and CERTIFICATE_EXPIRED after their end: the hold stays. NOT_FOUND, INVALID_INPUT as for a revocation.
        """
        key = new_key()  # made here for the same reason as in `issue`
        with self._lock:
            self._named(request)
            if self._held_as(request.credential) == request.signature_sha256:
                self._release(request.credential, key)
            return self._current(request.credential)[Kind.SIGNATURE].der

    def status(self, kind: Kind, serial: int) -> Status:
        """What is true of a certificate now."""
        query = "SELECT revoked_at, reason FROM certificate WHERE kind = ? AND serial = ?"
        with self._lock:
            row = self._database.execute(query, (kind, f"{serial:X}")).fetchone()
        if row is None:
            return UNKNOWN
        revoked_at, reason = row
        return GOOD if reason is None else Status.revoked(datetime.fromisoformat(revoked_at), x509.ReasonFlags(reason))

    def ocsp(self, kind: Kind, request: bytes) -> bytes:
        """The answer (DER) to an OCSP request (DER), signed now."""
        issuer = self._issuers[kind]
        responder = Responder(issuer.certificate, issuer.key, lambda serial: self.status(kind, serial))
        return responder.answer(request, self._clock())

    def revocation_list(self, kind: Kind) -> bytes:
        """DER of a complete list, signed now (RFC 5280 section 5)."""
        with self._lock, writing(self._database):
            now = utc_second(self._clock())  # a list with a higher number is never of an earlier time
            [number] = self._database.execute(
                "UPDATE authority SET list_number = list_number + 1 WHERE kind = ? RETURNING list_number", (kind,)
            ).fetchone()
            revoked = self._database.execute(
                "SELECT serial, revoked_at, reason FROM certificate WHERE kind = ? AND revoked_at IS NOT NULL", (kind,)
            ).fetchall()
        return self._issuers[kind].sign_list(number, now, revoked)

    def close(self) -> None:
        self._database.close()

    def _open_or_make(self, kind: Kind) -> "Issuer":
        query = "SELECT certificate, key_id, sealed_key FROM authority WHERE kind = ?"
        row = self._database.execute(query, (kind,)).fetchone()
        if row is not None:
            certificate, key_id, sealed = row
            return Issuer(read_certificate(certificate), read_key(self._vault.unseal(key_id, sealed, issuer_aad(kind))))
        issuer = Issuer.make(kind, utc_second(self._clock()))
        key_id, sealed = self._vault.seal(f"authority/{kind}", key_octets(issuer.key), issuer_aad(kind))
        der = issuer.certificate.public_bytes(serialization.Encoding.DER)
        with writing(self._database):
            self._database.execute(
                "INSERT INTO authority (kind, certificate, key_id, sealed_key) VALUES (?, ?, ?, ?)",
                (kind, der, key_id, sealed),
            )
        return issuer

    def _certify(
        self, kind: Kind, carrier: Carrier, person: Holder, key: rsa.RSAPrivateKey, no_later: datetime | None = None
    ) -> bytes:
        """A sub-certificate never outlives the main certificate on which it rests."""
        now = utc_second(self._clock())
        until = end_of_fifth_birthday(person.born, now)
        until = until if no_later is None else min(until, no_later)
        return self._issuers[kind].certify(kind, carrier, person, key.public_key(), now, until, self._status_url)

    def _record(
        self,
        kind: Kind,
        der: bytes,
        credential: str | None = None,
        provider: str | None = None,
        main_serial: str | None = None,
    ) -> str:
        """The serial of the certificate, which is kept from now on."""
        serial = serial_text(read_certificate(der))
        sealed, sha256 = self._vault.seal_payload(kind, serial, der), hashlib.sha256(der).hexdigest()
        self._database.execute(
            "INSERT INTO certificate (kind, serial, certificate, sha256, credential, provider, main_serial)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (kind, serial, sealed, sha256, credential, provider, main_serial),
        )
        return serial

    def _issued(self, request: CertificateRequest) -> IssuedCertificates | None:
        try:
            issued = self.certificates(request.credential)
        except TsmError:
            return None
        if any(record.provider != request.provider for record in self._records(request.credential)):
            raise TsmError(ErrorCode.ALREADY_EXISTS, "issued for another provider")
        return issued

    def _records(self, credential: str) -> list[Record]:
        """All certificates of a credential, those that were replaced included. NOT_FOUND."""
        query = (
            "SELECT kind, serial, sha256, provider, main_serial, replaced_by, reason, certificate"
            " FROM certificate WHERE credential = ?"
        )
        with self._lock:
            rows = self._database.execute(query, (credential,)).fetchall()
        if not rows:
            raise TsmError(ErrorCode.NOT_FOUND, "nothing was issued for this credential")
        return [
            Record(
                kind=Kind(kind),
                serial=serial,
                sha256=sha256,
                credential=credential,
                provider=provider,
                main_serial=main_serial,
                replaced_by=replaced_by,
                reason=reason,
                der=self._vault.unseal_payload(kind, serial, sealed),
            )
            for kind, serial, sha256, provider, main_serial, replaced_by, reason, sealed in rows
        ]

    def _current(self, credential: str) -> dict[Kind, Record]:
        return {record.kind: record for record in self._records(credential) if record.replaced_by is None}

    def _named(self, request: RevocationRequest | HoldRequest | ReleaseRequest) -> list[Record]:
        """All certificates of a credential, once those that are named are shown to be among them."""
        records = self._records(request.credential)
        named = {(Kind.AUTHENTICATION, request.authentication_sha256), (Kind.SIGNATURE, request.signature_sha256)}
        if not {(record.kind, record.sha256) for record in records} >= named:
            raise TsmError(ErrorCode.INVALID_INPUT, "other certificates were issued for this credential")
        return records

    def _held_as(self, credential: str) -> str | None:
        row = self._database.execute("SELECT signature_sha256 FROM hold WHERE credential = ?", (credential,)).fetchone()
        return row[0] if row else None

    def _release(self, credential: str, key: rsa.RSAPrivateKey) -> None:
        """One transaction: never is one certificate released and the other not replaced. The old key serves nobody."""
        held = self._current(credential)
        old = held[Kind.SIGNATURE]
        main_status = self.status(Kind.SIGNATURE, int(old.main_serial, 16))
        if main_status != GOOD or not all(record.on_hold for record in held.values()):
            raise TsmError(ErrorCode.CERTIFICATE_REVOKED, "the credential is revoked, or the main certificate is")
        certificate = read_certificate(old.der)
        if certificate.not_valid_after_utc <= self._clock():
            raise TsmError(ErrorCode.CERTIFICATE_EXPIRED, "a new certificate would have no time left")
        self._destroy_copy(old)
        with writing(self._database):
            der = self._certify(
                Kind.SIGNATURE, Carrier.PHONE, holder(certificate), key, certificate.not_valid_after_utc
            )
            self._set_status(held[Kind.AUTHENTICATION], None, None)
            self._revoke(Kind.SIGNATURE, old.serial, x509.ReasonFlags.superseded)
            serial = serial_text(read_certificate(der))
            self._database.execute(
                "UPDATE certificate SET replaced_by = ? WHERE kind = ? AND serial = ?", (serial, old.kind, old.serial)
            )
            self._record(Kind.SIGNATURE, der, credential, old.provider, old.main_serial)
            self._keep_copy(Kind.SIGNATURE, serial, key)
            self._database.execute("DELETE FROM hold WHERE credential = ?", (credential,))

    def _set_status(self, record: Record, revoked_at: str | None, reason: str | None) -> None:
        self._database.execute(
            "UPDATE certificate SET revoked_at = ?, reason = ? WHERE kind = ? AND serial = ?",
            (revoked_at, reason, record.kind, record.serial),
        )

    def _valid_main(self, der: bytes) -> x509.Certificate:
        now = self._clock()
        main = read_certificate(der)
        issuer = self._issuers[Kind.SIGNATURE]
        verify_certificate(main, issuer.certificate, Kind.SIGNATURE, now, Carrier.CARD)
        RevocationList.read(self.revocation_list(Kind.SIGNATURE), issuer.certificate, now).check(main)
        return main

    def _revoke(self, kind: Kind, serial: str, reason: x509.ReasonFlags) -> None:
        """One that was on hold is revoked since then: at no time in between was it good."""
        if reason in NOT_FINAL:
            raise TsmError(ErrorCode.INVALID_INPUT, f"reason: {reason.value} is not final")
        changed = self._database.execute(
            "UPDATE certificate SET revoked_at = coalesce(revoked_at, ?),"
            " reason = CASE WHEN reason IS NULL OR reason = ? THEN ? ELSE reason END WHERE kind = ? AND serial = ?",
            (utc_second(self._clock()).isoformat(), HOLD.value, reason.value, kind, serial),
        ).rowcount
        if not changed:
            raise TsmError(ErrorCode.NOT_FOUND, "no certificate with this serial")

    def _keep_copy(self, kind: Kind, serial: str, key: rsa.RSAPrivateKey) -> None:
        key_id, sealed = self._vault.seal(copy_subject(kind, serial), key_octets(key), copy_aad(kind, serial))
        self._database.execute(
            "INSERT INTO key_copy (kind, serial, key_id, sealed_key) VALUES (?, ?, ?, ?)",
            (kind, serial, key_id, sealed),
        )

    def _copy(self, record: Record) -> bytes | None:
        """A private key, unless this copy of it is destroyed."""
        query = "SELECT key_id, sealed_key FROM key_copy WHERE kind = ? AND serial = ?"
        key_id, sealed = self._database.execute(query, (record.kind, record.serial)).fetchone()
        return None if sealed is None else self._vault.unseal(key_id, sealed, copy_aad(record.kind, record.serial))

    def _destroy_copy(self, record: Record) -> DestructionReceipt:
        """Destroy first, sign afterwards: a receipt never claims what has yet to happen."""
        query = "SELECT statement, signature FROM key_copy WHERE kind = ? AND serial = ?"
        statement, signature = self._database.execute(query, (record.kind, record.serial)).fetchone()
        if statement is not None:
            return DestructionReceipt(statement, signature)
        self._vault.destroy_subject(copy_subject(record.kind, record.serial))
        at = utc_second(self._clock()).isoformat()
        said = DestructionStatement(record.credential, record.kind, record.sha256, at)
        receipt = DestructionReceipt(said.encode(), self._issuers[record.kind].sign(said.encode()))
        with writing(self._database):
            self._database.execute(
                "UPDATE key_copy SET sealed_key = NULL, statement = ?, signature = ? WHERE kind = ? AND serial = ?",
                (receipt.statement, receipt.signature, record.kind, record.serial),
            )
        with suppress(TsmError):  # a reader holds the write-ahead log; what lies in it is sealed under a destroyed key
            erase_remains(self._database)
        return receipt

    def _refuse_other_provider(self, credential: str, provider: str) -> None:
        if any(record.provider != provider for record in self._records(credential)):
            raise TsmError(ErrorCode.NOT_FOUND, "nothing was issued for this credential and provider")


@dataclass(frozen=True, slots=True)
class Issuer:
    """One authority: its certificate and its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def make(cls, kind: Kind, now: datetime) -> "Issuer":
        """A new authority, its certificate signed by itself."""
        key = new_key()
        name = issuer_name(kind)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now.replace(year=now.year + AUTHORITY_LIFE_YEARS, day=min(now.day, 28)))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def certify(
        self,
        kind: Kind,
        carrier: Carrier,
        person: Holder,
        public_key: rsa.RSAPublicKey,
        since: datetime,
        until: datetime,
        status_url: str,
    ) -> bytes:
        """DER of an end entity's certificate. Only the signature certificate says who the holder is."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject_name(carrier))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
            .add_extension(key_usage(signs_certificates=False, commits=kind is Kind.SIGNATURE), critical=True)
            .add_extension(x509.CertificatePolicies([x509.PolicyInformation(POLICY[kind], None)]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if kind is Kind.SIGNATURE:
            builder = builder.add_extension(x509.SubjectAlternativeName(person.other_names()), critical=False)
        else:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        if status_url:
            builder = with_status_addresses(builder, f"{status_url}/crl/{kind}.crl", f"{status_url}/ocsp/{kind}")
        der = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        if not SMALLEST <= len(der) <= LARGEST:
            raise TsmError(ErrorCode.INVALID_INPUT, "the certificate would not have a four-octet header")
        return der

    def sign_list(self, number: int, now: datetime, revoked: list[tuple[str, str, str]]) -> bytes:
        """DER of the revocation list with these (serial in hex, time, reason)."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + LIST_LIFE)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for serial, at, reason in revoked:
            builder = builder.add_revoked_certificate(revoked_certificate(int(serial, 16), at, reason))
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        """PKCS#1 v1.5 with SHA-256."""
        return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def with_status_addresses(builder: x509.CertificateBuilder, crl: str, ocsp: str) -> x509.CertificateBuilder:
    """Where a certificate's status is told (RFC 5280 4.2.1.13 and 4.2.2.1)."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp))
    return builder.add_extension(x509.CRLDistributionPoints([point]), critical=False).add_extension(
        x509.AuthorityInformationAccess([access]), critical=False
    )


def revoked_certificate(serial: int, at: str, reason: str) -> x509.RevokedCertificate:
    """An entry of a list; one without a particular reason does not name it (RFC 5280 5.3.1)."""
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(datetime.fromisoformat(at))
    flag = x509.ReasonFlags(reason)
    if flag is not x509.ReasonFlags.unspecified:
        entry = entry.add_extension(x509.CRLReason(flag), critical=False)
    return entry.build()


def issuer_name(kind: Kind) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated JPKI"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNIT[kind]),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Simulated Agency for Local Authorities"),
        ]
    )


def subject_name(carrier: Carrier) -> x509.Name:
    """A code in the place of a name: the certificate that anyone may read does not say whose it is."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated JPKI"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, carrier),
            x509.NameAttribute(NameOID.COMMON_NAME, secrets.token_hex(CODE_LENGTH).upper()),
        ]
    )


def key_usage(*, signs_certificates: bool, commits: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=commits,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def end_of_fifth_birthday(born: date, issued: datetime) -> datetime:
    """The last second, in Japan, of the fifth birthday after the day of issue; 29 February counts on the 28th."""
    day = issued.astimezone(JAPAN).date()
    birthdays = (birthday(born, day.year + years) for years in range(BIRTHDAYS + 1))
    last = [each for each in birthdays if each > day][BIRTHDAYS - 1]
    return datetime.combine(last, time(23, 59, 59), JAPAN).astimezone(UTC)


def birthday(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:
        return date(year, 2, 28)


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(EXPONENT, 2048)


def key_octets(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(octets: bytes) -> rsa.RSAPrivateKey:
    key = serialization.load_der_private_key(octets, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TsmError(ErrorCode.STORE_CORRUPT, "the authority's key is not RSA")
    return key


def issuer_aad(kind: Kind) -> bytes:
    return f"authority|{kind}".encode()


def copy_subject(kind: Kind, serial: str) -> str:
    return f"key-copy/{kind}/{serial}"


def copy_aad(kind: Kind, serial: str) -> bytes:
    return f"key-copy|{kind}|{serial}".encode()
