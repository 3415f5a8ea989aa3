"""The erasure of a person: what is gone, what stays, what a crash or a restored backup cannot undo."""

import json
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from datetime import date, timedelta
from functools import partial
from itertools import cycle
from os import urandom

import psycopg
import pytest
from issuance_world import AUTHORITY, HANAKO, IssuanceWorld, key_pool
from line_samples import NUMBER, SIM, at, signal
from mas_world import ICCID, OPERATOR, PROVIDER

from projections import PROJECTIONS
from projections.opening import open_views
from projections.runner import Runner
from tsm.application import Change, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows import erasure, follower
from tsm.flows.erasure import BEFORE_THE_LOG, Erasure, ErasureFollower, SessionUnderWay
from tsm.flows.issuance import Issuance
from tsm.flows.lines import Lines
from tsm.jpki.certificates import Holder, read_certificate, serial_text
from tsm.keys.vault import SoftwareVault
from tsm.mas.status import Status
from tsm.model import credential as credentials
from tsm.model.credential import CredentialWritten, ErasureOrdered, PersonalizationDelegated, PersonErased, Stage
from tsm.model.delegation import DelegationAccepted, DelegationEnded
from tsm.model.event import Context
from tsm.model.line import SignalKind
from tsm.model.session import SessionStarted
from tsm.model.topics import FACTS
from tsm.store.mapper import ERASED
from tsm.store.opening import is_postgresql, open_recorder
from tsm.store.rows import open_rows
from tsm.store.transfer import export_file

TARO = Holder.of("架空太郎", "1", date(1985, 6, 7), "架空県見本市見本町4-5-6")
REASON = "the holder asked for it"
BY_HAND = Context(
    actor="administrator:console", role="administrator", tenant="tsm-server", correlation="x", reason=REASON
)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request):
    return request.param


@pytest.fixture
def place(engine, request):
    """Of the store; none: a file in the world's folder."""
    if engine == "sqlite":
        return None
    return request.getfixturevalue("postgres_store").runtime_dsn


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr("tsm.jpki.authority.new_key", partial(next, cycle(key_pool())))
    monkeypatch.setattr(follower, "PAUSE", 0.01)
    monkeypatch.setattr(follower, "TICK", 0.01)


@pytest.fixture
def world(tmp_path):
    world = IssuanceWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def world_of_engine(tmp_path, place):
    world = IssuanceWorld(tmp_path, store=place)
    yield world
    world.close()


