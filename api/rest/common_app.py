"""What the common app tells of its phone, within a session of MC-05 interface 3: the cookie `mas` says which.

    POST /mas/report    {imei, iccids?: [ICCID], subscription?: IMSI} -> {position}

It may be sent twice: when CONNECT was answered and before CONNECT's result is sent, and likewise with DISCONNECT. What
it counts for, and what a lying phone can do with it, is said in `tsm.flows.app_reports`.
"""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.errors import request_id
from api.rest.messages import Message, answer, read_message
from api.xml.mas import COOKIE
from tsm.errors import ErrorCode, TsmError
from tsm.flows.app_reports import AppReport
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts

REPORT_PATH = "/mas/report"
MOST_CARDS = 8  # in one phone


class ReportRequest(Message, frozen=True):
    imei: str
    iccids: tuple[str, ...] = ()
    subscription: str = ""


class ReportAnswer(Message, frozen=True):
    position: int


class CommonAppRoutes:
    """The route of this module."""

    def __init__(self, parts: "Parts") -> None:
        self._reports = parts.app_reports

    async def report(self, request: Request) -> Response:
        """UNKNOWN_SESSION, SESSION_EXPIRED, WRONG_ORDER, INVALID_INPUT; COMMAND_REUSED for another at that moment."""
        given = await read_message(request, ReportRequest)
        if len(given.iccids) > MOST_CARDS:
            raise TsmError(ErrorCode.INVALID_INPUT, f"iccids: {MOST_CARDS} at most")
        report = AppReport(given.imei, given.iccids, given.subscription)
        cookie = request.cookies.get(COOKIE, "")
        return answer(ReportAnswer(await run(self._reports.take, report, cookie, request_id(request))))


def routes(parts: "Parts") -> list[Route]:
    return [Route(REPORT_PATH, CommonAppRoutes(parts).report, methods=["POST"])]
