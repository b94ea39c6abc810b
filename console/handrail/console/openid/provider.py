"""The identity provider: where it answers, as its discovery document says, and questions to it."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote_plus

from handrail.console.openid.client import Client
from handrail.mesh.https import Answer, FetchError, ask, why_unsafe
from handrail.mesh.printable import clean, cut

_DISCOVERY = "/.well-known/openid-configuration"
_KEPT = timedelta(minutes=5)
_MOST_QUESTIONS = 16
_LONGEST_TEXT = 200
_BUSY = 429


class ProviderError(Exception):
    """The provider gave no usable answer. The text is one sentence for people, fit to be shown."""


class ProviderRefused(ProviderError):
    """The provider refuses: an error of OAuth 2.0, such as `invalid_grant`."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the provider says of itself. `revocation` and `end_session` are empty if it has none."""

    authorization: str
    token: str
    keys: str
    revocation: str
    end_session: str
    names_itself: bool
    """Whether its answers to browsers carry `iss` (RFC 9207)."""
    takes_basic: bool
    """Whether the secret goes into a header (client_secret_basic), as is the default, or into the form."""


class Provider:
    """The provider of one client. What it says of itself is kept for five minutes.

    Failed questions raise ProviderError. At most 16 are asked at a time.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._known: Metadata | None = None
        self._known_until = 0.0
        self._discovery: asyncio.Task[Metadata] | None = None
        self._questions = 0

    @property
    def known(self) -> Metadata | None:
        """What the provider said of itself last; None if it was not asked yet."""
        return self._known

    async def metadata(self) -> Metadata:
        """What the provider says of itself. All who wait for it share one question, and its failure."""
        if self._known is not None and time.monotonic() < self._known_until:
            return self._known
        if self._discovery is None:
            self._discovery = asyncio.create_task(self._discover())
            self._discovery.add_done_callback(self._discovered)
        return await asyncio.shield(self._discovery)

    async def key_set(self) -> dict[str, object]:
        """The keys with which the provider signs now."""
        metadata = await self.metadata()
        answer = await self._ask(metadata.keys)
        return self._object(answer)

    async def token(self, form: Mapping[str, str]) -> dict[str, object]:
        """Asks the token endpoint, as this client. Raises ProviderRefused for an error of OAuth 2.0."""
        metadata = await self.metadata()
        headers, fields = self._authentication(metadata)
        answer = await self._ask(metadata.token, {**form, **fields}, headers)
        try:
            found = answer.json()
        except FetchError as error:
            raise self._failed(str(error)) from None
        if found.get("error") and answer.status < 500 and answer.status != _BUSY:
            raise self.refused(found.get("error"), found.get("error_description"))
        return self._object(answer)

    async def revoke(self, refresh_token: str) -> None:
        """Has the provider end what it gave with this token (RFC 7009), if it offers that."""
        metadata = await self.metadata()
        if not metadata.revocation:
            return
        headers, fields = self._authentication(metadata)
        form = {"token": refresh_token, "token_type_hint": "refresh_token", **fields}
        answer = await self._ask(metadata.revocation, form, headers)
        if answer.status != 200:
            raise self._failed(f"{answer.url} answers with HTTP {answer.status}")

    def refused(self, error: object, description: object) -> ProviderRefused:
        """The refusal that the provider tells in these words, which may be anything."""
        words = next((each for each in (description, error) if isinstance(each, str) and each), "no reason given")
        return ProviderRefused(f"{self.client.name} refuses: {cut(clean(words), _LONGEST_TEXT).rstrip('.')}.")

    def _discovered(self, task: asyncio.Task[Metadata]) -> None:
        self._discovery = None
        if not task.cancelled() and task.exception() is None:
            self._known, self._known_until = task.result(), time.monotonic() + _KEPT.total_seconds()

    async def _discover(self) -> Metadata:
        issuer = self.client.issuer
        found = self._object(await self._ask(issuer.rstrip("/") + _DISCOVERY))
        if found.get("issuer") != issuer:
            # Otherwise one provider could speak for another: OpenID Connect Discovery 1.0, section 4.3.
            said = cut(clean(str(found.get("issuer"))), _LONGEST_TEXT)
            raise self._failed(f"the console knows it as {issuer}, and it says that it is {said}")
        methods = found.get("token_endpoint_auth_methods_supported")
        return Metadata(
            authorization=self._endpoint(found, "authorization_endpoint"),
            token=self._endpoint(found, "token_endpoint"),
            keys=self._endpoint(found, "jwks_uri"),
            revocation=self._optional(found, "revocation_endpoint"),
            end_session=self._optional(found, "end_session_endpoint"),
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
            takes_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        )

    def _optional(self, found: Mapping[str, object], name: str) -> str:
        return self._endpoint(found, name) if found.get(name) else ""

    def _endpoint(self, found: Mapping[str, object], name: str) -> str:
        url = found.get(name, "")
        why = why_unsafe(url, named_by=self.client.issuer) if isinstance(url, str) else "it is not a text"
        if why:
            raise self._failed(f"its {name} can't be used: {why}")
        return str(url)

    def _authentication(self, metadata: Metadata) -> tuple[dict[str, str], dict[str, str]]:
        """The headers and the fields of a form that say and prove which client asks."""
        client = self.client
        if client.secret and metadata.takes_basic:
            # RFC 6749, section 2.3.1: both are encoded as in a form before they are joined.
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
            return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}, {}
        return {}, {"client_id": client.client_id} | ({"client_secret": client.secret} if client.secret else {})

    async def _ask(
        self, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        if self._questions >= _MOST_QUESTIONS:
            raise ProviderError(f"Too many people sign in at {self.client.name} at once: try again in a moment.")
        self._questions += 1
        client = self.client
        try:
            return await asyncio.to_thread(
                ask, url, form=form, headers=headers or {}, ca=client.ca, within=client.timeout
            )
        except FetchError as error:
            raise self._failed(str(error)) from None
        finally:
            self._questions -= 1

    def _object(self, answer: Answer) -> dict[str, object]:
        if answer.status != 200:
            raise self._failed(f"{answer.url} answers with HTTP {answer.status}")
        try:
            return answer.json()
        except FetchError as error:
            raise self._failed(str(error)) from None

    def _failed(self, why: str) -> ProviderError:
        return ProviderError(f"{self.client.name} gives no usable answer: {cut(clean(why), 2 * _LONGEST_TEXT)}.")
