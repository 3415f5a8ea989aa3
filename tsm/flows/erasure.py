"""The erasure of a person: ordered once, carried out in steps that may be cut off anywhere.

    order       one transaction: credential.erasure_ordered; the rows that lead from card and certificate to the
                credential go, and so do the delegated commands that wait for the card: they hold its content
    destroy     the vault destroys the data key of the subject, once the list of destroyed keys names it
    remains     no earlier version of what went stays in the database's files
    record      credential.person_erased

From the order on the credential is closed (`tsm.model.credential`), so nothing personal follows. Every step may be
repeated, and whoever finds an order that is not carried out goes on with it: the command of the administrator when it
is given again, or the follower of a running server.

The follower mends what a restored backup undid as well. A log that is younger than the key store says who was erased,
and the store is made to agree: how far they were compared is kept with the data keys, so an older copy of these is
compared from where it was made, and with another log from its beginning. A log that is older lacks the order, but the
key store still knows whose keys it destroyed, and the order is given again.
"""

import logging
from functools import partial

import msgspec

from tsm.application import Change, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import SCAN, Follower, for_each
from tsm.keys.vault import SoftwareVault
from tsm.mas.status import Status
from tsm.model import credential as credentials
from tsm.model import delegation as delegations
from tsm.model import session as sessions
from tsm.model.credential import Credential, ErasureOrdered, PersonErased
from tsm.model.delegation import DelegationAccepted
from tsm.model.event import Context, Event
from tsm.model.line import TENURE, TenureErased

KEEP_EACH = 100_000  # positions: to keep one makes every process that uses the data keys look at them anew
BEFORE_THE_LOG = "the data key was destroyed before this copy of the log was made"
log = logging.getLogger(__name__)


class SessionUnderWay(TsmError):
    """A session with the card runs. It ends by itself, and what is refused now may be asked for again then."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.WRONG_ORDER, "a session with the card is under way: repeat when it is over")


class Erasure:
    """Erases persons, one tenure of a credential each."""

    def __init__(self, tsm: Tsm, vault: SoftwareVault) -> None:
        self._tsm = tsm
        self._vault = vault

    def credentials_of(self, serial: str) -> list[str]:
        """The credentials that the holder of a main certificate applied for, by its serial number in hex.

        Those of erased persons are not found any more. INVALID_INPUT.
        """
        try:
            number = int(serial.replace(":", "").replace(" ", ""), 16)
        except ValueError:
            raise TsmError(ErrorCode.INVALID_INPUT, "a serial number is written in hex") from None
        return [row.subject for row in self._tsm.indexed("main-certificate", f"{number:X}")]

    def refuse_unless_erasable(self, credential: str, even_in_use: bool = False) -> None:
        """NOT_FOUND; WRONG_ORDER for a credential that is in use, unless that is meant."""
        credentials.order_erasure(self._state(credential), even_in_use)

    def erase(self, credential: str, context: Context, even_in_use: bool = False) -> int:
        """Order and carry out; the log's position. The context says who and why; tenants and story are filled in.

        NOT_FOUND. WRONG_ORDER for a credential that is in use, unless that is meant; as `SessionUnderWay` while a
        session with the card runs, which ends when the phone is silent for a minute. STORE_UNAVAILABLE when a file is
        held by others; once it was ordered, a server completes it.
        """
        decided(partial(self._order, credential, context, even_in_use))
        return self.carry_out(credential, context)

    def carry_out(self, credential: str, context: Context) -> int:
        """What an order asks for. WRONG_ORDER when there is none."""
        state = self._state(credential)
        credentials.person_erased(state)
        assert state is not None and state.erasure is not None  # noqa: S101  as was just decided
        # The vault before the log: a key that is gone can be destroyed again, an event that is early would lie.
        self._vault.destroy_subject(state.erasure.subject)
        self._tsm.erase_remains()
        return decided(partial(self._record, credential, context))

    def _order(self, credential: str, context: Context, even_in_use: bool) -> None:
        stream = credentials.stream(credential)
        loaded = self._tsm.load(stream, credentials.evolve)
        facts = credentials.order_erasure(loaded.state, even_in_use)
        if not facts:
            return
        assert loaded.state is not None  # noqa: S101  else it is refused
        places = self._delegations(credential, loaded.state)
        self._tsm.commit(
            Change(stream, loaded.version, facts),
            *(change for place in places for change in self._ended(*place)),
            context=context_of(credential, loaded.state, context),
            occurred_at=self._tsm.now(),
            drop_payloads=[room.stream(*place) for place in places for room in (delegations, sessions)],
            drop_index=[loaded.state.applied.subject],
        )

    def _record(self, credential: str, context: Context) -> int:
        stream = credentials.stream(credential)
        loaded = self._tsm.load(stream, credentials.evolve)
        facts = credentials.person_erased(loaded.state)
        assert loaded.state is not None  # noqa: S101  else it is refused
        context = context_of(credential, loaded.state, context)
        return self._tsm.commit(Change(stream, loaded.version, facts), context=context, occurred_at=self._tsm.now())

    def _delegations(self, credential: str, state: Credential) -> list[tuple[str, str]]:
        """All that the credential's provider delegated in its name, whether or not it counted."""
        after, found = 0, []
        while (page := self._tsm.page(after, SCAN, (DelegationAccepted.topic,))).last > after:
            for event in page.events:
                match event:
                    case Event(fact=DelegationAccepted(provider=provider, correlation=story, reception=reception)):
                        if (provider, story) == (state.applied.provider, credential):
                            found.append((provider, reception))
            after = page.last
        return found

    def _ended(self, provider: str, reception: str) -> list[Change]:
        """A delegation that waits for its START waits no longer. WRONG_ORDER when it has started."""
        delegation = self._tsm.load(delegations.stream(provider, reception), delegations.evolve)
        if delegation.state is None or delegation.state.ended is not None:
            return []
        session = self._tsm.load(sessions.stream(provider, reception), sessions.evolve)
        if session.state is not None:
            raise SessionUnderWay
        ended = delegations.end(delegation.state, Status.RECEPTION_CLOSED, 0)
        return [
            Change(delegations.stream(provider, reception), delegation.version, ended),
            Change(sessions.stream(provider, reception), session.version, []),  # still not started
        ]

    def _state(self, credential: str) -> Credential | None:
        return self._tsm.load(credentials.stream(credential), credentials.evolve).state


