"""The command line where the documents' tests do not reach: keys typed or in a file, and a demo that stays."""

import json
import os
import pty
import signal
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from api import administration
from tests.conftest import CITIZEN
from tsm.keys.primitives import kcv_aes

MASTER_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
CHECK_VALUE = kcv_aes(bytes.fromhex(MASTER_KEY)).hex()
IMPORT = [sys.executable, "-m", "api.cli", "import-key", "--data", "data", "--operator", "MNO00001", "--key-set", "isd"]
ROOT = Path(__file__).parent.parent


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A server with an operator; the folder in which `data` and `kek` lie."""
    administration.initialise(tmp_path / "data", tmp_path / "kek", "127.0.0.1", 8443)
    said = {"operator": "MNO00001", "name": "Simulated Mobile", "certificate_fingerprint": "ab" * 32}
    administration.enrol(tmp_path / "data", "operator", json.dumps(said).encode())
    return tmp_path


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_a_master_key_is_read_from_a_file(server: Path) -> None:
    (server / "key.hex").write_text(MASTER_KEY + "\n")
    command = [*IMPORT, "--file", "key.hex"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=server, env=environment())
    assert (done.returncode, done.stdout) == (0, f"check value {CHECK_VALUE}\n"), done.stderr


def test_a_master_key_is_asked_for_and_not_echoed(server: Path) -> None:
    master, terminal = pty.openpty()
    with subprocess.Popen(
        IMPORT, stdin=terminal, stdout=terminal, stderr=terminal, cwd=server, env=environment(), start_new_session=True
    ) as process:
        os.close(terminal)
        shown = os.read(master, 1024)
        assert b"Master key" in shown
        os.write(master, MASTER_KEY.encode() + b"\n")
        shown += everything(master)
    assert process.returncode == 0, shown
    assert CHECK_VALUE.encode() in shown
    assert MASTER_KEY.encode() not in shown


def everything(master: int) -> bytes:
    shown = b""
    try:
        while part := os.read(master, 1024):
            shown += part
    except OSError:  # the other end is closed
        pass
    return shown


@pytest.mark.parametrize("typed", ["", "zz", MASTER_KEY[:-2], MASTER_KEY + "00"])
def test_what_is_no_key_is_refused_without_repeating_it(server: Path, typed: str) -> None:
    done = subprocess.run(IMPORT, input=typed + "\n", capture_output=True, text=True, cwd=server, env=environment())
    assert done.returncode == 2
    assert not typed or typed not in done.stdout + done.stderr


def test_a_demo_that_is_kept_leaves_everything_up_until_it_is_interrupted(tmp_path: Path) -> None:
    citizen, folder = tmp_path / "citizen.json", tmp_path / "kept"
    citizen.write_text(json.dumps(CITIZEN))
    command = [sys.executable, "-m", "api.cli", "demo", "--json", "--keep", "--citizen", str(citizen)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever runs this in the background ignores it
    command += ["--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert process.stdout is not None
        report = json.loads(until_the_report_ends(process))
        trust = ssl.create_default_context(cafile=str(folder / "tsm" / "tls" / "ca.pem"))
        with httpx.Client(verify=trust, trust_env=False) as http:
            assert http.get(f"{report['urls']['tsm']}/health").status_code == 200
            assert http.get(f"{report['urls']['authority']}/crl/signature.crl").status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            with pytest.raises(httpx.ConnectError):
                http.get(f"{report['urls']['tsm']}/health")
    assert report["ok"] is True


def until_the_report_ends(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], "the demo ended without a report"
    return "".join(lines)
