"""The phone's browser: pages, cookies, one form, and the common app when a page asks for it (MC-05 interface 1)."""

import re
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

from api.demo.party import reaching
from api.demo.phone.common_app import CommonApp, Emit, elapsed_ms
from tsm.errors import ErrorCode, TsmError

MOST_LAUNCHES = 10  # in one visit
LAUNCH = re.compile(r'location\.href\s*=\s*"(commonApl:[^"]*)"')


@dataclass(slots=True)
class Page:
    """What a person sees, and what a script on it starts."""

    url: str
    status: int
    state: str = ""
    text: list[str] = field(default_factory=list)
    action: str | None = None  # of its form
    hidden: dict[str, str] = field(default_factory=dict)
    launch: str | None = None


class PageReader(HTMLParser):
    """Reads the mobile site's own pages."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._inside = tag
        if tag == "main":
            self._page.state = values.get("data-state", "")
        elif tag == "form":
            self._page.action = urljoin(self._page.url, values.get("action", ""))
        elif tag == "input" and values.get("type") == "hidden":
            self._page.hidden[values.get("name", "")] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and (found := LAUNCH.search(data)):
            self._page.launch = found[1]
        elif self._inside == "p" and data.strip():
            self._page.text.append(data.strip())


class Browser:
    """One visit to a mobile site."""

    def __init__(self, http: httpx.Client, app: CommonApp, emit: Emit) -> None:
        http.event_hooks = {"request": [refuse_plain_http], "response": []}
        http.follow_redirects = True
        self._http = http
        self._app = app
        self._emit = emit

    def open(self, url: str, **query: str) -> Page:
        """The page where a visit comes to rest, after every launch on the way."""
        began = time.perf_counter()
        with reaching():
            response = self._http.get(url, params=query or None)
        return self._rest(response, elapsed_ms(began))

    def submit(self, page: Page, fields: dict[str, str]) -> Page:
        """Fill in the page's form and send it. INVALID_INPUT when there is none."""
        if page.action is None:
            raise TsmError(ErrorCode.INVALID_INPUT, "no form on this page")
        began = time.perf_counter()
        with reaching():
            response = self._http.post(page.action, data=page.hidden | fields)
        return self._rest(response, elapsed_ms(began))

    def _rest(self, response: httpx.Response, ms: float) -> Page:
        page = read_page(response)
        for _ in range(MOST_LAUNCHES):
            self._emit(step="PAGE", state=page.state, status=page.status, text=page.text, ms=ms)
            if page.launch is None:
                return page
            back = self._app.run(page.launch)
            self._emit(step="RE-ACCESS", url=back.partition("?")[0])
            began = time.perf_counter()
            with reaching():
                page = read_page(self._http.get(back))
            ms = elapsed_ms(began)
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the site launches for ever")


def read_page(response: httpx.Response) -> Page:
    page = Page(str(response.url), response.status_code)
    if response.headers.get("Content-Type", "").startswith("application/json"):  # a server's refusal, shown as it is
        page.state, page.text = "refused", [response.text]
    else:
        PageReader(page).feed(response.text)
    return page


def refuse_plain_http(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise TsmError(ErrorCode.INVALID_INPUT, "not https")
