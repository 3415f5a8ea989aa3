"""The GraphQL schema: what the admin API can be asked. `tsm schema` prints it; `schema.graphql` is that print.

Who may select which field says `api.graphql.authorization`, what a request may cost `api.graphql.limits`, and which
rows a caller sees the queries of the read models.
"""

from typing import Annotated

import strawberry
from starlette.routing import BaseRoute
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext, Info

from api.access import Role
from api.bootstrap import Parts
from api.graphql import http
from api.graphql.authorization import EVERYBODY, INTROSPECTORS, refusals
from api.graphql.context import Context, contexts_of
from api.graphql.documents import Persisted
from api.graphql.gate import Gate
from api.graphql.mutations.table import Mutation
from api.graphql.plan import PlanningExecutor
from api.graphql.subscriptions import Subscription
from api.graphql.types.alerts import Alert, Standing, StandingsFilter, list_alerts
from api.graphql.types.cards import (
    Application,
    ApplicationsFilter,
    Card,
    CardsFilter,
    KeySet,
    KeySetsFilter,
    LoadFile,
    LoadFilesFilter,
    SecurityDomain,
    SecurityDomainsFilter,
)
from api.graphql.types.credentials import Credential, CredentialsFilter
from api.graphql.types.events import Event, find_events, list_events
from api.graphql.types.lists import find_listed, list_rows, listed, one
from api.graphql.types.nodes import Node, read_node_id
from api.graphql.types.paging import MAX_PAGE, After, Before, Connection, First, Last, window
from api.graphql.types.parties import (
    Authority,
    CatalogueEntry,
    CatalogueFilter,
    Operator,
    PartiesFilter,
    Provider,
    ProvidersFilter,
    Terminal,
    TerminalsFilter,
)
from api.graphql.types.reading import MinPosition, wait_for
from api.graphql.types.scalars import SCALARS, Position, refuse
from api.graphql.types.server import Count, ReadModel, Viewer, counts, list_read_models, log_position, viewer
from api.graphql.types.swaps import (
    SwapHistory,
    SwapPolicy,
    SwapPolicyTrial,
    card_swap_history,
    device_swap_history,
    line_swap_history,
    present_policy,
    swap_policies,
    swap_policy_trial,
)
from api.graphql.types.work import (
    Delegation,
    DelegationsFilter,
    Operation,
    OperationsFilter,
    Session,
    SessionsFilter,
)
from projections.registry.lists import (
    APPLICATIONS,
    CARDS,
    CATALOGUE,
    CREDENTIALS,
    DELEGATIONS,
    DOMAINS,
    KEYS,
    LOAD_FILES,
    OPERATIONS,
    PARTIES,
    SESSIONS,
    STANDINGS,
)
from projections.registry.rows import key
from tsm.identifiers import Iccid

LISTED = (
    Alert, Application, Authority, Card, CatalogueEntry, Credential, Delegation, KeySet, LoadFile, Operation, Operator,
    Provider, SecurityDomain, Session, Standing,
    Terminal,
)  # fmt: skip
KINDS = {kind.__name__: kind for kind in LISTED}

IccidArgument = Annotated[str, strawberry.argument(description="19 or 20 digits, the last a Luhn digit.")]
AidArgument = Annotated[str, strawberry.argument(description="AID of the security domain, hex.")]


def find_all(info: Info[Context, None], ids: list[strawberry.ID]) -> list[Node | None]:
    """One query for each kind of thing; INVALID_INPUT when one of the ids is none of this server's."""
    read = [read_node_id(each) for each in ids]
    found: dict[tuple[str, str], Node] = {}
    for kind in dict.fromkeys(kind for kind, _ in read):
        keys = [key for other, key in read if other == kind]
        if kind != "Event" and kind not in KINDS:
            raise refuse("not an id of this server")
        of_kind = find_events(info, keys) if kind == "Event" else find_listed(info.context, KINDS[kind], keys)
        found.update({(kind, key): node for key, node in of_kind.items()})
    return [found.get(each) for each in read]


def node(
    info: Info[Context, None],
    id: Annotated[strawberry.ID, strawberry.argument(description="An `id` that this server gave.")],
    min_position: MinPosition = None,
) -> Node | None:
    wait_for(info.context, min_position)
    return find_all(info, [id])[0]


def nodes(
    info: Info[Context, None],
    ids: Annotated[list[strawberry.ID], strawberry.argument(description=f"Such ids, {MAX_PAGE} at most.")],
    min_position: MinPosition = None,
) -> list[Node | None]:
    if len(ids) > MAX_PAGE:
        raise refuse(f"at most {MAX_PAGE} ids")
    wait_for(info.context, min_position)
    return find_all(info, ids)


