"""What the token endpoint gives: for a code, and for a refresh token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handrail.console.openid.begun import Begun
from handrail.console.openid.provider import Provider, ProviderError

_LONGEST = 16_384


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one answer. `refresh_token` and `id_token` may be empty."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    id_token: str = field(repr=False)


async def exchange(provider: Provider, begun: Begun, code: str) -> Tokens:
    """The tokens for a code. Raises ProviderError; ProviderRefused if the code is void, used, or another's."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": begun.redirect_uri,
        "code_verifier": begun.verifier,
    }
    return await _asked(provider, form)


async def refresh(provider: Provider, refresh_token: str) -> Tokens:
    """The next tokens. Raises ProviderError; ProviderRefused if the refresh token is void, or was used."""
    return await _asked(provider, {"grant_type": "refresh_token", "refresh_token": refresh_token})


async def _asked(provider: Provider, form: Mapping[str, str]) -> Tokens:
    resource = provider.client.resource
    found = await provider.token({**form, **({"resource": resource} if resource else {})})
    tokens = Tokens(*(_text(found, name) for name in ("access_token", "refresh_token", "id_token")))
    if not tokens.access_token or str(found.get("token_type", "")).lower() != "bearer":
        raise ProviderError(f"{provider.client.name} gives no usable answer: there is no bearer token in it.")
    return tokens


def _text(found: Mapping[str, object], name: str) -> str:
    """A token in an answer; empty if there is none that could be one."""
    value = found.get(name)
    is_token = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    return str(value) if is_token and len(str(value)) <= _LONGEST else ""
