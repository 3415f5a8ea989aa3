"""Operations: what an operator asks for now, and what is done when the card is in contact, or a second person agrees.

    request     validated against the card's record; a row beside the log leads from the card to it
    approve     where policy wants a second person
    contact     the card's next contact: the commands are delegated in the operator's name, a phone carries them
    settle      what became of it, read from the card's record: done, failed, or it waits for the next contact

What is done on a card is done when the card's record says so. So a contact that broke off puts the operation back, and
the next one begins by asking the card (`tsm.flows.audit`) when its record may lag behind. What the card refused, or so
the phone says, has failed: a browser must not go round in circles with it.

What concerns no card is carried out by the worker, through functions that the server is assembled with. They are safe
to repeat, so a worker that is cut off anywhere goes on. Nothing here needs a read model.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import msgspec

from tsm.application import Change, Command, Loaded, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows import audit, scripts
from tsm.flows.contacts import Contacts
from tsm.flows.erasure import SessionUnderWay
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.on_hold import asked_by, refuse_on_hold
from tsm.flows.scripts import Scripts
from tsm.globalplatform.apdu import CommandApdu
from tsm.identifiers import Aid, Iccid
from tsm.mas.launch import LaunchParameters
from tsm.mas.status import Status
from tsm.model import card as cards
from tsm.model import catalogue as catalogues
from tsm.model import delegation as delegations
from tsm.model import deployment as deployments
from tsm.model import domain as domains
from tsm.model import operation as operations
from tsm.model import session as sessions
from tsm.model.card import Card, LifeCycle
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.delegation import Delegation, DelegationEnded
from tsm.model.deployment import DeploymentDelegated, DeploymentStep
from tsm.model.event import Context, Event, Fact
from tsm.model.operation import (
    Operation,
    OperationApproved,
    OperationDelegated,
    OperationEnded,
    OperationKind,
    OperationPutBack,
    OperationRequested,
    OperationState,
)
from tsm.model.party import WITHDRAWN
from tsm.model.standing import Use, UseRefused

SYSTEM = "system"  # the role in which the server does what a policy says that persons have adopted
OPEN = "operation"  # purpose of the rows that lead from a card to what waits for it
ACKNOWLEDGED = (Status.OK, Status.NOT_ALL_ACKNOWLEDGED)
REFUSED = (Status.CARD_REFUSED, Status.CARD_OUT_OF_MEMORY)
PASSING = (  # faults that say nothing of the operation: it is tried again
    ErrorCode.CONFLICT, ErrorCode.STORE_BUSY, ErrorCode.STORE_UNAVAILABLE, ErrorCode.UPSTREAM_UNAVAILABLE,
)  # fmt: skip

CarryOut = Callable[[Operation, Context], int]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What needs a second person, and how long an operation may wait."""

    four_eyes: frozenset[OperationKind] = frozenset({
        OperationKind.DELETE, OperationKind.REVOKE_CREDENTIAL, OperationKind.ERASE_PERSON, OperationKind.WITHDRAW_PARTY,
        OperationKind.ADOPT_SWAP_POLICY,
    })  # fmt: skip
    wait: timedelta = timedelta(days=30)


class Requested(NamedTuple):
    """An operation that was asked for, now or, under the same idempotency key, before."""

    operation: str
    position: int


Target = tuple[str, Mapping[str, str]]  # AID, and what else the kind needs


class Decided(NamedTuple):
    """What is asked for, and the streams on which it rests that this may be."""

    wanted: OperationRequested
    rests_on: Sequence[Change]


