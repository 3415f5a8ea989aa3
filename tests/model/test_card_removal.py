"""What a card's record says when something is locked or deleted, and which keys the vault need not hold any more."""

from given import given
from samples import CARD, ISD, LOAD_FILE, SSD
from test_card_record import CREATED, INSTALLED, LOADED, PROVISIONAL, ROTATED

from tsm.errors import ErrorCode
from tsm.model import card
from tsm.model.card import (
    CommandRefused,
    CommandUnanswered,
    ContentDeleted,
    KeysDestroyed,
    KeysProved,
    KeysPut,
    KeysShared,
    LifeCycleChanged,
    ProvisionalKeysDestroyed,
    RetiredKeys,
    SecurityDomainCreated,
)

APP, FILE, BELOW = LOAD_FILE.application, LOAD_FILE.load_file, "A00000000101"
WHOLE = (CARD, CREATED, PROVISIONAL, ROTATED, LOADED, INSTALLED)


def state(*facts):  # type: ignore[no-untyped-def]
    return given(card.evolve, *facts).state


def deleted(*aids: str) -> ContentDeleted:
    return ContentDeleted(target=aids[0], domain=ISD, deleted=aids)


def locked(aid: str, life_cycle: str = "LOCKED") -> LifeCycleChanged:
    return LifeCycleChanged(instance=aid, domain=ISD, life_cycle=life_cycle)


def retired(put: KeysPut) -> RetiredKeys:
    return RetiredKeys(domain=put.domain, key_version=put.key_version, key=put.key, check_values=put.check_values)


def test_something_belongs_to_a_domain_or_is_not_there() -> None:
    whole = state(*WHOLE)
    assert [whole.owner(aid) for aid in (APP, FILE, SSD, ISD)] == [SSD, SSD, ISD, ISD]
    given(card.evolve, *WHOLE).when(lambda c: c.owner(BELOW)).then_refused(ErrorCode.NOT_FOUND)


def test_what_belongs_to_something_can_be_deleted_before_it_in_this_order() -> None:
    below = SecurityDomainCreated(domain=BELOW, parent=SSD, privileges="80", life_cycle="SELECTABLE")
    whole = state(*WHOLE, below)
    assert whole.related(APP) == ()
    assert whole.related(FILE) == (APP,)
    assert whole.related(SSD) == (APP, BELOW, FILE)
    assert whole.related(BELOW) == ()
    assert whole.related(ISD) == (APP, BELOW, FILE, SSD)


def test_what_is_deleted_is_gone_with_its_failures_and_doubts() -> None:
    unanswered = CommandUnanswered(domain=SSD, header="80e20000")
    failed = card.CardAuthenticationFailed(domain=SSD, key_version=2, failures=3)
    left = state(*WHOLE, unanswered, failed, deleted(SSD, APP, FILE))
    assert (set(left.domains), left.load_files, left.applications) == ({ISD}, {}, {})
    assert (left.failures, left.doubtful) == ({}, frozenset())


def test_a_deletion_or_a_state_of_which_nobody_heard_leaves_the_domain_in_doubt() -> None:
    for header in ("80e40000", "80f04080", "80d80181"):
        assert state(CARD, CommandUnanswered(domain=ISD, header=header)).doubtful == {ISD}
        refused = CommandRefused(domain=ISD, command="COMMAND", header=header, status_word="6985")
        assert state(CARD, refused).doubtful == {ISD}
        given(card.evolve, CARD).when(lambda _, h=header: card.unanswered(ISD, h)).then(
            CommandUnanswered(domain=ISD, header=header)
        )


def test_a_lock_remembers_what_was_before_it() -> None:
    for aid, before in ((APP, "SELECTABLE"), (SSD, "PERSONALIZED")):
        whole = state(*WHOLE, locked(aid), locked(aid))
        known = whole.applications.get(aid) or whole.domains[aid]
        assert (known.life_cycle, known.before_lock) == ("LOCKED", before)
        again = state(*WHOLE, locked(aid), locked(aid, before))
        known = again.applications.get(aid) or again.domains[aid]
        assert (known.life_cycle, known.before_lock) == (before, "")


def issuers(version: int, *, found: bool = False) -> KeysPut:
    values = (f"{version:06x}",) * 3
    key = f"card/1/isd/{version:02x}"
    return KeysPut(domain=ISD, key_version=version, check_values=values, provisional=False, key=key, found=found)


