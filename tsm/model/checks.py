"""What a name, an address, a time or a hex value must look like before it may enter an event."""

import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

from tsm.errors import ErrorCode, TsmError, within
from tsm.identifiers import Identifier

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+", re.ASCII)
VISIBLE = re.compile(r"[!-~]+", re.ASCII)  # no space, no control character, ASCII only
SHA256_OCTETS = 32
CHECK_VALUE_OCTETS = 3


def check_name(value: str, what: str) -> None:
    """Letters, digits, dot, underscore and hyphen, 64 at most: what may stand in a stream's name or a path."""
    if not NAME.fullmatch(value):
        raise refusal(what, "not a name")


def check_identifier(kind: type[Identifier], value: str, what: str) -> None:
    """An identifier of that kind."""
    with within(what):
        kind(value)


def check_text(value: str, what: str) -> None:
    """Something that a person can read, 200 characters at most."""
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise refusal(what, "empty, too long or not printable")


def check_hex(value: str, what: str, octets: int | None = None) -> None:
    """Whole octets in hex, of the given number if there is one."""
    if not HEX.fullmatch(value) or (octets is not None and len(value) != 2 * octets):
        raise refusal(what, "not hex" if octets is None else f"not {octets} octets in hex")


def check_https(value: str, what: str) -> None:
    """An absolute https address without user or fragment: whatever is sent there must arrive there only (C-17)."""
    try:
        parts = urlsplit(value)
        sound = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise refusal(what, "not an address") from None
    if not sound or not VISIBLE.fullmatch(value) or "@" in parts.netloc or "#" in value:
        raise refusal(what, "not an https address")


def in_utc(time: datetime, what: str) -> datetime:
    """The same moment in UTC. INVALID_INPUT for one without an offset, or so near to an end of the calendar that UTC
    does not have it."""
    if time.utcoffset() is None:
        raise refusal(what, "a time names its offset from UTC")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise refusal(what, "no time that there is in UTC") from None


def refusal(what: str, why: str) -> TsmError:
    """The value itself is left out: it may be anything."""
    return TsmError(ErrorCode.INVALID_INPUT, f"{what}: {why}", (what,))
