"""What a card remembers without power.

Plain structures, so that the file of a card is one JSON document (octets in Base64). Nothing here decides anything:
rules live in `open`, `security_domain` and `jpki`. The structures hold keys and PINs, as a real chip does; none of them
shows those in its repr.
"""

from enum import IntEnum
from pathlib import Path
from typing import Literal

import msgspec

from tsm.errors import ErrorCode, TsmError

ISSUER_DOMAIN_AID = bytes.fromhex("A000000151000000")
DOMAIN_PACKAGE_AID = bytes.fromhex("A0000001515350")
DOMAIN_MODULE_AID = bytes.fromhex("A000000151535041")


class LifeCycle(IntEnum):
    """Life cycle states of load files, applications and domains (GPCS v2.3.1 tables 11-3 to 11-5).

    The issuer's domain shares the card's life cycle, whose SECURED (table 11-6) is 0F too. The lock is the bit 80
    beside the state that it was put upon.
    """

    LOADED = 0x01
    INSTALLED = 0x03
    SELECTABLE = 0x07
    PERSONALIZED = 0x0F


class Secretive(msgspec.Struct):
    """A structure whose repr tells its name only."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Pin(Secretive):
    """A PIN with its try counter: `limit` tries, 0 left means blocked."""

    value: bytes
    limit: int
    tries: int


class PrivateKey(Secretive):
    """An RSA-2048 private key in CRT form, as 128-octet numbers."""

    p: bytes
    q: bytes
    dp: bytes
    dq: bytes
    qinv: bytes


class JpkiMemory(Secretive, tag="jpki"):
    """The JPKI applet: file contents by file id, PINs and private keys by the file id that refers to them."""

    files: dict[int, bytes] = {}
    pins: dict[int, Pin] = {}
    keys: dict[int, PrivateKey] = {}


class JpkiPersonality(msgspec.Struct, frozen=True):
    """In what JPKI applets differ.

    `blocked_status`: what VERIFY answers when no try is left. 6983 is ISO's value, which clients understand; real My
    Number cards answer JICSAP's 6984. `authentication_certificate_needs_pin`: the rule of the applet in Android phones.
    """

    blocked_status: Literal[0x6983, 0x6984] = 0x6983
    authentication_certificate_needs_pin: bool = False


class StoredKeySet(Secretive):
    """A version of a domain's AES-128 keys, with the sequence counter of its challenges (GPC Amd D v1.1.2 §6.2.2.1)."""

    version: int
    enc: bytes
    mac: bytes
    dek: bytes
    sequence_counter: int = 0


class SecurityDomain(msgspec.Struct):
    """A security domain; the issuer's has itself as parent."""

    aid: bytes
    parent: bytes
    privileges: bytes
    life_cycle: int
    key_sets: list[StoredKeySet]

    def key_set(self, version: int) -> StoredKeySet | None:
        """The keys of this version; the newest for version 0."""
        if version == 0:
            return self.key_sets[-1] if self.key_sets else None
        return next((keys for keys in self.key_sets if keys.version == version), None)


class LoadFile(msgspec.Struct):
    """An executable load file: its load file data block is kept as it was loaded."""

    aid: bytes
    domain: bytes
    modules: list[bytes]
    block: bytes


class Application(msgspec.Struct):
    """An instance of a module; `memory` is what its class keeps."""

    aid: bytes
    module: bytes
    load_file: bytes
    domain: bytes
    privileges: bytes
    life_cycle: int
    memory: JpkiMemory


class CardMemory(msgspec.Struct):
    """The whole card. `capacity`: octets for load files, instances and domains together."""

    iccid: str
    iin: bytes
    cin: bytes
    diversification: bytes
    atr: bytes
    capacity: int
    personality: JpkiPersonality
    domains: list[SecurityDomain]
    load_files: list[LoadFile] = []
    applications: list[Application] = []

    @property
    def issuer_domain(self) -> SecurityDomain:
        return self.domains[0]

    def domain(self, aid: bytes) -> SecurityDomain | None:
        return next((domain for domain in self.domains if domain.aid == aid), None)

    def load_file(self, aid: bytes) -> LoadFile | None:
        return next((load_file for load_file in self.load_files if load_file.aid == aid), None)

    def application(self, aid: bytes) -> Application | None:
        return next((application for application in self.applications if application.aid == aid), None)


def encode(memory: CardMemory) -> bytes:
    """The card's file: one line of JSON."""
    return msgspec.json.encode(memory) + b"\n"


def decode(content: bytes, path: Path) -> CardMemory:
    """Reverse of `encode`; `TsmError(INVALID_INPUT)` when the file is no card."""
    try:
        return msgspec.json.decode(content, type=CardMemory)
    except msgspec.MsgspecError:  # the library's message may quote a key
        raise TsmError(ErrorCode.INVALID_INPUT, f"{path} is not a card file") from None
