"""The hold of a credential, and its end: ordered in the log (`tsm.flows.swap_response`), then told to its authority.

    order       credential.hold_ordered, or credential.release_ordered: the later one counts
    tell        the authority puts both certificates on hold; or ends that, and makes a new one for signatures
    record      credential.held; or credential.released and credential.signature_reissued

Nobody can say of an authority that was silent whether it has heard of a hold, so its end is told in any case. A
revocation takes the place of both: from its order on the authority is told nothing else.
"""

from hashlib import sha256

from tsm.application import ATTEMPTS, Change, Loaded, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.erasure import context_of
from tsm.flows.follower import Position
from tsm.flows.issuance import anchors_of, verified_certificate
from tsm.flows.orders import OrderFollower, authority_of
from tsm.jpki.certificate_authority import CertificateAuthority, HoldRequest, ReleaseRequest
from tsm.jpki.certificates import Kind, serial_text
from tsm.model import credential as credentials
from tsm.model.credential import (
    Credential,
    CredentialHeld,
    CredentialReleased,
    ErasureOrdered,
    Hold,
    HoldOrdered,
    ReleaseOrdered,
    RevocationOrdered,
    SignatureReissued,
)
from tsm.model.event import Context, Fact


class Holds:
    """Tells authorities what was ordered."""

    def __init__(self, tsm: Tsm, authority: CertificateAuthority) -> None:
        self._tsm = tsm
        self._authority = authority

    def carry_out(self, credential: str, context: Context) -> None:
        """Tell the authority what is wanted of it by now, and record that it acknowledged.

        What somebody else ordered or recorded meanwhile is told after it: what the authority hears last is what the log
        says. UPSTREAM_UNAVAILABLE: repeat. CERTIFICATE_REVOKED when the authority revoked what is to be released.
        """
        held: HoldRequest | None = None
        for _ in range(ATTEMPTS):
            loaded = self._tsm.load(credentials.stream(credential), credentials.evolve)
            state = loaded.state
            if state is None or state.closed:
                return
            facts: list[Fact]
            if state.hold is Hold.ORDERED:
                held = HoldRequest(credential, *named(state))
                self._authority.hold(authority_of(self._tsm, state).url, held)
                facts = [*credentials.held(state)]
            elif state.hold is Hold.RELEASE_ORDERED or (state.hold is Hold.NONE and held is not None):
                names = (held.authentication_sha256, held.signature_sha256) if held is not None else named(state)
                facts = [*credentials.released(state, self._release(state, ReleaseRequest(credential, *names)))]
            else:
                return
            if self._record(credential, loaded, facts, context):
                return
        raise TsmError(ErrorCode.CONFLICT, credential)

    def _release(self, state: Credential, request: ReleaseRequest) -> SignatureReissued:
        """Tell the authority, and verify what it answers as at the first issue."""
        authority = authority_of(self._tsm, state)
        der = self._authority.release(authority.url, request)
        anchor = anchors_of(authority)[Kind.SIGNATURE]
        certificate = verified_certificate(der, anchor, Kind.SIGNATURE, self._tsm.now())
        return SignatureReissued(
            subject=state.applied.subject,
            signature_serial=serial_text(certificate),
            signature_certificate_sha256=sha256(der).hexdigest(),
        )

    def _record(self, credential: str, loaded: Loaded[Credential], facts: list[Fact], context: Context) -> bool:
        """False when the credential has gone on since the authority was told."""
        assert loaded.state is not None  # noqa: S101  else nobody was told
        change = Change(credentials.stream(credential), loaded.version, facts)
        try:
            self._tsm.commit(change, context=context_of(credential, loaded.state, context), occurred_at=self._tsm.now())
        except TsmError as error:
            if error.code is ErrorCode.CONFLICT:
                return False
            raise
        return True


class HoldFollower(OrderFollower):
    """Carries out holds and releases, wherever that was cut off."""

    name = "hold"
    begin = (HoldOrdered, ReleaseOrdered)
    end = (CredentialHeld, CredentialReleased, RevocationOrdered, ErasureOrdered)
    topics = tuple(fact.topic for fact in (*begin, *end))

    def __init__(self, tsm: Tsm, authority: CertificateAuthority, position: Position) -> None:
        super().__init__(tsm, position)
        self._holds = Holds(tsm, authority)

    def carry_out(self, credential: str, context: Context) -> None:
        self._holds.carry_out(credential, context)


def named(state: Credential) -> tuple[str, str]:
    """The certificates as the authority is told of them."""
    assert state.issued is not None  # noqa: S101  holds are of certificates that there are
    return state.issued.authentication_certificate_sha256, state.signature_certificate_sha256
