"""Which roles may ask for which mutation, and what its payload shows them: a part of `api.graphql.authorization`.

Whose things they may do it to, `api.graphql.mutations.whose` says.
"""

from collections.abc import Mapping
from typing import NamedTuple

from api.access import Role

Roles = frozenset[Role]

HOUSE: Roles = frozenset({Role.SECURITY_OFFICER, Role.ADMINISTRATOR})
ISSUER: Roles = frozenset({Role.OPERATOR})
KEEPERS: Roles = ISSUER | {Role.SECURITY_OFFICER}  # of the issuer's keys and cards
OWNER: Roles = frozenset({Role.PROVIDER})
GUARDIANS: Roles = OWNER | {Role.SECURITY_OFFICER}  # of persons
BOTH: Roles = ISSUER | OWNER
HANDS: Roles = ISSUER | {Role.CLERK}  # who has the holder, or her call, before him
SEEING: Roles = BOTH | {Role.SECURITY_OFFICER}  # who agrees has to know to what: an administrator does not
ALL: Roles = HOUSE | BOTH | HANDS

COMMON = "logPosition repeated userErrors"


class Rule(NamedTuple):
    """Who may, and which fields the payload has beside those that all have."""

    roles: Roles
    shown: str  # separated by blanks


MUTATIONS: Mapping[str, Rule] = {
    "operatorEnrol": Rule(HOUSE, "operator"),
    "providerEnrol": Rule(HOUSE, "provider"),
    "terminalEnrol": Rule(HOUSE, "terminal"),
    "authorityEnrol": Rule(HOUSE, "authority"),
    "partyWithdraw": Rule(HOUSE, "operation"),
    "cardRegister": Rule(ISSUER, "cards"),
    "cardRelease": Rule(ISSUER, "card"),
    "cardAudit": Rule(ISSUER, "operation"),
    "loadFileRegister": Rule(OWNER, "catalogueEntry"),
    "loadFileDelete": Rule(BOTH, "operation"),
    "securityDomainCreate": Rule(BOTH, "operation"),
    "securityDomainLock": Rule(BOTH, "operation"),
    "securityDomainUnlock": Rule(BOTH, "operation"),
    "securityDomainDelete": Rule(BOTH, "operation"),
    "domainKeysRotate": Rule(KEEPERS, "operation"),
    "applicationInstall": Rule(OWNER, "operation"),
    "applicationLock": Rule(BOTH, "operation"),
    "applicationUnlock": Rule(BOTH, "operation"),
    "applicationDelete": Rule(BOTH, "operation"),
    "credentialRevoke": Rule(GUARDIANS, "operation"),
    "personErase": Rule(GUARDIANS, "operation"),
    "alertAcknowledge": Rule(KEEPERS, "alert"),
    "alertEscalate": Rule(KEEPERS, "alert"),
    "alertClose": Rule(KEEPERS, "alert"),
    "cardHoldRelease": Rule(HANDS, "standing"),
    "cardLockRequest": Rule(HANDS, "standing"),
    "cardUnlockRequest": Rule(HANDS, "standing"),
    "swapPolicyAdopt": Rule(frozenset({Role.SECURITY_OFFICER}), "operation"),
    "operationApprove": Rule(SEEING, "operation"),
    "operationReject": Rule(SEEING, "operation"),
    "operationCancel": Rule(HOUSE | BOTH, "operation"),
    "operationContact": Rule(BOTH, "operation launch"),
}


def payload_of(mutation: str) -> str:
    """The name of its payload type."""
    return f"{mutation[0].upper()}{mutation[1:]}Payload"


def _of(kind: str, roles: Roles, fields: str) -> dict[str, Roles]:
    return {f"{kind}.{field}": roles for field in fields.split()}


RULES: Mapping[str, Roles] = {
    **{f"Mutation.{name}": rule.roles for name, rule in MUTATIONS.items()},
    **{
        field: roles
        for name, rule in MUTATIONS.items()
        for field, roles in _of(payload_of(name), rule.roles, f"{COMMON} {rule.shown}").items()
    },
    **_of("MutationPayload", ALL, COMMON),
    **_of("UserError", ALL, "code message field"),
}
