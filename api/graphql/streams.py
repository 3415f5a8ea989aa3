"""Subscriptions: server-sent events (POST with `Accept: text/event-stream`), and websockets (`graphql-transport-ws`).

Both run the same operations through the same gate, and end in the same ways: with the caller's proof of identity, which
is looked at again now and then; after the longest time that the settings allow; when the client goes away, or takes
messages too slowly. Nothing is queued for a client: the next result is asked for when the last has been sent. Whoever
was cut off subscribes again from the last position that he has.

Events are those of the distinct connections mode of GraphQL over server-sent events: `next` with a result, `complete`.
A request that is refused is a `next` with errors.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, MutableMapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from graphql import ExecutionResult, GraphQLError, OperationType
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.access import Caller
from api.errors import Receive, Scope, Send, logged
from api.graphql.answers import EVENTS, NO_STORE, UTF_8, is_foreign, read_json, refused_content, result_content
from api.graphql.documents import NOT_ALLOWED, Refused, refused
from api.graphql.gate import UNAVAILABLE, Asked, Gate
from api.limits import EdgeLimits, Places
from tsm.errors import ErrorCode, TsmError

PROTOCOL = "graphql-transport-ws"
PULSE = 15.0  # seconds of silence after which a comment shows that the connection is there
LOOK_AGAIN = 5.0  # seconds after which nothing more is told to a caller who was not looked at again
INIT_SECONDS = 10.0  # for connection_init
REASON = 123  # octets that a close frame has for it (RFC 6455 section 5.5)
IDLE_SECONDS = 60.0  # that a websocket may be open with nothing running
MAX_OPERATIONS = 10  # of one websocket at one time

INVALID, UNAUTHORIZED, FORBIDDEN, NO_PROTOCOL = 4400, 4401, 4403, 4406
INIT_TIMEOUT, ID_TAKEN, TOO_MANY, NORMAL, INTERNAL = 4408, 4409, 4429, 1000, 1011


@dataclass
class Streams:
    """What subscriptions share: whom they belong to, and how many each client has."""

    gate: Gate

    def __post_init__(self) -> None:
        self._places = Places(self.limits.streams_per_client)

    @property
    def limits(self) -> EdgeLimits:
        return self.gate.limits

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """One of the client's places, for as long as the block runs; `Refused` when it has all of them."""
        if not self._places.take(client):
            raise refused(429, "this client has too many subscriptions", ErrorCode.RATE_LIMITED)
        try:
            yield
        finally:
            self._places.leave(client)

    def seconds_left(self, caller: Caller) -> float:
        """How long a connection of this caller may live."""
        if caller.expires_at is None:
            return self.limits.stream_seconds
        return min(self.limits.stream_seconds, (caller.expires_at - self.gate.clock()).total_seconds())

    async def feed(
        self, scope: MutableMapping[str, Any], caller: Caller, asked: Asked, request_id: str
    ) -> AsyncGenerator[tuple[Mapping[str, int], ExecutionResult] | None, None]:
        """Results with what they cost, and None after some seconds of silence.

        The caller has entered the gate. `Refused` for what may not run, `TsmError` when he is nobody any more.
        """
        with self.place(caller.client):
            admitted = self.gate.admit(caller, asked)
            if admitted.kind is OperationType.MUTATION:
                raise refused(NOT_ALLOWED, "a mutation is sent by POST")
            looked_at = self.gate.clock()
            async with aclosing(pulsing(self.gate.stream(admitted, request_id), PULSE)) as results:
                async for result in results:
                    if (self.gate.clock() - looked_at).total_seconds() >= LOOK_AGAIN:
                        await self.gate.caller(scope)
                        looked_at = self.gate.clock()
                    yield None if result is None else (admitted.charge, result)


async def pulsing(
    results: AsyncGenerator[ExecutionResult, None], seconds: float
) -> AsyncGenerator[ExecutionResult | None, None]:
    """The results, and None whenever that many seconds pass without one."""
    coming: asyncio.Future[ExecutionResult] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(results))
            await asyncio.wait({coming}, timeout=seconds)
            if not coming.done():
                yield None
                continue
            try:
                result = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield result
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
        await results.aclose()


class Slow(Exception):
    """The client does not take what we send."""


async def in_time(sending: Awaitable[None], seconds: float) -> None:
    """`Slow` when the client does not take it in time."""
    try:
        async with asyncio.timeout(seconds):
            await sending
    except TimeoutError:
        raise Slow from None


def cut(scope: Scope) -> None:
    """Ends the connection of an answer that its client does not take, where there is one (`api.tls`)."""
    if "cut" in scope.get("extensions", {}):
        scope["extensions"]["cut"]["connection"]()


def failure(error: Exception) -> Refused:
    """Something went wrong in the middle: `told` by its code, the rest goes to the log."""
    return Refused(UNAVAILABLE, [GraphQLError(str(error), original_error=error)])


