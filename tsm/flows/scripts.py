"""What a card is told through the issuer's domain: the commands for each thing that an operator does.

Commands that the card has executed before are left out, as far as its record says. Keys are made in the vault and leave
it wrapped under the DEK of the issuer's domain.
"""

from hashlib import sha256

from tsm.application import Tsm
from tsm.channels.scp03 import max_command_data
from tsm.errors import ErrorCode, TsmError
from tsm.flows import audit
from tsm.flows.content import (
    DOMAIN_LOAD_FILE,
    DOMAIN_MODULE,
    PROVISIONAL_VERSION,
    SECURITY_DOMAIN_ONLY,
)
from tsm.flows.exchange import LAST_KEY_VERSION, LEVEL
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.cap import load_commands
from tsm.globalplatform.commands import (
    LOCK,
    Delete,
    EncryptedKey,
    InstallForInstall,
    InstallForLoad,
    InstallForPersonalization,
    PutKey,
    SetStatus,
)
from tsm.globalplatform.dgi import key_dgis, store_data_blocks
from tsm.identifiers import KeyRef
from tsm.keys.vault import EncryptedKeyValue, SoftwareVault
from tsm.model import catalogue as catalogues
from tsm.model.card import Card, LifeCycle, key_reference
from tsm.model.catalogue import DATA_BLOCK, LoadFileRegistered

INSTANCE = 0x40  # scope of SET STATUS: an application, or a domain that is not the issuer's


class Scripts:
    """Writes scripts."""

    def __init__(self, tsm: Tsm, vault: SoftwareVault) -> None:
        self._tsm = tsm
        self._vault = vault

    def create_domain(self, card: Card, domain: str) -> list[CommandApdu]:
        """A supplementary security domain, selectable, and provisional keys for it.

        UNKNOWN_KEY when the domain was found with keys that are not ours.
        """
        make = InstallForInstall(DOMAIN_LOAD_FILE, DOMAIN_MODULE, bytes.fromhex(domain), SECURITY_DOMAIN_ONLY)
        made = [] if domain in card.domains else [make.apdu()]
        return [*made, *self.put_provisional_keys(card, domain)]

    def put_provisional_keys(self, card: Card, domain: str) -> list[CommandApdu]:
        """Keys for the new domain, under the DEK of the issuer's (GPCS v2.3.1 11.11, key data groupings).

        A key set that was made before stays: the card may hold it although its answer was lost. One that an earlier
        domain of this AID had goes. UNKNOWN_KEY when the domain was found with keys that are not ours.
        """
        if domain in card.domains and card.domain(domain).life_cycle != LifeCycle.SELECTABLE:
            raise TsmError(ErrorCode.UNKNOWN_KEY, f"{domain} on {card.iccid} is {card.domain(domain).life_cycle}")
        ref = key_reference(card.iccid, domain, PROVISIONAL_VERSION)
        for retired in card.retired:
            if retired.key == ref:
                self._vault.destroy_key_set(ref, retired.check_values)
        groupings = key_dgis(PROVISIONAL_VERSION, self._wrapped(ref, card.domain(card.isd).key))
        blocks = store_data_blocks(groupings, max_command_data(LEVEL), encrypted=False)  # but the keys within are
        target = InstallForPersonalization(bytes.fromhex(domain))
        return [target.apdu(), *(block.apdu() for block in blocks)]

    def install(self, card: Card, file: LoadFileRegistered, domain: str) -> list[CommandApdu]:
        """Load a registered load file into a domain, and install its application there."""
        load = [] if file.load_file in card.load_files else self.load(file, domain)
        load_file, module, application = map(bytes.fromhex, (file.load_file, file.module, file.application))
        return [*load, InstallForInstall(load_file, module, application).apdu()]

    def load(self, file: LoadFileRegistered, domain: str) -> list[CommandApdu]:
        """INSTALL [for load] with the hash that the card checks at the last block, and the LOAD commands."""
        block = self.load_file_data_block(file)
        announce = InstallForLoad(bytes.fromhex(file.load_file), bytes.fromhex(domain), sha256(block).digest())
        loads = load_commands(block, max_command_data(LEVEL))
        return [announce.apdu(), *(load.apdu() for load in loads)]

    def load_file_data_block(self, file: LoadFileRegistered) -> bytes:
        """As it was laid down beside the log; STORE_CORRUPT unless it is what was registered."""
        block = self._tsm.payload(catalogues.stream(file.load_file), DATA_BLOCK)
        if block is None or sha256(block).hexdigest() != file.sha256:
            raise TsmError(ErrorCode.STORE_CORRUPT, f"the load file data block of {file.load_file}")
        return block

    def rotate_keys(self, card: Card) -> list[CommandApdu]:
        """PUT KEY: the next version of the issuer's keys in the place of those that are there.

        A key set that was made before for that version stays, as above. WRONG_ORDER when there is no further version.
        """
        issuer = card.domain(card.isd)
        version = issuer.key_version + 1
        if version > LAST_KEY_VERSION:
            raise TsmError(ErrorCode.WRONG_ORDER, f"no key version after {issuer.key_version:02X}")
        keys = self._wrapped(key_reference(card.iccid, card.isd, version), issuer.key)
        return [PutKey(issuer.key_version, version, keys).apdu()]

    def _wrapped(self, ref: str, under: str) -> tuple[EncryptedKey, ...]:
        if not self._vault.has(KeyRef(ref)):
            self._vault.generate_aes_key_set(ref)
        return tuple(map(encrypted_key, self._vault.wrap_key_set(ref, under=under)))


def encrypted_key(key: EncryptedKeyValue) -> EncryptedKey:
    return EncryptedKey(key.encrypted, key.check_value)


def lock(target: str) -> list[CommandApdu]:
    """SET STATUS: a domain, or an application, cannot be selected any more.

    Of a domain this is the domain alone (GPCS v2.3.1 11.10). Scope 60 would lock the applications in it as well; but
    unlocking with that scope would unlock those, too, that somebody had locked for a reason of their own.
    """
    return [SetStatus(INSTANCE, LOCK, bytes.fromhex(target)).apdu()]


def unlock(target: str) -> list[CommandApdu]:
    """SET STATUS back to what was before the lock, and the question what that is."""
    return [SetStatus(INSTANCE, 0, bytes.fromhex(target)).apdu(), *audit.ask((audit.INSTANCES, target))]


def delete(card: Card, target: str) -> list[CommandApdu]:
    """DELETE of something, after all that belongs to it: not every card deletes related objects by itself."""
    return [Delete(bytes.fromhex(aid)).apdu() for aid in (*card.related(target), target)]
