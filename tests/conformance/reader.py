"""A virtual smart card reader of this machine's pcscd, with a card in it.

Where it may, it makes a room of its own (namespaces for mounts and network), so that neither another pcscd nor its port
is touched. Elsewhere it starts the machine's only pcscd, whose driver looks for the card at a free loopback port.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_pair_of_ports

ROOT = Path(__file__).parent.parent.parent
LIBRARIES = Path(f"/usr/lib/{os.uname().machine}-linux-gnu")
OPENSC_MODULE = LIBRARIES / "opensc-pkcs11.so"
DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
NEEDED = {
    "opensc": Path("/usr/bin/opensc-tool"),
    "opensc-pkcs11": OPENSC_MODULE,
    "pcscd": Path("/usr/sbin/pcscd"),
    "vsmartcard-vpcd": DRIVER,
    "libengine-pkcs11-openssl": LIBRARIES / "engines-3" / "pkcs11.so",
    "openssl": Path("/usr/bin/openssl"),
}
SOCKET = Path("/run/pcscd/pcscd.comm")
VPCD_PORT = 35963
PATIENCE = 30.0  # seconds

FURNISH = """
import fcntl, os, socket, struct, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
os.mkdir("/run/pcscd")
up = struct.pack("16sh14x", b"lo", 0x41)  # IFF_UP, IFF_RUNNING
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, up)  # SIOCSIFFLAGS
print("ready", flush=True)
sys.stdin.read()
"""
SERVE = """
import sys
from pathlib import Path
from tsm.uicc import vpcd
from tsm.uicc.card import SimulatedUicc
vpcd.serve(SimulatedUicc.load(Path(sys.argv[1])), "127.0.0.1", int(sys.argv[2]), listen=sys.argv[3] == "listen")
"""


class ReaderUnavailable(Exception):
    """No reader can be made here, and why."""


@dataclass(frozen=True)
class Room:
    """Where commands see the reader: prefix of every command, and whether the room is private."""

    prefix: tuple[str, ...] = ()
    private: bool = False

    def start(self, *command: str | Path, **options: object) -> "subprocess.Popen[str]":
        return subprocess.Popen([*self.prefix, *map(str, command)], text=True, cwd=ROOT, **options)  # type: ignore[call-overload, no-any-return]

    def run(
        self, *command: str | Path, stdin: str = "", check: bool = True, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run to the end; with `check`, a failure shows what the program said."""
        done = subprocess.run(
            [*self.prefix, *map(str, command)],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd=ROOT,
            env=os.environ | (environment or {}),
            timeout=60,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command[0]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done


@contextmanager
def reader(card: Path, folder: Path, *, listen: bool = False) -> Iterator[Room]:
    """The room with a reader that holds the card. `listen`: the driver connects to the card, not the other way."""
    with ExitStack() as open_things:
        room = open_things.enter_context(make_room())
        listen = listen or not room.private
        if not room.private and SOCKET.exists():
            raise ReaderUnavailable("another pcscd runs here, and namespaces are not allowed")
        port = free_pair_of_ports() if listen else VPCD_PORT
        configuration = folder / "reader.conf"
        configuration.write_text(reader_configuration(port, listen))
        serve = (sys.executable, "-c", SERVE, card, str(port), "listen" if listen else "connect")
        log = open_things.enter_context((folder / "reader.log").open("w"))
        if listen:  # the driver looks for the card when it starts
            open_things.enter_context(running(room, *serve, log=log))
            time.sleep(1)
        SOCKET.parent.mkdir(exist_ok=True)
        pcscd = ("pcscd", "--foreground", "--config", configuration, "--force-reader-polling")
        open_things.enter_context(running(room, *pcscd, log=log))
        if not listen:
            open_things.enter_context(running(room, *serve, log=log))
        wait_for_card(room, folder / "reader.log")
        yield room


@contextmanager
def make_room() -> Iterator[Room]:
    """A private room if this user may have one, as root or by a user namespace; else the machine itself."""
    for flags, enter in (("-mn", ("-m", "-n")), ("-rmn", ("-U", "--preserve-credentials", "-m", "-n"))):
        holder = subprocess.Popen(
            ["unshare", flags, sys.executable, "-c", FURNISH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with holder:
            assert holder.stdin is not None and holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                continue
            try:
                yield Room(("nsenter", "-t", str(holder.pid), *enter, "--"), private=True)
            finally:
                holder.stdin.close()
            return
    yield Room()


@contextmanager
def running(room: Room, *command: str | Path, log: object) -> Iterator[None]:
    process = room.start(*command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_card(room: Room, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while room.run("opensc-tool", "--atr", check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise ReaderUnavailable(f"pcscd shows no card: {log.read_text()}")
        time.sleep(0.2)


def reader_configuration(port: int, listen: bool) -> str:
    device = f"127.0.0.1:{port:#06x}" if listen else f"/dev/null:{port:#06x}"
    return f'FRIENDLYNAME "Virtual PCD"\nDEVICENAME {device}\nLIBPATH {DRIVER}\nCHANNELID {port:#06x}\n'


def missing_packages() -> list[str]:
    """Debian packages that the tests need and this machine has not."""
    return [package for package, file in NEEDED.items() if not file.exists()]
