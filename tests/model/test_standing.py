"""A card's standing: what findings and persons make of it, whatever the order in which signals came."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce

import hypothesis.strategies as st
import pytest
from given import given as given_facts
from hypothesis import given
from line_samples import SIMS, arrivals, at, known, names
from msgspec import structs

from tsm.errors import ErrorCode
from tsm.model.bindings import Known
from tsm.model.detection import Finding, assess
from tsm.model.event import Fact
from tsm.model.line import Signal
from tsm.model.standing import (
    CardCleared,
    LevelChanged,
    Proof,
    Standing,
    SuspicionAcknowledged,
    SuspicionClosed,
    SuspicionEscalated,
    SuspicionRaised,
    SuspicionWithdrawn,
    Verdict,
    acknowledge,
    close,
    escalate,
    evolve,
    reassess,
    release,
)
from tsm.model.swap_policy import DEFAULT, Condition, Level, Policy, Rule

NOW = at(0)
SETTLE = timedelta(hours=24)


def raised(
    suspicion: str = "aa", level: Level = Level.HOLD, since: float = -1, until: float | None = None
) -> SuspicionRaised:
    return SuspicionRaised(
        suspicion=suspicion,
        rule="rule",
        condition=Condition.LOST,
        level=level,
        policy=1,
        since=at(since),
        until=None if until is None else at(until),
        evidence=(3,),
        revoke_from=at(24) if level is Level.REVOKE else None,
    )


def finding(fact: SuspicionRaised) -> Finding:
    return Finding(
        fact.suspicion, fact.rule, Condition(fact.condition), Level(fact.level), fact.since, fact.until, fact.evidence,
        fact.revoke_from,
    )  # fmt: skip


def findings(*facts: SuspicionRaised) -> list[Finding]:
    return [finding(fact) for fact in facts]


def level(level: Level, revoke_from: float | None = None) -> LevelChanged:
    return LevelChanged(level=level, revoke_from=None if revoke_from is None else at(revoke_from))


HELD = (raised(), level(Level.HOLD))
DOOMED = (raised("dd", Level.REVOKE), level(Level.REVOKE, 24))
CLEARED = CardCleared(proof=Proof.CLERK, cleared_at=NOW)
REFUTED = SuspicionClosed(suspicion="aa", verdict=Verdict.FALSE_ALARM, closed_at=NOW)
CONFIRMED = SuspicionClosed(suspicion="aa", verdict=Verdict.CONFIRMED, closed_at=NOW)


def test_nothing_is_suspected_of_a_new_card() -> None:
    assert (Standing().level, Standing().on_hold, Standing().open) == (Level.NONE, False, ())


@pytest.mark.parametrize("of", Level)
def test_a_finding_is_raised_and_makes_the_level(of: Level) -> None:
    found = raised(level=of)
    follows = [] if of is Level.NONE else [level(of, 24 if of is Level.REVOKE else None)]
    given_facts(evolve).when(reassess, findings(found), DEFAULT, NOW).then(found, *follows)
    assert reduce(evolve, [found, *follows], Standing()).on_hold is (of >= Level.HOLD)


def test_what_is_raised_is_no_news() -> None:
    given_facts(evolve, *HELD).when(reassess, findings(raised()), DEFAULT, NOW).then_nothing()


def test_a_new_version_of_the_policy_that_says_the_same_is_no_news() -> None:
    given_facts(evolve, *HELD).when(
        reassess, findings(raised()), structs.replace(DEFAULT, version=2), NOW
    ).then_nothing()


def test_a_policy_that_takes_it_more_seriously_raises_it_again() -> None:
    graver = raised(level=Level.LOCK)
    given_facts(evolve, *HELD).when(reassess, findings(graver), DEFAULT, NOW).then(graver, level(Level.LOCK))


def test_the_highest_level_counts() -> None:
    low = raised("bb", Level.ALERT)
    given_facts(evolve, *HELD).when(reassess, findings(raised(), low), DEFAULT, NOW).then(low)


def test_what_is_found_no_more_is_withdrawn() -> None:
    withdrawn = SuspicionWithdrawn(suspicion="aa")
    given_facts(evolve, *HELD).when(reassess, [], DEFAULT, NOW).then(withdrawn, level(Level.NONE))


def test_a_suspicion_ends_at_its_time_and_not_before() -> None:
    ends = raised(until=1)
    state = given_facts(evolve, ends, level(Level.HOLD))
    state.when(reassess, findings(ends), DEFAULT, at(0.9)).then_nothing()
    state.when(reassess, findings(ends), DEFAULT, at(1)).then(SuspicionWithdrawn(suspicion="aa"), level(Level.NONE))


def test_what_is_over_is_not_raised_any_more() -> None:
    given_facts(evolve).when(reassess, findings(raised(until=-0.5)), DEFAULT, NOW).then_nothing()


# The settle window


def test_no_settle_window_begins_before_anybody_could_have_heard_of_it() -> None:
    long_ago = structs.replace(raised(level=Level.REVOKE), revoke_from=at(-100))
    for facts in ((), HELD):
        fresh = raised(level=Level.REVOKE)
        given_facts(evolve, *facts).when(reassess, findings(long_ago), DEFAULT, NOW).then(
            fresh, level(Level.REVOKE, 24)
        )


def test_late_evidence_makes_a_revocation_wait_longer_but_none_that_is_due() -> None:
    later = structs.replace(DOOMED[0], evidence=(3, 9), revoke_from=at(40))
    told = given_facts(evolve, *DOOMED)
    told.when(reassess, findings(later), DEFAULT, at(23)).then(later, level(Level.REVOKE, 40))
    told.when(reassess, findings(later), DEFAULT, at(24)).then(structs.replace(later, revoke_from=at(24)))


def test_a_revocation_that_is_due_is_taken_back_by_no_policy_whether_it_drops_the_rule_or_lowers_it() -> None:
    told = given_facts(evolve, *DOOMED)
    for found in ([], findings(raised("dd", Level.HOLD))):
        told.when(reassess, found, structs.replace(DEFAULT, version=2), at(24)).then_nothing()


def test_before_it_is_due_a_policy_takes_it_back_also_where_the_card_was_released_before() -> None:
    milder = raised("dd", Level.HOLD)
    told = given_facts(evolve, *DOOMED)
    told.when(reassess, findings(milder), DEFAULT, at(23)).then(milder, level(Level.HOLD))
    told = given_facts(evolve, milder, level(Level.HOLD), CLEARED, level(Level.NONE), *DOOMED)
    told.when(reassess, findings(milder), DEFAULT, at(23)).then(milder, level(Level.NONE))


# A suspicion in place of another

HEIR = raised("bb", since=-2)
GONE = SuspicionWithdrawn(suspicion="aa")


def test_a_signal_that_tells_earlier_of_the_same_case_changes_nothing_of_what_persons_said() -> None:
    locked = [*HELD, SuspicionEscalated(suspicion="aa", level=Level.LOCK), level(Level.LOCK)]
    taken_over = structs.replace(HEIR, succeeds="aa")
    told = given_facts(evolve, *locked)
    told.when(reassess, findings(HEIR), DEFAULT, NOW).then(taken_over, GONE)
    told = given_facts(evolve, *locked, taken_over, GONE)
    told.when(reassess, findings(HEIR), DEFAULT, NOW).then_nothing()
    refuted = SuspicionClosed(suspicion="bb", verdict=Verdict.FALSE_ALARM, closed_at=NOW)
    told.when(close, "bb", Verdict.FALSE_ALARM, NOW).then(refuted, level(Level.NONE))


def test_nor_does_it_raise_a_false_alarm_again() -> None:
    told = given_facts(evolve, *HELD, REFUTED, level(Level.NONE))
    told.when(reassess, findings(HEIR), DEFAULT, NOW).then_nothing()


def test_what_was_said_last_holds_also_when_a_policy_is_taken_back() -> None:
    renamed = structs.replace(raised("bb"), rule="renamed")
    told = [
        *HELD, SuspicionAcknowledged(suspicion="aa"), structs.replace(renamed, succeeds="aa"), GONE,
        SuspicionEscalated(suspicion="bb", level=Level.LOCK), level(Level.LOCK),
    ]  # fmt: skip
    back = structs.replace(raised(), succeeds="bb")
    rules = (Rule(name="rule", condition=Condition.LOST, level=Level.HOLD),)
    again, gone = structs.replace(DEFAULT, rules=rules), SuspicionWithdrawn(suspicion="bb")
    given_facts(evolve, *told).when(reassess, findings(raised()), again, NOW).then(back, gone)
    [suspicion] = reduce(evolve, [*told, back, gone, CONFIRMED], Standing()).open
    assert (suspicion.level, suspicion.decision.verdict) == (Level.LOCK, Verdict.CONFIRMED)


@pytest.mark.parametrize(
    "found",
    [
        [raised("bb", since=-0.5)],  # begins later
        [structs.replace(HEIR, evidence=(4,))],
        [raised(), HEIR],  # both are there
        [structs.replace(HEIR, condition=Condition.SUSPENDED)],
    ],
    ids=["later", "on other evidence", "another", "another condition"],
)
def test_another_case_is_judged_anew(found: list[SuspicionRaised]) -> None:
    told = given_facts(evolve, *HELD, REFUTED, level(Level.NONE))
    new = next(fact for fact in found if fact.suspicion == "bb")
    told.when(reassess, findings(*found), DEFAULT, NOW).then(new, level(Level.HOLD))


def test_only_the_nearest_takes_over() -> None:
    far = raised("cc", since=-3)
    told = given_facts(evolve, *HELD, REFUTED, level(Level.NONE))
    told.when(reassess, findings(far, HEIR), DEFAULT, NOW).then(far, level(Level.HOLD))


def test_a_rule_that_got_another_name_takes_over_and_one_that_is_there_beside_it_does_not() -> None:
    renamed = structs.replace(raised("bb"), rule="renamed")
    rules = [Rule(name=name, condition=Condition.LOST, level=Level.HOLD) for name in ("renamed", "rule")]
    told = given_facts(evolve, *HELD, REFUTED, level(Level.NONE))
    for number, follows in ((1, []), (2, [renamed, level(Level.HOLD)])):
        policy = structs.replace(DEFAULT, rules=tuple(rules[:number]))
        told.when(reassess, findings(renamed), policy, NOW).then(*follows)


def test_what_is_confirmed_stays_and_is_not_handed_on() -> None:
    told = given_facts(evolve, *HELD, CONFIRMED)
    told.when(reassess, findings(HEIR), DEFAULT, NOW).then(HEIR)


# Persons


def test_a_suspicion_is_acknowledged_once() -> None:
    seen = SuspicionAcknowledged(suspicion="aa")
    given_facts(evolve, *HELD).when(acknowledge, "aa").then(seen)
    given_facts(evolve, *HELD, seen).when(acknowledge, "aa").then_nothing()


@pytest.mark.parametrize("gone", [[], [SuspicionWithdrawn(suspicion="aa")], [REFUTED], [CLEARED]])
def test_only_what_is_open_can_be_decided_on(gone: list[Fact]) -> None:
    facts = [*HELD, *gone] if gone else []
    for decide, values in (
        (acknowledge, ()), (escalate, (Level.LOCK, SETTLE, NOW)), (close, (Verdict.FALSE_ALARM, NOW)),
    ):  # fmt: skip
        given_facts(evolve, *facts).when(decide, "aa", *values).then_refused(ErrorCode.NOT_FOUND)


def test_an_escalation_raises_the_level() -> None:
    escalated = SuspicionEscalated(suspicion="aa", level=Level.LOCK)
    given_facts(evolve, *HELD).when(escalate, "aa", Level.LOCK, SETTLE, NOW).then(escalated, level(Level.LOCK))


def test_an_escalation_to_revocation_waits_for_the_settle_window() -> None:
    escalated = SuspicionEscalated(suspicion="aa", level=Level.REVOKE, revoke_from=at(24))
    given_facts(evolve, *HELD).when(escalate, "aa", Level.REVOKE, SETTLE, NOW).then(escalated, level(Level.REVOKE, 24))


@pytest.mark.parametrize("to", [Level.ALERT, Level.HOLD])
def test_nobody_takes_it_less_seriously_by_escalating(to: Level) -> None:
    given_facts(evolve, *HELD).when(escalate, "aa", to, SETTLE, NOW).then_refused(ErrorCode.WRONG_ORDER)


def test_what_was_escalated_does_not_end_by_itself() -> None:
    ends = raised(level=Level.ALERT, until=1)
    escalated = SuspicionEscalated(suspicion="aa", level=Level.HOLD)
    state = given_facts(evolve, ends, level(Level.ALERT), escalated, level(Level.HOLD))
    state.when(reassess, findings(ends), DEFAULT, at(2)).then_nothing()


def test_a_false_alarm_ends_it_for_good() -> None:
    given_facts(evolve, *HELD).when(close, "aa", Verdict.FALSE_ALARM, NOW).then(REFUTED, level(Level.NONE))
    given_facts(evolve, *HELD, REFUTED, level(Level.NONE)).when(
        reassess, findings(raised()), DEFAULT, NOW
    ).then_nothing()


def test_what_is_withdrawn_and_found_again_is_as_serious_and_as_seen_as_persons_left_it() -> None:
    seen = (SuspicionAcknowledged(suspicion="aa"), SuspicionEscalated(suspicion="aa", level=Level.LOCK))
    gone = (SuspicionWithdrawn(suspicion="aa"), level(Level.NONE))
    told = given_facts(evolve, *HELD, *seen, level(Level.LOCK), *gone)
    told.when(reassess, findings(raised()), DEFAULT, NOW).then(raised(), level(Level.LOCK))
    told = given_facts(evolve, *HELD, *seen, level(Level.LOCK), *gone, raised(), level(Level.LOCK))
    told.when(acknowledge, "aa").then_nothing()


def test_a_revocation_that_is_due_is_not_explained_away_and_a_person_may_call_it_off() -> None:
    given_facts(evolve, *DOOMED).when(reassess, [], DEFAULT, at(23)).then(
        SuspicionWithdrawn(suspicion="dd"), level(Level.NONE)
    )
    given_facts(evolve, *DOOMED).when(reassess, [], DEFAULT, at(24)).then_nothing()
    closed = SuspicionClosed(suspicion="dd", verdict=Verdict.FALSE_ALARM, closed_at=at(24))
    given_facts(evolve, *DOOMED).when(close, "dd", Verdict.FALSE_ALARM, at(24)).then(closed, level(Level.NONE))


def test_a_false_alarm_stays_one_when_the_suspicion_is_withdrawn_and_found_again() -> None:
    facts = [*HELD, REFUTED, SuspicionWithdrawn(suspicion="aa"), level(Level.NONE)]
    given_facts(evolve, *facts).when(reassess, findings(raised()), DEFAULT, NOW).then_nothing()


def test_what_is_confirmed_is_not_explained_away() -> None:
    given_facts(evolve, *HELD).when(close, "aa", Verdict.CONFIRMED, NOW).then(CONFIRMED)
    given_facts(evolve, *HELD, CONFIRMED).when(reassess, [], DEFAULT, NOW).then_nothing()
    given_facts(evolve, *HELD, CONFIRMED).when(close, "aa", Verdict.CONFIRMED, NOW).then_nothing()


def test_a_confirmed_revocation_waits_for_nothing_more() -> None:
    confirmed = SuspicionClosed(suspicion="dd", verdict=Verdict.CONFIRMED, closed_at=NOW)
    given_facts(evolve, *DOOMED).when(close, "dd", Verdict.CONFIRMED, NOW).then(confirmed, level(Level.REVOKE, 0))


@pytest.mark.parametrize("released", [(), (CLEARED, level(Level.NONE))])
def test_what_was_confirmed_at_a_lower_level_waits_when_a_policy_makes_a_revocation_of_it(
    released: tuple[Fact, ...],
) -> None:
    """Whoever confirmed a loss has not said that the card is to be revoked, and the holder may have it back."""
    graver = structs.replace(raised(level=Level.REVOKE), revoke_from=at(2400))
    told = given_facts(evolve, *HELD, CONFIRMED, *released)
    told.when(reassess, findings(raised(level=Level.REVOKE)), DEFAULT, at(2376)).then(graver, level(Level.REVOKE, 2400))


def test_and_waits_no_more_when_it_is_confirmed_again() -> None:
    waits = given_facts(evolve, *HELD, CONFIRMED, raised(level=Level.REVOKE), level(Level.REVOKE, 24))
    again = structs.replace(CONFIRMED, closed_at=at(1))
    waits.when(close, "aa", Verdict.CONFIRMED, at(1)).then(again, level(Level.REVOKE, 1))
    seen = SuspicionAcknowledged(suspicion="aa")
    told = (*HELD, CONFIRMED, raised(level=Level.REVOKE), level(Level.REVOKE, 24), seen, again, level(Level.REVOKE, 1))
    given_facts(evolve, *told).when(close, "aa", Verdict.CONFIRMED, at(2)).then_nothing()


def test_a_revocation_can_be_called_off_as_a_false_alarm() -> None:
    refuted = SuspicionClosed(suspicion="dd", verdict=Verdict.FALSE_ALARM, closed_at=NOW)
    given_facts(evolve, *DOOMED).when(close, "dd", Verdict.FALSE_ALARM, NOW).then(refuted, level(Level.NONE))


# Release


def test_a_release_settles_what_began_before_it() -> None:
    given_facts(evolve, *HELD).when(release, Proof.CLERK, "", NOW).then(CLEARED, level(Level.NONE))


def test_a_release_settles_also_what_turns_up_late() -> None:
    released = given_facts(evolve, *HELD, CLEARED, level(Level.NONE))
    released.when(reassess, findings(raised(), raised("bb", since=-5)), DEFAULT, NOW).then_nothing()


def test_a_release_settles_nothing_that_began_after_it() -> None:
    later = raised("bb", since=0.1)
    released = given_facts(evolve, *HELD, CLEARED, level(Level.NONE))
    released.when(reassess, findings(raised(), later), DEFAULT, at(1)).then(later, level(Level.HOLD))


def test_a_release_settles_what_a_source_whose_clock_is_ahead_has_told() -> None:
    told = given_facts(evolve, raised(), raised("bb", since=0.05), level(Level.HOLD))
    cleared = CardCleared(proof=Proof.CLERK, cleared_at=at(0.05))
    told.when(release, Proof.CLERK, "", NOW).then(cleared, level(Level.NONE))


def test_a_release_takes_nothing_back_of_the_one_before_it() -> None:
    ahead = CardCleared(proof=Proof.CLERK, cleared_at=at(2))
    told = given_facts(evolve, *HELD, ahead, level(Level.NONE), raised("dd"), level(Level.HOLD))
    told.when(lambda state: release(state, Proof.CLERK, "", at(1))[:1]).then(ahead)


def test_a_release_settles_no_revocation_that_turns_up_late() -> None:
    late = raised("dd", Level.REVOKE, since=-5)
    released = given_facts(evolve, *HELD, CLEARED, level(Level.NONE))
    released.when(reassess, findings(raised(), late), DEFAULT, NOW).then(late, level(Level.REVOKE, 24))


@pytest.mark.parametrize("facts", [(), (raised(level=Level.ALERT), level(Level.ALERT)), DOOMED])
def test_there_is_no_release_without_a_hold_nor_from_a_revocation(facts: tuple[Fact, ...]) -> None:
    given_facts(evolve, *facts).when(release, Proof.OPERATOR, "", NOW).then_refused(ErrorCode.WRONG_ORDER)


@pytest.mark.parametrize("digest", ["ab", "xy" * 32])
def test_what_the_holder_signed_is_named_by_its_digest(digest: str) -> None:
    given_facts(evolve, *HELD).when(release, Proof.MY_NUMBER_CARD, digest, NOW).then_refused(ErrorCode.INVALID_INPUT)


# The order in which things came

PERSONS: st.SearchStrategy[list[tuple[str, int]]] = st.lists(
    st.tuples(st.sampled_from(["release", "false alarm", "escalation"]), st.integers(0, 100)), max_size=2
)


FORMER = [
    structs.replace(DEFAULT, rules=rules)
    for rules in (
        tuple(  # everything is graver, and ends by itself
            structs.replace(rule, level=Level(min(Level.LOCK, rule.level + 1)), lasts_hours=30)
            for rule in DEFAULT.rules
        ),
        tuple(structs.replace(rule, level=Level.REVOKE, lasts_hours=None) for rule in DEFAULT.rules),
    )
]


def live(
    arrived: Sequence[Known], iccid: str, now: datetime, said: Sequence[Fact], after: int, former: Policy
) -> Standing:
    """Assessed with each signal as it comes; persons speak after so many of them, and another policy is adopted."""
    state = Standing()
    for count in range(len(arrived) + 1):
        if count == min(after, len(arrived)):
            state = reduce(evolve, said, state)
        policy = former if count < min(after, len(arrived)) else DEFAULT
        facts = reassess(state, assess(iccid, arrived[:count], policy, "MNO00001"), policy, now)
        state = reduce(evolve, facts, state)
        assert reassess(state, assess(iccid, arrived[:count], policy, "MNO00001"), policy, now) == []
    return state


def seen(state: Standing, arrived: Sequence[Known]) -> object:
    return (
        state.level,
        state.on_hold,
        state.revoke_from,
        [(s.id, s.level, s.raised.since, s.raised.until, names(s.raised.evidence, arrived)) for s in state.open],
    )


@given(
    arrivals(),
    st.sampled_from(SIMS),
    st.integers(0, 400),
    PERSONS,
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(FORMER),
)
def test_the_standing_depends_on_the_set_of_signals_on_persons_and_on_the_time_alone(
    told_twice: tuple[list[Signal], list[Signal]],
    iccid: str,
    hours: int,
    persons: list[tuple[str, int]],
    after: tuple[int, int],
    former: Policy,
) -> None:
    views = []
    arrived_twice = [known(told, at(hours)) for told in told_twice]  # so no revocation is due: that would be final
    ids = [finding.suspicion for finding in assess(iccid, arrived_twice[0], DEFAULT, "MNO00001")]
    said: list[Fact] = []
    for what, when in persons:
        if what == "release":
            said.append(CardCleared(proof=Proof.CLERK, cleared_at=at(when)))
        elif ids and what == "escalation":
            said.append(SuspicionEscalated(suspicion=ids[when % len(ids)], level=Level.LOCK))
        elif ids:
            suspicion = ids[when % len(ids)]
            said.append(SuspicionClosed(suspicion=suspicion, verdict=Verdict.FALSE_ALARM, closed_at=at(when)))
    for arrived, spoken_after in zip(arrived_twice, after, strict=True):
        views.append(seen(live(arrived, iccid, at(hours), said, spoken_after, former), arrived))
    assert views[0] == views[1]
