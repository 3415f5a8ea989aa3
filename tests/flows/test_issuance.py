"""From the application to the active credential, and what is refused on the way."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import cycle

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from issuance_world import AUTHORITY, COUNTER, HANAKO, IssuanceWorld, key_pool
from mas_world import ICCID, OTHER_ICCID, PROVIDER

from tsm.application import Change
from tsm.errors import ErrorCode, TsmError
from tsm.flows.issuance import Counter
from tsm.jpki.access_code import AccessCode
from tsm.jpki.certificate_authority import DestructionReceipt, HoldRequest, IssuedCertificates, ReleaseRequest
from tsm.jpki.certificates import Kind, read_certificate, serial_text
from tsm.jpki.personalisation import APPLICATION
from tsm.model import credential as credentials
from tsm.model.card import ApplicationPersonalized
from tsm.model.credential import (
    CredentialApplied,
    CredentialIssued,
    CredentialReleased,
    HoldOrdered,
    MainCertificateVerified,
    ReleaseOrdered,
    SignatureReissued,
    Stage,
)
from tsm.model.delegation import DelegationAccepted
from tsm.model.event import Context
from tsm.model.party import CertificateWithdrawn

HANDED_OUT = ["applied", "main_certificate_verified", "issued", "slip_handed_out"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr("tsm.jpki.authority.new_key", partial(next, cycle(key_pool())))
    world = IssuanceWorld(tmp_path)
    yield world
    world.close()


def refused(code: ErrorCode):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


# The application


def test_an_application_leads_to_certificates_and_a_slip(world):
    slip = world.apply()

    assert world.the_credential_topics() == HANDED_OUT
    applied, verified, issued = world.facts(f"credential-{slip.credential}")[:3]
    certificates = world.authority.certificates(slip.credential)
    assert isinstance(applied, CredentialApplied)
    assert (applied.iccid, applied.applicant, applied.provider) == (ICCID, HANAKO.name, PROVIDER)
    assert isinstance(verified, MainCertificateVerified)
    assert verified.serial == serial_text(read_certificate(world.main.signature_certificate))
    assert isinstance(issued, CredentialIssued)
    assert issued.signature_certificate_sha256 == sha256(certificates.signature).hexdigest()
    assert issued.authentication_certificate_sha256 == sha256(certificates.authentication).hexdigest()
    assert slip.expires_at == world.clock() + timedelta(hours=24)


def test_every_event_says_who_and_tells_one_story(world):
    slip = world.apply()

    events = [e for e in world.events() if e.context.correlation == slip.credential]
    assert len(events) == 5
    assert {(e.context.actor, e.context.role, e.context.tenant) for e in events} == {
        ("terminal:T-13101-01", "clerk", "13101")
    }
    assert {e.context.request for e in events} == {"request-1"}
    assert {e.context.tenants for e in events} == {(PROVIDER, "MNO00001")}


def test_neither_code_nor_password_nor_person_is_readable_in_the_log(world):
    slip = world.apply()

    stored = b"".join(recorded.state for recorded in world.recorder.select_notifications(1, 10_000))
    of_credential = b"".join(
        recorded.state for recorded in world.recorder.select_events(f"credential-{slip.credential}")
    )
    main_serial = serial_text(read_certificate(world.main.signature_certificate))
    for secret in (slip.code.code, slip.code.password, HANAKO.name, main_serial):
        assert secret.encode() not in stored
    assert ICCID.encode() not in of_credential
    assert slip.code.code not in repr(slip)
    assert slip.code.password not in repr(slip)


def test_an_application_sent_twice_does_not_give_a_second_slip(world):
    signed = world.signed()
    world.apply(signed)

    with refused(ErrorCode.WRONG_ORDER):
        world.apply(signed)

    assert world.the_credential_topics() == HANDED_OUT


def test_an_application_that_is_too_large_is_not_even_recorded(world):
    with refused(ErrorCode.MESSAGE_TOO_LARGE):
        world.apply(world.signed(certificate=bytes(8193)))
    assert world.the_credential_topics() == []


def test_a_challenge_is_good_for_one_application(world):
    document = world.document()
    world.apply(world.signed(document))

    with refused(ErrorCode.WRONG_ORDER):
        world.apply(world.signed(replace(document, iccid=OTHER_ICCID)))


def test_a_challenge_is_good_for_one_terminal_and_a_short_time(world):
    signed = world.signed()
    with refused(ErrorCode.WRONG_ORDER):
        world.apply(signed, Counter("T-13102-01", "13102"))
    world.clock.pass_by(minutes=10)
    with refused(ErrorCode.WRONG_ORDER):
        world.apply(signed)
    assert world.topics("credential-") == []


@pytest.mark.parametrize("challenge", ["x", "9999999999.00.00", ".", "1.2.3.4", "é.é"])
def test_a_challenge_that_we_did_not_make_is_refused(world, challenge):
    with refused(ErrorCode.WRONG_ORDER):
        world.apply(world.signed(world.document(challenge=challenge)))
    assert world.topics("credential-") == []


def test_a_document_that_names_what_is_not_here_is_refused_without_a_trace(world):
    with refused(ErrorCode.UNKNOWN_CARD):
        world.apply(world.signed(world.document(iccid="8981100000000000093")))
    with refused(ErrorCode.UNKNOWN_SERVICE_PROVIDER):
        world.apply(world.signed(world.document(provider="NOBODY01")))
    assert world.topics("credential-") == []


@pytest.mark.parametrize("withdrawn", [f"authority-{AUTHORITY}", f"provider-{PROVIDER}"])
def test_nothing_is_issued_by_a_withdrawn_authority_or_for_a_withdrawn_provider(world, withdrawn):
    world.record(withdrawn, CertificateWithdrawn(certificate_fingerprint="22" * 32))
    with refused(ErrorCode.NOT_FOUND if withdrawn.startswith("authority") else ErrorCode.UNKNOWN_SERVICE_PROVIDER):
        world.apply()
    assert world.topics("credential-") == []


# What does not hold


def final_refusal(world, signed, code: ErrorCode) -> None:
    """Refused with this code, recorded, and refused for good."""
    with refused(code):
        world.apply(signed)
    assert world.the_credential_topics()[-1] == "application_refused"
    assert world.facts("credential-")[-1].code == code
    assert "issued" not in world.the_credential_topics()
    events = len(world.events())
    with refused(ErrorCode.WRONG_ORDER):
        world.apply(signed)
    assert len(world.events()) == events


def test_a_copied_certificate_without_its_key_is_refused_and_recorded(world):
    final_refusal(world, world.signed(key=rsa.generate_private_key(65537, 2048)), ErrorCode.BAD_SIGNATURE)


def test_a_revoked_certificate_is_refused_and_recorded(world):
    serial = read_certificate(world.main.signature_certificate).serial_number
    world.authority.revoke(Kind.SIGNATURE, serial, x509.ReasonFlags.cessation_of_operation)

    final_refusal(world, world.signed(), ErrorCode.CERTIFICATE_REVOKED)
    assert world.line.asked == []  # the server itself looked into the list; the authority was not even asked


def test_an_expired_certificate_is_refused_and_recorded(world):
    world.clock.pass_by(days=6 * 365)

    final_refusal(world, world.signed(), ErrorCode.CERTIFICATE_EXPIRED)


def test_the_other_certificate_of_the_card_is_refused_and_recorded(world):
    other = world.signed(key=world.main.authentication_key, certificate=world.main.authentication_certificate)

    final_refusal(world, other, ErrorCode.CERTIFICATE_INVALID)


def test_an_application_in_another_name_is_refused_and_recorded(world):
    final_refusal(world, world.signed(world.document(applicant="見本太郎")), ErrorCode.CERTIFICATE_INVALID)


# The authority is silent


def test_an_application_waits_visibly_for_a_silent_authority_and_can_be_repeated(world):
    signed = world.signed()
    world.line.silent = True
    with refused(ErrorCode.UPSTREAM_UNAVAILABLE):
        world.apply(signed)
    assert world.the_credential_topics() == ["applied", "main_certificate_verified"]

    world.line.silent = False
    world.clock.pass_by(hours=1)  # the challenge is old, but it is the very same application
    slip = world.apply(signed)

    assert world.the_credential_topics() == HANDED_OUT
    assert world.check(slip) == slip.credential


def test_without_a_revocation_list_nothing_is_issued(world):
    signed = world.signed()
    world.line.silent_lists = True
    with refused(ErrorCode.UPSTREAM_UNAVAILABLE):
        world.apply(signed)
    assert world.the_credential_topics() == ["applied"]
    assert world.line.asked == []

    world.line.silent_lists = False
    world.apply(signed)
    assert world.the_credential_topics() == HANDED_OUT


def test_a_revocation_list_out_of_date_is_no_answer(world, monkeypatch):
    old = world.authority.revocation_list(Kind.SIGNATURE)
    world.clock.pass_by(hours=2)
    monkeypatch.setattr(world.line, "revocation_list", lambda url: old)

    with refused(ErrorCode.REVOCATION_UNKNOWN):
        world.apply()
    assert world.the_credential_topics() == ["applied"]


def test_who_is_revoked_while_an_application_waits_gets_nothing(world):
    signed = world.signed()
    world.line.silent = True
    with refused(ErrorCode.UPSTREAM_UNAVAILABLE):
        world.apply(signed)
    serial = read_certificate(world.main.signature_certificate).serial_number
    world.authority.revoke(Kind.SIGNATURE, serial, x509.ReasonFlags.key_compromise)
    world.line.silent = False

    with refused(ErrorCode.CERTIFICATE_REVOKED):
        world.apply(signed)
    assert world.the_credential_topics() == ["applied", "main_certificate_verified", "application_refused"]


def test_certificates_that_are_not_the_enrolled_authoritys_are_not_taken(world, monkeypatch):
    def swapped(url, request):
        issued = world.authority.issue(request)
        return IssuedCertificates(authentication=issued.signature, signature=issued.authentication)

    monkeypatch.setattr(world.line, "issue", swapped)
    with refused(ErrorCode.UPSTREAM_UNAVAILABLE):
        world.apply()
    assert world.the_credential_topics() == ["applied", "main_certificate_verified"]


def test_two_requests_at_once_hand_out_one_slip(world, monkeypatch):
    signed = world.signed()
    issue = world.line.issue

    def overtaken(url, request):
        monkeypatch.setattr(world.line, "issue", issue)
        world.apply(signed)
        return issue(url, request)

    monkeypatch.setattr(world.line, "issue", overtaken)
    with refused(ErrorCode.ALREADY_EXISTS):
        world.apply(signed)
    assert world.the_credential_topics() == HANDED_OUT
    assert len(world.facts("access-code-")) == 1


# The access code


def test_the_right_code_names_the_credential_again_and_again_until_it_is_written(world):
    slip = world.apply()

    assert world.check(slip) == slip.credential
    assert world.check(slip) == slip.credential

    assert world.the_credential_topics()[-1] == "holder_authenticated"
    assert world.topics("access-code-") == ["access_code.handed_out", "access_code.accepted"]


def test_five_wrong_passwords_lock_the_code(world):
    slip = world.apply()
    wrong = replace(slip, code=AccessCode(slip.code.code, "222222222222"))
    for _ in range(4):
        with refused(ErrorCode.ACCESS_CODE_REFUSED):
            world.check(wrong)
    with refused(ErrorCode.ACCESS_CODE_LOCKED):
        world.check(wrong)

    with refused(ErrorCode.ACCESS_CODE_LOCKED):
        world.check(slip)
    assert world.topics("access-code-")[-2:] == ["access_code.refused", "access_code.locked"]
    assert world.the_credential_topics() == HANDED_OUT


def test_the_right_password_is_not_answered_once_the_code_is_locked(world, monkeypatch):
    slip = world.apply()
    world.check(slip)  # so that the right password is no news
    compare = world.vault.check_verifier

    def overtaken(ref, secret):
        right = compare(ref, secret)
        monkeypatch.setattr(world.vault, "check_verifier", compare)
        for _ in range(5):
            with pytest.raises(TsmError):
                world.check(replace(slip, code=AccessCode(slip.code.code, "222222222222")))
        return right

    monkeypatch.setattr(world.vault, "check_verifier", overtaken)
    with refused(ErrorCode.ACCESS_CODE_LOCKED):
        world.check(slip)


def revoke_main(world):
    serial = read_certificate(world.main.signature_certificate).serial_number
    world.authority.revoke(Kind.SIGNATURE, serial, x509.ReasonFlags.key_compromise)


def test_who_is_revoked_after_the_slip_is_refused_on_the_phone_and_it_is_recorded(world):
    slip = world.apply()
    revoke_main(world)
    for _ in range(2):
        with refused(ErrorCode.CERTIFICATE_REVOKED):
            world.check(slip)
    assert world.the_credential_topics() == [*HANDED_OUT, "holder_refused"]
    assert world.topics("access-code-") == ["access_code.handed_out"]


def test_a_wrong_password_learns_nothing_of_a_revocation(world):
    slip = world.apply()
    revoke_main(world)
    with refused(ErrorCode.ACCESS_CODE_REFUSED):
        world.check(replace(slip, code=AccessCode(slip.code.code, "222222222222")))


def test_when_nobody_can_say_who_is_revoked_the_code_waits_and_no_try_is_lost(world):
    slip = world.apply()
    world.line.silent_lists = True
    with refused(ErrorCode.UPSTREAM_UNAVAILABLE):
        world.check(slip)
    assert world.topics("access-code-") == ["access_code.handed_out"]
    world.line.silent_lists = False
    assert world.check(slip) == slip.credential


def test_a_holder_whose_key_is_destroyed_is_not_let_in(world):
    slip = world.apply()
    world.vault.destroy_subject(slip.credential)
    with refused(ErrorCode.ACCESS_CODE_REFUSED):  # no card is the one that was applied for
        world.check(slip)


def test_a_credential_is_found_by_its_card_and_by_its_main_certificate(world):
    slip, other = world.apply(), world.apply()
    serial = serial_text(read_certificate(world.main.signature_certificate))
    for purpose, value in (("iccid", ICCID), ("main-certificate", serial)):
        assert {row.subject for row in world.tsm.indexed(purpose, value)} == {slip.credential, other.credential}
    assert world.tsm.indexed("iccid", OTHER_ICCID) == []


def test_another_card_costs_a_try(world):
    slip = world.apply()

    with refused(ErrorCode.ACCESS_CODE_REFUSED):
        world.check(slip, iccid=OTHER_ICCID)

    assert world.facts("access-code-")[-1].remaining == 4


def test_a_code_expires_after_a_day(world):
    slip = world.apply()
    world.clock.pass_by(hours=24)

    with refused(ErrorCode.ACCESS_CODE_EXPIRED):
        world.check(slip)


def test_a_code_that_was_never_handed_out_and_one_for_another_provider_look_the_same(world):
    slip = world.apply()
    world.enrol_other_provider("JPKI0002")
    events = len(world.events())

    with refused(ErrorCode.ACCESS_CODE_REFUSED):
        world.check(slip, provider="JPKI0002")
    with refused(ErrorCode.ACCESS_CODE_REFUSED):
        world.issuance.check_access_code(PROVIDER, ICCID, AccessCode("0000000000", slip.code.password))

    assert len(world.events()) == events


# The write, and the end of the authority's copies


def write(world, slip, *, iccid=ICCID, provider=PROVIDER):
    """What the log says of a write that this provider delegated for this card in the credential's name."""
    reception = f"20261121{len(world.events()):08}"
    accepted = DelegationAccepted(
        provider=provider,
        operator="MNO00001",
        reception=reception,
        iccid=iccid,
        domain="D392F0002601FE01",
        correlation=slip.credential,
        generated_at="20261121093000",
        received_at=world.clock(),
        commands=(),
        content_index="00",
        expires_at=world.clock(),
    )
    context = Context(
        actor="phone",
        role="phone",
        tenant=provider,
        correlation=slip.credential,
        command=f"{provider}/{reception}/7",
    )
    delegated = Change(f"delegation-{provider}-{reception}", 0, [accepted])
    version = sum(1 for event in world.events() if event.originator_id == f"card-{iccid}")
    done = ApplicationPersonalized(application=APPLICATION.hex().upper(), domain="D392F0002601FE01")
    written = Change(f"card-{iccid}", version, [done])
    world.tsm.commit(delegated, written, context=context, occurred_at=world.clock())
    return reception


