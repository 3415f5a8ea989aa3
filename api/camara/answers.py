"""What all of CAMARA's APIs have in common: `x-correlator`, error bodies, how a body is read.

    {"status": 404, "code": "IDENTIFIER_NOT_FOUND", "message": "this telephone number is no line of ours"}

Whatever answers below the path of such an API, be it the framework that knows no such path, the body is an ErrorInfo,
and the answer has the `x-correlator` of its request, or the id of the request where it came without one. Codes are
those of the definitions, and of CAMARA Commonalities 0.6 for what the definitions leave out. Refusals of the inside
(`tsm.errors`) become one of them; what was wrong inside stays in the log.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from api.errors import Receive, Scope, Send, challenge, logged, read_body, request_id
from api.repeated_names import refuse_repeated_names
from tsm.errors import ErrorCode, TsmError

CORRELATOR = re.compile(r"[a-zA-Z0-9\-_:;./<>{}]{0,256}", re.ASCII)
CORRELATOR_HEADER = b"x-correlator"
JSON = "application/json"
JSON_TYPE = re.compile(r"application/json *(; *charset=\"?utf-?8\"? *)?", re.ASCII | re.IGNORECASE)
NO_STORE = {"Cache-Control": "no-store"}
LARGEST_BODY = 4096  # octets
SOON = 1  # seconds after which to ask again when the server is busy

Kind = TypeVar("Kind")


class Code(StrEnum):
    """What went wrong, as CAMARA names it."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    INVALID_PROTOCOL = "INVALID_PROTOCOL"
    INVALID_CREDENTIAL = "INVALID_CREDENTIAL"
    INVALID_TOKEN = "INVALID_TOKEN"  # noqa: S105
    INVALID_SINK = "INVALID_SINK"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    IDENTIFIER_NOT_FOUND = "IDENTIFIER_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    ABORTED = "ABORTED"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CONTENT_TOO_LARGE = "CONTENT_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    SERVICE_NOT_APPLICABLE = "SERVICE_NOT_APPLICABLE"
    MISSING_IDENTIFIER = "MISSING_IDENTIFIER"
    UNNECESSARY_IDENTIFIER = "UNNECESSARY_IDENTIFIER"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"


STATUS: Mapping[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.OUT_OF_RANGE: 400,
    Code.INVALID_PROTOCOL: 400,
    Code.INVALID_CREDENTIAL: 400,
    Code.INVALID_TOKEN: 400,
    Code.INVALID_SINK: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.IDENTIFIER_NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.ABORTED: 409,
    Code.ALREADY_EXISTS: 409,
    Code.CONTENT_TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.SERVICE_NOT_APPLICABLE: 422,
    Code.MISSING_IDENTIFIER: 422,
    Code.UNNECESSARY_IDENTIFIER: 422,
    Code.QUOTA_EXCEEDED: 429,
    Code.TOO_MANY_REQUESTS: 429,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
}
MESSAGES: Mapping[Code, str] = {
    Code.INVALID_ARGUMENT: "something in the request is not as the API's definition says",
    Code.OUT_OF_RANGE: "a value is outside of its range",
    Code.INVALID_PROTOCOL: "events are delivered over HTTP only",
    Code.INVALID_CREDENTIAL: "a sink's credential has to be an access token",
    Code.INVALID_TOKEN: "a sink's access token has to be a bearer token",
    Code.INVALID_SINK: "the sink has to be an https address on the public internet",
    Code.UNAUTHENTICATED: "an access token is missing, is not valid or has expired",
    Code.PERMISSION_DENIED: "the access token does not have the scope that this needs",
    Code.NOT_FOUND: "there is no such thing",
    Code.IDENTIFIER_NOT_FOUND: "this telephone number is no line of ours",
    Code.METHOD_NOT_ALLOWED: "this method cannot be used here",
    Code.REQUEST_TIMEOUT: "the request did not arrive as a whole in time",
    Code.ABORTED: "too much happens to this line at this moment: ask again",
    Code.ALREADY_EXISTS: "there is such a subscription already",
    Code.CONTENT_TOO_LARGE: "the body is larger than allowed",
    Code.UNSUPPORTED_MEDIA_TYPE: "the body has to be application/json, in UTF-8",
    Code.SERVICE_NOT_APPLICABLE: "nothing can be told of this line",
    Code.MISSING_IDENTIFIER: "neither the request nor the access token says which line is meant",
    Code.UNNECESSARY_IDENTIFIER: "the access token says already which line is meant: leave the telephone number out",
    Code.QUOTA_EXCEEDED: "more requests than were agreed upon",
    Code.TOO_MANY_REQUESTS: "too many requests at this time: ask again later",
    Code.INTERNAL: "an internal error",
    Code.UNAVAILABLE: "the service is not available now: ask again later",
}
INSIDE: Mapping[Code, ErrorCode] = {  # what it is in our own family of errors, for the log; INVALID_INPUT otherwise
    Code.PERMISSION_DENIED: ErrorCode.FORBIDDEN,
    Code.NOT_FOUND: ErrorCode.NOT_FOUND,
    Code.IDENTIFIER_NOT_FOUND: ErrorCode.NOT_FOUND,
    Code.ABORTED: ErrorCode.CONFLICT,
    Code.ALREADY_EXISTS: ErrorCode.ALREADY_EXISTS,
    Code.QUOTA_EXCEEDED: ErrorCode.RATE_LIMITED,
    Code.TOO_MANY_REQUESTS: ErrorCode.RATE_LIMITED,
}
OUTSIDE: Mapping[ErrorCode, Code] = {  # what a refusal of the inside is called; INTERNAL otherwise
    ErrorCode.INVALID_INPUT: Code.INVALID_ARGUMENT,
    ErrorCode.MALFORMED_MESSAGE: Code.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    ErrorCode.FORBIDDEN: Code.PERMISSION_DENIED,
    ErrorCode.NOT_FOUND: Code.NOT_FOUND,
    ErrorCode.MESSAGE_INCOMPLETE: Code.REQUEST_TIMEOUT,
    ErrorCode.MESSAGE_TOO_LARGE: Code.CONTENT_TOO_LARGE,
    ErrorCode.STORE_BUSY: Code.TOO_MANY_REQUESTS,
    ErrorCode.STORE_UNAVAILABLE: Code.UNAVAILABLE,
    ErrorCode.READ_MODEL_BEHIND: Code.UNAVAILABLE,
    ErrorCode.UPSTREAM_UNAVAILABLE: Code.UNAVAILABLE,
    ErrorCode.TIMEOUT: Code.UNAVAILABLE,
}
BY_STATUS: Mapping[int, Code] = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}  # what the framework refuses
RETRIED = {Code.QUOTA_EXCEEDED, Code.TOO_MANY_REQUESTS, Code.UNAVAILABLE}
UNREAD = {Code.REQUEST_TIMEOUT, Code.CONTENT_TOO_LARGE}  # more of the body may come: nobody waits for it


