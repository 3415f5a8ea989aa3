"""Cards are registered as they leave the factory, and released after too many failed authentications."""

import strawberry

from api.graphql.context import Context
from api.graphql.mutations.inputs import AID, WHY, Keyed, OnCard
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.rows import Row, Shown, changed, wait_until_shown
from api.graphql.mutations.whose import issued_card
from api.graphql.types.cards import Card
from api.graphql.types.lists import find_listed
from tsm.errors import ErrorCode, TsmError, within
from tsm.identifiers import Aid
from tsm.model.card import CardReleased
from tsm.model.production import read_rows
from tsm.store.recorder import Recorded

MOST_ROWS = 200


@strawberry.input(description="A card as its maker's production file tells of it.")
class CardRow:
    iccid: str = strawberry.field(description="19 or 20 digits, the last a Luhn digit.")
    iin: str = strawberry.field(description="Issuer identification number: what GET DATA 42 answers, hex.")
    cin: str = strawberry.field(description="Card image number: what GET DATA 45 answers, hex; no two cards share it.")
    key_set: str = strawberry.field(description="The operator's master key from which the card's keys were derived.")
    profile: str = strawberry.field(description="The card profile.")


@strawberry.input(description="Cards of the operator that asks.")
class CardRegisterInput(Keyed):
    rows: list[CardRow] = strawberry.field(description=f"1 to {MOST_ROWS} cards: all are registered, or none.")


@strawberry.input(description="A security domain on a card of the operator that asks.")
class CardReleaseInput(OnCard):
    domain: str = strawberry.field(description=f"AID of the security domain, {AID}.")
    reason: str = strawberry.field(description=WHY)


def register(act: Act, given: CardRegisterInput) -> None:
    with within("rows"):
        if not 1 <= len(given.rows) <= MOST_ROWS:
            raise TsmError(ErrorCode.INVALID_INPUT, f"{len(given.rows)} rows")
        values = [(row.iccid, row.iin, row.cin, row.key_set, row.profile) for row in given.rows]
        operator = act.caller.viewer.party
        act.parts.tsm.register_cards(operator, read_rows(enumerate(values)), act.of(operator), act.command)


def release(act: Act, given: CardReleaseInput) -> None:
    card = issued_card(act, given.iccid)
    with within("domain"):
        released = CardReleased(domain=Aid(given.domain), reason=given.reason)
    context = act.of(card.operator, given.reason)
    act.parts.tsm.release_card(card.operator, card.iccid, released, context, act.command)


def registered(context: Context, given: CardRegisterInput, recorded: Recorded) -> list[Card]:
    wait_until_shown(context, recorded)
    return list(find_listed(context, Card, [row.iccid for row in given.rows]).values())


ROWS = (
    Row(
        "cardRegister",
        "Register cards of the operator that asks: all or none. ALREADY_EXISTS for one that is registered with other"
        " values, UNKNOWN_KEY for a key set that was not imported.",
        CardRegisterInput,
        register,
        (Shown("cards", list[Card], "The cards, in the order of the rows.", registered),),
    ),
    Row(
        "cardRelease",
        "Give a security domain its budget for failed authentications back, so that sessions with it may begin again.",
        CardReleaseInput,
        release,
        (changed("card", Card, lambda _, given, __: given.iccid, "The card."),),
    ),
)
