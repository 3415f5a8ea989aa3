"""A card's file is the card: written before each answer, whole, private, and in one reader only."""

import stat
from pathlib import Path

import pytest

from tests.uicc.certificates import credential
from tsm.errors import ErrorCode, TsmError
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.my_number import my_number_card

SELECT = bytes.fromhex("00A4040C0AD392F000260100000001")
WRONG_PIN = bytes.fromhex("0020009804") + b"0000"
QUERY = bytes.fromhex("00200098")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = credential()
    card = my_number_card(
        made,
        authentication_ca=made.authentication_ca,
        signature_ca=made.signature_ca,
        authentication_pin="1234",
        signature_pin="ABC123",
    )
    card.save(tmp_path / "card.json")
    return tmp_path / "card.json"


def test_a_card_taken_out_and_put_into_another_reader_remembers(path: Path) -> None:
    first = SimulatedUicc.load(path)
    first.transmit(SELECT)
    assert first.transmit(WRONG_PIN).hex() == "63c2"

    second = SimulatedUicc.load(path)
    second.transmit(SELECT)
    assert second.transmit(QUERY).hex() == "63c2"
    assert (second.atr, second.iccid) == (first.atr, first.iccid)


def test_only_its_owner_reads_a_card_file(path: Path) -> None:
    card = SimulatedUicc.load(path)
    card.transmit(SELECT)
    card.transmit(WRONG_PIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["card.json"]


def test_a_command_that_changes_nothing_does_not_write(path: Path) -> None:
    card = SimulatedUicc.load(path)
    before = path.stat().st_ino
    card.transmit(SELECT)
    card.transmit(QUERY)
    assert path.stat().st_ino == before


def test_a_card_in_two_readers_is_noticed(path: Path) -> None:
    first, second = SimulatedUicc.load(path), SimulatedUicc.load(path)
    for card in (first, second):
        card.transmit(SELECT)
    first.transmit(WRONG_PIN)

    with pytest.raises(TsmError) as error:
        second.transmit(WRONG_PIN)

    assert error.value.code == ErrorCode.CONFLICT
    assert SimulatedUicc.load(path).transmit(SELECT).hex() == "9000"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"iccid": 1}', "\x00"])
def test_another_file_is_no_card(tmp_path: Path, content: str) -> None:
    (tmp_path / "other").write_text(content)
    with pytest.raises(TsmError) as error:
        SimulatedUicc.load(tmp_path / "other")
    assert error.value.code == ErrorCode.INVALID_INPUT


def test_no_file_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(TsmError) as error:
        SimulatedUicc.load(tmp_path / "absent")
    assert error.value.code == ErrorCode.NOT_FOUND
