"""What every transport of GraphQL has in common: how JSON is read, and what results and errors look like outside."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from graphql import ExecutionResult, GraphQLError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from api.errors import logged, request_id
from api.graphql.documents import NOT_VALID, Refused
from api.graphql.gate import OverBudget
from api.graphql.limits import MAX_ERRORS, check_values
from api.repeated_names import refuse_repeated_names
from tsm.errors import MESSAGES, ErrorCode, TsmError

GRAPHQL_JSON = "application/graphql-response+json"
JSON = "application/json"
EVENTS = "text/event-stream"
HTML = "text/html"
UTF_8 = "charset=utf-8"
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
FOREIGN = {"cross-site", "same-site"}  # Sec-Fetch-Site of what another site's page made a browser send


def read_json(body: bytes) -> object:
    """A JSON text in UTF-8 in which no name comes twice: readers differ in which of the two they take.

    MALFORMED_MESSAGE for anything else; `Refused` when it holds too much. The second reading costs more than the
    first, so it comes last.
    """
    try:
        value: object = msgspec.json.decode(body)
        if excesses := check_values(value):
            raise Refused(NOT_VALID, excesses)
        refuse_repeated_names(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TsmError(ErrorCode.MALFORMED_MESSAGE, type(error).__name__) from None
    return value


def result_content(connection: HTTPConnection, charge: Mapping[str, int], result: ExecutionResult) -> dict[str, Any]:
    """A GraphQL response of an operation that ran."""
    content: dict[str, Any] = {"data": result.data, "extensions": {"cost": charge}}
    if result.errors:
        content["errors"] = told_all(connection, result.errors)
    return content


def refused_content(connection: HTTPConnection, error: Refused) -> dict[str, Any]:
    """A GraphQL response of a request that did not run: without `data`."""
    content: dict[str, Any] = {"errors": told_all(connection, error.errors)}
    if isinstance(error, OverBudget):
        content["extensions"] = {"cost": error.charge}
    return content


def told_all(connection: HTTPConnection, errors: Sequence[GraphQLError]) -> list[dict[str, Any]]:
    """The first errors, and how many more there are."""
    told_now = [told(connection, error) for error in errors[:MAX_ERRORS]]
    if len(errors) > MAX_ERRORS:
        more = GraphQLError(f"{len(errors) - MAX_ERRORS} more errors")
        told_now.append(told(connection, more))
    return told_now


def told(connection: HTTPConnection, error: GraphQLError) -> dict[str, Any]:
    """An error as it may leave: the query's own faults in full, ours by code only."""
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        extensions, message = {"code": ErrorCode.INVALID_INPUT, **(error.extensions or {})}, error.message
    else:
        code = logged(connection, cause)
        extensions, message = {"code": code}, MESSAGES[code]
    return {
        **error.formatted,
        "message": message,
        "extensions": {**extensions, "requestId": request_id(connection)},
    }


def is_foreign(headers: Headers) -> bool:
    """Whether a page of another site made a browser send it: the browser may add a client certificate by itself."""
    origin = headers.get("origin")
    own = f"https://{headers.get('host', '')}"
    return headers.get("sec-fetch-site") in FOREIGN or (origin is not None and origin.lower() != own.lower())
