"""What all enrolled parties share: each is known by one client certificate, which can be replaced or withdrawn.

Enrolling again with another certificate replaces the one before at once. A party whose certificate was withdrawn has
none, so it is nobody until it is enrolled again; what it did stays. The facts stand in the party's own stream.
"""

from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact

WITHDRAWN = ""  # in place of a fingerprint: no certificate has it


class CertificateReplaced(Fact, frozen=True, kw_only=True):
    """The party shows another client certificate from now on; the one before opens nothing any more."""

    topic: ClassVar[str] = "party.certificate_replaced"
    certificate_fingerprint: str  # SHA-256 of the new certificate's DER, hex


class CertificateWithdrawn(Fact, frozen=True, kw_only=True):
    """The party's client certificate opens nothing any more, and it has no other."""

    topic: ClassVar[str] = "party.certificate_withdrawn"
    certificate_fingerprint: str  # of the withdrawn certificate


class Certified(Protocol):
    """A party's state, as far as it matters here."""

    @property
    def certificate_fingerprint(self) -> str: ...


Party = TypeVar("Party", bound=Certified)


def enrol(state: Party | None, wanted: Party, enrolled: Fact, name: str) -> list[Fact]:
    """Decide to admit a party, or to replace its certificate when that is all that is new; the same is no news.

    `wanted` is the state that `enrolled` describes. ALREADY_EXISTS when anything but the certificate differs.
    """
    if state is None:
        return [enrolled]
    fingerprint = wanted.certificate_fingerprint
    if with_certificate(state, fingerprint) != wanted:
        raise TsmError(ErrorCode.ALREADY_EXISTS, name)
    if state.certificate_fingerprint == fingerprint:
        return []
    return [CertificateReplaced(certificate_fingerprint=fingerprint)]


def withdraw(state: Certified | None) -> list[Fact]:
    """Decide to withdraw a party's certificate; once more is no news. NOT_FOUND for a party that is not enrolled."""
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, "no such party")
    if state.certificate_fingerprint == WITHDRAWN:
        return []
    return [CertificateWithdrawn(certificate_fingerprint=state.certificate_fingerprint)]


def refuse_other_certificate(state: Certified | None, fingerprint: str) -> None:
    """WRONG_ORDER when the party has another certificate by now than whoever wanted to withdraw this one meant."""
    if state is not None and state.certificate_fingerprint not in (WITHDRAWN, fingerprint):
        raise TsmError(ErrorCode.WRONG_ORDER, "the party has another certificate by now")


def evolve(state: Party, fact: Fact) -> Party:
    """Fold one fact."""
    match fact:
        case CertificateReplaced():
            return with_certificate(state, fact.certificate_fingerprint)
        case CertificateWithdrawn():
            return with_certificate(state, WITHDRAWN)
        case _:
            return state


def with_certificate(state: Party, fingerprint: str) -> Party:
    struct: Any = state  # every party's state is one; a protocol cannot say so
    changed: Party = msgspec.structs.replace(struct, certificate_fingerprint=fingerprint)
    return changed


FACTS: tuple[type[Fact], ...] = (CertificateReplaced, CertificateWithdrawn)
