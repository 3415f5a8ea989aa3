"""What a card's standing leads to, beside its sessions (`tsm.flows.on_hold`): of credentials and of the applet.

    HOLD        credential.hold_ordered for each credential that is in the card, or may be
    LOCK        and an operation that locks the JPKI applet
    REVOKE      and after the settle window, credential.revocation_ordered and an operation that deletes the applet
    below LOCK  a lock that still waits is taken back
    lifted      credential.release_ordered; and a lock that is done is undone, or may be: then the card is asked first

The operations wait for the card's next contact, like those of persons; whatever else can carry commands to a card may
carry them. No second person is asked: that a suspicion leads to this, the policy says, and persons adopted it.

Everything is decided from what is true now, the standing and what was done for it so far, so it may be decided again at
any time, by several servers, and nothing is done twice. What the system asked for on a card is a chain of idempotency
keys, so it finds its own operations again. What a person took back it does not ask for again until the level has been
lower in between. What the card refused it does not ask for on the same day: it may have been the phone that said so.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from tsm.application import EARLIEST, Change, Command, Loaded, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.erasure import context_of
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.issuance_follower import JPKI_APPLICATION
from tsm.flows.operations import SYSTEM, Operations, Requested
from tsm.model import credential as credentials
from tsm.model import operation as operations
from tsm.model import standing as standings
from tsm.model.card import Card, LifeCycle
from tsm.model.credential import Credential, PersonalizationDelegated, RevocationReason, Stage
from tsm.model.event import Context, Event, Fact
from tsm.model.operation import Operation, OperationEnded, OperationKind, OperationRequested, OperationState
from tsm.model.standing import LevelChanged, Standing
from tsm.model.swap_policy import Condition, Level

ACTOR = "system:swap-response"
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
AGAIN = timedelta(seconds=2)  # before a contact that is under way is looked at again
CHANGES = (OperationKind.LOCK, OperationKind.UNLOCK, OperationKind.DELETE)
OVER = frozenset({Condition.TERMINATED, Condition.PORTED_OUT, Condition.CARD_REPLACED})  # of the line, not of the key
PATIENCE = timedelta(days=1)  # before what a card refused is asked for again: nobody's visits end there for ever
LONGEST_REASON = 200


class Asked(NamedTuple):
    """An operation that was asked for here."""

    position: int  # of the request
    operation: Operation
    again: datetime | None  # when it failed: from when on it may be asked for again
    counts: bool  # neither taken back here nor overtaken by time, else it is as if nobody had asked

    @property
    def waits(self) -> bool:
        return not self.operation.is_over

    @property
    def went_out(self) -> bool:
        """Whether a phone was told to fetch it: what the card then did, only its record can tell."""
        return bool(self.operation.reception)


class Case(NamedTuple):
    """One card, as it stands now."""

    card: Card
    loaded: Loaded[Standing]
    standing: Standing
    revoke: bool  # and the settle window is over
    began: int  # position after which the level was always LOCK or above
    asked: list[Asked]
    context: Context

    @property
    def applet(self) -> str:
        """The life cycle of the JPKI applet; empty when the card has none."""
        application = self.card.applications.get(JPKI_APPLICATION)
        return application.life_cycle if application else ""

    def of_kinds(self, *kinds: OperationKind) -> list[Asked]:
        """What was asked for and counts, in order."""
        return [one for one in self.asked if one.counts and one.operation.kind in kinds]

    def was_tried(self, kind: OperationKind) -> bool:
        """Whether it was asked for since the level is what it is, or before and still waits."""
        return any(one.position > self.began or one.waits for one in self.of_kinds(kind))

    @property
    def may_be_locked_here(self) -> bool:
        """Whether a lock that was asked for here may have been executed, and nobody has asked since to undo it."""
        locks = [one for one in self.asked if one.operation.kind is OperationKind.LOCK and one.went_out]
        return last(locks) > last(self.of_kinds(OperationKind.UNLOCK))

    @property
    def is_to_be_asked(self) -> bool:
        """Whether what went out may have been executed without our knowing, and the card was not asked since."""
        if self.card.isd not in self.card.doubtful:
            return False
        changes = [one for one in self.asked if one.operation.kind in CHANGES and one.went_out]
        return last(changes) > last(self.of_kinds(OperationKind.AUDIT))


class SwapResponse:
    """Brings a card's credentials and its applet to what its standing asks for."""

    def __init__(self, tsm: Tsm, operations: Operations) -> None:
        self._tsm = tsm
        self._operations = operations

    def respond(self, iccid: str) -> datetime | None:
        """Do what is due; when to look again, or None when only something new can change it."""
        case = self._case(iccid)
        if case is None:
            return None
        for row in self._tsm.indexed("iccid", iccid):
            decided(partial(self._order, iccid, row.subject))
        if not self._take_back(case):
            return self._tsm.now() + AGAIN
        case = self._case(iccid) or case  # a contact that was settled to take it back may have told something
        self._ask(case)
        times = [one.again for one in case.asked if one.counts] + [None if case.revoke else case.standing.revoke_from]
        return min((time for time in times if time is not None), default=None)

    def _case(self, iccid: str) -> Case | None:
        stream = standings.stream(iccid)
        loaded = self._tsm.load(stream, standings.evolve)
        standing = loaded.state
        if standing is None:
            return None
        card = self._tsm.card_of(iccid)
        began, changed = self._since(stream)
        context = Context(
            actor=ACTOR,
            role=SYSTEM,
            tenant=card.operator,
            correlation=stream,
            causation=str(changed),
            reason=why(standing),
        )
        due = standing.revoke_from is not None and standing.revoke_from <= self._tsm.now()
        revoke = standing.level is Level.REVOKE and due
        return Case(card, loaded, standing, revoke, began, self._asked(iccid), context)

    def _since(self, stream: str) -> tuple[int, int]:
        """Positions: of the last level below LOCK, after which all were above; and of the last one."""
        below = changed = 0
        for event in self._tsm.history(stream, unseals={}):
            if isinstance(event.fact, LevelChanged):
                changed = event.position
                below = below if event.fact.level >= Level.LOCK else changed
        return below, changed

    def card_of(self, operation: str) -> str:
        """Of an operation, whoever asked for it; empty when it concerns no card."""
        return self._operations.find(operation).requested.iccid

    # Credentials

    def _order(self, iccid: str, credential: str) -> None:
        case = self._case(iccid)
        stream = credentials.stream(credential)
        loaded = self._tsm.load(stream, credentials.evolve)
        state = loaded.state
        if case is None or state is None or state.closed or state.refused or state.stage < Stage.ISSUED:
            return
        facts = wanted(case, state)
        if facts:
            self._tsm.commit(
                Change(stream, loaded.version, facts),
                Change(standings.stream(iccid), case.loaded.version, []),
                context=context_of(credential, state, case.context),
                occurred_at=self._tsm.now(),
            )

    # The applet

    def _asked(self, iccid: str) -> list[Asked]:
        """All that was ever asked for here on this card, in order."""
        found: list[Asked] = []
        while (recorded := self._tsm.answered(key(iccid, len(found) + 1))) is not None:
            (event,) = self._tsm.at(recorded.positions)
            assert isinstance(event, Event) and isinstance(event.fact, OperationRequested)  # noqa: S101  as recorded
            found.append(self._as_it_stands(event.position, event.fact.operation))
        return found

    def _as_it_stands(self, position: int, operation: str) -> Asked:
        state, again = self._operations.find(operation), None
        if state.state is OperationState.FAILED:
            *_, failed = self._tsm.history(operations.stream(operation))
            again = failed.occurred_at + PATIENCE
        by_us = state.ended is not None and state.ended.ended_by == ACTOR
        overtaken = state.state is OperationState.EXPIRED or (again is not None and again <= self._tsm.now())
        return Asked(position, state, again, counts=not (by_us or overtaken))

    def _take_back(self, case: Case) -> bool:
        """What waits and is wanted no more; False when a phone is carrying it to the card just now."""
        wanted = {
            OperationKind.UNLOCK: not case.standing.on_hold,
            OperationKind.LOCK: case.standing.level >= Level.LOCK,
            OperationKind.DELETE: case.revoke,
        }
        for one in case.of_kinds(*(kind for kind, is_wanted in wanted.items() if not is_wanted)):
            if one.waits:
                try:
                    self._operations.cancel(one.operation.requested.operation, case.context.reason, case.context)
                except TsmError as error:
                    if error.code is not ErrorCode.WRONG_ORDER:
                        raise
                    return False
        return True

    def _ask(self, case: Case) -> None:
        """What is wanted and neither done nor asked for."""
        locked, level = case.applet == LifeCycle.LOCKED, case.standing.level
        ask: Callable[..., Requested] | None = None
        if not case.applet:
            return
        if case.revoke:
            ask = None if case.was_tried(OperationKind.DELETE) else partial(self._operations.delete, related=True)
        elif level >= Level.LOCK and not locked:
            ask = None if case.was_tried(OperationKind.LOCK) else self._operations.lock
        elif level >= Level.LOCK and case.is_to_be_asked:
            ask = self._audit
        elif not case.standing.on_hold and case.may_be_locked_here:
            ask = self._operations.unlock if locked else self._audit if case.is_to_be_asked else None
        if ask is not None:
            iccid = case.card.iccid
            ask(
                iccid,
                JPKI_APPLICATION,
                reason=case.context.reason,
                context=case.context,
                command=key(iccid, len(case.asked) + 1),
            )

    def _audit(self, iccid: str, _: str, *, reason: str, context: Context, command: Command) -> Requested:
        return self._operations.audit(iccid, reason, context, command)


