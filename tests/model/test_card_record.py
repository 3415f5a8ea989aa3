"""What the record of a card says after its facts, and the budget for failed authentications."""

import msgspec
import pytest
from given import given
from samples import CARD, ICCID, ISD, LOAD_FILE, SSD

from tsm.errors import ErrorCode, TsmError
from tsm.model import card
from tsm.model.card import (
    MAX_FAILURES,
    Application,
    ApplicationInstalled,
    ApplicationPersonalized,
    CardAuthenticated,
    CardAuthenticationFailed,
    CardReleased,
    CommandRefused,
    CommandUnanswered,
    ContentAudited,
    KeysPut,
    LifeCycleChanged,
    LoadedFile,
    LoadFileLoaded,
    SecurityDomain,
    SecurityDomainCreated,
)

CREATED = SecurityDomainCreated(domain=SSD, parent=ISD, privileges="80", life_cycle="SELECTABLE")
PROVISIONAL = KeysPut(
    domain=SSD, key_version=1, check_values=("010101", "020202", "030303"), provisional=True, key="card/1/ssd/01"
)
ROTATED = KeysPut(
    domain=SSD, key_version=2, check_values=("0a0a0a", "0b0b0b", "0c0c0c"), provisional=False, key="card/1/ssd/02"
)
LOADED = LoadFileLoaded(load_file=LOAD_FILE.load_file, domain=SSD, sha256="ab" * 32, size=4711)
INSTALLED = ApplicationInstalled(
    application=LOAD_FILE.application,
    module=LOAD_FILE.module,
    load_file=LOAD_FILE.load_file,
    domain=SSD,
    privileges="00",
    life_cycle="SELECTABLE",
)
PERSONALIZED = ApplicationPersonalized(application=LOAD_FILE.application, domain=SSD)


def failed(failures: int, domain: str = ISD) -> CardAuthenticationFailed:
    return CardAuthenticationFailed(domain=domain, key_version=1, failures=failures)


def test_a_card_is_registered() -> None:
    given(card.evolve).when(card.register, CARD).then(CARD)


def test_registering_a_card_again_is_no_news() -> None:
    given(card.evolve, CARD, CREATED).when(card.register, CARD).then_nothing()


def test_a_card_is_not_registered_with_other_keys() -> None:
    other = msgspec.structs.replace(CARD, key_version=2)
    given(card.evolve, CARD).when(card.register, other).then_refused(ErrorCode.ALREADY_EXISTS)


@pytest.mark.parametrize(
    "bad",
    [
        {"iccid": "8981100000000000011"},
        {"operator": "x"},
        {"isd": "a0"},
        {"key": "a key"},
        {"iin": "8"},
        {"cin": ""},
        {"diversification": "00"},
        {"profile": "a profile"},
    ],
)
def test_a_value_that_is_not_as_specified_is_refused(bad: dict[str, str]) -> None:
    wrong = msgspec.structs.replace(CARD, **bad)
    given(card.evolve).when(card.register, wrong).then_refused(ErrorCode.INVALID_INPUT)


def test_a_card_leaves_the_factory_with_its_issuers_domain() -> None:
    state = given(card.evolve, CARD).state
    assert (state.iccid, state.operator, state.isd) == (ICCID, "MNO00001", ISD)
    assert state.domain(ISD) == SecurityDomain(aid=ISD, parent=ISD, life_cycle="SECURED", key_version=1, key=CARD.key)


def test_a_domain_that_the_card_lacks_is_unknown() -> None:
    with pytest.raises(TsmError, match="UNKNOWN_SECURITY_DOMAIN"):
        given(card.evolve, CARD).state.domain(SSD)


def test_a_domain_is_created_without_keys() -> None:
    domain = given(card.evolve, CARD, CREATED).state.domain(SSD)
    assert domain == SecurityDomain(aid=SSD, parent=ISD, privileges="80", life_cycle="SELECTABLE")