class Refused(TsmError):
    """A refusal in CAMARA's words. `said` is told outside and never holds anything of the request."""

    def __init__(self, code: Code, said: str = "", retry_after: int = SOON) -> None:
        """`retry_after`: in seconds, for those that are worth asking again."""
        super().__init__(INSIDE.get(code, ErrorCode.INVALID_INPUT), f"{code} {said}".rstrip())
        self.told = code
        self.said = said
        self.retry_after = retry_after


class ErrorInfo(msgspec.Struct, frozen=True):
    """The body of every refusal."""

    status: int
    code: str
    message: str


class Api:
    """An ASGI application: one CAMARA API, all its routes by their whole paths."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        router = Router(routes, redirect_slashes=False)
        self._app = ExceptionMiddleware(router, {HTTPException: refuse, Exception: refuse})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        correlator = correlator_of(scope)
        answered = (request_id(request) if correlator is None else correlator).encode()

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (CORRELATOR_HEADER, answered)]
            await send(message)

        if correlator is None and _has_correlator(scope):
            response = await refuse(request, Refused(Code.INVALID_ARGUMENT, "x-correlator is not as specified"))
            await response(scope, receive, sending)
        else:
            await self._app(scope, receive, sending)


def mounted(path: str, routes: Sequence[BaseRoute]) -> Route:
    """The route of an API: `path` (`/sim-swap/v2`) and everything below it; its own routes have whole paths."""
    route = Route(f"{path}/{{rest:path}}", Api(routes))
    # The framework's ends with a line, and has neither the path itself nor what comes behind a line's end.
    route.path_regex = re.compile(f"{re.escape(path)}(?:/(?P<rest>.*))?\\Z", re.DOTALL)
    return route


def correlator_of(scope: Scope) -> str | None:
    """The request's `x-correlator`; None when it has none, several, or one that is not as specified."""
    given = [value for name, value in scope["headers"] if name == CORRELATOR_HEADER]
    text = given[0].decode("latin-1") if len(given) == 1 else None
    return text if text is not None and CORRELATOR.fullmatch(text) else None


def _has_correlator(scope: Scope) -> bool:
    return any(name == CORRELATOR_HEADER for name, _ in scope["headers"])


async def refuse(request: Request, error: Exception) -> Response:
    """The exception handler of an `Api`."""
    headers = dict(NO_STORE)
    if isinstance(error, HTTPException):  # the framework's own
        headers.update(error.headers or {})
        error = Refused(BY_STATUS.get(error.status_code, Code.INTERNAL))
    inside = logged(request, error)
    refused = error if isinstance(error, Refused) else Refused(OUTSIDE.get(inside, Code.INTERNAL))
    code, status = refused.told, STATUS[refused.told]
    if code in RETRIED:
        headers["Retry-After"] = str(refused.retry_after)
    if code in UNREAD:
        headers["Connection"] = "close"
    if code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = challenge(request)
    return answer(ErrorInfo(status, code, refused.said or MESSAGES[code]), status, headers)


def answer(content: object, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    return Response(msgspec.json.encode(content), status, headers, JSON)


async def read_object(request: Request, kind: type[Kind], largest: int = LARGEST_BODY) -> Kind:
    """The body, a JSON object of `largest` octets at most.

    Members that `kind` does not name are passed over, as the definitions allow; but they, too, have to be JSON in which
    no name comes twice.
    UNSUPPORTED_MEDIA_TYPE, CONTENT_TOO_LARGE, REQUEST_TIMEOUT, INVALID_ARGUMENT.
    """
    if not JSON_TYPE.fullmatch(request.headers.get("content-type", "")):
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE)
    body = await read_body(request, largest)
    try:
        msgspec.json.decode(body)  # what is passed over as well
        refuse_repeated_names(body)
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(Code.INVALID_ARGUMENT, _where(error)) from None


PLACE = re.compile(r" - at `\$\.([A-Za-z.]+)`$")  # how msgspec ends when a named member is not as described


def _where(error: Exception) -> str:
    """Which member of the body is not as described, where one is."""
    found = PLACE.search(str(error)) if isinstance(error, msgspec.ValidationError) else None
    return f"{found[1]} is not as specified" if found else "the body is not the JSON object that is specified"
