"""Keys that a card has no more leave the vault.

The issuer's earlier keys, once the card has authenticated itself with those that replaced them: until then an answer
that was lost, or a card that lied, could still ask for them. The keys of a domain that was deleted, at once, those
included that its owner shared and never put. Keys that are derived from a master key are stored nowhere by themselves,
and stay.
"""

from functools import partial

from tsm.application import Change, Tsm, decided
from tsm.flows.follower import Follower, Position, for_each
from tsm.keys.vault import SoftwareVault
from tsm.model import card as cards
from tsm.model.card import ContentDeleted, KeysProved, KeysPut, KeysShared, RetiredKeys
from tsm.model.event import Context, Event


class RetiredKeysWorker(Follower):
    """Destroys what nothing needs any more."""

    name = "retired keys"
    topics = (KeysPut.topic, KeysProved.topic, KeysShared.topic, ContentDeleted.topic)

    def __init__(self, tsm: Tsm, vault: SoftwareVault, position: Position) -> None:
        super().__init__(tsm, position)
        self._vault = vault
        self._waiting: dict[str, Event] = {}  # by the card's stream: what asked first

    def see(self, event: Event) -> None:
        self._waiting.setdefault(event.originator_id, event)

    def act(self) -> None:
        for_each(list(self._waiting.values()), self._finish)

    def unfinished(self) -> int | None:
        return min((event.position for event in self._waiting.values()), default=None)

    def _finish(self, event: Event) -> None:
        self.destroy(event)
        del self._waiting[event.originator_id]

    def destroy(self, event: Event) -> None:
        """All that may go from the event's card. Safe to repeat, and for several servers at once."""
        card = self._tsm.load(event.originator_id, cards.evolve).state
        for keys in card.destroyable if card is not None else ():
            # The vault before the log: a key that is gone can be destroyed again, an event that is early would lie.
            self._vault.destroy_key_set(keys.key, keys.check_values)
            decided(partial(self._record, event, keys))

    def _record(self, event: Event, keys: RetiredKeys) -> None:
        loaded = self._tsm.load(event.originator_id, cards.evolve)
        assert loaded.state is not None  # noqa: S101  the event is of its stream
        self._tsm.commit(
            Change(event.originator_id, loaded.version, cards.keys_destroyed(loaded.state, keys)),
            context=context_of(event),
            occurred_at=self._tsm.now(),
        )


def context_of(event: Event) -> Context:
    """The same story, caused by what made the keys needless."""
    told = event.context
    return Context(
        actor="system:retired-keys",
        role="system",
        tenant=told.tenant,
        tenants=told.tenants,
        correlation=told.correlation,
        causation=str(event.position),
    )
