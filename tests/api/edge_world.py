"""The edge of the GraphQL API with a small schema behind it: whatever the real one may become, these fields stay.

Everything else is real: callers and their tokens, the log, the gate, and where a test asks for it sockets and TLS.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from os import urandom
from pathlib import Path
from socket import create_connection
from typing import Any

import httpx
import strawberry
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from strawberry.types import Info

from api import administration, local_login
from api.bootstrap import Parts, Settings, build
from api.errors import RequestIds, refuse
from api.graphql import http
from api.graphql.context import Context, contexts_of
from api.graphql.gate import Gate
from api.limits import EdgeLimits
from tests.api.https import serving
from tests.samples import OPERATOR
from tsm.application import Change
from tsm.errors import ErrorCode, TsmError
from tsm.model import operator
from tsm.model.event import Context as EventContext
from tsm.store.loop import Ticket

ROLES = frozenset({"auditor", "administrator", "operator"})
JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
FORBIDDEN_FIELD = "secret"  # only for administrators


@strawberry.type
class Item:
    id: int
    name: str

    @strawberry.field
    def children(self) -> list["Item"]:
        return [Item(id=self.id * 10 + n, name="child") for n in range(2)]

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError("the inside of the file")


@strawberry.type
class Page:
    nodes: list[Item]


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "world"

    @strawberry.field
    def request(self, info: Info[Context, None]) -> str:
        return info.context.request_id

    @strawberry.field
    def secret(self) -> str:
        return "for administrators"

    @strawberry.field
    def echo(self, text: str = "", number: int = 0, numbers: list[int] | None = None) -> str:
        return f"{text}{number}{numbers or ''}"

    @strawberry.field
    def item(self) -> Item | None:
        return Item(id=1, name="one")

    @strawberry.field
    def items(self, first: int | None = None, last: int | None = None) -> Page:
        return Page(nodes=[Item(id=n, name="item") for n in range(first or last or 50)])

    @strawberry.field
    def waits(self, seconds: float) -> str:
        Ticket[None]().wait_for(seconds)
        return "done"

    @strawberry.field
    def must(self) -> str:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the name of the disk")

    @strawberry.field
    def refuses(self) -> str | None:
        raise GraphQLError("not so", extensions={"code": ErrorCode.INVALID_INPUT})


@strawberry.type
class Mutation:
    @strawberry.mutation
    def enrol(self, info: Info[Context, None], waits: float = 0) -> int:
        """Commits, and then takes its time."""
        context = info.context
        about = EventContext(
            actor="system:test", role="system", tenant="MNO00001", correlation="test", request=context.request_id
        )
        change = Change(operator.stream(urandom(4).hex()), 0, [OPERATOR])
        position = context.log.commit(change, context=about, occurred_at=context.log.now())
        Ticket[None]().wait_for(waits)
        return position


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, count: int = 3, every: float = 0, size: int = 1) -> AsyncGenerator[str, None]:
        for n in range(count):
            await asyncio.sleep(every)
            yield str(n).rjust(size, "x")

    @strawberry.subscription
    async def breaks(self) -> AsyncGenerator[str, None]:
        yield "first"
        raise RuntimeError("the inside of the file")


SCHEMA = strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription)


def refusals(document: Any, name: str | None, role: str, schema: Any) -> list[GraphQLError]:
    """`secret` is for administrators."""
    text = document.loc.source.body
    refused = FORBIDDEN_FIELD in text and role != "administrator"
    return [GraphQLError("not for you", extensions={"code": ErrorCode.FORBIDDEN})] if refused else []


class Edge:
    """A server's parts, and the edge in front of them as a test wants it."""

    def __init__(self, folder: Path) -> None:
        administration.initialise(folder / "server", folder / "kek", "127.0.0.1", 8443)
        self.parts: Parts = build(Settings.load(folder / "server"))

    def gate(self, limits: EdgeLimits | None = None, **options: Any) -> Gate:
        parts = self.parts
        return Gate(
            SCHEMA,
            parts.access,
            contexts_of(parts),
            refusals,
            parts.clock,
            roles=ROLES,
            limits=limits or EdgeLimits(),
            **options,
        )

    def app(self, limits: EdgeLimits | None = None, **options: Any) -> Any:
        return Starlette(
            routes=http.routes(self.gate(limits, **options)),
            middleware=[Middleware(RequestIds)],
            exception_handlers={TsmError: refuse, Exception: refuse},
        )

    def token(self, role: str = "auditor", person: str = "alice", life: float = 3600, tenant: str = "*") -> str:
        settings, vault, now = self.parts.settings, self.parts.vault, self.parts.clock()
        until = timedelta(seconds=life)
        return local_login.sign(vault, settings.public_url, role, tenant, person, until, now, urandom(16).hex())

    def client(self, role: str = "auditor", limits: EdgeLimits | None = None, **options: Any) -> "Client":
        return Client(self.app(limits, **options), self.token(role))

    @contextmanager
    def serving(self, limits: EdgeLimits | None = None, **options: Any) -> Iterator["Server"]:
        """On a real socket, with TLS."""
        tls = self.parts.settings.tls
        any_tls, older_tls = (ssl.create_default_context(cafile=str(tls.party_ca)) for _ in range(2))
        older_tls.maximum_version = ssl.TLSVersion.TLSv1_2
        with serving(self.app(limits, **options), tls, limits=limits) as url:
            yield Server(int(url.rpartition(":")[2]), any_tls, older_tls)

    def close(self) -> None:
        self.parts.close()


@dataclass
class Client:
    """Requests without a network, of one person."""

    app: Any
    token: str

    def send(self, method: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://server") as http:
                del http.headers["accept"]
                bearer = {"Authorization": f"Bearer {self.token}"}
                return await http.request(method, "/graphql", headers={**bearer, **(headers or {})}, **options)

        return asyncio.run(run())

    def post(self, content: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(content, bytes):
            return self.send("POST", {"Content-Type": JSON, **named}, content=content)
        return self.send("POST", named, json=content)

    def ask(self, query: str, **members: Any) -> httpx.Response:
        return self.post({"query": query, **members})

    def get(self, headers: dict[str, str] | None = None, **parameters: str) -> httpx.Response:
        return self.send("GET", headers, params=parameters)


@dataclass
class Server:
    """Where it listens, and what connects to it."""

    port: int
    tls: ssl.SSLContext
    tls_of_two_threads: ssl.SSLContext  # one reads while one writes: with tickets of TLS 1.3, what is written gets lost

    def connect(self) -> ssl.SSLSocket:
        plain = create_connection(("127.0.0.1", self.port), timeout=20)
        return self.tls.wrap_socket(plain, server_hostname="127.0.0.1")


def read_to_end(connection: ssl.SSLSocket) -> bytes:
    """All that comes until the server ends the connection."""
    read = b""
    try:
        while chunk := connection.recv(65536):
            read += chunk
    except (ConnectionError, ssl.SSLError):
        return read
    return read


def drip(connection: ssl.SSLSocket, octet: bytes, seconds: float, longest: float) -> float:
    """Sends one octet again and again until the server has had enough of it; after how long that was."""
    began = time.monotonic()
    try:
        while time.monotonic() - began < longest:
            connection.send(octet)
            time.sleep(seconds)
    except (ConnectionError, ssl.SSLError):
        return time.monotonic() - began
    raise AssertionError("nobody ended it")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