def test_the_issuers_earlier_keys_may_go_when_the_card_has_proved_the_later() -> None:
    put = (CARD, issuers(2), KeysProved(domain=ISD, key_version=2), issuers(3))
    assert state(*put).retired == (retired(issuers(2)),)
    assert state(*put).destroyable == ()
    proved = KeysProved(domain=ISD, key_version=3)
    given(card.evolve, *put).when(card.keys_proved, ISD, 2).then_nothing()
    given(card.evolve, *put).when(card.keys_proved, ISD, 3).then(proved)
    given(card.evolve, *put, proved).when(card.keys_proved, ISD, 3).then_nothing()
    assert state(*put, proved).destroyable == (retired(issuers(2)),)


def test_keys_that_were_found_are_proved_and_derived_ones_are_nobodys_to_destroy() -> None:
    assert state(CARD, issuers(2)).retired == ()
    assert state(CARD, issuers(2, found=True), issuers(3, found=True)).destroyable == (retired(issuers(2)),)


def test_keys_that_are_destroyed_are_told_once() -> None:
    put = (CARD, issuers(2, found=True), issuers(3, found=True))
    gone = KeysDestroyed(domain=ISD, key_version=2, key=issuers(2).key, check_values=issuers(2).check_values)
    given(card.evolve, *put).when(card.keys_destroyed, retired(issuers(2))).then(gone)
    given(card.evolve, *put, gone).when(card.keys_destroyed, retired(issuers(2))).then_nothing()


def test_a_providers_own_change_of_keys_retires_nothing() -> None:
    assert state(*WHOLE).retired == ()


def test_all_keys_of_a_deleted_domain_may_go() -> None:
    assert set(state(*WHOLE, deleted(SSD)).destroyable) == {retired(PROVISIONAL), retired(ROTATED)}
    gone = ProvisionalKeysDestroyed(domain=SSD, key_version=1, key=PROVISIONAL.key)
    assert state(*WHOLE, gone, deleted(SSD)).destroyable == (retired(ROTATED),)


def shared(version: int, *check_values: str) -> KeysShared:
    return KeysShared(domain=SSD, key_version=version, check_values=check_values, provider="JPKI0001")


def as_retired(keys: KeysShared) -> RetiredKeys:
    key = card.key_reference(CARD.iccid, SSD, keys.key_version)
    return RetiredKeys(domain=SSD, key_version=keys.key_version, key=key, check_values=keys.check_values)


def test_keys_that_were_shared_and_never_put_go_with_their_domain() -> None:
    second, mended, third = shared(2, "01", "02"), shared(2, "03", "04"), shared(3, "05", "06")
    told = (CARD, CREATED, PROVISIONAL, second, mended, third)
    assert state(*told).destroyable == ()
    gone = state(*told, deleted(SSD)).destroyable
    assert set(gone) == {retired(PROVISIONAL), as_retired(mended), as_retired(third)}


def test_keys_that_were_shared_and_put_are_told_once() -> None:
    put = KeysPut(
        domain=SSD,
        key_version=2,
        check_values=("01", "02", "03"),
        provisional=False,
        key=card.key_reference(CARD.iccid, SSD, 2),
    )
    told = (CARD, CREATED, PROVISIONAL, shared(2, "01", "02"), put)
    assert set(state(*told, deleted(SSD)).destroyable) == {retired(PROVISIONAL), retired(put)}


def test_keys_that_are_shared_when_their_domain_has_just_gone_may_go_too() -> None:
    late = shared(2, "01", "02")
    assert state(CARD, CREATED, deleted(SSD), late).destroyable == (as_retired(late),)


def test_keys_that_are_shared_again_for_a_later_domain_stay() -> None:
    same = shared(2, "01", "02")
    again = state(CARD, CREATED, same, deleted(SSD), CREATED, same)
    assert again.destroyable == ()
    assert as_retired(same) in again.domains[SSD].shared_keys


def test_keys_that_a_later_domain_of_the_same_aid_has_under_the_same_name_stay() -> None:
    later = KeysPut(
        domain=SSD, key_version=1, check_values=("0d0d0d", "0e0e0e", "0f0f0f"), provisional=True, key=PROVISIONAL.key
    )
    again = state(CARD, CREATED, PROVISIONAL, deleted(SSD), CREATED, later)
    assert again.destroyable == (retired(PROVISIONAL),)  # told from the later ones by their check values
    same = state(CARD, CREATED, PROVISIONAL, deleted(SSD), CREATED, PROVISIONAL)
    assert same.destroyable == ()


def test_provisional_keys_of_a_domain_that_is_gone_are_no_news() -> None:
    given(card.evolve, *WHOLE, deleted(SSD)).when(card.provisional_keys_destroyed, PROVISIONAL).then_nothing()
