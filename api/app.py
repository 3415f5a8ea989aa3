"""The whole outside on one screen.

POST /mas/delegation          DELEGATE            operator, provider       XML, MC-05 interface 2
POST /mas/link                START .. END        anybody's phone          XML, MC-05 interface 3
GET  /mno/return              RE-ACCESS           anybody's browser        MC-05 interface 5, the operator's site
POST /mas/report              its device          anybody's phone, within its session          JSON
POST /mno/signals, /subjects  what happened to lines  operator             NDJSON, answered line by line
     /sp-tsm/*                deployment, keys, access codes               JSON, provider
     /counter/*               applications                                 JSON, terminal
     /authority/*             what the certificate authority reports       JSON, authority
POST /sim-swap/v2/*           when a SIM changed   a relying party's token      JSON, CAMARA
POST /device-swap/v1/*        when a phone changed a relying party's token      JSON, CAMARA
     /sim-swap-subscriptions/v0.3/*  to be told    a relying party's token      JSON, CAMARA
     /graphql                 the admin API       everybody with a role    GraphQL over HTTP, SSE, websockets
GET  /exports/events          the same, in bulk   auditor, officer, party  JSON Lines or CSV, streamed
GET  /metrics                 how much, how fast  administrator            Prometheus
GET  /health                  is it up            anybody                  JSON, 503 when a worker does not keep up
GET  /ready                   can it do its work  anybody                  JSON, 503 with what lacks
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware

from api import exports, health, metrics
from api.bootstrap import Parts
from api.camara import subscriptions, swaps
from api.errors import RequestIds, refuse
from api.graphql import schema
from api.metrics import Observed
from api.rest import authority, common_app, counter, operator_site, signals, sp_tsm
from api.xml import mas
from tsm.errors import TsmError


def create_app(parts: Parts) -> Starlette:
    """The ASGI application; its lifespan runs the workers and closes the parts."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        parts.start()
        try:
            yield
        finally:
            parts.close()

    app = Starlette(
        routes=[
            *mas.routes(parts.sessions, parts.access),
            *common_app.routes(parts),
            *operator_site.routes(parts),
            *signals.routes(parts),
            *sp_tsm.routes(parts),
            *counter.routes(parts),
            *authority.routes(parts),
            *swaps.routes(parts),
            *subscriptions.routes(parts),
            *schema.routes(parts),
            *exports.routes(parts),
            *metrics.routes(parts),
            *health.routes(parts),
        ],
        middleware=[Middleware(RequestIds), Middleware(Observed, parts.metrics)],
        exception_handlers={TsmError: refuse, Exception: refuse},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a path with a slash too many is none of ours
    return app
