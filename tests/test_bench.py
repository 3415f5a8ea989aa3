"""The bench measures what it says. How fast it is, `make bench` tells: no test depends on that."""

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, islice, pairwise
from os import urandom
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg
import pytest
from eventsourcing.persistence import ApplicationRecorder, StoredEvent
from msgspec import structs
from rich.progress import Progress

from api.bench import graphql, large, lines, mas, order, projections, raw, refusals, sites, store, swap
from api.bench.history import Filler, History
from api.bench.open_loop import percentile
from api.bench.postgres import Database, PostgresServer
from api.bench.report import adds, faster
from api.bench.stock import StockSessions, open_log
from api.bootstrap import STORE
from projections.line_swaps import line_swaps
from projections.opening import open_views
from projections.projection import Projection
from tsm.application import Tsm
from tsm.errors import TsmError
from tsm.flows.known_signals import TENURE
from tsm.flows.lines import Lines
from tsm.keys.vault import SoftwareVault
from tsm.model import access_code, card, credential, delegation, deployment, session
from tsm.model.event import Event
from tsm.model.line import SignalRecorded
from tsm.model.topics import FACTS
from tsm.store.mapper import JsonMapper
from tsm.store.memory import MemoryRecorder
from tsm.store.migrations import migrate_sqlite
from tsm.store.recorder import RecordedEvent, Recorder

# --- MAS ---


def test_the_comparison_runs_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mas, "ROUNDS", 1)
    monkeypatch.setattr(mas, "MESSAGES", 20)
    ours, bare = mas.scp03()
    assert ours > 0 and bare > 0


def test_a_credential_is_issued_and_each_part_of_its_cost_is_seen(tmp_path: Path) -> None:
    """Two sessions of the operator and two of the provider; the server's own commands stand beside the delegated."""
    credential = mas.measure_credential(tmp_path / "world")
    for cost in (credential.operator, credential.provider):
        assert cost.exchanges > 2 * 5
        assert 0 < cost.handler_ms < cost.elapsed_ms
    assert credential.provider.notification_ms > 0
    assert credential.handshake_ms > 0 and credential.projection_us > 0
    assert credential.events > 200


# --- Histories ---


def filled(folder: Path, seed: int, number: int) -> tuple[SoftwareVault, list[RecordedEvent]]:
    """A recorded history, and the vault that sealed it."""
    folder.mkdir(exist_ok=True)
    vault = SoftwareVault.create(folder / "vault", folder / "test.kek", Random(7).randbytes)  # noqa: S311
    recorder = MemoryRecorder(vault)
    with Progress(disable=True) as progress:
        Filler(recorder, vault, History(seed).events()).fill(number, progress)
    return vault, list(recorder.select_notifications(1, number))


