"""The end of an issued credential: ordered with a reason, and acknowledged."""

import pytest
from given import given
from test_credential_stages import (
    ALL,
    APPLIED,
    ISSUED,
    NOON,
    ORDERED,
    ORDERED_IN_USE,
    RECEPTION,
    STORY,
    TO_HOLDER,
    TO_ISSUED,
    TO_SLIP,
    TO_VERIFIED,
    VERIFIED,
)

from tsm.errors import ErrorCode
from tsm.model import credential
from tsm.model.credential import (
    ApplicationRefused,
    CredentialRevoked,
    ErasureOrdered,
    PersonErased,
    RevocationOrdered,
    RevocationReason,
)
from tsm.model.event import Fact

COMPROMISED = RevocationReason.KEY_COMPROMISE
REVOCATION = RevocationOrdered(reason="keyCompromise")
REVOKED = CredentialRevoked(reason="keyCompromise")


@pytest.mark.parametrize("history", [TO_ISSUED, TO_SLIP, TO_HOLDER, STORY, ALL])
def test_a_credential_is_revoked_once_it_is_issued(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.order_revocation, COMPROMISED).then(REVOCATION)


@pytest.mark.parametrize("history", [(APPLIED,), TO_VERIFIED])
def test_there_is_nothing_to_revoke_before(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.order_revocation, COMPROMISED).then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_nobody_is_revoked_who_never_applied() -> None:
    given(credential.evolve).when(credential.order_revocation, COMPROMISED).then_refused(ErrorCode.NOT_FOUND)
    given(credential.evolve).when(credential.revoked).then_refused(ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("end", [(REVOCATION,), (REVOCATION, REVOKED)])
def test_ordering_it_again_is_no_news_and_for_another_reason_refused(end: tuple[Fact, ...]) -> None:
    history = given(credential.evolve, *ALL, *end)
    history.when(credential.order_revocation, COMPROMISED).then_nothing()
    history.when(credential.order_revocation, RevocationReason.SUPERSEDED).then_refused(ErrorCode.ALREADY_EXISTS)


def test_it_is_revoked_once_it_was_ordered() -> None:
    given(credential.evolve, *ALL).when(credential.revoked).then_refused(ErrorCode.WRONG_ORDER)
    given(credential.evolve, *ALL, REVOCATION).when(credential.revoked).then(REVOKED)
    given(credential.evolve, *ALL, REVOCATION, REVOKED).when(credential.revoked).then_nothing()


@pytest.mark.parametrize("end", [(REVOCATION,), (REVOCATION, REVOKED)])
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


def test_a_person_in_use_is_erased_once_the_authority_has_revoked() -> None:
    history = given(credential.evolve, *ALL, REVOCATION)
    history.when(credential.order_erasure).then_refused(ErrorCode.WRONG_ORDER)
    history.when(credential.order_erasure, True).then(ORDERED_IN_USE)
    given(credential.evolve, *ALL, REVOCATION, REVOKED).when(credential.order_erasure).then(ORDERED)


@pytest.mark.parametrize("end", [(ORDERED,), (ORDERED, PersonErased(subject="credential-1"))])
def test_what_belongs_to_an_erased_person_is_not_revoked_any_more(end: tuple[Fact, ...]) -> None:
    given(credential.evolve, *TO_SLIP, *end).when(credential.order_revocation, COMPROMISED).then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_a_revocation_that_was_ordered_before_the_erasure_is_still_acknowledged() -> None:
    erasure = ErasureOrdered(subject="credential-1", in_use=True)
    given(credential.evolve, *ALL, REVOCATION, erasure).when(credential.revoked).then(REVOKED)


def test_an_application_that_was_refused_has_nothing_to_revoke() -> None:
    refused = ApplicationRefused(code=ErrorCode.CERTIFICATE_REVOKED)
    given(credential.evolve, APPLIED, refused).when(credential.order_revocation, COMPROMISED).then_refused(
        ErrorCode.WRONG_ORDER
    )


def test_the_stage_stays_what_it_was() -> None:
    state = given(credential.evolve, *ALL, REVOCATION, REVOKED).state
    assert (state.stage, state.revoked, state.main_certificate.revocation_as_of) == (
        credential.Stage.ACTIVE, True, NOON,
    )  # fmt: skip
