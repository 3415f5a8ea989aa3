"""Cards."""

from typing import Self

import strawberry

from api.graphql.context import Context
from api.graphql.types.history import DEFAULT_PAGE, MAX_PAGE, HistoryConnection, history
from api.graphql.types.nodes import Node, node_id
from api.graphql.types.scalars import Position
from api.graphql.types.tree import SecurityDomain, domain_tree
from projections.domain_tree import CardRow
from projections.domain_tree import card as read_card
from tsm.identifiers import Iccid


@strawberry.type(description="A card (UICC) as registered, and what the events say about it.")
class Card(Node):
    iccid: str = strawberry.field(description="Integrated circuit card identifier.")
    operator: str = strawberry.field(description="The operator that issued it.")
    profile: str = strawberry.field(description="The card profile of its production file.")
    position: Position = strawberry.field(description="Position of its registration.")
    row: strawberry.Private[CardRow]
    domain_tree: SecurityDomain | None = strawberry.field(
        resolver=domain_tree,
        description="The issuer's security domain, and below it all that this server put on the card: now, or at a"
        " past position or time (not both); null when the card was not registered then.",
    )

    issuance_history: HistoryConnection = strawberry.field(
        resolver=history,
        description=f"Every event that concerns the card, oldest first. `first` (default {DEFAULT_PAGE}) counts from"
        f" `after` on, `last` back from `before`; {MAX_PAGE} at most, and not both.",
    )

    @classmethod
    def of(cls, row: CardRow) -> Self:
        return cls(
            id=node_id("Card", row.iccid),
            iccid=row.iccid,
            operator=row.operator,
            profile=row.profile,
            position=Position(row.position),
            row=row,
        )


def find_card(context: Context, iccid: str) -> Card | None:
    """The card, or None when it is not registered. `TsmError(INVALID_INPUT)` for what is no ICCID."""
    row = read_card(context.views, str(Iccid(iccid)))
    return None if row is None else Card.of(row)