def test_its_first_keys_personalize_a_domain() -> None:
    domain = given(card.evolve, CARD, CREATED, PROVISIONAL).state.domain(SSD)
    assert (domain.life_cycle, domain.key_version, domain.provisional) == ("PERSONALIZED", 1, True)


def test_a_rotation_replaces_the_provisional_keys() -> None:
    domain = given(card.evolve, CARD, CREATED, PROVISIONAL, ROTATED).state.domain(SSD)
    assert (domain.key_version, domain.key, domain.check_values, domain.provisional) == (
        2,
        ROTATED.key,
        ROTATED.check_values,
        False,
    )


def test_keys_do_not_unlock_a_domain() -> None:
    locked = msgspec.structs.replace(CREATED, life_cycle="LOCKED")
    assert given(card.evolve, CARD, locked, PROVISIONAL).state.domain(SSD).life_cycle == "LOCKED"


def test_a_load_file_is_loaded_into_a_domain() -> None:
    state = given(card.evolve, CARD, CREATED, LOADED).state
    assert state.load_files == {
        LOADED.load_file: LoadedFile(aid=LOADED.load_file, domain=SSD, sha256=LOADED.sha256, size=4711)
    }


def test_an_application_is_installed_and_personalized() -> None:
    history = (CARD, CREATED, LOADED, INSTALLED)
    installed = given(card.evolve, *history).state.applications[LOAD_FILE.application]
    assert (installed.life_cycle, installed.module, installed.domain) == ("SELECTABLE", LOAD_FILE.module, SSD)
    personalized = given(card.evolve, *history, PERSONALIZED).state.applications[LOAD_FILE.application]
    assert personalized == msgspec.structs.replace(installed, life_cycle="PERSONALIZED")


def test_an_application_that_came_with_the_card_can_be_personalized() -> None:
    applications = given(card.evolve, CARD, PERSONALIZED).state.applications
    assert applications[PERSONALIZED.application] == Application(
        aid=PERSONALIZED.application, domain=SSD, life_cycle="PERSONALIZED"
    )


def test_a_refused_command_changes_nothing_on_the_card() -> None:
    refused = CommandRefused(domain=ISD, command="COMMAND", header="80e60c00", status_word="6200", verified=True)
    assert given(card.evolve, CARD, refused).state == given(card.evolve, CARD).state


@pytest.mark.parametrize(("header", "in_doubt"), [("80e60c00", True), ("80d80181", True), ("80ca00e0", False)])
def test_a_refusal_that_nothing_proves_leaves_a_change_of_content_in_doubt(header: str, in_doubt: bool) -> None:
    refused = CommandRefused(domain=SSD, command="COMMAND", header=header, status_word="6985")
    assert (SSD in given(card.evolve, CARD, CREATED, refused).state.doubtful) is in_doubt


def test_a_command_without_an_answer_leaves_its_domain_in_doubt_until_the_card_was_asked() -> None:
    unanswered = CommandUnanswered(domain=ISD, header="80e88000")
    given(card.evolve, CARD).when(lambda _: card.unanswered(ISD, "80e88000")).then(unanswered)
    given(card.evolve, CARD).when(lambda _: card.unanswered(ISD, "80ca00e0")).then_nothing()
    in_doubt = given(card.evolve, CARD, CREATED, unanswered)
    assert in_doubt.state.doubtful == {ISD}
    in_doubt.when(card.audited, SSD).then_nothing()
    in_doubt.when(card.audited, ISD).then(ContentAudited(domain=ISD))
    assert given(card.evolve, CARD, unanswered, ContentAudited(domain=ISD)).state.doubtful == frozenset()


