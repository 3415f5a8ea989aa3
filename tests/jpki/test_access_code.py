"""Access code and password: how they are drawn, typed and printed."""

import os
from datetime import UTC, datetime

import pytest

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.access_code import ALPHABET, AccessCode

EXPIRES = datetime(2026, 11, 22, 3, 4, tzinfo=UTC)


def test_a_code_has_ten_digits_and_a_password_twelve_characters_that_look_alike_nothing() -> None:
    made = AccessCode.make(os.urandom)

    assert len(made.code) == 10
    assert made.code.isdecimal()
    assert len(made.password) == 12
    assert set(made.password) <= set(ALPHABET)
    assert not set(ALPHABET) & set("01OI")


def test_every_octet_that_would_favour_a_digit_is_drawn_again() -> None:
    octets = iter(bytes([250, 255, *range(240, 250)]) + bytes(12))

    made = AccessCode.make(lambda count: bytes(next(octets) for _ in range(count)))

    assert made.code == "0123456789"
    assert made.password == "2" * 12


def test_neither_shows_when_it_is_logged() -> None:
    assert repr(AccessCode("1234567890", "ABCDEFGHJKLM")) == "AccessCode()"


def test_spaces_hyphens_and_small_letters_do_not_matter() -> None:
    assert AccessCode.typed(" 12345-67890", "abcd efgh-JKLM ") == AccessCode("1234567890", "ABCDEFGHJKLM")


@pytest.mark.parametrize(("code", "password"), [("123456789", "ABCDEFGHJKLM"), ("1234567890", "ABC"), ("", "")])
def test_another_shape_is_refused(code: str, password: str) -> None:
    with pytest.raises(TsmError) as refusal:
        AccessCode.typed(code, password)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


def test_the_slip_says_in_both_languages_what_to_type_and_until_when() -> None:
    slip = AccessCode("1234567890", "ABCDEFGHJKLM").slip(EXPIRES)

    assert "12345-67890" in slip
    assert "ABCD-EFGH-JKLM" in slip
    assert "2026年11月22日 12:04" in slip
    assert "22 November 2026 12:04 JST" in slip
    assert "アクセスコード" in slip
    assert "After 5 wrong tries" in slip
