"""Subscriptions: what comes, for whom, from where on, and until when."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from graphql import ExecutionResult, GraphQLError

from api.graphql import news
from api.graphql.authorization import EVERYBODY, refusals
from api.graphql.context import contexts_of
from api.graphql.documents import Refused
from api.graphql.gate import Asked, Gate
from api.graphql.news import News
from api.graphql.schema import SCHEMA
from projections.views import Views
from tests.api.graphql_world import World
from tests.projections.registry_story import (
    ALERT,
    CARD,
    ISD,
    JPKI,
    MNO,
    OTHER_ALERT,
    OTHER_CARD,
    THIRD_ALERT,
    Story,
)
from tsm.errors import ErrorCode, TsmError
from tsm.model import operation, session, standing

EVENTS = "subscription ($filter: EventsFilter, $after: Position) { events(filter: $filter, after: $after)"
EVENTS += " { position topic text card } }"
SESSIONS = "subscription ($filter: SessionsFilter, $after: Position) { sessions(filter: $filter, after: $after)"
SESSIONS += " { position session { state live reception operator exchanges card { iccid } } } }"
OPERATIONS = "subscription ($after: Position) { operations(after: $after) { position operation { operation state } } }"
ALERTS = "subscription ($filter: AlertsFilter, $after: Position) { alerts(filter: $filter, after: $after)"
ALERTS += " { position alert { alert state level iccid evidencePositions } } }"
SOON = 5.0  # seconds: a test that waits longer fails


class Live:
    """A world in which things happen while somebody listens."""

    def __init__(self, world: World) -> None:
        self.world = world
        parts = world.parts
        self.gate = Gate(SCHEMA, parts.access, contexts_of(parts), refusals, parts.clock, roles=frozenset(EVERYBODY))
        self._numbers: dict[str, int] = {}

    async def listen(
        self, role: str, tenant: str, query: str, **variables: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        token = self.world.token(role, tenant)
        scope = {"type": "websocket", "headers": [(b"authorization", f"Bearer {token}".encode())], "extensions": {}}
        caller = await self.gate.caller(scope)
        admitted = self.gate.admit(caller, Asked(query=query, variables=variables))
        return self.gate.stream(admitted, "request-of-test-")

    def tell(self, tells: Callable[[Story], object]) -> None:
        """More of the story: streams go on where the log is."""
        story = Story()
        story._receptions = 50
        tells(story)
        self.world.record([self._placed(event) for event in story.events])

    def _placed(self, event: Any) -> Any:
        stream = event.originator_id
        history = list(self.world.parts.tsm.history(stream))
        number = self._numbers.get(stream, len(history)) + 1
        self._numbers[stream] = number
        return type(event)(
            originator_id=stream,
            originator_version=number,
            occurred_at=event.occurred_at,
            context=event.context,
            fact=event.fact,
        )


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    world = World(tmp_path)
    yield Live(world)
    world.close()


async def take(stream: AsyncGenerator[ExecutionResult, None], number: int) -> list[Any]:
    """The data of the next answers."""
    found = []
    async with asyncio.timeout(SOON):
        while len(found) < number:
            result = await anext(stream)
            assert result.errors is None
            assert result.data is not None
            found.append(next(iter(result.data.values())))
    return found


async def nothing_comes(stream: AsyncGenerator[ExecutionResult, None]) -> bool:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5 * news.LOOK):
            await anext(stream)
    return True


def at_once(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # a coroutine


def unknown_card(story: Story) -> None:
    story.card("8981100000000000093")


def other_card(story: Story) -> None:
    story.card("8981100000000000044", "MNO00002")


# Events


def test_events_come_as_they_are_recorded_and_none_of_before(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", EVENTS)
        waiting = asyncio.ensure_future(take(stream, 1))
        await asyncio.sleep(3 * news.LOOK)
        live.tell(unknown_card)
        [event] = await waiting
        assert event["position"] == live.world.parts.tsm.position
        assert (event["topic"], event["card"]) == ("card.registered", "8981100000000000093")
        assert event["text"].startswith("registered for operator MNO00001")
        await stream.aclose()

    at_once(story)


def test_who_resumes_after_a_position_misses_nothing_and_gets_nothing_twice(live: Live) -> None:
    async def story() -> None:
        end = live.world.parts.tsm.position
        stream = await live.listen("auditor", "*", EVENTS, after=0)
        first = [event["position"] for event in await take(stream, 40)]
        await stream.aclose()
        live.tell(unknown_card)
        stream = await live.listen("auditor", "*", EVENTS, after=first[-1])
        rest = [event["position"] for event in await take(stream, end + 1 - 40)]
        assert first + rest == list(range(1, end + 2))
        live.tell(other_card)
        assert [event["position"] for event in await take(stream, 1)] == [end + 2]
        await stream.aclose()

    at_once(story)


def test_a_subscriber_gets_what_he_may_see_only(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("operator", f"operator:{MNO}", EVENTS, after=0)
        live.tell(other_card)
        live.tell(unknown_card)
        seen = []
        while not seen or seen[-1]["card"] != "8981100000000000093":
            seen += await take(stream, 1)
        assert {event["card"] for event in seen} & {OTHER_CARD, "8981100000000000044"} == set()
        await stream.aclose()

    at_once(story)


def test_a_filter_leaves_what_is_so(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", EVENTS, after=0, filter={"kinds": ["card."], "card": OTHER_CARD})
        events = await take(stream, 3)
        assert {event["card"] for event in events} == {OTHER_CARD}
        assert all(event["topic"].startswith("card.") for event in events)
        await stream.aclose()

    at_once(story)


@pytest.mark.parametrize("wanted", [False, True])
def test_who_was_shown_personal_data_is_told_to_who_asks_for_it_only(live: Live, wanted: bool) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", EVENTS, filter={"readings": wanted})
        waiting = asyncio.ensure_future(take(stream, 1))
        await asyncio.sleep(3 * news.LOOK)
        reader = live.world.person("auditor", "*", "reader")
        asked = '{ credentials { nodes { personalData(purpose: "a test") { applicant } } } }'
        assert (await reader.send(asked, {})).status_code == 200
        live.tell(unknown_card)
        [event] = await waiting
        assert event["topic"] == ("reading.data_accessed" if wanted else "card.registered")
        await stream.aclose()

    at_once(story)


def test_readings_are_refused_to_others(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("provider", f"provider:{JPKI}", EVENTS, filter={"readings": True})
        with pytest.raises(Exception, match="readings are for auditors"):
            await anext(stream)

    at_once(story)


def test_a_position_that_the_log_does_not_have_is_refused(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", EVENTS, after=10**9)
        with pytest.raises(Exception, match="the log has no such position yet"):
            await anext(stream)

    at_once(story)


@pytest.mark.parametrize("query", [SESSIONS, OPERATIONS])
@pytest.mark.parametrize(("role", "tenant"), [("clerk", "municipality:13101"), ("administrator", "*")])
def test_what_a_role_may_not_follow_is_refused_before_it_begins(live: Live, query: str, role: str, tenant: str) -> None:
    async def story() -> None:
        with pytest.raises(Refused) as refused:
            await live.listen(role, tenant, query)
        assert refused.value.errors[0].extensions == {"code": "FORBIDDEN"}

    at_once(story)


# Sessions and operations


def test_a_session_comes_as_it_is_now_whenever_it_changes(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("operator", f"operator:{MNO}", SESSIONS)
        waiting = asyncio.ensure_future(take(stream, 1))
        await asyncio.sleep(3 * news.LOOK)
        live.tell(lambda story: story.session(MNO, ISD, CARD, MNO, ended=False))
        [change] = await waiting
        assert (change["session"]["state"], change["session"]["live"]) == ("DISCONNECTING", True)
        assert change["session"]["card"] == {"iccid": CARD}
        reception = change["session"]["reception"]
        waiting = asyncio.ensure_future(take(stream, 1))
        end = session.SessionEnded(status="00", mas_sign="a signature", request_sha256="34" * 32)
        stream_name = session.stream(MNO, reception)
        live.tell(lambda story: story.tell(stream_name, end, actor="phone", tenant=MNO))
        [change] = await waiting
        assert (change["session"]["state"], change["session"]["live"]) == ("ENDED", False)
        assert change["position"] == live.world.parts.tsm.position
        await stream.aclose()

    at_once(story)


def test_sessions_of_others_do_not_come(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("operator", f"operator:{MNO}", SESSIONS)
        waiting = asyncio.ensure_future(nothing_comes(stream))
        await asyncio.sleep(2 * news.LOOK)
        live.tell(lambda story: story.session("MNO00002", ISD, OTHER_CARD, "MNO00002"))
        assert await waiting

    at_once(story)


def test_sessions_can_be_followed_from_the_beginning_and_by_filter(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", SESSIONS, after=0, filter={"live": True})
        [change] = await take(stream, 1)
        assert (change["session"]["operator"], change["session"]["live"]) == ("MNO00002", True)
        await stream.aclose()
        stream = await live.listen("auditor", "*", SESSIONS, after=change["position"], filter={"live": True})
        assert await nothing_comes(stream)

    at_once(story)


def test_an_operation_comes_when_it_changes(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("operator", f"operator:{MNO}", OPERATIONS)
        waiting = asyncio.ensure_future(take(stream, 1))
        await asyncio.sleep(3 * news.LOOK)
        live.tell(lambda story: story.on_operation("op-1", operation.OperationEnded(state="DONE")))
        [change] = await waiting
        assert change["operation"] == {"operation": "op-1", "state": "DONE"}
        await stream.aclose()

    at_once(story)


# Its end, and what it costs


def test_a_subscription_ends_with_the_proof_of_identity(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.api.graphql_world.LIFE", timedelta(seconds=1))

    async def story() -> None:
        stream = await live.listen("auditor", "*", EVENTS)
        async with asyncio.timeout(SOON):
            assert [result async for result in stream] == []

    at_once(story)


def test_many_subscribers_cost_one_look_and_no_thread(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    positions = Views.positions
    monkeypatch.setattr(Views, "positions", lambda views: looks.append(1) or positions(views))

    async def story() -> None:
        waiting = News(live.world.parts.views)
        end, threads = live.world.parts.views.position, threading.active_count()
        looks.clear()
        many = [asyncio.ensure_future(waiting.beyond(end)) for _ in range(200)]
        await asyncio.sleep(3 * news.LOOK)
        assert 1 <= len(looks) <= 6
        assert threading.active_count() == threads
        live.tell(unknown_card)
        async with asyncio.timeout(SOON):
            assert set(await asyncio.gather(*many)) == {live.world.parts.views.position}
        await asyncio.sleep(2 * news.LOOK)
        looks.clear()
        await asyncio.sleep(3 * news.LOOK)
        assert looks == []  # nobody waits any more

    at_once(story)


def test_a_subscriber_outlives_a_database_that_is_away_for_a_while(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", EVENTS)
        waiting = asyncio.ensure_future(take(stream, 1))
        await asyncio.sleep(2 * news.LOOK)

        def away(_: object) -> object:
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, "away")

        with monkeypatch.context() as patched:
            patched.setattr(Views, "positions", away)
            await asyncio.sleep(3 * news.LOOK)
        live.tell(unknown_card)
        [event] = await waiting
        assert event["topic"] == "card.registered"
        await stream.aclose()

    at_once(story)


# Alerts


def test_alerts_come_as_they_are_raised_and_change_to_those_who_see_them(live: Live) -> None:
    async def story() -> None:
        own = await live.listen("operator", f"operator:{MNO}", ALERTS)
        others = await live.listen("operator", "operator:MNO00002", ALERTS)
        held = await live.listen("auditor", "*", ALERTS, filter={"level": "HOLD", "iccid": CARD})
        waiting = [asyncio.ensure_future(take(stream, 1)) for stream in (own, held)]
        never = asyncio.ensure_future(nothing_comes(others))
        await asyncio.sleep(3 * news.LOOK)
        live.tell(lambda story: story.suspect("d4" * 16))
        for [change] in [await each for each in waiting]:
            assert (change["alert"]["alert"], change["alert"]["state"]) == ("d4" * 16, "OPEN")
        live.tell(lambda story: story.on_standing(standing.SuspicionWithdrawn(suspicion="d4" * 16)))
        [change] = await take(own, 1)
        assert change["alert"]["state"] == "WITHDRAWN"
        assert change["position"] == live.world.parts.tsm.position
        assert await never
        for stream in (own, others, held):
            await stream.aclose()

    at_once(story)


def test_who_follows_alerts_again_after_a_position_gets_what_changed_since(live: Live) -> None:
    async def story() -> None:
        stream = await live.listen("auditor", "*", ALERTS, after=0)
        changes = await take(stream, 3)
        assert [change["alert"]["alert"] for change in changes] == [ALERT, OTHER_ALERT, THIRD_ALERT]
        await stream.aclose()
        stream = await live.listen("auditor", "*", ALERTS, after=changes[1]["position"])
        assert await take(stream, 1) == changes[2:]
        assert await nothing_comes(stream)
        await stream.aclose()

    at_once(story)


def test_alerts_are_followed_after_a_position_and_not_a_time(live: Live) -> None:
    async def story() -> None:
        times = {"raisedFrom": "2026-11-21T00:00:00Z"}
        stream = await live.listen("auditor", "*", ALERTS, filter=times)
        with pytest.raises(GraphQLError, match="after a position"):
            await anext(stream)

    at_once(story)
