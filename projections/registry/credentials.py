"""Credentials: how far each has come, and whether it is closed.

The application seals the ICCID, for there it ties a person to a card; it is unsealed here and nothing else is. When the
person's erasure is ordered it goes from the row, and the credential's id from delegations, sessions, keys and
operations on that card.
"""

from collections.abc import Mapping

from projections.registry.book import ERASED, Book, corrupt
from projections.registry.rows import CredentialRow
from tsm.model.credential import (
    REACHED,
    ApplicationRefused,
    CredentialApplied,
    CredentialHeld,
    CredentialIssued,
    CredentialReleased,
    CredentialRevoked,
    ErasureOrdered,
    Hold,
    HoldOrdered,
    ReleaseOrdered,
    RevocationOrdered,
    Stage,
)
from tsm.model.event import Event, Fact
from tsm.store import mapper

HOLDS: Mapping[type[Fact], str] = {
    HoldOrdered: Hold.ORDERED.value,
    CredentialHeld: Hold.HELD.value,
    ReleaseOrdered: Hold.RELEASE_ORDERED.value,
    CredentialReleased: "",
}
REFUSED, REVOKING, REVOKED = "refused", "revoking", "revoked"  # of `closed`, which may be ERASED as well


def applied(book: Book, event: Event, fact: CredentialApplied) -> None:
    row = CredentialRow(
        credential=credential_of(event),
        provider=fact.provider,
        municipality=fact.municipality,
        terminal=fact.terminal,
        authority="",
        iccid="" if fact.iccid == mapper.ERASED else str(fact.iccid),
        subject=fact.subject,
        stage=Stage.APPLIED.name,
        hold="",
        closed="",
        position=event.position,
        changed=event.position,
    )
    book.credentials.put(row)


def issued(book: Book, event: Event, fact: CredentialIssued) -> None:
    row = _credential(book, event)
    book.credentials.put(row._replace(authority=fact.authority, stage=Stage.ISSUED.name, changed=event.position))


def gone_on(book: Book, event: Event, fact: Fact) -> None:
    """A certificate that was made anew is delegated when the credential is active, and leaves it so."""
    row = _credential(book, event)
    stage = max(Stage[row.stage], REACHED[type(fact)])
    book.credentials.put(row._replace(stage=stage.name, changed=event.position))


def hold_changed(book: Book, event: Event, fact: Fact) -> None:
    row = _credential(book, event)
    book.credentials.put(row._replace(hold=HOLDS[type(fact)], changed=event.position))


def refused(book: Book, event: Event, _: ApplicationRefused) -> None:
    _close(book, event, REFUSED)


def revocation_ordered(book: Book, event: Event, _: RevocationOrdered) -> None:
    _close(book, event, REVOKING)


def revoked(book: Book, event: Event, _: CredentialRevoked) -> None:
    """An erased person's credential stays closed as that."""
    if _credential(book, event).closed != ERASED:
        _close(book, event, REVOKED)


def erasure_ordered(book: Book, event: Event, _: ErasureOrdered) -> None:
    row = _credential(book, event)
    book.credentials.put(row._replace(iccid="", closed=ERASED, changed=event.position))
    book.erased(row.credential)


def credential_of(event: Event) -> str:
    return event.originator_id.removeprefix("credential-")


def _credential(book: Book, event: Event) -> CredentialRow:
    row = book.credentials.get(credential_of(event))
    if row is None:
        raise corrupt(f"{event.originator_id} does not begin with its application")
    return row


def _close(book: Book, event: Event, closed: str) -> None:
    book.credentials.put(_credential(book, event)._replace(closed=closed, changed=event.position))
