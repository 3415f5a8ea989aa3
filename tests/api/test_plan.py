"""Lists by plan give what the library's executor gives: the same data, in the same order, and the same errors."""

import asyncio
import enum
import gc
import json
import weakref
from collections import OrderedDict
from dataclasses import fields as dataclass_fields
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import pytest
import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    execute,
    parse,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext as Stock

from api.graphql import plan
from api.graphql.plan import PlanningExecutor
from api.graphql.schema import SCHEMA
from api.graphql.types.events import FROM_INDEX, FROM_LOG
from tsm.errors import ErrorCode, TsmError

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DEFINITION = "strawberry-definition"
T = TypeVar("T")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plans at first; and they are made even where the rest of the suite runs without."""
    monkeypatch.setattr(plan, "ENABLED", True)
    monkeypatch.setattr(plan, "KEPT", OrderedDict())


def planned() -> list[bool]:
    """Of all lists that were looked at: whether they go by plan."""
    return sorted(made.complete is not None for plans in plan.KEPT.values() for made in plans.made.values())


class Counting(PlanningExecutor):
    """Tells which lists were left to the library."""

    left: ClassVar[list[str]] = []

    def complete_value(self, return_type: Any, details: Any, info: Any, path: Any, result: Any, context: Any) -> Any:
        if isinstance(path.key, int):
            self.left.append(info.field_name)
        return super().complete_value(return_type, details, info, path, result, context)


def run(schema: GraphQLSchema, text: str, executor: type[Stock], variables: dict[str, Any] | None = None) -> str:
    """Data and errors as a client would see them, in their order; what JSON cannot say by its `repr`."""
    result = execute(
        schema, parse(text), variable_values=variables, executor_class=executor, is_awaitable=lambda _: False
    )
    assert isinstance(result, ExecutionResult)
    errors = [(error.formatted, type(error.original_error).__name__) for error in result.errors or []]
    return json.dumps([result.data, errors], default=repr)


def left_to_the_library(schema: GraphQLSchema, text: str, variables: dict[str, Any] | None = None) -> list[str]:
    """The fields whose items were completed one by one; the answers are the same."""
    Counting.left = []
    assert run(schema, text, Counting, variables) == run(schema, text, Stock, variables)
    return sorted(set(Counting.left))


# --- A schema with everything ---


@strawberry.enum
class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


@strawberry.interface
class Thing:
    name: str


@strawberry.type
class Part(Thing):
    size: int
    weight: float | None = None
    made_at: datetime | None = None


@strawberry.type
class Screw(Thing):
    turns: int


@strawberry.type
class Edge(Generic[T]):
    cursor: str
    node: T


@strawberry.type
class Branch:
    name: str
    next: "Branch | None" = None


Either = Annotated[Part | Screw, strawberry.union("Either")]


@strawberry.type
class Box(Thing):
    colour: Colour
    parts: list[Part]
    first: Part | None = None
    thing: Thing | None = None
    either: Either | None = None
    words: list[str] = strawberry.field(default_factory=list)
    grid: list[list[int | None]] = strawberry.field(default_factory=list)
    sealed: bool = False

    @strawberry.field
    def loud(self) -> str:
        return self.name.upper()

    @strawberry.field
    def cut(self, to: int = 1) -> str:
        return self.name[:to]

    @strawberry.field
    def broken(self) -> str | None:
        raise TsmError(ErrorCode.NOT_FOUND, "inside")


class Odd(Box):
    """A class of its own behind the same type."""

    @property
    def sealed(self) -> bool:  # type: ignore[override]
        return True

    @sealed.setter
    def sealed(self, _: bool) -> None:
        """Whatever it is told."""


def part(**changes: Any) -> Part:
    return Part(**{"name": "p", "size": 1, "weight": 0.5, "made_at": NOON} | changes)


def box(kind: type[Box] = Box, **changes: Any) -> Box:
    values = {
        "name": "b", "colour": Colour.RED, "parts": [part(), part(name="q")], "first": part(),
        "thing": Screw(name="s", turns=3), "words": ["a", "b"], "grid": [[1, None], []],
    }  # fmt: skip
    return kind(**values | changes)


def schema_of(*values: Any) -> GraphQLSchema:
    """The values as boxes that may be null, as boxes that may not, as things, and as nodes of edges."""

    def told() -> Any:
        return list(values)

    @strawberry.type
    class Query:
        boxes: list[Box | None] | None = strawberry.field(resolver=told)
        all: list[Box] | None = strawberry.field(resolver=told)
        things: list[Thing | None] = strawberry.field(resolver=told)

        @strawberry.field
        def edges(self) -> list[Edge[Box]] | None:
            return [Edge(cursor=str(n), node=value) for n, value in enumerate(values)]

    return strawberry.Schema(Query, types=[Part, Screw])._schema


PLAIN = "name colour sealed words grid first { name size weight madeAt } parts { name size } thing { __typename name }"


@pytest.mark.parametrize("field", ["boxes", "all"])
def test_a_list_of_plain_objects_is_completed_by_its_plan(field: str) -> None:
    assert left_to_the_library(schema_of(box(), box(first=None)), f"{{ {field} {{ {PLAIN} }} }}") == []


def test_edges_with_their_nodes_are_completed_by_one_plan() -> None:
    assert left_to_the_library(schema_of(box(), box()), f"{{ edges {{ cursor node {{ {PLAIN} }} }} }}") == []
    assert planned() == [True]


def test_an_interface_is_completed_by_the_class_of_its_value() -> None:
    text = "{ things { __typename name ... on Part { size } ... on Box { colour } ... on Screw { turns } } }"
    assert left_to_the_library(schema_of(box(), part(), Screw(name="s", turns=1), None), text) == []


def test_aliases_fragments_and_fields_that_are_named_twice_are_planned() -> None:
    text = """{ boxes { a: name b: name ...F first { size } ... on Box { first { weight } } ... on Thing { name } } }
              fragment F on Box { colour parts { ...G } }
              fragment G on Part { size ...H } fragment H on Part { name }"""
    assert left_to_the_library(schema_of(box(), box()), text) == []


@pytest.mark.parametrize(
    "selection",
    [
        "loud", "name cut", "name cut(to: 3)", "broken", "parts { name } loud", "name @include(if: $yes)",
        "name @skip(if: $yes)", "... @include(if: $no) { name } colour", "...F @skip(if: $no)",
        "first { size @include(if: $no) name }", "either { ... on Part { size } ... on Screw { turns } }",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_library(selection: str) -> None:
    text = f"query ($yes: Boolean! = true, $no: Boolean! = false) {{ boxes {{ {selection} }} }}"
    text += " fragment F on Box { name }" if "...F" in selection else ""
    assert "boxes" in left_to_the_library(schema_of(box(either=part()), None), text)


def test_a_directive_is_asked_anew_each_time() -> None:
    schema, text = schema_of(box()), "query ($yes: Boolean!) { boxes { name colour @include(if: $yes) } }"
    document = parse(text)
    for yes in (True, False, True):
        result = execute(schema, document, variable_values={"yes": yes}, executor_class=PlanningExecutor)
        assert isinstance(result, ExecutionResult) and result.data is not None
        assert list(result.data["boxes"][0]) == (["name", "colour"] if yes else ["name"])


class Reading(PlanningExecutor):
    """Tells which fields the library executed."""

    executed: ClassVar[list[str]] = []

    def build_resolve_info(self, field_def: Any, field_nodes: Any, parent_type: Any, path: Any) -> Any:
        self.executed.append(path.key)
        return super().build_resolve_info(field_def, field_nodes, parent_type, path)


def executed_by_the_library(schema: GraphQLSchema, text: str) -> list[str]:
    """The fields, by the names in the answer; the answers are the same."""
    Reading.executed = []
    assert run(schema, text, Reading) == run(schema, text, Stock)
    return sorted(set(Reading.executed))


def test_leaves_beside_a_resolver_are_read_by_plan() -> None:
    text = "{ boxes { loud a: name colour sealed first { size cut: weight } words ... on Thing { name } } }"
    assert executed_by_the_library(schema_of(box(), box(first=None)), text) == ["boxes", "first", "loud"]


@pytest.mark.parametrize("field", ["cut", "n: name @include(if: true)", "broken", "__typename"])
def test_a_leaf_that_is_not_plain_is_executed_by_the_library(field: str) -> None:
    answered = field.partition(":")[0]
    assert answered in executed_by_the_library(schema_of(box()), f"{{ boxes {{ loud {field} }} }}")


def test_a_computed_leaf_is_executed_by_the_library() -> None:
    assert "sealed" in executed_by_the_library(schema_of(box(), box(Odd)), "{ boxes { loud sealed } }")


def test_only_the_list_around_a_resolver_is_left() -> None:
    assert left_to_the_library(schema_of(box(), box()), "{ boxes { loud parts { name size } } }") == ["boxes"]
    assert planned() == [False, True]


class Cast:
    """No class of the schema's, but made to be one of its types."""


