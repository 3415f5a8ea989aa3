"""A counter terminal (統合端末): the reader and screen at a municipality's counter, with its own client certificate.

Stream: `terminal-<id>`.
"""

from typing import ClassVar

from tsm.errors import ErrorCode, TsmError
from tsm.model.checks import SHA256_OCTETS, check_hex, check_name, check_text
from tsm.model.event import Fact


class TerminalEnrolled(Fact, frozen=True, kw_only=True):
    """The terminal was admitted. All that is known of it is in this one fact, so it is the terminal's state too."""

    topic: ClassVar[str] = "terminal.enrolled"
    terminal: str
    municipality: str
    certificate_fingerprint: str  # SHA-256 of the client certificate's DER, hex


Terminal = TerminalEnrolled


def stream(terminal: str) -> str:
    """The terminal's stream."""
    return f"terminal-{terminal}"


def enrol(state: Terminal | None, enrolled: TerminalEnrolled) -> list[TerminalEnrolled]:
    """Decide to admit a terminal; the same again is no news. INVALID_INPUT, ALREADY_EXISTS."""
    check_name(enrolled.terminal, "terminal")
    check_text(enrolled.municipality, "municipality")
    check_hex(enrolled.certificate_fingerprint, "certificate_fingerprint", SHA256_OCTETS)
    if state is None:
        return [enrolled]
    if state != enrolled:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"terminal {enrolled.terminal}")
    return []


def evolve(state: Terminal | None, fact: Fact) -> Terminal:
    """Fold one fact."""
    if isinstance(fact, TerminalEnrolled):
        return fact
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a terminal begins with its enrolment")
    return state


FACTS: tuple[type[Fact], ...] = (TerminalEnrolled,)