class Operations:
    """Takes what is asked for, and brings it about at the card's next contact."""

    def __init__(
        self,
        tsm: Tsm,
        contacts: Contacts,
        scripts: Scripts,
        policy: Policy,
        executors: Mapping[OperationKind, CarryOut],
    ) -> None:
        """`executors` carry out what concerns no card; each is safe to repeat and raises `TsmError`."""
        self._tsm = tsm
        self._contacts = contacts
        self._scripts = scripts
        self._policy = policy
        self._executors = executors

    # Asking. The context's tenant is the card's operator, or the provider whose domain is concerned, else FORBIDDEN.
    # All of them: UNKNOWN_CARD, INVALID_INPUT without a reason for what destroys, COMMAND_REUSED; FORBIDDEN for a
    # program that asks for what a second person has to approve.

    def create_domain(
        self, iccid: str, domain: str, reason: str, context: Context, command: Command | None = None
    ) -> Requested:
        """The domain of a provider, with provisional keys. NOT_FOUND for nobody's, UNKNOWN_SERVICE_PROVIDER for that of
        a provider that is enrolled no more, ALREADY_EXISTS.
        """
        return self._ask(OperationKind.CREATE_DOMAIN, iccid, lambda _: (domain, {}), reason, context, command)

    def install(
        self, iccid: str, load_file: str, reason: str, context: Context, command: Command | None = None
    ) -> Requested:
        """The application of a registered load file, in its provider's domain.

        NOT_FOUND for a load file that is not registered, UNKNOWN_SECURITY_DOMAIN, WRONG_ORDER before the domain has its
        owner's keys, ALREADY_EXISTS.
        """

        def target(_: Card) -> Target:
            file = self._load_file(load_file)
            return file.application, {"load_file": file.load_file}

        return self._ask(OperationKind.INSTALL, iccid, target, reason, context, command)

    def lock(self, iccid: str, target: str, reason: str, context: Context, command: Command | None = None) -> Requested:
        """A domain or an application. NOT_FOUND, INVALID_INPUT for anything else, WRONG_ORDER when it is locked."""
        return self._ask(OperationKind.LOCK, iccid, lambda _: (target, {}), reason, context, command)

    def unlock(
        self, iccid: str, target: str, reason: str, context: Context, command: Command | None = None
    ) -> Requested:
        """A domain or an application. NOT_FOUND, INVALID_INPUT for anything else, WRONG_ORDER when it is not locked."""
        return self._ask(OperationKind.UNLOCK, iccid, lambda _: (target, {}), reason, context, command)

    def delete(
        self, iccid: str, target: str, related: bool, reason: str, context: Context, command: Command | None = None
    ) -> Requested:
        """A domain, an application or a load file; with what belongs to it now, or WRONG_ORDER while something does.

        NOT_FOUND; INVALID_INPUT for the issuer's domain. What comes to belong to it later nobody agreed to delete: then
        the operation fails.
        """

        def target_on(card: Card) -> Target:
            return target, {"related": " ".join(card.related(target))} if related else {}

        return self._ask(OperationKind.DELETE, iccid, target_on, reason, context, command)

    def rotate_keys(self, iccid: str, reason: str, context: Context, command: Command | None = None) -> Requested:
        """New keys for the issuer's domain."""

        def target(card: Card) -> Target:
            return card.isd, {"replaces": f"{card.domain(card.isd).key_version:02x}"}

        return self._ask(OperationKind.ROTATE_KEYS, iccid, target, reason, context, command)

    def audit(self, iccid: str, reason: str, context: Context, command: Command | None = None) -> Requested:
        """The card is asked for all that it holds."""
        return self._ask(OperationKind.AUDIT, iccid, lambda card: (card.isd, {}), reason, context, command)

    def request_other(
        self,
        kind: OperationKind,
        target: str,
        reason: str,
        context: Context,
        command: Command | None = None,
        *,
        operator: str = "",
        provider: str = "",
        values: Mapping[str, str] | None = None,
    ) -> Requested:
        """What concerns no card: `target` is a credential's id, or `<role>/<party>`. INVALID_INPUT for other kinds."""
        if kind not in self._executors:
            raise TsmError(ErrorCode.INVALID_INPUT, "kind")

        def decide() -> Decided:
            wanted = self._wanted(kind, target, reason, context, values or {})
            return Decided(msgspec.structs.replace(wanted, operator=operator, provider=provider), [])

        return self._request(decide, context, command)

    def _ask(
        self,
        kind: OperationKind,
        iccid: str,
        target_on: Callable[[Card], Target],
        reason: str,
        context: Context,
        command: Command | None,
    ) -> Requested:
        def decide() -> Decided:
            loaded = self._tsm.load(cards.stream(Iccid(iccid)), cards.evolve)
            if loaded.state is None:
                raise TsmError(ErrorCode.UNKNOWN_CARD, iccid)
            card = loaded.state
            target, values = target_on(card)
            wanted = self._wanted(kind, Aid(target), reason, context, values)
            wanted = msgspec.structs.replace(wanted, iccid=iccid, operator=card.operator)
            wanted = self._with_domain(card, wanted)
            refuse_other_tenant(wanted, context)
            GOALS[kind].refuse(card, wanted)
            if kind is OperationKind.CREATE_DOMAIN:
                self._refuse_unclaimed(wanted)
            return Decided(wanted, [Change(cards.stream(iccid), loaded.version, [])])

        return self._request(decide, context, command)

    def _wanted(
        self, kind: OperationKind, target: str, reason: str, context: Context, values: Mapping[str, str]
    ) -> OperationRequested:
        return OperationRequested(
            operation=str(uuid4()),
            kind=kind,
            target=target,
            reason=reason,
            requested_by=context.actor,
            person=context.person,
            needs_approval=kind in self._policy.four_eyes and context.role != SYSTEM,
            expires_at=self._tsm.now() + self._policy.wait,
            values=values,
        )

    def _with_domain(self, card: Card, wanted: OperationRequested) -> OperationRequested:
        """The domain that is concerned, and whose it is."""
        domain = wanted.target
        if wanted.kind == OperationKind.INSTALL:
            domain = self._tsm.provider_of(self._load_file(wanted.values["load_file"]).provider).domain
        elif card.holds(domain) and domain not in card.domains:
            domain = card.owner(domain)
        owner = self._tsm.load(domains.stream(domain), domains.evolve).state
        return msgspec.structs.replace(wanted, domain=domain, provider=owner.provider if owner else "")

    def _refuse_unclaimed(self, wanted: OperationRequested) -> None:
        """NOT_FOUND for a domain that is nobody's, UNKNOWN_SERVICE_PROVIDER when its owner is enrolled no more."""
        if not wanted.provider:
            raise TsmError(ErrorCode.NOT_FOUND, f"no provider has the domain {wanted.target}")
        if self._tsm.provider_of(wanted.provider).certificate_fingerprint == WITHDRAWN:
            raise TsmError(ErrorCode.UNKNOWN_SERVICE_PROVIDER, wanted.provider)

    def _request(self, decide: Callable[[], Decided], context: Context, command: Command | None) -> Requested:
        """The same command again is answered before anything is looked at, for much may have changed since."""
        return self._answered(command) or decided(partial(self._record, decide, context, command))

    def _record(self, decide: Callable[[], Decided], context: Context, command: Command | None) -> Requested:
        now, (wanted, rests_on) = self._tsm.now(), decide()
        stream = operations.stream(wanted.operation)
        leads_here = [self._tsm.index_row(OPEN, wanted.iccid, stream, wanted.operation)] if wanted.iccid else []
        position = self._tsm.commit(
            Change(stream, 0, operations.request(None, wanted, now)),
            *rests_on,
            context=context_of(wanted, context),
            occurred_at=now,
            put_index=leads_here,
            command=command,
        )
        return self._answered(command) or Requested(wanted.operation, position)

    def _answered(self, command: Command | None) -> Requested | None:
        """What the same command led to before."""
        recorded = self._tsm.answered(command) if command is not None else None
        if recorded is None:
            return None
        (event,) = self._tsm.at(recorded.positions)
        assert isinstance(event, Event) and isinstance(event.fact, OperationRequested)  # noqa: S101  as it was recorded
        return Requested(event.fact.operation, recorded.head)

    # Deciding. FORBIDDEN in another tenant's name, NOT_FOUND; the log's position comes back.

    def approve(self, operation: str, context: Context, command: Command | None = None) -> int:
        """A second person agrees. FORBIDDEN for whoever asked for it and for programs, WRONG_ORDER."""
        actor, person = context.actor, context.person
        return self._decide(operation, context, command, lambda o, at: operations.approve(o, actor, person, at))

    def reject(self, operation: str, reason: str, context: Context, command: Command | None = None) -> int:
        """A second person refuses. FORBIDDEN as for `approve`, WRONG_ORDER, INVALID_INPUT without a reason."""
        actor, person = context.actor, context.person
        return self._decide(operation, context, command, lambda o, at: operations.reject(o, actor, person, reason, at))

    def cancel(self, operation: str, reason: str, context: Context, command: Command | None = None) -> int:
        """It is taken back: nobody can start the contact that waits for a phone. WRONG_ORDER once one has begun."""
        if self.find(operation).state is OperationState.DELEGATED:
            self.settle(operation)  # the contact may have ended, and done it
        return self._decide(operation, context, command, lambda o, _: operations.cancel(o, context.actor, reason))

    def _decide(
        self,
        operation: str,
        context: Context,
        command: Command | None,
        decide: Callable[[Operation, datetime], Sequence[Fact]],
    ) -> int:
        known = self._tsm.answered(command) if command is not None else None
        if known is not None:
            return known.head

        def once() -> int:
            loaded, now = self._loaded(operation), self._tsm.now()
            state = existing(loaded, operation)
            refuse_other_tenant(state.requested, context)
            facts = decide(state, now)
            ends = [fact for fact in facts if isinstance(fact, OperationEnded)]
            also = self._end_contact(state) if ends else Also()
            return self._commit(state, loaded.version, facts, context, also, command)

        return decided(once)

    def _end_contact(self, state: Operation) -> "Also":
        """A delegation that waits for its START waits no longer. WRONG_ORDER when it has started, and runs."""
        if state.state is not OperationState.DELEGATED:
            return Also()
        of_delegation, of_session = places(state)
        delegation = self._tsm.load(of_delegation, delegations.evolve)
        session = self._tsm.load(of_session, sessions.evolve)
        assert delegation.state is not None  # noqa: S101  it came before the operation's own fact
        if delegation.state.ended is not None:
            return Also()
        if session.state is not None:
            raise TsmError(ErrorCode.WRONG_ORDER, "a session with the card is under way")
        ended = delegations.end(delegation.state, Status.RECEPTION_CLOSED, 0)
        changes = Change(of_delegation, delegation.version, ended), Change(of_session, session.version, [])
        return Also(changes, (of_delegation,))

    # The contact

    def contact(self, operation: str, context: Context, command: Command | None = None) -> LaunchParameters:
        """The phone is at hand: what it needs to fetch the commands, and the same again until it has.

        NOT_FOUND, FORBIDDEN. WRONG_ORDER unless it waits for the card, while another contact is under way, and when it
        turns out to be done already. CARD_ON_HOLD for an unlock, for it may be a thief who is at the phone. What the
        card's record forbids by now ends it, and is raised; so is what DELEGATE refuses, which ends nothing.
        """
        state = self.settle(operation)
        refuse_other_tenant(state.requested, context)
        if not state.is_on_card:
            raise TsmError(ErrorCode.WRONG_ORDER, f"{state.kind} needs no card")
        for other in self.waiting(state.requested.iccid):
            self.settle(other)  # what is done already must not be done to what comes after it
        return self._contact(state, context, "", "", command)

    def launch(self, operation: str) -> LaunchParameters | None:
        """The launch of a contact that nobody has begun; None when there is no such contact. NOT_FOUND."""
        state = self.find(operation)
        begun = state.state is not OperationState.DELEGATED or self._has_begun(state)
        return None if begun else self._contacts.launch(state.requested.operator, state.reception)

    def next_contact(self, iccid: str, provider: str, return_url: str, request_id: str = "") -> LaunchParameters | None:
        """The first of what waits for a card that a provider has in contact; None when nothing does.

        What cannot be done any more ends here, and neither that nor what DELEGATE refuses stands in the provider's way.
        """
        context = asked_by(provider, request_id)
        for operation in self.waiting(iccid):
            state = self.settle(operation)
            try:
                if state.state in (OperationState.WAITING, OperationState.DELEGATED):
                    return self._contact(state, context, provider, return_url)
            except TsmError as error:
                if error.code in PASSING:
                    raise
                log.warning("operation %s: no contact: %s", operation, error)
        return None

    def waiting(self, iccid: str) -> list[str]:
        """What is open for a card, in the order in which its time will be over."""
        rows = self._tsm.indexed(OPEN, iccid)
        found = [self.find(row.stream.removeprefix(operations.stream(""))) for row in rows]
        return [state.requested.operation for state in sorted(found, key=lambda state: state.requested.expires_at)]

    def _contact(
        self, state: Operation, context: Context, provider: str, return_url: str, command: Command | None = None
    ) -> LaunchParameters:
        operation = state.requested.operation
        reception = decided(partial(self._delegate, operation, context, provider, return_url, command))
        if reception is None:
            raise TsmError(ErrorCode.WRONG_ORDER, "it is done already")
        return self._contacts.launch(state.requested.operator, reception)

    def _has_begun(self, state: Operation) -> bool:
        return self._tsm.load(places(state)[1], sessions.evolve).state is not None

    def _delegate(
        self, operation: str, context: Context, provider: str, return_url: str, command: Command | None
    ) -> str | None:
        """DELEGATE, then remember for what; the reception number, or None when the card's record says that it is done.

        A contact that nobody has begun is given again: a browser asks again, or somebody else was faster. What was
        delegated here then is not remembered, so nobody can start it, and it ends by itself.
        """
        loaded, now = self._loaded(operation), self._tsm.now()
        state = existing(loaded, operation)
        if state.state is OperationState.DELEGATED:
            if self._has_begun(state):
                raise TsmError(ErrorCode.WRONG_ORDER, "a session with the card is under way")
            return state.reception
        operations.require(state, now, OperationState.WAITING)
        wanted = state.requested
        record = self._tsm.load(cards.stream(wanted.iccid), cards.evolve)
        card = record.state
        assert card is not None  # noqa: S101  it was there when this was asked for
        asked, unlocks = UseRefused(use=Use.UNLOCK, provider=provider), state.kind is OperationKind.UNLOCK
        free = [refuse_on_hold(self._tsm, card.iccid, asked, context)] if unlocks else []
        goal = GOALS[state.kind]
        in_doubt = card.isd in card.doubtful
        if not in_doubt and goal.is_reached(card, wanted):
            self._commit(state, loaded.version, operations.end(state, OperationState.DONE), context)
            return None
        commands = self._questions(card, state) if in_doubt else self._commands(loaded, state, card, context)
        reception = self._contacts.delegate(card, commands, wanted.operation, context.request)
        step = DeploymentDelegated(
            operator=wanted.operator,
            provider=provider,
            reception=reception,
            iccid=wanted.iccid,
            domain=wanted.domain,
            step=DeploymentStep.OPERATION,
            return_url=return_url,
        )
        also = Also(
            (
                Change(deployments.stream(reception), 0, [step]),
                Change(cards.stream(card.iccid), record.version, []),
                *free,
            )
        )
        self._commit(state, loaded.version, operations.delegate(state, reception, now), context, also, command)
        return reception

    def _commands(self, loaded: Loaded[Operation], state: Operation, card: Card, context: Context) -> list[CommandApdu]:
        """The script. What the card's record forbids by now ends the operation."""
        goal = GOALS[state.kind]
        try:
            goal.refuse(card, state.requested)
            return goal.script(self, card, state.requested)
        except TsmError as error:
            if error.code not in PASSING:
                failed = operations.end(state, OperationState.FAILED, error.code)
                self._commit(state, loaded.version, failed, context)
            raise

    def _questions(self, card: Card, state: Operation) -> list[CommandApdu]:
        """What the card is asked when its record may lag behind it, about this operation in particular."""
        wanted = state.requested
        asked = [(audit.INSTANCES, wanted.target)]
        if state.kind is OperationKind.INSTALL:
            asked = [
                (audit.INSTANCES, wanted.domain),
                (audit.LOAD_FILES, wanted.values["load_file"]),
                (audit.INSTANCES, wanted.target),
            ]
        told = audit.inventory() if state.kind is OperationKind.AUDIT else audit.ask(*asked)
        told += audit.ask_for_unknown(card)
        if state.put_back == Status.CARD_OUT_OF_MEMORY:
            return [*told, *audit.proof_without_witness()]
        return [*told, *audit.proof_of_absence(card)]

    # What came of it

    def settle(self, operation: str) -> Operation:
        """Bring an operation as far as it can get without the card, and tell where it stands. NOT_FOUND.

        A contact that has ended decides; what concerns no card is carried out; what the card's record says is done is
        done; what nobody brought about in time expires. Safe to repeat, and for several servers at once. Passing faults
        are raised: repeat it then.
        """
        decided(partial(self._settle, operation))
        return self.find(operation)

    def _settle(self, operation: str) -> None:
        loaded, now = self._loaded(operation), self._tsm.now()
        state = existing(loaded, operation)
        facts: Sequence[Fact] = operations.expire(state, now)
        if not facts and state.state is OperationState.DELEGATED:
            facts = self._outcome(state)
        elif not facts and state.state is OperationState.WAITING and not state.is_on_card:
            facts = self._carried_out(state)
        also = Also()
        if not facts and self._is_done_meanwhile(state):
            facts, also = operations.end(state, OperationState.DONE), self._end_contact(state)
        if facts:
            self._commit(state, loaded.version, facts, by_the_worker(state), also)

    def _is_done_meanwhile(self, state: Operation) -> bool:
        """Whether something else brought about what waits for a card, or for a phone, and there is no doubt of that."""
        delegated = state.state is OperationState.DELEGATED
        if not state.is_on_card or not (state.state is OperationState.WAITING or delegated):
            return False
        if delegated and self._has_begun(state):
            return False
        card = self._tsm.card_of(state.requested.iccid)
        return card.isd not in card.doubtful and GOALS[state.kind].is_reached(card, state.requested)

    def _outcome(self, state: Operation) -> Sequence[Fact]:
        """What a contact came to, once its delegation has ended."""
        delegation = self._tsm.load(places(state)[0], delegations.evolve).state
        assert delegation is not None  # noqa: S101  it came before the operation's own fact
        if delegation.ended is None:
            return []
        status = Status(delegation.ended.status)
        is_audit = state.kind is OperationKind.AUDIT and status in ACKNOWLEDGED
        card = self._tsm.card_of(state.requested.iccid)
        if is_audit or GOALS[state.kind].is_reached(card, state.requested):
            return operations.end(state, OperationState.DONE)
        if status in REFUSED and not lacked_room_for_witness(state, delegation):
            return operations.end(state, OperationState.FAILED, status)
        return operations.put_back(state, state.reception, status)

    def _carried_out(self, state: Operation) -> Sequence[Fact]:
        try:
            self._executors[state.kind](state, by_the_worker(state))
        except SessionUnderWay:
            return []  # the worker comes again when the session is over
        except TsmError as error:
            if error.code in PASSING:
                raise
            return operations.end(state, OperationState.FAILED, error.code)
        return operations.end(state, OperationState.DONE)

    # What they need

    def find(self, operation: str) -> Operation:
        """NOT_FOUND."""
        return existing(self._loaded(operation), operation)

    def _loaded(self, operation: str) -> Loaded[Operation]:
        return self._tsm.load(operations.stream(operation), operations.evolve)

    def _commit(
        self,
        state: Operation,
        version: int,
        facts: Sequence[Fact],
        context: Context,
        also: "Also | None" = None,
        command: Command | None = None,
    ) -> int:
        also = also or Also()
        is_over = any(isinstance(fact, OperationEnded) for fact in facts)
        return self._tsm.commit(
            Change(operations.stream(state.requested.operation), version, facts),
            *also.changes,
            context=context_of(state.requested, context),
            occurred_at=self._tsm.now(),
            drop_payloads=also.drop,
            drop_index=[state.requested.operation] if is_over else [],
            command=command,
        )

    def _load_file(self, load_file: str) -> LoadFileRegistered:
        state = self._tsm.load(catalogues.stream(Aid(load_file)), catalogues.evolve).state
        if state is None:
            raise TsmError(ErrorCode.NOT_FOUND, f"load file {load_file}")
        return state.current

    # The scripts by kind

    def script_create_domain(self, card: Card, wanted: OperationRequested) -> list[CommandApdu]:
        return self._scripts.create_domain(card, wanted.target)

    def script_install(self, card: Card, wanted: OperationRequested) -> list[CommandApdu]:
        return self._scripts.install(card, self._load_file(wanted.values["load_file"]), wanted.domain)

    def script_rotate_keys(self, card: Card, wanted: OperationRequested) -> list[CommandApdu]:
        return self._scripts.rotate_keys(card)


