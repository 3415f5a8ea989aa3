"""Who may select what, and whose rows he sees: the table against the schema, and attempts to reach other tenants."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
    is_object_type,
    is_required_argument,
    parse,
)

from api.access import Role
from api.bench.postgres import Database
from api.graphql.authorization import EVERYBODY, RULES, refusals
from api.graphql.schema import SCHEMA
from tests.api.admin_world import Client
from tests.api.graphql_world import World
from tests.projections.registry_story import (
    ALERT,
    BANK,
    BANK_DOMAIN,
    CARD,
    CREDENTIAL,
    JPKI,
    JPKI_DOMAIN,
    MNO,
    OTHER_ALERT,
    OTHER_CARD,
    THIRD_CARD,
)

BUILT = SCHEMA._schema
FIRST = 10  # of every list
ROLES = {"O": "operator", "P": "provider", "C": "clerk", "A": "auditor", "S": "security-officer", "X": "administrator"}

# Operator, Provider, Clerk, Auditor, Security officer, administrator (X): who may ask for which field of the roots.
ROOTS = """
    Query.alert                    O P C A S .
    Query.alerts                   O P C A S .
    Query.applications             O P . A S .
    Query.authorities              O P . A S X
    Query.card                     O P . A S .
    Query.cards                    O P . A S .
    Query.cardSwapHistory          O . . A S .
    Query.catalogue                O P . A S .
    Query.counts                   O P C A S X
    Query.credential               . P C A S .
    Query.credentials              . P C A S .
    Query.delegations              O P . A S .
    Query.deviceSwapHistory        O . . A S .
    Query.events                   O P C A S .
    Query.keyHistory               O P . A S .
    Query.keys                     O P . A S .
    Query.lineSwapHistory          O . . A S .
    Query.loadFiles                O P . A S .
    Query.logPosition              O P C A S X
    Query.node                     O P C A S X
    Query.nodes                    O P C A S X
    Query.operation                O P . A S X
    Query.operations               O P . A S X
    Query.operators                O P . A S X
    Query.providers                O P . A S X
    Query.readModels               O P C A S X
    Query.securityDomain           O P . A S .
    Query.securityDomains          O P . A S .
    Query.sessions                 O P . A S .
    Query.standing                 O P C A S .
    Query.standings                O P C A S .
    Query.swapPolicies             O . . A S .
    Query.swapPolicy               O . . A S .
    Query.swapPolicyTrial          O . . A S .
    Query.terminals                O P C A S X
    Query.viewer                   O P C A S X
    Query.__schema                 . . . A S X
    Query.__type                   . . . A S X
    Subscription.alerts            O . . A S .
    Subscription.events            O P C A S .
    Subscription.sessions          O P . A S .
    Subscription.operations        O P . A S .
    Mutation.alertAcknowledge      O . . . S .
    Mutation.alertClose            O . . . S .
    Mutation.alertEscalate         O . . . S .
    Mutation.applicationDelete     O P . . . .
    Mutation.applicationInstall    . P . . . .
    Mutation.applicationLock       O P . . . .
    Mutation.applicationUnlock     O P . . . .
    Mutation.authorityEnrol        . . . . S X
    Mutation.cardAudit             O . . . . .
    Mutation.cardHoldRelease       O . C . . .
    Mutation.cardLockRequest       O . C . . .
    Mutation.cardRegister          O . . . . .
    Mutation.cardRelease           O . . . . .
    Mutation.cardUnlockRequest     O . C . . .
    Mutation.credentialRevoke      . P . . S .
    Mutation.domainKeysRotate      O . . . S .
    Mutation.loadFileDelete        O P . . . .
    Mutation.loadFileRegister      . P . . . .
    Mutation.operationApprove      O P . . S .
    Mutation.operationCancel       O P . . S X
    Mutation.operationContact      O P . . . .
    Mutation.operationReject       O P . . S .
    Mutation.operatorEnrol         . . . . S X
    Mutation.partyWithdraw         . . . . S X
    Mutation.personErase           . P . . S .
    Mutation.providerEnrol         . . . . S X
    Mutation.securityDomainCreate  O P . . . .
    Mutation.securityDomainDelete  O P . . . .
    Mutation.securityDomainLock    O P . . . .
    Mutation.securityDomainUnlock  O P . . . .
    Mutation.swapPolicyAdopt       . . . . S .
    Mutation.terminalEnrol         . . . . S X
