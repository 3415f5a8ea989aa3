"""Subscriptions to swaps: what is noted for whom, and that sinks are told of it, late or twice if need be."""

import logging
import threading
import time
from datetime import timedelta
from os import urandom

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from line_samples import (
    IMSI,
    NOON,
    NUMBER,
    OTHER_IMSI,
    OTHER_NUMBER,
    OTHER_PHONE,
    OTHER_SIM,
    PHONE,
    SIM,
    THIRD_IMSI,
    signal,
    signals,
)
from line_world import SYSTEM, LineWorld
from mas_world import NoPosition

from tsm.errors import ErrorCode, TsmError
from tsm.flows import swap_notices
from tsm.flows.follower import StoredPosition
from tsm.flows.subscriptions import (
    BY_SUBJECT,
    CLIENT,
    CREDENTIAL,
    LINE,
    MAKER,
    UNTOLD,
    Credential,
    Grounds,
    Subscriptions,
    SwapWatcher,
    Wish,
    read,
)
from tsm.flows.swap_notices import GIVE_UP_AFTER, PER_HOST, REFUSALS, THREADS, Answer, Desk, Job, SwapNoticesWorker
from tsm.keys.vault import SoftwareVault
from tsm.model import subscription
from tsm.model.event import Context
from tsm.model.line import SignalKind
from tsm.model.subscription import NOTICE, Reason, SinkNotified, SubscriptionEnded, SwapNoted
from tsm.store.memory import MemoryRecorder
from tsm.store.opening import open_recorder

K = SignalKind
SUBSCRIBED = signal(K.SUBSCRIBED, 0, msisdn=NUMBER, imsi=IMSI, iccid=SIM, imei=PHONE)
BANK = Context(actor="relying-party:bank", role="relying-party", tenant="tsm-server", correlation="x", request="r-1")
SECRET = "only-the-sink-knows"
ISSUER = "https://login.example"


class Site:
    """All sinks there are: what they are told, and what they answer in turn; then 204."""

    def __init__(self, *answers):
        self.told, self.answers = [], list(answers)

    def tell(self, notice):
        self.told.append(notice)
        answer = self.answers.pop(0) if self.answers else 204
        if answer is None:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "nobody there")
        return answer if isinstance(answer, Answer) else Answer(answer)

    @property
    def ids(self):
        return [notice.id for notice in self.told]


class Slow(Site):
    """One host of it answers only when it is let go."""

    def __init__(self, host):
        super().__init__()
        self.host, self.go, self.held = host, threading.Event(), []

    def tell(self, notice):
        if self.host in notice.sink:
            self.held.append(notice)
            assert self.go.wait(20)
        return super().tell(notice)


class World(LineWorld):
    """Lines, and those who subscribed to them."""

    def __init__(self, vault, place, folder=None):
        super().__init__(vault, place)
        self.folder = folder
        self.distrusted = set()
        self.grounds = Grounds(self.tsm, self.lines, lambda client: client not in self.distrusted)
        self.subscriptions = self.server()
        self.workers = []
        self.record(SUBSCRIBED)

    def server(self, per_client=10_000):
        return Subscriptions(self.tsm, self.grounds, urandom, per_client)

    def wish(self, number=NUMBER, client="bank", **changes):
        given = {"sink": "https://bank.example/sink", "purpose": "dpv:Testing", "msisdn": number}
        return Wish(client=client, line=self.lines.stream_of_number(number), **{**given, **changes})

    def subscribe(self, number=NUMBER, client="bank", **changes):
        return self.subscriptions.create(self.wish(number, client, **changes), BANK)

    def subscribe_as(self, sub, **changes):
        """With a token of three legs."""
        return self.subscribe(msisdn="", subject=f"{ISSUER}|{sub}", **changes)

    def map(self, sub, number=NUMBER):
        self.lines.map_subject(ISSUER, sub, number, SYSTEM)

    def swap(self, imsi=OTHER_IMSI, hours=300, number=NUMBER):
        (outcome,) = self.record(signal(K.OBSERVED, hours, msisdn=number, imsi=imsi))
        return outcome.position

    def start(self, site):
        watcher = SwapWatcher(self.tsm, self.grounds, StoredPosition(self.folder / "watcher"))
        position = StoredPosition(self.folder / "notices")
        worker = SwapNoticesWorker(self.tsm, site, watcher, self.grounds, position, self.clock)
        for each in (watcher, worker):
            each.start()
            self.workers.append(each)
        return worker

    def stop(self):
        while self.workers:
            self.workers.pop().stop()

    def close(self):
        self.stop()
        super().close()

    def watcher(self):
        return SwapWatcher(self.tsm, self.grounds, NoPosition())

    def note(self):
        """What a watcher notes that begins anew."""
        watcher = self.watcher()
        watcher._catch_up()
        watcher.act()

    def seen(self, site):
        """A worker that has seen all there is, and does nothing by itself."""
        worker = SwapNoticesWorker(self.tsm, site, self.watcher(), self.grounds, NoPosition(), self.clock)
        worker._catch_up()
        return worker

    def facts(self, found, kind=object):
        return [event.fact for event in self.tsm.history(found.stream) if isinstance(event.fact, kind)]

    def end_of(self, found):
        ((end),) = self.facts(found, SubscriptionEnded)
        return end.reason, end.quiet

    def over(self, found):
        """Whether nothing is left to be sent, nor of its secret."""
        return subscription.is_over(read(self.tsm, found.stream).state) and self.secret(found) is None

    def secret(self, found):
        return self.tsm.payload(found.stream, CREDENTIAL)


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    vault = SoftwareVault.create(folder / "vault", folder / "kek")
    yield vault
    vault.close()


