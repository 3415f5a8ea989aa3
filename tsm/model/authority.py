"""A certificate authority (認証局): makes key pairs and certificates, and says which of them are revoked.

It has one issuer for signature and one for user authentication, each with its own revocation list.

Stream: `authority-<id>`.
"""

from typing import ClassVar

from tsm.errors import ErrorCode, TsmError
from tsm.model import party
from tsm.model.checks import SHA256_OCTETS, check_hex, check_https, check_name, check_text
from tsm.model.event import Fact


class AuthorityEnrolled(Fact, frozen=True, kw_only=True):
    """The authority was admitted. What is known of it is in this fact, so it is the authority's state too."""

    topic: ClassVar[str] = "authority.enrolled"
    authority: str
    name: str
    certificate_fingerprint: str  # SHA-256 of the client certificate's DER, hex
    url: str  # where certificates are asked for
    signature_ca: str  # certificate DER in hex, the anchor of trust for signatures
    authentication_ca: str  # the same for user authentication
    signature_crl_url: str
    authentication_crl_url: str


Authority = AuthorityEnrolled


def stream(authority: str) -> str:
    """The authority's stream."""
    return f"authority-{authority}"


def enrol(state: Authority | None, enrolled: AuthorityEnrolled) -> list[Fact]:
    """Decide to admit an authority, or to replace its certificate; the same again is no news.

    INVALID_INPUT; ALREADY_EXISTS when anything but the certificate differs.
    """
    check_name(enrolled.authority, "authority")
    check_text(enrolled.name, "name")
    check_hex(enrolled.certificate_fingerprint, "certificate_fingerprint", SHA256_OCTETS)
    check_https(enrolled.url, "url")
    check_hex(enrolled.signature_ca, "signature_ca")
    check_hex(enrolled.authentication_ca, "authentication_ca")
    check_https(enrolled.signature_crl_url, "signature_crl_url")
    check_https(enrolled.authentication_crl_url, "authentication_crl_url")
    return party.enrol(state, enrolled, enrolled, f"authority {enrolled.authority}")


def evolve(state: Authority | None, fact: Fact) -> Authority:
    """Fold one fact."""
    if isinstance(fact, AuthorityEnrolled):
        return fact
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "an authority begins with its enrolment")
    return party.evolve(state, fact)


FACTS: tuple[type[Fact], ...] = (AuthorityEnrolled,)
