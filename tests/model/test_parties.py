"""Enrolment and withdrawal of operators, providers, terminals and authorities; an operator's master keys."""

from types import ModuleType
from typing import Any

import msgspec
import pytest
from given import given
from samples import AUTHORITY, FINGERPRINT, ISD, OPERATOR, PROVIDER, SSD, TERMINAL

from tsm.errors import ErrorCode, TsmError
from tsm.model import authority, domain, operator, party, service_provider, terminal
from tsm.model.domain import DomainClaimed
from tsm.model.event import Fact
from tsm.model.operator import MasterKeyImported
from tsm.model.party import CertificateReplaced, CertificateWithdrawn

PARTIES: list[tuple[ModuleType, Any]] = [
    (operator, OPERATOR),
    (service_provider, PROVIDER),
    (terminal, TERMINAL),
    (authority, AUTHORITY),
]
NEW = "cd" * 32
MASTER_KEY = MasterKeyImported(
    operator="MNO00001",
    key_set="isd",
    key="operator/MNO00001/isd",
    derivation="kdf3",
    key_version=1,
    check_value="0a1b2c",
)


@pytest.mark.parametrize(("room", "enrolled"), PARTIES)
def test_a_party_is_enrolled(room: ModuleType, enrolled: Fact) -> None:
    given(room.evolve).when(room.enrol, enrolled).then(enrolled)


@pytest.mark.parametrize(("room", "enrolled"), PARTIES)
def test_enrolling_a_party_again_is_no_news(room: ModuleType, enrolled: Fact) -> None:
    given(room.evolve, enrolled).when(room.enrol, enrolled).then_nothing()


def certified(enrolled: Any, fingerprint: str) -> Any:
    return msgspec.structs.replace(enrolled, certificate_fingerprint=fingerprint)


@pytest.mark.parametrize(("room", "enrolled"), PARTIES)
def test_enrolling_with_another_certificate_replaces_it(room: ModuleType, enrolled: Fact) -> None:
    other = certified(enrolled, NEW)
    replaced = CertificateReplaced(certificate_fingerprint=NEW)
    given(room.evolve, enrolled).when(room.enrol, other).then(replaced)
    history = given(room.evolve, enrolled, replaced)
    assert history.state.certificate_fingerprint == NEW
    history.when(room.enrol, other).then_nothing()


@pytest.mark.parametrize(("room", "enrolled"), PARTIES)
def test_anything_else_under_the_same_id_is_refused_with_or_without_a_new_certificate(
    room: ModuleType, enrolled: Any
) -> None:
    field = "municipality" if room is terminal else "name"
    for fingerprint in (FINGERPRINT, NEW):
        other = msgspec.structs.replace(certified(enrolled, fingerprint), **{field: "another"})
        given(room.evolve, enrolled).when(room.enrol, other).then_refused(ErrorCode.ALREADY_EXISTS)


@pytest.mark.parametrize(("room", "enrolled"), PARTIES)
def test_a_withdrawn_party_has_no_certificate_until_it_is_enrolled_again(room: ModuleType, enrolled: Any) -> None:
    withdrawn = CertificateWithdrawn(certificate_fingerprint=FINGERPRINT)
    given(room.evolve, enrolled).when(party.withdraw).then(withdrawn)
    history = given(room.evolve, enrolled, withdrawn)
    assert history.state.certificate_fingerprint == party.WITHDRAWN
    history.when(party.withdraw).then_nothing()
    history.when(room.enrol, certified(enrolled, NEW)).then(CertificateReplaced(certificate_fingerprint=NEW))


def test_nobody_is_withdrawn_who_was_not_enrolled() -> None:
    given(terminal.evolve).when(party.withdraw).then_refused(ErrorCode.NOT_FOUND)


def test_a_new_certificate_leaves_an_operators_keys_as_they_are() -> None:
    history = given(operator.evolve, OPERATOR, MASTER_KEY, CertificateReplaced(certificate_fingerprint=NEW))
    assert history.state.key_set("isd") == MASTER_KEY


def test_the_domain_of_a_provider_is_no_others_and_not_the_issuers() -> None:
    claimed = DomainClaimed(domain=SSD, provider="JPKI0001")
    given(domain.evolve).when(domain.claim, SSD, "JPKI0001").then(claimed)
    given(domain.evolve, claimed).when(domain.claim, SSD, "JPKI0001").then_nothing()
    given(domain.evolve, claimed).when(domain.claim, SSD, "BANK0001").then_refused(ErrorCode.ALREADY_EXISTS)
    given(domain.evolve).when(domain.claim, ISD, "JPKI0001").then_refused(ErrorCode.FORBIDDEN)


