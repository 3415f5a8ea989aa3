"""Side by side: how figures are taken, and how they are told.

Sides take turns within a round, for the disk of a shared machine is another one from minute to minute; what is told is
the median of the rounds, and only the ratio of two sides of one run means anything.
"""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

SERVER_CORE, OTHER_CORE = 0, 1
WIDTH = 140  # characters


class Line(NamedTuple):
    """A figure, what it is measured against, and whether it is good enough; None where nothing was promised."""

    what: str
    ours: str
    against: str = ""
    baseline: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


def faster(what: str, ours: float, against: str, baseline: float, goal: float) -> Line:
    """Both in things a second; ours has to be at least `goal` times the baseline."""
    ratio = ours / baseline
    return Line(what, f"{ours:,.0f}/s", against, f"{baseline:,.0f}/s", f"{ratio:.2f}", f"≥ {goal:g}", ratio >= goal)


def told(what: str, ours: float, against: str, baseline: float) -> Line:
    """As `faster`, but nothing was promised."""
    return Line(what, f"{ours:,.0f}/s", against, f"{baseline:,.0f}/s", f"{ours / baseline:.2f}")


def adds(what: str, ours: float, against: str, baseline: float, most: float) -> Line:
    """Both in milliseconds; ours may take `most` longer."""
    more = ours - baseline
    figures = f"{ours:.3f} ms", against, f"{baseline:.3f} ms", f"{more:+.3f} ms", f"≤ {most:g} ms"
    return Line(what, *figures, met=more <= most)


def medians(rounds: int, *sides: Callable[[], float]) -> list[float]:
    """Each side once a round; every other round backwards, so that none is always the first."""
    figures: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        for place in sorted(range(len(sides)), reverse=number % 2 == 1):
            figures[place].append(sides[place]())
    return [statistics.median(side) for side in figures]


def wide_console() -> Console:
    """What is not a terminal has room for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def tell(console: Console, title: str, lines: Sequence[Line]) -> bool:
    """Prints a table; whether every goal was met."""
    table = Table(title=title)
    for heading in ("what", "ours", "against", "baseline", "ratio", "goal", ""):
        is_text = heading in ("what", "against")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text)
    for line in lines:
        table.add_row(*line[:-1], verdict(line.met))
    console.print(table)
    return all(line.met is not False for line in lines)


def verdict(met: bool | None) -> str:
    if met is None:
        return ""
    return "[green]MET[/green]" if met else "[red]MISSED[/red]"


@contextmanager
def on_other_core() -> Iterator[None]:
    """This process, and what it starts meanwhile, on one core: the server that is measured has the other."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {OTHER_CORE} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_server(pid: int) -> None:
    """A server process and those that it has started, on its core; what it starts later follows."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        os.sched_setaffinity(process, {SERVER_CORE})
