"""Whose things are: a client acts on what is his, and what is somebody else's looks to him as if it were not there.

Reading asks the same of the read models. What is decided here rests on the log, for a read model may lag behind it.
"""

from api.access import ENROLLED, Role
from api.graphql.mutations.mutate import Act
from projections.viewer import EVERYTHING, Viewer
from tsm.errors import ErrorCode, TsmError
from tsm.flows.card_release import held_in
from tsm.model import catalogue as catalogues
from tsm.model import credential as credentials
from tsm.model import domain as domains
from tsm.model import operation as operations
from tsm.model.card import Application, Card, LoadedFile
from tsm.model.operation import Operation, OperationKind
from tsm.model.party import Certified
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


def card_at_hand(act: Act, iccid: str) -> tuple[Card, tuple[str, ...]]:
    """A card of the operator that acts; or one in which a credential is that was applied for where the clerk acts.

    And whom it concerns beside the operator. UNKNOWN_CARD.
    """
    viewer = act.caller.viewer
    if viewer.kind != "municipality":
        return issued_card(act, iccid), ()
    for held in held_in(act.parts.tsm, iccid):
        if held.state.applied.municipality == viewer.party:
            return act.parts.tsm.card_of(iccid), (viewer.party, held.state.applied.provider)
    raise TsmError(ErrorCode.UNKNOWN_CARD, f"nothing on {iccid} was applied for in {viewer.party}")


def seen_card(act: Act, iccid: str) -> Card:
    """A card of the operator that acts, or one on which the provider that acts has a domain. UNKNOWN_CARD."""
    if act.caller.viewer.kind != "provider":
        return issued_card(act, iccid)
    card = act.parts.tsm.card_of(iccid)
    if all(owner_of(act, aid) != act.caller.viewer.party for aid in card.domains):
        raise TsmError(ErrorCode.UNKNOWN_CARD, f"{act.caller.viewer.party} has nothing on {iccid}")
    return card


def own_domain(act: Act, iccid: str, domain: str) -> Card:
    """The card of a domain: of the provider's own, or of any on the operator's card. UNKNOWN_SECURITY_DOMAIN."""
    card, viewer = seen_card(act, iccid), act.caller.viewer
    card.domain(domain)
    if viewer.kind == "provider" and owner_of(act, domain) != viewer.party:
        raise TsmError(ErrorCode.UNKNOWN_SECURITY_DOMAIN, f"{domain} is not {viewer.party}'s")
    return card


def own_application(act: Act, iccid: str, application: str) -> Card:
    """The card of an application. NOT_FOUND."""
    card = seen_card(act, iccid)
    _refuse_unless_own(act, card.applications.get(application), "application")
    return card


def own_load_file(act: Act, iccid: str, load_file: str) -> Card:
    """The card of a load file that is on it. NOT_FOUND."""
    card = seen_card(act, iccid)
    _refuse_unless_own(act, card.load_files.get(load_file), "load_file")
    return card


def refuse_others_with_it(act: Act, card: Card, aid: str) -> None:
    """FORBIDDEN when something would go with it that is not the caller's, as `own_load_file` has it."""
    for one in card.related(aid):
        domain = one if one in card.domains else card.owner(one)
        if owner_of(act, domain) != _own_party(act):
            raise TsmError(ErrorCode.FORBIDDEN, f"{one} on {card.iccid} is another party's", ("related",))


def _refuse_unless_own(act: Act, thing: Application | LoadedFile | None, field: str) -> None:
    """A provider's is what lies in its domain; an operator's, on its cards, what lies in no provider's."""
    if thing is None or owner_of(act, thing.domain) != _own_party(act):
        raise TsmError(ErrorCode.NOT_FOUND, f"no such {field} of {act.caller.viewer.party}", (field,))


def _own_party(act: Act) -> str:
    """Whose the domains of what is the caller's own are: nobody's are an operator's."""
    return act.caller.viewer.party if act.caller.viewer.kind == "provider" else ""


def card_for_domain(act: Act, iccid: str, domain: str) -> Card:
    """For a new domain: the provider's own, on whatever card, or any provider's, on the operator's. NOT_FOUND."""
    viewer, owner = act.caller.viewer, owner_of(act, domain)
    is_provider = viewer.kind == "provider"
    if is_provider and owner != viewer.party:  # before a word is said of the card
        raise TsmError(ErrorCode.NOT_FOUND, f"{domain} is nobody's, or another's", ("domain",))
    card = act.parts.tsm.card_of(iccid) if is_provider else issued_card(act, iccid)
    if not owner:
        raise TsmError(ErrorCode.NOT_FOUND, f"{domain} is nobody's", ("domain",))
    return card


def card_for_load_file(act: Act, iccid: str, load_file: str) -> Card:
    """For a load file that the provider registered: a card with its domain. NOT_FOUND."""
    card = seen_card(act, iccid)
    known = act.parts.tsm.load(catalogues.stream(load_file), catalogues.evolve).state
    if known is None or known.current.provider != act.caller.viewer.party:
        raise TsmError(ErrorCode.NOT_FOUND, f"load file {load_file}", ("load_file",))
    return card


def owner_of(act: Act, domain: str) -> str:
    """The provider whose the security domains of this AID are; empty for nobody's, as the issuer's."""
    claimed = act.parts.tsm.load(domains.stream(domain), domains.evolve).state
    return "" if claimed is None else claimed.provider


def party_of(act: Act, target: str) -> Certified | None:
    """The party that is to be withdrawn: `<role>/<party>`."""
    role, _, party = target.partition("/")
    model = ENROLLED[role]
    state: Certified | None = act.parts.tsm.load(model.stream(party), model.evolve).state
    return state


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


def operation_to_end(act: Act, operation: str) -> Operation:
    """An operation that the caller sees and may end. NOT_FOUND; FORBIDDEN for a provider, when another asked for it:

    whoever issued the card manages it, and may lock or delete what a provider would rather keep.
    """
    state, viewer = seen_operation(act, operation), act.caller.viewer
    if viewer.kind == "provider" and asking_party(state) != viewer.party:
        raise TsmError(ErrorCode.FORBIDDEN, f"operation {operation} was asked for by another party")
    return state


def operation_to_approve(act: Act, operation: str) -> Operation:
    """An operation that the caller sees and may agree to. NOT_FOUND; FORBIDDEN when the other party asked for it, but
    not for an officer: a party's second person is one of its own.
    """
    state = seen_operation(act, operation)
    others = {state.requested.operator, state.requested.provider} - {act.caller.viewer.party}
    if act.caller.role != Role.SECURITY_OFFICER and asking_party(state) in others:
        raise TsmError(ErrorCode.FORBIDDEN, f"operation {operation} was asked for by another party")
    return state


def asking_party(operation: Operation) -> str:
    """The party in whose name it was asked for: an actor is `<role>:<party>`, or `<role>:<party>/<person>`."""
    return operation.requested.requested_by.partition(":")[2].partition("/")[0]


def _is_seen(act: Act, operation: Operation) -> bool:
    if act.caller.role == Role.ADMINISTRATOR:
        return operation.kind is OperationKind.WITHDRAW_PARTY
    asked = operation.requested
    concerned = EVERYTHING, Viewer("operator", asked.operator), Viewer("provider", asked.provider)
    return act.caller.viewer in concerned
