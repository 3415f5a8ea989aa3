"""What a query may ask at most, and the gate that every query passes before it runs.

Parsing, the limits and validation are done once per query text and remembered: a client sends few different texts.
The limits come before validation, whose check for overlapping fields is quadratic. The weight of a fragment is computed
once, however often it is spread: fragments that spread each other twice would otherwise cost 2^n steps.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    validate,
)
from strawberry.extensions import SchemaExtension

from tsm.errors import ErrorCode

MAX_BODY = 100 * 1024  # octets of a request
MAX_TOKENS = 1000
MAX_DEPTH = 16  # the usual introspection query needs 15
MAX_ALIASES = 10
MAX_FIELDS = 500  # with every fragment spread out
REMEMBERED = 128  # query texts


class Weight(NamedTuple):
    """What a selection asks, with every fragment spread out."""

    depth: int = 0
    aliases: int = 0
    fields: int = 0


class Scales:
    """Weighs selections of one document. Cycles and unknown fragments weigh nothing: validation refuses them."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments: Mapping[str, FragmentDefinitionNode] = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._weights: dict[str, Weight] = {}

    def weigh(self, selections: SelectionSetNode | None) -> Weight:
        depth = aliases = fields = 0
        for node in selections.selections if selections is not None else ():
            if isinstance(node, FragmentSpreadNode):
                inner = self._fragment(node.name.value)
            else:
                inner = self.weigh(getattr(node, "selection_set", None))
            if isinstance(node, FieldNode):
                inner = Weight(inner.depth + 1, inner.aliases + (node.alias is not None), inner.fields + 1)
            depth, aliases, fields = max(depth, inner.depth), aliases + inner.aliases, fields + inner.fields
        return Weight(depth, aliases, fields)

    def _fragment(self, name: str) -> Weight:
        if name not in self._weights:
            self._weights[name] = Weight()  # stands while the fragment itself is weighed: a cycle ends here
            if name in self._fragments:
                self._weights[name] = self.weigh(self._fragments[name].selection_set)
        return self._weights[name]


def excesses(document: DocumentNode) -> list[GraphQLError]:
    """An error for every limit that an operation exceeds."""
    scales = Scales(document)
    weights = [scales.weigh(operation.selection_set) for operation in operations(document)]
    most = Weight(MAX_DEPTH, MAX_ALIASES, MAX_FIELDS)
    return [
        GraphQLError(f"the query exceeds {limit} {name}", extensions={"code": ErrorCode.MESSAGE_TOO_LARGE})
        for weight in weights
        for name, value, limit in zip(("levels", "aliases", "fields"), weight, most, strict=True)
        if value > limit
    ]


def operations(document: DocumentNode) -> list[OperationDefinitionNode]:
    return [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]


@lru_cache(maxsize=REMEMBERED)
def _parsed(query: str) -> DocumentNode:
    return parse(query, max_tokens=MAX_TOKENS)


@lru_cache(maxsize=REMEMBERED)
def _refusals(schema: Any, query: str) -> list[GraphQLError]:
    """Suggestions are left out: they would tell names to who may not introspect."""
    document = _parsed(query)
    return excesses(document) or validate(schema, document, hide_suggestions=True)


class Gate(SchemaExtension):
    """Parses and judges the query in place of the library's own steps."""

    def on_parse(self) -> Iterator[None]:
        self.execution_context.graphql_document = _parsed(self.execution_context.query or "")
        yield

    def on_validate(self) -> Iterator[None]:
        schema: Any = self.execution_context.schema
        query = self.execution_context.query or ""
        refusals = _refusals(schema._schema, query)
        if self.execution_context._provided_operation_name is None and len(operations(_parsed(query))) > 1:
            refusals = [GraphQLError("several operations: say in operationName which one to run")]
        self.execution_context.pre_execution_errors = refusals
        yield