class Compared:
    """How far log and data keys were compared, kept with the data keys. Of another log it says nothing."""

    def __init__(self, tsm: Tsm, vault: SoftwareVault) -> None:
        self._tsm = tsm
        self._vault = vault

    def read(self) -> int:
        position, recorded_at = self._vault.compared_with_log() or (0, "")
        return position if position and self._recorded_at(position) == recorded_at else 0

    def write(self, position: int) -> None:
        known, _ = self._vault.compared_with_log() or (0, "")
        if known <= position < known + KEEP_EACH:
            return
        if recorded_at := self._recorded_at(position):
            self._vault.note_compared_with_log(position, recorded_at)

    def _recorded_at(self, position: int) -> str:
        """Empty for an event that is not there, or cannot be read."""
        return next((str(event.recorded_at) for event in self._tsm.at([position]) if isinstance(event, Event)), "")


class ErasureFollower(Follower):
    """Carries out what was ordered, wherever it was cut off, and mends what a restored backup undid."""

    name = "erasure"
    topics = (ErasureOrdered.topic, PersonErased.topic, TenureErased.topic)

    def __init__(self, tsm: Tsm, vault: SoftwareVault) -> None:
        super().__init__(tsm, Compared(tsm, vault))
        self._vault = vault
        self._erasure = Erasure(tsm, vault)
        self._ordered: dict[str, Event] = {}  # by subject: not carried out, as far as was read
        self._erased: dict[str, Event] = {}  # by subject: to be compared with the vault
        self._unknown: set[str] | None = None  # destroyed, perhaps without an order in this log

    def see(self, event: Event) -> None:
        match event.fact:
            case ErasureOrdered(subject=subject):
                self._ordered[subject] = event
            case PersonErased(subject=subject) | TenureErased(subject=subject):
                self._ordered.pop(subject, None)
                self._erased[subject] = event

    def act(self) -> None:
        if self._unknown is None:  # the log was read to its end for the first time
            known = self._erased.keys() | self._ordered.keys()
            # From the subject of a line's tenure nothing leads to its line, so nothing can be ordered for it.
            persons = (one for one in self._vault.destroyed_subjects() if not one.startswith(TENURE))
            self._unknown = set(persons) - known
        for_each(list(self._ordered), self._carry_out)
        for_each(list(self._erased), self._destroy_again)
        for_each(list(self._unknown), self._order_again)

    def unfinished(self) -> int | None:
        return min((event.position for event in (*self._ordered.values(), *self._erased.values())), default=None)

    def _carry_out(self, subject: str) -> None:
        event = self._ordered[subject]
        context = by_the_follower(event.context.reason, str(event.position))
        self._erasure.carry_out(event.originator_id.removeprefix(credentials.stream("")), context)
        del self._ordered[subject]

    def _destroy_again(self, subject: str) -> None:
        if not self._vault.subject_destroyed(subject):
            log.warning("a key that the log says is destroyed was back, as after a restored backup: destroyed again")
            self._vault.destroy_subject(subject)
        del self._erased[subject]

    def _order_again(self, subject: str) -> None:
        assert self._unknown is not None  # noqa: S101  act has found it there
        credential = self._tsm.load(credentials.stream(subject), credentials.evolve).state
        if credential is not None and not credential.erased:
            log.warning("a key is destroyed, but this log, as after a restored backup, has no order: it is given again")
            self._erasure.erase(subject, by_the_follower(BEFORE_THE_LOG), even_in_use=True)
        self._unknown.remove(subject)


def by_the_follower(reason: str, causation: str = "") -> Context:
    return Context(actor="system:erasure", role="system", tenant="", correlation="", causation=causation, reason=reason)


def context_of(credential: str, state: Credential, told: Context) -> Context:
    """Who acts and why, in the credential's story: it is the provider's, and concerns the municipality."""
    applied = state.applied
    return msgspec.structs.replace(
        told, tenant=applied.provider, tenants=(applied.municipality,), correlation=credential
    )
