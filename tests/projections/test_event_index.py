"""Event index: every event is found by whatever it concerns, and by nobody who may not see it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.bench.history import History
from projections.event_batches import pages
from projections.event_index import (
    AIDS,
    EVENT_INDEX,
    FIELDS,
    SHARED,
    EventFilter,
    EventRow,
    find,
    in_outline,
    page,
    span,
)
from projections.folding import retry
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.viewer import EVERYTHING, NOTHING, Viewer
from projections.views import Session, Views
from tests.projections.conftest import MakeViews
from tests.projections.many_parties import SIBLING_DOMAIN, tell_as, tell_of_many
from tests.projections.read_models import contents
from tests.projections.story import (
    APPLICATION,
    BEGIN,
    CREDENTIAL,
    DOMAIN,
    ICCID,
    ISD,
    LATER,
    LOAD_FILE,
    MODULE,
    OTHER_ICCID,
    RECEPTION,
    SECRETS,
    MemoryLog,
    tell,
)
from tsm.errors import ErrorCode, TsmError
from tsm.model import access_code, card, credential, line, operation, reading, session
from tsm.model.event import Fact
from tsm.model.topics import FACTS

OPERATOR, OTHER_OPERATOR = Viewer("operator", "MNO00001"), Viewer("operator", "MNO00002")
PROVIDER, SIBLING = Viewer("provider", "JPKI0001"), Viewer("provider", "BANK0001")
MUNICIPALITY, OTHER_MUNICIPALITY = Viewer("municipality", "13101"), Viewer("municipality", "13102")
VIEWERS = (EVERYTHING, OPERATOR, OTHER_OPERATOR, PROVIDER, SIBLING, MUNICIPALITY, OTHER_MUNICIPALITY)

# Fields that say of whom or what an event is, and are found in another way than by `FIELDS`; and all others that there
# are: whoever adds a field decides here whether events are to be found by it.
OTHERWISE = {"target", "tenant", "subjects", "deleted", "parent"}
NOT_SOUGHT = {
    "acknowledged", "applicant", "approved_by", "attempts", "begins_tenure", "cleared_at", "closed_at", "condition",
    "device_changed_at", "evidence", "imei", "imsi", "in_service", "indication", "issuer", "level",
    "msisdn", "policy", "previous", "proof", "revoke_from", "rule", "signal", "sim_changed_at", "since", "source",
    "succeeds", "suspicion", "until", "use", "verdict", "authentication_ca", "authentication_certificate_sha256",
    "authentication_crl_url", "authentication_serial", "authority",
    "card_challenge", "card_version", "certificate_fingerprint", "chaining", "check_value", "check_values", "cin",
    "code", "command", "commands", "content_index", "correlation", "counter", "derivation", "diversification",
    "document_sha256", "ended_by", "error", "executed", "expires_at", "failures", "found", "generated_at",
    "header", "host_challenge", "id", "iin", "in_use", "key", "key_set", "key_version", "kind", "length",
    "life_cycle", "mas_sign", "name", "needs_approval", "notify_url", "operation", "order", "person", "privileges",
    "profile", "provisional", "public_key", "purpose", "query_sha256", "reason", "receipt_sha256",
    "received_at", "remaining", "request_sha256", "requested_by", "return_url", "return_urls",
    "revocation_as_of", "role", "scope", "serial", "sha256", "signature_ca", "signature_certificate_sha256",
    "signature_crl_url", "signature_serial", "signing_key", "size", "state", "status", "status_word", "step",
    "terminal", "token_sha256", "transport_key", "tries", "unknown", "url", "values", "verified", "version",
    "wire_sha256",
    "changed_at", "client", "credential_ends_at", "detail", "ends_at", "line", "max_events", "notification", "outcome",
    "quiet", "sink", "swap", "counter_before", "sequence_counter",
}  # fmt: skip


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(EVENT_INDEX)


def folded(log: MemoryLog, views: Views) -> Views:
    Runner(log, views).catch_up()
    assert views.parked(EVENT_INDEX) == []
    return views


ALL = EventFilter(readings=True)


def every(views: Views, viewer: Viewer = EVERYTHING, filters: EventFilter = ALL) -> list[EventRow]:
    return page(views, viewer, filters, 0, None, 10_000)


def topics(views: Views, viewer: Viewer, **asked: object) -> list[str]:
    return [row.topic for row in every(views, viewer, EventFilter(**asked))]  # type: ignore[arg-type]


def test_there_is_one_row_for_every_event_with_what_the_log_says(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    rows = every(views)
    told = [
        (e.position, e.recorded_at, e.occurred_at, e.topic, e.originator_id, e.originator_version, e.context.actor,
         e.context.role, e.context.tenant, e.context.correlation)
        for e in log.events
    ]  # fmt: skip
    assert [(*row[:9], row.correlation) for row in rows] == told


def test_what_opened_a_stream_says_what_its_later_events_concern(log: MemoryLog, views: Views) -> None:
    """A command that is sent names neither card nor domain."""
    tell(log)
    sent = session.CommandSent(step="COMMAND", order=1, header="80E28800", length=240, wire_sha256="", expires_at=LATER)
    log.add(f"session-JPKI0001-{RECEPTION}", sent)
    folded(log, views)

    row = every(views)[-1]
    assert row.topic == "session.command_sent"
    assert (row.card, row.domain, row.reception, row.provider) == (ICCID, DOMAIN, RECEPTION, "JPKI0001")


def test_a_credential_is_tied_to_its_card_person_and_access_code_and_shows_nothing_personal(
    log: MemoryLog, views: Views
) -> None:
    folded(tell(log), views)

    rows = [row for row in every(views) if row.credential]
    assert {row.topic.partition(".")[0] for row in rows} == {"credential", "access_code"}
    assert {(row.card, row.credential, row.subject) for row in rows} == {(ICCID, CREDENTIAL, "subject-1")}
    assert [secret for secret in SECRETS if secret in str(contents(views))] == []


def test_an_operator_sees_what_is_its_own_and_of_others_only_that_it_is_there(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    assert topics(views, OPERATOR) == [
        "operator.enrolled",
        "card.registered",
        *("card.security_domain_created", "session.started", "session.ended") * 2,
    ]
    assert {row.operator for row in every(views, OPERATOR)} == {"MNO00001"}
    assert [row.topic for row in every(views, OPERATOR) if in_outline(row, OPERATOR)] == [
        "session.started", "session.ended", "session.started", "session.ended",
    ]  # fmt: skip


def test_to_which_story_anothers_event_belongs_is_not_in_its_outline(log: MemoryLog, views: Views) -> None:
    """It is the id of the credential for which a provider does something: on every card that the person ever had."""
    folded(tell_of_many(log), views)
    outlines = [row for row in every(views, OPERATOR) if in_outline(row, OPERATOR)]
    stories = {row.correlation for row in every(views) if row.position in {outline.position for outline in outlines}}

    assert {row.correlation for row in outlines} == {""}
    assert stories and all(stories)
    for story in stories:
        found = every(views, OPERATOR, EventFilter(correlation=story))
        assert [row for row in found if in_outline(row, OPERATOR)] == []
    read = pages(views, OPERATOR, [EventFilter(card=ICCID)], 0, None, 100)[0]
    assert {row.correlation for row in read if in_outline(row, OPERATOR)} == {""}


def test_a_provider_sees_what_concerns_it_on_any_card_and_nothing_of_a_sibling(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    rows = every(views, PROVIDER)
    assert {row.provider for row in rows} == {"JPKI0001"}
    assert {row.card for row in rows} == {"", ICCID, OTHER_ICCID}
    assert {row.domain for row in rows} == {"", DOMAIN}
    assert len([row for row in rows if row.topic == "card.security_domain_created"]) == 2
    assert {row.provider for row in every(views, SIBLING)} == {"BANK0001"}
    assert not [row for row in rows if in_outline(row, PROVIDER)]


def test_a_municipality_sees_its_credentials_only(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    expected = ["credential.applied", "access_code.handed_out", "credential.holder_authenticated"]
    assert topics(views, MUNICIPALITY) == topics(views, OTHER_MUNICIPALITY) == expected
    assert {row.municipality for row in every(views, MUNICIPALITY)} == {"13101"}


def test_the_people_of_a_party_are_found_together(log: MemoryLog, views: Views) -> None:
    tell_of_many(log)
    actors = ["operator:MNO00001/alice", "operator:MNO00001/bob", "operator:MNO00001", "operator:MNO000011/eve"]
    for number, actor in enumerate(actors):
        read = reading.DataAccessed(purpose="test", query_sha256="", subjects=())
        tell_as(log, reading.stream(f"request-{number}"), read, "MNO00001", actor=actor)
    folded(log, views)

    def acted(actor: str) -> list[str]:
        return [row.actor for row in every(views, EVERYTHING, EventFilter(actor=actor, readings=True))]

    assert acted("operator:MNO00001/") == actors[:2]
    assert acted("operator:MNO00001/bob") == ["operator:MNO00001/bob"]
    assert acted("operator:MNO00001") == ["operator:MNO00001"]


def test_nobody_sees_nothing(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    assert every(views, NOTHING) == []
    assert every(views, Viewer("operator", "")) == []
    assert find(views, NOTHING, 1, readings=True) is None


def test_who_saw_personal_data_is_told_only_to_whoever_may_ask(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)
    position = log.position

    assert "reading.data_accessed" not in topics(views, EVERYTHING)
    assert topics(views, EVERYTHING, readings=True)[-1] == "reading.data_accessed"
    assert "reading.data_accessed" not in topics(views, OPERATOR)
    assert topics(views, OPERATOR, readings=True)[-1] == "reading.data_accessed"
    assert "reading.data_accessed" not in topics(views, OTHER_OPERATOR, readings=True)
    assert find(views, EVERYTHING, position) is None
    assert find(views, EVERYTHING, position, readings=True) is not None


def test_a_persons_events_are_found_by_the_pseudonym_with_every_look_at_the_data(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    assert topics(views, EVERYTHING, subject="subject-13102", readings=True) == [
        "credential.applied",
        "access_code.handed_out",
        "credential.holder_authenticated",
        "reading.data_accessed",
    ]


def test_the_number_of_somebody_elses_event_finds_nothing(log: MemoryLog, views: Views) -> None:
    folded(tell_of_many(log), views)

    seen = {row.position for row in every(views, SIBLING)}
    found = {row.position for event in log.events if (row := find(views, SIBLING, event.position)) is not None}
    assert found == seen != set()


@pytest.mark.parametrize("aid", [ISD, DOMAIN, LOAD_FILE, MODULE, APPLICATION, APPLICATION.lower()])
def test_an_aid_is_found_wherever_an_event_names_it(log: MemoryLog, views: Views, aid: str) -> None:
    folded(tell(log), views)

    named = [
        event.topic
        for event in log.events
        if aid.upper() in {getattr(event.fact, name, "") for name in AIDS}
    ]  # fmt: skip
    found = topics(views, EVERYTHING, aid=aid)
    assert named != [] and set(named) <= set(found)


def test_what_went_with_a_deletion_is_found_by_its_aid(log: MemoryLog, views: Views) -> None:
    tell_of_many(log)
    gone = card.ContentDeleted(target=SIBLING_DOMAIN, domain=ISD, deleted=(SIBLING_DOMAIN, APPLICATION))
    tell_as(log, card.stream(ICCID), gone, "MNO00001")
    folded(log, views)

    assert topics(views, SIBLING, aid=APPLICATION) == ["card.content_deleted"]
    assert topics(views, PROVIDER, aid=APPLICATION) == []


def test_an_aid_finds_what_is_seen_in_outline_only_where_the_outline_shows_it(log: MemoryLog, views: Views) -> None:
    tell_of_many(log)
    installed = card.ApplicationInstalled(
        application=APPLICATION, module=MODULE, load_file=LOAD_FILE, domain=DOMAIN, privileges="", life_cycle=""
    )
    tell_as(log, card.stream(ICCID), installed, "JPKI0001", "MNO00001")
    tell_as(log, card.stream(ICCID), installed, "MNO00001")
    folded(log, views)
    others, own = [row.position for row in every(views, OPERATOR) if row.topic == installed.topic]

    def named(aid: str) -> list[int]:
        return [row.position for row in every(views, OPERATOR, EventFilter(aid=aid, topics=(installed.topic,)))]

    assert named(APPLICATION) == named(DOMAIN) == [others, own]
    assert named(LOAD_FILE) == named(MODULE) == [own]
    assert topics(views, PROVIDER, aid=MODULE) == [installed.topic] * 2


def test_an_operation_is_found_by_what_it_is_done_to(log: MemoryLog, views: Views) -> None:
    tell_of_many(log)
    for number, (kind, target) in enumerate(
        [("lock", APPLICATION), ("erase-person", f"{CREDENTIAL}-13101"), ("withdraw-party", "provider/BANK0001")]
    ):
        fact = operation.OperationRequested(
            operation=str(number), kind=kind, target=target, reason="", requested_by="", needs_approval=True,
            expires_at=LATER,
        )  # fmt: skip
        tell_as(log, f"operation-{number}", fact, "server")
        tell_as(log, f"operation-{number}", operation.OperationApproved(approved_by=""), "server")
    folded(log, views)

    both = ["operation.requested", "operation.approved"]
    assert topics(views, EVERYTHING, aid=APPLICATION) == both
    assert topics(views, EVERYTHING, credential=f"{CREDENTIAL}-13101", topics=("operation.",)) == both
    assert topics(views, SIBLING, topics=("operation.",)) == both


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_page_of_every_filter_is_what_a_look_at_all_rows_gives(many: Views, data: st.DataObject) -> None:
    """Any combination, in both directions, from anywhere."""
    viewer = data.draw(st.sampled_from(VIEWERS))
    rows = every(many)
    asked = data.draw(st.fixed_dictionaries({}, optional={
        **{name: st.sampled_from(sorted({getattr(row, name) for row in rows} - {""})) for name in BY_ROW},
        "topics": st.lists(st.sampled_from([*{row.topic for row in rows}, "card.", "session."]), max_size=3).map(tuple),
        "readings": st.booleans(),
        "first": st.integers(1, len(rows)),
        "last": st.integers(1, len(rows)),
    }))  # fmt: skip
    after, before = data.draw(st.integers(0, len(rows))), data.draw(st.none() | st.integers(1, len(rows)))
    limit, newest_first = data.draw(st.integers(1, 7)), data.draw(st.booleans())

    found = page(many, viewer, EventFilter(**asked), after, before, limit, newest_first=newest_first)

    visible = every(many, viewer, EventFilter(readings=asked.get("readings", False)))
    expected = [
        row for row in visible
        if fits(row, asked) and after < row.position < (before or len(rows) + 1)
    ]  # fmt: skip
    assert found == (expected[::-1] if newest_first else expected)[:limit]


BY_ROW = ("actor", "tenant", "provider", "domain", "stream", "card", "credential", "reception", "correlation")


def fits(row: EventRow, asked: dict[str, object]) -> bool:
    wanted: Sequence[str] = asked.get("topics", ())  # type: ignore[assignment]
    return (
        all(getattr(row, name) == value for name, value in asked.items() if name in BY_ROW)
        and (not wanted or any(row.topic == t or (t.endswith(".") and row.topic.startswith(t)) for t in wanted))
        and int(asked.get("first", 1)) <= row.position <= int(asked.get("last", 10_000))  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    made = SQLiteViews(tmp_path_factory.mktemp("many") / "views.sqlite", [EVENT_INDEX])
    yield folded(tell_of_many(tell(MemoryLog())), made)
    made.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 40), max_size=6))
@example(cuts=[1] * 60)
def test_rows_are_the_same_wherever_the_pages_are_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    log = tell_of_many(tell(MemoryLog()))
    log.add(f"credential-{CREDENTIAL}", credential.ErasureOrdered(subject="subject-1", in_use=True))
    folder = tmp_path_factory.mktemp("cuts")
    whole, cut = (SQLiteViews(folder / f"{name}.sqlite", [EVENT_INDEX]) for name in ("whole", "cut"))
    folded(log, whole)
    told, log.events = log.events, []
    for number in [*cuts, len(told)]:
        log.events = told[: len(log.events) + number]
        folded(log, cut)

    assert contents(cut) == contents(whole)
    whole.close(), cut.close()


def test_erasure_unties_the_person_from_the_card_and_a_rebuild_gives_the_same_rows(
    log: MemoryLog, views: Views, make_views: MakeViews
) -> None:
    folded(tell(log), views)
    before = len(topics(views, EVERYTHING, card=ICCID))
    log.add(f"credential-{CREDENTIAL}", credential.ErasureOrdered(subject="subject-1", in_use=True))
    log.erased.add("subject-1")
    log.add(f"credential-{CREDENTIAL}", credential.PersonErased(subject="subject-1"))
    log.add("access-code-0123", access_code.AccessCodeLocked())
    folded(log, views)

    again = folded(log, make_views(EVENT_INDEX, anew=True))
    assert contents(again) == contents(views)
    mine = every(views, EVERYTHING, EventFilter(credential=CREDENTIAL))
    assert len(mine) == 13 and {(row.card, row.subject) for row in mine} == {("", "subject-1")}
    assert len(topics(views, EVERYTHING, card=ICCID)) == before - 10


def test_what_cannot_be_read_waits_and_is_found_after_a_retry(log: MemoryLog, views: Views) -> None:
    tell(log)
    log.unreadable = {next(event.position for event in log.events if event.topic == "credential.applied")}
    Runner(log, views).catch_up()
    waiting = {parked.stream for parked in views.parked(EVENT_INDEX)}
    assert waiting == {f"credential-{CREDENTIAL}", "access-code-0123"}

    log.unreadable = set()
    retry(log, views, EVENT_INDEX)
    assert [row.position for row in every(views)] == list(range(1, log.position + 1))
    assert views.parked(EVENT_INDEX) == []


def test_the_times_of_a_filter_become_positions(log: MemoryLog) -> None:
    tell(log)

    class Timed(MemoryLog):
        def position_at(self, recorded_at: object) -> int:
            return sum(event.recorded_at <= recorded_at for event in log.events)  # type: ignore[operator]

    second = log.events[4].recorded_at, log.events[8].recorded_at
    assert span(Timed(), *second) == (5, 9)
    assert span(Timed(), BEGIN - timedelta(days=1), BEGIN - timedelta(hours=1)) == (1, 0)
    assert span(Timed(), None, None)[0] == 1


def test_an_aid_that_is_not_hex_is_refused() -> None:
    with pytest.raises(TsmError) as refused:
        EventFilter(aid="%")
    assert refused.value.code is ErrorCode.INVALID_INPUT


PLANS = {
    "nothing": EventFilter(readings=True),
    "no readings": EventFilter(),
    **{name: EventFilter(**{name: "A000000151"}) for name in (*BY_ROW, "subject", "aid")},
    "people": EventFilter(actor="operator:MNO00001/"),
    "topic": EventFilter(topics=("card.keys_put", "session.")),
}


@pytest.mark.parametrize("viewer", [EVERYTHING, OPERATOR, PROVIDER, MUNICIPALITY], ids=lambda viewer: viewer.kind)
@pytest.mark.parametrize("filters", PLANS.values(), ids=PLANS.keys())
def test_every_page_is_a_range_of_an_index(
    many: Views, monkeypatch: pytest.MonkeyPatch, viewer: Viewer, filters: EventFilter
) -> None:
    """Events are sought, never scanned; only the kinds are looked at one after the other, and they are few."""
    plans: list[str] = []
    read = many.read

    def explained(projection: object, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        plans.extend(str(row[-1]) for row in read(EVENT_INDEX, f"EXPLAIN QUERY PLAN {query}", values))
        found = read(EVENT_INDEX, query, values)
        kinds = read(EVENT_INDEX, "SELECT kind, 1 FROM {kind} LIMIT 3") if "coalesce" in query else None
        return kinds or found

    monkeypatch.setattr(many, "read", explained)
    page(many, viewer, filters, 5, 60, 10)

    assert plans
    assert not [plan for plan in plans if plan.startswith("SCAN") and plan not in ("SCAN k", "SCAN n", "SCAN of_kind")]
    assert not [
        plan for plan in plans if plan.startswith("SEARCH e ") and "position>" not in plan and "rowid" not in plan
    ]


def test_a_rare_combination_in_a_long_log_touches_few_rows(tmp_path: Path) -> None:
    """What is asked grows with the kinds of events, not with their number: counted in steps of the engine."""

    def steps(number: int) -> int:
        views = SQLiteViews(tmp_path / f"{number}.sqlite", [EVENT_INDEX])
        log = MemoryLog()
        log.events = [
            msgspec.structs.replace(event, position=position, recorded_at=event.occurred_at)
            for position, event in enumerate(islice(History(3).events(), number), 1)
        ]
        tell_of_many(log)
        folded(log, views)
        taken = 0

        def step() -> int:
            nonlocal taken
            taken += 1
            return 0

        views._reader.set_progress_handler(step, 10)
        for viewer in (EVERYTHING, SIBLING, OTHER_OPERATOR):
            for asked in (EventFilter(topics=("card.keys_put",), provider="BANK0001"), EventFilter(actor="phone")):
                for newest_first in (False, True):
                    page(views, viewer, asked, 0, None, 50, newest_first=newest_first)
        views.close()
        return taken

    short, long = steps(1_000), steps(10_000)
    assert long < 2 * short


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.topic)
def test_whoever_adds_a_field_decides_whether_events_are_found_by_it(fact: type[Fact]) -> None:
    assert set(fact.__struct_fields__) - FIELDS.keys() - OTHERWISE - NOT_SOUGHT == set()


def test_what_the_index_unseals_is_all_that_facts_seal_under_a_well_known_name() -> None:
    """But signals: which card a number has is not the index's to know. What they led to names them by position."""
    sealed = {fact.topic: tuple(set(fact.sealed) & FIELDS.keys()) for fact in FACTS if set(fact.sealed) & FIELDS.keys()}
    assert sealed.pop(line.SignalRecorded.topic) == ("iccid",)
    assert sealed == dict(EVENT_INDEX.unseals)


