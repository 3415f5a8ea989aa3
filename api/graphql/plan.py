"""Lists by plan: what a page of plain objects becomes is worked out once for its selection, not once for each value.

The library's executor looks at every field of every object anew: which resolver, which type, is it awaitable, is it an
error. For a page that is many times the cost of its query. Here a list whose selection reads plain attributes only is
completed by functions that were put together for it: one for each field, composed into one for the list. Where a
resolver among the fields leaves the list to the library, at least the leaves, fields without a selection, are read so.

A plan decides nothing. It holds for fields without arguments, directives, resolvers or extensions, on objects whose
attributes are plain; such reads have no effects. So whatever surprises it (an error as a value, a null where none may
be, a value of an unexpected kind, something awaitable) makes it give up, and the library's executor completes the list
from its beginning: results, errors and their places are always its own. `TSM_GRAPHQL_PLANS=off` leaves all to it.
"""

import inspect
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from types import MemberDescriptorType
from typing import Any, NamedTuple, TypeGuard

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLAbstractType,
    GraphQLBoolean,
    GraphQLID,
    GraphQLLeafType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    SelectionSetNode,
    Undefined,
    is_abstract_type,
    is_leaf_type,
)
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_subfields
from graphql.execution.values import VariableValues
from graphql.pyutils import is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition, get_object_definition
from strawberry.types.cast import TYPE_CAST_ATTRIBUTE
from strawberry.types.field import StrawberryField

ENABLED = os.environ.get("TSM_GRAPHQL_PLANS") != "off"
MOST_OPERATIONS = 256  # whose plans are kept: those that were asked for last
MOST_FIELDS = 1000  # of one plan: fragments within fragments can make any number of them
ANY = "__class__"  # an attribute that every object has, where its value does not matter
DEFINITION = GraphQLCoreConverter.DEFINITION_BACKREF
PASSED_ON: dict[Any, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}  # these stay as they are
HARMLESS = frozenset({str, int, float, bool, bytes, datetime, list, tuple, dict})  # neither errors nor awaitable
NO_VARIABLES = VariableValues({}, {})

Complete = Callable[[Any], Any]  # from a resolved value to its part of the answer


class Surprise(Exception):
    """Something that is not for a plan."""


class Plan(NamedTuple):
    """How lists of one type under one selection are completed, or one leaf of a type's objects."""

    type: GraphQLList[Any] | GraphQLObjectType  # kept alive, as the nodes, for the plan is found by their identity
    nodes: tuple[FieldNode, ...]
    fragments: tuple[FragmentDefinitionNode, ...]  # those that the selection spreads
    complete: Complete | None  # None: not by plan


class Plans(NamedTuple):
    """The plans of one operation, by identity of type and nodes. Who keeps a document has it planned once."""

    operation: OperationDefinitionNode
    made: dict[tuple[int, ...], Plan]  # of lists
    leaves: dict[tuple[int, ...], Plan]


KEPT: OrderedDict[int, Plans] = OrderedDict()  # by identity of the operation


