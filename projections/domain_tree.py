"""Domain tree: what is on a card now. Security domains, their key versions, load files and applications.

Answers `Card.domainTree`. It says what the cards acknowledged to this server, or told when they were asked: what
somebody else changed on a card is not in it. Each part names the position of the event that made it so. Trees of the
past hold what was deleted since.

One row per card holds its tree as JSON. `evolve` takes a tree and an event to the next tree; the read model folds it
page by page, and `at` folds one card's stream up to a past position or time: the same function, so the same answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from projections.projection import Projection, Rows, Table, distinct
from projections.views import Views
from tsm.errors import ErrorCode, TsmError
from tsm.model.card import (
    ApplicationInstalled,
    ApplicationPersonalized,
    CardAuthenticated,
    CardAuthenticationFailed,
    CardRegistered,
    CardReleased,
    ContentDeleted,
    KeysPut,
    LifeCycle,
    LifeCycleChanged,
    LoadFileLoaded,
    SecurityDomainCreated,
    stream,
)
from tsm.model.event import Event, Fact


class KeySetRow(msgspec.Struct, frozen=True):
    """The keys that a domain was given: which ones, never what they are."""

    version: int
    check_values: tuple[str, ...]  # hex, in the order ENC, MAC, DEK; empty where the card never told
    provisional: bool  # chosen by another than the domain's owner
    current: bool
    position: int


class LoadFileRow(msgspec.Struct, frozen=True):
    """An executable load file on the card."""

    aid: str
    domain: str
    sha256: str  # empty, and size 0, when the card told only that it is there
    size: int  # octets of the load file data block
    position: int


class ApplicationRow(msgspec.Struct, frozen=True):
    """An application on the card. What it is made of is empty when it came with the card."""

    aid: str
    module: str
    load_file: str
    domain: str
    privileges: str
    life_cycle: str
    position: int


class DomainRow(msgspec.Struct, frozen=True):
    """A security domain and what belongs to it."""

    aid: str
    parent: str | None  # None: the issuer security domain
    privileges: str
    life_cycle: str
    position: int
    failures: int = 0  # authentications in a row that failed
    keys: tuple[KeySetRow, ...] = ()
    load_files: tuple[LoadFileRow, ...] = ()
    applications: tuple[ApplicationRow, ...] = ()


class CardRow(msgspec.Struct, frozen=True):
    """A card with all its domains, the issuer's first, then in the order of their creation."""

    iccid: str
    operator: str
    profile: str
    isd: str
    position: int
    domains: tuple[DomainRow, ...]


class Past(Protocol):
    """What tells of the past: `tsm.application.Tsm`."""

    def history(
        self, stream: str, *, position: int | None = None, recorded_at: datetime | None = None
    ) -> Iterable[Event]: ...


def card(views: Views, iccid: str) -> CardRow | None:
    """One card as the events read so far say; None when none registered it."""
    for (tree,) in views.read(DOMAIN_TREE, "SELECT tree FROM {card} WHERE card = ?", (iccid,)):
        return DECODER.decode(tree)
    return None


def cards(views: Views, iccids: Sequence[str]) -> dict[str, CardRow]:
    """Several cards, by ICCID, in one query."""
    query = f"SELECT card, tree FROM {{card}} WHERE card IN ({', '.join('?' * len(iccids))})"  # noqa: S608 - marks only
    return {iccid: DECODER.decode(tree) for iccid, tree in (views.read(DOMAIN_TREE, query, iccids) if iccids else ())}


def at(past: Past, iccid: str, *, position: int | None = None, recorded_at: datetime | None = None) -> CardRow | None:
    """The card as it was after the event at that position, or at that recorded time, both included.

    None when it was not registered then. `TsmError(STORE_CORRUPT)` when one of its events does not decode or fit.
    """
    tree = None
    for event in past.history(stream(iccid), position=position, recorded_at=recorded_at):
        tree = evolve(tree, event)
    return tree