def test_one_seed_tells_one_history(tmp_path: Path) -> None:
    (_, one), (_, same), (_, other) = (
        filled(tmp_path / name, seed, 3000) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [event.state for event in one] == [event.state for event in same]
    assert [event.state for event in one] != [event.state for event in other]


def test_every_event_of_a_history_decodes_in_its_place(tmp_path: Path) -> None:
    vault, recorded = filled(tmp_path, 1, 5000)
    decoded = [JsonMapper(FACTS, vault).to_domain_event(event) for event in recorded]
    assert decoded == [
        Event(
            originator_id=event.originator_id,
            originator_version=event.originator_version,
            occurred_at=event.occurred_at,
            context=event.context,
            fact=event.fact,
            position=recorded[place].id,
            recorded_at=recorded[place].recorded_at,
        )
        for place, event in enumerate(islice(History(1).events(), 5000))
    ]


def test_a_story_ends_with_an_active_credential_in_a_card_that_holds_its_application() -> None:
    """Every aggregate folds its events, and says what the demo's would say."""
    states: dict[str, object] = {}
    evolves = {
        "card": card.evolve,
        "credential": credential.evolve,
        "delegation": delegation.evolve,
        "deployment": deployment.evolve,
        "session": session.evolve,
        "access": access_code.evolve,
    }
    for event in chain.from_iterable(History(1).story(3)):
        evolve = evolves[event.originator_id.partition("-")[0]]
        states[event.originator_id] = evolve(states.get(event.originator_id), event.fact)  # type: ignore[operator]
    kinds = Counter(type(state).__name__ for state in states.values())
    assert kinds == {"Card": 1, "Credential": 1, "Delegation": 4, "Deployment": 2, "Session": 4, "AccessCode": 1}
    for state in states.values():
        match state:
            case card.Card():
                assert [a.life_cycle for a in state.applications.values()] == ["PERSONALIZED"]
            case credential.Credential():
                assert state.stage is credential.Stage.ACTIVE
            case delegation.Delegation():
                assert len(state.acknowledged) == len(state.accepted.commands)
            case session.Session():
                assert state.over and state.failed is None


def test_a_history_has_the_proportions_of_the_log_that_a_credential_leaves() -> None:
    topics = Counter(event.fact.topic for event in chain.from_iterable(History(1).story(3)))
    assert sum(topics.values()) == 210
    assert topics["session.command_sent"] == topics["session.response_received"] == 56
    assert topics["delegation.result_notified"] == 44


# --- The store, side by side ---


Stored = list[tuple[str, int, str, bytes]]


@pytest.fixture
def few_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CALLERS", 4)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[SoftwareVault]:
    vault = SoftwareVault.create(tmp_path / "vault", tmp_path / "test.kek")
    yield vault
    vault.close()


def stored_by(recorder: ApplicationRecorder) -> Stored:
    return [raw.row_of(event) for event in recorder.select_notifications(1, 100_000)]


def assert_same(mapper: JsonMapper, one: Stored, other: Stored) -> None:
    """The same events in the same streams, and as many bytes: those of a sealed field are drawn each time."""
    for mine, theirs in zip(sorted(one), sorted(other), strict=True):
        assert mine[:3] == theirs[:3] and len(mine[3]) == len(theirs[3])
        assert mapper.to_domain_event(StoredEvent(*mine)) == mapper.to_domain_event(StoredEvent(*theirs))


@pytest.mark.usefixtures("few_callers")
def test_all_sides_on_postgresql_record_the_same_events(
    postgres: PostgresServer, postgres_store: Database, vault: SoftwareVault
) -> None:
    other = postgres.fresh_database().owner_dsn
    with ExitStack() as stack:
        ours = stack.enter_context(store.engine(postgres_store.runtime_dsn, vault))
        stock = stack.enter_context(open_log(other, ours.mapper))
        connection = stack.enter_context(psycopg.connect(other, autocommit=True))
        sides = [store.our_log(ours), store.TheirLog(stock)]
        for kind in (raw.PostgresThreads, raw.PostgresProcesses):
            connection.execute(raw.POSTGRES_TABLE.format(name=kind.__name__).encode())
            side = stack.enter_context(closing(kind(other, kind.__name__)))
            sides.append(store.RawLog(ours.mapper, side.insert, raw.CONNECTIONS))
        for side in sides:
            assert side.append(6) > 0
        mine = stored_by(ours.recorder)
        assert len(mine) > 4 * 6
        assert_same(ours.mapper, mine, stored_by(stock.recorder))
        for kind in (raw.PostgresThreads, raw.PostgresProcesses):
            query = f"SELECT originator_id, originator_version, topic, state FROM {kind.__name__}"  # noqa: S608
            assert_same(ours.mapper, mine, connection.execute(query.encode()).fetchall())


@pytest.mark.usefixtures("few_callers")
def test_both_sides_on_sqlite_record_the_same_events(tmp_path: Path, vault: SoftwareVault) -> None:
    migrate_sqlite(tmp_path / "log.sqlite")
    with (
        store.engine(tmp_path / "log.sqlite", vault) as ours,
        closing(raw.SQLiteLoop(tmp_path / "raw.sqlite")) as bare,
    ):
        sides = store.our_log(ours), store.RawLog(ours.mapper, lambda shares: bare.insert(shares[0]), 1)
        assert all(side.append(6) > 0 for side in sides)
        assert_same(ours.mapper, stored_by(ours.recorder), bare.rows())


@pytest.mark.usefixtures("few_callers")
def test_both_sides_carry_out_the_same_commands(
    postgres: PostgresServer, postgres_store: Database, vault: SoftwareVault
) -> None:
    """One event more in each stream for each command, and much the same bytes."""
    other = postgres.fresh_database().owner_dsn
    with (
        store.engine(postgres_store.runtime_dsn, vault) as ours,
        StockSessions(other) as sessions,
    ):
        mine, theirs = store.our_commands(ours, 2), store.TheirCommands(sessions, 2)
        assert min(mine.many(kept=True), mine.one(kept=False), theirs.many(), theirs.one()) > 0
        stored = [ours.recorder.select_notifications(1, 1000), sessions.recorder.select_notifications(1, 1000)]
        lengths = [Counter(str(event.originator_id) for event in side).values() for side in stored]
        assert list(lengths[0]) == list(lengths[1]) == [store.STREAM_LENGTH + 2] * 8
        octets = [sum(len(event.state) for event in side) for side in stored]
        assert 0.85 < octets[0] / octets[1] < 1.15


def test_a_committer_and_a_recorder_alone_record_one_after_the_other(tmp_path: Path, vault: SoftwareVault) -> None:
    migrate_sqlite(tmp_path / "log.sqlite")
    with store.engine(tmp_path / "log.sqlite", vault) as ours:
        assert min(store.committer_and_direct(ours.recorder, ours.mapper, 10)) > 0
        assert ours.recorder.max_notification_id() == 20


# --- Read models ---


def rows_of(connection: psycopg.Connection, projection: Projection, place: str) -> list[list[tuple[object, ...]]]:
    """Of all its tables; `place` is what their names begin with."""
    found = []
    for table in projection.tables:
        query = f"SELECT * FROM {place}_{table.name} ORDER BY {table.key}"  # noqa: S608
        found.append(connection.execute(query.encode()).fetchall())
    return found


@pytest.mark.parametrize("projection", projections.MEASURED, ids=lambda projection: projection.name)
def test_a_rebuild_and_the_librarys_runner_make_the_same_rows(
    postgres: PostgresServer, postgres_store: Database, vault: SoftwareVault, projection: Projection
) -> None:
    """All but the times: the library does not keep when an event was recorded."""
    with Progress(disable=True) as progress:
        projections.fill(postgres_store.runtime_dsn, vault, 700, progress)
    other = postgres.fresh_database().owner_dsn
    assert projections.Runner(other, vault, projection, 700).run() > 0
    with (
        store.engine(postgres_store.runtime_dsn, vault) as ours,
        closing(open_views(postgres_store.runtime_dsn, Path(), projections.MEASURED)) as views,
    ):
        assert projections.rebuilt(ours.tsm, views, projection) > 0
        assert projections.raw_read(postgres_store.owner_dsn) > 0
        assert views.parked(projection) == []
    with psycopg.connect(postgres_store.runtime_dsn) as mine, psycopg.connect(other) as theirs:
        made = rows_of(mine, projection, f"tsm_views.{projection.name}_1")
        wanted = rows_of(theirs, projection, f"stock_{projection.name}_0")
    assert sum(map(len, made)) > 60
    time = re.compile(r'"20[^"]*Z"')
    assert [time.sub("", str(rows)) for rows in made] == [time.sub("", str(rows)) for rows in wanted]


@pytest.mark.parametrize("projection", projections.MEASURED, ids=lambda projection: projection.name)
def test_a_rebuild_and_one_event_at_a_time_make_the_same_rows(
    tmp_path: Path, vault: SoftwareVault, projection: Projection
) -> None:
    migrate_sqlite(tmp_path / "log.sqlite")
    with Progress(disable=True) as progress:
        projections.fill(tmp_path / "log.sqlite", vault, 700, progress)
    with (
        store.engine(tmp_path / "log.sqlite", vault) as ours,
        closing(open_views(tmp_path / "log.sqlite", tmp_path / "views.sqlite", projections.MEASURED)) as views,
    ):
        assert projections.rebuilt(ours.tsm, views, projection) > 0
        assert projections.one_by_one(ours.tsm, views, projection, 700) > 0
        for table in projection.tables:
            place = f"{projection.name}_{{}}_{table.name} ORDER BY {table.key}"
            queries = [f"SELECT * FROM {place.format(generation)}" for generation in (1, 2)]  # noqa: S608
            whole, single = views.look(lambda session, queries=queries: [session.execute(query) for query in queries])
            assert whole == single and whole


# --- Pages of the admin API ---


@pytest.mark.usefixtures("soon_at_rest")
def test_pages_are_asked_of_both_sides_on_each_engine_at_each_size(tmp_path: Path) -> None:
    """That the rows are the same is looked at by the bench itself."""
    with Progress(disable=True) as progress:
        measured = graphql.measured(tmp_path, 1, graphql.Sizes((12_000, 13_000), 0.2), progress)
    assert list(measured) == [sites.SQLITE, sites.POSTGRES]
    for first, last in measured.values():
        assert all(cost.rate > 0 and cost.cpu_ms > 0 for cost in (*first, *last))
        [line, told] = graphql.lines("An engine", last)
        assert line.met is (last.events.rate >= 0.5 * last.bare.rate) and told.met is None


def test_a_site_that_grows_in_steps_tells_the_history_as_one_that_grew_at_once(tmp_path: Path) -> None:
    for name, steps in (("steps", (0, 300, 500)), ("once", (0, 500))):
        graphql.new_site(tmp_path / name, STORE)
        for drawn, events in pairwise(steps):
            graphql.grow(tmp_path / name, events, drawn)
    with ExitStack() as stack:
        steps, once = (sites.OpenSite(tmp_path / name, stack).tsm.read(0, 1000) for name in ("steps", "once"))
        told = [[(event.originator_id, event.originator_version, event.fact) for event in log] for log in (steps, once)]
    assert len(told[0]) == 500 and told[0] == told[1]


def test_what_a_site_dies_of_in_its_own_process_is_seen(tmp_path: Path) -> None:
    with Progress(disable=True) as progress, pytest.raises(TsmError):
        sites.at_once(progress, "events", {"nothing": partial(graphql.grow, tmp_path / "nothing", 1, 0)})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[graphql.Site]:
    data = tmp_path_factory.mktemp("pages") / "data"
    graphql.new_site(data, STORE)
    graphql.grow(data, 12_000, 0)
    with ExitStack() as stack:
        yield graphql.Site(data, stack)


def test_each_page_with_personal_data_is_recorded(site: graphql.Site) -> None:
    with sites.serving(site.data, "serve-graphql") as server:
        answer = graphql.answer_to(server.url, site.token, graphql.graphql(graphql.PERSONAL, 0))
        assert "errors" not in answer
        credentials = [edge["node"] for edge in answer["data"]["credentials"]["edges"]]
        assert len(credentials) == 50 and all(found["personalData"]["applicant"] for found in credentials)
    assert [event.topic for event in site.tsm.read(12_000, 10)] == ["reading.data_accessed"]


def test_an_answer_that_is_none_ends_the_bench(site: graphql.Site) -> None:
    with sites.serving(site.data, "serve-graphql") as server:
        side = graphql.Side(server, "no token of ours", [graphql.bare_question(0)], 0.1)
        with pytest.raises(RuntimeError, match="401"):
            side.answers()


def test_other_rows_end_the_bench(site: graphql.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with sites.serving(site.data, "serve-graphql") as server:
        graphql.refuse_other_rows(server.url, site.token, [0, 7000])
        monkeypatch.setattr(graphql, "bare_question", lambda after: graphql.Question("GET", f"/bare?after={after + 1}"))
        with pytest.raises(RuntimeError, match="after 7000"):
            graphql.refuse_other_rows(server.url, site.token, [7000])


# --- Large logs ---


@pytest.mark.usefixtures("few_callers")
def test_a_growing_log_has_each_size_and_answers_at_each(tmp_path: Path, vault: SoftwareVault) -> None:
    with Progress(disable=True) as progress:
        figures = large.on_sqlite(tmp_path, vault, (1500, 3000), progress)
    assert len(figures) == 2 and all(min(of_size) > 0 for of_size in figures)


def test_without_room_on_the_disk_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(TsmError, match="GB are needed"):
        large.refuse_without_room(tmp_path, 10**18)


# --- Order ---


@pytest.mark.parametrize("design", order.DESIGNS, ids=lambda design: design.name)
def test_each_way_to_an_order_gives_every_event_of_every_process_its_position(
    postgres: PostgresServer, design: order.Design
) -> None:
    """`measure` looks for gaps itself."""
    outcome = order.measure(postgres, design, processes=2, each=3)
    assert outcome.rate > 0 and 0 < outcome.median_ms < outcome.late_ms


def test_a_gap_is_found(postgres_store: Database) -> None:
    with pytest.raises(RuntimeError, match="5 events"):
        order.refuse_gaps(postgres_store.owner_dsn, order.DESIGNS[0], 5)


def test_a_goal_is_met_or_missed() -> None:
    assert faster("a", 30.0, "b", 10.0, 3.0).met and not faster("a", 29.0, "b", 10.0, 3.0).met
    assert adds("a", 1.1, "b", 1.0, 0.2).met and not adds("a", 1.3, "b", 1.0, 0.2).met


# --- Refusals ---


@pytest.mark.parametrize("attack", refusals.ATTACKS.values(), ids=refusals.ATTACKS.keys())
def test_every_attack_is_refused_before_it_is_validated(
    attack: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.graphql.documents.validate", lambda *_, **__: pytest.fail("it was validated"))
    refusals.refuse(attack(), 0)


# --- Lines, and what is signalled about them ---


class Filled(NamedTuple):
    """A log of lines."""

    tsm: Tsm
    recorder: Recorder
    mapper: JsonMapper
    vault: SoftwareVault

    def events(self) -> list[Event]:
        return [self.mapper.to_domain_event(recorded) for recorded in self.recorder.select_notifications(1, 100)]


@pytest.fixture
def filled_lines(tmp_path: Path, vault: SoftwareVault) -> Iterator[Filled]:
    migrate_sqlite(tmp_path / "lines.sqlite")
    with store.engine(tmp_path / "lines.sqlite", vault) as ours:
        yield Filled(ours.tsm, ours.recorder, ours.mapper, vault)


def test_a_line_in_bulk_is_what_its_signal_would_have_become(
    filled_lines: Filled, tmp_path: Path, vault: SoftwareVault
) -> None:
    """All but the ids that are drawn."""
    with Progress(disable=True) as progress:
        lines.LineFiller(filled_lines.recorder, vault, [7]).fill(1, progress)
    migrate_sqlite(tmp_path / "told.sqlite")
    with store.engine(tmp_path / "told.sqlite", vault) as ours:
        [outcome] = Lines(ours.tsm, vault, ours.tsm.now, urandom).record([lines.signal_of(7)], lines.FEED)
        assert outcome.error is None
        told = Filled(ours.tsm, ours.recorder, ours.mapper, vault)
        [mine], [theirs] = filled_lines.events(), told.events()
        assert isinstance(mine.fact, SignalRecorded) and isinstance(theirs.fact, SignalRecorded)
        assert structs.replace(mine.fact, subject="") == structs.replace(theirs.fact, subject="")
        assert (mine.occurred_at, mine.context) == (theirs.occurred_at, theirs.context)
        assert mine.fact.device_changed_at is not None
        kept_by_number: list[set[str]] = []  # without the row that has the stream's own name
        for event, log in ((mine, "lines.sqlite"), (theirs, "told.sqlite")):
            row = vault.blind_index(TENURE, event.originator_id)
            kept = kept_rows(tmp_path / log)
            assert len(kept) > 5 and row in kept
            kept_by_number.append(kept - {row})
    assert kept_by_number[0] == kept_by_number[1]


def kept_rows(log: Path) -> set[str]:
    """By which keyed hashes its one line is found; each row names that line, and its one tenure."""
    with closing(sqlite3.connect(log)) as connection:
        found = connection.execute("SELECT index_value, stream, subject FROM person_index").fetchall()
    assert len({row[1:] for row in found}) == 1
    return {row[0] for row in found}


def test_lines_go_on_where_they_were_cut_short(filled_lines: Filled) -> None:
    with Progress(disable=True) as progress:
        for numbers in (range(3), range(3, 8)):
            assert lines.recorded(filled_lines.tsm, 8) == numbers.start
            filler = lines.LineFiller(filled_lines.recorder, filled_lines.vault, numbers)
            filler.fill(len(numbers), progress)
    assert lines.recorded(filled_lines.tsm, 8) == 8 and lines.recorded(filled_lines.tsm, 100) == 8
    assert [event.originator_id for event in filled_lines.events()] == [lines.stream_of(n) for n in range(8)]


@pytest.fixture
def soon_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "QUIET", 0.05)
    monkeypatch.setattr(os, "sync", lambda: None)  # it would wait for what others write


FEW = swap.Sizes(
    lines=300, signals=100, probes=20, signal_seconds=1.0, look_ups=50, look_up_seconds=0.5, step_seconds=0.2, steps=2
)


@pytest.mark.usefixtures("soon_at_rest")
def test_every_card_that_moved_is_refused_and_every_look_up_answered(tmp_path: Path) -> None:
    """A signal that is refused, a session that is let in for ever, an answer that is none end the bench."""
    with Progress(disable=True) as progress:
        measured = swap.measured(tmp_path, FEW, progress)
    assert list(measured) == [sites.SQLITE, sites.POSTGRES]
    for swaps, look_ups in measured.values():
        assert len(swaps.answered) == 100 and len(swaps.refused) == len(swaps.refused_after) == 20
        assert all(whole > part > 0 for whole, part in zip(swaps.refused, swaps.refused_after, strict=True))
        assert swaps.rate > 0 and swaps.let_in == 0
        assert len(look_ups.taken) == 25 and min(look_ups.taken) > 0
        [first, *others] = swap.lines_of_swaps("An engine", swaps, 1.0)
        assert first.met is (percentile(swaps.refused, 99) <= 1.0) and all(line.met is None for line in others)


@pytest.mark.usefixtures("soon_at_rest")
def test_a_folder_of_lines_stays_and_grows(tmp_path: Path) -> None:
    few = FEW._replace(look_up_seconds=0.2, steps=0)
    for number in (200, 300):
        swap.report_large(tmp_path / "lines", number, few)
    with ExitStack() as stack:
        site = swap.Site(tmp_path / "lines", stack)
        assert lines.recorded(site.tsm, 1000) == 300
        asked = [event for event in site.tsm.read(0, 1000) if event.topic == "reading.data_accessed"]
        assert len(asked) == 2 * (10 + 10)


def test_folding_goes_on_where_it_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.building.PAGE", 100)
    swap.new_site(tmp_path / "lines", STORE)
    with ExitStack() as stack, Progress(disable=True) as progress:
        site = swap.Site(tmp_path / "lines", stack)
        site.fill(300, progress)
        with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
            cut.setattr(Progress, "update", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            site.fold(300, progress)
        assert site.fold(300, progress) == site.tsm.position - 100
        assert site.fold(300, progress) == 0
        known = line_swaps(site.views, lines.stream_of(299))
        assert known is not None and known.sim_changed_at == lines.signal_of(299).occurred_at


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 201)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [100.0, 198.0, 200.0]
    assert percentile([7.0], 99) == 7.0
