"""Delegations and the sessions that carry them out."""

from projections.registry.book import Book, at, corrupt, seen_by
from projections.registry.rows import DelegationRow, SessionRow, key
from tsm.model.delegation import DelegationAccepted, DelegationEnded
from tsm.model.event import Event
from tsm.model.session import (
    CardConnected,
    CommandSent,
    Disconnected,
    DisconnectSent,
    ResponseReceived,
    SessionEnded,
    SessionExpired,
    SessionFailed,
    SessionStarted,
)

STARTED, CONNECTED, AUTHENTICATED = "STARTED", "CONNECTED", "AUTHENTICATED"
DISCONNECTING, ENDED, EXPIRED = "DISCONNECTING", "ENDED", "EXPIRED"


def accepted(book: Book, event: Event, fact: DelegationAccepted) -> None:
    provider = book.owner(fact.iccid, fact.domain)
    row = DelegationRow(
        key=key(fact.provider, fact.reception),
        party=fact.provider,
        reception=fact.reception,
        operator=fact.operator,
        provider=provider,
        seen_by=seen_by(fact.operator, provider, fact.provider),
        iccid=str(fact.iccid),
        domain=fact.domain,
        correlation=book.story(fact.correlation),
        commands=len(fact.commands),
        executed=0,
        status="",
        expires_at=at(fact.expires_at),
        position=event.position,
        changed=event.position,
    )
    book.delegations.put(row)


def delegation_ended(book: Book, event: Event, fact: DelegationEnded) -> None:
    row = _delegation(book, event)
    book.delegations.put(row._replace(status=fact.status, executed=fact.executed, changed=event.position))


def started(book: Book, event: Event, fact: SessionStarted) -> None:
    """The delegation of the same number says for which operator's card, and to which story it belongs."""
    delegation = _delegation(book, event)
    row = SessionRow(
        key=delegation.key,
        party=delegation.party,
        reception=delegation.reception,
        operator=delegation.operator,
        provider=delegation.provider,
        seen_by=delegation.seen_by,
        iccid=str(fact.iccid),
        domain=fact.domain,
        key_version=fact.key_version,
        state=STARTED,
        live=1,
        exchanges=0,
        correlation=delegation.correlation,
        started_at=at(event.recorded_at),
        last_heard_at=at(event.recorded_at),
        expires_at=at(fact.expires_at),
        status="",
        position=event.position,
        changed=event.position,
    )
    book.sessions.put(row)


def command_sent(book: Book, event: Event, fact: CommandSent) -> None:
    row = _session(book, event)
    book.sessions.put(row._replace(exchanges=row.exchanges + 1, expires_at=at(fact.expires_at), changed=event.position))


def response_received(book: Book, event: Event, fact: ResponseReceived) -> None:
    """The channel is open once the card took EXTERNAL AUTHENTICATE (GPCS v2.3.1 section E.5.2)."""
    row = _session(book, event)
    opened = fact.step == "EXTERNAL AUTHENTICATE" and fact.status_word == "9000"
    state = AUTHENTICATED if opened else row.state
    book.sessions.put(row._replace(state=state, last_heard_at=at(event.recorded_at), changed=event.position))


def connected(book: Book, event: Event, _: CardConnected) -> None:
    row = _session(book, event)
    book.sessions.put(row._replace(state=CONNECTED, last_heard_at=at(event.recorded_at), changed=event.position))


def disconnect_sent(book: Book, event: Event, fact: DisconnectSent) -> None:
    row = _session(book, event)
    book.sessions.put(row._replace(state=DISCONNECTING, expires_at=at(fact.expires_at), changed=event.position))


def disconnected(book: Book, event: Event, _: Disconnected) -> None:
    book.sessions.put(_session(book, event)._replace(last_heard_at=at(event.recorded_at), changed=event.position))


def failed(book: Book, event: Event, fact: SessionFailed) -> None:
    book.sessions.put(_session(book, event)._replace(status=fact.status, changed=event.position))


def session_ended(book: Book, event: Event, fact: SessionEnded) -> None:
    row = _session(book, event)
    book.sessions.put(row._replace(state=ENDED, live=0, status=fact.status, changed=event.position))


def expired(book: Book, event: Event, _: SessionExpired) -> None:
    book.sessions.put(_session(book, event)._replace(state=EXPIRED, live=0, changed=event.position))


def run_of(event: Event) -> str:
    """Party and reception number, from the stream of the delegation or of the session."""
    party, _, reception = event.originator_id.partition("-")[2].rpartition("-")
    return f"{party}|{reception}"


def _delegation(book: Book, event: Event) -> DelegationRow:
    row = book.delegations.get(run_of(event))
    if row is None:
        raise corrupt(f"no delegation is known for {event.originator_id}")
    return row


def _session(book: Book, event: Event) -> SessionRow:
    row = book.sessions.get(run_of(event))
    if row is None:
        raise corrupt(f"{event.originator_id} does not begin with its start")
    return row
