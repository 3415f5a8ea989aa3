"""What the common app tells of the phone that it runs in, within a session: its IMEI, and the cards that it sees.

    after CONNECT       OBSERVED, and CREDENTIAL_USED when the card holds a credential: before any command is sent, so
                        a card that was moved is on hold at the next exchange
    after DISCONNECT    OBSERVED, and CREDENTIAL_WRITTEN when this session has put a credential into the card
    either              WRONG_CARD when the phone sees cards, and the session's is not among them

The app holds no secret, so a phone may say what it likes. What it says is therefore taken for the card of its own
session only, told once for each of the two moments, and counted from the time of our own last answer: it cannot be
dated back. It names no number, announces and releases nothing. Whether a credential was written is not what the
phone says, but what the card has proved. So a lying phone can raise suspicion about the card that it has in hand, or
keep silent about itself; it ends no suspicion, and touches nobody else's card.
"""

from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.issuance_follower import JPKI_APPLICATION
from tsm.flows.lines import Lines
from tsm.flows.session import SessionService
from tsm.identifiers import Iccid, Imei, Imsi
from tsm.mas.messages import Return
from tsm.model import card as cards
from tsm.model import session as sessions
from tsm.model.card import ApplicationPersonalized, Card, LifeCycle
from tsm.model.checks import check_identifier
from tsm.model.event import Context
from tsm.model.line import APP, Signal, SignalKind
from tsm.model.session import Session

MOMENTS = (Return.CONNECT.name, Return.DISCONNECT.name)


class AppReport(NamedTuple):
    """What a phone says."""

    imei: str
    iccids: tuple[str, ...] = ()  # all that it sees; empty where it may not look
    subscription: str = ""  # the IMSI of the card, where it may know


class AppReports:
    """Takes reports of sessions under way."""

    def __init__(self, tsm: Tsm, sessions: SessionService, lines: Lines) -> None:
        self._tsm = tsm
        self._sessions = sessions
        self._lines = lines

    def take(self, report: AppReport, cookie: str, request_id: str) -> int:
        """Record it, with all that follows; the position of the last signal.

        INVALID_INPUT; UNKNOWN_SESSION, SESSION_EXPIRED; WRONG_ORDER unless CONNECT or DISCONNECT was the last answer;
        COMMAND_REUSED for another report at the same moment, of which no more counts than that its card is not seen.
        The same again is answered as before.
        """
        check(report)
        session, at = self._sessions.under_way(cookie)
        if session.answered not in MOMENTS:
            raise TsmError(ErrorCode.WRONG_ORDER, f"a report after {session.answered}")
        card = self._tsm.card_of(session.started.iccid)
        context = Context(
            actor="phone",
            role="phone",
            tenant=card.operator,
            correlation=sessions.stream(session.started.provider, session.started.reception),
            request=request_id,
        )
        outcomes = self._lines.record(self._signals(report, session, card, at), context)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return max(outcome.position for outcome in outcomes)

    def _signals(self, report: AppReport, session: Session, card: Card, at: datetime) -> list[Signal]:
        kinds = [SignalKind.OBSERVED]
        if session.answered == Return.CONNECT.name:
            kinds += [SignalKind.CREDENTIAL_USED] if holds_credential(card) else []
        elif self._has_written(session):
            kinds.append(SignalKind.CREDENTIAL_WRITTEN)
        if report.iccids and card.iccid not in report.iccids:
            kinds.append(SignalKind.WRONG_CARD)
        named = partial(Signal, source=APP, occurred_at=at, iccid=card.iccid, imei=report.imei)
        return [
            named(kind=kind, id=signal_id(session, kind), imsi=report.subscription if kind is kinds[0] else "")
            for kind in kinds
        ]

    def _has_written(self, session: Session) -> bool:
        """Whether the card has acknowledged the personalisation of a credential in this session."""
        started = session.started
        command = f"{started.provider}/{started.reception}/"
        return session.card_version > 0 and any(
            isinstance(event.fact, ApplicationPersonalized)
            and event.fact.application == JPKI_APPLICATION
            and event.context.command.startswith(command)
            for event in self._tsm.history(cards.stream(started.iccid), version=session.card_version)
        )


def check(report: AppReport) -> None:
    """INVALID_INPUT for what is no IMEI, ICCID or IMSI."""
    check_identifier(Imei, report.imei, "imei")
    for iccid in report.iccids:
        check_identifier(Iccid, iccid, "iccids")
    if report.subscription:
        check_identifier(Imsi, report.subscription, "subscription")


def holds_credential(card: Card) -> bool:
    application = card.applications.get(JPKI_APPLICATION)
    return application is not None and application.life_cycle == LifeCycle.PERSONALIZED


def signal_id(session: Session, kind: SignalKind) -> str:
    """One for each kind and moment of a session, and nothing of it can be read in there."""
    stream = sessions.stream(session.started.provider, session.started.reception)
    return f"{sha256(stream.encode()).hexdigest()[:32]}-{session.answered.lower()}-{kind.lower()}"