@pytest.fixture
def world(vault, tmp_path, monkeypatch):
    monkeypatch.setattr(swap_notices, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(swap_notices, "LONGEST_PAUSE", 0.02)
    world = World(vault, tmp_path / "log.sqlite", tmp_path)
    yield world
    world.close()


def eventually(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


# What is noted


def test_a_swap_is_told_to_whoever_subscribed_to_that_line_and_nobody_else(world) -> None:
    world.record(signal(K.SUBSCRIBED, 0, msisdn=OTHER_NUMBER, imsi=THIRD_IMSI))
    mine, others, foreign = world.subscribe(), world.subscribe(client="shop"), world.subscribe(OTHER_NUMBER)
    site = Site()
    world.start(site)
    position = world.swap()
    eventually(lambda: len(site.told) == 2)
    eventually(lambda: len(world.facts(mine, SinkNotified)) == len(world.facts(others, SinkNotified)) == 1)
    assert set(site.ids) == {f"{mine.id}-{position}", f"{others.id}-{position}"}
    assert {(notice.msisdn, notice.reason, notice.at) for notice in site.told} == {
        (NUMBER, "", NOON + timedelta(hours=300))
    }
    assert world.facts(foreign, SwapNoted) == []


def test_who_did_not_name_the_number_is_not_told_it(world) -> None:
    world.subscribe(msisdn="")
    site = Site()
    world.start(site)
    world.swap()
    eventually(lambda: site.told)
    assert site.told[0].msisdn == ""
    assert NUMBER not in str(site.told)


@pytest.mark.parametrize(
    "news",
    [
        signal(K.OBSERVED, 300, msisdn=NUMBER, imsi=IMSI),
        signal(K.OBSERVED, 300, msisdn=NUMBER, imei=OTHER_PHONE),
        signal(K.SUSPENDED, 300, msisdn=NUMBER),
        signal(K.LOST, 300, msisdn=NUMBER),
        SUBSCRIBED,
    ],
    ids=lambda one: one.kind,
)
def test_what_is_no_change_of_the_sim_is_not_noted(world, news) -> None:
    found = world.subscribe()
    world.record(news)
    world.note()
    assert world.facts(found) == [found.state.created]


def test_a_swap_before_the_one_that_is_known_is_no_news(world) -> None:
    """It came late; whoever looks the line up is told the later one."""
    found = world.subscribe()
    world.swap(OTHER_IMSI, hours=300)
    world.swap(THIRD_IMSI, hours=200)
    world.note()
    assert [fact.changed_at for fact in world.facts(found, SwapNoted)] == [NOON + timedelta(hours=300)]


def test_what_was_recorded_before_the_subscription_is_none_of_its_business(world) -> None:
    world.swap(hours=200)
    found = world.subscribe()
    world.note()
    assert world.facts(found, SwapNoted) == []
    world.swap(THIRD_IMSI, hours=201)
    world.note()
    assert [fact.changed_at for fact in world.facts(found, SwapNoted)] == [NOON + timedelta(hours=201)]


def test_two_servers_note_a_swap_once(world) -> None:
    found = world.subscribe()
    position = world.swap()
    for _ in range(3):
        world.note()
    assert [fact.swap for fact in world.facts(found, SwapNoted)] == [position]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(signals(), min_size=1, max_size=12), st.sets(st.integers(0, 12)))
def test_whatever_comes_in_and_whenever_it_is_read_a_swap_is_noted_once_and_each_is_later(
    vault, arriving, read_after
) -> None:
    world = World(vault, MemoryRecorder)
    found = world.subscribe()
    for number, one in enumerate(arriving):
        world.record(one)
        if number in read_after:
            world.note()
    world.note()
    notes = world.facts(found, SwapNoted)
    assert [note.swap for note in notes] == sorted({note.swap for note in notes})
    assert [note.changed_at for note in notes] == sorted({note.changed_at for note in notes})
    line = world.lines.stream_of_number(NUMBER)
    changes = [e.fact.sim_changed_at for e in world.tsm.history(line) if getattr(e.fact, "sim_changed_at", None)]
    if not world.facts(found, SubscriptionEnded) and max(changes) > changes[0]:
        assert notes[-1].changed_at == max(changes)  # the last one is missed by nobody
    world.close()


def test_a_line_that_cannot_be_read_keeps_no_other_from_being_noted(world, monkeypatch) -> None:
    world.record(signal(K.SUBSCRIBED, 0, msisdn=OTHER_NUMBER, imsi=THIRD_IMSI))
    bad, good = world.subscribe(), world.subscribe(OTHER_NUMBER)
    world.swap()
    world.swap(OTHER_IMSI, number=OTHER_NUMBER)
    history = world.tsm.history

    def broken(stream, **options):
        if stream == bad.state.created.line:
            raise TsmError(ErrorCode.STORE_CORRUPT, stream)
        return history(stream, **options)

    watcher = world.watcher()
    watcher._catch_up()
    monkeypatch.setattr(world.tsm, "history", broken)
    with pytest.raises(ExceptionGroup):
        watcher.act()
    monkeypatch.undo()
    assert world.facts(good, SwapNoted)
    assert not world.facts(bad, SwapNoted)
    assert watcher.unfinished() == 1  # all that was said of that line is looked at again
    watcher.act()
    assert world.facts(bad, SwapNoted)
    assert watcher.unfinished() is None


# How it ends


def test_with_the_last_event_that_was_wished_for_it_ends_and_that_is_told_after_it(world) -> None:
    found = world.subscribe(max_events=2)
    site = Site()
    world.start(site)
    first, second = world.swap(OTHER_IMSI, 300), world.swap(THIRD_IMSI, 301)
    eventually(lambda: world.over(found))
    assert site.ids == [f"{found.id}-{first}", f"{found.id}-{second}", f"{found.id}-ended"]
    assert site.told[-1].reason == Reason.MAX_EVENTS_REACHED
    world.swap(IMSI, 302)
    world.note()
    assert len(world.facts(found, SwapNoted)) == 2


def test_when_its_time_is_over_it_ends(world) -> None:
    ends_at = world.now + timedelta(hours=1)
    found = world.subscribe(ends_at=ends_at)
    site = Site()
    world.start(site)
    world.now = ends_at - timedelta(seconds=1)
    position = world.swap(hours=300)
    eventually(lambda: len(world.facts(found, SinkNotified)) == 1)
    assert world.facts(found, SubscriptionEnded) == []
    world.now = ends_at
    eventually(lambda: world.over(found))
    assert [(notice.id, notice.reason) for notice in site.told] == [
        (f"{found.id}-{position}", ""),
        (f"{found.id}-ended", Reason.SUBSCRIPTION_EXPIRED),
    ]


def test_it_ends_before_its_credential_does_so_that_this_can_be_told(world) -> None:
    ends_at = world.now + timedelta(hours=1)
    found = world.subscribe(credential=Credential(SECRET, ends_at))
    site = Site()
    world.start(site)
    world.now = ends_at - NOTICE
    eventually(lambda: world.over(found))
    ((notice),) = site.told
    assert (notice.reason, notice.credential) == (Reason.ACCESS_TOKEN_EXPIRED, SECRET)


def test_what_was_recorded_in_its_time_is_told_though_nobody_looked_until_it_was_over(world) -> None:
    found = world.subscribe(ends_at=world.now + timedelta(hours=1))
    world.swap()
    world.now += timedelta(hours=2)
    site = Site()
    world.start(site)
    eventually(lambda: world.over(found))
    assert [notice.reason for notice in site.told] == ["", Reason.SUBSCRIPTION_EXPIRED]


def test_a_subscription_that_is_deleted_is_told_so_with_its_credential_which_goes_then(world) -> None:
    found = world.subscribe(credential=Credential(SECRET, world.now + timedelta(days=1)))
    world.subscriptions.delete(found.id, "bank", BANK)
    assert world.secret(found) == SECRET.encode()
    site = Site()
    world.start(site)
    eventually(lambda: world.over(found))
    ((notice),) = site.told
    assert (notice.id, notice.reason, notice.credential) == (
        f"{found.id}-ended",
        Reason.SUBSCRIPTION_DELETED,
        SECRET,
    )
    with pytest.raises(TsmError) as refusal:
        world.subscriptions.delete(found.id, "bank", BANK)
    assert refusal.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("news", "swaps"),
    [
        (signal(K.TERMINATED, 300, msisdn=NUMBER), 0),
        (signal(K.PORTED_OUT, 300, msisdn=NUMBER), 0),
        (signal(K.NUMBER_CHANGED, 300, msisdn=OTHER_NUMBER, previous=NUMBER, iccid=SIM), 0),
        (signal(K.SUBSCRIBED, 300, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM), 1),
    ],
    ids=lambda one: getattr(one, "kind", ""),
)
def test_when_the_number_is_nobodys_or_anothers_it_ends(world, news, swaps) -> None:
    found = world.subscribe()
    world.record(news)
    world.note()
    world.note()
    assert len(world.facts(found, SwapNoted)) == swaps
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, False)


