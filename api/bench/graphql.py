"""Pages of the admin API against a bare endpoint, as the log grows from ten thousand to a million events.

Both are routes of one server process, with the same caller by the same token, the same rows by the same query and the
same eight values of each. The bare one hands them to Starlette's `JSONResponse`; ours is a GraphQL request, with all
that belongs to one. What is asked for lies anywhere in the log. Clients ask over plain HTTP/1.1 on kept connections,
each in a closed loop; they and the database have one core, the server has the other. Before anything is measured the
answers are compared. Most of the time that this takes goes into two logs of a million events and their read models.
"""

import asyncio
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice, pairwise
from pathlib import Path
from random import Random
from socket import IPPROTO_TCP, TCP_NODELAY, create_server
from statistics import median
from typing import Any, NamedTuple

import httpx
from rich.progress import Progress
from rich.table import Table
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from api import local_login
from api.access import ALL, Role
from api.app import create_app
from api.bench.history import Filler, History
from api.bench.large import OCTETS, refuse_without_room
from api.bench.report import Line, faster, medians, on_other_core, tell, told, wide_console
from api.bench.sites import (
    HOST,
    POSTGRES,
    SQLITE,
    UNLIMITED,
    OpenSite,
    at_once,
    cpu_ms,
    rests,
    serving,
    set_up,
    stores,
)
from api.bootstrap import Parts, Settings, build
from api.demo.stage import Server
from api.graphql.types.paging import cursor
from api.tls import AnnouncingServer, EdgeConfig, PartyProtocol
from projections.event_index import EVENT_INDEX, EventFilter, EventRow
from projections.event_index import page as page_of_events
from projections.registry import REGISTRY
from projections.registry.listings import page as page_of_listing
from projections.registry.lists import CREDENTIALS
from projections.viewer import EVERYTHING
from projections.views import Views
from tsm.store.loop import run

SEED = 7
PAGE = 50  # nodes
CLIENTS = 8
CURSORS = 400  # different ones
RATIO = 0.5  # the goal
MEASURED = (EVENT_INDEX, REGISTRY)  # the read models that are asked
EVENTS = """query ($after: String) { events(first: 50, after: $after) {
  edges { cursor node { position topic actor tenant recordedAt correlation card stream } }
  pageInfo { hasNextPage endCursor } } }"""
PERSONAL = """query ($after: String) { credentials(first: 50, after: $after) {
  edges { cursor node { credential provider municipality stage
    personalData(purpose: "bench") { applicant iccid mainCertificateSerial authenticationSerial } } }
  pageInfo { hasNextPage endCursor } } }"""
END_OF_HEAD, LENGTH = b"\r\n\r\n", b"content-length: "


class Sizes(NamedTuple):
    """Events of the log at each look, and how long a side is asked in a round."""

    events: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    seconds: float = 1.5


# --- The server ---


def serve_measured(data: Path) -> None:
    """The server as it is, and the bare endpoint beside it; without TLS, and without workers, who would go on with
    what the history left unfinished."""
    parts = replace(build(Settings.load(data)), workers=())
    app = create_app(parts)
    app.router.routes.append(Route("/bare", partial(bare, parts), methods=["GET"]))
    with create_server((HOST, 0)) as listener:
        listener.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # as the server does, and the next but one line
        config = EdgeConfig(
            app, http=PartyProtocol, log_config=None, access_log=False, proxy_headers=False, server_header=False
        )
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        gc.collect()
        gc.freeze()
        asyncio.run(AnnouncingServer(config, lambda: print(json.dumps({"url": url}), flush=True)).serve([listener]))


async def bare(parts: Parts, request: Request) -> JSONResponse:
    """A page of events, and nothing else."""
    return JSONResponse(await run(bare_page, parts, request))


def bare_page(parts: Parts, request: Request) -> list[dict[str, Any]]:
    caller, after = parts.access.caller(request), int(request.query_params["after"])
    rows = page_of_events(parts.views, caller.viewer, EventFilter(), after, None, PAGE + 1)
    return [values(row) for row in rows[:PAGE]]


def values(row: EventRow) -> dict[str, Any]:
    return {
        "position": row.position,
        "topic": row.topic,
        "actor": row.actor,
        "tenant": row.tenant,
        "recordedAt": row.recorded_at.isoformat(),
        "correlation": row.correlation,
        "card": row.card or None,
        "stream": row.stream,
    }


