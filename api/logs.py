"""The server's own log: one line for each thing worth knowing, as text for people or as JSON for machines.

    {"time": "2026-11-21T15:38:00.123456Z", "level": "INFO", "logger": "api.requests", "message": "POST /graphql 200",
     "requestId": "5f3a90c41be27d68", "actor": "auditor:A-1", "role": "auditor", "status": "200", "milliseconds": 3.1}

The setting `logs` chooses. Whatever is logged while a request is answered has its id and, once known, its caller.

Of a request the line has the route (`/sp-tsm/cards/{iccid}/keys`), never its path, query, headers or body. Of an error
that nobody expected it has the kind and the places in the program, never its text: that may quote whatever was being
handled. The text of a `TsmError` is ours, and stands there.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from copy import copy
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from api.access import Caller
from tsm.errors import TsmError

Style = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
REQUEST: ContextVar[Mapping[str, Any] | None] = ContextVar("request", default=None)  # scope of the one being answered

# A line of each says nothing, or quotes what was asked: httpx for every NOTIFY, uvicorn with the URL of a websocket (in
# which browsers put tokens), strawberry with the query's text.
QUIET = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "strawberry": logging.CRITICAL + 1,
}


def set_up(style: Style) -> None:
    """To standard error, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines() if style == "json" else Text(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


class Text(logging.Formatter):
    """For people. Errors without their texts."""

    def format(self, record: logging.LogRecord) -> str:
        own = copy(record)
        own.exc_text = None  # another formatter may have left the whole traceback there
        return super().format(own)

    def formatMessage(self, record: logging.LogRecord) -> str:
        told = [*about_request().values(), *(f"{name} {value}" for name, value in getattr(record, "facts", {}).items())]
        return super().formatMessage(record) + (f" ({', '.join(told)})" if told else "")

    def formatException(self, ei: Any) -> str:
        return "\n".join(places(ei[1]))


class Lines(logging.Formatter):
    """For machines: a JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **about_request(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            told["error"] = list(places(record.exc_info[1]))
        return msgspec.json.encode(told).decode()


def about_request() -> dict[str, str]:
    """Of the request that is being answered, if one is: its id, and who asks."""
    scope = REQUEST.get()
    if scope is None:
        return {}
    caller: Caller | None = scope.get("caller")
    told = {"requestId": str(scope.get("request_id", ""))}
    return told if caller is None else {**told, "actor": caller.actor, "role": str(caller.role)}


def places(error: BaseException | None) -> Iterator[str]:
    """Kind and places of an error and of those that caused it, the first cause last."""
    while error is not None:
        yield str(error) if isinstance(error, TsmError) else type(error).__qualname__
        for frame in traceback.extract_tb(error.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
