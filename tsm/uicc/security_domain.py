"""A security domain that is selected: its secure channel, and the commands that go through it.

The channel and everything that is unfinished (a load, a personalisation) live in `DomainSession` and end with it; a
selection makes a new one. A command that breaks the channel's protection closes the channel.
"""

from dataclasses import dataclass, field

from tsm.channels.scp03 import LEVELS, CardSecurityError, Scp03CardChannel
from tsm.errors import TsmError
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord
from tsm.globalplatform.commands import (
    AES,
    Command,
    Delete,
    EncryptedKey,
    GetData,
    GetStatus,
    InitializeUpdate,
    InstallForInstall,
    InstallForLoad,
    InstallForMakeSelectable,
    InstallForPersonalization,
    Load,
    PutKey,
    SetStatus,
    StoreData,
    parse_command,
)
from tsm.globalplatform.dgi import parse_dgis, parse_key_dgis
from tsm.globalplatform.responses import InitializeUpdateResponse, StatusEntry
from tsm.keys.primitives import KeySet, SessionKeys, card_challenge, kcv_aes, unpad, unwrap_dek
from tsm.uicc import domain_data, jpki
from tsm.uicc.content import CONFIRMATION, Content
from tsm.uicc.memory import Application, CardMemory, LifeCycle, SecurityDomain, StoredKeySet
from tsm.uicc.refusal import Refused, require

INITIALIZE_UPDATE, EXTERNAL_AUTHENTICATE, GET_DATA = 0x50, 0x82, 0xCA
IN_CHANNEL = {  # PUT KEY, STORE DATA, DELETE, INSTALL, LOAD, SET STATUS, GET STATUS
    0xD8, 0xE2, 0xE4, 0xE6, 0xE8, 0xF0, 0xF2,
}  # fmt: skip
INSTRUCTIONS = IN_CHANNEL | {INITIALIZE_UPDATE, EXTERNAL_AUTHENTICATE, GET_DATA}
LAST_SEQUENCE_COUNTER = 0xFFFFFF
CONTENT_CONFOUNDER_OCTETS = 16  # random octets in front of each encrypted DGI: equal values do not look equal
MOST_PERSONALIZATION_OCTETS = 32768
MOST_STATUS_OCTETS = 220  # leaves room for padding, R-MAC and the status word
INVALID_CHECK_VALUE = 0x9485


@dataclass
class SecureChannel:
    """An authenticated channel, or one that waits for EXTERNAL AUTHENTICATE.

    The DEK is the one of the key version that the session began with, also after PUT KEY has replaced that.
    """

    protection: Scp03CardChannel
    dek: bytes = field(repr=False)
    is_open: bool = False


@dataclass
class Personalization:
    """STORE DATA blocks for one instance, applied when the last has come."""

    target: SecurityDomain | Application
    received: bytearray = field(default_factory=bytearray, repr=False)
    blocks: int = 0


