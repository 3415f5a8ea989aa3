"""Whatever is tried, in whatever batches, every engine does what a few lists and dictionaries do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations, count
from typing import Any

import pytest
from engines import NOON, Engine, Entry, PlainSealer, entries, make, stored
from eventsourcing.persistence import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.store.recorder import Append, Command, IndexRow, Recorded, Recorder

STREAMS, NAMES, VALUES, SUBJECTS, DIGESTS = ("a", "b", "c"), ("n1", "n2"), ("v1", "v2"), ("x", "y"), ("d1", "d2")
FAR = datetime(2999, 1, 1, tzinfo=UTC)
MOSTLY_RIGHT = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])  # by how much a version is wrong

stream = st.sampled_from(STREAMS)
row = st.tuples(st.sampled_from(VALUES), stream, st.sampled_from(SUBJECTS))
append = st.fixed_dictionaries(
    {
        "events": st.lists(st.tuples(stream, MOSTLY_RIGHT, st.binary(max_size=3)), max_size=3),
        "unchanged": st.dictionaries(stream, MOSTLY_RIGHT, max_size=1),
        "put_payloads": st.dictionaries(st.tuples(stream, st.sampled_from(NAMES)), st.binary(max_size=3), max_size=1),
        "drop_payloads": st.lists(stream, max_size=1),
        "put_index": st.lists(row, max_size=2),
        "drop_index": st.lists(st.sampled_from(SUBJECTS), max_size=1),
        "command": st.none() | st.tuples(st.sampled_from(NAMES), st.sampled_from(DIGESTS)),
    }
)
steps = st.lists(st.tuples(st.lists(append, min_size=1, max_size=3), st.integers(-3, 5)), max_size=8)


@dataclass
class Model:
    """A recorder's promises, one at a time. Names are told apart from those of other runs on the same store."""

    run: int
    head: int
    last: datetime
    log: list[tuple[Entry, datetime]] = field(default_factory=list)
    payloads: dict[tuple[str, str], bytes] = field(default_factory=dict)
    index: dict[tuple[str, str], str] = field(default_factory=dict)
    commands: dict[str, tuple[str, Recorded]] = field(default_factory=dict)

    def name(self, name: str) -> str:
        return f"{self.run}-{name}"

    def version(self, stream: str) -> int:
        return sum(entry.stream == stream for entry, _ in self.log)

    def build(self, drawn: dict[str, Any]) -> Append:
        """An append that follows what is there, but for what is drawn to be wrong."""
        events, ends = [], {}
        for short, wrong, state in drawn["events"]:
            name = self.name(short)
            ends[name] = ends.get(name, self.version(name)) + 1
            events.append(stored(name, ends[name] + wrong, state))
        command = drawn["command"]
        return Append(
            events,
            {self.name(s): self.version(self.name(s)) + wrong for s, wrong in drawn["unchanged"].items()},
            {(self.name(s), n): payload for (s, n), payload in drawn["put_payloads"].items()},
            [self.name(s) for s in drawn["drop_payloads"]],
            [IndexRow(*map(self.name, values)) for values in drawn["put_index"]],
            [self.name(s) for s in drawn["drop_index"]],
            None if command is None else Command(self.name(command[0]), command[1], FAR),
        )

    def append(self, append: Append, now: datetime) -> Recorded | ErrorCode | None:
        """What comes of it; None for a refusal because a stream is otherwise."""
        if append.command is not None and append.command.id in self.commands:
            digest, recorded = self.commands[append.command.id]
            return recorded._replace(repeated=True) if digest == append.command.digest else ErrorCode.COMMAND_REUSED
        if any(self.version(name) != version for name, version in append.unchanged.items()):
            return None
        ends: dict[str, int] = {}
        for event in append.events:
            name = str(event.originator_id)
            ends[name] = ends.get(name, self.version(name)) + 1
            if ends[name] != event.originator_version:
                return None
        first = self.head + 1
        for event in append.events:
            self.head, self.last = self.head + 1, max(self.last, now)
            entry = Entry(self.head, str(event.originator_id), event.originator_version, event.state)
            self.log.append((entry, self.last))
        self.payloads = {p: v for p, v in self.payloads.items() if p[0] not in append.drop_payloads}
        self.payloads |= append.put_payloads
        self.index = {p: subject for p, subject in self.index.items() if subject not in append.drop_index}
        self.index |= {(value, name): subject for value, name, subject in append.put_index}
        recorded = Recorded(range(first, self.head + 1), self.head)
        if append.command is not None:
            self.commands[append.command.id] = append.command.digest, recorded
        return recorded


