"""Registry: what there is now, and whose it is.

Answers the lists of the admin API: cards, what is on them, credentials, parties, delegations, sessions, operations. A
row is what the events say now; what they said earlier is in the log, which the position in each row leads to.

`rows` are the tables, `lists` says who sees what of them, `listings` reads them, and `folds` makes them, with a file
for each part.
"""

from projections.projection import Projection
from projections.registry.folds import TOPICS, fold
from projections.registry.lists import LISTINGS
from projections.registry.rows import ClaimRow, HolderRow, KeyRingRow, TallyRow, table
from tsm.model.credential import CredentialApplied

HOLDER_INDEXES = (("provider", "position"), ("provider", "operator", "position"), ("provider", "profile", "position"))

REGISTRY = Projection(
    name="registry",
    version=1,
    tables=(
        *(table(listing.name, listing.row, listing.indexes()) for listing in LISTINGS.values()),
        table(
            "holders",
            HolderRow,
            tuple((*c, "position") for c in (("provider",), ("provider", "operator"), ("provider", "profile"))),
        ),
        table("claims", ClaimRow),
        table("key_rings", KeyRingRow),
        table("tally", TallyRow),
    ),
    fold=fold,
    topics=TOPICS,
    unseals={CredentialApplied.topic: ("iccid",)},
)
