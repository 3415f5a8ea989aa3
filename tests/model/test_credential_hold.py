"""A credential on hold: ordered, acknowledged, ended, and what it has for signatures afterwards."""

import pytest
from given import given
from test_credential_stages import ALL, ISSUED, ORDERED, STORY, TO_HOLDER, TO_ISSUED, TO_SLIP, TO_VERIFIED

from tsm.errors import ErrorCode
from tsm.model import credential
from tsm.model.credential import (
    CredentialHeld,
    CredentialReleased,
    CredentialWritten,
    Hold,
    HoldOrdered,
    KeyCopyDestroyed,
    PersonalizationDelegated,
    ReleaseOrdered,
    RevocationOrdered,
    SignatureReissued,
    SignatureRewritten,
    Stage,
)
from tsm.model.event import Fact

RECEPTION = "2026112100000002"
REISSUED = SignatureReissued(subject="credential-1", signature_serial="3", signature_certificate_sha256="77" * 32)
LATER = SignatureReissued(subject="credential-1", signature_serial="4", signature_certificate_sha256="99" * 32)
UNCHANGED = SignatureReissued(
    subject="credential-1",
    signature_serial=ISSUED.signature_serial,
    signature_certificate_sha256=ISSUED.signature_certificate_sha256,
)
ON_HOLD = (*ALL, HoldOrdered(), CredentialHeld())
TO_RELEASE = (*ON_HOLD, ReleaseOrdered())
REVOCATION = RevocationOrdered(reason="keyCompromise")


@pytest.mark.parametrize("history", [TO_ISSUED, TO_SLIP, STORY, ALL])
def test_certificates_that_there_are_can_be_put_on_hold(history: tuple[Fact, ...]) -> None:
    given(credential.evolve, *history).when(credential.order_hold).then(HoldOrdered())


