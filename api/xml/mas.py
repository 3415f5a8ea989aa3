"""MC-05 over HTTPS: interface 2 (`POST /mas/delegation`) and interface 3 (`POST /mas/link`).

DELEGATE takes a client certificate of an enrolled operator or provider, in addition to the spId. The tables carry no
card, so a header names it: `Tsm-Card: <ICCID>`. `Tsm-Correlation: <id>` ties the delegation to a story. Every answer is
XML with HTTP status 200, and strProcStatus tells (`tsm.mas.status`).

The common app has no certificate; START brings the party's signature, and the cookie `mas` binds what follows. With END
a header says which return URL the party signed: `Tsm-Return-Url`; the app sends the browser nowhere else. The tables of
interface 3 have no field for an error: what concerns the card is told by END, and a message that no session can answer
gets an HTTP status and a code as everywhere else (`api.errors`).
"""

import re
import time
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access import Access
from api.errors import logged, read_body, request_id
from tsm.errors import ErrorCode, TsmError
from tsm.flows.session import SessionService
from tsm.identifiers import Iccid
from tsm.mas.messages import (
    MAX_DELEGATION,
    MAX_MESSAGE,
    DelegationRequest,
    DelegationResponse,
    LinkRequest,
    Process,
)
from tsm.mas.status import status_of
from tsm.store.loop import run

COOKIE = "mas"
RETURN_URL = "tsm-return-url"
COOKIE_PATH = "/mas"  # of interface 3, and of the app's report
LINK_PATH = "/mas/link"
DELEGATION_PATH = "/mas/delegation"
CORRELATION = re.compile(r"[A-Za-z0-9-]{0,64}", re.ASCII)


class MasRoutes:
    """The two interfaces over the session service."""

    def __init__(self, sessions: SessionService, access: Access) -> None:
        self._sessions = sessions
        self._access = access

    async def delegation(self, request: Request) -> Response:
        """DELEGATE."""
        try:
            answer = await self._delegate(request)
        except TsmError as error:
            status = status_of(logged(request, error))
            answer = DelegationResponse(status, status.info)
        return Response(answer.encode(), media_type="application/xml")

    async def _delegate(self, request: Request) -> DelegationResponse:
        caller = self._access.demand(request, "operator", "provider")
        correlation = request.headers.get("tsm-correlation", "")
        if not CORRELATION.fullmatch(correlation):
            raise TsmError(ErrorCode.INVALID_INPUT, "Tsm-Correlation")
        delegate = partial(
            self._sessions.delegate,
            DelegationRequest.parse(await read_body(request, MAX_DELEGATION)),
            party=caller.party,
            iccid=Iccid(request.headers.get("tsm-card", "")),
            correlation=correlation,
            request_id=request_id(request),
        )
        return await run(delegate)

    async def link(self, request: Request) -> Response:
        """START to END. No thread is changed: an exchange costs less than a change."""
        began = time.perf_counter()
        message = LinkRequest.parse(await read_body(request, MAX_MESSAGE))
        cookie = request.cookies.get(COOKIE, "")
        if message.process is Process.DISCONNECT_RESULT:
            await self._sessions.acknowledgements(message, cookie)
        answer = await run(self._sessions.link, message, cookie, request_id(request))
        lives = f"{COOKIE}={answer.cookie}" if answer.cookie else f"{COOKIE}=; Max-Age=0"
        headers = {
            "set-cookie": f"{lives}; Path={COOKIE_PATH}; Secure; HttpOnly; SameSite=Strict",
            "server-timing": f"app;dur={(time.perf_counter() - began) * 1000:.3f}",
            "cache-control": "no-store",
        }
        if answer.return_url:
            headers[RETURN_URL] = answer.return_url
        return Response(answer.body, headers=headers, media_type="application/xml")


def routes(sessions: SessionService, access: Access) -> list[Route]:
    mas = MasRoutes(sessions, access)
    return [
        Route(DELEGATION_PATH, mas.delegation, methods=["POST"]),
        Route(LINK_PATH, mas.link, methods=["POST"]),
    ]
