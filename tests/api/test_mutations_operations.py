"""What waits for a card or for a second person: asked for, agreed to, refused, taken back, and brought to a phone."""

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from os import urandom
from typing import Any
from uuid import uuid4

import pytest

from api import administration
from api.service_tokens import ServiceTokens
from tests.api.admin_world import (
    APPLICATION_AID,
    CAP,
    DOMAIN,
    ICCIDS,
    ISD,
    LOAD_FILE_AID,
    OPERATOR,
    OTHER_DOMAIN,
    OTHER_ICCID,
    OTHER_OPERATOR,
    OTHER_PROVIDER,
    PROVIDER,
    Answer,
    Client,
    World,
    base64,
    iccid,
    mutation,
    row,
    terminal,
)
from tsm.application import Change
from tsm.mas.launch import LaunchParameters
from tsm.model import credential as credentials
from tsm.model import delegation as delegations
from tsm.model import session as sessions
from tsm.model import terminal as terminals
from tsm.model.card import (
    ApplicationInstalled,
    KeysPut,
    LoadFileLoaded,
    SecurityDomainCreated,
)
from tsm.model.credential import CredentialApplied, PersonErased
from tsm.model.delegation import DelegationAccepted, DelegationEnded
from tsm.model.event import Context
from tsm.model.operation import OperationApproved, OperationRequested
from tsm.model.party import WITHDRAWN
from tsm.model.session import SessionStarted

CARD, BARE_CARD = ICCIDS
SHOWN = "operation { operation kind state target reason requestedBy approvedBy }"
UNKNOWN = "8981100000000000077"
WHY = "the holder asked for it"
PATIENCE = 20.0  # seconds for a worker's rounds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    made.tell(f"card-{CARD}", *content(DOMAIN, LOAD_FILE_AID, APPLICATION_AID))
    made.tell(f"card-{OTHER_ICCID}", *content(OTHER_DOMAIN, "A0000000620301", "A000000062030101"))
    file = {"version": "1.0", "application": APPLICATION_AID, "capFile": base64(CAP)}
    made.party(PROVIDER).done("loadFileRegister", **file)
    yield made
    made.close()


def content(domain: str, load_file: str, application: str) -> list[Any]:
    """A provider's domain with its own keys, and an application in it."""
    return [
        SecurityDomainCreated(domain=domain, parent=ISD, privileges="80", life_cycle="SELECTABLE"),
        KeysPut(domain=domain, key_version=2, check_values=("aa" * 3,) * 3, provisional=False, key=f"x/{domain}"),
        LoadFileLoaded(load_file=load_file, domain=domain, sha256="ab" * 32, size=100),
        ApplicationInstalled(
            application=application,
            module=application,
            load_file=load_file,
            domain=domain,
            privileges="00",
            life_cycle="SELECTABLE",
        ),
    ]


@pytest.fixture
def operator(world: World) -> Client:
    return world.party(OPERATOR)


@pytest.fixture
def provider(world: World) -> Client:
    return world.party(PROVIDER)


@pytest.fixture
def paula(world: World) -> Client:
    return world.person("provider", f"provider:{PROVIDER}", "paula")


@pytest.fixture
def alice(world: World) -> Client:
    return world.person("operator", f"operator:{OPERATOR}", "alice")


@pytest.fixture
def bob(world: World) -> Client:
    return world.person("operator", f"operator:{OPERATOR}", "bob")


# Asked for


def test_what_needs_the_card_waits_for_it(world: World, operator: Client) -> None:
    payload = operator.done("securityDomainCreate", SHOWN, iccid=BARE_CARD, domain=DOMAIN)
    made = payload["operation"]
    assert (made["kind"], made["state"], made["target"]) == ("create-domain", "WAITING", DOMAIN)
    found = operator.data("query ($id: String!) { operation(id: $id) { state } }", id=made["operation"])
    assert found["operation"]["state"] == "WAITING"
    asked = world.parts.tsm.read(payload["logPosition"] - 1, 1)[0]
    assert isinstance(asked.fact, OperationRequested)
    assert (asked.context.tenant, asked.context.tenants) == (OPERATOR, (PROVIDER,))


