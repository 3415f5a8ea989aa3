"""Events to JSON and back: a form that an auditor reads without our code.

    {"topic": "card.keys_put", "version": 1, "stream": "card-8981...", "number": 7,
     "occurred_at": "2026-11-21T02:12:00Z", "context": {"actor": "phone", "correlation": "...", ...},
     "data": {"domain": "A0000001510000", "key_version": 2, "check_values": ["e79c05", ...]}}

A personal field is sealed under its subject's data key and bound to stream, number, topic and name, so that it opens
nowhere else: `{"sealed_under": "<key id>", "value": "<Base64 of nonce, ciphertext, tag>"}`. Once the subject's key is
destroyed the field reads `ERASED`, and the event remains what it was.

Topics are looked up in the list of facts that is passed in, never imported by name from a row.
"""

import base64
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from eventsourcing.persistence import Mapper, StoredEvent

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Identifier
from tsm.model.event import Context, Event, Fact
from tsm.store.recorder import RecordedEvent

ERASED = "[erased]"  # what a personal field reads once its subject's key is destroyed
SEALED = "[sealed]"  # what it reads for whoever did not ask to have it unsealed
Unseals = Mapping[str, Collection[str]]  # the personal fields that a reader needs, by topic


Data = TypeVar("Data")


class FieldSealer(Protocol):
    """What seals personal fields: the vault."""

    def seal(self, subject: str, plaintext: bytes, aad: bytes) -> tuple[str, bytes]: ...
    def unseal(self, key_id: str, sealed: bytes, aad: bytes) -> bytes: ...


class Envelope(msgspec.Struct, Generic[Data], frozen=True, gc=False):
    """The stored form, in the order in which one reads it."""

    topic: str
    version: int
    stream: str
    number: int
    occurred_at: datetime
    context: Context
    data: Data


