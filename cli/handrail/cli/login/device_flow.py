"""The device flow (RFC 8628): a person confirms a code in a browser, on any machine, while the command waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.login.provider import Provider, ProviderError
from handrail.mesh.https import FetchError, why_unsafe
from handrail.mesh.printable import clean

GRANT = "urn:ietf:params:oauth:grant-type:device_code"

_INTERVAL = timedelta(seconds=5)
"""How often to ask unless the provider says otherwise (RFC 8628, section 3.2)."""

_SLOWER = timedelta(seconds=5)
"""By how much to ask less often after `slow_down` (RFC 8628, section 3.5)."""

_LONGEST = timedelta(minutes=30)
"""The longest time that a person is waited for, whatever the provider says."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the client asks for. `resource` is the API that the token is for (RFC 8707); empty to leave it out."""

    client_id: str
    scope: str
    resource: str

    def form(self, **more: str) -> dict[str, str]:
        """Returns the fields of a form, without empty ones."""
        fields = {"client_id": self.client_id, "scope": self.scope, "resource": self.resource, **more}
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True, slots=True)
class Code:
    """The code that a person confirms at `link`. `direct_link` holds the code already; it may be empty."""

    device_code: str
    user_code: str
    link: str
    direct_link: str
    expires_in: timedelta
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the provider gives. `expires_at` is None if it does not say; `refresh_token` may be empty."""

    access_token: str
    refresh_token: str
    expires_at: datetime | None


def begin(provider: Provider, request: Request) -> Code:
    """Asks for a code; raises CommandError."""
    complete = "verification_uri_complete"
    try:
        found = provider.post(provider.device, request.form())
        return Code(
            device_code=_text(found, "device_code"),
            user_code=_text(found, "user_code"),
            link=_link(provider, found, "verification_uri"),
            direct_link=_link(provider, found, complete) if found.get(complete) else "",
            expires_in=min(_seconds(found, "expires_in", _LONGEST), _LONGEST),
            interval=_seconds(found, "interval", _INTERVAL),
        )
    except FetchError as error:
        raise CommandError(clean(str(error)), Exit.UNREACHABLE) from None


def wait(
    provider: Provider,
    request: Request,
    code: Code,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Tokens:
    """Asks until the person has confirmed the code; raises CommandError if it is refused or expires."""
    interval, until = code.interval, clock() + code.expires_in.total_seconds()
    form = request.form(grant_type=GRANT, device_code=code.device_code)
    form.pop("scope", None)
    while clock() < until:
        sleep(interval.total_seconds())
        try:
            return tokens_of(provider.post(provider.token, form))
        except FetchError:
            # RFC 8628, section 3.5: after no answer, ask less often.
            interval *= 2
        except ProviderError as error:
            if error.error == "slow_down":
                interval += _SLOWER
            elif error.error == "expired_token":
                break
            elif error.error != "authorization_pending":
                raise
    raise CommandError("the code has expired before it was confirmed; log in again", Exit.FORBIDDEN)


def tokens_of(found: Mapping[str, object]) -> Tokens:
    """Returns the tokens of an answer; raises FetchError if there is no bearer token in it."""
    if str(found.get("token_type", "")).lower() != "bearer":
        raise FetchError("the identity provider's answer holds no bearer token")
    refresh = found.get("refresh_token")
    lifetime = _seconds(found, "expires_in", timedelta())
    return Tokens(
        _text(found, "access_token"),
        refresh if isinstance(refresh, str) else "",
        datetime.now(UTC) + lifetime if lifetime else None,
    )


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise FetchError(f"the identity provider's answer has no usable {name}")
    return value


def _link(provider: Provider, found: Mapping[str, object], name: str) -> str:
    link = _text(found, name)
    why = why_unsafe(link, named_by=provider.issuer)
    if why:
        raise FetchError(f"the identity provider's {name} is not safe to open: {why}")
    return link


def _seconds(found: Mapping[str, object], name: str, otherwise: timedelta) -> timedelta:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        return otherwise
    return timedelta(seconds=value)
