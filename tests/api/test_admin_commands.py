"""`tsm admin`: tokens are made and revoked on the server's machine, and a running server sees it at once."""

import argparse
import base64
import json
import logging
import re
import shlex
from pathlib import Path

import pytest

from api import admin_commands, administration, cli
from api.access import TENANTS
from api.bootstrap import CONFIG_FILE, Settings
from api.local_login import is_loopback
from projections.viewer import EVERYTHING, NOTHING
from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model.operation import OperationKind

OPERATOR = {"operator": "MNO00001", "name": "Simulated Mobile", "certificate_fingerprint": "ab" * 32}


@pytest.fixture
def data(tmp_path):
    administration.initialise(tmp_path / "data", tmp_path / "kek", "127.0.0.1", 8443)
    administration.enrol(tmp_path / "data", "operator", json.dumps(OPERATOR).encode())
    return tmp_path / "data"


@pytest.fixture
def tsm(data, capsys):
    """Runs a command; what it printed, from JSON where that was asked for."""
    top = argparse.ArgumentParser()
    admin_commands.add_to(top.add_subparsers(), cli.add, data)

    def run(*words):
        given = top.parse_args(["admin", *words])
        given.run(given)
        printed = capsys.readouterr()
        return json.loads(printed.out) if "--json" in words else printed

    return run


def configure(data, **changes):
    path = data / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def knock(data, token):
    """At a server that stands on the same folder."""
    with administration.opened(data) as parts:
        return parts.access.of({"headers": [(b"authorization", f"Bearer {token}".encode())]})


def refused(code, work, *arguments):
    with pytest.raises(TsmError) as refusal:
        work(*arguments)
    assert refusal.value.code == code
    return refusal.value


# --- The local login ---


def test_a_local_login_opens_the_server_that_made_it(data, tsm):
    made = tsm("token", "--role", "administrator", "--json")
    caller = knock(data, made["token"])
    assert (caller.actor, caller.viewer) == ("administrator:console", NOTHING)
    assert caller.expires_at.isoformat()[:16] == made["expiresAt"][:16]
    made = tsm("token", "--role", "operator", "--tenant", "operator:MNO00001", "--person", "bob", "--json")
    assert knock(data, made["token"]).actor == "operator:MNO00001/bob"


def test_for_people_the_token_alone_is_on_standard_output(tsm):
    printed = tsm("token", "--role", "auditor")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed.out)
    assert "auditor" in printed.err
    assert printed.out.strip() not in printed.err


def test_a_local_login_of_another_server_opens_nothing_though_its_address_is_the_same(data, tsm, tmp_path):
    administration.initialise(tmp_path / "other", tmp_path / "other.kek", "127.0.0.1", 8443)
    made = tsm("token", "--role", "auditor", "--json")
    refused(ErrorCode.UNAUTHENTICATED, knock, tmp_path / "other", made["token"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ErrorCode.FORBIDDEN, ["--role", "operator"]),
        (ErrorCode.FORBIDDEN, ["--role", "operator", "--tenant", "operator:MNO00009"]),
        (ErrorCode.INVALID_INPUT, ["--role", "auditor", "--minutes", "0"]),
        (ErrorCode.INVALID_INPUT, ["--role", "auditor", "--minutes", "721"]),
        (ErrorCode.INVALID_INPUT, ["--role", "auditor", "--minutes", "9" * 30]),
        (ErrorCode.INVALID_INPUT, ["--role", "auditor", "--person", "a b"]),
    ],
)
def test_a_local_login_that_would_open_nothing_or_too_much_is_not_made(tsm, code, words):
    refused(code, tsm, "token", *words)


def local_logins(parts):
    return [e for e in parts.tsm.read(0, 100) if e.topic == "local_token.issued"]


def test_a_local_login_is_in_the_log_but_for_the_token(data, tsm):
    made = tsm("token", "--role", "operator", "--tenant", "operator:MNO00001", "--person", "bob", "--json")
    tsm("token", "--role", "auditor")
    with administration.opened(data) as parts:
        event, other = local_logins(parts)
    fact = event.fact
    assert (fact.id, fact.person, fact.role, fact.tenant) == (made["id"], "bob", "operator", "operator:MNO00001")
    assert fact.expires_at.isoformat(timespec="seconds") == made["expiresAt"]
    assert (event.context.actor, event.context.tenant) == ("administrator:console", "MNO00001")
    assert (other.fact.role, other.fact.tenant, other.context.tenant) == ("auditor", "*", "tsm-server")
    payload = made["token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(payload + "=="))["jti"] == fact.id
    for part in made["token"].split("."):
        assert part.encode() not in b"".join(path.read_bytes() for path in data.glob("log.sqlite*"))


def test_a_local_login_that_cannot_be_recorded_is_not_shown(tsm, capsys, monkeypatch):
    def lost(*_, **__):
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "no room on the disk")

    monkeypatch.setattr(Tsm, "commit", lost)
    refused(ErrorCode.STORE_UNAVAILABLE, tsm, "token", "--role", "auditor")
    assert capsys.readouterr().out == ""


