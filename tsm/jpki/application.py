"""The application for a credential in a phone, signed by the applicant's My Number card (`tsm.jpki.documents`).

It binds the server's challenge, the card in the phone, the provider and the applicant.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from cryptography import x509

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, SpId
from tsm.jpki.certificates import holder
from tsm.jpki.documents import Document, SignedDocument, verify_signed


@dataclass(frozen=True, slots=True)
class ApplicationDocument(Document):
    """What the applicant signs."""

    what: ClassVar[str] = "application document"
    challenge: str
    iccid: str
    provider: str
    applicant: str  # the name, as the certificate gives it

    def check(self) -> None:
        Iccid(self.iccid)
        SpId(self.provider)


@dataclass(frozen=True, slots=True)
class SignedApplication(SignedDocument):
    """An application as the counter sends it."""

    def read_document(self) -> ApplicationDocument:
        """MESSAGE_TOO_LARGE when document or certificate is; INVALID_INPUT for what is no `ApplicationDocument`."""
        self.refuse_too_large()
        return ApplicationDocument.read(self.document)


def verify_application(signed: SignedApplication, authority: x509.Certificate, at: datetime) -> x509.Certificate:
    """The My Number card's signature certificate, once possession, chain, validity and the applicant's name are proven.

    Errors as `verify_signed`, and CERTIFICATE_INVALID for a certificate that names somebody else. MESSAGE_TOO_LARGE and
    INVALID_INPUT as `read_document`.
    """
    document = signed.read_document()
    certificate = verify_signed(signed, authority, at)
    if holder(certificate).name != document.applicant:
        raise TsmError(ErrorCode.CERTIFICATE_INVALID, "the certificate names another person than the application")
    return certificate
