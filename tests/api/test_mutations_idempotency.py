"""A mutation under an idempotency key is done once, whoever sends it again, how often, when and to which server."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from strawberry.utils.str_converters import to_snake_case

from api.access import Caller
from api.app import create_app
from api.graphql.context import contexts_of
from api.graphql.mutations.mutate import Act, mutate
from api.graphql.mutations.parties import TerminalEnrolInput, enrol_a_terminal
from tests.api.admin_world import (
    ICCIDS,
    ISD,
    OPERATOR,
    OTHER_OPERATOR,
    Answer,
    Client,
    World,
    fail,
    iccid,
    mutation,
    row,
    terminal,
)
from tsm.errors import ErrorCode, TsmError

AT_ONCE = 12


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    on_postgresql = request.param == "postgresql"
    database = request.getfixturevalue("postgres").fresh_database() if on_postgresql else None
    made = World(tmp_path_factory.mktemp("world"), database)
    yield made
    made.close()


@pytest.fixture
def operator(world: World) -> Client:
    return world.party(OPERATOR)


@pytest.fixture(scope="module")
def house(world: World) -> Client:
    return world.person("administrator", "*", "root")


def released(key: str, **changes: str) -> dict[str, str]:
    return {"idempotencyKey": key, "iccid": ICCIDS[0], "domain": ISD, "reason": "new phone"} | changes


def test_given_an_answered_key_when_the_same_comes_again_then_it_is_answered_as_at_first(
    world: World, operator: Client, house: Client
) -> None:
    fail(world, ICCIDS[0])
    first = operator.done("cardRelease", **released("given-1"))
    house.done("terminalEnrol", **terminal("T-later-1"))
    fail(world, ICCIDS[0])  # done again, it would do something again
    end = world.position
    again = operator.done("cardRelease", **released("given-1"))
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert again["logPosition"] == first["logPosition"]
    assert world.position == end


def test_given_an_answered_key_when_the_thing_changed_since_then_it_is_shown_as_it_is_now(house: Client) -> None:
    shown = "terminal { certificateFingerprint }"
    key = {"idempotencyKey": "given-2"}
    first = house.done("terminalEnrol", shown, **key, **terminal("T-2", certificate="aa" * 32))
    house.done("terminalEnrol", **terminal("T-2", certificate="bb" * 32))
    again = house.done("terminalEnrol", shown, **key, **terminal("T-2", certificate="aa" * 32))
    assert first["terminal"] == {"certificateFingerprint": "aa" * 32}
    assert again["repeated"] and again["terminal"] == {"certificateFingerprint": "bb" * 32}


def test_given_an_answered_key_when_something_else_is_asked_under_it_then_it_is_refused(
    world: World, operator: Client, house: Client
) -> None:
    fail(world, ICCIDS[0])
    operator.done("cardRelease", **released("given-3"))
    end, reused = world.position, [("COMMAND_REUSED", ["idempotencyKey"])]
    assert operator.refused("cardRelease", **released("given-3", reason="another")) == reused
    assert operator.refused("cardRegister", idempotencyKey="given-3", rows=[row(iccid(1))]) == reused
    assert world.position == end


def test_given_a_refusal_then_nothing_is_kept_and_the_key_is_good_for_another_try(
    world: World, operator: Client
) -> None:
    end = world.position
    assert operator.refused("cardRelease", **released("given-4", iccid=iccid(2)))[0][0] == "UNKNOWN_CARD"
    assert world.position == end
    operator.done("cardRegister", rows=[row(iccid(2))])
    payload = operator.done("cardRelease", **released("given-4", iccid=iccid(2)))
    assert not payload["repeated"]


def test_a_key_is_its_clients_own(world: World, operator: Client) -> None:
    operator.done("cardRegister", idempotencyKey="mine", rows=[row(iccid(3))])
    other = world.party(OTHER_OPERATOR)
    assert not other.done("cardRegister", idempotencyKey="mine", rows=[row(iccid(4))])["repeated"]
    person = world.person("operator", f"operator:{OPERATOR}", "alice")
    assert not person.done("cardRegister", idempotencyKey="mine", rows=[row(iccid(5))])["repeated"]


def test_a_person_of_two_tenants_does_not_get_one_tenants_answer_for_the_other(world: World) -> None:
    asked = {"idempotencyKey": "both", "rows": [row(iccid(6))]}
    world.person("operator", f"operator:{OPERATOR}", "bob").done("cardRegister", **asked)
    elsewhere = world.person("operator", f"operator:{OTHER_OPERATOR}", "bob")
    assert elsewhere.refused("cardRegister", **asked) == [("COMMAND_REUSED", ["idempotencyKey"])]


def test_what_needs_no_change_is_answered_under_its_key_too(world: World, operator: Client) -> None:
    rows = [row(iccid(7))]
    operator.done("cardRegister", rows=rows)
    end = world.position
    first = operator.done("cardRegister", "cards { iccid }", idempotencyKey="again", rows=rows)
    operator.done("cardRegister", rows=[row(iccid(8))])
    again = operator.done("cardRegister", "cards { iccid }", idempotencyKey="again", rows=rows)
    assert (first["logPosition"], first["repeated"]) == (end, False)
    assert (again["logPosition"], again["repeated"]) == (end, True)
    assert first["cards"] == again["cards"] == [{"iccid": iccid(7)}]


def test_the_same_key_twice_in_one_request_is_done_once(world: World, house: Client) -> None:
    end = world.position
    given = {"idempotencyKey": "twice", **terminal("T-twice")}
    data = house.data(several("a", "b", "c"), a=given, b=given, c={**given, "municipality": "other"})
    assert [data[name]["repeated"] for name in "abc"] == [False, True, False]
    assert data["a"]["logPosition"] == data["b"]["logPosition"] == end + 1
    assert [error["code"] for error in data["c"]["userErrors"]] == ["COMMAND_REUSED"]
    assert world.position == end + 1


def test_several_mutations_of_one_request_run_one_after_the_other(world: World, house: Client) -> None:
    end = world.position
    made = [{"idempotencyKey": f"serial-{number}", **terminal(f"T-serial-{number}")} for number in range(3)]
    made[1]["terminal"] = "no name"
    data = house.data(several("a", "b", "c"), **dict(zip("abc", made, strict=True)))
    assert [data[name]["logPosition"] for name in "abc"] == [end + 1, None, end + 2]
    assert [error["field"] for error in data["b"]["userErrors"]] == [["terminal"]]


def test_a_key_is_remembered_for_thirty_days(world: World, house: Client) -> None:
    given = {"idempotencyKey": "month", **terminal("T-month")}
    house.done("terminalEnrol", **given)
    now = world.parts.clock()
    world.parts.tsm.forget_commands(now + timedelta(days=29, hours=23))
    assert house.done("terminalEnrol", **given)["repeated"]
    world.parts.tsm.forget_commands(now + timedelta(days=30, minutes=1))
    assert not house.done("terminalEnrol", **given)["repeated"]


def test_many_requests_with_one_key_at_the_same_moment_have_one_effect(world: World, operator: Client) -> None:
    for number in range(3):
        before = world.position
        asked = {"idempotencyKey": f"at-once-{number}", "rows": [row(iccid(100 + number))]}
        payloads = at_once([operator] * AT_ONCE, "cardRegister", asked)
        assert [payload["userErrors"] for payload in payloads] == [[]] * AT_ONCE
        assert {payload["logPosition"] for payload in payloads} == {before + 1}
        assert sorted(payload["repeated"] for payload in payloads) == [False] + [True] * (AT_ONCE - 1)
        assert world.position == before + 1


def test_two_servers_that_get_one_key_at_the_same_moment_do_it_once(world: World, operator: Client) -> None:
    parts = world.build()
    elsewhere = Client(create_app(parts), der=world.certificates[OPERATOR])
    try:
        for number in range(5):
            fail(world, ICCIDS[0])
            before = world.position
            asked = released(f"two-servers-{number}")
            payloads = at_once([operator, elsewhere] * 3, "cardRelease", asked)
            assert {payload["logPosition"] for payload in payloads} == {before + 1}
            assert sum(not payload["repeated"] for payload in payloads) == 1
            assert world.position == before + 1
    finally:
        parts.close()


def test_other_content_under_one_key_at_the_same_moment_is_done_for_one_of_them(world: World, house: Client) -> None:
    before = world.position
    asked = [{"idempotencyKey": "contended", **terminal(f"T-contended-{number}")} for number in range(AT_ONCE)]
    payloads = at_once([house] * AT_ONCE, "terminalEnrol", *asked)
    codes = sorted([error["code"] for error in payload["userErrors"]] for payload in payloads)
    assert codes == [[]] + [["COMMAND_REUSED"]] * (AT_ONCE - 1)
    assert world.position == before + 1


def test_whoever_is_refused_because_the_same_was_done_meanwhile_gets_its_answer(world: World) -> None:
    """Decided on what another request under the same key has left, it would be refused."""
    make, caller = contexts_of(world.parts), Caller("root", "administrator", "", client="root")
    given = TerminalEnrolInput(idempotency_key="meanwhile", **to_python(terminal("T-meanwhile")))
    first: list[Any] = []

    def overtaken(act: Act, given: Any) -> None:
        first.append(mutate(make(caller, "request-1"), "terminalEnrol", given, enrol_a_terminal))
        raise TsmError(ErrorCode.WRONG_ORDER, "too late")

    outcome = mutate(make(caller, "request-2"), "terminalEnrol", given, overtaken)
    assert outcome == first[0]._replace(repeated=True) and not first[0].repeated


def at_once(clients: list[Client], name: str, *asked: dict[str, Any]) -> list[Answer]:
    """The payloads of all clients, who ask at the same moment: all the same, or each its own."""
    given = [asked[number % len(asked)] for number in range(len(clients))]

    async def ask_all() -> list[Any]:
        sent = [one.send(mutation(name), {"input": what}) for one, what in zip(clients, given, strict=True)]
        return await asyncio.gather(*sent)

    answers = [response.json() for response in asyncio.run(ask_all())]
    assert all("errors" not in answer for answer in answers), answers
    return [answer["data"][name] for answer in answers]


def to_python(given: dict[str, Any]) -> dict[str, Any]:
    return {to_snake_case(name): value for name, value in given.items()}


def several(*names: str) -> str:
    arguments = ", ".join(f"${name}: TerminalEnrolInput!" for name in names)
    fields = "logPosition repeated userErrors { code field }"
    return f"mutation ({arguments}) {{ {' '.join(f'{n}: terminalEnrol(input: ${n}) {{ {fields} }}' for n in names)} }}"
