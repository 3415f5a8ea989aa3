"""What the documents promise is there: the README's commands exist and run, INTERFACES.md has every status and path."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from graphql import build_schema, parse, validate
from graphql.execution.values import get_variable_values

from api import administration
from api.cli import parser
from tsm.mas.status import Status
from tsm.model.swap_policy import DEFAULT, Level, Rule, read_policy
from tsm.uicc import jpki_cap

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
SIM_SWAP = (ROOT / "docs" / "sim_swap.md").read_text()
INTERFACES = (ROOT / "api" / "INTERFACES.md").read_text()
DESCRIPTION = '{"operator": "MNO00001", "name": "Simulated Mobile", "certificate_fingerprint": "%s"}'
PRODUCTION = "iccid,iin,cin,key_set,profile\n8981100000000000010,8981100F,08981100000000000010,isd-2026,uicc-128k\n"
BACKGROUND = ("serve", "card")  # they run until they are stopped: the demo and the conformance tests start them


def commands(document: str) -> list[list[str]]:
    """Every line of the document's shell blocks that begins with `tsm`, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    return [
        shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if line.startswith("tsm")
    ]


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"[`$] ?make ([a-z]+)", README))
    assert named and named <= targets


@pytest.mark.parametrize("command", commands(README), ids=" ".join)
def test_every_command_of_the_readme_is_understood(command: list[str]) -> None:
    assert parser().parse_args(command[1:]).run


def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    """As written, with this test's folders; load file, erasure and lines need what the demo has, or a server."""
    (tmp_path / "production.csv").write_text(PRODUCTION)
    (tmp_path / "jpki.cap").write_bytes(jpki_cap.build())
    ran = []
    for command in commands(README):
        words = [word.replace("/srv/tsm", "data").replace("/etc/tsm/kek", "kek") for word in command[1:]]
        if words[0] in (*BACKGROUND, "register-load-file", "erase", "lines"):
            continue
        if words[0] == "certify":
            words[words.index("request.pem")] = "operator/request.pem"
        if words[0] == "enrol":
            (tmp_path / "operator.json").write_text(DESCRIPTION % ("ab" * 32))
        done = run(words, tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        ran.append(words[0])
    registration = ["init", "show", "request", "certify", "enrol", "import-key", "register-cards"]
    looking = ["store"] * 3 + ["projections"] * 3
    assert ran == [*registration, "release-card", "withdraw", "admin", "admin", *looking, "schema"]


def run(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *words],
        input="00" * 15 + "01\n",  # the master key, at import-key's pipe
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run(["show", "--data", "nowhere"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tsm: ") and len(done.stderr.splitlines()) == 1


def test_a_key_encryption_key_inside_the_data_folder_is_refused(tmp_path: Path) -> None:
    done = run(["init", "--data", "data", "--kek", "data/kek"], tmp_path)
    assert done.returncode == 2
    assert "key-encryption key" in done.stderr
    assert not (tmp_path / "data" / "config.json").exists()


def test_the_architecture_names_what_a_data_folder_holds(tmp_path: Path) -> None:
    """What is stored where: the files of the table are there, and none that the table does not name."""
    data = tmp_path / "data"
    administration.initialise(data, tmp_path / "kek", "127.0.0.1", 8443)
    with administration.opened(data):
        pass
    table = ARCHITECTURE.partition("## What is stored where")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert [name for name in named if not (data / name).exists()] == []
    kept = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    places = (*named, "config.json")
    assert [name for name in kept if not name.startswith(places)] == []


@pytest.mark.parametrize("status", Status)
def test_every_status_is_documented(status: Status) -> None:
    assert re.search(rf"^\| {status.value} \| {status.info or re.escape('(empty)')} \|", INTERFACES, re.MULTILINE)


def test_the_default_policy_is_documented_as_it_is() -> None:
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in SIM_SWAP.splitlines()]
    told = [
        (row[0], row[1].split("`")[0], row[2], row[3], row[4].removesuffix(" hours"))
        for row in rows
        if len(row) == 5 and row[2] in Level.__members__
    ]
    assert told == [
        (rule.name, rule.condition, rule.level.name, str(rule.within_hours or ""), lasts(rule))
        for rule in DEFAULT.rules
    ]
    assert f"Settle window: {DEFAULT.settle_hours} hours" in SIM_SWAP


def lasts(rule: Rule) -> str:
    """As the table says it: of the level REVOKE there is nothing to say."""
    until = "" if rule.level is Level.REVOKE else "until released"
    return str(rule.lasts_hours) if rule.lasts_hours else until


def test_the_policy_of_the_document_is_understood() -> None:
    """By the admin API, which asks for it in its own names, and by whoever judges it."""
    [asked] = re.findall(r"```graphql\n(.*?)```", SIM_SWAP, re.DOTALL)
    [given] = re.findall(r"```json\n(.*?)```", SIM_SWAP, re.DOTALL)
    schema, query = build_schema((ROOT / "schema.graphql").read_text()), parse(asked)
    assert validate(schema, query) == []
    variables = query.definitions[0].variable_definitions  # type: ignore[attr-defined]
    assert not isinstance(get_variable_values(schema, variables, json.loads(given)), list)  # of errors
    snake = re.sub(r'"(\w+)":', lambda name: re.sub("([A-Z])", r"_\1", name[0]).lower(), given)
    assert read_policy(json.dumps(json.loads(snake)["policy"]).encode()).version == DEFAULT.version + 1


def test_the_readme_opens_with_what_it_is_and_a_transcript() -> None:
    lines = README.splitlines()
    assert lines[0].startswith("**An open Trusted Service Manager")
    assert "$ make demo" in "\n".join(lines[:6])
    assert "TRANSCRIPT" not in README
