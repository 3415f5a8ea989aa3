"""Who sees what of the registry, page by page, and what a page costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from projections.registry import REGISTRY
from projections.registry.batches import find_all, pages
from projections.registry.listings import (
    CARDS,
    CREDENTIALS,
    DOMAINS,
    KEYS,
    LISTINGS,
    MOST,
    OPERATIONS,
    PARTIES,
    SESSIONS,
    Listing,
    counts,
    find,
    find_query,
    page,
    page_query,
)
from projections.registry.rows import key
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.viewer import EVERYTHING, NOTHING, Kind, Viewer
from projections.views import Session, Views
from tests.projections.conftest import MakeViews
from tests.projections.registry_story import (
    APPLICATION,
    BANK,
    CARD,
    CREDENTIAL,
    ISD,
    JPKI,
    JPKI_DOMAIN,
    LOAD_FILE,
    MNO,
    MUNICIPALITY,
    OTHER_CARD,
    OTHER_MNO,
    THIRD_CARD,
    Story,
    tell_all,
)
from tsm.errors import ErrorCode, TsmError
from tsm.model import card

VIEWERS = (
    EVERYTHING,
    Viewer("operator", MNO),
    Viewer("operator", OTHER_MNO),
    Viewer("provider", JPKI),
    Viewer("provider", BANK),
    Viewer("municipality", MUNICIPALITY),
    Viewer("municipality", "27100"),
    Viewer("operator", "MNO00009"),
    Viewer("provider", MNO),
    NOTHING,
)
EVERY = pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    """Of the whole story, and a deleted application."""
    views = SQLiteViews(tmp_path_factory.mktemp("registry") / "views.sqlite", (REGISTRY,))
    Runner(whole(), views).catch_up()
    yield views
    views.close()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    views = make_views(REGISTRY)
    Runner(whole(), views).catch_up()
    return views


def whole() -> Story:
    story = tell_all(Story())
    story.session(MNO, JPKI_DOMAIN)
    story.deleted(JPKI_DOMAIN, APPLICATION, LOAD_FILE, domain=ISD, iccid=THIRD_CARD)
    story.content(ISD, THIRD_CARD)
    return story


def rows(views: Views, listing: Listing[Any], viewer: Viewer, **where: str | int) -> list[Any]:
    return page(views, listing, viewer, where, 0, None, 1000)


# Who sees what, said once more and independently of the lists' own declarations


def seen_content(row: Any, viewer: Viewer) -> bool:
    """An operator sees nothing of what lies in a provider's domain."""
    return of_provider(row, viewer) or (seen_domain(row, viewer) and row.provider == "")


def seen_run(row: Any, viewer: Viewer) -> bool:
    """But for what it delegated itself."""
    delegated = viewer.kind == "operator" and (row.operator, row.party) == (viewer.party, viewer.party)
    return seen_content(row, viewer) or delegated


def of_provider(row: Any, viewer: Viewer) -> bool:
    return viewer.kind == "provider" and row.provider == viewer.party


def seen_domain(row: Any, viewer: Viewer) -> bool:
    return (viewer.kind == "operator" and row.operator == viewer.party) or of_provider(row, viewer)


def seen_card(row: Any, viewer: Viewer) -> bool:
    holders = {JPKI: (CARD, OTHER_CARD, THIRD_CARD), BANK: (CARD,)}
    held = viewer.kind == "provider" and row.iccid in holders.get(viewer.party, ())
    return held or (viewer.kind == "operator" and row.operator == viewer.party)


def seen_suspected(row: Any, viewer: Viewer) -> bool:
    """Whoever has a domain or a credential in the card, and the counter at which that was applied for."""
    concerned = {
        CARD: {("provider", JPKI), ("provider", BANK), ("municipality", MUNICIPALITY)},
        OTHER_CARD: {("provider", JPKI), ("municipality", "27100")},
        THIRD_CARD: {("provider", JPKI), ("provider", BANK), ("municipality", MUNICIPALITY)},
    }[row.iccid]
    return (viewer.kind, viewer.party) in concerned | {("operator", row.operator)}


def seen_credential(row: Any, viewer: Viewer) -> bool:
    return of_provider(row, viewer) or (viewer.kind == "municipality" and row.municipality == viewer.party)


def seen_party(row: Any, viewer: Viewer) -> bool:
    itself = viewer.kind == row.kind and viewer.party == row.party
    at_counter = viewer.kind == "municipality" and row.municipality == viewer.party
    return itself or at_counter or viewer.kind == "nothing"


def seen_operation(row: Any, viewer: Viewer) -> bool:
    return seen_domain(row, viewer) or viewer.kind == "nothing"