def receipts(world, slip):
    return world.destroy_key_copies(slip.credential)


def test_a_written_card_and_destroyed_copies_make_the_credential_active(world):
    slip = world.apply()
    world.check(slip)
    reception = write(world, slip)
    world.follow()
    assert world.credential(slip.credential).receptions == (reception,)
    assert world.credential(slip.credential).stage is Stage.WRITTEN

    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts(world, slip))

    assert world.the_credential_topics()[4:] == [
        "holder_authenticated", "personalization_delegated", "written",
        "key_copy_destroyed", "key_copy_destroyed", "activated",
    ]  # fmt: skip
    written = next(e for e in world.events() if e.fact.topic == "credential.written")
    assert written.context.actor == "system:issuance"
    assert int(written.context.causation) > 0


def held_and_released(world, slip):
    """The certificate for signatures is another one; the credential's stream says so, as after a real hold."""
    state = world.credential(slip.credential)
    named = (slip.credential, state.issued.authentication_certificate_sha256, state.signature_certificate_sha256)
    world.authority.hold(HoldRequest(*named))
    certificate = world.authority.release(ReleaseRequest(*named))
    reissued = SignatureReissued(
        subject=slip.credential,
        signature_serial=serial_text(read_certificate(certificate)),
        signature_certificate_sha256=sha256(certificate).hexdigest(),
    )
    world.record(credentials.stream(slip.credential), HoldOrdered(), ReleaseOrdered(), CredentialReleased(), reissued)