class PlanningExecutor(StrawberryGraphQLCoreExecutionContext):
    """The library's executor, but for lists that a plan completes, and for leaves elsewhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        middlewares = self.middleware_manager is not None and self.middleware_manager.middlewares
        self._plans = plans_of(self.operation) if ENABLED and not middlewares else None

    def complete_list_value(
        self,
        return_type: GraphQLList[GraphQLOutputType],
        field_details_list: list[FieldDetails],
        info: Any,
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        complete = self._list(return_type, field_details_list)
        if complete is not None:
            try:
                return complete(result)
            except Exception:  # noqa: BLE001, S110 - whatever it is, the library finds it again and says where
                pass
        return super().complete_list_value(return_type, field_details_list, info, path, result, position_context)

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: list[FieldDetails],
        path: Any,
        position_context: Any,
    ) -> Any:
        read = self._leaf(parent_type, field_details_list)
        if read is not None:
            try:
                return read(source)
            except Exception:  # noqa: BLE001, S110 - as above
                pass
        return super().execute_field(parent_type, source, field_details_list, path, position_context)

    def _list(self, type_: GraphQLList[GraphQLOutputType], details: list[FieldDetails]) -> Complete | None:
        if self._plans is None:
            return None
        key = (id(type_), *[id(each.node) for each in details])
        plan = self._plans.made.get(key)
        if plan is None or any(self.fragment_definitions.get(f.name.value) is not f for f in plan.fragments):
            plan = self._plans.made[key] = self._planner().of_list(type_, details)
        return plan.complete

    def _leaf(self, type_: GraphQLObjectType, details: list[FieldDetails]) -> Complete | None:
        if self._plans is None:
            return None
        key = (id(type_), *[id(each.node) for each in details])
        plan = self._plans.leaves.get(key)
        if plan is None:
            plan = self._plans.leaves[key] = self._planner().of_leaf(type_, details)
        return plan.complete

    def _planner(self) -> "Planner":
        return Planner(self.schema, self.fragments, self.operation)


def plans_of(operation: OperationDefinitionNode) -> Plans:
    known = KEPT.setdefault(id(operation), Plans(operation, {}, {}))
    KEPT.move_to_end(id(operation))
    if len(KEPT) > MOST_OPERATIONS:
        KEPT.popitem(last=False)
    return known


class Planner:
    """Makes one plan. Knows the document, and nothing of the request."""

    def __init__(
        self, schema: GraphQLSchema, fragments: dict[str, FragmentDetails], operation: OperationDefinitionNode
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._operation = operation
        self._fields_left = MOST_FIELDS

    def of_list(self, type_: GraphQLList[GraphQLOutputType], details: Sequence[FieldDetails]) -> Plan:
        nodes = tuple(each.node for each in details)
        try:
            return Plan(type_, nodes, self._spread(nodes), self._list(type_, list(details)))
        except Surprise:
            return Plan(type_, nodes, (), None)

    def of_leaf(self, type_: GraphQLObjectType, details: Sequence[FieldDetails]) -> Plan:
        """A field without a selection; its plan takes the object that has it."""
        nodes = tuple(each.node for each in details)
        name = nodes[0].name.value
        try:
            if nodes[0].selection_set is not None or name == "__typename":
                raise Surprise
            return Plan(type_, nodes, self._spread(nodes), reading(self._field(name, type_, list(details)), type_))
        except Surprise:
            return Plan(type_, nodes, (), None)

    def _spread(self, nodes: Iterable[FieldNode]) -> tuple[FragmentDefinitionNode, ...]:
        """The fragments beneath these nodes; a surprise where anything depends on a directive or a variable."""
        found: dict[str, FragmentDefinitionNode] = {}
        waiting: list[Any] = list(nodes)
        while waiting:
            node = waiting.pop()
            if node.directives:
                raise Surprise
            if isinstance(node, FragmentSpreadNode) and node.name.value not in found:
                fragment = self._fragments[node.name.value]
                if fragment.variable_signatures:
                    raise Surprise
                found[node.name.value] = fragment.definition
                waiting.append(fragment.definition)
            selection_set: SelectionSetNode | None = getattr(node, "selection_set", None)
            waiting += selection_set.selections if selection_set is not None else ()
        return tuple(found.values())

    def _value(self, type_: GraphQLOutputType, details: list[FieldDetails]) -> Complete:
        required = isinstance(type_, GraphQLNonNull)
        of: Any = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        if is_leaf_type(of):
            return leaf(of, required)
        if isinstance(of, GraphQLList):
            return self._list(of, details, required)
        if is_abstract_type(of):
            return self._abstract(of, details, required)
        return self._object(of, details, required)

    def _list(self, type_: GraphQLList[Any], details: list[FieldDetails], required: bool = True) -> Complete:
        item = self._value(type_.of_type, details)

        def complete(value: Any) -> Any:
            if type(value) is list or type(value) is tuple:
                return [item(each) for each in value]
            return null_if_absent(value, required)

        return complete

    def _abstract(self, type_: GraphQLAbstractType, details: list[FieldDetails], required: bool) -> Complete:
        """By the exact class of the value."""
        of_class: dict[type, Complete] = {}

        def complete(value: Any) -> Any:
            kind = type(value)
            if kind not in of_class:
                if value is None or value is Undefined:
                    return null_if_absent(value, required)
                of_class[kind] = self._object(self._runtime_type(type_, kind), details, required)
            return of_class[kind](value)

        return complete

    def _runtime_type(self, type_: GraphQLAbstractType, kind: type) -> GraphQLObjectType:
        """What the library would find for an instance: only where an interface leaves that to the class."""
        interface, definition = type_.extensions.get(DEFINITION), get_object_definition(kind)
        if not isinstance(interface, StrawberryObjectDefinition) or interface.resolve_type is not None:
            raise Surprise
        if definition is None or definition.is_graphql_generic or not issubclass(kind, interface.origin):
            raise Surprise
        found = self._schema.get_type(definition.name)
        if not isinstance(found, GraphQLObjectType) or not self._schema.is_sub_type(type_, found):
            raise Surprise
        return found

    def _object(self, type_: GraphQLObjectType, details: list[FieldDetails], required: bool) -> Complete:
        fields = self._fields(type_, details)
        attributes = [field.attribute for field in fields if field.attribute != ANY]
        reads = [(field.name, attrgetter(field.attribute), field.passed_on, field.complete) for field in fields]
        may_be_cast = type_.is_type_of is not None
        known: set[type] = set()

        def complete(value: Any) -> Any:
            kind = type(value)
            if kind not in known:
                if value is None or value is Undefined:
                    return null_if_absent(value, required)
                refuse_unless_plain(kind, type_, attributes)
                known.add(kind)
            if may_be_cast and hasattr(value, TYPE_CAST_ATTRIBUTE):
                raise Surprise
            return {
                name: found if type(found := read(value)) is passed_on else finish(found)
                for name, read, passed_on, finish in reads
            }

        return complete

    def _fields(self, type_: GraphQLObjectType, details: list[FieldDetails]) -> list["PlainField"]:
        """In the order of the answer."""
        grouped, _, _ = collect_subfields(self._schema, self._fragments, NO_VARIABLES, self._operation, type_, details)
        self._fields_left -= len(grouped)
        if self._fields_left < 0:
            raise Surprise
        return [self._field(name, type_, group) for name, group in grouped.items()]

    def _field(self, name: str, type_: GraphQLObjectType, group: list[FieldDetails]) -> "PlainField":
        node = group[0].node
        if node.name.value == "__typename":
            return PlainField(name, ANY, None, lambda _: type_.name)
        field = self._schema.get_field(type_, node.name.value)
        if field is None or field.args or node.arguments:
            raise Surprise
        definition = field.extensions.get(DEFINITION)
        if not isinstance(definition, StrawberryField) or not definition.is_basic_field:
            raise Surprise
        if definition.default_resolver is not getattr or not getattr(field.resolve, "_is_default", False):
            raise Surprise
        of = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
        return PlainField(name, definition.python_name, passed_on(of), self._value(field.type, group))


class PlainField(NamedTuple):
    """A field that is an attribute."""

    name: str  # in the answer
    attribute: str
    passed_on: type | None  # values of exactly this class stay as they are
    complete: Complete


def reading(field: PlainField, type_: GraphQLObjectType) -> Complete:
    """From an object of the type to its field's part of the answer."""
    read, finish = attrgetter(field.attribute), field.complete
    known: set[type] = set()

    def complete(source: Any) -> Any:
        kind = type(source)
        if kind not in known:
            refuse_unless_plain(kind, type_, [field.attribute])
            known.add(kind)
        return finish(read(source))

    return complete


