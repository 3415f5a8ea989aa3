"""`tsm lines import FILE`: an operator's signals, in bulk, through a server's API with the operator's certificate.

The format is that of the feed (docs/lines.md): JSON Lines, or CSV with the same names as heading. Lines that are
refused are listed with their number in the file, and make the exit code 1; all others are recorded. The same file may
be imported again: what is known is counted as repeated.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from api.audit_client import Identity, client_of
from api.audit_commands import SERVER
from api.lines_client import LinesClient, Summary, read_rows
from tsm.errors import ErrorCode, TsmError

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]

SHOWN = 20  # refused lines that are listed for people


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add) -> None:
    lines = commands.add_parser("lines", help="what an operator tells of its lines").add_subparsers(
        required=True, metavar="command"
    )
    made = add(lines, "import", import_file, "send a file of signals to a server; safe to repeat")
    made.add_argument("--server", default=SERVER, metavar="URL", help=f"default {SERVER}")
    made.add_argument("--ca", type=Path, metavar="PEM", help="authority of the server's certificate")
    made.add_argument("--certificate", type=Path, required=True, metavar="PEM", help="the operator's certificate")
    made.add_argument("--key", type=Path, required=True, metavar="PEM", help="its private key")
    made.add_argument("--json", action="store_true", help="a report for programs, and no progress")
    made.add_argument("file", type=Path, help="*.csv, or JSON Lines")


def import_file(given: argparse.Namespace) -> int:
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    try:
        lines = given.file.open("rb")
    except OSError as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{given.file}: {error.strerror}") from error
    with (
        lines,
        client_of(given.server, given.ca, Identity(given.certificate, given.key)) as http,
        Progress(*columns, console=console, disable=given.json or not console.is_terminal) as progress,
    ):
        task = progress.add_task("import 取り込み", total=given.file.stat().st_size)
        summary = LinesClient(http).send(
            read_rows(given.file, lines), lambda octets: progress.update(task, completed=octets)
        )
    tell(given, summary)
    return 1 if summary.refused else 0


def tell(given: argparse.Namespace, summary: Summary) -> None:
    if given.json:
        refused = [refusal._asdict() for refusal in summary.refused]
        report = {"file": str(given.file), "recorded": summary.recorded, "repeated": summary.repeated}
        print(json.dumps({**report, "refused": refused}))
        return
    for refusal in summary.refused[:SHOWN]:
        place = f" ({'.'.join(refusal.field)})" if refusal.field else ""
        print(f"{given.file}:{refusal.line}: {refusal.code}{place} {refusal.message}", file=sys.stderr)
    if len(summary.refused) > SHOWN:
        print(f"... and {len(summary.refused) - SHOWN} more: --json lists all", file=sys.stderr)
    print(f"{summary.recorded} recorded, {summary.repeated} known before, {len(summary.refused)} refused")
