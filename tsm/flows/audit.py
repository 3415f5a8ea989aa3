"""What a card says it holds, for when its record may lag behind it.

A command whose answer was lost, or said to be a refusal by nobody knows whom, may have been executed. So the operator
asks the card: GET STATUS through the secure channel of the issuer's domain, for exactly the domain, load file and
application that matter, so that each answer fits one response. What a card tells is under an R-MAC; what the record
lacks becomes facts, marked as found.

That something is absent, 6A88 does not prove, for errors carry no R-MAC: anybody on the way could have said it. What
proves it is a list of everything, asked for by no AID and answered with 9000, that does not name it. A list with more
to come (6310) proves nothing, for its parts are not kept. And where nothing is left the list would be empty, which a
card says with 6A88: so, where it matters, a witness is there while the list is made, a domain that is installed for
the question and deleted after it. A card that has no room for one is full, so it is believed to hold something: it is
asked without, and only a list with something in it ends the doubt.

A list that names what the record lacks ends no doubt: perhaps that is what came of the command in question. The card's
record remembers what it was, and whoever audits next asks for it by name.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from tsm.errors import TsmError
from tsm.flows.content import (
    DOMAIN_LOAD_FILE,
    DOMAIN_MODULE,
    PROVISIONAL_VERSION,
    SECURITY_DOMAIN_ONLY,
    deleted,
    hex_aid,
    is_security_domain,
    life_cycle,
)
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import Delete, GetStatus, InstallForInstall
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
    key_reference,
)
from tsm.model.event import Fact

GET_STATUS = 0xF2
INSTANCES, LOAD_FILES = 0x40, 0x20  # scopes of GET STATUS (GPCS v2.3.1 table 11-32): domains and applications; files
WANTED = bytes.fromhex("4F9F70C5C4CC")  # AID, life cycle, privileges, load file, associated domain (table 11-36)
BRIEF = bytes.fromhex("4F9F70")  # AID and life cycle: many of these fit one answer
FURTHER = 3  # how often a card is asked for more
WITNESS = bytes.fromhex("F054534D5749544E455353")  # an AID of nobody's (ISO/IEC 7816-4 section 8.2.1.2, category F)

CheckValues = Callable[[str], tuple[str, ...]]
Question = tuple[int, str]  # scope, AID
log = logging.getLogger(__name__)


def questions(domain: str, load_file: str, application: str) -> list[CommandApdu]:
    """The commands of an audit: is the domain there, the load file, the application, and in what state."""
    return ask((INSTANCES, domain), (LOAD_FILES, load_file), (INSTANCES, application))


def ask(*asked: Question) -> list[CommandApdu]:
    """GET STATUS for exactly these."""
    return [GetStatus(scope, bytes.fromhex(aid), tag_list=WANTED).apdu() for scope, aid in asked]


def ask_for_unknown(card: Card) -> list[CommandApdu]:
    """GET STATUS for what a list has named before and the record lacks."""
    return ask(*((int(scope, 16), aid) for scope, aid in card.unknown))


def inventory() -> list[CommandApdu]:
    """What is there, told in as many answers as it takes; then briefly, so that all may fit one."""
    told = [
        GetStatus(scope, next=further > 0, tag_list=WANTED).apdu()
        for scope in (INSTANCES, LOAD_FILES)
        for further in range(1 + FURTHER)
    ]
    return [*told, everything(INSTANCES), everything(LOAD_FILES)]


def proof_of_absence(card: Card) -> list[CommandApdu]:
    """Lists of everything, that of the instances with a witness in it. One that was left behind serves again."""
    witness = InstallForInstall(DOMAIN_LOAD_FILE, DOMAIN_MODULE, WITNESS, SECURITY_DOMAIN_ONLY)
    install = [] if hex_aid(WITNESS) in card.domains else [witness.apdu()]
    return [*install, everything(INSTANCES), Delete(WITNESS).apdu(), everything(LOAD_FILES)]


def proof_without_witness() -> list[CommandApdu]:
    """The same of a card that has no room for a witness."""
    return [everything(LOAD_FILES), everything(INSTANCES)]


def proves_nothing(command: CommandApdu, answered: bool) -> bool:
    """Whether that was the last word without a witness, and anybody on the way could have said it."""
    return command == everything(INSTANCES) and not answered


def everything(scope: int) -> CommandApdu:
    return GetStatus(scope, tag_list=BRIEF).apdu()


def asks_enough(headers: Sequence[str]) -> bool:
    """Whether a script, by its headers (hex), ends by asking for load files and has asked for instances: an audit."""
    scopes = [header[4:6] for header in headers if int(header[2:4], 16) == GET_STATUS]
    ends = bool(headers) and int(headers[-1][2:4], 16) == GET_STATUS
    return ends and {f"{INSTANCES:02x}", f"{LOAD_FILES:02x}"} <= set(scopes)


def found(
    card: Card, command: CommandApdu, answer: bytes, check_values: CheckValues, *, complete: bool = False
) -> list[Fact]:
    """What an answer to GET STATUS, verified, tells that the record lacks, or has and should not.

    `check_values` gives those of a key reference, none when the vault lacks it. `complete`: the issuer's domain
    answered, and has no more to tell.
    """
    try:
        asked, entries = GetStatus.parse(command), StatusEntry.parse_list(answer)
    except TsmError as error:
        log.warning("%s: an answer that is not understood: %s", card.iccid, error)
        return []
    facts: list[Fact] = []
    for entry in entries:
        if asked.tag_list == BRIEF and not card.holds(hex_aid(entry.aid)):
            continue  # where it belongs was not asked
        news = instance_found(card, entry, check_values) if asked.scope == INSTANCES else load_file_found(card, entry)
        card = reduce(cards.evolve, news, card)  # what is told first may be the home of what is told next
        facts += news
    told = {hex_aid(entry.aid) for entry in entries}
    if complete and not asked.aid and not asked.next:
        facts += absent(card, asked.scope, told)
    if asked == GetStatus.parse(everything(asked.scope)):
        facts += cards.listed(card, card.isd, f"{asked.scope:02x}", told - {hex_aid(DOMAIN_LOAD_FILE)}, complete)
    return facts


def absent(card: Card, scope: int, told: set[str]) -> list[Fact]:
    """What the record has and a list of everything does not name."""
    recorded: Iterable[str] = card.load_files
    if scope == INSTANCES:
        recorded = [aid for aid in (*card.applications, *card.domains) if aid != card.isd]
    facts: list[Fact] = []
    for aid in recorded:
        if aid not in told and card.holds(aid):
            facts.append(deleted(card, card.isd, aid, found=True))
            card = cards.evolve(card, facts[-1])
    return facts


def instance_found(card: Card, entry: StatusEntry, check_values: CheckValues) -> list[Fact]:
    """News of a security domain or an application."""
    aid, owner = hex_aid(entry.aid), hex_aid(entry.associated_domain) or card.isd
    state, known = life_cycle(entry.life_cycle), card.domains.get(aid) or card.applications.get(aid)
    if aid == card.isd or owner not in card.domains:
        return []  # below a domain of which nothing is recorded: nothing can be said of it
    if known is not None:
        owner = card.owner(aid)
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
