"""The UICC's own files, as a phone and card tools read them."""

import pytest

from tests.uicc.off_card import new_card
from tsm.identifiers import luhn_digit
from tsm.keys.primitives import KeySet
from tsm.uicc.card import UICC_ATR, SimulatedUicc
from tsm.uicc.files import encode_iccid


def conversation(*commands: str) -> list[str]:
    card = new_card()
    return [card.transmit(bytes.fromhex(command)).hex().upper() for command in commands]


def test_a_phone_reads_the_iccid() -> None:
    master, iccid, digits = conversation("00A40004023F00", "00A40004022FE2", "00B000000A")
    assert master == "620B8202782183023F008A01059000"
    assert iccid == "620F8202412183022FE28A01058002000A9000"
    assert digits == "981801000000000010F09000"


def test_the_directory_lists_no_application() -> None:
    assert conversation("00A40004022F00", "00B2010420")[1] == "FF" * 32 + "9000"


@pytest.mark.parametrize(
    ("commands", "answer"),
    [
        (["00A40004022F05"], "6A82"),
        (["00A4000402A000"], "6A82"),
        (["00A4000402"], "6A82"),
        (["00A40404023F00"], "6A82"),
        (["00A40100023F00"], "6A86"),
        (["00B0000010"], "6981"),
        (["00A4000C022FE2", "00B0000A01"], "6B00"),
        (["00A4000C022F00", "00B2020420"], "6A83"),
        (["00C0000000"], "6D00"),
    ],
)
def test_refuses(commands: list[str], answer: str) -> None:
    assert conversation(*commands)[-1] == answer


@pytest.mark.parametrize(
    ("iccid", "encoded"),
    [("8981100000000000010", "981801000000000010F0"), ("89811000000000000102", "98180100000000001020")],
)
def test_iccid_digits_are_swapped_and_filled(iccid: str, encoded: str) -> None:
    assert encode_iccid(iccid).hex().upper() == encoded


def test_the_atr_is_that_of_a_sim_and_its_check_octet_is_right() -> None:
    check = 0
    for octet in UICC_ATR[1:]:
        check ^= octet
    assert check == 0
    assert new_card().atr == UICC_ATR


def test_an_iccid_must_be_sound() -> None:
    digits = "898110000000000001"
    keys = KeySet(bytes(16), bytes(16), bytes(16))
    SimulatedUicc.manufacture(digits + luhn_digit(digits), b"", b"", bytes(10), keys)
