"""Exports: all events of a filter in one answer, for auditors and their programs.

    GET /exports/events?format=jsonl&kinds=card.&recordedFrom=2026-11-01T00:00:00%2B09:00

JSON Lines or CSV, in the order of the log, up to the position at which the index stood when it was asked for
(`Tsm-Export-End`). Every line has a cursor, the same as in GraphQL: `after=<cursor>` goes on behind that line as if
nothing had come between. The last line says whether it is complete, and how many events this answer had:

    {"complete": true, "cursor": "MTIzNDU2", "events": 1042}             complete,MTIzNDU2,1042
    {"complete": false, "cursor": "MTIzNDQ1", "events": 31, ...}         incomplete,MTIzNDQ1,31

An answer without such a line was cut: go on after the last whole line. The cursor of a complete export is that of its
end, so that the next export can begin there.

Whoever asks sees what he sees elsewhere: the query leaves out what is not his, and of what he sees in outline only the
words and values are null. Values are for auditors and security officers only. Nothing is unsealed. Who he is, is asked
again for every page: a token that expires or is revoked ends the export. CSV cells that a spreadsheet would take for a
formula begin with an apostrophe.

Pages are made in a thread, one at a time for all exports together, with a pause as long as the page took: exports never
take more than half of a core, and nothing is read that the client has not yet made room for. Whoever takes nothing for
as long as a subscriber may is cut. A client has so many exports at one time (`exports_per_client`).
"""

import asyncio
import csv
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec
from graphql import GraphQLError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from api.access import Access, Caller, Role
from api.bootstrap import Settings
from api.errors import Receive, Scope, Send, logged, request_id
from api.graphql.streams import Slow, cut, in_time
from api.graphql.types.paging import cursor, read_cursor
from api.limits import Places
from api.metrics import Metrics
from projections.event_index import EVENT_INDEX, MOST, EventFilter, EventRow, in_outline, page, span
from projections.lines import line
from projections.viewer import Viewer
from projections.views import Views
from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Event
from tsm.store.log import Unreadable
from tsm.store.loop import run

PATH = "/exports/events"
PAGE = 200  # events: some five milliseconds of work
ROLES = frozenset({Role.AUDITOR, Role.SECURITY_OFFICER, Role.OPERATOR, Role.PROVIDER})
OVERSEERS = frozenset({Role.AUDITOR, Role.SECURITY_OFFICER})  # who may see who was shown personal data, and values
MAX_KINDS, MAX_TEXT = 20, 255

VALUES = (
    "actor", "tenant", "provider", "domain", "aid", "stream", "card", "credential", "subject", "reception",
    "correlation",
)  # fmt: skip
TIMES = ("recordedFrom", "recordedTo")
PARAMETERS = {"format", "after", "kinds", "readings", *TIMES, *VALUES}

COLUMNS = (
    "cursor", "position", "recordedAt", "occurredAt", "topic", "stream", "number", "actor", "role", "tenant",
    "operator", "provider", "municipality", "correlation", "reception", "card", "domain", "aid", "credential",
    "subject", "text", "tenants", "causation", "request", "command", "reason", "values", "error",
)  # fmt: skip
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # where a spreadsheet takes what follows for a formula
log = logging.getLogger(__name__)


class Parts(Protocol):
    """The parts of the server that exports are made from."""

    @property
    def tsm(self) -> Tsm: ...
    @property
    def views(self) -> Views: ...
    @property
    def access(self) -> Access: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def metrics(self) -> Metrics: ...


