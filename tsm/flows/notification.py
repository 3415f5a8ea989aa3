"""NOTIFY (MC-05 interface 4): each party learns what its delegated commands did.

The exchange that receives a result lays down, sealed beside the log, the very message that the party will get. The
worker reads along the log and posts it, one thread for each party, so that a slow one delays nobody else. A post that
fails is repeated with growing pauses, a minute at most, until `GIVE_UP_AFTER` has passed since the result, restarts or
not. How it ended is recorded as `ResultNotified`, and the message leaves the server in the same commit. A party may get
a message twice, never a different one.

There is a NOTIFY for every delegated command that the card answered, and one with order 0 when a session failed at a
step of the server's own. An operator on this server reads the log itself: nothing is posted, and the result counts as
acknowledged.
"""

import heapq
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Condition, Thread
from typing import NamedTuple, Protocol

from tsm.application import Change, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import Follower, Position
from tsm.mas.messages import NotificationRequest, NotificationResponse
from tsm.mas.status import Status
from tsm.model import delegation as delegations
from tsm.model import service_provider as providers
from tsm.model.delegation import DelegationAccepted, ResultNotified
from tsm.model.event import Context, Event
from tsm.model.session import ResponseReceived, SessionExpired, SessionFailed

GIVE_UP_AFTER = timedelta(hours=24)
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0  # seconds between attempts: doubled each time
REQUEST = "request"  # the payload's name

Clock = Callable[[], datetime]
log = logging.getLogger(__name__)


class Outbound(Protocol):
    """The way to the parties."""

    def post(self, url: str, body: bytes) -> bytes:
        """POST an XML message; the answer's body. UPSTREAM_UNAVAILABLE when there is none."""


class Notice(NamedTuple):
    """One NOTIFY to be sent."""

    provider: str
    reception: str
    order: int

    @property
    def stream(self) -> str:
        """Where its message lies: payloads only, no events."""
        return f"notification-{self.provider}-{self.reception}-{self.order}"


def notification_payload(
    accepted: DelegationAccepted, order: int, status: Status, status_word: bytes = b"", data: bytes = b""
) -> dict[tuple[str, str], bytes]:
    """What NOTIFY will say of one command (or of the session, order 0), as a payload of the commit that knows it.

    A command has one response, so iRespApduNum is its order.
    """
    notice = Notice(accepted.provider, accepted.reception, order)
    message = NotificationRequest(accepted.reception, order, order, status, status_word, data, status.info)
    return {(notice.stream, REQUEST): message.encode()}


