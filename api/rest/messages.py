"""JSON messages: exactly the members that are described, octets in Base64, answers that nobody caches."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.errors import read_body
from tsm.errors import ErrorCode, TsmError

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)  # what reading JSON raises: it is no UTF-8, or too deep
LARGEST_MESSAGE = 32 * 1024  # octets: an application with its certificate takes about 5 KiB

Kind = TypeVar("Kind")
Result = TypeVar("Result")


class Message(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A request or an answer: `access_code` in Python is `accessCode` on the wire."""


async def read_message(request: Request, kind: type[Kind]) -> Kind:
    """The body as a message. MESSAGE_TOO_LARGE, or INVALID_INPUT without repeating what came."""
    body = await read_body(request, LARGEST_MESSAGE)
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE:
        raise TsmError(ErrorCode.INVALID_INPUT, f"not a {kind.__name__}") from None


def answer(message: Message) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json", headers={"Cache-Control": "no-store"})


async def aside(work: Callable[..., Result], *arguments: Any) -> Result:
    """Run what waits for others or counts slowly in a thread; what only records runs on the loop (`tsm.store.loop`)."""
    return await run_in_threadpool(work, *arguments)