@pytest.mark.parametrize(
    ("room", "enrolled", "bad"),
    [
        (operator, OPERATOR, {"operator": "mno"}),
        (operator, OPERATOR, {"name": " "}),
        (operator, OPERATOR, {"signing_key": "a key"}),
        (operator, OPERATOR, {"public_key": "not hex"}),
        (operator, OPERATOR, {"return_urls": ("http://tsm.example/",)}),
        (service_provider, PROVIDER, {"provider": "JPKI-001"}),
        (service_provider, PROVIDER, {"domain": "A0"}),
        (service_provider, PROVIDER, {"authority": "../jpki"}),
        (service_provider, PROVIDER, {"return_urls": ()}),
        (service_provider, PROVIDER, {"notify_url": "https://user@sp.example/"}),
        (service_provider, PROVIDER, {"notify_url": "https://sp.example/#here"}),
        (service_provider, PROVIDER, {"notify_url": "https://sp.example/\r\nx"}),
        (service_provider, PROVIDER, {"notify_url": "https://sp.example:99999/"}),
        (terminal, TERMINAL, {"terminal": "T 1"}),
        (terminal, TERMINAL, {"municipality": "x\ny"}),
        (terminal, TERMINAL, {"certificate_fingerprint": "ab"}),
        (authority, AUTHORITY, {"url": "ca.example"}),
        (authority, AUTHORITY, {"signature_ca": ""}),
        (authority, AUTHORITY, {"signature_crl_url": "https://"}),
    ],
)
def test_a_value_that_is_not_as_specified_is_refused(room: ModuleType, enrolled: Fact, bad: dict[str, Any]) -> None:
    wrong = msgspec.structs.replace(enrolled, **bad)
    given(room.evolve).when(room.enrol, wrong).then_refused(ErrorCode.INVALID_INPUT)


def test_a_refusal_names_the_field_and_not_its_value() -> None:
    with pytest.raises(TsmError) as refusal:
        terminal.enrol(None, msgspec.structs.replace(TERMINAL, municipality="secret\n"))
    assert refusal.value.detail == "municipality: empty, too long or not printable"


def test_an_operators_master_key_is_imported() -> None:
    given(operator.evolve, OPERATOR).when(operator.import_master_key, "MNO00001", "isd", 1, "0a1b2c").then(MASTER_KEY)


def test_importing_a_master_key_again_is_no_news() -> None:
    history = given(operator.evolve, OPERATOR, MASTER_KEY)
    history.when(operator.import_master_key, "MNO00001", "isd", 1, "0a1b2c").then_nothing()


def test_another_master_key_under_the_same_name_is_refused() -> None:
    history = given(operator.evolve, OPERATOR, MASTER_KEY)
    history.when(operator.import_master_key, "MNO00001", "isd", 1, "ffffff").then_refused(ErrorCode.ALREADY_EXISTS)


def test_a_master_key_needs_its_operator() -> None:
    given(operator.evolve).when(operator.import_master_key, "MNO00001", "isd", 1, "0a1b2c").then_refused(
        ErrorCode.NOT_FOUND
    )


@pytest.mark.parametrize("values", [("a/b", 1, "0a1b2c"), ("isd", 0, "0a1b2c"), ("isd", 128, "0a1b2c"), ("isd", 1, "")])
def test_a_master_key_has_a_name_a_version_and_a_check_value(values: tuple[str, int, str]) -> None:
    history = given(operator.evolve, OPERATOR)
    history.when(operator.import_master_key, "MNO00001", *values).then_refused(ErrorCode.INVALID_INPUT)


def test_enrolling_an_operator_again_after_its_keys_is_no_news() -> None:
    given(operator.evolve, OPERATOR, MASTER_KEY).when(operator.enrol, OPERATOR).then_nothing()


def test_a_key_set_is_found_by_its_name() -> None:
    state = given(operator.evolve, OPERATOR, MASTER_KEY).state
    assert state.key_set("isd") == MASTER_KEY
    with pytest.raises(TsmError, match="UNKNOWN_KEY"):
        state.key_set("other")