class SealedField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A personal field in the log."""

    sealed_under: str
    value: str


class JsonMapper(Mapper[str]):
    """The `Mapper` contract of the eventsourcing library for `Event`."""

    def __init__(self, facts: Iterable[type[Fact]], sealer: FieldSealer) -> None:
        """`TsmError(INTERNAL)` when two facts share a topic or a sealed fact has no text field `subject`."""
        self._sealer = sealer
        self._facts: dict[str, type[Fact]] = {}
        for fact in facts:
            if self._facts.setdefault(fact.topic, fact) is not fact:
                raise TsmError(ErrorCode.INTERNAL, f"two facts have the topic {fact.topic}")
            if fact.sealed and not {"subject", *fact.sealed} <= set(fact.__struct_fields__):
                raise TsmError(ErrorCode.INTERNAL, f"{fact.topic} lacks its subject or a sealed field")
        self._decoders = {
            topic: msgspec.json.Decoder(Envelope[fact])  # type: ignore[valid-type]
            for topic, fact in self._facts.items()
            if not fact.sealed
        }
        self._envelope = msgspec.json.Decoder(Envelope[msgspec.Raw])
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)

    def to_stored_event(self, domain_event: Event) -> StoredEvent:  # type: ignore[override]  # events of one class
        """`TsmError(INVALID_INPUT)` for an unlisted fact or a time that is not UTC."""
        fact = domain_event.fact
        if self._facts.get(fact.topic) is not type(fact):
            raise TsmError(ErrorCode.INVALID_INPUT, f"{type(fact).__name__} is not a listed fact")
        if domain_event.occurred_at.utcoffset() != timedelta(0):
            raise TsmError(ErrorCode.INVALID_INPUT, "occurred_at is not in UTC")
        stream, number = domain_event.originator_id, domain_event.originator_version
        data = self._sealed(fact, stream, number) if fact.sealed else fact
        envelope = {
            "topic": fact.topic,
            "version": fact.class_version,
            "stream": stream,
            "number": number,
            "occurred_at": domain_event.occurred_at,
            "context": domain_event.context,
            "data": data,
        }
        return StoredEvent(stream, number, fact.topic, self._encoder.encode(envelope))

    def to_domain_event(self, stored_event: StoredEvent, unseals: Unseals | None = None) -> Event:
        """With position and recorded_at when the recorder gave them.

        All personal fields are unsealed, or those of `unseals`, while the others read `SEALED`.

        `TsmError`: STORE_CORRUPT when it does not decode, lies in another place than it says, or has an unlisted topic;
        STORE_FORMAT when a newer program wrote it.
        """
        try:
            envelope = self._opened(stored_event, unseals)
            _refuse_other_place(envelope, stored_event)
        except (msgspec.MsgspecError, ValueError, KeyError) as error:
            raise _corrupt(stored_event, type(error).__name__) from None  # the message could quote the data
        position, recorded_at = (
            (stored_event.id, stored_event.recorded_at) if isinstance(stored_event, RecordedEvent) else (0, None)
        )
        return Event(
            originator_id=envelope.stream,
            originator_version=envelope.number,
            occurred_at=envelope.occurred_at,
            context=envelope.context,
            fact=envelope.data,
            position=position,
            recorded_at=recorded_at,
        )

    def _sealed(self, fact: Fact, stream: str, number: int) -> dict[str, object]:
        data: dict[str, Any] = msgspec.to_builtins(fact, enc_hook=_plain)
        for field in fact.sealed:
            if data[field] == "":  # says nothing of anybody
                continue
            place = _place(stream, number, fact.topic, field)
            key_id, sealed = self._sealer.seal(data["subject"], data[field].encode(), place)
            data[field] = SealedField(key_id, base64.b64encode(sealed).decode())
        return data

    def _opened(self, stored: StoredEvent, unseals: Unseals | None) -> Envelope[Fact]:
        """In one step when nothing has to be unsealed or upcast."""
        decoder = self._decoders.get(stored.topic)
        if decoder is not None:
            try:
                envelope: Envelope[Fact] = decoder.decode(stored.state)
            except msgspec.ValidationError:
                pass  # of another version, perhaps
            else:
                if envelope.version == self._facts[stored.topic].class_version:
                    return envelope
        closed = self._envelope.decode(stored.state)
        fact = self._fact(closed, None if unseals is None else unseals.get(closed.topic, ()))
        return Envelope(
            closed.topic, closed.version, closed.stream, closed.number, closed.occurred_at, closed.context, fact
        )

    def _fact(self, envelope: Envelope[msgspec.Raw], unsealed: Collection[str] | None) -> Fact:
        cls = self._facts.get(envelope.topic)
        if cls is None:
            raise TsmError(ErrorCode.STORE_CORRUPT, f"unlisted topic {envelope.topic}")
        if envelope.version > cls.class_version:
            raise TsmError(ErrorCode.STORE_FORMAT, f"{envelope.topic} version {envelope.version} is newer than we are")
        data = msgspec.json.decode(envelope.data, type=dict[str, Any])
        for field, value in data.items():
            if isinstance(value, dict) and "sealed_under" in value:
                wanted = unsealed is None or field in unsealed
                sealed = msgspec.convert(value, SealedField)
                data[field] = self._unsealed(envelope, field, sealed) if wanted else SEALED
        for version in range(envelope.version, cls.class_version):
            getattr(cls, f"upcast_v{version}_v{version + 1}")(data)
        return msgspec.convert(data, cls)

    def _unsealed(self, envelope: Envelope[msgspec.Raw], field: str, value: SealedField) -> str:
        place = _place(envelope.stream, envelope.number, envelope.topic, field)
        sealed = base64.b64decode(value.value, validate=True)
        try:
            return self._sealer.unseal(value.sealed_under, sealed, place).decode()
        except TsmError as refusal:
            if refusal.code is ErrorCode.UNKNOWN_KEY:
                return ERASED
            raise TsmError(ErrorCode.STORE_CORRUPT, f"{envelope.topic}.{field} was sealed elsewhere") from None


def _plain(value: object) -> str:
    """An identifier is stored as the text that it is."""
    if isinstance(value, Identifier):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _place(stream: str, number: int, topic: str, field: str) -> bytes:
    return f"{stream}|{number}|{topic}|{field}".encode()


def _refuse_other_place(envelope: Envelope[Fact], stored: StoredEvent) -> None:
    told = (envelope.stream, envelope.number, envelope.topic)
    if told != (stored.originator_id, stored.originator_version, stored.topic):
        raise _corrupt(stored, "lies in another place than it says")


def _corrupt(stored: StoredEvent, why: str) -> TsmError:
    place = f"{stored.originator_id} {stored.originator_version} {stored.topic}"
    return TsmError(ErrorCode.STORE_CORRUPT, f"{place}: {why}")