def test_a_life_cycle_changes_for_domains_applications_and_what_came_with_the_card() -> None:
    def changed(instance: str) -> LifeCycleChanged:
        return LifeCycleChanged(instance=instance, domain=ISD, life_cycle="LOCKED")

    history = (CARD, CREATED, LOADED, INSTALLED, *map(changed, (SSD, INSTALLED.application, "A00000000101")))
    state = given(card.evolve, *history).state
    assert (state.domain(SSD).life_cycle, state.domain(SSD).parent) == ("LOCKED", ISD)
    assert state.applications[INSTALLED.application].life_cycle == "LOCKED"
    assert state.applications[INSTALLED.application].module == INSTALLED.module
    assert state.applications["A00000000101"] == Application(aid="A00000000101", domain=ISD, life_cycle="LOCKED")


def test_a_failed_authentication_counts() -> None:
    given(card.evolve, CARD).when(card.authentication_failed, ISD, 1).then(failed(1))
    given(card.evolve, CARD, failed(1)).when(card.authentication_failed, ISD, 1).then(failed(2))


def test_an_authentication_ends_the_count() -> None:
    authenticated = CardAuthenticated(domain=ISD, key_version=1)
    given(card.evolve, CARD, failed(1)).when(card.authenticated, ISD, 1).then(authenticated)
    assert given(card.evolve, CARD, failed(1), authenticated).state.failures[ISD] == 0


def test_an_authentication_without_failures_is_no_news() -> None:
    given(card.evolve, CARD).when(card.authenticated, ISD, 1).then_nothing()


def test_a_domain_is_left_alone_when_its_budget_is_used_up_and_the_others_are_not() -> None:
    state = given(card.evolve, CARD, failed(MAX_FAILURES - 1)).state
    assert state.refuse_exhausted(ISD) is state
    exhausted = given(card.evolve, CARD, failed(MAX_FAILURES)).state
    assert exhausted.refuse_exhausted(SSD) is exhausted
    with pytest.raises(TsmError, match="CARD_AUTHENTICATION_EXHAUSTED"):
        exhausted.refuse_exhausted(ISD)


RELEASED = CardReleased(domain=ISD, reason="the phone was replaced")


def test_the_operator_releases_a_domain() -> None:
    exhausted = given(card.evolve, CARD, failed(MAX_FAILURES))
    exhausted.when(card.release, ICCID, CARD.operator, RELEASED).then(RELEASED)
    assert not given(card.evolve, CARD, failed(MAX_FAILURES), RELEASED).state.is_exhausted(ISD)


def test_releasing_a_domain_without_failures_is_no_news() -> None:
    given(card.evolve, CARD).when(card.release, ICCID, CARD.operator, RELEASED).then_nothing()


def test_only_the_cards_operator_releases_a_domain_that_is_there_and_says_why() -> None:
    def release(code: ErrorCode, operator: str, released: CardReleased, *history: card.Fact) -> None:
        given(card.evolve, *history).when(card.release, ICCID, operator, released).then_refused(code)

    release(ErrorCode.UNKNOWN_CARD, CARD.operator, RELEASED)
    release(ErrorCode.FORBIDDEN, "MNO00002", RELEASED, CARD)
    elsewhere = CardReleased(domain=SSD, reason=RELEASED.reason)
    release(ErrorCode.UNKNOWN_SECURITY_DOMAIN, CARD.operator, elsewhere, CARD)
    release(ErrorCode.INVALID_INPUT, CARD.operator, CardReleased(domain=ISD, reason=" "), CARD)


def test_one_domains_success_does_not_hide_anothers_failures() -> None:
    history = (CARD, CREATED, PROVISIONAL, failed(MAX_FAILURES))
    given(card.evolve, *history).when(card.authenticated, SSD, 1).then_nothing()
    other = CardAuthenticated(domain=SSD, key_version=1)
    with pytest.raises(TsmError, match="CARD_AUTHENTICATION_EXHAUSTED"):
        given(card.evolve, *history, other).state.refuse_exhausted(ISD)


def test_a_history_begins_with_the_registration() -> None:
    with pytest.raises(TsmError, match="STORE_CORRUPT"):
        given(card.evolve, CREATED)
