"""Many writers, readers who follow the log, and writers who are killed: nothing is skipped, doubled or lost."""

# ruff: noqa: S311 - chance, not secrets
import random
import time
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection

import pytest
from engines import Engine, Entry, entries, whole_log
from writers import (
    FAR,
    SHARED_STREAM,
    race,
    started,
    tailing,
    whole,
    write_until_killed,
    write_with_threads,
)

from tsm.store.recorder import Command, Recorder

PROCESSES, THREADS, TIMES = 3, 3, 25
PATIENCE = 60  # seconds for what a process has to say


def heard(pipe: Connection) -> object:
    assert pipe.poll(PATIENCE), "the process says nothing"
    return pipe.recv()


def test_threads_write_and_readers_see_everything_once(engine: Engine) -> None:
    recorder = engine.open()
    with tailing(recorder, 2) as seen:
        acknowledged = write_with_threads(recorder, "here", 6, TIMES)
    check(recorder, acknowledged, seen, readers=2)


def test_processes_write_and_readers_see_everything_once(shared: Engine) -> None:
    recorder, place = shared.open(), shared.place
    acknowledged, seen_elsewhere = list[Entry](), list[list[Entry]]()
    with ExitStack() as stack:
        racing = [stack.enter_context(started(race, place, f"p{n}", THREADS, TIMES)) for n in range(PROCESSES)]
        assert [heard(pipe) for _, pipe in racing] == ["ready"] * PROCESSES
        with tailing(recorder, 2) as seen:
            for _, pipe in racing:
                pipe.send("go")
            for process, pipe in racing:
                theirs, they_saw = heard(pipe)  # type: ignore[misc]
                acknowledged += theirs
                seen_elsewhere += they_saw
                process.join(PATIENCE)
    check(recorder, acknowledged, seen, readers=2)
    log = entries(whole_log(recorder))
    assert len(seen_elsewhere) == PROCESSES
    assert all(log[: len(part)] == part for part in seen_elsewhere)  # each read to the end that it had then


def check(recorder: Recorder, acknowledged: list[Entry], seen: list[list[Entry]], readers: int) -> None:
    """Each position was given once, to the one who was told so; each reader saw them all, in order."""
    log = whole_log(recorder)
    assert [e.id for e in log] == list(range(1, len(log) + 1))
    assert [e.recorded_at for e in log] == sorted(e.recorded_at for e in log)
    assert entries(log) == sorted(acknowledged)
    assert seen == [entries(log)] * readers
    assert len({entry.stream for entry in acknowledged}) > 2
    assert sum(entry.stream == SHARED_STREAM for entry in acknowledged) > 10
    for stream in {entry.stream for entry in acknowledged}:
        versions = [entry.version for entry in entries(log) if entry.stream == stream]
        assert versions == list(range(1, len(versions) + 1))


@pytest.mark.parametrize("seed", [1, 2])
def test_whoever_is_killed_has_lost_nothing_that_was_acknowledged(seed: int, shared: Engine) -> None:
    """Three write at once; each is killed at a moment that nobody knows, and another goes on where it ended."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    acknowledged = dict.fromkeys(("w1", "w2", "w3"), -1)
    for _ in range(2):
        write_and_be_killed(shared, chance, acknowledged)
        shared.wait_for_the_dead()
        with closing(shared.open()) as recorder:
            for name, number in acknowledged.items():
                check_nothing_half_done(recorder, name, number)
            positions = [e.id for e in whole_log(recorder)]
            assert positions == list(range(1, len(positions) + 1))


def write_and_be_killed(shared: Engine, chance: random.Random, acknowledged: dict[str, int]) -> None:
    with ExitStack() as stack:
        writers = {n: stack.enter_context(started(write_until_killed, shared.place, n)) for n in acknowledged}
        for name in chance.sample(list(writers), len(writers)):
            process, pipe = writers[name]
            for _ in range(chance.randint(1, 30)):
                acknowledged[name] = heard(pipe)  # type: ignore[assignment]
            time.sleep(chance.random() * 0.02)
            process.kill()
            process.join()
            acknowledged[name] = last_of(pipe, acknowledged[name])


def last_of(pipe: Connection, so_far: int) -> int:
    """What it could say before it died."""
    try:
        while pipe.poll(0):
            so_far = pipe.recv()
    except EOFError:
        pass
    return so_far


def check_nothing_half_done(recorder: Recorder, name: str, acknowledged: int) -> None:
    """All of an append is there, or nothing; at most one was recorded whose answer nobody heard."""
    recorded = len(recorder.select_events(name))
    assert recorded in (acknowledged + 1, acknowledged + 2)
    assert len(recorder.select_events(f"{name}-too")) == recorded
    appends = [whole(name, number) for number in range(recorded)]
    assert [e.state for e in recorder.select_events(name)] == [a.events[0].state for a in appends]
    assert recorder.payload(name, "last") == appends[-1].put_payloads[name, "last"]
    assert len(recorder.indexed(f"{name}-value")) == recorded
    for number, position in enumerate(e.id for e in recorder.select_events(name)):
        known = recorder.answered(Command(f"{name}-{number}", "digest", FAR))
        assert known is not None and known.positions == range(position, position + 2)
    assert recorder.answered(Command(f"{name}-{recorded}", "digest", FAR)) is None
