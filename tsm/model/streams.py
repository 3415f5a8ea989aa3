"""Which aggregate a stream is of: the beginning of its name tells how to fold it."""

from collections.abc import Callable, Mapping
from typing import Any

from tsm.model import (
    access_code,
    authority,
    card,
    catalogue,
    credential,
    delegation,
    deployment,
    domain,
    line,
    operation,
    operator,
    service_provider,
    service_token,
    session,
    standing,
    subscription,
    swap_policy,
    terminal,
)
from tsm.model.event import Fact

Evolve = Callable[[Any, Fact], Any]

EVOLVES: Mapping[str, Evolve] = {
    "access-code-": access_code.evolve,
    "authority-": authority.evolve,
    "card-": card.evolve,
    "catalogue-": catalogue.evolve,
    "credential-": credential.evolve,
    "delegation-": delegation.evolve,
    "deployment-": deployment.evolve,
    "domain-": domain.evolve,
    "line-": line.evolve,
    "operation-": operation.evolve,
    "operator-": operator.evolve,
    "provider-": service_provider.evolve,
    "service-token-": service_token.evolve,
    "session-": session.evolve,
    "standing-": standing.evolve,
    "subscription-": subscription.evolve,
    "swap-policy": swap_policy.evolve,
    "terminal-": terminal.evolve,
}


def evolve_of(stream: str) -> Evolve | None:
    """None for a stream of no aggregate."""
    return next((evolve for prefix, evolve in EVOLVES.items() if stream.startswith(prefix)), None)
