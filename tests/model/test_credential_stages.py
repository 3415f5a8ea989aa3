"""A credential, stage by stage."""

from datetime import UTC, datetime

import msgspec
import pytest
from given import given

from tsm.errors import ErrorCode
from tsm.model import credential
from tsm.model.credential import (
    ApplicationRefused,
    CredentialActivated,
    CredentialApplied,
    CredentialIssued,
    CredentialWritten,
    ErasureOrdered,
    HolderAuthenticated,
    HolderRefused,
    KeyCopyDestroyed,
    MainCertificateVerified,
    PersonalizationDelegated,
    PersonErased,
    SlipHandedOut,
    Stage,
)
from tsm.model.event import Fact

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RECEPTION = "2026112100000001"
APPLIED = CredentialApplied(
    subject="credential-1",
    provider="JPKI0001",
    terminal="T-13101-01",
    municipality="千代田区",
    iccid="8981100000000000010",
    applicant="山田 花子",
    document_sha256="ab" * 32,
)
VERIFIED = MainCertificateVerified(subject="credential-1", serial="4711", revocation_as_of=NOON)
ISSUED = CredentialIssued(
    subject="credential-1",
    authority="jpki",
    authentication_serial="1",
    signature_serial="2",
    authentication_certificate_sha256="cd" * 32,
    signature_certificate_sha256="ef" * 32,
)
DELEGATED = PersonalizationDelegated(reception=RECEPTION)
WRITTEN = CredentialWritten(reception=RECEPTION)
AUTHENTICATION_GONE = KeyCopyDestroyed(kind="authentication", receipt_sha256="01" * 32)
SIGNATURE_GONE = KeyCopyDestroyed(kind="signature", receipt_sha256="02" * 32)

STORY = (APPLIED, VERIFIED, ISSUED, SlipHandedOut(), HolderAuthenticated(), DELEGATED, WRITTEN)
TO_VERIFIED, TO_ISSUED, TO_SLIP, TO_HOLDER, TO_DELEGATED = (STORY[:n] for n in range(2, 7))
ALL = (*STORY, AUTHENTICATION_GONE, SIGNATURE_GONE, CredentialActivated())


def test_an_application_is_taken() -> None:
    given(credential.evolve).when(credential.apply, APPLIED).then(APPLIED)


def test_the_same_application_again_is_no_news() -> None:
    given(credential.evolve, *STORY).when(credential.apply, APPLIED).then_nothing()


def test_another_application_under_the_same_id_is_refused() -> None:
    other = msgspec.structs.replace(APPLIED, applicant="山田 太郎")
    given(credential.evolve, APPLIED).when(credential.apply, other).then_refused(ErrorCode.ALREADY_EXISTS)


def test_the_main_certificate_is_verified() -> None:
    given(credential.evolve, APPLIED).when(credential.verify_main_certificate, VERIFIED).then(VERIFIED)


def test_verifying_it_again_is_no_news() -> None:
    given(credential.evolve, *TO_ISSUED).when(credential.verify_main_certificate, VERIFIED).then_nothing()


def test_there_is_nothing_to_verify_without_an_application() -> None:
    given(credential.evolve).when(credential.verify_main_certificate, VERIFIED).then_refused(ErrorCode.NOT_FOUND)


def test_an_application_that_does_not_hold_is_refused_for_good() -> None:
    refused = ApplicationRefused(code=ErrorCode.CERTIFICATE_REVOKED)
    given(credential.evolve, APPLIED).when(credential.refuse_application, refused.code).then(refused)
    history = given(credential.evolve, APPLIED, refused)
    history.when(credential.verify_main_certificate, VERIFIED).then_refused(ErrorCode.WRONG_ORDER)


def test_an_issued_credential_is_not_refused() -> None:
    history = given(credential.evolve, *TO_ISSUED)
    history.when(credential.refuse_application, ErrorCode.BAD_SIGNATURE).then_refused(ErrorCode.WRONG_ORDER)


def test_certificates_are_issued() -> None:
    given(credential.evolve, *TO_VERIFIED).when(credential.issue, ISSUED).then(ISSUED)


def test_the_same_certificates_again_are_no_news() -> None:
    given(credential.evolve, *STORY).when(credential.issue, ISSUED).then_nothing()


