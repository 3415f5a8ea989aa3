"""Whose things are: a client acts on what is his, and what is somebody else's looks to him as if it were not there.

Reading asks the same of the read models. What is decided here rests on the log, for a read model may lag behind it.
"""

from api.access import Role
from api.graphql.mutations.mutate import Act
from projections.viewer import EVERYTHING, Viewer
from tsm.errors import ErrorCode, TsmError
from tsm.model import credential as credentials
from tsm.model import domain as domains
from tsm.model import operation as operations
from tsm.model.card import Card
from tsm.model.operation import Operation, OperationKind
from tsm.store.log import NOTHING


def refuse_other_tenants(act: Act, *tenants: Viewer) -> None:
    """FORBIDDEN for parties that are not his to manage, whether or not there are such.

    An administrator and an officer of the whole house manage all, an officer of one tenant what is that tenant's.
    """
    if act.caller.role != Role.ADMINISTRATOR and act.caller.viewer not in (EVERYTHING, *tenants):
        raise TsmError(ErrorCode.FORBIDDEN, "another tenant's party")


def issued_card(act: Act, iccid: str) -> Card:
    """A card of the operator that acts. UNKNOWN_CARD."""
    card = act.parts.tsm.card_of(iccid)
    if act.caller.viewer not in (EVERYTHING, Viewer("operator", card.operator)):
        raise TsmError(ErrorCode.UNKNOWN_CARD, f"{iccid} is another operator's")
    return card


def seen_card(act: Act, iccid: str) -> Card:
    """A card of the operator that acts, or one on which the provider that acts has a domain. UNKNOWN_CARD."""
    if act.caller.viewer.kind != "provider":
        return issued_card(act, iccid)
    card = act.parts.tsm.card_of(iccid)
    if all(owner_of(act, aid) != act.caller.viewer.party for aid in card.domains):
        raise TsmError(ErrorCode.UNKNOWN_CARD, f"{act.caller.viewer.party} has nothing on {iccid}")
    return card


def owner_of(act: Act, domain: str) -> str:
    """The provider whose the security domains of this AID are; empty for nobody's, as the issuer's."""
    claimed = act.parts.tsm.load(domains.stream(domain), domains.evolve).state
    return "" if claimed is None else claimed.provider


def provider_of_credential(act: Act, credential: str) -> str:
    """The provider of a credential, if that is who acts. NOT_FOUND. Nothing personal is unsealed for that."""
    state = act.parts.tsm.state_at(credentials.stream(credential), credentials.evolve, unseals=NOTHING).state
    if state is None or act.caller.viewer not in (EVERYTHING, Viewer("provider", state.applied.provider)):
        raise TsmError(ErrorCode.NOT_FOUND, f"credential {credential}", ("credential",))
    return state.applied.provider


def seen_operation(act: Act, operation: str) -> Operation:
    """An operation on the operator's cards, or on what is the provider's; for administrators on parties. NOT_FOUND."""
    state = act.parts.tsm.load(operations.stream(operation), operations.evolve).state
    if state is None or not _is_seen(act, state):
        raise TsmError(ErrorCode.NOT_FOUND, f"operation {operation}", ("operation",))
    return state


def _is_seen(act: Act, operation: Operation) -> bool:
    if act.caller.role == Role.ADMINISTRATOR:
        return operation.kind is OperationKind.WITHDRAW_PARTY
    asked = operation.requested
    concerned = EVERYTHING, Viewer("operator", asked.operator), Viewer("provider", asked.provider)
    return act.caller.viewer in concerned
