"""What the cards acknowledge becomes what the credentials are.

A delegation that names a credential as its story is the credential's write under way; the personalisation of the JPKI
applet in that story is the write itself, and after a hold that of the certificate for signatures which was made anew.
Both count only for the credential's own provider and card, whatever a
delegation claims.
"""

from collections.abc import Callable, Sequence
from functools import partial

from tsm.application import Change, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.issuance import context_of
from tsm.jpki.personalisation import APPLICATION
from tsm.model import credential as credentials
from tsm.model.card import ApplicationPersonalized
from tsm.model.credential import Credential, Stage
from tsm.model.delegation import DelegationAccepted
from tsm.model.event import Event, Fact

JPKI_APPLICATION = APPLICATION.hex().upper()
CARD_STREAM = "card-"

Decide = Callable[[Credential], Sequence[Fact]]


class IssuanceFollower(Follower):
    """Reads along the log and carries over what concerns a credential."""

    name = "issuance"
    topics = (DelegationAccepted.topic, ApplicationPersonalized.topic)

    def __init__(self, tsm: Tsm, position: Position) -> None:
        super().__init__(tsm, position)
        self._waiting: dict[str, list[Event]] = {}  # in order, by the story that they belong to

    def see(self, event: Event) -> None:
        match event.fact:
            case DelegationAccepted():
                self._wait(event)
            case ApplicationPersonalized(application=application) if application == JPKI_APPLICATION:
                self._wait(event)

    def act(self) -> None:
        for_each(list(self._waiting), self._go_on)

    def unfinished(self) -> int | None:
        return min((events[0].position for events in self._waiting.values()), default=None)

    def _wait(self, event: Event) -> None:
        self._waiting.setdefault(event.context.correlation, []).append(event)

    def _go_on(self, story: str) -> None:
        events = self._waiting[story]
        while events:
            self.carry_over(events[0])
            del events[0]
        del self._waiting[story]

    def carry_over(self, event: Event) -> None:
        """Record what one event means for its credential, if it has one. Safe to repeat."""
        if isinstance(event.fact, DelegationAccepted):
            accepted = event.fact
            place, decide = (accepted.provider, accepted.iccid), delegated(accepted.reception)
        else:
            provider, reception, *_ = event.context.command.split("/")
            place, decide = (provider, event.originator_id.removeprefix(CARD_STREAM)), written(reception)
        decided(partial(self._record, event, place, decide))

    def _record(self, event: Event, place: tuple[str, str], decide: Decide) -> None:
        stream, (provider, iccid) = credentials.stream(event.context.correlation), place
        loaded = self._tsm.load(stream, credentials.evolve)
        if loaded.state is None or loaded.state.applied.provider != provider:
            return
        if loaded.state.applied.iccid != iccid:  # nor of a credential whose person is erased
            return
        try:
            facts = decide(loaded.state)
        except TsmError as error:
            if error.code in (ErrorCode.WRONG_ORDER, ErrorCode.UNKNOWN_RECEPTION):
                return  # nothing that the credential waited for
            raise
        context = context_of(
            event.context.correlation,
            loaded.state.applied,
            "system:issuance",
            "system",
            causation=str(event.position),
        )
        self._tsm.commit(Change(stream, loaded.version, facts), context=context, occurred_at=event.occurred_at)


def delegated(reception: str) -> Decide:
    return lambda state: credentials.delegate_personalization(state, reception)


def written(reception: str) -> Decide:
    def decide(state: Credential) -> Sequence[Fact]:
        if state.stage < Stage.WRITTEN:
            return credentials.write(state, reception)
        return credentials.rewrite_signature(state, reception)

    return decide
