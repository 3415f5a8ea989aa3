"""A credential: two certificates with their keys, from the application at the counter to their use in the phone.

    APPLIED -> MAIN_CERTIFICATE_VERIFIED -> ISSUED -> HANDED_OUT
            -> HOLDER_AUTHENTICATED -> DELEGATED -> WRITTEN -> ACTIVE

An application whose signature or main certificate does not hold is refused, and stays so.

It is active once it is written and the authority's copies of both private keys are destroyed; which of the two comes
last does not matter.

Personal data is sealed under the data key of `subject`, one person's tenure of this credential: the applicant's name,
the serial numbers, and the ICCID where it would tie a card to a person. Destroying that key leaves every fact in place.

When a credential is revoked it is closed: from the order on nothing else happens to it, but that its authority puts
both certificates on its revocation lists. It is closed, too, when its person is erased, whatever its stage. A revoked
credential's person may still be erased; an erased person's credential cannot be revoked any more.

While its card is under suspicion it is on hold (`Hold`), whatever its stage: ordered, then acknowledged by the
authority, and so is the end of it. With that the authority makes a new certificate for signatures, which goes to the
card like the first. A revocation ends a hold: nothing brings such a credential back.

Stream: `credential-<uuid>`.
"""

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import ClassVar, Self

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact

AUTHENTICATION, SIGNATURE = "authentication", "signature"  # the kinds of key
KINDS = frozenset({AUTHENTICATION, SIGNATURE})


class CredentialApplied(Fact, frozen=True, kw_only=True):
    """An application with its signature was filed at a counter."""

    topic: ClassVar[str] = "credential.applied"
    sealed: ClassVar[tuple[str, ...]] = ("iccid", "applicant")
    subject: str
    provider: str
    terminal: str
    municipality: str
    iccid: str
    applicant: str
    document_sha256: str  # of the signed document


class MainCertificateVerified(Fact, frozen=True, kw_only=True):
    """The My Number card's certificate held: possession, chain, validity, revocation."""

    topic: ClassVar[str] = "credential.main_certificate_verified"
    sealed: ClassVar[tuple[str, ...]] = ("serial",)
    subject: str
    serial: str
    revocation_as_of: datetime  # when the revocation list that was asked was made


class ApplicationRefused(Fact, frozen=True, kw_only=True):
    """The application came to nothing: the signature or the main certificate did not hold. It stays so."""

    topic: ClassVar[str] = "credential.application_refused"
    code: str  # an ErrorCode


class CredentialIssued(Fact, frozen=True, kw_only=True):
    """The authority made both key pairs and certificates. Their end is not told: it is the holder's birthday."""

    topic: ClassVar[str] = "credential.issued"
    sealed: ClassVar[tuple[str, ...]] = ("authentication_serial", "signature_serial")
    subject: str
    authority: str
    authentication_serial: str
    signature_serial: str
    authentication_certificate_sha256: str
    signature_certificate_sha256: str


class SlipHandedOut(Fact, frozen=True, kw_only=True):
    """The applicant got access code and password."""

    topic: ClassVar[str] = "credential.slip_handed_out"


class HolderAuthenticated(Fact, frozen=True, kw_only=True):
    """Access code and password were presented on the phone."""

    topic: ClassVar[str] = "credential.holder_authenticated"


class HolderRefused(Fact, frozen=True, kw_only=True):
    """Access code and password were right, but the main certificate does not hold any more."""

    topic: ClassVar[str] = "credential.holder_refused"
    code: str  # an ErrorCode


class PersonalizationDelegated(Fact, frozen=True, kw_only=True):
    """The provider delegated the commands that write the credential."""

    topic: ClassVar[str] = "credential.personalization_delegated"
    reception: str


class CredentialWritten(Fact, frozen=True, kw_only=True):
    """The card acknowledged the last of those commands."""

    topic: ClassVar[str] = "credential.written"
    reception: str


