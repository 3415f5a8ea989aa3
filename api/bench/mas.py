"""What an exchange, a channel and a whole credential cost the server.

SCP03 stands against the bare primitives of the same messages. The cost of a MAS exchange is CPU time of the server
process, read per thread from the kernel while a real phone talks to it over one kept-alive TLS connection; the server
runs on one core, phone and provider on the other. Every exchange is durably recorded before it is answered. A run is a
whole credential as in the demo; medians of several runs.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC
from rich.table import Table

from api.app import create_app
from api.bench.report import SERVER_CORE, on_other_core, verdict, wide_console
from api.bootstrap import Settings, build
from api.demo.card_client import read_iccid
from api.demo.party import TIMEOUT, trusting
from api.demo.phone.browser import Browser
from api.demo.phone.common_app import CommonApp
from api.demo.stage import Server, Stage
from api.demo.story import Citizen, Story
from api.tls import run_server
from tsm.channels.scp03 import FULL, Scp03CardChannel, Scp03Channel, external_authenticate
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu
from tsm.keys.primitives import KeySet, SessionKeys
from tsm.uicc.card import SimulatedUicc

MESSAGES, OCTETS = 2000, 200  # octets of command data, and of response data
ROUNDS = 7  # of the SCP03 comparison
HANDSHAKES = 50
HANDLER = ("MainThread", "committer", "reader")  # the threads that work for a request
NOTIFICATION, PROJECTIONS = ("notification",), ("projection",)
OPERATOR_MS, NOTIFY_MS, SCP03_RATIO = 2.0, 4.0, 0.25  # the goals


# --- SCP03 against the bare primitives ---


def scp03() -> tuple[float, float]:
    """Messages a second: ours (wrap and unwrap), and the bare primitives on the same octets."""
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(rate(wrap_and_unwrap()))
        bare.append(rate(bare_primitives()))
    return statistics.median(ours), statistics.median(bare)


def rate(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return MESSAGES / (time.perf_counter() - began)


def wrap_and_unwrap() -> Callable[[], None]:
    """The host's end of a channel at level 33, with answers that a card's end made beforehand."""
    key_set, challenges = KeySet(os.urandom(16), os.urandom(16), os.urandom(16)), (os.urandom(8), os.urandom(8))
    command = CommandApdu(0x80, 0xE2, 0, 0, bytes(OCTETS))
    host, card = both_ends(key_set, *challenges)
    answers = []
    for _ in range(MESSAGES):
        card.unwrap(host.wrap(command))
        answers.append(card.wrap(ResponseApdu(bytes(OCTETS), 0x9000)))
    fresh, _ = both_ends(key_set, *challenges)

    def run() -> None:
        for answer in answers:
            fresh.wrap(command)
            fresh.unwrap(answer)

    return run


def both_ends(key_set: KeySet, host_challenge: bytes, card_challenge: bytes) -> tuple[Scp03Channel, Scp03CardChannel]:
    keys = SessionKeys.derive(key_set, host_challenge, card_challenge)
    card = Scp03CardChannel(SessionKeys.derive(key_set, host_challenge, card_challenge))
    command, chaining = external_authenticate(keys, FULL)
    if not card.external_authenticate(command):
        raise RuntimeError("the two ends do not agree")
    return Scp03Channel(keys, FULL, 0, chaining), card


def bare_primitives() -> Callable[[], None]:
    """The same cipher and MAC calls on as many octets, contexts kept, and nothing else."""
    key = AES(os.urandom(16))
    ecb = Cipher(key, ECB()).encryptor()  # noqa: S305  single blocks, as the standard has it
    encrypt, decrypt = Cipher(key, CBC(bytes(16))).encryptor(), Cipher(key, CBC(bytes(16))).decryptor()
    command_mac, response_mac = CMAC(key), CMAC(key)
    block, padded = bytes(16), bytes(OCTETS + 8)
    command_text, response_text = bytes(16 + 5) + padded, bytes(16) + padded + bytes(2)

    def run() -> None:
        for _ in range(MESSAGES):
            ecb.update(block)
            encrypt.update(padded)
            mac = command_mac.copy()
            mac.update(command_text)
            mac.finalize()
            mac = response_mac.copy()
            mac.update(response_text)
            mac.finalize()
            ecb.update(block)
            decrypt.update(padded)

    return run


# --- A server whose threads can be asked what they cost ---


def serve_measured(data: Path) -> None:
    """The server as it is; each line on standard input is answered with CPU nanoseconds by thread name."""
    settings = Settings.load(data)
    threading.Thread(target=answer_cpu, daemon=True, name="bench").start()
    run_server(create_app(build(settings)), settings, ready=lambda url: print(json.dumps({"url": url}), flush=True))


def answer_cpu() -> None:
    for _ in sys.stdin:
        used: dict[str, int] = {}
        for thread in threading.enumerate():
            used[thread.name] = used.get(thread.name, 0) + thread_cpu(thread.native_id)
        print(json.dumps(used), flush=True)


def thread_cpu(native_id: int | None) -> int:
    """Nanoseconds on a CPU, from the kernel's scheduler."""
    return int(Path(f"/proc/self/task/{native_id}/schedstat").read_text().split()[0])


