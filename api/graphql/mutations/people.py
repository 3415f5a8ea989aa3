"""Credentials are revoked, persons erased, and parties' certificates withdrawn: each by an operation."""

from enum import Enum
from typing import Any

import strawberry

from api.graphql.mutations.inputs import WHY, Keyed
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.operations import REQUESTED
from api.graphql.mutations.rows import Row
from api.graphql.mutations.whose import party_of, provider_of_credential, refuse_other_tenants
from tsm.errors import ErrorCode, TsmError
from tsm.model import credential
from tsm.model.operation import OperationKind


@strawberry.enum(description="Why certificates are revoked (RFC 5280 section 5.3.1).")
class RevocationReason(Enum):
    UNSPECIFIED = strawberry.enum_value(credential.RevocationReason.UNSPECIFIED, description="No reason is told.")
    KEY_COMPROMISE = strawberry.enum_value(
        credential.RevocationReason.KEY_COMPROMISE, description="Somebody else may have the keys or the card."
    )
    AFFILIATION_CHANGED = strawberry.enum_value(
        credential.RevocationReason.AFFILIATION_CHANGED, description="What the certificate says of its holder changed."
    )
    SUPERSEDED = strawberry.enum_value(
        credential.RevocationReason.SUPERSEDED, description="Another credential has taken its place."
    )
    CESSATION_OF_OPERATION = strawberry.enum_value(
        credential.RevocationReason.CESSATION_OF_OPERATION, description="The holder gives it up, or has died."
    )
    PRIVILEGE_WITHDRAWN = strawberry.enum_value(
        credential.RevocationReason.PRIVILEGE_WITHDRAWN, description="The holder may not have it any more."
    )


@strawberry.enum(description="What kind of party.")
class PartyKind(Enum):
    OPERATOR = strawberry.enum_value("operator", description="An operator (MNO).")
    PROVIDER = strawberry.enum_value("provider", description="A service provider.")
    TERMINAL = strawberry.enum_value("terminal", description="A counter terminal.")
    AUTHORITY = strawberry.enum_value("authority", description="A certificate authority.")


@strawberry.input(description="A party whose certificate is to open nothing any more.")
class PartyWithdrawInput(Keyed):
    kind: PartyKind = strawberry.field(description="What kind of party it is.")
    party: str = strawberry.field(description="Its spId, or its id.")
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A credential whose certificates are to be revoked.")
class CredentialRevokeInput(Keyed):
    credential: str = strawberry.field(description="Its id.")
    revocation_reason: RevocationReason = strawberry.field(description="What the revocation list is to say.")
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A person whose data is to be erased.")
class PersonEraseInput(Keyed):
    credential: str = strawberry.field(description="The id of the credential, whose tenure by the person it is about.")
    even_in_use: bool = strawberry.field(
        default=False, description="Whether the authority has revoked the credential already, outside of this server."
    )
    reason: str = strawberry.field(description=WHY)


def withdraw(act: Act, given: PartyWithdrawInput) -> None:
    refuse_other_tenants(act)
    kind = value_of(PartyKind, given.kind)
    target = f"{kind}/{given.party}"
    state = party_of(act, target)
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, target, ("party",))
    context = act.of(given.party, given.reason)
    values = {"certificate_fingerprint": state.certificate_fingerprint}
    act.parts.operations.request_other(
        OperationKind.WITHDRAW_PARTY, target, given.reason, context, act.command, values=values
    )


def revoke(act: Act, given: CredentialRevokeInput) -> None:
    ask_of_credential(
        act, given, OperationKind.REVOKE_CREDENTIAL, {"reason": value_of(RevocationReason, given.revocation_reason)}
    )


def erase(act: Act, given: PersonEraseInput) -> None:
    ask_of_credential(act, given, OperationKind.ERASE_PERSON, {"even_in_use": "true"} if given.even_in_use else {})


def ask_of_credential(
    act: Act, given: CredentialRevokeInput | PersonEraseInput, kind: OperationKind, values: dict[str, str]
) -> None:
    provider = provider_of_credential(act, given.credential)
    context = act.of(provider, given.reason)
    act.parts.operations.request_other(
        kind, given.credential, given.reason, context, act.command, provider=provider, values=values
    )


def value_of(kind: type[Enum], given: Any) -> str:
    """What a value of an enumeration stands for: sorting the schema makes the library hand on that itself."""
    return str(kind(given).value)


ROWS = (
    Row(
        "partyWithdraw",
        "Withdraw the certificate that a party has now: it is nobody from then on, until it is enrolled again. When it"
        " has another by then, nothing is withdrawn.",
        PartyWithdrawInput,
        withdraw,
        (REQUESTED,),
    ),
    Row(
        "credentialRevoke",
        "Revoke both certificates of a credential: the authority is told until it acknowledges.",
        CredentialRevokeInput,
        revoke,
        (REQUESTED,),
    ),
    Row(
        "personErase",
        "Erase a person's data, for one tenure of a credential: the key of all that is sealed is destroyed. Nothing"
        " brings it back.",
        PersonEraseInput,
        erase,
        (REQUESTED,),
    ),
)
