"""Cards, what is on them, and the keys of their domains.

What a card acknowledged, or told when it was asked, is what its stream says (`tsm.model.card`), and so what is here.
"""

from projections.registry.book import Book, at, corrupt, seen_by
from projections.registry.rows import (
    ApplicationRow,
    CardRow,
    ClaimRow,
    DomainRow,
    KeyRingRow,
    KeyRow,
    LoadFileRow,
    key,
)
from tsm.model.card import (
    ApplicationInstalled,
    ApplicationPersonalized,
    CardAuthenticated,
    CardAuthenticationFailed,
    CardRegistered,
    CardReleased,
    ContentDeleted,
    KeysDestroyed,
    KeysPut,
    KeysShared,
    LifeCycle,
    LifeCycleChanged,
    LoadFileLoaded,
    ProvisionalKeysDestroyed,
    ProvisionalKeysHandedOut,
    SecurityDomainCreated,
)
from tsm.model.domain import DomainClaimed
from tsm.model.event import Event


def claimed(book: Book, event: Event, fact: DomainClaimed) -> None:
    book.claims.put(ClaimRow(fact.domain, fact.provider, event.position))
    book.claimed(fact.domain, fact.provider)


def registered(book: Book, event: Event, fact: CardRegistered) -> None:
    iccid, isd, position = iccid_of(event), str(fact.isd), event.position
    if book.cards.get(iccid) is not None:
        raise corrupt(f"card {iccid} is registered twice")
    book.cards.put(CardRow(iccid, fact.operator, fact.profile, isd, position, position))
    secured = DomainRow(
        key=key(iccid, isd),
        iccid=iccid,
        aid=isd,
        operator=fact.operator,
        provider="",
        parent="",
        privileges="",
        life_cycle=LifeCycle.SECURED.value,
        key_version=fact.key_version,
        provisional=0,
        size=0,
        failures=0,
        position=position,
        removed=0,
    )
    book.domains.put(secured)
    _add_keys(book, event, secured)


def created(book: Book, event: Event, fact: SecurityDomainCreated) -> None:
    card = _card(book, event)
    _domain(book, event, fact.parent)
    made = key(card.iccid, fact.domain)
    before = book.domains.get(made)
    if before is not None and not before.removed:
        raise corrupt(f"card {card.iccid} has security domain {fact.domain} already")
    row = DomainRow(
        key=made,
        iccid=card.iccid,
        aid=fact.domain,
        operator=card.operator,
        provider=book.owner(card.iccid, fact.domain),
        parent=fact.parent,
        privileges=fact.privileges,
        life_cycle=fact.life_cycle,
        key_version=0,
        provisional=0,
        size=0,
        failures=0,
        position=event.position,
        removed=0,
    )
    book.domains.put(row)
    book.holds(row)


def keys_put(book: Book, event: Event, fact: KeysPut) -> None:
    """With its first keys a selectable domain becomes personalized (GPCS v2.3.1 section 5.3.2.3)."""
    domain = _domain(book, event, fact.domain)
    life_cycle = domain.life_cycle
    if life_cycle == LifeCycle.SELECTABLE:
        life_cycle = LifeCycle.PERSONALIZED.value
    given = domain._replace(key_version=fact.key_version, provisional=int(fact.provisional), life_cycle=life_cycle)
    book.domains.put(given)
    _retire(book, given)
    _add_keys(book, event, given, fact)


def handed_out(book: Book, event: Event, fact: ProvisionalKeysHandedOut) -> None:
    """To the owner, who knows from now on what stands in the card."""
    of_version = [row for row in _keys(book, event, fact.domain) if row.version == fact.key_version]
    if not of_version:
        raise corrupt(f"{event.originator_id} has no such keys")
    book.keys.put(of_version[-1]._replace(handed_out_to=fact.provider, handed_out_at=at(event.recorded_at)))


def shared(book: Book, event: Event, fact: KeysShared) -> None:
    domain = _domain(book, event, fact.domain)
    ring = book.key_rings.get(domain.key) or KeyRingRow(domain.key, "", 0, "", "")
    book.key_rings.put(
        ring._replace(shared_version=fact.key_version, shared_by=fact.provider, shared_at=at(event.recorded_at))
    )


