"""A subscription: what a sink is told, how often, until when, and that nothing is told twice."""

from datetime import timedelta

import pytest
from given import Given
from hypothesis import given
from hypothesis import strategies as st
from line_samples import NOON, NUMBER

from tsm.errors import ErrorCode, TsmError
from tsm.model import subscription
from tsm.model.subscription import (
    ENDED,
    NOTICE,
    Reason,
    SinkNotified,
    SubscriptionCreated,
    SubscriptionEnded,
    SwapNoted,
)

LATER = NOON + timedelta(days=1)


def created(**changes):
    given = {
        "subject": "tenure-1",
        "client": "https://login.example|bank",
        "line": "line-1",
        "sink": "https://bank.example/sink",
        "purpose": "dpv:FraudPreventionAndDetection",
    }
    return SubscriptionCreated(**{**given, **changes})


def noted(swap):
    return SwapNoted(subject="tenure-1", swap=swap, changed_at=NOON)


def told(name, acknowledged=True):
    return SinkNotified(notification=name, acknowledged=acknowledged, attempts=1, outcome="HTTP 204")


def state_of(*facts):
    return Given(subscription.evolve, facts).state


# Created


def test_a_subscription_is_created_as_it_was_asked_for() -> None:
    whole = created(msisdn=NUMBER, max_events=1, ends_at=LATER, credential_ends_at=LATER)
    for asked in (created(), whole):
        assert subscription.create(asked, NOON) == [asked]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client", ""),
        ("purpose", ""),
        ("sink", "http://bank.example/sink"),
        ("sink", "https://"),
        ("sink", "https:///path"),
        ("sink", "https://user:word@bank.example/"),
        ("sink", "https://bank.example/#fragment"),
        ("sink", "https://bank.example/a\r\nX-Evil: 1"),
        ("sink", "https://bank.example/" + "a" * 2048),
        ("msisdn", "0312345678"),
        ("max_events", -1),
        ("ends_at", NOON),
        ("credential_ends_at", NOON + NOTICE),
    ],
)
def test_what_is_not_as_specified_is_refused_by_its_name(field, value) -> None:
    asked = created(**{field: value})
    with pytest.raises(TsmError) as refusal:
        subscription.create(asked, NOON)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.INVALID_INPUT, (field,))


# Swaps


def test_a_swap_is_noted_once_however_often_it_is_decided() -> None:
    Given(subscription.evolve, [created()]).when(subscription.note_swap, 7, NOON).then(noted(7))
    Given(subscription.evolve, [created(), noted(7)]).when(subscription.note_swap, 7, NOON).then_nothing()
    Given(subscription.evolve, [created(), noted(7)]).when(subscription.note_swap, 9, NOON).then(noted(9))


def test_with_the_last_swap_that_was_wished_for_it_ends() -> None:
    ended = SubscriptionEnded(reason=Reason.MAX_EVENTS_REACHED)
    Given(subscription.evolve, [created(max_events=2)]).when(subscription.note_swap, 7, NOON).then(noted(7))
    Given(subscription.evolve, [created(max_events=2), noted(7)]).when(subscription.note_swap, 8, NOON).then(
        noted(8), ended
    )
    facts = [created(max_events=2), noted(7), noted(8), ended]
    Given(subscription.evolve, facts).when(subscription.note_swap, 9, NOON).then_nothing()


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(1, 5))
def test_no_swap_is_noted_twice_nor_more_of_them_than_wished(positions, most) -> None:
    """Whatever order followers come in, and however often."""
    facts = [created(max_events=most)]
    for position in positions:
        facts += subscription.note_swap(state_of(*facts), position, NOON)
    swaps = [fact.swap for fact in facts if isinstance(fact, SwapNoted)]
    assert swaps == sorted(set(swaps))
    assert len(swaps) <= most
    assert (len(swaps) == most) == (state_of(*facts).ended is not None)


# Told


def test_what_waits_is_told_in_order_and_once() -> None:
    facts = [created(), noted(7), noted(9), SubscriptionEnded(reason=Reason.SUBSCRIPTION_DELETED)]
    assert state_of(*facts).waiting == ("7", "9", ENDED)
    Given(subscription.evolve, facts).when(subscription.notify, "7", True, 1, "HTTP 204").then(told("7"))
    Given(subscription.evolve, [*facts, told("7")]).when(subscription.notify, "7", True, 1, "HTTP 204").then_nothing()
    assert state_of(*facts, told("7"), told("9", acknowledged=False)).waiting == (ENDED,)


def test_it_is_over_when_it_ended_and_nothing_is_left_to_be_told() -> None:
    ended = SubscriptionEnded(reason=Reason.SUBSCRIPTION_EXPIRED)
    assert not subscription.is_over(state_of(created()))
    assert not subscription.is_over(state_of(created(), noted(7), ended))
    assert not subscription.is_over(state_of(created(), noted(7), ended, told("7")))
    assert subscription.is_over(state_of(created(), noted(7), ended, told("7")), [told(ENDED)])


def test_a_quiet_end_leaves_nothing_to_be_told() -> None:
    quiet = SubscriptionEnded(reason=Reason.NETWORK_TERMINATED, detail="gone", quiet=True)
    Given(subscription.evolve, [created(), noted(7)]).when(
        lambda state: subscription.end(state, Reason.NETWORK_TERMINATED, "gone", quiet=True)
    ).then(quiet)
    assert subscription.is_over(state_of(created(), noted(7), noted(8), quiet))


# Ends


def test_it_ends_once() -> None:
    Given(subscription.evolve, [created()]).when(subscription.end, Reason.SUBSCRIPTION_DELETED).then(
        SubscriptionEnded(reason=Reason.SUBSCRIPTION_DELETED)
    )
    ended = [created(), SubscriptionEnded(reason=Reason.SUBSCRIPTION_DELETED)]
    Given(subscription.evolve, ended).when(subscription.end, Reason.SUBSCRIPTION_EXPIRED).then_nothing()


@pytest.mark.parametrize(
    ("ends_at", "credential_ends_at", "deadline"),
    [
        (None, None, None),
        (LATER, None, (LATER, Reason.SUBSCRIPTION_EXPIRED)),
        (None, LATER, (LATER - NOTICE, Reason.ACCESS_TOKEN_EXPIRED)),
        (LATER, LATER, (LATER - NOTICE, Reason.ACCESS_TOKEN_EXPIRED)),
        (LATER, LATER + timedelta(hours=1), (LATER, Reason.SUBSCRIPTION_EXPIRED)),
    ],
)
def test_it_ends_by_itself_while_its_credential_still_opens_the_sink(ends_at, credential_ends_at, deadline) -> None:
    assert subscription.deadline(created(ends_at=ends_at, credential_ends_at=credential_ends_at)) == deadline