"""
SPECIAL = """
    Credential.personalData        . . . A S .
    PersonalData.applicant         . . . A S .
    Event.values                   . . . A S .
    ReadModel.parked               . . . A S X
    Operation.target               O P . A S .
    LineBinding.msisdn             O . . A S .
    Alert.card                     O P . A S .
    Operation.reason               O P . A S .
    Provider.credentials           . P . A S .
    Operator.cards                 O P . A S .
"""


def table(text: str) -> dict[str, set[str]]:
    """Field to the roles that may select it."""
    lines = (line.split() for line in text.strip().splitlines())
    return {field: {ROLES[letter] for letter in letters if letter != "."} for field, *letters in lines}


def coordinates() -> set[str]:
    """Every field of every type that has fields: own, and those of introspection."""
    kinds = (GraphQLObjectType, GraphQLInterfaceType)
    own = {f"{t.name}.{name}" for t in BUILT.type_map.values() if isinstance(t, kinds) for name in t.fields}
    return own | {"Query.__schema", "Query.__type"}


# The table


def test_every_field_of_the_schema_has_a_rule_and_every_rule_has_a_field() -> None:
    assert coordinates() - set(RULES) == set()
    assert set(RULES) - coordinates() == set()


def test_rules_name_roles_of_the_admin_api_only_and_none_is_empty() -> None:
    assert {role for roles in RULES.values() for role in roles} <= EVERYBODY
    assert [field for field, roles in RULES.items() if not roles] == []


def test_what_each_role_may_ask_for_is_what_the_table_says() -> None:
    wanted = table(ROOTS)
    roots = {field for field in coordinates() if field.startswith(("Query.", "Mutation.", "Subscription."))}
    assert set(wanted) == roots
    assert {field: {str(role) for role in RULES[field]} for field in wanted} == wanted


def test_what_is_for_few_is_what_the_table_says() -> None:
    wanted = table(SPECIAL)
    assert {field: {str(role) for role in RULES[field]} for field in wanted} == wanted


@pytest.mark.parametrize("field", sorted(table(ROOTS)))
@pytest.mark.parametrize("role", sorted(ROLES.values()))
def test_a_document_is_judged_by_the_table(field: str, role: str) -> None:
    kind, _, name = field.partition(".")
    definition = BUILT.get_field(BUILT.get_type(kind), name)  # type: ignore[arg-type]
    assert definition is not None
    selection = "" if is_leaf_type(get_named_type(definition.type)) else " { __typename }"
    found = refusals(parse(f"{kind.lower()} {{ alias: {name}{selection} }}"), None, role, BUILT)

    if role in table(ROOTS)[field]:
        assert found == []
    else:
        assert [(error.path, error.extensions) for error in found] == [(["alias"], {"code": "FORBIDDEN"})]


def test_a_terminal_stands_for_the_clerks_of_its_municipality() -> None:
    assert refusals(parse("{ credentials { nodes { id } } }"), None, Role.TERMINAL, BUILT) == []
    assert refusals(parse("{ cards { nodes { id } } }"), None, Role.TERMINAL, BUILT) != []


@pytest.mark.parametrize("role", ["", "authority", "server", "relying-party", "OPERATOR"])
def test_who_has_no_role_here_may_select_nothing(role: str) -> None:
    found = refusals(parse("{ viewer { role } a: logPosition __typename }"), None, role, BUILT)
    assert [error.path for error in found] == [["viewer"], ["a"]]


def test_the_roots_of_other_operations_of_a_document_are_not_held_against_the_one_that_runs() -> None:
    document = parse("query A { viewer { role } } query B { cards { nodes { id } } }")
    assert refusals(document, "A", "clerk", BUILT) == []
    assert [error.path for error in refusals(document, "B", "clerk", BUILT)] == [["cards"]]


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ("{ node(id: 1) { ... on Credential { p: personalData(purpose: 1) { applicant } } } }", [["node", "p"]]),
        ("{ node(id: 1) { ...F } } fragment F on Node { ... on Card { iccid } }", [["node", "iccid"]]),
        ("{ ...Q } fragment Q on Query { cards { nodes { id } } }", [["cards"]]),
        ("{ ... @skip(if: true) { cards { nodes { id } } } }", [["cards"]]),
        ("{ viewer { role } x: __schema { types { name } } }", [["x"]]),
        ("{ ...A ...B } fragment A on Query { ...B } fragment B on Query { x: cards { nodes { id } } }", [["x"]]),
    ],
)
def test_fragments_aliases_and_directives_hide_no_field(document: str, paths: list[list[str]]) -> None:
    assert [error.path for error in refusals(parse(document), None, "clerk", BUILT)] == paths


def test_a_document_of_fragments_that_spread_each_other_twice_is_judged_at_once() -> None:
    """Each is walked once: 2^60 steps would not end."""
    chain = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60))
    document = parse(f"{{ ...F0 }} {chain} fragment F60 on Query {{ cards {{ nodes {{ id }} }} }}")
    assert len(refusals(document, None, "clerk", BUILT)) == 1


def test_no_subscription_leads_to_personal_data() -> None:
    """Readings are recorded before an answer leaves, one for each request: a subscription has many answers."""
    seen: set[str] = set()
    waiting = ["Subscription"]
    while waiting:
        kind = BUILT.get_type(waiting.pop())
        if is_object_type(kind) and kind.name not in seen:
            seen.add(kind.name)
            waiting += [get_named_type(field.type).name for field in kind.fields.values()]
    assert seen.isdisjoint({"PersonalData", "SwapHistory", "LineBinding", "LineSignal"})
    assert {"Event", "Session", "Card", "Alert"} <= seen


# Whose rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("authorization"))
    yield made
    made.close()


SOMEBODY = {  # viewers, and words that stand in no answer to them
    "operator": (
        "operator", f"operator:{MNO}", ["MNO00002", OTHER_CARD, "27100", CREDENTIAL, "02aaaa", "02bbbb", OTHER_ALERT],
    ),
    "other operator": (
        "operator", "operator:MNO00002", [MNO, CARD, THIRD_CARD, "13101", CREDENTIAL, "02aaaa", BANK, ALERT],
    ),
    "provider": ("provider", f"provider:{JPKI}", [BANK, BANK_DOMAIN, "bank-credential", "op-1", "op-4", "tenure"]),
    "sibling": ("provider", f"provider:{BANK}", [JPKI, JPKI_DOMAIN, OTHER_CARD, CREDENTIAL, "02aaaa", OTHER_ALERT]),
    "clerk": (
        "clerk", "municipality:13101", ["27100", "other-credential", OTHER_CARD, "02aaaa", "op-1", OTHER_ALERT],
    ),
    "auditor of an operator": (
        "auditor", f"operator:{MNO}", ["MNO00002", OTHER_CARD, "27100", "subject-1", "02aaaa", "YAMADA"],
    ),
    "auditor of a provider": ("auditor", f"provider:{BANK}", [JPKI, JPKI_DOMAIN, OTHER_CARD, CREDENTIAL, "op-2"]),
    "administrator": (
        "administrator", "*",
        [CARD, OTHER_CARD, THIRD_CARD, CREDENTIAL, "subject", "02aaaa", "contract", ALERT, OTHER_ALERT],
    ),
}  # fmt: skip


def leaves(kind: Any, role: str) -> str:
    """The plain fields of a type that the role may select, in the words of a document."""
    return " ".join(
        name
        for name, field in kind.fields.items()
        if is_leaf_type(get_named_type(field.type)) and not needs_arguments(field) and may(role, kind, name)
    )


def branches(kind: Any, role: str) -> Iterator[tuple[str, Any]]:
    """Its other fields, and the types that they lead to."""
    for name, field in kind.fields.items():
        if not is_leaf_type(get_named_type(field.type)) and not needs_arguments(field) and may(role, kind, name):
            below = get_named_type(field.type)
            yield f"{name}(first: {FIRST})" if below.name.endswith("Connection") else name, below


def may(role: str, kind: Any, name: str) -> bool:
    return role in RULES[f"{kind.name}.{name}"]


def needs_arguments(field: Any) -> bool:
    return any(is_required_argument(argument) for argument in field.args.values())


def shown(kind: Any, role: str, depth: int) -> Iterator[str]:
    """Selections that show all that lies within that many steps of a type: one for each way there."""
    if kind.name.endswith("Connection"):
        node = get_named_type(kind.fields["nodes"].type)
        yield from (f"nodes {{ {inner} }}" for inner in shown(node, role, depth))
        return
    yield leaves(kind, role)
    if depth:
        for name, below in branches(kind, role):
            yield from (f"{leaves(kind, role)} {name} {{ {inner} }}" for inner in shown(below, role, depth - 1))


def everything(role: str, depth: int) -> Iterator[str]:
    query = BUILT.query_type
    assert query is not None
    yield f"{{ {leaves(query, role)} }}"
    for name, kind in branches(query, role):
        if not name.startswith("__"):
            yield from (f"{{ {name} {{ {inner} }} }}" for inner in shown(kind, role, depth))


def person(world: World, who: str, name: str) -> Client:
    """Each under a name of his own, so that nobody's budget runs out."""
    role, tenant, _ = SOMEBODY[who]
    return world.person(role, tenant, re.sub(r"\W", "", f"{who}{name}"))


