"""Whether a card is on hold: asked by all that would give something of use to whoever has it in hand.

The answer is part of the decision: it is committed with the standing's version, so a hold that comes between is seen,
and the decision is made again.
"""

from tsm.application import Change, Loaded, Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.model import standing as standings
from tsm.model.event import Fact
from tsm.model.standing import LevelChanged
from tsm.model.swap_policy import Level


def level_of(tsm: Tsm, iccid: str) -> Loaded[Level]:
    """What a card's standing has come to; no state for one of which nothing was ever suspected."""
    return tsm.load(standings.stream(iccid), level_after)


def level_after(level: Level | None, fact: Fact) -> Level:
    """Fold one fact of a standing: of all that is suspected and said, only what follows from it counts here."""
    return Level(fact.level) if isinstance(fact, LevelChanged) else level or Level.NONE


def is_on_hold(level: Loaded[Level]) -> bool:
    return level.state is not None and level.state >= Level.HOLD


def refuse_on_hold(tsm: Tsm, iccid: str) -> Change:
    """CARD_ON_HOLD; otherwise what a decision that rests on this commits as well."""
    level = level_of(tsm, iccid)
    if is_on_hold(level):
        raise TsmError(ErrorCode.CARD_ON_HOLD, iccid)
    return rests_on(iccid, level)


def rests_on(iccid: str, level: Loaded[Level]) -> Change:
    """The level's part of a commit."""
    return Change(standings.stream(iccid), level.version, [])
