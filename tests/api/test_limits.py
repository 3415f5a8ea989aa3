"""What one document, one client and one minute may hold, and what is said when it is too much."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import get_introspection_query, parse
from hypothesis import given
from hypothesis import strategies as st

from api import limits as edge_limits
from api import tls
from api.access import Role
from api.graphql import gate as gates
from api.graphql import limits
from api.graphql.documents import CHARACTERS, Refused, read
from api.graphql.limits import (
    DEFAULT_PAGE,
    MAX_ALIASES,
    MAX_BODY,
    MAX_DEFINITIONS,
    MAX_DEPTH,
    MAX_DIRECTIVES,
    MAX_DOCUMENT,
    MAX_FAULTS,
    MAX_FIELDS,
    MAX_LINES,
    MAX_NESTING,
    MAX_PAGE,
    MAX_ROOT_FIELDS,
    MAX_SAME,
    MAX_SELECTIONS,
    MAX_VALUES,
    MAX_VARIABLES,
    PAST,
    UNPAGED,
    check_values,
    cost,
    crowd,
    excesses,
    operations_of,
)
from api.graphql.schema import SCHEMA as REAL
from api.limits import COST_PER_MINUTE, MINUTE, Balance, Budgets, EdgeLimits
from tests.api.edge_world import SCHEMA, Client, Edge


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    yield made
    made.close()


# Documents


def chained(fragments: int) -> str:
    """Each fragment spreads the next twice: 2^n fields for who follows every spread."""
    text = "query { item { ...F0 } } "
    for n in range(fragments):
        text += f"fragment F{n} on Item {{ ...F{n + 1} ...F{n + 1} }} "
    return text + f"fragment F{fragments} on Item {{ id }}"


def nested(levels: int) -> str:
    return "{ item " + "{ children " * (levels - 2) + "{ id }" + " }" * (levels - 1)


def fields(number: int) -> str:
    """Of different names, in some places."""
    return "{" + " ".join(f"f{n}" for n in range(20)) + "a {" + " ".join(f"g{n}" for n in range(number - 21)) + "} }"


def spread(selections: int) -> str:
    """Fields of one fragment, in an operation that has none of its own besides."""
    half = (selections - 2) // 2
    return "{ ...F } fragment F on Query {" + " ".join(f"f{n}" for n in range(half)) + "}"


AT_MOST = [  # what, a document with so many of it, how many there may be
    ("levels", nested, MAX_DEPTH),
    ("aliases", lambda n: "{ a {" + " ".join(f"a{i}: b" for i in range(n)) + "} }", MAX_ALIASES),
    ("root fields", lambda n: "{" + " ".join(f"f{i}" for i in range(n)) + "}", MAX_ROOT_FIELDS),
    ("fields of the same name", lambda n: "{ a {" + "b " * n + "} }", MAX_SAME),
    ("operations and fragments", lambda n: " ".join(f"query Q{i} {{ a }}" for i in range(n)), MAX_DEFINITIONS),
    ("directives", lambda n: "{ a" + " @a" * n + "}", MAX_DIRECTIVES),
    ("variables", lambda n: "query (" + " ".join(f"$v{i}: Int" for i in range(n)) + ") { a }", MAX_VARIABLES),
]


@pytest.mark.parametrize(("what", "document", "most"), AT_MOST, ids=[row[0] for row in AT_MOST])
def test_a_document_may_hold_so_many_and_not_one_more(what: str, document: Any, most: int) -> None:
    assert excesses(parse(document(most))) == []
    assert [error.message for error in excesses(parse(document(most + 1)))] == [f"the query exceeds {most} {what}"]


def test_fields_are_counted_with_every_fragment_spread_out() -> None:
    ten = "fragment F on Query { " + " ".join(f"f{n}" for n in range(10)) + " }"
    spread = "{ " + " ".join(f"a{n} {{ ...F }}" for n in range(10)) + " }"
    assert excesses(parse(spread + ten)) == []
    many = "{ " + " ".join(f"a{n} {{ b {{ ...F }} c {{ ...F }} d {{ ...F }} e {{ ...F }} }}" for n in range(12)) + " }"
    messages = [error.message for error in excesses(parse(many + ten))]
    assert f"the query exceeds {MAX_FIELDS} fields" in messages


def test_a_bomb_of_fragments_is_weighed_in_as_many_steps_as_it_has_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: 37 fragments that spread each other twice would be 2^37 steps."""
    weighed = []
    weigh = limits.Scales.weigh
    monkeypatch.setattr(limits.Scales, "weigh", lambda self, s: weighed.append(s) or weigh(self, s))
    messages = [error.message for error in excesses(parse(chained(37)))]
    assert f"the query exceeds {MAX_SELECTIONS} selections" in messages
    assert len(weighed) < 200