def refused(code: ErrorCode):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def eventually(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def serial_of(main):
    return serial_text(read_certificate(main.signature_certificate))


def apply_for(world, holder):
    """Another citizen at the counter; her main certificate, and the slip."""
    main = world.authority.issue_main(holder)
    document = world.document(applicant=holder.name)
    return main, world.apply(world.signed(document, main.signature_key, main.signature_certificate))


def erase(world, credential, **options):
    return Erasure(world.tsm, world.vault).erase(credential, BY_HAND, **options)


def topics(world, credential):
    return [topic.removeprefix("credential.") for topic in world.topics(credentials.stream(credential))]


def restart(world):
    """Another process on the same folder and store."""
    vault = SoftwareVault.open(world.folder / "vault", world.folder / "kek")
    recorder = open_recorder(world.store, vault, world.clock)
    return vault, Tsm(vault, recorder, FACTS, world.clock)


def let_a_server_run_until(world, condition):
    """A server's follower, from its start until the condition holds."""
    vault, tsm = restart(world)
    worker = ErasureFollower(tsm, vault)
    worker.start()
    try:
        eventually(condition)
        assert worker.keeping_up()
    finally:
        worker.stop()
        tsm.close()
        vault.close()


# What is gone


def personal_values(state):
    applied, verified, issued = state.applied, state.main_certificate, state.issued
    return [
        applied.applicant, applied.iccid, verified.serial, issued.authentication_serial, issued.signature_serial,
    ]  # fmt: skip


def test_an_erased_person_reads_as_erased_and_another_as_before(world_of_engine):
    world = world_of_engine
    slip, (taro, other) = world.apply(), apply_for(world, TARO)
    before = world.credential(slip.credential)

    erase(world, slip.credential)

    state = world.credential(slip.credential)
    assert personal_values(state) == [ERASED] * 5
    assert state.applied.document_sha256 == before.applied.document_sha256  # every proof stays
    assert topics(world, slip.credential)[-2:] == ["erasure_ordered", "person_erased"]
    assert world.credential(other.credential).applied.applicant == TARO.name
    assert world.credential(other.credential).main_certificate.serial == serial_of(taro)
    assert world.check(other) == other.credential


def test_who_ordered_it_and_why_is_recorded_for_those_whom_it_concerns(world):
    slip = world.apply()
    position = erase(world, slip.credential)

    ordered, erased = world.events()[-2:]
    assert (type(ordered.fact), type(erased.fact), erased.position) == (ErasureOrdered, PersonErased, position)
    for event in (ordered, erased):
        context = event.context
        assert (context.actor, context.role, context.reason) == ("administrator:console", "administrator", REASON)
        assert (context.tenant, context.tenants, context.correlation) == (PROVIDER, ("13101",), slip.credential)


def test_neither_card_nor_certificate_leads_to_an_erased_person(world_of_engine):
    world = world_of_engine
    slip, (_, other) = world.apply(), apply_for(world, TARO)
    erasure = Erasure(world.tsm, world.vault)
    spelled = f"00:{serial_of(world.main).lower()}"
    assert erasure.credentials_of(spelled) == [slip.credential]

    erase(world, slip.credential)

    assert erasure.credentials_of(spelled) == []
    assert [row.subject for row in world.tsm.indexed("iccid", ICCID)] == [other.credential]


def test_what_is_no_serial_number_is_refused(world):
    with refused(ErrorCode.INVALID_INPUT):
        Erasure(world.tsm, world.vault).credentials_of("nothing")


def octets_of(world, server):
    """Every file of the store, of the vault, of the read models, and of an export; not what PostgreSQL logs ahead."""
    if is_postgresql(world.store):
        with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
            admin.execute("CHECKPOINT")
        files = list((server.folder / "data" / "base").rglob("*"))
    else:
        files = [*world.folder.glob("log.sqlite*")]
    files += [*(world.folder / "vault").iterdir(), *world.folder.glob("views.sqlite*"), *world.folder.glob("*.jsonl")]
    return b"".join(file.read_bytes() for file in files if file.is_file())


def export(world):
    file = world.folder / "export.jsonl"
    file.unlink(missing_ok=True)
    with closing(open_rows(world.store)) as rows:
        export_file(rows, file, lambda *_: None)


def wrapped_key(world, subject):
    with closing(sqlite3.connect(world.folder / "vault" / "datakeys.sqlite")) as keys:
        [wrapped] = keys.execute("SELECT wrapped FROM data_key WHERE subject = ?", (subject,)).fetchone()
    return [wrapped[at : at + 16] for at in range(0, len(wrapped) - 15, 16)]


def test_no_file_holds_what_must_be_gone(world_of_engine, request):
    """Raw octets: the wrapped data key, and the keyed hashes that lead from card and certificate to the person."""
    world = world_of_engine
    server = request.getfixturevalue("postgres") if is_postgresql(world.store) else None
    slip, (taro, other) = world.apply(), apply_for(world, TARO)
    views = open_views(world.store, world.folder / "views.sqlite", PROJECTIONS)
    runner = Runner(world.tsm, views)
    runner.start()
    eventually(lambda: views.position >= world.tsm.position)
    gone = [world.vault.blind_index("main-certificate", serial_of(world.main)).encode()]
    key, other_key = wrapped_key(world, slip.credential), wrapped_key(world, other.credential)
    kept = [world.vault.blind_index("main-certificate", serial_of(taro)).encode(), *other_key]
    export(world)
    before = octets_of(world, server)
    assert all(value in before for value in gone + kept)  # a search that cannot find proves nothing
    assert all(piece in before for piece in key)

    erase(world, slip.credential)

    eventually(lambda: views.position >= world.tsm.position)
    export(world)
    after = octets_of(world, server)
    assert not any(value in after for value in gone + key)
    assert all(value in after for value in kept)
    assert row_of(slip.credential) not in exported(world)
    assert row_of(other.credential) in exported(world)
    runner.stop()
    views.close()


def row_of(credential):
    return credentials.stream(credential)


def exported(world):
    """The streams to which index rows lead."""
    lines = [json.loads(line) for line in (world.folder / "export.jsonl").read_text().splitlines()]
    return {line["stream"] for line in lines if line["kind"] == "index"}


@pytest.mark.parametrize("engine", ["postgresql"])
def test_a_backup_under_way_delays_the_remains_and_neither_the_key_nor_others(world_of_engine):
    world = world_of_engine
    slip = world.apply()
    with psycopg.connect(world.store) as backup:
        backup.execute("SELECT count(*) FROM tsm.person_index")  # what it has read stays locked
        with refused(ErrorCode.STORE_UNAVAILABLE):
            erase(world, slip.credential)
        assert world.credential(slip.credential).applied.applicant == ERASED
        assert topics(world, slip.credential)[-1] == "erasure_ordered"
        other = apply_for(world, TARO)[1]
        assert world.check(other) == other.credential
    let_a_server_run_until(world, lambda: topics(world, slip.credential)[-1] == "person_erased")


def test_what_was_exported_before_cannot_be_read_either(world):
    """Whoever kept a copy of the log has sealed fields without a key."""
    slip = world.apply()
    shutil.copy(world.folder / "log.sqlite", world.folder / "kept.sqlite")
    for suffix in ("-wal", "-shm"):
        shutil.copy(world.folder / f"log.sqlite{suffix}", world.folder / f"kept.sqlite{suffix}")
    erase(world, slip.credential)

    kept = Tsm(world.vault, open_recorder(world.folder / "kept.sqlite", world.vault), FACTS, world.clock)
    state = kept.load(credentials.stream(slip.credential), credentials.evolve).state
    assert personal_values(state) == [ERASED] * 5
    kept.close()


def test_a_server_that_runs_meanwhile_remembers_nothing(world):
    """Nothing personal is kept in the memory of the process that is asked next."""
    slip = world.apply()
    vault, tsm = restart(world)
    stream = credentials.stream(slip.credential)
    assert tsm.load(stream, credentials.evolve).state.applied.applicant == HANAKO.name

    erase(world, slip.credential)

    assert personal_values(tsm.load(stream, credentials.evolve).state) == [ERASED] * 5
    tsm.close()
    vault.close()


# The credential is closed


def test_an_erased_person_is_let_in_nowhere_any_more(world):
    signed = world.signed()
    slip = world.apply(signed)
    receipts = world.destroy_key_copies(slip.credential)
    erase(world, slip.credential)
    events = len(world.events())

    with refused(ErrorCode.WRONG_ORDER):
        world.check(slip)
    with refused(ErrorCode.WRONG_ORDER):
        world.apply(signed)
    with refused(ErrorCode.WRONG_ORDER):
        world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts)
    assert len(world.events()) == events


