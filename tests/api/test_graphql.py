"""The queries of the admin API: what they tell, page by page, now and at past moments, and what they refuse."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from graphql import (
    BreakingChange,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
    find_breaking_changes,
    get_introspection_query,
    parse,
)

from api.bench.postgres import Database
from api.graphql.documents import blank
from api.graphql.schema import SCHEMA, sdl
from api.graphql.types import reading
from api.graphql.types.paging import cursor
from projections.postgres import PostgresViews
from projections.runner import Runner
from projections.views import Views
from tests.api.admin_world import Client
from tests.api.graphql_world import World
from tests.projections.registry_story import (
    APPLICATION,
    BANK,
    BANK_DOMAIN,
    CARD,
    CREDENTIAL,
    ISD,
    JPKI,
    JPKI_DOMAIN,
    MNO,
    SECRETS,
    SUBJECT,
    Story,
)
from tsm.errors import ErrorCode, TsmError
from tsm.flows.erasure import Erasure, by_the_follower
from tsm.model import card
from tsm.model.credential import ErasureOrdered
from tsm.model.event import Event
from tsm.store.log import Unreadable
from tsm.store.loop import run

UNKNOWN = "8981100000000000093"
COMMITTED = Path(__file__).parents[2] / "schema.graphql"
HISTORY = """query ($iccid: String!, $first: Int, $after: String, $last: Int, $before: String) {
  card(iccid: $iccid) {
    issuanceHistory(first: $first, after: $after, last: $last, before: $before) {
      edges { cursor node { position topic text } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
}"""
LISTS = ("cards", "securityDomains", "loadFiles", "applications", "keys", "credentials", "operators", "providers",
         "terminals", "authorities", "catalogue", "delegations", "sessions", "operations", "events")  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For tests that only read."""
    made = World(tmp_path_factory.mktemp("graphql"))
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def officer(shared: World, request: pytest.FixtureRequest) -> Client:
    """Under another name in each test, for each has a budget."""
    return shared.person("security-officer", "*", hashlib.sha256(request.node.name.encode()).hexdigest()[:16])


def refused(client: Client, query: str, **variables: Any) -> tuple[str, str]:
    """Code and message of the only error."""
    (error,) = client.ask(query, **variables)["errors"]
    assert len(error["extensions"]["requestId"]) == 16
    return error["extensions"]["code"], error["message"]


def everything(world: World) -> list[Any]:
    return world.parts.tsm.at(list(range(1, world.parts.tsm.position + 1)))


# Cards


def test_the_domain_tree_of_a_card(officer: Client) -> None:
    keys = "keys { version checkValues provisional current }"
    found = officer.data(
        "query ($iccid: String!) { card(iccid: $iccid) { iccid operator profile isd domainTree {"
        f" aid parent privileges lifeCycle {keys} domains {{ aid parent lifeCycle failedAuthentications size {keys}"
        " loadFiles { aid size } applications { aid lifeCycle } domains { aid } } } } }",
        iccid=CARD,
    )["card"]

    domains = found["domainTree"].pop("domains")
    assert found == {
        "iccid": CARD,
        "operator": MNO,
        "profile": "DEMO-1",
        "isd": ISD,
        "domainTree": {
            "aid": ISD,
            "parent": None,
            "privileges": None,
            "lifeCycle": "SECURED",
            "keys": [{"version": 48, "checkValues": [], "provisional": False, "current": True}],
        },
    }
    assert [domain["aid"] for domain in domains] == [JPKI_DOMAIN, BANK_DOMAIN]
    assert domains[0] == {
        "aid": JPKI_DOMAIN,
        "parent": ISD,
        "lifeCycle": "PERSONALIZED",
        "failedAuthentications": 2,
        "size": 1234,
        "keys": [
            {"version": 1, "checkValues": ["01aaaa", "01bbbb", "01cccc"], "provisional": True, "current": False},
            {"version": 2, "checkValues": ["02aaaa", "02bbbb", "02cccc"], "provisional": False, "current": True},
        ],
        "loadFiles": [{"aid": "D392F0002601FF", "size": 1234}],
        "applications": [{"aid": APPLICATION, "lifeCycle": "PERSONALIZED"}],
        "domains": [],
    }


def test_the_domain_tree_of_a_past_position_or_time(shared: World, officer: Client) -> None:
    query = (
        "query ($iccid: String!, $p: Position, $t: DateTime) { card(iccid: $iccid) {"
        " domainTree(atPosition: $p, atTime: $t) { domains { aid lifeCycle keys { version current } } } } }"
    )
    of_card = [event for event in everything(shared) if event.originator_id == f"card-{CARD}"]
    registered, created, put = [event.position for event in of_card[:3]]
    then = {"domains": [{"aid": JPKI_DOMAIN, "lifeCycle": "PERSONALIZED", "keys": [{"version": 1, "current": True}]}]}

    def tree(**moment: object) -> object:
        return officer.data(query, iccid=CARD, **moment)["card"]["domainTree"]

    assert tree(p=put) == then
    assert tree(t=of_card[2].recorded_at.isoformat())["domains"][0]["aid"] == JPKI_DOMAIN
    assert tree(p=registered) == {"domains": []}
    assert tree(p=registered - 1) is None
    assert tree(p=created)["domains"][0]["keys"] == []
    assert tree(p=shared.parts.tsm.position) == tree()


@pytest.mark.parametrize(
    "moment", [{"p": 5, "t": "2026-11-21T02:00:00Z"}, {"t": "2026-11-21T02:00:00"}], ids=["both", "without offset"]
)
def test_a_moment_that_is_not_one_is_refused(officer: Client, moment: dict[str, object]) -> None:
    query = (
        "query ($iccid: String!, $p: Position, $t: DateTime) { card(iccid: $iccid) {"
        " domainTree(atPosition: $p, atTime: $t) { aid } } }"
    )
    assert refused(officer, query, iccid=CARD, **moment)[0] == "INVALID_INPUT"


def test_an_unregistered_card_is_null(officer: Client) -> None:
    assert officer.data(HISTORY, iccid=UNKNOWN) == {"card": None}


def test_the_history_of_a_card_has_its_own_events_and_those_of_credentials_meant_for_it(
    shared: World, officer: Client
) -> None:
    edges = officer.data(HISTORY, iccid=CARD, first=100)["card"]["issuanceHistory"]["edges"]
    topics = [edge["node"]["topic"] for edge in edges]
    assert topics[0] == "card.registered"
    assert {"card.keys_put", "credential.applied", "session.started", "delegation.ended"} <= set(topics)
    positions = [edge["node"]["position"] for edge in edges]
    assert positions == sorted(positions)
    assert not any(secret in str(edges) for secret in SECRETS)


def test_every_field_of_an_event(shared: World, officer: Client) -> None:
    (event,) = [e for e in everything(shared) if e.topic == "credential.applied" and CREDENTIAL in e.originator_id]
    found = officer.data(
        "query ($id: ID!) { node(id: $id) { ... on Event { position topic text actor role tenant tenants operator"
        " provider municipality occurredAt recordedAt correlation causation request command reason card domain aid"
        " reception credential subject stream number values } } }",
        id=base64.urlsafe_b64encode(f"Event:{event.position}".encode()).decode(),
    )["node"]
    values = found.pop("values")
    assert found == {
        "position": event.position,
        "topic": "credential.applied",
        "text": "credential applied for at terminal T-13101-01 in 13101",
        "actor": "terminal:T-13101-01",
        "role": "terminal",
        "tenant": "",
        "tenants": [],
        "operator": None,
        "provider": JPKI,
        "municipality": "13101",
        "occurredAt": event.occurred_at.isoformat(),
        "recordedAt": event.recorded_at.isoformat(),
        "correlation": CREDENTIAL,
        "causation": None,
        "request": None,
        "command": None,
        "reason": None,
        "card": CARD,
        "domain": None,
        "aid": None,
        "reception": None,
        "credential": CREDENTIAL,
        "subject": SUBJECT,
        "stream": f"credential-{CREDENTIAL}",
        "number": 1,
    }
    assert (values["subject"], values["applicant"], values["iccid"]) == (SUBJECT, "[sealed]", "[sealed]")


def test_who_could_have_written_a_key_is_one_query(officer: Client) -> None:
    found = officer.data(
        "query ($iccid: String!, $domain: String!) { keyHistory(iccid: $iccid, domain: $domain) { nodes {"
        " version checkValues provisional current found party reception actor recordedAt handedOutTo sharedBy sharedAt"
        " destroyedAt session { state live party reception operator exchanges } } } }",
        iccid=CARD,
        domain=JPKI_DOMAIN.lower(),
    )["keyHistory"]["nodes"]
    first, second = found
    assert (first["version"], first["provisional"], first["current"]) == (1, True, False)
    assert (first["party"], first["handedOutTo"], first["actor"]) == (MNO, JPKI, "phone")
    assert first["destroyedAt"] is not None
    assert first["session"]["party"] == MNO
    assert (second["version"], second["provisional"], second["current"]) == (2, False, True)
    assert (second["party"], second["sharedBy"], second["handedOutTo"]) == (JPKI, JPKI, None)
    assert second["checkValues"] == ["02aaaa", "02bbbb", "02cccc"]
    assert second["session"] == {
        "state": "ENDED", "live": False, "party": JPKI, "reception": second["reception"], "operator": MNO,
        "exchanges": 4,
    }  # fmt: skip
    assert datetime.fromisoformat(second["recordedAt"]).utcoffset() is not None


# Pages


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("size", [1, 3])
def test_pages_cover_a_list_once_forwards_and_backwards(officer: Client, name: str, size: int) -> None:
    whole = officer.data(f"{{ {name}(last: 30) {{ edges {{ cursor node {{ id }} }} nodes {{ id }} }} }}")[name]
    every = [edge["node"]["id"] for edge in whole["edges"]]
    assert every == [node["id"] for node in whole["nodes"]] != []
    assert len(set(every)) == len(every)
    start = officer.data(f"{{ {name}(last: 31) {{ edges {{ cursor }} }} }}")[name]["edges"]
    after = start[0]["cursor"] if len(start) > len(every) else None

    assert list(walk(officer, name, f"first: {size}, after", "endCursor", "hasNextPage", after)) == every
    backwards = list(walk(officer, name, f"last: {size}, before", "startCursor", "hasPreviousPage", None, len(every)))
    assert backwards == every


def walk(
    client: Client, name: str, window: str, cursor_of: str, more_of: str, begin: str | None, most: int = 1000
) -> Iterator[str]:
    """The ids of a list, page by page, in the list's own order."""
    found: list[str] = []
    place, more = begin, True
    while more and len(found) < most:
        query = f"query ($c: String) {{ {name}({window}: $c) {{ nodes {{ id }} pageInfo"
        query += f" {{ {cursor_of} {more_of} }} }} }}"
        page = client.data(query, c=place)[name]
        ids = [node["id"] for node in page["nodes"]]
        found = found + ids if "after" in window else ids + found
        place, more = page["pageInfo"][cursor_of], page["pageInfo"][more_of]
    yield from (found if "after" in window else found[-most:])


def test_a_nested_list_has_pages_too(officer: Client) -> None:
    page = "securityDomains(first: 2, after: $after) { nodes { iccid } pageInfo { hasNextPage endCursor } }"
    query = f'query ($after: String) {{ providers(filter: {{party: "{JPKI}"}}) {{ nodes {{ {page} }} }} }}'
    first = officer.data(query)["providers"]["nodes"][0]["securityDomains"]
    second = officer.data(query, after=first["pageInfo"]["endCursor"])["providers"]["nodes"][0]["securityDomains"]
    assert (len(first["nodes"]), first["pageInfo"]["hasNextPage"]) == (2, True)
    assert (len(second["nodes"]), second["pageInfo"]["hasNextPage"]) == (1, False)


def test_each_row_of_a_page_has_its_own_nested_page(officer: Client) -> None:
    nested = "securityDomains(last: 1) { nodes { aid } } issuanceHistory(first: 1) { nodes { card topic } }"
    nodes = officer.data(f"{{ cards {{ nodes {{ iccid {nested} }} }} }}")["cards"]["nodes"]
    for node in nodes:
        alone = officer.data(f'{{ card(iccid: "{node["iccid"]}") {{ iccid {nested} }} }}')["card"]
        assert alone == node
        assert node["issuanceHistory"]["nodes"] == [{"card": node["iccid"], "topic": "card.registered"}]
    assert [len(node["securityDomains"]["nodes"]) for node in nodes] == [1, 1, 1]


def test_two_aliases_of_one_nested_list_may_ask_for_different_things(officer: Client) -> None:
    first = "a: issuanceHistory(first: 1) { nodes { topic } }"
    second = 'b: issuanceHistory(first: 1, filter: {kinds: ["session."]}) { nodes { topic } }'
    found = officer.data(f'{{ card(iccid: "{CARD}") {{ {first} {second} }} }}')["card"]
    assert (found["a"]["nodes"][0]["topic"], found["b"]["nodes"][0]["topic"]) == ("card.registered", "session.started")


def test_new_events_come_after_the_last_cursor(world: World) -> None:
    client = world.person("security-officer", "*")
    first = client.data(HISTORY, iccid=CARD, last=1)["card"]["issuanceHistory"]
    failed = card.CardAuthenticationFailed(domain=JPKI_DOMAIN, key_version=2, failures=3)
    story = Story()
    story.on_card(failed)
    number = sum(event.originator_id == f"card-{CARD}" for event in everything(world)) + 1
    [event] = story.events
    world.record([Event(**{**struct(event), "originator_version": number})])

    page = client.data(HISTORY, iccid=CARD, first=5, after=first["pageInfo"]["endCursor"])["card"]["issuanceHistory"]
    assert [edge["node"]["topic"] for edge in page["edges"]] == ["card.authentication_failed"]
    assert page["pageInfo"]["hasNextPage"] is False


def struct(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_a_page_beyond_the_end_is_empty(officer: Client) -> None:
    page = officer.data(HISTORY, iccid=CARD, first=5, after=cursor(10**6))["card"]["issuanceHistory"]
    assert page["edges"] == []
    assert page["pageInfo"] == {
        "hasNextPage": False, "hasPreviousPage": True, "startCursor": None, "endCursor": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"first": 0}, "first must be from 1 to 100"),
        ({"first": 101}, "first must be from 1 to 100"),
        ({"last": -1}, "last must be from 1 to 100"),
        ({"first": 1, "last": 1}, "first and last exclude each other"),
        ({"after": "x"}, "after is not a cursor of this server"),
        ({"after": ""}, "after is not a cursor of this server"),
        ({"after": "17"}, "after is not a cursor of this server"),
        ({"after": base64.b64encode(b"-1").decode()}, "after is not a cursor of this server"),
        ({"after": base64.b64encode(b" 1").decode()}, "after is not a cursor of this server"),
        ({"after": base64.b64encode(b"1_0").decode()}, "after is not a cursor of this server"),
        ({"after": base64.b64encode("٣".encode()).decode()}, "after is not a cursor of this server"),
        ({"after": "\u00ff\u00ff"}, "after is not a cursor of this server"),
        ({"before": base64.b64encode(str(2**53).encode()).decode()}, "before is not a cursor of this server"),
        ({"before": "OQ" * 4000}, "before is not a cursor of this server"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_bad_page_is_refused_with_a_code(
    officer: Client, variables: dict[str, object], message: str, nested: bool
) -> None:
    query = "query ($first: Int, $after: String, $last: Int, $before: String) { cards%s { nodes { id } } }"
    if nested:
        query = query.replace("cards%s { nodes { id } }", "cards { nodes { sessions%s { nodes { id } } } }")
    query %= "(first: $first, after: $after, last: $last, before: $before)"
    errors = officer.ask(query, **variables)["errors"]
    assert {(error["extensions"]["code"], error["message"]) for error in errors} == {("INVALID_INPUT", message)}


# Ids


@pytest.mark.parametrize("name", LISTS)
def test_ids_find_their_things_again(officer: Client, name: str) -> None:
    listed = officer.data(f"{{ {name}(first: 5) {{ nodes {{ id __typename }} }} }}")[name]["nodes"]
    ids = [node["id"] for node in listed]
    assert officer.data("query ($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }", ids=ids)["nodes"] == listed
    assert officer.data("query ($id: ID!) { node(id: $id) { id __typename } }", id=ids[-1])["node"] == listed[-1]


def test_nodes_come_in_the_order_of_their_ids_and_what_there_is_not_is_null(officer: Client) -> None:
    def named(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode()

    ids = [named(f"Credential:{CREDENTIAL}"), named(f"Card:{UNKNOWN}"), named("Event:1"), named(f"Card:{CARD}")]
    ids += [named("Event:999999"), named(f"Operator:provider|{JPKI}"), named(f"Provider:provider|{JPKI}"), ids[0]]
    found = officer.data("query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=ids)["nodes"]
    assert [node and node["id"] for node in found] == [
        ids[0], None, ids[2], ids[3], None, None, ids[6], ids[0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "node_id", ["", "x", "!!!!", "Q2FyZA==", "Q2FyZDo=", "Tm9uZTox", "w7_DvzE=", "RXZlbnQ6eA==", "RXZlbnQ6LTE=", "٣"]
)
def test_a_foreign_id_is_refused_with_a_code(officer: Client, node_id: str) -> None:
    assert refused(officer, "query ($id: ID!) { node(id: $id) { id } }", id=node_id)[0] == "INVALID_INPUT"


@pytest.mark.parametrize("key", ["x", "' OR 1=1 --", "a\u0000b", "8981100000000000010|", "%"])
def test_an_id_with_a_strange_key_finds_nothing(officer: Client, key: str) -> None:
    made = base64.urlsafe_b64encode(f"Card:{key}".encode()).decode()
    assert officer.data("query ($id: ID!) { node(id: $id) { id } }", id=made) == {"node": None}


def test_too_many_ids_are_refused(officer: Client) -> None:
    ids = [base64.urlsafe_b64encode(b"Event:1").decode()] * 101
    assert refused(officer, "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=ids)[1] == "at most 100 ids"


@pytest.mark.parametrize("iccid", ["", "x", "8981100000000000011", "' OR 1=1 --", "８９８１１０"])
def test_a_bad_iccid_is_refused_with_a_code(officer: Client, iccid: str) -> None:
    assert refused(officer, HISTORY, iccid=iccid)[0] == "INVALID_INPUT"


# Filters


def test_filters_of_events_find_exactly_the_events_that_are_so(shared: World, officer: Client) -> None:
    """Against a look at every event of the log."""
    asked = "{ position topic actor tenant provider correlation reception card credential subject stream recordedAt }"
    every = list(all_events(officer, asked))
    assert [event["position"] for event in every] == list(range(1, shared.parts.tsm.position + 1))

    for name in ("actor", "provider", "correlation", "reception", "card", "credential", "subject", "stream"):
        for value in {event[name] for event in every} - {None, ""}:
            wanted = [event["position"] for event in every if event[name] == value]
            assert found(officer, **{name: value}) == wanted, (name, value)
    for topic in {event["topic"] for event in every}:
        prefix = topic.partition(".")[0] + "."
        assert found(officer, kinds=[topic]) == [e["position"] for e in every if e["topic"] == topic]
        assert found(officer, kinds=[prefix]) == [e["position"] for e in every if e["topic"].startswith(prefix)]
    begin, end = every[20]["recordedAt"], every[40]["recordedAt"]
    within = [e["position"] for e in every if begin <= e["recordedAt"] <= end]
    assert found(officer, recordedFrom=begin, recordedTo=end) == within


def found(client: Client, **wanted: object) -> list[int]:
    return [event["position"] for event in all_events(client, "{ position }", **wanted)]


def all_events(client: Client, selection: str, **wanted: object) -> Iterator[dict[str, Any]]:
    query = "query ($filter: EventsFilter, $after: String) { events(first: 100, filter: $filter, after: $after) {"
    query += f" nodes {selection} pageInfo {{ hasNextPage endCursor }} }} }}"
    after, more = None, True
    while more:
        page = client.data(query, filter=wanted, after=after)["events"]
        yield from page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]


@pytest.mark.parametrize(
    ("name", "filter", "column"),
    [
        ("cards", {"operator": MNO}, "operator"),
        ("securityDomains", {"provider": BANK, "iccid": CARD}, "provider"),
        ("applications", {"aid": APPLICATION}, "aid"),
        ("keys", {"current": False}, "current"),
        ("keys", {"provisional": True, "iccid": CARD}, "provisional"),
        ("credentials", {"stage": "APPLIED"}, "stage"),
        ("credentials", {"subject": SUBJECT}, "subject"),
        ("sessions", {"live": True}, "live"),
        ("sessions", {"live": False, "party": JPKI}, "live"),
        ("operations", {"state": "CANCELLED"}, "state"),
        ("providers", {"party": JPKI}, "party"),
        ("terminals", {"municipality": "27100"}, "municipality"),
        ("delegations", {"party": MNO}, "party"),
    ],
)
def test_filters_of_lists_leave_what_is_so(officer: Client, name: str, filter: dict[str, object], column: str) -> None:
    kind = {"cards": "Cards", "keys": "KeySets"}.get(name, name[0].upper() + name[1:]) + "Filter"
    query = f"query ($filter: {kind}) {{ {name}(first: 100, filter: $filter) {{ nodes {{ id {column} }} }} }}"
    left = officer.data(query, filter=filter)[name]["nodes"]
    every = officer.data(query)[name]["nodes"]
    assert left != [] and {node[column] for node in left} == {filter[column]}
    if len(filter) == 1:
        assert left == [node for node in every if node[column] == filter[column]]
    assert len(left) < len(every) or name in ("applications",)


@pytest.mark.parametrize(
    "filter",
    [
        {"kinds": ["card."] * 21},
        {"kinds": ["x" * 256]},
        {"actor": "a\u0000b"},
        {"subject": "x" * 256},
        {"aid": "no hex"},
        {"recordedFrom": "2026-11-21T02:00:00"},
    ],
)
def test_a_bad_filter_of_events_is_refused(officer: Client, filter: dict[str, object]) -> None:
    query = "query ($filter: EventsFilter) { events(filter: $filter) { nodes { id } } }"
    assert refused(officer, query, filter=filter)[0] == "INVALID_INPUT"


def test_what_the_place_of_a_field_says_cannot_be_filtered_away(officer: Client) -> None:
    query = f'{{ card(iccid: "{CARD}") {{ issuanceHistory(filter: {{card: "{UNKNOWN}"}}) {{ nodes {{ id }} }} }} }}'
    assert refused(officer, query) == ("INVALID_INPUT", "card is given by the place of the field")


@pytest.mark.parametrize("value", ["a\u0000b", "' OR 1=1 --", "x" * 10_000])
def test_a_strange_value_of_a_filter_finds_nothing_or_is_refused(officer: Client, value: str) -> None:
    answer = officer.ask("query ($o: String) { cards(filter: {operator: $o}) { nodes { id } } }", o=value)
    if "errors" in answer:
        assert answer["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    else:
        assert answer["data"] == {"cards": {"nodes": []}}


# What a page costs


def counted(views: Views, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looks: list[str] = []
    look = views.look

    def counting(work: Callable[[Any], Any]) -> Any:
        looks.append("a look")
        return look(work)

    monkeypatch.setattr(views, "look", counting)
    return looks


@pytest.mark.parametrize(
    "selection",
    [
        "iccid securityDomains(first: 5) { nodes { aid keys { nodes { version session { state } } } } }",
        "iccid issuanceHistory(first: 3) { nodes { text } }",
        "iccid domainTree { aid domains { aid } } operations { nodes { kind events(first: 2) { nodes { topic } } } }",
        "sessions { nodes { card { iccid } events(first: 2) { nodes { text } } } } delegations { nodes { status } }",
    ],
)
def test_a_page_of_three_rows_asks_as_many_queries_as_a_page_of_one(
    shared: World, officer: Client, monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    looks = counted(shared.parts.views, monkeypatch)
    for role, tenant in (("security-officer", "*"), ("operator", f"operator:{MNO}"), ("provider", f"provider:{JPKI}")):
        client = shared.person(role, tenant, "counted")
        client.data(f"{{ cards(first: 1) {{ nodes {{ {selection} }} }} }}")
        of_one = len(looks)
        nodes = client.data(f"{{ cards(first: 3) {{ nodes {{ {selection} }} }} }}")["cards"]["nodes"]
        of_three = len(looks) - of_one
        looks.clear()
        assert len(nodes) >= 2
        assert of_three == of_one


def test_the_log_is_read_only_when_the_selection_asks_for_what_it_says(
    shared: World, officer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    at = shared.parts.tsm.at
    monkeypatch.setattr(shared.parts.tsm, "at", lambda *given: reads.append(given) or at(*given))
    officer.data("{ events(first: 20) { nodes { topic actor recordedAt stream subject } } }")
    assert reads == []
    officer.data("{ events(first: 20) { ...F } } fragment F on EventConnection { edges { node { text } } }")
    assert len(reads) == 1


# Personal data


PERSONAL = """query ($purpose: String!) { credentials(filter: {subject: "subject-1"}) { nodes { subject
  personalData(purpose: $purpose) {
    subject applicant iccid mainCertificateSerial authenticationSerial signatureSerial
  } } } }"""


def readings(world: World) -> list[Any]:
    return [event for event in everything(world) if event.topic == "reading.data_accessed"]


def test_personal_data_is_unsealed_for_a_purpose_and_recorded_before_it_is_shown(world: World) -> None:
    kato = world.person("security-officer", "*", "kato")
    (node,) = kato.data(PERSONAL, purpose=" a court order ")["credentials"]["nodes"]
    assert node["personalData"] == {
        "subject": SUBJECT,
        "applicant": "YAMADA TARO",
        "iccid": CARD,
        "mainCertificateSerial": "SERIAL-MAIN",
        "authenticationSerial": "SERIAL-AUTHENTICATION",
        "signatureSerial": "SERIAL-SIGNATURE",
    }
    (event,) = readings(world)
    assert (event.fact.purpose, event.fact.subjects) == ("a court order", (SUBJECT,))
    assert event.fact.query_sha256 == sha256_of(PERSONAL.replace('"subject-1"', '""'))
    assert (event.context.actor, event.context.role) == ("security-officer:kato", "security-officer")
    assert len(event.context.request) == 16
    assert "YAMADA" not in str(event)


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_whom_a_document_names_is_not_told_by_the_hash_that_a_reading_leaves(world: World) -> None:
    """Whoever has the hash of a text with a number in it has the number, for he may try them all."""
    asked = '{{ credentials(filter: {{{}}}) {{ nodes {{ personalData(purpose: "a test") {{ applicant }} }} }} }}'
    documents = [asked.format(f'subject: "{SUBJECT}"'), asked.format(f'iccid: """{CARD}"""')]
    auditor = world.person("auditor", "*")
    for document in documents:
        assert auditor.data(document)["credentials"]["nodes"]
    recorded = [event.fact.query_sha256 for event in readings(world)]
    blank = asked.replace('"a test"', '""')
    assert recorded == [sha256_of(blank.format(f'{name}: ""')) for name in ("subject", "iccid")]


def test_a_document_that_names_nobody_is_known_by_the_hash_of_its_text(world: World) -> None:
    document = """query Everybody($purpose: String!) {
      credentials { nodes { personalData(purpose: $purpose) { applicant } } } }"""
    world.person("auditor", "*").data(document, purpose="a test")
    (event,) = readings(world)
    assert event.fact.query_sha256 == sha256_of(document)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{ a(b: "+447700900001") }', '{ a(b: "") }'),
        ('{ a(b: """+447700900001 \\""" "1" """) c }', '{ a(b: "") c }'),
        ('{ a(b: "\\" #", c: "") } # d', '{ a(b: "", c: "") } #'),
        ("{ a(b: 447700900001, c: [-1, 1.5e3]) }", "{ a(b: 0, c: [0, 0]) }"),
        ('{ a(b: {c: "名前 🗝"}) }\r\n#\t+447700900001\r\n', '{ a(b: {c: ""}) }\r\n#\r\n'),
        ("\ufeffquery A($b: [C!]! = []) {\ta(b: $b, c: D, e: true, f: null) }", None),
    ],
)
def test_of_a_text_all_is_left_but_what_stands_in_strings_numbers_and_comments(text: str, left: str | None) -> None:
    assert blank(text, parse(text)) == (text if left is None else left)


def test_one_request_leaves_one_event_for_all_persons(world: World) -> None:
    purpose = 'personalData(purpose: "a test") { applicant }'
    world.person("auditor", "*").data(f"{{ credentials {{ nodes {{ {purpose} again: {purpose} }} }} }}")
    (event,) = readings(world)
    assert set(event.fact.subjects) == {SUBJECT, "subject of other-credential", "subject of bank-credential"}


def test_only_what_is_selected_is_unsealed_and_each_alias_has_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []
    unseal = world.parts.vault.unseal
    monkeypatch.setattr(world.parts.vault, "unseal", lambda *given: opened.append(given[2]) or unseal(*given))
    told = world.person("auditor", "*").data(
        """{ credentials(filter: {subject: "subject-1"}) { nodes {
          none: personalData(purpose: "x") { subject }
          name: personalData(purpose: "x") { applicant }
          serial: personalData(purpose: "x") { ...F }
        } } } fragment F on PersonalData { mainCertificateSerial }"""
    )["credentials"]["nodes"]
    assert told == [
        {
            "none": {"subject": SUBJECT},
            "name": {"applicant": "YAMADA TARO"},
            "serial": {"mainCertificateSerial": "SERIAL-MAIN"},
        }
    ]
    assert [place.rpartition(b"|")[2] for place in opened] == [b"applicant", b"serial"]


def test_pseudonyms_alone_leave_no_reading(world: World) -> None:
    world.person("auditor", "*").data("{ credentials { nodes { subject iccid stage } } events { nodes { subject } } }")
    assert readings(world) == []


@pytest.mark.parametrize("purpose", ["", "  ", "x" * 201, "a\nb", "a\u0000"])
def test_what_is_no_purpose_is_refused(world: World, purpose: str) -> None:
    answer = world.person("auditor", "*").ask(PERSONAL, purpose=purpose)
    assert answer["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    assert "YAMADA" not in json.dumps(answer)
    assert readings(world) == []


def test_one_request_has_one_purpose(world: World) -> None:
    query = '{ a: credentials { nodes { a: personalData(purpose: "x") { applicant } } }'
    query += ' b: credentials { nodes { b: personalData(purpose: "y") { applicant } } } }'
    answer = world.person("auditor", "*").ask(query)
    assert answer["errors"][0]["message"] == "one request has one purpose"
    assert [event.fact.purpose for event in readings(world)] in ([], ["x"])
    assert "YAMADA" not in json.dumps(answer["data"] and answer["data"].get("b"))


@pytest.mark.parametrize("code", [ErrorCode.STORE_UNAVAILABLE, ErrorCode.STORE_BUSY])
def test_what_cannot_be_recorded_is_not_shown(world: World, monkeypatch: pytest.MonkeyPatch, code: ErrorCode) -> None:
    """The disk is full, or too many wait."""

    def fails(*_: object, **__: object) -> int:
        raise TsmError(code, "the inside of the store")

    monkeypatch.setattr(world.parts.tsm, "commit", fails)
    answer = world.person("auditor", "*").ask(PERSONAL, purpose="a test")
    assert "YAMADA" not in json.dumps(answer) and "inside" not in json.dumps(answer)
    assert code in json.dumps(answer)
    assert not answer.get("data")
    assert readings(world) == []


def test_of_an_erased_person_nothing_is_left_to_unseal(world: World) -> None:
    client, erasure = world.person("auditor", "*"), Erasure(world.parts.tsm, world.parts.vault)
    query = '{ credential(id: "bank-credential") { iccid closed personalData(purpose: "x") { applicant iccid } } }'
    assert client.data(query)["credential"]["personalData"]["applicant"] == "YAMADA TARO"
    erasure.erase("bank-credential", by_the_follower("asked to"))
    world.catch_up()
    found = client.data(query)["credential"]
    assert found["personalData"] == {"applicant": None, "iccid": None}
    assert (found["iccid"], found["closed"]) == (None, "erased")


def test_nobody_is_unsealed_once_the_erasure_is_ordered_though_the_key_is_still_there(world: World) -> None:
    story = Story()
    story.on_credential(ErasureOrdered(subject=SUBJECT, in_use=False))
    [ordered] = story.events
    number = len(list(world.parts.tsm.history(ordered.originator_id))) + 1
    world.record([msgspec.structs.replace(ordered, originator_version=number)])
    answer = world.person("auditor", "*").ask(PERSONAL, purpose="a test")
    assert "errors" not in answer and "YAMADA" not in json.dumps(answer) and CARD not in json.dumps(answer)
    assert readings(world) == []


# The server


def test_an_event_that_cannot_be_read_is_an_error_in_its_place_and_spoils_no_other(
    shared: World, officer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = shared.parts.tsm.at

    def damaged(positions: Any, *unseals: Any) -> list[Any]:
        error = TsmError(ErrorCode.STORE_CORRUPT, "an event does not decode")
        return [
            Unreadable(e.position, e.originator_id, e.originator_version, e.topic, error) if e.position == 5 else e
            for e in at(positions, *unseals)
        ]

    monkeypatch.setattr(shared.parts.tsm, "at", damaged)
    answer = officer.ask(f'{{ events(first: 3, after: "{cursor(3)}") {{ nodes {{ position text topic }} }} }}')
    assert [node["position"] for node in answer["data"]["events"]["nodes"]] == [4, 5, 6]
    assert [node["text"] is None for node in answer["data"]["events"]["nodes"]] == [False, True, False]
    [error] = answer["errors"]
    assert error["path"] == ["events", "nodes", 1, "text"]
    assert error["extensions"]["code"] == "STORE_CORRUPT"
    assert error["message"] == "the store holds something that does not decode"


def test_read_models_say_how_far_they_are_and_what_they_lack(shared: World, officer: Client) -> None:
    answer = officer.data("{ logPosition readModels { name version position parkedCount parked { position } } }")
    assert answer["logPosition"] == shared.parts.tsm.position
    assert {model["name"] for model in answer["readModels"]} == {p.name for p in shared.parts.views.projections}
    assert {model["position"] for model in answer["readModels"]} == {shared.parts.views.position}
    models = answer["readModels"]
    assert [len(model["parked"]) for model in models] == [model["parkedCount"] for model in models]


def test_counts_tell_how_many_there_are_of_everything(officer: Client) -> None:
    counts = {(c["kind"], c["value"]): c["count"] for c in officer.data("{ counts { kind value count } }")["counts"]}
    assert (counts["cards", None], counts["credentials", None]) == (3, 3)
    assert counts["credentials", "APPLIED"] == 2
    assert counts["parties", "operator"] == 2


def test_a_caller_is_told_who_he_is(shared: World) -> None:
    found = shared.person("operator", f"operator:{MNO}", "alice").data(
        "{ viewer { actor role party person sees tenant expiresAt mayAsk mayDo } }"
    )["viewer"]
    expires, may = found.pop("expiresAt"), found.pop("mayAsk")
    found.pop("mayDo")
    assert found == {
        "actor": f"operator:{MNO}/alice", "role": "operator", "party": MNO, "person": "alice", "sees": "operator",
        "tenant": MNO,
    }  # fmt: skip
    assert datetime.fromisoformat(expires) > shared.parts.clock()
    assert "cards" in may and "credentials" not in may


def test_an_auditor_may_introspect_with_the_usual_query(shared: World) -> None:
    answer = shared.person("auditor", "*", "introspects").data(get_introspection_query())
    assert answer["__schema"]["queryType"]["name"] == "Query"


def test_what_goes_wrong_inside_is_masked_and_logged_under_the_request_id(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the inside of the file")

    monkeypatch.setattr(world.parts.views, "read", broken)
    (error,) = world.person("auditor", "*").ask("{ cards { nodes { id } } }")["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "inside" not in str(error)
    assert "the inside of the file" in caplog.text
    assert error["extensions"]["requestId"] in caplog.text


# Read your writes


def test_a_query_waits_until_its_position_is_read(world: World) -> None:
    client = world.person("auditor", "*")
    story = Story()
    story.card(UNKNOWN)
    before = world.parts.views.position
    runner = Runner(world.parts.tsm, world.parts.views)
    world.catch_up = lambda: None  # type: ignore[method-assign]
    world.record(story.events)
    assert world.parts.views.position == before
    runner.start()
    try:
        query = "query ($iccid: String!, $p: Position) { card(iccid: $iccid, minPosition: $p) { iccid } }"
        assert client.data(query, iccid=UNKNOWN, p=world.parts.tsm.position)["card"] == {"iccid": UNKNOWN}
    finally:
        runner.stop()


def test_a_read_model_that_stays_behind_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_YOUR_WRITES", 0.05)
    story = Story()
    story.card(UNKNOWN)
    world.catch_up = lambda: None  # type: ignore[method-assign]
    world.record(story.events)
    query = "query ($p: Position) { cards(minPosition: $p) { nodes { id } } }"
    (error,) = world.person("auditor", "*").ask(query, p=world.parts.tsm.position)["errors"]
    assert (error["extensions"]["code"], error["path"]) == ("READ_MODEL_BEHIND", ["cards"])


@pytest.mark.parametrize("position", [-1, 2**53, True, "1", 1.5])
def test_a_bad_position_is_refused_with_a_code(officer: Client, position: object) -> None:
    query = "query ($p: Position) { cards(minPosition: $p) { nodes { id } } }"
    assert refused(officer, query, p=position)[0] == "INVALID_INPUT"


def test_a_position_that_the_log_does_not_have_is_refused_at_once(officer: Client) -> None:
    query = "query ($p: Position) { cards(minPosition: $p) { nodes { id } } }"
    assert refused(officer, query, p=10**9) == ("INVALID_INPUT", "the log has no such position yet")


def test_reading_postgresql_on_the_event_loop_lets_others_go_on(postgres_store: Database) -> None:
    """A query of a database takes its time in a thread."""
    views = PostgresViews(postgres_store.runtime_dsn, ())

    async def turns_meanwhile() -> int:
        reading = asyncio.ensure_future(run(views.look, lambda session: session.execute("SELECT pg_sleep(0.2)")))
        turns = 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0.001)
        await reading
        return turns

    try:
        assert asyncio.run(turns_meanwhile()) > 10
    finally:
        views.close()


# The schema


def test_the_schema_in_the_repository_is_what_the_code_exports() -> None:
    """`make schema` writes it anew."""
    assert COMMITTED.read_text(encoding="utf-8") == sdl(), "\n".join(broken_promises()) or "only additions: make schema"


def broken_promises() -> list[str]:
    """What clients of the committed schema would notice, in words."""
    committed, now = build_schema(COMMITTED.read_text(encoding="utf-8")), build_schema(sdl())
    return [told(change) for change in find_breaking_changes(committed, now)]


def told(change: BreakingChange) -> str:
    return f"{change.type.name.replace('_', ' ').lower()}: {change.description}"


def test_no_client_of_the_committed_schema_is_broken() -> None:
    """A change that breaks clients is made in two steps: add the new, deprecate the old; or say so and commit both."""
    assert broken_promises() == []


def test_a_breaking_change_is_told_in_words() -> None:
    before = build_schema("type Query { card(iccid: String!): String, cards: String }")
    after = build_schema("type Query { card(iccid: String!, operator: String!): String }")
    assert sorted(told(change) for change in find_breaking_changes(before, after)) == [
        "field removed: Field Query.cards was removed.",
        "required arg added: A required argument Query.card(operator:) was added.",
    ]


def test_every_type_field_argument_and_value_is_documented() -> None:
    own = [kind for name, kind in SCHEMA._schema.type_map.items() if not name.startswith("__")]
    silent = [kind.name for kind in own if not kind.description]
    for kind in own:
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in kind.fields.items():
                silent += [] if field.description else [f"{kind.name}.{name}"]
                silent += [f"{kind.name}.{name}({a})" for a, given in field.args.items() if not given.description]
        elif isinstance(kind, GraphQLInputObjectType):
            silent += [f"{kind.name}.{name}" for name, field in kind.fields.items() if not field.description]
        elif isinstance(kind, GraphQLEnumType):
            silent += [f"{kind.name}.{name}" for name, value in kind.values.items() if not value.description]
    assert silent == []


def test_the_schema_is_sorted() -> None:
    definitions = [line.split()[1] for line in sdl().splitlines() if line.startswith(("type ", "input ", "interface "))]
    assert definitions == sorted(definitions)
