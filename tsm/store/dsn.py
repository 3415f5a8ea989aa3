"""DSNs of PostgreSQL: understood before they are used, and never repeated in words, for they may hold a password.

What libpq says of a DSN that it does not understand quotes it. An unescaped `@` or `/` in a password even makes a part
of it the name of a host, a port or a database, and a failed connection tells those. Such a DSN is refused, unquoted.
"""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tsm.errors import ErrorCode, TsmError


def check_dsn(dsn: str) -> str:
    """The same DSN. `TsmError(INVALID_INPUT)` when it is not understood, or may be misunderstood."""
    parts = _parts(dsn)
    if any("@" in parts.get(name, "") for name in ("host", "hostaddr", "port", "dbname")):
        raise _refused("write @ and / of a user or a password as %40 and %2F")
    if any(not port.isdigit() for port in parts.get("port", "").split(",") if port):
        raise _refused("the port is no number; write @ and / of a user or a password as %40 and %2F")
    return dsn


def holds_password(dsn: str) -> bool:
    return bool(_parts(dsn).get("password"))


def _parts(dsn: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except psycopg.Error:
        raise _refused("it is written postgresql://user@host:port/database?sslmode=verify-full") from None


def _refused(why: str) -> TsmError:
    return TsmError(ErrorCode.INVALID_INPUT, f"the DSN of the database is not understood: {why}")