class Also(NamedTuple):
    """What else changes with an operation."""

    changes: Sequence[Change] = ()
    drop: Sequence[str] = ()  # streams whose payloads go


def existing(loaded: Loaded[Operation], operation: str) -> Operation:
    if loaded.state is None:
        raise TsmError(ErrorCode.NOT_FOUND, f"operation {operation}")
    return loaded.state


def places(state: Operation) -> tuple[str, str]:
    """The streams of the contact's delegation and session."""
    place = state.requested.operator, state.reception
    return delegations.stream(*place), sessions.stream(*place)


def lacked_room_for_witness(state: Operation, delegation: Delegation) -> bool:
    """Whether a card that was asked what it holds had no room for a witness: the next time it is asked without."""
    headers = [command.header for command in delegation.accepted.commands]
    lacked_room = delegation.ended is not None and delegation.ended.status == Status.CARD_OUT_OF_MEMORY
    return lacked_room and audit.asks_enough(headers) and state.put_back != Status.CARD_OUT_OF_MEMORY


def refuse_other_tenant(wanted: OperationRequested, context: Context) -> None:
    """FORBIDDEN unless the context is of a party that it concerns; what concerns none is for the edge to decide."""
    concerned = {wanted.operator, wanted.provider} - {""}
    if concerned and context.tenant not in concerned:
        raise TsmError(ErrorCode.FORBIDDEN, "another party's operation")


