"""Parties are admitted here, and their certificates replaced."""

from dataclasses import asdict
from typing import Any, TypeVar

import strawberry

from api.administration import OperatorDescription, enrol_operator
from api.graphql.mutations.inputs import Keyed
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.rows import Row, Shown, changed
from api.graphql.mutations.whose import refuse_other_tenants
from api.graphql.types.parties import Authority, Operator, Provider, Terminal
from projections.registry.rows import key
from projections.viewer import Viewer
from tsm.model.authority import AuthorityEnrolled
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled

FINGERPRINT = "SHA-256 of the DER of its client certificate, hex. All else equal, another one replaces the one before."
Described = TypeVar("Described")


@strawberry.input(description="An operator (MNO) as it describes itself. Its signing key is made here.")
class OperatorEnrolInput(Keyed):
    operator: str = strawberry.field(description="Its spId: 8 capital letters and digits.")
    name: str = strawberry.field(description="What people call it, 200 characters at most.")
    certificate_fingerprint: str = strawberry.field(description=FINGERPRINT)


@strawberry.input(description="A service provider as it describes itself.")
class ProviderEnrolInput(Keyed):
    provider: str = strawberry.field(description="Its spId: 8 capital letters and digits.")
    name: str = strawberry.field(description="What people call it, 200 characters at most.")
    certificate_fingerprint: str = strawberry.field(description=FINGERPRINT)
    public_key: str = strawberry.field(description="Of its signing key (ECDSA P-256): SPKI, DER in hex.")
    transport_key: str = strawberry.field(description="RSA key for which keys are wrapped: SPKI, DER in hex.")
    notify_url: str = strawberry.field(description="Where it is told of results (MC-05 interface 4); https.")
    return_urls: list[str] = strawberry.field(
        description="The only addresses that a browser is sent back to (MC-05 interface 5); https, at least one."
    )
    domain: str = strawberry.field(description="AID of its security domain, 5 to 16 octets in upper-case hex.")
    authority: str = strawberry.field(description="The certificate authority that issues for it: enrolled before.")


@strawberry.input(description="A counter terminal of a municipality.")
class TerminalEnrolInput(Keyed):
    terminal: str = strawberry.field(description="Its id: letters, digits, `.`, `_` and `-`, 64 at most.")
    municipality: str = strawberry.field(description="The municipality at whose counter it stands.")
    certificate_fingerprint: str = strawberry.field(description=FINGERPRINT)


@strawberry.input(description="A certificate authority as it describes itself.")
class AuthorityEnrolInput(Keyed):
    authority: str = strawberry.field(description="Its id: letters, digits, `.`, `_` and `-`, 64 at most.")
    name: str = strawberry.field(description="What people call it, 200 characters at most.")
    certificate_fingerprint: str = strawberry.field(description=FINGERPRINT)
    url: str = strawberry.field(description="Where certificates are asked for; https.")
    signature_ca: str = strawberry.field(description="Its certificate that verifies signatures: DER in hex.")
    authentication_ca: str = strawberry.field(description="The same for user authentication: DER in hex.")
    signature_crl_url: str = strawberry.field(description="Where its list of revoked signature certificates is; https.")
    authentication_crl_url: str = strawberry.field(description="The same for user authentication; https.")


def enrol_an_operator(act: Act, given: OperatorEnrolInput) -> None:
    refuse_other_tenants(act, Viewer("operator", given.operator))
    enrol_operator(act.parts, described(given, OperatorDescription), act.of(given.operator), act.command)


def enrol_a_provider(act: Act, given: ProviderEnrolInput) -> None:
    refuse_other_tenants(act, Viewer("provider", given.provider))
    act.parts.tsm.enrol_provider(described(given, ProviderEnrolled), act.of(given.provider), act.command)


def enrol_a_terminal(act: Act, given: TerminalEnrolInput) -> None:
    refuse_other_tenants(act)
    act.parts.tsm.enrol_terminal(described(given, TerminalEnrolled), act.of(given.terminal), act.command)


def enrol_an_authority(act: Act, given: AuthorityEnrolInput) -> None:
    refuse_other_tenants(act)
    act.parts.tsm.enrol_authority(described(given, AuthorityEnrolled), act.of(given.authority), act.command)


def described(given: Any, kind: type[Described]) -> Described:
    """The party's own description: an input has the same members, and a key."""
    values = asdict(given)
    del values["idempotency_key"]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def party(kind: Any, name: str, what: str) -> Shown:
    return changed(name, kind, lambda _, given, __: key(name, getattr(given, name)), what)


ROWS = (
    Row(
        "operatorEnrol",
        "Admit an operator, or replace its certificate. ALREADY_EXISTS when anything but the certificate differs, or a"
        " provider has this spId.",
        OperatorEnrolInput,
        enrol_an_operator,
        (party(Operator, "operator", "The operator."),),
    ),
    Row(
        "providerEnrol",
        "Admit a service provider, or replace its certificate. ALREADY_EXISTS when anything but the certificate"
        " differs, an operator has this spId, or another provider this domain; NOT_FOUND without its authority.",
        ProviderEnrolInput,
        enrol_a_provider,
        (party(Provider, "provider", "The provider."),),
    ),
    Row(
        "terminalEnrol",
        "Admit a counter terminal, or replace its certificate. ALREADY_EXISTS when anything but the certificate"
        " differs.",
        TerminalEnrolInput,
        enrol_a_terminal,
        (party(Terminal, "terminal", "The terminal."),),
    ),
    Row(
        "authorityEnrol",
        "Admit a certificate authority, or replace its certificate. ALREADY_EXISTS when anything but the certificate"
        " differs.",
        AuthorityEnrolInput,
        enrol_an_authority,
        (party(Authority, "authority", "The authority."),),
    ),
)