def test_certificates_that_there_are_not_cannot() -> None:
    given(credential.evolve, *TO_VERIFIED).when(credential.order_hold).then_refused(ErrorCode.WRONG_ORDER)
    given(credential.evolve).when(credential.order_hold).then_refused(ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("decide", [credential.order_hold, credential.order_release])
@pytest.mark.parametrize("end", [(REVOCATION,), (ORDERED,), (HoldOrdered(), REVOCATION)])
def test_a_closed_credential_is_neither_put_on_hold_nor_released(decide, end: tuple[Fact, ...]) -> None:
    given(credential.evolve, *ALL, *end).when(decide).then_refused(ErrorCode.WRONG_ORDER)


@pytest.mark.parametrize(
    ("history", "hold", "order_hold", "held", "order_release"),
    [
        (ALL, Hold.NONE, [HoldOrdered()], [], []),
        ((*ALL, HoldOrdered()), Hold.ORDERED, [], [CredentialHeld()], [ReleaseOrdered()]),
        (ON_HOLD, Hold.HELD, [], [], [ReleaseOrdered()]),
        (TO_RELEASE, Hold.RELEASE_ORDERED, [HoldOrdered()], [], []),
        ((*TO_RELEASE, CredentialReleased()), Hold.NONE, [HoldOrdered()], [], []),
        ((*TO_RELEASE, HoldOrdered()), Hold.ORDERED, [], [CredentialHeld()], [ReleaseOrdered()]),
    ],
)
def test_each_order_is_given_once_until_the_other_is(history, hold, order_hold, held, order_release) -> None:
    past = given(credential.evolve, *history)
    assert past.state.hold is hold
    past.when(credential.order_hold).then(*order_hold)
    past.when(credential.held).then(*held)
    past.when(credential.order_release).then(*order_release)


def test_with_the_release_comes_another_certificate_for_signatures() -> None:
    given(credential.evolve, *TO_RELEASE).when(credential.released, REISSUED).then(CredentialReleased(), REISSUED)
    after = given(credential.evolve, *TO_RELEASE, CredentialReleased(), REISSUED)
    after.when(credential.released, REISSUED).then_nothing()
    after.when(credential.released, UNCHANGED).then(UNCHANGED)  # whatever it is, the log knows it
    assert after.state.signature_certificate_sha256 == REISSUED.signature_certificate_sha256
    assert after.state.issued == ISSUED


def test_an_authority_that_never_heard_of_the_hold_makes_none() -> None:
    history = given(credential.evolve, *ALL, HoldOrdered(), ReleaseOrdered())
    history.when(credential.released, UNCHANGED).then(CredentialReleased())
    assert history.state.signature_certificate_sha256 == ISSUED.signature_certificate_sha256


def test_a_release_that_nobody_wants_any_more_is_no_news() -> None:
    given(credential.evolve, *TO_RELEASE, HoldOrdered()).when(credential.released, REISSUED).then_nothing()


REWRITE = "2026112100000003"
RELEASED = (*TO_RELEASE, CredentialReleased(), REISSUED)
DELEGATED, REWRITTEN = PersonalizationDelegated(reception=REWRITE), SignatureRewritten(reception=REWRITE)


def test_the_new_certificate_is_delegated_and_written_once_for_each_release() -> None:
    given(credential.evolve, *RELEASED).when(credential.delegate_personalization, REWRITE).then(DELEGATED)
    delegated = given(credential.evolve, *RELEASED, DELEGATED)
    delegated.when(credential.rewrite_signature, REWRITE).then(REWRITTEN)
    assert delegated.state.stage is Stage.ACTIVE
    done = given(credential.evolve, *RELEASED, DELEGATED, REWRITTEN)
    done.when(credential.rewrite_signature, REWRITE).then_nothing()
    done.when(credential.delegate_personalization, "2026112100000004").then_refused(ErrorCode.WRONG_ORDER)
    given(credential.evolve, *ALL).when(credential.rewrite_signature, REWRITE).then_refused(ErrorCode.WRONG_ORDER)


def test_what_was_delegated_before_the_release_does_not_write_the_new_certificate() -> None:
    before = given(credential.evolve, *RELEASED)
    before.when(credential.rewrite_signature, RECEPTION).then_refused(ErrorCode.UNKNOWN_RECEPTION)
    again = given(credential.evolve, *RELEASED, DELEGATED, HoldOrdered(), ReleaseOrdered(), CredentialReleased(), LATER)
    again.when(credential.rewrite_signature, REWRITE).then_refused(ErrorCode.UNKNOWN_RECEPTION)


def test_a_first_write_that_was_delegated_after_the_release_writes_the_new_certificate() -> None:
    held = (*TO_HOLDER, HoldOrdered(), ReleaseOrdered(), CredentialReleased(), REISSUED, DELEGATED)
    given(credential.evolve, *held).when(credential.write, REWRITE).then(
        CredentialWritten(reception=REWRITE), REWRITTEN
    )


def test_of_the_new_key_the_authority_has_a_copy_that_is_to_be_destroyed() -> None:
    destroyed = KeyCopyDestroyed(kind=credential.SIGNATURE, receipt_sha256="88" * 32)
    arguments = (destroyed.kind, destroyed.receipt_sha256)
    given(credential.evolve, *ALL).when(credential.destroy_key_copy, *arguments).then_nothing()
    given(credential.evolve, *RELEASED).when(credential.destroy_key_copy, *arguments).then(destroyed)
    given(credential.evolve, *RELEASED, destroyed).when(credential.destroy_key_copy, *arguments).then_nothing()


def test_certificates_that_were_before_are_remembered() -> None:
    history = (*RELEASED, HoldOrdered(), ReleaseOrdered(), CredentialReleased(), LATER)
    assert given(credential.evolve, *history).state.superseded == {
        ISSUED.signature_certificate_sha256, REISSUED.signature_certificate_sha256,
    }  # fmt: skip
