"""Card content management: what the OPEN lets a security domain load, install and see (GPCS v2.3.1 chapter 9).

Each method does one command for the domain whose secure channel it came through, or raises `Refused` and has changed
nothing. A load is kept only when its last block has come and its hash is right; until then it lives without power.
"""

import hmac
from dataclasses import dataclass, field
from hashlib import sha1, sha256, sha384, sha512

from tsm.errors import TsmError
from tsm.globalplatform.apdu import StatusWord
from tsm.globalplatform.cap import CapFile
from tsm.globalplatform.commands import (
    LOCK,
    Delete,
    InstallForInstall,
    InstallForLoad,
    InstallForMakeSelectable,
    Load,
    SetStatus,
)
from tsm.globalplatform.tlv import parse_tlvs
from tsm.uicc.jpki_cap import MODULE_AID
from tsm.uicc.memory import (
    DOMAIN_MODULE_AID,
    DOMAIN_PACKAGE_AID,
    Application,
    CardMemory,
    JpkiMemory,
    LifeCycle,
    LoadFile,
    SecurityDomain,
)
from tsm.uicc.refusal import Refused, require

MODULES = {MODULE_AID: JpkiMemory}  # the code that this card has: module AID to what an instance starts with

# Privileges (GPCS v2.3.1 tables 11-7 to 11-9), as one number of 24 bits
SECURITY_DOMAIN = 0x800000
TRUSTED_PATH = 0x008000
AUTHORIZED_MANAGEMENT = 0x004000
GLOBAL_LOCK = 0x001000
ISSUER_PRIVILEGES = 0x9EFE80  # everything that an issuer's domain usually has
DOMAIN_MAY_HAVE = SECURITY_DOMAIN | TRUSTED_PATH | AUTHORIZED_MANAGEMENT

LOAD_FILE_DATA_BLOCK = 0xC4
HASHES = {20: sha1, 32: sha256, 48: sha384, 64: sha512}  # by length: the command does not name the algorithm
DOMAIN_OCTETS = 1024  # what an instance takes from the card's memory
APPLICATION_OCTETS = 8192  # four certificates, two keys, two PINs
SCOPE_INSTANCE, SCOPE_DOMAIN = 0x40, 0x60  # of SET STATUS (GPCS v2.3.1 table 11-84)
CONFIRMATION = b"\x00"  # no receipt


@dataclass
class Loading:
    """A load file on its way."""

    announced: InstallForLoad
    domain: bytes
    received: bytearray = field(default_factory=bytearray)
    blocks: int = 0