class KeyCopyDestroyed(Fact, frozen=True, kw_only=True):
    """The authority destroyed its copy of a private key, and signed a receipt for it."""

    topic: ClassVar[str] = "credential.key_copy_destroyed"
    kind: str  # "authentication" or "signature"
    receipt_sha256: str


class CredentialActivated(Fact, frozen=True, kw_only=True):
    """The keys exist in the card only."""

    topic: ClassVar[str] = "credential.activated"


class ErasureOrdered(Fact, frozen=True, kw_only=True):
    """The person is to be erased: the way to the credential from card and certificate is gone, the data key follows."""

    topic: ClassVar[str] = "credential.erasure_ordered"
    subject: str
    in_use: bool  # the keys were in a card, or on their way into it


class PersonErased(Fact, frozen=True, kw_only=True):
    """The subject's data key is destroyed: in no copy of the log can the personal fields be read again."""

    topic: ClassVar[str] = "credential.person_erased"
    subject: str


class RevocationOrdered(Fact, frozen=True, kw_only=True):
    """Both certificates are to be revoked: the authority is told until it acknowledges."""

    topic: ClassVar[str] = "credential.revocation_ordered"
    reason: str  # a RevocationReason; who ordered it, and why in words, is in the context


class CredentialRevoked(Fact, frozen=True, kw_only=True):
    """The authority acknowledged: both certificates are on its next revocation lists."""

    topic: ClassVar[str] = "credential.revoked"
    reason: str  # a RevocationReason


class HoldOrdered(Fact, frozen=True, kw_only=True):
    """Both certificates are to be put on hold, for the card's standing: the authority is told until it acknowledges."""

    topic: ClassVar[str] = "credential.hold_ordered"


class CredentialHeld(Fact, frozen=True, kw_only=True):
    """The authority acknowledged: both are `revoked` with reason certificateHold (RFC 5280 5.3.1, RFC 6960 2.2)."""

    topic: ClassVar[str] = "credential.held"


class ReleaseOrdered(Fact, frozen=True, kw_only=True):
    """The hold is to end."""

    topic: ClassVar[str] = "credential.release_ordered"


class CredentialReleased(Fact, frozen=True, kw_only=True):
    """The authority acknowledged: the authentication certificate is good again, that for signatures superseded."""

    topic: ClassVar[str] = "credential.released"


class SignatureReissued(Fact, frozen=True, kw_only=True):
    """The authority made a new key pair and certificate for signatures, in place of the superseded ones."""

    topic: ClassVar[str] = "credential.signature_reissued"
    sealed: ClassVar[tuple[str, ...]] = ("signature_serial",)
    subject: str
    signature_serial: str
    signature_certificate_sha256: str


class SignatureRewritten(Fact, frozen=True, kw_only=True):
    """The card acknowledged the last of the commands that wrote them."""

    topic: ClassVar[str] = "credential.signature_rewritten"
    reception: str


