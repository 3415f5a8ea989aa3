"""Identifiers that check themselves: a value of one of these types is well formed, or does not exist."""

import re
from datetime import datetime
from typing import Self

from tsm.errors import ErrorCode, TsmError


class Identifier(str):
    """A string of one pattern; `TsmError(INVALID_INPUT)` for anything else."""

    pattern: re.Pattern[str] = re.compile(r".+")

    def __new__(cls, value: str) -> Self:
        if not isinstance(value, str) or not cls.pattern.fullmatch(value) or not cls.is_sound(value):
            raise TsmError(ErrorCode.INVALID_INPUT, f"not a valid {cls.__name__}")
        return super().__new__(cls, value)

    @classmethod
    def is_sound(cls, value: str) -> bool:
        """Rules beyond the pattern."""
        return True


class Iccid(Identifier):
    """Integrated circuit card identifier: 19 or 20 digits from 89 on, the last a Luhn digit (ITU-T E.118)."""

    pattern = re.compile(r"89[0-9]{17,18}", re.ASCII)

    @classmethod
    def is_sound(cls, value: str) -> bool:
        return luhn_digit(value[:-1]) == value[-1]


class Aid(Identifier):
    """Application identifier: 5 to 16 octets as upper-case hex (ISO/IEC 7816-4 section 12.2.3)."""

    pattern = re.compile(r"(?:[0-9A-F]{2}){5,16}", re.ASCII)

    @property
    def octets(self) -> bytes:
        return bytes.fromhex(self)


class SpId(Identifier):
    """Service provider id (サービス事業者ID): 8 characters (MC-05 table 1-3). Ours are capital letters and digits."""

    pattern = re.compile(r"[0-9A-Z]{8}", re.ASCII)


class ReceptionNumber(Identifier):
    """Reception number (受付番号): date YYYYMMDD and 8 digits, unique per provider (MC-05 table 1-3)."""

    pattern = re.compile(r"[0-9]{16}", re.ASCII)

    @classmethod
    def is_sound(cls, value: str) -> bool:
        try:
            datetime.strptime(value[:8], "%Y%m%d")
        except ValueError:
            return False
        return True


class KeyRef(Identifier):
    """Names a key in the vault, never holds one: a path, and for derived keys `?method=diversification`."""

    pattern = re.compile(r"[A-Za-z0-9._/-]{1,200}(?:\?[a-z0-9]+=[0-9a-f]{2,64})?", re.ASCII)


class Msisdn(Identifier):
    """Telephone number in international form: `+` and 5 to 15 digits (ITU-T E.164; CAMARA PhoneNumber)."""

    pattern = re.compile(r"\+[1-9][0-9]{4,14}", re.ASCII)


class Imsi(Identifier):
    """International mobile subscriber identity: 6 to 15 digits (ITU-T E.212)."""

    pattern = re.compile(r"[0-9]{6,15}", re.ASCII)


class Imei(Identifier):
    """International mobile equipment identity: 15 digits, the last a Luhn digit (3GPP TS 23.003 section 6.2.1)."""

    pattern = re.compile(r"[0-9]{15}", re.ASCII)

    @classmethod
    def is_sound(cls, value: str) -> bool:
        return luhn_digit(value[:-1]) == value[-1]


def luhn_digit(digits: str) -> str:
    """The check digit that makes `digits` sound (ISO/IEC 7812-1 annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)
