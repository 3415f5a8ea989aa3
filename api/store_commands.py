"""`tsm store ...`: what the administrator does to the store itself.

Each command opens what it needs and closes it again. Rights and shape of a PostgreSQL store are its owner's business:
those commands take the owner's DSN, which the server never has.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.bootstrap import Settings
from tsm.errors import ErrorCode, TsmError
from tsm.store import migrations
from tsm.store.dsn import holds_password
from tsm.store.opening import is_postgresql

OWNER_DSN = "TSM_OWNER_DSN"

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add, data: Path) -> None:
    """`data` is the folder that is meant when none is named."""
    store = commands.add_parser("store", help="the store itself").add_subparsers(required=True, metavar="command")
    made = add(store, "migrate", migrate, "bring the store to this program's format, or make it")
    _take_data(made, data)
    _take_owner_dsn(made)
    made.add_argument("--runtime-role", metavar="ROLE", help="on PostgreSQL: the role as which the server connects")


def _take_data(made: argparse.ArgumentParser, data: Path) -> None:
    made.add_argument("--data", type=Path, default=data, help=f"the server's data folder (default {data})")


def _take_owner_dsn(made: argparse.ArgumentParser) -> None:
    made.add_argument("--owner-dsn", metavar="DSN", help=f"on PostgreSQL: as its owner (default: {OWNER_DSN} is asked)")


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


def owner_dsn(given: argparse.Namespace) -> str | None:
    """From the argument, or else from the environment: what stands in arguments, all users of a machine can see."""
    if given.owner_dsn and holds_password(given.owner_dsn):
        print(
            f"tsm: others can see this password: put it into a passfile, or the DSN into {OWNER_DSN}", file=sys.stderr
        )
    return given.owner_dsn or os.environ.get(OWNER_DSN)


def sqlite_path(data: Path) -> Path:
    place = Settings.load(data).store_place
    if is_postgresql(place):
        raise TsmError(ErrorCode.INVALID_INPUT, f"this server's store is on PostgreSQL: --owner-dsn or {OWNER_DSN}")
    return Path(place)
