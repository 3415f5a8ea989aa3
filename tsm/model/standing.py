"""A card's standing: what is suspected of it, what people said to that, and what it leads to.

What is suspicious follows from the set of signals (`tsm.model.detection`). Here is what was made of it, when, with what
was known then: each suspicion raised or withdrawn, with the positions of its evidence; acknowledged, escalated, closed,
released by a person; and the level that results, which is what sessions, certificates and card operations go by.

What persons said goes with the case. A signal that tells earlier of the same thing gives it another name, as another
policy may: then the new suspicion takes over what was said to the one that went.

A release says: at that time somebody made sure that the card is where it belongs. So it settles every suspicion that
began at or before it, also one that turns up late, but none of the level REVOKE.

Stream: `standing-<iccid>`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import reduce
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.checks import SHA256_OCTETS, check_hex
from tsm.model.detection import Finding
from tsm.model.event import Fact
from tsm.model.swap_policy import Level, Policy


class Proof(StrEnum):
    """On what a release rests."""

    MY_NUMBER_CARD = "MY_NUMBER_CARD"  # the holder signed with it
    CLERK = "CLERK"  # a clerk saw the holder and her papers
    OPERATOR = "OPERATOR"  # the operator made sure


class Verdict(StrEnum):
    """What it turned out to be."""

    FALSE_ALARM = "FALSE_ALARM"
    CONFIRMED = "CONFIRMED"


class Use(StrEnum):
    """What a hold refuses."""

    DEPLOYMENT = "DEPLOYMENT"  # the next step of what a provider sets up on the card
    DELEGATE = "DELEGATE"
    START = "START"
    ACCESS_CODE = "ACCESS_CODE"  # with the right password
    UNLOCK = "UNLOCK"  # of the applet


class SuspicionRaised(Fact, frozen=True, kw_only=True):
    """A rule applied to what is known of the card."""

    topic: ClassVar[str] = "standing.suspicion_raised"
    suspicion: str  # 16 octets hex, of rule and evidence: the same whatever the order in which that came
    rule: str
    condition: str  # a swap_policy.Condition
    level: int  # a swap_policy.Level
    policy: int  # version
    since: datetime  # when it began, over occurred time
    until: datetime | None = None  # when it ends by itself
    evidence: tuple[int, ...]  # positions of the signals, ascending; 0 never
    revoke_from: datetime | None = None  # of the level REVOKE: when its settle window is over
    succeeds: str = ""  # the suspicion whose decision it takes over


class SuspicionWithdrawn(Fact, frozen=True, kw_only=True):
    """By what is known now it does not apply (any more): explained, overtaken by a late signal, or its time is over."""

    topic: ClassVar[str] = "standing.suspicion_withdrawn"
    suspicion: str


class SuspicionAcknowledged(Fact, frozen=True, kw_only=True):
    """A person has seen it; who, and why, is in the context."""

    topic: ClassVar[str] = "standing.suspicion_acknowledged"
    suspicion: str


class SuspicionEscalated(Fact, frozen=True, kw_only=True):
    """A person takes it more seriously than its rule."""

    topic: ClassVar[str] = "standing.suspicion_escalated"
    suspicion: str
    level: int
    revoke_from: datetime | None = None  # of the level REVOKE: when the settle window is over


class SuspicionClosed(Fact, frozen=True, kw_only=True):
    """A person says what it was. FALSE_ALARM ends it; CONFIRMED at the level REVOKE, it waits for nothing more."""

    topic: ClassVar[str] = "standing.suspicion_closed"
    suspicion: str
    verdict: str  # a Verdict
    closed_at: datetime


class CardCleared(Fact, frozen=True, kw_only=True):
    """Released: at this time the card was where it belongs."""

    topic: ClassVar[str] = "standing.card_cleared"
    proof: str  # a Proof
    document_sha256: str = ""  # of what the holder signed, hex
    cleared_at: datetime


class LevelChanged(Fact, frozen=True, kw_only=True):
    """What follows from all that is open, from now on."""

    topic: ClassVar[str] = "standing.level_changed"
    level: int
    revoke_from: datetime | None = None  # of the level REVOKE: when the settle window is over; at once when confirmed


class UseRefused(Fact, frozen=True, kw_only=True):
    """The card was on hold, and somebody asked for what that refuses: who replays a case sees that somebody tried.

    Of one hold each such fact is recorded once, so that nobody fills the log by asking again.
    """

    topic: ClassVar[str] = "standing.use_refused"
    use: str  # a Use
    provider: str = ""  # who asked, or whose launch it was; empty for people of the operator
    reception: str = ""  # of START


FACTS: tuple[type[Fact], ...] = (
    SuspicionRaised,
    SuspicionWithdrawn,
    SuspicionAcknowledged,
    SuspicionEscalated,
    SuspicionClosed,
    CardCleared,
    LevelChanged,
    UseRefused,
)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What persons said to a suspicion. It stays when the suspicion is withdrawn, for that may be raised again."""

    acknowledged: bool = False
    level: int = Level.NONE  # to which it was escalated
    revoke_from: datetime | None = None  # of an escalation to REVOKE; or when it was confirmed at that level
    verdict: Verdict | None = None
    about: SuspicionRaised | None = None  # as it was then