def test_a_server_that_runs_hears_of_a_local_login(data, tsm):
    with administration.opened(data) as server:
        server.start()
        made = tsm("token", "--role", "auditor", "--json")
        [event] = local_logins(server)
    assert event.fact.id == made["id"]


# --- Where it is accepted ---


@pytest.mark.parametrize(
    ("host", "said", "accepted"),
    [
        ("127.0.0.1", None, True),
        ("127.9.9.9", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),  # noqa: S104 - nothing listens
        ("::", None, False),
        ("192.0.2.1", None, False),
        ("tsm.example", None, False),
        ("localhost.example", None, False),
        ("127.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("192.0.2.1", False, False),
        ("192.0.2.1", "even-from-the-network", True),
    ],
)
def test_a_local_login_is_accepted_by_itself_on_loopback_only(data, tsm, host, said, accepted):
    token = tsm("token", "--role", "auditor", "--json")["token"]
    configure(data, host=host, access={} if said is None else {"local_login": said})
    assert Settings.load(data).local_login is accepted
    if accepted:
        assert knock(data, token).role == "auditor"
        assert tsm("token", "--role", "auditor", "--json")
    else:
        refused(ErrorCode.UNAUTHENTICATED, knock, data, token)
        assert "local_login" in refused(ErrorCode.FORBIDDEN, tsm, "token", "--role", "auditor").detail


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "tsm.example"])  # noqa: S104 - nothing listens
def test_turned_on_for_a_host_that_others_reach_it_keeps_the_server_from_starting(data, host):
    configure(data, host=host, access={"local_login": True})
    refusal = refused(ErrorCode.INVALID_INPUT, Settings.load, data)
    assert "even-from-the-network" in refusal.detail
    assert host in refusal.detail


def test_a_name_that_only_looks_like_loopback_is_none():
    assert not any(map(is_loopback, ["", "127.0.0.1.example", "localhost.", "2130706433", "0x7f000001", "127.1"]))


# --- Issuers in the settings ---

GOOD = {"issuer": "https://id.example", "audience": "https://tsm.example", "algorithms": ["ES256"], "jwks": "set.json"}


def test_issuers_are_read_from_the_settings(data):
    configure(data, access={"issuers": [GOOD, {**GOOD, "issuer": "b", "jwks": "https://id.example/jwks"}]})
    assert [issuer.jwks for issuer in Settings.load(data).access.issuers] == ["set.json", "https://id.example/jwks"]
    with administration.opened(data):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["ES256", "HS256"]},
        {"algorithms": "ES256"},
        {"jwks": "http://id.example/jwks"},
        {"jwks": "https://user@id.example/jwks"},
        {"jwks": "file:///etc/passwd"},
        {"jwks": ""},
        {"issuer": ""},
        {"issuer": "https://127.0.0.1:8443"},
        {"audience": ""},
        {"leeway": 5},
    ],
    ids=str,
)
def test_an_issuer_that_could_let_in_anybody_is_refused_at_the_start(data, changes):
    configure(data, access={"issuers": [{**GOOD, **changes}]})
    refused(ErrorCode.INVALID_INPUT, Settings.load, data)
    for missing in ("issuer", "audience", "algorithms", "jwks"):
        configure(data, access={"issuers": [{name: value for name, value in GOOD.items() if name != missing}]})
        refused(ErrorCode.INVALID_INPUT, Settings.load, data)


def test_an_issuer_is_named_once(data):
    configure(data, access={"issuers": [GOOD, {**GOOD, "audience": "another"}]})
    refused(ErrorCode.INVALID_INPUT, Settings.load, data)