def cast() -> Any:
    made = strawberry.cast(Part, Cast())  # type: ignore[arg-type]
    made.name, made.size = "cast", 3  # type: ignore[attr-defined]
    return made


SURPRISES = {
    "null in required": {"name": None},
    "undefined in required": {"colour": None},
    "an error as a value": {"name": TsmError(ErrorCode.NOT_FOUND, "x")},
    "an error as an object": {"first": ValueError("x")},
    "an error in a list": {"parts": [part(), ValueError("x")]},
    "an error for a list": {"words": ValueError("x")},
    "null in a list": {"words": ["a", None]},
    "null for a list": {"parts": None},
    "no list": {"parts": 5},
    "text for a list": {"words": "ab"},
    "a number for text": {"name": 5},
    "truth for text": {"name": True},
    "octets for text": {"name": b"x"},
    "a list for text": {"name": ["x"]},
    "text for truth": {"sealed": "yes"},
    "a number for truth": {"sealed": 0},
    "a number that is too large": {"first": part(size=2**31)},
    "truth for a number": {"first": part(size=True)},
    "a fraction for a whole number": {"first": part(size=1.5)},
    "a whole fraction": {"first": part(size=2.0)},
    "not a number": {"first": part(weight=float("nan"))},
    "no time": {"first": part(made_at="yesterday")},
    "no colour": {"colour": "green"},
    "the value of a colour": {"colour": "r"},
    "something of no kind": {"colour": []},
    "an object of another type": {"first": Screw(name="s", turns=1)},
    "an object of no type": {"first": object(), "thing": object()},
    "a class of another schema": {"thing": Cast()},
    "a cast object": {"first": cast(), "thing": cast()},
    "a tuple": {"words": ("a", "b"), "parts": (part(),)},
    "a list of lists with holes": {"grid": [[1, None, 2**40], None]},
}


