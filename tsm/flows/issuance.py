"""From the application at the counter to the credential in the phone.

    POST a challenge                       nothing is recorded: the challenge proves itself
    POST the signed application            credential.applied, or refused at once if the signature does not hold
      ask for the revocation list          credential.main_certificate_verified, or refused
      ask the authority for certificates   credential.issued, credential.slip_handed_out, access_code.handed_out
    present code and password
      ask for the revocation list again    credential.holder_authenticated, or credential.holder_refused
    (the provider writes the card)         `tsm.flows.issuance_follower` sees it: credential.written
    POST receipts                          credential.key_copy_destroyed, and at last credential.activated

Whatever needs the outside comes after what is recorded, so a silent authority leaves a credential that everybody can
see has not gone on, and the same application may be sent again. Once the slip is handed out it may not. The
credential's id comes from the challenge: that is what makes a challenge good for one application only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, reduce
from hashlib import sha256
from uuid import UUID

from cryptography import x509

from tsm.application import Change, Loaded, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.challenges import Challenges
from tsm.flows.on_hold import asked_by, refuse_on_hold
from tsm.identifiers import Iccid, KeyRef
from tsm.jpki.access_code import LIFE, TRIES, AccessCode, Random
from tsm.jpki.application import ApplicationDocument, SignedApplication, verify_application
from tsm.jpki.certificate_authority import (
    CertificateAuthority,
    CertificateRequest,
    DestructionReceipt,
    DestructionStatement,
    IssuedCertificates,
)
from tsm.jpki.certificates import (
    LARGEST,
    SMALLEST,
    Carrier,
    Kind,
    RevocationList,
    read_certificate,
    serial_text,
    verify_certificate,
)
from tsm.keys.vault import SoftwareVault
from tsm.model import access_code as access_codes
from tsm.model import authority as authorities
from tsm.model import credential as credentials
from tsm.model import service_provider as providers
from tsm.model.authority import Authority
from tsm.model.card import Card
from tsm.model.credential import Credential, CredentialApplied, CredentialIssued, MainCertificateVerified, Stage
from tsm.model.event import Context, Fact
from tsm.model.party import WITHDRAWN
from tsm.model.service_provider import ServiceProvider
from tsm.model.standing import Use, UseRefused

Clock = Callable[[], datetime]

REFUSALS = (  # about the application itself; anything else may be repeated
    ErrorCode.BAD_SIGNATURE,
    ErrorCode.CERTIFICATE_INVALID,
    ErrorCode.CERTIFICATE_EXPIRED,
    ErrorCode.CERTIFICATE_REVOKED,
)


@dataclass(frozen=True, slots=True)
class Counter:
    """Who files an application: the terminal that called."""

    terminal: str
    municipality: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Slip:
    """What is handed to the applicant, once."""

    credential: str
    code: AccessCode = field(repr=False)
    expires_at: datetime

    @property
    def text(self) -> str:
        """Japanese and English."""
        return self.code.slip(self.expires_at)


@dataclass(frozen=True, slots=True)
class Case:
    """One application with all that is needed to decide on it."""

    credential: str
    counter: Counter
    document: ApplicationDocument
    signed: SignedApplication
    provider: ServiceProvider
    authority: Authority
    card: Card

    @property
    def stream(self) -> str:
        return credentials.stream(self.credential)

    @property
    def context(self) -> Context:
        return Context(
            actor=f"terminal:{self.counter.terminal}",
            role="clerk",
            tenant=self.counter.municipality,
            tenants=(self.provider.provider, self.card.operator),
            correlation=self.credential,
            request=self.counter.request_id,
        )


class Issuance:
    """Credentials: application, issue, access code, and what became of them."""

    def __init__(
        self, tsm: Tsm, vault: SoftwareVault, authority: CertificateAuthority, clock: Clock, random: Random
    ) -> None:
        self._tsm = tsm
        self._vault = vault
        self._authority = authority
        self._clock = clock
        self._random = random
        self._challenges = Challenges(vault, clock, random)

    # The counter

    def challenge(self, counter: Counter) -> str:
        """What an application must contain, or a release: good for this terminal, and for one use."""
        return self._challenges.make(counter.terminal)

    def apply(self, signed: SignedApplication, counter: Counter) -> Slip:
        """Take an application, have the certificates made, and hand out the slip.

        Errors that are recorded and final: BAD_SIGNATURE for a certificate without its key, CERTIFICATE_INVALID,
        CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED. To be repeated with the same application: UPSTREAM_UNAVAILABLE,
        REVOCATION_UNKNOWN, CONFLICT. WRONG_ORDER when the challenge is not ours, too old or used: take a new one.
        ALREADY_EXISTS when the same application, sent at the same time, got the slip. UNKNOWN_CARD,
        UNKNOWN_SERVICE_PROVIDER and INVALID_INPUT for a document that names what is not here. MESSAGE_TOO_LARGE.
        """
        case = self._case(signed, counter)
        try:
            main = self._accept(case)
            self._verify_main_certificate(case, main)
            issued = self._authority.issue(
                case.authority.url, CertificateRequest(case.credential, case.provider.provider, signed.certificate)
            )
        except TsmError as refusal:
            self._record_refusal(case, refusal.code)
            raise
        return self._hand_out(case, verified_certificates(issued, case, self._clock()))

    def _case(self, signed: SignedApplication, counter: Counter) -> Case:
        """The application in its surroundings, once its challenge is shown to be ours for this terminal."""
        document = signed.read_document()
        credential = str(UUID(bytes=bytes.fromhex(self._genuine(document.challenge, counter))[:16], version=4))
        provider = self._tsm.load(providers.stream(document.provider), providers.evolve).state
        if provider is None or provider.certificate_fingerprint == WITHDRAWN:
            raise TsmError(ErrorCode.UNKNOWN_SERVICE_PROVIDER, document.provider)
        authority = self._tsm.load(authorities.stream(provider.authority), authorities.evolve).state
        if authority is None or authority.certificate_fingerprint == WITHDRAWN:
            raise TsmError(ErrorCode.NOT_FOUND, f"authority {provider.authority} of {provider.provider}")
        card = self._tsm.card_of(document.iccid)
        return Case(credential, counter, document, signed, provider, authority, card)

    def _genuine(self, challenge: str, counter: Counter) -> str:
        """The credential's name in hex; WRONG_ORDER for a challenge that is not ours or another terminal's."""
        self._challenges.refuse_others(challenge, counter.terminal)
        return self._vault.blind_index("credential", challenge)

    def _accept(self, case: Case) -> x509.Certificate:
        """Record the application, or find it again; and verify what needs nobody else."""
        loaded = self._credential(case.credential)
        if loaded.state is None:
            self._challenges.refuse_old(case.document.challenge)
            self._commit(case, [self._applied(case)], loaded.version, "iccid", case.card.iccid)
        else:
            refuse_unless_repeated(loaded.state, case)
        return verify_application(case.signed, anchors_of(case.authority)[Kind.SIGNATURE], self._clock())

    def _applied(self, case: Case) -> CredentialApplied:
        return CredentialApplied(
            subject=case.credential,
            provider=case.provider.provider,
            terminal=case.counter.terminal,
            municipality=case.counter.municipality,
            iccid=case.card.iccid,
            applicant=case.document.applicant,
            document_sha256=case.signed.digest,
        )

    def _verify_main_certificate(self, case: Case, main: x509.Certificate) -> None:
        """Revocation is asked each time, and the first good answer recorded."""
        revoked = self._revoked(case.authority)
        revoked.check(main)
        serial = serial_text(main)
        verified = MainCertificateVerified(
            subject=case.credential,
            serial=serial,
            revocation_as_of=revoked.as_of,
        )
        loaded = self._credential(case.credential)
        facts = credentials.verify_main_certificate(loaded.state, verified)
        self._commit(case, facts, loaded.version, "main-certificate", serial)

    def _revoked(self, authority: Authority) -> RevocationList:
        """The main certificates that are revoked now."""
        return revoked_mains(self._authority, authority, self._clock())

    def _record_refusal(self, case: Case, code: ErrorCode) -> None:
        """What is wrong with the application itself ends it, and everybody can see why."""
        loaded = self._credential(case.credential)
        if code in REFUSALS and loaded.state is not None and not loaded.state.refused:
            self._commit(case, credentials.refuse_application(loaded.state, code), loaded.version)

    def _hand_out(self, case: Case, issued: CredentialIssued) -> Slip:
        """The slip and its record go together. If the answer is lost on its way, the applicant applies again."""
        code, until = AccessCode.make(self._random), self._clock() + LIFE
        index = self._vault.blind_index("access-code", code.code)
        loaded = self._credential(case.credential)
        drawn = self._tsm.load(access_codes.stream(index), access_codes.evolve)
        facts = credentials.issue(loaded.state, issued)
        known = reduce(credentials.evolve, facts, loaded.state)
        slip = access_codes.hand_out(drawn.state, case.credential, until, TRIES)
        changes = [
            Change(case.stream, loaded.version, [*facts, *credentials.hand_out_slip(known)]),
            Change(access_codes.stream(index), drawn.version, slip),
        ]
        self._vault.put_verifier(verifier(index), code.password)
        try:
            self._tsm.commit(*changes, context=case.context, occurred_at=self._clock())
        except TsmError:
            self._vault.destroy(verifier(index))
            raise
        return Slip(case.credential, code, until)

    def _commit(self, case: Case, facts: Sequence[Fact], version: int, purpose: str = "", value: str = "") -> None:
        """With a row by which the credential is found under something personal, if there is a `purpose`."""
        rows = [self._tsm.index_row(purpose, value, case.stream, case.credential)] if purpose else []
        change = Change(case.stream, version, facts)
        self._tsm.commit(change, context=case.context, occurred_at=self._clock(), put_index=rows)

    # The phone, through the provider

    def check_access_code(self, provider: str, iccid: str, typed: AccessCode, request_id: str = "") -> str:
        """The credential that code and password open on this card.

        ACCESS_CODE_REFUSED, ACCESS_CODE_LOCKED, ACCESS_CODE_EXPIRED; another card than the one applied for counts as a
        wrong password. Code and password may be presented again until the credential is written or closed (then
        WRONG_ORDER), for a phone may lose its connection. CERTIFICATE_REVOKED, once they are right, when the main
        certificate was revoked after the slip; UPSTREAM_UNAVAILABLE or REVOCATION_UNKNOWN when nobody can say: to be
        repeated, and no try lost. CARD_ON_HOLD, once they are right, until the card is released.
        """
        return decided(partial(self._check_access_code, provider, Iccid(iccid), typed, request_id))

    def _check_access_code(self, provider: str, iccid: Iccid, typed: AccessCode, request_id: str) -> str:
        index, now = self._vault.blind_index("access-code", typed.code), self._clock()
        code = self._tsm.load(access_codes.stream(index), access_codes.evolve)
        if code.state is not None:
            code.state.refuse_unless_usable(now)
        right = self._vault.check_verifier(verifier(index), typed.password)  # as slow for a code that there is not
        credential = self._credential(code.state.credential) if code.state is not None else None
        if code.state is None or credential is None or credential.state is None:
            raise TsmError(ErrorCode.ACCESS_CODE_REFUSED, "no such access code")
        applied = credential.state.applied
        if applied.provider != provider:
            raise TsmError(ErrorCode.ACCESS_CODE_REFUSED, "another provider's")
        if right:
            credential.state.refuse_closed()
        right = right and applied.iccid == iccid  # never once it reads as erased
        asked = UseRefused(use=Use.ACCESS_CODE, provider=provider)
        free = [refuse_on_hold(self._tsm, iccid, asked, asked_by(provider, request_id))] if right else []
        presented: Sequence[Fact] = access_codes.present(code.state, right, now)
        news: Sequence[Fact] = credentials.authenticate_holder(credential.state) if right else []
        revoked = right and self._main_certificate_revoked(credential.state)
        if revoked:
            presented, news = [], credentials.refuse_holder(credential.state, ErrorCode.CERTIFICATE_REVOKED)
        changes = (  # also without facts: a try that was counted meanwhile may have been the last
            Change(access_codes.stream(index), code.version, presented),
            Change(credentials.stream(code.state.credential), credential.version, news),
            *free,
        )
        context = context_of(code.state.credential, applied, f"provider:{provider}", "provider", request_id)
        self._tsm.commit(*changes, context=context, occurred_at=now)
        access_codes.refuse(presented)
        if revoked:
            raise TsmError(ErrorCode.CERTIFICATE_REVOKED, "the main certificate, after the slip")
        return code.state.credential

    def _main_certificate_revoked(self, state: Credential) -> bool:
        """Asked again, for a day may have passed since the slip. UPSTREAM_UNAVAILABLE, REVOCATION_UNKNOWN."""
        assert state.issued is not None and state.main_certificate is not None  # noqa: S101  there is a slip
        authority = self._tsm.load(authorities.stream(state.issued.authority), authorities.evolve).state
        assert authority is not None  # noqa: S101  it issued
        try:
            serial = int(state.main_certificate.serial, 16)
        except ValueError as error:
            raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "the holder's data are erased") from error
        try:
            self._revoked(authority).check_serial(serial)
        except TsmError as error:
            if error.code is ErrorCode.CERTIFICATE_REVOKED:
                return True
            raise
        return False

    # The authority

    def key_copies_destroyed(
        self, authority: str, credential: str, receipts: Sequence[DestructionReceipt], request_id: str = ""
    ) -> None:
        """Record that copies of private keys are gone; the same receipts again are no news.

        Nor is the receipt of a key whose certificate was made anew since: it is the new one's that counts.

        NOT_FOUND for a credential that is unknown or another authority's, BAD_SIGNATURE, INVALID_INPUT for a receipt of
        another key.
        """
        decided(partial(self._key_copies_destroyed, authority, credential, receipts, request_id))

    def _key_copies_destroyed(
        self, authority: str, credential: str, receipts: Sequence[DestructionReceipt], request_id: str
    ) -> None:
        loaded = self._credential(credential)
        enrolled = self._tsm.load(authorities.stream(authority), authorities.evolve).state
        if enrolled is None or loaded.state is None or loaded.state.issued is None:
            raise TsmError(ErrorCode.NOT_FOUND, "nothing was issued for this credential")
        if loaded.state.issued.authority != authority:
            raise TsmError(ErrorCode.NOT_FOUND, "another authority issued for this credential")
        state = loaded.state
        facts: list[Fact] = []
        for receipt in receipts:
            said = verified_receipt(receipt, credential, loaded.state, enrolled)
            if said.certificate_sha256 in loaded.state.superseded:
                continue
            digest = sha256(receipt.statement + receipt.signature).hexdigest()
            news = credentials.destroy_key_copy(state, said.kind, digest)
            state = reduce(credentials.evolve, news, state)
            facts += news
        context = context_of(credential, loaded.state.applied, f"authority:{authority}", "authority", request_id)
        change = Change(credentials.stream(credential), loaded.version, facts)
        self._tsm.commit(change, context=context, occurred_at=self._clock())

    def _credential(self, credential: str) -> Loaded[Credential]:
        return self._tsm.load(credentials.stream(credential), credentials.evolve)


def context_of(
    credential: str, applied: CredentialApplied, actor: str, role: str, request_id: str = "", causation: str = ""
) -> Context:
    """Who acts on a credential: it is the provider's, and concerns the municipality where it was applied for."""
    return Context(
        actor=actor,
        role=role,
        tenant=applied.provider,
        tenants=(applied.municipality,),
        correlation=credential,
        causation=causation,
        request=request_id,
    )


