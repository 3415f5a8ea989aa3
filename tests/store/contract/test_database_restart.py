"""PostgreSQL goes away in the middle of the work and comes back: callers get the positions that their events have."""

# ruff: noqa: S311 - chance, not secrets
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from engines import Entry, PlainSealer, PostgresEngine, entries, stored, whole_log
from eventsourcing.persistence import IntegrityError
from writers import FAR, Reading, append_to_the_shared, tail, whole

from api.bench.postgres import RUNTIME, PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.store import postgres as recording
from tsm.store.committer import Committer
from tsm.store.migrations import APPEND_LOCK, migrate_postgres
from tsm.store.postgres import PostgresRecorder
from tsm.store.recorder import Append, Command, Recorded, RecordedEvent, Recorder, utc_now

AT_LEAST = 60  # appends that are acknowledged between two restarts


@pytest.fixture(scope="module")
def server(postgres_binaries: Path) -> Iterator[PostgresServer]:
    """One of its own: others would not like what happens to it."""
    with PostgresServer(postgres_binaries) as server:
        yield server


@pytest.fixture
def engine(server: PostgresServer) -> Iterator[PostgresEngine]:
    database = server.fresh_database()
    migrate_postgres(database.owner_dsn, RUNTIME)
    with closing(PostgresEngine(PlainSealer(), database)) as engine:
        yield engine


def immediate(server: PostgresServer) -> None:
    server.restart("immediate")


def killed(server: PostgresServer) -> None:
    server.kill9()
    server.start()


def orderly(server: PostgresServer) -> None:
    server.restart("fast")


class Patient:
    """Who reads while the database is away is told so, and asks again."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def select_events(self, *which: Any, **how: Any) -> Sequence[RecordedEvent]:
        return self._ask(self._recorder.select_events, *which, **how)

    def select_notifications(self, *which: Any, **how: Any) -> Sequence[RecordedEvent]:
        return self._ask(self._recorder.select_notifications, *which, **how)

    def _ask(
        self, read: Callable[..., Sequence[RecordedEvent]], *which: object, **how: object
    ) -> Sequence[RecordedEvent]:
        while True:
            try:
                return read(*which, **how)
            except TsmError as error:
                assert error.code is ErrorCode.STORE_UNAVAILABLE
            time.sleep(0.01)


class Writing:
    """Threads that append until they are told to end; each keeps what was acknowledged."""

    def __init__(self, recorder: Reading, committer: Committer) -> None:
        self._recorder = recorder
        self._committer = committer
        self.stop = Event()
        self.acknowledged: list[Entry] = []

    def to_a_stream_of_its_own(self, name: str) -> None:
        """With a command for every other one: its answer comes from another place when the first is lost."""
        version = 0
        while not self.stop.is_set():
            version += 1
            state = f"{name} {version}".encode()
            command = Command(f"{name} {version}", "digest", FAR) if version % 2 else None
            events = [stored(name, version, state), stored(f"{name}-too", version, state)]
            positions = self._committer.append(Append(events, command=command)).positions
            self.acknowledged += [
                Entry(p, str(e.originator_id), version, state) for p, e in zip(positions, events, strict=True)
            ]

    def to_the_shared_stream(self, name: str) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            state = f"{name} {number}".encode()
            self.acknowledged.append(append_to_the_shared(self._committer, self._recorder, state))


@pytest.mark.parametrize("restart", [immediate, killed, orderly])
@pytest.mark.parametrize("seed", [1])
def test_a_stream_of_appends_goes_on_over_restarts(
    seed: int, restart: Callable[[PostgresServer], None], server: PostgresServer, engine: PostgresEngine
) -> None:
    print(f"seed {seed}")
    chance, recorder = random.Random(seed), engine.open()
    with closing(Committer(recorder, patience=60)) as committer, ThreadPoolExecutor(12) as threads:
        writing, ended = Writing(Patient(recorder), committer), Event()
        works = [threads.submit(writing.to_a_stream_of_its_own, f"s{n}") for n in range(8)]
        works += [threads.submit(writing.to_the_shared_stream, f"t{n}") for n in range(2)]
        following = [threads.submit(tail, Patient(recorder), ended) for _ in range(2)]
        try:
            for _ in range(2):
                seen = len(writing.acknowledged)
                while len(writing.acknowledged) < seen + AT_LEAST:
                    assert not any(work.done() for work in works), [work.result() for work in works if work.done()]
                    time.sleep(0.005)
                time.sleep(chance.random() * 0.01)
                restart(server)
        finally:
            writing.stop.set()
            wait(works)
            ended.set()
        for work in works:
            work.result()
        pages = [one.result() for one in following]
    log = entries(whole_log(recorder))
    assert [entry.position for entry in log] == list(range(1, len(log) + 1))
    assert log == sorted(writing.acknowledged)  # nothing lost, nothing doubled, nobody told anything else
    assert pages == [log, log]


def lose_the_answer(recorder: PostgresRecorder) -> None:
    """The next batch is committed, and the connection breaks before anybody hears of it."""
    writer = recorder._writer
    assert writer is not None
    real = writer.execute

    def execute(*arguments: object, **keywords: object) -> object:
        real(*arguments, **keywords)  # type: ignore[arg-type]
        writer.pgconn.finish()
        raise psycopg.OperationalError("the connection is lost")

    writer.execute = execute  # type: ignore[assignment, method-assign]


@pytest.fixture
def recorder(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> PostgresRecorder:
    monkeypatch.setattr(recording, "PAUSE", 0.01)
    recorder = engine.open()
    assert isinstance(recorder, PostgresRecorder)
    return recorder


def test_a_batch_whose_answer_is_lost_is_not_doubled_and_its_callers_get_their_positions(
    recorder: PostgresRecorder,
) -> None:
    recorder.insert_events([stored("old", 1), stored("gone on", 1)])
    batch = [
        Append([stored("a", 1, b"1"), stored("a", 2, b"2"), stored("b", 1, b"3")]),
        whole("w", 0),
        Append([stored("gone on", 1, b"late")]),  # refused the first time, too
        Append([], unchanged={"old": 1}),
        Append([stored("c", 1)], unchanged={"old": 1}),
    ]
    lose_the_answer(recorder)
    outcomes = recorder.append(batch)
    assert outcomes[0] == Recorded(range(3, 6), 5)
    assert isinstance(outcomes[1], Recorded) and outcomes[1].positions == range(6, 8)
    assert isinstance(outcomes[2], IntegrityError)
    assert isinstance(outcomes[3], Recorded) and not outcomes[3].positions
    assert outcomes[4] == Recorded(range(8, 9), 8)
    assert [e.id for e in whole_log(recorder)] == list(range(1, 9))
    assert recorder.insert_events([stored("c", 2)]) == [9]


def test_who_was_refused_is_not_told_that_the_events_of_another_are_his(recorder: PostgresRecorder) -> None:
    recorder.insert_events([stored("a", 1, b"theirs"), stored("a", 2, b"mine")])
    lose_the_answer(recorder)
    for mine in ([stored("a", 1, b"mine")], [stored("a", 2, b"mine"), stored("a", 3, b"more")]):
        [outcome] = recorder.append([Append(mine)])
        assert isinstance(outcome, IntegrityError)
    assert recorder.max_notification_id() == 2


def test_a_lost_answer_twice_in_a_row_changes_nothing(
    recorder: PostgresRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = recorder._connect, iter(range(2))

    def connect() -> "psycopg.Connection[tuple[object, ...]]":
        connection = real()
        recorder._writer = connection
        if next(times, None) is not None:
            lose_the_answer(recorder)
        return connection

    monkeypatch.setattr(recorder, "_connect", connect)
    lose_the_answer(recorder)
    assert recorder.append([Append([stored("a", 1)])]) == [Recorded(range(1, 2), 1)]
    assert entries(whole_log(recorder)) == [Entry(1, "a", 1, b"{}")]


def test_who_waits_for_the_lock_with_a_lost_answer_is_not_told_that_nothing_was_recorded(
    recorder: PostgresRecorder, engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try meets a busy log; the third finds what the first has recorded."""
    real, tries = recorder._try, iter(range(1, 10))
    with engine.owner() as other:

        def attempt(arguments: list[object]) -> tuple[object, ...]:
            number = next(tries)
            if number == 2:
                other.execute("SELECT pg_advisory_lock(%s)", (APPEND_LOCK,))
            elif number == 3:
                other.execute("SELECT pg_advisory_unlock(%s)", (APPEND_LOCK,))
            return real(arguments)

        monkeypatch.setattr(recording, "SESSION", "-c timezone=UTC -c lock_timeout=50")
        monkeypatch.setattr(recorder, "_try", attempt)
        lose_the_answer(recorder)
        assert recorder.append([Append([stored("a", 1)])]) == [Recorded(range(1, 2), 1)]
    assert next(tries) == 4


