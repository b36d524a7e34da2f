"""A guard at socket level: opening a socket or a connection, or resolving an address, fails."""

from __future__ import annotations

import socket
from contextlib import contextmanager


class Opened(BaseException):
    """Not an Exception, so that libraries do not handle it as a network error."""


@contextmanager
def no_network(monkeypatch):
    def refuse(*given, **named):
        raise Opened(f"a connection was asked for: {given[:2]}")

    with monkeypatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto", "bind"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket.socket, "__init__", refuse)
        for name in ("getaddrinfo", "gethostbyname", "create_connection"):
            patch.setattr(socket, name, refuse)
        yield
