"""Subscriptions: relying parties that want to be told of swaps, and the swaps that they have to be told of.

    create     the line is in service: one commit with the event, the rows that lead to it, and the sink's secret
    watch      a signal after which the number's SIM changed later than was known: noted for each subscription
    end        by the relying party, by time, with its last event, because the number is not the same holder's any
               more, or nobody's, or because there are no grounds for telling any more

    subscription.client    a relying party     its subscriptions that have not ended
    subscription.line      a line's stream     the same of that line
    subscription.subject   "<issuer>|<sub>"    the same of those that were made with tokens of that subject
    subscription.untold    a relying party     its subscriptions that have not ended, or still have something to tell

Which subject's token made a subscription lies sealed beside the log, as the sink's credential does, and goes with it.

What is noted is sent by `tsm.flows.swap_notices`. Noting depends on the log alone, so it may be done again, by several
servers: the position of a signal names the swap.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from tsm.application import ERASED, Change, IndexRow, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.known_signals import Line
from tsm.flows.lines import SUBJECT, Lines
from tsm.model import subscription as subscriptions
from tsm.model.event import Context, Event, Fact
from tsm.model.line import SignalRecorded, TenureErased
from tsm.model.subscription import Reason, Subscription, SubscriptionCreated, SubscriptionEnded

CLIENT, LINE = "subscription.client", "subscription.line"  # purposes of the rows that lead to subscriptions
BY_SUBJECT, UNTOLD = "subscription.subject", "subscription.untold"
CREDENTIAL, MAKER = "credential", "subject"  # the payloads' names
ACTOR = "system:subscriptions"
TOGETHER = 1000  # signals that are looked at in one go
NOBODYS, ANOTHERS = "the number has no subscriber", "the number is another holder's"
DISTRUSTED = "the relying party's issuer is not trusted any more"
MOVED = "the token's subject does not mean this line any more"
REPEATED = "the same was asked for at the same moment"

Random = Callable[[int], bytes]


class Credential(NamedTuple):
    """What opens a sink."""

    secret: str
    ends_at: datetime


class Wish(NamedTuple):
    """What a relying party asks for."""

    client: str
    line: str  # its stream
    sink: str
    purpose: str
    msisdn: str = ""  # where it named the line by it
    subject: str = ""  # "<issuer>|<sub>", where the line is a token's
    max_events: int = 0
    ends_at: datetime | None = None
    credential: Credential | None = None


class Found(NamedTuple):
    """A subscription, read from its stream."""

    id: str
    state: Subscription
    version: int
    began: Event

    @property
    def stream(self) -> str:
        return subscriptions.stream(self.id)

    @property
    def number(self) -> str:
        """As the relying party named it; empty when it did not, or nobody knows it any more."""
        return "" if self.state.created.msisdn == ERASED else self.state.created.msisdn


class Lack(NamedTuple):
    """Why there are no grounds for telling any more."""

    why: str
    quiet: bool = False  # not even this is told


class Grounds:
    """Why a relying party may be told of a line: it is trusted, and its token's subject means that line."""

    def __init__(self, tsm: Tsm, lines: Lines, trusts: Callable[[str], bool]) -> None:
        """`trusts` says of a client whether its tokens are taken."""
        self._tsm = tsm
        self._lines = lines
        self._trusts = trusts

    def trusts(self, found: Found) -> bool:
        """Whether its client may be told anything."""
        return self._trusts(found.state.created.client)

    def lack(self, found: Found) -> Lack | None:
        """None while there are grounds."""
        if not self.trusts(found):
            return Lack(DISTRUSTED, quiet=True)
        return None if self._is_led_to(found) else Lack(MOVED)

    def end(self, found: Found) -> list[Fact]:
        """Decide to end it for want of grounds; no news while there are, or when it ended."""
        lack = self.lack(found)
        return subscriptions.end(found.state, Reason.NETWORK_TERMINATED, lack.why, quiet=lack.quiet) if lack else []

    def _is_led_to(self, found: Found) -> bool:
        """Whether its subject means its line, or still that tenure: that a tenure is over, the line's signals say."""
        created = found.state.created
        maker = None if created.msisdn else self._tsm.payload(found.stream, MAKER)
        if maker is None:  # its client named the number, or it was made before this was kept
            return True
        subject = maker.decode()
        issuer, _, sub = subject.partition("|")
        led = {(row.stream, row.subject) for row in self._tsm.indexed(SUBJECT, subject)}
        return (created.line, created.subject) in led or self._lines.stream_of_subject(issuer, sub) == created.line


