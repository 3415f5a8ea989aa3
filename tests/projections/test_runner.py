"""The runner: rows and position together, one owner, bad events parked, waiting for one's own writes."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from projections import PROJECTIONS
from projections.building import rebuild
from projections.folding import catch_up, describe, retry
from projections.projection import Projection, Rows
from projections.runner import Observer, Runner
from projections.views import POLL, Fenced, Gone, Parked, Session, Views
from tests.projections.conftest import MakeViews
from tests.projections.read_models import BAD, COUNTS, TOPICS, contents, counts, topics
from tests.projections.story import OTHER_ICCID, MemoryLog, registered, tell
from tests.projections.worker import MadeUpLog
from tsm.errors import ErrorCode, TsmError
from tsm.model import card
from tsm.model.event import Event
from tsm.store import log as store
from tsm.store.loop import run


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(TOPICS)


def test_every_event_is_folded_once_over_many_pages(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.folding.PAGE", 3)
    monkeypatch.setattr("projections.building.PAGE", 3)
    for _ in range(8):
        log.add("card-1", registered())

    assert Runner(log, views).catch_up() == 8
    log.add("card-1", registered())
    assert Runner(log, views).catch_up() == 9
    assert topics(views) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_log_that_never_stands_still_is_caught_up_with_and_rebuilt_from(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a page was read, there is something new already."""
    log, views = MadeUpLog(10), make_views(COUNTS)
    page = log.page
    pages = 0

    def growing(*asked: object, **how: object) -> store.Page:
        nonlocal pages
        found = page(*asked, **how)  # type: ignore[arg-type]
        log.position, pages = log.position + 1, pages + 1
        assert pages < 100, "it never came to an end"
        return found

    monkeypatch.setattr(log, "page", growing)
    assert Runner(log, views).catch_up() >= 10
    rebuild(log, views, COUNTS)

    assert [(g.generation, g.state) for g in views.generations()] == [(2, "serving")]
    assert sum(counts(views).values()) == views.position


def test_only_the_topics_that_a_read_model_names_are_read_for_it(log: MemoryLog, make_views: MakeViews) -> None:
    views = make_views(replace(TOPICS, topics=(card.ApplicationPersonalized.topic,)))
    tell(log)

    assert Runner(log, views).catch_up() == log.position
    assert len(topics(views)) == 1


# Bad events


def test_a_bad_event_is_parked_with_its_error_and_what_does_not_depend_on_it_goes_on(
    log: MemoryLog, views: Views
) -> None:
    for stream, fact in (("1", registered()), ("1", BAD), ("2", registered()), ("1", registered()), ("1", BAD)):
        log.add(f"card-{stream}", fact)

    assert Runner(log, views).catch_up() == 5
    log.add("card-1", registered())
    log.add("card-2", registered())
    assert Runner(log, views).catch_up() == 7

    assert topics(views) == [1, 3, 7]
    first, *others = views.parked(TOPICS)
    assert (first.position, first.topic, first.stream) == (2, "card.command_refused", "card-1")
    assert first.error.startswith("ValueError at read_models.py:")
    assert "data of the event" not in first.error
    assert [(p.position, p.error) for p in others] == [(n, "held back by position 2") for n in (4, 5, 6)]
    assert [g.parked for g in views.generations()] == [4]


def test_a_read_model_may_say_what_depends_on_what(log: MemoryLog, make_views: MakeViews) -> None:
    views = make_views(replace(TOPICS, key=lambda event: "all"))
    for stream, fact in (("1", registered()), ("1", BAD), ("2", registered())):
        log.add(f"card-{stream}", fact)
    Runner(log, views).catch_up()

    assert [(p.position, p.key) for p in views.parked(TOPICS)] == [(2, "all"), (3, "all")]


@pytest.mark.parametrize("bad", [1, 3, 5])
def test_an_event_that_does_not_decode_is_parked_at_its_position(log: MemoryLog, views: Views, bad: int) -> None:
    for number in range(1, 6):
        log.add(f"card-{number}", registered())
    log.unreadable = {bad}

    assert Runner(log, views).catch_up() == 5

    assert topics(views) == [position for position in range(1, 6) if position != bad]
    assert [(p.position, p.topic, p.error) for p in views.parked(TOPICS)] == [(bad, "card.registered", "STORE_CORRUPT")]