class Content:
    """The registry of a card, and the load in progress."""

    def __init__(self, memory: CardMemory) -> None:
        self._memory = memory
        self._loading: Loading | None = None

    def abandon_load(self) -> None:
        """A load that any other command or reset interrupts leaves nothing."""
        self._loading = None

    def install_for_load(self, command: InstallForLoad, manager: SecurityDomain) -> bytes:
        """Announce a load file, for the manager itself or a domain under it."""
        self._require_manager(manager, command.load_token)
        owner = self._memory.domain(command.security_domain_aid or manager.aid)
        if owner is None:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        require(self.is_under(owner.aid, manager.aid), StatusWord.CONDITIONS_NOT_SATISFIED)
        require(self._is_free(command.load_file_aid), StatusWord.CONDITIONS_NOT_SATISFIED)
        require(len(command.load_file_hash) in {0, *HASHES}, StatusWord.WRONG_DATA)
        self._loading = Loading(command, owner.aid)
        return CONFIRMATION

    def load(self, command: Load) -> bytes:
        """Take the next block; the last one checks the whole and registers it."""
        loading, self._loading = self._loading, None  # whatever goes wrong ends the load
        if loading is None:
            raise Refused(StatusWord.CONDITIONS_NOT_SATISFIED)
        require(command.block_number == loading.blocks % 256, StatusWord.WRONG_P1_P2)
        loading.received += command.block
        loading.blocks += 1
        require(len(loading.received) <= self.free_octets, StatusWord.NOT_ENOUGH_MEMORY)
        if command.last:
            self._memory.load_files.append(checked_load_file(loading))
        else:
            self._loading = loading
        return CONFIRMATION

    def install(self, command: InstallForInstall, manager: SecurityDomain) -> bytes:
        """Make an instance of a module: of an application, or of a security domain under the manager."""
        self._require_manager(manager, command.install_token)
        load_file = self._memory.load_file(command.load_file_aid)
        if load_file is None or command.module_aid not in load_file.modules:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        require(self._is_free(command.application_aid), StatusWord.CONDITIONS_NOT_SATISFIED)
        privileges = privilege_bits(command.privileges)
        life_cycle = LifeCycle.SELECTABLE if command.make_selectable else LifeCycle.INSTALLED
        if command.module_aid == DOMAIN_MODULE_AID:
            self._install_domain(command.application_aid, privileges, life_cycle, manager)
        else:
            require(self.is_under(load_file.domain, manager.aid), StatusWord.CONDITIONS_NOT_SATISFIED)
            self._install_application(command, privileges, life_cycle, load_file)
        return CONFIRMATION

    def make_selectable(self, command: InstallForMakeSelectable, manager: SecurityDomain) -> bytes:
        """Let an installed instance be selected."""
        self._require_manager(manager, command.install_token)
        instance = self.instance(command.application_aid)
        require(self.is_under(domain_of(instance), manager.aid), StatusWord.CONDITIONS_NOT_SATISFIED)
        require(instance.life_cycle == LifeCycle.INSTALLED, StatusWord.CONDITIONS_NOT_SATISFIED)
        instance.life_cycle = LifeCycle.SELECTABLE
        return CONFIRMATION

    def delete(self, command: Delete, manager: SecurityDomain) -> bytes:
        """Remove a load file, an application or a domain, and its memory is free again (GPCS v2.3.1 §9.5 and §11.2).

        Something that others belong to goes with them or not at all. The domain that is selected, the issuer's, and
        what the card was made with stay.
        """
        self._require_manager(manager, b"")
        owner = self._owner(command.aid)
        require(self.is_under(owner, manager.aid), StatusWord.CONDITIONS_NOT_SATISFIED)
        gone = [command.aid, *self._belonging_to(command.aid)]
        require(command.related or len(gone) == 1, StatusWord.CONDITIONS_NOT_SATISFIED)
        kept = (self._memory.issuer_domain.aid, manager.aid, DOMAIN_PACKAGE_AID)
        require(not any(aid in kept for aid in gone), StatusWord.CONDITIONS_NOT_SATISFIED)
        memory = self._memory
        memory.domains = [domain for domain in memory.domains if domain.aid not in gone]
        memory.applications = [application for application in memory.applications if application.aid not in gone]
        memory.load_files = [load_file for load_file in memory.load_files if load_file.aid not in gone]
        return CONFIRMATION

    def set_status(self, command: SetStatus, manager: SecurityDomain) -> bytes:
        """Lock or unlock an application or a domain, or a domain with the applications in it (GPCS v2.3.1 §11.10).

        The issuer's domain may do that to all (it has Global Lock), any other to what is under it. The lock is a bit
        beside the state, which is there again afterwards. The card's own state is not changed so.
        """
        require(command.scope in (SCOPE_INSTANCE, SCOPE_DOMAIN), StatusWord.FUNCTION_NOT_SUPPORTED)
        target = self.instance(command.aid)
        require(command.scope == SCOPE_INSTANCE or isinstance(target, SecurityDomain), StatusWord.WRONG_DATA)
        require(target is not self._memory.issuer_domain, StatusWord.CONDITIONS_NOT_SATISFIED)
        may = int.from_bytes(manager.privileges, "big") & GLOBAL_LOCK or self.is_under(domain_of(target), manager.aid)
        require(bool(may), StatusWord.CONDITIONS_NOT_SATISFIED)
        require(bool(target.life_cycle & LOCK) != command.locks, StatusWord.CONDITIONS_NOT_SATISFIED)
        targets = [target]
        if command.scope == SCOPE_DOMAIN:
            targets += [one for one in self._memory.applications if one.domain == target.aid]
        for one in targets:
            one.life_cycle = one.life_cycle | LOCK if command.locks else one.life_cycle & ~LOCK
        return b""

    def personalizable(self, aid: bytes, domain: SecurityDomain) -> SecurityDomain | Application:
        """The instance, if this very domain may personalise it now, and no other domain ever.

        A domain once. An application decides itself what may be given to it later (GPCS v2.3.1 5.3.1 and 7.3).
        """
        instance = self.instance(aid)
        once = {LifeCycle.SELECTABLE}
        states = once | {LifeCycle.PERSONALIZED} if isinstance(instance, Application) else once
        require(domain_of(instance) == domain.aid, StatusWord.CONDITIONS_NOT_SATISFIED)
        require(instance.life_cycle in states, StatusWord.CONDITIONS_NOT_SATISFIED)
        return instance

    def instance(self, aid: bytes) -> SecurityDomain | Application:
        """The application or domain with exactly this AID; `Refused(6A88)` without it."""
        instance = self._memory.application(aid) or self._memory.domain(aid)
        if instance is None:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        return instance

    def is_under(self, aid: bytes, ancestor: bytes) -> bool:
        """Whether a domain is the other, or associated with it over any number of steps."""
        while aid != ancestor:
            domain = self._memory.domain(aid)
            if domain is None or domain.parent == aid:
                return False
            aid = domain.parent
        return True

    def _owner(self, aid: bytes) -> bytes:
        """The domain that something is associated with; `Refused(6A88)` for nothing."""
        load_file = self._memory.load_file(aid)
        return load_file.domain if load_file is not None else domain_of(self.instance(aid))

    def _belonging_to(self, aid: bytes) -> list[bytes]:
        """Of a load file its applications, of a domain all that is associated with it, over any number of steps."""
        memory = self._memory
        applications = [one.aid for one in memory.applications if aid in (one.load_file, one.domain)]
        load_files = [one.aid for one in memory.load_files if one.domain == aid]
        domains = [one.aid for one in memory.domains if one.parent == aid != one.aid]
        return [*applications, *load_files, *domains, *(below for one in domains for below in self._belonging_to(one))]

    @property
    def free_octets(self) -> int:
        memory = self._memory
        load_files = sum(len(load_file.block) for load_file in memory.load_files)
        instances = len(memory.domains) * DOMAIN_OCTETS + len(memory.applications) * APPLICATION_OCTETS
        return memory.capacity - load_files - instances

    def _install_domain(self, aid: bytes, privileges: int, life_cycle: LifeCycle, parent: SecurityDomain) -> None:
        require(privileges & SECURITY_DOMAIN != 0, StatusWord.WRONG_DATA)
        require(privileges & ~DOMAIN_MAY_HAVE == 0, StatusWord.WRONG_DATA)
        require(self.free_octets >= DOMAIN_OCTETS, StatusWord.NOT_ENOUGH_MEMORY)
        self._memory.domains.append(
            SecurityDomain(aid, parent.aid, privileges.to_bytes(3, "big"), life_cycle, key_sets=[])
        )

    def _install_application(
        self, command: InstallForInstall, privileges: int, life_cycle: LifeCycle, load_file: LoadFile
    ) -> None:
        code = MODULES.get(command.module_aid)
        if code is None:
            raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
        require(privileges == 0, StatusWord.WRONG_DATA)
        require(self.free_octets >= APPLICATION_OCTETS, StatusWord.NOT_ENOUGH_MEMORY)
        self._memory.applications.append(
            Application(
                aid=command.application_aid,
                module=command.module_aid,
                load_file=load_file.aid,
                domain=load_file.domain,
                privileges=privileges.to_bytes(3, "big"),
                life_cycle=life_cycle,
                memory=code(),
            )
        )

    def _require_manager(self, domain: SecurityDomain, token: bytes) -> None:
        """Authorized management only: tokens of delegated management are not understood (GPCS v2.3.1 §9.1.3)."""
        require(
            int.from_bytes(domain.privileges, "big") & AUTHORIZED_MANAGEMENT != 0, StatusWord.CONDITIONS_NOT_SATISFIED
        )
        require(token == b"", StatusWord.WRONG_DATA)

    def _is_free(self, aid: bytes) -> bool:
        memory = self._memory
        return memory.domain(aid) is None and memory.application(aid) is None and memory.load_file(aid) is None


