"""A simulated UICC: bytes in, bytes out.

What is selected, and everything that a reset forgets, is one object that answers commands: a session with a security
domain or with the applet. After reset that is the issuer's domain, with the UICC's files beside it. What lasts is in
`CardMemory`, and if the card has a file, it is written there before the command is answered.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord
from tsm.globalplatform.tlv import tlv
from tsm.identifiers import Iccid
from tsm.keys.primitives import KeySet
from tsm.uicc.card_file import CardFile
from tsm.uicc.content import ISSUER_PRIVILEGES, Content
from tsm.uicc.files import UiccFiles
from tsm.uicc.jpki import JpkiApplet
from tsm.uicc.memory import (
    DOMAIN_MODULE_AID,
    DOMAIN_PACKAGE_AID,
    ISSUER_DOMAIN_AID,
    Application,
    CardMemory,
    JpkiPersonality,
    LifeCycle,
    LoadFile,
    SecurityDomain,
    StoredKeySet,
    decode,
    encode,
)
from tsm.uicc.refusal import Refused, require
from tsm.uicc.security_domain import DomainSession

UICC_ATR = bytes.fromhex("3B9F96801F878031E073FE211B674A4C753034054BA9")  # of a SIM in the field: T=0 only
DEFAULT_MEMORY = 128 * 1024  # octets
DIVERSIFICATION_OCTETS = 10
SELECTABLE = (LifeCycle.SELECTABLE, LifeCycle.PERSONALIZED)


class Selected(Protocol):
    """What commands go to until something else is selected."""

    def process(self, command: CommandApdu) -> ResponseApdu: ...


class SimulatedUicc:
    """One card. Not for several threads: a card does one command at a time."""

    def __init__(
        self, memory: CardMemory, file: CardFile | None = None, *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._memory = memory
        self._file = file
        self._random = random
        self.reset()

    @classmethod
    def manufacture(
        cls,
        iccid: str,
        iin: bytes,
        cin: bytes,
        kdd: bytes,
        key_set: KeySet,
        key_version: int = 1,
        *,
        memory: int = DEFAULT_MEMORY,
        atr: bytes = UICC_ATR,
        jpki: JpkiPersonality = JpkiPersonality(),  # noqa: B008 - frozen
        random: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """A card as it leaves the factory: an issuer's domain with its keys, and nothing else.

        `iin`, `cin`: issuer and card number as GET DATA 42 and 45 tell them. `kdd`: 10 octets of key diversification
        data. `memory`: octets for content. The card lives in memory only, until `save`.
        """
        if len(kdd) != DIVERSIFICATION_OCTETS:
            raise TsmError(ErrorCode.INVALID_INPUT, f"key diversification data has {DIVERSIFICATION_OCTETS} octets")
        issuer = SecurityDomain(
            aid=ISSUER_DOMAIN_AID,
            parent=ISSUER_DOMAIN_AID,
            privileges=ISSUER_PRIVILEGES.to_bytes(3, "big"),
            life_cycle=LifeCycle.PERSONALIZED,
            key_sets=[StoredKeySet(key_version, key_set.enc, key_set.mac, key_set.dek)],
        )
        built_in = LoadFile(DOMAIN_PACKAGE_AID, ISSUER_DOMAIN_AID, [DOMAIN_MODULE_AID], block=b"")
        card = CardMemory(str(Iccid(iccid)), iin, cin, kdd, atr, memory, jpki, [issuer], [built_in])
        return cls(card, random=random)

    @classmethod
    def load(cls, path: Path, *, random: Callable[[int], bytes] = os.urandom) -> Self:
        """The card in this file, which it goes on living in. `TsmError`: NOT_FOUND, or INVALID_INPUT for no card."""
        file, content = CardFile.open(path)
        return cls(decode(content, path), file, random=random)

    def save(self, path: Path) -> None:
        """Put the card into this file (mode 0600), which it lives in from now on."""
        self._file = CardFile.create(path, encode(self._memory))

    def install_in_factory(self, application: Application) -> None:
        """Put an application on the card before anybody has it: no channel, no load file."""
        self._memory.applications.append(application)

    @property
    def iccid(self) -> str:
        return self._memory.iccid

    @property
    def atr(self) -> bytes:
        return self._memory.atr

    def reset(self) -> None:
        """Power off and on: what is not in `CardMemory` is forgotten."""
        self._content = Content(self._memory)
        self._files = UiccFiles(self._memory.iccid)
        self._selected: Selected = self._session(self._memory.issuer_domain)

    def transmit(self, command: bytes) -> bytes:
        """Execute a command APDU and return the response APDU.

        Whatever the octets, the answer is a status word. `TsmError(CONFLICT)` if the card's file is in other hands.
        """
        answer = self._answer(command)
        if self._file is not None:
            self._file.write(encode(self._memory))
        return answer.encode()

    def _answer(self, octets: bytes) -> ResponseApdu:
        try:
            return self._process(CommandApdu.parse(octets))
        except Refused as refused:
            return ResponseApdu(b"", refused.sw)
        except TsmError:
            return ResponseApdu(b"", StatusWord.WRONG_LENGTH)

    def _process(self, command: CommandApdu) -> ResponseApdu:
        if (command.cla, command.ins, command.p1) == (0x00, 0xA4, 0x04):
            return self._select(command)
        if isinstance(self._selected, DomainSession) and command.cla == 0x00:
            return self._files.process(command)
        return self._selected.process(command)

    def _select(self, command: CommandApdu) -> ResponseApdu:
        """SELECT by AID, of which no octet may be missing: a client that asks for a part may take us for another card.

        An empty AID means the issuer's domain (GPCS v2.3.1 §11.9). What was selected stays so when this fails.
        """
        require(command.p2 in (0x00, 0x04, 0x0C), StatusWord.WRONG_P1_P2)
        aid = command.data or ISSUER_DOMAIN_AID
        domain, application = self._memory.domain(aid), self._memory.application(aid)
        if domain is not None and domain.life_cycle in SELECTABLE:
            selected: Selected = self._session(domain)
        elif application is not None and application.life_cycle in SELECTABLE:
            selected = JpkiApplet(application.memory, self._memory.personality, self._random)
        else:
            raise Refused(StatusWord.FILE_NOT_FOUND)
        self._content.abandon_load()
        self._selected = selected
        has_data = domain is not None and command.p2 != 0x0C
        return ResponseApdu(file_control_information(aid) if has_data else b"", StatusWord.OK)

    def _session(self, domain: SecurityDomain) -> DomainSession:
        return DomainSession(self._memory, self._content, domain)


def file_control_information(aid: bytes) -> bytes:
    """FCI of a security domain (GPCS v2.3.1 table 11-79): its AID and the longest command data, 255 octets."""
    return tlv(0x6F, tlv(0x84, aid) + tlv(0xA5, tlv(0x9F65, b"\xff")))
