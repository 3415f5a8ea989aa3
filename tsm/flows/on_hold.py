"""Whether a card is on hold: asked by all that would give something of use to whoever has it in hand.

The answer is part of the decision: it is committed with the standing's version, so a hold that comes between is seen,
and the decision is made again. Who asked in vain is recorded before the refusal, for it may have been a thief.
"""

import msgspec

from tsm.application import Change, Loaded, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.model import standing as standings
from tsm.model.event import Context, Fact
from tsm.model.standing import LevelChanged, UseRefused
from tsm.model.swap_policy import Level


class Hold(msgspec.Struct, frozen=True):
    """What counts here of all that is suspected and said."""

    level: Level = Level.NONE
    refused: frozenset[UseRefused] = frozenset()  # since it began


def hold_of(tsm: Tsm, iccid: str) -> Loaded[Hold]:
    """What a card's standing has come to; no state for one of which nothing was ever suspected."""
    return tsm.load(standings.stream(iccid), evolve)


def evolve(hold: Hold | None, fact: Fact) -> Hold:
    """Fold one fact of a standing."""
    known = hold or Hold()
    match fact:
        case LevelChanged():
            level = Level(fact.level)
            return Hold(level, known.refused if level >= Level.HOLD else frozenset())
        case UseRefused():
            return Hold(known.level, known.refused | {fact})
    return known


def is_on_hold(hold: Loaded[Hold]) -> bool:
    return hold.state is not None and hold.state.level >= Level.HOLD


def rests_on(iccid: str, hold: Loaded[Hold]) -> Change:
    """The hold's part of a commit."""
    return Change(standings.stream(iccid), hold.version, [])


def refuse_on_hold(tsm: Tsm, iccid: str, asked: UseRefused, by: Context) -> Change:
    """CARD_ON_HOLD, and in the log what was `asked`, with the actor and the request of `by`.

    Otherwise what a decision that rests on this commits as well.
    """
    return decided(lambda: _refuse_on_hold(tsm, iccid, asked, by))


def asked_by(provider: str, request_id: str) -> Context:
    """A provider's request, which belongs to no story yet."""
    return Context(actor=f"provider:{provider}", role="provider", tenant="", correlation="", request=request_id)


def _refuse_on_hold(tsm: Tsm, iccid: str, asked: UseRefused, by: Context) -> Change:
    hold = hold_of(tsm, iccid)
    if hold.state is None or not is_on_hold(hold):
        return rests_on(iccid, hold)
    if asked not in hold.state.refused:
        stream = standings.stream(iccid)
        context = msgspec.structs.replace(
            by,
            tenant=tsm.card_of(iccid).operator,
            tenants=(asked.provider,) if asked.provider else (),
            correlation=stream,
            command="",
        )
        tsm.commit(Change(stream, hold.version, [asked]), context=context, occurred_at=tsm.now())
    raise TsmError(ErrorCode.CARD_ON_HOLD, iccid)