def test_the_same_person_may_apply_anew(world):
    slip = world.apply()
    erase(world, slip.credential)
    again = world.apply()
    assert again.credential != slip.credential
    assert world.credential(again.credential).applied.applicant == HANAKO.name


def test_an_application_that_came_to_nothing_is_erased(world):
    with refused(ErrorCode.BAD_SIGNATURE):
        world.apply(world.signed(key=world.authority.issue_main(TARO).signature_key))
    [credential] = [e.originator_id for e in world.events() if e.fact.topic == "credential.application_refused"]
    credential = credential.removeprefix("credential-")
    erase(world, credential)
    assert world.credential(credential).applied.applicant == ERASED


def test_a_credential_that_there_is_not_is_not_erased(world):
    with refused(ErrorCode.NOT_FOUND):
        erase(world, "nothing")


def test_a_credential_in_use_is_erased_only_when_that_is_meant(world):
    slip = world.apply()
    world.check(slip)
    world.record(
        credentials.stream(slip.credential), PersonalizationDelegated(reception="1"), CredentialWritten(reception="1")
    )
    with refused(ErrorCode.WRONG_ORDER):
        erase(world, slip.credential)
    assert world.credential(slip.credential).applied.applicant == HANAKO.name

    erase(world, slip.credential, even_in_use=True)

    state = world.credential(slip.credential)
    assert (state.stage, state.erasure.in_use, state.applied.applicant) == (Stage.WRITTEN, True, ERASED)


# What waits for the card


def delegate(world, slip, provider=PROVIDER, reception="2026112100009999"):
    """The provider's script for the credential, as DELEGATE leaves it: its commands lie beside the log."""
    accepted = DelegationAccepted(
        provider=provider, operator=OPERATOR, reception=reception, iccid=ICCID, domain="D392F0002601FE01",
        correlation=slip.credential, generated_at="20261121093000", received_at=world.clock(), commands=(),
        content_index="00", expires_at=world.clock(),
    )  # fmt: skip
    stream = f"delegation-{provider}-{reception}"
    context = Context(actor="test", role="provider", tenant=provider, correlation=slip.credential)
    world.tsm.commit(
        Change(stream, 0, [accepted]), context=context, occurred_at=world.clock(),
        put_payloads={(stream, "command-001"): b"content"},
    )  # fmt: skip
    return stream