def test_a_port_in_is_a_swap_and_the_holder_stays(world) -> None:
    found = world.subscribe()
    world.record(signal(K.PORTED_IN, 300, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM))
    world.note()
    assert len(world.facts(found, SwapNoted)) == 1
    assert world.facts(found, SubscriptionEnded) == []


def test_an_activation_that_is_told_late_is_neither_a_swap_nor_an_end(world) -> None:
    world.record(signal(K.OBSERVED, 100, msisdn=OTHER_NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM))
    found = world.subscribe(OTHER_NUMBER)
    world.record(signal(K.SUBSCRIBED, 50, msisdn=OTHER_NUMBER))
    world.note()
    assert world.facts(found) == [found.state.created]
    world.swap(THIRD_IMSI, number=OTHER_NUMBER)
    world.note()
    assert len(world.facts(found, SwapNoted)) == 1


def test_when_its_line_is_erased_it_ends_and_nobody_is_told_the_number_any_more(world) -> None:
    found = world.subscribe()
    world.swap()
    world.note()
    world.lines.erase(SYSTEM, msisdn=NUMBER)
    site = Site()
    world.start(site)
    eventually(lambda: world.over(found))
    assert [(notice.msisdn, notice.reason) for notice in site.told] == [("", ""), ("", Reason.NETWORK_TERMINATED)]
    assert "eras" not in site.told[-1].detail


