"""What is done to cards and waits for their next contact: each is an operation that can be followed."""

from collections.abc import Callable
from typing import Any

import strawberry

from api.graphql.mutations.inputs import AID, WHY, OnCard
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.operations import REQUESTED
from api.graphql.mutations.rows import Row
from api.graphql.mutations.whose import (
    card_for_domain,
    card_for_load_file,
    issued_card,
    own_application,
    own_domain,
    own_load_file,
    refuse_others_with_it,
)
from tsm.flows.operations import Operations
from tsm.model.card import Card

RELATED = (
    "Whether what belongs to it now goes, too: FORBIDDEN when that is another party's. Otherwise WRONG_ORDER while"
    " something does. What comes to belong to it later does not go: then the operation fails."
)


@strawberry.input
class OnDomain(OnCard):
    """A security domain on a card."""

    domain: str = strawberry.field(description=f"AID of the security domain, {AID}.")


@strawberry.input
class OnApplication(OnCard):
    """An application on a card."""

    application: str = strawberry.field(description=f"AID of the application, {AID}.")


@strawberry.input
class OnLoadFile(OnCard):
    """An executable load file."""

    load_file: str = strawberry.field(description=f"AID of the load file, {AID}.")


@strawberry.input(description="A security domain that a card does not have yet.")
class SecurityDomainCreateInput(OnDomain):
    reason: str | None = strawberry.field(default=None, description=WHY)


@strawberry.input(description="A security domain to be locked.")
class SecurityDomainLockInput(OnDomain):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A security domain to be unlocked.")
class SecurityDomainUnlockInput(OnDomain):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A security domain to be deleted.")
class SecurityDomainDeleteInput(OnDomain):
    related: bool = strawberry.field(default=False, description=RELATED)
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="An application to be loaded, if need be, and installed.")
class ApplicationInstallInput(OnLoadFile):
    reason: str | None = strawberry.field(default=None, description=WHY)


@strawberry.input(description="An application to be locked.")
class ApplicationLockInput(OnApplication):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="An application to be unlocked.")
class ApplicationUnlockInput(OnApplication):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="An application to be deleted.")
class ApplicationDeleteInput(OnApplication):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A load file to be deleted from a card.")
class LoadFileDeleteInput(OnLoadFile):
    related: bool = strawberry.field(default=False, description=RELATED)
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A card whose issuer security domain is to get new keys.")
class DomainKeysRotateInput(OnCard):
    reason: str = strawberry.field(description=WHY)


@strawberry.input(description="A card that is to tell what it holds.")
class CardAuditInput(OnCard):
    reason: str | None = strawberry.field(default=None, description=WHY)


Ask = Callable[..., Any]  # one of the methods of `Operations` that ask for something on a card


def create(act: Act, given: SecurityDomainCreateInput) -> None:
    card = card_for_domain(act, given.iccid, given.domain)
    ask(act, card, Operations.create_domain, given, given.domain)


def install(act: Act, given: ApplicationInstallInput) -> None:
    card = card_for_load_file(act, given.iccid, given.load_file)
    ask(act, card, Operations.install, given, given.load_file)


def lock_domain(act: Act, given: SecurityDomainLockInput) -> None:
    ask(act, own_domain(act, given.iccid, given.domain), Operations.lock, given, given.domain)


def unlock_domain(act: Act, given: SecurityDomainUnlockInput) -> None:
    ask(act, own_domain(act, given.iccid, given.domain), Operations.unlock, given, given.domain)


def delete_domain(act: Act, given: SecurityDomainDeleteInput) -> None:
    card = own_domain(act, given.iccid, given.domain)
    if given.related and act.caller.viewer.kind == "provider":  # an operator manages all domains on its cards
        refuse_others_with_it(act, card, given.domain)
    ask(act, card, Operations.delete, given, given.domain, given.related)


def lock_application(act: Act, given: ApplicationLockInput) -> None:
    ask(act, own_application(act, given.iccid, given.application), Operations.lock, given, given.application)


def unlock_application(act: Act, given: ApplicationUnlockInput) -> None:
    ask(act, own_application(act, given.iccid, given.application), Operations.unlock, given, given.application)


def delete_application(act: Act, given: ApplicationDeleteInput) -> None:
    ask(act, own_application(act, given.iccid, given.application), Operations.delete, given, given.application, False)


def delete_load_file(act: Act, given: LoadFileDeleteInput) -> None:
    card = own_load_file(act, given.iccid, given.load_file)
    if given.related:
        refuse_others_with_it(act, card, given.load_file)
    ask(act, card, Operations.delete, given, given.load_file, given.related)


def rotate_keys(act: Act, given: DomainKeysRotateInput) -> None:
    ask(act, issued_card(act, given.iccid), Operations.rotate_keys, given)


def audit(act: Act, given: CardAuditInput) -> None:
    ask(act, issued_card(act, given.iccid), Operations.audit, given)


def ask(act: Act, card: Card, what: Ask, given: Any, *about: Any) -> None:
    """In the name of the card's operator, through whose domain it is done."""
    reason = given.reason or ""
    what(act.parts.operations, card.iccid, *about, reason, act.of(card.operator, reason), act.command)


ROWS = (
    Row(
        "securityDomainCreate",
        "Create a provider's security domain, with provisional keys. ALREADY_EXISTS; NOT_FOUND when it is nobody's.",
        SecurityDomainCreateInput,
        create,
        (REQUESTED,),
    ),
    Row(
        "securityDomainLock",
        "Lock a security domain: nobody can select it, nor do anything through it. The applications in it go on until"
        " each is locked itself. WRONG_ORDER when it is locked.",
        SecurityDomainLockInput,
        lock_domain,
        (REQUESTED,),
    ),
    Row(
        "securityDomainUnlock",
        "Unlock a security domain. WRONG_ORDER when it is not locked.",
        SecurityDomainUnlockInput,
        unlock_domain,
        (REQUESTED,),
    ),
    Row(
        "securityDomainDelete",
        "Delete a security domain from a card. WRONG_ORDER while something belongs to it that is to stay.",
        SecurityDomainDeleteInput,
        delete_domain,
        (REQUESTED,),
    ),
    Row(
        "applicationInstall",
        "Load a registered load file, if need be, and install its application in its provider's domain. WRONG_ORDER"
        " before that has its owner's keys; ALREADY_EXISTS.",
        ApplicationInstallInput,
        install,
        (REQUESTED,),
    ),
    Row(
        "applicationLock",
        "Lock an application: it cannot be selected any more. WRONG_ORDER when it is locked.",
        ApplicationLockInput,
        lock_application,
        (REQUESTED,),
    ),
    Row(
        "applicationUnlock",
        "Unlock an application. WRONG_ORDER when it is not locked.",
        ApplicationUnlockInput,
        unlock_application,
        (REQUESTED,),
    ),
    Row(
        "applicationDelete",
        "Delete an application, and all that it holds, from a card.",
        ApplicationDeleteInput,
        delete_application,
        (REQUESTED,),
    ),
    Row(
        "loadFileDelete",
        "Delete a load file from a card. WRONG_ORDER while an application runs from it that is to stay.",
        LoadFileDeleteInput,
        delete_load_file,
        (REQUESTED,),
    ),
    Row(
        "domainKeysRotate",
        "Give the issuer's security domain new keys, made in the vault.",
        DomainKeysRotateInput,
        rotate_keys,
        (REQUESTED,),
    ),
    Row(
        "cardAudit",
        "Ask the card for all that it holds, and record what was not known.",
        CardAuditInput,
        audit,
        (REQUESTED,),
    ),
)
