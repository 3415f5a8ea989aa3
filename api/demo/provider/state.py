"""What the provider remembers: visits, receptions, results. One small SQLite file; nothing in it is secret.

A reception is one delegation to the MAS. Its number is given out here, once, in the transaction that stores it. PINs,
access codes and keys are never written.
"""

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import ReceptionNumber
from tsm.keys.database import open_database

JAPAN = timezone(timedelta(hours=9), "JST")
VISIT_LIFE = timedelta(hours=1)
NORMAL = 0x9000

TABLES = """
CREATE TABLE IF NOT EXISTS visit (token TEXT PRIMARY KEY, iccid TEXT NOT NULL, begun_at TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS card (
    iccid TEXT PRIMARY KEY, diversification TEXT NOT NULL, provisional_version INTEGER NOT NULL,
    key_version INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS reception (
    number TEXT PRIMARY KEY, iccid TEXT NOT NULL, purpose TEXT NOT NULL, credential TEXT NOT NULL,
    certificates TEXT NOT NULL, check_values TEXT NOT NULL, commands INTEGER NOT NULL, created_at TEXT NOT NULL,
    outcome TEXT NOT NULL DEFAULT '', settled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS result (
    reception TEXT NOT NULL REFERENCES reception, number INTEGER NOT NULL, status_word INTEGER NOT NULL,
    digest TEXT NOT NULL, received_at TEXT NOT NULL, PRIMARY KEY (reception, number)
) STRICT;
"""


class Purpose(StrEnum):
    """Why something was delegated."""

    ROTATION = "rotation"
    PERSONALISATION = "personalisation"
    RENEWAL = "renewal"  # of the signature key and its certificate, after a hold


@dataclass(frozen=True, slots=True)
class KnownCard:
    """What we know of a card."""

    diversification: str  # hex; "" for a card that we never met
    provisional_version: int = 0  # of the keys that the operator gave our domain
    key_version: int = 0  # of our own keys in our domain; 0 while there are none


@dataclass(frozen=True, slots=True)
class Reception:
    """One delegation and what is known of its end."""

    number: str
    iccid: str
    purpose: Purpose
    credential: str  # the credential that is written, or ""
    certificates: tuple[str, ...]  # those that are written, SHA-256, hex
    check_values: str  # of the keys that PUT KEY puts, joined, hex; or ""
    commands: int  # how many were delegated
    outcome: str  # final status that the MAS signed, "" until the browser came back
    settled: bool  # what had to follow was done
    results: tuple[int, ...]  # status words notified so far, in the order of execution

    @property
    def acknowledged(self) -> bool:
        """Every delegated command was notified, and each with 9000."""
        return len(self.results) == self.commands and all(word == NORMAL for word in self.results)