class Subscriptions:
    """What relying parties do with their subscriptions. Safe to share between threads."""

    def __init__(self, tsm: Tsm, grounds: Grounds, random: Random, per_client: int) -> None:
        """`per_client`: how many a relying party may have; a few more when it asks for several at the same moment.

        As many again may have ended and still have something to tell.
        """
        self._tsm = tsm
        self._grounds = grounds
        self._random = random
        self._per_client = per_client

    def create(self, wish: Wish, context: Context) -> Found:
        """The new subscription.

        INVALID_INPUT; NOT_FOUND for a line that is not in service; ALREADY_EXISTS for one of the same client, line and
        sink; RATE_LIMITED for one too many; CONFLICT when signals of that line came in five times meanwhile.
        """
        found = decided(partial(self._create, wish, context))
        # The same may have been asked for at the same moment, here or at another server: the first one stays.
        if any(other.began.position < found.began.position for other in self._same(wish)):
            decided(partial(self._withdraw, found.stream, context))
            raise TsmError(ErrorCode.ALREADY_EXISTS, REPEATED)
        return found

    def of(self, id: str, client: str) -> Found:
        """A subscription that has not ended. NOT_FOUND, also for another client's."""
        found = read(self._tsm, subscriptions.stream(id))
        if found is None or found.state.ended is not None or found.state.created.client != client:
            raise TsmError(ErrorCode.NOT_FOUND, "no such subscription")
        return found

    def of_client(self, client: str) -> list[Found]:
        """Those that have not ended, from the oldest to the newest."""
        found = self._active(row.stream for row in self._tsm.indexed(CLIENT, client))
        return sorted(found, key=lambda one: one.began.position)

    def delete(self, id: str, client: str, context: Context) -> None:
        """End one, as its client wishes. NOT_FOUND."""

        def attempt() -> None:
            found = self.of(id, client)
            commit(self._tsm, found, subscriptions.end(found.state, Reason.SUBSCRIPTION_DELETED), context)

        decided(attempt)

    def end_lost(self, subject: str) -> None:
        """End what tokens of that subject, "<issuer>|<sub>", made for lines that it does not mean any more."""
        for row in self._tsm.indexed(BY_SUBJECT, subject):
            decided(partial(self._end_without_grounds, row.stream))

    # Inside

    def _create(self, wish: Wish, context: Context) -> Found:
        line = line_at(self._tsm, wish.line)
        if not line.holder or not line.in_service:
            raise TsmError(ErrorCode.NOT_FOUND, "the line is not in service", ("line",))
        self._refuse_repeated(wish)
        self._refuse_too_many(wish.client)
        created = SubscriptionCreated(
            subject=line.holder,
            client=wish.client,
            line=wish.line,
            sink=wish.sink,
            purpose=wish.purpose,
            msisdn=wish.msisdn,
            max_events=wish.max_events,
            ends_at=wish.ends_at,
            credential_ends_at=wish.credential.ends_at if wish.credential else None,
        )
        facts = subscriptions.create(created, self._tsm.now())
        id = str(UUID(bytes=self._random(16), version=4))
        stream = subscriptions.stream(id)
        try:
            self._tsm.commit(
                Change(stream, 0, facts),
                Change(wish.line, line.version, []),
                context=context_of(context, stream),
                occurred_at=self._tsm.now(),
                put_payloads=payloads_of(wish, stream),
                put_index=self._rows(wish, stream),
            )
        except TsmError as error:
            if error.code is ErrorCode.UNKNOWN_KEY:  # erased since it was read
                raise TsmError(ErrorCode.CONFLICT, "the tenure was erased meanwhile") from error
            raise
        found = read(self._tsm, stream)
        assert found is not None  # noqa: S101  it is there now
        return found

    def _rows(self, wish: Wish, stream: str) -> list[IndexRow]:
        rows = [
            self._tsm.index_row(CLIENT, wish.client, stream, stream),
            self._tsm.index_row(LINE, wish.line, stream, stream),
            self._tsm.index_row(UNTOLD, wish.client, stream, untold(stream)),
        ]
        return [*rows, self._tsm.index_row(BY_SUBJECT, wish.subject, stream, stream)] if wish.subject else rows

    def _refuse_repeated(self, wish: Wish) -> None:
        for found in self._same(wish):
            if not self._end_without_grounds(found.stream):
                raise TsmError(ErrorCode.ALREADY_EXISTS, f"it is {found.id}")

    def _refuse_too_many(self, client: str) -> None:
        if len(self._tsm.indexed(CLIENT, client)) >= self._per_client:
            raise TsmError(ErrorCode.RATE_LIMITED, f"{client} has {self._per_client} subscriptions")
        if len(self._tsm.indexed(UNTOLD, client)) >= 2 * self._per_client:
            raise TsmError(ErrorCode.RATE_LIMITED, f"the sinks of {client} have not been told of the end of others")

    def _same(self, wish: Wish) -> list[Found]:
        """Those that have not ended of the same client, line and sink, made in the same way."""
        asked = wish.client, wish.sink, bool(wish.msisdn)
        active = self._active(row.stream for row in self._tsm.indexed(LINE, wish.line))
        made = [(found, found.state.created) for found in active]
        return [found for found, by in made if (by.client, by.sink, bool(by.msisdn)) == asked]

    def _withdraw(self, stream: str, context: Context) -> None:
        found = read(self._tsm, stream)
        assert found is not None  # noqa: S101  it was created
        facts = subscriptions.end(found.state, Reason.NETWORK_TERMINATED, REPEATED, quiet=True)
        commit(self._tsm, found, facts, context)

    def _end_without_grounds(self, stream: str) -> bool:
        """Whether it had none."""
        found = read(self._tsm, stream)
        assert found is not None  # noqa: S101  a row leads to it
        facts = self._grounds.end(found)
        commit(self._tsm, found, facts, by_the_system(found))
        return bool(facts)

    def _active(self, streams: Iterable[str]) -> list[Found]:
        histories = self._tsm.histories(list(streams))
        return [found for events in histories.values() if (found := folded(events)).state.ended is None]


