"""A server whose log tells of several parties, and people with tokens who ask it."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from api import administration
from api.app import create_app
from api.bootstrap import Parts, Settings, build
from api.service_tokens import Issued, ServiceTokens
from projections.runner import Runner
from tests.projections.many_parties import tell_of_many
from tests.projections.story import MemoryLog
from tsm.application import Change


class AuditWorld:
    """The parts of one server; nothing runs beside the requests."""

    def __init__(self, folder: Path, clock: Any = lambda: datetime.now(UTC)) -> None:
        self.data = folder / "data"
        administration.initialise(self.data, folder / "kek", "127.0.0.1", 0)
        self.parts: Parts = build(Settings.load(self.data), clock)
        self.log = tell_of_many(MemoryLog())
        for event in self.log.events:
            change = Change(event.originator_id, event.originator_version - 1, [event.fact])
            self.parts.tsm.commit(change, context=event.context, occurred_at=event.occurred_at)
        self.app = create_app(self.parts)
        self.tokens = ServiceTokens(self.parts.tsm)

    def token(self, role: str, tenant: str, seconds: float = 3600) -> Issued:
        """A service token, and read models that know of it."""
        until = self.parts.tsm.now() + timedelta(seconds=seconds)
        context = administration.administrator("test")
        issued = self.tokens.issue("test", role, tenant, until, context, os.urandom)
        self.catch_up()
        return issued

    def catch_up(self) -> None:
        Runner(self.parts.tsm, self.parts.views).catch_up()

    def get(self, path: str, token: str = "", **parameters: Any) -> httpx.Response:
        return asyncio.run(self.ask("GET", path, token, params=parameters))

    async def ask(self, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as http:
            return await http.request(method, path, headers=headers, **options)


@contextmanager
def audit_world(folder: Path, **options: Any) -> Iterator[AuditWorld]:
    world = AuditWorld(folder, **options)
    yield world
    world.parts.close()
