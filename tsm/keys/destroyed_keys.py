"""The list of destroyed keys: what a restored backup must not bring back.

A text file outside the folder whose keys it names, one line for each destroyed data key: its random id, and when. It is
only ever appended to, by any number of processes, and a line is on the disk before its key is destroyed. Whoever opens
the keys destroys again what the list names, so an older copy of them opens nothing that was erased since.

Nothing in it is personal, so it may be kept for ever and copied anywhere; it is never put back from an older copy.
"""

import fcntl
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tsm.errors import ErrorCode, TsmError

LINE = re.compile(rb"([0-9a-f]{32}) \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TORN = b" torn"  # what a later line finds unfinished is marked so, for nothing is ever taken out

Clock = Callable[[], datetime]


class DestroyedKeys:
    """One such file, shared by threads and processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    @classmethod
    def create(cls, path: Path, folder: Path, clock: Clock) -> Self:
        """Makes the file, for its owner only, unless it is there. `TsmError`: INVALID_INPUT, NOT_FOUND."""
        refuse_within(path, folder)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            _sync_folder(path.parent)
        except FileExistsError:
            pass
        except OSError as error:
            raise TsmError(ErrorCode.NOT_FOUND, f"cannot write {path}: {error.strerror}") from error
        return cls.open(path, folder, clock)

    @classmethod
    def open(cls, path: Path, folder: Path, clock: Clock) -> Self:
        """`TsmError`: NOT_FOUND when it is missing, INVALID_INPUT when it lies in the folder, STORE_CORRUPT."""
        refuse_within(path, folder)
        opened = cls(path, clock)
        opened.read()
        return opened

    def read(self) -> list[str]:
        """The ids of all keys that were destroyed, in order. What a crash left of a last line does not count.

        Such a line was not on the disk, so its key was not destroyed on the strength of it. NOT_FOUND, STORE_CORRUPT.
        """
        try:
            *lines, _torn = self._path.read_bytes().split(b"\n")
        except OSError as error:
            raise self._missing(error) from error
        found = [(number, LINE.fullmatch(line)) for number, line in enumerate(lines, 1) if not line.endswith(TORN)]
        for number, match in found:
            if match is None:
                raise TsmError(ErrorCode.STORE_CORRUPT, f"{self._path}: line {number} is not a destroyed key")
        return [match[1].decode() for _, match in found if match is not None]

    def add(self, key_id: str) -> None:
        """On the disk when this returns. `TsmError`: NOT_FOUND, STORE_UNAVAILABLE when it cannot be written."""
        line = f"{key_id} {self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise self._missing(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = TORN + b"\n" + line
            if os.write(descriptor, line) != len(line):
                raise TsmError(ErrorCode.STORE_UNAVAILABLE, f"no room for a line in {self._path}")
            os.fsync(descriptor)
        except OSError as error:
            raise TsmError(ErrorCode.STORE_UNAVAILABLE, f"cannot write {self._path}: {error.strerror}") from error
        finally:
            os.close(descriptor)  # and with it goes the lock

    def _missing(self, error: OSError) -> TsmError:
        detail = f"cannot read the list of destroyed keys {self._path} ({error.strerror}): without it a restored backup"
        return TsmError(ErrorCode.NOT_FOUND, f"{detail} would bring the erased back. Put it where it was, as it was")


def beside(kek_file: Path) -> Path:
    """Where the list lies unless somebody chose: beside the key-encryption key."""
    return kek_file.with_name(f"{kek_file.name}.destroyed")


def refuse_within(path: Path, folder: Path) -> None:
    """`TsmError(INVALID_INPUT)` for a list that would be put back together with the keys that it names."""
    if path.resolve().is_relative_to(folder.resolve()):
        raise TsmError(ErrorCode.INVALID_INPUT, f"the list of destroyed keys {path} lies in {folder}")


def utc_now() -> datetime:
    return datetime.now(UTC)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
