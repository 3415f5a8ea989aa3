"""`tsm erase`: whom it finds, whom it asks, and that it needs no server and is in nobody's way."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api import administration
from api.bootstrap import Settings, build
from tsm.application import Change
from tsm.model import credential as credentials
from tsm.model.credential import (
    CredentialApplied,
    CredentialWritten,
    MainCertificateVerified,
    PersonalizationDelegated,
)
from tsm.model.event import Context, Event
from tsm.model.line import Signal, SignalKind, SignalRecorded

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SERIAL, OTHER_SERIAL = "4A11C0FFEE", "4A11C0FFED"
NAME = "見本花子"
ERASE = [sys.executable, "-m", "api.cli", "erase", "--reason", "the holder asked for it"]
ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A server with two credentials of one holder and one of another."""
    administration.initialise(tmp_path / "data" / "tsm", tmp_path / "data" / "tsm.kek", "127.0.0.1", 8443)
    with administration.opened(tmp_path / "data" / "tsm") as parts:
        for credential, serial in (("one", SERIAL), ("two", SERIAL), ("other", OTHER_SERIAL)):
            apply(parts, credential, serial)
    return tmp_path


def apply(parts, credential: str, serial: str) -> None:
    stream = credentials.stream(credential)
    applied = CredentialApplied(
        subject=credential, provider="JPKI0001", terminal="T-13101-01", municipality="13101",
        iccid="8981100000000000010", applicant=NAME, document_sha256="ab" * 32,
    )  # fmt: skip
    verified = MainCertificateVerified(subject=credential, serial=serial, revocation_as_of=NOON)
    context = Context(actor="test", role="clerk", tenant="13101", correlation=credential)
    parts.tsm.commit(
        Change(stream, 0, [applied, verified]), context=context, occurred_at=NOON,
        put_index=[parts.tsm.index_row("main-certificate", serial, stream, credential)],
    )  # fmt: skip


def run(folder: Path, *words: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*ERASE, *words], input=typed, capture_output=True, text=True, cwd=folder, env=env, timeout=60
    )


def names(folder: Path) -> dict[str, str]:
    with administration.opened(folder / "data" / "tsm") as parts:
        states = {
            name: parts.tsm.load(credentials.stream(name), credentials.evolve).state for name in ("one", "two", "other")
        }
    return {name: state.applied.applicant for name, state in states.items() if state is not None}


def test_one_credential_is_erased_and_the_rest_stays(folder: Path) -> None:
    done = run(folder, "--credential", "one", "--yes")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("credential one: the person is erased, position ")
    assert names(folder) == {"one": "[erased]", "two": NAME, "other": NAME}


def test_all_credentials_of_a_main_certificate_are_erased(folder: Path) -> None:
    done = run(folder, "--main-certificate", "--yes", "--json", typed=f"{SERIAL.lower()}\n")
    assert done.returncode == 0, done.stderr
    erased = json.loads(done.stdout)["erased"]
    assert [each["credential"] for each in erased] == ["one", "two"]
    assert names(folder) == {"one": "[erased]", "two": "[erased]", "other": NAME}
    assert SERIAL not in done.stdout + done.stderr
    assert run(folder, "--main-certificate", "--yes", typed=f"{SERIAL}\n").returncode == 2  # nobody is found any more


def test_it_is_safe_to_repeat(folder: Path) -> None:
    first = run(folder, "--credential", "one", "--yes", "--json")
    assert run(folder, "--credential", "one", "--yes", "--json").stdout == first.stdout


def test_a_server_may_run_meanwhile(folder: Path) -> None:
    parts = build(Settings.load(folder / "data" / "tsm"))
    parts.start()
    try:
        stream = credentials.stream("one")
        before = parts.tsm.load(stream, credentials.evolve).state
        assert before is not None and before.applied.applicant == NAME
        done = run(folder, "--credential", "one", "--yes")
        assert done.returncode == 0, done.stderr
        after = parts.tsm.load(stream, credentials.evolve).state
        assert after is not None and (after.erased, after.applied.applicant) == (True, "[erased]")
    finally:
        parts.close()