class SwapWatcher(Follower):
    """Notes swaps for those who subscribed to them, and ends what a line's end ends."""

    name = "swap-watcher"
    topics = (SignalRecorded.topic, TenureErased.topic)

    def __init__(self, tsm: Tsm, grounds: Grounds, position: Position) -> None:
        super().__init__(tsm, position)
        self._grounds = grounds
        self._seen: dict[str, list[Event]] = {}  # by line: not looked at yet
        self._count = 0
        self.watched = 0  # whatever was recorded up to here, subscriptions know of

    def see(self, event: Event) -> None:
        self._seen.setdefault(event.originator_id, []).append(event)
        self._count += 1
        if self._count >= TOGETHER:
            self._look()

    def act(self) -> None:
        try:
            self._look()
        finally:  # a line that cannot be read keeps no other's subscriptions from their end
            self.watched = self._after

    def unfinished(self) -> int | None:
        return min((events[0].position for events in self._seen.values()), default=None)

    def _look(self) -> None:
        self._count = 0
        rows = self._tsm.indexed_many((LINE, line) for line in self._seen) if self._seen else {}
        streams = {line: [row.stream for row in found] for (_, line), found in rows.items()}
        for line in [line for line in self._seen if line not in streams]:
            del self._seen[line]
        for_each(list(self._seen), lambda line: self._look_at(line, streams[line]))

    def _look_at(self, line: str, streams: Sequence[str]) -> None:
        for news in news_of(self._tsm, line, self._seen[line]):
            for stream in streams:
                decided(partial(self._note, stream, news))
        del self._seen[line]

    def _note(self, stream: str, news: "News") -> None:
        found = read(self._tsm, stream)
        if found is None or found.began.position >= news.position:
            return
        facts = noted(found, news)
        if facts and not (news.over and self._grounds.trusts(found)):  # who is not told is not one of those who know
            facts = self._grounds.end(found) or facts
        commit(self._tsm, found, facts, by_the_system(found, str(news.position)))


class LineNow(NamedTuple):
    """A line, as far as it matters here: nothing personal is unsealed."""

    holder: str  # the present tenure's subject; empty when it is erased, or nothing is known
    in_service: bool
    version: int


class News(NamedTuple):
    """What a signal brought."""

    position: int
    swapped_at: datetime | None  # the SIM changed then, which is later than was known; None: no news
    began: datetime | None = None  # nothing was known of a change, and the signal says when the holder's tenure began
    over: str = ""  # why nobody has to be told any more
    erased: str = ""  # a tenure of which nothing is known any more


