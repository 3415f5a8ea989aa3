"""What one client may take: how long it may keep us waiting, and how much work it may ask for in a minute.

Work is counted in objects asked for (`api.graphql.limits.cost`). Every client has a budget that fills up evenly and is
full after a minute. All that is remembered of a client is when its budget will be full again: one that is full again is
forgotten, so what is kept is bounded by what is spent.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, NamedTuple

import msgspec

MINUTE = 60.0  # seconds in which an empty budget fills up
MOST_CLIENTS = 10_000  # whose budgets are not full, at one time

COST_PER_MINUTE: Mapping[str, int] = {  # objects; what a role's daily work takes, ten times over
    "operator": 100_000,
    "provider": 100_000,
    "auditor": 200_000,
    "security-officer": 100_000,
    "administrator": 50_000,
    "clerk": 20_000,
    "terminal": 20_000,
}
LEAST_PER_MINUTE = 10_000  # of a role that neither the table nor the settings name
Some = Annotated[int, msgspec.Meta(ge=1)]  # with none nobody would ever be served


class EdgeLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits that a setting can change: `limits` in `config.json`. Times in seconds."""

    header_seconds: float = 10.0  # from a request's first octet to the end of its headers
    body_seconds: float = 30.0  # from there to the end of its body
    keep_alive_seconds: float = 75.0  # between requests of a connection; a phone's session may be silent for 60
    execution_seconds: float = 10.0  # of one query or mutation
    send_seconds: float = 10.0  # that a subscriber may take to accept a message
    stream_seconds: float = 3600.0  # that a subscription lives; less when the caller's proof of identity ends before
    connections: Some = 800  # at one time, handshakes included; each is a file descriptor, too
    connections_per_address: Some = 200  # of which from one IP address, or one IPv6 network of 64 bits
    connections_per_party: Some = 100  # of which with one client certificate
    streams_per_client: int = 20  # subscriptions at one time, over all its connections
    exports_per_client: int = 2  # at one time
    cost_per_request: int = 10_000  # objects
    cost_per_minute: dict[str, Some] = {}  # by role, in place of `COST_PER_MINUTE`

    def __post_init__(self) -> None:
        """ValueError for a role that has no minute, perhaps a misspelt one."""
        if unknown := sorted(self.cost_per_minute.keys() - COST_PER_MINUTE):
            raise ValueError(f"cost_per_minute: {', '.join(unknown)} is none of {', '.join(COST_PER_MINUTE)}")

    def minute_of(self, role: str) -> int:
        """What a client of this role may spend in a minute."""
        return self.cost_per_minute.get(role, COST_PER_MINUTE.get(role, LEAST_PER_MINUTE))


class Places:
    """So many at one time for each. Of one process, used by its event loop alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: Counter[Hashable] = Counter()

    def take(self, whose: Hashable) -> bool:
        """Whether there was a place left; then it is taken."""
        if self._taken[whose] >= self.most:
            return False
        self._taken[whose] += 1
        return True

    def leave(self, whose: Hashable) -> None:
        """Gives back a place that was taken."""
        self._taken[whose] -= 1
        if not self._taken[whose]:
            del self._taken[whose]


class Balance(NamedTuple):
    """A budget after something was asked of it."""

    available: int  # objects that can be spent at once
    wait: int  # seconds until what was refused will be available, rounded up; 0 when it was granted


class Budgets:
    """The clients' budgets. Of one process, used by its event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, seconds: float = MINUTE) -> None:
        """`seconds` are those in which an empty budget fills up."""
        self._clock = clock
        self._seconds = seconds
        self._full_at: dict[str, float] = {}  # client -> when its budget will be full again

    def spend(self, client: str, cost: int, per_minute: int) -> Balance:
        """Takes the cost if it is there, else nothing."""
        return self._take(client, cost, per_minute, cost)

    def fine(self, client: str, cost: int, per_minute: int) -> Balance:
        """Takes the cost of work that is done already, whether it is there or not."""
        return self._take(client, cost, per_minute, 0)

    def _take(self, client: str, cost: int, per_minute: int, needed: int) -> Balance:
        now, rate = self._clock(), per_minute / self._seconds
        full_at = max(self._full_at.get(client, now), now)
        available = per_minute - (full_at - now) * rate
        if needed > available:
            return Balance(max(0, math.floor(available)), math.ceil((needed - available) / rate))
        self._full_at[client] = full_at + cost / rate
        if len(self._full_at) > MOST_CLIENTS:
            self._forget(now)
        return Balance(max(0, math.floor(available - cost)), 0)

    def _forget(self, now: float) -> None:
        """Those that are full; when that is not enough, the half that will be full first."""
        owing = {client: full_at for client, full_at in self._full_at.items() if full_at > now}
        if len(owing) > MOST_CLIENTS:
            owing = dict(sorted(owing.items(), key=lambda entry: entry[1])[MOST_CLIENTS // 2 :])
        self._full_at = owing
