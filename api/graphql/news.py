"""Word that the read models went on, for whoever waits on an event loop for as long as it takes.

One task looks for all of them, and only while somebody waits: subscribers cost no thread and no query each.
"""

import asyncio
from contextlib import suppress

from projections.views import Views
from tsm.errors import TsmError
from tsm.store.loop import run

LOOK = 0.1  # seconds between looks


class News:
    """Tells subscribers how far the read models are: one task looks for all of them."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._looking: asyncio.Task[None] | None = None

    async def beyond(self, position: int) -> int:
        """How far they are, as soon as that is beyond this position."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waits = position, told
        self._waiting.append(waits)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            return await told
        finally:
            self._waiting.remove(waits)

    async def _look(self) -> None:
        try:
            while self._waiting:
                with suppress(TsmError):  # the database is away: it comes back, or those who wait give up
                    reached: int = await run(lambda: self._views.position)
                    self._tell(reached)
                await asyncio.sleep(LOOK)
        finally:
            self._looking = None

    def _tell(self, reached: int) -> None:
        for position, waits in self._waiting:
            if reached > position and not waits.done():
                waits.set_result(reached)