SEEN: Mapping[str, Callable[[Any, Viewer], bool]] = {
    "cards": seen_card,
    "domains": seen_domain,
    "load_files": seen_content,
    "applications": seen_content,
    "keys": seen_content,
    "credentials": seen_credential,
    "parties": seen_party,
    "catalogue": of_provider,
    "delegations": seen_run,
    "sessions": seen_run,
    "operations": seen_operation,
    "alerts": seen_suspected,
    "standings": seen_suspected,
}


@EVERY
@pytest.mark.parametrize("viewer", VIEWERS, ids="-".join)
def test_a_viewer_gets_his_rows_and_no_others_by_page_by_key_and_by_count(
    sqlite: Views, listing: Listing[Any], viewer: Viewer
) -> None:
    every = rows(sqlite, listing, EVERYTHING)
    assert every
    wanted = [row[0] for row in every if viewer == EVERYTHING or SEEN[listing.name](row, viewer)]

    assert [row[0] for row in rows(sqlite, listing, viewer)] == wanted
    assert [row[0] for row in every if find(sqlite, listing, viewer, row[0]) is not None] == wanted
    assert counts(sqlite, viewer).get(listing.name, 0) == len(wanted)


@EVERY
def test_each_kind_of_viewer_that_a_list_is_for_sees_some_of_it_in_the_story(
    sqlite: Views, listing: Listing[Any]
) -> None:
    kinds = {viewer.kind for viewer in VIEWERS if rows(sqlite, listing, viewer)}
    assert kinds == set(listing.sights)


@pytest.mark.parametrize("viewer", VIEWERS, ids="-".join)
def test_pages_and_rows_are_the_same_on_every_engine(views: Views, sqlite: Views, viewer: Viewer) -> None:
    for listing in LISTINGS.values():
        found = rows(views, listing, viewer)
        assert found == rows(sqlite, listing, viewer)
        assert [find(views, listing, viewer, row[0]) for row in found] == found
    assert counts(views, viewer) == counts(sqlite, viewer)


def test_of_a_providers_domain_an_operator_sees_aid_size_and_life_cycle_only(sqlite: Views) -> None:
    story_operator = Viewer("operator", MNO)
    others = find(sqlite, DOMAINS, story_operator, key(CARD, JPKI_DOMAIN))
    own = find(sqlite, DOMAINS, story_operator, key(CARD, ISD))

    assert others is not None and own is not None
    assert (others.aid, others.life_cycle, others.size) == (JPKI_DOMAIN, "PERSONALIZED", 1234)
    hidden = (others.provider, others.parent, others.privileges)
    assert (*hidden, others.key_version, others.provisional, others.failures) == ("", "", "", 0, 0, 0)
    assert own.key_version == 0x30
    whole_row = find(sqlite, DOMAINS, EVERYTHING, others.key)
    assert whole_row is not None
    assert (whole_row.provider, whole_row.key_version, whole_row.failures) == (JPKI, 2, 2)


def test_a_filter_does_not_tell_what_the_row_hides(sqlite: Views) -> None:
    operator = Viewer("operator", MNO)

    assert rows(sqlite, DOMAINS, operator, provider=JPKI) == []
    assert {row.aid for row in rows(sqlite, DOMAINS, operator, provider="")} == {ISD}
    assert rows(sqlite, OPERATIONS, NOTHING, target=ISD) == []
    assert rows(sqlite, OPERATIONS, NOTHING, iccid=CARD) == []


def test_an_administrator_sees_that_operations_are_there_and_not_on_what(sqlite: Views) -> None:
    for row in rows(sqlite, OPERATIONS, NOTHING):
        hidden = (row.iccid, row.domain, row.target, row.reason, row.requested_by, row.approved_by, row.correlation)
        assert hidden == ("",) * 7
        assert row.kind and row.state and row.requested_at


@pytest.mark.parametrize("kind", ["operator", "provider", "municipality"])
@pytest.mark.parametrize("party", ["", "\0", "MNO00001\0", "\ud800", "%", "' OR '1' = '1"])
def test_a_viewer_who_is_nobody_in_particular_sees_nothing(views: Views, kind: Kind, party: str) -> None:
    viewer = Viewer(kind, party)

    assert not [row for listing in LISTINGS.values() for row in rows(views, listing, viewer)]
    assert counts(views, viewer) == {}
    assert find(views, CARDS, viewer, CARD) is None


def test_what_is_named_by_anything_but_its_key_is_not_found(views: Views) -> None:
    for name in ("", "\0", "\ud800", f"{CARD}'", "|", f"{OTHER_CARD}|{ISD}|", "😀"):
        assert all(find(views, listing, EVERYTHING, name) is None for listing in LISTINGS.values())


def test_counts_follow_states_too(sqlite: Views) -> None:
    found = counts(sqlite, EVERYTHING)

    states = {name: number for name, number in found.items() if name.startswith("sessions.")}
    assert states == {"sessions.ENDED": 6, "sessions.DISCONNECTING": 1}
    assert found["credentials.HANDED_OUT"] == 1
    assert counts(sqlite, Viewer("operator", OTHER_MNO))["operations.CANCELLED"] == 1


