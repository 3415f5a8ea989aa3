"""A party's HTTPS server for a test: real sockets, real TLS, in a thread."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import create_server
from threading import Event, Thread
from typing import Any

from api.tls import TlsFiles, serve_https


@contextmanager
def serving(app: Any, files: TlsFiles, **options: Any) -> Iterator[str]:
    """The URL at which `app` answers until the block ends."""
    listener, ready, running = create_server(("127.0.0.1", 0)), Event(), []

    async def serve() -> None:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        await serve_https(app, listener, files, ready.set, **options)

    def run() -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(serve())

    thread = Thread(target=run)
    thread.start()
    assert ready.wait(5)
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop, task = running[0]
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        listener.close()


def started(app: Any) -> Any:
    """An application whose workers run already: its lifespan is not the server's."""

    async def serving(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    return serving