def test_the_same_key_leads_to_the_same_operation(operator: Client) -> None:
    asked = {"idempotencyKey": "audit-1", "iccid": CARD, "reason": WHY}
    first, again = (operator.done("cardAudit", SHOWN, **asked) for _ in range(2))
    assert first["operation"] == again["operation"] and again["repeated"]


def test_requests_with_one_key_at_the_same_moment_lead_to_one_operation(world: World, operator: Client) -> None:
    before = world.position
    asked = {"idempotencyKey": "rotate-1", "iccid": CARD, "reason": WHY}
    payloads = at_once(operator, "domainKeysRotate", asked, 8)
    assert len({payload["operation"]["operation"] for payload in payloads}) == 1
    assert sorted(payload["repeated"] for payload in payloads) == [False] + [True] * 7
    assert world.position == before + 1


@pytest.mark.parametrize(
    ("name", "about", "expected"),
    [
        ("securityDomainLock", {"domain": DOMAIN, "reason": ""}, ("INVALID_INPUT", ["reason"])),
        ("securityDomainLock", {"domain": ISD, "reason": WHY}, ("INVALID_INPUT", None)),
        ("securityDomainLock", {"domain": APPLICATION_AID, "reason": WHY}, ("UNKNOWN_SECURITY_DOMAIN", ["domain"])),
        ("securityDomainUnlock", {"domain": DOMAIN, "reason": WHY}, ("WRONG_ORDER", None)),
        ("securityDomainDelete", {"domain": DOMAIN, "reason": WHY}, ("WRONG_ORDER", None)),
        ("securityDomainDelete", {"domain": DOMAIN, "related": True, "reason": " "}, ("INVALID_INPUT", ["reason"])),
        ("securityDomainCreate", {"domain": DOMAIN}, ("ALREADY_EXISTS", None)),
        ("securityDomainCreate", {"domain": "A0000001515350FF"}, ("NOT_FOUND", ["domain"])),
        ("domainKeysRotate", {"reason": "\t"}, ("INVALID_INPUT", ["reason"])),
    ],
)
def test_what_the_card_forbids_or_lacks_a_reason_is_refused(
    world: World, operator: Client, name: str, about: dict[str, Any], expected: Any
) -> None:
    before = world.position
    assert operator.refused(name, iccid=CARD, **about) == [expected]
    assert world.position == before


# Whose it is


OF_APPLICATION = {"application": APPLICATION_AID, "reason": WHY}
OF_DOMAIN = {"domain": DOMAIN, "reason": WHY}
WITH_ALL_OF_IT = {**OF_DOMAIN, "related": True}
OF_FILE = {"loadFile": LOAD_FILE_AID, "reason": WHY}
ABOUT = {
    "securityDomainLock": OF_DOMAIN,
    "securityDomainUnlock": OF_DOMAIN,
    "securityDomainDelete": OF_DOMAIN,
    "applicationLock": OF_APPLICATION,
    "applicationUnlock": OF_APPLICATION,
    "applicationDelete": OF_APPLICATION,
    "loadFileDelete": OF_FILE,
}


@pytest.mark.parametrize("name", [*ABOUT, "cardAudit", "domainKeysRotate", "securityDomainCreate"])
def test_another_operators_card_looks_like_one_that_is_not_there(world: World, name: str) -> None:
    about = {"domain": DOMAIN} if name == "securityDomainCreate" else ABOUT.get(name, {"reason": WHY})
    other = world.party(OTHER_OPERATOR)
    there, nowhere = (other.do(name, SHOWN, iccid=iccid, **about) for iccid in (CARD, UNKNOWN))
    assert there == nowhere
    assert [error["code"] for error in there["userErrors"]] == ["UNKNOWN_CARD"]


@pytest.mark.parametrize("name", ABOUT)
def test_what_is_another_providers_looks_like_what_is_not_there(world: World, name: str) -> None:
    other = world.party(OTHER_PROVIDER)
    there, nowhere = (other.do(name, SHOWN, iccid=iccid, **ABOUT[name]) for iccid in (CARD, UNKNOWN))
    assert there == nowhere and there["userErrors"] != []
    own_card = other.do(name, SHOWN, iccid=OTHER_ICCID, **ABOUT[name])
    assert [error["code"] for error in own_card["userErrors"]] in (["NOT_FOUND"], ["UNKNOWN_SECURITY_DOMAIN"])