def test_the_same_name_is_counted_where_its_fields_would_meet() -> None:
    """In fragments, in inline fragments and below fields of the same name; but not in different places."""
    assert crowd(parse("{ a { b } a { b } ... { a { b } } ...F } fragment F on Q { a { b c } }")) == 4
    assert crowd(parse("{ a { x } b { x } c { x } }")) == 1
    assert crowd(parse("{ x: a y: a z: a }")) == 1
    assert crowd(parse("{ x: a x: b }")) == 2
    assert crowd(parse("{ ...F ...F ...F } fragment F on Q { a }")) == 1


def test_fragments_that_lead_back_to_themselves_are_left_to_validation() -> None:
    assert excesses(parse("{ ...A } fragment A on Q { a { ...B } } fragment B on Q { a { ...A } }")) == []


def test_fragments_that_nobody_spreads_are_bounded_too() -> None:
    """Validation looks at them as well."""
    text = "{ hello } fragment F on Query {" + "hello " * (MAX_SAME + 1) + "}"
    assert [error.message for error in excesses(parse(text))] == [
        f"the query exceeds {MAX_SAME} fields of the same name"
    ]


@given(
    st.recursive(st.just("b"), lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda x: x), max_leaves=60)
)
def test_the_crowd_is_the_largest_number_of_fields_of_one_path(tree: Any) -> None:
    """Against the definition: all paths of the document with everything spread out, counted."""

    def text(node: Any) -> str:
        return "a" if isinstance(node, str) else "a { " + " ".join(map(text, node)) + " }"

    def paths(node: Any, depth: int) -> Iterator[int]:
        yield depth
        for inner in node if isinstance(node, list) else ():
            yield from paths(inner, depth + 1)

    every = list(paths(tree, 0))
    assert crowd(parse("{ " + text(tree) + " }")) == max(every.count(depth) for depth in set(every))


def test_the_usual_introspection_query_is_within_all_limits(edge: Edge) -> None:
    assert edge.client().ask(get_introspection_query(descriptions=True, specified_by_url=True)).status_code == 200


def test_a_document_is_refused_by_its_length_before_it_is_read(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.graphql.documents.parse", lambda *_, **__: pytest.fail("it was read"))
    answer = edge.client().ask("{ hello }" + " " * MAX_DOCUMENT)
    assert answer.json()["errors"][0]["message"] == f"the query exceeds {MAX_DOCUMENT} characters"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_document_has_so_many_lines_and_not_one_more(edge: Edge, end: str) -> None:
    """Every error is told with its line, for which all lines before it are counted."""
    assert edge.client().ask(end * (MAX_LINES - 1) + "{ hello }").status_code == 200
    answer = edge.client().ask(end * MAX_LINES + "{ hello }")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["message"]) == (422, f"the query exceeds {MAX_LINES} lines")


def test_validation_ends_after_so_many_errors() -> None:
    """Each of these quotes the whole object, so that many of them would be quadratic."""
    unknown = " ".join(f"u{n}: 1" for n in range(300))
    errors = validated("{ events(filter: {" + unknown + "}) { nodes { id } } }")
    assert len(errors) == MAX_FAULTS + 1 and errors[-1].startswith("Too many validation errors")


def validated(text: str) -> list[str]:
    """What is wrong with a text for the real schema."""
    with pytest.raises(Refused) as refused:
        read(REAL._schema, text)
    return [error.message for error in refused.value.errors]


