"""The revocation of a credential: the log first, then the authority until it acknowledges; and what is closed."""

import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle

import pytest
from cryptography import x509
from issuance_world import AUTHORITY, URL, IssuanceWorld, key_pool
from mas_world import GET_KEY_INFORMATION, ICCID, OPERATOR, PROVIDER

from tsm.application import Command
from tsm.errors import ErrorCode, TsmError
from tsm.flows import follower, orders
from tsm.flows.erasure import Erasure
from tsm.flows.follower import StoredPosition
from tsm.flows.revocation import Revocation, RevocationFollower
from tsm.jpki.certificates import Kind
from tsm.model import credential as credentials
from tsm.model.credential import CredentialRevoked, RevocationOrdered
from tsm.model.event import Context

REASON = "the phone was stolen"
OFFICER = Context(actor="officer:7", role="security-officer", tenant="x", correlation="x", request="r", reason=REASON)


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr("tsm.jpki.authority.new_key", partial(next, cycle(key_pool())))
    for name, seconds in (("PAUSE", 0.01), ("TICK", 0.01), ("KEEP_EVERY", 0.0)):
        monkeypatch.setattr(follower, name, seconds)
    monkeypatch.setattr(orders, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(orders, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def world(tmp_path):
    world = IssuanceWorld(tmp_path)
    yield world
    world.close()


def refused(code: ErrorCode):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def eventually(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def order(world, credential, reason="keyCompromise", **options):
    return Revocation(world.tsm, world.line).revoke(credential, reason, OFFICER, **options)


def worker(world):
    return RevocationFollower(world.tsm, world.line, StoredPosition(world.folder / "revocation"))


def let_a_server_run_until(world, condition):
    made = worker(world)
    made.start()
    try:
        eventually(condition)
        assert made.keeping_up()
    finally:
        made.stop()


def revoke(world, credential):
    order(world, credential)
    let_a_server_run_until(world, lambda: world.credential(credential).revoked)


def entries(world, credential):
    """What the authority's lists say of both certificates."""
    certificates = world.authority.certificates(credential)
    found = {}
    for kind in Kind:
        serial = x509.load_der_x509_certificate(certificates.of(kind)).serial_number
        revoked = x509.load_der_x509_crl(world.authority.revocation_list(kind))
        found[kind] = revoked.get_revoked_certificate_by_serial_number(serial)
    return found


# Order, authority, record


def test_it_is_ordered_first_then_told_and_then_recorded(world):
    slip = world.apply()

    position = order(world, slip.credential)

    assert world.events()[-1].position == position
    assert world.the_credential_topics()[-1] == "revocation_ordered"
    assert set(entries(world, slip.credential).values()) == {None}
    let_a_server_run_until(world, lambda: world.credential(slip.credential).revoked)
    assert world.the_credential_topics()[-2:] == ["revocation_ordered", "revoked"]
    for entry in entries(world, slip.credential).values():
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise


def test_the_authority_is_asked_where_it_is_enrolled_and_by_hashes_alone(world):
    slip = world.apply()
    issued = world.credential(slip.credential).issued
    revoke(world, slip.credential)

    url, asked = world.line.asked[-1]
    assert (url, asked.credential) == (URL, slip.credential)
    assert asked.authentication_sha256 == issued.authentication_certificate_sha256
    assert asked.signature_sha256 == issued.signature_certificate_sha256


def test_who_ordered_it_and_why_is_recorded_for_those_whom_it_concerns(world):
    slip = world.apply()
    revoke(world, slip.credential)

    ordered, revoked = world.events()[-2:]
    assert (ordered.fact, revoked.fact) == (
        RevocationOrdered(reason="keyCompromise"), CredentialRevoked(reason="keyCompromise"),
    )  # fmt: skip
    assert (ordered.context.actor, ordered.context.role, ordered.context.request) == ("officer:7", OFFICER.role, "r")
    assert (revoked.context.actor, revoked.context.causation) == ("system:revocation", str(ordered.position))
    for event in (ordered, revoked):
        context = event.context
        assert (context.tenant, context.tenants, context.correlation, context.reason) == (
            PROVIDER, ("13101",), slip.credential, REASON,
        )  # fmt: skip


def test_an_authority_that_is_silent_is_told_until_it_acknowledges(world):
    slip = world.apply()
    world.line.silent = True
    order(world, slip.credential)

    made = worker(world)
    made.start()
    eventually(lambda: len(world.line.asked) > 4)
    assert world.the_credential_topics()[-1] == "revocation_ordered"
    assert made.keeping_up()
    world.line.silent = False
    eventually(lambda: world.credential(slip.credential).revoked)
    made.stop()

    assert world.the_credential_topics().count("revoked") == 1


def test_a_server_that_stopped_before_the_acknowledgement_goes_on_after_its_start(world):
    slip = world.apply()
    world.line.silent = True
    order(world, slip.credential)
    asked = len(world.line.asked)
    let_a_server_run_until(world, lambda: len(world.line.asked) > asked)
    assert int((world.folder / "revocation").read_text()) < world.tsm.position

    world.line.silent = False
    let_a_server_run_until(world, lambda: world.credential(slip.credential).revoked)


def test_an_answer_that_was_lost_is_asked_for_again_and_the_first_time_stays(world, monkeypatch):
    """The authority did it, and the server died before it could record that."""
    slip = world.apply()
    order(world, slip.credential)
    told = Revocation(world.tsm, world.line)
    with monkeypatch.context() as patched, suppress(ZeroDivisionError):
        patched.setattr(world.tsm, "commit", lambda *_, **__: 1 / 0)
        told.carry_out(slip.credential, OFFICER)
    before = entries(world, slip.credential)
    assert not world.credential(slip.credential).revoked
    world.clock.pass_by(seconds=30)

    let_a_server_run_until(world, lambda: world.credential(slip.credential).revoked)

    dates = {kind: entry.revocation_date_utc for kind, entry in entries(world, slip.credential).items()}
    assert dates == {kind: entry.revocation_date_utc for kind, entry in before.items()}


def test_what_another_server_carried_out_is_left_alone(world):
    slip = world.apply()
    revoke(world, slip.credential)
    events, asked = len(world.events()), len(world.line.asked)
    (world.folder / "revocation").unlink()
    made = worker(world)
    made.start()
    eventually(lambda: (world.folder / "revocation").exists())
    made.stop()
    assert (len(world.events()), len(world.line.asked)) == (events, asked)


def test_one_authority_out_of_order_does_not_keep_another_credential_waiting(world, monkeypatch):
    first, second = world.apply(), world.apply()
    answer = world.line.revoke

    def revoke_one(url, request):
        if request.credential == first.credential:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "silent")
        answer(url, request)

    monkeypatch.setattr(world.line, "revoke", revoke_one)
    order(world, first.credential)
    order(world, second.credential)
    let_a_server_run_until(world, lambda: world.credential(second.credential).revoked)
    assert not world.credential(first.credential).revoked


def test_nothing_is_recorded_that_nobody_ordered(world):
    slip = world.apply()
    with refused(ErrorCode.WRONG_ORDER):
        Revocation(world.tsm, world.line).carry_out(slip.credential, OFFICER)
    assert set(entries(world, slip.credential).values()) == {None}


# What is asked


@pytest.mark.parametrize("reason", ["", "stolen", "cACompromise", "certificateHold", "removeFromCRL", "KEY_COMPROMISE"])
def test_a_reason_that_is_none_for_a_holders_certificate_is_refused(world, reason):
    slip = world.apply()
    with refused(ErrorCode.INVALID_INPUT):
        order(world, slip.credential, reason)
    assert world.credential(slip.credential).revocation is None


def test_a_credential_that_there_is_not_is_not_revoked(world):
    with refused(ErrorCode.NOT_FOUND):
        order(world, "nothing")


def test_the_same_command_again_gets_the_first_answer(world):
    slip = world.apply()
    command = Command("officer:7|1", "digest", datetime.now(UTC) + timedelta(days=30))
    position = order(world, slip.credential, command=command)
    revoke(world, slip.credential)
    assert order(world, slip.credential, command=command) == position


# The credential is closed


def test_the_access_code_does_not_work_any_more(world):
    slip = world.apply()
    order(world, slip.credential)
    events = len(world.events())
    with refused(ErrorCode.WRONG_ORDER):
        world.check(slip)
    assert len(world.events()) == events


def test_receipts_do_not_activate_it(world):
    slip = world.apply()
    receipts = world.destroy_key_copies(slip.credential)
    order(world, slip.credential)
    with refused(ErrorCode.WRONG_ORDER):
        world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts)


@pytest.fixture
def story(world):
    """A credential of which the provider has its domain on the card; and how it delegates in that story."""
    world.create_domain()
    slip = world.apply()
    world.check(slip)

    def delegate(provider=PROVIDER):
        request = world.request([GET_KEY_INFORMATION], provider)
        world.sessions.delegate(request, party=provider, iccid=ICCID, correlation=slip.credential)
        return request.reception

    return slip, delegate


def test_no_write_is_delegated_any_more(world, story):
    slip, delegate = story
    delegate()
    order(world, slip.credential)
    events = len(world.events())
    with refused(ErrorCode.WRONG_ORDER):
        delegate()
    assert len(world.events()) == events


def test_a_delegation_that_waits_does_not_start(world, story):
    slip, delegate = story
    reception = delegate()
    order(world, slip.credential)
    with refused(ErrorCode.WRONG_ORDER):
        world.phone().start(reception, PROVIDER)
    assert world.session(reception, PROVIDER) is None


def test_nor_does_one_of_a_person_who_is_erased_meanwhile(world, story):
    slip, delegate = story
    delegate()
    Erasure(world.tsm, world.vault).erase(slip.credential, OFFICER)
    with refused(ErrorCode.WRONG_ORDER):
        delegate()


def test_another_party_is_not_told_by_naming_the_story(world, story):
    slip, delegate = story
    order(world, slip.credential)
    reception = delegate(OPERATOR)
    assert world.phone().start(reception, OPERATOR).process.name == "CONNECT"


def test_a_delegation_that_is_accepted_at_the_same_moment_is_decided_anew(world, story, monkeypatch):
    slip, delegate = story
    commit = world.tsm.commit

    def overtaken(*changes, **options):
        monkeypatch.setattr(world.tsm, "commit", commit)
        order(world, slip.credential)
        return commit(*changes, **options)

    monkeypatch.setattr(world.tsm, "commit", overtaken)
    with refused(ErrorCode.WRONG_ORDER):
        delegate()


def test_a_session_under_way_goes_on_and_is_no_fact_of_the_credential(world, story):
    slip, delegate = story
    reception = delegate()
    phone = world.phone()
    answer = phone.start(reception, PROVIDER)
    order(world, slip.credential)
    while answer.process.name != "END":
        answer = phone.say(phone.obey(answer))
    world.follow()
    assert world.delegation(reception, PROVIDER).ended.executed == 1
    assert world.topics(credentials.stream(slip.credential))[-1] == "credential.revocation_ordered"


def test_the_person_is_erased_afterwards_without_being_asked_twice(world, story):
    slip, delegate = story
    delegate()
    world.follow()
    erasure = Erasure(world.tsm, world.vault)
    with refused(ErrorCode.WRONG_ORDER):
        erasure.erase(slip.credential, OFFICER)
    revoke(world, slip.credential)
    erasure.erase(slip.credential, OFFICER)
    assert not world.credential(slip.credential).erasure.in_use


# What a relying party sees


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("reason", "said"), [("keyCompromise", "Key Compromise"), ("affiliationChanged", "Affiliation Changed")]
)
def test_openssl_finds_the_certificate_revoked_for_that_reason(world, tmp_path, kind, reason, said):
    """A program that nobody here wrote reads the list."""
    slip = world.apply()
    assert openssl_verify(world, tmp_path, slip.credential, kind) == (0, "")
    order(world, slip.credential, reason)
    let_a_server_run_until(world, lambda: world.credential(slip.credential).revoked)

    code, complaint = openssl_verify(world, tmp_path, slip.credential, kind)
    assert code == 2 and "certificate revoked" in complaint
    assert said in openssl(tmp_path, "crl", "-noout", "-text", "-in", "list.pem").stdout