class DomainSession:
    """One selection of a security domain. `process` answers a command or raises `Refused`."""

    def __init__(self, memory: CardMemory, content: Content, domain: SecurityDomain) -> None:
        self.domain = domain
        self._memory = memory
        self._content = content
        self._channel: SecureChannel | None = None
        self._personalization: Personalization | None = None
        self._status_left: list[StatusEntry] = []

    def process(self, command: CommandApdu) -> ResponseApdu:
        """Answer one command other than SELECT of an application, through the secure channel if there is one."""
        require(command.cla in (0x80, 0x84), StatusWord.CLASS_NOT_SUPPORTED)
        require(command.ins in INSTRUCTIONS, StatusWord.INSTRUCTION_NOT_SUPPORTED)
        if command.ins == INITIALIZE_UPDATE:
            return self._initialize_update(read(command))
        if command.ins == EXTERNAL_AUTHENTICATE:
            return self._external_authenticate(command)
        channel = self._channel
        if channel is None or not channel.is_open:
            require(command.ins == GET_DATA, StatusWord.SECURITY_STATUS_NOT_SATISFIED)
            return self._execute(command)
        try:
            plain = channel.protection.unwrap(command)
        except CardSecurityError:
            self._close()
            raise Refused(StatusWord.SECURITY_STATUS_NOT_SATISFIED) from None
        return channel.protection.wrap(self._answer(plain))

    def _close(self) -> None:
        self._channel = None
        self._personalization = None
        self._content.abandon_load()

    def _initialize_update(self, command: Command) -> ResponseApdu:
        """INITIALIZE UPDATE (GPC Amd D v1.1.2 §7.1.1). Each one uses up a value of the sequence counter."""
        self._close()
        if not isinstance(command, InitializeUpdate):
            raise Refused(StatusWord.WRONG_DATA)
        stored = self.domain.key_set(command.key_version)
        if stored is None or command.key_identifier != 0:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        require(stored.sequence_counter < LAST_SEQUENCE_COUNTER, StatusWord.CONDITIONS_NOT_SATISFIED)
        counter = stored.sequence_counter.to_bytes(3, "big")
        stored.sequence_counter += 1
        challenge = card_challenge(stored.enc, counter, self.domain.aid)
        keys = SessionKeys.derive(KeySet(stored.enc, stored.mac, stored.dek), command.host_challenge, challenge)
        self._channel = SecureChannel(Scp03CardChannel(keys), stored.dek)
        answer = InitializeUpdateResponse(
            key_diversification=self._memory.diversification,
            key_version=stored.version,
            scp=domain_data.SCP03,
            i=domain_data.SCP03_OPTIONS,
            card_challenge=challenge,
            card_cryptogram=keys.card_cryptogram(),
            sequence_counter=counter,
        )
        return ResponseApdu(answer.encode(), StatusWord.OK)

    def _external_authenticate(self, command: CommandApdu) -> ResponseApdu:
        """EXTERNAL AUTHENTICATE (GPC Amd D v1.1.2 §7.1.2): one try for each INITIALIZE UPDATE."""
        channel, self._channel = self._channel, None
        if channel is None or channel.is_open:
            raise Refused(StatusWord.CONDITIONS_NOT_SATISFIED)
        require(command.p1 in LEVELS, StatusWord.WRONG_P1_P2)
        require(channel.protection.external_authenticate(command), StatusWord.AUTHENTICATION_FAILED)
        channel.is_open = True
        self._channel = channel
        return ResponseApdu(b"", StatusWord.OK)

    def _answer(self, command: CommandApdu) -> ResponseApdu:
        try:
            return self._execute(command)
        except Refused as refused:
            return ResponseApdu(b"", refused.sw)

    def _execute(self, command: CommandApdu) -> ResponseApdu:
        """Do a plain command. Anything but the next block ends a load, or a personalisation, that is under way."""
        match read(command):
            case Load() as load:
                return done(self._content.load(load))
            case StoreData() as store_data:
                self._content.abandon_load()
                return done(self._store_data(store_data))
            case other:
                self._content.abandon_load()
                self._personalization = None
                return self._execute_other(other)

    def _execute_other(self, command: Command) -> ResponseApdu:
        content, domain = self._content, self.domain
        match command:
            case InstallForLoad():
                return done(content.install_for_load(command, domain))
            case InstallForInstall():
                return done(content.install(command, domain))
            case InstallForMakeSelectable():
                return done(content.make_selectable(command, domain))
            case InstallForPersonalization():
                self._personalization = Personalization(content.personalizable(command.application_aid, domain))
                return done(CONFIRMATION)
            case Delete():
                return done(content.delete(command, domain))
            case SetStatus():
                return done(content.set_status(command, domain))
            case PutKey():
                return done(self._put_key(command))
            case GetData():
                return done(domain_data.get_data(self._memory, domain, command.tag))
            case GetStatus():
                return self._get_status(command)
        raise Refused(StatusWord.CONDITIONS_NOT_SATISFIED)

    def _store_data(self, command: StoreData) -> bytes:
        """Collect blocks; with the last, apply all DGIs or none. Without a target they are for this domain."""
        personalization, self._personalization = self._personalization or Personalization(self.domain), None
        require(command.block_number == personalization.blocks % 256, StatusWord.WRONG_P1_P2)
        require(command.dgi, StatusWord.WRONG_P1_P2)
        is_application = isinstance(personalization.target, Application)
        require(command.encrypted or not is_application, StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        personalization.received += command.block
        personalization.blocks += 1
        require(len(personalization.received) <= MOST_PERSONALIZATION_OCTETS, StatusWord.NOT_ENOUGH_MEMORY)
        if not command.last:
            self._personalization = personalization
        elif isinstance(personalization.target, Application):
            self._personalize_application(personalization.target, bytes(personalization.received))
        else:
            self._store_keys(personalization.target, bytes(personalization.received))
        return b""

    def _personalize_application(self, application: Application, data: bytes) -> None:
        """Hand the DGIs to the application, each decrypted with this domain's DEK (GPCS v2.3.1 §7.3.3)."""
        dgis = {tag: self._content_of(value) for tag, value in self._dgis(data).items()}
        if application.life_cycle == LifeCycle.PERSONALIZED:
            application.memory = jpki.renew(application.memory, dgis)
        else:
            application.memory = jpki.personalize(dgis)
        application.life_cycle = LifeCycle.PERSONALIZED

    def _dgis(self, data: bytes) -> dict[int, bytes]:
        try:
            dgis = parse_dgis(data)
        except TsmError:
            raise Refused(StatusWord.WRONG_DATA) from None
        by_tag = {dgi.tag: dgi.value for dgi in dgis}
        require(len(by_tag) == len(dgis), StatusWord.WRONG_DATA)
        return by_tag

    def _content_of(self, encrypted: bytes) -> bytes:
        """Undo AES-CBC (zero ICV) over random octets, content, 80 and zeros."""
        try:
            content = unpad(unwrap_dek(self._dek, encrypted))
        except TsmError:
            raise Refused(StatusWord.WRONG_DATA) from None
        require(len(content) >= CONTENT_CONFOUNDER_OCTETS, StatusWord.WRONG_DATA)
        return content[CONTENT_CONFOUNDER_OCTETS:]

    def _store_keys(self, target: SecurityDomain, data: bytes) -> None:
        """Key DGIs for a domain, under the DEK of this one."""
        try:
            version, keys = parse_key_dgis(data)
        except TsmError:
            raise Refused(StatusWord.WRONG_DATA) from None
        self._add_key_set(target, self._key_set(version, keys), replaced=0)

    def _put_key(self, command: PutKey) -> bytes:
        """PUT KEY (GPCS v2.3.1 §11.8): three AES keys, added or instead of another version."""
        require(command.key_identifier == 1, StatusWord.WRONG_P1_P2)
        key_set = self._key_set(command.new_key_version, command.keys)
        self._add_key_set(self.domain, key_set, replaced=command.key_version)
        return command.answer()

    def _key_set(self, version: int, keys: tuple[EncryptedKey, ...]) -> StoredKeySet:
        require(all(key.kind == AES for key in keys), StatusWord.WRONG_DATA)
        require(len(keys) == 3 and 0x01 <= version <= 0x7F, StatusWord.WRONG_DATA)
        enc, mac, dek = (self._key(key) for key in keys)
        return StoredKeySet(version, enc, mac, dek)

    def _key(self, key: EncryptedKey) -> bytes:
        """Unwrap with the DEK; the key's length in front is in use, and leaving it out is too."""
        require(key.key_length in (None, domain_data.AES_KEY_OCTETS), StatusWord.WRONG_DATA)
        require(len(key.encrypted) == domain_data.AES_KEY_OCTETS, StatusWord.WRONG_DATA)
        plain = unwrap_dek(self._dek, key.encrypted)
        require(key.check_value == kcv_aes(plain), INVALID_CHECK_VALUE)
        return plain

    def _add_key_set(self, target: SecurityDomain, key_set: StoredKeySet, replaced: int) -> None:
        old = target.key_set(replaced) if replaced else None
        require(old is not None or not replaced, StatusWord.REFERENCED_DATA_NOT_FOUND)
        others = [keys for keys in target.key_sets if keys is not old]
        require(all(keys.version != key_set.version for keys in others), StatusWord.WRONG_DATA)
        target.key_sets = [*others, key_set]
        if target.life_cycle == LifeCycle.SELECTABLE:
            target.life_cycle = LifeCycle.PERSONALIZED

    @property
    def _dek(self) -> bytes:
        if self._channel is None:
            raise Refused(StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        return self._channel.dek

    def _get_status(self, command: GetStatus) -> ResponseApdu:
        """GET STATUS (GPCS v2.3.1 §11.4) of what is under this domain; 6310 while there is more."""
        if not command.next:
            entries = domain_data.status(self._memory, self._content, self.domain, command.scope)
            found = [entry for entry in entries if entry.aid.startswith(command.aid)]
            self._status_left = [domain_data.asked_for(entry, command.tag_list) for entry in found]
        require(bool(self._status_left), StatusWord.REFERENCED_DATA_NOT_FOUND)
        answer = b""
        while self._status_left and (
            not answer or len(answer) + len(self._status_left[0].encode()) <= MOST_STATUS_OCTETS
        ):
            answer += self._status_left.pop(0).encode()
        return ResponseApdu(answer, StatusWord.MORE_DATA if self._status_left else StatusWord.OK)


def read(command: CommandApdu) -> Command:
    """The command as its class; `Refused(6A80)` when its data are not as the standard says."""
    try:
        return parse_command(command)
    except TsmError:
        raise Refused(StatusWord.WRONG_DATA) from None


def done(data: bytes) -> ResponseApdu:
    """9000."""
    return ResponseApdu(data, StatusWord.OK)