UNDECIDED = Decision()


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A suspicion that was raised and not withdrawn, with what persons said to it."""

    raised: SuspicionRaised
    decision: Decision = UNDECIDED

    @property
    def id(self) -> str:
        return self.raised.suspicion

    @property
    def level(self) -> Level:
        """By its rule, or by a person who takes it more seriously."""
        return Level(max(self.raised.level, self.decision.level))

    @property
    def revoke_from(self) -> datetime | None:
        """When a revocation is due; None below the level REVOKE."""
        if self.level < Level.REVOKE:
            return None
        times = [self.raised.revoke_from, self.decision.revoke_from]
        return min(time for time in times if time is not None)

    def is_due(self, now: datetime) -> bool:
        """Whether a revocation waits for nothing more."""
        return self.revoke_from is not None and self.revoke_from <= now

    def is_open(self, cleared_at: datetime | None) -> bool:
        """Neither a false alarm nor settled by a release."""
        settled = cleared_at is not None and self.raised.since <= cleared_at and self.level < Level.REVOKE
        return self.decision.verdict is not Verdict.FALSE_ALARM and not settled


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A card's standing as its facts say."""

    suspicions: Mapping[str, Suspicion] = msgspec.field(default_factory=dict)  # raised, not withdrawn
    decisions: Mapping[str, Decision] = msgspec.field(default_factory=dict)  # by suspicion, the last one last
    cleared_at: datetime | None = None
    level: Level = Level.NONE
    revoke_from: datetime | None = None

    @property
    def on_hold(self) -> bool:
        """Whether providers' sessions with the card are refused."""
        return self.level >= Level.HOLD

    @property
    def open(self) -> tuple[Suspicion, ...]:
        """What makes the level, in the order of its beginning."""
        found = [suspicion for suspicion in self.suspicions.values() if suspicion.is_open(self.cleared_at)]
        return tuple(sorted(found, key=lambda suspicion: (suspicion.raised.since, suspicion.id)))

    def decision_on(self, raised: SuspicionRaised) -> Decision:
        """What persons said last to it, or to the one that it takes over from."""
        said = [each for id, each in self.decisions.items() if id in (raised.suspicion, raised.succeeds)]
        return said[-1] if said else UNDECIDED

    def suspicion(self, id: str) -> Suspicion:
        """NOT_FOUND unless it is open."""
        for suspicion in self.open:
            if suspicion.id == id:
                return suspicion
        raise TsmError(ErrorCode.NOT_FOUND, "no such open suspicion", ("suspicion",))


def stream(iccid: str) -> str:
    """The stream of a card's standing."""
    return f"standing-{iccid}"


def reassess(
    state: Standing | None,
    findings: Sequence[Finding],
    policy: Policy,
    now: datetime,
    forgotten: Collection[int] = (),
) -> list[Fact]:
    """Decide what follows from what is found now: a function of findings, persons' decisions, and the time.

    `forgotten`: positions of evidence that were erased. What holds a card does not end because nobody knows why.

    What a person takes more seriously than its rule does not end by itself any more; what a person confirmed is not
    explained away by what is told later, nor is a revocation that is due, nor does another policy take that back: it is
    carried out, and its evidence may be erased then. No settle window begins before a person could have heard of it,
    however old the evidence is.
    """
    known = state or Standing()
    heirs = _heirs(known, findings, policy)
    found: dict[str, Suspicion] = {}
    for finding in findings:
        raised = _raised(known, finding, heirs.get(finding.suspicion, ""), policy, now)
        suspicion = Suspicion(raised=raised, decision=known.decision_on(raised))
        if not _is_over(suspicion, now):
            found[suspicion.id] = suspicion
    before = {suspicion.id: suspicion for suspicion in known.open}
    facts: list[Fact] = [
        suspicion.raised for id, suspicion in found.items() if _is_news(known, before.get(id), suspicion, now)
    ]
    for suspicion in known.open:
        over = _is_over(suspicion, now)
        lost = suspicion.level >= Level.HOLD and not {*forgotten}.isdisjoint(suspicion.raised.evidence)
        stands = suspicion.is_due(now) or ((suspicion.decision.verdict is Verdict.CONFIRMED or lost) and not over)
        if suspicion.id not in found and not stands:
            facts.append(SuspicionWithdrawn(suspicion=suspicion.id))
    return _with_level(known, facts)


