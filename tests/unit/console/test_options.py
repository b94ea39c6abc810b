"""Options that would let strangers in, or tokens out, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handrail.console.openid.client import Client, ClientError
from handrail.console.options import OptionError, Options

TLS = {"certificate": Path("c.pem"), "key": Path("k.pem")}
HOSTS = frozenset({"console.example.com"})


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"listen": "0.0.0.0:7080"}, "plain text"),
        ({"listen": "0.0.0.0:7080", "hosts": HOSTS}, "plain text"),
        ({"listen": "0.0.0.0:7080", **TLS}, "name the hosts"),
        ({"listen": "127.0.0.1:7080", "certificate": Path("c.pem")}, "its key"),
        ({"listen": "127.0.0.1:7080", "identities": Path("t"), "hosts": HOSTS}, "one-click"),
        ({"listen": "0.0.0.0:7080", "identities": Path("t"), "hosts": HOSTS, **TLS}, "one-click"),
        ({"listen": "127.0.0.1:7080", "pasted": False}, "nobody could sign in"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        Options(coordinator="127.0.0.1:7070", **options)


def test_beyond_this_machine_only_the_named_hosts_count() -> None:
    assert Options(listen="0.0.0.0:443", coordinator="c:1", hosts=HOSTS, **TLS).allowed_hosts == HOSTS  # type: ignore[arg-type]
    assert "localhost" in Options(listen="127.0.0.1:1", coordinator="c:1").allowed_hosts


@pytest.mark.parametrize(
    "options, complaint", [({"client_id": ""}, "give one"), ({"client_id": "c", "scope": ("profile",)}, "lack openid")]
)
def test_a_client_at_which_nobody_could_sign_in_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint):
        Client(issuer="https://id.example.com", **options)


def test_a_client_does_not_print_its_secret_and_calls_its_provider_by_its_host() -> None:
    client = Client(issuer="https://id.example.com/realms/payments", client_id="c", secret="the secret")
    assert "the secret" not in repr(client)
    assert client.name == "id.example.com"
