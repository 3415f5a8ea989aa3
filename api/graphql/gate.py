"""The way of a request from its members to its result, whatever brought it here: POST, GET, events or a websocket.

The order: has this client anything left to spend; the text; its limits; is it valid; may this role select these fields;
what it costs. Only then something runs, with a time limit. What was unsealed is recorded before a result leaves.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeGuard

import msgspec
from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute,
)
from graphql.execution.execute import (
    create_source_event_stream,
    execute_subscription_event,
    map_source_to_response_event,
)
from strawberry import Schema

from api.access import Access, Caller
from api.graphql.authorization import STANDS_FOR
from api.graphql.context import Context, MakeContext
from api.graphql.documents import NOT_ALLOWED, NOT_VALID, Document, Persisted, Refused, read, refused
from api.graphql.limits import cost
from api.limits import Balance, Budgets, EdgeLimits
from api.metrics import Metrics
from tsm.errors import MESSAGES, ErrorCode, TsmError
from tsm.store.loop import run

TOO_MANY, UNAVAILABLE = 429, 503
REFUSED_COST = 100  # objects: what a request that is refused takes from the budget, beside the reading of its document
LOOKED_AT = 1000  # events in which those of a mutation that ran out of time are looked for

Refusals = Callable[[DocumentNode, str | None, str, GraphQLSchema], Sequence[GraphQLError]]  # by operation and role


class Asked(msgspec.Struct, frozen=True, rename={"document_id": "documentId", "operation_name": "operationName"}):
    """The members of a request; others are ignored, as the specification asks."""

    query: str | None = None
    document_id: str | None = None
    operation_name: str | None = None
    variables: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


@dataclass(frozen=True)
class Admitted:
    """A request that may run."""

    caller: Caller
    document: Document
    operation: OperationDefinitionNode
    variables: Mapping[str, Any]
    operation_name: str | None
    charge: Mapping[str, int]

    @property
    def kind(self) -> OperationType:
        return self.operation.operation


class OverBudget(Refused):
    """The client has spent its minute."""

    def __init__(self, balance: Balance, charge: Mapping[str, int]) -> None:
        error = GraphQLError(MESSAGES[ErrorCode.RATE_LIMITED], extensions={"code": ErrorCode.RATE_LIMITED})
        super().__init__(TOO_MANY, [error])
        self.wait = balance.wait
        self.charge = charge


@dataclass(frozen=True)
class Gate:
    """Admits requests to one schema, and runs them."""

    schema: Schema
    access: Access
    make_context: MakeContext
    refusals: Refusals  # of `api.graphql.authorization`
    clock: Callable[[], datetime]
    roles: frozenset[str]  # who may ask at all
    limits: EdgeLimits = field(default_factory=EdgeLimits)
    persisted: Persisted = field(default_factory=lambda: Persisted({}))
    only_persisted: frozenset[str] = frozenset()  # roles
    ide_roles: frozenset[str] = frozenset()  # who gets GraphiQL: those who may introspect
    budgets: Budgets = field(default_factory=Budgets)
    metrics: Metrics = field(default_factory=Metrics)

    async def caller(self, scope: MutableMapping[str, Any]) -> Caller:
        """Who asks, over HTTP or a websocket: UNAUTHENTICATED or FORBIDDEN when it is nobody who may."""
        caller = await run(self.access.of, scope)
        if caller.role not in self.roles:
            raise TsmError(ErrorCode.FORBIDDEN, f"{caller.role} {caller.party} asks nothing here")
        return caller

    def enter(self, caller: Caller) -> None:
        """Takes the first object of whoever comes with a request, before it is read: `Refused` when none is left."""
        balance = self.budgets.spend(caller.client, 1, self.limits.minute_of(caller.role))
        if balance.wait:
            self.metrics.graphql_refused(caller.role, ErrorCode.RATE_LIMITED)
            raise OverBudget(balance, self._charge(1, balance))

    def fine(self, caller: Caller) -> None:
        """Takes what a request costs that was read in vain."""
        self.budgets.fine(caller.client, REFUSED_COST, self.limits.minute_of(caller.role))

    def admit(self, caller: Caller, asked: Asked) -> Admitted:
        """The request of a caller who has entered. `Refused` for what may not run; that costs, too."""
        try:
            admitted = self._admit(caller, asked, self.limits.minute_of(caller.role))
        except Refused as error:
            if not isinstance(error, OverBudget):
                self.fine(caller)
            code = (error.errors[0].extensions or {}).get("code", ErrorCode.INVALID_INPUT)
            self.metrics.graphql_refused(caller.role, code)
            raise
        self.metrics.graphql_admitted(caller.role, admitted.charge["requestedQueryCost"])
        return admitted

    def _admit(self, caller: Caller, asked: Asked, minute: int) -> Admitted:
        variables = asked.variables or {}
        document = read(
            self.schema._schema,
            self._text(caller, asked),
            lambda price: self.budgets.fine(caller.client, price, minute),
        )
        operation = document.operation(asked.operation_name)
        if errors := self.refusals(document.node, asked.operation_name, caller.role, self.schema._schema):
            raise Refused(NOT_ALLOWED, errors)
        price = cost(self.schema._schema, document.node, operation, variables)
        if price > min(self.limits.cost_per_request, minute):
            raise self._too_dear(price, minute)
        balance = self.budgets.spend(caller.client, price - 1, minute)
        charge = self._charge(price, balance)
        if balance.wait:
            again = self.budgets.spend(caller.client, price, minute)  # not there either: when it will be
            raise OverBudget(again, charge)
        return Admitted(caller, document, operation, variables, asked.operation_name, charge)

    def _text(self, caller: Caller, asked: Asked) -> str:
        if asked.query is not None and asked.document_id is not None:
            raise refused(NOT_VALID, "query and documentId exclude each other")
        if asked.document_id is not None:
            return self.persisted.text(asked.document_id)
        if asked.query is None:
            raise refused(NOT_VALID, "query or documentId is needed")
        if {caller.role, STANDS_FOR.get(caller.role)} & self.only_persisted:
            raise refused(NOT_ALLOWED, "this client may run persisted documents only", ErrorCode.FORBIDDEN)
        return asked.query

    def _charge(self, price: int, balance: Balance) -> Mapping[str, int]:
        """What a client is told of its costs."""
        return {
            "requestedQueryCost": price,
            "maximumAvailable": self.limits.cost_per_request,
            "currentlyAvailable": balance.available,
        }

    def _too_dear(self, price: int, minute: int) -> Refused:
        limit = min(self.limits.cost_per_request, minute)
        charge = {"requestedQueryCost": price, "maximumAvailable": limit}
        extensions = {"code": ErrorCode.MESSAGE_TOO_LARGE, "cost": charge}
        return Refused(NOT_VALID, [GraphQLError(f"the query exceeds {limit} objects", extensions=extensions)])

    async def execute(self, admitted: Admitted, request_id: str) -> ExecutionResult:
        """The result of a query or a mutation. `TsmError` when what was unsealed cannot be recorded.

        The time limit is met where the work waits: for the database, for a commit, for a read model.
        """
        context = self.make_context(admitted.caller, request_id)
        mutates = admitted.kind is OperationType.MUTATION
        began_at = await run(lambda: context.log.position) if mutates else None
        try:
            async with asyncio.timeout(self.limits.execution_seconds):
                result = await run(self._execute, admitted, context)
        except TimeoutError:
            raise await run(self._late, context, began_at) from None
        if result.data is None and not any(error.path for error in result.errors or ()):
            raise Refused(NOT_VALID, result.errors or [])  # its variables do not fit
        return result

    def _execute(self, admitted: Admitted, context: Context) -> ExecutionResult:
        result = execute(
            self.schema._schema,
            admitted.document.node,
            variable_values=dict(admitted.variables),
            operation_name=admitted.operation_name,
            context_value=context,
            is_awaitable=never,
            executor_class=self.schema.execution_context_class,
        )
        context.finish(admitted.document.blank_sha256)
        return result  # type: ignore[return-value]  # nothing in it is awaitable

    def _late(self, context: Context, began_at: int | None) -> Refused:
        """What a mutation has committed stays. What it was about to commit may yet be: its key says what came of it."""
        extensions: dict[str, Any] = {"code": ErrorCode.TIMEOUT}
        if began_at is not None:
            events = context.log.read(began_at, LOOKED_AT)
            extensions["committed"] = [e.position for e in events if e.context.request == context.request_id]
        return Refused(UNAVAILABLE, [GraphQLError(MESSAGES[ErrorCode.TIMEOUT], extensions=extensions)])

    async def stream(self, admitted: Admitted, request_id: str) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription as they come, or the one of a query; `Refused` when it cannot begin."""
        if admitted.kind is not OperationType.SUBSCRIPTION:
            yield await self.execute(admitted, request_id)
            return
        context = self.make_context(admitted.caller, request_id)
        executor: Any = self.schema.execution_context_class.build(
            self.schema._schema,
            admitted.document.node,
            context_value=context,
            raw_variable_values=dict(admitted.variables),
            operation_name=admitted.operation_name,
        )
        if isinstance(executor, list):
            raise Refused(NOT_VALID, executor)
        source: Any = create_source_event_stream(executor)
        if inspect.isawaitable(source):
            source = await source
        if isinstance(source, ExecutionResult):
            raise Refused(NOT_VALID, source.errors or [])
        # Each answer is made as that of a query: where it waits for the database, the loop goes on.
        answers = map_source_to_response_event(executor, source, lambda each: run(_answer, each))
        async with aclosing(answers) as results:
            async for result in results:
                await run(context.finish, admitted.document.blank_sha256)
                yield result


def never(_: object) -> TypeGuard[Awaitable[Any]]:
    """Resolvers are plain functions (`api.graphql.context`)."""
    return False


def _answer(executor: Executor[Any]) -> ExecutionResult:
    return execute_subscription_event(executor)  # type: ignore[return-value]  # nothing in it is awaitable