# Pages


@pytest.mark.parametrize("viewer", [EVERYTHING, Viewer("operator", MNO), Viewer("provider", JPKI)], ids="-".join)
def test_pages_follow_each_other_in_both_directions(views: Views, viewer: Viewer) -> None:
    for listing in (CARDS, DOMAINS, KEYS, SESSIONS):
        every = rows(views, listing, viewer)
        positions = [row.position for row in every]
        assert positions == sorted(set(positions))
        forwards: list[Any] = []
        while some := page(views, listing, viewer, {}, forwards[-1].position if forwards else 0, None, 2):
            forwards += some
        backwards: list[Any] = []
        before = None
        while some := page(views, listing, viewer, {}, 0, before, 2, newest_first=True):
            backwards += some
            before = backwards[-1].position
        assert forwards == every
        assert backwards == every[::-1]


def test_a_page_lies_between_its_bounds(sqlite: Views) -> None:
    first, second, third = (row.position for row in rows(sqlite, CARDS, EVERYTHING))

    assert [row.position for row in page(sqlite, CARDS, EVERYTHING, {}, first, third, 10)] == [second]
    assert page(sqlite, CARDS, EVERYTHING, {}, 0, first, 10) == []
    assert page(sqlite, CARDS, EVERYTHING, {}, 0, None, 0) == []


@EVERY
def test_each_filter_leaves_the_rows_that_hold_the_value(views: Views, listing: Listing[Any]) -> None:
    for viewer in (EVERYTHING, Viewer("operator", MNO), Viewer("provider", JPKI), NOTHING):
        every = rows(views, listing, viewer)
        for column in (*listing.narrow, *listing.wide):
            hidden = column in getattr(listing.sights.get(viewer.kind), "blank", ())
            for value in {getattr(row, column) for row in every} if not hidden else ():
                wanted = [row for row in every if getattr(row, column) == value]
                assert rows(views, listing, viewer, **{column: value}) == wanted


def test_several_filters_hold_together(views: Views) -> None:
    found = rows(views, DOMAINS, EVERYTHING, iccid=CARD, provider=JPKI, life_cycle="PERSONALIZED")
    assert [row.key for row in found] == [key(CARD, JPKI_DOMAIN)]
    assert rows(views, DOMAINS, EVERYTHING, iccid=CARD, provider=JPKI, life_cycle="LOCKED") == []


@pytest.mark.parametrize(
    ("listing", "where"),
    [
        (CARDS, {"isd": ISD}),
        (CARDS, {"operator = '' OR '' ": ""}),
        (CARDS, {"operator": 1}),
        (CARDS, {"operator": "\0"}),
        (CARDS, {"operator": "\ud800"}),
        (SESSIONS, {"live": "1"}),
        (SESSIONS, {"live": 2**63}),
        (DOMAINS, {"removed": 1}),
    ],
)
def test_what_a_list_is_not_filtered_by_is_refused(
    views: Views, listing: Listing[Any], where: dict[str, str | int]
) -> None:
    for viewer in (EVERYTHING, NOTHING, Viewer("municipality", "13101")):
        with pytest.raises(TsmError) as refused:
            page(views, listing, viewer, where, 0, None, 10)
        assert refused.value.code is ErrorCode.INVALID_INPUT


def test_a_truth_value_is_a_number(views: Views) -> None:
    assert [row.live for row in rows(views, SESSIONS, EVERYTHING, live=True)] == [1]


def test_a_clerk_sees_his_terminals_and_applications_and_nothing_of_cards(views: Views) -> None:
    clerk = Viewer("municipality", MUNICIPALITY)

    assert [row.credential for row in rows(views, CREDENTIALS, clerk)] == [CREDENTIAL, "bank-credential"]
    assert [row.kind for row in rows(views, PARTIES, clerk)] == ["terminal"]
    assert set(counts(views, clerk)) == {
        "credentials", "credentials.HANDED_OUT", "credentials.APPLIED", "parties", "parties.terminal", "alerts",
        "alerts.OPEN", "alerts.WITHDRAWN", "standings",
    }  # fmt: skip


# Many at once


@pytest.mark.parametrize("viewer", VIEWERS, ids="-".join)
def test_many_pages_and_rows_in_one_query_are_those_of_one_query_each(views: Views, viewer: Viewer) -> None:
    for listing in LISTINGS.values():
        column = (*listing.narrow, *listing.wide)[0]
        every = rows(views, listing, EVERYTHING)
        wheres: list[dict[str, str | int]] = [{column: getattr(row, column)} for row in every]
        for newest_first in (False, True):
            alone = [page(views, listing, viewer, where, 0, None, 2, newest_first=newest_first) for where in wheres]
            assert pages(views, listing, viewer, wheres, 0, None, 2, newest_first=newest_first) == alone
        found = {row[0]: find(views, listing, viewer, row[0]) for row in every}
        wanted = {name: row for name, row in found.items() if row is not None}
        assert find_all(views, listing, viewer, [*found, "unknown", "\0"]) == wanted