class EventStream:
    """The answer to one operation, as server-sent events. An ASGI application."""

    def __init__(self, streams: Streams, connection: HTTPConnection, caller: Caller, asked: Asked) -> None:
        self._streams = streams
        self._connection = connection
        self._caller = caller
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Content-Type": f"{EVENTS}; {UTF_8}", "X-Accel-Buffering": "no", **NO_STORE}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        telling = asyncio.create_task(self._tell(scope, send))
        gone = asyncio.create_task(left(receive))
        seconds = self._streams.seconds_left(self._caller)
        done, _ = await asyncio.wait({telling, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (telling, gone):
            task.cancel()
        await asyncio.wait({telling, gone})
        too_slow = telling in done and isinstance(telling.exception(), Slow)
        if too_slow:
            cut(scope)
        elif gone not in done:
            try:
                await self._send(send, b"", more=False)
            except Slow:
                cut(scope)

    async def _tell(self, scope: Scope, send: Send) -> None:
        try:
            feed = self._streams.feed(scope, self._caller, self._asked, str(scope.get("request_id", "")))
            async with aclosing(feed) as results:
                async for result in results:
                    await self._send(send, b":\n\n" if result is None else event("next", self._content(*result)))
        except Refused as error:
            await self._send(send, event("next", refused_content(self._connection, error)))
        except Slow:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is logged, and told by its code
            await self._send(send, event("next", refused_content(self._connection, failure(error))))
        await self._send(send, b"event: complete\ndata: \n\n")

    def _content(self, charge: Mapping[str, int], result: ExecutionResult) -> dict[str, Any]:
        return result_content(self._connection, charge, result)

    async def _send(self, send: Send, body: bytes, more: bool = True) -> None:
        part = {"type": "http.response.body", "body": body, "more_body": more}
        await in_time(send(part), self._streams.limits.send_seconds)


def event(name: str, content: Mapping[str, Any]) -> bytes:
    """JSON has no line break of its own."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(content))


async def left(receive: Receive) -> None:
    """Until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Init(msgspec.Struct, frozen=True, tag_field="type", tag="connection_init"):
    """`payload.authorization` may hold what a browser cannot put into a header: `Bearer` and a token."""

    payload: dict[str, Any] | None = None


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    payload: dict[str, Any] | None = None


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    payload: dict[str, Any] | None = None


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe"):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    payload: Asked


class Complete(msgspec.Struct, frozen=True, tag_field="type", tag="complete"):
    id: str


Message = Init | Ping | Pong | Subscribe | Complete


class Ends(Exception):
    """The server closes the websocket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocketEndpoint:
    """`/graphql` for websockets."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        if is_foreign(socket.headers):
            await socket.close()  # before the handshake is done: status 403
            return
        if PROTOCOL not in scope["subprotocols"]:
            await socket.accept()
            await socket.close(NO_PROTOCOL, "Subprotocol not acceptable")
            return
        await socket.accept(PROTOCOL)
        await Conversation(self._streams, socket).hold()


class Conversation:
    """One websocket: its caller, and the operations that run on it."""

    def __init__(self, streams: Streams, socket: WebSocket) -> None:
        self._streams = streams
        self._socket = socket
        self._scope: MutableMapping[str, Any] = socket.scope
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._caller: Caller | None = None
        self._asked = 0  # operations so far
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + INIT_SECONDS
        self._quiet_since = self._loop.time()  # nothing was said since, and nothing ran
        self._ended: asyncio.Future[Ends | None] = self._loop.create_future()

    async def hold(self) -> None:
        reading = asyncio.create_task(self._read())
        try:
            waiting: list[asyncio.Future[Any]] = [reading, self._ended]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks: list[asyncio.Task[None]] = [reading, *self._operations.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if self._ended.done() and (end := self._ended.result()) is not None:
            await self._close(end)

    async def _close(self, end: Ends) -> None:
        """A client that takes nothing is not waited for: its connection ends with this call."""
        try:
            async with asyncio.timeout(1):
                await self._socket.close(end.code, end.reason.encode()[:REASON].decode(errors="ignore"))
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            return

    def _end(self, end: Ends | None) -> None:
        if not self._ended.done():
            self._ended.set_result(end)

    async def _read(self) -> None:
        try:
            while True:
                await self._take(await self._next())
        except Ends as end:
            if end.code == INVALID and self._caller is not None:
                self._streams.gate.fine(self._caller)
            self._end(end)
        except WebSocketDisconnect:
            self._end(None)
        except Slow:
            self._end(Ends(NORMAL, "Too slow"))
        except TsmError as error:
            code = logged(self._socket, error)
            forbidden = code in (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
            self._end(Ends(FORBIDDEN, "Forbidden") if forbidden else Ends(INTERNAL, "Internal error"))

    async def _next(self) -> Message:
        """The next message; `Ends` when the time for it is over, or it is none."""
        while True:
            try:
                async with asyncio.timeout(self._patience()):
                    text = await self._socket.receive_text()
                break
            except TimeoutError:
                self._refuse_late()
            except KeyError:
                raise Ends(INVALID, "Binary messages are not taken") from None
        self._quiet_since = self._loop.time()
        return read_message(text)

    def _patience(self) -> float:
        """Seconds until the next look whether the time is over: what runs may end meanwhile."""
        now = self._loop.time()
        if self._caller is None:
            return self._until - now
        quiet = 0 if self._operations else now - self._quiet_since
        return min(self._until - now, IDLE_SECONDS - quiet)

    def _refuse_late(self) -> None:
        if self._caller is None:
            raise Ends(INIT_TIMEOUT, "Connection initialisation timeout")
        if self._loop.time() >= self._until:
            raise Ends(UNAUTHORIZED, "Sign in again")
        if not self._operations and self._loop.time() >= self._quiet_since + IDLE_SECONDS:
            raise Ends(NORMAL, "Nothing was asked for")

    async def _take(self, message: Message) -> None:
        if isinstance(message, Init):
            await self._begin(message)
        elif isinstance(message, Ping):
            await self._send({"type": "pong"})
        elif isinstance(message, Subscribe):
            self._subscribe(message)
        elif isinstance(message, Complete) and (task := self._operations.pop(message.id, None)) is not None:
            task.cancel()

    async def _begin(self, init: Init) -> None:
        if self._caller is not None:
            raise Ends(TOO_MANY, "Too many initialisation requests")
        self._scope = with_token(self._socket.scope, (init.payload or {}).get("authorization"))
        self._caller = await self._streams.gate.caller(self._scope)
        self._until = self._loop.time() + self._streams.seconds_left(self._caller)
        await self._send({"type": "connection_ack"})

    def _subscribe(self, message: Subscribe) -> None:
        if self._caller is None:
            raise Ends(UNAUTHORIZED, "Unauthorized")
        if message.id in self._operations:
            raise Ends(ID_TAKEN, f"Subscriber for {message.id} already exists")
        self._operations[message.id] = asyncio.create_task(self._run(message))

    async def _run(self, message: Subscribe) -> None:
        """One operation, to its end."""
        try:
            await self._answer(message.id, message.payload)
        except Slow:
            self._end(Ends(NORMAL, "Too slow"))
        except WebSocketDisconnect:
            self._end(None)

    async def _answer(self, name: str, asked: Asked) -> None:
        try:
            await self._tell(name, asked)
        except (Slow, WebSocketDisconnect):
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is logged, and told by its code
            refusal = error if isinstance(error, Refused) else failure(error)
            errors = refused_content(self._socket, refusal)["errors"]
            await self._last(name, {"type": "error", "id": name, "payload": errors})

    async def _tell(self, name: str, asked: Asked) -> None:
        """Who asks is looked at each time: a certificate or token may have been withdrawn since the beginning."""
        if len(self._operations) > MAX_OPERATIONS:
            raise refused(429, "too many operations on this connection", ErrorCode.RATE_LIMITED)
        caller = await self._streams.gate.caller(self._scope)
        self._streams.gate.enter(caller)
        self._asked += 1
        request_id = f"{self._scope.get('request_id', '')}-{self._asked}"  # each is shown personal data for itself
        async with aclosing(self._streams.feed(self._scope, caller, asked, request_id)) as results:
            async for result in results:
                if result is not None:
                    content = result_content(self._socket, *result)
                    await self._send({"type": "next", "id": name, "payload": content})
        await self._last(name, {"type": "complete", "id": name})

    async def _last(self, name: str, message: Mapping[str, Any]) -> None:
        """Its id is free again before the client hears of it."""
        self._operations.pop(name, None)
        self._quiet_since = self._loop.time()
        await self._send(message)

    async def _send(self, message: Mapping[str, Any]) -> None:
        text = msgspec.json.encode(message).decode()
        await in_time(self._socket.send_text(text), self._streams.limits.send_seconds)


def read_message(text: str) -> Message:
    """`Ends` with 4400 for what is no message of the protocol."""
    try:
        message: Message = msgspec.convert(read_json(text.encode()), Message)
    except (TsmError, Refused, msgspec.ValidationError, UnicodeError):
        raise Ends(INVALID, "Invalid message") from None
    return message


def with_token(scope: MutableMapping[str, Any], authorization: object) -> MutableMapping[str, Any]:
    """The scope as if the handshake had had this header; as it is without one."""
    if not isinstance(authorization, str):
        return scope
    others = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    return {**scope, "headers": [*others, (b"authorization", authorization.encode(errors="replace"))]}
