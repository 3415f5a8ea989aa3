"""`tsm admin ...`: tokens for people and programs, made on the server's own machine.

A token is printed once and kept nowhere; that it was made is in the log before. It goes to standard output alone, so
that it can be piped to where it belongs.
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Column, Table

from api import local_login
from api.access import ALL, TENANTS
from api.administration import administrator, opened
from api.bootstrap import Parts
from api.camara import tokens as camara
from api.service_tokens import ServiceTokens
from tsm.application import Change
from tsm.errors import ErrorCode, TsmError
from tsm.model import local_token
from tsm.model.checks import check_name, check_text
from tsm.model.event import Context
from tsm.model.local_token import LocalTokenIssued
from tsm.model.service_token import ServiceToken

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[Any, str, Run, str], argparse.ArgumentParser]

MINUTES, DAYS = 60, 90
MOST_DAYS = 366


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add: Add, data: Path) -> None:
    """`data` is the folder that is meant when none is named."""

    def command(parent: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made = add(parent, name, run, text)
        made.add_argument("--data", type=Path, default=data, help=f"the server's data folder (default {data})")
        made.add_argument("--json", action="store_true", help="for programs")
        return made

    group = commands.add_parser("admin", help="tokens for people and programs")
    tokens = group.add_subparsers(required=True, metavar="command")
    made = command(tokens, "token", log_in, "log in on this machine: a short-lived access token for the GraphQL API")
    add_role(made)
    made.add_argument("--person", default="console", help="who it is for: a short name, it stays in the log")
    made.add_argument("--minutes", type=int, default=MINUTES, help=f"how long it is good (default {MINUTES})")

    made = command(
        tokens, "camara-token", admit, "a short-lived token of a relying party for CAMARA's APIs, to try them"
    )
    made.add_argument("--client", required=True, help="the relying party: a short name, it stays in the log")
    made.add_argument(
        "--scope", required=True, action="append", help="sim-swap:check, device-swap, dpv:..., repeatable"
    )
    made.add_argument("--subject", default="", help="whose line it is about (three legs); without one: of two legs")
    made.add_argument("--minutes", type=int, default=MINUTES, help=f"how long it is good (default {MINUTES})")

    service = tokens.add_parser("service-token", help="tokens for programs, which last and can be revoked")
    actions = service.add_subparsers(required=True, metavar="command")
    made = command(actions, "issue", issue, "make a token and print it, once")
    add_role(made)
    made.add_argument("--name", required=True, help="what it is for")
    made.add_argument("--days", type=int, default=DAYS, help=f"how long it is good (default {DAYS})")
    made.add_argument("--reason", required=True, help="why: it stays in the log")
    command(actions, "list", show, "all tokens that were ever issued")
    made = command(actions, "revoke", revoke, "let a token open nothing any more, from this moment")
    made.add_argument("id", help="what follows tsm_ in the token: 16 hex digits")
    made.add_argument("--reason", required=True, help="why: it stays in the log")


def add_role(made: argparse.ArgumentParser) -> None:
    made.add_argument("--role", required=True, choices=tuple(TENANTS))
    made.add_argument(
        "--tenant",
        default=ALL,
        help="whose: operator:<spId>, provider:<spId>, municipality:<name>, or * for all (the default)",
    )


def log_in(given: argparse.Namespace) -> None:
    """FORBIDDEN where the settings do not accept such tokens, or role and tenant do not fit; INVALID_INPUT."""
    check_name(given.person, "person")
    with opened(given.data) as parts:
        if not parts.settings.local_login:
            raise TsmError(ErrorCode.FORBIDDEN, "access.local_login is off here: use the identity provider")
        parts.access.refuse_unfit(given.role, given.tenant)
        now, life = parts.clock(), timedelta(minutes=within(given.minutes, local_login.LONGEST // timedelta(minutes=1)))
        url, id = parts.settings.public_url, parts.random(local_login.ID_OCTETS).hex()
        issued = LocalTokenIssued(
            id=id, person=given.person, role=given.role, tenant=given.tenant, expires_at=now + life
        )
        record(parts, issued, now)
        token = local_login.sign(parts.vault, url, given.role, given.tenant, given.person, life, now, id)
    tell(token, {"id": id, "role": given.role, "tenant": given.tenant, "expiresAt": stamp(now + life)}, given.json)


def record(parts: Parts, issued: LocalTokenIssued, now: datetime) -> None:
    """Before the token is shown."""
    change = Change(local_token.stream(issued.id), 0, local_token.issue(issued, now))
    parts.tsm.commit(change, context=context_of("local login", issued.tenant), occurred_at=now)


def admit(given: argparse.Namespace) -> None:
    """A relying party's token. FORBIDDEN where the settings do not accept such tokens; INVALID_INPUT."""
    check_name(given.client, "client")
    with opened(given.data) as parts:
        if not parts.settings.camara_login:
            raise TsmError(ErrorCode.FORBIDDEN, "such tokens are for a server that only its own machine can reach")
        now, life = parts.clock(), timedelta(minutes=within(given.minutes, local_login.LONGEST // timedelta(minutes=1)))
        url, id = parts.settings.public_url, parts.random(local_login.ID_OCTETS).hex()
        role, until = camara.RELYING_PARTY, now + life
        record(parts, LocalTokenIssued(id=id, person=given.client, role=role, tenant=ALL, expires_at=until), now)
        token = camara.sign(parts.vault, url, given.client, given.scope, life, now, id, given.subject)
    tell(token, {"id": id, "client": given.client, "expiresAt": stamp(until)}, given.json)


def issue(given: argparse.Namespace) -> None:
    """FORBIDDEN for a role and a tenant that do not fit, INVALID_INPUT for a life that is none."""
    check_text(given.reason, "reason")
    with opened(given.data) as parts:
        parts.access.refuse_unfit(given.role, given.tenant)
        expires_at = parts.clock() + timedelta(days=within(given.days, MOST_DAYS))
        issued = ServiceTokens(parts.tsm).issue(
            given.name, given.role, given.tenant, expires_at, context_of(given.reason, given.tenant), parts.random
        )
    tell(issued.token, {"id": issued.id, "expiresAt": stamp(expires_at), "position": issued.position}, given.json)


def revoke(given: argparse.Namespace) -> None:
    """NOT_FOUND for a token that was never issued."""
    check_text(given.reason, "reason")
    with opened(given.data) as parts:
        tokens = ServiceTokens(parts.tsm)
        position = tokens.revoke(given.id, context_of(given.reason, tokens.one(given.id).tenant))
    print(json.dumps({"id": given.id, "position": position}) if given.json else f"position {position}")


def show(given: argparse.Namespace) -> None:
    with opened(given.data) as parts:
        now = parts.clock()
        rows = [described(token, now) for token in ServiceTokens(parts.tsm).all()]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(Column("id", no_wrap=True), "name", "role", "tenant", "expires", "state")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table if rows else "no service token was ever issued")


def described(token: ServiceToken, now: datetime) -> dict[str, str]:
    state = "good" if token.is_good(now) else "revoked" if token.revoked else "expired"
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "tenant": token.tenant,
        "expiresAt": stamp(token.expires_at),
        "state": state,
    }


def tell(token: str, about: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"token": token, **about}, indent=2))
        return
    print(token)
    print(", ".join(f"{name}: {value}" for name, value in about.items()), file=sys.stderr)


def within(given: int, most: int) -> int:
    if not 0 < given <= most:
        raise TsmError(ErrorCode.INVALID_INPUT, f"how long a token is good: 1 to {most}")
    return given


def context_of(reason: str, tenant: str) -> Context:
    """What is done to a party's token belongs to that party."""
    context = administrator(reason)
    party = tenant.partition(":")[2]
    return msgspec.structs.replace(context, tenant=party) if party else context


def stamp(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
