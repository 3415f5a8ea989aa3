"""`tsm erase`: a person's data become unreadable, here and in every copy of the log.

Works whether or not a server runs on the same data, and may be repeated. What it was cut off in, a running server
completes.
"""

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from api.administration import administrator, opened
from tsm.errors import ErrorCode, TsmError
from tsm.flows.erasure import Erasure
from tsm.model.checks import check_text

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add, data: Path) -> None:
    """`data` is the folder that is meant when none is named."""
    made = add(commands, "erase", erase, "erase a person: what was sealed of the person cannot be read again, ever")
    made.add_argument("--data", type=Path, default=data, help=f"the server's data folder (default {data})")
    whom = made.add_mutually_exclusive_group(required=True)
    whom.add_argument("--credential", metavar="ID", help="the credential whose person is erased")
    whom.add_argument(
        "--main-certificate",
        action="store_true",
        help="all credentials of the holder of a My Number card; the serial number of its signature certificate (hex) "
        "is asked for, or read from standard input",
    )
    made.add_argument("--reason", required=True, help="why: it stays in the log, so without personal data")
    made.add_argument(
        "--even-in-use",
        action="store_true",
        help="also a credential whose keys are in a card, or may be: once the authority has revoked it",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--json", action="store_true", help="a report for programs")


def erase(given: argparse.Namespace) -> int:
    """Exit code 1 when the person at the terminal said no."""
    check_text(given.reason, "reason")
    serial = asked_for_serial() if given.main_certificate else ""
    with opened(given.data) as parts:
        erasure = Erasure(parts.tsm, parts.vault)
        found = erasure.credentials_of(serial) if given.main_certificate else [given.credential]
        if not found:
            raise TsmError(
                ErrorCode.NOT_FOUND, "no credential was applied for with this certificate, or all are erased"
            )
        for credential in found:
            erasure.refuse_unless_erasable(credential, given.even_in_use)
        if not given.yes and not confirmed(found):
            return 1
        context = administrator(given.reason)
        erased = [
            {"credential": credential, "position": erasure.erase(credential, context, given.even_in_use)}
            for credential in found
        ]
    if given.json:
        print(json.dumps({"erased": erased}, indent=2))
    else:
        for each in erased:
            print(f"credential {each['credential']}: the person is erased, position {each['position']}")
    return 0


def asked_for_serial() -> str:
    """Arguments are for all to see, so it is typed without echo, or the first line of standard input."""
    typed = getpass.getpass("Serial number (hex): ") if sys.stdin.isatty() else sys.stdin.readline()
    return typed.strip()


def confirmed(found: Sequence[str]) -> bool:
    """`TsmError(INVALID_INPUT)` when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise TsmError(ErrorCode.INVALID_INPUT, "nobody can be asked here: --yes")
    many = f"{len(found)} credential{'' if len(found) == 1 else 's'}"
    print(f"{many}: {', '.join(found)}", file=sys.stderr)
    print("What is sealed of this person can never be read again. Erase? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
