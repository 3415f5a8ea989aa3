"""The other end of `/mno/signals` for a file: it is sent in parts, and whatever was not taken for lack of room again.

A part is a request of its own, so the client reads what it is answered before it goes on. To begin anew is harmless:
signals have ids, and the server says that it knows them. So nothing is kept of how far a file was sent.
"""

import codecs
import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
import msgspec

from api.audit_client import ATTEMPTS, NOT_NOW, PAUSE, reaching, read_json, refusal
from api.rest.feed import LONGEST_LINE, MEDIA_TYPE
from api.rest.messages import UNREADABLE
from tsm.errors import MESSAGES, ErrorCode, TsmError
from tsm.model.line import Signal

PART = 500  # lines of a request: the answers to these fit into what connections hold
COLUMNS = frozenset(Signal.__struct_fields__) - {"source"}
TOO_LARGE = ErrorCode.MESSAGE_TOO_LARGE
AGAIN = {*NOT_NOW, ErrorCode.CONFLICT}


class Row(NamedTuple):
    """A signal in a file."""

    line: int  # its place in the file, from 1
    octets: int  # of the file up to its end, more or less
    text: bytes  # as it is sent


class Problem(msgspec.Struct, frozen=True):
    """Why a line, or the rest of them, is not taken."""

    code: str
    message: str
    field: tuple[str, ...]


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """A line of an answer; without a number it says why there are no more."""

    line: int = 0
    id: str = ""
    position: int = 0
    repeated: bool = False
    error: Problem | None = None
    request_id: str = "unknown"

    def __post_init__(self) -> None:
        if self.error is None and not (self.line and self.position):
            raise ValueError("neither taken nor refused")

    @property
    def is_for_later(self) -> bool:
        return self.error is not None and self.error.code in AGAIN


SAID = msgspec.json.Decoder(Said)


class Answer(NamedTuple):
    """What became of a part: of fewer lines than it has when the server could not go on, and why it could not."""

    lines: list[Said]
    ended: TsmError | None = None


class Refusal(NamedTuple):
    """A line that was not taken."""

    line: int
    id: str
    code: str
    message: str
    field: tuple[str, ...]


@dataclass
class Summary:
    """What became of a file."""

    recorded: int = 0
    repeated: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def take(self, row: Row, said: Said) -> None:
        if (error := said.error) is not None:
            self.refused.append(Refusal(row.line, said.id, error.code, error.message, error.field))
        elif said.repeated:
            self.repeated += 1
        else:
            self.recorded += 1


class LinesClient:
    """One server, as one operator sees it."""

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None] = time.sleep) -> None:
        """`http` shows the operator's certificate."""
        self._http = http
        self._sleep = sleep

    def send(self, rows: Iterator[Row], progress: Callable[[int], None]) -> Summary:
        """All of them; whatever the server refuses the whole for is raised, and what came before is recorded."""
        summary = Summary()
        while part := list(islice(rows, PART)):
            too_long = [row for row in part if len(row.text) > LONGEST_LINE]
            summary.refused += [Refusal(row.line, "", TOO_LARGE, MESSAGES[TOO_LARGE], ()) for row in too_long]
            for row, said in self._insist([row for row in part if row not in too_long]):
                summary.take(row, said)
            progress(part[-1].octets)
        summary.refused.sort()
        return summary

    def _insist(self, part: Sequence[Row]) -> list[tuple[Row, Said]]:
        """Each with its answer; what could not be taken now is sent again, for as long as that helps.

        In the end whatever the server, or the way to it, was in want of is raised.
        """
        answered: list[tuple[Row, Said]] = []
        failures = 0
        while part:
            lines, ended = self._attempt(part)
            told = list(zip(part, lines, strict=False))
            later = [row for row, said in told if said.is_for_later] + [*part[len(lines) :]]
            answered += [(row, said) for row, said in told if not said.is_for_later]
            failures = failures + 1 if len(later) == len(part) else 0
            if failures > ATTEMPTS:
                why = ended or refused_of(lines[0])
                raise TsmError(why.code, f"{why.detail}: import it again later")
            if later:
                self._sleep(PAUSE * 2**failures)
            part = later
        return answered

    def _attempt(self, part: Sequence[Row]) -> Answer:
        """What will not be otherwise the next time is raised."""
        try:
            answer = self._post(part)
        except TsmError as error:
            answer = Answer([], error)
        if answer.ended is not None and answer.ended.code not in AGAIN:
            raise answer.ended
        return answer

    def _post(self, part: Sequence[Row]) -> Answer:
        body = b"\n".join(row.text for row in part)
        with reaching():
            response = self._http.post("/mno/signals", content=body, headers={"Content-Type": MEDIA_TYPE})
        if not response.is_success:
            raise refusal(read_json(response), f"HTTP {response.status_code}")
        told = read_answer(response.content)
        lines = [said for said in told if said.line]
        if len(lines) > len(part) or not told:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "not the answers of a feed")
        ended = next((refused_of(said) for said in told if not said.line), None)
        return Answer(lines, ended)


def read_answer(content: bytes) -> list[Said]:
    """UPSTREAM_UNAVAILABLE when it is none: something else answers at that address."""
    try:
        return [SAID.decode(line) for line in content.splitlines()]
    except UNREADABLE:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "not the answers of a feed") from None


def refused_of(said: Said) -> TsmError:
    """Of a line that says so."""
    assert said.error is not None  # noqa: S101  whoever is told of nothing else was refused
    return refusal({"code": said.error.code, "requestId": said.request_id}, said.error.message)


def read_rows(path: Path, lines: IO[bytes]) -> Iterator[Row]:
    """The signals of a file: CSV when its name ends so, else JSON Lines. INVALID_INPUT for a heading that is none."""
    return csv_rows(lines) if path.suffix.lower() == ".csv" else json_rows(lines)


def json_rows(lines: IO[bytes]) -> Iterator[Row]:
    octets = 0
    for number, line in enumerate(lines, 1):
        octets += len(line)
        text = line.removeprefix(codecs.BOM_UTF8).strip()
        if text:
            yield Row(number, octets, text)


def csv_rows(lines: IO[bytes]) -> Iterator[Row]:
    """RFC 4180, UTF-8. An empty cell says nothing, and a row of them, as spreadsheets leave it, is a blank line.

    A row with more or fewer cells than the heading is for the server to refuse.
    """
    octets = 0

    def text() -> Iterator[str]:
        nonlocal octets
        for line in lines:
            octets += len(line)
            yield line.decode("utf-8-sig", "replace")

    reader = csv.reader(text(), strict=True)
    rows = cells_of(reader)
    heading = next(rows, [])
    if unknown := sorted({*heading} - COLUMNS):
        raise TsmError(ErrorCode.INVALID_INPUT, f"no such column: {unknown[0]}")
    if len({*heading}) < len(heading) or not {"id", "kind", "occurred_at"} <= {*heading}:
        raise TsmError(ErrorCode.INVALID_INPUT, "the heading names each column once, and id, kind and occurred_at")
    for cells in rows:
        if any(cells):
            said = {name: cell for name, cell in zip(heading, cells, strict=False) if cell}
            said |= {"cells": f"{len(cells)}"} if len(cells) != len(heading) else {}
            yield Row(reader.line_num, octets, json.dumps(said).encode())


def cells_of(reader: Any) -> Iterator[list[str]]:
    """The rows; INVALID_INPUT where what comes is no CSV, such as a quotation mark that is never closed."""
    try:
        yield from reader
    except csv.Error:
        raise TsmError(
            ErrorCode.INVALID_INPUT, f"no CSV: look for quotation marks before line {reader.line_num}"
        ) from None
