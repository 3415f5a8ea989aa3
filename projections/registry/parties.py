"""Enrolled parties, and the load files that providers registered."""

from projections.registry.book import Book, corrupt
from projections.registry.rows import CatalogueRow, PartyRow, key
from tsm.model.authority import AuthorityEnrolled
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.event import Event
from tsm.model.operator import OperatorEnrolled
from tsm.model.party import CertificateReplaced, CertificateWithdrawn
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled

Enrolled = OperatorEnrolled | ProviderEnrolled | TerminalEnrolled | AuthorityEnrolled


def enrolled(book: Book, event: Event, fact: Enrolled) -> None:
    kind, _, party = event.originator_id.partition("-")
    row = PartyRow(
        key=party_of(event),
        kind=kind,
        party=party,
        name="" if isinstance(fact, TerminalEnrolled) else fact.name,
        municipality=fact.municipality if isinstance(fact, TerminalEnrolled) else "",
        domain=fact.domain if isinstance(fact, ProviderEnrolled) else "",
        authority=fact.authority if isinstance(fact, ProviderEnrolled) else "",
        enrolled=1,
        certificate_fingerprint=fact.certificate_fingerprint,
        position=event.position,
    )
    book.parties.put(row)


def certificate_replaced(book: Book, event: Event, fact: CertificateReplaced) -> None:
    """One that was withdrawn is enrolled again by it."""
    row = _party(book, event)
    book.parties.put(row._replace(enrolled=1, certificate_fingerprint=fact.certificate_fingerprint))


def certificate_withdrawn(book: Book, event: Event, _: CertificateWithdrawn) -> None:
    book.parties.put(_party(book, event)._replace(enrolled=0, certificate_fingerprint=""))


def load_file_registered(book: Book, event: Event, fact: LoadFileRegistered) -> None:
    """The version registered last is the one that is loaded."""
    before = book.catalogue.get(fact.load_file)
    row = CatalogueRow(
        load_file=fact.load_file,
        provider=fact.provider,
        version=fact.version,
        sha256=fact.sha256,
        size=fact.size,
        module=fact.module,
        application=fact.application,
        position=event.position if before is None else before.position,
        changed=event.position,
    )
    book.catalogue.put(row)


def party_of(event: Event) -> str:
    kind, _, party = event.originator_id.partition("-")
    return key(kind, party)


def _party(book: Book, event: Event) -> PartyRow:
    row = book.parties.get(party_of(event))
    if row is None:
        raise corrupt(f"{event.originator_id} does not begin with its enrolment")
    return row
