"""A guard that fails whatever opens a connection or asks for an address, below all libraries."""

from __future__ import annotations

import socket
from contextlib import contextmanager


class Opened(BaseException):
    """Not an Exception, so that no library mistakes it for a network that is merely down."""


@contextmanager
def no_network(monkeypatch):
    def refuse(*given, **named):
        raise Opened(f"a connection was asked for: {given[:2]}")

    with monkeypatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        for name in ("getaddrinfo", "gethostbyname", "create_connection"):
            patch.setattr(socket, name, refuse)
        yield
