"""Registry: what there is now, and whose it is.

Answers the lists of the admin API: cards, what is on them, credentials, parties, delegations, sessions, operations,
alerts, standings. A row is what the events say now; what they said earlier is in the log, which the position in each
row leads to.

`rows` are the tables, `lists` says who sees what of them, `listings` reads them, and `folds` makes them, with a file
for each part.
"""

from typing import Any

from projections.projection import Projection
from projections.registry.folds import TOPICS, fold
from projections.registry.lists import ALERTS, LISTINGS, STANDINGS, Listing
from projections.registry.rows import AlertSeerRow, ClaimRow, HolderRow, KeyRingRow, StandingSeerRow, TallyRow, table
from tsm.model.credential import CredentialApplied

HOLDER_INDEXES = (("provider", "position"), ("provider", "operator", "position"), ("provider", "profile", "position"))


def seen(listing: Listing[Any]) -> tuple[tuple[str, ...], ...]:
    """The indexes of a table through which viewers see a list: for every filter, in the order of the positions."""
    wide = [("viewer", column, "position") for column in listing.wide]
    return (("viewer", "position"), *wide, *((column, "position") for column in listing.narrow))


REGISTRY = Projection(
    name="registry",
    version=3,
    tables=(
        *(table(listing.name, listing.row, listing.indexes()) for listing in LISTINGS.values()),
        table("holders", HolderRow, (*HOLDER_INDEXES, ("iccid",))),
        table("alert_seers", AlertSeerRow, (*seen(ALERTS), ("alert",))),
        table("standing_seers", StandingSeerRow, (*seen(STANDINGS), ("iccid",))),
        table("claims", ClaimRow),
        table("key_rings", KeyRingRow),
        table("tally", TallyRow),
    ),
    fold=fold,
    topics=TOPICS,
    unseals={CredentialApplied.topic: ("iccid",)},
)