def evolve(tree: CardRow | None, event: Event) -> CardRow | None:
    """The tree after the event; `TsmError(STORE_CORRUPT)` for one that does not fit what came before it."""
    fact = event.fact
    if isinstance(fact, CardRegistered):
        if tree is not None:
            raise TsmError(ErrorCode.STORE_CORRUPT, f"card {fact.iccid} is registered twice")
        return _registered(fact, event.position)
    change = CHANGES.get(type(fact))
    if change is None:
        return tree
    if tree is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"{event.originator_id} does not begin with its registration")
    return change(tree, event.position, fact)


def fold(rows: Rows, events: Sequence[Event]) -> None:
    """Loads the cards that the events concern, folds, and writes them back."""
    cards = distinct(event.originator_id.removeprefix("card-") for event in events)
    known: dict[str, CardRow | None] = {iccid: DECODER.decode(tree) for iccid, tree in rows.find("card", cards)}
    trees = dict(known)
    for event in events:
        iccid = event.originator_id.removeprefix("card-")
        trees[iccid] = evolve(trees.get(iccid), event)
    made = [(iccid, ENCODER.encode(tree).decode()) for iccid, tree in trees.items()]
    rows.insert("card", [row for row in made if row[0] not in known])
    rows.upsert("card", [row for row in made if row[0] in known])


# One function for each kind of fact


def _registered(fact: CardRegistered, position: int) -> CardRow:
    keys = KeySetRow(fact.key_version, (), False, True, position)
    issuer = DomainRow(fact.isd, None, "", LifeCycle.SECURED, position, keys=(keys,))
    return CardRow(str(fact.iccid), fact.operator, fact.profile, str(fact.isd), position, (issuer,))


def _domain_created(tree: CardRow, position: int, fact: SecurityDomainCreated) -> CardRow:
    _domain(tree, fact.parent)
    if any(domain.aid == fact.domain for domain in tree.domains):
        raise TsmError(ErrorCode.STORE_CORRUPT, f"card {tree.iccid} has security domain {fact.domain} already")
    made = DomainRow(fact.domain, fact.parent, fact.privileges, fact.life_cycle, position)
    return msgspec.structs.replace(tree, domains=(*tree.domains, made))


def _keys_put(tree: CardRow, position: int, fact: KeysPut) -> CardRow:
    """The last that a domain was given are the ones it has: PUT KEY replaces.

    With its first keys a selectable domain becomes personalized (GPCS v2.3.1 section 5.3.2.3).
    """
    domain = _domain(tree, fact.domain)
    before = tuple(msgspec.structs.replace(keys, current=False) if keys.current else keys for keys in domain.keys)
    put = KeySetRow(fact.key_version, tuple(fact.check_values), fact.provisional, True, position)
    first = domain.life_cycle == LifeCycle.SELECTABLE
    life_cycle = LifeCycle.PERSONALIZED if first else domain.life_cycle
    return _with(tree, msgspec.structs.replace(domain, keys=(*before, put), life_cycle=life_cycle))


def _loaded(tree: CardRow, position: int, fact: LoadFileLoaded) -> CardRow:
    _domain(tree, fact.domain)
    made = LoadFileRow(fact.load_file, fact.domain, fact.sha256, fact.size, position)
    domains = [_without_load_file(domain, made.aid) for domain in tree.domains]
    return _added(tree, domains, made.domain, load_file=made)


def _installed(tree: CardRow, position: int, fact: ApplicationInstalled) -> CardRow:
    return _with_application(
        tree,
        ApplicationRow(
            fact.application, fact.module, fact.load_file, fact.domain, fact.privileges, fact.life_cycle, position
        ),
    )


def _personalized(tree: CardRow, position: int, fact: ApplicationPersonalized) -> CardRow:
    return _with_life_cycle(tree, position, fact.application, fact.domain, LifeCycle.PERSONALIZED)


def _life_cycle_changed(tree: CardRow, position: int, fact: LifeCycleChanged) -> CardRow:
    """Of a domain, or else of an application."""
    for domain in tree.domains:
        if domain.aid == fact.instance:
            return _with(tree, msgspec.structs.replace(domain, life_cycle=fact.life_cycle))
    return _with_life_cycle(tree, position, fact.instance, fact.domain, fact.life_cycle)


