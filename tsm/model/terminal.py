"""A counter terminal (統合端末): the reader and screen at a municipality's counter, with its own client certificate.

Stream: `terminal-<id>`.
"""

from typing import ClassVar

from tsm.errors import ErrorCode, TsmError
from tsm.model import party
from tsm.model.checks import SHA256_OCTETS, check_hex, check_name, check_text
from tsm.model.event import Fact


class TerminalEnrolled(Fact, frozen=True, kw_only=True):
    """The terminal was admitted. What is known of it is in this fact, so it is the terminal's state too."""

    topic: ClassVar[str] = "terminal.enrolled"
    terminal: str
    municipality: str
    certificate_fingerprint: str  # SHA-256 of the client certificate's DER, hex


Terminal = TerminalEnrolled


def stream(terminal: str) -> str:
    """The terminal's stream."""
    return f"terminal-{terminal}"


def enrol(state: Terminal | None, enrolled: TerminalEnrolled) -> list[Fact]:
    """Decide to admit a terminal, or to replace its certificate; the same again is no news.

    INVALID_INPUT; ALREADY_EXISTS when anything but the certificate differs.
    """
    check_name(enrolled.terminal, "terminal")
    check_text(enrolled.municipality, "municipality")
    check_hex(enrolled.certificate_fingerprint, "certificate_fingerprint", SHA256_OCTETS)
    return party.enrol(state, enrolled, enrolled, f"terminal {enrolled.terminal}")


def evolve(state: Terminal | None, fact: Fact) -> Terminal:
    """Fold one fact."""
    if isinstance(fact, TerminalEnrolled):
        return fact
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a terminal begins with its enrolment")
    return party.evolve(state, fact)


FACTS: tuple[type[Fact], ...] = (TerminalEnrolled,)