def test_no_row_leads_to_one_that_ended_and_is_told(world) -> None:
    found = world.subscribe_as("alice")
    places = [(CLIENT, "bank"), (LINE, found.state.created.line), (BY_SUBJECT, f"{ISSUER}|alice")]
    assert [len(world.tsm.indexed(*place)) for place in places] == [1, 1, 1]
    world.subscriptions.delete(found.id, "bank", BANK)
    assert [world.tsm.indexed(*place) for place in places] == [[], [], []]
    assert len(world.tsm.indexed(UNTOLD, "bank")) == 1
    world.seen(Site()).deliver(Job(found.stream, "bank", "bank.example"))
    assert world.tsm.indexed(UNTOLD, "bank") == []


# How many, and of which kind


def test_of_two_that_are_asked_for_at_the_same_moment_at_two_servers_one_is_made(world, monkeypatch) -> None:
    """The other server is faster between what is read and what is written here."""
    there, faster, commit = world.server(), [], world.tsm.commit

    def late(*changes, **options):
        if not faster:
            faster.append(None)
            faster[0] = there.create(world.wish(), BANK)
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", late)
    with pytest.raises(TsmError) as refusal:
        world.subscribe(credential=Credential(SECRET, world.now + timedelta(days=1)))
    assert refusal.value.code is ErrorCode.ALREADY_EXISTS
    assert [found.id for found in world.subscriptions.of_client("bank")] == [faster[0].id]
    site = Site()
    world.start(site)
    position = world.swap()
    eventually(lambda: world.facts(faster[0], SinkNotified))
    assert site.ids == [f"{faster[0].id}-{position}"]


