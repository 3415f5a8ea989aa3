"""Swap notices: sinks are told what their subscriptions noted, and subscriptions end when their time has come.

One subscription's notifications are sent one after the other, in order. An attempt that fails is repeated with pauses
that double, from `FIRST_PAUSE` to `LONGEST_PAUSE`, or as the sink wishes (`Retry-After`), for `GIVE_UP_AFTER` from the
time when it was noted, restarts or not. A sink may be told twice of the same, under one id; never of two things under
one, nor of one thing under two.

    2xx        told
    410        the sink is gone: the subscription ends, and nothing is sent any more
    401, 403   the sink does not take its credential: after `REFUSALS` of them in a row, the same
    others     again; after `GIVE_UP_AFTER`, the same

Nothing is sent to a relying party that is not trusted any more. Where a token's subject does not mean the line any
more, no swap is sent, only that the subscription ended.

What is to be sent, and what became of it, is in the log; so a restart finds what is unfinished. Threads are few and
shared, but one host, and one relying party, has only some of them; the next one that is free is that relying party's
for which the fewest are at work: who answers slowly waits for himself.
"""

import heapq
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from threading import Condition, Lock, Thread
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from tsm.application import Tsm, decided
from tsm.errors import TsmError
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.subscriptions import CREDENTIAL, Found, Grounds, SwapWatcher, by_the_system, commit, read
from tsm.model import subscription as subscriptions
from tsm.model.event import Event, Fact
from tsm.model.subscription import (
    ENDED,
    Reason,
    SinkNotified,
    SubscriptionCreated,
    SubscriptionEnded,
    SwapNoted,
)

GIVE_UP_AFTER = timedelta(hours=24)
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 900.0  # seconds between attempts: doubled each time
LONGEST_WISH = 3600.0  # seconds that a sink may ask us to wait
REFUSALS = 5  # of the credential, one after the other
THREADS, PER_CLIENT, PER_HOST = 16, 6, 2  # attempts at a time
GONE, UNAUTHENTICATED, FORBIDDEN = 410, 401, 403
log = logging.getLogger(__name__)

Clock = Callable[[], datetime]


class Notice(NamedTuple):
    """What a sink is told."""

    id: str  # the same at every attempt, and of nothing else
    subscription: str
    sink: str
    credential: str  # empty: none
    at: datetime  # when what is told happened
    msisdn: str = ""  # of a swap, where the relying party knows the number
    reason: str = ""  # of an end; empty: it is a swap
    detail: str = ""


class Answer(NamedTuple):
    """What a sink said."""

    status: int  # of HTTP
    retry_after: float = 0.0  # seconds


class Outbound(Protocol):
    """The way to the sinks."""

    def tell(self, notice: Notice) -> Answer:
        """One attempt, of bounded time. UPSTREAM_UNAVAILABLE when there is no answer, or no way to one."""


class Deadline(NamedTuple):
    """When a subscription ends by itself."""

    at: datetime
    reason: Reason
    position: int  # of its creation


class Job:
    """A subscription that has something to be sent, and how that went so far."""

    def __init__(self, stream: str, client: str, host: str) -> None:
        self.stream = stream
        self.client = client
        self.host = host
        self.name = ""  # of the notification that is being sent
        self.attempts = 0  # to send it
        self.refusals = 0  # of the credential, since it was last taken
        self.again = False  # there is more since it was last looked at

    @property
    def pause(self) -> float:
        """Seconds until the next attempt."""
        return min(FIRST_PAUSE * 2.0 ** min(max(self.attempts - 1, 0), 32), LONGEST_PAUSE)


