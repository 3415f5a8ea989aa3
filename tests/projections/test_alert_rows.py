"""Alerts and standings: what the events make of them, and who sees them when."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.registry import REGISTRY
from projections.registry.listings import ALERTS, CREDENTIALS, STANDINGS, counts, find, page
from projections.registry.rows import AlertRow, StandingRow
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.viewer import EVERYTHING, NOTHING, Viewer
from projections.views import Views
from tests.projections.conftest import MakeViews
from tests.projections.read_models import contents
from tests.projections.registry_story import (
    ALERT,
    BANK,
    CARD,
    CREDENTIAL,
    ISD,
    JPKI,
    MNO,
    MUNICIPALITY,
    OTHER_ALERT,
    OTHER_MNO,
    Story,
)
from tests.projections.story import BEGIN
from tsm.errors import TsmError
from tsm.model import credential
from tsm.model import standing as standings
from tsm.model.detection import Finding
from tsm.model.event import Fact
from tsm.model.standing import (
    CardCleared,
    LevelChanged,
    Proof,
    SuspicionAcknowledged,
    SuspicionClosed,
    SuspicionEscalated,
    SuspicionWithdrawn,
    Verdict,
)
from tsm.model.swap_policy import DEFAULT, Condition, Level

ALICE, KEN = f"operator:{MNO}/alice", f"clerk:{MUNICIPALITY}/ken"
HOUR = timedelta(hours=1)
RELEASE = CardCleared(proof=Proof.CLERK, cleared_at=BEGIN + HOUR)


@pytest.fixture
def story() -> Story:
    """A card of an operator, and nothing suspected yet."""
    story = Story()
    story.operator()
    story.provider()
    story.terminal()
    story.card()
    return story


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(REGISTRY)


def read(views: Views, story: Story) -> None:
    Runner(story, views).catch_up()
    assert views.parked(REGISTRY) == []


def alert(views: Views, name: str = ALERT, viewer: Viewer = EVERYTHING) -> AlertRow:
    row = find(views, ALERTS, viewer, name)
    assert row is not None
    return row


def standing(views: Views, viewer: Viewer = EVERYTHING) -> StandingRow:
    row = find(views, STANDINGS, viewer, CARD)
    assert row is not None
    return row


def seen(views: Views, viewer: Viewer, **where: str | int) -> list[str]:
    return [row.alert for row in page(views, ALERTS, viewer, where, 0, None, 100)]


# What the events make of them


def test_an_alert_is_what_its_rule_found(story: Story, views: Views) -> None:
    story.suspect()
    read(views, story)

    row = alert(views)
    assert (row.iccid, row.operator, row.rule, row.condition) == (CARD, MNO, "another-device", "DEVICE_CHANGED")
    assert (row.level, row.policy, row.since, row.until) == ("HOLD", 1, BEGIN.isoformat(), "")
    assert (row.state, row.in_force, row.verdict, row.ended_at) == ("OPEN", 1, "", "")
    signal, raised = len(story.events) - 2, len(story.events) - 1
    assert (row.evidence, row.position, row.changed) == (str(signal), raised, raised)
    held = standing(views)
    assert (held.level, held.on_hold, held.on_hold_since, held.revoke_from) == ("HOLD", 1, held.since, "")
    assert (held.position, held.changed) == (raised, raised + 1)


@pytest.mark.parametrize(
    ("facts", "state", "in_force", "verdict"),
    [
        ([SuspicionAcknowledged(suspicion=ALERT)], "ACKNOWLEDGED", 1, ""),
        ([SuspicionWithdrawn(suspicion=ALERT)], "WITHDRAWN", 0, ""),
        ([SuspicionClosed(suspicion=ALERT, verdict=Verdict.FALSE_ALARM, closed_at=BEGIN)], "CLOSED", 0, "FALSE_ALARM"),
        ([SuspicionClosed(suspicion=ALERT, verdict=Verdict.CONFIRMED, closed_at=BEGIN)], "CLOSED", 1, "CONFIRMED"),
        ([RELEASE], "RELEASED", 0, ""),
        ([CardCleared(proof=Proof.CLERK, cleared_at=BEGIN - HOUR)], "OPEN", 1, ""),
        ([SuspicionEscalated(suspicion=ALERT, level=4, revoke_from=BEGIN), RELEASE], "OPEN", 1, ""),
        (
            [SuspicionClosed(suspicion=ALERT, verdict=Verdict.CONFIRMED, closed_at=BEGIN), RELEASE],
            "RELEASED", 0, "CONFIRMED",
        ),
        (
            [SuspicionAcknowledged(suspicion=ALERT), SuspicionWithdrawn(suspicion=ALERT)],
            "WITHDRAWN", 0, "",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_was_said_of_an_alert_is_its_state(
    story: Story, views: Views, facts: Sequence[Fact], state: str, in_force: int, verdict: str
) -> None:
    story.suspect()
    story.on_standing(*facts, actor=ALICE)
    read(views, story)

    row = alert(views)
    assert (row.state, row.in_force, row.verdict) == (state, in_force, verdict)
    assert (row.ended_by, bool(row.ended_at)) == ((ALICE, True) if not in_force else ("", False))


def test_an_alert_that_is_raised_again_is_the_same_and_keeps_what_was_said(story: Story, views: Views) -> None:
    story.suspect()
    story.on_standing(SuspicionAcknowledged(suspicion=ALERT), actor=ALICE)
    story.on_standing(SuspicionEscalated(suspicion=ALERT, level=Level.LOCK), actor=ALICE)
    story.on_standing(SuspicionWithdrawn(suspicion=ALERT))
    read(views, story)
    first = alert(views)
    story.suspect(evidence=(3, 5))
    read(views, story)

    row = alert(views)
    assert (row.state, row.in_force, row.level, row.ended_at, row.ended_by) == ("ACKNOWLEDGED", 1, "LOCK", "", "")
    assert (row.acknowledged_by, row.escalated_by, row.evidence) == (ALICE, ALICE, "3,5")
    assert (row.position, row.raised_at) == (first.position, first.raised_at)


def test_an_alert_knows_after_what_it_was_withdrawn_each_time(story: Story, views: Views) -> None:
    story.suspect()
    for cause in ("17", "", "ended", "23"):
        story.on_standing(SuspicionWithdrawn(suspicion=ALERT), causation=cause)
        story.suspect(evidence=(3,))
    read(views, story)
    assert alert(views).overtaken == "17,23"
    assert alert(views, viewer=Viewer("operator", MNO)).overtaken == "17,23"


def test_a_standing_knows_since_when_and_until_when(story: Story, views: Views) -> None:
    story.suspect()
    read(views, story)
    held = standing(views)
    story.on_standing(LevelChanged(level=Level.REVOKE, revoke_from=BEGIN + HOUR))
    read(views, story)
    doomed = standing(views)
    assert (doomed.level, doomed.on_hold, doomed.on_hold_since) == ("REVOKE", 1, held.on_hold_since)
    assert doomed.revoke_from == (BEGIN + HOUR).isoformat() and doomed.since > held.since

    story.on_standing(RELEASE, LevelChanged(level=Level.NONE))
    read(views, story)
    free = standing(views)
    assert (free.level, free.on_hold, free.on_hold_since, free.revoke_from) == ("NONE", 0, "", "")
    assert (free.cleared_at, free.proof) == (RELEASE.cleared_at.isoformat(), "CLERK")


def test_a_credential_knows_of_its_hold(story: Story, views: Views) -> None:
    story.applied()
    story.issued()
    holds = []
    for fact in (credential.HoldOrdered, credential.CredentialHeld, credential.ReleaseOrdered):
        story.on_credential(fact())
        read(views, story)
        [row] = page(views, CREDENTIALS, EVERYTHING, {"stage": "HANDED_OUT"}, 0, None, 10)
        holds.append(row.hold)
    story.on_credential(credential.CredentialReleased())
    read(views, story)

    assert holds == ["ORDERED", "HELD", "RELEASE_ORDERED"]
    assert [row.hold for row in page(views, CREDENTIALS, EVERYTHING, {}, 0, None, 10)] == [""]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda story: story.suspect(OTHER_ALERT, "8981100000000000093"),
        lambda story: story.on_standing(SuspicionAcknowledged(suspicion=ALERT)),
    ],
)
def test_what_does_not_fit_is_parked(story: Story, views: Views, wrong: Any) -> None:
    wrong(story)
    Runner(story, views).catch_up()
    assert views.parked(REGISTRY) != []


# The same rule as the model's


FACTS = st.lists(
    st.one_of(
        st.tuples(st.just("found"), st.sets(st.sampled_from([ALERT, OTHER_ALERT]))),
        st.tuples(st.just("said"), st.sampled_from([ALERT, OTHER_ALERT]), st.sampled_from(["ack", *Verdict, 3, 4])),
        st.tuples(st.just("released"), st.integers(-2, 4)),
    ),
    max_size=12,
)
SINCE = {ALERT: BEGIN, OTHER_ALERT: BEGIN + 2 * HOUR}


def decided(state: Any, step: Any) -> list[Fact]:
    """What the model decides; nothing where it refuses."""
    now = BEGIN + 3 * HOUR
    try:
        match step:
            case ("found", names):
                found = [
                    Finding(name, "r", Condition.DEVICE_CHANGED, Level.HOLD, SINCE[name], None, (1,), None)
                    for name in sorted(names)
                ]
                return standings.reassess(state, found, DEFAULT, now)
            case ("said", name, "ack"):
                return standings.acknowledge(state, name)
            case ("said", name, Verdict() as verdict):
                return standings.close(state, name, verdict, now)
            case ("said", name, int() as level):
                return standings.escalate(state, name, Level(level), HOUR, now)
            case ("released", hours):
                return standings.release(state, Proof.CLERK, "", BEGIN + hours * HOUR)
    except TsmError:
        return []
    raise AssertionError(step)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FACTS)
def test_what_is_in_force_is_what_the_model_holds_open(steps: list[Any]) -> None:
    story = Story()
    story.operator()
    story.card()
    state = None
    for step in steps:
        for fact in decided(state, step):
            state = standings.evolve(state, fact)
            story.on_standing(fact)
    folder = TemporaryDirectory()
    views = SQLiteViews(Path(folder.name) / "views.sqlite", (REGISTRY,))
    try:
        read(views, story)
        rows = page(views, ALERTS, EVERYTHING, {}, 0, None, 10)
        opened = {} if state is None else {one.id: one.level.name for one in state.open}
        assert {row.alert: row.level for row in rows if row.in_force} == opened
        [row] = page(views, STANDINGS, EVERYTHING, {}, 0, None, 10) or [None]
        assert (row.level if row else "NONE") == (Level.NONE if state is None else state.level).name
    finally:
        views.close()
        folder.cleanup()


# Who sees them


def test_whoever_comes_to_the_card_later_sees_its_alerts_from_then_on(story: Story, views: Views) -> None:
    provider, counter = Viewer("provider", JPKI), Viewer("municipality", MUNICIPALITY)
    story.suspect()
    read(views, story)
    assert seen(views, provider) == seen(views, counter) == []

    story.domain()
    read(views, story)
    assert (seen(views, provider), seen(views, counter)) == ([ALERT], [])

    story.applied()
    read(views, story)
    assert seen(views, provider) == seen(views, counter) == [ALERT]
    assert counts(views, counter)["alerts.OPEN"] == counts(views, counter)["standings"] == 1
    assert seen(views, Viewer("provider", BANK)) == seen(views, Viewer("operator", OTHER_MNO)) == []
    assert seen(views, NOTHING) == []


def test_an_erasure_takes_the_counters_reason_to_see_the_card(
    story: Story, views: Views, make_views: MakeViews
) -> None:
    counter = Viewer("municipality", MUNICIPALITY)
    story.applied()
    story.suspect()
    read(views, story)
    assert seen(views, counter) == [ALERT]

    story.erase()
    read(views, story)
    assert seen(views, counter) == [] and find(views, STANDINGS, counter, CARD) is None
    assert "alerts" not in counts(views, counter)
    again = make_views(REGISTRY, anew=True)
    read(again, story)
    assert contents(again) == contents(views)


def test_another_credential_from_the_same_counter_keeps_the_reason(story: Story, views: Views) -> None:
    story.applied()
    story.applied("another")
    story.suspect()
    story.erase()
    read(views, story)
    assert seen(views, Viewer("municipality", MUNICIPALITY)) == [ALERT]


@pytest.mark.parametrize("viewer", [Viewer("provider", JPKI), Viewer("municipality", MUNICIPALITY)], ids="-".join)
def test_level_rule_and_times_are_told_and_not_on_what_it_rests_or_who_acted(
    story: Story, views: Views, viewer: Viewer
) -> None:
    story.applied()
    story.suspect()
    story.on_standing(SuspicionAcknowledged(suspicion=ALERT), actor=ALICE)
    story.on_standing(SuspicionEscalated(suspicion=ALERT, level=Level.LOCK), actor=ALICE)
    story.on_standing(SuspicionWithdrawn(suspicion=ALERT), causation="17")
    story.on_standing(SuspicionClosed(suspicion=ALERT, verdict=Verdict.FALSE_ALARM, closed_at=BEGIN), actor=ALICE)
    read(views, story)

    row, whole = alert(views, viewer=viewer), alert(views)
    hidden = ("evidence", "overtaken", "acknowledged_by", "escalated_by", "closed_by", "ended_by")
    assert [getattr(row, name) for name in hidden] == [""] * 6
    assert all(getattr(whole, name) for name in hidden)
    assert row._replace(**{name: getattr(whole, name) for name in hidden}) == whole


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"state": "OPEN"}, [ALERT]),
        ({"state": "WITHDRAWN"}, [OTHER_ALERT]),
        ({"level": "HOLD"}, [ALERT]),
        ({"level": "LOCK", "condition": "LOST"}, [OTHER_ALERT]),
        ({"iccid": CARD, "operator": MNO}, [ALERT, OTHER_ALERT]),
        ({"operator": OTHER_MNO}, []),
    ],
)
@pytest.mark.parametrize(
    "viewer",
    [EVERYTHING, Viewer("operator", MNO), Viewer("provider", JPKI), Viewer("municipality", MUNICIPALITY)],
    ids="-".join,
)
def test_alerts_are_found_by_what_they_are_now(
    story: Story, views: Views, viewer: Viewer, where: dict[str, str], wanted: list[str]
) -> None:
    story.applied()
    story.suspect()
    story.suspect(OTHER_ALERT, level=Level.LOCK, condition="LOST")
    read(views, story)
    story.on_standing(SuspicionWithdrawn(suspicion=OTHER_ALERT))
    read(views, story)

    assert seen(views, viewer, **where) == wanted


def test_nothing_of_the_line_is_in_a_row(story: Story, views: Views) -> None:
    story.applied()
    story.suspect()
    read(views, story)
    text = repr(contents(views))
    assert "+4477" not in text and "tenure" not in text and CREDENTIAL in text and ISD in text
