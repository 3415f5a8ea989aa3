"""What a security domain tells: GET DATA to anybody, GET STATUS in its secure channel (GPCS v2.3.1 §11.3 and §11.4)."""

from collections.abc import Callable
from dataclasses import replace

from tsm.globalplatform.apdu import StatusWord
from tsm.globalplatform.commands import AES
from tsm.globalplatform.responses import CardRecognitionData, KeyComponent, KeyInformation, StatusEntry
from tsm.globalplatform.tlv import tlv
from tsm.uicc.content import Content, domain_of
from tsm.uicc.memory import DOMAIN_PACKAGE_AID, Application, CardMemory, LifeCycle, LoadFile, SecurityDomain
from tsm.uicc.refusal import Refused, require

SCP03, SCP03_OPTIONS = 0x03, 0x70  # pseudo-random card challenge, R-MAC and R-ENCRYPTION (GPC Amd D v1.1.2 §5.1)
AES_KEY_OCTETS = 16
ISSUER_DOMAIN, APPLICATIONS, LOAD_FILES_AND_MODULES = 0x80, 0x40, 0x10  # the remaining scope is load files alone


def get_data(memory: CardMemory, domain: SecurityDomain, tag: int) -> bytes:
    """The data object with this tag; `Refused(6A88)` without it."""
    getter = DATA.get(tag)
    if getter is None:
        raise Refused(StatusWord.REFERENCED_DATA_NOT_FOUND)
    return getter(memory, domain)


def issuer_identification(memory: CardMemory, domain: SecurityDomain) -> bytes:
    """42: the issuer's number (IIN), of the issuer's domain only."""
    require(domain is memory.issuer_domain, StatusWord.REFERENCED_DATA_NOT_FOUND)
    return tlv(0x42, memory.iin)


def card_image_number(memory: CardMemory, domain: SecurityDomain) -> bytes:
    """45: the card's number (CIN), of the issuer's domain only."""
    require(domain is memory.issuer_domain, StatusWord.REFERENCED_DATA_NOT_FOUND)
    return tlv(0x45, memory.cin)


def card_recognition_data(memory: CardMemory, domain: SecurityDomain) -> bytes:
    """66: which GlobalPlatform, which secure channel."""
    return CardRecognitionData(((SCP03, SCP03_OPTIONS),)).encode()


def card_capability_information(memory: CardMemory, domain: SecurityDomain) -> bytes:
    """67: SCP03 with AES-128, the privileges a domain may get, and the hashes of load files (GPCS v2.3.1 annex H.4)."""
    scp = tlv(0x80, bytes([SCP03])) + tlv(0x81, bytes([SCP03_OPTIONS])) + tlv(0x82, b"\x01")
    return tlv(0x67, tlv(0xA0, scp) + tlv(0x81, bytes.fromhex("80C000")) + tlv(0x83, bytes([1, 2, 3, 4])))


def key_diversification_data(memory: CardMemory, domain: SecurityDomain) -> bytes:
    """CF: what the issuer derived the card's keys from."""
    return tlv(0xCF, memory.diversification)


def key_information(memory: CardMemory, domain: SecurityDomain) -> bytes:
    """E0: identifiers, versions and types of the domain's keys, the newest version first."""
    return KeyInformation(
        tuple(
            KeyComponent(identifier, keys.version, AES, AES_KEY_OCTETS)
            for keys in reversed(domain.key_sets)
            for identifier in (1, 2, 3)
        )
    ).encode()


DATA: dict[int, Callable[[CardMemory, SecurityDomain], bytes]] = {
    0x42: issuer_identification,
    0x45: card_image_number,
    0x66: card_recognition_data,
    0x67: card_capability_information,
    0xCF: key_diversification_data,
    0xE0: key_information,
}


def status(memory: CardMemory, content: Content, domain: SecurityDomain, scope: int) -> list[StatusEntry]:
    """The registry as this domain may see it: the issuer's domain, or what is associated with it over any steps."""

    def seen(associated: bytes) -> bool:
        return content.is_under(associated, domain.aid)

    issuer = memory.issuer_domain
    if scope == ISSUER_DOMAIN:
        return [StatusEntry(issuer.aid, issuer.life_cycle, issuer.privileges)] if seen(issuer.aid) else []
    if scope == APPLICATIONS:
        domains = [other for other in memory.domains if other is not issuer and seen(other.parent)]
        instances: list[SecurityDomain | Application] = [
            *domains,
            *(one for one in memory.applications if seen(one.domain)),
        ]
        return [instance_entry(one) for one in instances]
    files = [load_file for load_file in memory.load_files if seen(load_file.domain)]
    return [load_file_entry(load_file, scope == LOAD_FILES_AND_MODULES) for load_file in files]


def asked_for(entry: StatusEntry, tag_list: bytes) -> StatusEntry:
    """The entry with the data that a tag list names; all of them without one (GPCS v2.3.1 §11.4.2.3)."""
    if not tag_list:
        return entry
    return replace(
        entry,
        privileges=entry.privileges if 0xC5 in tag_list else b"",
        load_file=entry.load_file if 0xC4 in tag_list else b"",
        associated_domain=entry.associated_domain if 0xCC in tag_list else b"",
        modules=entry.modules if 0x84 in tag_list else (),
    )


def instance_entry(instance: SecurityDomain | Application) -> StatusEntry:
    load_file = instance.load_file if isinstance(instance, Application) else DOMAIN_PACKAGE_AID
    return StatusEntry(instance.aid, instance.life_cycle, instance.privileges, load_file, domain_of(instance))


def load_file_entry(load_file: LoadFile, with_modules: bool) -> StatusEntry:
    return StatusEntry(
        load_file.aid,
        LifeCycle.LOADED,
        associated_domain=load_file.domain,
        modules=tuple(load_file.modules) if with_modules else (),
    )
