"""The other side of a card under test: opens its secure channels and sends it commands.

It writes what it says with the project's own codec, which the tests of the codec hold to outside vectors.
"""

import os
from collections.abc import Iterable
from hashlib import sha256

from tests.uicc.certificates import Credential
from tsm.channels.scp03 import Scp03Channel, external_authenticate, max_command_data
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu
from tsm.globalplatform.cap import CapFile, load_commands
from tsm.globalplatform.commands import (
    EncryptedKey,
    InitializeUpdate,
    InstallForInstall,
    InstallForLoad,
    InstallForPersonalization,
    PutKey,
    Select,
)
from tsm.globalplatform.dgi import Dgi, key_dgis, store_data_blocks
from tsm.globalplatform.responses import InitializeUpdateResponse
from tsm.keys.primitives import KeySet, SessionKeys, kcv_aes, pad, wrap_dek
from tsm.uicc import jpki, jpki_cap, my_number
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.memory import DOMAIN_MODULE_AID, DOMAIN_PACKAGE_AID, ISSUER_DOMAIN_AID

ICCID = "8981100000000000010"
DOMAIN_AID = bytes.fromhex("D392F0002601FE01")
ISSUER_KEYS = KeySet(os.urandom(16), os.urandom(16), os.urandom(16))
PROVISIONAL_KEYS = KeySet(os.urandom(16), os.urandom(16), os.urandom(16))
PROVIDER_KEYS = KeySet(os.urandom(16), os.urandom(16), os.urandom(16))
DOMAIN_PRIVILEGES = bytes.fromhex("800000")


class Refusal(Exception):
    """The card answered something other than 9000."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


class Host:
    """A secure channel with one of a card's domains."""

    def __init__(self, card: SimulatedUicc, domain: bytes, keys: KeySet, version: int = 0, level: int = 0x33) -> None:
        self.card, self.keys, self.level = card, keys, level
        checked(self.plain(Select(domain).apdu()))
        challenge = os.urandom(8)
        answer = checked(self.plain(InitializeUpdate(challenge, version).apdu()))
        self.identity = InitializeUpdateResponse.parse(answer)
        session_keys = SessionKeys.derive(keys, challenge, self.identity.card_challenge)
        assert session_keys.card_cryptogram() == self.identity.card_cryptogram
        authenticate, chaining = external_authenticate(session_keys, level)
        checked(self.plain(authenticate))
        self.channel = Scp03Channel(session_keys, level, chaining=chaining)

    def plain(self, command: CommandApdu) -> ResponseApdu:
        """Beside the channel."""
        return ResponseApdu.parse(self.card.transmit(command.encode()))

    def secured(self, command: CommandApdu) -> ResponseApdu:
        return self.channel.unwrap(self.plain(self.channel.wrap(command)))

    def send(self, command: CommandApdu) -> bytes:
        """The data of the answer; `Refusal` if it is not 9000."""
        return checked(self.secured(command))


def checked(answer: ResponseApdu) -> bytes:
    if not answer.ok:
        raise Refusal(answer.sw)
    return answer.data


def new_card(memory: int = 128 * 1024) -> SimulatedUicc:
    return SimulatedUicc.manufacture(
        ICCID, b"\x12\x34\x56\x78", b"\x00" * 8, bytes(range(10)), ISSUER_KEYS, memory=memory
    )


def issuer(card: SimulatedUicc, level: int = 0x33) -> Host:
    return Host(card, ISSUER_DOMAIN_AID, ISSUER_KEYS, level=level)


def provider(card: SimulatedUicc, level: int = 0x33) -> Host:
    return Host(card, DOMAIN_AID, PROVIDER_KEYS, level=level)


def create_domain(host: Host, aid: bytes = DOMAIN_AID, privileges: bytes = DOMAIN_PRIVILEGES) -> None:
    command = InstallForInstall(DOMAIN_PACKAGE_AID, DOMAIN_MODULE_AID, aid, privileges, b"\xc9\x00", b"", True)
    host.send(command.apdu())


def encrypted_keys(dek: bytes, keys: KeySet) -> tuple[EncryptedKey, ...]:
    return tuple(EncryptedKey(wrap_dek(dek, key), kcv_aes(key)) for key in (keys.enc, keys.mac, keys.dek))


def give_keys(host: Host, domain: bytes, version: int, keys: KeySet) -> None:
    """Key DGIs for a domain, through its parent."""
    host.send(InstallForPersonalization(domain).apdu())
    dgis = key_dgis(version, encrypted_keys(host.keys.dek, keys))
    store(host, dgis, encrypted=True)


def put_key(host: Host, old_version: int, version: int, keys: KeySet) -> bytes:
    return host.send(PutKey(old_version, version, encrypted_keys(host.keys.dek, keys)).apdu())


def store(host: Host, dgis: bytes, *, encrypted: bool) -> None:
    for block in store_data_blocks(dgis, max_command_data(host.level), encrypted):
        host.send(block.apdu())


def load(host: Host, cap: bytes, domain: bytes, digest: bytes | None = None) -> None:
    parsed = CapFile.read(cap)
    block = parsed.load_file_data_block()
    digest = sha256(block).digest() if digest is None else digest
    host.send(InstallForLoad(parsed.package_aid, domain, digest).apdu())
    for command in load_commands(block, max_command_data(host.level)):
        host.send(command.apdu())


def install_applet(host: Host, aid: bytes = jpki.APPLICATION_AID, *, selectable: bool = True) -> None:
    command = InstallForInstall(
        jpki_cap.PACKAGE_AID, jpki_cap.MODULE_AID, aid, b"\x00\x00\x00", b"\xc9\x00", b"", selectable
    )
    host.send(command.apdu())


def groupings(made: Credential, authentication_pin: str, signature_pin: str) -> dict[int, bytes]:
    """What the applet is given, in plain."""
    return my_number.groupings(
        made,
        authentication_ca=made.authentication_ca,
        signature_ca=made.signature_ca,
        authentication_pin=authentication_pin,
        signature_pin=signature_pin,
    )


def encrypted_dgis(dek: bytes, plain: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(Dgi(tag, wrap_dek(dek, pad(os.urandom(16) + value))).encode() for tag, value in plain)


def card_with_domain() -> SimulatedUicc:
    """A card with the provider's domain, under the provider's keys, and an empty applet in it."""
    card = new_card()
    host = issuer(card)
    create_domain(host)
    give_keys(host, DOMAIN_AID, 0x01, PROVISIONAL_KEYS)
    put_key(Host(card, DOMAIN_AID, PROVISIONAL_KEYS), 0x01, 0x02, PROVIDER_KEYS)
    host = issuer(card)
    load(host, jpki_cap.build(), DOMAIN_AID)
    install_applet(host)
    return card


def issue_card(made: Credential, *, authentication_pin: str, signature_pin: str) -> SimulatedUicc:
    """A card with everything that a demo run gives it."""
    card = card_with_domain()
    host = provider(card)
    host.send(InstallForPersonalization(jpki.APPLICATION_AID).apdu())
    plain = groupings(made, authentication_pin, signature_pin)
    store(host, encrypted_dgis(PROVIDER_KEYS.dek, plain.items()), encrypted=True)
    return card
