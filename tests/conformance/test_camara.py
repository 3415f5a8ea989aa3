"""CAMARA's APIs against CAMARA's own OpenAPI definitions, and requests made from these, and from ours, over real TLS.

The definitions lie beside the repository (`../shared/specs/camara`) and are no part of it; where they are missing, only
our own documents are there to make requests from. A further API joins by a row of `APIS`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.camara_world import IMEI, NUMBER, World
from tests.api.https import serving
from tsm.model.line import SignalKind

DEFINITIONS = Path(__file__).parents[3] / "shared" / "specs" / "camara"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
METHODS = {"get", "post", "put", "patch", "delete"}
WORDS = {"description", "example", "examples", "summary", "tags", "title"}  # what a schema says to people
ALTERNATIVES = "discriminator"  # of which ours names only what this server takes; it refuses the others by their codes
BESIDE = {"413", "415", "429", "503"}  # statuses of ours that a definition may be silent about
EXAMPLES = 60  # of each operation, mode and document


class Api(NamedTuple):
    """One of CAMARA's APIs."""

    definition: str
    path: str
    mean_a_known_line: Callable[[Any], None]  # changes the body of a request, which is as specified
    reached: frozenset[int] = frozenset({200})  # what has to be among the statuses of what is asked


def name_the_number(body: Any) -> None:
    body["phoneNumber"] = NUMBER


def subscribe_to_it(body: Any) -> None:
    """Whatever else is wished for, in a form that this server takes, at a sink of its own."""
    body |= {"protocol": "HTTP", "sink": f"https://bank.example/{uuid4()}"}
    for member in ("sinkCredential", "protocolSettings"):
        body.pop(member, None)
    body["config"].pop("subscriptionExpireTime", None)
    body["config"]["subscriptionDetail"] = {"phoneNumber": NUMBER}


APIS = (
    Api("sim-swap.yaml", "/sim-swap/v2", name_the_number),
    Api("device-swap.yaml", "/device-swap/v1", name_the_number),
    Api("sim-swap-subscriptions.yaml", "/sim-swap-subscriptions/v0.3", subscribe_to_it, frozenset({200, 201})),
)
OF_EACH = pytest.mark.parametrize("api", APIS, ids=lambda api: api.definition)


class Server(NamedTuple):
    """A server with one line, and the tokens of one relying party."""

    world: World
    url: str
    session: requests.Session
    tokens: Mapping[str, str | None]

    def document(self, api: Api) -> dict[str, Any]:
        """Ours."""
        answer = self.session.get(f"{self.url}{api.path}/openapi.json")
        assert answer.status_code == 200
        return answer.json()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    world = World.make(tmp_path_factory.mktemp("camara"), requests_per_minute=1_000_000, subscriptions=10_000)
    world.signal(SignalKind.SUBSCRIBED, imei=IMEI)
    world.map_subject("alice")
    tls = world.parts.settings.tls
    tokens = {
        "two legs": world.token(),
        "three legs": world.token(sub="alice"),
        "three legs, unknown": world.token(sub="bob"),
        "no scope": world.token([]),
        "not a token": "a.b.c",
        "none": None,
    }
    with serving(world.app, tls) as url, requests.Session() as session:
        session.trust_env, session.verify = False, str(tls.party_ca)
        yield Server(world, url, session, tokens)


def definition(api: Api) -> dict[str, Any]:
    """CAMARA's own."""
    path = DEFINITIONS / api.definition
    if not path.exists():
        pytest.skip(f"CAMARA's definitions are not at hand: {api.definition}")
    return json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))  # type: ignore[no-any-return]  # times


# What both documents say


