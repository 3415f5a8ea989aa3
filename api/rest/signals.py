"""What an operator tells of its lines, with its client certificate: feeds, line by line (`api.rest.feed`).

    POST /mno/signals     a line is a signal, {id, kind, occurred_at, msisdn, imsi, iccid, imei, previous, indication,
                          until}, or a notification, {id, occurred_at, HandleSERenewalNotification: {...}}
    POST /mno/subjects    a line is {issuer, sub, msisdn}: tokens of that issuer name the number's holder by `sub`;
                          the number has to be the caller's, who told that its subscription began, and the issuer one
                          of `camara.issuers` in the settings that names no other operator

Members that a signal has no value for are left out, and none comes twice. Times are ISO 8601 with an offset. The source
is the caller, so a signal's id has to be the operator's own, for ever; the same again is answered with the same
position. When a signal is answered, all that follows from it is in force. STORE_BUSY, STORE_UNAVAILABLE and CONFLICT:
send that line again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import Route

from api.access import Caller
from api.repeated_names import refuse_repeated_names
from api.rest.feed import Feed, Result
from api.rest.messages import UNREADABLE
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Msisdn
from tsm.mno.notifications import NOTIFICATIONS, signal_of
from tsm.model.checks import in_utc, refusal
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind

if TYPE_CHECKING:
    from api.bootstrap import Parts

ENVELOPE = {"id", "occurred_at"}


class PlainSignal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of `/mno/signals`."""

    id: str
    kind: SignalKind
    occurred_at: datetime
    source: str = ""
    msisdn: str = ""
    imsi: str = ""
    iccid: str = ""
    imei: str = ""
    previous: str = ""
    indication: str = ""
    until: datetime | None = None


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of `/mno/subjects`."""

    issuer: str
    sub: str
    msisdn: str


PLAIN = msgspec.json.Decoder(PlainSignal)
MAPPING = msgspec.json.Decoder(Mapping)


class Signals:
    """Takes both kinds of lines."""

    def __init__(self, parts: "Parts") -> None:
        self._lines = parts.lines
        self._speakers = parts.settings.speakers

    def record(self, lines: Sequence[bytes], caller: Caller, request_id: str) -> list[Result]:
        """Signals: those that can be read are recorded together."""
        results: list[Result | None] = []
        signals: list[Signal] = []
        for line in lines:
            try:
                signals.append(read_signal(line, f"operator:{caller.party}"))
                results.append(None)
            except TsmError as error:
                results.append(Result(id_in(line), error=error))
        recorded = iter(self._record(signals, context_of(caller, request_id)))
        return [result or next(recorded) for result in results]

    def _record(self, signals: Sequence[Signal], context: Context) -> list[Result]:
        try:
            outcomes = self._lines.record(signals, context)
        except TsmError as error:  # of all: none is recorded, or nobody knows, and all may be said again
            return [Result(signal.id, error=error) for signal in signals]
        return [
            Result(signal.id, outcome.position, outcome.repeated, outcome.error)
            for signal, outcome in zip(signals, outcomes, strict=True)
        ]

    def map_subjects(self, lines: Sequence[bytes], caller: Caller, request_id: str) -> list[Result]:
        """Subjects, one by one.

        INVALID_INPUT for an issuer whose tokens are not taken; FORBIDDEN for another's issuer or number; ALREADY_EXISTS
        for a subject that another mapped.
        """
        return [self._map(line, context_of(caller, request_id)) for line in lines]

    def _map(self, line: bytes, context: Context) -> Result:
        try:
            mapping = MAPPING.decode(line)
            refuse_repeated_names(line)
            Msisdn(mapping.msisdn)
            self._refuse_unless_speaker(context.tenant, mapping.issuer)
            before = self._lines.stream_of_subject(mapping.issuer, mapping.sub)
            position = self._lines.map_subject(mapping.issuer, mapping.sub, mapping.msisdn, context)
            repeated = before is not None and before == self._lines.stream_of_subject(mapping.issuer, mapping.sub)
        except UNREADABLE:
            return Result("", error=TsmError(ErrorCode.INVALID_INPUT, "not a mapping of a subject"))
        except TsmError as error:
            return Result("", error=error)
        return Result("", position, repeated)

    def _refuse_unless_speaker(self, operator: str, issuer: str) -> None:
        if issuer not in self._speakers:
            raise refusal("issuer", "its tokens are not taken")
        if self._speakers[issuer] not in (None, operator):
            raise TsmError(ErrorCode.FORBIDDEN, f"{operator} does not speak for {issuer}", ("issuer",))


def read_signal(line: bytes, source: str) -> Signal:
    """INVALID_INPUT when it is neither form, without repeating what came; FORBIDDEN for another's name."""
    try:
        plain = PLAIN.decode(line)
        refuse_repeated_names(line)
    except UNREADABLE as error:
        return read_notification(line, source, error)
    if plain.source not in ("", source):
        raise TsmError(ErrorCode.FORBIDDEN, f"{source} does not speak for another", ("source",))
    return Signal(
        id=plain.id,
        source=source,
        kind=plain.kind,
        occurred_at=in_utc(plain.occurred_at, "occurred_at"),
        msisdn=plain.msisdn,
        imsi=plain.imsi,
        iccid=plain.iccid,
        imei=plain.imei,
        previous=plain.previous,
        indication=plain.indication,
        until=None if plain.until is None else in_utc(plain.until, "until"),
    )