class SwapResponseFollower(Follower):
    """Responds when a level changes or a settle window is over, when a write begins, and when an operation ends."""

    name = "swap-response"
    topics = (LevelChanged.topic, PersonalizationDelegated.topic, OperationEnded.topic)

    def __init__(self, tsm: Tsm, response: SwapResponse, position: Position) -> None:
        super().__init__(tsm, position)
        self._response = response
        self._pending: dict[str, Pending] = {}  # by stream

    def see(self, event: Event) -> None:
        match event.fact:
            case LevelChanged() | PersonalizationDelegated() | OperationEnded():
                self._pending[event.originator_id] = Pending(event.position, EARLIEST)

    def act(self) -> None:
        now = self._tsm.now()
        for_each([stream for stream, pending in self._pending.items() if pending.due <= now], self._respond)

    def unfinished(self) -> int | None:
        return min((pending.position for pending in self._pending.values()), default=None)

    def _respond(self, stream: str) -> None:
        iccid, position = self._card_of(stream), self._pending[stream].position
        again = self._response.respond(iccid) if iccid else None
        if again is None:
            del self._pending[stream]
        else:
            self._pending[stream] = Pending(position, again)

    def _card_of(self, stream: str) -> str:
        """The ICCID; empty for what is no business of a card, or of one no more."""
        name = stream.partition("-")[2]
        if stream == operations.stream(name):
            return self._response.card_of(name)
        if stream == credentials.stream(name):
            state = self._tsm.load(stream, credentials.evolve).state
            return state.applied.iccid if state is not None and not state.closed else ""
        return name