@pytest.mark.parametrize("changes", SURPRISES.values(), ids=SURPRISES)
@pytest.mark.parametrize("field", ["boxes", "all", "edges", "beside a resolver"])
def test_a_surprise_is_answered_as_the_library_answers_it(field: str, changes: dict[str, Any]) -> None:
    selection = f"cursor node {{ {PLAIN} }}" if field == "edges" else PLAIN
    if field == "beside a resolver":
        field, selection = "boxes", f"cut {PLAIN}"
    left_to_the_library(schema_of(box(), box(**changes), box()), f"{{ {field} {{ {selection} }} }}")


def test_what_can_be_read_once_is_read_once() -> None:
    one, other = (schema_of(box(words=(word for word in ("a", "b")))) for _ in range(2))
    told = run(one, "{ boxes { words } }", Stock)
    assert told == run(other, "{ boxes { words } }", PlanningExecutor) and '["a", "b"]' in told


def test_errors_keep_their_place_and_null_what_they_null() -> None:
    told = run(schema_of(box(), box(name=None), None), "{ boxes { name } }", PlanningExecutor)
    data, [[error, _]] = json.loads(told)
    assert data == {"boxes": [{"name": "b"}, None, None]}
    assert error["path"] == ["boxes", 1, "name"]


def test_an_attribute_that_is_computed_is_left_to_the_library() -> None:
    assert left_to_the_library(schema_of(box(Odd)), "{ boxes { name } }") == []
    assert left_to_the_library(schema_of(box(Odd)), "{ boxes { sealed } }") == ["boxes"]


