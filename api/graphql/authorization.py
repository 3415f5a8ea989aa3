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
from api.graphql.mutations import rules as mutations
from tsm.errors import MESSAGES, ErrorCode

Roles = frozenset[Role]

OPERATOR, PROVIDER, CLERK = Role.OPERATOR, Role.PROVIDER, Role.CLERK
AUDITOR, SECURITY_OFFICER, ADMINISTRATOR = Role.AUDITOR, Role.SECURITY_OFFICER, Role.ADMINISTRATOR

EVERYBODY: Roles = frozenset({OPERATOR, PROVIDER, CLERK, AUDITOR, SECURITY_OFFICER, ADMINISTRATOR})
MANAGERS: Roles = frozenset({OPERATOR, PROVIDER, AUDITOR, SECURITY_OFFICER})  # who deal with cards
WATCHERS: Roles = MANAGERS | {CLERK}  # who have to know that a card is under suspicion
RESPONDERS: Roles = frozenset({OPERATOR, AUDITOR, SECURITY_OFFICER})  # who find out whether that is so
COUNTERS: Roles = frozenset({PROVIDER, CLERK, AUDITOR, SECURITY_OFFICER})  # who deal with credentials
OVERSEERS: Roles = frozenset({AUDITOR, SECURITY_OFFICER})  # who may see read-audit, and unseal for a purpose
INTROSPECTORS: Roles = OVERSEERS | {ADMINISTRATOR}  # all others have `schema.graphql`

NOBODY: Roles = frozenset()

REMEMBERED = 512  # documents and roles
STANDS_FOR: Mapping[str, str] = {Role.TERMINAL: CLERK}  # a terminal acts for the clerks of its municipality


def rules(kind: str, roles: Roles, fields: str) -> dict[str, Roles]:
    """Rows of the table: these fields of a type, separated by blanks, are for these roles."""
    return {f"{kind}.{field}": roles for field in fields.split()}


def connection(kind: str, roles: Roles) -> dict[str, Roles]:
    """Rows for the pages of a list of this type."""
    return {
        **rules(f"{kind}Connection", roles, "edges nodes pageInfo"),
        **rules(f"{kind}Edge", roles, "cursor node"),
    }


