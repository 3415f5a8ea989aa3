"""What several inputs have."""

import strawberry

from api.graphql.mutations.mutate import IDEMPOTENCY_DAYS

WHY = "Why, 200 characters at most: it stays in the log, so it names nobody."
AID = "5 to 16 octets in upper-case hex"


@strawberry.input
class Keyed:
    """The key under which a mutation is asked for."""

    idempotency_key: str = strawberry.field(
        description="A name of your choice for this mutation, 1 to 255 visible ASCII characters, a UUID for one: the"
        f" same again within {IDEMPOTENCY_DAYS} days is done once and answered as at first."
    )


@strawberry.input
class OnCard(Keyed):
    """Something on one card."""

    iccid: str = strawberry.field(description="The card: 19 or 20 digits, the last a Luhn digit.")