def test_a_class_that_answers_for_any_attribute_is_left_to_the_library() -> None:
    class Talkative(Box):
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    assert left_to_the_library(schema_of(box(Talkative)), "{ boxes { name } }") == ["boxes"]


def test_what_is_awaitable_is_awaited_as_ever() -> None:
    async def later() -> str:
        return "later"

    def both() -> list[Any]:
        found = []
        for executor in (Stock, PlanningExecutor):
            result = execute(schema_of(box(name=later())), parse("{ boxes { name } }"), executor_class=executor)
            found.append(asyncio.run(result))  # type: ignore[arg-type]
        return found

    stock, planned = both()
    assert stock == planned and stock.data == {"boxes": [{"name": "later"}]}


def test_middleware_is_never_passed_by() -> None:
    def shout(following: Any, root: Any, info: Any, **given: Any) -> Any:
        found = following(root, info, **given)
        return found.upper() if isinstance(found, str) else found

    result = execute(schema_of(box()), parse("{ boxes { name } }"), executor_class=PlanningExecutor, middleware=[shout])
    assert isinstance(result, ExecutionResult) and result.data == {"boxes": [{"name": "B"}]}


def test_introspection_is_left_to_the_library() -> None:
    left_to_the_library(schema_of(), "{ __schema { types { name kind fields { name args { name } } } } }")


def test_a_fragment_of_another_document_is_not_mistaken() -> None:
    """The same nodes in a document with another fragment of that name."""
    schema = schema_of(box())
    document = parse("{ boxes { ...F } } fragment F on Box { name }")
    operation, fragment = document.definitions
    other = parse("fragment F on Box { colour }").definitions[0]
    for definition, member in ((fragment, "name"), (other, "colour"), (fragment, "name")):
        together = DocumentNode(definitions=(operation, definition))
        result = execute(schema, together, executor_class=PlanningExecutor)
        assert isinstance(result, ExecutionResult) and result.data is not None
        assert list(result.data["boxes"][0]) == [member]


def test_a_document_is_planned_once_and_not_all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_OPERATIONS", 3)
    schema, document = schema_of(box()), parse("{ boxes { name } }")
    for n in range(10):
        execute(schema, parse(f"{{ boxes {{ a{n}: name }} }}"), executor_class=PlanningExecutor)
        execute(schema, document, executor_class=PlanningExecutor)
        execute(schema, document, executor_class=PlanningExecutor)
    assert len(plan.KEPT) == 3 and planned() == [True] * 3
    assert id(document.definitions[0]) in plan.KEPT


def test_a_selection_that_unfolds_without_end_is_not_planned() -> None:
    """Each fragment spreads the next twice: a few lines are millions of fields, of which nothing may exist."""
    chain = " ".join(
        f"fragment F{n} on Branch {{ a: next {{ ...F{n + 1} }} b: next {{ ...F{n + 1} }} }}" for n in range(30)
    )
    text = f"{{ branches {{ ...F0 }} }} {chain} fragment F30 on Branch {{ name }}"

    @strawberry.type
    class Query:
        branches: list[Branch] = strawberry.field(resolver=lambda: [Branch(name="b")])

    assert left_to_the_library(strawberry.Schema(Query)._schema, text) == ["branches"]


