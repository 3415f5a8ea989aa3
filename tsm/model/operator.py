"""An operator (MNO): owns cards, holds the keys of their issuer domains, and delegates as a party of its own.

Its master keys lie in the vault. The log knows their names, how a card's keys are derived from them, and their check
values, which prove which keys they are without telling them.

Stream: `operator-<spId>`.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import KeyRef, SpId
from tsm.model import party
from tsm.model.checks import (
    CHECK_VALUE_OCTETS,
    SHA256_OCTETS,
    check_hex,
    check_https,
    check_identifier,
    check_name,
    check_text,
)
from tsm.model.event import Fact

KDF3 = "kdf3"  # SP 800-108 in counter mode over the card's key diversification data
LAST_KEY_VERSION = 0x7F  # GPCS v2.3.1 section 11.8.2.3: key versions are 01 to 7F


class OperatorEnrolled(Fact, frozen=True, kw_only=True):
    """The operator was admitted, with the certificate that it shows and the key that signs its launch parameters."""

    topic: ClassVar[str] = "operator.enrolled"
    operator: str  # its spId
    name: str
    certificate_fingerprint: str  # SHA-256 of the client certificate's DER, hex
    public_key: str  # of `signing_key`, SPKI DER in hex
    signing_key: str  # KeyRef
    return_urls: tuple[str, ...]


class MasterKeyImported(Fact, frozen=True, kw_only=True):
    """A master key entered the vault."""

    topic: ClassVar[str] = "operator.master_key_imported"
    operator: str
    key_set: str  # the name by which production files refer to it
    key: str  # KeyRef
    derivation: str  # how a card's keys come from it
    key_version: int  # of the derived keys on the cards
    check_value: str  # hex


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """The operator as its facts say."""

    operator: str
    name: str
    certificate_fingerprint: str
    public_key: str
    signing_key: str
    return_urls: tuple[str, ...]
    key_sets: Mapping[str, MasterKeyImported]

    def key_set(self, name: str) -> MasterKeyImported:
        """UNKNOWN_KEY when no master key of that name was imported."""
        if name not in self.key_sets:
            raise TsmError(ErrorCode.UNKNOWN_KEY, f"{self.operator} has no key set {name}")
        return self.key_sets[name]


def stream(operator: str) -> str:
    """The operator's stream."""
    return f"operator-{operator}"


def enrol(state: Operator | None, enrolled: OperatorEnrolled) -> list[Fact]:
    """Decide to admit an operator, or to replace its certificate; the same again is no news.

    INVALID_INPUT; ALREADY_EXISTS when anything but the certificate differs.
    """
    check_identifier(SpId, enrolled.operator, "operator")
    KeyRef(enrolled.signing_key)
    check_text(enrolled.name, "name")
    check_hex(enrolled.certificate_fingerprint, "certificate_fingerprint", SHA256_OCTETS)
    check_hex(enrolled.public_key, "public_key")
    for url in enrolled.return_urls:
        check_https(url, "return_urls")
    wanted = msgspec.structs.replace(evolve(None, enrolled), key_sets=state.key_sets if state else {})
    return party.enrol(state, wanted, enrolled, f"operator {enrolled.operator}")


def place_master_key(state: Operator | None, operator: str, key_set: str, key_version: int) -> KeyRef:
    """Where the vault keeps a master key that may be imported.

    NOT_FOUND for an operator that is not enrolled; INVALID_INPUT.
    """
    if state is None:
        raise TsmError(ErrorCode.NOT_FOUND, f"operator {operator}")
    check_name(key_set, "key_set")
    if not 1 <= key_version <= LAST_KEY_VERSION:
        raise TsmError(ErrorCode.INVALID_INPUT, "key_version: not 01 to 7F")
    return KeyRef(f"operator/{operator}/{key_set}")


def import_master_key(
    state: Operator | None, operator: str, key_set: str, key_version: int, check_value: str
) -> list[MasterKeyImported]:
    """Decide to take a master key into use; the same again is no news.

    NOT_FOUND, INVALID_INPUT; ALREADY_EXISTS when the name is taken by another key.
    """
    key = place_master_key(state, operator, key_set, key_version)
    check_hex(check_value, "check_value", CHECK_VALUE_OCTETS)
    imported = MasterKeyImported(
        operator=operator,
        key_set=key_set,
        key=key,
        derivation=KDF3,
        key_version=key_version,
        check_value=check_value,
    )
    known = state.key_sets.get(key_set) if state is not None else None
    if known is None:
        return [imported]
    if known != imported:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"key set {key_set} of {operator}")
    return []


def evolve(state: Operator | None, fact: Fact) -> Operator:
    """Fold one fact."""
    if isinstance(fact, OperatorEnrolled):
        return Operator(**msgspec.structs.asdict(fact), key_sets={})
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "an operator begins with its enrolment")
    if isinstance(fact, MasterKeyImported):
        return msgspec.structs.replace(state, key_sets={**state.key_sets, fact.key_set: fact})
    return party.evolve(state, fact)


FACTS: tuple[type[Fact], ...] = (OperatorEnrolled, MasterKeyImported)
