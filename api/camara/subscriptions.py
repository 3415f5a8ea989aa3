"""CAMARA sim-swap-subscriptions 0.3.0: relying parties that want to be told when the SIM of a line changes.

    POST   /sim-swap-subscriptions/v0.3/subscriptions         SubscriptionRequest -> 201 Subscription
    GET    /sim-swap-subscriptions/v0.3/subscriptions         -> [Subscription]
    GET    /sim-swap-subscriptions/v0.3/subscriptions/{id}    -> Subscription
    DELETE /sim-swap-subscriptions/v0.3/subscriptions/{id}    -> 204

A relying party sees its own subscriptions that have not ended, and of these: with a token of three legs those of its
holder's line, whoever named that line then, and never the number; with a token of two legs those that it made by a
number. Whoever is shown a number is recorded as its reader.

What is sent to a sink, and when: `tsm.flows.swap_notices`, `api.camara.cloud_events`, `api.camara.sinks`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access import SERVER
from api.camara import openapi
from api.camara.answers import NO_STORE, Code, Refused, answer, mounted, read_object
from api.camara.cloud_events import SWAPPED
from api.camara.lines import Lines, PhoneNumber, stream_of
from api.camara.sinks import SECRET
from api.camara.tokens import Consumer
from api.errors import request_id
from tsm.errors import ErrorCode, TsmError
from tsm.flows.subscriptions import Credential, Found, Wish
from tsm.model.event import Context
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts

NAME, PATH = "sim-swap-subscriptions", "/sim-swap-subscriptions/v0.3"
CREATE, READ, DELETE = f"{NAME}:{SWAPPED}:create", f"{NAME}:read", f"{NAME}:delete"  # scopes
LARGEST_REQUEST = 16 * 1024  # octets: access tokens are long
BEARER = "bearer"
TOO_MANY = "more subscriptions than one relying party may have, or too many of whose end its sinks are not yet told"
LONG = 3600  # seconds after which it makes sense to try again to have one more subscription

Missing = msgspec.UnsetType
Given = TypeVar("Given")
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Detail(msgspec.Struct, frozen=True, rename="camel"):
    """Of which line; without a number, of the token's."""

    phone_number: PhoneNumber | Missing = msgspec.UNSET


