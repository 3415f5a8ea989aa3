"""The stage of the demo: child processes, the clock of each step, and what is printed for people or programs."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from tsm.errors import ErrorCode, TsmError

START_LIMIT = 30.0  # seconds until a server must listen
STOP_LIMIT = 10.0  # seconds until it must have stopped


class Server:
    """A party that serves: a process of its own, whose first line on standard output says where it listens."""

    def __init__(self, name: str, arguments: list[str], log: Path, stdin: int = subprocess.DEVNULL) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True, name=f"{name} output").start()
        self.url = str(self._next_line()["url"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, line: str) -> dict[str, Any]:
        """Say a line to a server that listens on its standard input; its answer."""
        assert self._process.stdin is not None  # noqa: S101  the caller gave it one
        print(line, file=self._process.stdin, flush=True)
        return self._next_line()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  it was asked for above
        for line in self._process.stdout:
            self._lines.put(line)

    def said(self) -> Iterator[dict[str, Any]]:
        """The lines that came meanwhile."""
        while not self._lines.empty():
            yield json.loads(self._lines.get())

    def _next_line(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            try:
                answer: dict[str, Any] = json.loads(self._lines.get(timeout=0.2))
                return answer
            except Empty:
                if self._process.poll() is not None:
                    break
        self.stop()
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"{self.name} does not answer: see {self.log}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()


def run(arguments: list[str], log: Path, stdin: str = "") -> Iterator[dict[str, Any]]:
    """Run a party's command to its end; yields each JSON line of its output as it comes.

    UPSTREAM_UNAVAILABLE, with the party's own words, when it exits with anything but 0.
    """
    with log.open("a+b") as errors:
        begin = errors.seek(0, 2)
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  both were asked for above
        process.stdin.write(stdin)
        process.stdin.close()
        for line in process.stdout:
            yield json.loads(line)
        if process.wait() != 0:
            errors.seek(begin)
            words = errors.read().decode(errors="replace").strip()
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"{' '.join(arguments[:2])}: {words}")


@dataclass
class Step:
    """One step of the story, and what it cost. Times are in milliseconds."""

    name: str
    title: str
    events: int = 0
    exchanges: int = 0
    total_ms: float = 0.0
    server_ms: float = 0.0  # as the server says, Server-Timing
    wire_ms: float = 0.0  # round trips of the phone without the server's part
    card_ms: float = 0.0


@dataclass
class Report:
    """What `--json` prints."""

    ok: bool = False
    folder: str = ""
    steps: list[Step] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)  # card and credential of the story
    places: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)


class Stage:
    """Tells the story as it happens: a line for each thing said, a table at the end."""

    def __init__(self, folder: Path, as_json: bool) -> None:
        self.folder = folder
        self.report = Report(folder=str(folder))
        self._as_json = as_json
        self._console = Console(stderr=as_json, quiet=as_json, highlight=False)
        self._servers: list[Server] = []

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[Step]:
        """A heading, and the time until the block ends."""
        step = Step(name, title)
        self.report.steps.append(step)
        self._console.print(f"\n[bold]{len(self.report.steps)}. {title}[/bold]")
        began = time.perf_counter()
        with self._console.status("working", spinner="dots"):
            yield step
        step.total_ms = (time.perf_counter() - began) * 1000

    def say(self, who: str, whom: str, what: str, ms: float | None = None) -> None:
        """One line: who spoke to whom, what about, how long it took."""
        took = f"[dim]{ms:8.1f} ms[/dim]" if ms is not None else " " * 11
        self._console.print(f"{took}  [cyan]{who:>12}[/cyan] → [cyan]{whom:<12}[/cyan] {what}", soft_wrap=True)

    def relay(self) -> None:
        """What the servers tell of each other; what is said several times on end is one line."""
        lines = [line for server in self._servers for line in server.said()]
        for (who, whom, what), alike in groupby(lines, key=lambda line: (line["who"], line["whom"], line["what"])):
            times = [line["ms"] for line in alike]
            self.say(who, whom, what + (f"  ({len(times)} times)" if len(times) > 1 else ""), sum(times))

    def show(self, text: str) -> None:
        """Something that a person in the story sees, such as the slip."""
        self._console.print(text, style="green", markup=False)

    def show_tree(self, tree: Tree) -> None:
        self._console.print(tree)

    def show_event(self, entry: dict[str, Any]) -> None:
        """One line of the history."""
        when = f"[dim]{entry['position']:>6}  {entry['recordedAt'][11:23]}[/dim]"
        who = f"[cyan]{entry['actor']:<22}[/cyan] for [cyan]{entry['tenant']:<10}[/cyan]"
        self._console.print(f"{when}  {who} ", end="")
        self._console.print(entry["text"], markup=False, soft_wrap=True)

    def check(self, what: str, holds: bool) -> None:
        """Something that must hold for the demo to have succeeded."""
        self.report.checks[what] = holds
        self._console.print(f"{' ' * 11}  {'[green]✓[/green]' if holds else '[red]✗[/red]'} {what}")

    def serve(self, name: str, arguments: list[str]) -> str:
        """Start a server that lives as long as the story; returns its URL."""
        server = self.start(name, arguments)
        self._servers.append(server)
        self.report.urls[name] = server.url
        self.say(name, "everybody", f"listens at {server.url}")
        return server.url

    def start(self, name: str, arguments: list[str]) -> Server:
        return Server(name, arguments, self.folder / f"{name}.log")

    def wait(self) -> None:
        """Leave everything up, with its addresses, until Ctrl-C."""
        for name, url in self.report.urls.items():
            self._console.print(f"  {name:<28} {url}", soft_wrap=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()

    def close(self) -> None:
        for server in reversed(self._servers):
            server.stop()

    def finish(self) -> int:
        """Print the table or the JSON; the exit code is 0 only if every check held."""
        self.report.ok = bool(self.report.checks) and all(self.report.checks.values())
        if self._as_json:
            print(json.dumps(asdict(self.report), indent=2), flush=True)
        else:
            self._console.print(self._table())
            for name, place in self.report.places.items():
                self._console.print(f"  {name:<28} {place}", soft_wrap=True)
        return 0 if self.report.ok else 1

    def _table(self) -> Table:
        table = Table(title="\nWhat it took")
        table.add_column("step")
        for heading in ("events", "exchanges", "server ms", "wire ms", "card ms", "total ms"):
            table.add_column(heading, justify="right")
        for step in self.report.steps:
            times = (step.server_ms, step.wire_ms, step.card_ms, step.total_ms)
            table.add_row(step.name, str(step.events), str(step.exchanges), *(f"{t:,.0f}" for t in times))
        return table