def acknowledge(state: Standing | None, suspicion: str) -> list[Fact]:
    """Decide that a person has seen it; again is no news. NOT_FOUND."""
    seen = (state or Standing()).suspicion(suspicion).decision.acknowledged
    return [] if seen else [SuspicionAcknowledged(suspicion=suspicion)]


def escalate(state: Standing | None, suspicion: str, level: Level, settle: timedelta, now: datetime) -> list[Fact]:
    """Decide that it is taken more seriously. NOT_FOUND; WRONG_ORDER unless the level is above the present one."""
    known = state or Standing()
    if level <= known.suspicion(suspicion).level:
        raise TsmError(ErrorCode.WRONG_ORDER, "it is at that level, or above", ("level",))
    revoke_from = now + settle if level is Level.REVOKE else None
    return _with_level(known, [SuspicionEscalated(suspicion=suspicion, level=level.value, revoke_from=revoke_from)])


def close(state: Standing | None, suspicion: str, verdict: Verdict, now: datetime) -> list[Fact]:
    """Decide what it was; the same again is no news, unless it is since then that a revocation waits. NOT_FOUND."""
    known = state or Standing()
    said = known.suspicion(suspicion)
    if said.decision.verdict is verdict and (said.revoke_from is None or said.is_due(now)):
        return []
    return _with_level(known, [SuspicionClosed(suspicion=suspicion, verdict=verdict, closed_at=now)])


def release(state: Standing | None, proof: Proof, document_sha256: str, now: datetime) -> list[Fact]:
    """Decide that the card is where it belongs. WRONG_ORDER when nothing is on hold, or it is to be revoked.

    What is known by now has happened by now, also where its source's clock is ahead of ours.
    """
    known = state or Standing()
    if not known.on_hold or known.level is Level.REVOKE:
        raise TsmError(ErrorCode.WRONG_ORDER, f"the card's level is {known.level.name}")
    if document_sha256:
        check_hex(document_sha256, "document_sha256", SHA256_OCTETS)
    at = max(now, known.cleared_at or now, *(suspicion.raised.since for suspicion in known.open))
    return _with_level(known, [CardCleared(proof=proof, document_sha256=document_sha256, cleared_at=at)])


def evolve(state: Standing | None, fact: Fact) -> Standing:
    """Fold one fact."""
    known = state or Standing()
    match fact:
        case SuspicionRaised(suspicion=id):
            raised = Suspicion(raised=fact, decision=known.decision_on(fact))
            return msgspec.structs.replace(known, suspicions={**known.suspicions, id: raised})
        case SuspicionWithdrawn(suspicion=id):
            left = {other: suspicion for other, suspicion in known.suspicions.items() if other != id}
            return msgspec.structs.replace(known, suspicions=left)
        case SuspicionAcknowledged(suspicion=id):
            return _decided(known, id, acknowledged=True)
        case SuspicionEscalated(suspicion=id):
            return _decided(known, id, level=fact.level, revoke_from=fact.revoke_from)
        case SuspicionClosed(suspicion=id):
            return _closed(known, fact)
        case CardCleared():
            return msgspec.structs.replace(known, cleared_at=fact.cleared_at)
        case LevelChanged():
            return msgspec.structs.replace(known, level=Level(fact.level), revoke_from=fact.revoke_from)
        case _:
            return known


def _with_level(known: Standing, facts: Sequence[Fact]) -> list[Fact]:
    """The facts, and the level that follows when it is another."""
    after = reduce(evolve, facts, known)
    level = max((suspicion.level for suspicion in after.open), default=Level.NONE)
    revoke_from = min((time for s in after.open if (time := s.revoke_from) is not None), default=None)
    if (level, revoke_from) == (known.level, known.revoke_from):
        return list(facts)
    return [*facts, LevelChanged(level=level.value, revoke_from=revoke_from)]


