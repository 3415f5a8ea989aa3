"""The edge: a refusal becomes an HTTP status and a code to act on; what was wrong inside stays in the log.

    {"code": "UNKNOWN_CARD", "message": "the card is not registered", "requestId": "5f3a..."}

The request id stands in the log beside the detail, and in the context of every event that the request caused.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from tsm.errors import MESSAGES, ErrorCode, TsmError

BAD_REQUEST = 400
HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.MESSAGE_INCOMPLETE: 408,
    ErrorCode.MESSAGE_TOO_LARGE: 413,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.BAD_SIGNATURE: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.UNKNOWN_SERVICE_PROVIDER: 404,
    ErrorCode.UNKNOWN_CARD: 404,
    ErrorCode.UNKNOWN_SECURITY_DOMAIN: 404,
    ErrorCode.UNKNOWN_RECEPTION: 404,
    ErrorCode.UNKNOWN_SESSION: 404,
    ErrorCode.UNKNOWN_KEY: 404,
    ErrorCode.WRONG_ORDER: 409,
    ErrorCode.ALREADY_EXISTS: 409,
    ErrorCode.RECEPTION_REUSED: 409,
    ErrorCode.RECEPTION_CLOSED: 409,
    ErrorCode.CONFLICT: 409,
    ErrorCode.COMMAND_REUSED: 409,
    ErrorCode.TOO_MANY_SIGNALS: 409,
    ErrorCode.CARD_AUTHENTICATION_EXHAUSTED: 409,
    ErrorCode.KEYS_REPLACED: 409,
    ErrorCode.CARD_ON_HOLD: 409,
    ErrorCode.SESSION_EXPIRED: 410,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TIMEOUT: 503,
    ErrorCode.UPSTREAM_UNAVAILABLE: 502,
    ErrorCode.READ_MODEL_BEHIND: 503,
    ErrorCode.STORE_UNAVAILABLE: 503,
    ErrorCode.STORE_BUSY: 503,
    ErrorCode.STORE_FORMAT: 500,
    ErrorCode.STORE_CORRUPT: 500,
    ErrorCode.INTERNAL: 500,
}
SERVER_FAULT = 500
RETRY_AFTER = {429: "10", 503: "1"}  # seconds
UNREAD = {ErrorCode.MESSAGE_INCOMPLETE, ErrorCode.MESSAGE_TOO_LARGE}  # more of the body may come: nobody waits for it
BODY_SECONDS = 30.0  # in which a body must have arrived: half of what a session may be silent

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class RequestIds:
    """ASGI middleware: every request, and every websocket, gets an id."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope["request_id"] = secrets.token_hex(8)
        await self.app(scope, receive, send)


def request_id(request: HTTPConnection) -> str:
    """The id that `RequestIds` gave."""
    return str(request.scope.get("request_id", ""))


def logged(request: HTTPConnection, error: Exception) -> ErrorCode:
    """The code to tell outside; the rest goes to the log, with the traceback when nobody expected it.

    Of an error that is not ours only its kind: its text may quote whatever was being handled. Nor is the path told, but
    the route that it took.
    """
    code = error.code if isinstance(error, TsmError) else ErrorCode.INTERNAL
    what = str(error) if isinstance(error, TsmError) else type(error).__qualname__
    route = getattr(request.scope.get("route"), "path", "no route")
    if HTTP_STATUS.get(code, BAD_REQUEST) >= SERVER_FAULT:
        log.error("%s %s: %s", request_id(request), route, what, exc_info=error)
    else:
        log.info("%s %s: %s", request_id(request), route, what)
    return code


async def refuse(request: Request, error: Exception) -> Response:
    """The one exception handler of the application."""
    code = logged(request, error)
    content = {"code": code, "message": MESSAGES[code], "requestId": request_id(request)}
    status = HTTP_STATUS.get(code, BAD_REQUEST)
    headers = {"Cache-Control": "no-store"}
    if code in UNREAD:
        headers["Connection"] = "close"
    if status in RETRY_AFTER:
        headers["Retry-After"] = RETRY_AFTER[status]
    if code is ErrorCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = challenge(request)
    return JSONResponse(content, status, headers=headers)


def challenge(request: Request) -> str:
    """What goes with UNAUTHENTICATED (RFC 6750 section 3): no error is named to whoever showed no token."""
    return 'Bearer error="invalid_token"' if "authorization" in request.headers else "Bearer"


async def read_body(request: Request, limit: int, seconds: float | None = None) -> bytes:
    """The body, of at most `limit` octets; MESSAGE_TOO_LARGE before more than that is held.

    MESSAGE_INCOMPLETE when it takes longer than `seconds` (without them `BODY_SECONDS`), or its sender goes away (who
    then hears nothing).
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS if seconds is None else seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, f"more than {limit} octets")
    except (ClientDisconnect, TimeoutError) as error:
        raise TsmError(ErrorCode.MESSAGE_INCOMPLETE, f"{type(error).__name__} after {len(body)} octets") from None
    return bytes(body)
