"""The second act: the SIM with the credential moves to another phone, and everybody finds out in time.

It begins as the first does (`api.demo.story`), with a line that the operator tells of. Then the SIM is stolen,
held, released at the counter, and at last replaced; an auditor replays the case. The thief knows the PIN: what stops
him is the card's standing, and the status that relying parties ask for.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from api import administration
from api.demo.bank import DEVICE_SWAP, SCOPES, SIM_SWAP, Bank
from api.demo.card_client import JpkiCard
from api.demo.party import TIMEOUT, checked, reaching, trusting
from api.demo.staff import Staff
from api.demo.stage import Step
from api.demo.story import OPERATOR, Story, in_order, since
from api.tls import client_context
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificates import Kind
from tsm.model import standing as standings
from tsm.model.standing import Standing
from tsm.uicc.card import SimulatedUicc

PATIENCE = 20.0  # seconds for what followers do at once
LOOK_AGAIN = 0.1  # seconds
ACTIVATED, PHONE_BOUGHT = timedelta(days=400), timedelta(days=200)  # ago: longer than the bank asks for
HER_PHONE, HIS_PHONE, HER_NEXT_PHONE = "phone", "another-phone", "next-phone"  # folders
NEXT_KEY_SET = "isd-2027"  # of the card that takes the place of the first
GOOD, HELD = "good", "revoked, certificateHold"
SUPERSEDED, OVER = "revoked, superseded", "revoked, cessationOfOperation"
EXPECTED = (  # what the auditor must find of the first card, in this order
    "credential.activated",
    "standing.suspicion_raised",
    "standing.level_changed",
    "credential.hold_ordered",
    "credential.held",
    "standing.card_cleared",
    "standing.level_changed",
    "credential.release_ordered",
    "credential.released",
    "credential.signature_reissued",
    "standing.suspicion_raised",
    "standing.level_changed",
    "credential.held",
    "standing.suspicion_withdrawn",
    "standing.level_changed",
    "credential.released",
    "credential.signature_reissued",
    "credential.signature_rewritten",
    "standing.suspicion_raised",
    "standing.level_changed",
    "credential.held",
    "standing.suspicion_closed",
    "credential.revocation_ordered",
    "credential.revoked",
)


class SecondAct(Story):
    """Ends with the audit of the case."""

    def tell(self) -> None:
        """From an empty folder to the audit of the case."""
        self.set_up()
        self._tell_line()
        self._issue()
        self._ask_before()
        self._move_sim()
        self._refuse_thief()
        self._release()
        self._change_phones()
        self._renew_signature()
        self._replace_sim()
        self._revoke()
        self._replay()
        self._name_places()
        asked = f"tsm store state --data {self._data} {standings.stream(self._iccid)} --position N"
        self.stage.report.places["what was known at N"] = asked

    # The scenes

    def _tell_line(self) -> None:
        with self.stage.step("line", "The operator tells of her line: number, SIM and phone") as step:
            shown = client_context(self._tls("operator"))
            self._network = httpx.Client(verify=shown, timeout=TIMEOUT, trust_env=False)
            her = {"msisdn": self._citizen.msisdn, "imsi": self._citizen.imsi, "iccid": self._iccid}
            told = self._tell(
                {"kind": "SUBSCRIBED", **her, "occurred_at": ago(ACTIVATED)},
                {"kind": "OBSERVED", **her, "imei": self._citizen.imei, "occurred_at": ago(PHONE_BOUGHT)},
            )
            self.stage.check("both signals are in the log", len(told) == 2)
            self._count(step)

    def _ask_before(self) -> None:
        with self.stage.step("before", "A bank and the operator's staff log in; nothing has happened yet") as step:
            http = httpx.Client(verify=trusting(Path(self.server["party_ca"])), timeout=TIMEOUT, trust_env=False)
            asked = [word for scope in SCOPES for word in ("--scope", scope)]
            self._bank = Bank(http, self.server["url"], self._token("camara-token", "--client", "bank", *asked))
            role = ("--role", "operator", "--tenant", f"operator:{OPERATOR}", "--person", "olga")
            self._staff = Staff(http, self.server["url"], self._token("token", *role))
            self._certificates = {kind: self._certificate(kind) for kind in Kind}
            self._expect_status("both certificates are good", authentication=GOOD, signature=GOOD)
            self._expect_swaps("before", sim=False, device=False)
            self._count(step)

    def _move_sim(self) -> None:
        with self.stage.step("swap", "Her SIM is stolen: the network sees it in another phone") as step:
            self._make_phone(HIS_PHONE, self._citizen.other_imei)
            self._put_sim_into(HIS_PHONE)
            (position,) = self._tell(self._device_changed(self._citizen.other_imei))
            standing, alerts = self._case(step)
            self.stage.check("the card is on hold", standing["onHold"])
            evidence = [place for alert in alerts for place in alert["evidencePositions"]]
            self.stage.check("the alert names that signal as its evidence", position in map(int, evidence))

    def _refuse_thief(self) -> None:
        with self.stage.step("thief", "The thief has the SIM, and has seen her type the PIN") as step:
            last = self._follow(step, to_the_end(self._visit(HIS_PHONE, "prepare")))
            self.stage.check("no session with this card: the mobile site refuses", last == "refused")
            self._expect_status("the authority has put them on hold", authentication=HELD, signature=HELD)
            said = self._log_in(HIS_PHONE)
            self.stage.check("the relying party lets nobody in with it", said == ErrorCode.CERTIFICATE_REVOKED)
            self._expect_swaps("after the theft", sim=False, device=True)
            self._count(step)

    def _release(self) -> None:
        with self.stage.step("release", "She has it back; at the counter her My Number card signs the release") as step:
            self._put_sim_into(HER_PHONE)
            self._tell(self._device_changed(self._citizen.imei))
            self._case(step)
            options = ["--card", str(self._my_number_card), "--iccid", self._iccid]
            began = time.perf_counter()
            self._run("terminal", "release", options, stdin=self._citizen.my_number_signature_pin + "\n")
            self.stage.say("terminal", "tsm", "release, signed by the My Number card", since(began))
            _, alerts = self._case(step)
            self.stage.check("her signature settled all of it", alerts == [])
            self._expect_status(
                "the certificate for authentication is good again", authentication=GOOD, signature=SUPERSEDED
            )
            self._count(step)

    def _change_phones(self) -> None:
        with self.stage.step("model", "She buys a new phone; that she announced it, the operator tells late") as step:
            self._make_phone(HER_NEXT_PHONE, self._citizen.next_imei)
            self._put_sim_into(HER_NEXT_PHONE)
            last = self._follow(step, to_the_end(self._visit(HER_NEXT_PHONE, "renew")))
            self.stage.check("the app told which phone it is, and the session was stopped", last == "failed")
            self._expect_status("on hold again", authentication=HELD, signature=SUPERSEDED)
            self._case(step)
            announced = {"kind": "MODEL_CHANGE_ANNOUNCED", "iccid": self._iccid, "imei": self._citizen.next_imei}
            until = ago(-timedelta(days=1))
            self._tell({**announced, "occurred_at": ago(timedelta(days=1)), "until": until})
            _, alerts = self._case(step)
            self.stage.check("what is explained now is withdrawn", alerts == [])
            self._expect_status("released without anybody's help", authentication=GOOD, signature=SUPERSEDED)
            self._count(step)

    def _renew_signature(self) -> None:
        with self.stage.step("renewal", "On her phone: the new certificate for signatures is written") as step:
            last = self._follow(step, self._visit(HER_NEXT_PHONE, "renew"))
            self.stage.check("the mobile site says: written", last == "written")
            self._certificates[Kind.SIGNATURE] = self._certificate(Kind.SIGNATURE)
            self._expect_status("both certificates are good once more", authentication=GOOD, signature=GOOD)
            self.stage.check("the relying party lets her in", self._log_in(HER_NEXT_PHONE) == "welcome")
            self._count(step)

    def _replace_sim(self) -> None:
        with self.stage.step("replacement", "Another day: the operator gives her number to another SIM") as step:
            self._next_iccid = self._deliver(self._folder / HER_NEXT_PHONE / "next-card.json", NEXT_KEY_SET)
            self.stage.report.subjects["next iccid"] = self._next_iccid
            cards = {"OldSecureElement": {"ICCID": self._iccid}, "NewSecureElement": {"ICCID": self._next_iccid}}
            her = {"msisdn": self._citizen.msisdn, "imsi": self._citizen.next_imsi, "iccid": self._next_iccid}
            self._tell(
                {"HandleSERenewalNotification": cards, "occurred_at": ago()},
                {"kind": "OBSERVED", **her, "imei": self._citizen.next_imei, "occurred_at": ago()},
            )
            self._expect_status("both are on hold at once", authentication=HELD, signature=HELD)
            standing, self._alerts = self._case(step)
            due = datetime.fromisoformat(standing["revokeFrom"])
            self.stage.check("the old card is to be revoked, when the settle window is over", due > datetime.now(UTC))
            self._expect_swaps("after the replacement", sim=True, device=True)

    def _revoke(self) -> None:
        with self.stage.step("revocation", "A person confirms it: revoked for good; she applies anew") as step:
            for alert in self._alerts:
                refused = self._staff.confirm(self._iccid, alert["alert"], "she came for her new SIM herself")
                self.stage.say("staff", "tsm", f"confirms {alert['rule']}")
                self.stage.check("the confirmation is recorded", refused == [])
            self._expect_status("both are revoked", authentication=OVER, signature=OVER)
            _, slip = self._apply(self._next_iccid, "next-slip.txt")
            self.stage.check("the counter hands out a slip for the new card", bool(slip["text"]))
            self._count(step)

    def _replay(self) -> None:
        with self.stage.step("replay", "The auditor replays the case: what was known, and when") as step:
            began = time.perf_counter()
            _, history = self.auditor.card(self._iccid)
            self.stage.say("auditor", "tsm", f"{len(history)} events of the first card", since(began))
            for entry in history:
                if entry["topic"].startswith(("standing.", "session.failed")) or entry["topic"] in EXPECTED:
                    self.stage.show_event(entry)
            topics = [entry["topic"] for entry in history]
            self.stage.check("every expected event is there, in its order", in_order(EXPECTED, topics))
            self.stage.check("that the thief tried is in the log", topics.count("standing.use_refused") == 1)
            self.stage.check("one session failed: the one that was stopped", topics.count("session.failed") == 1)
            self._tell_what_was_known([e["position"] for e in history if e["topic"] == "standing.level_changed"])
            self.stage.check("no event is parked", self.auditor.parked() == [])
            self._count(step)

    # How it is told

    def _tell(self, *signals: dict[str, Any]) -> list[int]:
        """What the operator's network tells, with the operator's certificate; the positions."""
        lines = [{"id": secrets.token_hex(8), **signal} for signal in signals]
        began = time.perf_counter()
        with reaching():
            body = "\n".join(json.dumps(line) for line in lines)
            said = checked(self._network.post(f"{self.server['url']}/mno/signals", content=body))
        ms = since(began)
        answers = [json.loads(line) for line in said.text.splitlines()]
        for line, answer in zip(lines, answers, strict=True):
            if "position" not in answer:
                raise TsmError(ErrorCode.INTERNAL, str(answer))
            name = line.get("kind") or next(name for name in line if name.startswith("Handle"))
            self.stage.say("operator", "tsm", f"{name}: position {answer['position']}", ms)
        return [answer["position"] for answer in answers]

    def _device_changed(self, imei: str) -> dict[str, Any]:
        """As the operator's network would say it, in GlobalPlatform's words."""
        notification = {
            "SecureElement": {"ICCID": self._iccid},
            "MobileSubscription": {"MSISDN": self._citizen.msisdn},
            "Extensions": {"IMEI": imei},
        }
        return {"HandleSEDeviceChangedNotification": notification, "occurred_at": ago()}

    def _put_sim_into(self, phone: str) -> None:
        self.card_file = self.card_file.rename(self._folder / phone / "card.json")

    def _visit(self, phone: str, what: str) -> Iterable[dict[str, Any]]:
        """To the provider's mobile site, with the SIM in that phone."""
        options = ["--card", str(self.card_file), "--site", self.stage.report.urls["provider"]]
        return self._run_live("phone", what, options, folder=phone)

    def _log_in(self, phone: str) -> str:
        """ "welcome", or why the relying party refuses."""
        options = ["--card", str(self.card_file), "--relying-party", self.stage.report.urls["relying-party"]]
        typed = json.dumps({"authenticationPin": self._citizen.authentication_pin})
        began, said = time.perf_counter(), "welcome"
        try:
            list(self._run_live("phone", "use", options, typed, folder=phone))
        except TsmError as refused:
            said = json.loads(refused.detail[refused.detail.index("{") :])["code"]
        self.stage.say("phone", "relying party", f"signature of the card: {said}", since(began))
        return said

    def _certificate(self, kind: Kind) -> bytes:
        """As the card has it. The bank knows it from an earlier visit of hers."""
        card = JpkiCard(SimulatedUicc.load(self.card_file).transmit)
        if kind is Kind.SIGNATURE:
            card.verify_pin(kind, self._citizen.signature_pin)
        return card.certificate(kind)

    def _status(self) -> dict[str, str]:
        return {
            kind: self._bank.status(certificate, bytes.fromhex(self._authority_said[f"{kind}_ca"]))
            for kind, certificate in self._certificates.items()
        }

    def _expect_status(self, what: str, **expected: str) -> None:
        """What the authority's responder says of both certificates, now or soon."""
        began = time.perf_counter()
        deadline = began + PATIENCE
        while (found := self._status()) != expected and time.perf_counter() < deadline:
            time.sleep(LOOK_AGAIN)
        self.stage.relay()
        for kind, status in found.items():
            self.stage.say("bank", "authority", f"OCSP, {kind}: {status}", since(began))
        self.stage.check(what, found == expected)

    def _expect_swaps(self, when: str, *, sim: bool, device: bool) -> None:
        """What CAMARA's APIs say to the bank."""
        for path, expected in ((SIM_SWAP, sim), (DEVICE_SWAP, device)):
            began = time.perf_counter()
            swapped = self._bank.swapped(path, self._citizen.msisdn)
            self.stage.say("bank", "tsm", f"{path}: swapped {swapped}".lower(), since(began))
            api = path.split("/")[1]
            self.stage.check(f"{when} the answer of {api} is {expected}".lower(), swapped is expected)

    def _token(self, *arguments: str) -> str:
        """A token of `tsm admin`, as it is printed, once."""
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", "admin", *arguments, "--data", str(self._data)],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise TsmError(ErrorCode.INTERNAL, done.stderr.strip())
        return done.stdout.strip()

    def _case(self, step: Step) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What the operator's staff sees: the card's standing, and the alerts that make it."""
        self._count(step)
        standing, alerts = self._staff.case(self._iccid, self._position)
        for alert in alerts:
            evidence = ", ".join(map(str, alert["evidencePositions"]))
            self.stage.say("tsm", "staff", f"alert: {alert['rule']}, {alert['level']}; evidence at {evidence}")
        return standing, alerts

    def _tell_what_was_known(self, positions: list[int]) -> None:
        """The standing as it was after each change of its level."""
        with administration.opened(self._data) as parts:
            for position in positions:
                was = parts.tsm.state_at(standings.stream(self._iccid), standings.evolve, position=position).state
                known = was or Standing()
                rules = ", ".join(suspicion.raised.rule for suspicion in known.open) or "nothing"
                self.stage.say("tsm", "auditor", f"as of position {position}: {known.level.name}; open: {rules}")


def ago(time: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) - time).isoformat()


def to_the_end(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Also of a visit that ends with a refusal: the page on which it ended says so."""
    with suppress(TsmError):
        yield from lines
