"""GraphQL over HTTP, as its specification says (draft of August 2026), and where a subscription begins.

POST takes JSON; GET takes the same members in the URL, and runs queries only. Until a request has been read, a refusal
looks as everywhere else in the API (no identity, no type that we take, too large, no JSON); from then on it is a
GraphQL response without `data` and with the status of its cause. The answer's type is
`application/graphql-response+json`; a client that takes `application/json` only gets that for what succeeded. An answer
with data and errors has status 294.

Every error has `extensions.code`, one of the codes of `tsm.errors`, and `extensions.requestId`, under which the log of
the server has the rest. No batches, no cookies, no uploads; nothing that another site's page could make a browser send.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from graphql import ExecutionResult, OperationType
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from api.access import Caller
from api.errors import Receive, Scope, Send, read_body, request_id
from api.graphql import ide
from api.graphql.answers import (
    EVENTS,
    GRAPHQL_JSON,
    HTML,
    JSON,
    NO_STORE,
    UTF_8,
    is_foreign,
    read_json,
    refused_content,
    result_content,
)
from api.graphql.documents import NOT_VALID, Refused, refused
from api.graphql.gate import Admitted, Asked, Gate, OverBudget
from api.graphql.limits import MAX_BODY
from api.graphql.streams import EventStream, Streams, WebSocketEndpoint
from api.repeated_names import once
from tsm.errors import ErrorCode, TsmError

METHODS = "GET, HEAD, POST, OPTIONS"
MAX_PARAMETERS = 20  # of a URL
OK, NO_CONTENT, PARTIAL = 200, 204, 294
FORBIDDEN, NOT_ALLOWED, NOT_ACCEPTABLE, UNSUPPORTED = 403, 405, 406, 415


class GraphQLEndpoint:
    """`/graphql`, but for websockets. An ASGI application."""

    def __init__(self, gate: Gate, streams: Streams) -> None:
        self._gate = gate
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self.answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def answer(self, request: Request) -> Response | EventStream:
        if request.method == "OPTIONS":
            return Response(status_code=NO_CONTENT, headers={"Allow": METHODS})
        if request.method not in ("GET", "HEAD", "POST"):
            return refusal(request, NOT_ALLOWED, "GET or POST", {"Allow": METHODS})
        caller = await self._gate.caller(request.scope)
        if is_foreign(request.headers):
            return refusal(request, FORBIDDEN, "not from a page of another site", code=ErrorCode.FORBIDDEN)
        answer_type = negotiate(request.headers.get("accept"), self._offered(request, caller))
        if answer_type is None:
            return refusal(request, NOT_ACCEPTABLE, f"accept {GRAPHQL_JSON} or {JSON}")
        if answer_type == HTML:
            return ide.page()
        if request.method == "POST" and not is_json(request.headers.get("content-type", "")):
            return refusal(request, UNSUPPORTED, f"send {JSON} in UTF-8", {"Accept-Post": JSON})
        try:
            self._gate.enter(caller)
            asked = await self._read(request, caller)
            if answer_type == EVENTS:
                return EventStream(self._streams, request, caller, asked)
            return await self._run(request, caller, asked, answer_type)
        except Refused as error:
            return refused_response(request, error)

    async def _read(self, request: Request, caller: Caller) -> Asked:
        """Whoever makes us read what is no request pays for it."""
        try:
            return await read(request, self._gate.limits.body_seconds)
        except (Refused, TsmError):
            self._gate.fine(caller)
            raise

    def _offered(self, request: Request, caller: Caller) -> list[str]:
        """The types of an answer, the best first."""
        if request.method == "POST":
            return [GRAPHQL_JSON, JSON, EVENTS]
        page = caller.role in self._gate.ide_roles and not request.scope["query_string"]
        return [GRAPHQL_JSON, JSON, HTML] if page else [GRAPHQL_JSON, JSON]

    async def _run(self, request: Request, caller: Caller, asked: Asked, answer_type: str) -> Response:
        admitted = self._gate.admit(caller, asked)
        if admitted.kind is OperationType.SUBSCRIPTION:
            raise refused(NOT_VALID, f"a subscription is answered by POST as {EVENTS}, or over a websocket")
        if admitted.kind is OperationType.MUTATION and request.method != "POST":
            return refused_response(request, refused(NOT_ALLOWED, "a mutation is sent by POST"), {"Allow": "POST"})
        result = await self._gate.execute(admitted, request_id(request))
        return respond(request, admitted, result, answer_type)


async def read(request: Request, seconds: float) -> Asked:
    """The members of the request: MALFORMED_MESSAGE for what is no JSON, `Refused` for members of a wrong type."""
    if request.method == "POST":
        return read_members(read_json(await read_body(request, MAX_BODY, seconds)))
    return read_members(read_url(request.scope["query_string"]))


def read_members(value: object) -> Asked:
    try:
        return msgspec.convert(value, Asked)
    except msgspec.ValidationError:
        raise refused(NOT_VALID, "send one object: query, operationName, variables, extensions") from None


def read_url(query: bytes) -> dict[str, object]:
    """The members from a URL's query: the empty string is the same as none, the maps are JSON."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
        once(pairs)
    except ValueError as error:
        raise TsmError(ErrorCode.MALFORMED_MESSAGE, type(error).__name__) from None
    return {
        name: read_json(value.encode()) if name in ("variables", "extensions") else value
        for name, value in pairs
        if value or name == "query"
    }