def active(world):
    """A credential in use."""
    slip = world.apply()
    world.check(slip)
    write(world, slip)
    world.follow()
    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts(world, slip))
    return slip


def test_after_a_hold_the_new_certificate_is_written_and_the_copy_of_its_key_destroyed(world):
    slip = active(world)
    held_and_released(world, slip)
    before = len(world.the_credential_topics())
    reception = write(world, slip)
    world.follow()
    world.follow()
    state = world.credential(slip.credential)
    assert (state.rewritten, state.rewrites, state.stage) == (True, (reception,), Stage.ACTIVE)
    for _ in range(2):
        world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts(world, slip))
    assert world.the_credential_topics()[before:] == [
        "personalization_delegated", "signature_rewritten", "key_copy_destroyed",
    ]  # fmt: skip


def test_a_write_from_before_the_hold_that_comes_late_is_not_the_new_certificates(world):
    slip = active(world)
    held_and_released(world, slip)
    reception = write(world, slip)
    world.follow()
    held_and_released(world, slip)
    personalized = ApplicationPersonalized(application=APPLICATION.hex().upper(), domain="D392F0002601FE01")
    context = Context(
        actor="phone", role="phone", tenant=PROVIDER, correlation=slip.credential, command=f"{PROVIDER}/{reception}/7"
    )
    version = sum(1 for event in world.events() if event.originator_id == f"card-{ICCID}")
    change = Change(f"card-{ICCID}", version, [personalized])
    world.tsm.commit(change, context=context, occurred_at=world.clock())
    world.follow()
    assert not world.credential(slip.credential).rewritten