class Pending(NamedTuple):
    """What has come up, and when to look at it."""

    position: int
    due: datetime


def wanted(case: Case, state: Credential) -> list[Fact]:
    """What follows for a credential that is issued and not closed."""
    if case.revoke:
        return [*credentials.order_revocation(state, reason_of(case.standing))]
    if not case.standing.on_hold:
        return [*credentials.order_release(state)]
    return [*credentials.order_hold(state)] if state.in_use else []


def reason_of(standing: Standing) -> RevocationReason:
    """The line is over, or its card was replaced; or else somebody may have the key in hand (RFC 5280 5.3.1)."""
    grave = {Condition(one.raised.condition) for one in standing.open if one.level is Level.REVOKE}
    return RevocationReason.CESSATION_OF_OPERATION if grave <= OVER else RevocationReason.KEY_COMPROMISE


def why(standing: Standing) -> str:
    """Rules and suspicions that make the level, or that nothing does any more."""
    found = [f"{one.raised.rule} ({one.id})" for one in standing.open if one.level is standing.level]
    text = f"{standing.level.name}: {', '.join(found)}" if found else "no suspicion is open that asks for it"
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 4]} ..."


def last(asked: list[Asked]) -> int:
    """The position of the last; 0 without one."""
    return asked[-1].position if asked else 0


def key(iccid: str, number: int) -> Command:
    """The idempotency key of the n-th operation that is asked for here on a card."""
    return Command(f"{ACTOR} {iccid} {number}", "", FOREVER)