def test_an_unspecified_reason_is_not_written_down(world, tmp_path):
    """RFC 5280 5.3.1: the extension should be absent."""
    slip = world.apply()
    order(world, slip.credential, "unspecified")
    let_a_server_run_until(world, lambda: world.credential(slip.credential).revoked)
    code, complaint = openssl_verify(world, tmp_path, slip.credential, Kind.SIGNATURE)
    text = openssl(tmp_path, "crl", "-noout", "-text", "-in", "list.pem").stdout
    assert code == 2 and "certificate revoked" in complaint
    assert "Serial Number" in text and "Reason Code" not in text


def openssl_verify(world, folder, credential, kind):
    files = {
        ("x509", "ca"): world.authority.certificate(kind),
        ("x509", "holder"): world.authority.certificates(credential).of(kind),
        ("crl", "list"): world.authority.revocation_list(kind),
    }
    for (form, name), der in files.items():
        (folder / f"{name}.der").write_bytes(der)
        openssl(folder, form, "-inform", "DER", "-in", f"{name}.der", "-out", f"{name}.pem")
    at = str(int(world.clock().timestamp()) + 1)
    lists = ("-CAfile", "ca.pem", "-CRLfile", "list.pem", "holder.pem")
    done = openssl(folder, "verify", "-x509_strict", "-crl_check", "-attime", at, *lists)
    return done.returncode, done.stderr


def openssl(folder, *words):
    return subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