def destroyed(book: Book, event: Event, fact: ProvisionalKeysDestroyed) -> None:
    """All of this version: they lay in one place."""
    for row in _keys(book, event, fact.domain):
        if row.version == fact.key_version and row.provisional and not row.destroyed_at:
            book.keys.put(row._replace(destroyed_at=at(event.recorded_at)))


def retired_keys_destroyed(book: Book, event: Event, fact: KeysDestroyed) -> None:
    """Of keys that the card has no more; those put later, perhaps under the same version, are others."""
    for row in _keys(book, event, fact.domain):
        same = (row.version, row.check_values) == (fact.key_version, ",".join(fact.check_values))
        if same and not row.current and not row.destroyed_at:
            book.keys.put(row._replace(destroyed_at=at(event.recorded_at)))


def loaded(book: Book, event: Event, fact: LoadFileLoaded) -> None:
    domain = _domain(book, event, fact.domain)
    _forget_load_file(book, key(domain.iccid, fact.load_file), event.position)
    domain = _domain(book, event, fact.domain)
    book.domains.put(domain._replace(size=domain.size + fact.size))
    row = LoadFileRow(
        key=key(domain.iccid, fact.load_file),
        iccid=domain.iccid,
        aid=fact.load_file,
        domain=fact.domain,
        operator=domain.operator,
        provider=domain.provider,
        seen_by=seen_by(domain.operator, domain.provider),
        sha256=fact.sha256,
        size=fact.size,
        position=event.position,
        removed=0,
    )
    book.load_files.put(row)


def installed(book: Book, event: Event, fact: ApplicationInstalled) -> None:
    row = _application(book, event, fact.application, fact.domain, fact.life_cycle)
    book.applications.put(row._replace(module=fact.module, load_file=fact.load_file, privileges=fact.privileges))


def personalized(book: Book, event: Event, fact: ApplicationPersonalized) -> None:
    _set_life_cycle(book, event, fact.application, fact.domain, LifeCycle.PERSONALIZED.value)


def life_cycle_changed(book: Book, event: Event, fact: LifeCycleChanged) -> None:
    """Of a domain, or else of an application."""
    card = _card(book, event)
    domain = book.domains.get(key(card.iccid, fact.instance))
    if domain is not None and not domain.removed:
        book.domains.put(domain._replace(life_cycle=fact.life_cycle))
    else:
        _set_life_cycle(book, event, fact.instance, fact.domain, fact.life_cycle)


def deleted(book: Book, event: Event, fact: ContentDeleted) -> None:
    """Rows stay, and say at which position it was. With a domain its keys are gone."""
    card = _card(book, event)
    for gone in (key(card.iccid, aid) for aid in fact.deleted):
        _forget_load_file(book, gone, event.position)
        application, domain = book.applications.get(gone), book.domains.get(gone)
        if application is not None and not application.removed:
            book.applications.put(application._replace(removed=event.position))
        if domain is not None and not domain.removed:
            book.domains.put(domain._replace(removed=event.position))
            _retire(book, domain)


def authentication_failed(book: Book, event: Event, fact: CardAuthenticationFailed) -> None:
    book.domains.put(_domain(book, event, fact.domain)._replace(failures=fact.failures))


def authenticated(book: Book, event: Event, fact: CardAuthenticated | CardReleased) -> None:
    book.domains.put(_domain(book, event, fact.domain)._replace(failures=0))


def session_of(event: Event) -> tuple[str, str]:
    """Party and reception number of the session in which it happened: `<spId>/<rcptNum>/<step>` is its command."""
    party, _, rest = event.context.command.partition("/")
    return party, rest.partition("/")[0]


def iccid_of(event: Event) -> str:
    return event.originator_id.removeprefix("card-")


def touched(book: Book, event: Event) -> None:
    """The card says which event was the last that changed it."""
    book.cards.put(_card(book, event)._replace(changed=event.position))


