"""The catalogue: the load files that providers have registered, by version, with the hash that a card will check.

The load file data block itself lies in the payloads beside the log, under `DATA_BLOCK` of the same stream; the hash in
the log says whether it is the one that was registered.

Stream: `catalogue-<load file AID>`.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Aid, SpId
from tsm.model.checks import SHA256_OCTETS, check_hex, check_identifier, check_name
from tsm.model.event import Fact

DATA_BLOCK = "load-file-data-block"  # the payload's name: the block of the version registered last


class LoadFileRegistered(Fact, frozen=True, kw_only=True):
    """A version of a load file may be loaded from now on; it is the one that deployments use."""

    topic: ClassVar[str] = "catalogue.load_file_registered"
    load_file: str  # AID
    provider: str  # its owner's spId
    version: str
    sha256: str  # of the load file data block, hex
    size: int  # octets of the load file data block
    module: str  # AID of the executable module
    application: str  # AID of the application that is installed from it


class LoadFile(msgspec.Struct, frozen=True, kw_only=True):
    """The load file as its facts say."""

    current: LoadFileRegistered
    versions: Mapping[str, LoadFileRegistered]


def stream(load_file: str) -> str:
    """The load file's stream."""
    return f"catalogue-{load_file}"


def refuse_other_content(registered: LoadFileRegistered, data_block: bytes) -> None:
    """INVALID_INPUT unless size and hash are those of the load file data block."""
    if (registered.size, registered.sha256) != (len(data_block), sha256(data_block).hexdigest()):
        raise TsmError(ErrorCode.INVALID_INPUT, "sha256 or size: of another load file data block")


def register(state: LoadFile | None, registered: LoadFileRegistered) -> list[LoadFileRegistered]:
    """Decide to register a version; the current one again is no news.

    FORBIDDEN for another provider's load file, ALREADY_EXISTS for a version that was registered with other content or
    was followed by another (versions do not come back), INVALID_INPUT.
    """
    for name in ("load_file", "module", "application"):
        check_identifier(Aid, getattr(registered, name), name)
    check_identifier(SpId, registered.provider, "provider")
    check_name(registered.version, "version")
    check_hex(registered.sha256, "sha256", SHA256_OCTETS)
    if registered.size < 1:
        raise TsmError(ErrorCode.INVALID_INPUT, "size: no octets")
    if state is None:
        return [registered]
    if state.current.provider != registered.provider:
        raise TsmError(ErrorCode.FORBIDDEN, f"{registered.load_file} is another provider's")
    if state.current == registered:
        return []
    if registered.version in state.versions:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"{registered.load_file} version {registered.version}", ("version",))
    return [registered]


def evolve(state: LoadFile | None, fact: Fact) -> LoadFile:
    """Fold one fact."""
    if isinstance(fact, LoadFileRegistered):
        before = state.versions if state is not None else {}
        return LoadFile(current=fact, versions={**before, fact.version: fact})
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a load file begins with its registration")
    return state


FACTS: tuple[type[Fact], ...] = (LoadFileRegistered,)