def checked_load_file(loading: Loading) -> LoadFile:
    """The load file, if structure, hash and AID are what was announced (GPCS v2.3.1 §11.6.2.3)."""
    announced = loading.announced
    try:
        tlvs = parse_tlvs(bytes(loading.received))
        require([tlv.tag for tlv in tlvs] == [LOAD_FILE_DATA_BLOCK], StatusWord.WRONG_DATA)
        block = tlvs[0].value
        cap = CapFile.read(block)
    except TsmError:
        raise Refused(StatusWord.WRONG_DATA) from None
    if announced.load_file_hash:
        digest = HASHES[len(announced.load_file_hash)](block).digest()
        require(hmac.compare_digest(digest, announced.load_file_hash), StatusWord.WRONG_DATA)
    require(cap.package_aid == announced.load_file_aid, StatusWord.WRONG_DATA)
    return LoadFile(announced.load_file_aid, loading.domain, list(cap.applet_aids), block)


def domain_of(instance: SecurityDomain | Application) -> bytes:
    """The domain that an instance is associated with: a domain's is its parent."""
    return instance.parent if isinstance(instance, SecurityDomain) else instance.domain


def privilege_bits(privileges: bytes) -> int:
    """One or three octets as 24 bits (GPCS v2.3.1 §11.1.2)."""
    require(len(privileges) in (1, 3), StatusWord.WRONG_DATA)
    return int.from_bytes(privileges.ljust(3, b"\x00"), "big")
