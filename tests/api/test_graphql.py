"""The GraphQL API: what an auditor sees, and what it refuses."""

import asyncio
import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from graphql import get_introspection_query
from starlette.applications import Starlette
from starlette.middleware import Middleware

from api.access import Access
from api.certificates import certify, create_authority, request
from api.errors import RequestIds, refuse
from api.graphql import schema as graphql_schema
from api.graphql.http import GRAPHQL_JSON
from api.graphql.limits import MAX_ALIASES, MAX_BODY, MAX_FIELDS
from api.graphql.schema import routes, sdl
from projections import PROJECTIONS
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.views import Views
from tests.projections.story import (
    APPLICATION,
    CREDENTIAL,
    DOMAIN,
    ICCID,
    ISD,
    OTHER_ICCID,
    SECRETS,
    MemoryLog,
    keys_put,
    personalized,
    tell,
)
from tsm.errors import ErrorCode, TsmError
from tsm.model.session import CardConnected

HISTORY = """query ($iccid: String!, $first: Int, $after: String, $last: Int, $before: String) {
  card(iccid: $iccid) {
    issuanceHistory(first: $first, after: $after, last: $last, before: $before) {
      edges { cursor node { position text } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
}"""


@dataclass
class Parts:
    """The parts of a server that the GraphQL routes are made from."""

    views: Views
    tsm: MemoryLog
    access: Access


class Shows:
    """Middleware in the place of TLS: the client's certificate, if it has one."""

    def __init__(self, app: Any, der: bytes | None) -> None:
        self.app, self.der = app, der

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"] = {"tls": {"client_cert_der": self.der}} if self.der else {}
        await self.app(scope, receive, send)


class Client:
    """Requests to the application, one at a time and without a network."""

    def __init__(self, app: Any) -> None:
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.send("POST", path, options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.send("GET", path, options))

    async def send(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=self.transport, base_url="https://tsm") as http:
            return await http.request(method, path, **options)


