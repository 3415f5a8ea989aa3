"""What a document may ask at most: found by walks over the document, before validation and before it runs.

The limits come before validation, whose check for overlapping fields compares every two fields that would answer under
the same name. The weight of a fragment is computed once, however often it is spread: fragments that spread each other
twice would otherwise cost 2^n steps. Only what has been found to be small is then spread out.

The cost of an operation is the number of objects that it asks for: what a page may hold times what is asked of each.
What is made anew from events, a card as it once was, counts as that many.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
)

from api.graphql.types.paging import DEFAULT_PAGE, MAX_PAGE
from tsm.errors import ErrorCode

MAX_BODY = 256 * 1024  # octets of a request
MAX_DOCUMENT = 16 * 1024  # characters
MAX_LINES = 1000  # of a document: for every error the lines before it are counted
MAX_TOKENS = 1000
MAX_DEPTH = 16  # the usual introspection query needs 15
MAX_ALIASES = 30
MAX_ROOT_FIELDS = 20
MAX_FIELDS = 500  # with every fragment spread out
MAX_SELECTIONS = 1000  # fields and spreads of all definitions, with every fragment spread out
MAX_SAME = 10  # fields that answer under the same name in the same place
MAX_DEFINITIONS = 40  # operations and fragments
MAX_DIRECTIVES = 40
MAX_VARIABLES = 50
MAX_VALUES = 5000  # in one JSON text: a list or an object is one, and so is each of what it holds
MAX_NESTING = 10  # of lists and objects in one JSON text
MAX_ERRORS = 50  # in one answer
MAX_FAULTS = 10  # of a document, then validation ends: each may quote the document at length

UNPAGED = 3  # objects that a list without pages is taken to hold
PAST = 100  # events that a past state is taken to be made of
TRIAL = 5000  # signals that a trial of a policy is taken to read
MADE_ANEW = {"lineSwapHistory": PAST, "cardSwapHistory": PAST, "deviceSwapHistory": PAST, "swapPolicyTrial": TRIAL}
MUTATION = 10  # what each change costs, beside the objects that it answers


class Weight(NamedTuple):
    """What a selection asks, with every fragment spread out."""

    depth: int = 0
    aliases: int = 0
    fields: int = 0
    selections: int = 0  # fields, spreads and inline fragments
    directives: int = 0


NOTHING = Weight()


class Scales:
    """Weighs selections of one document. Cycles and unknown fragments weigh nothing: validation refuses them."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments = fragments_of(document)
        self._weights: dict[str, Weight] = {}

    def weigh(self, selections: SelectionSetNode | None) -> Weight:
        depth = aliases = fields = steps = directives = 0
        for node in selections.selections if selections is not None else ():
            if isinstance(node, FragmentSpreadNode):
                inner = self._fragment(node.name.value)
            else:
                inner = self.weigh(getattr(node, "selection_set", None))
            if isinstance(node, FieldNode):
                depth = max(depth, inner.depth + 1)
                aliases += node.alias is not None
                fields += 1
            else:
                depth = max(depth, inner.depth)
            aliases, fields = aliases + inner.aliases, fields + inner.fields
            steps += inner.selections + 1
            directives += inner.directives + len(node.directives or ())
        return Weight(depth, aliases, fields, steps, directives)

    def _fragment(self, name: str) -> Weight:
        if name not in self._weights:
            self._weights[name] = NOTHING  # stands while the fragment itself is weighed: a cycle ends here
            if name in self._fragments:
                self._weights[name] = self.weigh(self._fragments[name].selection_set)
        return self._weights[name]


def fragments_of(document: DocumentNode) -> Mapping[str, FragmentDefinitionNode]:
    return {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}


def operations_of(document: DocumentNode) -> list[OperationDefinitionNode]:
    return [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]


def excess(what: str) -> GraphQLError:
    return GraphQLError(f"the query exceeds {what}", extensions={"code": ErrorCode.MESSAGE_TOO_LARGE})


def over(limits: Iterable[tuple[int, int, str]]) -> list[GraphQLError]:
    """An error for every value above its limit."""
    return [excess(f"{limit} {name}") for value, limit, name in limits if value > limit]


def excesses(document: DocumentNode) -> list[GraphQLError]:
    """An error for every limit that the document exceeds."""
    return over(_sizes(document)) or over([(crowd(document), MAX_SAME, "fields of the same name")])


def _sizes(document: DocumentNode) -> Iterator[tuple[int, int, str]]:
    scales = Scales(document)
    roots = [getattr(node, "selection_set", None) for node in document.definitions]
    weights = [scales.weigh(root) for root in roots]
    operations = operations_of(document)
    heaviest = [max(column) for column in zip(NOTHING, *weights, strict=True)]
    yield len(document.definitions), MAX_DEFINITIONS, "operations and fragments"
    yield heaviest[0], MAX_DEPTH, "levels"
    yield heaviest[1], MAX_ALIASES, "aliases"
    yield heaviest[2], MAX_FIELDS, "fields"
    yield sum(weight.selections for weight in weights), MAX_SELECTIONS, "selections"
    named = sum(len(getattr(node, "directives", None) or ()) for node in document.definitions)
    yield named + sum(weight.directives for weight in weights), MAX_DIRECTIVES, "directives"
    yield max((len(o.selection_set.selections) for o in operations), default=0), MAX_ROOT_FIELDS, "root fields"
    yield max((len(o.variable_definitions or ()) for o in operations), default=0), MAX_VARIABLES, "variables"


