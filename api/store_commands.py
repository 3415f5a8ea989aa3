"""`tsm store ...`: what the administrator does to the store itself.

Each command opens what it needs and closes it again. Shape and rights of a PostgreSQL store, and what is brought into
it past `tsm.append`, are its owner's business: those commands take the owner's DSN, which the server never has.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from api.bootstrap import Settings
from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.model.streams import evolve_of
from tsm.model.topics import FACTS
from tsm.store import migrations, transfer
from tsm.store.check import Check
from tsm.store.dsn import holds_password
from tsm.store.log import NOTHING
from tsm.store.mapper import JsonMapper
from tsm.store.opening import is_postgresql, open_recorder
from tsm.store.recorder import utc_now
from tsm.store.rows import open_rows

OWNER_DSN = "TSM_OWNER_DSN"
STANDARD = Path("-")  # standard output, or input

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add, data: Path) -> None:
    """`data` is the folder that is meant when none is named."""
    store = commands.add_parser("store", help="the store itself").add_subparsers(required=True, metavar="command")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made = add(store, name, run, text)
        made.add_argument("--data", type=Path, default=data, help=f"the server's data folder (default {data})")
        return made

    def take_owner_dsn(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--owner-dsn", metavar="DSN", help=f"PostgreSQL, as the store's owner (or {OWNER_DSN} says it)"
        )

    made = command("migrate", migrate, "bring the store to this program's format, or make it")
    take_owner_dsn(made)
    made.add_argument("--runtime-role", metavar="ROLE", help="PostgreSQL: the role as which the server connects")

    made = command("check", check, "look at everything that a store promises; exit code 1 when something is otherwise")
    made.add_argument("--json", action="store_true", help="a report for programs")

    made = command("export", export, "write the store to a file of JSON Lines; for a move, stop the server first")
    made.add_argument("file", type=Path, help="or - for standard output")
    made.add_argument("--json", action="store_true", help="a report for programs")

    made = command("import", import_, "fill an empty store from such a file, or go on with it; no server may run on it")
    take_owner_dsn(made)
    made.add_argument("file", type=Path, help="or - for standard input")
    made.add_argument("--json", action="store_true", help="a report for programs")

    made = command("state", state, "print the state of a stream, as it is or was; personal fields stay sealed")
    made.add_argument("stream", help="such as card-8981100000000000010")
    at = made.add_mutually_exclusive_group()
    at.add_argument("--position", type=int, help="after the event at this position of the log")
    at.add_argument(
        "--recorded-at", type=moment, metavar="TIME", help="at this time (ISO 8601; UTC unless it says more)"
    )


def migrate(given: argparse.Namespace) -> None:
    dsn = owner_dsn(given)
    if dsn is None:
        taken = migrations.migrate_sqlite(sqlite_path(given.data))
    elif given.runtime_role is None:
        raise TsmError(ErrorCode.INVALID_INPUT, "--runtime-role: as whom does the server connect?")
    else:
        taken = migrations.migrate_postgres(dsn, given.runtime_role)
    for number in taken:
        print(f"step {number}: {migrations.step_name(number)}")
    print(f"the store has format {migrations.NEWEST}" + ("" if taken else ", as before"))


def check(given: argparse.Namespace) -> int:
    settings = Settings.load(given.data)
    with (
        closing(opened_vault(settings)) as vault,
        closing(open_rows(settings.store_place)) as rows,
        progress(given.json, "rows") as shown,
    ):
        report = Check(rows, JsonMapper(FACTS, vault), vault, shown).run()
    if given.json:
        print_json(report)
    else:
        for finding in report.findings:
            place = " ".join(str(part) for part in (finding.position, finding.stream) if part is not None)
            print(f"{place}: {finding.what}" if place else finding.what)
        print(
            f"{report.events} events in {report.streams} streams, up to position {report.head}; "
            f"{report.erased} personal fields are erased; {report.found or 'no'} findings"
        )
        if report.lost:
            print(
                f"of the erased, {report.lost} have lost their key without its destruction: is the key store too old?"
            )
    return 1 if report.found else 0


def export(given: argparse.Namespace) -> None:
    with closing(open_rows(Settings.load(given.data).store_place)) as rows:
        begun = time.monotonic()
        with progress(given.json, "events") as shown:
            if given.file == STANDARD:
                done = transfer.export_stream(rows, sys.stdout.buffer, lambda *far: shown("export", *far))
            else:
                done = transfer.export_file(rows, given.file, lambda *far: shown("export", *far))
        beyond = rows.head() - done.end.events
    tell_transferred(given, done, time.monotonic() - begun)
    if beyond:
        print(f"tsm: {beyond} events were recorded meanwhile: for a move, stop the server first", file=sys.stderr)


def import_(given: argparse.Namespace) -> None:
    begun = time.monotonic()
    place = owner_dsn(given) or sqlite_path(given.data)
    with transfer.opened_target(place) as target, progress(given.json, "events") as shown:
        if given.file == STANDARD:
            done = transfer.import_stream(sys.stdin.buffer, target, lambda *far: shown("import", *far))
        else:
            done = transfer.import_file(given.file, target, lambda *far: shown("import", *far))
    tell_transferred(given, done, time.monotonic() - begun)


def state(given: argparse.Namespace) -> None:
    evolve = evolve_of(given.stream)
    if evolve is None:
        raise TsmError(ErrorCode.INVALID_INPUT, f"no aggregate has a stream {given.stream}")
    settings = Settings.load(given.data)
    with closing(opened_vault(settings)) as vault:
        tsm = Tsm(vault, open_recorder(settings.store_place, vault), FACTS, utc_now)
        with closing(tsm):
            at = tsm.state_at(
                given.stream, evolve, position=given.position, recorded_at=given.recorded_at, unseals=NOTHING
            )
    print_json({"stream": given.stream, "version": at.version, "state": at.state})


def opened_vault(settings: Settings) -> SoftwareVault:
    return SoftwareVault.open(settings.data / "vault", settings.kek_file, destroyed_keys=settings.destroyed_keys)


def owner_dsn(given: argparse.Namespace) -> str | None:
    """From the argument, or else from the environment: arguments are for all users of a machine to see."""
    if given.owner_dsn and holds_password(given.owner_dsn):
        print("tsm: others can see a password among arguments: put it into a passfile", file=sys.stderr)
    return given.owner_dsn or os.environ.get(OWNER_DSN) or None


def sqlite_path(data: Path) -> Path:
    place = Settings.load(data).store_place
    if is_postgresql(place):
        raise TsmError(ErrorCode.INVALID_INPUT, f"this server's store is on PostgreSQL: --owner-dsn or {OWNER_DSN}")
    return Path(place)


def moment(text: str) -> datetime:
    made = datetime.fromisoformat(text)
    return made if made.tzinfo else made.replace(tzinfo=UTC)


def tell_transferred(given: argparse.Namespace, done: transfer.Transferred, seconds: float) -> None:
    """On standard output, unless the export itself is there."""
    end = msgspec.structs.asdict(done.end)
    rate = round((done.end.events - done.before) / seconds)
    out = sys.stderr if given.file == STANDARD else sys.stdout
    if given.json:
        report = {**end, "sha256": done.sha256, "before": done.before, "seconds": seconds, "events_per_second": rate}
        print(json.dumps(report), file=out)
        return
    before = f" ({done.before} were there)" if done.before else ""
    print(f"{done.end.events} events{before}, {rate} a second", file=out)
    print(f"{end['payloads']} payloads, {end['index']} index rows, {end['commands']} commands", file=out)
    print(f"SHA-256 {done.sha256}", file=out)


def print_json(made: object) -> None:
    print(json.dumps(msgspec.to_builtins(made, enc_hook=str, order="sorted"), indent=2, ensure_ascii=False))


class Rate(ProgressColumn):
    """So many a second."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self._of = of

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self._of}/s")


@contextmanager
def progress(quiet: bool, of: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error for each thing that is told to be done, where a person looks on."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"), Rate(of))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield show