@pytest.mark.parametrize(
    ("words", "typed", "why"),
    [
        (("--credential", "none", "--yes"), "", "no such thing"),
        (("--main-certificate", "--yes"), "FFFF\n", "no credential was applied for"),
        (("--main-certificate", "--yes"), "zz\n", "hex"),
        (("--credential", "one"), "y\n", "--yes"),  # a pipe is nobody who could be asked
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(folder: Path, words: tuple[str, ...], typed: str, why: str) -> None:
    done = run(folder, *words, typed=typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr and len(done.stderr.splitlines()) == 1
    assert names(folder) == {"one": NAME, "two": NAME, "other": NAME}


def test_one_credential_in_use_holds_up_all_that_were_meant(folder: Path) -> None:
    """Nothing is half done: either all of a holder's credentials can go, or it is said first."""
    with administration.opened(folder / "data" / "tsm") as parts:
        written = [PersonalizationDelegated(reception="1"), CredentialWritten(reception="1")]
        context = Context(actor="test", role="system", tenant="JPKI0001", correlation="two")
        parts.tsm.commit(Change(credentials.stream("two"), 2, written), context=context, occurred_at=NOON)
    done = run(folder, "--main-certificate", "--yes", typed=f"{SERIAL}\n")
    assert done.returncode == 2 and "in use" in done.stderr
    assert names(folder)["one"] == NAME

    done = run(folder, "--main-certificate", "--yes", "--even-in-use", typed=f"{SERIAL}\n")
    assert done.returncode == 0, done.stderr
    assert names(folder) == {"one": "[erased]", "two": "[erased]", "other": NAME}


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_one_is_asked_and_the_number_is_not_echoed(folder: Path, answer: str, code: int) -> None:
    master, terminal = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*ERASE, "--main-certificate"],
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=env, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = until(master, b"(hex): ")
        os.write(master, SERIAL.encode() + b"\n")
        shown += until(master, b"[y/N] ")
        assert b"2 credentials: one, two" in shown
        os.write(master, answer.encode() + b"\n")
        shown += everything(master)
    assert process.returncode == code, shown
    assert SERIAL.encode() not in shown
    assert names(folder)["one"] == ("[erased]" if answer == "y" else NAME)


NUMBER, ANOTHER, SIM = "+447700900001", "+447700900002", "8981100000000000010"


@pytest.fixture
def lines(folder: Path) -> Path:
    """What was signalled of two numbers, the first with a former holder, and of a card."""
    with administration.opened(folder / "data" / "tsm") as parts:
        told = [(SignalKind.OBSERVED, NUMBER), (SignalKind.SUBSCRIBED, NUMBER), (SignalKind.SUBSCRIBED, ANOTHER)]
        signals = [
            Signal(
                id=f"s-{n}", source="operator:MNO00001", kind=kind, occurred_at=NOON - timedelta(days=9 - n), msisdn=of
            )
            for n, (kind, of) in enumerate(told)
        ]
        seen = Signal(id="s", source="app", kind=SignalKind.OBSERVED, occurred_at=NOON - timedelta(days=1), iccid=SIM)
        context = Context(actor="test", role="system", tenant="MNO00001", correlation="feed")
        assert [outcome.error for outcome in parts.lines.record([*signals, seen], context)] == [None] * 4
    return folder


def left(folder: Path) -> list[int]:
    """How many signals of the first number, the other and the card can be read."""
    with administration.opened(folder / "data" / "tsm") as parts:
        asked = [
            parts.lines.history(msisdn=NUMBER),
            parts.lines.history(msisdn=ANOTHER),
            parts.lines.history(iccid=SIM),
        ]
    return [len(one.signals) for one in asked]


@pytest.mark.parametrize(
    ("words", "typed", "remain"),
    [(("--number",), NUMBER, [1, 1, 1]), (("--number",), ANOTHER, [2, 0, 1]), (("--card",), SIM, [2, 1, 0])],
)
def test_a_line_is_erased_by_what_is_piped(lines: Path, words: tuple[str, ...], typed: str, remain: list[int]) -> None:
    assert left(lines) == [2, 1, 1]
    done = run(lines, *words, "--yes", "--json", typed=f"{typed}\n")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert list(json.loads(done.stdout)) == ["position"]
    assert left(lines) == remain
    assert typed not in done.stdout + done.stderr
    with administration.opened(lines / "data" / "tsm") as parts:
        [event] = parts.tsm.at([json.loads(done.stdout)["position"]])
        assert isinstance(event, Event) and event.context.reason == "the holder asked for it"


def test_a_former_holder_of_a_number_is_erased_by_the_tenure(lines: Path) -> None:
    with administration.opened(lines / "data" / "tsm") as parts:
        stream = parts.lines.stream_of_number(NUMBER)
        assert stream is not None
        first = next(parts.tsm.history(stream)).fact
        assert isinstance(first, SignalRecorded)
    done = run(lines, "--number", "--tenure", first.subject, "--yes", typed=f"{NUMBER}\n")
    assert done.stdout.startswith("the line is erased, position "), done.stderr
    with administration.opened(lines / "data" / "tsm") as parts:
        assert [known.signal.id for known in parts.lines.history(msisdn=NUMBER).signals] == ["s-1"]


@pytest.mark.parametrize(
    ("words", "typed", "why"),
    [
        (("--number", "--yes"), "+447700900009", "no such thing"),
        (("--number", "--yes"), "0447700900001", "not as specified"),
        (("--card", "--yes"), "8981100000000000011", "not as specified"),
        (("--number", "--yes", "--tenure", "tenure-none"), NUMBER, "no such thing"),
        (("--number",), NUMBER, "--yes"),
        (("--number", "--card", "--yes"), NUMBER, "not allowed with"),
    ],
)
def test_what_is_no_line_is_not_erased(lines: Path, words: tuple[str, ...], typed: str, why: str) -> None:
    done = run(lines, *words, typed=f"{typed}\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr and typed not in done.stderr
    assert left(lines) == [2, 1, 1]


def until(master: int, words: bytes) -> bytes:
    shown = b""
    while words not in shown:
        shown += os.read(master, 1024)
    return shown


def everything(master: int) -> bytes:
    shown = b""
    try:
        while part := os.read(master, 1024):
            shown += part
    except OSError:  # the other end is closed
        pass
    return shown


def test_init_makes_the_list_of_destroyed_keys_and_a_server_without_it_does_not_start(folder: Path) -> None:
    data, listed = folder / "data" / "tsm", folder / "data" / "tsm.kek.destroyed"
    assert json.loads((data / "config.json").read_text())["destroyed_keys"] == str(listed.resolve())
    assert listed.stat().st_mode & 0o777 == 0o600
    assert listed.read_text() == ""
    run(folder, "--credential", "one", "--yes")
    assert len(listed.read_text().splitlines()) == 1
    listed.unlink()
    done = run(folder, "--credential", "two", "--yes")
    assert done.returncode == 2 and "list of destroyed keys" in done.stderr
