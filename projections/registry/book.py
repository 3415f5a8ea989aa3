"""All tables of the registry while a page is folded, and what more than one part of it needs to know.

Two things are settled at the end of a page, for all its events at once: a claim gives every domain of its AID, and what
belongs to it, to the provider, whichever came first; and the erasure of a person unties the card. Rows that are made
later ask for both, so where a page ends makes no difference.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import json

from projections.projection import Rows
from projections.registry.held import Held
from projections.registry.lists import LISTINGS, Listing, tally_viewer
from projections.registry.rows import (
    AlertRow,
    AlertSeerRow,
    ApplicationRow,
    CardRow,
    CatalogueRow,
    ClaimRow,
    CredentialRow,
    DelegationRow,
    DomainRow,
    HolderRow,
    KeyRingRow,
    KeyRow,
    LoadFileRow,
    OperationRow,
    PartyRow,
    SessionRow,
    StandingRow,
    StandingSeerRow,
    TallyRow,
    key,
)
from projections.viewer import Kind
from tsm.errors import ErrorCode, TsmError

ERASED = "erased"  # of a credential's `closed`


class Book:
    """The rows that a page touches, table by table."""

    def __init__(self, rows: Rows) -> None:
        self.cards = Held(rows, "cards", CardRow)
        self.domains = Held(rows, "domains", DomainRow)
        self.load_files = Held(rows, "load_files", LoadFileRow)
        self.applications = Held(rows, "applications", ApplicationRow)
        self.keys = Held(rows, "keys", KeyRow)
        self.key_rings = Held(rows, "key_rings", KeyRingRow)
        self.claims = Held(rows, "claims", ClaimRow)
        self.holders = Held(rows, "holders", HolderRow)
        self.credentials = Held(rows, "credentials", CredentialRow)
        self.parties = Held(rows, "parties", PartyRow)
        self.catalogue = Held(rows, "catalogue", CatalogueRow)
        self.delegations = Held(rows, "delegations", DelegationRow)
        self.sessions = Held(rows, "sessions", SessionRow)
        self.operations = Held(rows, "operations", OperationRow)
        self.alerts = Held(rows, "alerts", AlertRow)
        self.alert_seers = Held(rows, "alert_seers", AlertSeerRow)
        self.standings = Held(rows, "standings", StandingRow)
        self.standing_seers = Held(rows, "standing_seers", StandingSeerRow)
        self._tally = Held(rows, "tally", TallyRow)
        self._claimed: dict[str, str] = {}  # providers by AID, of this page
        self._erased: set[str] = set()  # credentials, of this page

    def owner(self, iccid: str, domain: str) -> str:
        """The provider whose the domain is; empty for the issuer's and one that nobody claimed."""
        card = self.cards.get(iccid)
        if card is not None and card.isd == domain:
            return ""
        claim = self.claims.get(domain)
        return claim.provider if claim is not None else ""

    def story(self, correlation: str) -> str:
        """The correlation, unless it is that of a credential whose person is erased."""
        return "" if self.is_erased(correlation) else correlation

    def is_erased(self, credential: str) -> bool:
        """Whether it is the id of a credential whose person is erased."""
        row = self.credentials.get(credential)
        return row is not None and row.closed == ERASED

    def holds(self, domain: DomainRow) -> None:
        """The card of a provider's domain is one of those that the provider sees."""
        card = self.cards.get(domain.iccid)
        holder = key(domain.provider, domain.iccid)
        if domain.provider and card is not None and self.holders.get(holder) is None:
            row = HolderRow(holder, domain.provider, card.iccid, card.operator, card.profile, card.position)
            self.holders.put(row)

    def claimed(self, domain: str, provider: str) -> None:
        self._claimed[domain] = provider

    def erased(self, credential: str) -> None:
        self._erased.add(credential)

    def close(self) -> None:
        """Settles what is to be settled, counts, and writes."""
        self._give()
        self._untie()
        self._show()
        self._count()
        for held in vars(self).values():
            if isinstance(held, Held):
                held.write()

    def _give(self) -> None:
        aids = list(self._claimed)
        domains = self.domains.having("aid", aids)
        self.cards.foresee({row.iccid for row in domains})
        self.holders.foresee({key(self._claimed[row.aid], row.iccid) for row in domains})
        for domain in domains:
            given = domain._replace(provider=self.owner(domain.iccid, domain.aid))
            self.domains.put(given)
            self.holds(given)
        for content in (self.load_files, self.applications, self.keys):
            for part in content.having("domain", aids):
                provider = self.owner(part.iccid, part.domain)
                content.put(part._replace(provider=provider, seen_by=seen_by(part.operator, provider)))
        for runs in (self.delegations, self.sessions):
            for run in runs.having("domain", aids):
                provider = self.owner(run.iccid, run.domain)
                runs.put(run._replace(provider=provider, seen_by=seen_by(run.operator, provider, run.party)))

    def _untie(self) -> None:
        stories = list(self._erased)
        for held in (self.delegations, self.sessions, self.operations):
            for row in held.having("correlation", stories):
                held.put(row._replace(correlation=""))
        for put in self.keys.having("by_session", stories):
            self.keys.put(put._replace(by_session=""))
        for operation in self.operations.having("target", stories):
            self.operations.put(operation._replace(iccid=""))

    def _show(self) -> None:
        """Who sees a card's alerts and standing beside its operator: whoever has a domain or a credential on it."""
        moved = {row.iccid for before, row in self.holders.changes() if before is None}
        moved |= {_card_moved(*change) for change in self.credentials.changes()} - {""}
        self.standings.foresee(moved)
        shown = {row.iccid for held in (self.alerts, self.standings) for _, row in held.changes()}
        cards = shown | moved & {row.iccid for row in self.standings}
        if not cards:
            return
        seers: dict[str, set[tuple[Kind, str]]] = defaultdict(set)
        for holder in self.holders.having("iccid", cards):
            seers[holder.iccid].add(("provider", holder.provider))
        for credential in self.credentials.having("iccid", cards):
            seers[credential.iccid] |= {("provider", credential.provider), ("municipality", credential.municipality)}
        _seat(self.alert_seers, AlertSeerRow, self.alerts.having("iccid", cards), seers)
        _seat(self.standing_seers, StandingSeerRow, self.standings.having("iccid", cards), seers)

    def _count(self) -> None:
        """From what each row was before the page to what it is now."""
        changes: dict[str, Counter[str]] = defaultdict(Counter)
        for name in LISTINGS:
            for before, now in getattr(self, name).changes():
                for viewer, counted in _counted(name, before):
                    changes[viewer][counted] -= 1
                for viewer, counted in _counted(name, now):
                    changes[viewer][counted] += 1
        for before, holder in self.holders.changes():
            changes[tally_viewer("provider", holder.provider)]["cards"] += int(before is None)
        for name, seers in (("alerts", self.alert_seers), ("standings", self.standing_seers)):
            for before, now in seers.changes():
                for viewer, counted in _counted_for_seer(name, before):
                    changes[viewer][counted] -= 1
                for viewer, counted in _counted_for_seer(name, now):
                    changes[viewer][counted] += 1
            for row in seers.dropped():
                for viewer, counted in _counted_for_seer(name, row):
                    changes[viewer][counted] -= 1
        changed = {viewer: numbers for viewer, numbers in changes.items() if any(numbers.values())}
        self._tally.foresee(list(changed))
        for viewer, numbers in changed.items():
            known = self._tally.get(viewer)
            numbers.update(json.decode(known.counts, type=dict[str, int]) if known is not None else {})
            there = {name: number for name, number in sorted(numbers.items()) if number}
            self._tally.put(TallyRow(viewer, json.encode(there).decode()))


