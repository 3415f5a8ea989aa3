"""Where the browser comes back to after an operator's launch (MC-05 interface 5).

    GET /mno/return?rcptNum=..&masSign=..    303 to the return URL of the provider for whom it was; 204 for nobody's

Nobody is authenticated here: the signature is what counts. When the step failed there is no way on but its code, so
that a browser and a card that refuses do not go round in circles.
"""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.errors import request_id
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts

RETURN_PATH = "/mno/return"
NO_CONTENT, SEE_OTHER = 204, 303
NO_STORE = {"Cache-Control": "no-store"}


class OperatorRoutes:
    """The route of this module."""

    def __init__(self, parts: "Parts") -> None:
        self._deployments = parts.deployments

    async def come_back(self, request: Request) -> Response:
        """UNKNOWN_RECEPTION, BAD_SIGNATURE, or why the step failed."""
        reception, mas_sign = (request.query_params.get(name, "") for name in ("rcptNum", "masSign"))
        url = await run(self._deployments.come_back, reception, mas_sign, request_id(request))
        if not url:  # the operator itself had the phone at hand: there is nowhere to go
            return Response(status_code=NO_CONTENT, headers=NO_STORE)
        return RedirectResponse(url, SEE_OTHER, headers=NO_STORE)


def routes(parts: "Parts") -> list[Route]:
    return [Route(RETURN_PATH, OperatorRoutes(parts).come_back, methods=["GET"])]
