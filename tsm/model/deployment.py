"""A deployment: one step by which the operator prepares a card for a provider, and where the browser goes afterwards.

The step itself is a delegation of the operator's, and the card's facts say what it did. This stream links the
operator's reception number to the provider who asked. An operation that waited for the card is such a step, too; when
it was the operator who had the phone at hand, nobody else asked, and the browser goes nowhere.

Stream: `deployment-<rcptNum of the operator's delegation>`.
"""

from enum import StrEnum
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact


class DeploymentStep(StrEnum):
    """What a card needs next, in this order."""

    SECURITY_DOMAIN = "security-domain"  # the operator creates the provider's domain, with provisional keys
    KEY_ROTATION = "key-rotation"  # the provider replaces the provisional keys: nothing for the operator to do
    APPLICATION = "application"  # the operator loads and installs the provider's application
    AUDIT = "audit"  # before one of the operator's steps is tried again: the operator asks the card how far it came
    OPERATION = "operation"  # before anything else: what the operator had waiting for this card (`tsm.model.operation`)
    DONE = "done"


class DeploymentDelegated(Fact, frozen=True, kw_only=True):
    """The operator's commands for one step wait for the phone."""

    topic: ClassVar[str] = "deployment.delegated"
    operator: str
    provider: str  # empty when the operator itself asked, as is the return URL
    reception: str
    iccid: str
    domain: str  # AID of the provider's security domain, or of the one that an operation is about
    step: str  # a DeploymentStep
    return_url: str  # the provider's registered one


class DeploymentReturned(Fact, frozen=True, kw_only=True):
    """The browser came back with a final status that the server had signed."""

    topic: ClassVar[str] = "deployment.returned"
    status: str  # strProcStatus


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment as its facts say."""

    delegated: DeploymentDelegated
    returned: DeploymentReturned | None = None


def stream(reception: str) -> str:
    """The stream of a deployment."""
    return f"deployment-{reception}"


def come_back(state: Deployment, status: str) -> list[DeploymentReturned]:
    """Decide that the browser came back; a reload of the page is no news."""
    return [] if state.returned is not None else [DeploymentReturned(status=status)]


def evolve(state: Deployment | None, fact: Fact) -> Deployment:
    """Fold one fact."""
    if isinstance(fact, DeploymentDelegated):
        return Deployment(delegated=fact)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a deployment begins with its delegation")
    if isinstance(fact, DeploymentReturned):
        return msgspec.structs.replace(state, returned=fact)
    return state


FACTS: tuple[type[Fact], ...] = (DeploymentDelegated, DeploymentReturned)