RULES: Mapping[str, Roles] = {
    **mutations.RULES,
    **rules("Query", EVERYBODY, "node nodes viewer logPosition readModels counts"),
    **rules("Query", MANAGERS, "card cards securityDomain securityDomains loadFiles applications keys keyHistory"),
    **rules("Query", MANAGERS, "catalogue delegations sessions"),
    **rules("Query", MANAGERS | {ADMINISTRATOR}, "operators providers authorities operation operations"),
    **rules("Query", MANAGERS | {ADMINISTRATOR, CLERK}, "terminals"),
    **rules("Query", COUNTERS, "credential credentials"),
    **rules("Query", MANAGERS | {CLERK}, "events"),
    **rules("Query", WATCHERS, "alert alerts standing standings"),
    **rules("Query", RESPONDERS, "lineSwapHistory cardSwapHistory deviceSwapHistory"),
    **rules("Query", RESPONDERS, "swapPolicy swapPolicies swapPolicyTrial"),
    **rules("Query", INTROSPECTORS, "__schema __type"),
    #
    **rules("Node", EVERYBODY, "id"),
    **rules("PageInfo", EVERYBODY, "hasNextPage hasPreviousPage startCursor endCursor"),
    **rules("Count", EVERYBODY, "kind value count"),
    **rules("Viewer", EVERYBODY, "actor role party person sees tenant expiresAt mayAsk mayDo"),
    **rules("ReadModel", EVERYBODY, "name version position parkedCount"),
    **rules("ReadModel", INTROSPECTORS, "parked"),
    **rules("ParkedEvent", INTROSPECTORS, "position topic stream error"),
    #
    **connection("Card", MANAGERS),
    **rules("Card", MANAGERS, "id iccid operator profile isd position changed domainTree securityDomains loadFiles"),
    **rules("Card", MANAGERS, "applications delegations sessions operations standing alerts issuanceHistory"),
    **rules("TreeDomain", MANAGERS, "aid parent privileges lifeCycle failedAuthentications size position keys"),
    **rules("TreeDomain", MANAGERS, "loadFiles applications domains"),
    **rules("TreeKeys", MANAGERS, "version checkValues provisional current position"),
    **rules("TreeLoadFile", MANAGERS, "aid sha256 size position"),
    **rules("TreeApplication", MANAGERS, "aid module loadFile privileges lifeCycle position"),
    **connection("SecurityDomain", MANAGERS),
    **rules("SecurityDomain", MANAGERS, "id iccid aid operator provider parent privileges lifeCycle keyVersion"),
    **rules("SecurityDomain", MANAGERS, "provisional failedAuthentications size position removed card keys"),
    **rules("SecurityDomain", MANAGERS, "loadFiles applications issuanceHistory"),
    **connection("LoadFile", MANAGERS),
    **rules("LoadFile", MANAGERS, "id iccid aid domain operator provider sha256 size position removed card"),
    **rules("LoadFile", MANAGERS, "securityDomain"),
    **connection("Application", MANAGERS),
    **rules("Application", MANAGERS, "id iccid aid domain operator provider module loadFile privileges lifeCycle"),
    **rules("Application", MANAGERS, "position removed card securityDomain issuanceHistory"),
    **connection("KeySet", MANAGERS),
    **rules("KeySet", MANAGERS, "id iccid domain operator provider version checkValues provisional current found"),
    **rules("KeySet", MANAGERS, "party reception actor recordedAt correlation handedOutTo handedOutAt sharedBy"),
    **rules("KeySet", MANAGERS, "sharedAt destroyedAt position session securityDomain"),
    #
    **connection("Credential", COUNTERS),
    **rules("Credential", COUNTERS, "id credential provider municipality terminal authority subject stage hold closed"),
    **rules("Credential", COUNTERS, "iccid position changed issuanceHistory"),
    **rules("Credential", OVERSEERS, "personalData"),
    **rules("PersonalData", OVERSEERS, "subject applicant iccid mainCertificateSerial authenticationSerial"),
    **rules("PersonalData", OVERSEERS, "signatureSerial"),
    #
    **connection("Operator", MANAGERS | {ADMINISTRATOR}),
    **rules("Operator", MANAGERS | {ADMINISTRATOR}, "id party name enrolled certificateFingerprint position"),
    **rules("Operator", MANAGERS, "cards sessions operations"),
    **connection("Provider", MANAGERS | {ADMINISTRATOR}),
    **rules("Provider", MANAGERS | {ADMINISTRATOR}, "id party name domain authority enrolled position"),
    **rules("Provider", MANAGERS | {ADMINISTRATOR}, "certificateFingerprint"),
    **rules("Provider", MANAGERS, "securityDomains catalogue delegations sessions issuanceHistory"),
    **rules("Provider", COUNTERS - {CLERK}, "credentials"),
    **connection("Terminal", MANAGERS | {ADMINISTRATOR, CLERK}),
    **rules("Terminal", MANAGERS | {ADMINISTRATOR, CLERK}, "id party name municipality enrolled position"),
    **rules("Terminal", MANAGERS | {ADMINISTRATOR, CLERK}, "certificateFingerprint"),
    **rules("Terminal", COUNTERS, "credentials"),
    **connection("Authority", MANAGERS | {ADMINISTRATOR}),
    **rules("Authority", MANAGERS | {ADMINISTRATOR}, "id party name enrolled certificateFingerprint position"),
    **rules("Authority", COUNTERS - {CLERK}, "credentials"),
    **connection("CatalogueEntry", MANAGERS),
    **rules("CatalogueEntry", MANAGERS, "id loadFile provider version sha256 size module application position changed"),
    #
    **connection("Delegation", MANAGERS),
    **rules("Delegation", MANAGERS, "id party reception operator provider iccid domain correlation commands executed"),
    **rules("Delegation", MANAGERS, "status expiresAt position changed card session events"),
    **connection("Session", MANAGERS),
    **rules("Session", MANAGERS, "id party reception operator provider iccid domain keyVersion state live exchanges"),
    **rules("Session", MANAGERS, "correlation startedAt lastHeardAt expiresAt status position changed card"),
    **rules("Session", MANAGERS, "securityDomain events"),
    **connection("Operation", MANAGERS | {ADMINISTRATOR}),
    **rules("Operation", MANAGERS | {ADMINISTRATOR}, "id operation kind state operator provider code requestedAt"),
    **rules("Operation", MANAGERS | {ADMINISTRATOR}, "expiresAt position changed"),
    **rules("Operation", MANAGERS, "iccid domain target reason requestedBy approvedBy reception correlation card"),
    **rules("Operation", MANAGERS, "events"),
    #
    **connection("Standing", WATCHERS),
    **rules("Standing", WATCHERS, "id iccid operator level onHold since onHoldSince revokeFrom releasedAt proof"),
    **rules("Standing", WATCHERS, "position changed alerts"),
    **rules("Standing", MANAGERS, "card"),
    **connection("Alert", WATCHERS),
    **rules("Alert", WATCHERS, "id alert iccid operator rule condition level policy since until state inForce verdict"),
    **rules("Alert", WATCHERS, "raisedAt acknowledgedAt closedAt endedAt position changed standing evidence timeline"),
    **rules("Alert", WATCHERS, "evidencePositions acknowledgedBy escalatedBy closedBy endedBy"),
    **rules("Alert", MANAGERS, "card"),
    **rules("SwapHistory", RESPONDERS, "bindings signals"),
    **rules("LineBinding", RESPONDERS, "msisdn imsi iccid imei since until evidence"),
    **rules("LineSignal", RESPONDERS, "position kind source occurredAt recordedAt msisdn imsi iccid imei previous"),
    **rules("LineSignal", RESPONDERS, "indication until"),
    **rules("SwapPolicy", RESPONDERS, "version settleHours rules adoptedAt operation reason position"),
    **rules("SwapRule", RESPONDERS, "name condition level withinHours lastsHours weights threshold"),
    **rules("SwapWeight", RESPONDERS, "indication weight"),
    **rules("SwapPolicyTrial", RESPONDERS, "cards rules missed"),
    **rules("SwapRuleTrial", RESPONDERS, "rule caught confirmed falseAlarms open"),
    **rules("MissedCase", RESPONDERS, "iccid alert"),
    #
    **rules("Subscription", MANAGERS | {CLERK}, "events"),
    **rules("Subscription", RESPONDERS, "alerts"),
    **rules("AlertChange", RESPONDERS, "position alert"),
    **rules("Subscription", MANAGERS, "sessions operations"),
    **rules("SessionChange", MANAGERS, "position session"),
    **rules("OperationChange", MANAGERS, "position operation"),
    #
    **connection("Event", MANAGERS | {CLERK}),
    **rules("Event", MANAGERS | {CLERK}, "id position topic actor role tenant operator provider municipality"),
    **rules("Event", MANAGERS | {CLERK}, "occurredAt recordedAt correlation reception card domain aid credential"),
    **rules("Event", MANAGERS | {CLERK}, "subject stream number text tenants causation request command reason"),
    **rules("Event", OVERSEERS, "values"),
    #
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


def as_role(role: str) -> str:
    """The role of the table that a caller's role stands for."""
    return STANDS_FOR.get(role, role)


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
    check = _Check(document.value, as_role(role), schema.value)
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