def context_of(wanted: OperationRequested, told: Context) -> Context:
    """An operation is a story; it is the operator's and concerns the provider."""
    owner = wanted.operator or wanted.provider or told.tenant
    concerned = tuple(party for party in (wanted.provider,) if party and party != owner)
    return msgspec.structs.replace(told, tenant=owner, tenants=concerned, correlation=wanted.operation)


def by_the_worker(state: Operation) -> Context:
    """Who asked for it, and who agreed, the operation's own stream says."""
    wanted = state.requested
    return Context(
        actor="system:operations",
        role="system",
        tenant="",
        correlation=wanted.operation,
        causation=operations.stream(wanted.operation),
        reason=wanted.reason,
    )


# What each kind is about: when it is done, what forbids it, what the card is told


class Goal(NamedTuple):
    """All three are asked of the card's record."""

    is_reached: Callable[[Card, OperationRequested], bool]
    refuse: Callable[[Card, OperationRequested], None]
    script: Callable[[Operations, Card, OperationRequested], list[CommandApdu]]


def life_cycle_of(card: Card, wanted: OperationRequested) -> str:
    """Empty when the card has no such domain or application."""
    known = card.domains.get(wanted.target) or card.applications.get(wanted.target)
    return known.life_cycle if known else ""


def refuse_lock(card: Card, wanted: OperationRequested) -> None:
    refuse_unless_instance(card, wanted)
    if life_cycle_of(card, wanted) == LifeCycle.LOCKED:
        raise TsmError(ErrorCode.WRONG_ORDER, f"{wanted.target} is locked")


