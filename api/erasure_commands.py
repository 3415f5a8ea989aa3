"""`tsm erase`: a person's data become unreadable, here and in every copy of the log.

A credential's, or those of a line: what was signalled of a number while it was this person's, or of a card without a
number. What leads to somebody, a number for instance, is typed or piped, for arguments are for all to see.

Works whether or not a server runs on the same data, and may be repeated. What it was cut off in, a running server
completes.
"""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.administration import administrator, opened
from tsm.errors import ErrorCode, TsmError
from tsm.flows.erasure import Erasure
from tsm.identifiers import Iccid, Msisdn
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
    whom.add_argument(
        "--number",
        action="store_true",
        help="what was signalled of a telephone number while it is its present holder's; it is asked for, or read from "
        "standard input",
    )
    whom.add_argument(
        "--card",
        action="store_true",
        help="what was signalled of a SIM card without a number; its ICCID is asked for, or read from standard input",
    )
    made.add_argument("--tenure", metavar="ID", default="", help="of a number, a former holder: `subject` in the log")
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
    return erase_line(given) if given.number or given.card else erase_credentials(given)


def erase_line(given: argparse.Namespace) -> int:
    """NOT_FOUND; WRONG_ORDER while a card of the line is on hold, and its revocation not due yet."""
    asked = asked_for("Telephone number" if given.number else "ICCID")
    place = {"msisdn": Msisdn(asked)} if given.number else {"iccid": Iccid(asked)}
    if not given.yes and not confirmed("one line"):
        return 1
    with opened(given.data) as parts:
        position = parts.lines.erase(administrator(given.reason), **place, subject=given.tenure)
    print(json.dumps({"position": position}) if given.json else f"the line is erased, position {position}")
    return 0


def erase_credentials(given: argparse.Namespace) -> int:
    serial = asked_for("Serial number (hex)") if given.main_certificate else ""
    with opened(given.data) as parts:
        erasure = Erasure(parts.tsm, parts.vault)
        found = erasure.credentials_of(serial) if given.main_certificate else [given.credential]
        if not found:
            raise TsmError(
                ErrorCode.NOT_FOUND, "no credential was applied for with this certificate, or all are erased"
            )
        for credential in found:
            erasure.refuse_unless_erasable(credential, given.even_in_use)
        many = f"{len(found)} credential{'' if len(found) == 1 else 's'}"
        if not given.yes and not confirmed(f"{many}: {', '.join(found)}"):
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


def asked_for(what: str) -> str:
    """Typed without echo, or the first line of standard input."""
    typed = getpass.getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline()
    return typed.strip()


def confirmed(what: str) -> bool:
    """`TsmError(INVALID_INPUT)` when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise TsmError(ErrorCode.INVALID_INPUT, "nobody can be asked here: --yes")
    print(what, file=sys.stderr)
    print("What is sealed of this person can never be read again. Erase? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
