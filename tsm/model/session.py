"""A session: one conversation with a card through the common app (MC-05 interface 3), from START to END.

No session key and no APDU is stored. The facts hold the challenges, the command counter and the MAC chaining value,
from which the vault derives the channel again: any worker can take the next request.

Stream: `session-<spId>-<rcptNum>`.
"""

from datetime import datetime
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact

GET_STATUS = "80f2"  # CLA INS
MOST_LOST = 16  # values of a sequence counter that may be used up between two answers that we got


class SessionStarted(Fact, frozen=True, kw_only=True):
    """START was accepted: the party's signature verified."""

    topic: ClassVar[str] = "session.started"
    provider: str
    reception: str
    iccid: str
    domain: str
    key: str  # KeyRef: PUT KEY within the session changes the card's keys, not those of the open channel
    key_version: int
    return_url: str  # that spSign covers: the only address to which the browser may go back
    token_sha256: str  # of the session token in the phone's cookie
    expires_at: datetime  # the session is over unless the phone is heard before


class CardConnected(Fact, frozen=True, kw_only=True):
    """CONNECT succeeded at the phone."""

    topic: ClassVar[str] = "session.card_connected"


class CommandSent(Fact, frozen=True, kw_only=True):
    """COMMAND: an APDU was handed to the phone."""

    topic: ClassVar[str] = "session.command_sent"
    step: str  # SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE, or COMMAND for a delegated one
    order: int  # iApduOrder of a delegated command; 0 for the server's own
    header: str  # CLA INS P1 P2 before secure messaging, hex
    length: int  # octets on the wire
    wire_sha256: str
    expires_at: datetime
    host_challenge: str = ""  # INITIALIZE UPDATE only, hex
    counter: int = 0  # SCP03 command counter after this command
    chaining: str = ""  # SCP03 MAC chaining value after this command, hex
    card_version: int = 0  # of the card's stream then, where the answer will say something of the card


class ResponseReceived(Fact, frozen=True, kw_only=True):
    """RESPONSE: the card's answer came back through the phone."""

    topic: ClassVar[str] = "session.response_received"
    step: str
    order: int
    status_word: str  # hex
    length: int  # octets on the wire
    wire_sha256: str
    card_challenge: str = ""  # INITIALIZE UPDATE only, hex
    key_version: int = 0  # INITIALIZE UPDATE only
    sequence_counter: str = ""  # of a card that proved these keys, hex; INITIALIZE UPDATE only
    counter_before: str = ""  # what it was when the card proved them last; empty when that is not known
    verified: bool = False  # it came through the secure channel: its R-MAC verified


class DisconnectSent(Fact, frozen=True, kw_only=True):
    """DISCONNECT: the phone was told to let the card go."""

    topic: ClassVar[str] = "session.disconnect_sent"
    expires_at: datetime


class Disconnected(Fact, frozen=True, kw_only=True):
    """The phone let the card go."""

    topic: ClassVar[str] = "session.disconnected"


class SessionFailed(Fact, frozen=True, kw_only=True):
    """No more delegated commands will be sent: DISCONNECT and END follow, with this status."""

    topic: ClassVar[str] = "session.failed"
    status: str  # strProcStatus
    error: str  # strErrInfo
    order: int = 0  # iApduOrder of the delegated command at which it failed, if it was one


class SessionEnded(Fact, frozen=True, kw_only=True):
    """END: the final answer, and the server's signature over it."""

    topic: ClassVar[str] = "session.ended"
    status: str  # strProcStatus
    mas_sign: str  # strMasSign: anyone may verify what was said, and a repeated request gets the same bytes
    request_sha256: str  # the request that END answers


class SessionExpired(Fact, frozen=True, kw_only=True):
    """Nothing was heard from the phone for too long; what lay with the card then is unknown."""

    topic: ClassVar[str] = "session.expired"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The session as its facts say."""

    started: SessionStarted
    expires_at: datetime
    answered: str = "CONNECT"  # the message that was sent last: CONNECT, COMMAND, DISCONNECT or END
    answers: int = 1  # how many requests were answered: the step number in the cookie
    sent: CommandSent | None = None  # the command that lies with the card, or was the last to
    card_version: int = 0  # the first that a command named: what the session learnt of the card comes after; 0: nothing
    host_challenge: str = ""
    card_challenge: str = ""
    key_version: int = 0  # that INITIALIZE UPDATE asked for last; the record's need not be the card's
    executed: int = 0  # delegated commands that the card acknowledged
    failed: SessionFailed | None = None
    ended: SessionEnded | None = None
    expired: bool = False

    @property
    def over(self) -> bool:
        return self.expired or self.ended is not None

    @property
    def unanswered(self) -> str:
        """Header of the delegated command that lies with the card; empty when none does."""
        return self.sent.header if self.sent and self.sent.order and self.answered == "COMMAND" else ""


def goes_on(header: str, status_word: str, verified: bool) -> bool:
    """Whether a delegated command's answer lets the script go on: a 9000 that verified.

    GET STATUS is answered as well when it has more to tell (6310) or nothing (6A88, which nothing protects).
    """
    if header.startswith(GET_STATUS):
        return status_word == "6a88" or (verified and status_word in ("9000", "6310"))
    return verified and status_word == "9000"


def counter_jumped(received: ResponseReceived) -> bool:
    """Whether the card's sequence counter is not where our sessions left it.

    Every INITIALIZE UPDATE uses up one value (GPC Amendment D section 6.2.2.1), also one whose answer was lost.
    """
    if not received.sequence_counter or not received.counter_before:
        return False
    passed = int(received.sequence_counter, 16) - int(received.counter_before, 16)
    return not 0 < passed <= MOST_LOST


def stream(provider: str, reception: str) -> str:
    """The session's stream: one session per delegation."""
    return f"session-{provider}-{reception}"


def expire(state: Session) -> list[SessionExpired]:
    """Decide that the phone was silent for too long."""
    return [] if state.over else [SessionExpired()]


def evolve(state: Session | None, fact: Fact) -> Session:
    """Fold one fact."""
    if isinstance(fact, SessionStarted):
        return Session(started=fact, expires_at=fact.expires_at)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a session begins with its start")
    match fact:
        case CommandSent():
            return msgspec.structs.replace(
                state,
                answered="COMMAND",
                expires_at=fact.expires_at,
                answers=state.answers + 1,
                sent=fact,
                card_version=state.card_version or fact.card_version,
                host_challenge=fact.host_challenge or state.host_challenge,
                key_version=int(fact.header[4:6], 16) if fact.host_challenge else state.key_version,
            )
        case ResponseReceived():
            header = state.sent.header if state.sent else ""
            return msgspec.structs.replace(
                state,
                card_challenge=fact.card_challenge or state.card_challenge,
                executed=state.executed + (fact.order > 0 and goes_on(header, fact.status_word, fact.verified)),
            )
        case DisconnectSent():
            return msgspec.structs.replace(
                state, answered="DISCONNECT", expires_at=fact.expires_at, answers=state.answers + 1
            )
        case SessionFailed():
            return msgspec.structs.replace(state, failed=fact)
        case SessionEnded():
            return msgspec.structs.replace(state, answered="END", answers=state.answers + 1, ended=fact)
        case SessionExpired():
            return msgspec.structs.replace(state, expired=True)
        case _:
            return state


FACTS: tuple[type[Fact], ...] = (
    SessionStarted,
    CardConnected,
    CommandSent,
    ResponseReceived,
    DisconnectSent,
    Disconnected,
    SessionFailed,
    SessionEnded,
    SessionExpired,
)