def test_delegated_commands_that_wait_for_their_start_leave_with_the_person(world):
    slip = world.apply()
    other = apply_for(world, TARO)[1]
    stream, others = delegate(world, slip), delegate(world, other, reception="2026112100009998")
    strangers = delegate(world, slip, provider=OPERATOR)

    erase(world, slip.credential)

    assert world.tsm.payload(stream, "command-001") is None
    assert world.facts(stream)[-1] == DelegationEnded(status=Status.RECEPTION_CLOSED, executed=0)
    for kept in (others, strangers):
        assert world.tsm.payload(kept, "command-001") == b"content"


def test_while_a_session_with_the_card_is_under_way_nobody_is_erased(world):
    slip = world.apply()
    stream = delegate(world, slip)
    started = SessionStarted(
        provider=PROVIDER, reception="2026112100009999", iccid=ICCID, domain="D392F0002601FE01", key="key",
        key_version=2, return_url="", token_sha256="", expires_at=world.clock(),
    )  # fmt: skip
    world.record(stream.replace("delegation", "session"), started)

    with pytest.raises(SessionUnderWay):  # no refusal for good
        erase(world, slip.credential)
    assert "erasure_ordered" not in topics(world, slip.credential)
    assert world.tsm.payload(stream, "command-001") == b"content"

    world.record(stream, DelegationEnded(status=Status.SESSION_EXPIRED, executed=0))
    erase(world, slip.credential)
    assert world.tsm.payload(stream, "command-001") is None


def test_a_session_that_starts_at_the_same_moment_is_noticed(world, monkeypatch):
    slip = world.apply()
    stream = delegate(world, slip)
    commit = world.tsm.commit

    def overtaken(*changes, **options):
        monkeypatch.setattr(world.tsm, "commit", commit)
        started = SessionStarted(
            provider=PROVIDER, reception="2026112100009999", iccid=ICCID, domain="D392F0002601FE01", key="key",
            key_version=2, return_url="", token_sha256="", expires_at=world.clock(),
        )  # fmt: skip
        world.record(stream.replace("delegation", "session"), started)
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", overtaken)
    with refused(ErrorCode.WRONG_ORDER):
        erase(world, slip.credential)
    assert "erasure_ordered" not in topics(world, slip.credential)


# Crashes


class Crash(Exception):
    """The process is gone."""


def crash(*_, **__):
    raise Crash


STEPS = {
    "before the key is destroyed": ("vault", "destroy_subject", False),
    "after the key is destroyed": ("vault", "destroy_subject", True),
    "after the remains are gone": ("tsm", "erase_remains", True),
}


@pytest.fixture(params=STEPS)
def ordered(world_of_engine, request, monkeypatch):
    """A world in which an erasure was cut off at that step; and the credential."""
    world = world_of_engine
    slip = world.apply()
    part, name, done = STEPS[request.param]
    whole = getattr(world, part)
    do = getattr(whole, name)
    with monkeypatch.context() as patched:
        patched.setattr(whole, name, lambda *given: crash(do(*given)) if done else crash())
        with suppress(Crash):
            erase(world, slip.credential)
    assert topics(world, slip.credential)[-1] == "erasure_ordered"
    return world, slip.credential


def test_a_running_server_completes_what_was_cut_off(ordered):
    world, credential = ordered
    let_a_server_run_until(world, lambda: topics(world, credential)[-1] == "person_erased")
    assert topics(world, credential).count("person_erased") == 1
    assert personal_values(world.credential(credential)) == [ERASED] * 5
    ordered_by, erased_by = world.events()[-2:]
    assert (erased_by.context.actor, erased_by.context.role) == ("system:erasure", "system")
    assert (erased_by.context.reason, erased_by.context.causation) == (REASON, str(ordered_by.position))
    assert (erased_by.context.tenant, erased_by.context.tenants) == (PROVIDER, ("13101",))


def test_the_command_given_again_completes_what_was_cut_off(ordered):
    world, credential = ordered
    erase(world, credential)
    assert topics(world, credential)[-2:] == ["erasure_ordered", "person_erased"]
    assert world.credential(credential).applied.applicant == ERASED


def test_the_credential_is_closed_by_the_order_already(ordered):
    world, credential = ordered
    with refused(ErrorCode.WRONG_ORDER):
        credentials.hand_out_slip(world.credential(credential))


