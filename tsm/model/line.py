"""A line: what was signalled about a telephone number, and the SIM and the phone behind it.

A signal says that something was so at a time: these identifiers belonged together, this card took the place of that
one, this subscription ended. Signals come from operators, from the common app, from the cards themselves; late, twice,
in any order. So what is recorded is what was said, and whatever follows from it (`tsm.model.bindings`, which SIM and
phone a number had when; `tsm.model.detection`, what is suspicious) is computed from the *set* of signals, in the order
of the times that they claim. The order in which they came in is only told by their positions.

Where a signal is recorded depends on its content alone: with a number, in the stream of that number; without one, in
the stream of its card, a line whose number nobody told. Keyed rows beside the log lead from number, card, IMSI and
device to the streams that name them.

Personal data is sealed under the data key of `subject`, one person's tenure of the number, as far as was known when the
signal came: a recycled number's new holder has another.

Stream: `line-<uuid>`.
"""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from tsm.model.event import Fact


class SignalKind(StrEnum):
    """What a signal says; names of GlobalPlatform System Messaging notifications are mapped to these (`tsm.mno`)."""

    OBSERVED = "OBSERVED"  # these identifiers belong together: attach, provisioning, the common app's report
    SUBSCRIBED = "SUBSCRIBED"  # a new subscription: from now on the number is a new holder's
    PORTED_IN = "PORTED_IN"  # the same, with a number brought along: the holder stays, the SIM does not
    SIM_REPLACED = "SIM_REPLACED"  # the card `previous` is dead, `iccid` took its place (HandleSERenewal)
    NUMBER_CHANGED = "NUMBER_CHANGED"  # the number was `previous`, and is `msisdn` now: same holder, same card
    DEVICE_CHANGED = "DEVICE_CHANGED"  # the card moved into the device `imei` (HandleSEDeviceChanged)
    PORTED_OUT = "PORTED_OUT"
    TERMINATED = "TERMINATED"
    SUSPENDED = "SUSPENDED"
    RESTRICTED = "RESTRICTED"
    RESTORED = "RESTORED"  # ends SUSPENDED and RESTRICTED
    LOST = "LOST"  # card or phone lost or stolen
    RECOVERED = "RECOVERED"  # ends LOST
    LOCK_REQUESTED = "LOCK_REQUESTED"  # the holder called (R-LC-16)
    UNLOCK_REQUESTED = "UNLOCK_REQUESTED"  # ends LOCK_REQUESTED
    MODEL_CHANGE_ANNOUNCED = "MODEL_CHANGE_ANNOUNCED"  # the holder said that she will change phones, until `until`
    CREDENTIAL_WRITTEN = "CREDENTIAL_WRITTEN"  # a credential went into this card in this device
    CREDENTIAL_USED = "CREDENTIAL_USED"  # it was used in this card from this device
    WRONG_CARD = "WRONG_CARD"  # another card answered than the one expected
    COUNTER_JUMPED = "COUNTER_JUMPED"  # the card's sequence counter is not where our sessions left it
    INDICATION = "INDICATION"  # something weak, named by `indication`: "call-forwarding", "night-change" ...


ENDS_TENURE = frozenset({SignalKind.TERMINATED, SignalKind.PORTED_OUT})
BEGINS_TENURE = frozenset({SignalKind.SUBSCRIBED})


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One signal as its source gave it: `source` and `id` name it for ever, and the same again is no news."""

    id: str  # the source's own, 1 to 64 characters, nothing personal in it
    source: str  # "operator:MNO00001", "app", "card", "terminal:T-13101-01"
    kind: SignalKind
    occurred_at: datetime  # UTC, as the source claims it
    msisdn: str = ""
    imsi: str = ""
    iccid: str = ""
    imei: str = ""
    previous: str = ""  # of SIM_REPLACED the old ICCID, of NUMBER_CHANGED the old MSISDN
    indication: str = ""
    until: datetime | None = None  # of MODEL_CHANGE_ANNOUNCED


class SignalRecorded(Fact, frozen=True, kw_only=True):
    """A source said so; when it happened is the event's `occurred_at`. The last three: what followed for the number."""

    topic: ClassVar[str] = "line.signal_recorded"
    sealed: ClassVar[tuple[str, ...]] = ("msisdn", "imsi", "iccid", "imei", "previous")
    subject: str
    signal: str  # the source's id of it
    source: str
    kind: str  # a SignalKind
    msisdn: str = ""
    imsi: str = ""
    iccid: str = ""
    imei: str = ""
    previous: str = ""
    indication: str = ""
    until: datetime | None = None
    sim_changed_at: datetime | None = None  # the number's latest SIM change, over occurred time, as known now
    device_changed_at: datetime | None = None  # the same of its device; None: never seen in one
    in_service: bool = True  # whether the number has a subscription, as known now


class SubjectMapped(Fact, frozen=True, kw_only=True):
    """An operator said that an issuer's tokens name this line by some `sub`; which one, only a keyed row knows."""

    topic: ClassVar[str] = "line.subject_mapped"
    issuer: str  # `iss` of the tokens


FACTS: tuple[type[Fact], ...] = (SignalRecorded, SubjectMapped)
