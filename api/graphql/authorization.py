"""Which role may select which field: a table of every field there is, and the check of a document against it.

The check is made on the document, before anything runs, and remembered for each document and role: what it costs does
not depend on rows. Which rows a caller sees is not decided here but in the queries themselves, by his viewer.
A field that the table does not name is refused to everybody, and fails the build.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
    introspection_types,
)

from api.access import Role
from tsm.errors import MESSAGES, ErrorCode

Roles = frozenset[Role]

OPERATOR, PROVIDER, CLERK = Role.OPERATOR, Role.PROVIDER, Role.CLERK
AUDITOR, SECURITY_OFFICER, ADMINISTRATOR = Role.AUDITOR, Role.SECURITY_OFFICER, Role.ADMINISTRATOR

EVERYBODY: Roles = frozenset({OPERATOR, PROVIDER, CLERK, AUDITOR, SECURITY_OFFICER, ADMINISTRATOR})
OVERSEERS: Roles = frozenset({AUDITOR, SECURITY_OFFICER})  # who may see read-audit, and unseal for a purpose
INTROSPECTORS: Roles = OVERSEERS | {ADMINISTRATOR}  # all others have `schema.graphql`

NOBODY: Roles = frozenset()

REMEMBERED = 512  # documents and roles
STANDS_FOR: Mapping[str, str] = {Role.TERMINAL: CLERK}  # a terminal acts for the clerks of its municipality


def rules(kind: str, roles: Roles, fields: str) -> dict[str, Roles]:
    """Rows of the table: these fields of a type, separated by blanks, are for these roles."""
    return {f"{kind}.{field}": roles for field in fields.split()}


RULES: Mapping[str, Roles] = {
    **rules("Query", INTROSPECTORS, "__schema __type"),
    **{
        f"{kind.name}.{field}": INTROSPECTORS
        for kind in introspection_types.values()
        for field in getattr(kind, "fields", ())
    },
}


def refusals(
    document: DocumentNode, operation_name: str | None, role: str, schema: GraphQLSchema
) -> list[GraphQLError]:
    """FORBIDDEN, with its path, for every field of the operation that the role may not select.

    For a valid document. Without a name the document's operations are all checked: it has only one.
    """
    return list(_refusals(_Same(document), operation_name, role, _Same(schema)))


class _Same:
    """Something that is equal to itself only: documents compare by content, which takes longer than the check."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


@lru_cache(maxsize=REMEMBERED)
def _refusals(document: _Same, operation_name: str | None, role: str, schema: _Same) -> tuple[GraphQLError, ...]:
    check = _Check(document.value, STANDS_FOR.get(role, role), schema.value)
    return tuple(
        error
        for operation in document.value.definitions
        if isinstance(operation, OperationDefinitionNode)
        and operation_name in (None, operation.name and operation.name.value)
        for error in check.operation(operation)
    )


class _Check:
    """One document against one role. A fragment is walked once, however often it is spread."""

    def __init__(self, document: DocumentNode, role: str, schema: GraphQLSchema) -> None:
        self._role = role
        self._schema = schema
        self._fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        self._walked: set[str] = set()

    def operation(self, operation: OperationDefinitionNode) -> Iterator[GraphQLError]:
        root = self._schema.get_root_type(operation.operation)
        yield from self._selections(operation.selection_set, root, [])

    def _selections(
        self, selections: SelectionSetNode, parent: GraphQLNamedType | None, path: list[str]
    ) -> Iterator[GraphQLError]:
        for node in selections.selections:
            if isinstance(node, FieldNode):
                yield from self._field(node, parent, path)
            elif isinstance(node, InlineFragmentNode):
                kind = self._type(node.type_condition.name.value) if node.type_condition else parent
                yield from self._selections(node.selection_set, kind, path)
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in self._walked:
                self._walked.add(node.name.value)
                fragment = self._fragments[node.name.value]
                kind = self._type(fragment.type_condition.name.value)
                yield from self._selections(fragment.selection_set, kind, path)

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, path: list[str]) -> Iterator[GraphQLError]:
        name = node.name.value
        if name == "__typename":  # tells nothing of its own
            return
        here = [*path, node.alias.value if node.alias else name]
        if parent is None or self._role not in RULES.get(f"{parent.name}.{name}", NOBODY):
            extensions = {"code": ErrorCode.FORBIDDEN}
            yield GraphQLError(MESSAGES[ErrorCode.FORBIDDEN], nodes=[node], path=here, extensions=extensions)
            return
        field = self._schema.get_field(parent, name)  # type: ignore[arg-type]  # a type with fields
        if node.selection_set is not None and field is not None:
            yield from self._selections(node.selection_set, get_named_type(field.type), here)

    def _type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.get_type(name)
