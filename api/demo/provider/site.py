"""The provider's routes: the mobile site for browsers, and where the MAS notifies results (MC-05 interface 4)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.demo.party import demand, starlette, telling
from api.demo.provider.back_end import PREPARE, RENEW, BackEnd, Holder, Returned
from api.demo.provider.pages import (
    PENDING,
    WRITTEN,
    failure_page,
    launch_page,
    page,
    ready_page,
    refusal_page,
)
from api.demo.provider.state import Purpose
from api.errors import BAD_REQUEST, HTTP_STATUS, logged, read_body
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid
from tsm.mas.launch import LaunchParameters
from tsm.mas.messages import MAX_MESSAGE, NotificationRequest, NotificationResponse

VISIT = "visit"
LARGEST_FORM = 4096  # octets
FORM = ("iccid", "accessCode", "password", "authenticationPin", "signaturePin")


class Site:
    """The pages of one provider. A cookie knows which card a browser came for; it goes nowhere but to these pages."""

    def __init__(self, back_end: BackEnd, tsm_fingerprint: str) -> None:
        self._back_end = back_end
        self._tsm_fingerprint = tsm_fingerprint

    async def prepare(self, request: Request) -> Response:
        """The next step for the card of `?iccid=`, or of the visit that a launch of the operator returned to."""
        iccid = self._card_of(request)
        return self._remembering(request, iccid, self._next(iccid, await self._back_end.prepare(iccid)))

    async def personalise(self, request: Request) -> Response:
        form = read_form(await read_body(request, LARGEST_FORM))
        iccid = self._visitor(request)
        if form["iccid"] != iccid:
            raise TsmError(ErrorCode.FORBIDDEN, "a form of another visit")
        holder = Holder(form["accessCode"], form["password"], form["authenticationPin"], form["signaturePin"])
        return launch_page(await self._back_end.personalise(iccid, holder))

    async def renew(self, request: Request) -> Response:
        """The new certificate for signatures, for the same card as `prepare`."""
        iccid = self._card_of(request)
        return self._remembering(request, iccid, launch_page(await self._back_end.renew(iccid)))

    async def come_back(self, request: Request) -> Response:
        """RE-ACCESS (MC-05 interface 5)."""
        number, signature = (request.query_params.get(name, "") for name in ("rcptNum", "masSign"))
        returned = await self._back_end.returned(number, signature)
        if not returned.done:
            return failure_page(returned.status.info)
        if returned.reception.purpose in (Purpose.PERSONALISATION, Purpose.RENEWAL):
            return result_page(returned)
        iccid = Iccid(returned.reception.iccid)
        return self._next(iccid, await self._back_end.prepare(iccid))

    async def notify(self, request: Request) -> Response:
        """NOTIFY, from the TSM server alone; NOTIFY-ACK."""
        demand(request, self._tsm_fingerprint)
        notification = NotificationRequest.parse(await read_body(request, MAX_MESSAGE))
        with telling("MAS", "provider", "NOTIFY → NOTIFY-ACK"):
            acknowledged = NotificationResponse(self._back_end.notified(notification))
        afterwards = BackgroundTask(self._back_end.settle_late, notification.reception)
        return Response(acknowledged.encode(), media_type="application/xml", background=afterwards)

    def _card_of(self, request: Request) -> Iccid:
        asked = request.query_params.get("iccid")
        return Iccid(asked) if asked else self._visitor(request)

    def _remembering(self, request: Request, iccid: Iccid, response: Response) -> Response:
        """Whoever names a card begins a visit."""
        if "iccid" in request.query_params:
            token = self._back_end.state.begin_visit(iccid)
            response.set_cookie(VISIT, token, path="/mobile", secure=True, httponly=True, samesite="lax")
        return response

    def _visitor(self, request: Request) -> Iccid:
        return Iccid(self._back_end.state.visitor(request.cookies.get(VISIT, "")))

    def _next(self, iccid: Iccid, parameters: LaunchParameters | None) -> Response:
        return launch_page(parameters) if parameters else ready_page(iccid)


def result_page(returned: Returned) -> Response:
    """Written, once every command's result has arrived."""
    return page("written", WRITTEN) if returned.reception.acknowledged else page("pending", PENDING)


def read_form(body: bytes) -> dict[str, str]:
    """Exactly the fields of the form, each once; INVALID_INPUT otherwise."""
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=len(FORM))
    except ValueError as error:
        raise TsmError(ErrorCode.INVALID_INPUT, "not the form") from error
    if set(fields) != set(FORM) or any(len(values) != 1 for values in fields.values()):
        raise TsmError(ErrorCode.INVALID_INPUT, "not the form")
    return {name: values[0] for name, values in fields.items()}


Handler = Callable[[Request], Awaitable[Response]]


def for_people(handler: Handler) -> Handler:
    """A refusal becomes a page."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except TsmError as error:
            code = logged(request, error)
            return refusal_page(code, HTTP_STATUS.get(code, BAD_REQUEST))

    return handle


def application(site: Site, back_end: BackEnd, close: Callable[[], object]) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await back_end.settle()  # what an earlier run could not tell the authority
        yield
        close()

    return starlette(
        [
            Route(PREPARE, for_people(site.prepare), methods=["GET"]),
            Route("/mobile/personalise", for_people(site.personalise), methods=["POST"]),
            Route(RENEW, for_people(site.renew), methods=["GET"]),
            Route("/mobile/return", for_people(site.come_back), methods=["GET"]),
            Route("/notify", site.notify, methods=["POST"]),
        ],
        lifespan,
    )