def refuse_unlock(card: Card, wanted: OperationRequested) -> None:
    refuse_unless_instance(card, wanted)
    if life_cycle_of(card, wanted) != LifeCycle.LOCKED:
        raise TsmError(ErrorCode.WRONG_ORDER, f"{wanted.target} is not locked")


def refuse_unless_instance(card: Card, wanted: OperationRequested) -> None:
    card.owner(wanted.target)
    if wanted.target == card.isd or wanted.target in card.load_files:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{wanted.target} is not a provider's domain or an application")


def refuse_delete(card: Card, wanted: OperationRequested) -> None:
    card.owner(wanted.target)
    if wanted.target == card.isd:
        raise TsmError(ErrorCode.INVALID_INPUT, "the issuer's domain stays")
    agreed = wanted.values.get("related", "").split()
    others = [aid for aid in card.related(wanted.target) if aid not in agreed]
    if others:
        raise TsmError(ErrorCode.WRONG_ORDER, f"{', '.join(others)} belong to {wanted.target}")


def refuse_create_domain(card: Card, wanted: OperationRequested) -> None:
    if domain_is_made(card, wanted):
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"{wanted.target} on {card.iccid}")


def domain_is_made(card: Card, wanted: OperationRequested) -> bool:
    return wanted.target in card.domains and bool(card.domain(wanted.target).key_version)


