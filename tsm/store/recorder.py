"""What a recorder promises, whatever engine keeps the log.

One log, one order: positions have no gap and appear in the order of commits, so whoever reads along never skips one.
Streams have no gap either. An event, once recorded, can neither be changed nor removed. `recorded_at` is stamped inside
the write transaction and never decreases along positions: a clock that jumps back is held at the last recorded time,
counted and reported.

Beside the log lie three small tables, which change in the transaction of the events that make it necessary:
payloads, sealed, needed for a while only (delegated commands, the bytes that a repeated request must get again);
index rows, which lead from a keyed hash of personal data to a stream and go with the person; and commands, so that an
append under an idempotency key that is known is answered as at first.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Condition
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
    Subscription,
)

from tsm.errors import ErrorCode, TsmError

SKEW = timedelta(seconds=1)
MOST = 2**63 - 1  # the largest position, and the largest version of a stream
Clock = Callable[[], datetime]
log = logging.getLogger(__name__)


class PayloadSealer(Protocol):
    """What seals payloads: the vault."""

    def seal_payload(self, stream: str, name: str, plaintext: bytes) -> bytes: ...
    def unseal_payload(self, stream: str, name: str, sealed: bytes) -> bytes: ...


@dataclass(frozen=True, init=False)
class RecordedEvent(Notification):
    """A stored event with its position (`id`) and the time of its record."""

    recorded_at: datetime

    def __init__(
        self,
        originator_id: UUID | str,
        originator_version: int,
        topic: str,
        state: bytes,
        id: int,
        recorded_at: datetime,
    ) -> None:
        """By itself, for one that is generated takes three times as long, and there is one of these for each event."""
        values = self.__dict__
        values["originator_id"] = originator_id
        values["originator_version"] = originator_version
        values["topic"] = topic
        values["state"] = state
        values["id"] = id
        values["recorded_at"] = recorded_at


class Heading(NamedTuple):
    """Where an event lies and of what kind it is, without its content."""

    position: int
    originator_id: str
    originator_version: int
    topic: str


class IndexRow(NamedTuple):
    """From the keyed hash of something personal to where it occurs; dropped with its subject."""

    value: str  # `vault.blind_index(purpose, value)`
    stream: str
    subject: str


class Command(NamedTuple):
    """An idempotency key, scoped by its client, and a digest of what was asked under it."""

    id: str
    digest: str
    keep_until: datetime


class Recorded(NamedTuple):
    """What became of an append."""

    positions: range  # of its events; empty when it had none
    head: int  # the last position of the log then
    repeated: bool = False  # its command was known: nothing was written, and this is what came of it the first time


@dataclass(frozen=True, slots=True)
class Append:
    """What is recorded together or not at all."""

    events: Sequence[StoredEvent] = ()
    unchanged: Mapping[str, int] = field(default_factory=dict)  # streams without news, and the version they must have
    put_payloads: Mapping[tuple[str, str], bytes] = field(default_factory=dict)  # plain, by stream and name
    drop_payloads: Sequence[str] = ()  # streams; dropped before others are put
    put_index: Sequence[IndexRow] = ()
    drop_index: Sequence[str] = ()  # subjects
    command: Command | None = None

    def rests_on(self) -> dict[str, int]:
        """Every stream that it names and the version this must have before. `IntegrityError` for a gap within."""
        ends: dict[str, int] = {}
        before = dict(self.unchanged)
        for event in self.events:
            stream, version = str(event.originator_id), event.originator_version
            if stream not in ends and before.setdefault(stream, version - 1) != version - 1:
                raise IntegrityError(f"{stream} is said to be unchanged at another version")
            if ends.setdefault(stream, version - 1) != version - 1 or version < 1:
                raise IntegrityError(f"{stream} {version} does not follow")
            ends[stream] = version
        return before

    def touches(self) -> set[str]:
        """Whatever it names, in any way: nobody else in its transaction may change that."""
        subjects = {f"subject {row.subject}" for row in self.put_index}
        return self.changes() | self.unchanged.keys() | subjects

    def changes(self) -> set[str]:
        """The streams to which it brings events or payloads; its command, its index rows, and whose rows it drops."""
        events = {str(event.originator_id) for event in self.events}
        command = set() if self.command is None else {f"command {self.command.id}"}
        index = {f"index {row.value} {row.stream}" for row in self.put_index}
        index |= {f"subject {subject}" for subject in self.drop_index}
        return events | command | index | set(self.drop_payloads) | {stream for stream, _ in self.put_payloads}


class Recorder(ApplicationRecorder, ABC):
    """The `ApplicationRecorder` contract of the eventsourcing library, and what else a log of record needs.

    Safe to share between threads. What fails because the database cannot be reached, or has no room, raises
    `TsmError(STORE_UNAVAILABLE)`. Nothing of it is recorded, unless the very connection was lost that could have told.
    """

    def __init__(self, sealer: PayloadSealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock
        self.held = 0  # how many batches met a clock behind the last recorded time
        self._holding = False
        self.head = 0  # the last position that this process knows of
        self.committed = Condition()  # notified when `head` goes on: with every commit here, and others where they tell

    # Writing

    @abstractmethod
    def append(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        """One transaction for all; each is recorded as a whole or refused alone, without harm to the others.

        None of them touches a stream that another one changes (`tsm.store.committer` sees to that). A refusal is an
        `IntegrityError` (of the library) when a stream has gone on meanwhile, or `TsmError(COMMAND_REUSED)` when the
        command's id is known with another digest. When the transaction itself fails, that is raised, and nothing of
        the batch is recorded.
        """

    def append_at_once(self, batch: Sequence[Append]) -> list[Recorded | Exception] | None:
        """`append`, if it waits for nothing but a disk; None, and nothing done, when it would."""
        return None

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, tracking: None = None, **kwargs: Any
    ) -> Sequence[int]:
        """One append by itself; `kwargs` are the other fields of `Append`. Answers the positions.

        The library always names a `tracking`: a log has none, for read models keep their position beside their rows.
        """
        [outcome] = self.append([Append(stored_events, **kwargs)])
        if isinstance(outcome, Exception):
            raise outcome
        return list(outcome.positions)

    @abstractmethod
    def prune(self, now: datetime) -> int:
        """Forgets commands whose time is over; answers how many."""

    @abstractmethod
    def erase_remains(self) -> None:
        """After rows beside the log were dropped: no earlier version of them stays in the database's own files.

        `TsmError(STORE_UNAVAILABLE)` when others hold on to them for too long: to be repeated.
        """

    # Reading

    @abstractmethod
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[RecordedEvent]:
        """The events of one stream, in order of versions."""

    @abstractmethod
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[RecordedEvent]:
        """Events in the order of the log, `stop` included."""

    @abstractmethod
    def select_headings(self, after: int, last: int) -> Sequence[Heading]:
        """Of all events with positions greater than `after`, up to `last`, in the order of the log."""

    @abstractmethod
    def select_positions(self, positions: Sequence[int]) -> Sequence[RecordedEvent]:
        """The events at these positions, in the order of the log."""

    @abstractmethod
    def max_notification_id(self) -> int | None:
        """The last position; None in an empty log."""

    @property
    @abstractmethod
    def last_recorded_at(self) -> datetime | None:
        """When the last event was recorded, as far as this process knows; None in an empty log."""

    def position_at(self, recorded_at: datetime) -> int:
        """The last position recorded at or before that time; 0 when there is none.

        Bisects: times do not decrease along positions.
        """
        low, high = 0, self.max_notification_id() or 0
        while low < high:
            middle = (low + high + 1) // 2
            [event] = self.select_positions([middle])
            low, high = (middle, high) if event.recorded_at <= recorded_at else (low, middle - 1)
        return low

    @abstractmethod
    def payload(self, stream: str, name: str) -> bytes | None:
        """The plain payload, or None. `TsmError(KEY_REFUSED)` when it was not sealed for this stream and name."""

    @abstractmethod
    def indexed(self, index: str) -> list[IndexRow]:
        """The rows under one index, in order of their streams."""

    @abstractmethod
    def indexed_many(self, indexes: Sequence[str]) -> list[IndexRow]:
        """The rows under all of these, in one query; in order of index and stream."""

    @abstractmethod
    def select_streams(self, streams: Sequence[str], *, lte: int | None = None) -> Sequence[RecordedEvent]:
        """The events of several streams, in one query; in order of stream and version."""

    @abstractmethod
    def answered(self, command: Command) -> Recorded | None:
        """What came of the command, if it is known. `TsmError(COMMAND_REUSED)` when its digest is another."""

    @abstractmethod
    def close(self) -> None: ...

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Not offered: followers read pages and wait between them (`tsm.store.log`), and keep their own position."""
        raise NotImplementedError

    # For recorders

    def tell_committed(self, head: int) -> None:
        """The log is known to reach up to there."""
        with self.committed:
            if head > self.head:
                self.head = head
                self.committed.notify_all()

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC)

    def _not_before(self, now: datetime, last: datetime | None) -> datetime:
        """The time to record: now, or the last recorded time when the clock is behind it.

        A little behind is nothing to report: several processes have several clocks, and look at them before they wait.
        """
        if last is None or now >= last - SKEW:
            self._holding = False
            return now if last is None else max(now, last)
        if not self._holding:  # once for each jump, not for each transaction
            log.warning("the clock says %s, but an event is recorded at %s: time is held there", now, last)
        self._holding = True
        self.held += 1
        return last

    def _seal(self, append: Append) -> list[tuple[str, str, bytes]]:
        return [
            (stream, name, self._sealer.seal_payload(stream, name, plaintext))
            for (stream, name), plaintext in append.put_payloads.items()
        ]


def utc_now() -> datetime:
    return datetime.now(UTC)


def answered_before(row: Sequence[Any] | None, command: Command) -> Recorded | None:
    """What a row of commands says (digest, first, last, head). `TsmError(COMMAND_REUSED)` for another digest."""
    if row is None:
        return None
    digest, first, last, head = row
    if digest != command.digest:
        raise TsmError(ErrorCode.COMMAND_REUSED, command.id)
    return Recorded(range(first, last + 1), head, repeated=True)


def refuse_overlap(batch: Sequence[Append]) -> None:
    """`TsmError(INTERNAL)` when two appends of a batch touch one stream and one of them changes it."""
    changed: set[str] = set()
    touched: set[str] = set()
    for append in batch:
        changes, touches = append.changes(), append.touches()
        if changes & touched or touches & changed:
            raise TsmError(ErrorCode.INTERNAL, "two appends of one batch touch the same stream")
        changed |= changes
        touched |= touches