def test_a_provider_has_its_own_things_locked_and_its_operator_sees_that(provider: Client, operator: Client) -> None:
    domain = provider.done("securityDomainLock", SHOWN, iccid=CARD, **OF_DOMAIN)["operation"]
    application = provider.done("applicationLock", SHOWN, iccid=CARD, **OF_APPLICATION)["operation"]
    assert (domain["state"], application["target"]) == ("WAITING", APPLICATION_AID)
    assert operator.data("query ($id: String!) { operation(id: $id) { kind } }", id=domain["operation"])["operation"]


def test_what_a_provider_put_into_its_domain_is_not_there_for_the_operator(operator: Client) -> None:
    for name in ("applicationLock", "applicationDelete", "loadFileDelete"):
        [(code, _)] = operator.refused(name, iccid=CARD, **ABOUT[name])
        assert code == "NOT_FOUND"


def test_what_is_another_partys_does_not_go_with_ones_own(world: World, provider: Client, operator: Client) -> None:
    """Another provider's application runs from a load file; its domain lies below one."""
    card, files = iccid(3), ("A0000000620401", "A0000000620402")
    operator.done("cardRegister", rows=[row(card)])
    world.tell(f"card-{card}", *content(DOMAIN, files[0], "A000000062040101"))
    world.tell(f"card-{card}", LoadFileLoaded(load_file=files[1], domain=ISD, sha256="ab" * 32, size=100))
    below = SecurityDomainCreated(domain=OTHER_DOMAIN, parent=DOMAIN, privileges="80", life_cycle="SELECTABLE")
    world.tell(f"card-{card}", below)
    for file in files:
        others = content(OTHER_DOMAIN, file, f"{file}FF")[-1]
        world.tell(f"card-{card}", others)
    before = world.position
    asked = {"iccid": card, "reason": WHY, "related": True}
    assert provider.refused("loadFileDelete", loadFile=files[0], **asked) == [("FORBIDDEN", ["related"])]
    assert provider.refused("securityDomainDelete", domain=DOMAIN, **asked) == [("FORBIDDEN", ["related"])]
    assert operator.refused("loadFileDelete", loadFile=files[1], **asked) == [("FORBIDDEN", ["related"])]
    assert world.position == before


def test_a_provider_installs_what_it_registered_on_cards_with_its_domain(world: World, provider: Client) -> None:
    installing = {"loadFile": LOAD_FILE_AID}
    assert provider.refused("applicationInstall", iccid=CARD, **installing) == [("ALREADY_EXISTS", None)]
    assert provider.refused("applicationInstall", iccid=UNKNOWN, **installing) == [("UNKNOWN_CARD", ["iccid"])]
    assert provider.refused("applicationInstall", iccid=CARD, loadFile="A0000000620301") == [
        ("NOT_FOUND", ["loadFile"])
    ]
    other = world.party(OTHER_PROVIDER)
    assert other.refused("applicationInstall", iccid=OTHER_ICCID, **installing) == [("NOT_FOUND", ["loadFile"])]


def test_a_provider_asks_for_its_own_domain_only(provider: Client) -> None:
    for domain in (OTHER_DOMAIN, "A0000001515350FF"):
        asked = {"iccid": BARE_CARD, "domain": domain}
        assert provider.refused("securityDomainCreate", **asked) == [("NOT_FOUND", ["domain"])]
        assert provider.refused("securityDomainCreate", **asked | {"iccid": UNKNOWN}) == [("NOT_FOUND", ["domain"])]
    elsewhere = provider.done("securityDomainCreate", SHOWN, iccid=OTHER_ICCID, domain=DOMAIN)
    assert elsewhere["operation"]["target"] == DOMAIN


@pytest.mark.parametrize("name", ["operationApprove", "operationReject", "operationCancel", "operationContact"])
def test_another_partys_operation_looks_like_one_that_is_not_there(world: World, operator: Client, name: str) -> None:
    made = operator.done("cardAudit", SHOWN, iccid=CARD)["operation"]["operation"]
    reason = {"reason": WHY} if name in ("operationReject", "operationCancel") else {}
    people = [
        world.party(OTHER_OPERATOR),
        world.party(OTHER_PROVIDER),
        world.party(PROVIDER),  # its operator's own affair
    ]
    before = world.position
    for client in people:
        there, nowhere = (client.do(name, SHOWN, operation=one, **reason) for one in (made, str(uuid4())))
        assert there == nowhere
        assert [(error["code"], error["field"]) for error in there["userErrors"]] == [("NOT_FOUND", ["operation"])]
    assert world.position == before


