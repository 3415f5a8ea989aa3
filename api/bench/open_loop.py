"""Requests that come when they come: on a schedule, whether or not the server has answered those before.

A time is counted from the moment at which the schedule had something, so whatever waits, in the server or for a
connection to it, is in the figure. One HTTP/1.1 client over TLS, as small as possible: it has one core with all else
that is not the server.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from api.bench.graphql import END_OF_HEAD, length_of

LEAD = 0.2  # seconds from now to the first
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Answer(NamedTuple):
    """Of one request."""

    status: int
    body: bytes


async def at_rate(rate: float, number: int, do: Callable[[int, float], Awaitable[None]]) -> float:
    """`do(place, due)` for each, at its time; returns the time of the first when all are done. Times of the loop."""
    time = asyncio.get_running_loop().time
    begin = time() + LEAD
    async with asyncio.TaskGroup() as group:
        for place in range(number):
            due = begin + place / rate
            await asyncio.sleep(max(0.0, due - time()))
            group.create_task(_run(do(place, due)))
    return begin


async def _run(done: Awaitable[None]) -> None:
    await done


class Connections:
    """Kept connections, used in turns: one that says nothing is closed. Whoever finds none free waits for one."""

    def __init__(self, opened: Sequence[Streams]) -> None:
        self._free: asyncio.Queue[Streams] = asyncio.Queue()
        for streams in opened:
            self._free.put_nowait(streams)

    async def ask(self, request: bytes) -> Answer:
        streams = await self._free.get()
        reader, writer = streams
        writer.write(request)
        head = await reader.readuntil(END_OF_HEAD)
        body = await reader.readexactly(length_of(head))
        self._free.put_nowait(streams)
        return Answer(status_of(head), body)


@asynccontextmanager
async def connections(url: str, context: ssl.SSLContext, number: int) -> AsyncIterator[Connections]:
    opened: list[Streams] = []
    try:
        for _ in range(number):
            opened.append(await connected(url, context))
        yield Connections(opened)
    finally:
        for _, writer in opened:
            writer.close()


class Upload:
    """A request whose body is written while its answer, lines of JSON, comes in."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    def begin(self, path: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ntransfer-encoding: chunked\r\n\r\n"
        self._writer.write(head.encode())

    def say(self, lines: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(lines), lines))

    def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    async def answers(self) -> AsyncIterator[bytes]:
        """What came together, each with whole lines. RuntimeError for a refusal."""
        head = await self._reader.readuntil(END_OF_HEAD)
        if status_of(head) != 200:
            raise RuntimeError(head.decode(errors="replace"))
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]


async def connected(url: str, context: ssl.SSLContext) -> Streams:
    place = urlsplit(url)
    return await asyncio.open_connection(place.hostname, place.port, ssl=context)


def status_of(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many of a hundred do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