class MeasuredStage(Stage):
    """A stage whose tsm server runs on a core of its own and can be asked for its CPU time."""

    def start(self, name: str, arguments: list[str]) -> Server:
        if name != "tsm":
            return super().start(name, arguments)
        measured = ["api.bench", "serve", *arguments[2:]]
        self.tsm = Server(name, measured, self.folder / f"{name}.log", stdin=subprocess.PIPE)
        os.sched_setaffinity(self.tsm.pid, {SERVER_CORE})
        return self.tsm

    def cpu(self) -> dict[str, int]:
        return {name: int(value) for name, value in self.tsm.ask("cpu").items()}


@dataclass
class Cost:
    """CPU of the server in one kind of session, milliseconds."""

    exchanges: int = 0
    handler_ms: float = 0.0
    notification_ms: float = 0.0
    elapsed_ms: float = 0.0

    def add(self, exchanges: int, used: dict[str, int], elapsed_ms: float) -> None:
        self.exchanges += exchanges
        self.handler_ms += milliseconds(used, HANDLER)
        self.notification_ms += milliseconds(used, NOTIFICATION)
        self.elapsed_ms += elapsed_ms


def milliseconds(used: dict[str, int], names: Sequence[str]) -> float:
    return sum(value for thread, value in used.items() if any(name in thread for name in names)) / 1e6


@dataclass
class Credential:
    """What one credential cost the server."""

    operator: Cost = field(default_factory=Cost)  # sessions of the operator: nobody is notified over the network
    provider: Cost = field(default_factory=Cost)  # sessions of the provider: each result is notified and acknowledged
    handshake_ms: float = 0.0
    projection_us: float = 0.0  # for each event
    events: int = 0


class MeasuredApp(CommonApp):
    """The common app; the server's CPU is read before and after each session."""

    def __init__(self, http: httpx.Client, card: SimulatedUicc, stage: MeasuredStage, credential: Credential) -> None:
        self._exchanges = 0
        super().__init__(http, card, self._count)
        self._stage = stage
        self._credential = credential

    def _count(self, **line: Any) -> None:
        self._exchanges += "answer" in line

    def run(self, parameter: str) -> str:
        before, began, self._exchanges = self._stage.cpu(), time.perf_counter(), 0
        back = super().run(parameter)
        elapsed_ms = (time.perf_counter() - began) * 1000
        after = self._stage.cpu()
        used = {name: value - before.get(name, 0) for name, value in after.items()}
        kind = self._credential.operator if "spId=MNO" in parameter else self._credential.provider
        kind.add(self._exchanges, used, elapsed_ms)
        return back


