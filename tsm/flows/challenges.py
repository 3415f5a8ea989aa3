"""Challenges for what a My Number card signs at a counter: nothing is recorded of them, for each proves itself.

    <end of life>.<nonce>.<our proof>

A challenge is good for its terminal, and for ten minutes. That what was signed counts once only is the business of
whoever takes it.
"""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault

CHALLENGE_LIFE = timedelta(minutes=10)
NONCE_SIZE = 16  # octets

Clock = Callable[[], datetime]
Random = Callable[[int], bytes]


class Challenges:
    """Makes them and knows them again."""

    def __init__(self, vault: SoftwareVault, clock: Clock, random: Random) -> None:
        self._vault = vault
        self._clock = clock
        self._random = random

    def make(self, terminal: str) -> str:
        until = int((self._clock() + CHALLENGE_LIFE).timestamp())
        nonce = self._random(NONCE_SIZE).hex()
        return f"{until}.{nonce}.{self._proof(terminal, f'{until}.{nonce}')}"

    def refuse_others(self, challenge: str, terminal: str) -> None:
        """WRONG_ORDER for a challenge that is not ours or another terminal's."""
        claim, _, proof = challenge.rpartition(".")
        if not hmac.compare_digest(proof.encode(), self._proof(terminal, claim).encode()):
            raise TsmError(ErrorCode.WRONG_ORDER, "not a challenge of ours for this terminal")

    def refuse_old(self, challenge: str) -> None:
        """WRONG_ORDER for a challenge of ours whose time is over."""
        until = datetime.fromtimestamp(int(challenge.partition(".")[0]), UTC)
        if self._clock() >= until:
            raise TsmError(ErrorCode.WRONG_ORDER, "the challenge is too old")

    def _proof(self, terminal: str, claim: str) -> str:
        return self._vault.blind_index("application-challenge", f"{terminal}|{claim}")
