"""The key-encryption key: one file that opens the vault, and therefore never lies beside it.

The file holds 32 random octets, belongs to the user who runs the program, has mode 0600 and lies outside the folder
that it protects, so that a copy of the data folder opens nothing. Anything else is refused.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tsm.errors import ErrorCode, TsmError

KEY_SIZE = 32  # octets: AES-256
NONCE_SIZE = 12  # octets (NIST SP 800-38D section 8.2.2: random, 96 bits)

Random = Callable[[int], bytes]


class KeyEncryptionKey:
    """Wraps and unwraps with AES-256-GCM; the octets themselves cannot be asked for."""

    __slots__ = ("_cipher", "_random")

    def __init__(self, key: bytes, random: Random) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    @classmethod
    def create(cls, file: Path, folder: Path, random: Random) -> Self:
        """Makes the file when it is missing, then reads it with all checks."""
        refuse_inside(file, folder)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return cls.read(file, folder, random)
        except OSError as error:
            raise TsmError(ErrorCode.NOT_FOUND, f"cannot write {file}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            opened.write(random(KEY_SIZE))
            opened.flush()
            os.fsync(descriptor)
        return cls.read(file, folder, random)

    @classmethod
    def read(cls, file: Path, folder: Path, random: Random) -> Self:
        """`TsmError`: KEY_ENCRYPTION_KEY_EXPOSED, NOT_FOUND, or KEY_REFUSED when it is not 32 octets."""
        refuse_inside(file, folder)
        try:
            with file.open("rb") as opened:
                _refuse_readable_by_others(os.fstat(opened.fileno()))
                key = opened.read(KEY_SIZE + 1)
        except OSError as error:
            raise TsmError(ErrorCode.NOT_FOUND, f"cannot read {file}: {error.strerror}") from error
        if len(key) != KEY_SIZE:
            raise TsmError(ErrorCode.KEY_REFUSED, f"{file} does not hold {KEY_SIZE} octets")
        return cls(key, random)

    def wrap(self, key: bytes, name: bytes) -> bytes:
        """Nonce, ciphertext and tag, bound to `name`: under another name it does not open."""
        nonce = self._random(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, key, name)

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        """`TsmError(KEY_REFUSED)` for another key-encryption key, another name or a changed octet."""
        return open_sealed(self._cipher, wrapped, name)


def open_sealed(cipher: AESGCM, sealed: bytes, aad: bytes) -> bytes:
    """What `nonce || ciphertext || tag` holds; `TsmError(KEY_REFUSED)` when it was not sealed so."""
    try:
        return cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], aad)
    except (InvalidTag, ValueError):
        raise TsmError(ErrorCode.KEY_REFUSED, "does not open under this key and name") from None


def refuse_inside(file: Path, folder: Path) -> None:
    """`TsmError(KEY_ENCRYPTION_KEY_EXPOSED)` when `file` lies, links followed, in `folder` or below."""
    if file.resolve().is_relative_to(folder.resolve()):
        raise TsmError(ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED, f"{file} lies in {folder}")


def _refuse_readable_by_others(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise TsmError(ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED, f"mode {stat.S_IMODE(status.st_mode):04o}, not 0600")
    if status.st_uid != os.geteuid():
        raise TsmError(ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED, "the file belongs to another user")