class Form(NamedTuple):
    """How lines are written."""

    media_type: str
    head: Callable[[], bytes]
    lines: Callable[[Sequence[Mapping[str, Any]]], bytes]
    last: Callable[[Mapping[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """One export, as it was asked for."""

    form: str
    filters: EventFilter
    after: int  # position
    resumed: bool  # it goes on behind an earlier one: no heading
    values: bool  # whether the caller may see what else events say: `Event.values` of GraphQL


class Written(NamedTuple):
    """A page as it leaves."""

    octets: bytes
    events: int
    last: int  # position of the last of them


class Download(StreamingResponse):
    """An answer that is cut when its client takes nothing of it for so many seconds."""

    def __init__(self, body: AsyncIterator[bytes], seconds: float, **options: Any) -> None:
        super().__init__(body, **options)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, lambda message: in_time(send(message), self._seconds))
        except Slow:
            cut(scope)


class Exports:
    """`GET /exports/events`. An ASGI application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._turn = asyncio.Lock()
        self._places = Places(parts.settings.limits.exports_per_client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FORBIDDEN, INVALID_INPUT; RATE_LIMITED; READ_MODEL_BEHIND while the index is being made."""
        request = Request(scope, receive)
        caller = await self._caller(request)
        if not self._places.take(caller.client):
            raise TsmError(ErrorCode.RATE_LIMITED, f"{caller.client} has {self._places.most} exports")
        try:
            answer = await self._events(request, caller)
            await answer(scope, receive, send)
        finally:
            self._places.leave(caller.client)

    async def _events(self, request: Request, caller: Caller) -> Response:
        asked = await asyncio.to_thread(read, request.query_params, caller, self._parts.tsm)
        positions = await run(self._parts.views.positions)
        end = min(positions[EVENT_INDEX.name], asked.filters.last)
        form = FORMS[asked.form]
        first = await self._page(caller.viewer, asked, asked.after, end)
        name = f"events-{end}.{asked.form}"
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Tsm-Export-End": str(end),
            "Tsm-Request-Id": request_id(request),
        }
        if request.method == "HEAD":
            return Response(headers=headers, media_type=form.media_type)
        body = self._body(request, caller.viewer, asked, first, end)
        return Download(body, self._parts.settings.limits.send_seconds, headers=headers, media_type=form.media_type)

    async def _body(
        self, request: Request, viewer: Viewer, asked: Asked, made: Written, end: int
    ) -> AsyncIterator[bytes]:
        form, events, last = FORMS[asked.form], 0, asked.after
        if not asked.resumed:
            yield form.head()
        try:
            while made.events:
                yield made.octets
                events, last = events + made.events, made.last
                if made.events < PAGE:
                    break
                if (await self._caller(request)).viewer != viewer:
                    raise TsmError(ErrorCode.FORBIDDEN, "the caller sees something else now")
                made = await self._page(viewer, asked, last, end)
        except TsmError as error:
            code = logged(request, error)
            ending = {"complete": False, "cursor": cursor(last), "events": events, "code": code}
            yield form.last({**ending, "requestId": request_id(request)})
            return
        self._parts.metrics.exported(events)
        log.info("%s export of %d events", request_id(request), events)
        yield form.last({"complete": True, "cursor": cursor(max(end, asked.after)), "events": events})

    async def _caller(self, request: Request) -> Caller:
        caller = await run(self._parts.access.of, request.scope)
        if caller.role not in ROLES:
            raise TsmError(ErrorCode.FORBIDDEN, f"{caller.role} {caller.party} exports nothing")
        return caller

    async def _page(self, viewer: Viewer, asked: Asked, after: int, end: int) -> Written:
        """The next page, in turn with other exports; nobody else's turn comes before a pause."""
        async with self._turn:
            began = time.monotonic()
            made = await asyncio.to_thread(write, self._parts, viewer, asked, after, end)
            await asyncio.sleep(time.monotonic() - began)
            return made


def routes(parts: Parts) -> list[BaseRoute]:
    return [Route(PATH, Exports(parts), methods=["GET"])]


# What is asked


def read(given: QueryParams, caller: Caller, tsm: Tsm) -> Asked:
    """INVALID_INPUT for anything that is not as described, FORBIDDEN for readings to whom they are not for."""
    names = [name for name, _ in given.multi_items()]
    unknown = set(names) - PARAMETERS
    if unknown or any(names.count(name) > 1 for name in PARAMETERS - {"kinds"}):
        raise refuse("a parameter that there is not, or twice")
    form = given.get("format", "jsonl")
    if form not in FORMS:
        raise refuse("format: jsonl or csv")
    readings = given.get("readings", "false")
    if readings not in ("true", "false"):
        raise refuse("readings: true or false")
    if readings == "true" and caller.role not in OVERSEERS:
        raise TsmError(ErrorCode.FORBIDDEN, f"readings are not for {caller.role}")
    kinds = tuple(given.getlist("kinds"))
    values = {name: given.get(name, "") for name in VALUES}
    if len(kinds) > MAX_KINDS or any(
        len(text) > MAX_TEXT or not text.isprintable() for text in (*kinds, *values.values())
    ):
        raise refuse("a value that no event has, or too many kinds")
    first, last = span(tsm, *(_time(name, given.get(name)) for name in TIMES))
    filters = EventFilter(first=first, last=last, topics=kinds, readings=readings == "true", **values)
    return Asked(form, filters, _position(given.get("after")), "after" in given, caller.role in OVERSEERS)


def _time(name: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise refuse(f"{name}: not a time (ISO 8601)") from None
    if moment.utcoffset() is None:
        raise refuse(f"{name}: a time names its offset from UTC")
    return moment


def _position(after: str | None) -> int:
    try:
        return read_cursor("after", after) or 0
    except GraphQLError:
        raise refuse("after: not a cursor of this server") from None


def refuse(why: str) -> TsmError:
    return TsmError(ErrorCode.INVALID_INPUT, why)


# What is written


def write(parts: Parts, viewer: Viewer, asked: Asked, after: int, end: int) -> Written:
    rows = page(parts.views, viewer, asked.filters, after, min(end, MOST - 1) + 1, PAGE)
    told = [row.position for row in rows if not in_outline(row, viewer)]
    found = {event.position: event for event in parts.tsm.at(told)} if told else {}
    lines = [describe(row, found.get(row.position), asked.values) for row in rows]
    return Written(FORMS[asked.form].lines(lines), len(rows), rows[-1].position if rows else after)


def describe(row: EventRow, event: Event | Unreadable | None, values: bool) -> dict[str, Any]:
    """One event, by the names of `COLUMNS`; null where there is no such thing, or where it is not to be seen."""
    told: dict[str, Any] = {
        "cursor": cursor(row.position),
        "position": row.position,
        "recordedAt": row.recorded_at,
        "occurredAt": row.occurred_at,
        "topic": row.topic,
        "stream": row.stream,
        "number": row.number,
        **{name: getattr(row, name) or None for name in COLUMNS[7:20]},
        **dict.fromkeys(COLUMNS[20:]),
    }
    if isinstance(event, Unreadable):
        told["error"] = event.error.code
    elif event is not None:
        context = event.context
        told |= {
            "text": line(event.fact),
            "tenants": context.tenants,
            "causation": context.causation or None,
            "request": context.request or None,
            "command": context.command or None,
            "reason": context.reason or None,
            "values": event.fact if values else None,
        }
    return told


def _json_lines(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(ENCODER.encode(told) + b"\n" for told in lines)


def _csv_lines(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return _csv([[_cell(name, told[name]) for name in COLUMNS] for told in lines])


def _csv_last(ending: Mapping[str, Any]) -> bytes:
    state = "complete" if ending["complete"] else "incomplete"
    cells = [state, ending["cursor"], str(ending["events"]), ending.get("code", ""), ending.get("requestId", "")]
    return _csv([cells + [""] * (len(COLUMNS) - len(cells))])


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    """RFC 4180, UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "tenants":
        value = " ".join(value)
    elif name == "values":
        value = ENCODER.encode(value).decode()
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    text = f"'{text}" if text.startswith(FORMULA) else text
    return text.replace("\r", " ").replace("\n", " ")  # one line is one event, however it is read


ENCODER = msgspec.json.Encoder(enc_hook=str)  # an identifier is the text that it is
FORMS = {
    "jsonl": Form("application/x-ndjson", bytes, _json_lines, lambda ending: _json_lines([ending])),
    "csv": Form("text/csv; charset=utf-8", lambda: _csv([COLUMNS]), _csv_lines, _csv_last),
}
