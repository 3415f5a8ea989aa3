"""CAMARA sim-swap 2.1.0 and device-swap 1.0.0: when SIM or phone of a line changed last, and whether it was lately.

    POST /sim-swap/v2/retrieve-date     {phoneNumber?}          -> {latestSimChange, monitoredPeriod?}
    POST /sim-swap/v2/check             {phoneNumber?, maxAge?} -> {swapped}
    POST /device-swap/v1/retrieve-date  {phoneNumber?}          -> {latestDeviceChange, monitoredPeriod?}
    POST /device-swap/v1/check          {phoneNumber?, maxAge?} -> {swapped}

A line that was never swapped has the time of its activation, or of its first phone. What happened before the period
that the settings allow to tell of is null, and its `monitoredPeriod` says how long that is; `maxAge` reaches as far. A
line whose activation nobody told us of, and no change since, has null as well, without a period, for that would say
that nothing changed in it. One that was never seen in a phone has no device to be swapped: SERVICE_NOT_APPLICABLE.

A look-up is a reading of personal data: who asked whose line, and what for, is committed before the answer leaves. What
was asked is recorded as a hash without the number, for a hash of a number is that number to whoever tries them all.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.camara import openapi
from api.camara.answers import Code, Refused, answer, mounted, read_object
from api.camara.lines import PhoneNumber, stream_of
from api.camara.tokens import Consumer
from api.errors import request_id
from projections.line_swaps import LineSwaps, line_swaps
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts

MAX_AGE, DEFAULT_AGE = 2400, 240  # hours


class SwapApi(NamedTuple):
    """One of the two."""

    name: str  # which its scopes begin with
    path: str
    latest: str  # what its answer calls the time of the last change
    changed_at: Callable[[LineSwaps], datetime | None]


def device_changed_at(line: LineSwaps) -> datetime:
    """SERVICE_NOT_APPLICABLE."""
    if line.device_changed_at is None:
        raise Refused(Code.SERVICE_NOT_APPLICABLE)
    return line.device_changed_at


SIM_SWAP = SwapApi("sim-swap", "/sim-swap/v2", "latestSimChange", lambda line: line.sim_changed_at)
DEVICE_SWAP = SwapApi("device-swap", "/device-swap/v1", "latestDeviceChange", device_changed_at)


class LineAsked(msgspec.Struct, frozen=True, rename="camel"):
    """Of which line; without a number, of the token's."""

    phone_number: PhoneNumber | msgspec.UnsetType = msgspec.UNSET

    @property
    def number(self) -> str | None:
        return None if isinstance(self.phone_number, msgspec.UnsetType) else self.phone_number


class CheckAsked(LineAsked, frozen=True):
    """And in how many hours."""

    max_age: int = DEFAULT_AGE


class Seen(NamedTuple):
    """When a line changed last, and when that was looked up."""

    changed_at: datetime | None
    at: datetime

    def changed_within(self, period: timedelta) -> bool:
        return self.changed_at is not None and self.changed_at >= self.at - period


class SwapRoutes:
    """The routes of one of the two."""

    def __init__(self, api: SwapApi, parts: "Parts") -> None:
        self._api = api
        self._door = parts.door
        self._lines = parts.lines
        self._views = parts.views
        self._readings = parts.readings
        self._clock = parts.clock
        self._monitored = parts.settings.camara.monitored_days

    async def retrieve_date(self, request: Request) -> Response:
        consumer = await self._admit(request, "retrieve-date")
        asked = await read_object(request, LineAsked)
        seen = await run(self._look_up, request, consumer, asked.number, "retrieve-date")
        days = self._monitored
        if days is None or seen.changed_at is None or seen.changed_within(timedelta(days=days)):
            return answer({self._api.latest: seen.changed_at})
        return answer({self._api.latest: None, "monitoredPeriod": days})

    async def check(self, request: Request) -> Response:
        consumer = await self._admit(request, "check")
        asked = await read_object(request, CheckAsked)
        longest = longest_age(self._monitored)
        if not 1 <= asked.max_age <= longest:
            raise Refused(Code.OUT_OF_RANGE, f"maxAge is 1 to {longest} hours here")
        seen = await run(self._look_up, request, consumer, asked.number, f"check maxAge={asked.max_age}")
        return answer({"swapped": seen.changed_within(timedelta(hours=asked.max_age))})

    async def _admit(self, request: Request, operation: str) -> Consumer:
        scopes = self._api.name, f"{self._api.name}:{operation}"
        return await run(self._door.admit, request.scope, scopes)

    def _look_up(self, request: Request, consumer: Consumer, number: str | None, query: str) -> Seen:
        """When it changed last, recorded as read. IDENTIFIER_NOT_FOUND for a line that is not in service (any more).

        Whatever the store refuses, there is no answer.
        """
        line = line_swaps(self._views, stream_of(self._lines, consumer, number))
        if line is None:
            raise Refused(Code.IDENTIFIER_NOT_FOUND)
        asked = hashlib.sha256(f"POST {self._api.path}/{query}".encode()).hexdigest()
        self._readings.record(consumer.caller, request_id(request), consumer.purpose, asked, [line.subject])
        if not line.in_service:
            raise Refused(Code.IDENTIFIER_NOT_FOUND)
        return Seen(self._api.changed_at(line), self._clock())


def longest_age(monitored_days: int | None) -> int:
    """How far back `check` looks, in hours."""
    return MAX_AGE if monitored_days is None else min(MAX_AGE, 24 * monitored_days)


def routes(parts: "Parts") -> list[Route]:
    return [routes_of(api, parts) for api in (SIM_SWAP, DEVICE_SWAP)]


def routes_of(api: SwapApi, parts: "Parts") -> Route:
    served = SwapRoutes(api, parts)
    document = openapi.of_swaps(api.name, api.path, api.latest, parts.settings.openid)
    return mounted(
        api.path,
        [
            Route(f"{api.path}/retrieve-date", served.retrieve_date, methods=["POST"]),
            Route(f"{api.path}/check", served.check, methods=["POST"]),
            openapi.route(api.path, document),
        ],
    )
