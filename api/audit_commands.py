"""`tsm audit ...`: for auditors and operators at a terminal. It asks a server through its API, and sees what they see.

Tables are for people: the newest first when something is searched, in order when it is a history. With `--json` the
same comes for programs. An export that was cut is gone on with by the same command.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from api.audit_client import AuditClient, Form, Identity
from tsm.errors import ErrorCode, TsmError

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]

SERVER = "https://127.0.0.1:8443"
HISTORY, SEARCH = 1000, 50  # events that are shown unless another number is asked for

FILTERS = {  # option -> what it says
    "actor": "who acted: provider:JPKI0001, phone; operator:MNO00001/ for all people of that party",
    "tenant": "the party that owns what happened",
    "provider": "the service provider concerned",
    "card": "ICCID",
    "domain": "AID of the security domain concerned",
    "aid": "AID that the event names, of whatever",
    "credential": "the credential concerned",
    "subject": "the person concerned, by pseudonym",
    "reception": "reception number of a delegation",
    "correlation": "the story that it belongs to",
    "stream": "the stream that it belongs to",
}
STYLES = {  # of the kind's first word
    "card": "green", "credential": "cyan", "access_code": "cyan", "operation": "yellow", "reading": "magenta",
    "party": "yellow", "operator": "yellow", "provider": "yellow", "terminal": "yellow", "authority": "yellow",
    "service_token": "magenta", "local_token": "magenta", "session": "dim", "delegation": "blue", "deployment": "blue",
}  # fmt: skip
BAD = ("refused", "failed", "locked", "unanswered", "expired", "withdrawn", "revoked", "deleted", "erasure")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add) -> None:
    audit = commands.add_parser("audit", help="what happened, from a server").add_subparsers(
        required=True, metavar="command"
    )

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made = add(audit, name, run, text)
        made.add_argument("--server", default=SERVER, metavar="URL", help=f"default {SERVER}")
        made.add_argument(
            "--ca", type=Path, metavar="PEM", help="authority of the server's certificate, if not a public one"
        )
        made.add_argument("--certificate", type=Path, metavar="PEM", help="client certificate")
        made.add_argument("--key", type=Path, metavar="PEM", help="its private key")
        made.add_argument(
            "--token-file", type=Path, metavar="FILE", help="a file with a bearer token; - for standard input"
        )
        return made

    made = command("history", history, "all that happened to one thing, from the beginning")
    about = made.add_mutually_exclusive_group(required=True)
    for name in ("card", "credential", "subject", "provider", "domain", "stream"):
        about.add_argument(f"--{name}", help=FILTERS[name])
    take_readings(made)
    take_shown(made, HISTORY)
    made = command("search", search, "events, the newest first")
    take_filter(made)
    take_shown(made, SEARCH)
    made = command("export", export, "write events to a file; an export that was cut goes on when it is called again")
    take_filter(made)
    made.add_argument("--format", choices=("jsonl", "csv"), help="default: what the file's name says, or jsonl")
    made.add_argument("--json", action="store_true", help="a report for programs, and no progress")
    made.add_argument("file", type=Path)


def take_filter(made: argparse.ArgumentParser) -> None:
    for name, text in FILTERS.items():
        made.add_argument(f"--{name}", help=text)
    made.add_argument(
        "--from", dest="recorded_from", type=moment, metavar="TIME", help="recorded then or later (ISO 8601)"
    )
    made.add_argument("--to", dest="recorded_to", type=moment, metavar="TIME", help="recorded then or earlier")
    made.add_argument(
        "--kind", action="append", metavar="KIND", help="card.keys_put, or card. for all of a card; repeatable"
    )
    take_readings(made)


def take_readings(made: argparse.ArgumentParser) -> None:
    made.add_argument("--readings", action="store_true", help="who was shown personal data, too")


def take_shown(made: argparse.ArgumentParser, limit: int) -> None:
    made.add_argument("--limit", type=positive, default=limit, help=f"events at most (default {limit})")
    made.add_argument("--json", action="store_true", help="for programs")


def history(given: argparse.Namespace) -> None:
    with asking(given) as client:
        show(given, client.history(filter_of(given), given.limit))


def search(given: argparse.Namespace) -> None:
    with asking(given) as client:
        show(given, client.search(filter_of(given), given.limit))


def export(given: argparse.Namespace) -> None:
    form: Form = given.format or ("csv" if given.file.suffix == ".csv" else "jsonl")
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with (
        asking(given) as client,
        Progress(*columns, console=console, disable=given.json or not console.is_terminal) as progress,
    ):
        task = progress.add_task("export 書き出し", total=None)
        asked = {name: lowered(value) for name, value in filter_of(given).items()}
        events = client.export(
            asked, form, given.file, lambda position, end: progress.update(task, completed=position, total=end)
        )
        progress.update(task, completed=1, total=1)
    print(json.dumps({"file": str(given.file), "events": events}) if given.json else f"{events} events in {given.file}")


@contextmanager
def asking(given: argparse.Namespace) -> Iterator[AuditClient]:
    """INVALID_INPUT for a certificate without its key, or a token that cannot be read."""
    if (given.certificate is None) != (given.key is None):
        raise TsmError(ErrorCode.INVALID_INPUT, "--certificate and --key go together")
    identity = Identity(given.certificate, given.key, read_token(given.token_file))
    with closing(AuditClient(given.server, given.ca, identity)) as client:
        yield client


def read_token(file: Path | None) -> str:
    """Never from the command line: others on the machine could read it there."""
    if file is None:
        return ""
    try:
        token = (sys.stdin.read() if file == Path("-") else file.read_text()).strip()
    except OSError as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"--token-file: {error.strerror}") from error
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise TsmError(ErrorCode.INVALID_INPUT, "--token-file: not one token")
    return token


def filter_of(given: argparse.Namespace) -> dict[str, Any]:
    """By the names of the API; without what was not said."""
    said: dict[str, Any] = {name: getattr(given, name, None) for name in FILTERS}
    for name, option in (("recordedFrom", "recorded_from"), ("recordedTo", "recorded_to")):
        when: datetime | None = getattr(given, option, None)
        said[name] = when and when.isoformat()
    said |= {"kinds": getattr(given, "kind", None), "readings": getattr(given, "readings", False) or None}
    return {name: value for name, value in said.items() if value is not None}


def lowered(value: Any) -> Any:
    return "true" if value is True else value


def show(given: argparse.Namespace, events: Sequence[Mapping[str, Any]]) -> None:
    if given.json:
        print(json.dumps(events, indent=2, ensure_ascii=False))
        return
    table = Table(
        Column("position\n位置", justify="right", no_wrap=True),
        Column("recorded\n記録日時", no_wrap=True),
        Column("kind\n種別", overflow="fold"),
        Column("what\n内容", overflow="fold", ratio=2),
        Column("actor\n行為者", overflow="fold"),
        Column("concerns\n対象", overflow="fold", ratio=1),
    )
    for event in events:
        table.add_row(*cells(event))
    Console().print(table if events else "no event is so, or you may not see it")


def cells(event: Mapping[str, Any]) -> list[Text]:
    topic = event["topic"]
    recorded = datetime.fromisoformat(event["recordedAt"]).astimezone()
    concerns = [event["card"], event["aid"] or event["domain"], event["credential"], event["provider"]]
    what = Text(printable(event["text"] or "seen in outline only"))
    if event["reason"]:
        what.append(f" ({printable(event['reason'])})", "italic")
    return [
        Text(str(event["position"])),
        Text(f"{recorded:%Y-%m-%d %H:%M:%S %z}"),
        Text(topic, "bold red" if topic.endswith(BAD) else STYLES.get(topic.partition(".")[0], "")),
        what,
        Text(printable(event["actor"])),
        Text(printable(" ".join(value for value in concerns if value))),
    ]


def printable(text: str) -> str:
    """What people wrote cannot move the cursor or change colours."""
    return "".join(character if character.isprintable() else "�" for character in text)


def moment(text: str) -> datetime:
    """A time without an offset is the local one."""
    return datetime.fromisoformat(text).astimezone()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
