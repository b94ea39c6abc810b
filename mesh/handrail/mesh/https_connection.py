"""Connections of one question over https that end when its time is over: while they connect, write or read."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.request
from contextlib import suppress
from datetime import timedelta
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection


class TimeLimit:
    """The time of one question. `end` may be called in another thread than everything else."""

    def __init__(self, within: timedelta) -> None:
        self._until = time.monotonic() + within.total_seconds()
        self._is_over = False
        self._socket: socket.socket | None = None

    def left(self) -> float:
        """The seconds that are left. Raises TimeoutError if there are none."""
        left = self._until - time.monotonic()
        if self._is_over or left <= 0:
            raise TimeoutError("the time is over")
        return left

    def hold(self, connected: socket.socket) -> None:
        """Takes the socket that `end` has to shut down. Raises TimeoutError if it is too late."""
        self._socket = connected
        self.left()

    def end(self) -> None:
        """Ends the question: whatever waits for its socket goes on, to no good answer."""
        self._is_over = True
        if self._socket is not None:
            with suppress(OSError):
                # Not the method of a TLS socket, after which the other thread would read what is encrypted.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def connect(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Connects as socket.create_connection does, but all addresses of the name share the time. Raises OSError."""
        problem = OSError("the name has no address")
        for family, kind, protocol, _name, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            connecting = socket.socket(family, kind, protocol)
            try:
                self.hold(connecting)
                connecting.settimeout(self.left())
                connecting.connect(place)
                connecting.settimeout(self.left())
                return connecting
            except OSError as error:
                connecting.close()
                problem = error
        raise problem


class PlainHandler(urllib.request.HTTPHandler):
    """Opens http addresses within a time limit."""

    def __init__(self, limit: TimeLimit) -> None:
        super().__init__()
        self._limit = limit

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        """Opens one."""
        return self.do_open(partial(_Connection, limit=self._limit), req)


class SecureHandler(urllib.request.HTTPSHandler):
    """Opens https addresses within a time limit."""

    def __init__(self, limit: TimeLimit, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._limit, self._tls = limit, context

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        """Opens one."""
        return self.do_open(partial(_SecureConnection, limit=self._limit, context=self._tls), req)


class _Connection(HTTPConnection):
    def __init__(self, host: str, *, limit: TimeLimit, timeout: float, **more: ssl.SSLContext) -> None:
        super().__init__(host, timeout=timeout, **more)  # type: ignore[arg-type]  # the context is of the other base
        self._limit = limit
        # What http.client connects with: there is no public way.
        self._create_connection = limit.connect

    def connect(self) -> None:
        super().connect()
        self._limit.hold(self.sock)


class _SecureConnection(_Connection, HTTPSConnection):
    """The handshake takes the time that was left when the connection stood: its socket is not held until then."""
