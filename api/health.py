"""Is it up, and is it ready: for load balancers and for whoever restarts what hangs. Anybody may ask.

`GET /health`: the process answers, and its workers keep up; 503 with the names of those that do not.
`GET /ready`: it can do its work: the store answers, and every read model serves and keeps up; 503 with what lacks. A
server that is not ready is left alone until it is; one that is not up is started again.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from api.metrics import Parts
from tsm.errors import TsmError
from tsm.store.loop import run

UP, READY = {"status": "up"}, {"status": "ready"}
UNAVAILABLE = 503
NO_STORE = {"Cache-Control": "no-store"}
STORE, READ_MODELS = "store", "projections"
SECONDS = 2.0  # that the store may take to answer
KEPT = 1.0  # seconds that an answer is good for: asking costs the store nothing, however often it is done


class Readiness:
    """Looks whether the server can do its work, once for all who ask at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._turn = asyncio.Lock()
        self._looked = -KEPT
        self._lacks: Sequence[str] = ()

    async def lacks(self) -> Sequence[str]:
        async with self._turn:
            if time.monotonic() - self._looked >= KEPT:
                self._lacks = await self._look()
                self._looked = time.monotonic()
        return self._lacks

    async def _look(self) -> Sequence[str]:
        """A store that hangs keeps its thread, and nobody else waits for it."""
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.to_thread(self._look_in_thread)
        except TimeoutError:
            return (STORE,)

    def _look_in_thread(self) -> Sequence[str]:
        try:
            _ = self._parts.tsm.position
            served = all(self._parts.views.serving(p) is not None for p in self._parts.views.projections)
        except TsmError:
            return (STORE,)
        behind = [worker.name for worker in self._parts.workers if not worker.keeping_up()]
        return tuple(dict.fromkeys([*behind, *([] if served else [READ_MODELS])]))


def routes(parts: Parts) -> list[BaseRoute]:
    readiness = Readiness(parts)

    async def health(_: Request) -> Response:
        behind = [worker.name for worker in parts.workers if not await run(worker.keeping_up)]
        return answer({"status": "behind", "workers": behind}, UNAVAILABLE) if behind else answer(UP)

    async def ready(_: Request) -> Response:
        lacks = await readiness.lacks()
        return answer({"status": "not ready", "lacks": list(lacks)}, UNAVAILABLE) if lacks else answer(READY)

    return [Route("/health", health, methods=["GET"]), Route("/ready", ready, methods=["GET"])]


def answer(content: Mapping[str, object], status: int = 200) -> Response:
    return JSONResponse(content, status, headers=NO_STORE)
