"""A day after the demo: its server again, its card in a phone, and the people who ask what the cookbook asks.

What the log holds is the demo run's. What is added here comes through the API and through the simulated card; told as
facts are only two applications at the counter, for whose signatures no citizen is at hand.
"""

import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os import urandom
from pathlib import Path
from typing import Any

import httpx

from api import local_login
from api.app import create_app
from api.bootstrap import Parts, Settings, build
from api.demo.phone.common_app import CommonApp
from tests.api.admin_world import iccid, keyed, mutation, row
from tests.api.https import serving
from tests.conftest import DemoRun
from tests.line_samples import OTHER_PHONE, PHONE
from tsm.application import Change
from tsm.mas.launch import LaunchParameters
from tsm.mas.messages import LinkRequest, Process
from tsm.model import card as cards
from tsm.model import credential as credentials
from tsm.model.card import CardRegistered
from tsm.model.credential import CredentialApplied, CredentialIssued
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind
from tsm.uicc.card import SimulatedUicc

OPERATOR, PROVIDER, MUNICIPALITY, TERMINAL = "MNO00001", "JPKI0001", "13101", "T-13101-01"
PATIENCE = 20.0  # seconds for a worker's rounds
WAITING = ("2f1d6a04-6f0c-4f0e-9d3a-0c1b5e7a9f11", "9b64c1de-1b7f-4a53-8a61-7d0f2e8c4b22")  # credentials applied for
ISSUED = "4e7b0c52-3a1d-4c86-b0f9-5d2a6e8f7c33"  # one whose certificates are there
NUMBER = "+447700900071"  # a fictional number
NEW_CARDS = (iccid(71), iccid(72))