def _card(book: Book, event: Event) -> CardRow:
    card = book.cards.get(iccid_of(event))
    if card is None:
        raise corrupt(f"{event.originator_id} does not begin with its registration")
    return card


def _domain(book: Book, event: Event, aid: str) -> DomainRow:
    domain = book.domains.get(key(_card(book, event).iccid, aid))
    if domain is None or domain.removed:
        raise corrupt(f"{event.originator_id} has no security domain {aid}")
    return domain


def _keys(book: Book, event: Event, aid: str) -> list[KeyRow]:
    """All that domains of this AID were ever given, in that order."""
    return _of_ring(book, book.key_rings.get(key(_card(book, event).iccid, aid)))


def _of_ring(book: Book, ring: KeyRingRow | None) -> list[KeyRow]:
    rows = [book.keys.get(key(ring.key, put)) for put in ring.puts.split(",") if put] if ring is not None else []
    return [row for row in rows if row is not None]


def _retire(book: Book, domain: DomainRow) -> None:
    """PUT KEY replaces: what a domain was given last is what it has."""
    for row in _of_ring(book, book.key_rings.get(domain.key)):
        if row.current:
            book.keys.put(row._replace(current=0))


def _add_keys(book: Book, event: Event, domain: DomainRow, put: KeysPut | None = None) -> None:
    """A row for the keys that the domain has now; those that nobody put are what the card was made with."""
    ring = book.key_rings.get(domain.key) or KeyRingRow(domain.key, "", 0, "", "")
    announced = ring.shared_version == domain.key_version and not domain.provisional
    party, reception = session_of(event) if put is not None else ("", "")
    row = KeyRow(
        key=key(domain.key, event.position),
        iccid=domain.iccid,
        domain=domain.aid,
        operator=domain.operator,
        provider=domain.provider,
        seen_by=seen_by(domain.operator, domain.provider),
        version=domain.key_version,
        check_values=",".join(put.check_values) if put is not None else "",
        provisional=domain.provisional,
        current=1,
        found=int(put is not None and put.found),
        party=party,
        reception=reception,
        session=key(party, reception) if party else "",
        by_session=book.story(event.context.correlation),
        actor=event.context.actor,
        recorded_at=at(event.recorded_at),
        handed_out_to="",
        handed_out_at="",
        shared_by=ring.shared_by if announced else "",
        shared_at=ring.shared_at if announced else "",
        destroyed_at="",
        position=event.position,
    )
    book.keys.add(row)
    kept = KeyRingRow(domain.key, "", 0, "", "") if announced else ring
    book.key_rings.put(kept._replace(puts=",".join(filter(None, (ring.puts, str(event.position))))))


def _forget_load_file(book: Book, load_file: str, position: int) -> None:
    """Whatever it took in its domain is free."""
    row = book.load_files.get(load_file)
    if row is None or row.removed:
        return
    book.load_files.put(row._replace(removed=position))
    domain = book.domains.get(key(row.iccid, row.domain))
    if domain is not None:
        book.domains.put(domain._replace(size=domain.size - row.size))


def _set_life_cycle(book: Book, event: Event, aid: str, domain: str, life_cycle: str) -> None:
    """An application that was never installed through us came with the card: what it is made of is not known."""
    known = book.applications.get(key(_domain(book, event, domain).iccid, aid))
    there = known is not None and not known.removed
    book.applications.put(
        known._replace(life_cycle=life_cycle) if known and there else _application(book, event, aid, domain, life_cycle)
    )


def _application(book: Book, event: Event, aid: str, domain: str, life_cycle: str) -> ApplicationRow:
    owner = _domain(book, event, domain)
    made = key(owner.iccid, aid)
    return ApplicationRow(
        key=made,
        iccid=owner.iccid,
        aid=aid,
        domain=domain,
        operator=owner.operator,
        provider=owner.provider,
        seen_by=seen_by(owner.operator, owner.provider),
        module="",
        load_file="",
        privileges="",
        life_cycle=life_cycle,
        position=event.position,
        removed=0,
    )