def test_a_crash_before_the_order_leaves_everything_as_it_was(world, monkeypatch):
    slip = world.apply()
    with monkeypatch.context() as patched:
        patched.setattr(world.tsm, "commit", crash)
        with suppress(Crash):
            erase(world, slip.credential)
    assert world.credential(slip.credential).applied.applicant == HANAKO.name
    assert world.check(slip) == slip.credential


def test_without_the_list_of_destroyed_keys_no_key_is_destroyed_and_it_goes_on_later(world):
    slip = world.apply()
    file = world.folder / "kek.destroyed"
    file.rename(world.folder / "elsewhere")
    with refused(ErrorCode.NOT_FOUND):
        erase(world, slip.credential)
    assert world.credential(slip.credential).applied.applicant == HANAKO.name

    (world.folder / "elsewhere").rename(file)
    erase(world, slip.credential)
    assert world.credential(slip.credential).applied.applicant == ERASED


def test_erasing_twice_is_no_news(world_of_engine):
    world = world_of_engine
    slip = world.apply()
    erase(world, slip.credential)
    events, listed = len(world.events()), (world.folder / "kek.destroyed").read_text()

    erase(world, slip.credential)
    let_a_server_run_until(world, lambda: True)

    assert len(world.events()) == events
    assert (world.folder / "kek.destroyed").read_text() == listed


# Restored backups


def back_up(world, name):
    """What a backup of this file holds."""
    with closing(sqlite3.connect(world.folder / name)) as source, closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        return copy.serialize()


def restore(world, name, content):
    """The file as it was, and nothing beside it."""
    for suffix in ("", "-wal", "-shm"):
        (world.folder / f"{name}{suffix}").unlink(missing_ok=True)
    (world.folder / name).write_bytes(content)


def stop(world):
    world.tsm.close()
    world.vault.close()


def start(world):
    world.vault, world.tsm = restart(world)
    world.recorder = world.tsm._recorder
    world.issuance = Issuance(world.tsm, world.vault, world.line, world.tsm.now, urandom)


def test_an_older_key_store_is_made_to_forget_before_it_serves(world, caplog):
    slip, (_, other) = world.apply(), apply_for(world, TARO)
    key = wrapped_key(world, slip.credential)
    kept = back_up(world, "vault/datakeys.sqlite")
    erase(world, slip.credential)
    stop(world)
    restore(world, "vault/datakeys.sqlite", kept)
    assert key[0] in (world.folder / "vault" / "datakeys.sqlite").read_bytes()

    start(world)

    assert "1 destroyed data keys were back" in caplog.text
    assert world.credential(slip.credential).applied.applicant == ERASED
    assert world.credential(other.credential).applied.applicant == TARO.name
    files = b"".join(file.read_bytes() for file in (world.folder / "vault").iterdir())
    assert not any(piece in files for piece in key)


def test_when_the_list_was_put_back_as_well_the_log_still_says_who_was_erased(world):
    """Nobody should do that; but then the log is asked."""
    slip = world.apply()
    kept = back_up(world, "vault/datakeys.sqlite")
    erase(world, slip.credential)
    stop(world)
    restore(world, "vault/datakeys.sqlite", kept)
    (world.folder / "kek.destroyed").write_bytes(b"")
    start(world)
    assert world.credential(slip.credential).applied.applicant == HANAKO.name

    let_a_server_run_until(world, lambda: world.credential(slip.credential).applied.applicant == ERASED)
    assert topics(world, slip.credential).count("person_erased") == 1
    assert (world.folder / "kek.destroyed").read_text().count("\n") == 1


def where_a_follower_begins(world, monkeypatch):
    """The position of a server's follower, told when it has caught up."""
    monkeypatch.setattr(erasure, "KEEP_EACH", 1)
    vault, tsm = restart(world)
    worker = ErasureFollower(tsm, vault)
    begun = worker._position.read()
    worker.start()
    eventually(lambda: vault.compared_with_log() and vault.compared_with_log()[0] == tsm.position)
    worker.stop()
    tsm.close()
    vault.close()
    return begun


def test_a_start_reads_on_from_where_log_and_data_keys_were_compared(world, monkeypatch):
    world.apply()
    assert where_a_follower_begins(world, monkeypatch) == 0
    compared = world.tsm.position
    apply_for(world, TARO)
    assert where_a_follower_begins(world, monkeypatch) == compared
    assert where_a_follower_begins(world, monkeypatch) == world.tsm.position


