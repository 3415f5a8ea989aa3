"""The rows of all read models, how far each has read, and the events that could not be folded.

A read model lives in generations. One serves; a rebuild makes the next beside it, and a switch lets that serve instead,
all at once. Tables carry the generation in their names, and whoever reads finds out in the same snapshot which one
serves. Rows and position change in one transaction, which names the position that it goes on from: whatever else
happens, no event is projected twice, and none is left out.

Who folds a generation owns it, and nobody else does: a lock that ends with its process, however that ends.

Nothing here is a source of truth. Drop it all, and every row comes back from the log.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

from projections.projection import Kind, Projection, Row
from tsm.errors import ErrorCode, TsmError
from tsm.store.loop import done

POLL = 0.005  # seconds between looks while somebody waits and another process folds
State = Literal["building", "serving", "retired"]
BUILDING: Final = "building"
SERVING: Final = "serving"
RETIRED: Final = "retired"
Result = TypeVar("Result")

CONTROL_TABLES = (
    """CREATE TABLE IF NOT EXISTS projection_generation (
  name {text} NOT NULL,
  generation {integer} NOT NULL,
  version {integer} NOT NULL,
  position {integer} NOT NULL,
  parked {integer} NOT NULL,
  state {text} NOT NULL,
  PRIMARY KEY (name, generation)
)""",
    """CREATE UNIQUE INDEX IF NOT EXISTS projection_generation_once ON projection_generation (name, version, state)
  WHERE state <> 'retired'""",
    """CREATE TABLE IF NOT EXISTS projection_parked (
  name {text} NOT NULL,
  generation {integer} NOT NULL,
  position {integer} NOT NULL,
  key {text} NOT NULL,
  stream {text} NOT NULL,
  topic {text} NOT NULL,
  error {text} NOT NULL,
  PRIMARY KEY (name, generation, position)
)""",
    "CREATE INDEX IF NOT EXISTS projection_parked_by_key ON projection_parked (name, generation, key, position)",
)


class Gone(Exception):
    """A table that was there a moment ago: another generation serves now."""


class Fenced(Exception):
    """The generation has gone on, or serves no more: whoever thought to own it looks again."""


class Generation(NamedTuple):
    """One edition of a read model's tables."""

    name: str
    generation: int
    version: int
    position: int  # how far it has read
    parked: int  # events that it lacks
    state: State


GENERATIONS = "SELECT name, generation, version, position, parked, state FROM projection_generation"


@dataclass(frozen=True)
class Parked:
    """An event that a read model could not fold, or that waits behind one: it is missing, and said to be missing."""

    position: int
    key: str
    stream: str
    topic: str
    error: str  # kind and place of the error, never its text, which may quote data; or what it waits for


