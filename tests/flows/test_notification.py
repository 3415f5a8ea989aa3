"""NOTIFY: every party hears of each result, late or twice if need be, and the record says how it ended."""

import asyncio
import threading
import time

import pytest
from mas_world import GET_IIN, GET_KEY_INFORMATION, OPERATOR, PROVIDER

from tsm.errors import ErrorCode, TsmError
from tsm.flows import notification
from tsm.flows.expiry import ExpiryWorker
from tsm.flows.follower import StoredPosition
from tsm.flows.notification import NotificationWorker
from tsm.flows.session import Limits
from tsm.mas.messages import LinkRequest, NotificationRequest, NotificationResponse, Process, Return
from tsm.mas.status import Status
from tsm.model.delegation import ResultNotified

FINISHED = LinkRequest(Process.DISCONNECT_RESULT)


class Site:
    """A provider's mobile site: remembers what it was told, and may be out of order."""

    def __init__(self, *answers):
        self.told, self.answers, self.reached = [], list(answers), threading.Event()

    def post(self, url, body):
        assert url == "https://sp.example/notify"
        self.told.append(NotificationRequest.parse(body))
        self.reached.set()
        answer = self.answers.pop(0) if self.answers else True
        if answer is None:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the site is down")
        return answer if isinstance(answer, bytes) else NotificationResponse(answer).encode()

    @property
    def orders(self):
        return [message.order for message in self.told]