class SwapNoticesWorker(Follower):
    """Sends what is noted, and ends what is due."""

    name = "swap-notices"
    topics = (SubscriptionCreated.topic, SwapNoted.topic, SubscriptionEnded.topic, SinkNotified.topic)

    def __init__(
        self,
        tsm: Tsm,
        outbound: Outbound,
        watcher: SwapWatcher,
        grounds: Grounds,
        position: Position,
        clock: Clock,
    ) -> None:
        """`watcher`: no subscription ends by time before it knows what was recorded by then."""
        super().__init__(tsm, position)
        self._outbound = outbound
        self._watcher = watcher
        self._grounds = grounds
        self._clock = clock
        self._deadlines: dict[str, Deadline] = {}  # by stream, in order of position
        self._by_time: list[tuple[datetime, str]] = []  # a heap of these, and of some that ended otherwise
        self._due: dict[str, int] = {}  # those that are over, and how far the log had come when that was noticed
        self._waiting: dict[str, dict[str, Event]] = {}  # by stream and name, in order: what is to be sent
        self._waiting_lock = Lock()
        self._fresh: dict[str, None] = {}  # streams that the desk has not heard of
        self._desk = Desk(self.deliver)

    def see(self, event: Event) -> None:
        stream = event.originator_id
        match event.fact:
            case SubscriptionCreated() as created:
                if (deadline := subscriptions.deadline(created)) is not None:
                    self._deadlines[stream] = Deadline(*deadline, event.position)
                    heapq.heappush(self._by_time, (deadline[0], stream))
            case SwapNoted(swap=swap):
                self._wait(stream, str(swap), event)
            case SubscriptionEnded(quiet=quiet):
                self._deadlines.pop(stream, None)
                self._due.pop(stream, None)
                if not quiet:
                    self._wait(stream, ENDED, event)
            case SinkNotified(notification=name):
                self._forget(stream, name)

    def act(self) -> None:
        now = self._clock()
        while self._by_time and self._by_time[0][0] <= now:
            _, stream = heapq.heappop(self._by_time)
            if stream in self._deadlines:
                self._due[stream] = self._after
        try:
            for_each([stream for stream, at in self._due.items() if at <= self._watcher.watched], self._end)
        finally:
            for_each(list(self._fresh), self._hand_on)

    def unfinished(self) -> int | None:
        with self._waiting_lock:
            waiting = [event.position for events in self._waiting.values() for event in events.values()]
        oldest = [deadline.position for deadline in islice(self._deadlines.values(), 1)]
        return min([*waiting, *oldest], default=None)

    def stop(self) -> None:
        super().stop()
        self._desk.stop()

    def deliver(self, job: Job) -> float | None:
        """Send what is first; seconds until the next attempt, or None when nothing is left to be sent."""
        first = self._first(job.stream)
        if first is None:
            return None
        name, event = first
        found = read(self._tsm, job.stream)
        if found is None or name not in found.state.waiting:  # told by another server, or nothing is sent any more
            self._forget(job.stream, name)
            return 0.0
        if name != job.name:
            job.name, job.attempts = name, 0
        lack = self._grounds.lack(found)
        if lack is not None and (lack.quiet or name != ENDED):
            log.warning("%s %s is not sent: %s", job.stream, name, lack.why)
            return self._close(job, name, "not sent", acknowledged=False, why=lack.why, quiet=lack.quiet)
        answer, said = self._attempt(job, found, event)
        over = self._verdict(job, found, event, answer)
        if over is None:
            log.log(logging.DEBUG if job.attempts > 1 else logging.WARNING, "%s %s: %s", job.stream, name, said)
            return max(job.pause, min(answer.retry_after, LONGEST_WISH) if answer else 0.0)
        acknowledged, why = over
        if why:
            log.error("%s %s is given up after %d attempts: %s", job.stream, name, job.attempts, said)
        return self._close(job, name, said, acknowledged=acknowledged, why=why, quiet=True)

    # Inside

    def _close(self, job: Job, name: str, said: str, *, acknowledged: bool, why: str, quiet: bool) -> float:
        """The notification has come to its end, and, where there is a `why`, the subscription; what follows is due."""
        decided(partial(self._record, job, name, said, acknowledged, why, quiet))
        self._forget(job.stream, name)
        return 0.0

    def _attempt(self, job: Job, found: Found, event: Event) -> tuple[Answer | None, str]:
        """The answer, if there was one, and what to say of it."""
        created = found.state.created
        secret = ""
        if created.credential_ends_at is not None:
            if created.credential_ends_at <= self._clock():
                return None, "the credential has expired"
            secret = (self._tsm.payload(job.stream, CREDENTIAL) or b"").decode()
        job.attempts += 1
        try:
            answer = self._outbound.tell(notice_of(found, event, job.name, secret))
        except TsmError as error:
            return None, error.detail
        job.refusals = job.refusals + 1 if answer.status in (UNAUTHENTICATED, FORBIDDEN) else 0
        return answer, f"HTTP {answer.status}"

    def _verdict(self, job: Job, found: Found, event: Event, answer: Answer | None) -> tuple[bool, str] | None:
        """Whether it was told, and why nothing is sent any more, if so; None: another attempt is worth it."""
        now, credential_ends_at = self._clock(), found.state.created.credential_ends_at
        if answer is not None and 200 <= answer.status < 300:
            return True, ""
        if answer is not None and answer.status == GONE:
            return False, "the sink is gone"
        if job.refusals >= REFUSALS:
            return False, "the sink does not take its credential"
        if credential_ends_at is not None and credential_ends_at <= now:
            return False, "the sink's credential has expired"
        if event.occurred_at + GIVE_UP_AFTER <= now:
            return False, "the sink could not be told in time"
        return None

    def _record(self, job: Job, name: str, said: str, acknowledged: bool, why: str, quiet: bool) -> None:
        found = read(self._tsm, job.stream)
        assert found is not None  # noqa: S101  it was there before
        facts: list[Fact] = [*subscriptions.notify(found.state, name, acknowledged, job.attempts, said)]
        if why:
            facts += subscriptions.end(found.state, Reason.NETWORK_TERMINATED, why, quiet=quiet)
        commit(self._tsm, found, facts, by_the_system(found))

    def _end(self, stream: str) -> None:
        decided(partial(self._end_now, stream, self._deadlines[stream].reason))
        self._deadlines.pop(stream, None)
        self._due.pop(stream, None)

    def _end_now(self, stream: str, reason: Reason) -> None:
        found = read(self._tsm, stream)
        assert found is not None  # noqa: S101  its creation was seen
        facts = self._grounds.end(found) or subscriptions.end(found.state, reason)
        commit(self._tsm, found, facts, by_the_system(found))

    def _hand_on(self, stream: str) -> None:
        found = read(self._tsm, stream)
        assert found is not None  # noqa: S101  its event was seen
        created = found.state.created
        self._desk.take(Job(stream, created.client, urlsplit(created.sink).hostname or ""))
        del self._fresh[stream]

    def _wait(self, stream: str, name: str, event: Event) -> None:
        with self._waiting_lock:
            self._waiting.setdefault(stream, {}).setdefault(name, event)
        self._fresh[stream] = None

    def _forget(self, stream: str, name: str) -> None:
        with self._waiting_lock:
            waiting = self._waiting.get(stream, {})
            waiting.pop(name, None)
            if not waiting:
                self._waiting.pop(stream, None)

    def _first(self, stream: str) -> tuple[str, Event] | None:
        with self._waiting_lock:
            return next(iter(self._waiting.get(stream, {}).items()), None)


