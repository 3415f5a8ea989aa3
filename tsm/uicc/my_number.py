"""A My Number card: the JPKI applet again, personalised in a factory instead of over the air.

It carries the main certificates, whose signature key signs the application for the phone's. No server manages it, so
nobody keeps the keys of its issuer's domain.
"""

import os
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from tsm.errors import ErrorCode, TsmError
from tsm.keys.primitives import KeySet
from tsm.uicc import jpki, jpki_cap
from tsm.uicc.card import SimulatedUicc
from tsm.uicc.memory import ISSUER_DOMAIN_AID, Application, JpkiPersonality, LifeCycle
from tsm.uicc.refusal import Refused

MY_NUMBER_ATR = bytes.fromhex("3BE000FF8131FE4514")
NO_ICCID = "8900000000000000003"  # it is not a UICC; this number belongs to none
ISSUER_NUMBER = b"\x00" * 4


class MainCredential(Protocol):
    """Two certificates (DER) and their keys."""

    @property
    def authentication_certificate(self) -> bytes: ...

    @property
    def authentication_key(self) -> rsa.RSAPrivateKey: ...

    @property
    def signature_certificate(self) -> bytes: ...

    @property
    def signature_key(self) -> rsa.RSAPrivateKey: ...


def my_number_card(
    credential: MainCredential,
    *,
    authentication_ca: bytes,
    signature_ca: bytes,
    authentication_pin: str,
    signature_pin: str,
    personality: JpkiPersonality = JpkiPersonality(),  # noqa: B008 - frozen
    random: Callable[[int], bytes] = os.urandom,
) -> SimulatedUicc:
    """A personalised card, in memory until it is saved. CA certificates are DER.

    `TsmError(INVALID_INPUT)` when a PIN has not the applet's form or a key is not the certificate's.
    """
    dgis = groupings(
        credential,
        authentication_ca=authentication_ca,
        signature_ca=signature_ca,
        authentication_pin=authentication_pin,
        signature_pin=signature_pin,
    )
    try:
        memory = jpki.personalize(dgis)
    except Refused:
        raise TsmError(ErrorCode.INVALID_INPUT, "certificates, keys and PINs do not make a My Number card") from None
    card = SimulatedUicc.manufacture(
        NO_ICCID,
        ISSUER_NUMBER,
        random(8),
        random(10),
        KeySet(random(16), random(16), random(16)),
        atr=MY_NUMBER_ATR,
        jpki=personality,
        random=random,
    )
    card.install_in_factory(
        Application(
            aid=jpki.APPLICATION_AID,
            module=jpki_cap.MODULE_AID,
            load_file=jpki_cap.PACKAGE_AID,
            domain=ISSUER_DOMAIN_AID,
            privileges=bytes(3),
            life_cycle=LifeCycle.PERSONALIZED,
            memory=memory,
        )
    )
    return card


def groupings(
    credential: MainCredential,
    *,
    authentication_ca: bytes,
    signature_ca: bytes,
    authentication_pin: str,
    signature_pin: str,
) -> dict[int, bytes]:
    """The content of the applet as `jpki.personalize` takes it."""
    return {
        0x0101: credential.signature_certificate,
        0x0102: signature_ca,
        0x010A: credential.authentication_certificate,
        0x010B: authentication_ca,
        0x0106: jpki.token_information(),
        0x8010: authentication_pin.encode(),
        0x8011: signature_pin.encode(),
        **key_dgis(0x8200, credential.authentication_key),
        **key_dgis(0x8300, credential.signature_key),
    }


def key_dgis(base: int, key: rsa.RSAPrivateKey) -> dict[int, bytes]:
    """The five parts of a key, in the applet's order."""
    numbers = key.private_numbers()
    parts = (numbers.iqmp, numbers.dmq1, numbers.dmp1, numbers.q, numbers.p)
    return {base + number: part.to_bytes(128, "big") for number, part in enumerate(parts, start=1)}
