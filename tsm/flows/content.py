"""What an acknowledged command did to its card.

The server need not ask the card afterwards: a command is plain when it is delegated, the card's 9000 comes back through
the secure channel, and together they say what is now true. LOAD and STORE DATA act with their last block, so their
facts need the commands before. When no such answer came, `tsm.flows.audit` asks.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial, reduce
from hashlib import sha256

from tsm.errors import TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import (
    LOAD_FILE_DATA_BLOCK,
    LOCK,
    PROPRIETARY,
    Command,
    Delete,
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
from tsm.globalplatform.dgi import KEY_DGI, parse_dgis, parse_key_dgis
from tsm.globalplatform.tlv import find, parse_tlvs
from tsm.model import card as cards
from tsm.model.card import (
    ApplicationInstalled,
    ApplicationPersonalized,
    Card,
    ContentDeleted,
    KeysPut,
    LifeCycle,
    LifeCycleChanged,
    LoadFileLoaded,
    SecurityDomainCreated,
    key_reference,
)
from tsm.model.event import Fact

STATES = {0x03: LifeCycle.INSTALLED, 0x07: LifeCycle.SELECTABLE}  # above them an application has its own (5.3.2.2)
DOMAIN_WITH_APPLICATIONS = 0x60  # scope of SET STATUS (GPCS v2.3.1 table 11-84)
SECURITY_DOMAIN = 0x80  # first privilege octet, bit 8 (GPCS table 11-7)
SECURITY_DOMAIN_ONLY = bytes([SECURITY_DOMAIN])
DOMAIN_LOAD_FILE = bytes.fromhex("A0000001515350")  # every UICC brings it (GPC UICC Configuration)
DOMAIN_MODULE = bytes.fromhex("A000000151535041")
PROVISIONAL_VERSION = 0x01  # of the keys that a new domain gets for its owner to replace

log = logging.getLogger(__name__)


def card_facts(
    card: Callable[[], Card],
    domain: str,
    command: CommandApdu,
    earlier: Callable[[], Sequence[CommandApdu]],
) -> list[Fact]:
    """The facts about `card` once `command` was acknowledged inside the secure channel of `domain` (AID in hex).

    `earlier` gives the commands acknowledged before it in the same session; both functions are called only when needed.
    A command that changes nothing of what is recorded, or nothing yet, has no facts.
    """
    try:
        return facts_of(card, domain, parsed(command), lambda: [parsed(before) for before in earlier()])
    except TsmError as error:
        # The card has executed it and the session goes on: a command that only the card understands is no failure.
        log.warning("%s: acknowledged, but its meaning is unknown: %s", command.header.hex(), error)
        return []


def foreseen(card: Card, domain: str, commands: Sequence[CommandApdu]) -> list[Fact]:
    """The facts about a card once all of a script was acknowledged."""
    facts: list[Fact] = []
    for order, command in enumerate(commands):
        facts += card_facts(partial(evolved, card, tuple(facts)), domain, command, partial(list, commands[:order]))
    return facts


def evolved(card: Card, facts: Sequence[Fact]) -> Card:
    return reduce(cards.evolve, facts, card)


def parsed(command: CommandApdu) -> Command | None:
    """The command as its class; None for an application's own."""
    try:
        return parse_command(command) if command.cla == PROPRIETARY else None
    except TsmError:
        return None


def facts_of(
    card: Callable[[], Card], domain: str, command: Command | None, earlier: Callable[[], list[Command | None]]
) -> list[Fact]:
    match command:
        case InstallForInstall():
            return [installed(card, domain, command)]
        case InstallForMakeSelectable():
            return [made_selectable(card(), domain, command)]
        case PutKey():
            check_values = tuple(key.check_value.hex() for key in command.keys)
            return [keys_put(card(), domain, command.new_key_version, check_values, provisional=False)]
        case Delete():
            return [deleted(card(), domain, hex_aid(command.aid))]
        case SetStatus():
            return status_set(card(), domain, command)
        case Load(last=True):
            return loaded(domain, [*earlier(), command])
        case StoreData(last=True):
            return stored(card(), domain, [*earlier(), command])
        case _:
            return []


