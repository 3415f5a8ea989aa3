"""Word of new events, from process to process: PostgreSQL's NOTIFY, apart from the transactions that record them.

A NOTIFY inside a recording transaction makes all of these queue for one more lock. Here a thread sends one afterwards,
for all commits since the last; another hears those of other processes. A word that is lost, as when the database was
started again, costs a follower its next look only: everybody who waits also looks by himself now and then.
"""

import logging
from collections.abc import Callable
from threading import Event, Thread

import psycopg

from tsm.store.dsn import connection_options

CHANNEL = "tsm_log"
SESSION = "-c timezone=UTC"
GATHER = 0.005  # seconds between two words
LOOK = 0.1  # seconds in which the end is noticed
PAUSE = 1.0  # seconds before a broken connection is made again
log = logging.getLogger(__name__)


class Signals:
    """Two threads, each with a connection of its own."""

    def __init__(self, dsn: str, heard: Callable[[], None]) -> None:
        self._dsn = dsn
        self._heard = heard
        self._own = 0  # the sender's process at the server: what this one says it need not hear
        self._due = Event()
        self._stopping = Event()
        self._threads = [
            Thread(target=self._keep, args=(work,), name=name, daemon=True)
            for work, name in ((self._listen, "signals-in"), (self._send, "signals-out"))
        ]
        for thread in self._threads:
            thread.start()

    def tell(self) -> None:
        """Soon, others hear that there is something new."""
        self._due.set()

    def close(self) -> None:
        self._stopping.set()
        self._due.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, work: Callable[[psycopg.Connection], None]) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(
                    self._dsn, autocommit=True, **connection_options(self._dsn, SESSION)
                ) as connection:
                    work(connection)
            except psycopg.Error as error:
                log.warning("no word from other processes for a while: %s", type(error).__name__)
                self._stopping.wait(PAUSE)

    def _listen(self, connection: psycopg.Connection) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        self._heard()  # there may have been something before anybody listened
        while not self._stopping.is_set():
            if any(word.pid != self._own for word in connection.notifies(timeout=LOOK, stop_after=1)):
                self._heard()

    def _send(self, connection: psycopg.Connection) -> None:
        self._own = connection.info.backend_pid
        while not self._stopping.is_set():
            self._due.wait()
            self._due.clear()
            connection.execute(f"NOTIFY {CHANNEL}")
            self._stopping.wait(GATHER)
