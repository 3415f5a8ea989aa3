"""`python -m api.demo.phone prepare|personalise|renew|use|run --folder F --card FILE`: what its owner does with it.

    prepare       --site URL             visit the mobile site until the card is ready for a credential
    personalise   --site URL             prepare, then fill in the form and have the credential written
    renew         --site URL             have the new certificate for signatures written, after a hold
    use           --relying-party URL    log in with the credential
    run           both URLs              all of it

Access code, password and PINs come on standard input as JSON, never as an argument. Every exchange is a JSON line on
standard output. Exit code 1 when the visit ended on another page than hoped for.
"""

import argparse
import sys
import time
from pathlib import Path

import httpx
import msgspec

from api.demo.card_client import JpkiCard, read_iccid
from api.demo.party import (
    TIMEOUT,
    checked,
    command_line,
    config_path,
    emit,
    load_config,
    main,
    parsed,
    reaching,
    trusting,
)
from api.demo.phone.browser import Browser, Page
from api.demo.phone.common_app import CommonApp, elapsed_ms
from api.demo.relying_party import Challenge, Login, Welcome
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificates import Kind
from tsm.uicc.card import SimulatedUicc


class PhoneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """config.json of a phone: whom it trusts."""

    party_ca: Path
    imei: str = ""  # which phone it is, as it tells the server; empty: it does not


class Typed(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the owner types. It does not show in a log."""

    access_code: str = ""
    password: str = ""
    authentication_pin: str = ""
    signature_pin: str = ""

    def __repr__(self) -> str:
        return "Typed(..)"


class Phone:
    """A phone with a card in it."""

    def __init__(self, party_ca: Path, card: SimulatedUicc, imei: str = "") -> None:
        self._party_ca = party_ca
        self._card = card
        self._browser = Browser(self._client(), CommonApp(self._client(), card, emit, imei=imei), emit)

    def prepare(self, site: str) -> Page:
        self._card.reset()
        return self._browser.open(f"{site}/mobile/prepare", iccid=read_iccid(self._card.transmit))

    def personalise(self, site: str, typed: Typed) -> Page:
        ready = self.prepare(site)
        if ready.state != "ready":
            return ready
        return self._browser.submit(
            ready,
            {
                "accessCode": typed.access_code,
                "password": typed.password,
                "authenticationPin": typed.authentication_pin,
                "signaturePin": typed.signature_pin,
            },
        )

    def renew(self, site: str) -> Page:
        self._card.reset()
        return self._browser.open(f"{site}/mobile/renew", iccid=read_iccid(self._card.transmit))

    def use(self, relying_party: str, pin: str) -> None:
        """Log in: the card signs a challenge that names whom it is for."""
        with self._client() as http:
            with reaching():
                challenge = parsed(checked(http.get(f"{relying_party}/challenge")).content, Challenge).challenge
            if not challenge.startswith(f"{relying_party} "):
                raise TsmError(ErrorCode.BAD_SIGNATURE, "a challenge of another site")
            began = time.perf_counter()
            login = self._signed(challenge, pin)
            card_ms, began = elapsed_ms(began), time.perf_counter()
            with reaching():
                response = http.post(f"{relying_party}/login", content=msgspec.json.encode(login))
            welcome = parsed(checked(response).content, Welcome)
        emit(step="LOGIN", ms=elapsed_ms(began), card_ms=card_ms, subject=welcome.subject)

    def _signed(self, challenge: str, pin: str) -> Login:
        self._card.reset()
        jpki = JpkiCard(self._card.transmit)
        jpki.verify_pin(Kind.AUTHENTICATION, pin)
        certificate = jpki.certificate(Kind.AUTHENTICATION)
        return Login(certificate, challenge, jpki.sign(Kind.AUTHENTICATION, challenge.encode()))

    def _client(self) -> httpx.Client:
        return httpx.Client(verify=trusting(self._party_ca), timeout=TIMEOUT, trust_env=False)


def ended(page: Page, hoped: str) -> None:
    if page.state != hoped:
        sys.exit(1)


def run(arguments: argparse.Namespace, config: PhoneConfig) -> None:
    phone = Phone(config.party_ca, SimulatedUicc.load(arguments.card), arguments.imei or config.imei)
    if arguments.command == "prepare":
        return ended(phone.prepare(arguments.site), "ready")
    if arguments.command == "renew":
        return ended(phone.renew(arguments.site), "written")
    typed = read_typed(sys.stdin.read())
    if arguments.command in ("personalise", "run"):
        ended(phone.personalise(arguments.site, typed), "written")
    if arguments.command in ("use", "run"):
        phone.use(arguments.relying_party, typed.authentication_pin)


def read_typed(text: str) -> Typed:
    try:
        return msgspec.json.decode(text, type=Typed)
    except msgspec.MsgspecError:  # its words might repeat what was typed
        raise TsmError(ErrorCode.INVALID_INPUT, "standard input is not what an owner types") from None


def command() -> None:
    parser = command_line("The phone of the demo", "init", "prepare", "personalise", "renew", "use", "run")
    parser.add_argument("--card", type=Path, help="the file of the card in the phone")
    parser.add_argument("--imei", default="", help="of the phone that the card is in; default: as config.json says")
    parser.add_argument("--site", default="", help="URL of the provider's mobile site")
    parser.add_argument("--relying-party", default="", help="URL of the relying party")
    arguments = parser.parse_args()
    config = load_config(config_path(arguments), PhoneConfig)
    if arguments.command == "init":
        return emit(trusts=str(config.party_ca))  # nothing to make and nothing to enrol: the app holds no secret
    if arguments.card is None:
        raise TsmError(ErrorCode.INVALID_INPUT, "--card names the card's file")
    run(arguments, config)


if __name__ == "__main__":
    main(command)
