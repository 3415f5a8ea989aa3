"""How the keys of a provider's security domain change hands.

The operator made provisional keys and put them on the card; we hand them to the provider, under its transport key. The
provider makes its own and puts them in their place (PUT KEY), under the provisional DEK. Before that it shares ENC and
MAC with us, so that we can open the secure channel. Its DEK comes here once, inside that PUT KEY: whoever has the
provisional keys can unwrap it. We do not, and destroy them as soon as they are replaced (`tsm.flows.provisional_keys`);
from then on what the provider encrypts cannot be read with anything that we hold.

What a provider puts must be what it shared, or nobody could open the domain again: PUT KEY is looked at when it is
delegated. A provider that shared something else by mistake shares again: only keys that the card has acknowledged stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tsm.application import Change, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows.content import foreseen, parsed
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import PutKey
from tsm.identifiers import KeyRef
from tsm.keys.vault import SoftwareVault
from tsm.mas.signing import MAS_TRANSPORT_KEY
from tsm.model import card as cards
from tsm.model.card import Card, KeysPut, KeysShared, ProvisionalKeysHandedOut, SecurityDomain, key_reference
from tsm.model.event import Context, Fact
from tsm.model.service_provider import ServiceProvider

LAST_KEY_VERSION = 0x7F  # GPCS v2.3.1 section 11.8.2.3


@dataclass(frozen=True, slots=True)
class ProvisionalKeys:
    """A domain's provisional keys, for its owner alone."""

    key_version: int
    diversification: str  # of the card: the owner may derive its own keys from it
    check_values: tuple[str, ...]
    wrapped: dict[str, bytes] = field(repr=False)
    label: bytes
    correlation: str  # of the deployment, for the owner to go on with


class DomainKeys:
    """Hands out provisional keys and takes the owner's."""

    def __init__(self, tsm: Tsm, vault: SoftwareVault) -> None:
        self._tsm = tsm
        self._vault = vault

    def transport_key(self) -> bytes:
        """SPKI DER of the RSA key under which key sets are shared with us."""
        return self._vault.public_key(MAS_TRANSPORT_KEY)

    def provisional(self, provider: str, iccid: str, request_id: str = "") -> ProvisionalKeys:
        """UNKNOWN_SECURITY_DOMAIN before the domain has keys, UNKNOWN_KEY once they are not provisional any more.

        Each time is recorded before the keys leave.
        """
        owner, card = self._tsm.provider_of(provider), self._tsm.card_of(iccid)
        domain = domain_with_keys(card, owner.domain)
        if not domain.provisional:
            raise TsmError(ErrorCode.UNKNOWN_KEY, "the provisional keys are replaced")
        label = transport_label(owner, card, domain.key_version)
        handed_out = ProvisionalKeysHandedOut(domain=domain.aid, key_version=domain.key_version, provider=provider)
        self._record(card, handed_out, request_id)
        return ProvisionalKeys(
            domain.key_version,
            card.diversification,
            domain.check_values,
            self._vault.export_key_set(domain.key, bytes.fromhex(owner.transport_key), label),
            label,
            deployment_correlation(self._vault, provider, iccid),
        )

    def take(
        self,
        provider: str,
        iccid: str,
        key_version: int,
        check_values: Sequence[str],
        wrapped: Mapping[str, bytes],
        request_id: str = "",
    ) -> None:
        """Keep ENC and MAC of the keys that the owner is about to put; the same again is no news.

        Others for the same version replace them. INVALID_INPUT for the version of the provisional keys, or one that no
        key has. KEY_REFUSED for keys that are not what their check values say; ALREADY_EXISTS when the card has
        acknowledged others as this version.
        """
        owner, card = self._tsm.provider_of(provider), self._tsm.card_of(iccid)
        domain = domain_with_keys(card, owner.domain)
        if not 0 < key_version <= LAST_KEY_VERSION or (domain.provisional and key_version == domain.key_version):
            raise TsmError(ErrorCode.INVALID_INPUT, f"key version {key_version}")
        ref = KeyRef(key_reference(card.iccid, domain.aid, key_version))
        label = transport_label(owner, card, key_version)
        if key_version == domain.key_version and not same_keys(check_values, domain.check_values):
            raise TsmError(ErrorCode.ALREADY_EXISTS, f"{ref}: the card has others")
        held = self._vault.check_values(ref) if self._vault.has(ref) else ()
        try:
            self._vault.import_key_set(ref, wrapped, MAS_TRANSPORT_KEY, label, check_values)
        except TsmError as error:
            if error.code is not ErrorCode.ALREADY_EXISTS:
                raise
            self._vault.destroy(ref)
            self._vault.import_key_set(ref, wrapped, MAS_TRANSPORT_KEY, label, check_values)
        now_held = self._vault.check_values(ref)
        if now_held != held:
            shared = KeysShared(domain=domain.aid, key_version=key_version, check_values=now_held, provider=provider)
            self._record(card, shared, request_id)

    def _record(self, card: Card, fact: ProvisionalKeysHandedOut | KeysShared, request_id: str) -> None:
        context = Context(
            actor=f"provider:{fact.provider}",
            role="provider",
            tenant=fact.provider,
            tenants=(card.operator,),
            correlation=deployment_correlation(self._vault, fact.provider, card.iccid),
            request=request_id,
        )
        decided(partial(self._append, cards.stream(card.iccid), fact, context))

    def _append(self, stream: str, fact: Fact, context: Context) -> None:
        version = self._tsm.load(stream, cards.evolve).version
        self._tsm.commit(Change(stream, version, [fact]), context=context, occurred_at=self._tsm.now())


