"""Alerts and standings: what is suspected of cards, what persons said to that, and what follows.

A suspicion is an alert, one row for as long as there is a log: raised again it is the same. Whether it is in force says
the same rule as in `tsm.model.standing`, which decides what the facts are.
"""

from datetime import datetime

from projections.registry.book import Book, at, corrupt
from projections.registry.rows import AlertRow, StandingRow
from tsm.model.event import Event
from tsm.model.standing import (
    CardCleared,
    LevelChanged,
    SuspicionAcknowledged,
    SuspicionClosed,
    SuspicionEscalated,
    SuspicionRaised,
    SuspicionWithdrawn,
    Verdict,
    stream,
)
from tsm.model.swap_policy import Level

OPEN, ACKNOWLEDGED, CLOSED = "OPEN", "ACKNOWLEDGED", "CLOSED"  # of `state`, as the next two
WITHDRAWN, RELEASED = "WITHDRAWN", "RELEASED"
SAID = ("escalated", "verdict", "acknowledged_at", "acknowledged_by", "escalated_by", "closed_at", "closed_by")


def raised(book: Book, event: Event, fact: SuspicionRaised) -> None:
    """Raised again it keeps what persons said to it, and in place of another what they said to that."""
    standing = _touched(book, event)
    known = book.alerts.get(fact.suspicion)
    former = book.alerts.get(fact.succeeds) if fact.succeeds else None
    said = known if former is None or (known is not None and known.in_force) else former
    row = AlertRow(
        alert=fact.suspicion,
        iccid=standing.iccid,
        operator=standing.operator,
        rule=fact.rule,
        condition=fact.condition,
        level="",
        rule_level=fact.level,
        escalated=0,
        policy=fact.policy,
        since=at(fact.since),
        until=at(fact.until),
        state=OPEN,
        in_force=1,
        verdict="",
        evidence=",".join(map(str, fact.evidence)),
        overtaken="",
        raised_at=at(event.recorded_at),
        acknowledged_at="",
        acknowledged_by="",
        escalated_by="",
        closed_at="",
        closed_by="",
        ended_at="",
        ended_by="",
        position=event.position,
        changed=event.position,
    )
    if said is not None:
        row = row._replace(
            state=CLOSED if said.verdict else ACKNOWLEDGED if said.acknowledged_at else OPEN,
            **{column: getattr(said, column) for column in SAID},
        )
    if known is not None:
        row = row._replace(raised_at=known.raised_at, overtaken=known.overtaken, position=known.position)
    book.alerts.put(row._replace(level=_level(row)))


def withdrawn(book: Book, event: Event, fact: SuspicionWithdrawn) -> None:
    row, cause = _alert(book, event, fact.suspicion), event.context.causation
    known = [row.overtaken] if row.overtaken else []
    overtaken = ",".join([*known, cause]) if cause.isdecimal() else row.overtaken
    _put(book, event, _over(row._replace(overtaken=overtaken), event, WITHDRAWN))


def acknowledged(book: Book, event: Event, fact: SuspicionAcknowledged) -> None:
    row = _alert(book, event, fact.suspicion)
    state = row.state if row.state == CLOSED else ACKNOWLEDGED
    by = event.context.actor
    _put(book, event, row._replace(state=state, acknowledged_at=at(event.recorded_at), acknowledged_by=by))


def escalated(book: Book, event: Event, fact: SuspicionEscalated) -> None:
    row = _alert(book, event, fact.suspicion)._replace(escalated=fact.level, escalated_by=event.context.actor)
    _put(book, event, row._replace(level=_level(row)))


def closed(book: Book, event: Event, fact: SuspicionClosed) -> None:
    """A confirmed one stays in force: what was so does not end by being said."""
    row = _alert(book, event, fact.suspicion)
    row = row._replace(verdict=fact.verdict, closed_at=at(event.recorded_at), closed_by=event.context.actor)
    over = fact.verdict == Verdict.FALSE_ALARM
    _put(book, event, _over(row, event, CLOSED) if over else row._replace(state=CLOSED))


def cleared(book: Book, event: Event, fact: CardCleared) -> None:
    """A release settles all that began before it, but what leads to revocation."""
    standing = _touched(book, event)
    book.standings.put(standing._replace(cleared_at=at(fact.cleared_at), proof=fact.proof))
    for row in book.alerts.having("iccid", [standing.iccid]):
        settled = datetime.fromisoformat(row.since) <= fact.cleared_at and row.level != Level.REVOKE.name
        if row.in_force and settled:
            _put(book, event, _over(row, event, RELEASED))


def level_changed(book: Book, event: Event, fact: LevelChanged) -> None:
    row, now = _touched(book, event), at(event.recorded_at)
    on_hold = fact.level >= Level.HOLD
    changed = row._replace(
        level=Level(fact.level).name,
        since=now if row.level != Level(fact.level).name else row.since,
        on_hold=int(on_hold),
        on_hold_since=(row.on_hold_since or now) if on_hold else "",
        revoke_from=at(fact.revoke_from),
    )
    book.standings.put(changed)


def card_of(event: Event) -> str:
    return event.originator_id.removeprefix(stream(""))


def _touched(book: Book, event: Event) -> StandingRow:
    """The row of the card's standing, which this event changed."""
    iccid = card_of(event)
    row = book.standings.get(iccid)
    if row is None:
        card = book.cards.get(iccid)
        if card is None:
            raise corrupt(f"{event.originator_id} is of a card that was not registered")
        row = StandingRow(
            iccid=iccid,
            operator=card.operator,
            level=Level.NONE.name,
            on_hold=0,
            since=at(event.recorded_at),
            on_hold_since="",
            revoke_from="",
            cleared_at="",
            proof="",
            position=event.position,
            changed=event.position,
        )
    row = row._replace(changed=event.position)
    book.standings.put(row)
    return row


def _alert(book: Book, event: Event, suspicion: str) -> AlertRow:
    row = book.alerts.get(suspicion)
    if row is None:
        raise corrupt(f"{event.originator_id} knows no suspicion {suspicion}")
    return row


def _put(book: Book, event: Event, row: AlertRow) -> None:
    _touched(book, event)
    book.alerts.put(row._replace(changed=event.position))


def _over(row: AlertRow, event: Event, state: str) -> AlertRow:
    return row._replace(state=state, in_force=0, ended_at=at(event.recorded_at), ended_by=event.context.actor)


def _level(row: AlertRow) -> str:
    """By its rule, or by a person who takes it more seriously."""
    return Level(max(row.rule_level, row.escalated)).name
