"""The application: load a stream, decide, commit; the position of the last event comes back.

Loading folds a stream's facts into a state. Committing appends the facts of one or more streams in one transaction,
each stream only if nobody has appended to it since it was loaded. That holds for a stream without new facts as well:
naming it says that the decision rests on it. Whoever loses that race gets CONFLICT, loads again and decides again.
Stories that span several parties are in `tsm.flows`; here are the commands that need no story.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

from eventsourcing.application import Application
from eventsourcing.persistence import IntegrityError
from eventsourcing.utils import Environment

from tsm.errors import ErrorCode, TsmError, within
from tsm.keys.vault import SoftwareVault
from tsm.model import authority, card, catalogue, domain, operator, party, production, service_provider, terminal
from tsm.model.authority import AuthorityEnrolled
from tsm.model.card import Card, CardReleased
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.event import Context, Event, Fact
from tsm.model.operator import OperatorEnrolled
from tsm.model.production import ProductionRow
from tsm.model.service_provider import ProviderEnrolled, ServiceProvider
from tsm.model.terminal import TerminalEnrolled
from tsm.store import log
from tsm.store.committer import Committer
from tsm.store.factory import StoreFactory
from tsm.store.log import NOTHING, Page, Unreadable
from tsm.store.mapper import ERASED as ERASED  # what its readers may meet
from tsm.store.mapper import JsonMapper, Unseals
from tsm.store.recorder import MOST, Append, Recorded, Recorder
from tsm.store.recorder import Command as Command  # part of what `commit` takes
from tsm.store.recorder import IndexRow as IndexRow

KEPT_STATES = 4096  # folded streams in memory: they only save replay, the log decides

EARLIEST = datetime.min.replace(tzinfo=UTC)

ATTEMPTS = 5  # how often a request is decided anew when somebody else committed meanwhile

S = TypeVar("S")
Result = TypeVar("Result")
Enrolled = TypeVar("Enrolled", bound=party.Certified)
Clock = Callable[[], datetime]
Evolve = Callable[[S | None, Fact], S]


class Loaded(NamedTuple, Generic[S]):
    """A stream's state, and the version to which it was folded: 0 for a stream that does not exist."""

    state: S | None
    version: int


class Change(NamedTuple):
    """Facts for one stream, decided on its state at `version`; none when others were decided on it."""

    stream: str
    version: int
    facts: Sequence[Fact]
    occurred_at: datetime | None = None  # another time than that of the commit


