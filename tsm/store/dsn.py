"""DSNs of PostgreSQL: understood before they are used, and never repeated in words, for they may hold a password.

What libpq says of a DSN that it does not understand quotes it. An unescaped `@` or `/` in a password even makes a part
of it the name of a host, a port or a database, and a failed connection tells those. Such a DSN is refused, unquoted.
"""

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tsm.errors import ErrorCode, TsmError

NOTICE_SILENCE = {  # libpq's parameters: seconds, and milliseconds for the last
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def check_dsn(dsn: str) -> str:
    """The same DSN. `TsmError(INVALID_INPUT)` when it is not understood, or may be misunderstood."""
    parts = _parts(dsn)
    if any("@" in parts.get(name, "") for name in ("host", "hostaddr", "port", "dbname")):
        raise _refused("write @ and / of a user or a password as %40 and %2F")
    if any(not port.isdigit() for port in parts.get("port", "").split(",") if port):
        raise _refused("the port is no number; write @ and / of a user or a password as %40 and %2F")
    return dsn


def connection_options(dsn: str, options: str) -> dict[str, Any]:
    """For `psycopg.connect` beside the DSN, which has the last word: a peer that is silent for ever is noticed."""
    told = _parts(dsn)
    return {"options": options} | {name: value for name, value in NOTICE_SILENCE.items() if name not in told}


def holds_password(dsn: str) -> bool:
    return bool(_parts(dsn).get("password"))


def _parts(dsn: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except psycopg.Error:
        raise _refused("it is written postgresql://user@host:port/database?sslmode=verify-full") from None


def _refused(why: str) -> TsmError:
    return TsmError(ErrorCode.INVALID_INPUT, f"the DSN of the database is not understood: {why}")