def installed(card: Callable[[], Card], domain: str, install: InstallForInstall) -> Fact:
    """INSTALL [for install]: a security domain below this one, or an application.

    An application belongs to the domain of its load file.
    """
    aid, privileges = hex_aid(install.application_aid), install.privileges.hex()
    life_cycle = LifeCycle.SELECTABLE if install.make_selectable else LifeCycle.INSTALLED
    if is_security_domain(install.privileges):
        return SecurityDomainCreated(domain=aid, parent=domain, privileges=privileges, life_cycle=life_cycle)
    load_file = card().load_files.get(hex_aid(install.load_file_aid))
    return ApplicationInstalled(
        application=aid,
        module=hex_aid(install.module_aid),
        load_file=hex_aid(install.load_file_aid),
        domain=load_file.domain if load_file else domain,
        privileges=privileges,
        life_cycle=life_cycle,
    )


def made_selectable(card: Card, domain: str, command: InstallForMakeSelectable) -> Fact:
    """INSTALL [for make selectable] of a domain or an application."""
    aid = hex_aid(command.application_aid)
    application = card.applications.get(aid)
    owner = application.domain if application else domain
    return LifeCycleChanged(instance=aid, domain=owner, life_cycle=LifeCycle.SELECTABLE)


def deleted(card: Card, domain: str, aid: str, found: bool = False) -> Fact:
    """DELETE, or what proves that something is gone.

    Whatever belonged to it is gone, too, whether or not the command named that: else the card refuses (GPCS 9.5).
    """
    owner = card.owner(aid) if card.holds(aid) else domain
    return ContentDeleted(target=aid, domain=owner, deleted=(aid, *card.related(aid)), found=found)


def status_set(card: Card, domain: str, command: SetStatus) -> list[Fact]:
    """SET STATUS of an application or a domain, or of a domain and the applications in it."""
    target = hex_aid(command.aid)
    instances = [target]
    if command.scope == DOMAIN_WITH_APPLICATIONS:
        instances += [one.aid for one in card.applications.values() if one.domain == target]
    return [
        LifeCycleChanged(
            instance=aid,
            domain=card.owner(aid) if card.holds(aid) else domain,
            life_cycle=state_set(card, aid, command.state),
        )
        for aid in instances
    ]


def state_set(card: Card, aid: str, state: int) -> LifeCycle:
    """The state that SET STATUS leads to. Unlocking returns to what was before: at least it can be selected again."""
    known = card.domains.get(aid) or card.applications.get(aid)
    if known is not None and known.life_cycle == LifeCycle.LOCKED and not state & LOCK:
        return LifeCycle(known.before_lock or LifeCycle.SELECTABLE)
    return life_cycle(state)


def life_cycle(octet: int) -> LifeCycle:
    """The state's name (GPCS v2.3.1 tables 11-4 and 11-5)."""
    return LifeCycle.LOCKED if octet & LOCK else STATES.get(octet, LifeCycle.PERSONALIZED)


def is_security_domain(privileges: bytes) -> bool:
    return bool(privileges[:1]) and bool(privileges[0] & SECURITY_DOMAIN)


def loaded(domain: str, commands: Sequence[Command | None]) -> list[Fact]:
    """The last LOAD: the load file is on the card, in the domain that INSTALL [for load] named."""
    install, since = latest(commands, InstallForLoad)
    if not isinstance(install, InstallForLoad):
        return []
    file = b"".join(command.block for command in since if isinstance(command, Load))
    block = find(parse_tlvs(file), LOAD_FILE_DATA_BLOCK) or b""
    return [
        LoadFileLoaded(
            load_file=hex_aid(install.load_file_aid),
            domain=hex_aid(install.security_domain_aid) or domain,
            sha256=sha256(block).hexdigest(),
            size=len(block),
        )
    ]


def stored(card: Card, domain: str, commands: Sequence[Command | None]) -> list[Fact]:
    """The last STORE DATA: keys for a security domain, or the personalisation of an application.

    Without INSTALL [for personalization] the data is the domain's own.
    """
    install, since = latest(commands, InstallForPersonalization)
    target = hex_aid(install.application_aid) if isinstance(install, InstallForPersonalization) else domain
    if target not in card.domains:
        return [ApplicationPersonalized(application=target, domain=domain)]
    data = b"".join(command.block for command in since if isinstance(command, StoreData))
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


def latest(commands: Sequence[Command | None], kind: type[Command]) -> tuple[Command | None, Sequence[Command | None]]:
    """The last command of a kind and what followed it; None and all of them when there is none."""
    for at in reversed(range(len(commands))):
        if isinstance(commands[at], kind):
            return commands[at], commands[at + 1 :]
    return None, commands


def hex_aid(aid: bytes) -> str:
    """AIDs are written in capitals."""
    return aid.hex().upper()