def passed_on(type_: GraphQLOutputType) -> type | None:
    """The class whose values a scalar answers as they are, if there is one."""
    if isinstance(type_, GraphQLScalarType) and type_.coerce_output_value is int:
        return int
    return PASSED_ON.get(type_)


def leaf(type_: GraphQLLeafType, required: bool) -> Complete:
    """A scalar or an enum."""
    coerce, as_it_is = type_.coerce_output_value, passed_on(type_)

    def complete(value: Any) -> Any:
        kind = type(value)
        if kind is as_it_is:
            return value
        if kind not in HARMLESS:
            if value is None or value is Undefined:
                return null_if_absent(value, required)
            if isinstance(value, Exception) or is_awaitable(value):
                raise Surprise
        found = coerce(value)
        if type(found) not in HARMLESS and (found is None or found is Undefined or is_awaitable(found)):
            raise Surprise
        return found

    return complete


def null_if_absent(value: Any, required: bool) -> None:
    """A surprise for any value, and for none where one is required."""
    if required or not (value is None or value is Undefined):
        raise Surprise


def refuse_unless_plain(kind: type, type_: GraphQLObjectType, attributes: Iterable[str]) -> None:
    """A surprise unless instances of exactly this class are of the type, and reading them has no effects."""
    if issubclass(kind, Exception) or hasattr(kind, "__await__"):
        raise Surprise
    if kind.__getattribute__ is not object.__getattribute__ or hasattr(kind, "__getattr__"):
        raise Surprise
    if type_.is_type_of is not None and not is_of(kind, type_):
        raise Surprise
    for attribute in attributes:
        found = inspect.getattr_static(kind, attribute, None)
        if hasattr(type(found), "__get__") and not isinstance(found, MemberDescriptorType):
            raise Surprise


def is_of(kind: type, type_: GraphQLObjectType) -> bool:
    """Whether the library's own test, where the type has no other, holds for every instance of the class."""
    definition = type_.extensions.get(DEFINITION)
    return is_own(definition) and issubclass(kind, definition.origin)


def is_own(definition: Any) -> TypeGuard[StrawberryObjectDefinition]:
    return isinstance(definition, StrawberryObjectDefinition) and definition.is_type_of is None
