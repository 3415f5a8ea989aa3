"""What the parties of the demo share: a configuration, a TLS identity, an HTTPS server, a client, JSON lines.

Every party is a process of its own, with its own folder, keys and certificate. It meets the others over HTTPS only, and
trusts one root: the parties' certificate authority.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.connections import Door, Guests
from api.errors import RequestIds, read_body, refuse
from api.tls import GRACE, EdgeConfig, PartyProtocol, client_context, serve_https
from tsm.errors import ErrorCode, TsmError

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
BACKLOG = 128
Config = TypeVar("Config")


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files of a party's TLS identity (PEM), and the one root that it trusts."""

    certificate: Path
    key: Path
    party_ca: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate's DER, hex: what this party is enrolled by."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


class Served(Protocol):
    """The part of a configuration that a server needs."""

    @property
    def tls(self) -> Tls: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


def trusting(party_ca: Path) -> ssl.SSLContext:
    """A client that shows no certificate and trusts the parties' root alone."""
    context = ssl.create_default_context(cafile=str(party_ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read a JSON configuration; relative paths are meant from its folder. INVALID_INPUT when it is another's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, dec_hook=lambda _, text: path.parent / text)
    except OSError as error:
        raise TsmError(ErrorCode.NOT_FOUND, f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{path}: {error}") from error


def emit(**fields: Any) -> None:
    """One JSON line for whoever runs this process."""
    print(json.dumps(fields, ensure_ascii=False), flush=True)


@contextmanager
def telling(who: str, whom: str, what: str) -> Iterator[None]:
    """Who spoke to whom, what about, and how long it took: a line for the storyteller, once it went well."""
    began = time.perf_counter()
    yield
    emit(who=who, whom=whom, what=what, ms=round((time.perf_counter() - began) * 1000, 3))


def command_line(description: str, *commands: str) -> argparse.ArgumentParser:
    """`<command> --folder F --config F/config.json`, the same for every party."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--folder", type=Path, required=True, help="the party's own data folder")
    parser.add_argument("--config", type=Path, help="default: config.json in the folder")
    return parser


def config_path(arguments: argparse.Namespace) -> Path:
    path: Path = arguments.config or arguments.folder / "config.json"
    return path


def main(run: Callable[[], None]) -> None:
    """Run a command; a refusal is one JSON line on standard error and exit code 2."""
    try:
        run()
    except TsmError as error:
        print(json.dumps({"code": error.code, "detail": error.detail}), file=sys.stderr)
        sys.exit(2)


# --- as a server ---


def serve(
    config: Served, application: Callable[[str], Starlette], plain: Starlette | None = None, plain_port: int = 0
) -> None:
    """Listen (port 0: any free one), print {"url": ..} and serve what `application(url)` makes, until stopped.

    `plain` is served beside it, over HTTP without TLS.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("api").setLevel(logging.INFO)  # ours alone: a client library's log would show URLs
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((config.host, config.port), backlog=BACKLOG))
        url = f"https://{config.host}:{listener.getsockname()[1]}"
        servers = [serve_https(application(url), listener, config.tls, lambda: emit(url=url))]
        if plain is not None:
            door = stack.enter_context(socket.create_server((config.host, plain_port), backlog=BACKLOG))
            servers.append(serve_http(plain, door))
        asyncio.run(together(servers))


async def together(servers: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Until a signal: uvicorn hands it on from the server that began last to the one before."""
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(server)


async def serve_http(app: Starlette, listener: socket.socket) -> None:
    """Plain HTTP, with the limits of `api.tls` for slow and for many clients."""
    config = EdgeConfig(
        app,
        http=PartyProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    config.guests = Guests(config.limits)
    with Door(listener, config.guests) as door:
        await uvicorn.Server(config).serve(sockets=[door])


def caller(request: Request) -> str:
    """Fingerprint of the certificate that the caller proved to hold; UNAUTHENTICATED without one."""
    der = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_der")
    if not der:
        raise TsmError(ErrorCode.UNAUTHENTICATED, "no client certificate")
    return hashlib.sha256(der).hexdigest()


def demand(request: Request, fingerprint: str) -> None:
    """FORBIDDEN for everybody but the holder of one certificate."""
    if caller(request) != fingerprint:
        raise TsmError(ErrorCode.FORBIDDEN, "another party's certificate")


Message = TypeVar("Message")


async def message(request: Request, kind: type[Message], limit: int = 64 * 1024) -> Message:
    """The JSON body as a typed message; bytes travel as Base64. MALFORMED_MESSAGE for anything else."""
    return parsed(await read_body(request, limit), kind)


def parsed(body: bytes, kind: type[Message]) -> Message:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise TsmError(ErrorCode.MALFORMED_MESSAGE, str(error)) from error


def answer(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"Cache-Control": "no-store"})


def starlette(
    routes: list[Route], lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None
) -> Starlette:
    """An application that refuses as every server of the system does (`api.errors`)."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(RequestIds)],
        exception_handlers={TsmError: refuse, Exception: refuse},
        lifespan=lifespan,
    )


# --- as a client ---


def client(tls: Tls) -> httpx.AsyncClient:
    """A client that shows the party's certificate. It listens to no proxy settings of the environment."""
    return httpx.AsyncClient(verify=client_context(tls), timeout=TIMEOUT, trust_env=False)


@contextmanager
def reaching() -> Iterator[None]:
    """Around a request: UPSTREAM_UNAVAILABLE when the other side cannot be reached."""
    try:
        yield
    except httpx.HTTPError as error:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, type(error).__name__) from error


def checked(response: httpx.Response) -> httpx.Response:
    """The response, unless it is a refusal: then that, with the other side's code."""
    if response.is_success:
        return response
    try:
        refused: Mapping[str, Any] = response.json()
        code = ErrorCode(refused["code"])
    except (ValueError, KeyError, TypeError) as error:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"HTTP {response.status_code}") from error
    raise TsmError(code, f"refused by {response.request.url.host}")
