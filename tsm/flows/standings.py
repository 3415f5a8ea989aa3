"""Standings of cards: assessed whenever something new is known, and what persons say to that.

A card is assessed on all that is known around it (`tsm.flows.known_signals.gather`), by the policy in force. It is
assessed again until nothing more follows: whoever recorded something meanwhile may have decided on less than we.
Only registered cards have a standing.

A policy can be tried on the past: what it would find in all that is known today, held against what persons said.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from threading import Lock
from typing import NamedTuple

import msgspec

from tsm.application import Change, Command, Loaded, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import SCAN, Follower, Position, for_each
from tsm.flows.known_signals import ICCID, MSISDN, cards_in, gather, read_lines
from tsm.model import card as cards
from tsm.model import standing as standings
from tsm.model import swap_policy
from tsm.model.bindings import Known, ordered
from tsm.model.card import CardRegistered
from tsm.model.detection import Finding, assess
from tsm.model.event import Context, Event, Fact
from tsm.model.line import SignalRecorded
from tsm.model.standing import Proof, Standing, SuspicionRaised, SuspicionWithdrawn, Verdict
from tsm.model.swap_policy import Level, Policy, PolicyAdopted

TOGETHER = 100  # cards, or lines, that are read at once
REMEMBERED = 1_000_000  # positions
BACKLOG = 10_000  # signals, or cards
GRACE = 2.0  # seconds in which whoever recorded a signal decides on it himself

Clock = Callable[[], datetime]


class RuleTrial(NamedTuple):
    """What a rule would have found."""

    rule: str
    caught: int  # all of these:
    confirmed: int
    false_alarms: int
    open: int  # nobody said what it was


class Missed(NamedTuple):
    """A confirmed case that no rule would have found."""

    iccid: str
    suspicion: str


class Trial(NamedTuple):
    """A policy held against the past."""

    cards: int
    rules: tuple[RuleTrial, ...]
    missed: tuple[Missed, ...]


class Standings:
    """Safe to share between threads."""

    def __init__(self, tsm: Tsm, clock: Clock) -> None:
        self._tsm = tsm
        self._clock = clock
        self._settled: set[int] = set()
        self._settled_lock = Lock()

    def of(self, iccid: str) -> Standing:
        """As it is recorded; of a card that nothing was ever suspected of, NONE."""
        return self._tsm.load(standings.stream(iccid), standings.evolve).state or Standing()

    def policy(self) -> Policy:
        """The policy in force."""
        return self._tsm.load(swap_policy.STREAM, swap_policy.evolve).state or swap_policy.DEFAULT

    def adopt(self, policy: Policy, context: Context, command: Command | None = None) -> int:
        """Judge by this policy from now on; cards are assessed anew by `StandingWorker`. INVALID_INPUT, WRONG_ORDER."""

        def decide() -> int:
            loaded = self._tsm.load(swap_policy.STREAM, swap_policy.evolve)
            change = Change(swap_policy.STREAM, loaded.version, swap_policy.adopt(loaded.state, policy))
            return self._tsm.commit(change, context=context, occurred_at=self._clock(), command=command)

        return decided(decide)

    # What persons say. UNKNOWN_CARD; FORBIDDEN for an operator whose card it is not; NOT_FOUND for no open suspicion.

    def acknowledge(self, iccid: str, suspicion: str, context: Context, command: Command | None = None) -> int:
        """Somebody has seen it."""
        return self._decide(iccid, context, command, lambda state, _: standings.acknowledge(state, suspicion))

    def escalate(
        self, iccid: str, suspicion: str, level: Level, context: Context, command: Command | None = None
    ) -> int:
        """Take it more seriously than its rule. WRONG_ORDER unless that is above its present level."""
        settle = timedelta(hours=self.policy().settle_hours)
        return self._decide(
            iccid, context, command, lambda state, now: standings.escalate(state, suspicion, level, settle, now)
        )

    def close(
        self, iccid: str, suspicion: str, verdict: Verdict, context: Context, command: Command | None = None
    ) -> int:
        """Say what it was."""
        return self._decide(iccid, context, command, lambda state, now: standings.close(state, suspicion, verdict, now))

    def release(
        self, iccid: str, proof: Proof, document_sha256: str, context: Context, command: Command | None = None
    ) -> int:
        """The card is where it belongs. WRONG_ORDER when nothing is on hold, or it is to be revoked; INVALID_INPUT."""
        return self._decide(
            iccid, context, command, lambda state, now: standings.release(state, proof, document_sha256, now)
        )

    # What is known

    def reassess(self, iccid: str, context: Context) -> int:
        """Decide anew on what is known by now; the log's position. UNKNOWN_CARD."""
        self._tsm.card_of(iccid)
        self.reassess_all([iccid], context)
        return self._tsm.position

    def reassess_all(self, iccids: Collection[str], context: Context) -> None:
        """The same for many cards. Those that are not registered have no standing, so nothing follows for them."""
        existing = self._tsm.existing([cards.stream(iccid) for iccid in iccids])
        registered = [iccid for iccid in iccids if cards.stream(iccid) in existing]
        while registered:
            # Before the signals: whoever then decided on more than we know has made it another standing.
            loaded = {iccid: self._tsm.load(standings.stream(iccid), standings.evolve) for iccid in registered}
            policy, known = self.policy(), gather(self._tsm, registered)
            registered = [i for i in registered if self._assess(i, loaded[i], known.get(i, []), policy, context)]

    def would_hold(self, iccids: Collection[str], left: Mapping[int, Known | None]) -> bool:
        """Whether a card would come on hold if of the signals at these positions no more than that were known."""
        existing, policy, now = self._tsm.existing([cards.stream(i) for i in iccids]), self.policy(), self._clock()
        for iccid, known in gather(self._tsm, [i for i in iccids if cards.stream(i) in existing]).items():
            state = self.of(iccid)
            kept = [one for each in known if (one := left.get(each.position, each)) is not None]
            findings = assess(iccid, kept, policy, self._tsm.card_of(iccid).operator)
            facts = standings.reassess(state, findings, policy, now)
            if not state.on_hold and reduce(standings.evolve, facts, state).on_hold:
                return True
        return False

    def settled(self, positions: range) -> None:
        """Whatever follows from the signals at these positions is recorded."""
        with self._settled_lock:
            if len(self._settled) > REMEMBERED:
                self._settled.clear()  # to have forgotten them means to assess them once more
            self._settled.update(positions)

    def take_settled(self, position: int) -> bool:
        """Whether it is known to be so; asked once."""
        with self._settled_lock:
            if position not in self._settled:
                return False
            self._settled.remove(position)
            return True

    def with_signals(self, operator: str = "") -> Iterator[list[str]]:
        """All registered cards, or those of one operator, that some signal names, in parts."""
        after = 0
        while (page := self._tsm.page(after, SCAN, (CardRegistered.topic,))).last > after:
            facts = [e.fact for e in page.events if isinstance(e, Event) and isinstance(e.fact, CardRegistered)]
            iccids = [fact.iccid for fact in facts if operator in ("", fact.operator)]
            for start in range(0, len(iccids), TOGETHER):
                yield self.named(iccids[start : start + TOGETHER])
            after = page.last

    def named(self, iccids: Collection[str]) -> list[str]:
        """Those of the cards that some signal names."""
        return [iccid for _, iccid in self._tsm.indexed_many((ICCID, iccid) for iccid in iccids)]

    def trial(self, policy: Policy, since: datetime | None = None, operator: str = "") -> Trial:
        """What the policy would have found in the past, or in what began since then. INVALID_INPUT.

        Of all cards, or of one operator's.

        A finding and a suspicion are the same case when they share a piece of evidence.
        """
        swap_policy.check(policy)
        tally = {rule.name: [0, 0, 0] for rule in policy.rules}  # confirmed, false alarms, open
        missed: list[Missed] = []
        count = 0
        for part in self.with_signals(operator):
            for iccid, known in gather(self._tsm, part).items():
                count += 1
                found = assess(iccid, known, policy, self._tsm.card_of(iccid).operator)
                findings = [f for f in found if since is None or f.since >= since]
                verdicts = self._verdicts(iccid, since)
                for finding in findings:
                    tally[finding.rule][_said_of(finding, verdicts)] += 1
                caught = {position for finding in findings for position in finding.evidence}
                missed += [
                    Missed(iccid, raised.suspicion)
                    for raised, verdict in verdicts
                    if verdict is Verdict.CONFIRMED and caught.isdisjoint(raised.evidence)
                ]
        rules = tuple(RuleTrial(name, sum(counts), *counts) for name, counts in tally.items())
        return Trial(count, rules, tuple(missed))

    # Inside

    def _assess(
        self, iccid: str, loaded: Loaded[Standing], known: Sequence[Known], policy: Policy, context: Context
    ) -> bool:
        """Whether anything new followed, or somebody else decided meanwhile: then it is assessed again."""
        findings = assess(iccid, known, policy, self._tsm.card_of(iccid).operator)
        evidence = {p for suspicion in (loaded.state or Standing()).open for p in suspicion.raised.evidence}
        forgotten = evidence - {one.position for one in known}
        facts = standings.reassess(loaded.state, findings, policy, self._clock(), forgotten)
        if not facts:
            return False
        change = Change(standings.stream(iccid), loaded.version, facts)
        try:
            by = self._by_the_system(iccid, context, known)
            self._tsm.commit(change, context=by, occurred_at=self._clock())
        except TsmError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
        return True

    def _decide(
        self,
        iccid: str,
        context: Context,
        command: Command | None,
        decide: Callable[[Standing | None, datetime], list[Fact]],
    ) -> int:
        operator = self._tsm.card_of(iccid).operator
        if context.role == "operator" and context.tenant != operator:
            raise TsmError(ErrorCode.FORBIDDEN, "the card of another operator")
        stream = standings.stream(iccid)

        def attempt() -> int:
            if command is not None and (answered := self._tsm.answered(command)) is not None:
                return answered.head
            loaded, now = self._tsm.load(stream, standings.evolve), self._clock()
            return self._tsm.commit(
                Change(stream, loaded.version, decide(loaded.state, now)),
                context=msgspec.structs.replace(context, tenant=operator, correlation=stream),
                occurred_at=now,
                command=command,
            )

        return decided(attempt)

    def _by_the_system(self, iccid: str, told: Context, known: Sequence[Known]) -> Context:
        """Caused by what was known last: a signal, which may explain others away, or another policy."""
        causes = [one.position for one in ordered(known)]
        if told.causation.isdecimal():
            causes.append(int(told.causation))
        return Context(
            actor="system:detection",
            role="system",
            tenant=self._tsm.card_of(iccid).operator,
            correlation=standings.stream(iccid),
            causation=str(max(causes)) if causes else "",
            request=told.request,
        )

    def _verdicts(self, iccid: str, since: datetime | None) -> list[tuple[SuspicionRaised, Verdict]]:
        """What persons said, also of what was withdrawn since."""
        raised: dict[str, SuspicionRaised] = {}
        for event in self._tsm.history(standings.stream(iccid)):
            if isinstance(event.fact, SuspicionRaised) and (since is None or event.fact.since >= since):
                raised[event.fact.suspicion] = event.fact
        decisions = self.of(iccid).decisions
        return [
            (fact, verdict)
            for suspicion, fact in raised.items()
            if suspicion in decisions and (verdict := decisions[suspicion].verdict) is not None
        ]