def card(info: Info[Context, None], iccid: IccidArgument, min_position: MinPosition = None) -> Card | None:
    wait_for(info.context, min_position)
    return one(info.context, Card, str(Iccid(iccid)))


def security_domain(
    info: Info[Context, None], iccid: IccidArgument, aid: AidArgument, min_position: MinPosition = None
) -> SecurityDomain | None:
    wait_for(info.context, min_position)
    return one(info.context, SecurityDomain, key(Iccid(iccid), aid.upper()))


def key_history(
    info: Info[Context, None],
    iccid: IccidArgument,
    domain: AidArgument,
    first: First = None,
    after: After = None,
    last: Last = None,
    before: Before = None,
    min_position: MinPosition = None,
) -> Connection[KeySet]:
    wait_for(info.context, min_position)
    where = {"iccid": str(Iccid(iccid)), "domain": domain.upper()}
    return list_rows(info.context, KEYS, where, window(first, after, last, before))


def credential(
    info: Info[Context, None],
    id: Annotated[str, strawberry.argument(description="The credential's id (UUID).")],
    min_position: MinPosition = None,
) -> Credential | None:
    wait_for(info.context, min_position)
    return one(info.context, Credential, id)


def operation(
    info: Info[Context, None],
    id: Annotated[str, strawberry.argument(description="The operation's id (UUID), as a mutation answered it.")],
    min_position: MinPosition = None,
) -> Operation | None:
    wait_for(info.context, min_position)
    return one(info.context, Operation, id)


def alert(
    info: Info[Context, None],
    id: Annotated[str, strawberry.argument(description="The alert's name, 16 octets in hex.")],
    min_position: MinPosition = None,
) -> Alert | None:
    wait_for(info.context, min_position)
    return one(info.context, Alert, id)


def standing(info: Info[Context, None], iccid: IccidArgument, min_position: MinPosition = None) -> Standing | None:
    wait_for(info.context, min_position)
    return one(info.context, Standing, str(Iccid(iccid)))


NULL = "null when there is none that the caller may see."