def test_the_receipt_of_a_superseded_key_does_not_stand_for_the_new_one(world):
    slip = world.apply()
    world.check(slip)
    write(world, slip)
    world.follow()
    late = receipts(world, slip)
    held_and_released(world, slip)
    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, late)
    assert world.credential(slip.credential).destroyed == {"authentication"}
    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts(world, slip))
    assert world.credential(slip.credential).stage is Stage.ACTIVE


def test_receipts_that_overtake_the_follower_activate_it_all_the_same(world):
    slip = world.apply()
    world.check(slip)
    write(world, slip)
    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, receipts(world, slip))

    world.follow()
    world.follow()

    assert world.the_credential_topics()[-2:] == ["written", "activated"]
    assert world.the_credential_topics().count("written") == 1


def test_after_the_write_the_access_code_opens_nothing(world):
    slip = world.apply()
    world.check(slip)
    write(world, slip)
    world.follow()

    with refused(ErrorCode.WRONG_ORDER):
        world.check(slip)


@pytest.mark.parametrize("claim", [{"iccid": OTHER_ICCID}, {"provider": "JPKI0002"}])
def test_a_write_on_another_card_or_by_another_provider_does_not_count(world, claim):
    slip = world.apply()
    world.check(slip)
    write(world, slip, **claim)

    world.follow()

    assert world.credential(slip.credential).stage is Stage.HOLDER_AUTHENTICATED


