"""What errors of HTTP clients say of the effect: a real server that refuses, hangs, breaks off and fails."""

from __future__ import annotations

import socket
import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import httpx
import pytest
import requests

from handrail.agents.transport import Sent, sent
from tests.support.waiting import PATIENCE

Client = Callable[[str], object]


class _Odd(socketserver.StreamRequestHandler):
    """Answers as the path says."""

    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            continue
        match path:
            case "/hangs":
                self.rfile.read(1)  # until the client leaves
            case "/cut":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbooked")
            case "/nonsense":
                self.wfile.write(b"certainly\r\n\r\n")
            case "/closes":
                return
            case _:
                status = path.removeprefix("/")
                self.wfile.write(f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n".encode())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server."""
    with _Server(("127.0.0.1", 0), _Odd) as odd:
        threading.Thread(target=odd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{odd.server_address[1]}"
        odd.shutdown()


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def patience(url: str) -> float:
    """Seconds that a client waits: only what hangs takes longer than they may."""
    return 0.2 if url.endswith("/hangs") else PATIENCE


def _httpx(url: str) -> None:
    with httpx.Client(timeout=patience(url), trust_env=False) as client:
        client.post(url).raise_for_status()


def _requests(url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.post(url, timeout=patience(url)).raise_for_status()


def _urllib(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, data=b"", timeout=patience(url)) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise


CLIENTS = [_httpx, _requests, _urllib]


def raised(client: Client, url: str) -> Exception:
    """What the client raises."""
    with pytest.raises(Exception) as failure:  # noqa: PT011  # each client has its own
        client(url)
    return failure.value


@pytest.mark.parametrize("client", CLIENTS)
def test_what_found_no_connection_did_not_happen(client: Client, nobody: str) -> None:
    assert sent(raised(client, f"{nobody}/200")) is Sent.NO
    assert sent(raised(client, "http://nobody.invalid/200")) is Sent.NO


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("path", ["hangs", "closes", "cut", "nonsense", "500", "504"])
def test_what_was_sent_and_not_answered_may_have_happened(client: Client, path: str, server: str) -> None:
    assert sent(raised(client, f"{server}/{path}")) is Sent.PERHAPS


@pytest.mark.parametrize("client", CLIENTS)
def test_what_was_refused_is_no_blip(client: Client, server: str) -> None:
    assert sent(raised(client, f"{server}/409")) is None


@pytest.mark.parametrize(
    "error, expected",
    [
        (ConnectionRefusedError(), Sent.NO),
        (socket.gaierror(), Sent.NO),
        (TimeoutError(), Sent.PERHAPS),
        (ConnectionResetError(), Sent.PERHAPS),
        (BrokenPipeError(), Sent.PERHAPS),
        (ConnectionError("the pool is empty"), None),
        (ValueError("read timeout"), None),
        (type("ReadTimeout", (Exception,), {"__module__": "elsewhere"})(), None),
    ],
)
def test_errors_of_the_standard_library_are_told_apart_and_names_alone_mean_nothing(
    error: Exception, expected: Sent | None
) -> None:
    assert sent(error) is expected