def test_of_many_that_are_asked_for_at_the_same_moment_one_is_made(world) -> None:
    begin, outcomes = threading.Barrier(8), []

    def ask():
        begin.wait()
        try:
            outcomes.append(world.subscribe().id)
        except TsmError as refusal:
            outcomes.append(refusal.code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (made,) = world.subscriptions.of_client("bank")
    assert sorted(outcomes, key=str) == sorted([made.id, *[ErrorCode.ALREADY_EXISTS] * 7], key=str)


def test_those_that_ended_count_until_their_end_is_told_or_given_up(world) -> None:
    """As many as may be there may wait beside them."""
    subscriptions = world.server(per_client=2)

    def made(number):
        return subscriptions.create(world.wish(sink=f"https://bank.example/{number}"), BANK)

    for number in range(4):
        found = made(number)
        subscriptions.delete(found.id, "bank", BANK)
    with pytest.raises(TsmError) as refusal:
        made(4)
    assert refusal.value.code is ErrorCode.RATE_LIMITED
    worker = world.seen(Site())
    assert worker.deliver(Job(found.stream, "bank", "bank.example")) == 0
    made(4)
    with pytest.raises(TsmError) as refusal:
        made(5)
    assert refusal.value.code is ErrorCode.RATE_LIMITED


# Without grounds


def test_who_is_not_trusted_any_more_is_not_told_of_a_swap_and_its_subscription_ends_quietly(world) -> None:
    found = world.subscribe(credential=Credential(SECRET, world.now + timedelta(days=1)))
    other = world.subscribe(client="shop")
    site = Site()
    world.start(site)
    world.distrusted.add("bank")
    position = world.swap()
    eventually(lambda: world.over(found) and world.facts(other, SinkNotified))
    assert site.ids == [f"{other.id}-{position}"]
    assert world.facts(found, SwapNoted) == []
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, True)


def test_what_was_noted_for_one_who_is_not_trusted_any_more_is_not_sent(world) -> None:
    waiting, deleted = world.subscribe(), world.subscribe(sink="https://bank.example/other")
    world.swap()
    world.note()
    world.subscriptions.delete(deleted.id, "bank", BANK)
    world.distrusted.add("bank")
    site = Site()
    world.start(site)
    eventually(lambda: world.over(waiting) and world.over(deleted))
    assert site.told == []
    assert world.end_of(waiting) == (Reason.NETWORK_TERMINATED, True)
    assert {fact.acknowledged for found in (waiting, deleted) for fact in world.facts(found, SinkNotified)} == {False}


def test_when_its_time_is_over_one_who_is_not_trusted_any_more_is_not_told(world) -> None:
    found = world.subscribe(ends_at=world.now + timedelta(hours=1))
    world.distrusted.add("bank")
    world.now += timedelta(hours=2)
    site = Site()
    world.start(site)
    eventually(lambda: world.over(found))
    assert site.told == []
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, True)


@pytest.fixture
def moved(world):
    """A function that gives alice her other number."""
    world.record(signal(K.SUBSCRIBED, 0, msisdn=OTHER_NUMBER, imsi=THIRD_IMSI))
    world.map("alice")
    return lambda: world.map("alice", OTHER_NUMBER)


def test_while_the_subject_means_the_line_its_swaps_are_told(world, moved) -> None:
    found = world.subscribe_as("alice")
    site = Site()
    world.start(site)
    position = world.swap()
    eventually(lambda: world.facts(found, SinkNotified))
    assert site.ids == [f"{found.id}-{position}"]