def test_a_plan_keeps_nothing_of_a_request() -> None:
    found = [box()]
    gone = weakref.ref(found[0])

    @strawberry.type
    class Query:
        boxes: list[Box] = strawberry.field(resolver=lambda: list(found))

    left_to_the_library(strawberry.Schema(Query)._schema, f"{{ boxes {{ {PLAIN} }} }}")
    assert planned() == [True]
    found.clear()
    gc.collect()
    assert gone() is None


def test_without_plans_all_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ENABLED", False)
    assert left_to_the_library(schema_of(box()), "{ boxes { name } }") == ["boxes"]


# --- The server's own lists ---


def example(type_: Any) -> Any:
    """Something of the type; of an object, all its plain attributes."""
    if isinstance(type_, GraphQLNonNull):
        return example(type_.of_type)
    if isinstance(type_, GraphQLList):
        return [example(type_.of_type)]
    if isinstance(type_, GraphQLObjectType):
        made = object.__new__(type_.extensions[DEFINITION].origin)
        for field in plain_fields(type_).values():
            object.__setattr__(made, field.extensions[DEFINITION].python_name, example(field.type))
        return made
    return {"String": "x", "ID": "x", "Boolean": True, "DateTime": NOON, "Values": {}}.get(type_.name, 1)


def plain_fields(type_: GraphQLObjectType) -> dict[str, GraphQLField]:
    return {name: field for name, field in type_.fields.items() if field.extensions[DEFINITION].is_basic_field}


def all_plain(type_: GraphQLObjectType) -> str:
    """A selection of every field that is an attribute, at every depth."""
    selected = ["__typename"]
    for name, field in plain_fields(type_).items():
        of = named(field.type)
        selected.append(f"{name} {{ {all_plain(of)} }}" if isinstance(of, GraphQLObjectType) else name)
    return " ".join(selected)


EDGES = [name for name in SCHEMA._schema.type_map if name.endswith("Edge")]


@pytest.mark.parametrize("name", EDGES)
def test_pages_of_the_server_go_by_plan(name: str) -> None:
    """Whatever is no resolver's work: who adds one to a field of a node makes whole pages slower."""
    edge = SCHEMA._schema.type_map[name]
    assert isinstance(edge, GraphQLObjectType)
    schema = asked(SCHEMA._schema, edge, [example(edge), example(edge)])
    assert left_to_the_library(schema, f"{{ all {{ {all_plain(edge)} }} }}") == []


def test_every_value_of_an_event_is_plain_and_has_its_source() -> None:
    """The page that the bench measures, and the one that is asked for most."""
    event = SCHEMA._schema.type_map["Event"]
    assert isinstance(event, GraphQLObjectType) and plain_fields(event) == event.fields
    assert sorted(source.field for source in (*FROM_INDEX, *FROM_LOG)) == sorted(event.fields)


# --- Random selections over random values ---


ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=2),
    st.builds(ValueError, st.just("odd")), st.just([]), st.builds(object), st.builds(dict), st.datetimes(),
    st.sampled_from(Colour),
)  # fmt: skip


@st.composite
def selections(draw: st.DrawFn, schema: GraphQLSchema, type_: Any, depth: int = 3) -> str:
    """Fields of the type, some by alias, some in fragments."""
    members = []
    if isinstance(type_, GraphQLUnionType | GraphQLInterfaceType):
        for possible in draw(st.lists(st.sampled_from(schema.get_possible_types(type_)), max_size=2)):
            members.append(f"... on {possible.name} {{ {draw(selections(schema, possible, depth - 1))} }}")
    names = [] if isinstance(type_, GraphQLUnionType) else list(type_.fields)
    for name in draw(st.lists(st.sampled_from(["__typename", *names]), min_size=1, max_size=6)):
        text = draw(st.sampled_from(["", "", f"a{len(members)}: "])) + name
        of = named(type_.fields[name].type) if name != "__typename" else None
        if isinstance(of, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType):
            if depth == 0:
                continue
            text += f" {{ {draw(selections(schema, of, depth - 1))} }}"
        if draw(st.integers(0, 9)) == 0:
            text = f"... on {type_.name} {{ {text} }}"
        members.append(text)
    return " ".join(members) or "__typename"