class Session(ABC):
    """One connection, inside a transaction. Queries have `?` for their values."""

    for_update = ""  # what locks the rows that a query finds

    @abstractmethod
    def execute(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows that came, if any. `Gone`, `TsmError(STORE_UNAVAILABLE)`, or the engine's own error."""

    @abstractmethod
    def insert(self, table: str, width: int, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def upsert(self, table: str, columns: Sequence[tuple[str, Kind]], rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def find(self, query: str, values: Collection[str | int]) -> list[Row]:
        """`query` ends where the condition on the values begins."""

    @abstractmethod
    def create(self, table: str, columns: Sequence[tuple[str, Kind]]) -> None: ...


class Owner(ABC):
    """Whoever owns a generation: alone, until `release` or the end of the process."""

    def __init__(self, views: "Views", projection: Projection, generation: int) -> None:
        self._views = views
        self.projection = projection
        self.generation = generation

    @abstractmethod
    def change(self) -> AbstractContextManager[Session]:
        """One write transaction."""

    @abstractmethod
    def release(self) -> None: ...

    def __enter__(self) -> "Owner":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def now(self) -> Generation:
        """`Fenced` when it is there no more, or retired."""
        return self._views.generation(self.projection.name, self.generation)

    @contextmanager
    def advance(self, after: int, last: int) -> Iterator["Page"]:
        """One transaction that takes the generation from `after` to `last`. `Fenced` when it is not at `after`."""
        with self.change() as session:
            moved = session.execute(
                "UPDATE projection_generation SET position = ?"
                " WHERE name = ? AND generation = ? AND position = ? AND state <> 'retired' RETURNING parked",
                (last, self.projection.name, self.generation, after),
            )
            if not moved:
                raise Fenced
            yield Page(session, self.projection, self.generation, moved[0][0])
        self._views.told()


class Page:
    """The rows of one generation within one transaction, and its parked events."""

    def __init__(self, session: Session, projection: Projection, generation: int, parked: int) -> None:
        self._session = session
        self._projection = projection
        self._generation = generation
        self._place = (projection.name, generation)
        self.parked = parked

    # For folds: `projections.projection.Rows`

    def find(self, table: str, values: Collection[str | int], by: str | None = None) -> list[Row]:
        if not values:
            return []
        made = self._projection.table(table)
        columns = ", ".join(made.columns)
        place = physical(self._projection.name, self._generation, table)
        query = f"SELECT {columns} FROM {place} WHERE {by or made.key}"  # noqa: S608 - declared names only
        return self._session.find(query, values)

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            made = self._projection.table(table)
            place = physical(self._projection.name, self._generation, table)
            self._session.insert(place, len(made.columns), rows)

    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            made = self._projection.table(table)
            place = physical(self._projection.name, self._generation, table)
            self._session.upsert(place, list(made.columns.items()), rows)

    def delete(self, table: str, keys: Sequence[str | int]) -> None:
        place = physical(self._projection.name, self._generation, table)
        for key in keys:
            self._session.execute(f"DELETE FROM {place} WHERE {self._projection.table(table).key} = ?", [key])  # noqa: S608

    # Parked events

    def parked_keys(self) -> set[str]:
        query = "SELECT DISTINCT key FROM projection_parked WHERE name = ? AND generation = ?"
        return {key for (key,) in self._session.execute(query, self._place)}

    def first_parked(self, key: str) -> Parked | None:
        query = (
            "SELECT position, key, stream, topic, error FROM projection_parked"
            " WHERE name = ? AND generation = ? AND key = ? ORDER BY position LIMIT 1"
        )
        return next((Parked(*row) for row in self._session.execute(query, (*self._place, key))), None)

    def park(self, events: Sequence[Parked]) -> None:
        rows = [(*self._place, p.position, p.key, p.stream, p.topic, p.error) for p in events]
        self._session.insert("projection_parked", 7, rows)
        self._session.execute(
            "UPDATE projection_generation SET parked = parked + ? WHERE name = ? AND generation = ?",
            (len(rows), *self._place),
        )

    def unpark(self, position: int) -> None:
        query = "DELETE FROM projection_parked WHERE name = ? AND generation = ? AND position = ?"
        self._session.execute(query, (*self._place, position))
        self._session.execute(
            "UPDATE projection_generation SET parked = parked - 1 WHERE name = ? AND generation = ?", self._place
        )

    def fault(self, position: int, error: str) -> None:
        self._session.execute(
            "UPDATE projection_parked SET error = ? WHERE name = ? AND generation = ? AND position = ?",
            (error, *self._place, position),
        )


class Views(ABC):
    """Where the read models of one log lie. Safe to share between threads; other processes may share it too."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        self.projections = tuple(projections)
        self._watch = Watch(lambda: self.position)

    # Engines

    @abstractmethod
    def look(self, work: Callable[[Session], Result]) -> Result:
        """Several queries that see one and the same state. `TsmError(STORE_UNAVAILABLE)`."""

    @abstractmethod
    def change(self) -> AbstractContextManager[Session]:
        """One write transaction."""

    @abstractmethod
    def own(self, projection: Projection, generation: int) -> Owner | None:
        """Ownership of a generation, or None when somebody has it."""

    def own_any(self, generation: Generation) -> Owner | None:
        """Ownership whatever its name and version: to find out whether somebody has it, or to drop it."""
        nameless = Projection(generation.name, generation.version, (), lambda rows, events: None)
        return self.own(nameless, generation.generation)

    def close(self) -> None:
        self._watch.close()

    # Reading rows

    def read(
        self, projection: Projection, query: str, values: Sequence[object] = (), whole: str | None = None
    ) -> list[Any]:
        """The rows of one query over the serving tables, which it names as `{table}`.

        `TsmError(READ_MODEL_BEHIND)` while none serves yet: it is being built; and while an event with the key `whole`
        waits for a retry, as the same snapshot has it.
        """
        try:
            return self.look(lambda session: _read(session, projection, query, values, whole))
        except Gone:  # a switch came between: the next snapshot knows of it
            return self.look(lambda session: _read(session, projection, query, values, whole))

    # How far they are

    def generations(self) -> list[Generation]:
        """All there are, of other versions too."""
        query = f"{GENERATIONS} ORDER BY name, generation"
        return [Generation(*row) for row in self.look(lambda session: session.execute(query))]

    def generation(self, name: str, generation: int) -> Generation:
        """`Fenced` when it is there no more, or retired."""
        return self.look(lambda session: not_retired(session, name, generation))

    def serving(self, projection: Projection) -> Generation | None:
        return self.look(lambda session: in_state(session, projection, SERVING))

    def positions(self) -> dict[str, int]:
        """How far each read model that serves has read; 0 for one that does not serve yet."""
        query = "SELECT name, version, position FROM projection_generation WHERE state = 'serving'"
        rows = self.look(lambda session: session.execute(query))
        found = {(name, version): position for name, version, position in rows}
        return {p.name: found.get((p.name, p.version), 0) for p in self.projections}

    @property
    def position(self) -> int:
        """How far all of them have read."""
        return min(self.positions().values(), default=0)

    def wait_for(self, position: int, timeout: float) -> bool:
        """Read your writes: waits until all have read up to `position`, or `timeout` seconds; whether they have."""
        if self.position >= position:
            return True
        reached = self._watch.reached(position)
        try:
            return done(reached, timeout)
        finally:
            reached.cancel()  # nobody waits any more

    def told(self) -> None:
        """A page was folded in this process."""
        self._watch.look()

    def gather(self, seconds: float) -> None:
        """Lets that time pass, or less when somebody in this process waits for a position."""
        self._watch.hurried.wait(seconds)

    # Parked events

    def parked(self, projection: Projection, limit: int | None = None) -> list[Parked]:
        """The events that the serving generation lacks, in order, at most `limit`."""
        query = (
            "SELECT p.position, p.key, p.stream, p.topic, p.error, (SELECT min(q.position) FROM projection_parked AS q"
            " WHERE q.name = p.name AND q.generation = p.generation AND q.key = p.key)"
            " FROM projection_parked AS p JOIN projection_generation AS g"
            " ON g.name = p.name AND g.generation = p.generation"
            " WHERE g.name = ? AND g.version = ? AND g.state = 'serving' ORDER BY p.position LIMIT ?"
        )
        values = (projection.name, projection.version, 2**53 if limit is None else limit)
        rows = self.look(lambda session: session.execute(query, values))
        return [
            Parked(position, key, stream, topic, error or _waits(position, first))
            for position, key, stream, topic, error, first in rows
        ]

    def first_parked(self, projection: Projection, key: str) -> int | None:
        """The position of the first event of this key that the serving generation lacks."""
        query = (
            "SELECT p.position FROM projection_parked AS p JOIN projection_generation AS g"
            " ON g.name = p.name AND g.generation = p.generation"
            " WHERE g.name = ? AND g.version = ? AND g.state = 'serving' AND p.key = ? ORDER BY p.position LIMIT 1"
        )
        rows = self.look(lambda session: session.execute(query, (projection.name, projection.version, key)))
        return rows[0][0] if rows else None

    @contextmanager
    def page(self, projection: Projection) -> Iterator[Page]:
        """One transaction on the rows of the serving generation, which stays at its position meanwhile."""
        with self.change() as session:
            serving = in_state(session, projection, SERVING, session.for_update)
            if serving is None:
                raise TsmError(ErrorCode.READ_MODEL_BEHIND, f"{projection.name} is being built")
            yield Page(session, projection, serving.generation, serving.parked)

    # Generations come and go

    def begin(self, projection: Projection) -> Owner | None:
        """A new generation, empty and building, and its ownership; None while somebody builds one."""
        owner = None
        try:
            with self.change() as session:
                self.take_turns(session)
                if in_state(session, projection, BUILDING) is not None:
                    return None
                query = "SELECT coalesce(max(generation), 0) + 1 FROM projection_generation WHERE name = ?"
                [[number]] = session.execute(query, (projection.name,))
                for table in projection.tables:
                    session.create(physical(projection.name, number, table.name), list(table.columns.items()))
                session.execute(
                    "INSERT INTO projection_generation (name, generation, version, position, parked, state)"
                    " VALUES (?, ?, ?, 0, 0, 'building')",
                    (projection.name, number, projection.version),
                )
                owner = self.own(projection, number)  # before anybody sees it
        except BaseException:
            if owner is not None:
                owner.release()  # or this process would hold the lock of what does not exist until it ends
            raise
        return owner

    def index(self, owner: Owner) -> None:
        """Makes the indexes of its tables, those that are missing."""
        with owner.change() as session:
            for table in owner.projection.tables:
                place = physical(owner.projection.name, owner.generation, table.name)
                for columns in table.indexes:
                    name = f"{place}_by_{'_'.join(columns)}"
                    session.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {place} ({', '.join(columns)})")

    def switch(self, owner: Owner, end: Callable[[], int]) -> bool:
        """Lets the generation serve, unless the one that does has read further; whether it serves now.

        What that one has read beyond the end of the log, as after a restored backup, does not count. The end is asked
        for once it stands still: asked before, the log and that one may both have gone on since.
        """
        with owner.change() as session:
            before = in_state(session, owner.projection, SERVING, session.for_update)
            own = _own(session, owner)
            if before is not None and own.position < min(before.position, end()):
                return False
            if before is not None:
                _set_state(session, before, RETIRED)
            _set_state(session, own, SERVING)
        self.told()
        return True

    def drop(self, generation: Generation) -> None:
        """Its tables, its parked events, and what is known of it."""
        place = (generation.name, generation.generation)
        with self.change() as session:
            session.execute("DELETE FROM projection_parked WHERE name = ? AND generation = ?", place)
            session.execute("DELETE FROM projection_generation WHERE name = ? AND generation = ?", place)
            for table in self.tables(session, physical(*place, "")):
                session.execute(f"DROP TABLE {table}")

    @abstractmethod
    def tables(self, session: Session, prefix: str) -> list[str]:
        """The tables whose names begin so."""

    @abstractmethod
    def take_turns(self, session: Session) -> None:
        """Until the transaction ends, nobody else gets past here."""


class Watch:
    """Tells whoever waits that a position was reached: one thread looks for all of them, and only while one waits."""

    def __init__(self, position: Callable[[], int]) -> None:
        self.hurried = threading.Event()  # set as long as anybody waits
        self._position = position
        self._waiting: list[tuple[int, Future[None]]] = []
        self._news = threading.Condition()
        self._advanced = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def reached(self, position: int) -> "Future[None]":
        """Done when it is reached. Whoever waits no longer cancels it."""
        future: Future[None] = Future()
        with self._news:
            self._waiting.append((position, future))
            self.hurried.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="views-watch", daemon=True)
                self._thread.start()
            self._news.notify()
        return future

    def look(self) -> None:
        with self._news:
            self._advanced = True
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._wanted():
            try:
                position = self._position()
            except (TsmError, Gone):  # the database is away: it comes back, or those who wait run into their limits
                time.sleep(POLL)
                continue
            with self._news:
                done = [future for wanted, future in self._waiting if wanted <= position]
                self._waiting = [(w, f) for w, f in self._waiting if w > position and not f.cancelled()]
                if not self._waiting:
                    self.hurried.clear()
            for future in done:
                if future.set_running_or_notify_cancel():
                    future.set_result(None)

    def _wanted(self) -> bool:
        """Waits until there is reason to look; whether it goes on at all."""
        with self._news:
            while not self._waiting and not self._closed:
                self._news.wait()
            if not self._advanced:
                self._news.wait(POLL)
            self._advanced = False
            return not self._closed


def physical(name: str, generation: int, table: str) -> str:
    return f"{name}_{generation}_{table}"


def in_state(session: Session, projection: Projection, state: State, lock: str = "") -> Generation | None:
    query = f"{GENERATIONS} WHERE name = ? AND version = ? AND state = ?{lock}"
    for row in session.execute(query, (projection.name, projection.version, state)):
        return Generation(*row)
    return None


def not_retired(session: Session, name: str, generation: int) -> Generation:
    """`Fenced` when it is there no more, or retired."""
    query = f"{GENERATIONS} WHERE name = ? AND generation = ? AND state <> 'retired'"
    for row in session.execute(query, (name, generation)):
        return Generation(*row)
    raise Fenced


def _own(session: Session, owner: Owner) -> Generation:
    query = f"{GENERATIONS} WHERE name = ? AND generation = ?"
    for row in session.execute(query, (owner.projection.name, owner.generation)):
        return Generation(*row)
    raise Fenced


def _set_state(session: Session, generation: Generation, state: State) -> None:
    session.execute(
        "UPDATE projection_generation SET state = ? WHERE name = ? AND generation = ?",
        (state, generation.name, generation.generation),
    )


def _read(
    session: Session, projection: Projection, query: str, values: Sequence[object], whole: str | None
) -> list[Any]:
    serving = in_state(session, projection, SERVING)
    if serving is None:
        raise TsmError(ErrorCode.READ_MODEL_BEHIND, f"{projection.name} is being built")
    if whole is not None and serving.parked:
        parked = Page(session, projection, serving.generation, serving.parked).first_parked(whole)
        if parked is not None:
            raise TsmError(ErrorCode.READ_MODEL_BEHIND, f"{projection.name} lacks position {parked.position}")
    places = {t.name: physical(projection.name, serving.generation, t.name) for t in projection.tables}
    return session.execute(query.format(**places), values)


def _waits(position: int, first: int) -> str:
    return "waits for a retry" if position == first else f"held back by position {first}"
