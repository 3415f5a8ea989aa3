"""The protocol of the virtual reader driver."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.ports import free_pair_of_ports
from tsm.errors import ErrorCode, TsmError
from tsm.uicc import vpcd


class EchoCard:
    """Answers a command with itself, and counts its resets."""

    atr = bytes.fromhex("3B80800101")

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def transmit(self, command: bytes) -> bytes:
        return command + b"\x90\x00"


@contextmanager
def driver(card: EchoCard) -> Iterator[socket.socket]:
    """A driver's end of a connection to the card."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=vpcd.serve, args=(card, "127.0.0.1", port), daemon=True)
        thread.start()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            yield connection
        thread.join(5)
        assert not thread.is_alive()


def say(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(len(payload).to_bytes(2, "big"))
    connection.sendall(payload)


def hear(connection: socket.socket) -> bytes:
    length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
    return connection.recv(length, socket.MSG_WAITALL)


def test_answers_the_atr_and_commands_but_not_power() -> None:
    card = EchoCard()
    with driver(card) as connection:
        for payload in (b"\x00", b"\x01", b"\x02", b"\x04"):
            say(connection, payload)
        assert hear(connection) == card.atr
        say(connection, bytes.fromhex("00A4040000"))
        assert hear(connection).hex() == "00a40400009000"
    assert card.resets == 3


def test_frames_may_come_octet_by_octet_and_answers_be_long() -> None:
    command = bytes(range(256)) * 2
    with driver(EchoCard()) as connection:
        for octet in len(command).to_bytes(2, "big") + command:
            connection.sendall(bytes([octet]))
        assert hear(connection) == command + b"\x90\x00"


def test_a_frame_cut_off_is_no_command() -> None:
    with driver(EchoCard()) as connection:
        connection.sendall(b"\x00\x05\x00\xa4")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(2) == b""


def test_is_not_slowed_down_by_delayed_acknowledgements() -> None:
    with driver(EchoCard()) as connection:
        start = time.monotonic()
        for _ in range(100):
            say(connection, bytes.fromhex("0020008000"))
            hear(connection)
    assert time.monotonic() - start < 2  # 5 seconds with them


def test_listens_and_takes_one_driver_after_another() -> None:
    card, port = EchoCard(), free_pair_of_ports()
    thread = threading.Thread(target=vpcd.serve, args=(card, "127.0.0.1", port), kwargs={"listen": True}, daemon=True)
    thread.start()
    for _ in range(2):
        with vpcd.connect("127.0.0.1", port) as connection:
            say(connection, b"\x04")
            assert hear(connection) == card.atr
    with vpcd.connect("127.0.0.1", port + 1) as connection:
        say(connection, b"\x04")
        assert hear(connection) == vpcd.BlankCard.atr  # without it, this kind of driver fails


def test_says_so_when_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vpcd, "CONNECT_PATIENCE", 0.0)
    with pytest.raises(TsmError) as error:
        vpcd.serve(EchoCard(), "127.0.0.1", free_pair_of_ports())
    assert error.value.code == ErrorCode.UPSTREAM_UNAVAILABLE
