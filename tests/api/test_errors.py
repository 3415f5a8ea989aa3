"""The edge, over a real socket: bodies that come too slowly, or not at all, and clients that go away."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from socket import create_server

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from api import errors
from api.errors import RequestIds, read_body, refuse
from tsm.errors import ErrorCode, TsmError

LIMIT = 1000  # octets
ANNOUNCED = b"POST / HTTP/1.1\r\nHost: tsm\r\nContent-Length: 100\r\n\r\n"


async def size(request):
    return PlainTextResponse(str(len(await read_body(request, LIMIT))))


@asynccontextmanager
async def connection():
    """A server in this loop, and one connection to it."""
    app = Starlette(
        routes=[Route("/", size, methods=["POST"])], exception_handlers={TsmError: refuse, Exception: refuse}
    )
    with create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(RequestIds(app), http="httptools", lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await serving


async def told(reader):
    """The whole answer, to the end of the connection: status and JSON."""
    head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_body_that_comes_in_time_is_read():
    async def run():
        async with connection() as (reader, writer):
            writer.write(ANNOUNCED + bytes(50))
            await writer.drain()
            writer.write(bytes(50))
            assert (await reader.readuntil(b"\r\n\r\n100")).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_a_body_that_does_not_come_in_time_is_waited_for_no_longer_and_its_connection_closed(monkeypatch):
    monkeypatch.setattr(errors, "BODY_SECONDS", 0.05)

    async def run():
        async with connection() as (reader, writer):
            writer.write(ANNOUNCED + b"slowly")
            return await told(reader)

    status, content = asyncio.run(run())
    assert (status, content["code"]) == (408, "MESSAGE_INCOMPLETE")


def test_a_body_that_is_too_large_is_not_read_to_its_end():
    async def run():
        async with connection() as (reader, writer):
            writer.write(ANNOUNCED.replace(b"100", b"1000000") + bytes(LIMIT + 1))
            return await told(reader)

    status, content = asyncio.run(run())
    assert (status, content["code"]) == (413, "MESSAGE_TOO_LARGE")


def test_a_client_that_goes_away_in_mid_body_is_no_fault_of_the_server(caplog):
    caplog.set_level(logging.INFO)

    async def run():
        async with connection() as (_, writer):
            writer.write(ANNOUNCED + b"and gone")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            while "MESSAGE_INCOMPLETE" not in caplog.text:
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert "ClientDisconnect after 8 octets" in caplog.text
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("code", [ErrorCode.STORE_BUSY, ErrorCode.STORE_UNAVAILABLE, ErrorCode.READ_MODEL_BEHIND])
def test_whoever_should_ask_again_is_told_when(code):
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""})
    answer = asyncio.run(refuse(request, TsmError(code, "1024 appends wait")))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body)["code"] == code
    assert b"1024" not in answer.body


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [({}, "Bearer"), ({"Authorization": "Bearer abc"}, 'Bearer error="invalid_token"')],
)
def test_whoever_is_not_known_is_told_how_to_show_who_he_is(headers, challenge):
    """RFC 6750 section 3: the error is named only to whoever showed a token."""

    async def refusing(request):
        raise TsmError(ErrorCode(request.path_params["code"]), "a detail")

    app = Starlette(routes=[Route("/{code}", refusing)], exception_handlers={TsmError: refuse})

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://tsm", headers=headers) as http:
            return await http.get("/UNAUTHENTICATED"), await http.get("/FORBIDDEN")

    unknown, forbidden = asyncio.run(ask())
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, challenge)
    assert "detail" not in unknown.text
    assert forbidden.status_code == 403
    assert "www-authenticate" not in forbidden.headers