def named(type_: GraphQLOutputType) -> Any:
    while isinstance(type_, GraphQLNonNull | GraphQLList):
        type_ = type_.of_type
    return type_


@st.composite
def values(draw: st.DrawFn, schema: GraphQLSchema, type_: Any, depth: int = 3) -> Any:
    """Of the type, mostly."""
    if draw(st.integers(0, 60)) == 0:
        return draw(ODD)
    if isinstance(type_, GraphQLNonNull):
        return draw(values(schema, type_.of_type, depth))
    if draw(st.integers(0, 5)) == 0:
        return None
    if isinstance(type_, GraphQLList):
        return draw(st.lists(values(schema, type_.of_type, depth), max_size=2))
    if isinstance(type_, GraphQLEnumType):
        return draw(st.sampled_from([value.value for value in type_.values.values()]))
    if isinstance(type_, GraphQLScalarType):
        return draw(SCALARS.get(type_.name, st.integers(0, 9)))
    if isinstance(type_, GraphQLObjectType):
        return None if depth == 0 else draw(objects(schema, type_, depth))
    return draw(values(schema, draw(st.sampled_from(schema.get_possible_types(type_))), depth))


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "String": st.text(max_size=4),
    "ID": st.text(max_size=4),
    "Boolean": st.booleans(),
    "Float": st.floats(allow_nan=False, allow_infinity=False),
    "DateTime": st.datetimes(timezones=st.just(UTC)),
    "Date": st.dates(),
}


@st.composite
def objects(draw: st.DrawFn, schema: GraphQLSchema, type_: GraphQLObjectType, depth: int) -> Any:
    """An instance of the type's class with all its plain attributes, made without asking the class."""
    origin = type_.extensions[DEFINITION].origin
    made = object.__new__(origin)
    declared = {field.extensions[DEFINITION].python_name: field for field in type_.fields.values()}
    for attribute in (each.name for each in dataclass_fields(origin)):
        if attribute in declared and declared[attribute].extensions[DEFINITION].is_basic_field:
            value = draw(values(schema, declared[attribute].type, depth - 1))
            object.__setattr__(made, attribute, value)
    return made


def types_of(schema: GraphQLSchema) -> list[GraphQLObjectType]:
    """Those that lists are made of: not the roots."""
    roots = (schema.query_type, schema.mutation_type, schema.subscription_type)
    return [
        type_
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType) and DEFINITION in type_.extensions and type_ not in roots
    ]


def asked(schema: GraphQLSchema, type_: GraphQLObjectType, found: list[Any]) -> GraphQLSchema:
    """The same types under a root of its own."""

    def told(*_: Any) -> list[Any]:
        return found

    root = {
        "some": GraphQLField(GraphQLList(type_), resolve=told),
        "all": GraphQLField(GraphQLList(GraphQLNonNull(type_)), resolve=told),
    }
    return GraphQLSchema(GraphQLObjectType("Asked", root), types=[*schema.type_map.values()], assume_valid=True)


def same_with_and_without(data: st.DataObject, schema: GraphQLSchema) -> None:
    type_ = data.draw(st.sampled_from(types_of(schema)))
    found = data.draw(st.lists(st.one_of(st.none(), objects(schema, type_, 3)), max_size=4))
    selection = data.draw(selections(schema, type_))
    text = f"{{ some {{ {selection} }} all {{ {selection} }} }}"
    under_test = asked(schema, type_, found)
    assert run(under_test, text, PlanningExecutor) == run(under_test, text, Stock)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_selection_of_any_values_gives_the_same_with_and_without(data: st.DataObject) -> None:
    same_with_and_without(data, schema_of(box()))


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_so_it_does_with_the_types_of_the_server(data: st.DataObject) -> None:
    """Fields with resolvers fail here for want of a context, in both alike."""
    same_with_and_without(data, SCHEMA._schema)
