"""Processes that write: what the tests start, watch and kill."""

# ruff: noqa: S311 - chance, not secrets
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from engines import Entry, PlainSealer, entries, stored
from eventsourcing.persistence import IntegrityError

from tsm.store.committer import Committer
from tsm.store.opening import open_recorder
from tsm.store.recorder import Append, Command, IndexRow, RecordedEvent, Recorder

SPAWN = get_context("spawn")
FAR = datetime(2999, 1, 1, tzinfo=UTC)
SHARED_STREAM = "everybody"
PAGE = 7


class Reading(Protocol):
    """Of a recorder, what followers and whoever decides need."""

    def select_events(self, originator_id: str, *, desc: bool, limit: int) -> Sequence[RecordedEvent]: ...
    def select_notifications(self, start: int, limit: int, *, inclusive_of_start: bool) -> Sequence[RecordedEvent]: ...


def append_some(committer: Committer, recorder: Recorder, name: str, times: int, seed: str) -> list[Entry]:
    """Events of a stream of its own, one to three at a time, and now and then of the one that all write to."""
    chance, acknowledged, version = random.Random(seed), [], 0
    for _ in range(times):
        events = [stored(name, version + n, f"{name} {version + n}".encode()) for n in range(1, chance.randint(2, 4))]
        version += len(events)
        positions = committer.append(Append(events)).positions
        acknowledged += [Entry(p, name, e.originator_version, e.state) for p, e in zip(positions, events, strict=True)]
        if chance.random() < 0.3:
            acknowledged.append(append_to_the_shared(committer, recorder, f"{name} {version}".encode()))
    return acknowledged


def append_to_the_shared(committer: Committer, recorder: Reading, state: bytes) -> Entry:
    """Whoever comes second looks again and tries again."""
    while True:
        last = recorder.select_events(SHARED_STREAM, desc=True, limit=1)
        version = 1 + (last[0].originator_version if last else 0)
        try:
            [position] = committer.append(Append([stored(SHARED_STREAM, version, state)])).positions
        except IntegrityError:
            continue
        return Entry(position, SHARED_STREAM, version, state)


def tail(recorder: Reading, stop: threading.Event) -> list[Entry]:
    """Follows the log page by page, as read models do, until it was told that nothing more comes."""
    seen: list[Entry] = []
    while True:
        ended = stop.is_set()
        page = entries(recorder.select_notifications(len(seen), PAGE, inclusive_of_start=False))
        seen += page
        if [entry.position for entry in page] != list(range(len(seen) - len(page) + 1, len(seen) + 1)):
            raise AssertionError(f"skipped or doubled: {page}")
        if ended and not page:
            return seen


@contextmanager
def tailing(recorder: Recorder, readers: int) -> Iterator[list[list[Entry]]]:
    """Threads that tail while others write; afterwards, what each saw."""
    stop, seen = threading.Event(), list[list[Entry]]()
    with ThreadPoolExecutor(readers) as threads:
        following = [threads.submit(tail, recorder, stop) for _ in range(readers)]
        try:
            yield seen
        finally:
            stop.set()
        seen += [one.result() for one in following]


def write_with_threads(recorder: Recorder, process: str, threads: int, times: int) -> list[Entry]:
    """Half of them through a committer that they share, half through one each: as several servers would."""
    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        together = stack.enter_context(closing(Committer(recorder)))
        writing = []
        for number in range(threads):
            committer = together if number % 2 else stack.enter_context(closing(Committer(recorder)))
            name = f"{process}-{number}"
            writing.append(pool.submit(append_some, committer, recorder, name, times, name))
        return [entry for one in writing for entry in one.result()]


# --- what runs in processes of their own ---


def race(place: Path | str, process: str, threads: int, times: int, report: Connection) -> None:
    with closing(open_recorder(place, PlainSealer())) as recorder:
        report.send("ready")
        report.recv()
        with tailing(recorder, 1) as seen:
            acknowledged = write_with_threads(recorder, process, threads, times)
        report.send((acknowledged, seen))


def whole(name: str, number: int) -> Append:
    """An append of every kind: two streams, a payload, an index row, a command; each tells of the others."""
    version, state = number + 1, f"{name} {number}".encode() * 20
    return Append(
        [stored(name, version, state), stored(f"{name}-too", version, state)],
        put_payloads={(name, "last"): state},
        put_index=[IndexRow(f"{name}-value", f"{name}-{number}", name)],
        command=Command(f"{name}-{number}", "digest", FAR),
    )


def write_until_killed(place: Path | str, name: str, report: Connection) -> None:
    """Goes on where the log ends; tells the number of each append as soon as it is acknowledged."""
    recorder = open_recorder(place, PlainSealer())
    number = len(recorder.select_events(name))
    while True:
        recorder.append([whole(name, number)])
        report.send(number)
        number += 1


@contextmanager
def started(work: Any, *arguments: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process and the pipe to it; it does not outlive the test."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(*arguments, there))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        here.close()
