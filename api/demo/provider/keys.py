"""The provider's keys, each by its name in the vault, and what the provider does with them.

provider/signing            signs launch parameters (P-256)
provider/transport          others send us keys under it (RSA)
provider/domain             master key, made in here; a card's own keys are derived from it by the card's number
card/<iccid>/<domain>/01    the provisional keys that the operator gave our domain, until ours have replaced them
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from os import urandom

from tsm.globalplatform.commands import EncryptedKey, PutKey
from tsm.identifiers import Aid, Iccid, KeyRef, SpId
from tsm.jpki.key_transport import KeyBundle, WrappedKeys, unwrap_keys
from tsm.keys.vault import SoftwareVault

SIGNING = KeyRef("provider/signing")
TRANSPORT = KeyRef("provider/transport")
MASTER = KeyRef("provider/domain")
OWN_VERSION = 0x02
MASTER_OCTETS = 16


@dataclass(frozen=True, slots=True)
class ProvisionalKeys:
    """What the operator hands over (GET /sp-tsm/cards/{iccid}/provisional-keys)."""

    key_version: int
    diversification: str
    check_values: tuple[str, ...]
    wrapped: dict[str, bytes]
    correlation: str  # of the deployment to which putting our own keys belongs


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """Our own ENC and MAC on their way to the MAS, which opens channels for us. The DEK is not among them."""

    key_version: int
    check_values: tuple[str, ...]
    wrapped: dict[str, bytes]


class ProviderKeys:
    """One provider's vault, seen from its security domain."""

    def __init__(self, vault: SoftwareVault, provider: SpId, domain: Aid) -> None:
        self._vault = vault
        self._provider = provider
        self._domain = domain

    @staticmethod
    def make(vault: SoftwareVault) -> None:
        """The three keys of a new provider. The master key is drawn here and known nowhere else."""
        vault.generate_signing_key(SIGNING)
        vault.generate_transport_key(TRANSPORT)
        vault.import_master_key(MASTER, urandom(MASTER_OCTETS))

    def sign(self, data: bytes) -> bytes:
        return self._vault.sign(SIGNING, data)

    def public_keys(self) -> dict[str, str]:
        """What the operator enrols, SPKI in hex."""
        return {
            "public_key": self._vault.public_key(SIGNING).hex(),
            "transport_key": self._vault.public_key(TRANSPORT).hex(),
        }

    def take_provisional(self, iccid: Iccid, keys: ProvisionalKeys) -> None:
        """KEY_REFUSED unless the keys are for us, for this card and domain, and are what their check values say."""
        label = self._label(iccid, keys.key_version)
        self._vault.import_key_set(
            self._provisional(iccid, keys.key_version), keys.wrapped, TRANSPORT, label, keys.check_values
        )

    def own(self, diversification: str) -> KeyRef:
        """A card's own key set, by derivation (KDF3)."""
        return KeyRef(f"{MASTER}?kdf3={diversification}")

    def check_values(self, own: KeyRef) -> tuple[str, ...]:
        """Of ENC, MAC and DEK, hex."""
        return self._vault.check_values(own)

    def share(self, iccid: Iccid, own: KeyRef, mas_transport_key: bytes) -> SharedKeys:
        """ENC and MAC for the MAS, under its transport key."""
        label = self._label(iccid, OWN_VERSION)
        wrapped = self._vault.export_key_set(own, mas_transport_key, label, ("enc", "mac"))
        return SharedKeys(OWN_VERSION, self.check_values(own), wrapped)

    def put_key(self, iccid: Iccid, own: KeyRef, replaced_version: int) -> bytes:
        """PUT KEY (GPCS v2.3.1 section 11.8): our keys in the place of the provisional ones, under their DEK."""
        values = self._vault.wrap_key_set(own, self._provisional(iccid, replaced_version))
        keys = tuple(EncryptedKey(value.encrypted, value.check_value) for value in values)
        return PutKey(replaced_version, OWN_VERSION, keys).apdu().encode()

    def forget_provisional(self, iccid: Iccid, key_version: int) -> None:
        self._vault.destroy(self._provisional(iccid, key_version))

    def open_bundle(self, wrapped: WrappedKeys, credential: str) -> KeyBundle:
        """A credential's private keys as the authority handed them over."""
        return unwrap_keys(wrapped, credential, self._provider, self._decrypt)

    def encrypt_content(self, own: KeyRef, data: bytes) -> bytes:
        return self._vault.encrypt_content(own, data)

    def _decrypt(self, ciphertext: bytes, label: bytes) -> bytes:
        return self._vault.decrypt(TRANSPORT, ciphertext, label)

    def _provisional(self, iccid: Iccid, key_version: int) -> KeyRef:
        return KeyRef(f"card/{iccid}/{self._domain}/{key_version:02x}")

    def _label(self, iccid: Iccid, key_version: int) -> bytes:
        """Binds wrapped keys to provider, card, domain and version, so that they open for nothing else."""
        return f"{self._provider}|{iccid}|{self._domain}|{key_version:02x}".encode()


def base64_values(values: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in values.items()}


def joined(check_values: Sequence[str]) -> str:
    return "".join(check_values)