@pytest.mark.parametrize("who", SOMEBODY)
def test_whatever_somebody_asks_no_answer_holds_what_is_anothers(world: World, who: str) -> None:
    """All lists, all that lies beneath their rows, and all that lies beneath that."""
    role, _, foreign = SOMEBODY[who]
    asked = list(everything(role, 2))
    assert len(asked) > 5
    for number, query in enumerate(asked):
        answer = person(world, who, str(number // 40)).ask(query)
        assert [e for e in answer.get("errors", ()) if "parked" not in e.get("path", ())] == [], query
        text = json.dumps(answer)
        assert [word for word in foreign if word in text] == [], query


def test_what_is_not_anothers_is_seen(world: World) -> None:
    """The test above would pass, too, if nobody saw anything."""
    seen = {
        who: "".join(str(person(world, who, "x").ask(q)) for q in everything(SOMEBODY[who][0], 0)) for who in SOMEBODY
    }
    assert CARD in seen["operator"] and JPKI_DOMAIN in seen["operator"] and BANK_DOMAIN in seen["operator"]
    assert OTHER_CARD in seen["other operator"]
    assert CREDENTIAL in seen["provider"] and "02aaaa" in seen["provider"] and OTHER_CARD in seen["provider"]
    assert "bank-credential" in seen["sibling"] and BANK_DOMAIN in seen["sibling"]
    assert CREDENTIAL in seen["clerk"]
    assert "WITHDRAW" in seen["administrator"].upper() and MNO in seen["administrator"]


LISTS = ("cards", "securityDomains", "loadFiles", "applications", "keys", "credentials", "operators", "providers",
         "terminals", "authorities", "catalogue", "delegations", "sessions", "operations", "events", "alerts",
         "standings")  # fmt: skip


def ids(client: Client, role: str) -> dict[str, list[str]]:
    """What the lists that the role may ask for show, by list."""
    return {name: list(pages(client, name)) for name in LISTS if role in RULES[f"Query.{name}"]}


def pages(client: Client, name: str) -> Iterator[str]:
    after, more = None, True
    while more:
        query = f"query ($after: String) {{ {name}(first: 100, after: $after) {{ nodes {{ id }} pageInfo"
        page = client.data(f"{query} {{ endCursor hasNextPage }} }} }}", after=after)[name]
        yield from (node["id"] for node in page["nodes"])
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]


@pytest.mark.parametrize("who", SOMEBODY)
def test_an_id_of_what_is_anothers_finds_nothing(world: World, who: str) -> None:
    every = {i for found in ids(world.person("security-officer", "*"), "security-officer").values() for i in found}
    role = SOMEBODY[who][0]
    own = {i for found in ids(person(world, who, "ids"), role).values() for i in found}
    assert own < every

    for some in portions(sorted(every - own)):
        found = person(world, who, "n").data("query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=some)["nodes"]
        assert found == [None] * len(some)
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    found = person(world, who, "own").data(query, ids=sorted(own)[:100])
    assert [node["id"] for node in found["nodes"]] == sorted(own)[:100]


def portions(values: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(values), 100):
        yield values[begin : begin + 100]


@pytest.mark.parametrize("who", SOMEBODY)
def test_a_cursor_taken_from_whoever_sees_all_shows_nothing_more(world: World, who: str) -> None:
    officer, role = world.person("security-officer", "*", "cursors"), SOMEBODY[who][0]
    for name, own in ids(person(world, who, "c"), role).items():
        edges = officer.data(f"{{ {name}(first: 100) {{ edges {{ cursor }} }} }}")[name]["edges"]
        for cursor in [edge["cursor"] for edge in edges][:10]:
            for window in (f'first: 3, after: "{cursor}"', f'last: 3, before: "{cursor}"'):
                page = person(world, who, name).data(f"{{ {name}({window}) {{ nodes {{ id }} }} }}")[name]
                assert {node["id"] for node in page["nodes"]} <= set(own)


FOREIGN: Mapping[str, list[str]] = {
    "operator": [
        'cards(filter: {operator: "MNO00002"})', f'securityDomains(filter: {{iccid: "{OTHER_CARD}"}})',
        f'securityDomains(filter: {{provider: "{JPKI}"}})', f'keys(filter: {{provider: "{JPKI}", current: true}})',
        'sessions(filter: {operator: "MNO00002"})', f'events(filter: {{card: "{OTHER_CARD}"}})',
        'events(filter: {tenant: "MNO00002"})', f'events(filter: {{credential: "{CREDENTIAL}"}})',
        'events(filter: {subject: "subject-1"})', f'keyHistory(iccid: "{OTHER_CARD}", domain: "{JPKI_DOMAIN}")',
        'operations(filter: {operator: "MNO00002"})', f'loadFiles(filter: {{provider: "{BANK}"}})',
    ],
    "sibling": [
        f'credentials(filter: {{provider: "{JPKI}"}})', f'securityDomains(filter: {{aid: "{JPKI_DOMAIN}"}})',
        f'applications(filter: {{provider: "{JPKI}"}})', f'delegations(filter: {{party: "{JPKI}"}})',
        f'catalogue(filter: {{provider: "{JPKI}"}})', f'events(filter: {{provider: "{JPKI}"}})',
        f'events(filter: {{aid: "{JPKI_DOMAIN}"}})', f'events(filter: {{stream: "credential-{CREDENTIAL}"}})',
        f'events(filter: {{actor: "provider:{JPKI}"}})', f'keyHistory(iccid: "{CARD}", domain: "{JPKI_DOMAIN}")',
    ],
    "clerk": [
        'credentials(filter: {municipality: "27100"})',
        'terminals(filter: {municipality: "27100"})', 'events(filter: {credential: "other-credential"})',
        f'events(filter: {{card: "{OTHER_CARD}"}})', 'events(filter: {kinds: ["card.", "operation."]})',
    ],
}  # fmt: skip


@pytest.mark.parametrize(("who", "field"), [(who, field) for who, fields in FOREIGN.items() for field in fields])
def test_a_filter_for_what_is_anothers_finds_nothing(world: World, who: str, field: str) -> None:
    page = person(world, who, "filter").data(f"{{ found: {field} {{ nodes {{ id }} }} }}")["found"]
    assert page["nodes"] == []
    seen = world.person("security-officer", "*", "filter").data(f"{{ found: {field} {{ nodes {{ id }} }} }}")["found"]
    if "current: true" not in field and f'provider: "{BANK}"' not in field:
        assert seen["nodes"] != []  # there is something to hide


def test_who_sees_a_domain_in_outline_cannot_filter_by_what_he_does_not_see(world: World) -> None:
    officer = world.person("security-officer", "*", "outline")
    field = f'securityDomains(filter: {{provider: "{JPKI}", iccid: "{CARD}"}}) {{ nodes {{ aid }} }}'
    assert officer.data(f"{{ {field} }}")["securityDomains"]["nodes"] == [{"aid": JPKI_DOMAIN}]
    assert person(world, "operator", "outline").data(f"{{ {field} }}")["securityDomains"]["nodes"] == []


def test_an_operator_sees_of_a_providers_domain_aid_life_cycle_and_size_only(world: World) -> None:
    fields = "aid provider parent privileges lifeCycle keyVersion failedAuthentications size keys { nodes { version } }"
    nested = "loadFiles { nodes { aid } } applications { nodes { aid } }"
    query = f'{{ card(iccid: "{CARD}") {{ securityDomains {{ nodes {{ {fields} {nested} }} }} }} }}'
    nodes = person(world, "operator", "domains").data(query)["card"]["securityDomains"]["nodes"]
    domain = next(node for node in nodes if node["aid"] == JPKI_DOMAIN)
    assert {name: domain[name] for name in ("lifeCycle", "size")} == {"lifeCycle": "PERSONALIZED", "size": 1234}
    assert [domain[name] for name in ("provider", "parent", "privileges", "keyVersion")] == [None] * 4
    assert domain["failedAuthentications"] == 0
    versions = [key["version"] for key in domain["keys"]["nodes"]]
    assert 2 not in versions  # the provider's own


def test_a_provider_is_not_told_when_another_changed_the_card(world: World) -> None:
    query = f'{{ card(iccid: "{CARD}") {{ changed }} }}'
    told = {who: person(world, who, "changed").data(query)["card"]["changed"] for who in ("operator", "provider")}
    assert told["operator"] > 0
    assert told["provider"] is None


@pytest.mark.parametrize("moment", ["", "(atPosition: 110)", '(atTime: "2030-01-01T00:00:00Z")'])
@pytest.mark.parametrize(
    ("who", "iccid", "own", "outlined", "hidden"),
    [
        ("operator", CARD, [], [JPKI_DOMAIN, BANK_DOMAIN], []),
        ("provider", CARD, [JPKI_DOMAIN], [], [BANK_DOMAIN]),
        ("sibling", CARD, [BANK_DOMAIN], [], [JPKI_DOMAIN]),
    ],
)
def test_the_tree_of_a_card_shows_each_his_own(
    world: World, who: str, iccid: str, own: list[str], outlined: list[str], hidden: list[str], moment: str
) -> None:
    query = (
        f'{{ card(iccid: "{iccid}") {{ domainTree{moment} {{ aid keys {{ version }} domains {{ aid parent privileges'
    )
    query += " keys { version } loadFiles { aid } applications { aid } domains { aid } } } } }"
    tree = person(world, who, "tree").data(query)["card"]["domainTree"]
    domains = {domain["aid"]: domain for domain in tree["domains"]}

    assert set(domains) == {*own, *outlined}
    assert set(domains) & set(hidden) == set()
    assert (tree["keys"] == []) is (who != "operator")  # the issuer's keys are the operator's affair
    for aid in own:
        assert domains[aid]["parent"] == tree["aid"] and domains[aid]["privileges"] == "800000"
    for aid in outlined:
        outline = {"parent": None, "privileges": None, "keys": [], "loadFiles": [], "applications": [], "domains": []}
        assert {name: domains[aid][name] for name in outline} == outline


def test_events_of_others_are_seen_in_outline_only(world: World) -> None:
    query = f'{{ events(first: 100, filter: {{kinds: ["card."], card: "{CARD}"}}) {{ nodes'
    query += " { topic tenant provider text reason tenants request causation command } } }"
    nodes = person(world, "operator", "events").data(query)["events"]["nodes"]
    foreign = [node for node in nodes if node["provider"] and node["tenant"] != MNO]
    assert foreign != []
    for node in foreign:
        assert [node[name] for name in ("text", "reason", "tenants", "request", "causation", "command")] == [None] * 6


def test_who_was_shown_personal_data_is_told_to_overseers_only(world: World) -> None:
    officer = world.person("security-officer", "*", "reader")
    officer.data('{ credentials { nodes { personalData(purpose: "a test") { applicant } } } }')
    world.catch_up()
    asked = '{ events(filter: {kinds: ["reading."], readings: true}) { nodes { topic actor text } } }'

    [read] = officer.data(asked)["events"]["nodes"]
    assert (read["topic"], read["actor"]) == ("reading.data_accessed", "security-officer:reader")
    assert officer.data('{ events(filter: {kinds: ["reading."]}) { nodes { topic } } }')["events"]["nodes"] == []
    for who in ("operator", "provider", "clerk"):
        [error] = person(world, who, "reader").ask(asked)["errors"]
        assert error["extensions"]["code"] == "INVALID_INPUT"
    event = base64.urlsafe_b64encode(f"Event:{world.parts.tsm.position}".encode()).decode()
    query = f'{{ node(id: "{event}") {{ id }} }}'
    assert officer.data(query)["node"] == {"id": event}
    assert all(person(world, who, "reader").data(query)["node"] is None for who in SOMEBODY)


def test_counts_count_what_the_viewer_sees(world: World) -> None:
    for who in SOMEBODY:
        client = person(world, who, "counts")
        counted = {
            c["kind"]: c["count"] for c in client.data("{ counts { kind value count } }")["counts"] if not c["value"]
        }
        for name, kind in (("cards", "cards"), ("credentials", "credentials"), ("sessions", "sessions")):
            if SOMEBODY[who][0] in RULES[f"Query.{name}"]:
                found = client.data(f"{{ {name}(first: 100) {{ nodes {{ id }} }} }}")[name]["nodes"]
                assert counted.get(kind, 0) == len(found)


def test_parked_events_name_streams_of_all_and_are_told_to_nobody_of_one_tenant(world: World) -> None:
    query = "{ readModels { name parked { stream } } }"
    for who in ("auditor of an operator", "auditor of a provider"):
        assert {e["extensions"]["code"] for e in person(world, who, "parked").ask(query)["errors"]} == {"FORBIDDEN"}
    assert "errors" not in world.person("auditor", "*").ask(query)
    assert "errors" not in world.person("administrator", "*").ask(query)


def test_on_postgresql_nobody_sees_what_is_anothers_either(postgres_store: Database, tmp_path: Path) -> None:
    made = World(tmp_path, postgres_store.runtime_dsn)
    try:
        for who, (role, _, foreign) in SOMEBODY.items():
            for number, query in enumerate(everything(role, 1)):
                answer = person(made, who, str(number // 40)).ask(query)
                assert [e for e in answer.get("errors", ()) if "parked" not in e.get("path", ())] == [], query
                text = json.dumps(answer)
                assert [word for word in foreign if word in text] == [], query
    finally:
        made.close()
