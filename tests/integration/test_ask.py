"""A question over https ends when its time is over, whatever the server, its name or its network does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handrail.mesh import https
from handrail.mesh.https import FetchError, ask
from tests.support.waiting import PATIENCE, until
from tests.support.web_server import certified_context, web_server

WITHIN = timedelta(milliseconds=500)
HEAD = b"HTTP/1.1 200 OK\r\n"

DRIPS: dict[str, tuple[bytes, bytes]] = {
    "its status": (b"", b"H"),
    "a header": (HEAD + b"X-Slow: ", b"x"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "its body": (HEAD + b"\r\n", b" "),
    "a chunk's length": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}


@contextmanager
def dripping(first: bytes, drop: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that sends a drop twenty times a second for as long as somebody listens. Yields its port."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection if context is None else context.wrap_socket(connection, True) as client:
            client.sendall(first)
            while not over.wait(0.05):
                client.sendall(drop)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def asking() -> list[threading.Thread]:
    """The threads that ask."""
    return [each for each in threading.enumerate() if each.name == https.THREAD]


async def gives_up(question: Callable[[], object]) -> bool:
    """Requires that the question fails in time. Whether it leaves no thread behind."""
    began = time.monotonic()
    with pytest.raises(FetchError, match="takes too long to answer"):
        question()
    assert time.monotonic() - began < PATIENCE
    return await until(lambda: not asking())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", DRIPS)
async def test_a_server_that_drips_holds_nobody(case: str) -> None:
    with dripping(*DRIPS[case]) as port:
        assert await gives_up(lambda: ask(f"http://127.0.0.1:{port}/", within=WITHIN))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", DRIPS)
async def test_a_server_that_drips_by_tls_holds_nobody(case: str, tmp_path: Path) -> None:
    ca, context = certified_context(tmp_path)
    with dripping(*DRIPS[case], context) as port:
        assert await gives_up(lambda: ask(f"https://127.0.0.1:{port}/", ca=ca, form={"a": "b"}, within=WITHIN))


@pytest.mark.timeout(120)
async def test_a_server_that_drips_a_handshake_holds_nobody() -> None:
    with dripping(b"\x16\x03\x03\x40\x00", b"\x02") as port:
        assert await gives_up(lambda: ask(f"https://127.0.0.1:{port}/", within=WITHIN))


@pytest.mark.timeout(120)
async def test_a_proxy_that_drips_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x") as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert await gives_up(lambda: ask("https://id.example.com/", within=WITHIN))


@pytest.mark.timeout(120)
async def test_addresses_that_do_not_answer_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # A full backlog: the kernel drops whoever knocks.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        place = listener.getsockname()
        knocking = [socket.socket() for _ in range(3)]
        for each in knocking:
            each.setblocking(False)
            each.connect_ex(place)
        many = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place)] * 1_000
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)
        assert await gives_up(lambda: ask("https://id.example.com/", within=WITHIN))
        for each in knocking:
            each.close()


@pytest.mark.timeout(120)
async def test_a_name_that_is_never_found_holds_nobody_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    found, real = threading.Event(), socket.getaddrinfo

    def slow(*arguments: Any, **more: Any) -> Any:
        found.wait(PATIENCE)
        return real(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with web_server() as server:
        try:
            # What still looks for a name can't be stopped, but there is no more and more of it.
            while len(asking()) < https.MOST_AT_ONCE:
                with pytest.raises(FetchError, match="takes too long to answer"):
                    ask(server.url, within=timedelta(milliseconds=20))
            with pytest.raises(FetchError, match="questions are unanswered"):
                ask(server.url, within=WITHIN)
        finally:
            found.set()
        await until(lambda: not asking())
        assert server.asked == []
        assert ask(server.url).status == 200
