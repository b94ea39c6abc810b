"""An identity provider as a process: npm's `oidc-provider`, and a person who signs in there with a browser.

It needs Node: without it, a test that uses it is skipped.
"""

from __future__ import annotations

import base64
import http.cookiejar
import json
import os
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

import jwt

from tests.support.nats_server import FreePorts
from tests.support.node import installed
from tests.support.tokens import Private, algorithm_of, private_key
from tests.support.waiting import until

PROVIDER = Path(__file__).parent / "oidc"
CLIENT = "handrail-cli"
_SECRET = "ledger:a+secret+of+the+ledger+alone"


def installed_provider(folder: Path) -> Path:
    """The provider with its npm packages."""
    return installed(folder, PROVIDER)


class IdentityProvider:
    """A running provider. Its keys are in a file that tests change."""

    def __init__(self, issuer: str, keys: Path, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.issuer = issuer
        self.key_set = f"{issuer}/jwks"
        self._keys = keys
        self._log = log
        self._process = process

    async def ready(self) -> None:
        """Wait until it answers."""
        await until(lambda: "ready" in self._said() or self._process.poll() is not None)
        assert self._process.poll() is None, self._said()

    async def rotate(self, algorithm: str, kid: str) -> None:
        """Makes it sign with a new key and publish only that one."""
        times = self._said().count("read the keys again")
        write_keys(self._keys, private_key(algorithm), kid)
        self._process.send_signal(signal.SIGHUP)
        await until(lambda: self._said().count("read the keys again") > times)

    def client_token(self) -> str:
        """A token for the program `ledger`, by its own credentials (client credentials grant)."""
        request = urllib.request.Request(f"{self.issuer}/token", data=b"grant_type=client_credentials")
        request.add_header("Authorization", f"Basic {_basic(_SECRET)}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            token: str = json.load(answer)["access_token"]
        return token

    def id_token(self, person: str) -> str:
        """What tells the command itself who logged in: not a token for the API."""
        client = {"client_id": CLIENT, "scope": "openid"}
        code = self._post("device/auth", {**client, "resource": "urn:handrail:api"})
        sign_in(code["verification_uri_complete"], person)
        grant = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code["device_code"]}
        return self._post("token", {**client, **grant})["id_token"]

    def _post(self, path: str, form: Mapping[str, str]) -> dict[str, str]:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.issuer}/{path}", data, timeout=10) as answer:
            found: dict[str, str] = json.load(answer)
        return found

    def _said(self) -> str:
        return self._log.read_text()


@contextmanager
def running_provider(
    installation: Path, folder: Path, algorithm: str, **environment: str
) -> Iterator[IdentityProvider]:
    """Runs a provider that signs with a key of this algorithm while the block runs."""
    keys, log = folder / "keys.json", folder / "provider.log"
    write_keys(keys, private_key(algorithm), "first")
    ports = FreePorts(1)
    (port,) = ports.numbers
    ports.release()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["node", "provider.js", str(port), str(keys)],
            cwd=installation,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield IdentityProvider(f"http://127.0.0.1:{port}", keys, log, process)
    finally:
        process.kill()
        process.wait()


def write_keys(path: Path, private: Private, kid: str) -> None:
    """A private key set with one key."""
    algorithm = algorithm_of(private)
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(private, as_dict=True)
    made.pop("key_ops", None)
    path.write_text(json.dumps({"keys": [{**made, "kid": kid, "alg": algorithm, "use": "sig"}]}))


def sign_in(link: str, person: str, *, deny: bool = False) -> str:
    """Does what a person does who opens this link in a browser: confirm, sign in, consent. Returns the last heading."""
    return " ".join(re.findall(r"<h1>(.*?)</h1>", _walk(_browser(), link, person, deny=deny)))


def come_back(link: str, person: str, *, deny: bool = False) -> str:
    """Does the same with a link to which a program sent the browser. Returns the address where it is sent back to."""
    try:
        page = _walk(_browser(_UntilBack()), link, person, deny=deny)
    except _CameBack as back:
        return back.url
    raise AssertionError(f"the provider sent nobody back: {page}")


def _browser(*handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    return urllib.request.build_opener(jar, urllib.request.ProxyHandler({}), *handlers)


def _walk(browser: urllib.request.OpenerDirector, link: str, person: str, *, deny: bool) -> str:
    """Opens the link and sends the provider's forms; returns the last page."""
    with browser.open(link, timeout=10) as answer:
        url, page = answer.url, answer.read().decode()
    for _ in range(8):
        form = _Form()
        form.feed(page)
        if form.action is None:
            break
        if deny and form.abort is not None:
            with browser.open(urllib.parse.urljoin(url, form.abort), timeout=10) as answer:
                return str(answer.read().decode())
        fields = {**form.fields}
        if "login" in fields:
            fields |= {"login": person, "password": "any"}
        if deny and "confirm" in fields:
            fields = {**{name: value for name, value in fields.items() if name != "confirm"}, "abort": "yes"}
        data = urllib.parse.urlencode(fields).encode()
        with browser.open(urllib.parse.urljoin(url, form.action), data, timeout=10) as answer:
            url, page = answer.url, answer.read().decode()
    return str(page)


class _CameBack(Exception):
    """The provider sends the browser back to the program."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class _UntilBack(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Follows redirects, but not the one back."""
        if urllib.parse.urlsplit(newurl).path == "/sign-in/callback":
            raise _CameBack(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Form(HTMLParser):
    """The first form of a page, and the link by which a person aborts."""

    def __init__(self) -> None:
        super().__init__()
        self.abort: str | None = None
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: Mapping[str, str | None] = dict(attrs)
        if tag == "a" and (given.get("href") or "").endswith("/abort"):
            self.abort = given.get("href")
        if tag == "form" and self.action is None:
            self.action = given.get("action")
        if tag == "input" and given.get("name"):
            self.fields[given["name"] or ""] = given.get("value") or ""


def _basic(credentials: str) -> str:
    return base64.b64encode(credentials.encode()).decode()