# --- Who asks ---


class Question(NamedTuple):
    """One request."""

    method: str
    path: str
    content: bytes = b""

    def encode(self, token: str) -> bytes:
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(self.content)}\r\n\r\n"
        )
        return head.encode() + self.content


def graphql(query: str, after: int) -> Question:
    return Question("POST", "/graphql", json.dumps({"query": query, "variables": {"after": cursor(after)}}).encode())


def bare_question(after: int) -> Question:
    return Question("GET", f"/bare?after={after}")


class Client(asyncio.Protocol):
    """Asks the next as soon as it is answered, until its time is over."""

    def __init__(self, requests: Iterator[bytes], end: float) -> None:
        self._requests = requests
        self._end = end
        self._answer = bytearray()
        self.answers = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  TCP
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, body = bytes(self._answer).partition(END_OF_HEAD)
        if not separator or len(body) < length_of(head):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._fail(f"{head.decode(errors='replace')} {body[:500].decode(errors='replace')}")
            return
        self.answers += 1
        self._answer.clear()
        if time.perf_counter() < self._end:
            self._ask()
        else:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._fail(f"the connection is gone: {exc}")

    def close(self) -> None:
        self._transport.close()

    def _ask(self) -> None:
        self._transport.write(next(self._requests))

    def _fail(self, said: str) -> None:
        self.done.set_exception(RuntimeError(said))


def length_of(head: bytes) -> int:
    return int(head.lower().partition(LENGTH)[2].partition(b"\r\n")[0])


class Side:
    """What is asked of one server in turn with others."""

    def __init__(self, server: Server, token: str, questions: Sequence[Question], seconds: float) -> None:
        self._server = server
        self._requests = cycle([question.encode(token) for question in questions])
        self._seconds = seconds
        self._cpu_ms: list[float] = []

    def answers(self) -> float:
        """Answers a second."""
        before = cpu_ms(self._server.pid)
        number, took = asyncio.run(answered(self._server.url, self._requests, self._seconds))
        self._cpu_ms.append((cpu_ms(self._server.pid) - before) / number)
        return number / took

    @property
    def cpu_ms(self) -> float:
        """Of the server, for an answer: the median of the rounds."""
        return median(self._cpu_ms)


async def answered(url: str, requests: Iterator[bytes], seconds: float) -> tuple[int, float]:
    """How many answers, and in how many seconds."""
    host, _, port = url.removeprefix("http://").partition(":")
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    made = [
        await loop.create_connection(lambda: Client(requests, began + seconds), host, int(port)) for _ in range(CLIENTS)
    ]
    clients = [client for _, client in made]
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - began
    for client in clients:
        client.close()
    return sum(client.answers for client in clients), took


def answer_to(url: str, token: str, question: Question) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    said = httpx.request(
        question.method, url + question.path, content=question.content, headers=headers, trust_env=False
    )
    if said.status_code != httpx.codes.OK:
        raise RuntimeError(f"{question.path}: {said.status_code} {said.text}")
    return said.json()


def refuse_other_rows(url: str, token: str, afters: Sequence[int]) -> None:
    """RuntimeError unless both sides answer the same."""
    for after in afters:
        ours = answer_to(url, token, graphql(EVENTS, after))["data"]["events"]["edges"]
        theirs = answer_to(url, token, bare_question(after))
        if [edge["node"] for edge in ours] != theirs or len(ours) != PAGE:
            raise RuntimeError(f"after {after} the sides do not answer the same {PAGE} rows")


# --- The log ---


class Cost(NamedTuple):
    """Pages a second, and milliseconds of the server's CPU for each."""

    rate: float
    cpu_ms: float

    def __str__(self) -> str:
        return f"{1000 / self.rate:.2f} ({self.cpu_ms:.2f})"


class Pages(NamedTuple):
    """What was measured at one size."""

    events: Cost
    bare: Cost
    personal: Cost


