"""The lists of the registry: their tables, who sees what of them, and what they can be filtered by.

Every list says what each kind of viewer sees of it: the rows in which a column holds his id, with some columns blank
perhaps. Conditions of queries, indexes and counts all follow from that one declaration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

from projections.registry.rows import (
    AlertRow,
    ApplicationRow,
    CardRow,
    CatalogueRow,
    CredentialRow,
    DelegationRow,
    DomainRow,
    KeyRow,
    LoadFileRow,
    OperationRow,
    PartyRow,
    SessionRow,
    StandingRow,
    key,
)
from projections.viewer import Kind

R = TypeVar("R")


class Sight(NamedTuple):
    """What a kind of viewer sees of a list: the rows in which `column` holds his id; without one, all."""

    column: str = ""
    only: tuple[str, str] = ("", "")  # and of those the rows in which this column holds that value
    through: str = ""  # table that has a row for each that he sees, with the same position
    blank: tuple[str, ...] = ()  # columns that he does not see
    unless: str = "1 = 0"  # ... except in rows that meet this condition

    def party(self, row: Any) -> str | None:
        """Whose row it is; None when nobody of this kind sees it."""
        if self.only[0] and getattr(row, self.only[0]) != self.only[1]:
            return None
        return (getattr(row, self.column) or None) if self.column else ""


ALL = Sight()


@dataclass(frozen=True)
class Listing(Generic[R]):
    """A list: its table and rows, who sees what of it, and what it can be filtered by."""

    name: str  # of the table, too
    row: type[R]
    sights: Mapping[Kind, Sight]  # whoever is not in it sees nothing
    narrow: tuple[str, ...] = ()  # filters that leave few rows by themselves
    wide: tuple[str, ...] = ()  # filters that leave many
    counted_by: str = ""  # the column by whose values rows are counted, too
    columns: Mapping[str, type] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", get_type_hints(self.row))

    @property
    def key(self) -> str:
        return next(iter(self.columns))

    @property
    def removable(self) -> bool:
        """Whether rows stay when what they tell of is gone: pages and counts leave those out."""
        return "removed" in self.columns

    def indexes(self) -> tuple[tuple[str, ...], ...]:
        """For every viewer, every filter, and every viewer with a wide filter, in the order of the positions."""
        end = ("removed", "position") if self.removable else ("position",)
        viewers = [sight.column for sight in self.sights.values() if sight.column and not sight.through]
        singles = [(column,) for column in (*viewers, *self.narrow, *self.wide)]
        pairs = [(viewer, filtered) for viewer in viewers for filtered in self.wide if viewer != filtered]
        return tuple(dict.fromkeys((*columns, *end) for columns in ((), *singles, *pairs)))


OWN_CARDS = Sight("operator")
OWN = Sight("provider")
SEEN = Sight("seen_by")
OTHERS_DOMAINS = Sight(
    "operator",
    blank=("provider", "parent", "privileges", "key_version", "provisional", "failures"),
    unless="provider = ''",
)
ONLY_THAT_IT_IS = Sight(
    blank=("iccid", "domain", "target", "reason", "requested_by", "approved_by", "reception", "correlation")
)
OPERATORS_AFFAIR = (  # on what it rests, and who
    "evidence", "overtaken", "acknowledged_by", "escalated_by", "closed_by", "ended_by",
)  # fmt: skip

CARDS = Listing(
    "cards",
    CardRow,
    {
        "everything": ALL,
        "operator": OWN_CARDS,
        "provider": Sight("provider", through="holders", blank=("changed",)),  # by whom it was is not said
    },
    wide=("operator", "profile"),
)
DOMAINS = Listing(
    "domains",
    DomainRow,
    {"everything": ALL, "operator": OTHERS_DOMAINS, "provider": OWN},
    narrow=("iccid",),
    wide=("operator", "provider", "aid", "life_cycle"),
)
ON_CARDS: Mapping[Kind, Sight] = {"everything": ALL, "operator": SEEN, "provider": OWN}
LOAD_FILES = Listing(
    "load_files", LoadFileRow, ON_CARDS, narrow=("iccid",), wide=("operator", "provider", "aid", "domain", "sha256")
)
APPLICATIONS = Listing(
    "applications",
    ApplicationRow,
    ON_CARDS,
    narrow=("iccid",),
    wide=("operator", "provider", "aid", "domain", "load_file", "life_cycle"),
)
KEYS = Listing(
    "keys",
    KeyRow,
    ON_CARDS,
    narrow=("iccid", "by_session", "session"),
    wide=("operator", "provider", "domain", "current", "provisional"),
)
CREDENTIALS = Listing(
    "credentials",
    CredentialRow,
    {"everything": ALL, "provider": OWN, "municipality": Sight("municipality")},
    narrow=("iccid", "subject"),
    wide=("provider", "municipality", "terminal", "authority", "stage", "hold", "closed"),
    counted_by="stage",
)
PARTIES = Listing(
    "parties",
    PartyRow,
    {
        "everything": ALL,
        "operator": Sight("party", only=("kind", "operator")),
        "provider": Sight("party", only=("kind", "provider")),
        "municipality": Sight("municipality"),
        "nothing": ALL,  # an administrator: parties are no personal data
    },
    narrow=("party", "domain"),
    wide=("kind", "municipality", "enrolled"),
    counted_by="kind",
)
CATALOGUE = Listing("catalogue", CatalogueRow, {"everything": ALL, "provider": OWN}, wide=("provider",))
DELEGATIONS = Listing(
    "delegations",
    DelegationRow,
    ON_CARDS,
    narrow=("iccid", "reception", "correlation"),
    wide=("party", "operator", "provider", "domain", "status"),
)
SESSIONS = Listing(
    "sessions",
    SessionRow,
    ON_CARDS,
    narrow=("iccid", "reception", "correlation"),
    wide=("party", "operator", "provider", "domain", "state", "live"),
    counted_by="state",
)
OPERATIONS = Listing(
    "operations",
    OperationRow,
    {"everything": ALL, "operator": OWN_CARDS, "provider": OWN, "nothing": ONLY_THAT_IT_IS},
    narrow=("iccid", "target", "reception", "correlation"),
    wide=("operator", "provider", "kind", "state"),
    counted_by="state",
)
ALERTS = Listing(
    "alerts",
    AlertRow,
    {
        "everything": ALL,
        "operator": OWN_CARDS,
        "provider": Sight("viewer", ("kind", "provider"), "alert_seers", OPERATORS_AFFAIR),
        "municipality": Sight("viewer", ("kind", "municipality"), "alert_seers", OPERATORS_AFFAIR),
    },
    narrow=("iccid",),
    wide=("operator", "state", "level", "condition"),
    counted_by="state",
)
STANDINGS = Listing(
    "standings",
    StandingRow,
    {
        "everything": ALL,
        "operator": OWN_CARDS,
        "provider": Sight("viewer", ("kind", "provider"), "standing_seers"),
        "municipality": Sight("viewer", ("kind", "municipality"), "standing_seers"),
    },
    wide=("operator", "level", "on_hold"),
)
LISTINGS: Mapping[str, Listing[Any]] = {
    listing.name: listing
    for listing in (
        CARDS, DOMAINS, LOAD_FILES, APPLICATIONS, KEYS, CREDENTIALS, PARTIES, CATALOGUE, DELEGATIONS, SESSIONS,
        OPERATIONS, ALERTS, STANDINGS,
    )
}  # fmt: skip


def tally_viewer(kind: Kind, party: str) -> str:
    """Under whom a viewer's counts are kept: who sees everything or nothing is nobody in particular."""
    return key(kind, "" if kind in ("everything", "nothing") else party)
