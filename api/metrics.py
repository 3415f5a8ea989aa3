"""What the server counts and measures, for Prometheus: `GET /metrics`, for administrators.

A monitoring system shows a service token of the role administrator (`tsm admin service-token`), which sees no data of
anybody. Labels have few values, all ours: routes as they are declared, roles, statuses, error codes. No party, no
person, nothing of a request.

`prometheus-client` keeps the counters and writes the format: it is the reference, has no dependencies, and tells of the
process (memory, files, processor time) as well. What lies in the store and in the read models is looked up when asked.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from api.access import Access, Caller, Role
from api.errors import Receive, Scope, Send
from api.logs import REQUEST
from projections.registry.listings import counts
from projections.viewer import EVERYTHING
from projections.views import Views
from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import run

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COSTS = (1, 10, 50, 100, 500, 1_000, 5_000, 10_000)  # objects
METHODS = {"GET", "HEAD", "POST", "OPTIONS"}
NO_ROUTE, CUT = "none", "cut"  # a route that there is not; a status that was never sent
SERVER_FAULT = "500"
log = logging.getLogger("api.requests")


class Worker(Protocol):
    """What runs beside the requests."""

    @property
    def name(self) -> str: ...
    def keeping_up(self) -> bool: ...


class Parts(Protocol):
    """The parts of the server that are looked at."""

    @property
    def tsm(self) -> Tsm: ...
    @property
    def views(self) -> Views: ...
    @property
    def access(self) -> Access: ...
    @property
    def metrics(self) -> "Metrics": ...
    @property
    def workers(self) -> Sequence[Worker]: ...


class Metrics:
    """The counters of one server. Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (GCCollector, PlatformCollector, ProcessCollector):
            collector(registry=self.registry)
        self._requests = Counter(
            "tsm_http_requests", "Requests answered.", ("route", "method", "status", "role"), registry=self.registry
        )
        self._seconds = Histogram(
            "tsm_http_request_seconds", "From a request's headers to the end of its answer.", ("route",),
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._cost = Histogram(
            "tsm_graphql_cost_objects", "Objects that GraphQL requests asked for.", ("role",),
            buckets=COSTS, registry=self.registry,
        )  # fmt: skip
        self._refusals = Counter(
            "tsm_graphql_refusals", "GraphQL requests that were refused before they ran.", ("code", "role"),
            registry=self.registry,
        )  # fmt: skip
        self._exported = Counter("tsm_exported_events", "Events in exports.", registry=self.registry)

    def answered(self, route: str, method: str, status: str, role: str, seconds: float) -> None:
        self._requests.labels(route, method if method in METHODS else "other", status, role).inc()
        self._seconds.labels(route).observe(seconds)

    def graphql_admitted(self, role: str, cost: int) -> None:
        """A document passed the gate; `cost` in objects."""
        self._cost.labels(role).observe(cost)

    def graphql_refused(self, role: str, code: str) -> None:
        """It did not: an ErrorCode says why."""
        self._refusals.labels(code, role).inc()

    def exported(self, events: int) -> None:
        self._exported.inc(events)


class State:
    """What is looked up when the metrics are asked for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        yield gauge("tsm_committer_waiting", "Appends that wait to be recorded.", self._parts.tsm.waiting)
        keeping_up = GaugeMetricFamily("tsm_worker_keeping_up", "Whether a worker keeps up: 1 or 0.", labels=["worker"])
        for worker in self._parts.workers:
            keeping_up.add_metric([worker.name], float(worker.keeping_up()))
        yield keeping_up
        yield from told_or_silent(self._of_the_store)
        yield from told_or_silent(self._of_the_read_models)
        yield from told_or_silent(self._of_the_sessions)

    def _of_the_store(self) -> Iterator[Metric]:
        yield gauge("tsm_log_position", "Position of the last event of the log.", self._parts.tsm.position)

    def _of_the_read_models(self) -> Iterator[Metric]:
        end, views = self._parts.tsm.position, self._parts.views
        lag = GaugeMetricFamily("tsm_read_model_lag_events", "Events that it has not read yet.", labels=["name"])
        parked = GaugeMetricFamily("tsm_read_model_parked_events", "Events that it lacks.", labels=["name"])
        for projection in views.projections:
            serving = views.serving(projection)
            lag.add_metric([projection.name], max(0, end - (serving.position if serving else 0)))
            parked.add_metric([projection.name], serving.parked if serving else 0)
        yield lag
        yield parked

    def _of_the_sessions(self) -> Iterator[Metric]:
        found = counts(self._parts.views, EVERYTHING)
        over = sum(found.get(f"sessions.{state}", 0) for state in ("ENDED", "EXPIRED"))
        yield gauge("tsm_live_sessions", "Sessions with a card.", found.get("sessions", 0) - over)


def told_or_silent(look: Callable[[], Iterator[Metric]]) -> list[Metric]:
    """Nothing of what cannot be looked up now: a gap says so, and the other figures are there when they are needed."""
    try:
        return list(look())
    except TsmError as error:
        log.warning("metrics: %s", error)
        return []


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


class Observed:
    """ASGI middleware: counts and logs every HTTP request, and lets its log lines have its id and caller."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Any], metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status, began, token = CUT, time.perf_counter(), REQUEST.set(scope)

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = str(message["status"])
            elif message["type"] == "websocket.accept":
                status = "101"
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            status = SERVER_FAULT if status == CUT else status  # it will be told so, further out
            raise
        finally:
            self._tell(scope, status, time.perf_counter() - began)
            REQUEST.reset(token)

    def _tell(self, scope: Scope, status: str, seconds: float) -> None:
        route, method = getattr(scope.get("route"), "path", NO_ROUTE), scope.get("method", "WEBSOCKET")
        caller: Caller | None = scope.get("caller")
        role = "" if caller is None else str(caller.role)
        self._metrics.answered(route, method, status, role, seconds)
        if route not in UNTOLD:
            facts = {"status": status, "milliseconds": round(seconds * 1000, 3)}
            log.info("%s %s %s", method if method in METHODS else "other", route, status, extra={"facts": facts})


UNTOLD = {"/health", "/ready", "/metrics"}  # asked all the time, by machines


def routes(parts: Parts) -> list[BaseRoute]:
    parts.metrics.registry.register(State(parts))

    async def metrics(request: Request) -> Response:
        """FORBIDDEN for all but administrators."""
        caller = await run(parts.access.of, request.scope)
        if caller.role != Role.ADMINISTRATOR:
            raise TsmError(ErrorCode.FORBIDDEN, f"metrics are not for {caller.role}")
        text = await asyncio.to_thread(generate_latest, parts.metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})

    return [Route("/metrics", metrics, methods=["GET"])]
