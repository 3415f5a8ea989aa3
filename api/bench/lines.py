"""Telephone lines in bulk: what an operator's feed leaves in a log that was told of each line once.

A line is a number with its SIM and its phone, and all about it follows from its place in the row: whoever goes on with
a log that was cut short tells the same. Event, keyed rows and data key are those that `tsm.flows.lines` makes of such a
signal; they are recorded in large transactions. Numbers and IMSIs are of ranges that nobody has, as are the devices.
"""

from collections.abc import Collection, Iterable
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from uuid import UUID

from api.bench.history import BEGIN, OPERATOR, Filler, iccid_of
from tsm.application import Tsm
from tsm.flows.known_signals import MSISDN, TENURE, Line, places_of
from tsm.flows.known_signals import signal_of as told_by
from tsm.flows.lines import Entry
from tsm.identifiers import luhn_digit
from tsm.keys.vault import SoftwareVault
from tsm.model import line as lines
from tsm.model.bindings import Changes
from tsm.model.event import Context, Event
from tsm.model.line import Signal, SignalKind, SignalRecorded
from tsm.store.recorder import Append, IndexRow, Recorder

SOURCE = f"operator:{OPERATOR}"
FEED = Context(actor=SOURCE, role="operator", tenant=OPERATOR, correlation=f"signals-{'0' * 32}", request="0" * 32)
YEAR = 365 * 24 * 60  # minutes in which the lines began
STRIDE = 7919  # minutes between one line and the next: a prime number, so all times occur


def msisdn_of(number: int) -> str:
    """Of a country code that no country has."""
    return f"+999{number:010}"


def imsi_of(number: int) -> str:
    """Of the test network."""
    return f"00101{number:010}"


def imei_of(number: int) -> str:
    """Of a test device."""
    digits = f"001010{number:08}"
    return digits + luhn_digit(digits)


def signal_of(number: int) -> Signal:
    """What was told of the line: its subscription, with the phone that it was first seen in."""
    return Signal(
        id=f"began-{number}",
        source=SOURCE,
        kind=SignalKind.SUBSCRIBED,
        occurred_at=BEGIN - timedelta(minutes=number * STRIDE % YEAR),
        msisdn=msisdn_of(number),
        imsi=imsi_of(number),
        iccid=iccid_of(number),
        imei=imei_of(number),
    )


def stream_of(number: int) -> str:
    return lines.stream(_id("line", number))


def event_of(number: int) -> Event:
    """The signal as it is recorded."""
    signal = signal_of(number)
    entry = Entry(Line(stream_of(number)), 1, signal, f"tenure-{_id('tenure', number)}", begins=True)
    [fact] = entry.change(Changes(signal.occurred_at, signal.occurred_at, in_service=True)).facts
    return Event(
        originator_id=entry.line.stream,
        originator_version=1,
        occurred_at=signal.occurred_at,
        context=FEED,
        fact=fact,
    )


def recorded(tsm: Tsm, most: int) -> int:
    """How many of the first `most` lines are in the log: they came in their order."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if tsm.existing([stream_of(middle)]) else (low, middle)
    return low


class LineFiller(Filler):
    """Records lines."""

    batch = 10_000  # each has many rows that lie anywhere: the more at once, the fewer pages are written again

    def __init__(
        self, recorder: Recorder, vault: SoftwareVault, numbers: Iterable[int], only: Collection[str] = ()
    ) -> None:
        """Of the keyed rows `only` those of these purposes, where it names some."""
        super().__init__(recorder, vault, map(event_of, numbers))
        self._only = only

    def _next(self, number: int) -> Append:
        """Each line has a data key of its own: made one by one, each would wait for the disk."""
        events = list(islice(self._events, number))
        self._vault.make_data_keys([event.fact.subject for event in events if isinstance(event.fact, SignalRecorded)])
        return self._append(events)

    def _index_rows(self, event: Event) -> list[IndexRow]:
        assert isinstance(event.fact, SignalRecorded)  # noqa: S101  it records nothing else
        signal = told_by(event, event.fact)
        assert signal is not None  # noqa: S101  nothing of it is erased
        places = [*places_of((MSISDN, signal.msisdn), signal), (TENURE, event.originator_id)]
        indexes = [self._vault.blind_index(*place) for place in places if not self._only or place[0] in self._only]
        return [IndexRow(index, event.originator_id, event.fact.subject) for index in indexes]


def _id(what: str, number: int) -> str:
    return str(UUID(bytes=sha256(f"{what}|{number}".encode()).digest()[:16], version=4))
