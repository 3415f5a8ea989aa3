"""What the cards themselves give away in sessions becomes signals: another card answered, a sequence counter jumped.

A session that failed because another card answered than the one expected, told apart by its key diversification data,
is WRONG_CARD. A sequence counter that is not where our sessions left it is COUNTER_JUMPED (`tsm.model.session`). Both
are about the card that was expected. The signal's id is the position of the event that says so: however often an event
is read, its signal is recorded once.

Neither is proved. The answer to INITIALIZE UPDATE goes through the phone unprotected, so a phone can make up a counter
or another card's data, and so accuse the card in it; or hide a jump, if it knows what to say. A card whose cryptogram
verifies and whose counter ran backwards is either behind such a phone or was copied.

What is refused stays refused: a phone that has accused its card a thousand times is heard no more, and holds nobody up.
"""

import logging

from tsm.application import Tsm
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.lines import Lines
from tsm.mas.status import Status
from tsm.model import session as sessions
from tsm.model.event import Context, Event
from tsm.model.line import Signal, SignalKind
from tsm.model.session import ResponseReceived, SessionFailed, counter_jumped

SOURCE = "card"
log = logging.getLogger(__name__)


class CardSignals(Follower):
    """Reads along what sessions record."""

    name = "card-signals"
    topics = (SessionFailed.topic, ResponseReceived.topic)

    def __init__(self, tsm: Tsm, lines: Lines, position: Position) -> None:
        super().__init__(tsm, position)
        self._lines = lines
        self._waiting: dict[int, tuple[Event, SignalKind]] = {}  # by position

    def see(self, event: Event) -> None:
        kind = kind_of(event)
        if kind is not None:
            self._waiting[event.position] = event, kind

    def act(self) -> None:
        for_each(list(self._waiting), self._record)

    def unfinished(self) -> int | None:
        return min(self._waiting, default=None)

    def _record(self, position: int) -> None:
        event, kind = self._waiting[position]
        session = self._tsm.load(event.originator_id, sessions.evolve).state
        assert session is not None  # noqa: S101  the event is one of its own
        iccid = session.started.iccid
        context = Context(
            actor="system:card-signals",
            role="system",
            tenant=self._tsm.card_of(iccid).operator,
            correlation=event.originator_id,
            causation=str(position),
        )
        signal = Signal(id=f"position-{position}", source=SOURCE, kind=kind, occurred_at=event.occurred_at, iccid=iccid)
        [outcome] = self._lines.record([signal], context)
        if outcome.error is not None:
            log.warning("event %d makes no signal: %s", position, outcome.error)
        del self._waiting[position]


def kind_of(event: Event) -> SignalKind | None:
    """What an event of a session says against its card."""
    match event.fact:
        case SessionFailed(status=Status.WRONG_CARD):
            return SignalKind.WRONG_CARD
        case ResponseReceived() as received if counter_jumped(received):
            return SignalKind.COUNTER_JUMPED
        case _:
            return None