class RevocationReason(StrEnum):
    """Why a holder's certificates are revoked (RFC 5280 5.3.1). The other codes are for authorities, or not final."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"  # the holder's name, sex, birth or address: the certificate says them
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"  # the holder does not want it any more, or died
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class Hold(StrEnum):
    """Where the hold of a credential stands: what was ordered, and whether the authority has acknowledged it."""

    NONE = "NONE"
    ORDERED = "ORDERED"
    HELD = "HELD"
    RELEASE_ORDERED = "RELEASE_ORDERED"


class Stage(IntEnum):
    """How far the credential has come."""

    APPLIED = 1
    MAIN_CERTIFICATE_VERIFIED = 2
    ISSUED = 3
    HANDED_OUT = 4
    HOLDER_AUTHENTICATED = 5
    DELEGATED = 6
    WRITTEN = 7
    ACTIVE = 8


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """The credential as its facts say."""

    applied: CredentialApplied
    stage: Stage = Stage.APPLIED
    refused: str = ""  # why the application came to nothing: an ErrorCode
    main_certificate: MainCertificateVerified | None = None
    issued: CredentialIssued | None = None
    holder_refused: str = ""  # why the holder was turned away: an ErrorCode
    receptions: tuple[str, ...] = ()  # of the delegations that were to write it
    destroyed: frozenset[str] = frozenset()  # kinds of key whose copy is gone
    revocation: RevocationOrdered | None = None
    revoked: bool = False  # and the authority acknowledged it
    hold: Hold = Hold.NONE
    reissued: SignatureReissued | None = None  # the latest: in the place of the certificate that was issued
    rewritten: bool = False  # and the card has it
    rewrites: tuple[str, ...] = ()  # receptions of the delegations since then, one of which is to write it
    superseded: frozenset[str] = frozenset()  # certificates for signatures that were before it, SHA-256
    erasure: ErasureOrdered | None = None
    erased: bool = False  # and the data key is destroyed

    @property
    def closed(self) -> bool:
        """Whether its revocation or the person's erasure is ordered: nothing else happens to it."""
        return self.revocation is not None or self.erasure is not None

    @property
    def signature_certificate_sha256(self) -> str:
        """Of the certificate for signatures that is the credential's now; empty before it is issued."""
        latest = self.reissued or self.issued
        return latest.signature_certificate_sha256 if latest else ""

    @property
    def in_use(self) -> bool:
        """Whether it is good for something, or may be: a write was delegated, and how it ends nobody knows before."""
        return self.stage >= Stage.DELEGATED and not self.refused and not self.revoked

    def refuse_closed(self) -> Self:
        """WRONG_ORDER once its revocation or the person's erasure is ordered."""
        if self.revocation is not None:
            raise TsmError(ErrorCode.WRONG_ORDER, f"the credential is revoked: {self.revocation.reason}")
        if self.erasure is not None:
            raise TsmError(ErrorCode.WRONG_ORDER, "the person is erased, and the credential closed")
        return self


def stream(credential: str) -> str:
    """The credential's stream."""
    return f"credential-{credential}"


def apply(state: Credential | None, applied: CredentialApplied) -> list[CredentialApplied]:
    """Decide to take an application; the same again is no news. ALREADY_EXISTS for another under this id."""
    if state is None:
        return [applied]
    if state.applied != applied:
        raise TsmError(ErrorCode.ALREADY_EXISTS, "another application")
    return []


def verify_main_certificate(
    state: Credential | None, verified: MainCertificateVerified
) -> list[MainCertificateVerified]:
    """Decide that the applicant is who the My Number card says."""
    known = _known(state)
    return [verified] if known.stage is Stage.APPLIED else []


def refuse_application(state: Credential | None, code: ErrorCode) -> list[ApplicationRefused]:
    """Decide that the application came to nothing; a credential that is issued has other ends (WRONG_ORDER)."""
    if _known(state).stage >= Stage.ISSUED:
        raise TsmError(ErrorCode.WRONG_ORDER, "the credential is issued")
    return [ApplicationRefused(code=code)]


def issue(state: Credential | None, issued: CredentialIssued) -> list[CredentialIssued]:
    """Decide to accept the authority's certificates. ALREADY_EXISTS when others were issued before; WRONG_ORDER."""
    known = _from(state, Stage.MAIN_CERTIFICATE_VERIFIED)
    if known.issued is None:
        return [issued]
    if known.issued != issued:
        raise TsmError(ErrorCode.ALREADY_EXISTS, "other certificates were issued")
    return []


def hand_out_slip(state: Credential | None) -> list[SlipHandedOut]:
    """Decide that the slip was handed out: once. ALREADY_EXISTS for a second slip; WRONG_ORDER."""
    known = _from(state, Stage.ISSUED)
    if known.stage > Stage.ISSUED:
        raise TsmError(ErrorCode.ALREADY_EXISTS, "the slip was handed out")
    return [SlipHandedOut()]


