"""What resolvers work with during one request, and what the request leaves behind.

Resolvers, of queries and of mutations, are plain functions. The whole execution runs in `tsm.store.loop.run`: where one
waits for a commit, for a read of PostgreSQL or for a read model, the event loop goes on with others. So nothing here is
asynchronous, and on SQLite a query is a few function calls.

Whoever unseals personal data says for which purpose, one for the whole request. `finish` records that, in one event,
before the answer leaves; when it cannot be recorded, there is no answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from graphql import GraphQLError

from api.access import Caller
from api.bootstrap import Parts
from api.graphql.news import News
from projections.viewer import Viewer
from projections.views import Views
from tsm.application import Tsm
from tsm.errors import ErrorCode


@dataclass
class Unsealed:
    """Whose personal data one request has unsealed, and why."""

    purpose: str = ""
    subjects: list[str] = field(default_factory=list)

    def add(self, subject: str, purpose: str) -> None:
        """INVALID_INPUT for a second purpose in one request."""
        if self.purpose not in ("", purpose):
            raise GraphQLError("one request has one purpose", extensions={"code": ErrorCode.INVALID_INPUT})
        self.purpose = purpose
        if subject not in self.subjects:
            self.subjects.append(subject)


@dataclass
class Context:
    """One request: who asks, and the parts of the server that answer."""

    parts: Parts
    caller: Caller
    request_id: str
    news: News  # that the read models went on
    unsealed: Unsealed = field(default_factory=Unsealed)

    @property
    def views(self) -> Views:
        return self.parts.views

    @property
    def log(self) -> Tsm:
        return self.parts.tsm

    @property
    def viewer(self) -> Viewer:
        """Whose eyes its queries are made for: every query over rows takes it."""
        return self.caller.viewer

    def seconds_left(self) -> float | None:
        """Until the proof of the caller's identity ends; None when it does not."""
        if self.caller.expires_at is None:
            return None
        return max(0.0, (self.caller.expires_at - self.parts.clock()).total_seconds())

    def finish(self, query_sha256: str) -> None:
        """Records what was unsealed, if anything was: in `tsm.store.loop.run`, before the answer leaves.

        `TsmError` when that cannot be recorded: then nothing of the answer may leave.
        """
        if self.unsealed.subjects:
            self.parts.readings.record(
                self.caller, self.request_id, self.unsealed.purpose, query_sha256, self.unsealed.subjects
            )
            self.unsealed.subjects.clear()  # a subscription's next result has its own


MakeContext = Callable[[Caller, str], Context]  # of a caller and the request's id


def contexts_of(parts: Parts) -> MakeContext:
    """A new context for each request to this server."""
    news = News(parts.views)
    return lambda caller, request_id: Context(parts, caller, request_id, news)