def test_a_swap_of_a_line_that_the_subject_does_not_mean_any_more_is_not_told_but_the_end_is(world, moved) -> None:
    found = world.subscribe_as("alice", credential=Credential(SECRET, world.now + timedelta(days=1)))
    moved()
    site = Site()
    world.start(site)
    world.swap()
    eventually(lambda: world.over(found))
    assert [(notice.id, notice.reason, notice.msisdn, notice.credential) for notice in site.told] == [
        (f"{found.id}-ended", Reason.NETWORK_TERMINATED, "", SECRET)
    ]
    assert world.facts(found, SwapNoted) == []


def test_a_swap_that_was_noted_is_not_sent_when_the_subject_means_another_line_by_then(world, moved) -> None:
    found = world.subscribe_as("alice")
    world.swap()
    world.note()
    moved()
    site = Site()
    world.start(site)
    eventually(lambda: world.over(found))
    assert site.ids == [f"{found.id}-ended"]
    assert [fact.acknowledged for fact in world.facts(found, SinkNotified)] == [False, True]


def test_what_was_made_before_subjects_were_kept_goes_on(world, moved) -> None:
    found = world.subscribe(msisdn="")
    moved()
    world.swap()
    world.note()
    assert len(world.facts(found, SwapNoted)) == 1


def test_that_the_number_went_to_another_is_told_as_a_swap_to_whoever_came_with_its_holder(world, moved) -> None:
    found = world.subscribe_as("alice")
    world.record(signal(K.SUBSCRIBED, 300, msisdn=NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM))
    assert world.lines.stream_of_subject(ISSUER, "alice") is None
    world.note()
    assert len(world.facts(found, SwapNoted)) == 1
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, False)


def test_a_subject_that_is_mapped_anew_when_its_activation_is_told_late_means_the_same_line(world) -> None:
    world.record(signal(K.OBSERVED, 100, msisdn=OTHER_NUMBER, imsi=OTHER_IMSI, iccid=OTHER_SIM))
    world.map("alice", OTHER_NUMBER)
    found = world.subscribe_as("alice", number=OTHER_NUMBER)
    world.record(signal(K.SUBSCRIBED, 50, msisdn=OTHER_NUMBER))
    world.swap(THIRD_IMSI, 300, OTHER_NUMBER)
    world.note()
    world.map("alice", OTHER_NUMBER)
    world.swap(IMSI, 301, OTHER_NUMBER)
    world.note()
    assert len(world.facts(found, SwapNoted)) == 2


def test_what_a_subject_lost_ends_when_one_looks_and_what_it_has_stays(world, moved) -> None:
    lost = world.subscribe_as("alice")
    moved()
    kept = world.subscribe_as("alice", number=OTHER_NUMBER)
    world.subscriptions.end_lost(f"{ISSUER}|alice")
    assert world.end_of(lost) == (Reason.NETWORK_TERMINATED, False)
    assert [found.id for found in world.subscriptions.of_client("bank")] == [kept.id]


def test_what_a_subject_lost_is_in_nobodys_way(world, moved) -> None:
    lost = world.subscribe_as("alice")
    moved()
    world.map("bob")
    world.subscribe_as("bob")
    assert world.end_of(lost) == (Reason.NETWORK_TERMINATED, False)
    with pytest.raises(TsmError) as refusal:
        world.subscribe_as("bob")
    assert refusal.value.code is ErrorCode.ALREADY_EXISTS


def test_whose_token_made_it_is_in_no_event_and_goes_when_all_is_told(world) -> None:
    world.map("alice")
    found = world.subscribe_as("alice")
    assert world.tsm.payload(found.stream, MAKER) == f"{ISSUER}|alice".encode()
    world.subscriptions.delete(found.id, "bank", BANK)
    world.start(Site())
    eventually(lambda: world.tsm.payload(found.stream, MAKER) is None)
    assert world.over(found)
    assert b"alice" not in b"".join(row.state for row in world.recorder.select_notifications(1, 1000))


# How it is told


def test_a_sink_that_is_down_is_told_later_under_the_same_id(world) -> None:
    found = world.subscribe()
    site = Site(None, 500, 302, 404, Answer(429, 0.01))
    world.start(site)
    position = world.swap()
    eventually(lambda: world.facts(found, SinkNotified))
    assert site.ids == [f"{found.id}-{position}"] * 6
    assert len({tuple(notice) for notice in site.told}) == 1
    assert world.facts(found, SinkNotified) == [
        SinkNotified(notification=str(position), acknowledged=True, attempts=6, outcome="HTTP 204")
    ]