def seen_by(operator: str, provider: str, party: str = "") -> str:
    """The operator that sees what belongs to a domain: its own, and what it delegated itself."""
    return operator if provider == "" or party == operator else ""


def at(time: datetime | None) -> str:
    """A time as rows have it."""
    return "" if time is None else time.isoformat()


def corrupt(detail: str) -> TsmError:
    return TsmError(ErrorCode.STORE_CORRUPT, detail)


def _seat(held: Held[Any], kind_of_row: Any, rows: Sequence[Any], seers: Mapping[str, set[tuple[Kind, str]]]) -> None:
    """A row for each of these and each who sees it; none for whoever sees it no more."""
    for seer in held.having("iccid", {row.iccid for row in rows}):
        if (seer.kind, seer.viewer) not in seers[seer.iccid]:
            held.drop(seer)
    for row in rows:
        values = [getattr(row, name) for name in kind_of_row._fields[3:]]
        for kind, viewer in seers[row.iccid]:
            held.add(kind_of_row(key(row[0], kind, viewer), kind, viewer, *values))


def _card_moved(before: CredentialRow | None, now: CredentialRow) -> str:
    """The card that a credential came to, or left."""
    if before is None:
        return now.iccid
    return before.iccid if before.iccid != now.iccid else ""


def _counted(name: str, row: Any) -> Iterator[tuple[str, str]]:
    """Where a row counts: viewers and names."""
    listing = LISTINGS[name]
    if row is None or (listing.removable and row.removed):
        return
    names = _names(listing, row)
    kind: Kind
    for kind, sight in listing.sights.items():
        party = None if sight.through else sight.party(row)
        if party is not None:
            for counted in names:
                yield tally_viewer(kind, party), counted


def _counted_for_seer(name: str, row: Any) -> Iterator[tuple[str, str]]:
    """The same for somebody who sees a row in a table of his own."""
    if row is not None:
        for counted in _names(LISTINGS[name], row):
            yield tally_viewer(row.kind, row.viewer), counted


def _names(listing: Listing[Any], row: Any) -> list[str]:
    return [listing.name, *([f"{listing.name}.{getattr(row, listing.counted_by)}"] if listing.counted_by else [])]
