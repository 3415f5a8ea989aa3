"""The end of the operator's access: provisional keys leave the vault once the domain has its owner's own keys.

The session in which they are replaced still runs under them, so they are destroyed when it is over; until then the
worker's position stays before the event that asks for it. An event says that they are gone.
"""

from functools import partial

from tsm.application import Change, Loaded, Tsm, decided
from tsm.flows.follower import Follower, Position, for_each
from tsm.keys.vault import SoftwareVault
from tsm.model import card as cards
from tsm.model import session as sessions
from tsm.model.card import Card, KeysPut
from tsm.model.event import Context, Event


class ProvisionalKeysWorker(Follower):
    """Destroys what an owner's keys have replaced."""

    name = "provisional keys"
    topics = (KeysPut.topic,)

    def __init__(self, tsm: Tsm, vault: SoftwareVault, position: Position) -> None:
        super().__init__(tsm, position)
        self._vault = vault
        self._waiting: list[Event] = []

    def see(self, event: Event) -> None:
        if isinstance(event.fact, KeysPut) and not event.fact.provisional:
            self._waiting.append(event)

    def act(self) -> None:
        for_each([event for event in self._waiting if self._is_over(event)], self._finish)

    def unfinished(self) -> int | None:
        return self._waiting[0].position if self._waiting else None

    def _is_over(self, event: Event) -> bool:
        """Whether the session that brought the keys has come to its end."""
        provider, _, rest = event.context.command.partition("/")
        reception = rest.partition("/")[0]
        session = self._tsm.load(sessions.stream(provider, reception), sessions.evolve).state
        return session is None or session.over

    def _finish(self, event: Event) -> None:
        self.destroy(event)
        self._waiting.remove(event)

    def destroy(self, event: Event) -> None:
        """What an owner's keys, put with `event`, have replaced. Safe to repeat, and for several servers at once."""
        assert isinstance(event.fact, KeysPut)  # noqa: S101  as it was seen
        loaded = self._tsm.load(event.originator_id, cards.evolve)
        assert loaded.state is not None  # noqa: S101  the event is of its stream
        domain = loaded.state.domains.get(event.fact.domain)
        if domain is None:  # it was deleted, and its keys are retired (`tsm.flows.retired_keys`)
            return
        for put in () if domain.provisional else domain.provisional_keys:
            if put.key != domain.key:
                # The vault before the log: a key that is gone can be destroyed again, an event that is early would lie.
                self._vault.destroy(put.key)
                decided(partial(self._record, event, put))

    def _record(self, event: Event, put: KeysPut) -> None:
        loaded: Loaded[Card] = self._tsm.load(event.originator_id, cards.evolve)
        assert loaded.state is not None  # noqa: S101  the event is of its stream
        self._tsm.commit(
            Change(event.originator_id, loaded.version, cards.provisional_keys_destroyed(loaded.state, put)),
            context=context_of(event),
            occurred_at=self._tsm.now(),
        )


def context_of(event: Event) -> Context:
    """The same story, caused by the owner's keys."""
    told = event.context
    return Context(
        actor="system:provisional-keys",
        role="system",
        tenant=told.tenant,
        tenants=told.tenants,
        correlation=told.correlation,
        causation=str(event.position),
    )