def test_other_certificates_are_refused() -> None:
    other = msgspec.structs.replace(ISSUED, signature_serial="3")
    given(credential.evolve, *TO_ISSUED).when(credential.issue, other).then_refused(ErrorCode.ALREADY_EXISTS)


def test_nothing_is_issued_before_the_main_certificate_is_verified() -> None:
    given(credential.evolve, APPLIED).when(credential.issue, ISSUED).then_refused(ErrorCode.WRONG_ORDER)


def test_the_slip_is_handed_out() -> None:
    given(credential.evolve, *TO_ISSUED).when(credential.hand_out_slip).then(SlipHandedOut())


def test_there_is_no_second_slip() -> None:
    given(credential.evolve, *TO_SLIP).when(credential.hand_out_slip).then_refused(ErrorCode.ALREADY_EXISTS)


def test_there_is_no_slip_before_the_certificates() -> None:
    given(credential.evolve, *TO_VERIFIED).when(credential.hand_out_slip).then_refused(ErrorCode.WRONG_ORDER)


def test_a_holder_is_turned_away_before_the_phone_may_write_and_may_come_back() -> None:
    refused = HolderRefused(code=ErrorCode.CERTIFICATE_REVOKED)
    given(credential.evolve, *TO_SLIP).when(credential.refuse_holder, refused.code).then(refused)
    given(credential.evolve, *TO_SLIP, refused).when(credential.refuse_holder, refused.code).then_nothing()
    given(credential.evolve, *TO_SLIP, refused).when(credential.authenticate_holder).then(HolderAuthenticated())
    given(credential.evolve, *TO_ISSUED).when(credential.refuse_holder, refused.code).then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_the_holder_is_authenticated() -> None:
    given(credential.evolve, *TO_SLIP).when(credential.authenticate_holder).then(HolderAuthenticated())


@pytest.mark.parametrize("history", [TO_HOLDER, TO_DELEGATED])
def test_authenticating_the_holder_again_is_no_news(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.authenticate_holder).then_nothing()


@pytest.mark.parametrize("history", [TO_ISSUED, STORY])
def test_a_holder_comes_after_the_slip_and_before_the_write(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.authenticate_holder).then_refused(ErrorCode.WRONG_ORDER)


def test_the_write_is_delegated() -> None:
    given(credential.evolve, *TO_HOLDER).when(credential.delegate_personalization, RECEPTION).then(DELEGATED)


def test_a_write_that_broke_off_may_be_followed_by_another() -> None:
    again = PersonalizationDelegated(reception="2026112100000002")
    history = given(credential.evolve, *TO_DELEGATED)
    history.when(credential.delegate_personalization, "2026112100000002").then(again)


def test_delegating_it_again_is_no_news() -> None:
    given(credential.evolve, *STORY).when(credential.delegate_personalization, RECEPTION).then_nothing()


@pytest.mark.parametrize("history", [TO_SLIP, STORY])
def test_a_write_comes_after_the_holder_and_only_once(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.delegate_personalization, "2026112100000002").then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_the_credential_is_written() -> None:
    given(credential.evolve, *TO_DELEGATED).when(credential.write, RECEPTION).then(WRITTEN)


def test_writing_it_again_is_no_news() -> None:
    given(credential.evolve, *STORY).when(credential.write, RECEPTION).then_nothing()


def test_a_write_that_nobody_delegated_is_refused() -> None:
    given(credential.evolve, *TO_DELEGATED).when(credential.write, "2026112100000009").then_refused(
        ErrorCode.UNKNOWN_RECEPTION
    )


def test_the_first_destroyed_copy_does_not_activate() -> None:
    history = given(credential.evolve, *STORY)
    history.when(credential.destroy_key_copy, "authentication", "01" * 32).then(AUTHENTICATION_GONE)


def test_the_second_destroyed_copy_activates() -> None:
    history = given(credential.evolve, *STORY, AUTHENTICATION_GONE)
    history.when(credential.destroy_key_copy, "signature", "02" * 32).then(SIGNATURE_GONE, CredentialActivated())


