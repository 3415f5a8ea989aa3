"""A world for lines: a vault, a log, registered cards, and sources that speak."""

from collections.abc import Callable
from datetime import datetime, timedelta
from os import urandom
from pathlib import Path

import msgspec
from line_samples import NOON, OTHER_SIM, SIM, SOURCE
from samples import CARD

from tsm.application import Change, Tsm
from tsm.flows.lines import Lines, Outcome
from tsm.flows.standings import Standings
from tsm.keys.vault import SoftwareVault
from tsm.model import card as cards
from tsm.model.event import Context
from tsm.model.line import Signal
from tsm.model.standing import Standing
from tsm.model.topics import FACTS
from tsm.store.migrations import migrate_sqlite
from tsm.store.opening import open_recorder
from tsm.store.recorder import Recorder

OPERATOR = Context(actor=SOURCE, role="operator", tenant="MNO00001", correlation="feed", request="request-1")
SYSTEM = Context(actor="system:test", role="system", tenant="MNO00001", correlation="feed")
CLERK = Context(actor="clerk:7", role="clerk", tenant="x", correlation="x", reason="saw her and her papers")


class LineWorld:
    """One server on a log; `another` is a second one on the same."""

    def __init__(self, vault: SoftwareVault, place: Path | Callable[[SoftwareVault, Callable[[], datetime]], Recorder]):
        self.vault = vault
        self.now = NOON + timedelta(hours=400)
        if isinstance(place, Path):
            migrate_sqlite(place)
            self.recorder = open_recorder(place, vault, self.clock)
        else:
            self.recorder = place(vault, self.clock)
        self.tsm = Tsm(vault, self.recorder, FACTS, self.clock)
        self.lines = self.another()

    def clock(self) -> datetime:
        return self.now

    def another(self, random: Callable[[int], bytes] = urandom) -> Lines:
        return Lines(self.tsm, self.vault, self.clock, random)

    @property
    def standings(self) -> Standings:
        return self.lines.standings

    def register(self, *iccids: str, operator: str = "MNO00001") -> None:
        for iccid in iccids or (SIM, OTHER_SIM):
            registered = msgspec.structs.replace(CARD, iccid=iccid, operator=operator)
            self.tsm.commit(Change(cards.stream(iccid), 0, [registered]), context=SYSTEM, occurred_at=self.now)

    def record(self, *signals: Signal, context: Context = SYSTEM) -> list[Outcome]:
        return self.lines.record(signals, context)

    def standing(self, iccid: str = SIM) -> Standing:
        return self.standings.of(iccid)

    def conditions(self, iccid: str = SIM) -> list[str]:
        return [suspicion.raised.condition for suspicion in self.standing(iccid).open]

    def ids(self, positions: tuple[int, ...]) -> set[str]:
        """Which signals lie at these positions."""
        return {event.fact.signal for event in self.tsm.at(positions)}  # type: ignore[union-attr]

    def close(self) -> None:
        self.tsm.close()