class MeasuredStory(Story):
    """The demo's story with the phone in this process, so that sessions and samples keep step."""

    stage: MeasuredStage

    def measure(self) -> Credential:
        credential = Credential()
        self.set_up()
        card = SimulatedUicc.load(self.card_file)
        root = Path(self.server["party_ca"])
        with (
            httpx.Client(verify=trusting(root), timeout=TIMEOUT, trust_env=False) as app_http,
            httpx.Client(verify=trusting(root), timeout=TIMEOUT, trust_env=False) as browser_http,
        ):
            app_http.get(f"{self.server['url']}/health")  # the handshake is on a line of its own
            app = MeasuredApp(app_http, card, self.stage, credential)
            browser = Browser(browser_http, app, lambda **_: None)
            site = self.stage.report.urls["provider"]
            page = browser.open(f"{site}/mobile/prepare", iccid=read_iccid(card.transmit))
            slip = self.apply()
            page = browser.submit(page, self.typed(slip))
            if page.state != "written":
                raise RuntimeError(f"the visit ended at {page.state}")
        credential.handshake_ms = self._handshake(root)
        credential.events = self.auditor.position()
        projections = milliseconds(self.stage.cpu(), PROJECTIONS)
        credential.projection_us = projections * 1000 / credential.events
        return credential

    def _handshake(self, root: Path) -> float:
        """CPU of a new connection and one small request, less the request on a kept-alive connection."""
        context, url = trusting(root), f"{self.server['url']}/health"

        def fresh() -> None:
            with httpx.Client(verify=context, trust_env=False) as http:
                http.get(url)

        new = self._handler_ms(fresh)
        with httpx.Client(verify=context, trust_env=False) as http:
            http.get(url)
            kept = self._handler_ms(lambda: http.get(url))
        return new - kept

    def _handler_ms(self, request: Callable[[], Any]) -> float:
        before = milliseconds(self.stage.cpu(), HANDLER)
        for _ in range(HANDSHAKES):
            request()
        return (milliseconds(self.stage.cpu(), HANDLER) - before) / HANDSHAKES


# --- The report ---


def measure_credential(folder: Path) -> Credential:
    stage = MeasuredStage(folder, as_json=True)
    try:
        return MeasuredStory(stage, folder, Citizen().complete()).measure()
    finally:
        stage.close()


def median(credentials: list[Credential], value: Callable[[Credential], float]) -> float:
    return statistics.median(value(credential) for credential in credentials)


def report(runs: int) -> bool:
    """Measure and print; whether every goal was met."""
    console = wide_console()
    ours, bare = scp03()
    table = Table(title="SCP03, level 33, 200 octets there and back")
    for heading in ("what", "ours/s", "baseline/s", "ratio", "goal", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    ratio = ours / bare
    met = [ratio >= SCP03_RATIO]
    row = (f"{ours:,.0f}", f"{bare:,.0f}", f"{ratio:.2f}", f"≥ {SCP03_RATIO}", verdict(met[0]))
    table.add_row("wrap + unwrap, against the bare primitives", *row)
    console.print(table)

    credentials = []
    with on_other_core(), tempfile.TemporaryDirectory() as folder, console.status("issuing credentials"):
        credentials += [measure_credential(Path(folder) / str(number)) for number in range(runs)]
    table = Table(title=f"The server's CPU, medians of {runs} credentials")
    for heading in ("what", "ms", "goal", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    operator = median(credentials, lambda c: c.operator.handler_ms / c.operator.exchanges)
    provider = median(
        credentials, lambda c: (c.provider.handler_ms + c.provider.notification_ms) / c.provider.exchanges
    )
    met += [operator <= OPERATOR_MS, provider <= NOTIFY_MS]
    table.add_row("exchange, START to RESPONSE, durably recorded", f"{operator:.2f}", "≤ 2", verdict(met[1]))
    table.add_row("exchange with its NOTIFY and NOTIFY-ACK", f"{provider:.2f}", "≤ 4", verdict(met[2]))
    handler = median(credentials, lambda c: c.provider.handler_ms / c.provider.exchanges)
    table.add_row("  of it the request handler", f"{handler:.2f}", "", "")
    table.add_row("TLS handshake", f"{median(credentials, lambda c: c.handshake_ms):.2f}", "", "")
    table.add_row("projections, each event", f"{median(credentials, lambda c: c.projection_us / 1000):.3f}", "", "")
    total = median(credentials, lambda c: sum(k.handler_ms + k.notification_ms for k in (c.operator, c.provider)))
    exchanges = median(credentials, lambda c: c.operator.exchanges + c.provider.exchanges)
    table.add_row(f"one credential, all {exchanges:.0f} exchanges of its sessions", f"{total:.0f}", "", "")
    console.print(table)
    elapsed = median(credentials, lambda c: c.operator.elapsed_ms + c.provider.elapsed_ms) / 1000
    console.print(
        f"All sessions of one credential took {elapsed:.1f} s elapsed here, on loopback with a simulated card. For"
        " scale only: the trial of 2012 wrote ID information in about 6 s, on phones, over the air, into real cards."
    )
    return all(met)