@dataclass
class Desk:
    """The server of a demo run, a day later."""

    client: httpx.Client
    parts: Parts
    card: SimulatedUicc
    iccid: str
    credential: str

    def token(self, role: str, tenant: str, person: str) -> str:
        settings, now = self.parts.settings, self.parts.clock()
        life = timedelta(hours=1)
        return local_login.sign(
            self.parts.vault, settings.public_url, role, tenant, person, life, now, urandom(16).hex()
        )

    def ask(self, token: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The whole answer: data, and errors if there are any."""
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/graphql-response+json"}
        answer = self.client.post("/graphql", json={"query": query, "variables": variables}, headers=headers).json()
        answer.pop("extensions", None)  # what it cost
        return dict(answer)

    def done(self, who: tuple[str, str, str], name: str, shown: str = "", **given: Any) -> dict[str, Any]:
        """The payload of a mutation that is not refused."""
        answer = self.ask(self.token(*who), mutation(name, shown), {"input": keyed(given)})
        assert "errors" not in answer, answer
        payload = answer["data"][name]
        assert payload["userErrors"] == [], payload
        return dict(payload)

    def get(self, token: str, url: str) -> list[str]:
        """The lines of an answer."""
        answer = self.client.get(url, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
        return answer.text.splitlines()

    def listen(self, token: str, query: str, variables: dict[str, Any], number: int) -> list[dict[str, Any]]:
        """The first answers of a subscription, as server-sent events."""
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        body = {"query": query, "variables": variables}
        with self.client.stream("POST", "/graphql", json=body, headers=headers) as answer:
            said = (
                json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")
            )
            return [next(said) for _ in range(number)]

    def carry(self, launch: str) -> None:
        """The phone is at hand: its common app does what the launch parameters say, with the card in it."""
        CommonApp(self.client, self.card, lambda **_: None).run(launch)

    def begin(self, launch: str) -> None:
        """The phone begins, and is not heard of again."""
        told = LaunchParameters.parse(launch)
        start = LinkRequest(
            Process.START, provider=told.provider, reception=told.reception, signature=told.signature
        ).encode()
        self.client.post(told.mas_url, content=start, headers={"Content-Type": "application/xml"}).raise_for_status()

    def until(self, holds: Callable[[], bool]) -> None:
        """Give the workers their rounds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, "nothing came of it"
            time.sleep(0.05)

    def catch_up(self) -> None:
        """Until the read models have come to the end of the log."""
        self.until(lambda: min(self.parts.views.positions().values()) >= self.parts.tsm.position)

    def is_over(self, operation: str) -> bool:
        return self.parts.operations.find(operation).is_over

    def apply(self, credential: str, card: str) -> None:
        """Somebody applies at the counter, for a credential on this card."""
        applied = CredentialApplied(
            subject=f"person-{credential[:8]}",
            provider=PROVIDER,
            terminal=TERMINAL,
            municipality=MUNICIPALITY,
            iccid=card,
            applicant="Simulated Hanako Testperson",
            document_sha256="ab" * 32,
        )
        tsm = self.parts.tsm
        context = Context(
            actor=f"terminal:{TERMINAL}",
            role="clerk",
            tenant=MUNICIPALITY,
            tenants=(PROVIDER,),
            correlation=credential,
        )
        stream = credentials.stream(credential)
        row = tsm.index_row("iccid", card, stream, credential)
        tsm.commit(Change(stream, 0, [applied]), context=context, occurred_at=tsm.now(), put_index=[row])

    def issue(self, credential: str) -> None:
        """The authority answers what was applied for."""
        issued = CredentialIssued(
            subject=f"person-{credential[:8]}",
            authority="jpki",
            authentication_serial="0A",
            signature_serial="0B",
            authentication_certificate_sha256="aa" * 32,
            signature_certificate_sha256="bb" * 32,
        )
        tsm, stream = self.parts.tsm, credentials.stream(credential)
        context = Context(actor=f"terminal:{TERMINAL}", role="clerk", tenant=MUNICIPALITY, correlation=credential)
        tsm.commit(Change(stream, 1, [issued]), context=context, occurred_at=tsm.now())

    def signal(self, kind: SignalKind, days_ago: float, **values: str) -> None:
        """The operator's system says so."""
        at = self.parts.clock() - timedelta(days=days_ago)
        said = Signal(id=f"{kind}-{days_ago}", source=f"operator:{OPERATOR}", kind=kind, occurred_at=at, **values)
        context = Context(actor=f"operator:{OPERATOR}", role="operator", tenant=OPERATOR, correlation="feed")
        [outcome] = self.parts.lines.record([said], context)
        assert outcome.error is None, outcome.error


class Clock:
    """The real time, and a day more from when it is told so."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Rerouted(httpx.HTTPTransport):
    """Takes what is for the server of the demo to where it stands now."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        super().__init__(verify=trust)
        self._port = port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(port=self._port)
        return super().handle_request(request)


@contextmanager
def opened(run: DemoRun, folder: Path) -> Iterator[Desk]:
    """A copy of the run, so that others find theirs as it was."""
    for name in ("tsm", "phone"):
        shutil.copytree(run.folder / name, folder / name)
    for name in ("tsm.kek", "tsm.kek.destroyed"):
        shutil.copy2(run.folder / name, folder / name)
    config = folder / "tsm" / "config.json"
    places = {"kek_file": str(folder / "tsm.kek"), "destroyed_keys": str(folder / "tsm.kek.destroyed")}
    config.write_text(json.dumps(json.loads(config.read_text()) | places))
    clock = Clock()
    parts = build(Settings.load(folder / "tsm"), clock)
    with serving(create_app(parts), parts.settings.tls) as url:
        trust = ssl.create_default_context(cafile=parts.settings.tls.party_ca)
        transport = Rerouted(httpx.URL(url).port or 0, trust)
        with httpx.Client(transport=transport, base_url=parts.settings.public_url, timeout=30) as client:
            subjects = run.report["subjects"]
            card = SimulatedUicc.load(folder / "phone" / "card.json")
            desk = Desk(client, parts, card, subjects["iccid"], subjects["credential"])
            yesterday(desk)
            clock.ahead = timedelta(days=1)
            yield desk


ALICE = ("operator", f"operator:{OPERATOR}", "alice")
BOB = ("operator", f"operator:{OPERATOR}", "bob")


def yesterday(desk: Desk) -> None:
    """What people did on the day of the demo."""
    [registered] = [e for e in desk.parts.tsm.history(cards.stream(desk.iccid)) if isinstance(e.fact, CardRegistered)]
    key_set = registered.fact.key_set
    desk.done(ALICE, "cardRegister", rows=[row(card, keySet=key_set) for card in NEW_CARDS])
    asked = desk.done(ALICE, "cardAudit", "operation { operation }", iccid=NEW_CARDS[0], reason="a complaint")
    desk.done(BOB, "operationCancel", operation=asked["operation"]["operation"], reason="the phone was replaced")
    for credential, card in zip(WAITING, NEW_CARDS, strict=True):
        desk.apply(credential, card)
    lost, moved = NEW_CARDS
    desk.signal(SignalKind.OBSERVED, 20, msisdn=NUMBER, iccid=moved, imei=PHONE)
    desk.signal(SignalKind.DEVICE_CHANGED, 0.1, msisdn=NUMBER, iccid=moved, imei=OTHER_PHONE)
    desk.signal(SignalKind.LOST, 0.05, iccid=lost)
    desk.apply(ISSUED, moved)
    desk.issue(ISSUED)