def line_at(tsm: Tsm, stream: str) -> LineNow:
    """The line's end of the log."""
    line, in_service = Line(stream), False
    for event in tsm.history(stream, unseals={}):
        line.fold(event)
        if isinstance(event.fact, SignalRecorded):
            in_service = event.fact.in_service
    return LineNow(line.latest, in_service, line.version)


def news_of(tsm: Tsm, stream: str, events: Sequence[Event]) -> list[News]:
    """What each of these events of a line is news of, after all that the log said of this line before it."""
    wanted, last = {event.position for event in events}, max(event.position for event in events)
    line, latest, found = Line(stream), None, []
    for event in tsm.history(stream, position=last, unseals={}):
        line.fold(event)
        if event.position in wanted:
            found.append(_news(event, line, latest))
        if isinstance(event.fact, SignalRecorded) and event.fact.sim_changed_at is not None:
            latest = max(latest or event.fact.sim_changed_at, event.fact.sim_changed_at)
    return found


def _news(event: Event, line: Line, latest: datetime | None) -> News:
    """`line` as it is with the event, `latest` the SIM change that was known before it."""
    fact = event.fact
    if isinstance(fact, TenureErased):
        return News(event.position, None, over=NOBODYS, erased=fact.subject)
    assert isinstance(fact, SignalRecorded)  # noqa: S101  its topics alone are declared
    changed_at = fact.sim_changed_at
    swapped = changed_at is not None and (latest is None or changed_at > latest)
    over = ""
    if not fact.in_service:
        over = NOBODYS
    elif fact.begins_tenure and line.latest == fact.subject:
        over = ANOTHERS
    return News(
        event.position,
        changed_at if swapped else None,
        began=event.occurred_at if latest is None and fact.begins_tenure else None,
        over=over,
    )


def noted(found: Found, news: News) -> list[Fact]:
    """What follows for a subscription that was there before.

    That its holder's tenure had begun before it, told after it, is no swap, if only it is the first that is told.
    """
    state, facts = found.state, list[Fact]()
    if news.erased and news.erased != state.created.subject:
        return []
    if news.began is not None and news.began <= found.began.occurred_at and news.over == ANOTHERS:
        return []
    if news.swapped_at is not None:
        facts += subscriptions.note_swap(state, news.position, news.swapped_at)
    if news.over and not any(isinstance(fact, SubscriptionEnded) for fact in facts):
        facts += subscriptions.end(state, Reason.NETWORK_TERMINATED, news.over)
    return facts


def read(tsm: Tsm, stream: str) -> Found | None:
    """A subscription, ended or not; None when there is none."""
    events = list(tsm.history(stream))
    return folded(events) if events else None


def folded(events: Sequence[Event]) -> Found:
    state = None
    for event in events:
        state = subscriptions.evolve(state, event.fact)
    assert state is not None  # noqa: S101  there is one event at least
    id = events[0].originator_id.removeprefix(subscriptions.stream(""))
    return Found(id, state, events[-1].originator_version, events[0])


def commit(tsm: Tsm, found: Found, facts: Sequence[Fact], context: Context) -> None:
    """Record what was decided; when it ended nobody finds it any more, when all is told its secrets go."""
    if not facts:
        return
    over = [found.stream] if subscriptions.is_over(found.state, facts) else []
    ended = [found.stream] if any(isinstance(fact, SubscriptionEnded) for fact in facts) else []
    tsm.commit(
        Change(found.stream, found.version, facts),
        context=context_of(context, found.stream),
        occurred_at=tsm.now(),
        drop_index=[*ended, *map(untold, over)],
        drop_payloads=over,
    )


def untold(stream: str) -> str:
    """The subject of the row that stays until all is told."""
    return f"{stream} untold"


def payloads_of(wish: Wish, stream: str) -> dict[tuple[str, str], bytes]:
    """What is kept sealed beside the log."""
    credential = wish.credential.secret if wish.credential else ""
    kept = {CREDENTIAL: credential, MAKER: wish.subject}
    return {(stream, name): text.encode() for name, text in kept.items() if text}


def context_of(told: Context, stream: str) -> Context:
    """Each subscription is one story."""
    return Context(
        actor=told.actor,
        role=told.role,
        tenant=told.tenant,
        correlation=stream,
        causation=told.causation,
        request=told.request,
    )


def by_the_system(found: Found, causation: str = "") -> Context:
    return Context(actor=ACTOR, role="system", tenant=found.began.context.tenant, correlation="", causation=causation)