def test_no_fact_ties_a_credential_to_a_card_openly() -> None:
    """Erasure would have to find it."""
    assert [
        fact.topic for fact in FACTS if {"credential", "iccid"} <= set(fact.__struct_fields__) - set(fact.sealed)
    ] == []


def test_what_operators_share_are_topics() -> None:
    assert {fact.topic for fact in FACTS} >= SHARED


@pytest.mark.parametrize("make_views", ["postgresql"], indirect=True)
@pytest.mark.parametrize("viewer", [EVERYTHING, OPERATOR], ids=lambda viewer: viewer.kind)
@pytest.mark.parametrize("filters", PLANS.values(), ids=PLANS.keys())
def test_postgresql_reads_events_in_the_order_of_an_index_and_ends_at_the_limit(
    log: MemoryLog, views: Views, monkeypatch: pytest.MonkeyPatch, viewer: Viewer, filters: EventFilter
) -> None:
    """So few rows it would rather read one after the other, so that is made dear; nothing else is."""
    folded(tell_of_many(log), views)
    plans: list[str] = []
    read = views.read
    tables = {table.name: f"event_index_1_{table.name}" for table in EVENT_INDEX.tables}

    def explained(projection: object, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        def look(session: Session) -> list[str]:
            session.execute("SET LOCAL enable_seqscan = off")
            return [str(line) for (line,) in session.execute(f"EXPLAIN {query.format(**tables)}", values)]

        plans.extend(views.look(look))
        kinds = read(EVENT_INDEX, "SELECT kind, 1 FROM {kind} LIMIT 3") if "coalesce" in query else None
        return kinds or read(EVENT_INDEX, query, values)

    monkeypatch.setattr(views, "read", explained)
    page(views, viewer, filters, 5, 60, 10)

    assert [plan for plan in plans if "Index" in plan and "_event" in plan]
    assert not [plan for plan in plans if "Bitmap" in plan or "Seq Scan on event_index_1_event" in plan]
