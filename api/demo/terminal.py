"""The counter's terminal (統合端末): `python -m api.demo.terminal init|apply|lock|release --folder F`.

At the counter the applicant's My Number card lies on the reader. Its signature key signs the application, and the
answer is the slip with access code and password. It signs, too, that the card in the phone may be released. The
card's signature PIN comes on standard input and goes to the card alone. To lock a card its holder has only to ask.
"""

import argparse
import base64
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec

from api.demo.card_client import JpkiCard
from api.demo.party import (
    TIMEOUT,
    Tls,
    checked,
    command_line,
    config_path,
    emit,
    load_config,
    main,
    parsed,
    reaching,
)
from api.tls import client_context
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, SpId
from tsm.jpki.application import ApplicationDocument
from tsm.jpki.certificates import Kind, holder, read_certificate
from tsm.jpki.documents import SignedDocument
from tsm.jpki.release import ReleaseDocument
from tsm.uicc.card import SimulatedUicc


class TerminalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of a terminal."""

    terminal: str  # its id
    municipality: str
    tls: Tls
    tsm_url: str = ""


class Challenge(msgspec.Struct, frozen=True):
    """The answer to POST /counter/challenges."""

    challenge: str


class Slip(msgspec.Struct, frozen=True, rename="camel"):
    """What is handed to the applicant, once."""

    access_code: str
    password: str
    expires_at: str
    text: str

    def __repr__(self) -> str:
        return "Slip(..)"


class Accepted(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to POST /counter/applications."""

    credential_id: str
    slip: Slip


class Recorded(msgspec.Struct, frozen=True):
    """The answer to what concerns a card in a phone."""

    position: int


class Counter:
    """The terminal at work, with a My Number card on its reader where one signs."""

    def __init__(self, http: httpx.Client, tsm_url: str) -> None:
        self._http = http
        self._url = tsm_url

    def apply(self, card: JpkiCard, pin: str, iccid: Iccid, provider: SpId) -> Accepted:
        """File an application: the card's holder asks `provider` for a credential in the UICC `iccid`."""
        card.verify_pin(Kind.SIGNATURE, pin)
        certificate = card.certificate(Kind.SIGNATURE)
        applicant = holder(read_certificate(certificate)).name
        document = ApplicationDocument(self._challenge(), iccid, provider, applicant).encode()
        signed = SignedDocument(document, card.sign(Kind.SIGNATURE, document), certificate)
        return parsed(self._post("/counter/applications", content_of(signed)), Accepted)

    def lock(self, iccid: Iccid) -> Recorded:
        """The holder asks that the UICC in her phone is locked."""
        called = {"iccid": iccid, "call": str(uuid.uuid4()), "calledAt": datetime.now(UTC).isoformat()}
        return parsed(self._post("/counter/cards/lock", called), Recorded)

    def release(self, card: JpkiCard, pin: str, iccid: Iccid) -> Recorded:
        """The My Number card's holder says that the UICC is where it belongs."""
        card.verify_pin(Kind.SIGNATURE, pin)
        document = ReleaseDocument(self._challenge(), iccid).encode()
        signed = SignedDocument(document, card.sign(Kind.SIGNATURE, document), card.certificate(Kind.SIGNATURE))
        return parsed(self._post("/counter/cards/release", content_of(signed)), Recorded)

    def _challenge(self) -> str:
        return parsed(self._post("/counter/challenges", {}), Challenge).challenge

    def _post(self, path: str, content: dict[str, str]) -> bytes:
        with reaching():
            response = self._http.post(f"{self._url}{path}", json=content)
        return checked(response).content


def content_of(signed: SignedDocument) -> dict[str, str]:
    """As the server takes it."""
    return {
        "document": base64.b64encode(signed.document).decode(),
        "signature": base64.b64encode(signed.signature).decode(),
        "certificate": base64.b64encode(signed.certificate).decode(),
    }


def init(arguments: argparse.Namespace, config: TerminalConfig) -> None:
    """Make the folder and print what the operator enrols."""
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    emit(
        terminal=config.terminal,
        municipality=config.municipality,
        certificate_fingerprint=config.tls.fingerprint,
    )


def apply(arguments: argparse.Namespace, config: TerminalConfig) -> None:
    """File an application and print the slip."""
    if not (arguments.card and arguments.iccid and arguments.provider):
        raise TsmError(ErrorCode.INVALID_INPUT, "--card, --iccid and --provider are needed")
    with at_work(config) as counter:
        card, pin = on_reader(arguments)
        accepted = counter.apply(card, pin, Iccid(arguments.iccid), SpId(arguments.provider))
    emit(credential_id=accepted.credential_id, slip=msgspec.structs.asdict(accepted.slip))


def lock(arguments: argparse.Namespace, config: TerminalConfig) -> None:
    """Ask for the lock of a UICC and print where that stands in the log."""
    with at_work(config) as counter:
        emit(position=counter.lock(Iccid(arguments.iccid)).position)


def release(arguments: argparse.Namespace, config: TerminalConfig) -> None:
    """Release a UICC and print where that stands in the log."""
    if not (arguments.card and arguments.iccid):
        raise TsmError(ErrorCode.INVALID_INPUT, "--card and --iccid are needed")
    with at_work(config) as counter:
        emit(position=counter.release(*on_reader(arguments), Iccid(arguments.iccid)).position)


@contextmanager
def at_work(config: TerminalConfig) -> Iterator[Counter]:
    """The terminal, connected."""
    with httpx.Client(verify=client_context(config.tls), timeout=TIMEOUT, trust_env=False) as http:
        yield Counter(http, config.tsm_url)


def on_reader(arguments: argparse.Namespace) -> tuple[JpkiCard, str]:
    """The My Number card and its signature PIN."""
    pin = sys.stdin.readline().strip()
    return JpkiCard(SimulatedUicc.load(arguments.card).transmit), pin


def command() -> None:
    parser = command_line("The counter's terminal of the demo", "init", "apply", "lock", "release")
    parser.add_argument("--card", type=Path, help="the file of the applicant's My Number card")
    parser.add_argument("--iccid", default="", help="number of the UICC in the applicant's phone")
    parser.add_argument("--provider", default="", help="id of the provider who shall write the credential")
    arguments = parser.parse_args()
    config = load_config(config_path(arguments), TerminalConfig)
    {"init": init, "apply": apply, "lock": lock, "release": release}[arguments.command](arguments, config)


if __name__ == "__main__":
    main(command)
