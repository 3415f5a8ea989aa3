"""Vectors from outside: what other projects' tests and cards hold, with their sources, in globalplatform.json."""

import json
from pathlib import Path
from typing import Any

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("globalplatform.json").read_text())["vectors"]


def vector(name: str) -> dict[str, Any]:
    """Inputs and expected values of one vector, in one dictionary; octets are hex, as in the file."""
    [found] = [each for each in VECTORS if each["name"] == name]
    return found["inputs"] | found["expected"]


def vectors(kind: str) -> list[str]:
    """The names of all vectors of a kind."""
    return [each["name"] for each in VECTORS if each["kind"] == kind]
