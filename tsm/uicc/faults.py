"""Things that go wrong between a server and a card, one at a time, for tests.

Each wraps a `Transmit` and is itself one. Commands are counted from 1.
"""

from collections.abc import Callable

from tsm.globalplatform.apdu import Transmit


class ConnectionCut(Exception):
    """The way to the card is gone: no answer will come."""


def refuse(transmit: Transmit, nth: int, sw: int) -> Transmit:
    """The nth command never reaches the card; `sw` is answered instead."""
    return at_command(transmit, nth, lambda _: sw.to_bytes(2, "big"))


def deny(transmit: Transmit, nth: int, sw: int = 0x6985) -> Transmit:
    """The card executes the nth command, but whoever carries the answer says `sw` instead."""

    def execute_and_lie(command: bytes) -> bytes:
        transmit(command)
        return sw.to_bytes(2, "big")

    return at_command(transmit, nth, execute_and_lie)


def cut_before(transmit: Transmit, nth: int) -> Transmit:
    """The connection is lost before the nth command reaches the card; for good."""
    return from_command(transmit, nth, lambda _: cut())


def cut_after(transmit: Transmit, nth: int) -> Transmit:
    """The card executes the nth command, but its answer is lost, and so is the connection."""
    lost = from_command(transmit, nth + 1, lambda _: cut())

    def execute_unheard(command: bytes) -> bytes:
        lost(command)
        return cut()

    return at_command(lost, nth, execute_unheard)


def corrupt_answer(transmit: Transmit, nth: int) -> Transmit:
    """One bit of the nth answer's first octet is turned."""

    def turn_a_bit(command: bytes) -> bytes:
        answer = transmit(command)
        return bytes([answer[0] ^ 0x01]) + answer[1:]

    return at_command(transmit, nth, turn_a_bit)


def at_command(transmit: Transmit, nth: int, fault: Callable[[bytes], bytes]) -> Transmit:
    """`fault` instead of `transmit` for the nth command only."""
    return when(lambda number: number == nth, transmit, fault)


def from_command(transmit: Transmit, nth: int, fault: Callable[[bytes], bytes]) -> Transmit:
    """`fault` instead of `transmit` for the nth command and all later ones."""
    return when(lambda number: number >= nth, transmit, fault)


def when(faulty: Callable[[int], bool], transmit: Transmit, fault: Callable[[bytes], bytes]) -> Transmit:
    sent = 0

    def wrapper(command: bytes) -> bytes:
        nonlocal sent
        sent += 1
        return fault(command) if faulty(sent) else transmit(command)

    return wrapper


def cut() -> bytes:
    raise ConnectionCut