def _said_of(finding: Finding, verdicts: Sequence[tuple[SuspicionRaised, Verdict]]) -> int:
    """The place in a tally: confirmed, if any of what it shares evidence with was; else a false alarm, or open."""
    said = {verdict for raised, verdict in verdicts if not set(finding.evidence).isdisjoint(raised.evidence)}
    return 0 if Verdict.CONFIRMED in said else 1 if Verdict.FALSE_ALARM in said else 2


class StandingWorker(Follower):
    """Assesses cards when time alone changes something, or when whoever recorded a signal did not come to it.

    That is: a suspicion's window ends, another policy is adopted, a card is registered that signals name already, or a
    process died between recording signals and deciding on them. The settle window of a revocation needs no
    assessment: the standing names the time.
    """

    name = "standings"
    topics = (
        SignalRecorded.topic, CardRegistered.topic, PolicyAdopted.topic, SuspicionRaised.topic,
        SuspicionWithdrawn.topic,
    )  # fmt: skip

    def __init__(self, tsm: Tsm, standings: Standings, position: Position, clock: Clock) -> None:
        super().__init__(tsm, position)
        self._standings = standings
        self._clock = clock
        self._signals: dict[int, tuple[str, float]] = {}  # that nobody is known to have decided on: stream, when seen
        self._cards: dict[str, int] = {}  # newly registered
        self._policy: int | None = None  # where another was adopted
        self._ends: dict[tuple[str, str], tuple[datetime, int]] = {}  # of suspicions that end by themselves

    def see(self, event: Event) -> None:
        match event.fact:
            case SignalRecorded():
                if not self._standings.take_settled(event.position):
                    self._signals[event.position] = event.originator_id, time.monotonic()
                if len(self._signals) > BACKLOG:  # a log that this worker has never read: not all of it at once
                    self._assess_signals(list(self._signals))
            case CardRegistered(iccid=iccid):
                self._cards.setdefault(iccid, event.position)
                if len(self._cards) > BACKLOG:
                    self._assess_cards()
            case PolicyAdopted():
                self._policy = self._policy or event.position
            case SuspicionRaised(suspicion=suspicion, until=until):
                place = event.originator_id.removeprefix(standings.stream("")), suspicion
                self._ends.pop(place, None)
                if until is not None:
                    self._ends[place] = until, event.position
            case SuspicionWithdrawn(suspicion=suspicion):
                self._ends.pop((event.originator_id.removeprefix(standings.stream("")), suspicion), None)

    def act(self) -> None:
        for_each([self._assess_lines, self._assess_cards, self._assess_ended, self._assess_all], lambda act: act())

    def unfinished(self) -> int | None:
        oldest = [*self._signals, *self._cards.values(), *(position for _, position in self._ends.values())]
        return min([*oldest, *([] if self._policy is None else [self._policy])], default=None)

    def _assess_lines(self) -> None:
        for position in [position for position in self._signals if self._standings.take_settled(position)]:
            del self._signals[position]
        self._assess_signals([p for p, (_, seen) in self._signals.items() if time.monotonic() - seen >= GRACE])

    def _assess_signals(self, late: list[int]) -> None:
        for part in _parts(list(dict.fromkeys(self._signals[position][0] for position in late))):
            self._standings.reassess_all(self._cards_around(part), by_the_worker())
        for position in late:
            del self._signals[position]

    def _cards_around(self, streams: Sequence[str]) -> set[str]:
        """The cards that these streams name, or others of the same numbers: two servers heard of one at once."""
        lines = read_lines(self._tsm, streams)
        rows = self._tsm.indexed_many((MSISDN, line.number) for line in lines.values() if line.number)
        beside = {row.stream for found in rows.values() for row in found} - lines.keys()
        return cards_in([*lines.values(), *read_lines(self._tsm, beside).values()])

    def _assess_cards(self) -> None:
        for part in _parts(list(self._cards)):
            self._standings.reassess_all(self._standings.named(part), by_the_worker())
        self._cards.clear()

    def _assess_ended(self) -> None:
        now = self._clock()
        ended = [place for place, (until, _) in self._ends.items() if until <= now]
        self._standings.reassess_all({iccid for iccid, _ in ended}, by_the_worker())
        for place in ended:
            self._ends.pop(place, None)

    def _assess_all(self) -> None:
        if self._policy is not None:
            for part in self._standings.with_signals():
                self._standings.reassess_all(part, by_the_worker(str(self._policy)))
            self._policy = None


def by_the_worker(causation: str = "") -> Context:
    return Context(actor="system:detection", role="system", tenant="", correlation="", causation=causation)


def _parts(items: Sequence[str]) -> list[Sequence[str]]:
    return [items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER)]