# Four eyes


def test_what_destroys_awaits_a_second_person_and_both_are_recorded(world: World, alice: Client, bob: Client) -> None:
    asked = {"iccid": CARD, "domain": DOMAIN, "related": True, "reason": WHY}
    made = alice.done("securityDomainDelete", SHOWN, **asked)["operation"]
    assert (made["state"], made["reason"]) == ("AWAITING_APPROVAL", WHY)
    assert alice.refused("operationApprove", operation=made["operation"]) == [("FORBIDDEN", None)]
    approved = bob.done("operationApprove", SHOWN, operation=made["operation"])
    assert (approved["operation"]["state"], approved["operation"]["approvedBy"]) == (
        "WAITING",
        f"operator:{OPERATOR}/bob",
    )
    assert approved["operation"]["requestedBy"] == f"operator:{OPERATOR}/alice"
    [event] = world.parts.tsm.read(approved["logPosition"] - 1, 1)
    server = world.parts.settings.public_url
    assert event.fact == OperationApproved(approved_by=f"operator:{OPERATOR}/bob", person=f"{server}|bob")
    assert event.context.person == f"{server}|bob"


def test_one_person_in_two_roles_is_one_person(world: World, alice: Client) -> None:
    made = alice.done("securityDomainDelete", SHOWN, iccid=CARD, **WITH_ALL_OF_IT)["operation"]["operation"]
    as_officer = world.person("security-officer", "*", "alice")
    as_provider = world.person("provider", f"provider:{PROVIDER}", "alice")
    before = world.position
    for client in (alice, as_officer, as_provider):
        assert client.refused("operationApprove", operation=made) == [("FORBIDDEN", None)]
        assert client.refused("operationReject", operation=made, reason=WHY) == [("FORBIDDEN", None)]
    assert world.position == before
    assert world.person("security-officer", "*", "otto").done("operationApprove", operation=made)["userErrors"] == []


def test_a_partys_second_person_is_one_of_its_own_or_an_officer(
    world: World, alice: Client, bob: Client, paula: Client
) -> None:
    peter = world.person("provider", f"provider:{PROVIDER}", "peter")
    officer = world.person("security-officer", f"operator:{OPERATOR}", "olivia")
    for asking, other, second in ((alice, paula, bob), (paula, bob, peter), (paula, bob, officer)):
        made = asking.done("securityDomainDelete", SHOWN, iccid=CARD, **WITH_ALL_OF_IT)["operation"]["operation"]
        assert other.refused("operationApprove", operation=made) == [("FORBIDDEN", None)]
        assert second.done("operationApprove", SHOWN, operation=made)["operation"]["state"] == "WAITING"
        bob.done("operationCancel", operation=made, reason=WHY)


@pytest.mark.parametrize("program", ["certificate", "service token"])
def test_a_program_is_no_person(world: World, alice: Client, program: str) -> None:
    client = world.party(OPERATOR) if program == "certificate" else serving(world)
    asked = alice.done("securityDomainDelete", SHOWN, iccid=CARD, **WITH_ALL_OF_IT)["operation"]["operation"]
    before = world.position
    assert client.refused("operationApprove", operation=asked) == [("FORBIDDEN", None)]
    assert client.refused("operationReject", operation=asked, reason=WHY) == [("FORBIDDEN", None)]
    assert client.refused("securityDomainDelete", iccid=CARD, **WITH_ALL_OF_IT) == [("FORBIDDEN", None)]
    assert world.position == before
    audit = client.done("cardAudit", SHOWN, iccid=CARD)["operation"]  # what needs no second person, it may ask for
    assert (audit["state"], audit["requestedBy"].partition("/")[0]) == ("WAITING", f"operator:{OPERATOR}")
    taken_back = client.done("operationCancel", SHOWN, operation=asked, reason=WHY)["operation"]
    assert taken_back["state"] == "CANCELLED"