def refuse_install(card: Card, wanted: OperationRequested) -> None:
    domain = card.domain(wanted.domain)
    if not domain.key_version or domain.provisional:
        raise TsmError(ErrorCode.WRONG_ORDER, f"{wanted.domain} has not its owner's keys")
    if wanted.target in card.applications:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"{wanted.target} on {card.iccid}")


def keys_are_rotated(card: Card, wanted: OperationRequested) -> bool:
    return f"{card.domain(card.isd).key_version:02x}" != wanted.values["replaces"]


def refuse_nothing(card: Card, wanted: OperationRequested) -> None:
    """Nothing stands against it."""


GOALS: Mapping[OperationKind, Goal] = {
    OperationKind.CREATE_DOMAIN: Goal(domain_is_made, refuse_create_domain, Operations.script_create_domain),
    OperationKind.INSTALL: Goal(
        lambda card, wanted: wanted.target in card.applications, refuse_install, Operations.script_install
    ),
    OperationKind.LOCK: Goal(
        lambda card, wanted: life_cycle_of(card, wanted) == LifeCycle.LOCKED,
        refuse_lock,
        lambda _, card, wanted: scripts.lock(wanted.target),
    ),
    OperationKind.UNLOCK: Goal(
        lambda card, wanted: life_cycle_of(card, wanted) not in ("", LifeCycle.LOCKED),
        refuse_unlock,
        lambda _, card, wanted: scripts.unlock(wanted.target),
    ),
    OperationKind.DELETE: Goal(
        lambda card, wanted: not card.holds(wanted.target),
        refuse_delete,
        lambda _, card, wanted: scripts.delete(card, wanted.target),
    ),
    OperationKind.ROTATE_KEYS: Goal(keys_are_rotated, refuse_nothing, Operations.script_rotate_keys),
    OperationKind.AUDIT: Goal(lambda card, wanted: False, refuse_nothing, lambda _, card, wanted: audit.inventory()),
}