def refuse_unless_repeated(state: Credential, case: Case) -> None:
    """Only the very same application goes on where it stopped: WRONG_ORDER otherwise, and once the slip is out."""
    if state.applied.document_sha256 != case.signed.digest:
        raise TsmError(ErrorCode.WRONG_ORDER, "the challenge was used for another application")
    if state.refused:
        raise TsmError(ErrorCode.WRONG_ORDER, f"the application was refused: {state.refused}")
    state.refuse_closed()
    if state.stage >= Stage.HANDED_OUT:
        raise TsmError(ErrorCode.WRONG_ORDER, "the slip was handed out")


def verified_certificates(issued: IssuedCertificates, case: Case, at: datetime) -> CredentialIssued:
    """What the authority made, once it is what it should be; UPSTREAM_UNAVAILABLE otherwise, and the log says why."""
    anchors = anchors_of(case.authority)
    made = {kind: verified_certificate(issued.of(kind), anchors[kind], kind, at) for kind in Kind}
    return CredentialIssued(
        subject=case.credential,
        authority=case.authority.authority,
        authentication_serial=serial_text(made[Kind.AUTHENTICATION]),
        signature_serial=serial_text(made[Kind.SIGNATURE]),
        authentication_certificate_sha256=sha256(issued.authentication).hexdigest(),
        signature_certificate_sha256=sha256(issued.signature).hexdigest(),
    )


