"""The revocation of a credential: ordered in the log first, then told to its authority until that acknowledges.

    order       credential.revocation_ordered: from here on the credential is closed (`tsm.model.credential`)
    tell        the authority puts both certificates on its revocation lists; to be told twice changes nothing for it
    record      credential.revoked

Only the order is made by whoever asks. The follower of a running server carries it out at once, and as often as it
takes: an authority that is silent leaves an order that everybody can see is not carried out.

A session with the card that is under way goes on, for a card is not left half written; nothing of it becomes a fact of
the credential. None is begun (`tsm.flows.session`).
"""

from functools import partial

from cryptography.x509 import ReasonFlags

from tsm.application import Change, Command, Loaded, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.erasure import context_of
from tsm.flows.follower import Position
from tsm.flows.orders import OrderFollower, authority_of
from tsm.jpki.certificate_authority import CertificateAuthority, RevocationRequest
from tsm.model import credential as credentials
from tsm.model.credential import Credential, CredentialRevoked, RevocationOrdered, RevocationReason
from tsm.model.event import Context


class Revocation:
    """Revokes credentials."""

    def __init__(self, tsm: Tsm, authority: CertificateAuthority) -> None:
        self._tsm = tsm
        self._authority = authority

    def revoke(self, credential: str, reason: str, context: Context, command: Command | None = None) -> int:
        """Order the revocation; the log's position. The context says who and why; tenants and story are filled in.

        `reason` is a `RevocationReason`, else INVALID_INPUT. The same again is no news. NOT_FOUND. WRONG_ORDER before
        the certificates are issued, and for an erased person; ALREADY_EXISTS when it was ordered for another reason.
        """
        return decided(partial(self._order, credential, reason_of(reason), context, command))

    def carry_out(self, credential: str, context: Context) -> int:
        """Tell the authority what was ordered, and record that it acknowledged. UPSTREAM_UNAVAILABLE: repeat.

        WRONG_ORDER when nobody ordered it.
        """
        state = self._credential(credential).state
        credentials.revoked(state)
        assert state is not None and state.issued is not None and state.revocation is not None  # noqa: S101
        request = RevocationRequest(
            credential=credential,
            authentication_sha256=state.issued.authentication_certificate_sha256,
            signature_sha256=state.signature_certificate_sha256,
            reason=ReasonFlags(state.revocation.reason),
        )
        self._authority.revoke(authority_of(self._tsm, state).url, request)
        return decided(partial(self._record, credential, context))

    def _order(self, credential: str, reason: RevocationReason, context: Context, command: Command | None) -> int:
        loaded = self._credential(credential)
        facts = credentials.order_revocation(loaded.state, reason)
        return self._commit(credential, loaded, facts, context, command)

    def _record(self, credential: str, context: Context) -> int:
        loaded = self._credential(credential)
        return self._commit(credential, loaded, credentials.revoked(loaded.state), context)

    def _commit(
        self,
        credential: str,
        loaded: Loaded[Credential],
        facts: list[RevocationOrdered] | list[CredentialRevoked],
        context: Context,
        command: Command | None = None,
    ) -> int:
        assert loaded.state is not None  # noqa: S101  else it is refused
        return self._tsm.commit(
            Change(credentials.stream(credential), loaded.version, facts),
            context=context_of(credential, loaded.state, context),
            occurred_at=self._tsm.now(),
            command=command,
        )

    def _credential(self, credential: str) -> Loaded[Credential]:
        return self._tsm.load(credentials.stream(credential), credentials.evolve)


class RevocationFollower(OrderFollower):
    """Carries out what was ordered, wherever it was cut off."""

    name = "revocation"
    begin, end = (RevocationOrdered,), (CredentialRevoked,)
    topics = (RevocationOrdered.topic, CredentialRevoked.topic)

    def __init__(self, tsm: Tsm, authority: CertificateAuthority, position: Position) -> None:
        super().__init__(tsm, position)
        self._revocation = Revocation(tsm, authority)

    def carry_out(self, credential: str, context: Context) -> None:
        self._revocation.carry_out(credential, context)


def reason_of(text: str) -> RevocationReason:
    """INVALID_INPUT for a code that RFC 5280 does not have, or not for a holder's certificate."""
    try:
        return RevocationReason(text)
    except ValueError:
        raise TsmError(ErrorCode.INVALID_INPUT, "reason: not one for which a credential is revoked") from None
