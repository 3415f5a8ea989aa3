"""Access code and password: how a holder who was identified at the counter is known again on the phone.

The code says which credential, the password that it is the right person. Both stand on one slip that is handed out
once; the server keeps a blind index of the code and a verifier of the password, and can print neither again. Five wrong
tries lock the code, and after 24 hours it is void; the holder then applies again.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Self

from tsm.errors import ErrorCode, TsmError

Random = Callable[[int], bytes]

CODE_DIGITS = 10
PASSWORD_CHARACTERS = 12
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # 32 characters, none that looks like another (0 O 1 I)
TRIES = 5
LIFE = timedelta(hours=24)
JAPAN = timezone(timedelta(hours=9), "JST")
FILLING = re.compile(r"[\s-]+")

SLIP = """\
スマートフォン用電子証明書 交付票
Slip for the certificates in your phone

アクセスコード / Access code : {code}
パスワード     / Password    : {password}
有効期限       / Valid until : {expires_ja} / {expires_en}

・有効期限までに、スマートフォンのアプリで入力してください。
・{tries}回間違えると使えなくなります。その場合は、窓口でもう一度お申し込みください。
・この票は一度しか発行できません。他の人に見せないでください。
- Enter both in the app on your phone before they expire.
- After {tries} wrong tries the code is locked; please apply again at the counter.
- This slip cannot be printed again. Show it to nobody.
"""


@dataclass(frozen=True, slots=True)
class AccessCode:
    """A code and its password, before they are forgotten. Neither shows in a log."""

    code: str = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def make(cls, random: Random) -> Self:
        """Ten digits and twelve characters (60 bits), each drawn without bias."""
        return cls(digits(CODE_DIGITS, random), characters(PASSWORD_CHARACTERS, random))

    @classmethod
    def typed(cls, code: str, password: str) -> Self:
        """As a person types them: spaces, hyphens and lower case do not matter. INVALID_INPUT for another shape."""
        read = cls(FILLING.sub("", code), FILLING.sub("", password).upper())
        if not (re.fullmatch(r"[0-9]{10}", read.code) and re.fullmatch(r"[0-9A-Z]{12}", read.password)):
            raise TsmError(ErrorCode.INVALID_INPUT, "not an access code and password")
        return read

    def slip(self, expires_at: datetime) -> str:
        """The text to print, in Japanese and English."""
        local = expires_at.astimezone(JAPAN)
        return SLIP.format(
            code=grouped(self.code, 5),
            password=grouped(self.password, 4),
            expires_ja=f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}",
            expires_en=f"{local:%d %B %Y %H:%M} JST",
            tries=TRIES,
        )


def digits(count: int, random: Random) -> str:
    drawn = ""
    while len(drawn) < count:
        [octet] = random(1)
        if octet < 250:  # 250..255 would make the digits 0 to 5 likelier
            drawn += str(octet % 10)
    return drawn


def characters(count: int, random: Random) -> str:
    return "".join(ALPHABET[octet % len(ALPHABET)] for octet in random(count))


def grouped(text: str, size: int) -> str:
    return "-".join(text[start : start + size] for start in range(0, len(text), size))