def test_the_limits_come_before_validation(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.graphql.documents.validate", lambda *_, **__: pytest.fail("it was validated"))
    for text in ("{" + "hello " * 480 + "}", chained(30), nested(MAX_DEPTH + 1), "{ hello" + " @x" * 300 + "}"):
        answer = edge.client().ask(text)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (422, "MESSAGE_TOO_LARGE")


def test_what_was_made_of_a_text_is_remembered(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{ hello # twice\n }"
    assert edge.client().ask(text).status_code == 200
    monkeypatch.setattr("api.graphql.documents.parse", lambda *_, **__: pytest.fail("it was read again"))
    assert edge.client().ask(text).status_code == 200


# Values


def deep(levels: int) -> Any:
    return 1 if levels == 0 else [deep(levels - 1)]


def test_a_json_text_may_hold_so_many_values_and_not_one_more() -> None:
    assert check_values({"a": [1] * (MAX_VALUES - 2)}) == []
    [error] = check_values({"a": [1] * (MAX_VALUES - 1)})
    assert error.message == f"the query exceeds {MAX_VALUES} values"
    [error] = check_values({"a": [{"b": [1, 2]}] * (MAX_VALUES // 3)})
    assert error.message == f"the query exceeds {MAX_VALUES} values"


def test_a_json_text_may_be_so_deep_and_not_deeper() -> None:
    assert check_values(deep(MAX_NESTING)) == []
    [error] = check_values(deep(MAX_NESTING + 1))
    assert error.message == f"the query exceeds {MAX_NESTING} levels of values"


def test_too_many_variables_are_refused_before_names_are_compared_and_the_document_is_read(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.graphql.documents.parse", lambda *_, **__: pytest.fail("it was read"))
    monkeypatch.setattr(
        "api.graphql.answers.refuse_repeated_names", lambda *_, **__: pytest.fail("its names were compared")
    )
    answer = edge.client().ask("{ hello # never read\n }", variables={"x": [1] * 100_000})
    assert answer.json()["errors"][0]["extensions"]["code"] == "MESSAGE_TOO_LARGE"


# Cost


def cost_of(text: str, **variables: Any) -> int:
    document = parse(text)
    return cost(SCHEMA._schema, document, operations_of(document)[0], variables)


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("{ hello }", 1),
        ("{ __typename }", 1),
        ("{ item { id name } }", 1),
        ("{ item { id } other: item { id } }", 2),
        ("{ item { children { id } } }", 1 + UNPAGED),
        ("{ items(first: 7) { nodes { id } } }", 1 + 7),
        ("{ items(last: 7) { nodes { id } } }", 1 + 7),
        ("{ items { nodes { id } } }", 1 + DEFAULT_PAGE),
        ("{ items(first: null) { nodes { id } } }", 1 + DEFAULT_PAGE),
        ("{ items(first: 1000000) { nodes { id } } }", 1 + MAX_PAGE),
        ("{ items(first: 99999999999999999999999) { nodes { id } } }", 1 + MAX_PAGE),
        ("{ items(first: -5) { nodes { id } } }", 1 + 1),
        ("{ items(first: 10) { nodes { id children { id children { id } } } } }", 1 + 10 * (1 + 3 * (1 + 3))),
        ("{ items(first: 5) { ...P } } fragment P on Page { nodes { id } }", 1 + 5),
        ("{ items(first: 5) { ... { nodes { id } } ... on Page { nodes { id } } } }", 1 + 5 + 5),
        ("query ($n: Int = 8) { items(first: $n) { nodes { id } } }", 1 + 8),
        ("mutation { enrol }", 10),
        ("mutation { a: enrol b: enrol }", 20),
        ("subscription { ticks }", 1),
    ],
)
def test_the_cost_is_the_number_of_objects_asked_for(text: str, objects: int) -> None:
    assert cost_of(text) == objects


def test_the_cost_follows_the_variables() -> None:
    text = "query ($n: Int = 8) { items(first: $n) { nodes { id } } }"
    assert [cost_of(text, n=n) for n in (3, None, "x", 10**9)] == [4, 1 + DEFAULT_PAGE, 1 + DEFAULT_PAGE, 1 + MAX_PAGE]
    assert [cost_of(text, n=n) for n in (3.0, 1e2, 1e300)] == [4, 1 + MAX_PAGE, 1 + MAX_PAGE], "an Int may come so"


@pytest.mark.parametrize(
    ("ids", "given", "objects"),
    [
        ('["a", "b", "c", "d", "e"]', {}, 5),
        ("[]", {}, 0),
        ('"a"', {}, 1),
        ("$ids", {"ids": ["a"] * 100}, 100),
        ("$ids", {"ids": "a"}, 1),
        ("$ids", {}, 2),
    ],
)
def test_things_that_are_named_are_counted_one_by_one(ids: str, given: dict[str, Any], objects: int) -> None:
    """And with each what is asked of it."""
    sessions = "... on Card { sessions(first: 9) { nodes { id } } }"
    document = parse(f'query ($ids: [ID!]! = ["a", "b"]) {{ nodes(ids: {ids}) {{ {sessions} }} }}')
    assert cost(REAL._schema, document, operations_of(document)[0], given) == max(1, objects * (1 + 1 + 9))


@pytest.mark.parametrize(
    ("when", "variables", "past"),
    [
        ("", {}, False),
        ("(atPosition: null)", {}, False),
        ("(atPosition: $p)", {}, False),
        ("(atPosition: $p)", {"p": None}, False),
        ("(atPosition: 7)", {}, True),
        ("(atPosition: $p)", {"p": 7}, True),
        ("(atTime: $t)", {}, True),
    ],
)
def test_what_is_made_anew_from_events_counts_as_many(when: str, variables: dict[str, Any], past: bool) -> None:
    """For each of the cards."""
    document = parse(
        'query ($p: Position, $t: DateTime = "2026-01-01T00:00:00Z") '
        f"{{ cards(first: 20) {{ nodes {{ domainTree{when} {{ aid }} }} }} }}"
    )
    found = cost(REAL._schema, document, operations_of(document)[0], variables)
    assert found == 1 + 20 * (1 + 1 + (PAST if past else 0))


def test_every_list_of_the_real_schema_costs_what_its_page_may_hold() -> None:
    """A field with `first` is a page of that many; the smallest one still asks for the page and what is in it."""
    query = REAL._schema.query_type
    assert query is not None
    pages = [name for name, field in query.fields.items() if "first" in field.args]
    for name in pages:
        needed = [a for a, argument in query.fields[name].args.items() if str(argument.type).endswith("!")]
        if needed:
            continue
        document = parse(f"{{ {name}(first: 20) {{ nodes {{ __typename }} }} }}")
        assert cost(REAL._schema, document, operations_of(document)[0], {}) == 21


def test_an_answer_says_what_it_cost(edge: Edge) -> None:
    client = edge.client(limits=EdgeLimits(cost_per_request=100, cost_per_minute={"auditor": 1000}))
    told = client.ask("{ items(first: 20) { nodes { id } } }").json()["extensions"]["cost"]
    assert told == {"requestedQueryCost": 21, "maximumAvailable": 100, "currentlyAvailable": 975}, "4 for the reading"


def test_what_costs_too_much_does_not_run(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "execute", lambda *_, **__: pytest.fail("it ran"))
    limit = EdgeLimits(cost_per_request=100)
    answer = edge.client(limits=limit).ask("{ a: items { nodes { id } } b: items { nodes { id } } }")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["message"]) == (422, "the query exceeds 100 objects")
    assert error["extensions"]["cost"] == {"requestedQueryCost": 102, "maximumAvailable": 100}


# Budgets


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_fills_up_evenly_and_the_wait_is_exact() -> None:
    clock = Clock()
    budgets = Budgets(clock)
    assert budgets.spend("a", 60, 60) == Balance(0, 0)
    assert budgets.spend("a", 7, 60) == Balance(0, 7)
    clock.now += 6.5
    assert budgets.spend("a", 7, 60) == Balance(6, 1)
    clock.now += 0.5
    assert budgets.spend("a", 7, 60) == Balance(0, 0)
    assert budgets.spend("b", 7, 60) == Balance(53, 0), "another client has its own"


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 30)), max_size=60))
def test_nobody_spends_more_than_a_full_budget_and_what_flows_in(steps: list[tuple[int, float]]) -> None:
    """And whoever waits as long as he was told gets it."""
    clock = Clock()
    budgets, spent, began = Budgets(clock), 0, clock.now
    for wanted, pause in steps:
        balance = budgets.spend("a", wanted, 100)
        if balance.wait:
            clock.now += balance.wait
            assert budgets.spend("a", wanted, 100).wait == 0
        spent += wanted
        assert spent <= 100 + (clock.now - began) * 100 / MINUTE + 1e-6
        clock.now += pause