def resolved(value: Any, document: Mapping[str, Any]) -> Any:
    """With its references followed, and without what is said to people."""
    if isinstance(value, list):
        return [resolved(one, document) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        found: Any = document
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return resolved(found, document)
    return {
        name: resolved(one, document)
        for name, one in value.items()
        if name != ALTERNATIVES and (name not in WORDS or not is_said(one))
    }


def is_said(value: Any) -> bool:
    """Whether that is a text or an example, and not a member that has such a name."""
    return not isinstance(value, dict) or "type" not in value


def operations(document: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (path, method): resolved(operation, document)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def schema_of(response: Mapping[str, Any]) -> Any:
    return response.get("content", {}).get("application/json", {}).get("schema", {})


def codes(response: Mapping[str, Any]) -> set[str]:
    """The codes that a refusal may have; none where the document leaves it open."""
    parts = schema_of(response).get("allOf", ())
    return {code for part in parts for code in part["properties"]["code"].get("enum", ())}


def described_alike(ours: Any, theirs: Any) -> None:
    """The same, but that ours may refuse for more reasons, and name them."""
    assert ours["operationId"] == theirs["operationId"]
    assert sorted(map(str, ours["security"])) == sorted(map(str, theirs["security"]))
    by_name = {parameter["name"]: parameter for parameter in ours["parameters"]}
    assert by_name == {parameter["name"]: parameter for parameter in theirs["parameters"]}
    assert ours.get("requestBody") == theirs.get("requestBody")
    assert set(ours["responses"]) - BESIDE <= set(theirs["responses"]) <= set(ours["responses"])
    for status, response in theirs["responses"].items():
        assert_fits(status, ours["responses"][status], response)


def assert_fits(status: str, ours: Any, theirs: Any) -> None:
    """What succeeds is the same; what is refused has the same codes, where the definition names any."""
    assert ours["headers"] == {name.lower(): header for name, header in theirs["headers"].items()}
    if status.startswith("2"):
        assert ours.get("content") == theirs.get("content")
    elif codes(theirs):
        assert ours["content"] == theirs["content"]
    else:
        assert (
            ours["content"]["application/json"]["schema"]["allOf"][0] == theirs["content"]["application/json"]["schema"]
        )


@OF_EACH
def test_our_document_says_what_camaras_definition_says(server: Server, api: Api) -> None:
    theirs = definition(api)
    ours = server.document(api)
    assert ours["info"]["version"] == theirs["info"]["version"]
    assert api.path == theirs["servers"][0]["url"].removeprefix("{apiRoot}")
    assert operations(ours).keys() == operations(theirs).keys()
    for place, operation in operations(theirs).items():
        described_alike(operations(ours)[place], operation)


# Requests made from them


@OF_EACH
@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_requests_as_specified_get_answers_as_specified(server: Server, api: Api, whose: str) -> None:
    document = definition(api) if whose == "theirs" else server.document(api)
    statuses = set()

    def ask(case: schemathesis.Case, token: str | None, known: bool) -> None:
        if known and isinstance(case.body, dict):
            api.mean_a_known_line(case.body)
        response = call(server, api, case, token)
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    fuzz(document, GenerationMode.POSITIVE, server.tokens, ask)
    assert api.reached <= statuses


@OF_EACH
@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_requests_that_are_not_as_specified_are_refused_as_specified(server: Server, api: Api, whose: str) -> None:
    document = definition(api) if whose == "theirs" else server.document(api)

    def ask(case: schemathesis.Case, token: str | None, known: bool) -> None:
        response = call(server, api, case, token)
        case.validate_response(response, checks=[not_a_server_error, content_type_conformance, negative_data_rejection])
        content = response.json()
        assert content["status"] == response.status_code
        assert set(content) == {"status", "code", "message"}

    fuzz(document, GenerationMode.NEGATIVE, {"two legs": server.tokens["two legs"]}, ask)


def fuzz(
    document: dict[str, Any],
    mode: GenerationMode,
    tokens: Mapping[str, str | None],
    ask: Callable[[schemathesis.Case, str | None, bool], None],
) -> None:
    """Asks with made-up requests for every operation of the document."""
    schema = schemathesis.openapi.from_dict(document)
    for result in schema.get_all_operations():
        operation = result.ok()
        cases = operation.as_strategy(generation_mode=mode)
        token = st.just(tokens["two legs"]) | st.sampled_from(list(tokens.values()))  # most of these open nothing
        one = given(cases, token, st.booleans())(ask)
        health = [HealthCheck.too_slow, HealthCheck.filter_too_much]
        settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=health, database=None)(one)()


def call(server: Server, api: Api, case: schemathesis.Case, token: str | None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url, session = f"{server.url}{api.path}", server.session
    return case.call(base_url=url, session=session, headers=headers, verify=session.verify)