def test_what_needs_a_second_person_is_a_setting(data):
    assert set(Settings.load(data).four_eyes) == {
        OperationKind.DELETE,
        OperationKind.REVOKE_CREDENTIAL,
        OperationKind.ERASE_PERSON,
        OperationKind.WITHDRAW_PARTY,
        OperationKind.ADOPT_SWAP_POLICY,
    }
    configure(data, four_eyes=["rotate-keys"])
    assert Settings.load(data).four_eyes == (OperationKind.ROTATE_KEYS,)
    configure(data, four_eyes=["rotate"])
    refused(ErrorCode.INVALID_INPUT, Settings.load, data)


# --- What docs/access.md says ---

DOCUMENT = (Path(__file__).parents[2] / "docs" / "access.md").read_text()


def test_the_commands_of_the_document_are_understood():
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        assert cli.parser().parse_args(command[1:]).run


def test_the_settings_of_the_document_are_accepted(data):
    [settings] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    configure(data, **json.loads("{" + settings + "}"))
    assert Settings.load(data).access.issuers[0].algorithms == ("ES256",)
    assert Settings.load(data).local_login is False


def test_the_defaults_of_the_document_are_those_of_the_settings(data):
    assert json.dumps(Settings.load(data).four_eyes) in DOCUMENT


def test_the_roles_of_the_document_are_those_of_the_table():
    named = re.findall(r"^\| `([a-z-]+)` \| .*\|$", DOCUMENT.partition("## Roles and tenants")[2], re.MULTILINE)
    assert [name for name in named if name in TENANTS] == list(TENANTS)


# --- Service tokens ---

ISSUE = ["service-token", "issue", "--name", "nightly export", "--reason", "the export needs one"]


def test_a_service_token_is_issued_listed_and_revoked(data, tsm):
    made = tsm(*ISSUE, "--role", "operator", "--tenant", "operator:MNO00001", "--json")
    assert knock(data, made["token"]).client == f"service-token:{made['id']}"
    [listed] = tsm("service-token", "list", "--json")
    assert (listed["id"], listed["state"], listed["tenant"]) == (made["id"], "good", "operator:MNO00001")
    revoked = tsm("service-token", "revoke", made["id"], "--reason", "the export is gone", "--json")
    assert revoked["position"] == made["position"] + 1
    refused(ErrorCode.UNAUTHENTICATED, knock, data, made["token"])
    assert tsm("service-token", "list", "--json")[0]["state"] == "revoked"
    assert made["id"] in tsm("service-token", "list").out


def test_who_issued_and_revoked_and_why_is_recorded_and_the_token_is_not(data, tsm, caplog):
    caplog.set_level(logging.DEBUG)
    made = tsm(*ISSUE, "--role", "operator", "--tenant", "operator:MNO00001", "--json")
    tsm("service-token", "revoke", made["id"], "--reason", "it leaked")
    with administration.opened(data) as parts:
        issued, revoked = parts.tsm.history(f"service-token-{made['id']}")
    assert (issued.context.actor, issued.context.tenant) == ("administrator:console", "MNO00001")
    assert (issued.context.reason, revoked.context.reason) == ("the export needs one", "it leaked")
    secret = made["token"].removeprefix(f"tsm_{made['id']}_")
    stored = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert made["id"].encode() in stored
    assert secret.encode() not in stored
    assert secret not in caplog.text
    assert secret not in tsm("service-token", "list").out


def test_for_people_the_service_token_alone_is_on_standard_output(data, tsm):
    printed = tsm(*ISSUE, "--role", "auditor")
    assert re.fullmatch(r"tsm_[0-9a-f]{16}_[\w-]{43}\n", printed.out)
    assert knock(data, printed.out.strip()).viewer == EVERYTHING


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ErrorCode.FORBIDDEN, [*ISSUE, "--role", "operator"]),
        (ErrorCode.FORBIDDEN, [*ISSUE, "--role", "provider", "--tenant", "provider:NOBODY01"]),
        (ErrorCode.INVALID_INPUT, [*ISSUE, "--role", "auditor", "--days", "0"]),
        (ErrorCode.INVALID_INPUT, [*ISSUE, "--role", "auditor", "--days", "367"]),
        (ErrorCode.INVALID_INPUT, [*ISSUE, "--role", "auditor", "--name", ""]),
        (ErrorCode.INVALID_INPUT, [*ISSUE, "--role", "auditor", "--reason", ""]),
        (ErrorCode.NOT_FOUND, ["service-token", "revoke", "0" * 16, "--reason", "r"]),
    ],
)
def test_a_service_token_that_would_open_nothing_or_is_none_is_refused(tsm, code, words):
    refused(code, tsm, *words)
    assert tsm("service-token", "list", "--json") == []
    assert "no service token" in tsm("service-token", "list").out
