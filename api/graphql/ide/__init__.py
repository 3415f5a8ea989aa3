"""GraphiQL, a page to write queries in, from this server alone: nothing is loaded from anywhere else.

The files of others lie here as their packages on npm hold them; `VENDORED.md` says which, and under which licence.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent
PAGE = "index.html"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in KINDS}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src data:;"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
A_DAY = "public, max-age=86400"


def page() -> Response:
    """For who may introspect; the page itself knows nothing of this server but its address."""
    return file(PAGE, "no-store")


def file(name: str, cached: str) -> Response:
    return Response(FILES[name], media_type=KINDS[Path(name).suffix], headers={**HEADERS, "Cache-Control": cached})


async def answer(request: Request) -> Response:
    """`GET /graphql/ide/{name}`: public, for these files tell nothing of this server."""
    name = request.path_params["name"]
    return file(name, A_DAY) if name in FILES else Response(status_code=404, headers=HEADERS)