def authenticate_holder(state: Credential | None) -> list[HolderAuthenticated]:
    """Decide that the holder is at the phone; again is no news. WRONG_ORDER before the slip or after the write."""
    known = _from(state, Stage.HANDED_OUT)
    if known.stage >= Stage.WRITTEN:
        raise TsmError(ErrorCode.WRONG_ORDER, "the credential is written")
    return [HolderAuthenticated()] if known.stage is Stage.HANDED_OUT else []


def refuse_holder(state: Credential | None, code: ErrorCode) -> list[HolderRefused]:
    """Decide that the holder is turned away; for the same reason again is no news. WRONG_ORDER before the slip."""
    known = _from(state, Stage.HANDED_OUT)
    return [HolderRefused(code=code)] if known.holder_refused != code else []


def delegate_personalization(state: Credential | None, reception: str) -> list[PersonalizationDelegated]:
    """Decide that the write is on its way; a failed one may be followed by another.

    WRONG_ORDER after the write, unless there is a new certificate for signatures that the card has not got.
    """
    known = _from(state, Stage.HOLDER_AUTHENTICATED)
    if reception in known.receptions:
        return []
    if known.stage >= Stage.WRITTEN and (known.reissued is None or known.rewritten):
        raise TsmError(ErrorCode.WRONG_ORDER, "the credential is written")
    return [PersonalizationDelegated(reception=reception)]


def write(
    state: Credential | None, reception: str
) -> list[CredentialWritten | CredentialActivated | SignatureRewritten]:
    """Decide that the card has the credential, and so perhaps that it is active; again is no news.

    What was delegated after a certificate was made anew writes that one.

    UNKNOWN_RECEPTION when the write was not delegated under this reception number.
    """
    known = _from(state, Stage.DELEGATED)
    if reception not in known.receptions:
        raise TsmError(ErrorCode.UNKNOWN_RECEPTION, reception)
    if known.stage >= Stage.WRITTEN:
        return []
    complete = known.destroyed == KINDS
    return [
        CredentialWritten(reception=reception),
        *([SignatureRewritten(reception=reception)] if reception in known.rewrites else []),
        *([CredentialActivated()] if complete else []),
    ]


def destroy_key_copy(
    state: Credential | None, kind: str, receipt_sha256: str
) -> list[KeyCopyDestroyed | CredentialActivated]:
    """Decide that a copy is gone, and so perhaps that the credential is active; only the first receipt counts.

    A copy may go before we have heard of the write, or without one: it is gone all the same. INVALID_INPUT for a kind
    that there is not; WRONG_ORDER before the keys exist.
    """
    known = _from(state, Stage.ISSUED)
    if kind not in KINDS:
        raise TsmError(ErrorCode.INVALID_INPUT, "kind: neither authentication nor signature")
    if kind in known.destroyed:
        return []
    complete = known.destroyed | {kind} == KINDS and known.stage is Stage.WRITTEN
    destroyed = KeyCopyDestroyed(kind=kind, receipt_sha256=receipt_sha256)
    return [destroyed, *([CredentialActivated()] if complete else [])]


def order_erasure(state: Credential | None, even_in_use: bool = False) -> list[ErasureOrdered]:
    """Decide that the person is erased; again is no news. NOT_FOUND.

    A person is erased once the purpose of the data is over: the application was refused, or nothing was written, so
    that no key of the person's exists but the copies of the authority. While the keys are or may be in a card, the
    serial numbers are what a loss report and the end of validity go by, so WRONG_ORDER: it is revoked first. Where the
    authority did so outside of this log, whoever knows that it did says `even_in_use`, and that is told.
    """
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such credential")
    if state.erasure is not None:
        return []
    if state.in_use and not even_in_use:
        raise TsmError(ErrorCode.WRONG_ORDER, "the credential is in use: it has to be revoked first")
    return [ErasureOrdered(subject=state.applied.subject, in_use=state.in_use)]


