"""Followers: no fault ends them, none of them skips anything, and whether they keep up can be asked."""

import sqlite3
import time

import pytest
from issuance_world import IssuanceWorld
from mas_world import GET_IIN, OPERATOR

from tsm.errors import ErrorCode, TsmError
from tsm.flows import follower
from tsm.flows.expiry import ExpiryWorker
from tsm.flows.follower import Follower, StoredPosition
from tsm.model.credential import Stage


def eventually(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


class Reader(Follower):
    """Remembers what it saw; stumbles over whatever is told."""

    topics = ()

    def __init__(self, tsm, position):
        super().__init__(tsm, position)
        self.seen, self.faults, self.broken = [], {}, False

    def stumble(self, where):
        if self.broken or self.faults.pop(where, None):
            raise RuntimeError(where)

    def see(self, event):
        self.seen.append(event.position)
        self.stumble("see")

    def act(self):
        self.stumble("act")

    def unfinished(self):
        self.stumble("unfinished")


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(follower, "PAUSE", 0.01)
    monkeypatch.setattr(follower, "TICK", 0.01)
    monkeypatch.setattr(follower, "KEEP_EVERY", 0)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "positions").mkdir()
    return tmp_path / "positions" / "reader"


@pytest.fixture
def read(world, path):
    """Starts a reader; stopped after the test."""
    readers = []

    def read(**faults):
        reader = Reader(world.tsm, StoredPosition(path))
        reader.faults = faults
        reader.start()
        readers.append(reader)
        return reader

    yield read
    for reader in readers:
        reader.stop()


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"12x", b"\xff"])
def test_a_position_that_cannot_be_read_counts_as_the_beginning(world, path, read, content):
    path.write_bytes(content)
    reader, end = read(), world.tsm.position
    eventually(lambda: reader.seen == list(range(1, end + 1)))
    eventually(lambda: path.read_bytes() == str(end).encode())


def test_a_position_beyond_the_end_of_the_log_counts_as_the_beginning(world, path, read):
    end = world.tsm.position
    path.write_text(str(end + 1))
    reader = read()
    eventually(lambda: reader.seen == list(range(1, end + 1)))


@pytest.mark.parametrize("where", ["see", "act", "unfinished"])
def test_a_fault_of_its_own_is_logged_and_the_round_begun_again(world, path, read, where, caplog):
    reader = read(**{where: True})
    eventually(lambda: path.exists() and path.read_text() == str(world.tsm.position))
    assert set(reader.seen) == set(range(1, world.tsm.position + 1))
    assert f"RuntimeError: {where}" in caplog.text


@pytest.mark.parametrize("name", ["page", "wait"])
def test_a_fault_of_the_disk_ends_no_follower(world, path, read, name, monkeypatch):
    once, work = [True], getattr(world.tsm, name)

    def broken_once(*arguments):
        if once:
            raise sqlite3.OperationalError(f"disk I/O error {once.pop()}")
        return work(*arguments)

    monkeypatch.setattr(world.tsm, name, broken_once)
    reader = read()
    eventually(lambda: not once)
    world.delegate([GET_IIN])
    eventually(lambda: reader.seen[-1:] == [world.tsm.position])


def test_a_position_that_cannot_be_written_is_written_later(world, path, read):
    path.parent.rmdir()  # stands for a full disk, or one that can only be read
    reader = read()
    eventually(lambda: reader.seen[-1:] == [world.tsm.position])
    world.delegate([GET_IIN])
    eventually(lambda: reader.seen[-1:] == [world.tsm.position])
    path.parent.mkdir()
    eventually(lambda: path.exists() and path.read_text() == str(world.tsm.position))


def test_a_follower_whose_rounds_fail_does_not_keep_up_until_they_succeed(read, monkeypatch):
    monkeypatch.setattr(follower, "LATE", 0.2)
    reader = read()
    eventually(reader.keeping_up)
    reader.broken = True
    eventually(lambda: not reader.keeping_up())
    reader.broken = False
    eventually(reader.keeping_up)
    reader.stop()
    assert not reader.keeping_up()


def test_a_delegation_that_cannot_be_ended_stops_no_other(world, path, monkeypatch):
    stuck, other = world.delegate([GET_IIN]), world.delegate([GET_IIN])
    world.clock.pass_by(minutes=15)
    expire = world.sessions.expire

    def expire_others(provider, reception):
        if reception == stuck:
            raise TsmError(ErrorCode.STORE_CORRUPT, "damaged")
        return expire(provider, reception)

    monkeypatch.setattr(world.sessions, "expire", expire_others)
    worker = ExpiryWorker(world.tsm, world.sessions, StoredPosition(path), world.clock)
    worker.start()
    eventually(lambda: world.delegation(other).ended)
    assert world.delegation(stuck).ended is None
    monkeypatch.undo()
    eventually(lambda: world.delegation(stuck).ended)
    worker.stop()


def test_a_story_that_cannot_be_carried_over_stops_no_other_and_keeps_its_order(tmp_path, monkeypatch):
    (tmp_path / "issuance").mkdir()
    world = IssuanceWorld(tmp_path / "issuance")
    slip = world.apply()
    world.check(slip)
    carry_over, carried = world.follower.carry_over, []

    def carry_others_over(event):
        if event.context.correlation == "story":
            raise TsmError(ErrorCode.STORE_CORRUPT, "damaged")
        carried.append(event)
        carry_over(event)

    monkeypatch.setattr(world.follower, "carry_over", carry_others_over)
    world.delegate([GET_IIN])
    request = world.request([GET_IIN])
    world.sessions.delegate(request, party=OPERATOR, iccid="8981100000000000010", correlation=slip.credential)
    with pytest.raises(ExceptionGroup):
        world.follow()
    assert [event.fact.reception for event in carried] == [request.reception]
    assert world.follower.unfinished() < carried[0].position
    monkeypatch.undo()
    world.follower.act()
    assert world.follower.unfinished() is None
    assert world.credential(slip.credential).stage is Stage.HOLDER_AUTHENTICATED
    world.close()