class Tsm(Application[str]):
    """One log and one vault. Safe to share between threads; other processes may write to the same log."""

    def __init__(self, vault: SoftwareVault, recorder: Recorder, facts: Sequence[type[Fact]], clock: Clock) -> None:
        """`facts` are the topics that the log may hold (`tsm.model.topics.FACTS`)."""
        self._vault = vault
        self._clock = clock
        self._recorder = recorder
        self._committer = Committer(recorder)
        self._mapper = JsonMapper(facts, vault)
        self._kept: OrderedDict[tuple[str, Evolve[Any]], Loaded[Any]] = OrderedDict()
        self._kept_lock = Lock()
        super().__init__()

    def construct_factory(self, env: Environment) -> StoreFactory:
        return StoreFactory(self._recorder, self._mapper)

    # Load and commit

    def load(self, stream: str, evolve: Evolve[S], initial: Loaded[S] | None = None) -> Loaded[S]:
        """Fold the stream, going on from `initial` or from what is kept; newer events are always read."""
        known = initial or self._recall(stream, evolve)
        state, version, personal = known.state, known.version, False
        for recorded in self._recorder.select_events(stream, gt=version):
            event = self._mapper.to_domain_event(recorded)
            state, version = evolve(state, event.fact), event.originator_version
            personal = personal or bool(event.fact.sealed)
        loaded = Loaded(state, version)
        if initial is None and not personal and version > known.version:
            self._keep(stream, evolve, loaded)
        return loaded

    def card_of(self, iccid: str) -> Card:
        """UNKNOWN_CARD unless it is registered."""
        state = self.load(card.stream(iccid), card.evolve).state
        if state is None:
            raise TsmError(ErrorCode.UNKNOWN_CARD, iccid)
        return state

    def provider_of(self, provider: str) -> ServiceProvider:
        """UNKNOWN_SERVICE_PROVIDER unless it was ever enrolled."""
        state = self.load(service_provider.stream(provider), service_provider.evolve).state
        if state is None:
            raise TsmError(ErrorCode.UNKNOWN_SERVICE_PROVIDER, provider)
        return state

    def commit(
        self,
        *changes: Change,
        context: Context,
        occurred_at: datetime,
        put_payloads: Mapping[tuple[str, str], bytes] | None = None,
        drop_payloads: Sequence[str] = (),
        put_index: Sequence[IndexRow] = (),
        drop_index: Sequence[str] = (),
        command: Command | None = None,
    ) -> int:
        """Append all facts, then drop and put payloads and index rows, in one transaction; returns the last position.

        Without anything to write, the log's present end is returned. CONFLICT when one of the streams, with or without
        facts, has gone on since it was loaded. A `command` that is known is answered with what came of it at first,
        and nothing is written; COMMAND_REUSED when it asks for something else now. STORE_BUSY, STORE_UNAVAILABLE.
        """
        append = Append(
            events=[
                self._mapper.to_stored_event(e) for change in changes for e in _events(change, context, occurred_at)
            ],
            unchanged={change.stream: change.version for change in changes if not change.facts},
            put_payloads=put_payloads or {},
            drop_payloads=drop_payloads,
            put_index=put_index,
            drop_index=drop_index,
            command=command,
        )
        try:
            return self._committer.append(append).head
        except IntegrityError as error:
            streams = ", ".join(change.stream for change in changes)
            raise TsmError(ErrorCode.CONFLICT, streams) from error

    def answered(self, command: Command) -> Recorded | None:
        """What came of a command, if it is known: ask before deciding. COMMAND_REUSED."""
        return self._recorder.answered(command)

    def forget_commands(self, now: datetime) -> int:
        """Idempotency keys whose time is over may be used anew; how many there were."""
        return self._recorder.prune(now)

    def index_row(self, purpose: str, value: str, stream: str, subject: str) -> IndexRow:
        """What `commit` puts so that `indexed` finds the stream; it goes with its subject."""
        return IndexRow(self._vault.blind_index(purpose, value), stream, subject)

    def indexed(self, purpose: str, value: str) -> list[IndexRow]:
        """Where something personal occurs, by its keyed hash."""
        return self._recorder.indexed(self._vault.blind_index(purpose, value))

    def indexed_many(self, values: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[IndexRow]]:
        """The same for many, each a purpose and a value, in one query; what occurs nowhere is left out."""
        indexes = {self._vault.blind_index(*value): value for value in values}
        found: dict[tuple[str, str], list[IndexRow]] = {}
        for row in self._recorder.indexed_many(list(indexes)) if indexes else ():
            found.setdefault(indexes[row.value], []).append(row)
        return found

    def erase_remains(self) -> None:
        """After rows beside the log were dropped: see `Recorder.erase_remains`. STORE_UNAVAILABLE: to be repeated."""
        self._recorder.erase_remains()

    def close(self) -> None:
        """What waits is recorded; then the recorder is closed."""
        self._committer.close()
        super().close()

    # The past

    def position_at(self, recorded_at: datetime) -> int:
        """The last position recorded at or before that time; 0 when there is none."""
        return self._recorder.position_at(recorded_at)

    def state_at(
        self,
        stream: str,
        evolve: Evolve[S],
        *,
        position: int | None = None,
        recorded_at: datetime | None = None,
        unseals: Unseals | None = None,
    ) -> Loaded[S]:
        """The stream's state after the event at that position, or at that recorded time, both included.

        All personal fields are unsealed, or those of `unseals` only.
        """
        state, version = None, 0
        for event in self.history(stream, position=position, recorded_at=recorded_at, unseals=unseals):
            state, version = evolve(state, event.fact), event.originator_version
        return Loaded(state, version)

    def history(
        self,
        stream: str,
        *,
        version: int = 0,
        position: int | None = None,
        recorded_at: datetime | None = None,
        unseals: Unseals | None = None,
    ) -> Iterator[Event]:
        """The stream's events after that version, up to that position, or that recorded time, both included.

        `unseals` as in `state_at`.
        """
        last = MOST if position is None else position
        if recorded_at is not None:
            last = min(last, self.position_at(recorded_at))
        for recorded in self._recorder.select_events(stream, gt=version):
            if recorded.id > last:
                break
            yield self._mapper.to_domain_event(recorded, unseals)

    def histories(self, streams: Collection[str], unseals: Unseals | None = None) -> dict[str, list[Event]]:
        """The events of many streams, in one query; streams that do not exist are left out."""
        found: dict[str, list[Event]] = {}
        for recorded in self._recorder.select_streams(list(streams)) if streams else ():
            found.setdefault(str(recorded.originator_id), []).append(self._mapper.to_domain_event(recorded, unseals))
        return found

    def existing(self, streams: Collection[str]) -> set[str]:
        """Those of the streams that exist, by one query."""
        found = self._recorder.select_streams(list(streams), lte=1) if streams else ()
        return {str(recorded.originator_id) for recorded in found}

    def now(self) -> datetime:
        """The time by which deadlines are decided: the clock's, but never behind the last record.

        A clock that is put back would otherwise bring back to life what had expired.
        """
        return max(self._clock(), self._recorder.last_recorded_at or EARLIEST)

    @property
    def position(self) -> int:
        """Of the last event in the log; 0 in an empty one."""
        return self._recorder.max_notification_id() or 0

    @property
    def waiting(self) -> int:
        """How many appends wait to be recorded."""
        return self._committer.waiting

    def payload(self, stream: str, name: str) -> bytes | None:
        """What was put beside the log, until it is dropped."""
        return self._recorder.payload(stream, name)

    def read(self, after: int, limit: int) -> list[Event]:
        """At most `limit` events after position `after`, in order."""
        return log.read(self._recorder, self._mapper, after, limit)

    def at(self, positions: Sequence[int], unseals: Unseals = NOTHING) -> list[Event | Unreadable]:
        """The events at these positions, in the order of the log, with the personal fields of `unseals` unsealed."""
        return log.decoded(self._mapper, self._recorder.select_positions(positions), unseals)

    def page(
        self,
        after: int,
        limit: int,
        topics: Sequence[str] = (),
        unseals: Unseals = NOTHING,
        *,
        headings: bool = False,
    ) -> Page:
        """What the next `limit` positions hold, for read models: see `tsm.store.log.page`."""
        return log.page(self._recorder, self._mapper, after, limit, topics, unseals, headings=headings)

    def wait(self, after: int, timeout: float) -> bool:
        """Wait for an event after position `after`, `timeout` seconds at most; whether there is one."""
        return log.wait(self._recorder, after, timeout)

    # Commands. Each returns a position to wait for, and is safe to repeat; an edge with idempotency keys names its own.

    def enrol_operator(self, enrolled: OperatorEnrolled, context: Context, command: Command | None = None) -> int:
        """Admit an operator, or replace its certificate.

        INVALID_INPUT; ALREADY_EXISTS with other values, or when a provider has this spId.
        """
        self._refuse_taken(service_provider.stream(enrolled.operator), "operator")
        return self._decide(
            operator.stream(enrolled.operator), operator.evolve, lambda o: operator.enrol(o, enrolled), context, command
        )

    def enrol_provider(self, enrolled: ProviderEnrolled, context: Context, command: Command | None = None) -> int:
        """Admit a service provider, or replace its certificate.

        INVALID_INPUT; NOT_FOUND when its authority is not enrolled; FORBIDDEN for the issuer's security domain;
        ALREADY_EXISTS with other values, when an operator has this spId, or another provider this domain.
        """
        self._refuse_taken(operator.stream(enrolled.provider), "provider")
        if self.load(authority.stream(enrolled.authority), authority.evolve).state is None:
            raise TsmError(ErrorCode.NOT_FOUND, f"authority {enrolled.authority}", ("authority",))
        streams = service_provider.stream(enrolled.provider), domain.stream(enrolled.domain)
        known, claimed = self.load(streams[0], service_provider.evolve), self.load(streams[1], domain.evolve)
        facts = service_provider.enrol(known.state, enrolled)
        with within("domain"):
            claim = domain.claim(claimed.state, enrolled.domain, enrolled.provider)
        return self.commit(
            Change(streams[0], known.version, facts),
            Change(streams[1], claimed.version, claim),
            context=context,
            occurred_at=self._clock(),
            command=command,
        )

    def enrol_terminal(self, enrolled: TerminalEnrolled, context: Context, command: Command | None = None) -> int:
        """Admit a counter terminal, or replace its certificate. INVALID_INPUT, ALREADY_EXISTS."""
        return self._decide(
            terminal.stream(enrolled.terminal), terminal.evolve, lambda t: terminal.enrol(t, enrolled), context, command
        )

    def enrol_authority(self, enrolled: AuthorityEnrolled, context: Context, command: Command | None = None) -> int:
        """Admit a certificate authority, or replace its certificate. INVALID_INPUT, ALREADY_EXISTS."""
        return self._decide(
            authority.stream(enrolled.authority),
            authority.evolve,
            lambda a: authority.enrol(a, enrolled),
            context,
            command,
        )

    def withdraw(self, stream: str, evolve: Evolve[Enrolled], context: Context, fingerprint: str | None = None) -> int:
        """Withdraw the certificate of the party whose stream that is: it is nobody from now on. NOT_FOUND.

        With a `fingerprint`, that certificate only: WRONG_ORDER when the party has another by now.
        """

        def decide(state: Enrolled | None) -> Sequence[Fact]:
            if fingerprint is not None:
                party.refuse_other_certificate(state, fingerprint)
            return party.withdraw(state)

        return self._decide(stream, evolve, decide, context)

    def import_master_key(self, operator_id: str, key_set: str, key: bytes, key_version: int, context: Context) -> int:
        """Take an operator's AES-128 master key into the vault. `key_version` is that of the keys on its cards.

        NOT_FOUND for an unknown operator, KEY_REFUSED, INVALID_INPUT, ALREADY_EXISTS for another key under this name.
        """
        stream = operator.stream(operator_id)
        loaded = self.load(stream, operator.evolve)
        place = operator.place_master_key(loaded.state, operator_id, key_set, key_version)
        # The vault before the log: a key without its event can be imported again, an event without its key would lie.
        check_value = self._vault.import_master_key(place, key)
        facts = operator.import_master_key(loaded.state, operator_id, key_set, key_version, check_value)
        return self.commit(Change(stream, loaded.version, facts), context=context, occurred_at=self._clock())

    def register_cards(
        self, operator_id: str, rows: Sequence[ProductionRow], context: Context, command: Command | None = None
    ) -> int:
        """Register all cards of a production file, or none.

        NOT_FOUND for an unknown operator, UNKNOWN_KEY for a key set that was not imported, ALREADY_EXISTS for a card
        that is registered with other values; the last two name the row.
        """
        owner = self.load(operator.stream(operator_id), operator.evolve).state
        if owner is None:
            raise TsmError(ErrorCode.NOT_FOUND, f"operator {operator_id}")
        changes = []
        for row, registered in [(row, production.registered(row, owner)) for row in rows]:
            stream = card.stream(registered.iccid)
            loaded = self.load(stream, card.evolve)
            with within(str(row.line)):
                changes.append(Change(stream, loaded.version, card.register(loaded.state, registered)))
        return self.commit(*changes, context=context, occurred_at=self._clock(), command=command)

    def release_card(
        self, operator_id: str, iccid: str, released: CardReleased, context: Context, command: Command | None = None
    ) -> int:
        """Give a domain of the operator's card its budget for failed authentications back.

        UNKNOWN_CARD, FORBIDDEN for the card of another operator, UNKNOWN_SECURITY_DOMAIN, INVALID_INPUT.
        """
        return self._decide(
            card.stream(iccid), card.evolve, lambda c: card.release(c, iccid, operator_id, released), context, command
        )

    def register_load_file(
        self, registered: LoadFileRegistered, data_block: bytes, context: Context, command: Command | None = None
    ) -> int:
        """Put a version of a provider's load file into the catalogue, and its load file data block beside the log.

        INVALID_INPUT when size or hash are not the block's; UNKNOWN_SERVICE_PROVIDER, FORBIDDEN, ALREADY_EXISTS.
        """
        catalogue.refuse_other_content(registered, data_block)
        self.provider_of(registered.provider)
        stream = catalogue.stream(registered.load_file)
        loaded = self.load(stream, catalogue.evolve)
        return self.commit(
            Change(stream, loaded.version, catalogue.register(loaded.state, registered)),
            context=context,
            occurred_at=self._clock(),
            put_payloads={(stream, catalogue.DATA_BLOCK): data_block},
            command=command,
        )

    # Inside

    def _decide(
        self,
        stream: str,
        evolve: Evolve[S],
        decide: Callable[[S | None], Sequence[Fact]],
        context: Context,
        command: Command | None = None,
    ) -> int:
        loaded = self.load(stream, evolve)
        change = Change(stream, loaded.version, decide(loaded.state))
        return self.commit(change, context=context, occurred_at=self._clock(), command=command)

    def _refuse_taken(self, stream: str, field: str) -> None:
        """Operators and providers delegate under one name space: an spId is either's, not both's."""
        if self._recorder.select_events(stream, limit=1):
            raise TsmError(ErrorCode.ALREADY_EXISTS, f"{stream} has this spId", (field,))

    def _recall(self, stream: str, evolve: Evolve[S]) -> Loaded[S]:
        with self._kept_lock:
            kept = self._kept.get((stream, evolve))
            if kept is None:
                return Loaded(None, 0)
            self._kept.move_to_end((stream, evolve))
            return kept

    def _keep(self, stream: str, evolve: Evolve[S], loaded: Loaded[S]) -> None:
        """States are frozen, so whoever holds one cannot spoil it. Never a state that holds personal data: it would
        outlive the erasure of its subject."""
        with self._kept_lock:
            self._kept[(stream, evolve)] = loaded
            self._kept.move_to_end((stream, evolve))
            if len(self._kept) > KEPT_STATES:
                self._kept.popitem(last=False)


def decided(decide: Callable[[], Result]) -> Result:
    """Load, decide, commit; anew when somebody else committed between."""
    for _ in range(ATTEMPTS - 1):
        try:
            return decide()
        except TsmError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
    return decide()


def _events(change: Change, context: Context, occurred_at: datetime) -> list[Event]:
    return [
        Event(
            originator_id=change.stream,
            originator_version=number,
            occurred_at=change.occurred_at or occurred_at,
            context=context,
            fact=fact,
        )
        for number, fact in enumerate(change.facts, change.version + 1)
    ]