@pytest.fixture
def start(world, tmp_path, monkeypatch):
    """Starts a worker with a site; stopped after the test."""
    monkeypatch.setattr(notification, "FIRST_PAUSE", 0.01)
    workers = []

    def start(site, name="notification"):
        worker = NotificationWorker(world.tsm, site, StoredPosition(tmp_path / name), world.clock)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def eventually(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def outcomes(world, party=PROVIDER):
    return [fact for fact in world.facts(f"delegation-{party}") if isinstance(fact, ResultNotified)]


def test_a_provider_hears_of_each_delegated_command_and_of_no_other(world, start):
    world.create_domain()
    site = Site()
    start(site)
    reception, _ = world.run([GET_KEY_INFORMATION, GET_KEY_INFORMATION], PROVIDER)
    eventually(lambda: len(world.delegation(reception, PROVIDER).notified) == 2)
    assert site.orders == [1, 2]
    assert {message.reception for message in site.told} == {reception}
    assert all(message.data.startswith(b"\xe0") for message in site.told)
    assert world.delegation(reception, PROVIDER).acknowledged == {1, 2}
    assert world.payloads() == []


def test_an_operator_reads_the_log_itself_and_nothing_is_posted(world, start):
    site = Site()
    start(site)
    reception, _ = world.run([GET_IIN])
    eventually(lambda: world.delegation(reception).acknowledged == {1})
    assert site.told == []
    assert outcomes(world, OPERATOR) == [ResultNotified(order=1, acknowledged=True, attempts=0)]


def test_a_site_that_is_down_hears_of_it_later(world, start):
    world.create_domain()
    site = Site(None, None, b"<nonsense", True)
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    start(site)
    eventually(lambda: world.delegation(reception, PROVIDER).notified)
    assert len(site.told) == 4
    assert len(set(site.told)) == 1
    assert outcomes(world)[-1] == ResultNotified(order=1, acknowledged=True, attempts=4)


def test_a_site_that_says_false_is_not_asked_again(world, start):
    world.create_domain()
    site = Site(False)
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    start(site)
    eventually(lambda: world.delegation(reception, PROVIDER).notified)
    assert outcomes(world)[-1] == ResultNotified(order=1, acknowledged=False, attempts=1)
    assert world.delegation(reception, PROVIDER).acknowledged == set()


def test_a_site_that_stays_down_for_a_day_is_given_up_in_the_open(world, start, monkeypatch):
    monkeypatch.setattr(notification, "LONGEST_PAUSE", 0.01)
    world.create_domain()
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    world.clock.pass_by(hours=23)
    worker = start(down := Site(*[None] * 10_000))
    eventually(lambda: len(down.told) > 20)
    worker.stop()
    world.clock.pass_by(minutes=59)
    start(down := Site(*[None] * 10_000))
    eventually(lambda: len(down.told) > 20)
    assert not world.delegation(reception, PROVIDER).notified
    assert len(world.payloads()) == 1
    world.clock.pass_by(minutes=1)
    eventually(lambda: world.delegation(reception, PROVIDER).notified)
    [given_up] = outcomes(world)
    assert not given_up.acknowledged
    assert given_up.attempts == len(down.told)
    assert world.payloads() == []


def test_a_worker_that_restarts_goes_on_where_it_left_off(world, start, tmp_path):
    world.create_domain()
    down = Site(*[None] * 100)
    worker = start(down)
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert down.reached.wait(5)
    worker.stop()
    assert int((tmp_path / "notification").read_text()) < world.tsm.position
    up = Site()
    worker = start(up)
    eventually(lambda: world.delegation(reception, PROVIDER).acknowledged)
    assert up.orders == [1]
    worker.stop()
    start(again := Site())
    time.sleep(0.05)
    assert again.told == []


def test_a_session_that_fails_at_a_step_of_the_servers_own_is_told_with_order_0(world, start):
    world.create_domain()
    site = Site()
    start(site)
    world.run([GET_KEY_INFORMATION], PROVIDER, transmit=world.other_card.transmit)
    assert site.reached.wait(5)
    assert (site.told[0].order, site.told[0].status, site.told[0].error) == (0, "54", "CARD_REFUSED")


def test_a_session_that_expires_is_told_too(world, start, tmp_path):
    world.create_domain()
    site = Site()
    start(site)
    expiry = ExpiryWorker(world.tsm, world.sessions, StoredPosition(tmp_path / "expiry"), world.clock)
    reception, phone = world.delegate([GET_KEY_INFORMATION], PROVIDER), world.phone()
    phone.start(reception, PROVIDER)
    unstarted = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    expiry.start()
    world.clock.pass_by(seconds=61)
    assert site.reached.wait(5)
    assert (site.told[0].order, site.told[0].error) == (0, "SESSION_EXPIRED")
    assert world.delegation(unstarted, PROVIDER).ended is None
    world.clock.pass_by(minutes=15)
    eventually(lambda: world.delegation(unstarted, PROVIDER).ended)
    expiry.stop()
    assert int((tmp_path / "expiry").read_text()) > 0
    assert world.delegation(reception, PROVIDER).ended.status == Status.SESSION_EXPIRED


def test_a_phone_that_is_heard_keeps_its_session(world, tmp_path):
    expiry = ExpiryWorker(world.tsm, world.sessions, StoredPosition(tmp_path / "expiry"), world.clock)
    reception, phone = world.delegate([GET_IIN]), world.phone()
    expiry.start()
    answer = phone.start(reception)
    while answer.process is not Return.END:
        world.clock.pass_by(seconds=50)
        answer = phone.say(phone.obey(answer))
    expiry.stop()
    assert world.session(reception).ended
    assert not world.session(reception).expired


def until_disconnect(world, reception, provider):
    phone = world.phone()
    answer = phone.start(reception, provider)
    while answer.process is not Return.DISCONNECT:
        answer = phone.say(phone.obey(answer))
    return phone


def test_end_waits_for_the_acknowledgements_and_says_ok(world, start):
    world.create_domain()
    reception = world.delegate([GET_KEY_INFORMATION], PROVIDER)
    phone = until_disconnect(world, reception, PROVIDER)
    start(Site(None, None))
    asyncio.run(world.sessions.acknowledgements(FINISHED, phone.cookie))
    phone.say(FINISHED)
    assert world.session(reception, PROVIDER).ended.status == Status.OK


def test_end_waits_no_longer_than_the_limit_and_says_what_is_missing(world):
    reception = world.delegate([GET_IIN])
    phone = until_disconnect(world, reception, OPERATOR)
    began = time.monotonic()
    asyncio.run(world.sessions.acknowledgements(FINISHED, phone.cookie))
    assert time.monotonic() - began >= 0.2  # the world's limit
    phone.say(FINISHED)
    assert world.session(reception).ended.status == Status.NOT_ALL_ACKNOWLEDGED


def test_a_failed_session_has_nothing_to_wait_for(world):
    reception = world.delegate([GET_IIN])
    phone = world.phone(transmit=world.other_card.transmit)
    answer = phone.start(reception)
    while answer.process is not Return.DISCONNECT:
        answer = phone.say(phone.obey(answer))
    asyncio.run(at_once(patient(world).acknowledgements(FINISHED, phone.cookie)))


def test_nobody_but_the_sessions_own_phone_makes_the_server_wait(world):
    reception = world.delegate([GET_IIN])
    cookie = until_disconnect(world, reception, OPERATOR).cookie
    sessions = patient(world)
    for other in (cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), "", f"{OPERATOR}.{reception}.9.x"):
        with pytest.raises(TsmError) as refused:
            asyncio.run(at_once(sessions.acknowledgements(FINISHED, other)))
        assert refused.value.code == ErrorCode.UNKNOWN_SESSION


def patient(world):
    """A server that would wait an hour for acknowledgements."""
    world.limits = Limits(notify_limit_seconds=3600)
    return world.worker()[2]


async def at_once(waiting):
    """Far less than the hour, however busy the machine is."""
    await asyncio.wait_for(waiting, 60)


def test_a_session_that_failed_and_then_fell_silent_is_told_once(world, start):
    world.create_domain()
    reception, phone = world.delegate([GET_KEY_INFORMATION], PROVIDER), world.phone(world.other_card.transmit)
    answer = phone.start(reception, PROVIDER)
    while answer.process is not Return.DISCONNECT:
        answer = phone.say(phone.obey(answer))
    world.clock.pass_by(minutes=2)
    assert world.sessions.expire(PROVIDER, reception) is None
    assert world.delegation(reception, PROVIDER).ended.status == Status.CARD_REFUSED
    worker = start(site := Site())
    eventually(lambda: site.told and worker.unfinished() is None)
    assert [message.error for message in site.told] == ["CARD_REFUSED"]
