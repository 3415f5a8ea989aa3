"""What both acts of the demo begin with: a JPKI credential is issued into a UICC, and used.

The storyteller is the administrator at the console, the card factory and the director of six processes: server,
provider, certificate authority, phone, counter terminal, relying party. These speak to each other over HTTPS only.
"""

import json
import secrets
import socket
import string
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from api import administration
from api.bootstrap import STORE
from api.certificates import fingerprint, request, write_private
from api.demo import factory
from api.demo.auditor import Auditor
from api.demo.party import Tls
from api.demo.stage import Stage, Step, run
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, luhn_digit
from tsm.store.opening import is_postgresql
from tsm.uicc import jpki_cap

HOST = "127.0.0.1"
OPERATOR, PROVIDER, AUTHORITY, TERMINAL, RELYING_PARTY, AUDITOR = (
    "MNO00001", "JPKI0001", "jpki-ca", "T-13101-01", "rp-town-portal", "auditor-01",
)  # fmt: skip
DOMAIN = "A0000001514A504B49"  # AID of the provider's security domain: GlobalPlatform's prefix and "JPKI"
APPLICATION = "D392F000260100000001"  # AID of the JPKI applet


class Citizen(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The person of the story. Nobody of that name exists; the PINs are drawn anew unless a file gives them."""

    name: str = "Simulated Hanako"
    sex: str = "2"
    born: str = "1990-04-01"
    address: str = "Simulated City 1-2-3"
    authentication_pin: str = ""  # the new credential's, which she types on the phone
    signature_pin: str = ""
    my_number_authentication_pin: str = ""  # her My Number card's
    my_number_signature_pin: str = ""
    msisdn: str = ""  # for the second act: her telephone number, SIM and phone
    imsi: str = ""
    imei: str = ""
    other_imei: str = ""  # the phone of a thief
    next_imei: str = ""  # hers, later
    next_imsi: str = ""  # the SIM that takes its place

    def complete(self) -> "Citizen":
        """With what the file did not give; numbers of ranges that nobody has: fiction's, the test network's."""
        return msgspec.structs.replace(
            self,
            msisdn=self.msisdn or f"+447700900{drawn(string.digits, 3)}",
            imsi=self.imsi or f"00101{drawn(string.digits, 10)}",
            imei=self.imei or test_imei(),
            other_imei=self.other_imei or test_imei(),
            next_imei=self.next_imei or test_imei(),
            next_imsi=self.next_imsi or f"00101{drawn(string.digits, 10)}",
            authentication_pin=self.authentication_pin or drawn(string.digits, 4),
            signature_pin=self.signature_pin or drawn(string.ascii_uppercase + string.digits, 8),
            my_number_authentication_pin=self.my_number_authentication_pin or drawn(string.digits, 4),
            my_number_signature_pin=self.my_number_signature_pin or drawn(string.ascii_uppercase + string.digits, 8),
        )


def read_citizen(file: Path) -> Citizen:
    """INVALID_INPUT for anything but a citizen; the words of the file are not repeated."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Citizen)
    except (OSError, msgspec.MsgspecError):
        raise TsmError(ErrorCode.INVALID_INPUT, f"{file} does not describe a citizen") from None


def drawn(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def test_imei() -> str:
    """Of a phone that there is not: 00101000 is a type allocation code for tests."""
    digits = f"00101000{drawn(string.digits, 6)}"
    return digits + luhn_digit(digits)


def tell(
    act: "type[Story]", folder: Path | None, citizen_file: Path | None, store: str, as_json: bool, keep: bool
) -> int:
    """The whole story; the exit code. 0 only if all of it was verified. `store`: see `administration.initialise`."""
    place = (folder or Path("data") / f"demo-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}").resolve()
    citizen = read_citizen(citizen_file) if citizen_file else Citizen()
    stage = Stage(place, as_json)
    try:
        act(stage, place, citizen.complete(), store).tell()
        code = stage.finish()
        if keep:
            stage.wait()
        return code
    finally:
        stage.close()


class Story:
    """An act: the scenes that all of them share, and how they are told."""

    def __init__(self, stage: Stage, folder: Path, citizen: Citizen, store: str = STORE) -> None:
        self.stage = stage
        self._store = store
        self._folder = folder
        self._citizen = citizen
        self._data = folder / "tsm"
        doors = ("tsm", "authority", "status", "provider", "relying-party")
        self._ports = dict(zip(doors, free_ports(len(doors)), strict=True))
        self._position = 0

    def tell(self) -> None:
        """From an empty folder to the end."""
        raise NotImplementedError

    def _issue(self) -> None:
        """From an empty card to a credential that is used."""
        self._prepare_card()
        self._personalise(self.apply())
        self._use()

    def set_up(self) -> None:
        """All that comes before the card meets the phone. ALREADY_EXISTS when the folder is not empty."""
        if self._folder.exists() and any(self._folder.iterdir()):
            raise TsmError(ErrorCode.ALREADY_EXISTS, f"{self._folder} is not empty")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_server()
        self._enrol()
        self._register()
        self._open_doors()

    # The scenes

    def _make_server(self) -> None:
        with self.stage.step("set-up", "The server, its keys, and certificates for all parties"):
            administration.initialise(self._data, self._folder / "tsm.kek", HOST, self._ports["tsm"], self._store)
            self.server = administration.describe(self._data)
            self.stage.say("administrator", "tsm", f"init: vault, store and parties' authority in {self._data}")
            for party, role, name in (
                (OPERATOR, "operator", "operator"),
                (AUTHORITY, "authority", "authority"),
                (PROVIDER, "provider", "provider"),
                (TERMINAL, "terminal", "terminal"),
                (RELYING_PARTY, "relying-party", "relying-party"),
                (AUDITOR, "auditor", "auditor"),
            ):
                self._certify(party, role, name)
                self.stage.say(name, "administrator", f"certificate request, key kept in {self._folder / name}")

    def _enrol(self) -> None:
        with self.stage.step(
            "enrolment", "Operator, certificate authority, provider and terminal are enrolled"
        ) as step:
            operator = {
                "operator": OPERATOR,
                "name": "Simulated Mobile",
                "certificate_fingerprint": fingerprint((self._folder / "operator" / "cert.pem").read_bytes()),
            }
            self._admit("operator", operator)
            kek = {"kek_file": str(self._folder / "authority.kek")}
            self._authority = {
                "authority": AUTHORITY,
                "name": "Simulated JPKI",
                **kek,
                "port": self._ports["authority"],
                "status_port": self._ports["status"],
            }
            self._authority_said = self._make_party("authority", self._authority)
            self._admit("authority", self._authority_said)
            self._provider = {
                "provider": PROVIDER,
                "name": "Simulated JPKI Issuer",
                "domain": DOMAIN,
                "kek_file": str(self._folder / "provider.kek"),
                "port": self._ports["provider"],
                "authority": AUTHORITY,
            }
            self._provider_said = self._make_party("provider", self._provider)
            self._admit("provider", self._provider_said)
            terminal = {"terminal": TERMINAL, "municipality": "13101", "tsm_url": self.server["url"]}
            self._admit("terminal", self._make_party("terminal", terminal))
            self._count_here(step)

    def _register(self) -> None:
        with self.stage.step(
            "registration", "A card and a load file are registered, the master key enters the vault"
        ) as step:
            phone = self._folder / "phone"
            phone.mkdir()
            self.card_file = phone / "card.json"
            self._iccid = self._deliver(self.card_file, factory.KEY_SET)
            self.stage.report.subjects["iccid"] = self._iccid
            hashed = administration.register_load_file(self._data, PROVIDER, "1.0", APPLICATION, jpki_cap.build())
            self.stage.say("provider", "tsm", f"the JPKI CAP file, hash {hashed[:16]}…")
            self._my_number_card = self._folder / "terminal" / "my-number-card.json"
            mine = {
                "name": self._citizen.name,
                "sex": self._citizen.sex,
                "born": self._citizen.born,
                "address": self._citizen.address,
                "authenticationPin": self._citizen.my_number_authentication_pin,
                "signaturePin": self._citizen.my_number_signature_pin,
            }
            options = ["--out", str(self._my_number_card)]
            self._run("authority", "my-number-card", options, stdin=json.dumps(mine))
            self.stage.say("authority", "citizen", f"{self._citizen.name}'s My Number card, in the factory")
            self._count_here(step)

    def _deliver(self, card_file: Path, key_set: str) -> Iccid:
        """A card is made, its master key enters the vault, and it is registered."""
        delivery = factory.manufacture(self._folder / "factory", card_file, key_set)
        self.stage.say("factory", "operator", f"a UICC, ICCID {delivery.iccid}, and its production file")
        master_key = delivery.master_key_file.read_text()
        check = administration.import_master_key(self._data, OPERATOR, key_set, 1, master_key)
        delivery.master_key_file.unlink()
        self.stage.say("operator", "tsm", f"master key {key_set}, check value {check}; its file is deleted")
        administration.register_cards(self._data, OPERATOR, delivery.production_file.read_bytes())
        self.stage.say("operator", "tsm", "the production file: 1 card registered")
        return delivery.iccid

    def _open_doors(self) -> None:
        with self.stage.step("opening", "Everybody opens") as step:
            self.stage.serve("tsm", ["api.cli", "serve", "--data", str(self._data)])
            provider = {
                "certificate_fingerprint": self._provider_said["certificate_fingerprint"],
                "transport_key": self._provider_said["transport_key"],
            }
            server = {
                "tsm_url": self.server["url"],
                "tsm_certificate_fingerprint": self.server["certificate_fingerprint"],
            }
            self._configure("authority", self._authority | server | {"providers": {PROVIDER: provider}})
            self._serve("authority")
            more = {"authority_url": self._authority_said["url"], "mas_public_key": self.server["mas_public_key"]}
            self._configure("provider", self._provider | server | more)
            self._serve("provider")
            relying_party = {
                "relying_party": RELYING_PARTY,
                "authentication_ca": self._authority_said["authentication_ca"],
                "authentication_ocsp_url": self._authority_said["authentication_ocsp_url"],
                "port": self._ports["relying-party"],
            }
            self._make_party("relying-party", relying_party)
            self._serve("relying-party")
            self._make_phone("phone", self._citizen.imei)
            self.auditor = Auditor(self.server["url"], self._tls("auditor"))
            self._count(step)

    def _make_phone(self, name: str, imei: str) -> None:
        """A phone knows its own number and whom it trusts; it has no secret."""
        (self._folder / name).mkdir(exist_ok=True)
        self._configure(name, {"party_ca": self.server["party_ca"], "imei": imei}, with_tls=False)

    def _prepare_card(self) -> None:
        with self.stage.step(
            "preparation", "Through the phone: security domain, the provider's own keys, the JPKI applet"
        ) as step:
            options = ["--card", str(self.card_file), "--site", self.stage.report.urls["provider"]]
            last = self._follow(step, self._run_live("phone", "prepare", options))
            self.stage.check("the mobile site finds the card ready", last == "ready")
            self._count(step)

    def apply(self) -> dict[str, Any]:
        with self.stage.step(
            "counter", "At the counter: the My Number card signs the application, the slip is handed out"
        ) as step:
            self._credential, slip = self._apply(self._iccid, "slip.txt")
            self.stage.report.subjects["credential"] = self._credential
            self._count(step)
            return slip

    def _apply(self, iccid: Iccid, slip_file: str) -> tuple[str, dict[str, Any]]:
        """The holder of the My Number card applies for a credential in that card: its id, and the slip."""
        options = ["--card", str(self._my_number_card), "--iccid", iccid, "--provider", PROVIDER]
        began = time.perf_counter()
        (said,) = self._run("terminal", "apply", options, stdin=self._citizen.my_number_signature_pin + "\n")
        self.stage.say("terminal", "tsm", "application, signed by the My Number card", since(began))
        self.stage.relay()
        slip: dict[str, Any] = said["slip"]
        write_private(self._folder / "terminal" / slip_file, slip["text"].encode())
        self.stage.show(slip["text"])
        return said["credential_id"], slip

    def _personalise(self, slip: dict[str, Any]) -> None:
        with self.stage.step(
            "writing", "On the phone: access code, password and new PINs; the credential is written"
        ) as step:
            options = ["--card", str(self.card_file), "--site", self.stage.report.urls["provider"]]
            lines = self._run_live("phone", "personalise", options, stdin=json.dumps(self.typed(slip)))
            last = self._follow(step, lines)
            self.stage.check("the mobile site verified masSign and says: written", last == "written")
            self._count(step)

    def typed(self, slip: dict[str, Any]) -> dict[str, str]:
        """What the citizen types into the form on her phone."""
        return {
            "accessCode": slip["access_code"],
            "password": slip["password"],
            "authenticationPin": self._citizen.authentication_pin,
            "signaturePin": self._citizen.signature_pin,
        }

    def _use(self) -> None:
        with self.stage.step(
            "use", "The credential is used: PIN, challenge, signature; the relying party verifies"
        ) as step:
            options = ["--card", str(self.card_file), "--relying-party", self.stage.report.urls["relying-party"]]
            typed = {"authenticationPin": self._citizen.authentication_pin}
            lines = list(self._run("phone", "use", options, stdin=json.dumps(typed)))
            for line in lines:
                self.stage.say("phone", "relying party", f"signature of the card, {line['subject']}", line["ms"])
                step.card_ms += line["card_ms"]
                step.wire_ms += line["ms"]
                step.exchanges += 1
            self.stage.check("the relying party verified chain, validity and revocation", len(lines) == 1)
            self._count(step)

    def _name_places(self) -> None:
        self.auditor.close()
        places = self.stage.report.places
        if is_postgresql(self._store):
            places["event log, read models"] = "in the PostgreSQL database"
        else:
            places["event log (SQLite)"] = str(self._data / self._store)
            places["read models (SQLite)"] = str(self._data / "views.sqlite")
        places["the phone's card"] = str(self.card_file)
        places["slip"] = str(self._folder / "terminal" / "slip.txt")
        places["logs of the processes"] = str(self._folder / "*.log")
        places["the server again"] = f"tsm serve --data {self._data}"
        places["the card behind PC/SC"] = f"tsm card serve --card {self.card_file}"

    # How the storyteller works

    def _certify(self, party: str, role: str, name: str) -> None:
        folder = self._folder / name
        wanted = request(folder, party).read_bytes()
        (folder / "cert.pem").write_bytes(administration.certify_party(self._data, wanted, party, role, [HOST]))

    def _tls(self, name: str) -> Tls:
        folder = self._folder / name
        return Tls(folder / "cert.pem", folder / "key.pem", Path(self.server["party_ca"]))

    def _configure(self, name: str, config: dict[str, Any], with_tls: bool = True) -> None:
        tls = {"tls": {"certificate": "cert.pem", "key": "key.pem", "party_ca": self.server["party_ca"]}}
        path = self._folder / name / "config.json"
        path.write_text(json.dumps(config | (tls if with_tls else {}), indent=2))

    def _make_party(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        self._configure(name, config)
        (said,) = self._run(name, "init")
        return said

    def _admit(self, role: str, description: dict[str, Any]) -> None:
        position = administration.enrol(self._data, role, json.dumps(description).encode())
        self.stage.say(role, "administrator", f"enrolled at position {position}")

    def _serve(self, name: str) -> None:
        self.stage.serve(name, [*command(name, "serve"), "--folder", str(self._folder / name)])

    def _run_live(
        self, name: str, what: str, options: Iterable[str] = (), stdin: str = "", folder: str = ""
    ) -> Iterable[dict[str, Any]]:
        """`folder` is another than the party's first one."""
        arguments = [*command(name, what), "--folder", str(self._folder / (folder or name)), *options]
        return run(arguments, self._folder / f"{name}.log", stdin)

    def _run(self, name: str, what: str, options: Iterable[str] = (), stdin: str = "") -> list[dict[str, Any]]:
        return list(self._run_live(name, what, options, stdin))

    def _follow(self, step: Step, lines: Iterable[dict[str, Any]]) -> str:
        """Tell what the phone does, as it does it; the state of the page on which it ended.

        The exchanges of one kind that follow each other are told in one line.
        """
        state, said, times = "", "", list[float]()

        def tell_exchanges() -> None:
            if times:
                count = f"  ({len(times)} exchanges)" if len(times) > 1 else ""
                self.stage.say("common app", "MAS", said + count, sum(times))
                times.clear()
            self.stage.relay()

        for line in lines:
            match line["step"]:
                case "PAGE" | "LAUNCH" | "RE-ACCESS" | "REPEAT" | "REPORT" as what:
                    tell_exchanges()
                    self.stage.say(*TOLD[what](line), line.get("ms"))
                    state = line.get("state", state)
                case exchange:
                    now = f"{exchange} → {line['answer']}"
                    if now != said:
                        tell_exchanges()
                    said = now
                    times.append(line["ms"])
                    count_exchange(step, line)
        tell_exchanges()
        return state

    def _count_here(self, step: Step) -> None:
        """The same, while the administrator is alone with the log."""
        with administration.opened(self._data) as parts:
            step.events, self._position = parts.tsm.position - self._position, parts.tsm.position

    def _count(self, step: Step) -> None:
        """How many events the step has added so far, once no more come."""
        self.stage.relay()
        position = self.auditor.position()
        step.events += position - self._position
        self._position = position


TOLD: dict[str, Callable[[dict[str, Any]], tuple[str, str, str]]] = {
    "PAGE": lambda line: ("mobile site", "browser", f"page: {line['state']}"),
    "LAUNCH": lambda line: (
        "browser", "common app", f"LAUNCH, signed by {line['provider']}, reception {line['reception']}",
    ),
    "RE-ACCESS": lambda line: ("common app", "browser", f"RE-ACCESS {line['url']}, with masSign"),
    "REPEAT": lambda line: ("common app", "MAS", f"repeats its request after {line['after']}"),
    "REPORT": lambda _: ("common app", "tsm", "tells which phone this is, and which card it sees"),
}  # fmt: skip


def count_exchange(step: Step, line: dict[str, Any]) -> None:
    server_ms = line["server_ms"] or 0.0
    step.exchanges += 1
    step.server_ms += server_ms
    step.wire_ms += line["ms"] - server_ms
    step.card_ms += line["card_ms"]


def command(name: str, what: str) -> list[str]:
    return [f"api.demo.{name.replace('-', '_')}", what]


def free_ports(count: int) -> list[int]:
    """Ports that are free now; all are held until the last is found, so that they differ."""
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


def since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def in_order(expected: Iterable[str], topics: list[str]) -> bool:
    """Whether `expected` is a subsequence of `topics`."""
    rest = iter(topics)
    return all(topic in rest for topic in expected)