def read_notification(line: bytes, source: str, why: Exception) -> Signal:
    """INVALID_INPUT for what is no notification either: it was meant as a signal, which it is not for that reason."""
    content = members_of(line)
    names = [name for name in content if name in NOTIFICATIONS]
    if len(names) != 1:
        raise TsmError(ErrorCode.INVALID_INPUT, "not a signal", field_of(why))
    if unknown := sorted(content.keys() - ENVELOPE - set(names)):
        raise TsmError(ErrorCode.INVALID_INPUT, "a member that there is not", tuple(unknown[:1]))
    try:
        id = msgspec.convert(content.get("id", ""), str)
        given = msgspec.convert(content.get("occurred_at"), datetime | None)
    except msgspec.MsgspecError:
        raise TsmError(ErrorCode.INVALID_INPUT, "id or occurred_at") from None
    signal = signal_of(names[0], content[names[0]], source=source, id=id, occurred_at=given)
    return msgspec.structs.replace(signal, occurred_at=in_utc(signal.occurred_at, "occurred_at"))


def members_of(line: bytes) -> dict[str, Any]:
    """Of a JSON object in which no name comes twice; nothing of anything else."""
    try:
        content = msgspec.json.decode(line, type=dict[str, Any])
        refuse_repeated_names(line)
    except UNREADABLE:
        return {}
    return content


def id_in(line: bytes) -> str:
    """The id of a line that is refused, if it has one that can be told."""
    id = members_of(line).get("id", "")
    return id if isinstance(id, str) and len(id) <= 64 and id.isprintable() else ""


def field_of(error: Exception) -> tuple[str, ...]:
    """The member that is wrong; the rest of the words could repeat what came."""
    place = str(error).rpartition("`$.")[2]
    name = place.removesuffix("`")
    return (name,) if name in PlainSignal.__struct_fields__ else ()


def context_of(caller: Caller, request_id: str) -> Context:
    return Context(
        actor=caller.actor,
        role=caller.role,
        tenant=caller.party,
        correlation=f"signals-{request_id}",
        request=request_id,
    )


def routes(parts: "Parts") -> list[Route]:
    signals, limits = Signals(parts), parts.settings.limits
    return [
        Route("/mno/signals", Feed(parts.access, limits, signals.record), methods=["POST"]),
        Route("/mno/subjects", Feed(parts.access, limits, signals.map_subjects), methods=["POST"]),
    ]