class Desk:
    """Threads that take jobs as they are due; never more at a time of one relying party, or to one host, than fair."""

    def __init__(self, deliver: Callable[[Job], float | None]) -> None:
        """`deliver` says how many seconds later the job is due again, or None when it is done."""
        self._deliver = deliver
        self._jobs: dict[str, Job] = {}  # by stream: all there are
        self._due: list[tuple[float, int, Job]] = []  # a heap: when, sequence, what
        self._ready: dict[str, dict[str, deque[Job]]] = {}  # due now: by client, and by host
        self._of_client: Counter[str] = Counter()  # attempts under way
        self._at_host: Counter[str] = Counter()
        self._sequence = 0
        self._threads: list[Thread] = []
        self._stopping = False
        self._changed = Condition()

    def take(self, job: Job) -> None:
        """A job for a stream; when there is one, that one looks again."""
        with self._changed:
            known = self._jobs.setdefault(job.stream, job)
            if known is not job:
                known.again = True
                return
            self._put(job, 0.0)
            if len(self._threads) < min(len(self._jobs), THREADS):
                self._threads.append(Thread(target=self._run, name="swap notices", daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """Attempts that are under way come to their end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                pause = self._deliver(job)
            except Exception:  # a thread outlives any fault: the job is tried again
                log.exception("%s", job.stream)
                job.attempts += 1
                pause = job.pause
            self._after(job, pause)

    def _next(self) -> Job | None:
        """The next job that is due and has a place; None when the desk closes."""
        with self._changed:
            while not self._stopping:
                self._make_ready()
                if (place := self._place()) is not None:
                    return self._pop(*place)
                self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
        return None

    def _place(self) -> tuple[str, str] | None:
        """The client and host whose turn it is: of the clients, the one with the fewest attempts under way."""
        free = [client for client in self._ready if self._of_client[client] < PER_CLIENT]
        for client in sorted(free, key=self._of_client.__getitem__):
            for host in self._ready[client]:
                if self._at_host[host] < PER_HOST:
                    return client, host
        return None

    def _pop(self, client: str, host: str) -> Job:
        """The first job there; what is left goes behind the others."""
        hosts = self._ready.pop(client)
        jobs = hosts.pop(host)
        job = jobs.popleft()
        if jobs:
            hosts[host] = jobs
        if hosts:
            self._ready[client] = hosts
        self._of_client[client] += 1
        self._at_host[host] += 1
        return job

    def _make_ready(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            job = heapq.heappop(self._due)[2]
            self._ready.setdefault(job.client, {}).setdefault(job.host, deque()).append(job)

    def _after(self, job: Job, pause: float | None) -> None:
        with self._changed:
            self._of_client -= Counter([job.client])  # and those that are at zero are dropped
            self._at_host -= Counter([job.host])
            if pause is None and job.again:
                pause = 0.0
            job.again = False
            if pause is None:
                del self._jobs[job.stream]
            else:
                self._put(job, pause)
            self._changed.notify_all()

    def _put(self, job: Job, pause: float) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (time.monotonic() + pause, self._sequence, job))
        self._changed.notify_all()


def notice_of(found: Found, event: Event, name: str, secret: str) -> Notice:
    """What is told of an event; always the same, but for what was erased since."""
    fact = event.fact
    told = Notice(f"{found.id}-{name}", found.id, found.state.created.sink, secret, event.occurred_at)
    if isinstance(fact, SubscriptionEnded):
        return told._replace(reason=fact.reason, detail=fact.detail)
    assert isinstance(fact, SwapNoted)  # noqa: S101  nothing else is told
    return told._replace(at=fact.changed_at, msisdn=found.number)
