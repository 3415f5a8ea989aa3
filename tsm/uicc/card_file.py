"""A card's file: written whole, before the card answers, or not at all.

The file is the chip: whoever reads it has the keys, hence mode 0600. Two programs that hold the same card would each
undo what the other wrote, PIN tries included. So a write first checks that the file is still as this program left it.
"""

import os
from pathlib import Path

from tsm.errors import ErrorCode, TsmError


class CardFile:
    """Keeps the content of one file, and its last known state to notice a second hand on it."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self._content = content

    @classmethod
    def open(cls, path: Path) -> tuple["CardFile", bytes]:
        """The file and what it holds; `TsmError(NOT_FOUND)` without it."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TsmError(ErrorCode.NOT_FOUND, f"{path}: {error.strerror}") from None
        return cls(path, content), content

    @classmethod
    def create(cls, path: Path, content: bytes) -> "CardFile":
        """A new file, or new content for the one that is there."""
        replace(path, content)
        return cls(path, content)

    def write(self, content: bytes) -> None:
        """Replace the content if it changed; `TsmError(CONFLICT)` when somebody else wrote meanwhile."""
        if content == self._content:
            return
        if not self.path.exists() or self.path.read_bytes() != self._content:
            raise TsmError(
                ErrorCode.CONFLICT, f"{self.path} was changed by another program: the card is in two readers"
            )
        replace(self.path, content)
        self._content = content


def replace(path: Path, content: bytes) -> None:
    """Atomic and durable: a reader sees the old file or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