def test_pauses_double_up_to_the_longest_and_the_sink_may_wish_for_more(world, monkeypatch) -> None:
    monkeypatch.undo()
    found = world.subscribe()
    world.swap()
    world.note()
    site = Site(*[None] * 12, Answer(429, 30.0), Answer(429, 3000.0), Answer(429, 1e9), Answer(503, 2.0))
    worker, job = world.seen(site), Job(found.stream, "bank", "bank.example")
    pauses = [worker.deliver(job) for _ in range(16)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 3000, 3600, 900]
    assert worker.deliver(job) == 0
    assert worker.deliver(job) is None


@pytest.mark.parametrize("status", [410])
def test_a_sink_that_is_gone_ends_its_subscription_and_hears_no_more(world, status) -> None:
    found = world.subscribe(credential=Credential(SECRET, world.now + timedelta(days=9)))
    site = Site(status)
    world.start(site)
    world.swap()
    eventually(lambda: world.over(found))
    assert len(site.told) == 1
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_sink_that_does_not_take_its_credential_is_given_up_soon(world, status) -> None:
    found = world.subscribe(credential=Credential(SECRET, world.now + timedelta(days=9)))
    site = Site(status, None, status, status, 500, *[status] * 20)
    world.start(site)
    world.swap()
    eventually(lambda: world.over(found))
    assert len(site.told) == 5 + REFUSALS  # in a row: another answer proves that it was taken
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, True)


def test_after_a_day_a_sink_is_given_up(world, caplog) -> None:
    found = world.subscribe()
    world.swap()
    world.note()
    noted_at = world.now
    site = Site(*[None] * 3)
    worker, job = world.seen(site), Job(found.stream, "bank", "bank.example")
    assert worker.deliver(job) > 0
    world.now = noted_at + GIVE_UP_AFTER - timedelta(seconds=1)
    assert worker.deliver(job) > 0
    world.now = noted_at + GIVE_UP_AFTER
    with caplog.at_level(logging.ERROR):
        assert worker.deliver(job) == 0
    assert "given up after 3 attempts" in caplog.text
    assert worker.deliver(job) is None
    assert world.end_of(found) == (Reason.NETWORK_TERMINATED, True)
    assert [fact.acknowledged for fact in world.facts(found, SinkNotified)] == [False]


def test_a_credential_that_has_expired_is_not_shown(world) -> None:
    found = world.subscribe(credential=Credential(SECRET, world.now + timedelta(hours=1)))
    world.swap()
    world.note()
    world.now += timedelta(hours=1)
    site = Site()
    worker, job = world.seen(site), Job(found.stream, "bank", "bank.example")
    assert worker.deliver(job) == 0
    assert worker.deliver(job) is None
    assert site.told == []
    assert world.over(found)


def test_a_restart_finds_what_was_noted_and_what_was_not(world) -> None:
    found = world.subscribe(ends_at=world.now + timedelta(days=2))
    site = Site(*[None] * 1000)
    world.start(site)
    first = world.swap(OTHER_IMSI, 300)
    eventually(lambda: site.told)
    world.stop()
    second = world.swap(THIRD_IMSI, 301)
    site = Site()
    world.start(site)
    eventually(lambda: len(world.facts(found, SinkNotified)) == 2)
    assert site.ids == [f"{found.id}-{first}", f"{found.id}-{second}"]
    world.stop()
    world.now += timedelta(days=3)
    world.start(site)
    eventually(lambda: world.over(found))
    assert site.ids[2:] == [f"{found.id}-ended"]


def test_what_is_finished_is_not_read_again(world) -> None:
    found = world.subscribe()
    world.start(Site())
    world.swap()
    eventually(lambda: world.facts(found, SinkNotified))
    told = world.tsm.position
    world.record(signal(K.OBSERVED, 301, msisdn=NUMBER))
    eventually(lambda: all(worker._after > told for worker in world.workers))
    world.stop()
    assert {int((world.folder / name).read_text()) for name in ("watcher", "notices")} == {told + 1}


