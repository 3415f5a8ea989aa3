"""What the admin API does: parties, cards and load files; who may, and what is told to whoever is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import get_named_type, get_nullable_type, is_enum_type, is_input_object_type, is_list_type

from api.graphql.mutations.rules import MUTATIONS, Rule
from api.graphql.schema import SCHEMA
from api.graphql.types import reading
from tests.api.admin_world import (
    APPLICATION_AID,
    CAP,
    DOMAIN,
    ICCIDS,
    ISD,
    LOAD_FILE_AID,
    OPERATOR,
    OTHER_ICCID,
    OTHER_OPERATOR,
    OTHER_PROVIDER,
    PROVIDER,
    Client,
    World,
    base64,
    fail,
    iccid,
    keyed,
    mutation,
    provider_input,
    row,
    terminal,
)
from tests.samples import FINGERPRINT
from tsm.model import operator as operators
from tsm.model.card import CardReleased
from tsm.store.committer import Committer

NEW = ("8981100000000000044", "8981100000000000051", "8981100000000000069")
UNKNOWN = "8981100000000000077"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def house(world: World) -> Client:
    return world.person("administrator", "*", "root")


@pytest.fixture(scope="module")
def operator(world: World) -> Client:
    return world.party(OPERATOR)


@pytest.fixture(scope="module")
def provider(world: World) -> Client:
    return world.party(PROVIDER)


# Parties


def test_a_party_that_is_enrolled_is_in_the_answer(world: World, house: Client) -> None:
    before = len(world.events())
    payload = house.done("terminalEnrol", "terminal { id terminal: party municipality }", **terminal("T-13101-02"))
    assert payload["logPosition"] == before + 1 and not payload["repeated"]
    assert (payload["terminal"]["terminal"], payload["terminal"]["municipality"]) == ("T-13101-02", "13101")
    found = house.data("query ($id: ID!) { node(id: $id) { ... on Terminal { party } } }", id=payload["terminal"]["id"])
    assert found["node"] == {"party": "T-13101-02"}


def test_the_event_says_who_acted_under_which_key_and_in_which_request(world: World, house: Client) -> None:
    payload = house.done("terminalEnrol", idempotencyKey="key-of-mine", **terminal("T-13101-03"))
    [event] = world.parts.tsm.read(payload["logPosition"] - 1, 1)
    context = event.context
    assert (context.actor, context.role, context.tenant) == ("administrator:root", "administrator", "T-13101-03")
    assert context.command.endswith("|root key-of-mine") and len(context.request) == 16


def test_another_certificate_replaces_the_one_before_and_nothing_else_changes(house: Client) -> None:
    house.done("terminalEnrol", **terminal("T-13101-04"))
    payload = house.done("terminalEnrol", "terminal { party }", **terminal("T-13101-04", certificate="cd" * 32))
    assert payload["terminal"] == {"party": "T-13101-04"}
    assert house.refused("terminalEnrol", **terminal("T-13101-04", municipality="13102")) == [("ALREADY_EXISTS", None)]


def test_an_operators_signing_key_is_made_in_the_vault(world: World, house: Client) -> None:
    house.done("operatorEnrol", operator="MNO00009", name="Operator Nine", certificateFingerprint=FINGERPRINT)
    assert world.parts.vault.has("operator/MNO00009/signing")
    assert world.parts.tsm.load("operator-MNO00009", operators.evolve).state.return_urls == (
        "https://127.0.0.1:8443/mno/return",
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"provider": "lower"}, [("INVALID_INPUT", ["provider"])]),
        ({"domain": "00"}, [("INVALID_INPUT", ["domain"])]),
        ({"domain": ISD}, [("FORBIDDEN", ["domain"])]),
        ({"domain": DOMAIN}, [("ALREADY_EXISTS", ["domain"])]),
        ({"notifyUrl": "http://sp.example"}, [("INVALID_INPUT", ["notifyUrl"])]),
        ({"returnUrls": []}, [("INVALID_INPUT", ["returnUrls"])]),
        ({"returnUrls": ["https://a.example", "ftp://b"]}, [("INVALID_INPUT", ["returnUrls"])]),
        ({"authority": "nobody"}, [("NOT_FOUND", ["authority"])]),
        ({"provider": OPERATOR}, [("ALREADY_EXISTS", ["provider"])]),
        ({"certificateFingerprint": "ab"}, [("INVALID_INPUT", ["certificateFingerprint"])]),
        ({"idempotencyKey": "with blank"}, [("INVALID_INPUT", ["idempotencyKey"])]),
        ({"idempotencyKey": ""}, [("INVALID_INPUT", ["idempotencyKey"])]),
        ({"idempotencyKey": "k" * 256}, [("INVALID_INPUT", ["idempotencyKey"])]),
    ],
)
def test_a_refusal_names_the_value_and_records_nothing(
    world: World, house: Client, changes: dict[str, Any], expected: list[Any]
) -> None:
    before = len(world.events())
    described = provider_input("NEWP0001", "A00000015153504199") | changes
    assert house.refused("providerEnrol", **described) == expected
    assert len(world.events()) == before


def test_an_officer_of_one_tenant_manages_that_tenants_party_only(world: World, house: Client) -> None:
    officer = world.person("security-officer", f"operator:{OPERATOR}", "olivia")
    known = world.parts.tsm.load(f"operator-{OPERATOR}", operators.evolve).state
    own = {"name": OPERATOR, "certificateFingerprint": known.certificate_fingerprint}
    officer.done("operatorEnrol", operator=OPERATOR, **own)
    for operator in (OTHER_OPERATOR, "MNO00008"):  # whether or not there is one
        assert officer.refused("operatorEnrol", operator=operator, **own) == [("FORBIDDEN", None)]
    assert officer.refused("terminalEnrol", **terminal("T-1")) == [("FORBIDDEN", None)]
    world.person("security-officer", "*", "otto").done("terminalEnrol", **terminal("T-13101-05"))


# Cards


def test_cards_are_registered_in_bulk_and_shown_in_the_order_of_their_rows(operator: Client) -> None:
    payload = operator.done("cardRegister", "cards { iccid operator profile }", rows=[row(NEW[1]), row(NEW[0])])
    assert [card["iccid"] for card in payload["cards"]] == [NEW[1], NEW[0]]
    assert {card["operator"] for card in payload["cards"]} == {OPERATOR}
    assert operator.data("query ($iccid: String!) { card(iccid: $iccid) { profile } }", iccid=NEW[0])["card"]


def test_every_fault_of_every_row_is_named_and_no_card_is_registered(world: World, operator: Client) -> None:
    before = len(world.events())
    rows = [row(NEW[2]), row(NEW[2]), row("12", iin="x", cin="", keySet="a b", profile="\u0007")]
    assert operator.refused("cardRegister", rows=rows) == [("INVALID_INPUT", ["rows", "2", "profile"])]
    rows[2]["profile"] = "no name"
    assert operator.refused("cardRegister", rows=rows) == [
        ("INVALID_INPUT", ["rows", "1", "iccid"]),
        ("INVALID_INPUT", ["rows", "1", "cin"]),
        *(("INVALID_INPUT", ["rows", "2", column]) for column in ("iccid", "iin", "cin", "keySet", "profile")),
    ]
    assert operator.refused("cardRegister", rows=[row(NEW[2]), row(UNKNOWN, keySet="other")]) == [
        ("UNKNOWN_KEY", ["rows", "1", "keySet"])
    ]
    assert operator.refused("cardRegister", rows=[row(NEW[2]), row(ICCIDS[0], profile="other")]) == [
        ("ALREADY_EXISTS", ["rows", "1", "iccid"])
    ]
    for wrong in ([], [row(NEW[2])] * 201):
        assert operator.refused("cardRegister", rows=wrong) == [("INVALID_INPUT", ["rows"])]
    assert len(world.events()) == before


def test_two_hundred_cards_are_one_commit(world: World, operator: Client) -> None:
    rows = [row(iccid(number)) for number in range(1000, 1200)]
    before = len(world.events())
    payload = operator.done("cardRegister", rows=rows)
    events = world.events()[before:]
    assert (payload["logPosition"], len(events)) == (before + 200, 200)
    assert len({event.context.correlation for event in events}) == 1


def test_a_domain_gets_its_budget_back_with_a_reason(world: World, operator: Client) -> None:
    fail(world, ICCIDS[0])
    released = {"iccid": ICCIDS[0], "domain": ISD}
    assert operator.refused("cardRelease", **released, reason=" ") == [("INVALID_INPUT", ["reason"])]
    assert operator.refused("cardRelease", iccid=ICCIDS[0], domain=DOMAIN, reason="new phone") == [
        ("UNKNOWN_SECURITY_DOMAIN", ["domain"])
    ]
    payload = operator.done("cardRelease", "card { iccid }", **released, reason="new phone")
    [event] = world.parts.tsm.read(payload["logPosition"] - 1, 1)
    assert event.fact == CardReleased(domain=ISD, reason="new phone")
    assert (event.context.reason, event.context.tenant) == ("new phone", OPERATOR)
    assert payload["card"] == {"iccid": ICCIDS[0]}


def test_another_operators_card_looks_like_one_that_is_not_there(world: World, operator: Client) -> None:
    fail(world, OTHER_ICCID)
    answers = [
        operator.do("cardRelease", "card { iccid }", iccid=iccid, domain=ISD, reason="mine")
        for iccid in (OTHER_ICCID, UNKNOWN)
    ]
    assert answers[0] == answers[1]
    assert [error["code"] for error in answers[0]["userErrors"]] == ["UNKNOWN_CARD"]


# Load files


def test_a_provider_registers_its_load_file(provider: Client) -> None:
    shown = "catalogueEntry { loadFile provider version size sha256 }"
    payload = provider.done("loadFileRegister", shown, **load_file("1.0"))
    entry = payload["catalogueEntry"]
    assert (entry["loadFile"], entry["provider"], entry["version"]) == (LOAD_FILE_AID, PROVIDER, "1.0")
    again = provider.done("loadFileRegister", shown, **load_file("1.0"))
    assert again["catalogueEntry"] == entry and again["logPosition"] >= payload["logPosition"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"capFile": "no Base64!"}, [("INVALID_INPUT", ["capFile"])]),
        ({"capFile": "é"}, [("INVALID_INPUT", ["capFile"])]),
        ({"capFile": base64(b"no CAP file")}, [("INVALID_INPUT", ["capFile"])]),
        ({"capFile": base64(CAP[:-40])}, [("INVALID_INPUT", ["capFile"])]),
        ({"capFile": ""}, [("INVALID_INPUT", ["capFile"])]),
        ({"application": "xyz"}, [("INVALID_INPUT", ["application"])]),
        ({"version": "1/0"}, [("INVALID_INPUT", ["version"])]),
    ],
)
def test_what_is_no_load_file_is_refused(provider: Client, changes: dict[str, Any], expected: list[Any]) -> None:
    assert provider.refused("loadFileRegister", **(load_file("2.0") | changes)) == expected


def test_nobody_registers_another_providers_load_file(world: World, provider: Client) -> None:
    provider.done("loadFileRegister", **load_file("1.0"))
    assert world.party(OTHER_PROVIDER).refused("loadFileRegister", **load_file("9.0")) == [("FORBIDDEN", None)]


# Who may


EVERYBODY = {
    "operator": f"operator:{OPERATOR}",
    "provider": f"provider:{PROVIDER}",
    "clerk": "municipality:13101",
    "auditor": "*",
    "security-officer": "*",
    "administrator": "*",
}


@pytest.mark.parametrize(("name", "rule"), MUTATIONS.items(), ids=list(MUTATIONS))
def test_a_mutation_runs_for_its_roles_only(world: World, name: str, rule: Rule) -> None:
    """Whoever may not is refused before anything runs; whoever may is told what is wrong with what he asked."""
    before = len(world.events())
    for role, tenant in EVERYBODY.items():
        answer = world.person(role, tenant, "somebody").ask(mutation(name), input=keyed(nonsense(name)))
        if role in rule.roles:
            assert "errors" not in answer and answer["data"][name]["userErrors"] != []
        else:
            assert answer.get("data") is None
            assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}
    assert len(world.events()) == before


def test_auditors_change_nothing_and_clerks_lock_and_release_cards_only() -> None:
    assert {role for rule in MUTATIONS.values() for role in rule.roles} == set(EVERYBODY) - {"auditor"}
    of_clerks = {name for name, rule in MUTATIONS.items() if "clerk" in rule.roles}
    assert of_clerks == {"cardHoldRelease", "cardLockRequest", "cardUnlockRequest"}


def test_the_table_of_roles_names_every_mutation_and_all_that_its_payload_shows() -> None:
    schema = SCHEMA._schema
    assert schema.mutation_type is not None and schema.mutation_type.fields.keys() == MUTATIONS.keys()
    for name, field in schema.mutation_type.fields.items():
        shown = get_named_type(field.type).fields.keys() - {"logPosition", "repeated", "userErrors"}
        assert shown == set(MUTATIONS[name].shown.split())


# When the server lags or is at fault


def test_a_thing_that_the_read_models_have_not_come_to_is_missing_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    try:
        world.parts.workers[-1].stop()
        monkeypatch.setattr(reading, "READ_YOUR_WRITES", 0.01)
        house = world.person("administrator", "*", "root")
        answer = house.ask(mutation("terminalEnrol", "terminal { party }"), input=keyed(terminal("T-late")))
        payload = answer["data"]["terminalEnrol"]
        assert (payload["logPosition"], payload["userErrors"], payload["terminal"]) == (world.position, [], None)
        assert [(error["path"], error["extensions"]["code"]) for error in answer["errors"]] == [
            (["terminalEnrol", "terminal"], "READ_MODEL_BEHIND")
        ]
    finally:
        world.close()


def test_a_fault_of_the_server_is_no_user_error_and_leaves_the_key_free(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        house, given = world.person("administrator", "*", "root"), keyed(terminal("T-fault"))
        writes, world.parts.tsm._committer = world.parts.tsm._committer, Committer(world.parts.tsm._recorder)
        world.parts.tsm._committer.close()
        answer = house.ask(mutation("terminalEnrol"), input=given)
        assert answer.get("data") is None
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["STORE_UNAVAILABLE"]
        world.parts.tsm._committer = writes
        assert not house.done("terminalEnrol", **given)["repeated"]
    finally:
        world.close()


# Odd requests


ODD = [
    "", " ", "'; DROP TABLE event; --", "\x00", "a\x00b", "\u202e", "\u200b", "../../etc", "%s", "{cards}", "公",
    "x" * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("name", MUTATIONS)
def test_odd_strings_are_refused_as_data(world: World, name: str, odd: str) -> None:
    before = len(world.events())
    role = sorted(MUTATIONS[name].roles)[0]
    payload = world.person(role, EVERYBODY[role], "somebody").do(name, **nonsense(name, odd))
    assert payload["userErrors"] != [] and payload["logPosition"] is None
    assert len(world.events()) == before


def test_nothing_secret_is_in_the_events_and_no_error_repeats_what_was_sent(world: World, operator: Client) -> None:
    secret = "S3cr3t-master-key-40414243"
    answer = operator.ask(mutation("cardRegister"), input=keyed({"rows": [row(NEW[2], keySet=f"{secret}!")]}))
    assert secret not in str(answer)
    world.party(PROVIDER).done("loadFileRegister", **load_file("3.0"))
    stored = b"".join(event.state for event in world.parts.tsm.recorder.select_notifications(0, 100_000))
    assert base64(CAP).encode() not in stored and secret.encode() not in stored


# Given


def load_file(version: str) -> dict[str, str]:
    return {"version": version, "application": APPLICATION_AID, "capFile": base64(CAP)}


def nonsense(name: str, text: str = "nonsense") -> dict[str, Any]:
    """An input for this mutation that has the right shape and no meaning, but for its key."""
    schema = SCHEMA._schema
    assert schema.mutation_type is not None
    given = filled(get_nullable_type(schema.mutation_type.fields[name].args["input"].type), text)
    del given["idempotencyKey"]
    return dict(given)


def filled(kind: Any, text: str) -> Any:
    kind = get_nullable_type(kind)
    if is_list_type(kind):
        return [filled(kind.of_type, text)]
    if is_input_object_type(kind):
        return {name: filled(field.type, text) for name, field in kind.fields.items()}
    if is_enum_type(kind):
        return next(iter(kind.values))
    return {"Boolean": False, "Int": 1, "DateTime": "2026-11-21T12:00:00Z", "String": text}[kind.name]