class NotificationWorker(Follower):
    """Posts what is due and records how it ended."""

    name = "notification"
    topics = (ResponseReceived.topic, SessionFailed.topic, SessionExpired.topic, ResultNotified.topic)

    def __init__(self, tsm: Tsm, outbound: Outbound, position: Position, clock: Clock) -> None:
        super().__init__(tsm, position)
        self._outbound = outbound
        self._clock = clock
        self._pending: dict[Notice, Event] = {}  # to the event that asked for it
        self._fresh: deque[Notice] = deque()
        self._needless: deque[Notice] = deque()  # those without a message, as the senders find out
        self._senders: dict[str, Sender] = {}

    def see(self, event: Event) -> None:
        fact = event.fact
        if isinstance(fact, ResultNotified):
            self._pending.pop(notice_in(event.originator_id, fact.order), None)
        elif (order := order_to_notify(event)) is not None:
            notice = notice_in(event.originator_id, order)
            if notice not in self._pending:
                self._pending[notice] = event
                self._fresh.append(notice)

    def act(self) -> None:
        while self._needless:
            self._pending.pop(self._needless.popleft(), None)
        while self._fresh:
            notice = self._fresh[0]
            if notice in self._pending:
                self._sender(notice.provider).take(notice)
            self._fresh.popleft()

    def unfinished(self) -> int | None:
        return min((event.position for event in self._pending.values()), default=None)

    def keeping_up(self) -> bool:
        return super().keeping_up() and all(sender.alive for sender in list(self._senders.values()))

    def stop(self) -> None:
        super().stop()
        for sender in self._senders.values():
            sender.stop()

    def _sender(self, provider: str) -> "Sender":
        if provider not in self._senders:
            self._senders[provider] = Sender(provider, self.deliver)
        return self._senders[provider]

    def deliver(self, notice: Notice, attempt: int) -> bool:
        """One attempt; whether the notice came to its end."""
        asked = self._pending.get(notice)
        if asked is None:  # told by another server on the same log
            return True
        message = self._tsm.payload(notice.stream, REQUEST)
        if message is None:  # told before, by this worker's last run or by the notice of what failed
            self._needless.append(notice)
            return True
        provider = self._tsm.load(providers.stream(notice.provider), providers.evolve).state
        if provider is None:  # an operator on this server
            return self._record(notice, acknowledged=True, attempts=0)
        try:
            answer = NotificationResponse.parse(self._outbound.post(provider.notify_url, message))
        except TsmError as error:
            log.log(logging.DEBUG if attempt > 1 else logging.WARNING, "%s, attempt %d: %s", notice, attempt, error)
            if self._clock() < asked.occurred_at + GIVE_UP_AFTER:
                return False
            log.error("%s is given up after %d attempts: %s", notice, attempt, error)
            return self._record(notice, acknowledged=False, attempts=attempt)
        return self._record(notice, acknowledged=answer.result, attempts=attempt)

    def _record(self, notice: Notice, acknowledged: bool, attempts: int) -> bool:
        stream = delegations.stream(notice.provider, notice.reception)
        while True:
            loaded = self._tsm.load(stream, delegations.evolve)
            if loaded.state is None:
                raise TsmError(ErrorCode.STORE_CORRUPT, f"{stream} has results but no acceptance")
            try:
                self._tsm.commit(
                    Change(
                        stream, loaded.version, delegations.notify(loaded.state, notice.order, acknowledged, attempts)
                    ),
                    context=context_of(loaded.state.accepted),
                    occurred_at=self._clock(),
                    drop_payloads=[notice.stream],
                )
            except TsmError as error:
                if error.code is not ErrorCode.CONFLICT:
                    raise
            else:
                return True


class Sender:
    """The thread of one party: what is due first goes first."""

    def __init__(self, provider: str, deliver: Callable[[Notice, int], bool]) -> None:
        self._deliver = deliver
        self._due: list[tuple[float, int, Notice, int]] = []  # when, sequence, what, how many attempts before
        self._sequence = 0
        self._changed = Condition()
        self._stopping = False
        self._thread = Thread(target=self._run, name=f"notification {provider}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def take(self, notice: Notice, attempts: int = 0, pause: float = 0.0) -> None:
        with self._changed:
            self._sequence += 1
            heapq.heappush(self._due, (time.monotonic() + pause, self._sequence, notice, attempts))
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            notice, attempts = job
            try:
                done = self._deliver(notice, attempts + 1)
            except Exception:  # one party's thread outlives a fault: the notice is tried again
                log.exception("NOTIFY %s", notice.stream)
                done = False
            if not done:
                self.take(notice, attempts + 1, min(FIRST_PAUSE * 2**attempts, LONGEST_PAUSE))

    def _next(self) -> tuple[Notice, int] | None:
        """The next job when it is due; None when the sender stops."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    _, _, notice, attempts = heapq.heappop(self._due)
                    return notice, attempts
                self._changed.wait(self._due[0][0] - now if self._due else None)
        return None


def order_to_notify(event: Event) -> int | None:
    """Which command's NOTIFY an event asks for: 0 for a session's own failure, None when it asks for none."""
    match event.fact:
        case ResponseReceived(order=order) if order > 0:
            return order
        case SessionFailed(order=order):
            return order
        case SessionExpired():
            return delegations.FAILURE_NOTICE
        case _:
            return None


def notice_in(stream: str, order: int) -> Notice:
    """Sessions and delegations have the same two names in their streams."""
    _, provider, reception = stream.split("-")
    return Notice(provider, reception, order)


def context_of(accepted: DelegationAccepted) -> Context:
    return Context(
        actor="system:notification",
        role="system",
        tenant=accepted.provider,
        tenants=() if accepted.operator == accepted.provider else (accepted.operator,),
        correlation=accepted.correlation,
        command=f"{accepted.provider}/{accepted.reception}",
    )
