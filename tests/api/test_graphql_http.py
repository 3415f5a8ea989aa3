"""GraphQL over HTTP, requirement by requirement: the specification's draft as of 6 August 2026 (commit e1e46e7).

Each row of the table below names a requirement by its section, and the test that shows it. What binds clients only, and
what is left to us ("MAY"), is not in it.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.access import Caller
from api.graphql.documents import Persisted, Refused
from api.graphql.gate import Asked
from api.graphql.http import negotiate
from api.limits import EdgeLimits
from tests.api.edge_world import GRAPHQL_JSON, JSON, Client, Edge
from tsm.errors import ErrorCode, TsmError

HELLO = "{ hello }"
WELL_FORMED = {"query": HELLO}
OF_HELLO = {"hello": "world"}

REQUIREMENTS = [  # level, section, what a server does, the test that shows it
    ("MUST", "URL", "serve a schema by at least one URL", "test_a_query_by_post"),
    ("SHOULD", "URL", "refuse with the relevant 4xx status", "test_nobody_gets_no_answer"),
    ("SHOULD NOT", "URL", "refuse an endpoint for what a well-formed request holds", "test_nobody_gets_no_answer"),
    ("MUST", "Serialization Format", "support JSON", "test_a_query_by_post"),
    ("MUST", "Media Types", "take UTF-8 where a type names no encoding", "test_text_is_utf_8"),
    ("MUST", "Request", "accept POST", "test_a_query_by_post"),
    ("MUST", "GET", "take the members from the URL's query", "test_a_query_by_get"),
    ("MUST", "GET", "take variables and extensions as JSON", "test_a_query_by_get"),
    ("MUST", "GET", "take the empty string as not specified", "test_an_empty_parameter_is_none"),
    ("MUST NOT", "GET", "execute a mutation", "test_a_mutation_by_get_is_refused_and_does_nothing"),
    ("SHOULD", "GET", "answer that with 405", "test_a_mutation_by_get_is_refused_and_does_nothing"),
    ("MUST", "GET", "name the methods in Allow with 405", "test_a_mutation_by_get_is_refused_and_does_nothing"),
    ("MUST", "POST", "support application/json in UTF-8", "test_text_is_utf_8"),
    ("MUST", "POST", "assume UTF-8 without a charset", "test_text_is_utf_8"),
    ("SHOULD", "POST", "refuse a body without Content-Type", "test_a_body_of_another_type_is_refused"),
    ("MUST", "JSON Encoding", "ignore members that it does not know", "test_unknown_members_are_ignored"),
    ("MUST", "JSON Encoding", "take null as not specified", "test_null_is_the_same_as_nothing"),
    ("MUST", "Response", "answer a well-formed request with a GraphQL response", "test_refusals_are_graphql_responses"),
    ("MUST", "Body", "name the media type in Content-Type", "test_the_type_of_an_answer"),
    ("SHOULD", "Body", "name the encoding", "test_the_type_of_an_answer"),
    ("MUST", "Body", "support application/graphql-response+json", "test_the_type_of_an_answer"),
    ("MUST", "Body", "respect Accept, by priority", "test_the_type_that_the_client_likes_best_is_taken"),
    ("MUST", "Body", "answer 406, or disregard Accept, when nothing fits", "test_a_client_that_takes_none_is_told"),
    ("SHOULD", "Body", "serve clients of application/json only with that for 2xx", "test_older_clients"),
    ("SHOULD", "Body", "answer 406 when Accept names no type of ours", "test_a_client_that_takes_none_is_told"),
    ("SHOULD", "Validation", "apply all validation rules", "test_what_is_not_valid"),
    ("SHOULD", "Status Codes", "use 4xx or 5xx for what is no GraphQL response", "test_what_is_no_json"),
    ("MUST NOT", "Status Codes", "give that the GraphQL media type", "test_what_is_no_json"),
    ("MUST", "Status Codes", "answer 2xx with data that is not null", "test_an_answer_with_errors_in_it"),
    ("SHOULD", "Status Codes", "answer 200 with data and no errors", "test_a_query_by_post"),
    ("SHOULD", "Status Codes", "answer 294 with data, even null, and errors", "test_an_answer_with_errors_in_it"),
    ("MUST", "Status Codes", "answer 4xx or 5xx without data", "test_refusals_are_graphql_responses"),
    ("SHOULD", "Status Codes", "405: a method that is not supported", "test_other_methods_are_refused"),
    ("SHOULD", "Status Codes", "415: a Content-Type that is not supported", "test_a_body_of_another_type_is_refused"),
    ("SHOULD", "Status Codes", "406: no type that is supported", "test_a_client_that_takes_none_is_told"),
    ("SHOULD", "Status Codes", "408: no request in time", "test_attacks.test_slow_headers_end_at_their_limit"),
    ("SHOULD", "Status Codes", "414: the URL is too large", "test_attacks.test_heads_that_are_too_large"),
    ("SHOULD", "Status Codes", "431: the headers are too large", "test_attacks.test_heads_that_are_too_large"),
    ("SHOULD", "Status Codes", "413: the body is too large", "test_a_body_that_is_too_large"),
    ("SHOULD", "Status Codes", "400: the body is no JSON", "test_what_is_no_json"),
    ("SHOULD", "Status Codes", "422: no well-formed request", "test_what_is_no_request"),
    ("SHOULD", "Status Codes", "400: the document does not parse", "test_what_does_not_parse"),
    ("SHOULD", "Status Codes", "422: the document is not valid", "test_what_is_not_valid"),
    ("SHOULD", "Status Codes", "422: the operation is not clear", "test_an_operation_that_is_not_clear"),
    ("SHOULD", "Status Codes", "422: variables that do not fit", "test_variables_that_do_not_fit"),
    ("SHOULD", "Status Codes", "401 or 403: not permitted", "test_a_field_for_others_is_forbidden"),
    ("SHOULD", "Status Codes", "5xx: the server is the reason", "test_limits.test_a_query_has_so_much_time"),
    ("MUST", "Persisted Document Response", "one error for an unknown document", "test_an_unknown_document"),
    ("MUST NOT", "Persisted Documents: GET", "execute a mutation: 405", "test_a_persisted_mutation_by_get"),
    ("SHOULD", "Persisted Documents", "support SHA256 identifiers", "test_a_persisted_document"),
]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    yield made
    made.close()


@pytest.fixture
def client(edge: Edge) -> Client:
    return edge.client()


def is_refusal(answer: httpx.Response, status: int, code: str = "INVALID_INPUT") -> bool:
    """A GraphQL response without `data`, of that status, whose first error has that code and a request id."""
    content = answer.json()
    error = content["errors"][0]
    return (
        answer.status_code == status
        and answer.headers["content-type"] == f"{GRAPHQL_JSON}; charset=utf-8"
        and "data" not in content
        and error["extensions"]["code"] == code
        and len(error["extensions"]["requestId"]) == 16
    )


@pytest.mark.parametrize("shown_by", sorted({row[3] for row in REQUIREMENTS}))
def test_every_row_of_the_table_names_a_test_that_there_is(shown_by: str) -> None:
    module, _, name = shown_by.rpartition(".")
    text = Path(__file__).with_name(f"{module or 'test_graphql_http'}.py").read_text(encoding="utf-8")
    assert f"\ndef {name}(" in text


# Requests


@pytest.mark.parametrize("accept", [None, "*/*", GRAPHQL_JSON])
def test_a_query_by_post(client: Client, accept: str | None) -> None:
    answer = client.send("POST", {"Accept": accept} if accept else {}, json=WELL_FORMED)
    assert (answer.status_code, answer.json()["data"]) == (200, OF_HELLO)
    assert "errors" not in answer.json()


def test_a_query_by_get(client: Client) -> None:
    query = "query A { hello } query B($t: String!) { echo(text: $t) }"
    answer = client.get(query=query, operationName="B", variables='{"t": "ü+&"}', extensions="{}")
    assert (answer.status_code, answer.json()["data"]) == (200, {"echo": "ü+&0"})


def test_an_empty_parameter_is_none(client: Client) -> None:
    answer = client.get(query=HELLO, operationName="", variables="", extensions="", documentId="")
    assert (answer.status_code, answer.json()["data"]) == (200, OF_HELLO)


def test_the_word_null_is_a_name_in_a_url(client: Client) -> None:
    query = "query null { hello } query other { echo }"
    assert client.get(query=query, operationName="null").json()["data"] == OF_HELLO


@pytest.mark.parametrize("members", [{}, {"operationName": None, "variables": None, "extensions": None}])
def test_null_is_the_same_as_nothing(client: Client, members: dict[str, Any]) -> None:
    assert client.ask(HELLO, **members).json()["data"] == OF_HELLO


def test_unknown_members_are_ignored(client: Client) -> None:
    assert client.ask(HELLO, id=7, batch=[1], extensions={"x": {"y": []}}).json()["data"] == OF_HELLO
    assert client.get(query=HELLO, id="7").json()["data"] == OF_HELLO


@pytest.mark.parametrize(
    "kind", [JSON, f"{JSON}; charset=utf-8", f'{JSON};charset="UTF-8"', f"{JSON}; x=y", JSON.upper()]
)
def test_text_is_utf_8(client: Client, kind: str) -> None:
    body = json.dumps({"query": '{ echo(text: "署名用") }'}, ensure_ascii=False).encode()
    answer = client.post(body, Content_Type=kind)
    assert answer.json()["data"] == {"echo": "署名用0"}
    assert "署名用" in answer.content.decode("utf-8")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/graphql",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        GRAPHQL_JSON,
        f"{JSON}; charset=utf-16",
        f"{JSON}; charset=shift_jis",
        f"text/plain; {JSON}",
        f"{JSON}x",
        "application/json-seq",
        "text/plain, application/json",
    ],
)
def test_a_body_of_another_type_is_refused(client: Client, kind: str) -> None:
    """A browser sends forms and plain text across sites without asking; JSON it does not."""
    answer = client.send("POST", {"Content-Type": kind} if kind else {}, content=json.dumps(WELL_FORMED).encode())
    assert (answer.status_code, answer.json()["code"]) == (415, "INVALID_INPUT")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"NONSENSE",
        b'{"query":',
        b"\xff",
        b'\xef\xbb\xbf{"query": "{ hello }"}',
        '{"query": "{ hello }"}'.encode("utf-16"),
        b'{"query": "{ hello }", "query": "{ echo }"}',
        b'{"query": "{ hello }", "variables": {"a": 1, "a": 2}}',
        b'{"query": "{ hello }", "variables": {"a": NaN}}',
        b'{"query": "{ hello }", "variables": {"a": -Infinity}}',
        b'{"query": "{ hello }", "variables": {"a": 1e400}}',
        b'{"query": "{ hello }", "variables": {"a": "\\ud800"}}',
        b"{'query': '{ hello }'}",
        b'{"query": "{ hello }"} {}',
    ],
)
def test_what_is_no_json(client: Client, body: bytes) -> None:
    answer = client.post(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "MALFORMED_MESSAGE")
    assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize(
    "content",
    [
        None,
        1,
        "{ hello }",
        [],
        [{"query": HELLO}],
        {},
        {"qeury": HELLO},
        {"query": 1},
        {"query": None},
        {"query": HELLO, "variables": []},
        {"query": HELLO, "variables": "{}"},
        {"query": HELLO, "operationName": 1},
        {"query": HELLO, "extensions": []},
        {"query": HELLO, "documentId": "sha256:00"},
    ],
)
def test_what_is_no_request(client: Client, content: Any) -> None:
    assert is_refusal(client.post(json.dumps(content).encode()), 422)


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ("", 422),
        ("operationName=A", 422),
        (f"query={quote(HELLO)}&query={quote(HELLO)}", 400),
        (f"query={quote(HELLO)}&variables=[", 400),
        (f"query={quote(HELLO)}&variables=[]", 422),
        (f"query={quote(HELLO)}&extensions=1", 422),
        ("query=%ff%fe", 400),
        ("&".join(f"p{n}=1" for n in range(30)), 400),
    ],
)
def test_a_url_that_is_no_request(client: Client, parameters: str, status: int) -> None:
    async_client = client.send("GET", params=parameters)
    assert async_client.status_code == status


def test_a_body_that_is_too_large(client: Client) -> None:
    answer = client.ask(HELLO, extensions={"x": "y" * 300_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "MESSAGE_TOO_LARGE")


# Methods


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "QUERY"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    answer = client.send(method, json=WELL_FORMED)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")


def test_options_names_the_methods_and_allows_no_other_site_anything(client: Client) -> None:
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = client.send("OPTIONS", asked)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, POST, OPTIONS", b"")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_mutation_by_get_is_refused_and_does_nothing(edge: Edge, client: Client) -> None:
    before = edge.parts.tsm.position
    query = "query A { hello } mutation B { enrol }"
    for method in ("GET", "HEAD"):
        answer = client.send(method, params={"query": query, "operationName": "B"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert is_refusal(client.get(query="mutation { enrol }"), 405)
    assert edge.parts.tsm.position == before
    assert client.get(query=query, operationName="A").status_code == 200
    assert client.ask("mutation { enrol }").json()["data"] == {"enrol": before + 1}


def test_head_is_get_without_a_body(edge: Edge) -> None:
    with edge.serving() as server, server.connect() as connection:
        head = f"HEAD /graphql?query={quote(HELLO)} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        connection.sendall(f"{head}Authorization: Bearer {edge.token()}\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n")


# Answers


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, GRAPHQL_JSON),
        ("", GRAPHQL_JSON),
        ("*/*", GRAPHQL_JSON),
        ("application/*", GRAPHQL_JSON),
        (GRAPHQL_JSON, GRAPHQL_JSON),
        (JSON, JSON),
        (f"{GRAPHQL_JSON}, {JSON};q=0.9", GRAPHQL_JSON),
        (f"{GRAPHQL_JSON}; charset=utf-8, {JSON}; charset=utf-8", GRAPHQL_JSON),
    ],
)
def test_the_type_of_an_answer(client: Client, accept: str | None, kind: str) -> None:
    answer = client.send("POST", {} if accept is None else {"Accept": accept}, json=WELL_FORMED)
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (f"{GRAPHQL_JSON};q=0.1, {JSON};q=0.2", JSON),
        (f"{GRAPHQL_JSON};q=0.2, {JSON};q=0.1", GRAPHQL_JSON),
        (f"{JSON};q=0.5, */*;q=0.6", GRAPHQL_JSON),
        (f"{GRAPHQL_JSON};q=0, */*", JSON),
        (f"{GRAPHQL_JSON};q=0, application/*;q=0.3", JSON),
        (f"{JSON}, text/html", JSON),
        (f"{JSON.upper()};Q=1", JSON),
        (f"{GRAPHQL_JSON};q=nonsense, {JSON};q=0.001", JSON),
        (f"{GRAPHQL_JSON};q=nan, {JSON};q=0.1", JSON),
        (f"{GRAPHQL_JSON};q=7, {JSON};q=0.1", JSON),
        ("text/html, image/*", None),
        ("*/*;q=0", None),
        (f"{JSON};q=0, {GRAPHQL_JSON};q=0.0", None),
        ("application", None),
        (f"{JSON}x", None),
    ],
)
def test_the_type_that_the_client_likes_best_is_taken(accept: str, kind: str | None) -> None:
    assert negotiate(accept, [GRAPHQL_JSON, JSON]) == kind


def test_a_client_that_takes_none_is_told(client: Client) -> None:
    answer = client.post(WELL_FORMED, Accept="text/html, application/xml;q=0.9")
    assert (answer.status_code, answer.headers["content-type"]) == (406, JSON)


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [(HELLO, 200, JSON), ("{ refuses }", 200, JSON), ("{", 400, GRAPHQL_JSON), ("{ nope }", 422, GRAPHQL_JSON)],
)
def test_older_clients(client: Client, query: str, status: int, kind: str) -> None:
    """They take `application/json` only; what did not succeed is told by its status, and its type says what it is."""
    answer = client.post({"query": query}, Accept=JSON)
    assert (answer.status_code, answer.headers["content-type"]) == (status, f"{kind}; charset=utf-8")


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("{ hello refuses }", {"hello": "world", "refuses": None}),
        ("{ hello must }", None),
        ("{ item { id broken } }", {"item": {"id": 1, "broken": None}}),
    ],
)
def test_an_answer_with_errors_in_it(client: Client, query: str, data: Any) -> None:
    answer = client.ask(query)
    assert (answer.status_code, answer.json()["data"]) == (294, data)
    [error] = answer.json()["errors"]
    assert error["path"] and error["locations"] and error["extensions"]["code"]


def test_refusals_are_graphql_responses(client: Client) -> None:
    for query in ("{", "{ nope }", "query A { hello } query B { hello }"):
        answer = client.ask(query)
        assert 400 <= answer.status_code < 500
        assert set(answer.json()) == {"errors"}
        assert all({"message", "extensions"} <= error.keys() for error in answer.json()["errors"])


@pytest.mark.parametrize("query", ["", "{", "}", "{ hello", "query", "\x00", '{ echo(text: "\n") }'])
def test_what_does_not_parse(client: Client, query: str) -> None:
    assert is_refusal(client.ask(query), 400)


@pytest.mark.parametrize(
    "query",
    [
        "{ nope }",
        "{ hello { x } }",
        "{ item }",
        "{ hello @nope }",
        "{ ...Nope }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ echo(text: 1) }",
        "query ($x: Nope) { hello }",
        "fragment A on Query { hello }",
        "type X { a: Int }",
        "{ echo(text: $x) }",
        "query A { hello } query A { hello }",
    ],
)
def test_what_is_not_valid(client: Client, query: str) -> None:
    assert is_refusal(client.ask(query), 422)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("query A { hello } query B { hello }", None),
        ("query A { hello } query B { hello }", "C"),
        ("query A { hello }", "B"),
        ("query A { hello }", ""),
        ("{ hello }", "A"),
    ],
)
def test_an_operation_that_is_not_clear(client: Client, query: str, name: str | None) -> None:
    assert is_refusal(client.ask(query, operationName=name), 422)


@pytest.mark.parametrize(
    "variables", [{}, {"n": None}, {"n": "1"}, {"n": 1.5}, {"n": 2**31}, {"n": 10**300}, {"n": True}, {"n": [1]}]
)
def test_variables_that_do_not_fit(client: Client, variables: dict[str, Any]) -> None:
    assert is_refusal(client.ask("query ($n: Int!) { echo(number: $n) }", variables=variables), 422)


def test_variables_that_nobody_declared_are_ignored(client: Client) -> None:
    assert client.ask(HELLO, variables={"x": 1}).status_code == 200


def test_a_subscription_is_not_answered_like_a_query(client: Client) -> None:
    assert is_refusal(client.ask("subscription { ticks }"), 422)


def test_a_wrong_name_brings_no_suggestion(client: Client) -> None:
    [error] = client.ask("{ helo }").json()["errors"]
    assert error["message"] == "Cannot query field 'helo' on type 'Query'."
    [error] = client.ask("query ($n: Int!) { echo(numbr: $n, number: $n) }", variables={"n": 1}).json()["errors"]
    assert "Did you mean" not in error["message"]


def test_what_goes_wrong_inside_is_told_by_its_code_only(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = client.ask("{ item { broken } }")
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "INTERNAL" and "inside" not in answer.text
    assert "the inside of the file" in caplog.text and error["extensions"]["requestId"] in caplog.text


def test_the_number_of_errors_is_bounded(client: Client) -> None:
    errors = client.ask("{ items(first: 100) { nodes { broken } } }").json()["errors"]
    assert len(errors) == 51 and errors[-1]["message"] == "50 more errors"


# Who asks, and from where


def test_nobody_gets_no_answer(edge: Edge) -> None:
    """Whatever the request holds."""
    for body in (b"{", json.dumps(WELL_FORMED).encode()):
        answer = Client(edge.app(), "not-a-token").post(body)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    clerk = Client(edge.app(), edge.token("security-officer")).post(b"{")
    assert (clerk.status_code, clerk.json()["code"]) == (403, "FORBIDDEN")


def test_a_field_for_others_is_forbidden(edge: Edge) -> None:
    assert is_refusal(edge.client().ask("{ secret }"), 403, "FORBIDDEN")
    assert edge.client("administrator").ask("{ secret }").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://server"},
        {"Origin": "https://server.elsewhere.example"},
    ],
)
def test_a_page_of_another_site_can_ask_nothing(client: Client, headers: dict[str, str]) -> None:
    """Its browser would add the client certificate by itself."""
    assert client.get(headers, query=HELLO).status_code == 403
    assert client.send("POST", headers, json=WELL_FORMED).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin", "Origin": "https://server"}, {"Sec-Fetch-Site": "none"}]
)
def test_a_page_of_this_server_can_ask(client: Client, headers: dict[str, str]) -> None:
    assert client.send("POST", headers, json=WELL_FORMED).status_code == 200


# Persisted documents (draft appendix A)


def identifier(text: str) -> str:
    return "sha256:" + sha256(text.encode()).hexdigest()


def test_the_specifications_own_example_of_an_identifier() -> None:
    known = "71f7dc5758652baac68e4a10c50be732b741c892ade2883a99358f52b555286b"
    assert identifier("query($id:ID!){user(id:$id){name}}") == f"sha256:{known}"


@pytest.fixture
def documents(tmp_path: Path) -> Persisted:
    (tmp_path / "hello.graphql").write_text("query A { hello } query B($t: String) { echo(text: $t) }")
    (tmp_path / "enrol.graphql").write_text("mutation { enrol }")
    (tmp_path / "other.txt").write_text("{ item { id } }")
    return Persisted.load(tmp_path)


KNOWN = identifier("query A { hello } query B($t: String) { echo(text: $t) }")


def test_a_persisted_document(edge: Edge, documents: Persisted) -> None:
    client = edge.client(persisted=documents)
    asked = {"documentId": KNOWN, "operationName": "B", "variables": {"t": "x"}}
    assert client.post(asked).json()["data"] == {"echo": "x0"}
    answer = client.get(documentId=KNOWN, operationName="B", variables='{"t":"x"}')
    assert answer.json()["data"] == {"echo": "x0"}


@pytest.mark.parametrize(
    "name", [identifier("{ item { id } }"), KNOWN.upper(), KNOWN[7:], "sha256:", "x", "../hello.graphql"]
)
def test_an_unknown_document(edge: Edge, documents: Persisted, name: str) -> None:
    answer = edge.client(persisted=documents).post({"documentId": name})
    assert is_refusal(answer, 404, "NOT_FOUND") and len(answer.json()["errors"]) == 1


def test_a_persisted_mutation_by_get(edge: Edge, documents: Persisted) -> None:
    before = edge.parts.tsm.position
    answer = edge.client(persisted=documents).get(documentId=identifier("mutation { enrol }"))
    assert (answer.status_code, answer.headers["allow"], edge.parts.tsm.position) == (405, "POST", before)


def test_a_client_of_persisted_documents_only_runs_nothing_else(edge: Edge, documents: Persisted) -> None:
    options = {"persisted": documents, "only_persisted": frozenset({"auditor"})}
    assert is_refusal(edge.client(**options).ask(HELLO), 403, "FORBIDDEN")
    assert edge.client(**options).post({"documentId": KNOWN, "operationName": "A"}).json()["data"] == OF_HELLO
    assert edge.client("administrator", **options).ask(HELLO).status_code == 200


def test_what_is_said_of_clerks_holds_for_their_terminals(edge: Edge, documents: Persisted) -> None:
    gate = edge.gate(persisted=documents, only_persisted=frozenset({"clerk"}))
    terminal = Caller("T-13101-01", "terminal", "13101", client="terminal:T-13101-01")
    with pytest.raises(Refused) as refused:
        gate.admit(terminal, Asked(query=HELLO))
    assert refused.value.status == 403
    assert gate.admit(terminal, Asked(document_id=KNOWN, operation_name="A"))


def test_documents_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(TsmError) as refused:
        Persisted.load(tmp_path / "nowhere")
    assert refused.value.code is ErrorCode.NOT_FOUND
    (tmp_path / "bad.graphql").write_bytes(b"\xff")
    with pytest.raises(TsmError) as refused:
        Persisted.load(tmp_path)
    assert refused.value.code is ErrorCode.INVALID_INPUT


def test_settings_choose_the_limits(edge: Edge) -> None:
    answer = edge.client(limits=EdgeLimits(cost_per_request=10)).ask("{ items { nodes { id } } }")
    assert is_refusal(answer, 422, "MESSAGE_TOO_LARGE")