class OperationsWorker(Follower):
    """Settles what a contact, an approval or time has brought to its end."""

    name = "operations"
    topics = (*(fact.topic for fact in operations.FACTS), DelegationEnded.topic)

    def __init__(self, tsm: Tsm, operations: Operations, position: Position) -> None:
        super().__init__(tsm, position)
        self._operations = operations
        self._open: dict[str, tuple[int, datetime]] = {}  # position of the request, and until when it may wait
        self._due: set[str] = set()
        self._without_card: dict[str, str] = {}  # of those that are open: its target, by operation

    def see(self, event: Event) -> None:
        match event.fact:
            case OperationRequested(operation=operation, expires_at=expires_at, iccid=iccid, target=target):
                self._open[operation] = event.position, expires_at
                self._due.add(operation)
                if not iccid:
                    self._without_card[operation] = target
            case OperationApproved() | OperationDelegated() | OperationPutBack():
                self._due.add(event.originator_id.removeprefix(operations.stream("")))
            case OperationEnded():
                self._forget(event.originator_id.removeprefix(operations.stream("")))
            case DelegationEnded():  # of an operation, or in the story of a credential that is to be erased
                story = event.context.correlation
                self._due |= {story, *(one for one, target in self._without_card.items() if target == story)}

    def act(self) -> None:
        now = self._tsm.now()
        late = {operation for operation, (_, expires_at) in self._open.items() if expires_at <= now}
        for_each([operation for operation in self._due | late if operation in self._open], self._settle)
        self._due.clear()

    def unfinished(self) -> int | None:
        return min((position for position, _ in self._open.values()), default=None)

    def _settle(self, operation: str) -> None:
        if self._operations.settle(operation).is_over:
            self._forget(operation)
        self._due.discard(operation)

    def _forget(self, operation: str) -> None:
        self._open.pop(operation, None)
        self._without_card.pop(operation, None)
        self._due.discard(operation)
