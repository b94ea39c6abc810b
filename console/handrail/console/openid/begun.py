"""A sign-in that was begun, and is not over yet. The browser keeps it, sealed: the console remembers nothing of it."""

from __future__ import annotations

import hmac
import json
import secrets
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from cryptography.fernet import Fernet, InvalidToken

LONGEST = timedelta(minutes=10)
"""So long a person may take to sign in at the provider."""

_MOST_ENDED = 10_000


class NotBegun(Exception):
    """The answer of a provider belongs to nothing that this browser began here. The text is for people."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What has to be known when the person comes back. `back` is the page to go to then.

    `state` ties the answer to this browser, `nonce` the ID token to this sign-in, and `verifier` (PKCE) the code.
    """

    redirect_uri: str
    back: str
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))


class Seal:
    """Seals what was begun with a key that only this process has, and opens each once."""

    def __init__(self) -> None:
        self._fernet = Fernet(Fernet.generate_key())
        self._ended: OrderedDict[str, None] = OrderedDict()

    def close(self, begun: Begun, now: datetime) -> str:
        """Returns the value of a cookie, which tells nothing and can't be changed."""
        return self._fernet.encrypt_at_time(json.dumps(asdict(begun)).encode(), int(now.timestamp())).decode()

    def open(self, sealed: str, *, state: str, now: datetime) -> Begun:
        """Opens what was sealed in this browser, for an answer with this `state`. Raises NotBegun.

        What is not opened stays as it is: a stranger's answer does not end what a person began.
        """
        try:
            text = self._fernet.decrypt_at_time(
                sealed.encode(), int(LONGEST.total_seconds()), current_time=int(now.timestamp())
            )
        except InvalidToken:
            raise NotBegun("This sign-in was not begun in this browser, or more than ten minutes ago.") from None
        begun = Begun(**json.loads(text))
        if not hmac.compare_digest(state.encode(), begun.state.encode()):
            raise NotBegun("This is the answer to another sign-in than the last one that was begun in this browser.")
        if begun.state in self._ended:
            raise NotBegun("This sign-in is over: its answer counts once.")
        self._ended[begun.state] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)
        return begun
