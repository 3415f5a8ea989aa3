"""The AID of a provider's security domain: on every card it is one provider's, for whoever it names owns the domain.

The claim is recorded with the provider's enrolment, in one commit: of two enrolments at the same moment one wins. It
outlasts a withdrawal, because the domains on the cards do.

Stream: `domain-<AID>`.
"""

from typing import ClassVar

from tsm.errors import ErrorCode, TsmError
from tsm.model.card import ISSUER_DOMAIN
from tsm.model.event import Fact


class DomainClaimed(Fact, frozen=True, kw_only=True):
    """The security domains of this AID are a provider's. The only fact of its stream, so it is its state too."""

    topic: ClassVar[str] = "domain.claimed"
    domain: str  # AID
    provider: str  # spId


Domain = DomainClaimed


def stream(domain: str) -> str:
    """The AID's stream."""
    return f"domain-{domain}"


def claim(state: Domain | None, domain: str, provider: str) -> list[DomainClaimed]:
    """Decide that the domain is the provider's; the same again is no news.

    FORBIDDEN for the issuer's domain, ALREADY_EXISTS when it is another provider's.
    """
    if domain == ISSUER_DOMAIN:
        raise TsmError(ErrorCode.FORBIDDEN, "the issuer's security domain")
    claimed = DomainClaimed(domain=domain, provider=provider)
    if state is None:
        return [claimed]
    if state != claimed:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"{domain} is another provider's")
    return []


def evolve(state: Domain | None, fact: Fact) -> Domain:
    """Fold one fact."""
    if isinstance(fact, DomainClaimed):
        return fact
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a domain begins with its claim")
    return state


FACTS: tuple[type[Fact], ...] = (DomainClaimed,)
