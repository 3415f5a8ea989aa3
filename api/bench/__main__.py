"""`python -m api.bench [PART ...]` measures these parts, or all with a goal; ends with 1 when a goal was missed."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from api.bench import large, mas, order, projections, store

ALL = ("mas", "store", "projections")  # what `make bench` measures
PARTS: dict[str, Callable[[int], bool]] = {
    "mas": mas.report,
    "store": store.report,
    "projections": projections.report,
    "order": order.report,
    "large": large.report,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, "serve", []), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=3, help="how often each side is measured")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.parts == ["serve"]:  # what the bench of MAS starts: a server that can be asked for its CPU time
        mas.serve_measured(given.data)
        return
    met = [PARTS[part](given.runs) for part in given.parts or ALL]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
