"""The runner: for each read model a follower, which reads pages from the log and folds them.

A follower owns the generation that serves, or stands by while another process does and takes over when that ends. It
builds a generation when none of its version serves yet, and when the rows come from a longer log than this one, as
after a restored backup. Whatever goes wrong with the machine (a full disk, a database that is restarted) is tried
again; what is wrong with an event is parked (`projections.folding`).
"""

import logging
import threading
import time
from contextlib import suppress

from projections.building import build, resume, tidy
from projections.folding import Log, catch_up
from projections.projection import Projection
from projections.views import Fenced, Generation, Owner, Views
from tsm.errors import TsmError

IDLE = 0.5  # seconds between looks at the log, and the longest time that stopping takes
GATHER = 0.1  # seconds after the first new event, unless somebody waits: a commit costs more than the events do
STAND_BY = 0.5  # seconds between looks whether the owner is still there
TIDY = 30.0  # seconds between looks for generations that nobody needs
RETRY = 0.2  # seconds after a first failure; twice as long after each further one
RETRY_MOST = 5.0  # seconds
LATE = 10.0  # seconds without having caught up after which a follower does not keep up

logger = logging.getLogger(__name__)


class Runner:
    """Keeps the read models up to date, in threads or by steps. Others may do so too: each has one owner."""

    name = "projections"

    def __init__(self, log: Log, views: Views) -> None:
        self._followers = [Follower(log, views, projection) for projection in views.projections]
        self._views = views

    def start(self) -> None:
        """Follows the log in threads of its own until `stop`."""
        for follower in self._followers:
            follower.start()

    def stop(self) -> None:
        for follower in self._followers:
            follower.tell_to_stop()
        for follower in self._followers:
            follower.join()

    def keeping_up(self) -> bool:
        """Whether every read model has lately been at the end of the log, whoever folds it."""
        return all(follower.keeping_up() for follower in self._followers)

    def catch_up(self) -> int:
        """Folds all there is, where nobody else does; returns the position reached."""
        for follower in self._followers:
            follower.catch_up()
        return self._views.position


class Observer:
    """In place of a runner where other processes fold: whether they keep the read models up to date."""

    name = "projections"

    def __init__(self, log: Log, views: Views) -> None:
        self._log = log
        self._views = views
        self._wanted, self._since = 0, 0.0  # a position of the log, and when it was its end

    def start(self) -> None:
        self._wanted, self._since = self._log.position, time.monotonic()

    def stop(self) -> None:
        """Nothing runs."""

    def keeping_up(self) -> bool:
        """Whether all have read what was recorded some time ago, as far as that could be looked up."""
        with suppress(TsmError):
            if self._views.position >= self._wanted:
                self.start()
        return time.monotonic() - self._since < LATE


class Follower:
    """One read model's share of the runner."""

    def __init__(self, log: Log, views: Views, projection: Projection) -> None:
        self._log = log
        self._views = views
        self._projection = projection
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"projection-{projection.name}", daemon=True)
        self._caught_up = 0.0
        self._tidied = 0.0
        self._seen = 0  # the end of the log when this follower, standing by, looked last

    def start(self) -> None:
        self._caught_up = time.monotonic()
        self._thread.start()

    def tell_to_stop(self) -> None:
        self._stopping.set()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def keeping_up(self) -> bool:
        return self._thread.is_alive() and time.monotonic() - self._caught_up < LATE

    def catch_up(self) -> None:
        """Once to the end of the log, unless another owns the read model."""
        owner = self._take()
        if owner is not None:
            with owner:
                catch_up(self._log, owner, self._stopping.is_set)
            self._tidy()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._own_or_stand_by()
                failures = 0
            except Fenced:
                continue
            except Exception as error:  # the thread must outlive a full disk, and say so
                failures = 0 if self._just_caught_up() else failures + 1
                pause = min(RETRY * 2**failures, RETRY_MOST)
                what = f"{type(error).__name__}: {error}"
                logger.exception("%s could not be brought up to date: %s", self._projection.name, what)
                self._stopping.wait(pause)

    def _own_or_stand_by(self) -> None:
        owner = self._take()
        if owner is None:
            self._stand_by()
            return
        with owner:
            self._follow(owner)

    def _take(self) -> Owner | None:
        """Ownership of the generation that serves, made first if need be; None when somebody else has it."""
        serving = self._views.serving(self._projection)
        if serving is None or serving.position > self._log.position:
            self._build(serving)
            serving = self._views.serving(self._projection)
        return None if serving is None else self._views.own(self._projection, serving.generation)

    def _build(self, serving: Generation | None) -> None:
        if serving is not None:
            logger.warning("%s has read beyond the end of the log: it is rebuilt", self._projection.name)
        owner = resume(self._log, self._views, self._projection) or self._views.begin(self._projection)
        if owner is not None:
            with owner:
                build(self._log, self._views, owner, self._stopping.is_set)

    def _follow(self, owner: Owner) -> None:
        while not self._stopping.is_set():
            position = catch_up(self._log, owner, self._stopping.is_set)
            self._caught_up = time.monotonic()
            if time.monotonic() - self._tidied > TIDY:
                self._tidy()
            if position > self._log.position:
                return
            if self._log.wait(position, IDLE):
                self._views.gather(GATHER)

    def _stand_by(self) -> None:
        serving = self._views.serving(self._projection)
        if serving is not None and serving.position >= self._seen:
            self._caught_up = time.monotonic()
        self._seen = self._log.position
        self._stopping.wait(STAND_BY)

    def _tidy(self) -> None:
        self._tidied = time.monotonic()
        tidy(self._views, self._projection)

    def _just_caught_up(self) -> bool:
        return time.monotonic() - self._caught_up < RETRY_MOST