def respond(request: Request, admitted: Admitted, result: ExecutionResult, answer_type: str) -> Response:
    status = PARTIAL if result.errors and answer_type == GRAPHQL_JSON else OK
    return graphql_response(result_content(request, admitted.charge, result), status, answer_type)


def refused_response(request: Request, error: Refused, headers: Mapping[str, str] | None = None) -> Response:
    """What did not succeed has the newer type, even for clients that know the older only."""
    extra = dict(headers or {})
    if isinstance(error, OverBudget):
        extra["Retry-After"] = str(error.wait)
    return graphql_response(refused_content(request, error), error.status, GRAPHQL_JSON, extra)


def graphql_response(
    content: Mapping[str, Any], status: int, answer_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        headers={"Content-Type": f"{answer_type}; {UTF_8}", **NO_STORE, **(headers or {})},
    )


def refusal(
    request: Request,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    code: ErrorCode = ErrorCode.INVALID_INPUT,
) -> Response:
    """A refusal before the request was read: as everywhere else in the API."""
    content = {"code": code, "message": message, "requestId": request_id(request)}
    return JSONResponse(content, status, headers={**NO_STORE, **(headers or {})})


def is_json(content_type: str) -> bool:
    """`application/json`, in UTF-8 whether it says so or not."""
    kind, parameters = media_type(content_type)
    return kind == JSON and parameters.get("charset", "utf-8").lower() in ("utf-8", "utf8")


def media_type(value: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, in lower case but for the parameters' values."""
    kind, *parts = value.split(";")
    pairs = (part.partition("=") for part in parts)
    return kind.strip().lower(), {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}


def negotiate(accept: str | None, offered: list[str]) -> str | None:
    """The one of the types offered that the client likes best (RFC 9110, 12.5.1); None when it takes none of them.

    Those offered are in the order of our own preference. Without the header it takes anything.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [media_type(part) for part in accept.split(",") if part.strip()]
    best = max(offered, key=lambda kind: quality(kind, ranges))  # the first of equals
    return best if quality(best, ranges) > 0 else None


def quality(kind: str, ranges: list[tuple[str, dict[str, str]]]) -> float:
    """What the most specific range that covers the type says of it; 0 when none does."""
    for wanted in (kind, kind.partition("/")[0] + "/*", "*/*"):
        found = [weight(parameters) for name, parameters in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0


def weight(parameters: Mapping[str, str]) -> float:
    """A `q` that is no number from 0 to 1 counts as 0."""
    text = parameters.get("q", "1")
    try:
        return float(text) if len(text) <= 5 and 0 <= float(text) <= 1 else 0.0
    except ValueError:
        return 0.0


def routes(gate: Gate) -> list[BaseRoute]:
    """`/graphql`: requests, and websockets; and the files of its page."""
    streams = Streams(gate)
    return [
        Route("/graphql", GraphQLEndpoint(gate, streams)),
        WebSocketRoute("/graphql", WebSocketEndpoint(streams)),
        Route("/graphql/ide/{name}", ide.answer, methods=["GET"]),
    ]