def test_how_far_they_were_compared_is_kept_seldom(world, monkeypatch):
    """It makes every process that uses the data keys look at them anew; to read a little again costs less."""
    world.apply()
    kept, position = erasure.Compared(world.tsm, world.vault), world.tsm.position
    kept.write(position)
    assert kept.read() == 0
    monkeypatch.setattr(erasure, "KEEP_EACH", position)
    kept.write(position)
    assert kept.read() == position
    kept.write(position - 1)
    assert kept.read() == position - 1  # what is unfinished lies before


def test_older_data_keys_with_an_older_list_are_compared_from_where_they_were_copied(world, monkeypatch):
    slip, (_, other) = world.apply(), apply_for(world, TARO)
    where_a_follower_begins(world, monkeypatch)
    compared, kept = world.tsm.position, back_up(world, "vault/datakeys.sqlite")
    erase(world, slip.credential)
    where_a_follower_begins(world, monkeypatch)
    stop(world)
    restore(world, "vault/datakeys.sqlite", kept)
    (world.folder / "kek.destroyed").write_bytes(b"")
    start(world)
    assert world.credential(slip.credential).applied.applicant == HANAKO.name

    assert where_a_follower_begins(world, monkeypatch) == compared
    assert world.credential(slip.credential).applied.applicant == ERASED
    assert world.credential(other.credential).applied.applicant == TARO.name


def test_an_erased_tenure_of_a_line_is_destroyed_again_as_well(world):
    lines = Lines(world.tsm, world.vault, world.clock, urandom)
    world.clock.now = at(1)
    (outcome,) = lines.record([signal(SignalKind.SUBSCRIBED, 0, msisdn=NUMBER, iccid=SIM)], BY_HAND)
    assert outcome.error is None
    (subject,) = lines.history(msisdn=NUMBER).subjects
    kept = back_up(world, "vault/datakeys.sqlite")
    lines.erase(BY_HAND, msisdn=NUMBER)
    stop(world)
    restore(world, "vault/datakeys.sqlite", kept)
    (world.folder / "kek.destroyed").write_bytes(b"")
    start(world)
    assert not world.vault.subject_destroyed(subject)

    let_a_server_run_until(world, lambda: world.vault.subject_destroyed(subject))


def test_another_log_is_compared_from_its_beginning_however_long_it_is(world, monkeypatch):
    """An older log was put back and written on: an order in it, cut off, lies before the position that was compared."""
    world.apply()
    kept = back_up(world, "log.sqlite")
    for _ in range(3):
        apply_for(world, TARO)
    where_a_follower_begins(world, monkeypatch)
    compared = world.tsm.position
    stop(world)
    restore(world, "log.sqlite", kept)
    world.clock.now += timedelta(minutes=1)
    start(world)
    slip = world.apply()
    with monkeypatch.context() as patched:
        patched.setattr(world.vault, "destroy_subject", crash)
        with suppress(Crash):
            erase(world, slip.credential)
    ordered = world.tsm.position
    while world.tsm.position <= compared:
        apply_for(world, TARO)
    assert ordered < compared

    assert where_a_follower_begins(world, monkeypatch) == 0
    assert topics(world, slip.credential)[-1] == "person_erased"


def test_an_older_log_gets_the_order_again(world):
    slip, (_, other) = world.apply(), apply_for(world, TARO)
    kept = back_up(world, "log.sqlite")
    erase(world, slip.credential)
    stop(world)
    restore(world, "log.sqlite", kept)
    start(world)
    assert len(world.tsm.indexed("iccid", ICCID)) == 2  # the way to the person is back, the person is not
    assert world.credential(slip.credential).applied.applicant == ERASED

    let_a_server_run_until(world, lambda: topics(world, slip.credential)[-1] == "person_erased")

    assert [row.subject for row in world.tsm.indexed("iccid", ICCID)] == [other.credential]
    ordered = next(event for event in world.events() if isinstance(event.fact, ErasureOrdered))
    assert (ordered.context.actor, ordered.context.reason) == ("system:erasure", BEFORE_THE_LOG)
    assert topics(world, other.credential)[-1] == "slip_handed_out"


def test_a_log_that_is_older_than_a_key_store_without_a_list_is_not_served(world):
    slip = world.apply()
    erase(world, slip.credential)
    stop(world)
    (world.folder / "kek.destroyed").unlink()
    with refused(ErrorCode.NOT_FOUND):
        start(world)
    (world.folder / "kek.destroyed").touch()
    start(world)  # so that the fixture has something to close