def test_a_retry_folds_again_in_order_what_can_be_folded_now(log: MemoryLog, make_views: MakeViews) -> None:
    order: list[int] = []
    faulty = {2}

    def fold(rows: Rows, events: Sequence[Event]) -> None:
        if faulty & {event.position for event in events}:
            raise KeyError("not yet")
        order.extend(event.position for event in events)
        rows.insert("topic", [(event.position, event.fact.topic) for event in events])

    model = replace(TOPICS, fold=fold)
    views = make_views(model)
    for stream in ("1", "1", "1", "2", "1"):
        log.add(f"card-{stream}", registered())
    Runner(log, views).catch_up()
    assert (topics(views), retry(log, views, model)) == ([1, 4], 0)
    order.clear()
    faulty = {5}

    assert retry(log, views, model, 2) == 2
    assert (order, topics(views)) == ([2, 3], [1, 2, 3, 4])
    assert [(p.position, p.error.partition(" ")[0]) for p in views.parked(model)] == [(5, "KeyError")]
    faulty = set()
    assert retry(log, views, model) == 1
    assert (topics(views), views.parked(model), [g.parked for g in views.generations()]) == ([1, 2, 3, 4, 5], [], [0])


def test_what_a_retry_of_one_event_costs_does_not_grow_with_what_is_parked(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = make_views(TOPICS)
    for _ in range(20):
        log.add("card-1", registered())
    log.unreadable = {1}
    Runner(log, views).catch_up()
    log.unreadable = set()
    lists: list[int] = []
    parked = views.parked

    def counted(projection: Projection, limit: int | None = None) -> list[Parked]:
        found = parked(projection, limit)
        lists.append(len(found))
        return found

    monkeypatch.setattr(views, "parked", counted)
    assert retry(log, views, TOPICS) == 20
    assert lists == [20]


def test_a_retry_of_what_was_not_parked_is_refused(log: MemoryLog, views: Views) -> None:
    log.add("card-1", registered())
    Runner(log, views).catch_up()
    with pytest.raises(TsmError) as refused:
        retry(log, views, TOPICS, 1)
    assert refused.value.code is ErrorCode.NOT_FOUND


def test_two_retries_at_once_fold_each_event_once(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, elsewhere = make_views(COUNTS), make_views(COUNTS)
    for _ in range(3):
        log.add("card-1", registered())
    log.unreadable = {1}
    Runner(log, views).catch_up()
    log.unreadable = set()
    page, others = log.page, iter([True])

    def while_another_does(*asked: object, **how: object) -> store.Page:
        found = page(*asked, **how)  # type: ignore[arg-type]
        if next(others, False):
            assert retry(log, elsewhere, COUNTS) == 3
        return found

    monkeypatch.setattr(log, "page", while_another_does)
    retry(log, views, COUNTS)

    assert (counts(views), views.parked(COUNTS)) == ({"card-1": 3}, [])
    assert [g.parked for g in views.generations()] == [0]


def test_a_retry_while_a_rebuild_lacks_the_same_event_folds_it_where_it_is_read(log: MemoryLog, views: Views) -> None:
    for _ in range(3):
        log.add("card-1", registered())
    log.unreadable = {2}
    Runner(log, views).catch_up()
    new = views.begin(TOPICS)
    assert new is not None
    with new:
        catch_up(log, new)
    log.unreadable = set()

    assert retry(log, views, TOPICS) == 2
    assert topics(views) == [1, 2, 3]
    assert [(g.state, g.parked) for g in views.generations()] == [("serving", 0), ("building", 2)]


def test_a_retried_event_that_does_not_decode_stays_parked(log: MemoryLog, views: Views) -> None:
    log.add("card-1", registered())
    log.unreadable = {1}
    Runner(log, views).catch_up()

    assert retry(log, views, TOPICS) == 0
    log.unreadable = set()
    assert retry(log, views, TOPICS) == 1
    assert topics(views) == [1]


@pytest.mark.parametrize(
    "fault", [TsmError(ErrorCode.STORE_UNAVAILABLE, "database or disk is full"), Gone(), OSError(28), MemoryError()]
)
def test_a_fault_of_the_machine_parks_nothing_and_leaves_the_position(
    log: MemoryLog, make_views: MakeViews, fault: Exception
) -> None:
    full = False

    def fold(rows: Rows, events: Sequence[Event]) -> None:
        rows.insert("topic", [(event.position, "half") for event in events])
        if full:
            raise fault

    model = replace(TOPICS, fold=fold)
    views = make_views(model)
    Runner(log, views).catch_up()
    log.add("card-1", registered())
    full = True
    with pytest.raises(type(fault)):
        Runner(log, views).catch_up()

    assert (views.position, topics(views), views.parked(model)) == (0, [], [])


def test_an_error_without_a_place_is_still_described() -> None:
    assert describe(TsmError(ErrorCode.STORE_CORRUPT, "with a detail")) == "STORE_CORRUPT"


# One owner


def test_two_runners_fold_each_event_once(log: MemoryLog, make_views: MakeViews) -> None:
    for number in range(300):
        log.add(f"card-{number % 7}", registered())
    both = [make_views(TOPICS, COUNTS), make_views(TOPICS, COUNTS)]
    runners = [Runner(log, views) for views in both]
    for runner in runners:
        runner.start()
    for number in range(50):
        log.add(f"card-{number % 7}", registered())
    assert all(views.wait_for(350, timeout=10) for views in both)
    for runner in runners:
        runner.stop()

    assert topics(both[0]) == list(range(1, 351))
    assert sum(counts(both[1]).values()) == 350


def test_who_stands_by_keeps_up_with_the_owner_and_takes_over_when_it_ends(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.STAND_BY", 0.01)
    monkeypatch.setattr("projections.runner.IDLE", 0.01)
    log.add("card-1", registered())
    first, second = make_views(TOPICS), make_views(TOPICS)
    Runner(log, first).catch_up()
    owner = first.own(TOPICS, 1)
    assert owner is not None
    runner = Runner(log, second)
    runner.start()
    try:
        log.add("card-1", registered())
        assert not second.wait_for(2, timeout=0.2)
        owner.release()
        assert second.wait_for(2, timeout=5)
    finally:
        runner.stop()


def test_who_stands_by_says_whether_the_owner_keeps_up(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.STAND_BY", 0.01)
    monkeypatch.setattr("projections.runner.LATE", 0.2)
    log.add("card-1", registered())
    first, second = make_views(TOPICS), make_views(TOPICS)
    Runner(log, first).catch_up()
    owner = first.own(TOPICS, 1)
    assert owner is not None
    runner = Runner(log, second)
    runner.start()
    try:
        log.add("card-1", registered())
        eventually(lambda: not runner.keeping_up())
        catch_up(log, owner)
        time.sleep(0.4)
        assert runner.keeping_up()
    finally:
        owner.release()
        runner.stop()


def test_who_owns_no_more_changes_nothing(log: MemoryLog, views: Views) -> None:
    """Whatever a stale owner has read, its page does not follow on the position."""
    for _ in range(3):
        log.add("card-1", registered())
    Runner(log, views).catch_up()
    owner = views.own(TOPICS, 1)
    assert owner is not None
    with owner, pytest.raises(Fenced), owner.advance(2, 3) as page:
        page.insert("topic", [(99, "twice")])

    assert (topics(views), views.position) == ([1, 2, 3], 3)


def test_who_owns_what_serves_no_more_changes_nothing(log: MemoryLog, views: Views) -> None:
    """As a process that was stopped during a rebuild, and goes on afterwards."""
    log.add("card-1", registered())
    Runner(log, views).catch_up()
    owner = views.own(TOPICS, 1)
    assert owner is not None
    new = views.begin(TOPICS)
    assert new is not None
    with new:
        catch_up(log, new)
        assert views.switch(new, lambda: log.position)
    log.add("card-1", registered())
    with owner, pytest.raises(Fenced), owner.advance(1, 2) as page:
        page.insert("topic", [(2, "by the old one")])
    Runner(log, views).catch_up()

    assert topics(views) == [1, 2]


def test_a_build_does_not_serve_before_it_has_read_as_far_as_the_rows_that_it_replaces(
    log: MemoryLog, views: Views
) -> None:
    for _ in range(3):
        log.add("card-1", registered())
    Runner(log, views).catch_up()
    new = views.begin(TOPICS)
    assert new is not None
    with new:
        with new.advance(0, 2):
            pass
        assert not views.switch(new, lambda: log.position)
        assert [(g.generation, g.state) for g in views.generations()] == [(1, "serving"), (2, "building")]
        with new.advance(2, 3):
            pass
        assert views.switch(new, lambda: log.position)
    assert [(g.generation, g.state) for g in views.generations()] == [(1, "retired"), (2, "serving")]


# Read your writes


def test_a_reader_waits_for_its_own_write(log: MemoryLog, views: Views) -> None:
    runner = Runner(log, views)
    runner.start()
    try:
        assert not views.wait_for(1, timeout=0.05)
        log.add("card-1", registered())
        assert views.wait_for(1, timeout=5)
    finally:
        runner.stop()


def test_events_are_gathered_for_one_transaction_until_somebody_waits_for_them(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, gathering = threading.Event(), threading.Event()
    folded: list[int] = []

    def wait(after: int, timeout: float) -> bool:
        idle.set()
        time.sleep(0.001)
        return log.position > after

    def gather(_: float) -> None:
        gathering.set()
        at_leisure(60)

    views = make_views(replace(TOPICS, fold=lambda rows, events: folded.append(len(events))))
    at_leisure = views.gather
    monkeypatch.setattr(log, "wait", wait)
    monkeypatch.setattr(views, "gather", gather)
    runner = Runner(log, views)
    runner.start()
    try:
        assert idle.wait(5)
        log.add("card-1", registered())
        assert gathering.wait(5)
        for _ in range(9):
            log.add("card-1", registered())
        assert views.wait_for(10, timeout=5)
    finally:
        runner.stop()
    assert folded == [10]


def test_a_reader_on_the_event_loop_does_not_hold_it_up(log: MemoryLog, views: Views, make_views: MakeViews) -> None:
    """Nor does it need the runner in its own process."""
    elsewhere = make_views(TOPICS)

    async def waits() -> tuple[bool, bool, int]:
        waiting = asyncio.ensure_future(run(elsewhere.wait_for, 1, 5))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0.001)
            if turns == 5:
                log.add("card-1", registered())
                Runner(log, views).catch_up()
        return await waiting, await run(elsewhere.wait_for, 2, 0.05), turns

    reached, not_reached, turns = asyncio.run(waits())
    assert (reached, not_reached) == (True, False)
    assert turns > 5


def test_nobody_looks_any_more_for_those_who_gave_up_waiting(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = views.look

    def counted(work: Callable[[Session], Any]) -> Any:
        looks.append("a look")
        return look(work)

    monkeypatch.setattr(views, "look", counted)
    assert not views.wait_for(1, timeout=0.05)

    def is_quiet() -> bool:
        before = len(looks)
        time.sleep(20 * POLL)
        return len(looks) == before

    eventually(is_quiet)


def test_whoever_waits_is_told_even_after_a_look_that_failed_oddly(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.add("card-1", registered())
    failed = threading.Event()
    look = views.look

    def once(work: Callable[[Session], Any]) -> Any:
        if threading.current_thread().name == "views-watch" and not failed.is_set():
            failed.set()
            raise Gone
        return look(work)

    monkeypatch.setattr(views, "look", once)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(views.wait_for, 1, 5)
        assert failed.wait(5)
        Runner(log, views).catch_up()
        assert waiting.result()


def test_the_thread_outlives_a_fault_and_says_so(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("projections.runner.RETRY", 0.01)
    log.add("card-1", registered())
    faults = iter([TsmError(ErrorCode.STORE_UNAVAILABLE, "disk full"), RuntimeError("odd")])
    page = log.page

    def sometimes(*asked: object, **how: object) -> store.Page:
        for fault in faults:
            raise fault
        return page(*asked, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "page", sometimes)
    runner = Runner(log, views)
    runner.start()
    try:
        assert views.wait_for(1, timeout=5)
    finally:
        runner.stop()
    assert "topics could not be brought up to date" in caplog.text


def test_a_runner_that_cannot_catch_up_says_so_until_it_can(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **how: object) -> store.Page:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "disk full")

    monkeypatch.setattr("projections.runner.RETRY", 0.01)
    monkeypatch.setattr("projections.runner.IDLE", 0.01)
    monkeypatch.setattr("projections.runner.LATE", 0.2)
    runner = Runner(log, views)
    assert not runner.keeping_up()
    runner.start()
    try:
        eventually(runner.keeping_up)
        with monkeypatch.context() as disk:
            disk.setattr(log, "page", broken)
            eventually(lambda: not runner.keeping_up())
        eventually(runner.keeping_up)
    finally:
        runner.stop()
    assert not runner.keeping_up()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


# Generations


def test_before_the_first_build_is_done_a_reader_is_told_to_come_back(views: Views) -> None:
    with pytest.raises(TsmError) as refused:
        topics(views)
    assert refused.value.code is ErrorCode.READ_MODEL_BEHIND


def test_rows_come_back_the_same_whatever_the_pages(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(log)
    found = []
    for page in (2000, 1):
        monkeypatch.setattr("projections.folding.PAGE", page)
        monkeypatch.setattr("projections.building.PAGE", page)
        views = make_views(*PROJECTIONS, anew=True)
        Runner(log, views).catch_up()
        found.append(contents(views))
        assert [views.parked(projection) for projection in PROJECTIONS] == [[]] * len(PROJECTIONS)

    assert found[0] == found[1]


def test_rows_of_a_longer_log_are_rebuilt(log: MemoryLog, views: Views) -> None:
    for _ in range(5):
        log.add("card-1", registered())
    Runner(log, views).catch_up()

    restored = MemoryLog()
    restored.add("card-1", registered())
    assert Runner(restored, views).catch_up() == 1
    assert topics(views) == [1]


def test_a_log_that_is_put_back_while_it_is_followed_is_read_anew(
    make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.IDLE", 0.01)
    log, views = MadeUpLog(10), make_views(COUNTS)
    runner = Runner(log, views)
    runner.start()
    try:
        assert views.wait_for(10, timeout=5)
        log.position = 4
        eventually(lambda: views.position == 4)
    finally:
        runner.stop()
    assert sum(counts(views).values()) == 4


def test_a_rebuild_takes_a_transaction_for_a_page_not_for_an_event(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5000):
        log.add(f"card-{number}", registered(OTHER_ICCID))
    views = make_views(*PROJECTIONS)
    folded: list[int] = []

    def counted(projection: Projection) -> Projection:
        def fold(rows: Rows, events: Sequence[Event]) -> None:
            folded.append(len(events))
            projection.fold(rows, events)

        return replace(projection, fold=fold)

    views.projections = tuple(counted(projection) for projection in PROJECTIONS)
    Runner(log, views).catch_up()
    reads_cards = [not one.topics or card.CardRegistered.topic in one.topics for one in PROJECTIONS]
    assert folded == [5000 if reads else 0 for reads in reads_cards]


def test_nobody_waits_for_ever_when_the_views_are_closed(views: Views) -> None:
    waiting = threading.Thread(target=views.wait_for, args=(1, 0.2))
    waiting.start()
    waiting.join(5)
    assert not waiting.is_alive()


def test_whoever_lets_others_fold_sees_whether_they_do(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.LATE", 0.2)
    views = make_views(TOPICS)
    watch = Observer(log, views)
    watch.start()
    Runner(log, views).catch_up()
    assert watch.keeping_up()
    log.add("card-1", registered())
    assert watch.keeping_up()  # nobody can be late yet
    eventually(lambda: not watch.keeping_up())
    Runner(log, views).catch_up()
    assert watch.keeping_up()
    watch.stop()


def test_who_cannot_look_whether_others_fold_says_so_after_a_while(
    log: MemoryLog, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.LATE", 0.2)
    views = make_views(TOPICS)
    watch = Observer(log, views)
    watch.start()
    Runner(log, views).catch_up()

    def away() -> dict[str, int]:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the database is away")

    with monkeypatch.context() as for_now:
        for_now.setattr(views, "positions", away)
        assert watch.keeping_up()
        eventually(lambda: not watch.keeping_up())
    assert watch.keeping_up()
