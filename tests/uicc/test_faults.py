"""Each fault hits the command that it should, and no other."""

import pytest

from tsm.uicc import faults


class Recorder:
    """A card that answers with the number of commands it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, command: bytes) -> bytes:
        self.seen += 1
        return bytes([self.seen]) + b"\x90\x00"


def test_one_command_is_refused() -> None:
    card = Recorder()
    transmit = faults.refuse(card, 2, 0x6A84)
    assert [transmit(b"").hex() for _ in range(3)] == ["019000", "6a84", "029000"]


def test_one_command_is_done_and_denied() -> None:
    card = Recorder()
    transmit = faults.deny(card, 2)
    assert [transmit(b"").hex() for _ in range(3)] == ["019000", "6985", "039000"]


def test_the_connection_is_cut_before_a_command_and_stays_so() -> None:
    card = Recorder()
    transmit = faults.cut_before(card, 2)
    transmit(b"")
    for _ in range(2):
        with pytest.raises(faults.ConnectionCut):
            transmit(b"")
    assert card.seen == 1


def test_the_connection_is_cut_after_the_card_has_done_it() -> None:
    card = Recorder()
    transmit = faults.cut_after(card, 2)
    transmit(b"")
    for _ in range(2):
        with pytest.raises(faults.ConnectionCut):
            transmit(b"")
    assert card.seen == 2


def test_an_answer_is_corrupted() -> None:
    transmit = faults.corrupt_answer(Recorder(), 1)
    assert [transmit(b"").hex() for _ in range(2)] == ["009000", "029000"]
