"""The card factory of the demo: makes a UICC with keys derived from the operator's master key, and says so in a file.

It stands outside of the system, as a card maker does. What leaves it is a card, a production file, and the master key,
which the operator takes into the vault.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from api.certificates import write_private
from tsm.identifiers import Iccid, luhn_digit
from tsm.keys.primitives import kdf3
from tsm.uicc.card import SimulatedUicc

ISSUER = bytes.fromhex("8981100F")  # issuer identification number, as GET DATA 42 answers it
KEY_SET, PROFILE = "isd-2026", "uicc-128k"
NUMBER_DIGITS = 12


@dataclass(frozen=True)
class Delivery:
    """What the operator gets."""

    iccid: Iccid
    master_key_file: Path
    production_file: Path


def manufacture(folder: Path, card_file: Path, key_set: str = KEY_SET) -> Delivery:
    """Make one card, whose keys come from a new master key of that name.

    Its number is random, so that two runs never speak of one card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    master_key = os.urandom(16)
    number = str(int.from_bytes(os.urandom(8), "big") % 10**NUMBER_DIGITS).rjust(NUMBER_DIGITS, "0")
    digits = f"898110{number}"
    iccid = Iccid(digits + luhn_digit(digits))
    card_number = bytes.fromhex(f"{iccid:0>20}")
    diversification = (ISSUER + card_number)[-10:]
    card = SimulatedUicc.manufacture(iccid, ISSUER, card_number, diversification, kdf3(master_key, diversification))
    card.save(card_file)
    delivery = Delivery(iccid, folder / "master-key.hex", folder / "production.csv")
    write_private(delivery.master_key_file, master_key.hex().encode() + b"\n")
    row = f"{iccid},{ISSUER.hex().upper()},{card_number.hex().upper()},{key_set},{PROFILE}"
    delivery.production_file.write_text(f"iccid,iin,cin,key_set,profile\n{row}\n")
    return delivery