class World:
    """A server with a log in memory, and clients of several roles."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog()
        self.views = SQLiteViews(folder / "views.sqlite", PROJECTIONS)
        self.folder = folder
        create_authority(folder / "ca")
        self.parts: Any = Parts(self.views, self.log, Access(None))  # type: ignore[arg-type]

    def catch_up(self) -> None:
        Runner(self.log, self.views).catch_up()

    def client(self, role: str | None = "auditor") -> Client:
        der = None
        if role is not None:
            wanted = request(self.folder / role, "A-1").read_bytes()
            pem = certify(self.folder / "ca", wanted, "A-1", role, [])
            der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        app = Starlette(
            routes=routes(self.parts),
            middleware=[Middleware(RequestIds)],
            exception_handlers={TsmError: refuse, Exception: refuse},
        )
        return Client(Shows(app, der))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    tell(made.log)
    made.catch_up()
    yield made
    made.views.close()


@pytest.fixture
def auditor(world: World) -> Client:
    return world.client()


def ask(client: Client, query: str, **variables: object) -> dict[str, Any]:
    """The data of an answer without errors."""
    answer = client.post("/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    assert "errors" not in content, content["errors"]
    return dict(content["data"])


def refused(client: Client, query: str, status: int = 400, **variables: object) -> Mapping[str, Any]:
    """The only error of an answer."""
    answer = client.post("/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert len(error["extensions"]["requestId"]) == 16
    return dict(error)


# What an auditor sees


def test_the_domain_tree_of_a_card(auditor: Client) -> None:
    keys = "keys { version checkValues provisional current }"
    found = ask(
        auditor,
        "query ($iccid: String!) { card(iccid: $iccid) { iccid operator profile domainTree {"
        f" aid parent privileges lifeCycle {keys} domains {{ aid parent lifeCycle failedAuthentications {keys}"
        " loadFiles { aid size } applications { aid lifeCycle } domains { aid } } } } }",
        iccid=ICCID,
    )["card"]

    checks = ["aaaaaa", "bbbbbb", "cccccc"]
    assert found == {
        "iccid": ICCID,
        "operator": "MNO00001",
        "profile": "DEMO-1",
        "domainTree": {
            "aid": ISD,
            "parent": None,
            "privileges": None,
            "lifeCycle": "SECURED",
            "keys": [{"version": 48, "checkValues": [], "provisional": False, "current": True}],
            "domains": [
                {
                    "aid": DOMAIN,
                    "parent": ISD,
                    "lifeCycle": "PERSONALIZED",
                    "failedAuthentications": 0,
                    "keys": [
                        {"version": 1, "checkValues": checks, "provisional": True, "current": False},
                        {"version": 2, "checkValues": checks, "provisional": False, "current": True},
                    ],
                    "loadFiles": [{"aid": "D392F0002601FF", "size": 1234}],
                    "applications": [{"aid": APPLICATION, "lifeCycle": "PERSONALIZED"}],
                    "domains": [],
                }
            ],
        },
    }


def test_the_domain_tree_of_a_past_position_or_time(world: World, auditor: Client) -> None:
    query = (
        "query ($iccid: String!, $p: Position, $t: DateTime) { card(iccid: $iccid) {"
        " domainTree(atPosition: $p, atTime: $t) { domains { aid lifeCycle keys { version current } } } } }"
    )
    recorded = world.log.events[4].recorded_at
    assert recorded is not None
    then = {"domains": [{"aid": DOMAIN, "lifeCycle": "PERSONALIZED", "keys": [{"version": 1, "current": True}]}]}

    assert ask(auditor, query, iccid=ICCID, p=5)["card"]["domainTree"] == then
    assert ask(auditor, query, iccid=ICCID, t=recorded.isoformat())["card"]["domainTree"] == then
    assert ask(auditor, query, iccid=ICCID, p=2)["card"]["domainTree"] == {"domains": []}
    assert ask(auditor, query, iccid=ICCID, p=1)["card"]["domainTree"] is None


@pytest.mark.parametrize(
    "moment", [{"p": 5, "t": "2026-11-21T02:00:00Z"}, {"t": "2026-11-21T02:00:00"}], ids=["both", "without offset"]
)
def test_a_moment_that_is_not_one_is_refused(auditor: Client, moment: dict[str, object]) -> None:
    query = (
        "query ($iccid: String!, $p: Position, $t: DateTime) { card(iccid: $iccid) {"
        " domainTree(atPosition: $p, atTime: $t) { aid } } }"
    )
    assert refused(auditor, query, 200, iccid=ICCID, **moment)["extensions"]["code"] == "INVALID_INPUT"


def test_the_history_has_the_steps_of_the_card_and_of_the_credential_meant_for_it(auditor: Client) -> None:
    edges = ask(
        auditor,
        "query ($iccid: String!) { card(iccid: $iccid) { issuanceHistory(first: 100) { edges { cursor node {"
        " position topic text actor role tenant tenants occurredAt recordedAt correlation causation request reason"
        " stream number } } } } }",
        iccid=ICCID,
    )["card"]["issuanceHistory"]["edges"]

    assert [edge["node"]["position"] for edge in edges] == list(range(2, 22))
    assert all(edge["cursor"] == str(edge["node"]["position"]) for edge in edges)
    assert edges[7]["node"] == {
        "position": 9,
        "topic": "credential.applied",
        "text": "credential applied for at terminal T-13101-01 in 13101",
        "actor": "terminal:T-13101-01",
        "role": "phone",
        "tenant": "JPKI0001",
        "tenants": ["MNO00001"],
        "occurredAt": "2026-11-21T02:00:08+00:00",
        "recordedAt": "2026-11-21T02:00:08.001000+00:00",
        "correlation": CREDENTIAL,
        "causation": None,
        "request": "r-1",
        "reason": None,
        "stream": f"credential-{CREDENTIAL}",
        "number": 1,
    }
    assert not any(secret in str(edges) for secret in SECRETS)


def test_pages_forwards_cover_the_history_once(auditor: Client) -> None:
    seen: list[int] = []
    after, more = None, True
    while more:
        page = ask(auditor, HISTORY, iccid=ICCID, first=7, after=after)["card"]["issuanceHistory"]
        assert page["pageInfo"]["hasPreviousPage"] is bool(seen)
        seen += [edge["node"]["position"] for edge in page["edges"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert seen == list(range(2, 22))


def test_pages_backwards_cover_the_history_once(auditor: Client) -> None:
    seen: list[int] = []
    before, more = None, True
    while more:
        page = ask(auditor, HISTORY, iccid=ICCID, last=7, before=before)["card"]["issuanceHistory"]
        assert page["pageInfo"]["hasNextPage"] is bool(seen)
        seen = [edge["node"]["position"] for edge in page["edges"]] + seen
        before, more = page["pageInfo"]["startCursor"], page["pageInfo"]["hasPreviousPage"]
    assert seen == list(range(2, 22))


def test_new_events_come_after_the_last_cursor(world: World, auditor: Client) -> None:
    first = ask(auditor, HISTORY, iccid=ICCID, first=100)["card"]["issuanceHistory"]
    world.log.add(f"card-{ICCID}", personalized())
    world.catch_up()

    page = ask(auditor, HISTORY, iccid=ICCID, first=100, after=first["pageInfo"]["endCursor"])["card"]
    assert [edge["node"]["position"] for edge in page["issuanceHistory"]["edges"]] == [22]


def test_a_page_beyond_the_end_is_empty(auditor: Client) -> None:
    page = ask(auditor, HISTORY, iccid=ICCID, first=5, after="9999")["card"]["issuanceHistory"]
    assert page == {
        "edges": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


def test_an_unregistered_card_is_null(auditor: Client) -> None:
    assert ask(auditor, HISTORY, iccid=OTHER_ICCID) == {"card": None}


def test_ids_find_their_objects_again(auditor: Client) -> None:
    found = ask(
        auditor,
        "query ($iccid: String!) { card(iccid: $iccid) { id issuanceHistory(first: 1) { edges { node { id } } } } }",
        iccid=ICCID,
    )["card"]
    ids = [found["id"], found["issuanceHistory"]["edges"][0]["node"]["id"]]
    query = (
        "query ($id: ID!) { node(id: $id) { id __typename ... on Card { iccid } ... on HistoryEntry { position } } }"
    )

    assert [ask(auditor, query, id=i)["node"] for i in ids] == [
        {"id": ids[0], "__typename": "Card", "iccid": ICCID},
        {"id": ids[1], "__typename": "HistoryEntry", "position": 2},
    ]


def test_an_event_that_cannot_be_read_is_an_error_in_its_place_and_spoils_no_other(
    world: World, auditor: Client
) -> None:
    world.log.unreadable = {5}
    answer = auditor.post("/graphql", json={"query": HISTORY, "variables": {"iccid": ICCID, "first": 4}}).json()

    edges = answer["data"]["card"]["issuanceHistory"]["edges"]
    assert [(edge["cursor"], edge["node"] is None) for edge in edges] == [
        ("2", False), ("3", False), ("4", False), ("5", True),
    ]  # fmt: skip
    [error] = answer["errors"]
    assert error["path"] == ["card", "issuanceHistory", "edges", 3, "node"]
    assert error["extensions"]["code"] == "STORE_CORRUPT"
    assert error["message"] == "the store holds something that does not decode"

    entry = base64.urlsafe_b64encode(b"HistoryEntry:5").decode()
    answer = auditor.post("/graphql", json={"query": f'{{ node(id: "{entry}") {{ id }} }}'}).json()
    assert answer["data"] == {"node": None}
    assert answer["errors"][0]["extensions"]["code"] == "STORE_CORRUPT"


def test_read_models_say_how_far_they_are_and_what_they_lack(world: World, auditor: Client) -> None:
    world.log.add("session-JPKI0001-2026112100000009", CardConnected())
    world.catch_up()
    answer = ask(
        auditor,
        "{ logPosition readModels { name version position parkedCount parked { position topic stream error } } }",
    )

    assert answer["logPosition"] == 22
    history, tree, *_ = answer["readModels"]
    assert (tree["name"], tree["position"], tree["parkedCount"]) == ("domain_tree", 22, 0)
    assert (history["name"], history["position"], history["parkedCount"]) == ("issuance_history", 22, 1)
    (parked,) = history["parked"]
    assert (parked["position"], parked["topic"]) == (22, "session.card_connected")
    assert parked["stream"] == "session-JPKI0001-2026112100000009"
    assert parked["error"].startswith("STORE_CORRUPT at issuance_history.py:")


# Read your writes


def test_a_query_waits_until_its_position_is_read(world: World, auditor: Client) -> None:
    world.log.add(f"card-{ICCID}", keys_put(3, False))
    runner = Runner(world.log, world.views)
    runner.start()
    try:
        found = ask(
            auditor,
            "query ($iccid: String!, $p: Position) { card(iccid: $iccid, minPosition: $p) {"
            " domainTree { domains { keys { version } } } } }",
            iccid=ICCID,
            p=22,
        )
    finally:
        runner.stop()
    assert [k["version"] for k in found["card"]["domainTree"]["domains"][0]["keys"]] == [1, 2, 3]


def test_a_read_model_that_stays_behind_is_an_error(
    world: World, auditor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphql_schema, "READ_YOUR_WRITES", 0.05)
    world.log.add(f"card-{ICCID}", keys_put(3, False))
    query = "query ($iccid: String!, $p: Position) { card(iccid: $iccid, minPosition: $p) { id } }"

    error = refused(auditor, query, 200, iccid=ICCID, p=22)
    assert (error["extensions"]["code"], error["path"]) == ("READ_MODEL_BEHIND", ["card"])


# Who may ask


@pytest.mark.parametrize(
    ("role", "status", "code"),
    [(None, 401, "UNAUTHENTICATED"), ("relying-party", 403, "FORBIDDEN"), ("server", 403, "FORBIDDEN")],
)
def test_only_an_auditor_gets_in(world: World, role: str | None, status: int, code: str) -> None:
    """Not even introspection: the refusal comes before the body is read."""
    answer = world.client(role).post("/graphql", json={"query": "{ __schema { types { name } } }"})
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "requestId"}
    assert answer.json()["code"] == code


def test_an_auditor_may_introspect_with_the_usual_query(auditor: Client) -> None:
    assert ask(auditor, get_introspection_query())["__schema"]["queryType"]["name"] == "Query"


# Bad input


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"first": 0}, "first must be from 1 to 100"),
        ({"first": 101}, "first must be from 1 to 100"),
        ({"last": -1}, "last must be from 1 to 100"),
        ({"first": 1, "last": 1}, "first and last exclude each other"),
        ({"after": "x"}, "after is not a cursor of this server"),
        ({"after": "-1"}, "after is not a cursor of this server"),
        ({"after": "٣"}, "after is not a cursor of this server"),
        ({"before": "9" * 400}, "before is not a cursor of this server"),
    ],
)
def test_a_bad_page_is_refused_with_a_code(auditor: Client, variables: dict[str, object], message: str) -> None:
    error = refused(auditor, HISTORY, 200, iccid=ICCID, **variables)
    assert (error["extensions"]["code"], error["message"]) == ("INVALID_INPUT", message)


@pytest.mark.parametrize("iccid", ["", "x", "8981100000000000011", "' OR 1=1 --", "８９８１１０"])
def test_a_bad_iccid_is_refused_with_a_code(auditor: Client, iccid: str) -> None:
    assert refused(auditor, HISTORY, 200, iccid=iccid)["extensions"]["code"] == "INVALID_INPUT"


@pytest.mark.parametrize("node_id", ["", "x", "!!!!", "Q2FyZA==", "Q2FyZDo=", "Tm9uZTox", "Q2FyZDp4", "w7_DvzE="])
def test_a_foreign_id_is_refused_with_a_code(auditor: Client, node_id: str) -> None:
    error = refused(auditor, "query ($id: ID!) { node(id: $id) { id } }", 200, id=node_id)
    assert error["extensions"]["code"] == "INVALID_INPUT"


@pytest.mark.parametrize("position", [-1, 2**53, True, "1", 1.5])
def test_a_bad_position_is_refused_with_a_code(auditor: Client, position: object) -> None:
    query = "query ($iccid: String!, $p: Position) { card(iccid: $iccid, minPosition: $p) { id } }"
    assert refused(auditor, query, 400, iccid=ICCID, p=position)["extensions"]["code"] == "INVALID_INPUT"


def test_a_position_that_the_log_does_not_have_is_refused_at_once(auditor: Client) -> None:
    query = "query ($iccid: String!, $p: Position) { card(iccid: $iccid, minPosition: $p) { id } }"
    assert refused(auditor, query, 200, iccid=ICCID, p=10**9)["message"] == "the log has no such position yet"


def test_what_goes_wrong_inside_is_masked_and_logged_under_the_request_id(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the inside of the file")

    monkeypatch.setattr(world.views, "read", broken)
    error = refused(world.client(), HISTORY, 200, iccid=ICCID)

    assert error["extensions"]["code"] == "INTERNAL"
    assert "inside" not in str(error)
    assert "the inside of the file" in caplog.text
    assert error["extensions"]["requestId"] in caplog.text


# Limits


def chained(fragments: int) -> str:
    """Each fragment spreads the next twice: 2^n fields for who follows every spread."""
    text = 'query { card(iccid: "x") { ...F0 } } '
    for n in range(fragments):
        text += f"fragment F{n} on Card {{ ...F{n + 1} ...F{n + 1} }} "
    return text + f"fragment F{fragments} on Card {{ iccid }}"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('{ card(iccid: "x") { domainTree {' + "domains {" * 20 + "aid" + "}" * 23, "the query exceeds 16 levels"),
        (
            "{" + " ".join(f"a{n}: logPosition" for n in range(MAX_ALIASES + 1)) + "}",
            "the query exceeds 10 aliases",
        ),
        ("{" + "logPosition " * (MAX_FIELDS + 1) + "}", "the query exceeds 500 fields"),
        (chained(60), "the query exceeds 500 fields"),
    ],
    ids=["levels", "aliases", "fields", "fragments"],
)
def test_a_query_that_asks_too_much_is_refused_before_it_runs(auditor: Client, query: str, message: str) -> None:
    error = refused(auditor, query)
    assert (error["extensions"]["code"], error["message"]) == ("MESSAGE_TOO_LARGE", message)


def test_a_query_of_too_many_tokens_is_refused(auditor: Client) -> None:
    assert "1000 tokens" in refused(auditor, "{" + "logPosition " * 1000 + "}")["message"]


@pytest.mark.parametrize(
    "query",
    [
        '{ card(iccid: "x") { ...A } } fragment A on Card { ...B } fragment B on Card { ...A }',
        "{ ...Nope }",
        "{",
        "",
        "\x00",
        "fragment A on Card { iccid }",
        "mutation { x }",
        "subscription { x }",
        "query A { logPosition } query B { logPosition }",
        "{ logPosition @nope }",
    ],
)
def test_a_query_that_makes_no_sense_is_a_bad_request(auditor: Client, query: str) -> None:
    answer = auditor.post("/graphql", json={"query": query})
    assert answer.status_code == 400
    assert "data" not in answer.json()
    assert "INTERNAL" not in answer.text


def test_an_unknown_operation_name_is_a_bad_request(auditor: Client) -> None:
    answer = auditor.post("/graphql", json={"query": "query A { logPosition }", "operationName": "B"})
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "INVALID_INPUT")


def test_a_wrong_name_brings_no_suggestion(auditor: Client) -> None:
    message = refused(auditor, "{ logPositio }")["message"]
    assert message == "Cannot query field 'logPositio' on type 'Query'."


def test_a_body_that_is_too_large_is_refused(auditor: Client) -> None:
    answer = auditor.post("/graphql", json={"query": "{ logPosition }" + " " * MAX_BODY})
    assert (answer.status_code, answer.json()["code"]) == (413, ErrorCode.MESSAGE_TOO_LARGE)


# GraphQL over HTTP


@pytest.mark.parametrize(
    ("accept", "kind", "status_of_bad_query"),
    [
        (GRAPHQL_JSON, GRAPHQL_JSON, 400),
        (f"application/json;q=0.5, {GRAPHQL_JSON}; charset=utf-8", GRAPHQL_JSON, 400),
        ("*/*", GRAPHQL_JSON, 400),
        ("application/json", "application/json", 200),
        ("application/json, */*;q=0.1", "application/json", 200),
    ],
)
def test_the_answers_type_and_status_follow_the_accept_header(
    auditor: Client, accept: str, kind: str, status_of_bad_query: int
) -> None:
    headers = {"Accept": accept}
    good = auditor.post("/graphql", json={"query": "{ logPosition }"}, headers=headers)
    bad = auditor.post("/graphql", json={"query": "{ nope }"}, headers=headers)

    assert (good.status_code, good.headers["content-type"]) == (200, kind)
    assert (bad.status_code, bad.headers["content-type"]) == (status_of_bad_query, kind)
    assert "data" not in bad.json()
    assert good.headers["cache-control"] == "no-store"


def test_a_client_that_takes_neither_type_is_told_so(auditor: Client) -> None:
    answer = auditor.post("/graphql", json={"query": "{ logPosition }"}, headers={"Accept": "text/html"})
    assert answer.status_code == 406


def test_only_post_is_offered(auditor: Client) -> None:
    answer = auditor.get("/graphql", params={"query": "{ logPosition }"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_form_is_refused(auditor: Client) -> None:
    """A browser can send forms and plain text across sites without asking; JSON it cannot."""
    assert auditor.post("/graphql", data={"query": "{ logPosition }"}).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"{ logPosition }"',
        b'[{"query": "{ logPosition }"}]',
        b"{}",
        b'{"query": 1}',
        b'{"query": "{ logPosition }", "variables": []}',
        b'{"query": "{ logPosition }", "operationName": 1}',
        b"\xff",
        b'{"query": "{ logPosition }", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_query_is_refused(auditor: Client, body: bytes) -> None:
    answer = auditor.post("/graphql", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "MALFORMED_MESSAGE")


# The schema


def test_the_schema_in_the_repository_is_what_the_code_exports() -> None:
    """`make schema` writes it anew."""
    assert (Path(__file__).parents[2] / "schema.graphql").read_text(encoding="utf-8") == sdl()


def test_every_type_field_and_argument_is_documented() -> None:
    built = graphql_schema.SCHEMA._schema
    own = [t for name, t in built.type_map.items() if not name.startswith("__")]
    silent = [t.name for t in own if not t.description]
    for kind in own:
        for name, field in getattr(kind, "fields", {}).items():
            silent += [] if field.description else [f"{kind.name}.{name}"]
            silent += [f"{kind.name}.{name}({a})" for a, arg in field.args.items() if not arg.description]
    assert silent == []