def test_a_server_that_stays_away_is_reported_and_the_recorder_works_when_it_is_back(
    recorder: PostgresRecorder,
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recording, "RECONNECT_FOR", 0.1)
    monkeypatch.setattr(recording, "POOL_TIMEOUT", 1)
    recorder.insert_events([stored("a", 1)])
    caplog.set_level(logging.WARNING)
    server.stop("fast")
    try:
        with pytest.raises(TsmError) as refusal:
            recorder.insert_events([stored("a", 2)])
        assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
        with pytest.raises(TsmError) as refusal:
            recorder.prune(utc_now())
        assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
    finally:
        server.start()
    assert "no connection to the database" in caplog.text
    assert recorder.insert_events([stored("a", 2)]) == [2]
    assert recorder.prune(utc_now()) == 0


def test_everything_works_although_all_connections_are_broken(
    recorder: PostgresRecorder, engine: PostgresEngine
) -> None:
    recorder.append([whole("w", 0)])
    known = whole("w", 0).command
    assert known is not None
    reads: list[Callable[[], object]] = [
        recorder.max_notification_id,
        lambda: recorder.select_events("w"),
        lambda: recorder.select_notifications(None, 10),
        lambda: recorder.payload("w", "last"),
        lambda: recorder.indexed("w-value"),
        lambda: recorder.answered(known),
        lambda: recorder.position_at(utc_now()),
        lambda: recorder.prune(utc_now()),
        recorder.erase_remains,
    ]
    for read in reads:
        expected = read()
        engine.break_connections()
        assert read() == expected


def test_word_of_commits_comes_from_other_processes_also_after_a_restart(
    engine: PostgresEngine, server: PostgresServer
) -> None:
    """No time is measured: the test waits until the word comes, and it does not look by itself."""
    here, elsewhere = engine.open(), engine.open()
    server.restart("fast")
    version, heard = 0, False
    while not heard:
        version += 1
        assert version < 200, "no word comes"
        elsewhere.insert_events([stored("a", version)])
        with here.committed:
            heard = here.committed.wait(0.1)
