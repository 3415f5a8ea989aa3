"""The other end of the audit API: what `tsm audit` asks, and how it takes a long answer.

An export is written to a part file, whole lines only, and renamed once the server has said that it is complete. What is
cut is gone on with behind the last line, now or at the next call: the part's name has a digest of what was asked, so an
export never goes on with another's beginning.
"""

import base64
import hashlib
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx

from tsm.errors import ErrorCode, TsmError

PAGE = 100  # events of a query
SECONDS = 30.0  # without an answer
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 1.0  # seconds after the first of them; twice as long after each further one
NOT_NOW = {
    ErrorCode.STORE_UNAVAILABLE,
    ErrorCode.STORE_BUSY,
    ErrorCode.READ_MODEL_BEHIND,
    ErrorCode.RATE_LIMITED,  # an export that was cut keeps its place until the server notices
    ErrorCode.UPSTREAM_UNAVAILABLE,
}
Form = Literal["jsonl", "csv"]
Progress = Callable[[int, int], None]  # the position reached, and where it ends

EVENTS = """query Events($filter: EventsFilter, $first: Int, $after: String, $last: Int, $before: String) {
  events(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    nodes {
      position recordedAt occurredAt topic text actor role tenant tenants operator provider municipality correlation
      reception card domain aid credential subject stream number causation request command reason
    }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: by a client certificate, by a token, or by both."""

    certificate: Path | None = None
    key: Path | None = None
    token: str = field(default="", repr=False)


class Ending(NamedTuple):
    """The last line of an export's answer."""

    complete: bool
    code: str
    request: str


