"""Numbers, cards and devices that are nobody's, and signals about them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import hypothesis.strategies as st

from tsm.identifiers import luhn_digit
from tsm.model.bindings import Known
from tsm.model.line import Signal, SignalKind

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SOURCE = "operator:MNO00001"
NUMBER, OTHER_NUMBER, THIRD_NUMBER = NUMBERS = ("+447700900001", "+447700900002", "+447700900003")  # fictional
IMSI, OTHER_IMSI, THIRD_IMSI = IMSIS = ("001010000000001", "001010000000002", "001010000000003")  # the test network's
PHONE, OTHER_PHONE, THIRD_PHONE = PHONES = tuple(
    digits + luhn_digit(digits) for digits in ("00101000000001", "00101000000002", "00101000000003")
)
SIM, OTHER_SIM, THIRD_SIM = SIMS = ("8981100000000000010", "8981100000000000028", "8981100000000000036")

_ids = count(1)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def signal(kind: SignalKind, hours: float, **values: Any) -> Signal:
    """With an id of its own unless one is named."""
    return Signal(**{"id": f"s-{next(_ids)}", "source": SOURCE, "kind": kind, "occurred_at": at(hours), **values})


def known(signals: Iterable[Signal], recorded_at: datetime = NOON) -> list[Known]:
    """Recorded in that order, from position 1 on."""
    return [Known(position, recorded_at, one) for position, one in enumerate(signals, 1)]


def names(positions: Sequence[int], arrived: Sequence[Known]) -> set[str]:
    """Which signals lie at these positions."""
    return {one.signal.id for one in arrived if one.position in positions}


def _optional(values: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(["", *values])


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    """Any sound signal about a few numbers, cards and devices within a few days."""
    kind = draw(st.sampled_from(SignalKind))
    hours = draw(st.integers(0, 100))
    msisdn, iccid = draw(st.sampled_from(NUMBERS)), draw(_optional(SIMS))
    values: dict[str, Any] = {"msisdn": msisdn, "iccid": iccid, "imsi": draw(_optional(IMSIS))}
    values["imei"] = draw(_optional(PHONES))
    if kind is SignalKind.SIM_REPLACED:
        values["iccid"], values["previous"] = draw(st.permutations(SIMS))[:2]
        values["msisdn"] = draw(st.sampled_from([msisdn, ""]))
    elif kind is SignalKind.NUMBER_CHANGED:
        values["msisdn"], values["previous"] = draw(st.permutations(NUMBERS))[:2]
        values["iccid"] = draw(st.sampled_from(SIMS))
    elif kind is SignalKind.MODEL_CHANGE_ANNOUNCED:
        values["until"] = at(hours + draw(st.integers(0, 48)))
    elif kind is SignalKind.INDICATION:
        values["indication"] = draw(st.sampled_from(["call-forwarding", "night-change", "unheard-of"]))
    elif iccid and kind not in NEEDS_NUMBER and draw(st.booleans()):
        values["msisdn"] = ""
    source = draw(st.sampled_from([SOURCE, "operator:MNO00002", "app"]))
    return Signal(id=draw(st.uuids()).hex, source=source, kind=kind, occurred_at=at(hours), **values)


NEEDS_NUMBER = (SignalKind.SUBSCRIBED, SignalKind.PORTED_IN, SignalKind.PORTED_OUT)


@st.composite
def arrivals(draw: st.DrawFn, most: int = 8) -> tuple[list[Signal], list[Signal]]:
    """One set of signals as it arrives twice: in two orders, and each time some of it again."""
    told = draw(st.lists(signals(), min_size=1, max_size=most))
    return tuple(  # type: ignore[return-value]  # two
        draw(st.permutations([*told, *draw(st.lists(st.sampled_from(told), max_size=3))])) for _ in range(2)
    )