@pytest.mark.parametrize("name", ["memory", "sqlite", "postgresql"])
def test_every_engine_does_what_the_model_does(name: str, request: pytest.FixtureRequest) -> None:
    engine = make(name, PlainSealer(), request)
    recorder, runs = engine.open(), count()

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(steps=steps)
    def run(steps: list[tuple[list[dict[str, Any]], int]]) -> None:
        tell_apart(engine, recorder, next(runs), steps)

    run()
    engine.close()


def tell_apart(engine: Engine, recorder: Recorder, run: int, steps: list[tuple[list[dict[str, Any]], int]]) -> None:
    model = Model(run, recorder.max_notification_id() or 0, recorder.last_recorded_at or NOON)
    before = model.head
    now = model.last
    for drawn, seconds in steps:
        engine.clock.now = now = now + timedelta(seconds=seconds)
        batch = [model.build(one) for one in drawn]
        if any(overlap(*pair) for pair in combinations(batch, 2)):
            with pytest.raises(TsmError) as refusal:
                recorder.append(batch)
            assert refusal.value.code is ErrorCode.INTERNAL
            continue
        outcomes = recorder.append(batch)
        assert [plain(outcome) for outcome in outcomes] == [model.append(one, now) for one in batch]
    log = recorder.select_notifications(before, 10**6, inclusive_of_start=False)
    assert entries(log) == [entry for entry, _ in model.log]
    assert [e.recorded_at for e in log] == [recorded_at for _, recorded_at in model.log]
    for name in map(model.name, STREAMS):
        assert entries(recorder.select_events(name)) == [entry for entry, _ in model.log if entry.stream == name]
        assert [recorder.payload(name, n) for n in NAMES] == [model.payloads.get((name, n)) for n in NAMES]
    for value in map(model.name, VALUES):
        rows = [IndexRow(v, name, subject) for (v, name), subject in sorted(model.index.items()) if v == value]
        assert recorder.indexed(value) == rows
    for id_, (digest, recorded) in model.commands.items():
        assert recorder.answered(Command(id_, digest, FAR)) == recorded._replace(repeated=True)


def plain(outcome: Recorded | Exception) -> Recorded | ErrorCode | None:
    if isinstance(outcome, Recorded):
        return outcome
    if isinstance(outcome, TsmError):
        return outcome.code
    assert isinstance(outcome, IntegrityError)
    return None


def overlap(one: Append, other: Append) -> bool:
    """Whether one brings something to what the other names."""
    return bool(brings(one) & names(other) or brings(other) & names(one))


def brings(append: Append) -> set[tuple[str, ...]]:
    streams: Sequence[str] = [str(e.originator_id) for e in append.events]
    streams = [*streams, *append.drop_payloads, *(name for name, _ in append.put_payloads)]
    found = {("stream", name) for name in streams} | {("subject", name) for name in append.drop_index}
    found |= {("command", append.command.id)} if append.command else set()
    return found | {("place", value, name) for value, name, _ in append.put_index}


def names(append: Append) -> set[tuple[str, ...]]:
    return (
        brings(append)
        | {("stream", name) for name in append.unchanged}
        | {("subject", subject) for _, _, subject in append.put_index}
    )
