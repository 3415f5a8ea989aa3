"""`python -m api.bench [PART ...]` measures these parts, or all with a goal; ends with 1 when a goal was missed."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from api.bench import graphql, large, mas, order, projections, refusals, store, swap

ALL = ("mas", "store", "projections", "graphql", "refusals", "swap")  # what `make bench` measures
PARTS: dict[str, Callable[[int], bool]] = {
    "mas": mas.report,
    "store": store.report,
    "projections": projections.report,
    "graphql": graphql.report,
    "refusals": refusals.report,
    "swap": swap.report,
    "order": order.report,
    "large": large.report,
}
LINES = "lines"  # a part whose data stay
# What a part starts: the server that it measures, on the data folder that it made.
SERVERS: dict[str, Callable[[Path], None]] = {
    "serve": mas.serve_measured,
    "serve-graphql": graphql.serve_measured,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api.bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=(*PARTS, LINES, *SERVERS, []), metavar="PART", help=", ".join((*PARTS, LINES))
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each side is measured, where sides take turns")
    parser.add_argument("--data", type=Path, default=swap.DATA, help=f"where {LINES} keeps its data: %(default)s")
    parser.add_argument("--lines", type=int, default=swap.LINES, help=f"how many, of {LINES}: %(default)s")
    given = parser.parse_args()
    if len(given.parts) == 1 and given.parts[0] in SERVERS:
        SERVERS[given.parts[0]](given.data)
        return
    met = [measure(part, given) for part in given.parts or ALL]
    sys.exit(0 if all(met) else 1)


def measure(part: str, given: argparse.Namespace) -> bool:
    """Whether every goal of the part was met."""
    return swap.report_large(given.data, given.lines) if part == LINES else PARTS[part](given.runs)


if __name__ == "__main__":
    main()
