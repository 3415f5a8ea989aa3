"""What a holder asks for at a counter about a card: that it is locked, and that it is released.

To lock it, nobody has to prove anything: what is asked for is filed as a signal, and the policy says what follows. To
release it the holder signs with the My Number card that the credential in that card rests on, or a clerk of the
municipality where it was applied for has seen her papers. A My Number card that was renewed since has another
certificate, which nobody here can tell to be the same person's: then it is for the clerk. Who may ask for it stays the
same when that credential is revoked; when its person is erased, nobody at a counter may any more, but its operator.

A release settles the holder's own call like any other suspicion that began before it. It is recorded with the SHA-256
of what was signed. The same again, of holder or clerk, is no news, also when the card is on hold again by then.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from tsm.application import Command, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.challenges import CHALLENGE_LIFE, Challenges, Clock
from tsm.flows.issuance import Counter, anchors_of, revoked_mains
from tsm.flows.issuance_follower import JPKI_APPLICATION
from tsm.flows.lines import Lines
from tsm.flows.orders import authority_of
from tsm.jpki.certificate_authority import CertificateAuthority
from tsm.jpki.certificates import Kind, read_certificate, serial_text
from tsm.jpki.documents import verify_signed
from tsm.jpki.release import SignedRelease
from tsm.model import card as cards
from tsm.model import credential as credentials
from tsm.model.card import ApplicationPersonalized
from tsm.model.checks import check_name, check_text
from tsm.model.credential import Credential, Stage
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind
from tsm.model.standing import Proof

VISIT_LIFE = timedelta(days=30)  # in which the name of a visit to a clerk is remembered


class Held(NamedTuple):
    """A credential in a card."""

    id: str
    state: Credential


class CardReleases:
    """Takes what terminals ask for."""

    def __init__(
        self, tsm: Tsm, lines: Lines, authority: CertificateAuthority, challenges: Challenges, clock: Clock
    ) -> None:
        self._tsm = tsm
        self._lines = lines
        self._authority = authority
        self._challenges = challenges
        self._clock = clock

    def lock(self, iccid: str, call: str, at: datetime, counter: Counter) -> int:
        """The holder wants the card locked, and said so then; the signal's position. The same again is no news.

        `call` is the terminal's name of it for ever. UNKNOWN_CARD, INVALID_INPUT, COMMAND_REUSED.
        """
        self._tsm.card_of(iccid)
        source = f"terminal:{counter.terminal}"
        asked = Signal(id=call, source=source, kind=SignalKind.LOCK_REQUESTED, occurred_at=at, iccid=iccid)
        (outcome,) = self._lines.record([asked], context_of(counter))
        if outcome.error is not None:
            raise outcome.error
        return outcome.position

    def release(self, signed: SignedRelease, counter: Counter) -> int:
        """The holder proves herself with the My Number card; the log's position. The same again is no news.

        BAD_SIGNATURE, CERTIFICATE_INVALID, CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED as for an application.
        WRONG_ORDER for a challenge that is not ours or too old, when the card is not on hold, and when it is to be
        revoked. FORBIDDEN when no credential in the card rests on this certificate. INVALID_INPUT, MESSAGE_TOO_LARGE,
        UNKNOWN_CARD. UPSTREAM_UNAVAILABLE, REVOCATION_UNKNOWN: repeat.
        """
        document = signed.read_document()
        self._challenges.refuse_others(document.challenge, counter.terminal)
        self._challenges.refuse_old(document.challenge)
        held = self._of_holder(document.iccid, serial_text(read_certificate(signed.certificate)))
        authority, now = authority_of(self._tsm, held.state), self._clock()
        certificate = verify_signed(signed, anchors_of(authority)[Kind.SIGNATURE], now)
        revoked_mains(self._authority, authority, now).check(certificate)
        command = Command(f"card-release {signed.digest}", "", now + CHALLENGE_LIFE)
        return self._release(document.iccid, Proof.MY_NUMBER_CARD, signed.digest, held, counter, command=command)

    def release_by_clerk(self, iccid: str, visit: str, reason: str, counter: Counter) -> int:
        """A clerk has seen the holder and her papers; the log's position. The same again is no news.

        `visit` is the terminal's name of it, remembered for `VISIT_LIFE`: COMMAND_REUSED. FORBIDDEN but in the
        municipality where a credential in the card was applied for. INVALID_INPUT without a reason, UNKNOWN_CARD;
        WRONG_ORDER as for `release`.
        """
        check_text(reason, "reason")
        check_name(visit, "visit")
        there = [held for held in held_in(self._tsm, iccid) if held.state.applied.municipality == counter.municipality]
        if not there:
            raise TsmError(ErrorCode.FORBIDDEN, "no credential in this card was applied for here")
        asked = sha256(f"{iccid} {reason}".encode()).hexdigest()
        command = Command(f"card-release {counter.terminal} {visit}", asked, self._clock() + VISIT_LIFE)
        return self._release(iccid, Proof.CLERK, "", there[0], counter, reason=reason, command=command)

    def _release(
        self,
        iccid: str,
        proof: Proof,
        document_sha256: str,
        held: Held,
        counter: Counter,
        *,
        reason: str = "",
        command: Command,
    ) -> int:
        context = context_of(counter, reason, (held.state.applied.provider,))
        return self._lines.standings.release(iccid, proof, document_sha256, context, command)

    def _of_holder(self, iccid: str, serial: str) -> Held:
        """The credential in the card whose main certificate has this number; FORBIDDEN when there is none."""
        rest_on_it = {row.subject for row in self._tsm.indexed("main-certificate", serial)}
        for held in held_in(self._tsm, iccid):
            if held.id in rest_on_it:
                return held
        raise TsmError(ErrorCode.FORBIDDEN, "no credential in this card rests on this certificate")


def held_in(tsm: Tsm, iccid: str) -> list[Held]:
    """The credentials in a card, whose holders decide about it. Nothing of theirs is unsealed. UNKNOWN_CARD.

    Those that the card has acknowledged. When all of them are closed, the one that was written last: whoever stole the
    card gains nothing when its holder has her credential revoked. Nobody's, when that holder is erased. Only of a card
    in which none was ever written those that it may have, or else that were issued for it.

    Anybody may apply for a credential in somebody else's card, and have its write delegated without that card: it says
    nothing of a card in which one was written.
    """
    tsm.card_of(iccid)
    rows = tsm.indexed("iccid", iccid)
    found = [(row.subject, tsm.state_at(row.stream, credentials.evolve, unseals={}).state) for row in rows]
    ever = [Held(id, state) for id, state in found if state and not state.refused and state.stage >= Stage.ISSUED]
    issued = [held for held in ever if not held.state.closed]
    if written := [held for held in issued if held.state.stage >= Stage.WRITTEN]:
        return written
    if last := _written_last(tsm, iccid):
        return [held for held in ever if held.id == last and held.state.stage >= Stage.WRITTEN]
    return [held for held in issued if held.state.in_use] or issued


def _written_last(tsm: Tsm, iccid: str) -> str:
    """The credential that the card acknowledged last, also of an erased person; empty when it has had none."""
    last = ""
    for event in tsm.history(cards.stream(iccid)):
        if isinstance(event.fact, ApplicationPersonalized) and event.fact.application == JPKI_APPLICATION:
            last = event.context.correlation
    return last


def context_of(counter: Counter, reason: str = "", tenants: tuple[str, ...] = ()) -> Context:
    """A terminal acts for its municipality; to whom the card belongs is filled in."""
    return Context(
        actor=f"terminal:{counter.terminal}",
        role="clerk",
        tenant=counter.municipality,
        tenants=(counter.municipality, *tenants),
        correlation="",
        request=counter.request_id,
        reason=reason,
    )
