"""Which event changes which rows, and which rows that takes: one line for each kind of fact.

Events change rows one after the other, in the order of the log. Before that a page says which rows it will need, so
that each table is asked once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from projections.projection import Rows
from projections.registry import cards, credentials, delegations, operations, parties, standings
from projections.registry.book import Book
from projections.registry.held import Held
from projections.registry.rows import key
from tsm.model import (
    authority,
    card,
    catalogue,
    credential,
    delegation,
    domain,
    operation,
    operator,
    party,
    service_provider,
    session,
    standing,
    terminal,
)
from tsm.model.event import Event, Fact

Change = Callable[[Book, Event, Any], None]

CHANGES: Mapping[type[Fact], Change] = {
    session.CommandSent: delegations.command_sent,
    session.ResponseReceived: delegations.response_received,
    session.SessionStarted: delegations.started,
    session.CardConnected: delegations.connected,
    session.DisconnectSent: delegations.disconnect_sent,
    session.Disconnected: delegations.disconnected,
    session.SessionFailed: delegations.failed,
    session.SessionEnded: delegations.session_ended,
    session.SessionExpired: delegations.expired,
    delegation.DelegationAccepted: delegations.accepted,
    delegation.DelegationEnded: delegations.delegation_ended,
    domain.DomainClaimed: cards.claimed,
    card.CardRegistered: cards.registered,
    card.SecurityDomainCreated: cards.created,
    card.KeysPut: cards.keys_put,
    card.ProvisionalKeysHandedOut: cards.handed_out,
    card.KeysShared: cards.shared,
    card.ProvisionalKeysDestroyed: cards.destroyed,
    card.KeysDestroyed: cards.retired_keys_destroyed,
    card.LoadFileLoaded: cards.loaded,
    card.ApplicationInstalled: cards.installed,
    card.ApplicationPersonalized: cards.personalized,
    card.LifeCycleChanged: cards.life_cycle_changed,
    card.ContentDeleted: cards.deleted,
    card.CardAuthenticationFailed: cards.authentication_failed,
    card.CardAuthenticated: cards.authenticated,
    card.CardReleased: cards.authenticated,
    credential.CredentialApplied: credentials.applied,
    credential.ApplicationRefused: credentials.refused,
    credential.CredentialIssued: credentials.issued,
    **{fact: credentials.gone_on for fact in credential.REACHED if fact is not credential.CredentialIssued},
    **dict.fromkeys(credentials.HOLDS, credentials.hold_changed),
    credential.RevocationOrdered: credentials.revocation_ordered,
    credential.CredentialRevoked: credentials.revoked,
    credential.ErasureOrdered: credentials.erasure_ordered,
    operator.OperatorEnrolled: parties.enrolled,
    service_provider.ProviderEnrolled: parties.enrolled,
    terminal.TerminalEnrolled: parties.enrolled,
    authority.AuthorityEnrolled: parties.enrolled,
    party.CertificateReplaced: parties.certificate_replaced,
    party.CertificateWithdrawn: parties.certificate_withdrawn,
    catalogue.LoadFileRegistered: parties.load_file_registered,
    operation.OperationRequested: operations.requested,
    operation.OperationApproved: operations.approved,
    operation.OperationDelegated: operations.delegated,
    operation.OperationPutBack: operations.put_back,
    operation.OperationEnded: operations.ended,
    standing.SuspicionRaised: standings.raised,
    standing.SuspicionWithdrawn: standings.withdrawn,
    standing.SuspicionAcknowledged: standings.acknowledged,
    standing.SuspicionEscalated: standings.escalated,
    standing.SuspicionClosed: standings.closed,
    standing.CardCleared: standings.cleared,
    standing.LevelChanged: standings.level_changed,
}
TOPICS = tuple(fact.topic for fact in CHANGES)


def fold(rows: Rows, events: Sequence[Event]) -> None:
    """STORE_CORRUPT for an event that does not fit what came before it."""
    book = Book(rows)
    foresee(book, events)
    for event in events:
        CHANGES[type(event.fact)](book, event, event.fact)
        if event.originator_id.startswith("card-"):
            cards.touched(book, event)
    book.close()


def foresee(book: Book, events: Sequence[Event]) -> None:
    """Fetches what the events are known to need."""
    needed: dict[Held[Any], set[str]] = defaultdict(set)
    for event in events:
        for held, wanted in NEEDS[event.originator_id.partition("-")[0]](book, event):
            needed[held].add(wanted)
    for held, keys in needed.items():
        held.foresee(keys)
    book.keys.foresee({key(ring.key, put) for ring in book.key_rings for put in ring.puts.split(",")})
    book.domains.foresee({key(row.iccid, row.domain) for row in book.load_files})
    owners = {claim.aid: claim.provider for claim in book.claims}
    book.holders.foresee(
        {
            key(owners[event.fact.domain], cards.iccid_of(event))
            for event in events
            if isinstance(event.fact, card.SecurityDomainCreated) and event.fact.domain in owners
        }
    )


Need = tuple[Held[Any], str]


def _of_card(book: Book, event: Event) -> Iterator[Need]:
    fact: Any = event.fact
    iccid = cards.iccid_of(event)
    yield book.cards, iccid
    match fact:
        case card.CardRegistered():
            yield from _of_keys(book, event, iccid, str(fact.isd))
        case card.KeysPut() | card.ProvisionalKeysHandedOut() | card.KeysShared():
            yield from _of_keys(book, event, iccid, fact.domain)
        case card.ProvisionalKeysDestroyed() | card.KeysDestroyed():
            yield from _of_keys(book, event, iccid, fact.domain)
        case card.SecurityDomainCreated():
            yield book.claims, fact.domain
            yield book.domains, key(iccid, fact.domain)
            yield book.domains, key(iccid, fact.parent)
        case card.LoadFileLoaded():
            yield book.load_files, key(iccid, fact.load_file)
            yield book.domains, key(iccid, fact.domain)
        case card.ApplicationInstalled() | card.ApplicationPersonalized():
            yield book.applications, key(iccid, fact.application)
            yield book.domains, key(iccid, fact.domain)
        case card.LifeCycleChanged():
            yield book.applications, key(iccid, fact.instance)
            yield book.domains, key(iccid, fact.instance)
            yield book.domains, key(iccid, fact.domain)
        case card.ContentDeleted():
            for gone in (key(iccid, aid) for aid in fact.deleted):
                yield from ((held, gone) for held in (book.load_files, book.applications, book.domains, book.key_rings))
        case _:
            yield book.domains, key(iccid, fact.domain)


def _of_keys(book: Book, event: Event, iccid: str, aid: str) -> Iterator[Need]:
    yield book.domains, key(iccid, aid)
    yield book.key_rings, key(iccid, aid)
    yield book.credentials, event.context.correlation


def _of_delegation(book: Book, event: Event) -> Iterator[Need]:
    yield book.delegations, delegations.run_of(event)
    if isinstance(event.fact, delegation.DelegationAccepted):
        yield book.cards, event.fact.iccid
        yield book.claims, event.fact.domain
        yield book.credentials, event.fact.correlation


def _of_session(book: Book, event: Event) -> Iterator[Need]:
    yield book.sessions, delegations.run_of(event)
    if isinstance(event.fact, session.SessionStarted):
        yield book.delegations, delegations.run_of(event)


def _of_credential(book: Book, event: Event) -> Iterator[Need]:
    yield book.credentials, credentials.credential_of(event)


def _of_operation(book: Book, event: Event) -> Iterator[Need]:
    yield book.operations, operations.operation_of(event)
    if isinstance(event.fact, operation.OperationRequested):
        yield book.credentials, event.fact.target
        yield book.credentials, event.context.correlation


def _of_standing(book: Book, event: Event) -> Iterator[Need]:
    iccid, fact = standings.card_of(event), event.fact
    yield book.standings, iccid
    yield book.cards, iccid
    if suspicion := getattr(fact, "suspicion", ""):
        yield book.alerts, suspicion
    if succeeds := getattr(fact, "succeeds", ""):
        yield book.alerts, succeeds


def _of_party(book: Book, event: Event) -> Iterator[Need]:
    yield book.parties, parties.party_of(event)


def _of_domain(book: Book, event: Event) -> Iterator[Need]:
    yield book.claims, event.originator_id.removeprefix("domain-")


def _of_catalogue(book: Book, event: Event) -> Iterator[Need]:
    yield book.catalogue, event.originator_id.removeprefix("catalogue-")


NEEDS: Mapping[str, Callable[[Book, Event], Iterator[Need]]] = {  # by what a stream is of
    "session": _of_session,
    "delegation": _of_delegation,
    "card": _of_card,
    "credential": _of_credential,
    "operation": _of_operation,
    "standing": _of_standing,
    "operator": _of_party,
    "provider": _of_party,
    "terminal": _of_party,
    "authority": _of_party,
    "domain": _of_domain,
    "catalogue": _of_catalogue,
}
