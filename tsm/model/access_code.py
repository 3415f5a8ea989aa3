"""An access code, as the log knows it: which credential it opens, until when, and how many tries are left.

Code and password are never here. The stream is named by a blind index of the code, and the vault compares the password.

Stream: `access-code-<index>`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Self

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact


class AccessCodeHandedOut(Fact, frozen=True, kw_only=True):
    """Code and password were printed, once."""

    topic: ClassVar[str] = "access_code.handed_out"
    credential: str
    expires_at: datetime
    tries: int


class AccessCodeAccepted(Fact, frozen=True, kw_only=True):
    """The right password came in time, for the first time."""

    topic: ClassVar[str] = "access_code.accepted"


class AccessCodeRefused(Fact, frozen=True, kw_only=True):
    """A wrong password came."""

    topic: ClassVar[str] = "access_code.refused"
    remaining: int  # tries


class AccessCodeLocked(Fact, frozen=True, kw_only=True):
    """No try is left: the code is void."""

    topic: ClassVar[str] = "access_code.locked"


AccessCodeFact = AccessCodeAccepted | AccessCodeRefused | AccessCodeLocked


class AccessCode(msgspec.Struct, frozen=True, kw_only=True):
    """The access code as its facts say."""

    credential: str
    expires_at: datetime
    remaining: int
    accepted: bool = False
    locked: bool = False

    def refuse_unless_usable(self, at: datetime) -> Self:
        """ACCESS_CODE_LOCKED or ACCESS_CODE_EXPIRED. Ask before comparing the password, which is slow by design."""
        if self.locked:
            raise TsmError(ErrorCode.ACCESS_CODE_LOCKED, f"of credential {self.credential}")
        if at >= self.expires_at:
            raise TsmError(ErrorCode.ACCESS_CODE_EXPIRED, f"of credential {self.credential}")
        return self


def stream(index: str) -> str:
    """The access code's stream; `index` is the vault's blind index of the code."""
    return f"access-code-{index}"


def hand_out(state: AccessCode | None, credential: str, expires_at: datetime, tries: int) -> list[AccessCodeHandedOut]:
    """Decide to hand out a code. ALREADY_EXISTS when this code was drawn before: draw another."""
    if state is not None:
        raise TsmError(ErrorCode.ALREADY_EXISTS, "this access code was handed out before")
    return [AccessCodeHandedOut(credential=credential, expires_at=expires_at, tries=tries)]


def present(state: AccessCode | None, right: bool, at: datetime) -> list[AccessCodeFact]:
    """Decide on a try whose password was compared: the facts to record, before `refuse` tells the holder.

    ACCESS_CODE_REFUSED for a code that was never handed out, ACCESS_CODE_LOCKED, ACCESS_CODE_EXPIRED. Once accepted the
    code may be presented again while it lives, for a phone may lose its connection; that is no news.
    """
    if state is None:
        raise TsmError(ErrorCode.ACCESS_CODE_REFUSED, "no such access code")
    state.refuse_unless_usable(at)
    if right:
        return [] if state.accepted else [AccessCodeAccepted()]
    remaining = state.remaining - 1
    refused = AccessCodeRefused(remaining=remaining)
    return [refused] if remaining > 0 else [refused, AccessCodeLocked()]


def refuse(facts: Sequence[Fact]) -> None:
    """Raise what recorded facts mean for the holder: ACCESS_CODE_LOCKED, ACCESS_CODE_REFUSED, or nothing."""
    if any(isinstance(fact, AccessCodeLocked) for fact in facts):
        raise TsmError(ErrorCode.ACCESS_CODE_LOCKED, "the last try was wrong")
    if any(isinstance(fact, AccessCodeRefused) for fact in facts):
        raise TsmError(ErrorCode.ACCESS_CODE_REFUSED, "wrong password")


def evolve(state: AccessCode | None, fact: Fact) -> AccessCode:
    """Fold one fact."""
    if isinstance(fact, AccessCodeHandedOut):
        return AccessCode(credential=fact.credential, expires_at=fact.expires_at, remaining=fact.tries)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "an access code begins with its slip")
    match fact:
        case AccessCodeAccepted():
            return msgspec.structs.replace(state, accepted=True)
        case AccessCodeRefused():
            return msgspec.structs.replace(state, remaining=fact.remaining)
        case AccessCodeLocked():
            return msgspec.structs.replace(state, locked=True)
        case _:
            return state


FACTS: tuple[type[Fact], ...] = (AccessCodeHandedOut, AccessCodeAccepted, AccessCodeRefused, AccessCodeLocked)