@strawberry.type(description="What can be asked. Every list holds what the caller may see, and nothing else.")
class Query:
    node: Node | None = strawberry.field(resolver=node, description=f"The thing with this id; {NULL}")
    nodes: list[Node | None] = strawberry.field(
        resolver=nodes, description=f"The things with these ids, in their order; {NULL}"
    )
    card: Card | None = strawberry.field(resolver=card, description=f"The card with this ICCID; {NULL}")
    cards: Connection[Card] = listed(Card, CARDS, CardsFilter, "Cards, in the order of their registration.")
    security_domain: SecurityDomain | None = strawberry.field(
        resolver=security_domain,
        description=f"The security domain with this AID on that card, also one that was deleted; {NULL}",
    )
    security_domains: Connection[SecurityDomain] = listed(
        SecurityDomain, DOMAINS, SecurityDomainsFilter, "Security domains that are on cards now."
    )
    load_files: Connection[LoadFile] = listed(
        LoadFile, LOAD_FILES, LoadFilesFilter, "Load files that are on cards now."
    )
    applications: Connection[Application] = listed(
        Application, APPLICATIONS, ApplicationsFilter, "Applications that are on cards now."
    )
    keys: Connection[KeySet] = listed(
        KeySet,
        KEYS,
        KeySetsFilter,
        "Keys that security domains were given, former ones too: versions and check values, never keys.",
    )
    key_history: Connection[KeySet] = strawberry.field(
        resolver=key_history,
        description="Who could have written the keys of a security domain: all that it was ever given, oldest first,"
        " each with the session that put it, who delegated that and when, and who else has had the keys.",
    )
    credential: Credential | None = strawberry.field(
        resolver=credential, description=f"The credential with this id; {NULL}"
    )
    credentials: Connection[Credential] = listed(
        Credential, CREDENTIALS, CredentialsFilter, "Credentials, in the order of their application."
    )
    operators: Connection[Operator] = listed(
        Operator, PARTIES, PartiesFilter, "Mobile network operators.", only={"kind": "operator"}
    )
    providers: Connection[Provider] = listed(
        Provider, PARTIES, ProvidersFilter, "Service providers.", only={"kind": "provider"}
    )
    terminals: Connection[Terminal] = listed(
        Terminal, PARTIES, TerminalsFilter, "Counter terminals.", only={"kind": "terminal"}
    )
    authorities: Connection[Authority] = listed(
        Authority, PARTIES, PartiesFilter, "Certificate authorities.", only={"kind": "authority"}
    )
    catalogue: Connection[CatalogueEntry] = listed(
        CatalogueEntry, CATALOGUE, CatalogueFilter, "Load files that providers registered, to be loaded into cards."
    )
    delegations: Connection[Delegation] = listed(
        Delegation, DELEGATIONS, DelegationsFilter, "Commands that parties handed over for cards."
    )
    sessions: Connection[Session] = listed(
        Session, SESSIONS, SessionsFilter, "Conversations with cards: `{live: true}` for those that go on."
    )
    operation: Operation | None = strawberry.field(
        resolver=operation, description=f"The operation with this id: what became of what was asked for; {NULL}"
    )
    operations: Connection[Operation] = listed(
        Operation, OPERATIONS, OperationsFilter, "What was asked to be done, waiting or over."
    )
    alert: Alert | None = strawberry.field(resolver=alert, description=f"The alert of this name; {NULL}")
    alerts: Connection[Alert] = strawberry.field(
        resolver=list_alerts,
        description='What was suspected of cards, in the order in which it was first raised: `{state: "OPEN"}` for'
        " what waits for somebody.",
    )
    standing: Standing | None = strawberry.field(
        resolver=standing, description=f"What is made of this card's suspicions; {NULL}"
    )
    standings: Connection[Standing] = listed(
        Standing, STANDINGS, StandingsFilter, "Cards of which anything was ever suspected: `{onHold: true}`."
    )
    line_swap_history: SwapHistory = strawberry.field(
        resolver=line_swap_history, description="What was told of a number, unsealed for a purpose that is recorded."
    )
    card_swap_history: SwapHistory = strawberry.field(
        resolver=card_swap_history,
        description="What was told of the lines of a card, unsealed for a purpose that is recorded.",
    )
    device_swap_history: SwapHistory = strawberry.field(
        resolver=device_swap_history,
        description="What was told of the lines of a device, unsealed for a purpose that is recorded.",
    )
    swap_policy: SwapPolicy = strawberry.field(
        resolver=present_policy, description="The policy by which signals are judged now."
    )
    swap_policies: list[SwapPolicy] = strawberry.field(
        resolver=swap_policies, description="All versions that there ever were, the one in force first."
    )
    swap_policy_trial: SwapPolicyTrial = strawberry.field(
        resolver=swap_policy_trial,
        description="What another policy would find in all signals that are known today, held against what people said"
        " then. An operator's is about its own cards. One at a time: STORE_BUSY.",
    )
    events: Connection[Event] = strawberry.field(
        resolver=list_events, description="Everything that happened, in the order of the one log."
    )
    counts: list[Count] = strawberry.field(resolver=counts, description="How many there are of everything.")
    viewer: Viewer = strawberry.field(resolver=viewer, description="Who asks, and what he may see.")
    log_position: Position = strawberry.field(
        resolver=log_position, description="Where the log ends now: the position of the last event, 0 in an empty log."
    )
    read_models: list[ReadModel] = strawberry.field(
        resolver=list_read_models,
        description="The read models that answer here: how far they have read, what they lack.",
    )


class QuietSchema(strawberry.Schema):
    """The library logs every refused query whole; we log what is ours to mend, at the edge."""

    def process_errors(self, errors: object, execution_context: ExecutionContext | None = None) -> None:
        pass


SCHEMA = QuietSchema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[*LISTED, Event],  # `node` finds them through their interface
    config=StrawberryConfig(sort_schema=True, scalar_map=SCALARS),
    execution_context_class=PlanningExecutor,
)


def sdl() -> str:
    """The schema in GraphQL's own language, sorted, ending in a newline."""
    return SCHEMA.as_str().rstrip("\n") + "\n"


def routes(parts: Parts) -> list[BaseRoute]:
    """`/graphql`."""
    settings = parts.settings
    gate = Gate(
        SCHEMA,
        parts.access,
        contexts_of(parts),
        refusals,
        parts.clock,
        roles=frozenset(EVERYBODY | {Role.TERMINAL}),
        limits=settings.limits,
        persisted=Persisted.load(settings.documents),
        only_persisted=frozenset(settings.only_persisted),
        ide_roles=frozenset(INTROSPECTORS),
        metrics=parts.metrics,
    )
    return http.routes(gate)
