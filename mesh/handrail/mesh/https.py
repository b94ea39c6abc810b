"""Small answers over https: bounded in time and size, from a server whose certificate was verified, no redirects.

Plain http is for servers on this machine alone, in development and tests.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urlsplit

from handrail.mesh.https_connection import PlainHandler, SecureHandler, TimeLimit

WITHIN = timedelta(seconds=5)
"""How long an answer may take, from the look for the server's name to the last byte."""

LARGEST = 1 << 18
"""The largest answer that is read, in bytes: a key set of 64 RSA keys takes about 50,000."""

MOST_AT_ONCE = 64
"""So many questions may be open in a process, with those that nobody waits for any more."""

THREAD = "handrail-https"
"""The name of the threads that ask."""

_CHUNK = 1 << 14

_unanswered = threading.BoundedSemaphore(MOST_AT_ONCE)


class FetchError(Exception):
    """There is no usable answer. The text names the address and says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: the HTTP status and the body."""

    url: str
    status: int
    body: bytes

    def json(self) -> dict[str, object]:
        """Returns the body as a JSON object; raises FetchError if it is not one."""
        try:
            found: object = json.loads(self.body)
        except (ValueError, RecursionError):
            raise FetchError(f"{self.url} does not answer with JSON (HTTP {self.status})") from None
        if not isinstance(found, dict):
            raise FetchError(f"{self.url} does not answer with a JSON object (HTTP {self.status})")
        return found


def why_unsafe(url: str, *, named_by: str = "") -> str:
    """Says why an address may not be asked; empty if it may: https, or http to a loopback address.

    `named_by` is the address of a server that says to ask this one. If that is asked by https, so must this be: what
    listens on this machine is not the server.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is not an address"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it has invalid characters"
    if not host:
        return "it names no host"
    if parts.username is not None or parts.password is not None:
        return "it holds a user or password"
    if parts.scheme == "http" and _is_loopback(host):
        is_downgrade = urlsplit(named_by).scheme == "https"
        return "it must begin with https://, as the provider's own address does" if is_downgrade else ""
    return "" if parts.scheme == "https" else "it must begin with https://"


def ask(
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    ca: Path | None = None,
    within: timedelta = WITHIN,
    largest: int = LARGEST,
) -> Answer:
    """Asks with GET, or with POST if there is a form. Any status is an answer, a redirect among them.

    `ca` is a file of certificate authorities to trust instead of the system's. Raises FetchError, at the latest after
    `within`. Blocks: call it in a thread.
    """
    why = why_unsafe(url)
    if why:
        raise FetchError(f"{url!a} is not asked: {why}")
    data = None if form is None else urlencode(form).encode()
    request = urllib.request.Request(url, data=data, headers={"Accept": "application/json", **(headers or {})})
    if not _unanswered.acquire(blocking=False):
        raise FetchError(f"{url} is not asked: {MOST_AT_ONCE} questions are unanswered")
    limit, answer = TimeLimit(within), Future[Answer]()
    # Nothing ends a thread that looks for a name: so another one than the caller's does it, and a limit ends the rest.
    threading.Thread(target=_answer, args=(request, ca, limit, largest, answer), name=THREAD, daemon=True).start()
    try:
        return answer.result(within.total_seconds())
    except TimeoutError:
        limit.end()
        raise FetchError(_too_long(url)) from None


def _answer(
    request: urllib.request.Request, ca: Path | None, limit: TimeLimit, largest: int, answer: Future[Answer]
) -> None:
    try:
        answer.set_result(_asked(request, ca, limit, largest))
    except BaseException as error:
        answer.set_exception(error)
    finally:
        _unanswered.release()


def _asked(request: urllib.request.Request, ca: Path | None, limit: TimeLimit, largest: int) -> Answer:
    url = request.full_url
    try:
        with _opener(url, ca, limit).open(request, timeout=limit.left()) as response:
            return Answer(url, response.status, _read(url, response, limit, largest))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(url, error.code, _read(url, error, limit, largest))
    except urllib.error.URLError as error:
        is_late = isinstance(error.reason, TimeoutError)
        raise FetchError(_too_long(url) if is_late else f"{url} does not answer: {error.reason}") from None
    except TimeoutError:
        raise FetchError(_too_long(url)) from None
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{url} does not answer: {error}") from None


def _too_long(url: str) -> str:
    return f"{url} takes too long to answer"


def _opener(url: str, ca: Path | None, limit: TimeLimit) -> urllib.request.OpenerDirector:
    if urlsplit(url).scheme == "http":
        # A proxy is another machine.
        return urllib.request.build_opener(_NoRedirects(), urllib.request.ProxyHandler({}), PlainHandler(limit))
    trusted = ssl.create_default_context(cafile=None if ca is None else str(ca))
    return urllib.request.build_opener(_NoRedirects(), SecureHandler(limit, trusted))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """A redirect is an answer like others: what was to be asked is an address in the settings."""


def _read(url: str, response: HTTPResponse | IO[bytes], limit: TimeLimit, largest: int) -> bytes:
    body = b""
    while True:
        piece = response.read1(_CHUNK) if isinstance(response, HTTPResponse) else response.read(_CHUNK)
        body += piece
        if not piece:
            return body
        if len(body) > largest:
            raise FetchError(f"{url} answers with more than {largest} bytes")
        limit.left()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