def test_budgets_that_are_full_again_are_forgotten_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_limits, "MOST_CLIENTS", 10)
    clock = Clock()
    budgets = Budgets(clock)
    for n in range(10):
        budgets.spend(str(n), 1, 60)
    clock.now += 2
    budgets.spend("new", 1, 60)
    assert len(budgets._full_at) == 1
    for n in range(1000):
        budgets.spend(f"owing{n}", 1 + n % 50, 60)
        assert len(budgets._full_at) <= 11


def test_whoever_has_spent_his_minute_is_told_when_to_come_again(edge: Edge) -> None:
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 60}))
    assert client.ask("{ items(first: 50) { nodes { id } } }").status_code == 200
    answer = client.ask("{ items(first: 50) { nodes { id } } }")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["extensions"]["code"]) == (429, "RATE_LIMITED")
    assert 45 <= int(answer.headers["retry-after"]) <= 47
    assert answer.json()["extensions"]["cost"]["requestedQueryCost"] == 51
    assert client.ask("{ hello }").status_code == 200, "there is enough for that"


def test_whoever_comes_again_when_he_was_told_to_is_answered(edge: Edge) -> None:
    clock = Clock()
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 60}), budgets=Budgets(clock))
    asked = "{ items(first: 50) { nodes { id } } }"
    assert client.ask(asked).status_code == 200
    clock.now += int(client.ask(asked).headers["retry-after"])
    assert client.ask(asked).status_code == 200


