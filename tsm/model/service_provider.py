"""A service provider (サービス提供機関): owns a security domain on cards and what is installed in it.

It signs its launch parameters, is told of results at its notification address, and takes keys wrapped for its transport
key. Its own signing key never comes here, and its domain's DEK only as `tsm.flows.domain_keys` says.

Stream: `provider-<spId>`.
"""

from typing import ClassVar

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Aid, SpId
from tsm.model import party
from tsm.model.checks import SHA256_OCTETS, check_hex, check_https, check_identifier, check_name, check_text, refusal
from tsm.model.event import Fact


class ProviderEnrolled(Fact, frozen=True, kw_only=True):
    """The provider was admitted. What is known of it is in this fact, so it is the provider's state too."""

    topic: ClassVar[str] = "provider.enrolled"
    provider: str  # its spId
    name: str
    certificate_fingerprint: str  # SHA-256 of the client certificate's DER, hex
    public_key: str  # of its signing key (ECDSA P-256), SPKI DER in hex
    transport_key: str  # RSA, SPKI DER in hex: keys for the provider are wrapped for it
    notify_url: str  # MC-05 interface 4
    return_urls: tuple[str, ...]  # MC-05 interface 5: the only addresses that a browser is sent back to
    domain: str  # AID of its security domain
    authority: str  # id of the certificate authority that issues for it


ServiceProvider = ProviderEnrolled


def stream(provider: str) -> str:
    """The provider's stream."""
    return f"provider-{provider}"


def enrol(state: ServiceProvider | None, enrolled: ProviderEnrolled) -> list[Fact]:
    """Decide to admit a provider, or to replace its certificate; the same again is no news.

    INVALID_INPUT; ALREADY_EXISTS when anything but the certificate differs.
    """
    check_identifier(SpId, enrolled.provider, "provider")
    check_identifier(Aid, enrolled.domain, "domain")
    check_text(enrolled.name, "name")
    check_name(enrolled.authority, "authority")
    check_hex(enrolled.certificate_fingerprint, "certificate_fingerprint", SHA256_OCTETS)
    check_hex(enrolled.public_key, "public_key")
    check_hex(enrolled.transport_key, "transport_key")
    check_https(enrolled.notify_url, "notify_url")
    for url in enrolled.return_urls:
        check_https(url, "return_urls")
    if not enrolled.return_urls:
        raise refusal("return_urls", "at least one")
    return party.enrol(state, enrolled, enrolled, f"service provider {enrolled.provider}")


def evolve(state: ServiceProvider | None, fact: Fact) -> ServiceProvider:
    """Fold one fact."""
    if isinstance(fact, ProviderEnrolled):
        return fact
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a service provider begins with its enrolment")
    return party.evolve(state, fact)


FACTS: tuple[type[Fact], ...] = (ProviderEnrolled,)
