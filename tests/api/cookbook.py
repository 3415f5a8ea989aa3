"""The cookbook as data: its questions, who asks them, what is sent, and the answers that it shows.

The values of its answers are those of one run, and no two runs have the same: times, numbers and keys differ. So an
answer that is shown is held against a real one value by value. What looks like a time, the number of a card or a random
id must look so there, and the same value of the document stands for the same value of the run, everywhere. By that the
variables of later questions, which name what earlier answers have shown, become those of the run.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "cookbook.md"
CUT = "…"  # what stands where the document leaves out the rest of a list or of a text
ASKS = re.compile(r"^\*\*(\w+)\*\*, `([a-z-]+)` of `([^`]+)`", re.MULTILINE)
BLOCK = re.compile(r"^```(graphql|http|json variables|json answer|jsonl answer)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^(query|mutation|subscription) (\w+)", re.MULTILINE)
CHANGING = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+\d\d:\d\d)?"  # times
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # UUID
    r"|\b[0-9a-f]{6,}\b|\b[0-9A-F]{34,40}\b"  # key check values, hashes and correlations; serial numbers
    r"|\b\d{16,20}\b"  # receptions and cards
)
OPAQUE = {"id", "cursor", "startCursor", "endCursor", "launch"}


@dataclass
class Step:
    """Something that is sent: a GraphQL document, or the line of an HTTP request; once for each answer shown."""

    name: str
    kind: str  # query, mutation, subscription, http
    text: str
    who: tuple[str, str, str]  # role, tenant, person
    variables: dict[str, Any] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)


@dataclass
class Question:
    title: str
    steps: list[Step]
    not_told: bool  # whether it says what the answer leaves out


def questions(text: str) -> list[Question]:
    """One for each heading with a number."""
    sections = re.split(r"^### \d+\. ", text, flags=re.MULTILINE)[1:]
    return [read(section.partition("\n## ")[0]) for section in sections]


def read(section: str) -> Question:
    title, _, body = section.partition("\n")
    return Question(title, list(steps(body)), "\n**Not told:** " in body)


def steps(body: str) -> Iterator[Step]:
    """In their order. Whoever was named last asks."""
    found: list[tuple[int, re.Match[str]]] = [(match.start(), match) for match in ASKS.finditer(body)]
    found += [(match.start(), match) for match in BLOCK.finditer(body)]
    who: tuple[str, str, str] | None = None
    step: Step | None = None
    for _, match in sorted(found, key=lambda each: each[0]):
        if match.re is ASKS:
            who = match[2], match[3], match[1].lower()
            continue
        kind, content = match[1], match[2]
        if kind in ("graphql", "http"):
            if step:
                yield step
            assert who is not None, f"nobody asks:\n{content}"
            step = begun(kind, content, who)
        else:
            assert step is not None, f"nothing was sent:\n{content}"
            if kind == "json variables":
                step.variables = json.loads(content)
            else:
                step.answers.append(json.loads(content) if kind == "json answer" else content.splitlines())
    if step:
        yield step


def begun(kind: str, content: str, who: tuple[str, str, str]) -> Step:
    if kind == "http":
        return Step(content.split()[1].partition("?")[0], "http", content.split()[1], who)
    names = NAME.findall(content)
    assert len(names) == 1, f"not one operation with a name:\n{content}"
    return Step(names[0][1], names[0][0], content, who)


class Meanings:
    """For which value of the run each value of the document stands."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known: dict[object, object] = dict(known)

    def of(self, value: Any) -> Any:
        """What the document says, said of this run."""
        match value:
            case dict():
                return {name: self._of_position(name, each) for name, each in value.items()}
            case list():
                return [self.of(each) for each in value]
            case str():
                return self._known.get(value, value)
        return value

    def _of_position(self, name: str, value: Any) -> Any:
        is_position = isinstance(value, int) and (is_place(name) or name == "after")
        return self._known.get(("position", value), value) if is_position else self.of(value)

    def compare(self, shown: Any, real: Any, place: str = "") -> None:
        """Fails where the run's answer is not as shown; learns what the shown values stand for."""
        match shown:
            case dict():
                assert isinstance(real, dict) and shown.keys() == real.keys(), f"{place}: {real}"
                for name, value in shown.items():
                    self.compare(value, real[name], f"{place}.{name}")
            case list():
                assert isinstance(real, list), f"{place}: {real}"
                told = shown[:-1] if shown[-1:] == [CUT] else shown
                assert len(real) > len(told) if told is not shown else len(real) == len(told), f"{place}: {real}"
                for number, (value, other) in enumerate(zip(told, real, strict=False)):
                    self.compare(value, other, f"{place}.{number}")
            case str():
                assert isinstance(real, str), f"{place}: {real}"
                self._compare_text(shown, real, place)
            case _ if is_place(place.rpartition(".")[2]) and shown is not None:
                assert isinstance(real, int), f"{place}: {real}"
                self._learn(("position", shown), ("position", real), place)
                self._known["position", shown] = real
            case _:
                assert shown == real, f"{place}: {shown}, and not {real}"

    def _compare_text(self, shown: str, real: str, place: str) -> None:
        if place.rpartition(".")[2] in OPAQUE:
            assert real, place
        elif shown.endswith(CUT):
            assert masked(real).startswith(masked(shown[:-1])), f"{place}: {shown}, and not {real}"
            return
        else:
            assert masked(shown) == masked(real), f"{place}: {shown}, and not {real}"
        if CHANGING.fullmatch(shown) or place.rpartition(".")[2] in OPAQUE:
            self._learn(shown, real, place)
            self._known[shown] = real

    def _learn(self, shown: object, real: object, place: str) -> None:
        known = self._known.get(shown)
        known = ("position", known) if isinstance(known, int) else known
        assert known in (None, real), f"{place}: {shown} stood for {known}, and now for {real}"


def is_place(name: str) -> bool:
    """Whether a field or variable of this name holds a position of the log."""
    return name.lower().endswith("position") or name == "changed"


def masked(text: str) -> str:
    return CHANGING.sub("*", text)
