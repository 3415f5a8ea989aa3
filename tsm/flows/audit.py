"""What a card says it holds, for when its record may lag behind it.

A command whose answer was lost, or said to be a refusal by nobody knows whom, may have been executed. So the operator
asks the card: GET STATUS through the secure channel of the issuer's domain, for exactly the domain, load file and
application that matter, so that each answer fits one response. What a card tells is under an R-MAC; what the record
lacks becomes facts, marked as found. That something is absent (6A88) nothing proves: it is never recorded.
"""

import logging
from collections.abc import Callable
from functools import reduce

from tsm.errors import TsmError
from tsm.flows.content import PROVISIONAL_VERSION, hex_aid, is_security_domain, key_reference
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import GetStatus
from tsm.globalplatform.responses import StatusEntry
from tsm.model import card as cards
from tsm.model.card import (
    ApplicationInstalled,
    Card,
    KeysPut,
    LifeCycle,
    LifeCycleChanged,
    LoadFileLoaded,
    SecurityDomainCreated,
)
from tsm.model.event import Fact

GET_STATUS = 0xF2
INSTANCES, LOAD_FILES = 0x40, 0x20  # scopes of GET STATUS (GPCS v2.3.1 table 11-32): domains and applications; files
WANTED = bytes.fromhex("4F9F70C5C4CC")  # AID, life cycle, privileges, load file, associated domain (table 11-36)
LOCKED = 0x80  # of a life cycle state (table 11-4)
STATES = {0x03: LifeCycle.INSTALLED, 0x07: LifeCycle.SELECTABLE}  # above them an application has its own (5.3.2.2)

CheckValues = Callable[[str], tuple[str, ...]]
log = logging.getLogger(__name__)


def questions(domain: str, load_file: str, application: str) -> list[CommandApdu]:
    """The commands of an audit: is the domain there, the load file, the application, and in what state."""
    asked = ((INSTANCES, domain), (LOAD_FILES, load_file), (INSTANCES, application))
    return [GetStatus(scope, bytes.fromhex(aid), tag_list=WANTED).apdu() for scope, aid in asked]


def found(card: Card, command: CommandApdu, answer: bytes, check_values: CheckValues) -> list[Fact]:
    """What an answer to GET STATUS, verified, tells that the record lacks.

    `check_values` gives those of a key reference, none when the vault lacks it.
    """
    try:
        asked, entries = GetStatus.parse(command), StatusEntry.parse_list(answer)
    except TsmError as error:
        log.warning("%s: an answer that is not understood: %s", card.iccid, error)
        return []
    facts: list[Fact] = []
    for entry in entries:
        news = instance_found(card, entry, check_values) if asked.scope == INSTANCES else load_file_found(card, entry)
        card = reduce(cards.evolve, news, card)  # what is told first may be the home of what is told next
        facts += news
    return facts


def instance_found(card: Card, entry: StatusEntry, check_values: CheckValues) -> list[Fact]:
    """News of a security domain or an application."""
    aid, owner = hex_aid(entry.aid), hex_aid(entry.associated_domain) or card.isd
    if owner not in card.domains or aid == card.isd:
        return []  # below a domain of which nothing is recorded: nothing can be said of it
    state, known = life_cycle(entry.life_cycle), card.domains.get(aid) or card.applications.get(aid)
    if known is not None:
        changed = LifeCycleChanged(instance=aid, domain=owner, life_cycle=state, found=True)
        news: list[Fact] = [changed] if known.life_cycle != state else []
    elif is_security_domain(entry.privileges):
        privileges = entry.privileges.hex()
        news = [SecurityDomainCreated(domain=aid, parent=owner, privileges=privileges, life_cycle=state, found=True)]
    else:
        news = [
            ApplicationInstalled(
                application=aid,
                module="",
                load_file=hex_aid(entry.load_file),
                domain=owner,
                privileges=entry.privileges.hex(),
                life_cycle=state,
                found=True,
            )
        ]
    if is_security_domain(entry.privileges) and state is LifeCycle.PERSONALIZED:
        news += provisional_keys_found(card, aid, check_values)
    return news


def provisional_keys_found(card: Card, domain: str, check_values: CheckValues) -> list[Fact]:
    """A domain that we were to give its first keys is personalized: with those, as its next session will prove."""
    key = key_reference(card.iccid, domain, PROVISIONAL_VERSION)
    known, values = card.domains.get(domain), check_values(key)
    if not values or (known is not None and known.key_version):
        return []
    put = KeysPut(
        domain=domain, key_version=PROVISIONAL_VERSION, check_values=values, provisional=True, key=key, found=True
    )
    return [put]


def load_file_found(card: Card, entry: StatusEntry) -> list[Fact]:
    """News of a load file; what is in it, a card does not tell."""
    aid, owner = hex_aid(entry.aid), hex_aid(entry.associated_domain) or card.isd
    if owner not in card.domains or aid in card.load_files:
        return []
    return [LoadFileLoaded(load_file=aid, domain=owner, sha256="", size=0, found=True)]


def life_cycle(octet: int) -> LifeCycle:
    """The state's name (GPCS v2.3.1 tables 11-4 and 11-5)."""
    return LifeCycle.LOCKED if octet & LOCKED else STATES.get(octet, LifeCycle.PERSONALIZED)
