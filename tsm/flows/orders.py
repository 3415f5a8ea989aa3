"""What is ordered of a certificate authority: it stands in the log first, and is told until the authority acknowledges.

An authority that is silent leaves an order that everybody can see is not carried out. To be told twice changes nothing
for it, so a follower carries out what was ordered wherever it was cut off, and several servers may do so at once.
"""

import logging
import time
from abc import abstractmethod
from typing import ClassVar

from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import Follower, Position, for_each
from tsm.model import authority as authorities
from tsm.model import credential as credentials
from tsm.model.credential import Credential
from tsm.model.event import Context, Event, Fact

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before an authority is told again: doubled each time
PASSING = (  # what an authority refuses for good ends when the log knows it, too: the credential is revoked
    ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.CERTIFICATE_REVOKED, ErrorCode.CERTIFICATE_EXPIRED,
)  # fmt: skip
log = logging.getLogger(__name__)


class Order:
    """An order that is not carried out, and when to try."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.due = 0.0
        self.attempts = 0

    @property
    def credential(self) -> str:
        return self.event.originator_id.removeprefix(credentials.stream(""))

    def context(self, actor: str) -> Context:
        """In which the follower acts on it."""
        return Context(
            actor=actor,
            role="system",
            tenant="",
            correlation="",
            causation=str(self.event.position),
            reason=self.event.context.reason,
        )

    def put_off(self) -> None:
        self.due = time.monotonic() + min(FIRST_PAUSE * 2**self.attempts, LONGEST_PAUSE)
        self.attempts += 1


class OrderFollower(Follower):
    """Carries out orders of one kind: the last one for each credential."""

    begin: ClassVar[tuple[type[Fact], ...]]  # facts that order something
    end: ClassVar[tuple[type[Fact], ...]]  # facts after which nothing is left to do

    def __init__(self, tsm: Tsm, position: Position) -> None:
        super().__init__(tsm, position)
        self._open: dict[str, Order] = {}  # by stream: not carried out, as far as was read

    @abstractmethod
    def carry_out(self, credential: str, context: Context) -> None:
        """Tell the authority and record that it acknowledged; safe to repeat. UPSTREAM_UNAVAILABLE: to be repeated."""

    def see(self, event: Event) -> None:
        if isinstance(event.fact, self.begin):
            self._open[event.originator_id] = Order(event)
        elif isinstance(event.fact, self.end):
            self._open.pop(event.originator_id, None)

    def act(self) -> None:
        now = time.monotonic()
        for_each([order for order in self._open.values() if order.due <= now], self._carry_out)

    def unfinished(self) -> int | None:
        return min((order.event.position for order in self._open.values()), default=None)

    def _carry_out(self, order: Order) -> None:
        try:
            self.carry_out(order.credential, order.context(f"system:{self.name}"))
        except TsmError as error:
            order.put_off()
            if error.code not in PASSING:
                raise
            level = logging.DEBUG if order.attempts > 1 else logging.WARNING
            log.log(level, "%s of %s is not carried out yet: %s", self.name, order.credential, error)
        else:
            del self._open[order.event.originator_id]


def authority_of(tsm: Tsm, state: Credential) -> authorities.Authority:
    """Who issued a credential's certificates."""
    assert state.issued is not None  # noqa: S101  orders are for certificates that there are
    authority = tsm.load(authorities.stream(state.issued.authority), authorities.evolve).state
    if authority is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, f"authority {state.issued.authority} issued and was never enrolled")
    return authority