class Config(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is subscribed to, and until when."""

    subscription_detail: Detail
    subscription_expire_time: Moment | Missing = msgspec.UNSET
    subscription_max_events: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | Missing = msgspec.UNSET


class SinkCredential(msgspec.Struct, frozen=True, rename="camel"):
    """What opens the sink; of three types that there could be, one is taken."""

    credential_type: Literal["PLAIN", "ACCESSTOKEN", "REFRESHTOKEN"]
    access_token: str = ""
    access_token_expires_utc: Moment | Missing = msgspec.UNSET
    access_token_type: str | Missing = msgspec.UNSET


class HttpSettings(msgspec.Struct, frozen=True):
    """How the sink is to be posted to."""

    method: Literal["POST"] = "POST"
    headers: Mapping[str, str] = {}


class SubscriptionRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What a relying party asks for."""

    protocol: Literal["HTTP", "MQTT3", "MQTT5", "AMQP", "NATS", "KAFKA"]
    sink: str
    types: Annotated[tuple[Literal["org.camaraproject.sim-swap-subscriptions.v0.swapped"], ...],
                     msgspec.Meta(min_length=1, max_length=1)]  # fmt: skip
    config: Config
    sink_credential: SinkCredential | Missing = msgspec.UNSET
    protocol_settings: HttpSettings | Missing = msgspec.UNSET


class Told(msgspec.Struct, frozen=True, rename="camel"):
    """A subscription, as it is shown."""

    id: str
    protocol: str
    sink: str
    types: Sequence[str]
    config: Config
    starts_at: datetime
    status: str
    expires_at: datetime | Missing = msgspec.UNSET


class SubscriptionRoutes:
    """The routes."""

    def __init__(self, parts: "Parts") -> None:
        self._door = parts.door
        self._lines = parts.lines
        self._readings = parts.readings
        self._subscriptions = parts.subscriptions
        self._sinks = parts.sinks

    async def create(self, request: Request) -> Response:
        consumer = await run(self._door.admit, request.scope, [CREATE])
        asked = await self._read(request)
        found = await run(self._created, request, consumer, asked)
        return answer(told(found, numbered=not consumer.subject), 201)

    async def list(self, request: Request) -> Response:
        consumer = await run(self._door.admit, request.scope, [READ])
        return answer(await run(self._listed, request, consumer))

    async def read(self, request: Request) -> Response:
        consumer = await run(self._door.admit, request.scope, [READ])
        return answer(await run(self._one, request, consumer))

    async def delete(self, request: Request) -> Response:
        consumer = await run(self._door.admit, request.scope, [DELETE])
        await run(self._deleted, request, consumer)
        return Response(status_code=204, headers=NO_STORE)

    # Inside

    async def _read(self, request: Request) -> SubscriptionRequest:
        """INVALID_ARGUMENT, INVALID_PROTOCOL, INVALID_SINK."""
        asked = await read_object(request, SubscriptionRequest, LARGEST_REQUEST)
        if asked.protocol != "HTTP":
            raise Refused(Code.INVALID_PROTOCOL)
        if not isinstance(asked.protocol_settings, Missing) and asked.protocol_settings.headers:
            raise Refused(Code.INVALID_ARGUMENT, "no headers of protocolSettings are sent: leave them out")
        try:
            self._sinks.refuse(asked.sink)
        except (TsmError, ValueError):
            raise Refused(Code.INVALID_SINK) from None
        return asked

    def _created(self, request: Request, consumer: Consumer, asked: SubscriptionRequest) -> Found:
        config = asked.config
        credential, ends_at = given(asked.sink_credential), given(config.subscription_expire_time)
        number = given(config.subscription_detail.phone_number)
        wish = Wish(
            client=consumer.caller.client,
            sink=asked.sink,
            credential=None if credential is None else credential_of(credential),
            max_events=given(config.subscription_max_events) or 0,
            ends_at=None if ends_at is None else utc(ends_at, "config.subscriptionExpireTime"),
            purpose=consumer.purpose,
            line=line_meant(self._lines, consumer, number),
            msisdn=number or "",
            subject=subject_of(consumer),
        )
        self._end_lost(consumer)
        try:
            return self._subscriptions.create(wish, context_of(request, consumer))
        except TsmError as error:
            raise refusal_of(error) from error

    def _listed(self, request: Request, consumer: Consumer) -> Sequence[Told]:
        mine = self._subscriptions.of_client(consumer.caller.client)
        line = self._line(consumer)
        return self._shown(request, consumer, [found for found in mine if visible(found, consumer, line)], "")

    def _one(self, request: Request, consumer: Consumer) -> Told:
        return self._shown(request, consumer, [self._found(request, consumer)], "/{subscriptionId}")[0]

    def _deleted(self, request: Request, consumer: Consumer) -> None:
        found = self._found(request, consumer)
        self._subscriptions.delete(found.id, consumer.caller.client, context_of(request, consumer))

    def _found(self, request: Request, consumer: Consumer) -> Found:
        """The one that the path names, if this token opens it. NOT_FOUND."""
        id = request.path_params["id"]
        found = self._subscriptions.of(id, consumer.caller.client) if is_id(id) else None
        if found is None or not visible(found, consumer, self._line(consumer)):
            raise Refused(Code.NOT_FOUND)
        return found

    def _line(self, consumer: Consumer) -> str | None:
        """Of three legs, the line's stream, if there is one."""
        self._end_lost(consumer)
        return self._lines.stream_of_subject(consumer.issuer, consumer.subject) if consumer.subject else None

    def _end_lost(self, consumer: Consumer) -> None:
        """What the token's subject can see no more, for it has another line by now, is not left behind."""
        if consumer.subject:
            self._subscriptions.end_lost(subject_of(consumer))

    def _shown(self, request: Request, consumer: Consumer, found: Sequence[Found], which: str) -> Sequence[Told]:
        """As they are shown; whoever is shown numbers is recorded before."""
        numbered = not consumer.subject
        if numbered and found:
            asked = hashlib.sha256(f"GET {PATH}/subscriptions{which}".encode()).hexdigest()
            subjects = [one.state.created.subject for one in found]
            self._readings.record(consumer.caller, request_id(request), consumer.purpose, asked, subjects)
        return [told(one, numbered) for one in found]


def visible(found: Found, consumer: Consumer, line: str | None) -> bool:
    """Whether the token opens that subscription of its client; `line` is its holder's, with three legs."""
    return found.state.created.line == line if consumer.subject else bool(found.number)


def subject_of(consumer: Consumer) -> str:
    """As rows name it; empty with two legs."""
    return f"{consumer.issuer}|{consumer.subject}" if consumer.subject else ""


def told(found: Found, numbered: bool) -> Told:
    """As it is shown; `numbered`: with the number, as a token of two legs demands."""
    created = found.state.created
    ends_at = msgspec.UNSET if created.ends_at is None else created.ends_at
    return Told(
        id=found.id,
        protocol="HTTP",
        sink=created.sink,
        types=[SWAPPED],
        config=Config(
            subscription_detail=Detail(found.number) if numbered else Detail(),
            subscription_expire_time=ends_at,
            subscription_max_events=created.max_events or msgspec.UNSET,
        ),
        starts_at=found.began.occurred_at,
        expires_at=ends_at,
        status="ACTIVE",
    )


def line_meant(lines: Lines, consumer: Consumer, number: str | None) -> str:
    """The line's stream. MISSING_IDENTIFIER, UNNECESSARY_IDENTIFIER; SERVICE_NOT_APPLICABLE for a number unknown here.

    The look-ups say IDENTIFIER_NOT_FOUND of such a number; this definition has no 404 for a new subscription.
    """
    try:
        return stream_of(lines, consumer, number)
    except Refused as refused:
        if refused.told is Code.IDENTIFIER_NOT_FOUND:
            raise Refused(Code.SERVICE_NOT_APPLICABLE) from None
        raise


def credential_of(said: SinkCredential) -> Credential:
    """INVALID_CREDENTIAL, INVALID_TOKEN, INVALID_ARGUMENT."""
    if said.credential_type != "ACCESSTOKEN":
        raise Refused(Code.INVALID_CREDENTIAL)
    if said.access_token_type not in (msgspec.UNSET, BEARER):
        raise Refused(Code.INVALID_TOKEN)
    ends_at = given(said.access_token_expires_utc)
    if ends_at is None or said.access_token_type is msgspec.UNSET or not SECRET.fullmatch(said.access_token):
        raise Refused(Code.INVALID_ARGUMENT, "sinkCredential is not as specified")
    return Credential(said.access_token, utc(ends_at, "sinkCredential.accessTokenExpiresUtc"))


def refusal_of(error: TsmError) -> TsmError:
    """What the definition calls it."""
    match error.code, error.field:
        case ErrorCode.INVALID_INPUT, ("sink",):
            return Refused(Code.INVALID_SINK)
        case ErrorCode.INVALID_INPUT, ("ends_at",):
            return Refused(Code.INVALID_ARGUMENT, "config.subscriptionExpireTime is not in the future")
        case ErrorCode.INVALID_INPUT, ("credential_ends_at",):
            return Refused(
                Code.INVALID_ARGUMENT, "sinkCredential.accessTokenExpiresUtc is over, or will be in a minute"
            )
        case ErrorCode.NOT_FOUND, _:
            return Refused(Code.SERVICE_NOT_APPLICABLE)
        case ErrorCode.ALREADY_EXISTS, _:
            return Refused(Code.ALREADY_EXISTS)
        case ErrorCode.CONFLICT, _:
            return Refused(Code.ABORTED)
        case ErrorCode.RATE_LIMITED, _:
            return Refused(Code.QUOTA_EXCEEDED, TOO_MANY, LONG)
        case _:
            return error


def context_of(request: Request, consumer: Consumer) -> Context:
    id = request_id(request)
    return Context(actor=consumer.caller.actor, role=consumer.caller.role, tenant=SERVER, correlation=id, request=id)


def given(value: Given | Missing) -> Given | None:
    """None for a member that is not there."""
    return None if isinstance(value, Missing) else value


def utc(moment: datetime, what: str) -> datetime:
    """INVALID_ARGUMENT for a time that has none in UTC: at the very end of what can be written."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Refused(Code.INVALID_ARGUMENT, f"{what} is not as specified") from None


def is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def routes(parts: "Parts") -> Sequence[Route]:
    served = SubscriptionRoutes(parts)
    many, one = f"{PATH}/subscriptions", f"{PATH}/subscriptions/{{id}}"
    document = openapi.of_subscriptions(PATH, (CREATE, READ, DELETE), SWAPPED, parts.settings.openid)
    return [
        mounted(
            PATH,
            [
                Route(many, served.create, methods=["POST"]),
                Route(many, served.list, methods=["GET"]),
                Route(one, served.read, methods=["GET"]),
                Route(one, served.delete, methods=["DELETE"]),
                openapi.route(PATH, document),
            ],
        )
    ]
