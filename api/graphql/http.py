"""GraphQL over HTTP: one POST, JSON in, JSON out, for auditors.

`application/graphql-response+json` is the answer's type unless the client asks for `application/json` only. With the
first, a query that does not parse, validate or fit its variables is answered with 400 and no `data`; the second keeps
to 200, as older clients expect. Every error has `extensions.code`, one of the codes of `tsm.errors`, and
`extensions.requestId`, under which the server's log has the rest. Refusals before any GraphQL (no certificate, not
JSON, too large) look as everywhere else in the API. No GET, no batches, no cookies.
"""

from typing import Annotated, Any

import msgspec
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from strawberry import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from api.access import AUDITOR, Access
from api.errors import logged, read_body, request_id
from api.graphql.context import Context, MakeContext
from api.graphql.limits import MAX_BODY
from tsm.errors import MESSAGES, ErrorCode, TsmError
from tsm.store.loop import run

GRAPHQL_JSON = "application/graphql-response+json"
JSON = "application/json"
WILDCARDS = {"application/*", "*/*"}


class Query(msgspec.Struct, frozen=True):
    """The body of a request; unknown members are ignored, as the specification asks."""

    query: Annotated[str, msgspec.Meta(min_length=1)]
    variables: dict[str, Any] | None = None
    operationName: str | None = None


class GraphQLEndpoint:
    """The handler of `POST /graphql`."""

    def __init__(self, schema: Schema, access: Access, make_context: MakeContext) -> None:
        self._schema = schema
        self._access = access
        self._make_context = make_context

    async def answer(self, request: Request) -> Response:
        caller = self._access.demand(request, AUDITOR)
        if media_type(request.headers.get("content-type", "")) != JSON:
            return refusal(request, 415, "send application/json")
        answer_type = negotiate(request.headers.get("accept", ""))
        if answer_type is None:
            return refusal(request, 406, f"accept {GRAPHQL_JSON} or {JSON}")
        query = read_query(await read_body(request, MAX_BODY))
        result = await run(execute, self._schema, query, self._make_context(caller, request_id(request)))
        return respond(request, result, answer_type)


def read_query(body: bytes) -> Query:
    """MALFORMED_MESSAGE for anything but one query with its variables."""
    try:
        return msgspec.json.decode(body, type=Query)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise TsmError(ErrorCode.MALFORMED_MESSAGE, type(error).__name__) from None


def execute(schema: Schema, query: Query, context: Context) -> ExecutionResult:
    try:
        return schema.execute_sync(
            query.query,
            variable_values=query.variables,
            operation_name=query.operationName,
            context_value=context,
            allowed_operation_types=(OperationType.QUERY,),
        )
    except CannotGetOperationTypeError:
        return ExecutionResult(data=None, errors=[GraphQLError("the document has no operation of that name")])
    except InvalidOperationTypeError:
        return ExecutionResult(data=None, errors=[GraphQLError("only queries are offered")])


def respond(request: Request, result: ExecutionResult, answer_type: str) -> Response:
    """No `data` member and, in the newer type, status 400 when the query could not be run at all."""
    errors = result.errors or []
    never_ran = result.data is None and not any(error.path for error in errors)
    content: dict[str, Any] = {} if never_ran else {"data": result.data}
    if errors:
        content["errors"] = [told(request, error) for error in errors]
    return Response(
        msgspec.json.encode(content),
        status_code=400 if never_ran and answer_type == GRAPHQL_JSON else 200,
        media_type=answer_type,
        headers={"Cache-Control": "no-store"},
    )


def told(request: Request, error: GraphQLError) -> dict[str, Any]:
    """An error as it may leave: the query's own faults in full, ours by code only."""
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        code, message = (error.extensions or {}).get("code", ErrorCode.INVALID_INPUT), error.message
    else:
        code = logged(request, cause)
        message = MESSAGES[code]
    return {
        **error.formatted,
        "message": message,
        "extensions": {"code": code, "requestId": request_id(request)},
    }


def refusal(request: Request, status: int, message: str) -> Response:
    content = {"code": ErrorCode.INVALID_INPUT, "message": message, "requestId": request_id(request)}
    return JSONResponse(content, status)


def media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def negotiate(accept: str) -> str | None:
    """The type of the answer; None when the client takes neither."""
    wanted = {media_type(part) for part in accept.split(",")} - {""}
    if GRAPHQL_JSON in wanted:
        return GRAPHQL_JSON
    if JSON in wanted:
        return JSON
    return GRAPHQL_JSON if not wanted or wanted & WILDCARDS else None