class Site(OpenSite):
    """A server's data on one engine, whose log grows."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        super().__init__(data, stack)
        self.token = local_login.sign(
            self.vault,
            self.settings.public_url,
            Role.AUDITOR,
            ALL,
            "bench",
            local_login.LONGEST,
            datetime.now(UTC),
            os.urandom(16).hex(),
        )

    def measure(self, rounds: int, seconds: float) -> Pages:
        """Pages from anywhere in the log."""
        drawn = Random(SEED)  # noqa: S311 - nothing secret is drawn
        afters = [drawn.randrange(self.tsm.position - PAGE) for _ in range(CURSORS)]
        people = begins_of_pages(self.views, drawn)
        questions = (
            [graphql(EVENTS, after) for after in afters],
            [bare_question(after) for after in afters],
            [graphql(PERSONAL, after) for after in people],
        )
        with serving(self.data, "serve-graphql") as server, on_other_core():
            refuse_other_rows(server.url, self.token, afters[:5])
            rests(server)
            sides = [Side(server, self.token, asked, seconds) for asked in questions]
            rates = medians(rounds, *(side.answers for side in sides))
            return Pages(*(Cost(rate, side.cpu_ms) for rate, side in zip(rates, sides, strict=True)))


def begins_of_pages(views: Views, drawn: Random) -> list[int]:
    """After what full pages of credentials begin: 0, or the position of one."""
    rows = page_of_listing(views, CREDENTIALS, EVERYTHING, {}, 0, None, CURSORS + PAGE)
    if len(rows) < PAGE:
        raise RuntimeError(f"a log with {len(rows)} credentials is too short")
    begins = [0, *(row.position for row in rows[:-PAGE])]
    return [drawn.choice(begins) for _ in range(CURSORS)]


def new_site(data: Path, store: str) -> None:
    """Where no client's budget ends."""
    set_up(data, store, limits={"cost_per_minute": {Role.AUDITOR: UNLIMITED}})


def grow(data: Path, events: int, drawn: int) -> None:
    """From the `drawn` events of the history that the log has to `events`; the read models are rebuilt."""
    with ExitStack() as stack, Progress(disable=True) as progress:
        site = OpenSite(data, stack)
        history = islice(History(SEED).events(), drawn, None)
        Filler(site.recorder, site.vault, history).fill(events - drawn, progress)
        site.rebuild(MEASURED, progress)


# --- The report ---


def measured(folder: Path, rounds: int, sizes: Sizes, progress: Progress) -> dict[str, list[Pages]]:
    """On each engine at each size."""
    pages: dict[str, list[Pages]] = {SQLITE: [], POSTGRES: []}
    with stores(folder) as places:
        for data, store in places.values():
            new_site(data, store)
        for drawn, events in pairwise((0, *sizes.events)):
            growing = {name: partial(grow, data, events, drawn) for name, (data, _) in places.items()}
            at_once(progress, f"{events:,} events", growing)
            for name, (data, _) in places.items():
                with ExitStack() as stack:
                    pages[name].append(Site(data, stack).measure(rounds, sizes.seconds))
    return pages


def lines(name: str, pages: Pages) -> Iterator[Line]:
    events, bare, personal = (cost.rate for cost in pages)
    yield faster(f"{name}: page of {PAGE} events x 8 fields", events, "bare Starlette, JSON", bare, RATIO)
    yield told("  credentials with personal data, each page recorded", personal, "page of events", events)


def growth(measured: dict[str, list[Pages]], sizes: Sizes) -> Table:
    """What a page costs at each size."""
    table = Table(title=f"A page as the log grows: ms from one to the next for {CLIENTS} clients, and the server's CPU")
    table.add_column("events")
    for size in sizes.events:
        table.add_column(f"{size:,}", justify="right")
    for name, pages in measured.items():
        for place, what in enumerate(("page of events", "the same, bare", "with personal data")):
            table.add_row(f"{name}: {what}", *(str(each[place]) for each in pages))
    return table


def report(rounds: int, sizes: Sizes | None = None) -> bool:
    """Measure and print; whether every goal was met."""
    console, sizes = wide_console(), sizes or Sizes()
    with tempfile.TemporaryDirectory() as made, Progress(console=console, transient=True) as progress:
        refuse_without_room(Path(made), sizes.events[-1] * OCTETS)
        pages = measured(Path(made), rounds, sizes, progress)
    console.print(growth(pages, sizes))
    title = f"Pages of the API out of {sizes.events[-1]:,} events, medians of {rounds} rounds"
    return tell(console, title, [line for name, of_engine in pages.items() for line in lines(name, of_engine[-1])])
