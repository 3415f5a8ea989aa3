"""GraphiQL: who gets it, and that it needs nothing from anywhere else."""

import asyncio
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.requests import Request

from api.graphql import ide
from tests.api.edge_world import GRAPHQL_JSON, Client, Edge

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
AUDITORS = frozenset({"auditor"})


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"))
    yield made
    made.close()


@pytest.fixture
def client(edge: Edge) -> Client:
    return edge.client(ide_roles=AUDITORS)


def test_a_browser_of_who_may_introspect_gets_the_page(client: Client) -> None:
    answer = client.get({"Accept": BROWSER})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.content == ide.FILES["index.html"]


def test_no_script_runs_on_it_but_its_own_files_and_nobody_frames_it(client: Client) -> None:
    policy = client.get({"Accept": BROWSER}).headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["script-src"], rules["connect-src"]) == ("'none'", "'self'", "'self'")
    assert rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy and "http" not in policy


def test_others_get_an_answer_as_ever(edge: Edge) -> None:
    answer = edge.client("administrator", ide_roles=AUDITORS).get({"Accept": BROWSER})
    assert (answer.status_code, answer.headers["content-type"]) == (422, f"{GRAPHQL_JSON}; charset=utf-8")
    assert Client(edge.app(ide_roles=AUDITORS), "nobody").get({"Accept": BROWSER}).status_code == 401


def test_a_query_in_the_url_is_answered_with_its_result(client: Client) -> None:
    assert client.get({"Accept": BROWSER}, query="{ hello }").json()["data"] == {"hello": "world"}


def test_the_page_names_files_of_this_server_only() -> None:
    page = ide.FILES["index.html"].decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [name for name in named if not name.startswith(("/graphql/ide/", "data:"))] == []
    assert {name.rpartition("/")[2] for name in named if name.startswith("/")} == ide.FILES.keys() - {"index.html"}


def test_its_files_are_served() -> None:
    async def fetch(name: str) -> int:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "path_params": {"name": name}}
        return (await ide.answer(Request(scope))).status_code

    assert {asyncio.run(fetch(name)) for name in ide.FILES} == {200}
    assert [asyncio.run(fetch(name)) for name in ("x.js", "../gate.py", "VENDORED.md")] == [404] * 3


def test_the_files_of_others_are_those_that_the_table_names() -> None:
    """With their licence; whoever replaces one says so there."""
    folder = Path(ide.__file__).parent
    table = (folder / "VENDORED.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([^`]+)` \| [^|]+ \| MIT, `([^`]+)` \| `([0-9a-f]{64})` \|", table)
    assert {name for name, _, _ in rows} == {name for name in ide.FILES if ".min." in name}
    for name, licence, digest in rows:
        assert sha256((folder / name).read_bytes()).hexdigest() == digest, name
        assert "Permission is hereby granted, free of charge" in (folder / licence).read_text(encoding="utf-8")
