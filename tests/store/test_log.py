"""Following the log: pages, waking up, and the library's Application on top."""

import threading
import time
from pathlib import Path

import pytest
from eventsourcing.application import Application
from eventsourcing.utils import Environment
from sample_events import KEYS_PUT, event

from tsm.keys.vault import SoftwareVault
from tsm.model.event import Event
from tsm.store import log
from tsm.store.factory import StoreFactory
from tsm.store.mapper import JsonMapper
from tsm.store.memory import MemoryRecorder
from tsm.store.sqlite import SQLiteRecorder


def test_a_follower_reads_page_by_page(recorder: SQLiteRecorder, mapper: JsonMapper) -> None:
    recorder.insert_events([mapper.to_stored_event(event(number=n)) for n in range(1, 6)])
    assert [e.position for e in log.read(recorder, mapper, 0, 3)] == [1, 2, 3]
    assert [e.position for e in log.read(recorder, mapper, 3, 3)] == [4, 5]
    assert log.read(recorder, mapper, 5, 3) == []


def test_a_wait_ends_at_once_when_there_is_something(recorder: SQLiteRecorder, mapper: JsonMapper) -> None:
    recorder.insert_events([mapper.to_stored_event(event())])
    assert log.wait(recorder, 0, timeout=0)


def test_a_wait_ends_in_time_when_nothing_comes(recorder: SQLiteRecorder) -> None:
    assert not log.wait(recorder, 0, timeout=0.01)


def test_a_commit_wakes_the_followers(
    recorder: SQLiteRecorder, mapper: JsonMapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "POLL", 60)
    threading.Timer(0.02, recorder.insert_events, [[mapper.to_stored_event(event())]]).start()
    started = time.monotonic()
    assert log.wait(recorder, 0, timeout=60)
    assert time.monotonic() - started < 30  # it did not wait for the poll


def test_a_commit_of_another_process_is_seen_soon(
    recorder: SQLiteRecorder, mapper: JsonMapper, path: Path, vault: SoftwareVault
) -> None:
    other = SQLiteRecorder(path, vault)  # its commits do not notify ours
    threading.Timer(0.02, other.insert_events, [[mapper.to_stored_event(event())]]).start()
    assert log.wait(recorder, 0, timeout=10)


class Sample(Application[str]):
    """How an application takes the store."""

    def __init__(self, recorder: SQLiteRecorder, mapper: JsonMapper) -> None:
        self._parts = StoreFactory(recorder, mapper)
        super().__init__()

    def construct_factory(self, env: Environment) -> StoreFactory:
        return self._parts


def test_the_librarys_application_saves_reads_and_folds_through_the_store(
    recorder: SQLiteRecorder, mapper: JsonMapper
) -> None:
    application = Sample(recorder, mapper)
    recordings = application.save(event(number=1), event(number=2))
    assert [recording.notification.id for recording in recordings] == [1, 2]

    def fold(state: int | None, events: list[Event]) -> int:
        return (state or 0) + sum(e.fact == KEYS_PUT for e in events)

    assert application.repository.get("card-1", projector_func=fold) == 2
    application.close()


def test_a_log_that_was_put_back_is_not_believed_to_be_as_long_as_it_was(
    mapper: JsonMapper, vault: SoftwareVault
) -> None:
    recorder = MemoryRecorder(vault)
    recorder.insert_events([mapper.to_stored_event(event())])
    recorder.head = 10  # what was heard of the log before it was put back
    assert log.read(recorder, mapper, 5, 10) == []
    assert not log.wait(recorder, 5, 0.01)
    assert log.wait(recorder, 0, 0.01)
    recorder.head = 10
    assert log.page(recorder, mapper, 5, 10) == log.Page((), 5)
    assert recorder.head == 1