class State:
    """The provider's records in one file. Safe to use from several threads."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self._database = open_database(path)
        self._database.executescript(TABLES)
        self._lock = threading.Lock()
        self._clock = clock

    def close(self) -> None:
        self._database.close()

    # --- visits: which card a browser came for ---

    def begin_visit(self, iccid: str) -> str:
        """A token for the browser's cookie; only its hash is kept."""
        token = secrets.token_hex(16)
        self._execute("DELETE FROM visit WHERE begun_at <= ?", (self._clock() - VISIT_LIFE).isoformat())
        self._execute("INSERT INTO visit VALUES (?, ?, ?)", _hash(token), iccid, self._now())
        return token

    def visitor(self, token: str) -> str:
        """The ICCID of a visit; FORBIDDEN when there is no such visit or it is over."""
        since = (self._clock() - VISIT_LIFE).isoformat()
        row = self._one("SELECT iccid FROM visit WHERE token = ? AND begun_at > ?", _hash(token), since)
        if row is None:
            raise TsmError(ErrorCode.FORBIDDEN, "no such visit")
        return str(row[0])

    # --- cards: whose keys are in our domain ---

    def meet_card(self, iccid: str, diversification: str, provisional_version: int) -> None:
        """Remember from what a card's own keys are derived; CONFLICT when it was something else before."""
        self._execute(
            "INSERT OR IGNORE INTO card (iccid, diversification, provisional_version) VALUES (?, ?, ?)",
            iccid, diversification, provisional_version,
        )  # fmt: skip
        if self.card(iccid).diversification != diversification:
            raise TsmError(ErrorCode.CONFLICT, "another diversification than before")

    def card(self, iccid: str) -> KnownCard:
        row = self._one("SELECT diversification, provisional_version, key_version FROM card WHERE iccid = ?", iccid)
        return KnownCard(row[0], int(row[1]), int(row[2])) if row else KnownCard("")

    def own_keys_put(self, iccid: str, key_version: int) -> None:
        self._execute("UPDATE card SET key_version = ? WHERE iccid = ?", key_version, iccid)

    # --- receptions and their results ---

    def receive(
        self,
        iccid: str,
        purpose: Purpose,
        commands: int,
        *,
        credential: str = "",
        certificates: Sequence[str] = (),
        check_values: str = "",
    ) -> ReceptionNumber:
        """Number a new reception: the date in Japan and the next eight digits (MC-05 table 1-3)."""
        day = f"{self._clock().astimezone(JAPAN):%Y%m%d}"
        row = self._one(
            "INSERT INTO reception"
            " (number, iccid, purpose, credential, certificates, check_values, commands, created_at)"
            " SELECT ? || printf('%08d', coalesce(max(CAST(substr(number, 9) AS INTEGER)), 0) + 1), ?, ?, ?, ?, ?, ?, ?"
            " FROM reception WHERE substr(number, 1, 8) = ? RETURNING number",
            day, iccid, purpose, credential, " ".join(certificates), check_values, commands, self._now(), day,
        )  # fmt: skip
        assert row is not None  # noqa: S101  INSERT .. RETURNING gives the row that it made
        return ReceptionNumber(row[0])

    def reception(self, number: str) -> Reception:
        """UNKNOWN_RECEPTION when this provider never gave out that number."""
        found = self._receptions("number = ?", number)
        if not found:
            raise TsmError(ErrorCode.UNKNOWN_RECEPTION, "not a number of ours")
        return found[0]

    def unsettled(self, iccid: str | None = None) -> list[Reception]:
        """Credentials that stand on their card while the authority has not been told."""
        receptions = self._receptions("credential != '' AND settled = 0")
        return [r for r in receptions if r.acknowledged and iccid in (None, r.iccid)]

    def credential_on(self, iccid: str) -> str:
        """The credential that was written to a card last; NOT_FOUND when none was."""
        written = [r for r in self._receptions("iccid = ? AND credential != ''", iccid) if r.acknowledged]
        if not written:
            raise TsmError(ErrorCode.NOT_FOUND, "no credential of ours is on this card")
        return written[-1].credential

    def record_result(self, number: str, order: int, status_word: int, digest: str) -> bool:
        """Keep one notified result. False when it was known already; CONFLICT when it was known otherwise."""
        with self._lock:
            added = self._database.execute(
                "INSERT OR IGNORE INTO result VALUES (?, ?, ?, ?, ?)", (number, order, status_word, digest, self._now())
            ).rowcount
            [known] = self._database.execute(
                "SELECT digest FROM result WHERE reception = ? AND number = ?", (number, order)
            ).fetchone()
        if known != digest:
            raise TsmError(ErrorCode.CONFLICT, "this result was notified before, with other content")
        return bool(added)

    def record_outcome(self, number: str, status: str) -> None:
        self._execute("UPDATE reception SET outcome = ? WHERE number = ?", status, number)

    def settle(self, number: str) -> None:
        self._execute("UPDATE reception SET settled = 1 WHERE number = ?", number)

    def _receptions(self, where: str, *values: object) -> list[Reception]:
        with self._lock:
            rows = self._database.execute(
                "SELECT number, iccid, purpose, credential, certificates, check_values, commands, outcome, settled"  # noqa: S608
                f" FROM reception WHERE {where} ORDER BY number",  # `where` is always one of our own literals
                values,
            ).fetchall()
            return [
                Reception(
                    number=row[0],
                    iccid=row[1],
                    purpose=Purpose(row[2]),
                    credential=row[3],
                    certificates=tuple(row[4].split()),
                    check_values=row[5],
                    commands=row[6],
                    outcome=row[7],
                    settled=bool(row[8]),
                    results=self._results(row[0]),
                )
                for row in rows
            ]

    def _results(self, number: str) -> tuple[int, ...]:
        rows = self._database.execute(
            "SELECT status_word FROM result WHERE reception = ? AND number > 0 ORDER BY number", (number,)
        )
        return tuple(word for (word,) in rows)

    def _one(self, statement: str, *values: object) -> tuple[str, ...] | None:
        with self._lock:
            row: tuple[str, ...] | None = self._database.execute(statement, values).fetchone()
            return row

    def _execute(self, statement: str, *values: object) -> None:
        with self._lock:
            self._database.execute(statement, values)

    def _now(self) -> str:
        return self._clock().isoformat()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
