"""Domain tree: what the cards acknowledged, and the same as the model decides on."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import PROJECTIONS
from projections.domain_tree import DOMAIN_TREE, CardRow, DomainRow, at
from projections.domain_tree import card as read_card
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.views import Views
from tests.projections.conftest import MakeViews
from tests.projections.story import (
    APPLICATION,
    DOMAIN,
    ICCID,
    ISD,
    LOAD_FILE,
    MODULE,
    OTHER_ICCID,
    MemoryLog,
    application_installed,
    domain_created,
    keys_put,
    load_file_loaded,
    personalized,
    registered,
    tell,
)
from tsm.model import card
from tsm.model.event import Fact


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(*PROJECTIONS)


def found(views: Views) -> CardRow:
    row = read_card(views, ICCID)
    assert row is not None
    return row


def domain(views: Views, aid: str = DOMAIN) -> DomainRow:
    return next(d for d in found(views).domains if d.aid == aid)


def after(log: MemoryLog, views: Views, *facts: Fact) -> DomainRow:
    for fact in (registered(), domain_created(), *facts):
        log.add(f"card-{ICCID}", fact)
    Runner(log, views).catch_up()
    return domain(views)


def test_an_unknown_card_has_no_tree(log: MemoryLog, views: Views) -> None:
    Runner(log, views).catch_up()
    assert read_card(views, ICCID) is None


def test_a_registered_card_has_its_issuers_domain(log: MemoryLog, views: Views) -> None:
    log.add(f"card-{ICCID}", registered())
    Runner(log, views).catch_up()

    row = found(views)
    assert (row.operator, row.profile, row.isd) == ("MNO00001", "DEMO-1", ISD)
    (issuer,) = row.domains
    assert (issuer.aid, issuer.parent, issuer.life_cycle) == (ISD, None, "SECURED")
    assert [(k.version, k.check_values, k.current) for k in issuer.keys] == [(0x30, (), True)]


def test_the_tree_of_a_card_with_a_credential(log: MemoryLog, views: Views) -> None:
    Runner(tell(log), views).catch_up()

    row = domain(views)
    assert (row.parent, row.privileges, row.life_cycle) == (ISD, "800000", "PERSONALIZED")
    assert [(f.aid, f.sha256, f.size) for f in row.load_files] == [(LOAD_FILE, "cd" * 32, 1234)]
    assert [(a.aid, a.module, a.load_file, a.life_cycle) for a in row.applications] == [
        (APPLICATION, MODULE, LOAD_FILE, "PERSONALIZED")
    ]
    assert views.parked(DOMAIN_TREE) == []


def test_replaced_keys_stay_visible_and_the_last_are_current(log: MemoryLog, views: Views) -> None:
    row = after(log, views, keys_put(1, True), keys_put(2, False))
    checks = ("aaaaaa", "bbbbbb", "cccccc")

    assert [(k.version, k.check_values, k.provisional, k.current) for k in row.keys] == [
        (1, checks, True, False),
        (2, checks, False, True),
    ]


def test_a_domain_is_selectable_until_it_has_keys(log: MemoryLog, views: Views) -> None:
    assert after(log, views).life_cycle == "SELECTABLE"
    log.add(f"card-{ICCID}", keys_put(1, True))
    Runner(log, views).catch_up()
    assert domain(views).life_cycle == "PERSONALIZED"


def test_an_application_that_came_with_the_card_appears_with_its_personalisation(log: MemoryLog, views: Views) -> None:
    (application,) = after(log, views, personalized()).applications
    assert (application.aid, application.module, application.life_cycle) == (APPLICATION, "", "PERSONALIZED")


def test_failed_authentications_are_counted_until_one_succeeds(log: MemoryLog, views: Views) -> None:
    assert after(log, views, card.CardAuthenticationFailed(domain=DOMAIN, key_version=1, failures=2)).failures == 2
    log.add(f"card-{ICCID}", card.CardAuthenticated(domain=DOMAIN, key_version=1))
    Runner(log, views).catch_up()
    assert domain(views).failures == 0


def test_a_release_gives_the_tries_back(log: MemoryLog, views: Views) -> None:
    failed = card.CardAuthenticationFailed(domain=DOMAIN, key_version=1, failures=5)
    assert after(log, views, failed, card.CardReleased(domain=DOMAIN, reason="a test")).failures == 0


@pytest.mark.parametrize("fact", [keys_put(1, True), load_file_loaded(), application_installed(), personalized()])
def test_what_belongs_to_no_known_domain_is_parked(log: MemoryLog, views: Views, fact: Fact) -> None:
    log.add(f"card-{ICCID}", registered())
    log.add(f"card-{ICCID}", fact)
    Runner(log, views).catch_up()

    assert [(p.position, p.error.split(" ")[0]) for p in views.parked(DOMAIN_TREE)] == [(2, "STORE_CORRUPT")]


def test_the_past_is_what_the_tree_was_then(log: MemoryLog, views: Views) -> None:
    """At every position, and at the time of every record: live and looking back are one story."""
    assert at(log, ICCID) is None
    trees = []
    for event in tell(MemoryLog()).events:
        log.events.append(event)
        Runner(log, views).catch_up()
        trees.append((event, read_card(views, ICCID)))

    for event, tree in trees:
        assert at(log, ICCID, position=event.position) == tree
        assert at(log, ICCID, recorded_at=event.recorded_at) == tree
    assert at(log, ICCID, position=1) is None


def deleted(*aids: str, of: str = DOMAIN) -> card.ContentDeleted:
    return card.ContentDeleted(target=aids[0], domain=of, deleted=aids)


def test_what_was_deleted_leaves_the_tree_and_stays_in_the_past(log: MemoryLog, views: Views) -> None:
    after(log, views, keys_put(1, True), load_file_loaded(), application_installed())
    before = log.events[-1].position
    log.add(f"card-{ICCID}", deleted(APPLICATION))
    Runner(log, views).catch_up()
    assert domain(views).applications == ()
    assert [file.aid for file in domain(views).load_files] == [LOAD_FILE]

    log.add(f"card-{ICCID}", deleted(DOMAIN, LOAD_FILE, of=ISD))
    Runner(log, views).catch_up()
    assert [one.aid for one in found(views).domains] == [ISD]

    then = at(log, ICCID, position=before)
    assert then is not None
    assert [one.aid for one in then.domains] == [ISD, DOMAIN]
    assert [one.aid for one in then.domains[1].applications] == [APPLICATION]


def test_a_domain_of_the_same_aid_may_come_again(log: MemoryLog, views: Views) -> None:
    again = after(log, views, keys_put(1, True), deleted(DOMAIN, of=ISD), domain_created())
    assert (again.life_cycle, again.keys) == ("SELECTABLE", ())
    assert views.parked(DOMAIN_TREE) == []


def test_a_card_that_is_registered_twice_or_not_at_all_is_parked(log: MemoryLog, views: Views) -> None:
    for iccid, fact in ((ICCID, registered()), (ICCID, registered()), (OTHER_ICCID, domain_created())):
        log.add(f"card-{iccid}", fact)
    Runner(log, views).catch_up()

    assert [p.position for p in views.parked(DOMAIN_TREE)] == [2, 3]


FACTS = st.lists(
    st.one_of(
        st.builds(keys_put, st.integers(1, 3), st.booleans()),
        st.just(load_file_loaded()),
        st.just(application_installed()),
        st.just(personalized()),
        st.builds(
            card.CardAuthenticationFailed, domain=st.just(DOMAIN), key_version=st.just(1), failures=st.integers(1, 5)
        ),
        st.just(card.CardAuthenticated(domain=DOMAIN, key_version=1)),
        st.just(card.CardReleased(domain=DOMAIN, reason="a test")),
        st.builds(
            card.LifeCycleChanged,
            instance=st.sampled_from([DOMAIN, APPLICATION]),
            domain=st.just(DOMAIN),
            life_cycle=st.sampled_from(card.LifeCycle).map(str),
        ),
        st.sampled_from([deleted(APPLICATION), deleted(LOAD_FILE, APPLICATION)]),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=FACTS)
def test_the_tree_says_what_the_model_decides_on(tmp_path: Path, facts: list[Fact]) -> None:
    """Two folds of one log may not tell two stories."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    views = SQLiteViews(folder / "views.sqlite", PROJECTIONS)
    log = MemoryLog()
    row = after(log, views, *facts)
    state: card.Card | None = None
    for event in log.events:
        state = card.evolve(state, event.fact)
    assert at(log, ICCID) == found(views)
    views.close()
    assert state is not None
    model = state.domains[DOMAIN]

    assert (row.life_cycle, row.failures) == (model.life_cycle, state.failures.get(DOMAIN, 0))
    assert [(k.version, k.check_values, k.provisional) for k in row.keys if k.current] == (
        [(model.key_version, model.check_values, model.provisional)] if model.key_version else []
    )
    assert {f.aid: (f.domain, f.sha256, f.size) for f in row.load_files} == {
        f.aid: (f.domain, f.sha256, f.size) for f in state.load_files.values()
    }
    assert {a.aid: (a.module, a.load_file, a.privileges, a.life_cycle) for a in row.applications} == {
        a.aid: (a.module, a.load_file, a.privileges, a.life_cycle) for a in state.applications.values()
    }
