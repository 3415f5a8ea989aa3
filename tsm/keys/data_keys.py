"""Data keys: one for each subject, so that destroying one key erases one person everywhere.

A subject is one person's tenure of a line or a credential, never a number, for numbers are recycled. Personal fields
are sealed with the subject's key and name it by a random id. After `destroy` nothing that was sealed for the subject
opens again, in no copy of the log, and nothing new can be sealed for it. The keys lie in a file of their own, wrapped
under the key-encryption key. An older copy of that file holds keys that were destroyed since: `replay` destroys them
again, by the list that outlives every copy (`tsm.keys.destroyed_keys`).

The file also says how far it was compared with the log, which knows who was erased: an older copy of the file says so
of itself.
"""

import json
import logging
import sqlite3
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from threading import RLock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tsm.errors import ErrorCode, TsmError
from tsm.keys.database import erase_remains, open_database, writing
from tsm.keys.destroyed_keys import DestroyedKeys
from tsm.keys.key_encryption import KEY_SIZE, NONCE_SIZE, KeyEncryptionKey, Random, open_sealed

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS data_key (
  key_id TEXT PRIMARY KEY,
  subject TEXT NOT NULL UNIQUE,
  wrapped BLOB -- NULL: destroyed
) STRICT""",
    # Few are destroyed of many millions, and each start asks for all of them.
    "CREATE INDEX IF NOT EXISTS destroyed_key ON data_key (subject) WHERE wrapped IS NULL",
    "CREATE TABLE IF NOT EXISTS compared (position INTEGER NOT NULL, recorded_at TEXT NOT NULL) STRICT",  # one row
)
SHAPE = ("data_key", "destroyed_key", "compared")
LISTED = "wrapped IS NOT NULL AND key_id IN (SELECT value FROM json_each(?))"
log = logging.getLogger(__name__)


class DataKeys:
    """The file `datakeys.sqlite`. Safe to use from several threads and processes."""

    def __init__(
        self, path: Path, key_encryption_key: KeyEncryptionKey, destroyed: DestroyedKeys, random: Random
    ) -> None:
        self._kek = key_encryption_key
        self._destroyed = destroyed
        self._random = random
        self._lock = RLock()
        self._connection = open_database(path, erasing=True)
        self._shape()
        self._seen = 0  # the version of the file that the caches reflect
        self._key_id = lru_cache(maxsize=4096)(self._find_key_id)
        self._cipher = lru_cache(maxsize=4096)(self._open_cipher)

    def seal(self, subject: str, plaintext: bytes, aad: bytes) -> tuple[str, bytes]:
        """The key's id and the sealed octets; makes the subject's key at first. UNKNOWN_KEY after `destroy`."""
        with self._lock:
            self._forget_what_others_changed()
            key_id = self._key_id(subject)
            cipher = self._cipher(key_id)
        nonce = self._random(NONCE_SIZE)
        return key_id, nonce + cipher.encrypt(nonce, plaintext, aad)

    def make(self, subjects: Collection[str]) -> None:
        """Makes the keys of subjects that have none yet, in one transaction: for each by itself waits for the disk."""
        with self._lock, writing(self._connection):
            for subject in subjects:
                self._insert_key(subject)

    def unseal(self, key_id: str, sealed: bytes, aad: bytes) -> bytes:
        """`TsmError`: UNKNOWN_KEY when the key is destroyed (or never was), KEY_REFUSED when it does not open."""
        with self._lock:
            self._forget_what_others_changed()
            cipher = self._cipher(key_id)
        return open_sealed(cipher, sealed, aad)

    def destroy(self, subject: str) -> None:
        """Erases the subject's key from the file and its write-ahead log, once the list names it. Safe to repeat.

        `TsmError`: NOT_FOUND or STORE_UNAVAILABLE when the list cannot be written, and the key is still there then;
        STORE_UNAVAILABLE when a reader held the write-ahead log for too long.
        """
        with self._lock:
            with writing(self._connection):
                self._insert_key(subject)  # a subject without a key must not get one later, either
                query = "SELECT key_id FROM data_key WHERE subject = ? AND wrapped IS NOT NULL"
                for (key_id,) in self._connection.execute(query, (subject,)).fetchall():
                    self._destroyed.add(key_id)
                self._connection.execute("UPDATE data_key SET wrapped = NULL WHERE subject = ?", (subject,))
            self._forget()
            erase_remains(self._connection)

    def is_destroyed(self, subject: str) -> bool:
        """Whether the subject's key was destroyed, and not merely never made."""
        query = "SELECT 1 FROM data_key WHERE subject = ? AND wrapped IS NULL"
        with self._lock:
            return self._connection.execute(query, (subject,)).fetchone() is not None

    def destroyed_subjects(self) -> list[str]:
        """All whose keys were destroyed, as far as this copy of the file knows."""
        with self._lock:
            rows = self._connection.execute("SELECT subject FROM data_key WHERE wrapped IS NULL").fetchall()
        return [subject for (subject,) in rows]

    def compared(self) -> tuple[int, str] | None:
        """The position in the log up to which this file agrees with it, and when that event was recorded."""
        with self._lock:
            row = self._connection.execute("SELECT position, recorded_at FROM compared").fetchone()
        return (int(row[0]), str(row[1])) if row else None

    def note_compared(self, position: int, recorded_at: str) -> None:
        """STORE_UNAVAILABLE when the file is held by others."""
        with self._lock, writing(self._connection):
            self._connection.execute("DELETE FROM compared")
            self._connection.execute("INSERT INTO compared VALUES (?, ?)", (position, recorded_at))

    def replay(self) -> int:
        """Destroys again what the list names and an older copy of the file brought back; how many keys that were.

        `TsmError`: NOT_FOUND, STORE_CORRUPT for the list, STORE_UNAVAILABLE as for `destroy`: serve nobody then.
        """
        listed = json.dumps(self._destroyed.read())
        with self._lock:
            query = f"SELECT count(*) FROM data_key WHERE {LISTED}"  # noqa: S608 - constants only
            (count,) = self._connection.execute(query, (listed,)).fetchone()
            if count:
                with writing(self._connection):
                    self._connection.execute(f"UPDATE data_key SET wrapped = NULL WHERE {LISTED}", (listed,))  # noqa: S608
                self._forget()
                erase_remains(self._connection)
                log.warning("%d destroyed data keys were back, as after a restored backup: destroyed again", count)
        return int(count)

    def close(self) -> None:
        with self._lock:
            self._forget()
            self._connection.close()

    def _shape(self) -> None:
        """STORE_UNAVAILABLE when a file that lacks something is held by others."""
        (there,) = self._connection.execute(f"SELECT count(*) FROM sqlite_schema WHERE name IN {SHAPE}").fetchone()  # noqa: S608
        if there < len(SHAPE):
            with writing(self._connection):
                for statement in SCHEMA:
                    self._connection.execute(statement)

    def _find_key_id(self, subject: str) -> str:
        query = "SELECT key_id FROM data_key WHERE subject = ?"
        row = self._connection.execute(query, (subject,)).fetchone()
        if row is None:
            with writing(self._connection):
                self._insert_key(subject)
            row = self._connection.execute(query, (subject,)).fetchone()  # ours, or another process was faster
        return str(row[0])

    def _insert_key(self, subject: str) -> None:
        key_id = self._random(16).hex()
        wrapped = self._kek.wrap(self._random(KEY_SIZE), _name(key_id))
        self._connection.execute(
            "INSERT INTO data_key VALUES (?, ?, ?) ON CONFLICT (subject) DO NOTHING", (key_id, subject, wrapped)
        )

    def _open_cipher(self, key_id: str) -> AESGCM:
        row = self._connection.execute("SELECT wrapped FROM data_key WHERE key_id = ?", (key_id,)).fetchone()
        if row is None or row[0] is None:
            raise TsmError(ErrorCode.UNKNOWN_KEY, f"data key {key_id} is destroyed or was never here")
        return AESGCM(self._kek.unwrap(row[0], _name(key_id)))

    def _forget_what_others_changed(self) -> None:
        """Another process may have destroyed a key: `data_version` tells, for a few microseconds."""
        version = data_version(self._connection)
        if version != self._seen:
            self._forget()
            self._seen = version

    def _forget(self) -> None:
        self._key_id.cache_clear()
        self._cipher.cache_clear()


def data_version(connection: sqlite3.Connection) -> int:
    """Differs from the last answer when another connection has changed the file since."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _name(key_id: str) -> bytes:
    return f"{key_id}|data key".encode()
