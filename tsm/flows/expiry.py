"""The phone that was never heard again: sessions and delegations end when their time is over.

Every fact that waits for the phone names the time by which it must be heard. The worker reads along, remembers the
latest of these times for each open delegation, and ends what is late; the decision itself is `SessionService.expire`.
Now and then it also forgets the idempotency keys whose time is over.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from tsm.application import Tsm
from tsm.flows.follower import Follower, Position, for_each
from tsm.flows.session import SessionService
from tsm.model.delegation import DelegationAccepted, DelegationEnded
from tsm.model.event import Event
from tsm.model.session import CommandSent, DisconnectSent, SessionStarted

FORGET_EVERY = timedelta(hours=1)

Clock = Callable[[], datetime]


class ExpiryWorker(Follower):
    """Ends what nobody continued."""

    name = "expiry"
    topics = (
        DelegationAccepted.topic, DelegationEnded.topic, SessionStarted.topic, CommandSent.topic, DisconnectSent.topic,
    )  # fmt: skip

    def __init__(self, tsm: Tsm, sessions: SessionService, position: Position, clock: Clock) -> None:
        super().__init__(tsm, position)
        self._sessions = sessions
        self._clock = clock
        self._opened: dict[tuple[str, str], int] = {}  # to the position of the acceptance
        self._deadlines: dict[tuple[str, str], datetime] = {}
        self._forget_next = clock()

    def see(self, event: Event) -> None:
        _, _, names = event.originator_id.partition("-")
        provider, _, reception = names.partition("-")
        place = (provider, reception)
        fact = event.fact
        if isinstance(fact, DelegationAccepted):
            self._opened[place], self._deadlines[place] = event.position, fact.expires_at
        elif isinstance(fact, SessionStarted | CommandSent | DisconnectSent) and place in self._deadlines:
            self._deadlines[place] = fact.expires_at
        elif isinstance(fact, DelegationEnded):
            self._close(place)

    def act(self) -> None:
        now = self._clock()
        for_each([place for place, deadline in self._deadlines.items() if deadline <= now], self._expire)
        if now >= self._forget_next:
            self._tsm.forget_commands(now)
            self._forget_next = now + FORGET_EVERY

    def unfinished(self) -> int | None:
        return min(self._opened.values(), default=None)

    def _expire(self, place: tuple[str, str]) -> None:
        later = self._sessions.expire(*place)
        if later is None:
            self._close(place)
        else:
            self._deadlines[place] = later

    def _close(self, place: tuple[str, str]) -> None:
        self._opened.pop(place, None)
        self._deadlines.pop(place, None)