def test_what_no_minute_has_room_for_is_not_to_be_asked_again(edge: Edge) -> None:
    answer = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 60})).ask(
        "{ items(first: 60) { nodes { id } } }"
    )
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["message"]) == (422, "the query exceeds 60 objects")
    assert "retry-after" not in answer.headers


def test_each_client_has_its_own_budget(edge: Edge) -> None:
    app = edge.app(limits=EdgeLimits(cost_per_minute={"auditor": 60}))
    alice, bob = (Client(app, edge.token(person=name)) for name in ("alice", "bob"))
    for _ in range(2):
        last = alice.ask("{ items(first: 50) { nodes { id } } }")
    assert last.status_code == 429
    assert bob.ask("{ items(first: 50) { nodes { id } } }").status_code == 200


def test_what_is_refused_costs_as_well_and_an_empty_budget_reads_nothing(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 250}))
    assert [client.ask(f"{{ nope{n} }}").status_code for n in range(3)] == [422] * 3
    monkeypatch.setattr("api.graphql.documents.parse", lambda *_, **__: pytest.fail("it was read"))
    assert client.ask("{ hello # not read }").status_code == 429


def left(client: Client) -> int:
    """What is left of the client's minute after a query of one object that is remembered."""
    return int(client.ask("{ hello }").json()["extensions"]["cost"]["currentlyAvailable"])


def standing(edge: Edge) -> Client:
    """Of one whose budget fills up by nothing meanwhile, and whose query in `left` is remembered."""
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 20_000}), budgets=Budgets(Clock()))
    left(client)
    return client


def test_a_text_that_is_not_remembered_costs_its_reading_by_its_length(edge: Edge) -> None:
    client = standing(edge)
    text = "{ hello # read once }\n" + " " * 1000 + "}"
    before = left(client)
    assert client.ask(text).json()["extensions"]["cost"]["requestedQueryCost"] == 1, "of objects alone"
    assert before - left(client) == 1 + 1 + math.ceil(len(text) / CHARACTERS)
    before = left(client)
    client.ask(text)
    assert before - left(client) == 1 + 1