def person_erased(state: Credential | None) -> list[PersonErased]:
    """Decide, once the data key is destroyed, that the person is erased; again is no news. WRONG_ORDER, NOT_FOUND."""
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such credential")
    if state.erasure is None:
        raise TsmError(ErrorCode.WRONG_ORDER, "nobody ordered it")
    return [] if state.erased else [PersonErased(subject=state.erasure.subject)]


def order_revocation(state: Credential | None, reason: RevocationReason) -> list[RevocationOrdered]:
    """Decide that both certificates are revoked; for the same reason again is no news.

    NOT_FOUND; WRONG_ORDER before they are issued, and once the person's erasure is ordered; ALREADY_EXISTS when the
    revocation was ordered for another reason.
    """
    if state is not None and state.revocation is not None:
        if state.revocation.reason != reason:
            raise TsmError(ErrorCode.ALREADY_EXISTS, f"revocation was ordered: {state.revocation.reason}")
        return []
    _from(state, Stage.ISSUED)
    return [RevocationOrdered(reason=reason)]


def revoked(state: Credential | None) -> list[CredentialRevoked]:
    """Decide, once the authority acknowledged it, that the credential is revoked; again is no news.

    Also when the person was erased meanwhile. NOT_FOUND, WRONG_ORDER.
    """
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such credential")
    if state.revocation is None:
        raise TsmError(ErrorCode.WRONG_ORDER, "nobody ordered it")
    return [] if state.revoked else [CredentialRevoked(reason=state.revocation.reason)]


def order_hold(state: Credential | None) -> list[HoldOrdered]:
    """Decide that both certificates are put on hold; again is no news. NOT_FOUND, WRONG_ORDER before they are issued
    and once the credential is closed.
    """
    known = _from(state, Stage.ISSUED)
    return [HoldOrdered()] if known.hold in (Hold.NONE, Hold.RELEASE_ORDERED) else []


def held(state: Credential | None) -> list[CredentialHeld]:
    """Decide, once the authority acknowledged it, that it is on hold; no news unless that is wanted. NOT_FOUND."""
    return [CredentialHeld()] if _existing(state).hold is Hold.ORDERED else []


def order_release(state: Credential | None) -> list[ReleaseOrdered]:
    """Decide that the hold ends, also one of which nobody knows whether the authority has heard; no news without one.

    NOT_FOUND, WRONG_ORDER as for `order_hold`.
    """
    known = _from(state, Stage.ISSUED)
    return [ReleaseOrdered()] if known.hold in (Hold.ORDERED, Hold.HELD) else []


def released(state: Credential | None, reissued: SignatureReissued) -> list[CredentialReleased | SignatureReissued]:
    """Decide, once the authority acknowledged it, that the hold is over, and with which certificate for signatures.

    That is the old one when the authority never heard of the hold. When it heard of one late, and of its end once more,
    only the certificate is news. Nothing is while the credential is to be on hold. NOT_FOUND.
    """
    known = _existing(state)
    if known.hold in (Hold.ORDERED, Hold.HELD):
        return []
    over = [CredentialReleased()] if known.hold is Hold.RELEASE_ORDERED else []
    is_new = reissued.signature_certificate_sha256 != known.signature_certificate_sha256
    return [*over, *([reissued] if is_new else [])]


def rewrite_signature(state: Credential | None, reception: str) -> list[SignatureRewritten]:
    """Decide that the card has the certificate that was made anew; again is no news.

    WRONG_ORDER when none was; UNKNOWN_RECEPTION when the write was delegated before, and so wrote another.
    """
    known = _from(state, Stage.WRITTEN)
    if known.reissued is None:
        raise TsmError(ErrorCode.WRONG_ORDER, "no certificate was made anew")
    if reception not in known.rewrites:
        raise TsmError(ErrorCode.UNKNOWN_RECEPTION, reception)
    return [] if known.rewritten else [SignatureRewritten(reception=reception)]


def _existing(state: Credential | None) -> Credential:
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such credential")
    return state


