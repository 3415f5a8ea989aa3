"""Readings: whoever is shown personal data is recorded before the answer leaves."""

from collections.abc import Sequence

from api.access import SERVER, Caller
from tsm.application import Change, Tsm
from tsm.model import reading
from tsm.model.event import Context


class Readings:
    """Records who read whose data, and why."""

    def __init__(self, tsm: Tsm) -> None:
        self._tsm = tsm

    def record(self, caller: Caller, request_id: str, purpose: str, query_sha256: str, subjects: Sequence[str]) -> int:
        """One event for the request; the log's position.

        INVALID_INPUT without a purpose or subjects; CONFLICT when this request was recorded before; STORE_UNAVAILABLE,
        STORE_BUSY. Whatever it raises: nothing of what was read may leave.
        """
        context = Context(
            actor=caller.actor,
            role=caller.role,
            tenant=caller.tenant or SERVER,
            correlation=request_id,
            request=request_id,
            person=caller.identity,
        )
        facts = reading.access(purpose, query_sha256, subjects)
        change = Change(reading.stream(request_id), 0, facts)
        return self._tsm.commit(change, context=context, occurred_at=self._tsm.now())