def test_more_pages_than_one_query_takes_are_asked_for_in_several(views: Views) -> None:
    wheres: list[dict[str, str | int]] = [{"iccid": iccid} for iccid in (CARD, "none", OTHER_CARD) * 50]
    found = pages(views, DOMAINS, EVERYTHING, wheres, 0, None, 10)

    assert [{row.iccid for row in some} for some in found] == [{CARD}, set(), {OTHER_CARD}] * 50


# What a page costs


def queries(listing: Listing[Any]) -> Iterator[tuple[str, Viewer, tuple[str, ...], bool]]:
    for kind in listing.sights:
        viewer = Viewer(kind, "" if kind in ("everything", "nothing") else MNO)
        for filters in ((), *((column,) for column in (*listing.narrow, *listing.wide))):
            for newest_first in (False, True):
                yield f"{kind} {filters} {newest_first}", viewer, filters, newest_first


@EVERY
def test_a_page_is_a_range_of_an_index_for_every_viewer_and_filter(sqlite: Views, listing: Listing[Any]) -> None:
    """The rows come in the order of the index, so reading ends at the limit, however many there are."""
    for what, viewer, filters, newest_first in queries(listing):
        where = {column: 0 if listing.columns[column] is int else MNO for column in filters}
        query, values = page_query(listing, viewer, where, 5, 9, 3, newest_first=newest_first)
        plan = [row[-1] for row in sqlite.read(REGISTRY, f"EXPLAIN QUERY PLAN {query}", values)]
        first, *joined = plan
        assert "USING INDEX" in first or "USING COVERING INDEX" in first, what
        assert first.endswith("position>? AND position<?)"), (what, plan)
        sight = listing.sights[viewer.kind]
        narrow = set(filters) & set(listing.narrow)
        wanted = {*filters, *([] if narrow or not sight.column else [sight.column])}
        assert all(f"{column}=?" in first for column in wanted), (what, plan)
        assert len(joined) == (1 if sight.through else 0), (what, plan)
        assert all("PRIMARY KEY" in step or "autoindex" in step for step in joined), (what, plan)


@EVERY
def test_a_row_is_found_by_its_key(sqlite: Views, listing: Listing[Any]) -> None:
    for kind in listing.sights:
        query, values = find_query(listing, Viewer(kind, "x"), "x")
        plan = [row[-1] for row in sqlite.read(REGISTRY, f"EXPLAIN QUERY PLAN {query}", values)]
        assert all(step.startswith("SEARCH") and "_autoindex_" in step for step in plan[:1]), plan


@pytest.mark.parametrize("make_views", ["postgresql"], indirect=True)
def test_postgresql_can_read_each_page_from_an_index_in_order_as_well(views: Views) -> None:
    """So few rows it would rather read one after the other, so that is made dear."""
    for listing in LISTINGS.values():
        for what, viewer, filters, newest_first in queries(listing):
            where = {column: 0 if listing.columns[column] is int else MNO for column in filters}
            query, values = page_query(listing, viewer, where, 5, 9, 3, newest_first=newest_first)
            plan = explained(views, query, values)
            if any("One-Time Filter: false" in line for line in plan):
                assert set(filters) & set(listing.sights[viewer.kind].blank), (
                    what
                )  # nothing can be found, so none is read
                continue
            assert not [line for line in plan if "Seq Scan" in line or "Sort" in line], (what, plan)
            [condition, *_] = [line for line in plan if "Index Cond" in line]
            assert '"position" > ' in condition and '"position" < ' in condition, (what, plan)


def explained(views: Views, query: str, values: Sequence[object]) -> list[str]:
    tables = {table.name: f"registry_1_{table.name}" for table in REGISTRY.tables}

    def look(session: Session) -> list[str]:
        for dear in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            session.execute(f"SET LOCAL {dear} = off")
        return [line for (line,) in session.execute(f"EXPLAIN {query.format(**tables)}", values)]

    return views.look(look)


def test_positions_have_no_end(tmp_path: Path) -> None:
    views = SQLiteViews(tmp_path / "views.sqlite", (REGISTRY,))
    story = Story()
    story.card()
    story.on_card(card.CardReleased(domain=ISD, reason="r"))
    Runner(story, views).catch_up()

    assert [row.changed for row in page(views, CARDS, EVERYTHING, {}, 0, MOST, 1)] == [2]
    views.close()
