"""Our own OpenAPI 3.0.3 documents of CAMARA's APIs, made from the codes that we answer with: `GET <api>/openapi.json`.

`tests/conformance` holds them to CAMARA's definitions. They say more where we do: what a server answers beside the
definitions (a body that is too large, a media type that it does not take, a store that is not to be had).
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.camara.answers import JSON, MESSAGES, STATUS, Code

Json = Mapping[str, Any]

VERSIONS = {"sim-swap": "2.1.0", "device-swap": "1.0.0", "sim-swap-subscriptions": "0.3.0"}
CORRELATOR = r"^[a-zA-Z0-9-_:;.\/<>{}]{0,256}$"
NUMBER = r"^\+[1-9][0-9]{4,14}$"
LOOK_UP_CODES = (
    Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.NOT_FOUND,
    Code.IDENTIFIER_NOT_FOUND, Code.CONTENT_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.SERVICE_NOT_APPLICABLE,
    Code.MISSING_IDENTIFIER, Code.UNNECESSARY_IDENTIFIER, Code.QUOTA_EXCEEDED, Code.TOO_MANY_REQUESTS, Code.UNAVAILABLE,
)  # fmt: skip
PHONE_NUMBER: Json = {
    "type": "string",
    "pattern": NUMBER,
    "description": "A telephone number in the form of E.164, with the plus sign. Only with a token of two legs.",
}
SHARED: Json = {
    "XCorrelator": {"type": "string", "pattern": CORRELATOR},
    "PhoneNumber": PHONE_NUMBER,
    "ErrorInfo": {
        "type": "object",
        "required": ["status", "code", "message"],
        "properties": {
            "status": {"type": "integer", "description": "The HTTP status."},
            "code": {"type": "string", "description": "What a program can act on."},
            "message": {"type": "string", "description": "What a person can read."},
        },
    },
}
CORRELATOR_HEADER: Json = {
    "description": "That of the request; otherwise the id under which the server's log has it.",
    "schema": {"$ref": "#/components/schemas/XCorrelator"},
}


class Operation(NamedTuple):
    """One operation of an API, and what it answers."""

    path: str
    method: str
    id: str
    summary: str
    scopes: Sequence[str]  # any of them opens it
    answers: Json  # by status, what succeeds
    codes: Collection[Code]  # what it refuses with
    body: Json | None = None  # the schema of the request's
    parameters: Sequence[Json] = ()  # beside x-correlator


def document(name: str, title: str, path: str, operations: Sequence[Operation], schemas: Json, openid: str) -> Json:
    """The whole document. `openid` is the address of the issuer's OpenID configuration."""
    paths: dict[str, dict[str, Json]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = described(operation)
    return {
        "openapi": "3.0.3",
        "info": {"title": title, "version": VERSIONS[name], "x-camara-commonalities": 0.6},
        "servers": [{"url": path}],
        "paths": paths,
        "components": {
            "securitySchemes": {"openId": {"type": "openIdConnect", "openIdConnectUrl": openid}},
            "parameters": {
                "x-correlator": {"name": "x-correlator", "in": "header", "schema": CORRELATOR_HEADER["schema"]}
            },
            "headers": {"x-correlator": CORRELATOR_HEADER},
            "schemas": {**SHARED, **schemas},
        },
    }


def described(operation: Operation) -> Json:
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "security": [{"openId": [scope]} for scope in operation.scopes],
        "parameters": [{"$ref": "#/components/parameters/x-correlator"}, *operation.parameters],
        "responses": {**operation.answers, **refusals(operation.codes)},
    }
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": operation.body}}}
    return made


def refusals(codes: Collection[Code]) -> Json:
    """The responses that refuse, by status."""
    grouped = groupby(sorted(codes, key=lambda code: STATUS[code]), key=lambda code: STATUS[code])
    return {str(status): refusal(status, list(same)) for status, same in grouped}


