"""The release of a card that is on hold, signed by its holder's My Number card (`tsm.jpki.documents`).

It binds the server's challenge and the card in the phone. Whose signature counts, `tsm.flows.release` knows.
"""

from dataclasses import dataclass
from typing import ClassVar

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid
from tsm.jpki.documents import Document, SignedDocument

PURPOSE = "release-card"  # what the holder signs for: no other document can be taken for this one, nor this for another


@dataclass(frozen=True, slots=True)
class ReleaseDocument(Document):
    """What the holder signs: the card in my phone is where it belongs."""

    what: ClassVar[str] = "release document"
    challenge: str
    iccid: str
    purpose: str = PURPOSE

    def check(self) -> None:
        Iccid(self.iccid)
        if self.purpose != PURPOSE:
            raise TsmError(ErrorCode.INVALID_INPUT, "purpose")


@dataclass(frozen=True, slots=True)
class SignedRelease(SignedDocument):
    """A release as the counter sends it."""

    def read_document(self) -> ReleaseDocument:
        """MESSAGE_TOO_LARGE when document or certificate is; INVALID_INPUT for what is no `ReleaseDocument`."""
        self.refuse_too_large()
        return ReleaseDocument.read(self.document)