def test_a_second_person_refuses_with_a_reason(alice: Client, bob: Client) -> None:
    made = alice.done("securityDomainDelete", SHOWN, iccid=CARD, domain=DOMAIN, related=True, reason=WHY)["operation"]
    which = {"operation": made["operation"]}
    assert bob.refused("operationReject", **which, reason="") == [("INVALID_INPUT", ["reason"])]
    assert alice.refused("operationReject", **which, reason="mine") == [("FORBIDDEN", None)]
    assert bob.done("operationReject", SHOWN, **which, reason="not now")["operation"]["state"] == "REJECTED"
    assert bob.refused("operationApprove", **which) == [("WRONG_ORDER", None)]


def test_an_operation_is_taken_back_once(world: World, operator: Client) -> None:
    made = operator.done("cardAudit", SHOWN, iccid=CARD)["operation"]["operation"]
    before = world.position
    asked = {"idempotencyKey": "cancel-1", "operation": made, "reason": "by mistake"}
    payloads = at_once(operator, "operationCancel", asked, 8)
    assert {payload["operation"]["state"] for payload in payloads} == {"CANCELLED"}
    assert sorted(payload["repeated"] for payload in payloads) == [False] + [True] * 7
    assert world.position == before + 1
    assert operator.refused("operationCancel", operation=made, reason="again") == [("WRONG_ORDER", None)]


def test_a_provider_ends_what_it_asked_for_and_not_what_the_cards_operator_did(
    alice: Client, bob: Client, paula: Client, provider: Client
) -> None:
    lock = alice.done("securityDomainLock", SHOWN, iccid=CARD, domain=DOMAIN, reason="fraud")["operation"]["operation"]
    delete = alice.done("securityDomainDelete", SHOWN, iccid=CARD, **WITH_ALL_OF_IT)["operation"]["operation"]
    assert paula.refused("operationReject", operation=delete, reason=WHY) == [("FORBIDDEN", None)]
    for made in (lock, delete):
        assert paula.refused("operationCancel", operation=made, reason=WHY) == [("FORBIDDEN", None)]
        assert bob.done("operationCancel", SHOWN, operation=made, reason=WHY)["operation"]["state"] == "CANCELLED"
    for client in (provider, bob):  # the operator's card, and the operator's name in which it would be done
        own = paula.done("securityDomainLock", SHOWN, iccid=CARD, domain=DOMAIN, reason=WHY)["operation"]["operation"]
        assert client.done("operationCancel", SHOWN, operation=own, reason=WHY)["operation"]["state"] == "CANCELLED"


def test_a_party_that_is_withdrawn_is_nobody_once_an_officer_agrees(world: World) -> None:
    root, otto = world.person("administrator", "*", "root"), world.person("security-officer", "*", "otto")
    root.done("terminalEnrol", **terminal("T-gone"))
    asked = {"kind": "TERMINAL", "party": "T-gone", "reason": "the counter was closed"}
    assert root.refused("partyWithdraw", **asked | {"party": "T-nowhere"}) == [("NOT_FOUND", ["party"])]
    made = root.done("partyWithdraw", "operation { operation state }", **asked)["operation"]
    assert made["state"] == "AWAITING_APPROVAL"
    approved = otto.done("operationApprove", SHOWN, operation=made["operation"])["operation"]
    assert (approved["target"], approved["requestedBy"]) == ("terminal/T-gone", "administrator:root")
    assert ended(otto, made["operation"]) == "DONE"
    state = world.parts.tsm.load(terminals.stream("T-gone"), terminals.evolve).state
    assert state is not None and state.certificate_fingerprint == WITHDRAWN


def test_a_certificate_that_came_after_the_request_is_not_withdrawn(world: World) -> None:
    root, otto = world.person("administrator", "*", "root"), world.person("security-officer", "*", "otto")
    root.done("terminalEnrol", **terminal("T-renewed"))
    asked = {"kind": "TERMINAL", "party": "T-renewed", "reason": "its key was lost"}
    made = root.done("partyWithdraw", "operation { operation }", **asked)["operation"]["operation"]
    root.done("terminalEnrol", **terminal("T-renewed", certificate="ee" * 32))  # with a new key
    assert otto.refused("operationApprove", operation=made) == [("WRONG_ORDER", None)]

    def fingerprint() -> str:
        state = world.parts.tsm.load(terminals.stream("T-renewed"), terminals.evolve).state
        assert state is not None
        return state.certificate_fingerprint

    assert fingerprint() == "ee" * 32
    again = root.done("partyWithdraw", "operation { operation }", **asked)["operation"]["operation"]
    otto.done("operationApprove", operation=again)
    assert ended(otto, again) == "DONE"
    assert fingerprint() == WITHDRAWN