def _decided(known: Standing, id: str, **said: object) -> Standing:
    decision, suspicions = known.decisions.get(id, UNDECIDED), dict(known.suspicions)
    if id in suspicions:
        decision = msgspec.structs.replace(suspicions[id].decision, about=suspicions[id].raised)
    decision = msgspec.structs.replace(decision, **said)
    if id in suspicions:
        suspicions[id] = msgspec.structs.replace(suspicions[id], decision=decision)
    others = {other: each for other, each in known.decisions.items() if other != id}
    return msgspec.structs.replace(known, suspicions=suspicions, decisions={**others, id: decision})


def _closed(known: Standing, fact: SuspicionClosed) -> Standing:
    """With the verdict: a person who confirms something speaks of what follows from it then, by no later policy."""
    verdict, suspicion = Verdict(fact.verdict), known.suspicions.get(fact.suspicion)
    waits = suspicion.revoke_from if suspicion is not None else None
    if verdict is Verdict.CONFIRMED and waits is not None:
        return _decided(known, fact.suspicion, verdict=verdict, revoke_from=min(waits, fact.closed_at))
    return _decided(known, fact.suspicion, verdict=verdict)


def _raised(known: Standing, finding: Finding, succeeds: str, policy: Policy, now: datetime) -> SuspicionRaised:
    before = known.suspicions.get(finding.suspicion)
    return SuspicionRaised(
        suspicion=finding.suspicion,
        rule=finding.rule,
        condition=finding.condition,
        level=finding.level.value,
        policy=policy.version,
        since=finding.since,
        until=finding.until,
        evidence=finding.evidence,
        revoke_from=_revoke_from(before, finding, policy, now),
        succeeds=succeeds if before is None else before.raised.succeeds,
    )


def _revoke_from(before: Suspicion | None, finding: Finding, policy: Policy, now: datetime) -> datetime | None:
    """When the settle window is over: later, when evidence comes while it lasts; never again, once it is over."""
    if finding.revoke_from is None:
        return None
    told = before.raised.revoke_from if before is not None else None
    if told is None:
        return max(finding.revoke_from, now + timedelta(hours=policy.settle_hours))
    return told if told <= now else max(finding.revoke_from, told)


def _heirs(known: Standing, findings: Sequence[Finding], policy: Policy) -> dict[str, str]:
    """By suspicion that is found and was not known, the one that went, whose decision it takes over.

    That is the next one before it that shares evidence and has the same rule; where the policy has that rule no more,
    the same condition. What was said last counts.
    """
    found, rules = {finding.suspicion for finding in findings}, {rule.name for rule in policy.rules}
    heirs: dict[str, str] = {}
    for id, decision in known.decisions.items():  # in the order in which they were made
        about = decision.about
        heirs.pop(id, None)
        if about is None or id in found or decision.verdict is Verdict.CONFIRMED:  # which never goes
            continue
        after = [
            finding
            for finding in findings
            if finding.condition == about.condition
            and (finding.rule == about.rule or about.rule not in rules)
            and finding.since <= about.since
            and not {*finding.evidence}.isdisjoint(about.evidence)
            and finding.suspicion not in known.suspicions
        ]
        if after:
            heirs[max(after, key=lambda finding: finding.since).suspicion] = id
    return heirs


def _is_over(suspicion: Suspicion, now: datetime) -> bool:
    """Whether its time is; what a person takes more seriously has none."""
    until = suspicion.raised.until
    return until is not None and until <= now and suspicion.decision.level == Level.NONE


def _is_news(known: Standing, before: Suspicion | None, found: Suspicion, now: datetime) -> bool:
    """Whether it is to be raised (again); `before` is what it was, if it is open.

    That a case which a release has settled leads to a revocation no more is news as well: it is not open then.
    """
    if before is not None and before.is_due(now) and found.level < Level.REVOKE:
        return False
    is_open = before is not None or found.is_open(known.cleared_at)
    return is_open and not _same(known.suspicions.get(found.id), found.raised)


def _same(known: Suspicion | None, raised: SuspicionRaised) -> bool:
    """Another version of the policy that says the same is no news."""
    return known is not None and msgspec.structs.replace(raised, policy=known.raised.policy) == known.raised