def test_the_write_activates_when_it_is_heard_of_last() -> None:
    history = given(credential.evolve, *TO_DELEGATED, AUTHENTICATION_GONE, SIGNATURE_GONE)
    history.when(credential.write, RECEPTION).then(WRITTEN, CredentialActivated())


def test_copies_destroyed_before_the_write_do_not_activate() -> None:
    history = given(credential.evolve, *TO_DELEGATED, AUTHENTICATION_GONE)
    history.when(credential.destroy_key_copy, "signature", "02" * 32).then(SIGNATURE_GONE)


def test_only_the_first_receipt_counts() -> None:
    given(credential.evolve, *ALL).when(credential.destroy_key_copy, "signature", "03" * 32).then_nothing()


def test_there_is_no_copy_before_the_keys_exist() -> None:
    given(credential.evolve, *TO_VERIFIED).when(credential.destroy_key_copy, "signature", "02" * 32).then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_there_are_two_kinds_of_key() -> None:
    given(credential.evolve, *STORY).when(credential.destroy_key_copy, "other", "02" * 32).then_refused(
        ErrorCode.INVALID_INPUT
    )


def test_the_whole_story_ends_active() -> None:
    state = given(credential.evolve, *ALL).state
    assert state.stage is Stage.ACTIVE
    assert (state.main_certificate, state.issued, state.receptions) == (VERIFIED, ISSUED, (RECEPTION,))


# Erasure

ORDERED = ErasureOrdered(subject="credential-1", in_use=False)
ORDERED_IN_USE = ErasureOrdered(subject="credential-1", in_use=True)
ERASED = PersonErased(subject="credential-1")


@pytest.mark.parametrize("history", [(APPLIED,), TO_VERIFIED, TO_ISSUED, TO_SLIP, TO_HOLDER])
def test_a_person_is_erased_as_long_as_nothing_was_to_be_written(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.order_erasure).then(ORDERED)


def test_a_person_whose_application_was_refused_is_erased() -> None:
    refused = ApplicationRefused(code=ErrorCode.CERTIFICATE_REVOKED)
    given(credential.evolve, APPLIED, refused).when(credential.order_erasure).then(ORDERED)


@pytest.mark.parametrize("history", [TO_DELEGATED, STORY, ALL])
def test_while_its_keys_may_be_in_a_card_it_has_to_be_meant(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.order_erasure).then_refused(ErrorCode.WRONG_ORDER)
    given(credential.evolve, *history).when(credential.order_erasure, True).then(ORDERED_IN_USE)


def test_ordering_it_again_is_no_news() -> None:
    given(credential.evolve, APPLIED, ORDERED).when(credential.order_erasure).then_nothing()
    given(credential.evolve, *ALL, ORDERED_IN_USE, ERASED).when(credential.order_erasure).then_nothing()


def test_a_person_is_erased_once_it_was_ordered() -> None:
    given(credential.evolve, APPLIED).when(credential.person_erased).then_refused(ErrorCode.WRONG_ORDER)
    given(credential.evolve, APPLIED, ORDERED).when(credential.person_erased).then(ERASED)
    given(credential.evolve, APPLIED, ORDERED, ERASED).when(credential.person_erased).then_nothing()


def test_nobody_is_erased_who_never_applied() -> None:
    given(credential.evolve).when(credential.order_erasure).then_refused(ErrorCode.NOT_FOUND)
    given(credential.evolve).when(credential.person_erased).then_refused(ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("end", [(ORDERED,), (ORDERED, ERASED)])
def test_from_the_order_on_the_credential_is_closed(end: tuple[Fact, ...]) -> None:
    history = given(credential.evolve, *TO_HOLDER, *end)
    for decide, values in (
        (credential.verify_main_certificate, (VERIFIED,)),
        (credential.refuse_application, (ErrorCode.BAD_SIGNATURE,)),
        (credential.issue, (ISSUED,)),
        (credential.hand_out_slip, ()),
        (credential.authenticate_holder, ()),
        (credential.refuse_holder, (ErrorCode.CERTIFICATE_REVOKED,)),
        (credential.delegate_personalization, (RECEPTION,)),
        (credential.write, (RECEPTION,)),
        (credential.destroy_key_copy, ("signature", "02" * 32)),
    ):
        history.when(decide, *values).then_refused(ErrorCode.WRONG_ORDER)