def test_an_administrator_takes_back_what_concerns_parties_only(world: World, operator: Client) -> None:
    root = world.person("administrator", "*", "root")
    root.done("terminalEnrol", **terminal("T-stays"))
    asked = {"kind": "TERMINAL", "party": "T-stays", "reason": "by mistake"}
    made = root.done("partyWithdraw", "operation { operation }", **asked)["operation"]["operation"]
    assert root.done("operationCancel", "operation { state }", operation=made, reason=WHY)["operation"] == {
        "state": "CANCELLED"
    }
    audit = operator.done("cardAudit", SHOWN, iccid=CARD)["operation"]["operation"]
    assert root.refused("operationCancel", operation=audit, reason=WHY) == [("NOT_FOUND", ["operation"])]


def test_only_who_manages_the_whole_house_withdraws_parties(world: World) -> None:
    officer = world.person("security-officer", f"operator:{OPERATOR}", "olivia")
    for party in (OPERATOR, "MNO00007"):
        asked = {"kind": "OPERATOR", "party": party, "reason": WHY}
        assert officer.refused("partyWithdraw", **asked) == [("FORBIDDEN", None)]


# Persons


def test_a_person_is_erased_once_two_people_want_it(world: World, paula: Client) -> None:
    credential = applied(world)
    asked = {"credential": credential, "reason": "the application was withdrawn"}
    made = paula.done("personErase", SHOWN, **asked)["operation"]
    assert made["state"] == "AWAITING_APPROVAL"
    officer = world.person("security-officer", "*", "otto")
    officer.done("operationApprove", operation=made["operation"])
    assert ended(officer, made["operation"]) == "DONE"
    erased = [event for event in world.events() if isinstance(event.fact, PersonErased)]
    assert [event.originator_id for event in erased] == [credentials.stream(credential)]


def test_an_erasure_waits_for_the_end_of_a_session_with_the_card(world: World, paula: Client) -> None:
    credential, reception = applied(world), "2026112100000777"
    place, story = (PROVIDER, reception), Context(actor="phone", role="phone", tenant=PROVIDER, correlation=credential)
    until = world.parts.tsm.now() + timedelta(hours=1)
    accepted = DelegationAccepted(
        provider=PROVIDER, operator=OPERATOR, reception=reception, iccid=CARD, domain=DOMAIN, correlation=credential,
        generated_at="20261121093000", received_at=until, commands=(), content_index="", expires_at=until,
    )  # fmt: skip
    started = SessionStarted(
        provider=PROVIDER, reception=reception, iccid=CARD, domain=DOMAIN, key="key", key_version=2, return_url="",
        token_sha256="", expires_at=until,
    )  # fmt: skip
    tsm = world.parts.tsm
    begun = Change(delegations.stream(*place), 0, [accepted]), Change(sessions.stream(*place), 0, [started])
    tsm.commit(*begun, context=story, occurred_at=tsm.now())
    made = paula.done("personErase", SHOWN, credential=credential, reason=WHY)["operation"]["operation"]
    officer = world.person("security-officer", "*", "otto")
    officer.done("operationApprove", operation=made)
    assert world.parts.operations.settle(made).state == "WAITING"

    ended_then = DelegationEnded(status="99", executed=0)
    tsm.commit(Change(delegations.stream(*place), 1, [ended_then]), context=story, occurred_at=tsm.now())

    assert ended(officer, made) == "DONE"


def test_what_cannot_be_revoked_fails_and_says_why(world: World, paula: Client) -> None:
    credential = applied(world)
    asked = {"credential": credential, "revocationReason": "KEY_COMPROMISE", "reason": "the phone was stolen"}
    made = paula.done("credentialRevoke", SHOWN, **asked)["operation"]
    world.person("security-officer", "*", "otto").done("operationApprove", operation=made["operation"])
    assert ended(paula, made["operation"]) == "FAILED"  # nothing was issued


