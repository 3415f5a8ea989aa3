"""What it costs to refuse: CPU time of one refusal, for documents and variables that are meant to keep a server busy.

A refusal is measured from the octets of the body to the error, without a network. Every round sends another text, for
what is known is answered from memory. Beside the worst of them stands what validation alone would have cost.
"""

import json
from collections.abc import Callable, Mapping
from statistics import median
from time import process_time

from graphql import parse, validate

from api.bench.report import Line, tell, wide_console
from api.graphql.answers import read_json
from api.graphql.documents import Refused, read
from api.graphql.http import read_members
from api.graphql.limits import MAX_BODY, MAX_DOCUMENT, MAX_TOKENS
from api.graphql.schema import SCHEMA
from tsm.errors import TsmError

GOAL = 20.0  # ms of CPU
REFUSALS = 20  # of each kind in one round


def bomb(fragments: int) -> str:
    """Each fragment spreads the next twice."""
    spread = (f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(fragments))
    return "{ ...F0 } " + " ".join(spread) + f" fragment F{fragments} on Query {{ logPosition }}"


def crowd(fragments: int) -> str:
    """One name in many fragments, all in one place."""
    parts = " ".join(f"fragment F{n} on Query {{ {'logPosition ' * 20}}}" for n in range(fragments))
    return "{" + " ".join(f"...F{n}" for n in range(fragments)) + "} " + parts


def nested(levels: int) -> str:
    return "{ " + "node { " * levels + "id" + " }" * levels + " }"


def of(document: str, variables: object = None) -> bytes:
    return json.dumps({"query": document, "variables": variables}).encode()


ATTACKS: Mapping[str, Callable[[], bytes]] = {
    "one response key 479 times in 960 octets": lambda: of("{" + "a " * 479 + "}"),
    "one response key 998 times": lambda: of("{" + "logPosition " * 998 + "}"),
    "one response key in 30 fragments": lambda: of(crowd(30)),
    "a bomb of 90 fragments": lambda: of(bomb(90)),
    "300 aliases": lambda: of("{" + " ".join(f"a{n}: logPosition" for n in range(300)) + "}"),
    "190 levels": lambda: of(nested(190)),
    "beyond the parser's levels": lambda: of(nested(240)),
    "490 directives": lambda: of("{ logPosition " + "@a " * 490 + "}"),
    "190 operations": lambda: of(" ".join(f"query Q{n} {{ a }}" for n in range(190))),
    "more tokens than allowed": lambda: of("{" + "a " * 7_000 + "}"),
    "a string as long as a document may be": lambda: of('{ node(id: "' + "\\u0041" * (MAX_DOCUMENT // 6 - 10) + '") ?'),
    "a block string as long as that": lambda: of('{ node(id: """' + "\n " * (MAX_DOCUMENT // 2 - 30) + '""") ?'),
    "a document of 250 KiB": lambda: of("{ logPosition }" + " " * 250 * 1024),
    "87,000 values in variables": lambda: of("{ logPosition }", {"a": [1] * 87_000}),
    "variables 900 levels deep": lambda: of("{ logPosition }", json.loads('{"a":' * 900 + "1" + "}" * 900)),
    "85,000 objects in variables": lambda: b'{"query":"{a}","variables":{"a":[' + b"{}," * 85_000 + b"{}]}}",
    "brackets only": lambda: b"[" * MAX_BODY,
    "one object of 17,000 names": lambda: of("{ logPosition }", {f"k{n}": n for n in range(17_000)}),
}


def refuse(body: bytes, number: int) -> None:
    """What the edge does with a body until it refuses it. The number makes another text of its document."""
    try:
        asked = read_members(read_json(body))
        read(SCHEMA._schema, f"{asked.query}#{number}")
    except (Refused, TsmError):
        return
    raise AssertionError("it was not refused")


def cpu_ms(body: bytes, round_number: int) -> float:
    """CPU time of one refusal, the mean of some."""
    began = process_time()
    for number in range(REFUSALS):
        refuse(body, round_number * REFUSALS + number)
    return (process_time() - began) * 1000 / REFUSALS


def validation_ms(body: bytes) -> float | None:
    """What validation would have cost; None for what does not parse."""
    try:
        asked = read_members(read_json(body))
        document = parse(asked.query or "", max_tokens=MAX_TOKENS)
    except Exception:  # noqa: BLE001 - whatever the reason is, there is nothing to validate
        return None
    began = process_time()
    validate(SCHEMA._schema, document)
    return (process_time() - began) * 1000


def report(rounds: int) -> bool:
    """Measure and print; whether every refusal was cheap enough."""
    lines = []
    for what, make in ATTACKS.items():
        body = make()
        ours = median(cpu_ms(body, number) for number in range(rounds))
        validated = validation_ms(body)
        beside = ("", "") if validated is None else ("its validation", f"{validated:,.1f} ms")
        lines.append(Line(what, f"{ours:.2f} ms", *beside, goal=f"≤ {GOAL:g} ms", met=ours <= GOAL))
    return tell(wide_console(), f"CPU time of a refusal, medians of {rounds} rounds", lines)