def verified_certificate(der: bytes, anchor: x509.Certificate, kind: Kind, at: datetime) -> x509.Certificate:
    """A phone's certificate as its authority made it; UPSTREAM_UNAVAILABLE when it is not what it should be."""
    try:
        certificate = read_certificate(der)
        verify_certificate(certificate, anchor, kind, at, Carrier.PHONE)
    except TsmError as error:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"the authority's certificates: {error.detail}") from error
    if not SMALLEST <= len(der) <= LARGEST:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "a certificate without a four-octet header")
    return certificate


def verified_receipt(
    receipt: DestructionReceipt, credential: str, state: Credential, authority: Authority
) -> DestructionStatement:
    """Which copy is gone. BAD_SIGNATURE unless the authority says so, INVALID_INPUT for the key of something else."""
    assert state.issued is not None  # noqa: S101  by this authority
    said = receipt.verify(anchors_of(authority))
    certificates = {
        Kind.SIGNATURE: state.superseded | {state.signature_certificate_sha256},
        Kind.AUTHENTICATION: {state.issued.authentication_certificate_sha256},
    }
    if said.credential != credential or said.certificate_sha256 not in certificates[said.kind]:
        raise TsmError(ErrorCode.INVALID_INPUT, "a receipt for another key")
    return said


def revoked_mains(port: CertificateAuthority, authority: Authority, at: datetime) -> RevocationList:
    """The main certificates that are revoked now. UPSTREAM_UNAVAILABLE, REVOCATION_UNKNOWN."""
    der = port.revocation_list(authority.signature_crl_url)
    return RevocationList.read(der, anchors_of(authority)[Kind.SIGNATURE], at)


def anchors_of(authority: Authority) -> dict[Kind, x509.Certificate]:
    """The authority's own certificates, as it was enrolled with them."""
    return {
        Kind.SIGNATURE: read_certificate(bytes.fromhex(authority.signature_ca)),
        Kind.AUTHENTICATION: read_certificate(bytes.fromhex(authority.authentication_ca)),
    }


def verifier(index: str) -> KeyRef:
    """Where the vault keeps what recognises the password of an access code."""
    return KeyRef(f"access-code/{index}")
