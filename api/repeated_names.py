"""JSON in which a name comes twice: readers differ in which of the two they take, so here nobody takes either."""

import json
from typing import Any


def refuse_repeated_names(text: bytes) -> None:
    """`ValueError` when a name comes twice in an object of a JSON text, however deep it is and however it is written.

    RecursionError when the text is too deep. Other faults of a text are for another reader to find.
    """
    READER.decode(text.decode())


def once(pairs: list[tuple[str, Any]]) -> None:
    """`ValueError` when two of them have the same name."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name that comes twice")


READER = json.JSONDecoder(object_pairs_hook=once)  # made once: that takes longer than to read the line of a feed