def deployment_correlation(vault: SoftwareVault, provider: str, iccid: str) -> str:
    """All steps by which a card is prepared for a provider are one story."""
    return vault.blind_index("deployment", f"{provider}|{iccid}")[:32]


def domain_with_keys(card: Card, aid: str) -> SecurityDomain:
    domain = card.domain(aid)
    if not domain.key_version:
        raise TsmError(ErrorCode.UNKNOWN_SECURITY_DOMAIN, f"{aid} on {card.iccid} has no keys yet")
    return domain


def refuse_lost_keys(vault: SoftwareVault, domain: SecurityDomain) -> None:
    """UNKNOWN_KEY unless the vault holds the keys that the card has in this domain, as far as it told their check
    values.
    """
    if not vault.has(domain.key) or not same_keys(vault.check_values(domain.key), domain.check_values):
        raise TsmError(ErrorCode.UNKNOWN_KEY, domain.key)


def refuse_other_keys(
    vault: SoftwareVault, card: Card, domain: SecurityDomain, commands: Sequence[CommandApdu]
) -> None:
    """Look at each PUT KEY of a script before it is accepted.

    INVALID_INPUT for a version in its own place, and for keys beside provisional ones: those would stay on the card.
    UNKNOWN_KEY when the keys were not shared, KEY_REFUSED when others were.
    """
    version, provisional = domain.key_version, domain.provisional
    for put in (command for command in map(parsed, commands) if isinstance(command, PutKey)):
        if put.new_key_version in (put.key_version, version) or (provisional and put.key_version != version):
            raise TsmError(
                ErrorCode.INVALID_INPUT, f"PUT KEY: version {put.key_version:02X} by {put.new_key_version:02X}"
            )
        ref = key_reference(card.iccid, domain.aid, put.new_key_version)
        if not vault.has(ref):
            raise TsmError(ErrorCode.UNKNOWN_KEY, ref)
        if not same_keys([key.check_value.hex() for key in put.keys], vault.check_values(ref)):
            raise TsmError(ErrorCode.KEY_REFUSED, f"{ref} holds other keys than PUT KEY brings")
        version, provisional = put.new_key_version, False


def refuse_destroyed_keys(vault: SoftwareVault, card: Card, domain: str, commands: Sequence[CommandApdu]) -> None:
    """RECEPTION_CLOSED for a script of this domain that brings keys which the vault has, or is about to have, no more.

    It was written for what the card held then; a domain of these keys may have come and gone since.
    """
    for put in (fact for fact in foreseen(card, domain, commands) if isinstance(fact, KeysPut)):
        held = vault.has(put.key) and same_keys(vault.check_values(put.key), put.check_values)
        retired = any(keys.key == put.key and same_keys(keys.check_values, put.check_values) for keys in card.retired)
        if not held or retired:
            raise TsmError(ErrorCode.RECEPTION_CLOSED, f"{put.key}: the keys of the script are destroyed")


def same_keys(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether check values are of the same keys, as far as both sides know them: ENC and MAC, and perhaps DEK."""
    return all(one.lower() == other.lower() for one, other in zip(some, others, strict=False))


def transport_label(owner: ServiceProvider, card: Card, key_version: int) -> bytes:
    """Binds wrapped keys to provider, card, domain and version: they open for nothing else."""
    return f"{owner.provider}|{card.iccid}|{owner.domain}|{key_version:02x}".encode()
