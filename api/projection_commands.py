"""`tsm projections ...`: how far the read models are, making them anew, what they lack, and folding in a process apart.

All of it works whether or not a server runs on the same data: a read model is folded by one process at a time, and who
reads sees the old rows until the new ones are complete.
"""

import argparse
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from api import logs
from api.administration import opened
from projections import PROJECTIONS
from projections.building import rebuild
from projections.folding import retry
from projections.projection import Projection
from projections.runner import Runner
from projections.views import Generation, Parked, Views
from tsm.errors import ErrorCode, TsmError

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]

MOST_SHOWN = 100  # parked events of a read model
WATCH = 0.5  # seconds between looks whether a signal asked to end


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add, data: Path) -> None:
    """`data` is the folder that is meant when none is named."""
    group = commands.add_parser("projections", help="the read models").add_subparsers(required=True, metavar="command")

    def command(parent: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made = add(parent, name, run, text)
        made.add_argument("--data", type=Path, default=data, help=f"the server's data folder (default {data})")
        return made

    made = command(group, "list", show, "how far each has read the log, what it lacks, and whether somebody folds it")
    made.add_argument("--json", action="store_true", help="for programs")
    made = command(group, "rebuild", make_anew, "make one anew from the log, while the old rows are still read")
    made.add_argument("name", choices=[projection.name for projection in PROJECTIONS])
    made = command(group, "park", show_parked, "the events that could not be folded, and those that wait behind them")
    made.add_argument("--json", action="store_true", help="for programs")
    actions = made.add_subparsers(metavar="retry")
    made = command(actions, "retry", fold_again, "fold parked events again, in order")
    made.add_argument("name", choices=[projection.name for projection in PROJECTIONS])
    made.add_argument("position", type=int, nargs="?", help="only this event and those that wait behind it")
    command(group, "run", follow, "fold in this process, for a server whose config.json says projections: separate")


def show(given: argparse.Namespace) -> None:
    with opened(given.data) as parts:
        end = parts.tsm.position
        rows = [_described(parts.views, generation, end) for generation in parts.views.generations()]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    name = Column("read model", no_wrap=True, min_width=max(len(projection.name) for projection in PROJECTIONS))
    table = Table(name, "version", "generation", "state", "position", "lag", "parked", "owner")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def make_anew(given: argparse.Namespace) -> None:
    projection = _named(given.name)
    with opened(given.data) as parts, _progress() as progress:
        task = progress.add_task(projection.name, total=parts.tsm.position)
        began = time.monotonic()
        rebuild(parts.tsm, parts.views, projection, lambda position: progress.update(task, completed=position))
        seconds, events = time.monotonic() - began, parts.tsm.position
    print(f"{projection.name} is made anew from {events} events, {events / seconds:,.0f} a second")


def show_parked(given: argparse.Namespace) -> None:
    with opened(given.data) as parts:
        found = {projection.name: parts.views.parked(projection, MOST_SHOWN) for projection in PROJECTIONS}
    if given.json:
        print(json.dumps({name: [_plain(p) for p in parked] for name, parked in found.items()}, indent=2))
        return
    columns = ("read model", "position", "stream", "topic", "why")
    table = Table(*(Column(title, overflow="fold") for title in columns))  # a stream that is cut short finds nothing
    for name, parked in found.items():
        for event in parked:
            table.add_row(name, str(event.position), event.stream, event.topic, event.error)
    Console().print(table if table.row_count else "nothing is parked")


def fold_again(given: argparse.Namespace) -> int:
    """Exit code 1 when something is still parked."""
    projection = _named(given.name)
    with opened(given.data) as parts:
        folded = retry(parts.tsm, parts.views, projection, given.position)
        left = len(parts.views.parked(projection))
    print(f"{folded} folded, {left} still parked")
    return 1 if left else 0


def follow(given: argparse.Namespace) -> None:
    """Until SIGINT or SIGTERM. Beside a process that does the same, this one stands by."""
    ending = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    with opened(given.data) as parts:
        logs.set_up(parts.settings.logs)
        runner = Runner(parts.tsm, parts.views)
        runner.start()
        print(json.dumps({"projections": [projection.name for projection in PROJECTIONS]}), flush=True)
        while not ending.wait(WATCH):
            pass
        runner.stop()


def _named(name: str) -> Projection:
    for projection in PROJECTIONS:
        if projection.name == name:
            return projection
    raise TsmError(ErrorCode.NOT_FOUND, name)


def _described(views: Views, generation: Generation, end: int) -> dict[str, object]:
    owner = views.own_any(generation)
    if owner is not None:
        owner.release()
    return {
        "name": generation.name,
        "version": generation.version,
        "generation": generation.generation,
        "state": generation.state,
        "position": generation.position,
        "lag": end - generation.position,
        "parked": generation.parked,
        "owner": "none" if owner is not None else "alive",
    }


def _plain(parked: Parked) -> dict[str, object]:
    return {"position": parked.position, "stream": parked.stream, "topic": parked.topic, "error": parked.error}


class _Rate(ProgressColumn):
    """Events a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} events/s")


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
