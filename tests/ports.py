"""Ports for tests."""

import socket


def free_pair_of_ports() -> int:
    """A port that is free on the loopback interface, and the one above it too: vpcd has two slots."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port: int = server.getsockname()[1]
        try:
            socket.create_server(("127.0.0.1", port + 1)).close()
        except OSError:
            continue
        return port