def test_what_another_server_told_is_not_told_again(world) -> None:
    found = world.subscribe()
    world.swap()
    world.note()
    site = Site()
    here, there = world.seen(site), world.seen(site)
    assert here.deliver(Job(found.stream, "bank", "bank.example")) == 0
    assert there.deliver(Job(found.stream, "bank", "bank.example")) == 0
    assert there.deliver(Job(found.stream, "bank", "bank.example")) is None
    assert len(site.told) == 1


def test_a_store_that_takes_nothing_for_a_while_loses_nothing(world, monkeypatch) -> None:
    found = world.subscribe()
    commit, faults = world.tsm.commit, [1, 2, 3]

    def sometimes(*changes, **options):
        if changes[0].stream == found.stream and faults:
            faults.pop()
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, "away")
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", sometimes)
    monkeypatch.setattr("tsm.flows.follower.PAUSE", 0.01)
    site = Site()
    world.start(site)
    world.swap()
    eventually(lambda: world.facts(found, SinkNotified))
    assert len(set(site.ids)) == 1


def test_a_slow_sink_delays_no_other_and_has_few_threads(world) -> None:
    """Nor does a relying party with many of them."""
    slow = [
        world.subscribe(client="slow", sink=f"https://slow{host}.example/{number}")
        for host in range(THREADS)
        for number in range(3)
    ]
    quick = [world.subscribe(client=f"quick-{number}") for number in range(5)]
    site = Slow("https://slow")
    world.start(site)
    world.swap()
    eventually(lambda: all(world.facts(found, SinkNotified) for found in quick))
    assert len(site.held) <= swap_notices.PER_CLIENT
    assert not any(world.facts(found, SinkNotified) for found in slow)
    site.go.set()
    eventually(lambda: all(world.facts(found, SinkNotified) for found in slow))


def test_a_slow_host_holds_two_attempts_of_all_relying_parties(world) -> None:
    slow = [world.subscribe(client=f"client-{number}", sink="https://slow.example/") for number in range(8)]
    quick = [world.subscribe(client=f"client-{number}", sink="https://quick.example/") for number in range(8)]
    site = Slow("https://slow.example")
    world.start(site)
    world.swap()
    eventually(lambda: all(world.facts(found, SinkNotified) for found in quick))
    assert len(site.held) == PER_HOST
    site.go.set()
    eventually(lambda: all(world.facts(found, SinkNotified) for found in slow))


def test_a_thread_that_becomes_free_goes_to_the_relying_party_that_has_fewest_whatever_hosts_others_have() -> None:
    order, free = [], threading.Semaphore(0)

    def deliver(job):
        order.append(job.client)
        if job.client != "quick":
            free.acquire()

    desk = Desk(deliver)
    jobs = [Job(f"{client}-{n}", client, f"{n}.{client}.example") for client in ("a", "b", "c") for n in range(20)]
    for job in jobs:
        desk.take(job)
    eventually(lambda: len(order) == THREADS)
    desk.take(Job("late", "quick", "quick.example"))
    free.release()
    eventually(lambda: len(order) > THREADS)
    free.release(len(jobs))
    eventually(lambda: not desk._jobs)
    desk.stop()
    assert order[THREADS] == "quick"


def test_threads_are_few_however_much_there_is_to_tell(world) -> None:
    """A hundred relying parties, all of them slow."""
    found = [world.subscribe(client=f"c-{n}", sink=f"https://slow{n}.example/") for n in range(100)]
    site = Slow("https://slow")
    world.start(site)
    world.swap()
    eventually(lambda: len(site.held) == THREADS)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("swap notices") == THREADS
    site.go.set()
    eventually(lambda: all(world.facts(one, SinkNotified) for one in found))


def test_a_postgresql_store_serves_as_well(vault, postgres_store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(swap_notices, "FIRST_PAUSE", 0.01)
    world = World(vault, lambda vault, clock: open_recorder(postgres_store.runtime_dsn, vault, clock), tmp_path)
    credential = Credential(SECRET, world.now + timedelta(days=1))
    found = world.subscribe(max_events=1, credential=credential)
    site = Site(None)
    world.start(site)
    position = world.swap()
    eventually(lambda: world.over(found))
    assert site.ids == [f"{found.id}-{position}"] * 2 + [f"{found.id}-ended"]
    assert world.subscriptions.of_client("bank") == []
    world.close()
