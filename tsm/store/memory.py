"""A log in memory: the contract in its shortest form, for tests and simulations. It ends with its process."""

from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from uuid import UUID

from eventsourcing.persistence import IntegrityError

from tsm.errors import ErrorCode, TsmError
from tsm.store.recorder import (
    MOST,
    Append,
    Clock,
    Command,
    Heading,
    IndexRow,
    PayloadSealer,
    Recorded,
    RecordedEvent,
    Recorder,
    refuse_overlap,
    utc_now,
)


class MemoryRecorder(Recorder):
    """Lists and dictionaries under one lock."""

    def __init__(self, sealer: PayloadSealer, clock: Clock = utc_now) -> None:
        super().__init__(sealer, clock)
        self._lock = Lock()
        self._log: list[RecordedEvent] = []
        self._streams: dict[str, list[RecordedEvent]] = {}
        self._payloads: dict[tuple[str, str], bytes] = {}
        self._index: dict[tuple[str, str], IndexRow] = {}
        self._commands: dict[str, tuple[Command, Recorded]] = {}

    def append(self, batch: Sequence[Append]) -> list[Recorded | Exception]:
        refuse_overlap(batch)
        sealed = [self._seal(append) for append in batch]
        with self._lock:
            recorded_at = self._not_before(self._now(), self._log[-1].recorded_at if self._log else None)
            outcomes = [self._append(*each, recorded_at) for each in zip(batch, sealed, strict=True)]
        self.tell_committed(len(self._log))
        return outcomes

    def append_at_once(self, batch: Sequence[Append]) -> list[Recorded | Exception] | None:
        return self.append(batch)

    def _append(
        self, append: Append, payloads: Sequence[tuple[str, str, bytes]], recorded_at: datetime
    ) -> Recorded | Exception:
        try:
            if append.command is not None and (known := self._answered(append.command)) is not None:
                return known
            for stream, version in append.rests_on().items():
                if len(self._streams.get(stream, ())) != version:
                    raise IntegrityError(f"{stream} has gone on, or is not there yet")
        except (IntegrityError, TsmError) as refusal:
            return refusal
        first = len(self._log) + 1
        for position, event in enumerate(append.events, first):
            stream = str(event.originator_id)
            stored = RecordedEvent(stream, event.originator_version, event.topic, event.state, position, recorded_at)
            self._log.append(stored)
            self._streams.setdefault(stream, []).append(stored)
        recorded = Recorded(range(first, len(self._log) + 1), len(self._log))
        self._write_beside(append, payloads, recorded)
        return recorded

    def _write_beside(self, append: Append, payloads: Sequence[tuple[str, str, bytes]], recorded: Recorded) -> None:
        for stream, name in [place for place in self._payloads if place[0] in append.drop_payloads]:
            del self._payloads[stream, name]
        self._payloads.update({(stream, name): sealed for stream, name, sealed in payloads})
        for place in [place for place, row in self._index.items() if row.subject in append.drop_index]:
            del self._index[place]
        self._index.update({(row.value, row.stream): row for row in append.put_index})
        if append.command is not None:
            self._commands[append.command.id] = append.command, recorded._replace(repeated=True)

    def prune(self, now: datetime) -> int:
        with self._lock:
            over = [id_ for id_, (command, _) in self._commands.items() if command.keep_until < now]
            for id_ in over:
                del self._commands[id_]
        return len(over)

    def erase_remains(self) -> None:
        """Nothing remains in memory."""

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[RecordedEvent]:
        with self._lock:
            found = self._streams.get(str(originator_id), [])[gt or 0 : MOST if lte is None else lte]
        return (found[::-1] if desc else found)[:limit]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[RecordedEvent]:
        first = 0 if start is None else start if inclusive_of_start else start + 1
        with self._lock:
            found = self._log[max(0, first - 1) : MOST if stop is None else stop]
        return [event for event in found if not topics or event.topic in topics][:limit]

    def select_headings(self, after: int, last: int) -> Sequence[Heading]:
        with self._lock:
            found = self._log[after:last]
        return [Heading(e.id, str(e.originator_id), e.originator_version, e.topic) for e in found]

    def select_positions(self, positions: Sequence[int]) -> Sequence[RecordedEvent]:
        with self._lock:
            return [self._log[position - 1] for position in sorted(positions) if 0 < position <= len(self._log)]

    def max_notification_id(self) -> int | None:
        return len(self._log) or None

    @property
    def last_recorded_at(self) -> datetime | None:
        with self._lock:
            return self._log[-1].recorded_at if self._log else None

    def payload(self, stream: str, name: str) -> bytes | None:
        with self._lock:
            sealed = self._payloads.get((stream, name))
        return None if sealed is None else self._sealer.unseal_payload(stream, name, sealed)

    def indexed(self, index: str) -> list[IndexRow]:
        with self._lock:
            return sorted(row for row in self._index.values() if row.value == index)

    def indexed_many(self, indexes: Sequence[str]) -> list[IndexRow]:
        wanted = set(indexes)
        with self._lock:
            return sorted(row for row in self._index.values() if row.value in wanted)

    def select_streams(self, streams: Sequence[str], *, lte: int | None = None) -> Sequence[RecordedEvent]:
        return [event for stream in sorted(set(streams)) for event in self.select_events(stream, lte=lte)]

    def answered(self, command: Command) -> Recorded | None:
        with self._lock:
            return self._answered(command)

    def _answered(self, command: Command) -> Recorded | None:
        if command.id not in self._commands:
            return None
        known, recorded = self._commands[command.id]
        if known.digest != command.digest:
            raise TsmError(ErrorCode.COMMAND_REUSED, command.id)
        return recorded

    def close(self) -> None:
        """Nothing to close."""
