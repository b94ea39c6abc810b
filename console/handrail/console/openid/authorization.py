"""The way to the provider and back, by the browser's address alone."""

from __future__ import annotations

from collections.abc import Mapping

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from handrail.console.openid.begun import Begun
from handrail.console.openid.client import Client
from handrail.console.openid.provider import Metadata, Provider, ProviderError

_LONGEST_CODE = 4_096


class AnswerError(ProviderError):
    """What the browser brings is no answer of the provider."""


def link(client: Client, metadata: Metadata, begun: Begun) -> str:
    """The address at which the person signs in."""
    address: str = prepare_grant_uri(
        metadata.authorization,
        client.client_id,
        "code",
        redirect_uri=begun.redirect_uri,
        scope=" ".join(client.scope),
        state=begun.state,
        nonce=begun.nonce,
        code_challenge=create_s256_code_challenge(begun.verifier),
        code_challenge_method="S256",
        resource=client.resource or None,
        # OpenID Connect Core 1.0, section 11: without it, a provider has to ignore the wish for a refresh token.
        prompt="consent" if "offline_access" in client.scope else None,
    )
    return address


def sign_out_link(client: Client, metadata: Metadata) -> str:
    """The address at which the person signs out at the provider; empty if it has none."""
    if not metadata.end_session:
        return ""
    address: str = add_params_to_uri(metadata.end_session, [("client_id", client.client_id)])
    return address


def code_of(provider: Provider, metadata: Metadata, answer: Mapping[str, str]) -> str:
    """The code in the answer that the browser brings, of which `state` was looked at before.

    Raises ProviderRefused if the provider gave an error, AnswerError if the answer is another's or makes no sense.
    """
    name, issuer = provider.client.name, answer.get("iss", "")
    if issuer != provider.client.issuer and (issuer or metadata.names_itself):
        # Another provider's code would go to this one, or this one's to another (RFC 9207).
        raise AnswerError(f"This answer is not from {name}: it names another issuer, or none.")
    if answer.get("error"):
        raise provider.refused(answer["error"], answer.get("error_description"))
    code = answer.get("code", "")
    if not code or len(code) > _LONGEST_CODE:
        raise AnswerError(f"{name} gives no usable answer: there is no code in it.")
    return code