def test_a_write_before_the_holder_was_authenticated_does_not_count(world):
    slip = world.apply()
    write(world, slip)

    world.follow()

    assert world.credential(slip.credential).stage is Stage.HANDED_OUT


def test_receipts_again_are_no_news(world):
    slip = world.apply()
    given = receipts(world, slip)
    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, given)
    events = len(world.events())

    world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, given)

    assert len(world.events()) == events


def test_a_receipt_that_is_not_the_authoritys_or_for_another_key_is_refused(world):
    slip, other = world.apply(), world.apply()
    given = receipts(world, slip)

    with refused(ErrorCode.BAD_SIGNATURE):
        forged = [DestructionReceipt(given[0].statement, bytes(256))]
        world.issuance.key_copies_destroyed(AUTHORITY, slip.credential, forged)
    with refused(ErrorCode.INVALID_INPUT):
        world.issuance.key_copies_destroyed(AUTHORITY, other.credential, given)
    with refused(ErrorCode.NOT_FOUND):
        world.issuance.key_copies_destroyed("another", slip.credential, given)
    with refused(ErrorCode.NOT_FOUND):
        world.issuance.key_copies_destroyed(AUTHORITY, "nothing", given)
    assert not any(topic.endswith("destroyed") for topic in world.topics("credential-"))


def test_a_terminal_may_ask_for_as_many_challenges_as_it_likes_without_leaving_a_trace(world):
    events = len(world.events())
    assert len({world.issuance.challenge(COUNTER) for _ in range(10)}) == 10
    assert len(world.events()) == events