def _known(state: Credential | None) -> Credential:
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such credential")
    if state.refused:
        raise TsmError(ErrorCode.WRONG_ORDER, f"the application was refused: {state.refused}")
    return state.refuse_closed()


def _from(state: Credential | None, stage: Stage) -> Credential:
    """The credential, if it has come as far as `stage`; NOT_FOUND, WRONG_ORDER."""
    known = _known(state)
    if known.stage < stage:
        raise TsmError(ErrorCode.WRONG_ORDER, f"{known.stage.name} comes before {stage.name}")
    return known


REACHED: dict[type[Fact], Stage] = {
    MainCertificateVerified: Stage.MAIN_CERTIFICATE_VERIFIED,
    CredentialIssued: Stage.ISSUED,
    SlipHandedOut: Stage.HANDED_OUT,
    HolderAuthenticated: Stage.HOLDER_AUTHENTICATED,
    PersonalizationDelegated: Stage.DELEGATED,
    CredentialWritten: Stage.WRITTEN,
    CredentialActivated: Stage.ACTIVE,
}


def evolve(state: Credential | None, fact: Fact) -> Credential:
    """Fold one fact."""
    if isinstance(fact, CredentialApplied):
        return Credential(applied=fact)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a credential begins with its application")
    state = msgspec.structs.replace(state, stage=max(state.stage, REACHED.get(type(fact), state.stage)))
    match fact:
        case MainCertificateVerified():
            return msgspec.structs.replace(state, main_certificate=fact)
        case ApplicationRefused():
            return msgspec.structs.replace(state, refused=fact.code)
        case CredentialIssued():
            return msgspec.structs.replace(state, issued=fact)
        case HolderRefused():
            return msgspec.structs.replace(state, holder_refused=fact.code)
        case PersonalizationDelegated():
            rewrites = (*state.rewrites, fact.reception) if state.reissued is not None else ()
            receptions = (*state.receptions, fact.reception)
            return msgspec.structs.replace(state, receptions=receptions, rewrites=rewrites)
        case KeyCopyDestroyed():
            return msgspec.structs.replace(state, destroyed=state.destroyed | {fact.kind})
        case RevocationOrdered():
            return msgspec.structs.replace(state, revocation=fact)
        case CredentialRevoked():
            return msgspec.structs.replace(state, revoked=True)
        case HoldOrdered():
            return msgspec.structs.replace(state, hold=Hold.ORDERED)
        case CredentialHeld():
            return msgspec.structs.replace(state, hold=Hold.HELD)
        case ReleaseOrdered():
            return msgspec.structs.replace(state, hold=Hold.RELEASE_ORDERED)
        case CredentialReleased():
            return msgspec.structs.replace(state, hold=Hold.NONE)
        case SignatureReissued():
            return msgspec.structs.replace(
                state,
                reissued=fact,
                rewritten=False,
                rewrites=(),
                superseded=state.superseded | {state.signature_certificate_sha256},
                destroyed=state.destroyed - {SIGNATURE},  # of the new key the authority has a copy
            )
        case SignatureRewritten():
            return msgspec.structs.replace(state, rewritten=True)
        case ErasureOrdered():
            return msgspec.structs.replace(state, erasure=fact)
        case PersonErased():
            return msgspec.structs.replace(state, erased=True)
        case _:
            return state


FACTS: tuple[type[Fact], ...] = (
    CredentialApplied,
    MainCertificateVerified,
    ApplicationRefused,
    CredentialIssued,
    SlipHandedOut,
    HolderAuthenticated,
    HolderRefused,
    PersonalizationDelegated,
    CredentialWritten,
    KeyCopyDestroyed,
    CredentialActivated,
    HoldOrdered,
    CredentialHeld,
    ReleaseOrdered,
    CredentialReleased,
    SignatureReissued,
    SignatureRewritten,
    ErasureOrdered,
    PersonErased,
    RevocationOrdered,
    CredentialRevoked,
)