def _deleted(tree: CardRow, _: int, fact: ContentDeleted) -> CardRow:
    """What is gone leaves the tree, and whatever was in it."""
    gone = frozenset(fact.deleted)
    left = tuple(_without(domain, gone) for domain in tree.domains if domain.aid not in gone)
    return msgspec.structs.replace(tree, domains=left)


def _authentication_failed(tree: CardRow, _: int, fact: CardAuthenticationFailed) -> CardRow:
    return _with(tree, msgspec.structs.replace(_domain(tree, fact.domain), failures=fact.failures))


def _authenticated(tree: CardRow, _: int, fact: CardAuthenticated | CardReleased) -> CardRow:
    return _with(tree, msgspec.structs.replace(_domain(tree, fact.domain), failures=0))


# Trees with one part changed


def _domain(tree: CardRow, aid: str) -> DomainRow:
    for domain in tree.domains:
        if domain.aid == aid:
            return domain
    raise TsmError(ErrorCode.STORE_CORRUPT, f"card {tree.iccid} has no security domain {aid}")


def _with(tree: CardRow, changed: DomainRow) -> CardRow:
    domains = tuple(changed if domain.aid == changed.aid else domain for domain in tree.domains)
    return msgspec.structs.replace(tree, domains=domains)


def _with_life_cycle(tree: CardRow, position: int, aid: str, domain: str, life_cycle: str) -> CardRow:
    """An application that was never installed through us came with the card: what it is made of is not known."""
    _domain(tree, domain)
    for application in (a for owner in tree.domains for a in owner.applications):
        if application.aid == aid:
            changed = msgspec.structs.replace(application, life_cycle=life_cycle, position=position)
            return _with_application(tree, changed)
    return _with_application(tree, ApplicationRow(aid, "", "", domain, "", life_cycle, position))


def _with_application(tree: CardRow, made: ApplicationRow) -> CardRow:
    _domain(tree, made.domain)
    domains = [_without_application(domain, made.aid) for domain in tree.domains]
    return _added(tree, domains, made.domain, application=made)


def _added(
    tree: CardRow,
    domains: Sequence[DomainRow],
    aid: str,
    load_file: LoadFileRow | None = None,
    application: ApplicationRow | None = None,
) -> CardRow:
    """What changed last stands last."""
    return msgspec.structs.replace(
        tree,
        domains=tuple(
            msgspec.structs.replace(
                domain,
                load_files=domain.load_files if load_file is None else (*domain.load_files, load_file),
                applications=domain.applications if application is None else (*domain.applications, application),
            )
            if domain.aid == aid
            else domain
            for domain in domains
        ),
    )


def _without(domain: DomainRow, gone: frozenset[str]) -> DomainRow:
    return msgspec.structs.replace(
        domain,
        load_files=tuple(file for file in domain.load_files if file.aid not in gone),
        applications=tuple(application for application in domain.applications if application.aid not in gone),
    )


def _without_load_file(domain: DomainRow, aid: str) -> DomainRow:
    left = tuple(file for file in domain.load_files if file.aid != aid)
    return domain if len(left) == len(domain.load_files) else msgspec.structs.replace(domain, load_files=left)


def _without_application(domain: DomainRow, aid: str) -> DomainRow:
    left = tuple(application for application in domain.applications if application.aid != aid)
    return domain if len(left) == len(domain.applications) else msgspec.structs.replace(domain, applications=left)


CHANGES: Mapping[type[Fact], Callable[[CardRow, int, Any], CardRow]] = {
    SecurityDomainCreated: _domain_created,
    KeysPut: _keys_put,
    LoadFileLoaded: _loaded,
    ApplicationInstalled: _installed,
    ApplicationPersonalized: _personalized,
    CardAuthenticationFailed: _authentication_failed,
    CardAuthenticated: _authenticated,
    CardReleased: _authenticated,
    LifeCycleChanged: _life_cycle_changed,
    ContentDeleted: _deleted,
}
DECODER = msgspec.json.Decoder(CardRow)
ENCODER = msgspec.json.Encoder()

DOMAIN_TREE = Projection(
    name="domain_tree",
    version=3,
    tables=(Table("card", {"card": "text", "tree": "text"}),),
    fold=fold,
    topics=(CardRegistered.topic, *(fact.topic for fact in CHANGES)),
)