def test_distinct_valid_documents_come_to_an_end(edge: Edge) -> None:
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 1000}), budgets=Budgets(Clock()))
    texts = [f"{{ hello # distinct {n}" + "x" * 2000 + "\n}" for n in range(10)]
    assert [client.ask(text).status_code for text in texts] == [200] * 4 + [429] * 6


def test_whoever_is_told_to_wait_for_a_new_text_is_answered_when_he_has_waited(edge: Edge) -> None:
    """The reading is paid already."""
    clock = Clock()
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 60}), budgets=Budgets(clock))
    asked = "{ items(first: 50) { nodes { id } } # " + "x" * 400 + "\n}"
    refused = client.ask(asked)
    assert refused.status_code == 429
    clock.now += int(refused.headers["retry-after"])
    assert client.ask(asked).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"[" * 50, b'{"query": 7}', b'{"query": "{ hello }", "query": "{ hello }"}', b"\xff", b"x" * (MAX_BODY + 1)],
    ids=["no JSON", "no request", "a name twice", "no UTF-8", "too large"],
)
def test_a_body_that_is_read_in_vain_costs_as_a_refused_document_does(edge: Edge, body: bytes) -> None:
    client = standing(edge)
    before = left(client)
    assert client.post(body).status_code in (400, 413, 422)
    assert before - left(client) == 1 + 1 + gates.REFUSED_COST


def test_of_whoever_has_nothing_left_no_body_is_read(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    client = edge.client(limits=EdgeLimits(cost_per_minute={"auditor": 50}), budgets=Budgets(Clock()))
    assert client.post(b"no JSON").status_code == 400
    monkeypatch.setattr("api.graphql.http.read_body", lambda *_: pytest.fail("it was read"))
    answer = client.post(b"no JSON")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "63")
    assert client.post({"query": "subscription { ticks }"}, Accept="text/event-stream").status_code == 429


def test_every_role_of_graphql_has_its_minute_and_the_table_names_roles_only() -> None:
    assert set(COST_PER_MINUTE) == {str(role) for role in Role} - {"authority"}
    settings = EdgeLimits(cost_per_minute={"clerk": 7})
    assert (settings.minute_of("clerk"), settings.minute_of("auditor")) == (7, COST_PER_MINUTE["auditor"])
    assert settings.minute_of("nobody") == edge_limits.LEAST_PER_MINUTE


# Time


def test_a_query_has_so_much_time(edge: Edge) -> None:
    answer = edge.client(limits=EdgeLimits(execution_seconds=0.05)).ask("{ waits(seconds: 30) }")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["extensions"]["code"]) == (503, "TIMEOUT")
    assert "data" not in answer.json() and "committed" not in error["extensions"]


def test_a_mutation_that_runs_out_of_time_says_what_it_has_committed(edge: Edge) -> None:
    """What came of it stays, and its position is told."""
    before = edge.parts.tsm.position
    client = edge.client(limits=EdgeLimits(execution_seconds=2.0))
    answer = client.ask("mutation { a: enrol b: enrol c: enrol(waits: 30) d: enrol }")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["extensions"]["code"]) == (503, "TIMEOUT")
    assert error["extensions"]["committed"] == [before + 1, before + 2, before + 3]
    assert edge.parts.tsm.position == before + 3


# The page of limits


def test_the_documentation_names_every_limit_with_its_value() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    named = {
        name: value for name, value in vars(limits).items() if re.match(r"(MAX|DEFAULT|UNPAGED|PAST|MUTATION)", name)
    }
    named |= {name: value for name, value in vars(tls).items() if name.startswith("MAX")}
    for name, value in named.items():
        assert re.search(rf"\| `{name}` \|[^|]*\| {value:,} \|", page), f"{name} {value:,}"
    for name, value in EdgeLimits().__struct_fields__ and (
        (f, getattr(EdgeLimits(), f)) for f in EdgeLimits.__struct_fields__
    ):
        if not isinstance(value, dict):
            assert re.search(rf"\| `{name}` \|[^|]*\| {value:,g} \|", page), f"{name} {value:,g}"
