"""An identity provider: where it answers, as its discovery document says (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh.https import Answer, FetchError, ask, why_unsafe
from handrail.mesh.printable import clean

_DISCOVERY = "/.well-known/openid-configuration"


class ProviderError(CommandError):
    """The provider refuses, with a code of OAuth 2.0 such as `access_denied`."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"the identity provider refuses: {clean(description or error)}", Exit.FORBIDDEN)
        self.error = error


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's endpoints. `revocation` is empty if it has none; `ca` is a certificate authority of its own."""

    issuer: str
    device: str
    token: str
    revocation: str = ""
    ca: Path | None = None

    def post(self, endpoint: str, form: Mapping[str, str]) -> dict[str, object]:
        """Posts a form; raises ProviderError for an error of OAuth 2.0, FetchError for no answer."""
        why = why_unsafe(endpoint, named_by=self.issuer)
        if why:
            # A login that was stored by an earlier version may have such an endpoint.
            raise FetchError(f"{endpoint!a} is not asked: {why}")
        return accepted(ask(endpoint, form=form, ca=self.ca))


def discover(issuer: str, ca: Path | None) -> Provider:
    """Asks a provider for its endpoints; raises CommandError if it can't be asked, or offers no device flow."""
    try:
        answer = ask(issuer.rstrip("/") + _DISCOVERY, ca=ca)
        found = answer.json()
    except FetchError as error:
        raise CommandError(clean(str(error)), Exit.UNREACHABLE) from None
    if answer.status != 200:
        raise CommandError(f"{answer.url} answers with HTTP {answer.status}; is that the issuer?")
    if found.get("issuer") != issuer:
        # Otherwise one provider could speak for another: OpenID Connect Discovery 1.0, section 4.3.
        raise CommandError(f"{issuer} says that its issuer is {clean(str(found.get('issuer')))[:200]}; give that one")
    device = _endpoint(found, "device_authorization_endpoint", issuer)
    token = _endpoint(found, "token_endpoint", issuer)
    if not device or not token:
        raise CommandError(f"{issuer} offers no device flow: enable it there, or use a token file")
    return Provider(issuer, device, token, _endpoint(found, "revocation_endpoint", issuer), ca)


def accepted(answer: Answer) -> dict[str, object]:
    """Returns the fields of an answer; raises ProviderError, or FetchError if it makes no sense."""
    if answer.status == 200 and not answer.body:
        return {}
    found = answer.json()
    error = found.get("error")
    if isinstance(error, str) and error:
        description = found.get("error_description")
        raise ProviderError(error, description if isinstance(description, str) else "")
    if answer.status != 200:
        raise FetchError(f"{answer.url} answers with HTTP {answer.status}")
    return found


def _endpoint(found: Mapping[str, object], name: str, issuer: str) -> str:
    """An endpoint; empty if the provider has none. Raises CommandError if it is not safe to ask."""
    url = found.get(name, "")
    if not isinstance(url, str) or (url and why_unsafe(url, named_by=issuer)):
        raise CommandError(f"the identity provider's {name} can't be used: {why_unsafe(str(url), named_by=issuer)}")
    return url