def crowd(document: DocumentNode) -> int:
    """How many fields at most answer under the same name in the same place: of a document whose sizes are bounded."""
    fragments = fragments_of(document)
    roots = [root for node in document.definitions if (root := getattr(node, "selection_set", None)) is not None]
    return max((_crowd([root], fragments, frozenset()) for root in roots), default=0)


def _crowd(sets: list[SelectionSetNode], fragments: Mapping[str, FragmentDefinitionNode], above: frozenset[str]) -> int:
    """`above` are the fragments on the way here: one that leads back to itself is not followed again."""
    named: dict[str, list[FieldNode]] = {}
    spread: set[str] = set()
    waiting = list(sets)
    while waiting:
        for node in waiting.pop().selections:
            if isinstance(node, FieldNode):
                named.setdefault((node.alias or node.name).value, []).append(node)
            elif isinstance(node, InlineFragmentNode):
                waiting.append(node.selection_set)
            elif isinstance(node, FragmentSpreadNode) and node.name.value in fragments.keys() - above - spread:
                spread.add(node.name.value)
                waiting.append(fragments[node.name.value].selection_set)
    return max(
        (
            max(len(same), _crowd([f.selection_set for f in same if f.selection_set], fragments, above | spread))
            for same in named.values()
        ),
        default=0,
    )


def check_values(value: object) -> list[GraphQLError]:
    """An error when the values of a JSON text are too many or too deep: before anything is made of them."""
    values, level, waiting = 0, 0, [[value]]
    while waiting:
        values += sum(map(len, waiting))
        if values > MAX_VALUES:
            return [excess(f"{MAX_VALUES} values")]
        if level > MAX_NESTING:
            return [excess(f"{MAX_NESTING} levels of values")]
        level += 1
        waiting = [
            list(value.values()) if isinstance(value, dict) else value
            for held in waiting
            for value in held
            if isinstance(value, dict | list)
        ]
    return []


def cost(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]
) -> int:
    """The objects that a valid operation asks for; at least 1."""
    defaults = {
        node.variable.name.value: node.default_value
        for node in operation.variable_definitions or ()
        if node.default_value is not None
    }
    counter = _Counter(schema, fragments_of(document), variables, defaults)
    objects = counter.count(operation.selection_set, schema.get_root_type(operation.operation), None)
    if operation.operation is OperationType.MUTATION:
        objects += MUTATION * len(operation.selection_set.selections)
    return max(1, objects)


class _Counter:
    """Counts the objects of one operation. The document's sizes are bounded, so it may be spread out."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        variables: Mapping[str, Any],
        defaults: Mapping[str, ValueNode],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._variables = variables
        self._defaults = defaults

    def count(self, selections: SelectionSetNode, parent: GraphQLNamedType | None, page: int | None) -> int:
        """The objects below one of type `parent`; `page`: how many a list in it holds, where it is a page."""
        found = 0
        for node in selections.selections:
            if isinstance(node, FieldNode):
                found += self._field(node, parent, page) if node.selection_set is not None else 0
                continue
            inner: Any = self._fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            kind = inner.type_condition
            known = self._schema.get_type(kind.name.value) if kind is not None else parent
            found += self.count(inner.selection_set, known, page)
        return found

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, page: int | None) -> int:
        field = self._schema.get_field(parent, node.name.value)  # type: ignore[arg-type]  # valid: a type with fields
        if field is None or node.selection_set is None:
            return 0
        named = get_named_type(field.type)
        objects = 1
        if is_list_type(get_nullable_type(field.type)):
            objects = self._named(node) if "ids" in field.args else UNPAGED if page is None else page
        inner_page = self._page(node) if {"first", "last"} & field.args.keys() else None
        inner = self.count(node.selection_set, named, inner_page)
        each = (1 if is_composite_type(named) else 0) + inner
        return objects * each + (PAST if self._is_past(node) else MADE_ANEW.get(node.name.value, 0))

    def _is_past(self, node: FieldNode) -> bool:
        """Whether a position or a time is named, at which something is to be told."""
        return any(a.name.value in ("atPosition", "atTime") and self._is_given(a.value) for a in node.arguments or ())

    def _is_given(self, value: ValueNode) -> bool:
        if isinstance(value, VariableNode):
            name = value.name.value
            return self._variables.get(name, self._defaults.get(name)) is not None
        return not isinstance(value, NullValueNode)

    def _named(self, node: FieldNode) -> int:
        """How many things `ids` names; one that stands alone is a list of one."""
        [ids] = [a.value for a in node.arguments or () if a.name.value == "ids"]
        if isinstance(ids, VariableNode):
            name = ids.name.value
            given = self._variables.get(name, self._defaults.get(name))
            return len(given) if isinstance(given, list) else _length(given)
        return _length(ids)

    def _page(self, node: FieldNode) -> int:
        """What `first` or `last` asks for; a value that is no page's size is refused where it is used."""
        paging = (a.value for a in node.arguments or () if a.name.value in ("first", "last"))
        asked = [self._number(value) for value in paging]
        sizes = [size for size in asked if size is not None]
        return min(max(1, *sizes), MAX_PAGE) if sizes else DEFAULT_PAGE

    def _number(self, value: ValueNode | None) -> int | None:
        if isinstance(value, VariableNode):
            name = value.name.value
            given = self._variables[name] if name in self._variables else self._number(self._defaults.get(name))
            return int(given) if isinstance(given, int | float) else None  # 7.0 is an Int, too
        if isinstance(value, IntValueNode):
            return int(value.value) if len(value.value) < 10 else MAX_PAGE  # longer: no page's size anyway
        return None


def _length(value: object) -> int:
    return len(value.values) if isinstance(value, ListValueNode) else 1
