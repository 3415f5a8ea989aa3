"""A feed: lines of JSON that are read as they come, and answered one by one, in order (NDJSON).

A client may send a whole body, or keep one request open and write a line whenever there is one: it is answered while it
goes on. Lines are taken together when they come together: `MOST_LINES` of them, or what has come `GATHER` after the
first. Nothing is read that was not asked for, and an answer that the client does not take in time ends the connection.
So a client that reads only once it has written everything must keep to some hundred lines in one request.

    {"line": 1, "id": "s-1", "position": 4711, "repeated": false}
    {"line": 2, "id": "s-2", "error": {"code": "INVALID_INPUT", "message": "...", "field": ["imei"]}}

A request that is refused as a whole before its first answer gets a status and a code as everywhere else. One that ends
early after that has as its last line what it ended for, without a number; what was not answered is to be sent again:

    {"error": {"code": "TIMEOUT", "message": "...", "field": []}, "requestId": "5f3a..."}

An empty line is no line, but shows that the client is there: it may be silent for `SILENCE` otherwise.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec
from starlette.requests import Request

from api.access import Access, Caller
from api.errors import Receive, Scope, Send, logged, request_id
from api.graphql.answers import is_foreign
from api.graphql.streams import Slow, cut, in_time
from api.limits import EdgeLimits, Places
from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import run

MEDIA_TYPE = "application/x-ndjson"
LONGEST_LINE = 8 * 1024  # octets
LARGEST_BODY = 4 * 1024**3  # octets of one request, however long it takes
MOST_LINES = 64  # that are taken at once: some twenty milliseconds of work
GATHER = 0.02  # seconds after the first line of a batch
SILENCE = 60.0  # seconds without an octet
log = logging.getLogger(__name__)


class Problem(msgspec.Struct, frozen=True):
    """Why a line, or the rest of them, is not taken."""

    code: ErrorCode
    message: str
    field: tuple[str, ...]

    @classmethod
    def of(cls, error: TsmError) -> "Problem":
        return cls(error.code, error.message, error.field)


class Taken(msgspec.Struct, frozen=True):
    """A line that is recorded."""

    line: int
    id: str
    position: int
    repeated: bool


class Refused(msgspec.Struct, frozen=True):
    """A line that is not."""

    line: int
    id: str  # empty when none could be read
    error: Problem


class Ended(msgspec.Struct, frozen=True, rename="camel"):
    """Why there are no more answers."""

    error: Problem
    request_id: str


class Result(msgspec.Struct, frozen=True):
    """What became of a line."""

    id: str
    position: int = 0
    repeated: bool = False
    error: TsmError | None = None


Take = Callable[[Sequence[bytes], Caller, str], list[Result]]  # one result for each line; given the request's id


class Feed:
    """A route that takes lines of one kind from operators. An ASGI application."""

    def __init__(self, access: Access, limits: EdgeLimits, take: Take) -> None:
        self._access = access
        self._limits = limits
        self._take = take
        self._places = Places(limits.streams_per_client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """UNAUTHENTICATED, FORBIDDEN; RATE_LIMITED for a client that has too many feeds open."""
        request = Request(scope, receive)
        if is_foreign(request.headers):
            raise TsmError(ErrorCode.FORBIDDEN, "another site's page made a browser send it")
        client = self._access.demand(request, "operator").client
        if not self._places.take(client):
            raise TsmError(ErrorCode.RATE_LIMITED, f"{client} has {self._places.most} feeds")
        try:
            await self._serve(request, Answer(request, send, self._limits.send_seconds))
        except Slow:
            cut(scope)
        finally:
            self._places.leave(client)

    async def _serve(self, request: Request, answer: "Answer") -> None:
        number = 0
        try:
            async with aclosing(batches(request.receive, self._limits.stream_seconds)) as coming:
                async for lines in coming:
                    caller = self._access.demand(request, "operator")  # it may have been withdrawn since
                    results = await run(self._take, lines, caller, request_id(request))
                    await answer.say([told(number + place, result) for place, result in enumerate(results, 1)])
                    number += len(lines)
        except Slow:
            raise
        except Exception as error:
            if not answer.begun:
                raise
            problem = Problem.of(TsmError(logged(request, error)))
            await answer.say([Ended(problem, request_id(request))])
        await answer.end()
        log.info("%s feed of %d lines", request_id(request), number)


class Answer:
    """What is sent while the request still comes in."""

    def __init__(self, request: Request, send: Send, seconds: float) -> None:
        """`Slow` from each of the others when the client takes nothing for so many seconds."""
        self.begun = False
        self._request = request
        self._send = send
        self._seconds = seconds

    async def say(self, lines: Sequence[Taken | Refused | Ended]) -> None:
        await self._begin()
        body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        await self._sent({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        await self._begin()
        await self._sent({"type": "http.response.body", "body": b""})

    async def _begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"cache-control", b"no-store"),
            (b"tsm-request-id", request_id(self._request).encode()),
        ]
        await self._sent({"type": "http.response.start", "status": 200, "headers": headers})

    async def _sent(self, message: dict[str, object]) -> None:
        await in_time(self._send(message), self._seconds)


def told(line: int, result: Result) -> Taken | Refused:
    if result.error is not None:
        return Refused(line, result.id, Problem.of(result.error))
    return Taken(line, result.id, result.position, result.repeated)


async def batches(receive: Receive, longest: float) -> AsyncGenerator[list[bytes], None]:
    """The lines of a body, as they come, with at least one in each batch.

    MESSAGE_TOO_LARGE for a line, or for all together; TIMEOUT after a silence, and after `longest` seconds. What came
    from a client that has gone away is taken nevertheless, but for the line that it had begun.
    """
    time = asyncio.get_running_loop().time
    ends, size, rest = time() + longest, 0, b""
    waiting: list[bytes] = []
    due = 0.0
    arriving = asyncio.ensure_future(receive())
    try:
        while True:
            await asyncio.wait({arriving}, timeout=max(0.0, due - time()) if waiting else SILENCE)
            over = False
            if arriving.done():
                message = arriving.result()
                over = message["type"] == "http.disconnect" or not message.get("more_body", False)
                chunk = message.get("body", b"")
                size += len(chunk)
                *whole, rest = (rest + chunk).split(b"\n")
                if over and message["type"] != "http.disconnect":
                    whole.append(rest)
                if size > LARGEST_BODY or any(len(line) > LONGEST_LINE for line in (*whole, rest)):
                    raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, "a line, or the whole feed")
                due = due if waiting else time() + GATHER
                waiting += [line for line in whole if line.strip()]
                if not over:
                    arriving = asyncio.ensure_future(receive())
            elif not waiting:
                raise TsmError(ErrorCode.TIMEOUT, "a feed that was silent")
            while len(waiting) >= MOST_LINES or (waiting and (over or time() >= due)):
                yield waiting[:MOST_LINES]
                waiting = waiting[MOST_LINES:]
            if over:
                return
            if time() >= ends and not waiting:
                raise TsmError(ErrorCode.TIMEOUT, "a feed that was open for as long as it may")
    finally:
        arriving.cancel()
