"""A phone is lost and found: locked, released, its signature certificate made anew and written to the card.

All parties are processes, as in the demo: the story begins where a run of the demo ends.
"""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from api.demo.card_client import JpkiCard
from api.demo.stage import Server
from api.demo.story import command
from tests.conftest import CITIZEN, DemoRun, run_demo
from tsm.errors import TsmError
from tsm.jpki.certificates import Kind, public_key, read_certificate
from tsm.uicc.card import SimulatedUicc

PATIENCE = 30.0  # seconds for what the followers do at once


@dataclass
class Aftermath:
    """The demo's parties at work again, and what was seen on the way."""

    run: DemoRun
    servers: dict[str, Server]
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def iccid(self) -> str:
        return str(self.run.report["subjects"]["iccid"])

    def do(self, name: str, what: str, *options: str | Path, stdin: str = "") -> tuple[int, str]:
        """Exit code and output of a party's command."""
        arguments = [*command(name, what), "--folder", self.run.folder / name, *options]
        done = subprocess.run(
            [sys.executable, "-m", *arguments], input=stdin, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    def login(self) -> str:
        """ "welcome", or why the relying party refuses."""
        options = ("--card", self.run.card, "--relying-party", self.servers["relying-party"].url)
        typed = json.dumps({"authenticationPin": CITIZEN["authenticationPin"]})
        code, said = self.do("phone", "use", *options, stdin=typed)
        return "welcome" if code == 0 else str(json.loads(said.splitlines()[-1])["code"])

    def renew(self) -> list[dict[str, Any]]:
        """What the phone tells of its visit."""
        options = ("--card", self.run.card, "--site", self.servers["provider"].url)
        return [json.loads(line) for line in self.do("phone", "renew", *options)[1].splitlines()]

    def events(self, topic: str = "") -> list[dict[str, Any]]:
        with sqlite3.connect(self.run.folder / "tsm" / "log.sqlite") as log:
            found = [json.loads(state) for (state,) in log.execute("SELECT state FROM event ORDER BY position")]
        return [event for event in found if topic in ("", event["topic"])]

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, [event["topic"] for event in self.events()][-20:]
            time.sleep(0.1)

    def signature(self) -> bytes:
        """The card's certificate for signatures, once it is shown that the card has its key."""
        card = JpkiCard(SimulatedUicc.load(self.run.card).transmit)
        card.verify_pin(Kind.SIGNATURE, CITIZEN["signaturePin"])
        certificate = card.certificate(Kind.SIGNATURE)
        signed = card.sign(Kind.SIGNATURE, b"a contract")
        public_key(read_certificate(certificate)).verify(signed, b"a contract", padding.PKCS1v15(), hashes.SHA256())
        return certificate

    def refusal_to_sign(self) -> str:
        with pytest.raises(TsmError) as refusal:
            self.signature()
        return refusal.value.code


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """The whole story; each test looks at one side of it."""
    run = run_demo(tmp_path_factory.mktemp("lost-and-found") / "demo")
    doors = {"tsm": ["api.cli", "serve", "--data", str(run.folder / "tsm")]} | {
        name: [*command(name, "serve"), "--folder", str(run.folder / name)]
        for name in ("authority", "provider", "relying-party")
    }
    servers: dict[str, Server] = {}
    try:
        for name, arguments in doors.items():
            servers[name] = Server(name, arguments, run.folder / f"{name}.log")
        made = Aftermath(run, servers)
        tell(made)
        yield made
    finally:
        for server in reversed(servers.values()):
            server.stop()


def tell(story: Aftermath) -> None:
    seen, iccid = story.seen, ("--iccid", story.iccid)
    seen["before"] = story.signature(), story.login()

    story.do("terminal", "lock", *iccid)
    story.until(lambda: bool(story.events("credential.held")))
    seen["login on hold"] = story.login()
    seen["renewal on hold"] = story.renew()
    seen["signing when locked"] = story.refusal_to_sign()

    mine = ("--card", story.run.folder / "terminal" / "my-number-card.json", *iccid)
    code, said = story.do("terminal", "release", *mine, stdin=CITIZEN["myNumberSignaturePin"] + "\n")
    assert code == 0, said
    story.until(lambda: bool(story.events("credential.signature_reissued")))
    seen["renewal"] = story.renew()
    story.until(lambda: bool(story.events("credential.signature_rewritten")))
    story.until(lambda: len(story.events("credential.key_copy_destroyed")) == 3)
    seen["after"] = story.signature(), story.login()
    seen["renewal again"] = story.renew()


def test_who_is_on_hold_is_refused_by_the_relying_party_and_let_in_after_the_release(after: Aftermath) -> None:
    assert after.seen["before"][1] == "welcome"
    assert after.seen["login on hold"] == "CERTIFICATE_REVOKED"
    assert after.seen["after"][1] == "welcome"


def test_on_hold_the_phone_gets_the_lock_and_nothing_else(after: Aftermath) -> None:
    visit = after.seen["renewal on hold"]
    assert (visit[-1]["state"], "CARD_ON_HOLD" in visit[-1]["text"]) == ("refused", True)
    assert after.seen["signing when locked"] == "CARD_REFUSED"


def test_the_applet_is_unlocked_before_the_new_key_is_written(after: Aftermath) -> None:
    launches = [line for line in after.seen["renewal"] if line.get("state") == "launch"]
    assert len(launches) == 2


def test_the_card_signs_with_the_new_key_under_the_pin_that_it_had(after: Aftermath) -> None:
    [reissued] = after.events("credential.signature_reissued")
    old, new = after.seen["before"][0], after.seen["after"][0]
    assert old != new
    digest = hashes.Hash(hashes.SHA256())
    digest.update(new)
    assert digest.finalize().hex() == reissued["data"]["signature_certificate_sha256"]
    assert read_certificate(new).not_valid_after_utc == read_certificate(old).not_valid_after_utc


def test_the_new_key_is_written_once_and_its_copy_destroyed(after: Aftermath) -> None:
    assert after.seen["renewal"][-1]["state"] == "written"
    assert "UNKNOWN_KEY" in after.seen["renewal again"][-1]["text"]
    kinds = [event["data"]["kind"] for event in after.events("credential.key_copy_destroyed")]
    assert sorted(kinds) == ["authentication", "signature", "signature"]


def test_the_log_tells_it_in_this_order(after: Aftermath) -> None:
    wanted = [
        "credential.activated",
        "credential.hold_ordered",
        "credential.held",
        "credential.release_ordered",
        "credential.released",
        "credential.signature_reissued",
        "credential.personalization_delegated",
        "credential.signature_rewritten",
        "credential.key_copy_destroyed",
    ]
    topics = [event["topic"] for event in after.events() if event["topic"].startswith("credential.")]
    assert topics[topics.index("credential.activated") :] == wanted


def test_the_credential_remains_active_in_the_registry(after: Aftermath) -> None:
    with sqlite3.connect(next(after.run.folder.rglob("views.sqlite"))) as views:
        [table] = [
            name for (name,) in views.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name.startswith("registry") and name.endswith("credentials")
        ]  # fmt: skip
        assert views.execute(f"SELECT stage FROM {table}").fetchall() == [("ACTIVE",)]  # noqa: S608