def refusal(status: int, codes: Sequence[Code]) -> Json:
    narrowed = {"type": "object", "properties": {"status": {"enum": [status]}, "code": {"enum": list(codes)}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/ErrorInfo"}, narrowed]}
    return response("; or: ".join(MESSAGES[code] for code in codes), schema)


def response(description: str, schema: Json) -> Json:
    """With a body, whether it succeeds or refuses."""
    return {
        "description": description,
        "headers": {"x-correlator": {"$ref": "#/components/headers/x-correlator"}},
        "content": {JSON: {"schema": schema}},
    }


def of_swaps(name: str, path: str, latest: str, openid: str) -> Json:
    """sim-swap or device-swap; `latest` is the member that tells when it changed last."""
    what = "SIM" if name == "sim-swap" else "device"
    kind = "Sim" if name == "sim-swap" else "Device"
    number = {"phoneNumber": {"$ref": "#/components/schemas/PhoneNumber"}}
    schemas = {
        f"{kind}SwapDateRequest": {"type": "object", "properties": number},
        f"{kind}SwapCheckRequest": {"type": "object", "properties": {**number, "maxAge": MAX_AGE}},
        f"{kind}SwapDate": {
            "type": "object",
            "required": [latest],
            "properties": {
                latest: {"type": "string", "format": "date-time", "nullable": True},
                "monitoredPeriod": {"type": "integer", "description": "Days of which changes are told."},
            },
        },
        f"{kind}SwapCheck": {
            "type": "object",
            "required": ["swapped"],
            "properties": {"swapped": {"type": "boolean", "description": "Whether it changed within maxAge."}},
        },
    }

    def operation(verb: str, id: str, summary: str, asked: str, told: str) -> Operation:
        return Operation(
            path=f"/{verb}",
            method="post",
            id=id,
            summary=summary,
            scopes=(name, f"{name}:{verb}"),
            body=schema_of(asked),
            answers={"200": response("The answer.", schema_of(told))},
            codes=LOOK_UP_CODES,
        )

    operations = (
        operation(
            "retrieve-date", f"retrieve{kind}SwapDate", f"When the {what} changed last",
            f"{kind}SwapDateRequest", f"{kind}SwapDate",
        ),
        operation(
            "check", f"check{kind}Swap", f"Whether the {what} changed lately",
            f"{kind}SwapCheckRequest", f"{kind}SwapCheck",
        ),
    )  # fmt: skip
    return document(name, f"{kind} Swap", path, operations, schemas, openid)


def of_subscriptions(path: str, scopes: tuple[str, str, str], event: str, openid: str) -> Json:
    """sim-swap-subscriptions; the scopes are those to create, to read and to delete, `event` the type of its events."""
    create, read, delete = scopes
    told, identified = response("The subscription.", schema_of("Subscription")), subscription_schemas(event)
    accepted = response("Not answered by this server: it is done at once.", schema_of("SubscriptionAsync"))
    one: Json = {"name": "subscriptionId", "in": "path", "required": True, "schema": schema_of("SubscriptionId")}
    listed = {"type": "array", "minItems": 0, "items": schema_of("Subscription")}
    gone = {"description": "It ended.", "headers": {"x-correlator": {"$ref": "#/components/headers/x-correlator"}}}
    common = (Code.INVALID_ARGUMENT, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
    busy = (Code.QUOTA_EXCEEDED, Code.TOO_MANY_REQUESTS, Code.UNAVAILABLE)
    many, single = "/subscriptions", "/subscriptions/{subscriptionId}"
    operations = (
        Operation(
            many, "post", "createSimSwapSubscription", "Ask to be told when the SIM of a line changes", (create,),
            {"201": told, "202": accepted},
            (
                Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.INVALID_PROTOCOL, Code.INVALID_CREDENTIAL,
                Code.INVALID_TOKEN, Code.INVALID_SINK, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.ABORTED,
                Code.ALREADY_EXISTS, Code.CONTENT_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.SERVICE_NOT_APPLICABLE,
                Code.MISSING_IDENTIFIER, Code.UNNECESSARY_IDENTIFIER, *busy,
            ),
            body=schema_of("SubscriptionRequest"),
        ),
        Operation(
            many, "get", "retrieveSubscriptionList", "All subscriptions that the token opens", (read,),
            {"200": response("The subscriptions.", listed)}, (*common, *busy),
        ),
        Operation(
            single, "get", "retrieveSubscription", "A subscription", (read,),
            {"200": told}, (*common, Code.NOT_FOUND, *busy), parameters=(one,),
        ),
        Operation(
            single, "delete", "deleteSubscription", "End a subscription", (delete,),
            {"204": gone, "202": accepted}, (*common, Code.NOT_FOUND, *busy), parameters=(one,),
        ),
    )  # fmt: skip
    return document("sim-swap-subscriptions", "Sim Swap Subscriptions", path, operations, identified, openid)


TIME: Json = {"type": "string", "format": "date-time"}


def subscription_schemas(event: str) -> Json:
    """What the definition says of a subscription, and of what this server does with it."""
    kept: Json = {
        "protocol": schema_of("Protocol"),
        "sink": {
            "type": "string",
            "format": "uri",
            "pattern": r"^https:\/\/.+$",
            "description": "Where events are posted to: a host with public addresses only, and a certificate that the"
            " system's trust store knows.",
        },
        "types": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "string", "enum": [event]}},
        "config": schema_of("Config"),
    }
    required = ["sink", "protocol", "config", "types"]
    return {
        "SubscriptionRequest": {
            "type": "object",
            "required": required,
            "properties": {**kept, "sinkCredential": schema_of("SinkCredential")},
        },
        "Subscription": {
            "type": "object",
            "required": [*required, "id"],
            "properties": {
                **kept,
                "id": schema_of("SubscriptionId"),
                "startsAt": TIME,
                "expiresAt": TIME,
                "status": {
                    "type": "string",
                    "enum": ["ACTIVATION_REQUESTED", "ACTIVE", "EXPIRED", "INACTIVE", "DELETED"],
                    "description": "ACTIVE: one that has ended is not found any more.",
                },
            },
        },
        "Config": {
            "type": "object",
            "required": ["subscriptionDetail"],
            "properties": {
                "subscriptionDetail": {
                    "type": "object",
                    "properties": {"phoneNumber": {"$ref": "#/components/schemas/PhoneNumber"}},
                },
                "subscriptionExpireTime": TIME,
                "subscriptionMaxEvents": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "With which event it ends; 2147483647 at most, which the definition does not bound.",
                },
            },
        },
        "Protocol": {
            "type": "string",
            "enum": ["HTTP", "MQTT3", "MQTT5", "AMQP", "NATS", "KAFKA"],
            "description": "HTTP: all others are INVALID_PROTOCOL.",
        },
        "SinkCredential": {
            "type": "object",
            "required": ["credentialType"],
            "properties": {
                "credentialType": {
                    "type": "string",
                    "enum": ["PLAIN", "ACCESSTOKEN", "REFRESHTOKEN"],
                    "description": "ACCESSTOKEN: all others are INVALID_CREDENTIAL.",
                },
            },
            "discriminator": {
                "propertyName": "credentialType",
                "mapping": {"ACCESSTOKEN": "#/components/schemas/AccessTokenCredential"},
            },
        },
        "AccessTokenCredential": {
            "type": "object",
            "required": ["credentialType", "accessToken", "accessTokenExpiresUtc", "accessTokenType"],
            "properties": {
                "credentialType": {"type": "string", "enum": ["ACCESSTOKEN"]},
                "accessToken": {"type": "string"},
                "accessTokenExpiresUtc": TIME,
                "accessTokenType": {"type": "string", "enum": ["bearer"]},
            },
        },
        "SubscriptionId": {"type": "string"},
        "SubscriptionAsync": {"type": "object", "properties": {"id": schema_of("SubscriptionId")}},
    }


MAX_AGE: Json = {
    "type": "integer",
    "format": "int32",
    "minimum": 1,
    "maximum": 2400,
    "default": 240,
    "description": "Hours. Where fewer are monitored, more than these are OUT_OF_RANGE.",
}


def schema_of(name: str) -> Json:
    """A schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def route(path: str, content: Json) -> Route:
    """Where the document is to be had, by anybody."""
    body = msgspec.json.encode(content)

    async def told(_: Request) -> Response:
        return Response(body, media_type=JSON)

    return Route(f"{path}/openapi.json", told, methods=["GET"])