class AuditClient:
    """One server, as one auditor sees it."""

    def __init__(self, server: str, ca: Path | None, identity: Identity) -> None:
        """INVALID_INPUT for an address that is none, and for files that are not as they should be."""
        self.server = server
        self._http = client_of(server, ca, identity)

    def close(self) -> None:
        self._http.close()

    def history(self, asked: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        """The first events of a filter, oldest first."""
        found: list[dict[str, Any]] = []
        after, more = None, True
        while more and len(found) < limit:
            page = self._events(asked, first=min(PAGE, limit - len(found)), after=after)
            found += page["nodes"]
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        return found

    def search(self, asked: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        """The last events of a filter, newest first."""
        found: list[dict[str, Any]] = []
        before, more = None, True
        while more and len(found) < limit:
            page = self._events(asked, last=min(PAGE, limit - len(found)), before=before)
            found += page["nodes"][::-1]
            before, more = page["pageInfo"]["startCursor"], page["pageInfo"]["hasPreviousPage"]
        return found

    def _events(self, asked: Mapping[str, Any], **bounds: Any) -> dict[str, Any]:
        body = {"query": EVENTS, "variables": {"filter": asked, **bounds}}
        with reaching():
            response = self._http.post("/graphql", json=body, headers={"Accept": "application/graphql-response+json"})
        answer = read_json(response)
        if answer.get("errors"):
            raise refusal(answer["errors"][0].get("extensions", {}), answer["errors"][0].get("message", ""))
        if not isinstance(answer.get("data"), dict):
            raise refusal(answer, f"HTTP {response.status_code}")
        page: dict[str, Any] = answer["data"]["events"]
        return page

    def export(self, asked: Mapping[str, Any], form: Form, file: Path, progress: Progress) -> int:
        """Writes all events of a filter to a new file; how many. ALREADY_EXISTS; or whatever the server refuses it for.

        What was written until then stays in the part file: the same call goes on with it.
        """
        if file.exists():
            raise TsmError(ErrorCode.ALREADY_EXISTS, str(file))
        part = Part(part_of(file, self.server, asked, form), form)
        failures = 0
        while True:
            before = part.cursor
            try:
                ending = self._go_on(asked, form, part, progress)
            except TsmError as error:
                ending = Ending(False, error.code, error.detail)
            if ending.complete:
                part.become(file)
                return part.events
            failures = failures + 1 if part.cursor == before else 0
            if failures == ATTEMPTS or known_code(ending.code) not in NOT_NOW:
                raise TsmError(known_code(ending.code), f"{ending.request}; {part.events} events are kept: call again")
            time.sleep(PAUSE * 2**failures)

    def _go_on(self, asked: Mapping[str, Any], form: Form, part: "Part", progress: Progress) -> Ending:
        """One request: behind what the part has."""
        after = {"after": part.cursor} if part.cursor else {}
        with (
            reaching(),
            self._http.stream("GET", "/exports/events", params={"format": form, **asked, **after}) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise refusal(read_json(answer), f"HTTP {answer.status_code}")
            end = int(answer.headers["Tsm-Export-End"])
            for whole in lines_of(answer.iter_bytes()):
                ending = read_ending(whole, form)
                if ending is not None:
                    return ending
                part.add(whole)
                progress(part.position, end)
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the connection was cut")


class Part:
    """An export that is not complete: whole lines, and the cursor of the last."""

    def __init__(self, path: Path, form: Form) -> None:
        self._form = form
        self._path = path
        self.events, self.cursor, end = 0, "", 0
        path.touch(mode=0o600)
        with path.open("rb") as written:
            for whole in written:
                if whole.endswith(b"\n"):
                    self._count(whole)
                    end += len(whole)
        os.truncate(path, end if self.cursor else 0)
        self._file = path.open("ab")

    @property
    def position(self) -> int:
        return int(base64.b64decode(self.cursor)) if self.cursor else 0

    def add(self, whole: bytes) -> None:
        self._file.write(whole)
        self._count(whole)

    def become(self, file: Path) -> None:
        """Complete, and on the disk, under its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.rename(file)

    def _count(self, whole: bytes) -> None:
        """A line that is no heading."""
        cursor = cursor_of(whole, self._form)
        if cursor:
            self.events, self.cursor = self.events + 1, cursor


def part_of(file: Path, server: str, asked: Mapping[str, Any], form: Form) -> Path:
    """`events.jsonl.3f2a1c9d0b7e.part`."""
    said = json.dumps([server, form, asked], sort_keys=True)
    return file.with_name(f"{file.name}.{hashlib.sha256(said.encode()).hexdigest()[:12]}.part")


def lines_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines: what has no end yet is never one."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


def cursor_of(whole: bytes, form: Form) -> str:
    """Of a line; empty for a heading."""
    if form == "jsonl":
        return str(json.loads(whole)["cursor"])
    first = whole.partition(b",")[0].decode()
    return "" if first == "cursor" else first


def read_ending(whole: bytes, form: Form) -> Ending | None:
    """None for a line that is an event, or the heading."""
    if form == "jsonl":
        told = json.loads(whole)
        return Ending(told["complete"], told.get("code", ""), told.get("requestId", "")) if "complete" in told else None
    state, _, _, code, request, *_ = whole.decode().split(",", 5)
    return Ending(state == "complete", code, request) if state in ("complete", "incomplete") else None


def client_of(server: str, ca: Path | None, identity: Identity) -> httpx.Client:
    """INVALID_INPUT for an address that is none, and for files that are not as they should be."""
    check_server(server)
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if identity.certificate is not None:
            context.load_cert_chain(identity.certificate, identity.key)
    except (OSError, ssl.SSLError) as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"certificate or key: {type(error).__name__}") from error
    headers = {"Authorization": f"Bearer {identity.token}"} if identity.token else {}
    return httpx.Client(base_url=server, verify=context, headers=headers, timeout=SECONDS)


def check_server(server: str) -> None:
    """INVALID_INPUT for what could never be connected to, so that nobody tries again and again."""
    try:
        url = httpx.URL(server)
        sound = url.scheme in ("https", "http") and bool(url.host.encode("idna"))
    except (httpx.InvalidURL, UnicodeError):
        sound = False
    if not sound:
        raise TsmError(ErrorCode.INVALID_INPUT, "the server's address is none: https://host:port", ("server",))


@contextmanager
def reaching() -> Iterator[None]:
    """UPSTREAM_UNAVAILABLE when the server cannot be reached, or goes away; CERTIFICATE_INVALID for one not known."""
    try:
        yield
    except httpx.HTTPError as error:
        why = unverified(error)
        if why:
            raise TsmError(ErrorCode.CERTIFICATE_INVALID, f"the server's: {why}; --ca names its authority") from error
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, type(error).__name__) from error


def unverified(error: BaseException | None) -> str:
    """Why the server's certificate was not taken; empty when something else went wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


def read_json(answer: httpx.Response) -> dict[str, Any]:
    try:
        read = answer.json()
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"HTTP {answer.status_code}")
    return read


def refusal(told: Mapping[str, Any], message: str) -> TsmError:
    """What the server refused, in its own words."""
    return TsmError(known_code(str(told.get("code", ""))), f"{message}; request {told.get('requestId', 'unknown')}")


def known_code(code: str) -> ErrorCode:
    return ErrorCode(code) if code in ErrorCode.__members__.values() else ErrorCode.UPSTREAM_UNAVAILABLE
