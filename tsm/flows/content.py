"""What an acknowledged command did to its card.

The server does not ask the card afterwards: a command is plain when it is delegated, the card's 9000 comes back through
the secure channel, and together they say what is now true. LOAD and STORE DATA act with their last block, so their
facts need the commands before.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

from tsm.errors import TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import (
    InstallForInstall,
    InstallForLoad,
    InstallForPersonalization,
    Load,
    PutKey,
    StoreData,
    parse_command,
)
from tsm.globalplatform.dgi import KEY_DGI, parse_dgis, parse_key_dgis
from tsm.globalplatform.tlv import parse_tlvs
from tsm.model.card import (
    ApplicationInstalled,
    ApplicationPersonalized,
    Card,
    KeysPut,
    LoadFileLoaded,
    SecurityDomainCreated,
)
from tsm.model.event import Fact

LOAD_FILE_DATA_BLOCK = 0xC4  # GPCS 11.6.2.3
SECURITY_DOMAIN = 0x80  # first privilege octet, bit 8 (GPCS table 11-7)
SELECTABLE = 0x08  # INSTALL P1: for make selectable

Earlier = Callable[[], Sequence[CommandApdu]]


def card_facts(card: Card, domain: str, command: CommandApdu, earlier: Earlier) -> list[Fact]:
    """The facts about `card` once `command` was acknowledged inside the secure channel of `domain` (AID in hex).

    `earlier` gives the commands acknowledged before it in the same session. Commands that change nothing that is kept
    in the record, or nothing yet, have no facts.
    """
    try:
        parsed = parse_command(command)
    except TsmError:
        return []  # an application's own command: what it means is not ours to say
    match parsed:
        case InstallForInstall():
            return [installed(domain, parsed, command)]
        case PutKey():
            check_values = tuple(key.check_value.hex() for key in parsed.keys)
            return [keys_put(card, domain, parsed.new_key_version, check_values, provisional=False)]
        case Load(last=True):
            return loaded(domain, [*parsed_before(earlier), parsed])
        case StoreData(last=True):
            return stored(card, domain, [*parsed_before(earlier), parsed])
        case _:
            return []


def installed(domain: str, install: InstallForInstall, command: CommandApdu) -> Fact:
    """INSTALL [for install]: a security domain, or an application that belongs to this one."""
    aid = install.application_aid.hex().upper()
    privileges = install.privileges.hex()
    life_cycle = "SELECTABLE" if command.p1 & SELECTABLE else "INSTALLED"
    if install.privileges[0] & SECURITY_DOMAIN:
        return SecurityDomainCreated(domain=aid, parent=domain, privileges=privileges, life_cycle=life_cycle)
    return ApplicationInstalled(
        application=aid,
        module=install.module_aid.hex().upper(),
        load_file=install.load_file_aid.hex().upper(),
        domain=domain,
        privileges=privileges,
        life_cycle=life_cycle,
    )


def loaded(domain: str, commands: Sequence[object]) -> list[Fact]:
    """The last LOAD: the load file is on the card, in the domain that INSTALL [for load] named."""
    at = latest(commands, InstallForLoad)
    if at is None:
        return []
    install = commands[at]
    assert isinstance(install, InstallForLoad)  # noqa: S101  as `latest` found it
    file = b"".join(command.block for command in commands[at:] if isinstance(command, Load))
    block = next((tlv.value for tlv in parse_tlvs(file) if tlv.tag == LOAD_FILE_DATA_BLOCK), b"")
    return [
        LoadFileLoaded(
            load_file=install.load_file_aid.hex().upper(),
            domain=install.security_domain_aid.hex().upper() or domain,
            sha256=sha256(block).hexdigest(),
            size=len(block),
        )
    ]


def stored(card: Card, domain: str, commands: Sequence[object]) -> list[Fact]:
    """The last STORE DATA: keys for a security domain, or the personalisation of an application.

    Without INSTALL [for personalization] the data is the domain's own.
    """
    at = latest(commands, InstallForPersonalization) or 0
    first = commands[at]
    target = first.application_aid.hex().upper() if isinstance(first, InstallForPersonalization) else domain
    if target not in card.domains:
        return [ApplicationPersonalized(application=target, domain=domain)]
    data = b"".join(command.block for command in commands[at:] if isinstance(command, StoreData))
    if not any(dgi.tag == KEY_DGI for dgi in parse_dgis(data)):
        return []
    keys = parse_key_dgis(data)
    # Whoever puts keys into another's domain knows them: they are for the owner to replace.
    return [keys_put(card, target, keys.key_version, keys.check_values, provisional=target != domain)]


def keys_put(card: Card, domain: str, version: int, check_values: tuple[str, ...], provisional: bool) -> Fact:
    return KeysPut(
        domain=domain,
        key_version=version,
        check_values=check_values,
        provisional=provisional,
        key=key_reference(card.iccid, domain, version),
    )


def key_reference(iccid: str, domain: str, version: int) -> str:
    """Where the vault keeps the keys of a domain that is not the issuer's."""
    return f"card/{iccid}/{domain}/{version:02x}"


def parsed_before(earlier: Earlier) -> list[object]:
    found = []
    for command in earlier():
        try:
            found.append(parse_command(command))
        except TsmError:
            continue
    return found


def latest(commands: Sequence[object], kind: type) -> int | None:
    places = (at for at in reversed(range(len(commands))) if isinstance(commands[at], kind))
    return next(places, None)
