"""Load, decide, commit over a real store; and the commands that need no story."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from samples import AUTHORITY, BLOCK, CARD, LOAD_FILE, OPERATOR, PROVIDER, TERMINAL

from tsm.application import Change, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.model import authority, card, catalogue, credential, domain, operator, service_provider, terminal
from tsm.model.card import MAX_FAILURES, CardAuthenticationFailed, CardReleased
from tsm.model.credential import CredentialApplied
from tsm.model.domain import DomainClaimed
from tsm.model.event import Context, Fact
from tsm.model.production import ProductionRow
from tsm.model.topics import FACTS
from tsm.store.migrations import migrate_sqlite
from tsm.store.recorder import Command, Recorded
from tsm.store.sqlite import SQLiteRecorder

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CONTEXT = Context(actor="administrator:console", role="administrator", tenant="MNO00001", correlation="story-1")
STREAM = card.stream(CARD.iccid)
MASTER_KEY = bytes.fromhex("404142434445464748494a4b4c4d4e4f")
ROW = ProductionRow(2, CARD.iccid, "8981100F", "000000000001", "isd", "uicc-128k")
OTHER_ROW = ROW._replace(line=3, iccid="8981100000000000028", cin="000000000002")
APPLIED = CredentialApplied(
    subject="credential-1",
    provider="JPKI0001",
    terminal="T-13101-01",
    municipality="千代田区",
    iccid=CARD.iccid,
    applicant="山田 花子",
    document_sha256="ab" * 32,
)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[SoftwareVault]:
    vault = SoftwareVault.create(tmp_path / "vault", tmp_path / "kek")
    yield vault
    vault.close()


def store(path: Path) -> Path:
    migrate_sqlite(path)
    return path


def open_tsm(folder: Path, vault: SoftwareVault) -> Tsm:
    return Tsm(vault, SQLiteRecorder(store(folder / "tsm.sqlite"), vault), FACTS, lambda: NOON)


@pytest.fixture
def tsm(tmp_path: Path, vault: SoftwareVault) -> Iterator[Tsm]:
    tsm = open_tsm(tmp_path, vault)
    yield tsm
    tsm.close()


@pytest.fixture
def other(tmp_path: Path, vault: SoftwareVault) -> Iterator[Tsm]:
    """As another process would open it: the same file, another recorder, other kept states."""
    other = open_tsm(tmp_path, vault)
    yield other
    other.close()


def failed(failures: int) -> CardAuthenticationFailed:
    return CardAuthenticationFailed(domain=CARD.isd, key_version=1, failures=failures)


def commit(tsm: Tsm, stream: str, version: int, *facts: Fact) -> int:
    return tsm.commit(Change(stream, version, facts), context=CONTEXT, occurred_at=NOON)


def refused(code: ErrorCode) -> "pytest.RaisesExc[TsmError]":
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


# Load and commit


def test_a_stream_that_does_not_exist_has_no_state(tsm: Tsm) -> None:
    assert tsm.load(STREAM, card.evolve) == (None, 0)


def test_a_stream_is_the_fold_of_its_facts(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD, failed(1))
    loaded = tsm.load(STREAM, card.evolve)
    assert loaded.version == 2
    assert loaded.state is not None
    assert (loaded.state.registered, loaded.state.failures) == (CARD, {CARD.isd: 1})


def test_a_commit_returns_the_position_of_its_last_event(tsm: Tsm) -> None:
    assert commit(tsm, STREAM, 0, CARD, failed(1)) == 2
    assert commit(tsm, STREAM, 2, failed(2)) == 3
    assert [event.position for event in tsm.read(0, 10)] == [1, 2, 3]


def test_an_event_says_where_it_stands_and_in_which_context(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    [event] = tsm.read(0, 10)
    assert (event.originator_id, event.originator_version, event.fact) == (STREAM, 1, CARD)
    assert (event.context, event.occurred_at) == (CONTEXT, NOON)
    assert event.recorded_at is not None


def test_several_streams_are_committed_together(tsm: Tsm) -> None:
    position = tsm.commit(
        Change(STREAM, 0, [CARD]),
        Change(operator.stream("MNO00001"), 0, [OPERATOR]),
        context=CONTEXT,
        occurred_at=NOON,
    )
    assert position == 2
    assert tsm.load(operator.stream("MNO00001"), operator.evolve).version == 1


def test_whoever_comes_second_meets_a_conflict_and_changes_nothing(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    with refused(ErrorCode.CONFLICT):
        tsm.commit(
            Change(operator.stream("MNO00001"), 0, [OPERATOR]),
            Change(STREAM, 0, [CARD]),
            context=CONTEXT,
            occurred_at=NOON,
            put_payloads={(STREAM, "answer"): b"bytes"},
        )
    assert tsm.position == 1
    assert tsm.load(operator.stream("MNO00001"), operator.evolve).state is None
    assert tsm.payload(STREAM, "answer") is None


def test_a_version_ahead_of_the_stream_is_a_conflict_too(tsm: Tsm) -> None:
    with refused(ErrorCode.CONFLICT):
        commit(tsm, STREAM, 1, CARD)


def test_nothing_to_do_writes_nothing_and_returns_the_end_of_the_log(tsm: Tsm) -> None:
    assert commit(tsm, STREAM, 0) == 0
    commit(tsm, STREAM, 0, CARD)
    assert commit(tsm, STREAM, 1) == 1
    assert tsm.position == 1


def test_what_was_decided_on_a_stream_that_has_gone_on_is_a_conflict_even_without_facts_for_it(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    facts_elsewhere = Change(operator.stream("MNO00001"), 0, [OPERATOR])
    for changes in ([Change(STREAM, 0, [])], [facts_elsewhere, Change(STREAM, 0, [])], [Change(STREAM, 2, [])]):
        with refused(ErrorCode.CONFLICT):
            tsm.commit(*changes, context=CONTEXT, occurred_at=NOON, put_payloads={(STREAM, "answer"): b"bytes"})
    assert (tsm.position, tsm.payload(STREAM, "answer")) == (1, None)
    assert tsm.commit(facts_elsewhere, Change(STREAM, 1, []), context=CONTEXT, occurred_at=NOON) == 2


def test_time_is_never_behind_the_last_record(tmp_path: Path, vault: SoftwareVault) -> None:
    times = [NOON]
    tsm = Tsm(vault, SQLiteRecorder(store(tmp_path / "tsm.sqlite"), vault, lambda: times[-1]), FACTS, lambda: times[-1])
    assert tsm.now() == NOON
    commit(tsm, STREAM, 0, CARD)
    times.append(NOON - timedelta(hours=1))
    assert tsm.now() == NOON
    times.append(NOON + timedelta(hours=1))
    assert tsm.now() == NOON + timedelta(hours=1)
    tsm.close()


# Idempotency keys


def test_a_command_is_answered_again_as_at_first_and_writes_nothing(tsm: Tsm, other: Tsm) -> None:
    command = Command("graphql:operator:MNO00001:k-1", "digest", NOON + timedelta(days=30))
    assert tsm.answered(command) is None
    for place in (tsm, tsm, other):  # decided on what was true at first, by whoever takes the request
        made = place.commit(Change(STREAM, 0, [CARD]), context=CONTEXT, occurred_at=NOON, command=command)
        assert made == 1
    commit(tsm, STREAM, 1, failed(1))
    assert other.answered(command) == Recorded(range(1, 2), 1, repeated=True)
    assert tsm.position == 2


def test_a_command_that_asks_for_something_else_is_refused(tsm: Tsm) -> None:
    command = Command("graphql:operator:MNO00001:k-1", "digest", NOON + timedelta(days=30))
    tsm.commit(Change(STREAM, 0, [CARD]), context=CONTEXT, occurred_at=NOON, command=command)
    reused = command._replace(digest="another")
    with refused(ErrorCode.COMMAND_REUSED):
        tsm.answered(reused)
    with refused(ErrorCode.COMMAND_REUSED):
        tsm.commit(Change(STREAM, 1, [failed(1)]), context=CONTEXT, occurred_at=NOON, command=reused)
    assert tsm.position == 1


def test_an_idempotency_key_is_forgotten_when_its_time_is_over(tsm: Tsm) -> None:
    command = Command("graphql:operator:MNO00001:k-1", "digest", NOON + timedelta(days=30))
    tsm.commit(Change(STREAM, 0, [CARD]), context=CONTEXT, occurred_at=NOON, command=command)
    assert tsm.forget_commands(NOON + timedelta(days=30)) == 0
    assert tsm.forget_commands(NOON + timedelta(days=30, seconds=1)) == 1
    assert tsm.answered(command) is None


# The past


def test_a_stream_is_known_as_it_was_at_any_position_and_any_recorded_time(
    tmp_path: Path, vault: SoftwareVault
) -> None:
    now = NOON
    tsm = Tsm(vault, SQLiteRecorder(store(tmp_path / "tsm.sqlite"), vault, lambda: now), FACTS, lambda: now)
    for version, fact in enumerate((CARD, failed(1), failed(2))):
        commit(tsm, STREAM, version, fact)
        commit(tsm, operator.stream(f"MNO0000{version + 1}"), 0, OPERATOR)
        now += timedelta(hours=1)
    for position, failures in ((1, {}), (2, {}), (3, {CARD.isd: 1}), (4, {CARD.isd: 1}), (5, {CARD.isd: 2})):
        state = tsm.state_at(STREAM, card.evolve, position=position).state
        assert state is not None and state.failures == failures
    assert tsm.state_at(STREAM, card.evolve, position=0) == (None, 0)
    assert tsm.state_at(STREAM, card.evolve) == tsm.load(STREAM, card.evolve)
    for version in range(5):
        assert [event.originator_version for event in tsm.history(STREAM, version=version)] == [1, 2, 3][version:]
    assert [event.originator_version for event in tsm.history(STREAM, version=1, position=3)] == [2]
    for hours, version in ((-1, 0), (0, 1), (0.5, 1), (1, 2), (1.5, 2), (2, 3), (99, 3)):
        then = NOON + timedelta(hours=hours)
        assert tsm.state_at(STREAM, card.evolve, recorded_at=then).version == version
        assert tsm.state_at(STREAM, card.evolve, recorded_at=then, position=3).version == min(version, 2)
    tsm.close()


def test_payloads_come_and_go_with_the_events(tsm: Tsm) -> None:
    tsm.commit(
        Change(STREAM, 0, [CARD]), context=CONTEXT, occurred_at=NOON, put_payloads={(STREAM, "answer"): b"bytes"}
    )
    assert tsm.payload(STREAM, "answer") == b"bytes"
    tsm.commit(Change(STREAM, 1, [failed(1)]), context=CONTEXT, occurred_at=NOON, drop_payloads=[STREAM])
    assert tsm.payload(STREAM, "answer") is None


def test_payloads_may_change_without_an_event(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    assert tsm.commit(context=CONTEXT, occurred_at=NOON, put_payloads={(STREAM, "answer"): b"bytes"}) == 1
    assert tsm.payload(STREAM, "answer") == b"bytes"
    assert tsm.commit(context=CONTEXT, occurred_at=NOON, drop_payloads=[STREAM]) == 1
    assert tsm.payload(STREAM, "answer") is None


def test_a_fact_that_is_not_listed_is_refused(tsm: Tsm) -> None:
    class Unlisted(Fact, frozen=True, kw_only=True):
        """A fact that nobody told the store about."""

        topic = "test.unlisted"

    with refused(ErrorCode.INVALID_INPUT):
        commit(tsm, STREAM, 0, Unlisted())


def test_a_reader_waits_for_the_position_of_a_commit(tsm: Tsm) -> None:
    assert not tsm.wait(0, timeout=0)
    position = commit(tsm, STREAM, 0, CARD)
    assert tsm.wait(position - 1, timeout=0)
    assert not tsm.wait(position, timeout=0)


# States are kept in memory, and the log decides


def test_a_kept_state_is_folded_on_from_its_newer_events(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    folded: list[Fact] = []

    def evolve(state: card.Card | None, fact: Fact) -> card.Card:
        folded.append(fact)
        return card.evolve(state, fact)

    tsm.load(STREAM, evolve)
    commit(tsm, STREAM, 1, failed(1))
    assert tsm.load(STREAM, evolve).version == 2
    assert folded == [CARD, failed(1)]


def test_another_writers_events_are_seen_at_once(tsm: Tsm, other: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    assert other.load(STREAM, card.evolve).version == 1
    commit(other, STREAM, 1, failed(1))
    assert tsm.load(STREAM, card.evolve).version == 2
    commit(tsm, STREAM, 2, failed(2))
    assert other.load(STREAM, card.evolve) == tsm.load(STREAM, card.evolve)


def test_a_load_goes_on_from_what_the_caller_has(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)
    before = tsm.load(STREAM, card.evolve)
    commit(tsm, STREAM, 1, failed(1))
    assert tsm.load(STREAM, card.evolve, before) == tsm.load(STREAM, card.evolve)
    assert tsm.load(STREAM, card.evolve, before).version == 2


def test_one_stream_may_be_folded_in_two_ways(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD, failed(1))
    tsm.load(STREAM, card.evolve)
    assert tsm.load(STREAM, lambda count, _fact: (count or 0) + 1).state == 2


def test_an_erased_person_is_not_remembered_by_a_kept_state(tsm: Tsm, vault: SoftwareVault) -> None:
    stream = credential.stream("1")
    commit(tsm, stream, 0, APPLIED)
    before = tsm.load(stream, credential.evolve)
    assert before.state is not None and before.state.applied == APPLIED
    vault.destroy_subject("credential-1")
    after = tsm.load(stream, credential.evolve).state
    assert after is not None
    assert (after.applied.applicant, after.applied.iccid, after.applied.provider) == (
        "[erased]",
        "[erased]",
        "JPKI0001",
    )


def test_what_a_caller_brings_is_not_kept(tsm: Tsm, vault: SoftwareVault) -> None:
    """Else a state with personal data would come into memory by a later event without any."""
    stream = credential.stream("1")
    commit(tsm, stream, 0, APPLIED)
    before = tsm.load(stream, credential.evolve)
    commit(tsm, stream, 1, credential.ApplicationRefused(code=ErrorCode.CERTIFICATE_REVOKED))
    tsm.load(stream, credential.evolve, before)
    vault.destroy_subject("credential-1")
    after = tsm.load(stream, credential.evolve).state
    assert after is not None and after.applied.applicant == "[erased]"


def test_writers_that_race_lose_no_event(tsm: Tsm, other: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD)

    def fail_often(writer: Tsm) -> None:
        for _ in range(10):
            while True:
                loaded = writer.load(STREAM, card.evolve)
                assert loaded.state is not None
                facts = card.authentication_failed(loaded.state, CARD.isd, 1)
                try:
                    commit(writer, STREAM, loaded.version, *facts)
                    break
                except TsmError as conflict:
                    assert conflict.code is ErrorCode.CONFLICT

    threads = [threading.Thread(target=fail_often, args=(writer,)) for writer in (tsm, tsm, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = tsm.load(STREAM, card.evolve).state
    assert state is not None and state.failures == {CARD.isd: 40}
    assert tsm.position == 41


# Commands


def test_parties_are_enrolled(tsm: Tsm) -> None:
    assert tsm.enrol_operator(OPERATOR, CONTEXT) == 1
    assert tsm.enrol_authority(AUTHORITY, CONTEXT) == 2
    assert tsm.enrol_provider(PROVIDER, CONTEXT) == 4  # with the claim of its domain
    assert tsm.enrol_terminal(TERMINAL, CONTEXT) == 5
    assert tsm.load(service_provider.stream("JPKI0001"), service_provider.evolve).state == PROVIDER
    assert tsm.load(terminal.stream("T-13101-01"), terminal.evolve).state == TERMINAL
    assert tsm.load(authority.stream("jpki"), authority.evolve).state == AUTHORITY


def test_enrolling_again_writes_nothing(tsm: Tsm) -> None:
    for _ in range(2):
        tsm.enrol_operator(OPERATOR, CONTEXT)
        tsm.enrol_authority(AUTHORITY, CONTEXT)
        tsm.enrol_provider(PROVIDER, CONTEXT)
        assert tsm.enrol_terminal(TERMINAL, CONTEXT) == 5


def test_enrolling_with_other_values_is_refused(tsm: Tsm) -> None:
    tsm.enrol_operator(OPERATOR, CONTEXT)
    with refused(ErrorCode.ALREADY_EXISTS):
        tsm.enrol_operator(msgspec.structs.replace(OPERATOR, name="Operator Two"), CONTEXT)


def test_an_sp_id_is_an_operators_or_a_providers(tsm: Tsm) -> None:
    tsm.enrol_operator(OPERATOR, CONTEXT)
    tsm.enrol_authority(AUTHORITY, CONTEXT)
    tsm.enrol_provider(PROVIDER, CONTEXT)
    with refused(ErrorCode.ALREADY_EXISTS):
        tsm.enrol_provider(msgspec.structs.replace(PROVIDER, provider="MNO00001"), CONTEXT)
    with refused(ErrorCode.ALREADY_EXISTS):
        tsm.enrol_operator(msgspec.structs.replace(OPERATOR, operator="JPKI0001"), CONTEXT)


def test_a_provider_needs_its_authority(tsm: Tsm) -> None:
    with refused(ErrorCode.NOT_FOUND):
        tsm.enrol_provider(PROVIDER, CONTEXT)


@pytest.fixture
def with_authority(tsm: Tsm) -> Tsm:
    tsm.enrol_authority(AUTHORITY, CONTEXT)
    return tsm


def other_provider(**values: str) -> service_provider.ProviderEnrolled:
    return msgspec.structs.replace(PROVIDER, provider="BANK0001", **values)


def test_no_provider_owns_the_issuers_domain_or_another_providers(with_authority: Tsm) -> None:
    with refused(ErrorCode.FORBIDDEN):
        with_authority.enrol_provider(other_provider(domain=card.ISSUER_DOMAIN), CONTEXT)
    with_authority.enrol_provider(PROVIDER, CONTEXT)
    with refused(ErrorCode.ALREADY_EXISTS):
        with_authority.enrol_provider(other_provider(), CONTEXT)
    assert with_authority.load(service_provider.stream("BANK0001"), service_provider.evolve).state is None
    with_authority.enrol_provider(other_provider(domain="A00000015153504199"), CONTEXT)


def test_of_two_providers_that_enrol_one_domain_at_the_same_moment_one_wins(
    with_authority: Tsm, other: Tsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim_when_another_just_did(*given: Any) -> list[DomainClaimed]:
        monkeypatch.undo()
        other.enrol_provider(PROVIDER, CONTEXT)
        return domain.claim(*given)

    monkeypatch.setattr(domain, "claim", claim_when_another_just_did)
    with refused(ErrorCode.CONFLICT):
        with_authority.enrol_provider(other_provider(), CONTEXT)
    claimed = with_authority.load(domain.stream(PROVIDER.domain), domain.evolve).state
    assert claimed == DomainClaimed(domain=PROVIDER.domain, provider=PROVIDER.provider)
    assert with_authority.load(service_provider.stream("BANK0001"), service_provider.evolve).state is None


def test_a_certificate_is_replaced_and_withdrawn(tsm: Tsm) -> None:
    stream = terminal.stream(TERMINAL.terminal)
    tsm.enrol_terminal(TERMINAL, CONTEXT)
    replacing = msgspec.structs.replace(TERMINAL, certificate_fingerprint="cd" * 32)
    assert tsm.enrol_terminal(replacing, CONTEXT) == 2
    assert tsm.load(stream, terminal.evolve).state == replacing
    with refused(ErrorCode.WRONG_ORDER):  # somebody meant the certificate before
        tsm.withdraw(stream, terminal.evolve, CONTEXT, TERMINAL.certificate_fingerprint)
    assert tsm.withdraw(stream, terminal.evolve, CONTEXT, "cd" * 32) == 3
    assert tsm.withdraw(stream, terminal.evolve, CONTEXT, "cd" * 32) == 3  # done is done
    with refused(ErrorCode.NOT_FOUND):
        tsm.withdraw(terminal.stream("T-2"), terminal.evolve, CONTEXT)


@pytest.fixture
def with_operator(tsm: Tsm) -> Tsm:
    tsm.enrol_operator(OPERATOR, CONTEXT)
    tsm.import_master_key("MNO00001", "isd", MASTER_KEY, 1, CONTEXT)
    return tsm


def test_a_master_key_goes_to_the_vault_and_its_check_value_to_the_log(
    with_operator: Tsm, vault: SoftwareVault
) -> None:
    state = with_operator.load(operator.stream("MNO00001"), operator.evolve).state
    assert state is not None
    imported = state.key_set("isd")
    assert vault.check_values(imported.key) == (imported.check_value,)
    assert (imported.derivation, imported.key_version) == ("kdf3", 1)


def test_importing_a_master_key_again_writes_nothing(with_operator: Tsm) -> None:
    assert with_operator.import_master_key("MNO00001", "isd", MASTER_KEY, 1, CONTEXT) == 2


def test_another_master_key_under_the_same_name_is_refused(with_operator: Tsm) -> None:
    with refused(ErrorCode.ALREADY_EXISTS):
        with_operator.import_master_key("MNO00001", "isd", bytes(16), 1, CONTEXT)


def test_a_master_key_that_is_refused_does_not_reach_the_vault(with_operator: Tsm, vault: SoftwareVault) -> None:
    with refused(ErrorCode.INVALID_INPUT):
        with_operator.import_master_key("MNO00001", "other", MASTER_KEY, 0, CONTEXT)
    with refused(ErrorCode.NOT_FOUND):
        with_operator.import_master_key("MNO00002", "other", MASTER_KEY, 1, CONTEXT)
    with refused(ErrorCode.KEY_REFUSED):
        with_operator.import_master_key("MNO00001", "other", b"short", 1, CONTEXT)
    assert not vault.has("operator/MNO00001/other")
    assert not vault.has("operator/MNO00002/other")
    assert with_operator.position == 2


def test_an_import_that_stopped_half_way_is_completed_by_repeating_it(tsm: Tsm, vault: SoftwareVault) -> None:
    tsm.enrol_operator(OPERATOR, CONTEXT)
    vault.import_master_key("operator/MNO00001/isd", MASTER_KEY)
    assert tsm.import_master_key("MNO00001", "isd", MASTER_KEY, 1, CONTEXT) == 2


def test_cards_are_registered_with_keys_that_the_vault_derives(with_operator: Tsm, vault: SoftwareVault) -> None:
    """Master key, diversification and check values are those of the public vector diversify_kdf3_aes128."""
    row = ROW._replace(iin="00010203", cin="040506070809")
    with_operator.register_cards("MNO00001", [row], CONTEXT)
    state = with_operator.load(STREAM, card.evolve).state
    assert state is not None
    assert state.diversification == "00010203040506070809"
    assert vault.check_values(state.domain(state.isd).key) == ("e79c05", "d1bd77", "3fde8c")


def test_a_production_file_is_registered_in_one_commit(with_operator: Tsm) -> None:
    assert with_operator.register_cards("MNO00001", [ROW, OTHER_ROW], CONTEXT) == 4
    assert with_operator.load(card.stream(OTHER_ROW.iccid), card.evolve).version == 1


def test_registering_a_production_file_again_writes_nothing(with_operator: Tsm) -> None:
    with_operator.register_cards("MNO00001", [ROW], CONTEXT)
    assert with_operator.register_cards("MNO00001", [ROW], CONTEXT) == 3
    assert with_operator.register_cards("MNO00001", [ROW, OTHER_ROW], CONTEXT) == 4


def test_no_card_is_registered_when_one_is_refused(with_operator: Tsm) -> None:
    with refused(ErrorCode.UNKNOWN_KEY):
        with_operator.register_cards("MNO00001", [ROW, OTHER_ROW._replace(key_set="other")], CONTEXT)
    with refused(ErrorCode.NOT_FOUND):
        with_operator.register_cards("MNO00002", [ROW], CONTEXT)
    assert with_operator.position == 2
    with_operator.register_cards("MNO00001", [ROW], CONTEXT)
    with refused(ErrorCode.ALREADY_EXISTS):
        with_operator.register_cards("MNO00001", [OTHER_ROW, ROW._replace(profile="other")], CONTEXT)
    assert with_operator.position == 3


@pytest.fixture
def with_provider(tsm: Tsm) -> Tsm:
    tsm.enrol_authority(AUTHORITY, CONTEXT)
    tsm.enrol_provider(PROVIDER, CONTEXT)
    return tsm


def test_a_load_file_is_registered_with_its_data_block(with_provider: Tsm) -> None:
    assert with_provider.register_load_file(LOAD_FILE, BLOCK, CONTEXT) == 4
    stream = catalogue.stream(LOAD_FILE.load_file)
    assert with_provider.payload(stream, catalogue.DATA_BLOCK) == BLOCK
    state = with_provider.load(stream, catalogue.evolve).state
    assert state is not None and state.current == LOAD_FILE


def test_registering_a_load_file_again_writes_no_event(with_provider: Tsm) -> None:
    with_provider.register_load_file(LOAD_FILE, BLOCK, CONTEXT)
    assert with_provider.register_load_file(LOAD_FILE, BLOCK, CONTEXT) == 4


def test_a_load_file_needs_its_content_and_its_provider(with_provider: Tsm) -> None:
    with refused(ErrorCode.INVALID_INPUT):
        with_provider.register_load_file(LOAD_FILE, BLOCK + b"\x00", CONTEXT)
    with refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER):
        with_provider.register_load_file(msgspec.structs.replace(LOAD_FILE, provider="OTHER001"), BLOCK, CONTEXT)
    assert with_provider.position == 3


def test_a_refused_version_leaves_the_data_block_as_it_was(with_provider: Tsm) -> None:
    with_provider.register_load_file(LOAD_FILE, BLOCK, CONTEXT)
    other = BLOCK.upper()
    changed = msgspec.structs.replace(LOAD_FILE, sha256=sha256(other).hexdigest())
    with refused(ErrorCode.ALREADY_EXISTS):
        with_provider.register_load_file(changed, other, CONTEXT)
    assert with_provider.payload(catalogue.stream(LOAD_FILE.load_file), catalogue.DATA_BLOCK) == BLOCK


def test_every_command_takes_a_key_under_which_it_is_answered_as_at_first(with_operator: Tsm) -> None:
    tsm, released = with_operator, CardReleased(domain=CARD.isd, reason="another phone")
    commands = [
        partial(tsm.enrol_operator, msgspec.structs.replace(OPERATOR, operator="MNO00002"), CONTEXT),
        partial(tsm.enrol_authority, AUTHORITY, CONTEXT),
        partial(tsm.enrol_provider, PROVIDER, CONTEXT),
        partial(tsm.enrol_terminal, TERMINAL, CONTEXT),
        partial(tsm.register_load_file, LOAD_FILE, BLOCK, CONTEXT),
        partial(tsm.register_cards, "MNO00001", [ROW], CONTEXT),
        partial(tsm.release_card, "MNO00001", CARD.iccid, released, CONTEXT),
    ]
    keys = [Command(f"key-{number}", "digest", NOON + timedelta(days=30)) for number in range(len(commands))]
    first = [do(key) for do, key in zip(commands, keys, strict=True)]
    end = tsm.position
    assert [do(key) for do, key in zip(commands, keys, strict=True)] == first
    assert tsm.position == end and [tsm.answered(key) is not None for key in keys] == [True] * len(keys)


def test_a_refusal_names_the_value_that_is_wrong(with_operator: Tsm) -> None:
    tsm, replace = with_operator, msgspec.structs.replace
    for refused_for, do in {
        ("operator",): partial(tsm.enrol_operator, replace(OPERATOR, operator="x"), CONTEXT),
        ("name",): partial(tsm.enrol_operator, replace(OPERATOR, name=""), CONTEXT),
        ("authority",): partial(tsm.enrol_provider, PROVIDER, CONTEXT),
        ("3", "key_set"): partial(tsm.register_cards, "MNO00001", [ROW, OTHER_ROW._replace(key_set="x")], CONTEXT),
    }.items():
        with pytest.raises(TsmError) as refusal:
            do()
        assert refusal.value.field == refused_for
    tsm.register_cards("MNO00001", [ROW], CONTEXT)
    with pytest.raises(TsmError) as refusal:
        tsm.register_cards("MNO00001", [OTHER_ROW, ROW._replace(line=7, profile="other")], CONTEXT)
    assert refusal.value.field == ("7", "iccid")


def test_nothing_secret_enters_the_log(with_operator: Tsm, tmp_path: Path) -> None:
    with_operator.register_cards("MNO00001", [ROW], CONTEXT)
    commit(with_operator, credential.stream("1"), 0, APPLIED)
    stored = b"".join(event.state for event in with_operator.recorder.select_notifications(0, 100))
    for secret in (MASTER_KEY, MASTER_KEY.hex().encode(), "山田".encode()):
        assert secret not in stored


def test_a_domain_is_released_by_its_operator_only(tsm: Tsm) -> None:
    commit(tsm, STREAM, 0, CARD, failed(MAX_FAILURES))
    released = CardReleased(domain=CARD.isd, reason="the phone was replaced")
    with refused(ErrorCode.FORBIDDEN):
        tsm.release_card("MNO00002", CARD.iccid, released, CONTEXT)
    with refused(ErrorCode.UNKNOWN_CARD):
        tsm.release_card(CARD.operator, "8981100000000000028", released, CONTEXT)
    tsm.release_card(CARD.operator, CARD.iccid, released, CONTEXT)
    state = tsm.load(STREAM, card.evolve).state
    assert state is not None and state.failures == {CARD.isd: 0}