@pytest.mark.parametrize("name", ["credentialRevoke", "personErase"])
def test_another_providers_credential_looks_like_one_that_is_not_there(world: World, name: str) -> None:
    asked = {"reason": WHY} | ({"revocationReason": "UNSPECIFIED"} if name == "credentialRevoke" else {})
    for client in (
        world.party(OTHER_PROVIDER),
        world.person("security-officer", f"operator:{OPERATOR}", "olivia"),
        world.person("security-officer", f"provider:{OTHER_PROVIDER}", "olaf"),
    ):
        there, nowhere = (client.do(name, SHOWN, credential=one, **asked) for one in (applied(world), str(uuid4())))
        assert there == nowhere
        assert [(error["code"], error["field"]) for error in there["userErrors"]] == [("NOT_FOUND", ["credential"])]


# The contact


def test_the_phone_gets_what_it_needs_and_the_same_again(operator: Client) -> None:
    operator.done("cardRegister", rows=[row(iccid(1))])
    made = operator.done("cardAudit", SHOWN, iccid=iccid(1))["operation"]["operation"]
    shown = "launch operation { state reception }"
    first = operator.done("operationContact", shown, idempotencyKey="contact-1", operation=made)
    launch = LaunchParameters.parse(first["launch"])
    assert (first["operation"]["state"], first["operation"]["reception"]) == ("DELEGATED", launch.reception)
    assert launch.provider == OPERATOR
    again = operator.done("operationContact", shown, idempotencyKey="contact-1", operation=made)
    assert again["repeated"] and LaunchParameters.parse(again["launch"]).reception == launch.reception
    operator.done("operationCancel", operation=made, reason="the phone has left")
    late = operator.done("operationContact", shown, idempotencyKey="contact-1", operation=made)
    assert late["repeated"] and late["launch"] is None and late["operation"]["state"] == "CANCELLED"


def test_phones_that_come_at_the_same_moment_get_one_launch(world: World, operator: Client) -> None:
    operator.done("cardRegister", rows=[row(iccid(2))])
    made = operator.done("cardAudit", SHOWN, iccid=iccid(2))["operation"]["operation"]
    asked = {"idempotencyKey": "contact-2", "operation": made}
    payloads = at_once(operator, "operationContact", asked, 6, "launch")
    assert [payload["userErrors"] for payload in payloads] == [[]] * 6
    assert sorted(payload["repeated"] for payload in payloads) == [False] + [True] * 5
    assert len({LaunchParameters.parse(payload["launch"]).reception for payload in payloads}) == 1
    delegated = [event for event in world.events() if event.topic == "operation.delegated"]
    assert len([event for event in delegated if event.context.correlation == made]) == 1
    anew = operator.done("operationContact", "launch", operation=made)  # under another key, the same launch
    assert not anew["repeated"] and LaunchParameters.parse(anew["launch"]).reception in payloads[0]["launch"]


# Given


def serving(world: World) -> Client:
    """A program of the operator, with a service token."""
    tsm, until = world.parts.tsm, world.parts.tsm.now() + timedelta(hours=1)
    by = administration.administrator("test")
    issued = ServiceTokens(tsm).issue("desk", "operator", f"operator:{OPERATOR}", until, by, urandom)
    return Client(world.app, issued.token)


def applied(world: World) -> str:
    """A credential that somebody applied for."""
    credential = str(uuid4())
    fact = CredentialApplied(
        subject=credential,
        provider=PROVIDER,
        terminal="T-1",
        municipality="13101",
        iccid=CARD,
        applicant="Simulated Applicant",
        document_sha256="ab" * 32,
    )
    world.tell(credentials.stream(credential), fact)
    return credential


def ended(client: Client, operation: str) -> str:
    """The state in which an operation comes to its end."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        state = client.data("query ($id: String!) { operation(id: $id) { state } }", id=operation)["operation"]["state"]
        if state in ("DONE", "FAILED"):
            return str(state)
        time.sleep(0.05)
    raise AssertionError(f"the operation is {state}")


def at_once(client: Client, name: str, asked: dict[str, Any], times: int, shown: str = SHOWN) -> list[Answer]:
    async def ask_all() -> list[Any]:
        sent = (client.send(mutation(name, shown), {"input": asked}) for _ in range(times))
        return await asyncio.gather(*sent)

    answers = [response.json() for response in asyncio.run(ask_all())]
    assert all("errors" not in answer for answer in answers), answers
    return [answer["data"][name] for answer in answers]
