"""The catalog of templates from the TEMPLATE stream: all stored versions, and the active one of each flow type."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from google.protobuf.message import DecodeError

from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import AlreadyStored, HandrailError, WrongSequence
from handrail.mesh.streams.follower import Follower
from handrail.mesh.streams.streams import TEMPLATE
from handrail.mesh.template import Template
from handrail.mesh.template.decisions import Activated, Decided, TemplateDecisions
from handrail.mesh.wire.envelope import timestamp
from handrail.mesh.wire.subjects import POLICY, activation_subject, template_subject
from handrail.v1.act_pb2 import ActConfirmation
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import CallerRequest
from handrail.v1.template_pb2 import Activation, StoredTemplate

_logger = logging.getLogger(__name__)

_EVERYTHING = "template.>"


class Catalog:
    """The stored templates, read once and then incrementally. `get` and `versions` never read the stream; `template`
    and `active` read it if they don't find the version.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stored: dict[tuple[str, int], StoredTemplate] = {}
        self._compiled: dict[tuple[str, int], Template] = {}
        self.decisions = TemplateDecisions()
        """Activations, the policy, and what waits for a second person."""
        self._requests: dict[tuple[str, str], CallerRequest] = {}
        self._unusable: dict[str, HandrailError] = {}
        self._follower = Follower(bus, TEMPLATE, _EVERYTHING, self._take)

    async def refresh_from_leader(self) -> None:
        """Reads everything that the stream's leader has now. Required before writes and refusals."""
        await self._follower.refresh_from_leader()

    async def refresh(self) -> bool:
        """Reads what was stored since the last time. Returns whether there was anything. The replica may lag."""
        return await self._follower.refresh()

    def get(self, name: str, version: int) -> Template | None:
        """A version that is already known, or None; never reads the stream."""
        return self._compiled.get((name, version))

    def names(self) -> tuple[str, ...]:
        """The flow types known so far."""
        return tuple(sorted({name for name, _ in self._stored}))

    def versions(self, name: str) -> tuple[Template, ...]:
        """The versions of a flow type known so far, oldest first."""
        return tuple(template for template in self.all() if template.name == name)

    def all(self) -> tuple[Template, ...]:
        """All versions known so far, by name and version."""
        return tuple(self._compiled[key] for key in sorted(self._compiled))

    def stored(self, name: str, version: int) -> StoredTemplate | None:
        """The stored form of a version, if it is already known; never reads the stream."""
        return self._stored.get((name, version))

    def activations(self, name: str) -> tuple[Activation, ...]:
        """The activation log as known so far, oldest first."""
        return tuple(each.activation for each in self.decisions.log(name))

    def activated_before(self, sequence: int) -> tuple[Template, ...]:
        """The known versions that were active at any time before this position in the stream."""
        return tuple(
            template
            for template in self.all()
            if any(
                each.sequence < sequence and each.activation.version == template.version
                for each in self.decisions.log(template.name)
            )
        )

    def is_repeated(self, request: CallerRequest | None) -> bool:
        """Whether the same call is already recorded. Raises REQUEST_ID_REUSED if its id belongs to another call."""
        if request is None or not request.id:
            return False
        known = self._requests.get((request.caller, request.id))
        if known is not None and known != request:
            raise HandrailError(
                ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                f"request id {request.id} was used before for another request ({known.rpc}); take a new id for each "
                "request",
            )
        return known is not None

    def active_version(self, name: str) -> int:
        """The version that new flows start with, as far as known; 0 if none is active."""
        log = self.activations(name)
        return log[-1].version if log else 0

    async def template(self, name: str, version: int) -> Template:
        """A version. Raises TEMPLATE_NOT_FOUND, or MALFORMED if the stored content can't be used."""
        if (name, version) not in self._compiled:
            await self.refresh()
        if (name, version) not in self._compiled:
            await self.refresh_from_leader()
        template = self.get(name, version)
        if template is None:
            raise self._unusable.get(template_subject(name, version)) or no_version(name, version)
        return template

    async def active(self, name: str, *, from_leader: bool = False) -> Template:
        """The version that new flows start with. Raises FLOW_TYPE_NOT_FOUND if none is active.

        Reads a replica, which may lag. Reads the leader if `from_leader` is set, or if the replica knows none.
        """
        if from_leader:
            await self.refresh_from_leader()
        else:
            await self.refresh()
        if not self.active_version(name):
            await self.refresh_from_leader()
        version = self.active_version(name)
        if not version:
            known = ", ".join(known for known in self.names() if self.active_version(known))
            raise HandrailError(
                ErrorReason.ERROR_REASON_FLOW_TYPE_NOT_FOUND,
                f"no version of flow type {name} is active; active are: {known or 'none'}",
                flow_type=name,
            )
        return await self.template(name, version)

    async def put(self, stored: StoredTemplate) -> bool:
        """Stores a version. Returns False if another call has already stored the same content. Raises TEMPLATE_EXISTS
        if other content is stored, REQUEST_ID_REUSED if the id of the call was used for another one.
        """
        name, version = stored.template.name, stored.template.version
        if stored.request.id:
            await self.refresh_from_leader()
            if self.is_repeated(stored.request):
                return True
        try:
            await self._bus.publish(template_subject(name, version), stored.SerializeToString())
        except AlreadyStored:
            await self.refresh_from_leader()
            present = self.stored(name, version)
            if present is not None and present.digest == stored.digest:
                return self.is_repeated(stored.request)
            free = 1 + max([version, *(number for known, number in self._stored if known == name)])
            raise HandrailError(
                ErrorReason.ERROR_REASON_TEMPLATE_EXISTS,
                f"template {name} version {version} is stored with other content, and versions are immutable; store "
                f"the new one as version {free}",
                template=name,
                version=str(version),
                free=str(free),
            ) from None
        await self.template(name, version)
        return True

    async def activate(
        self,
        name: str,
        version: int,
        *,
        by: str,
        reason: str,
        now: datetime,
        request: CallerRequest | None = None,
        force: bool = False,
        confirmation: ActConfirmation | None = None,
    ) -> Activated:
        """Records that new flows start with this version. Idempotent: returns an existing activation if the version is
        already active, or if the same call recorded it.

        Update the durables first. Raises TEMPLATE_NOT_FOUND if the version is not stored, REQUEST_ID_REUSED if the id
        of the call was used for another one, TWO_PERSONS_NEEDED if the policy wants a `confirmation`, and the reason
        why one does not count.
        """
        await self.template(name, version)
        activation = Activation(
            version=version,
            by=by,
            reason=reason,
            time=timestamp(now),
            request=request,
            force=force,
            confirmation=confirmation,
        )
        subject = ""
        while True:
            await self.refresh_from_leader()
            log = self.decisions.log(name)
            if request is not None and self.is_repeated(request):
                return next(each for each in log if each.activation.request == request)
            if confirmation is not None and (done := _confirmed(log, confirmation)) is not None:
                return done
            if log and log[-1].activation.version == version and confirmation is None:
                return log[-1]
            self.require(name, activation, now, subject)
            subject = activation_subject(name, self.decisions.next_number(name, "active"))
            try:
                await self._bus.publish(subject, activation.SerializeToString(), expected_sequence=0)
            except (AlreadyStored, WrongSequence):
                continue  # another writer was faster, or our own answer got lost: the log tells which

    def require(self, name: str, decided: Decided, now: datetime, subject: str = "") -> None:
        """Raises the reason why a decision would not count at `now`, or why the one stored under `subject` does not."""
        refused = self.decisions.refused.get(subject) or self.decisions.why_not(name, decided, now)
        if refused is not None:
            about = "the policy" if name == POLICY else f"template {name}"
            raise HandrailError(refused.reason, f"{about}: {refused.text}", template=name)

    def _take(self, message: RawMessage) -> None:
        """Processes one message of the stream. An unreadable one must not hide the others."""
        try:
            request = self.decisions.take(message.subject, message.body, sequence=message.sequence, time=message.time)
            if request is not None:
                self._take_request(request)
                return
            stored = StoredTemplate.FromString(message.body)
            template = Template.compile(stored.template, Contracts.from_descriptor_set(stored.descriptors))
            if message.subject != template_subject(template.name, template.version):
                raise ValueError(f"it is {template.name} version {template.version}")
        except (DecodeError, ValueError, HandrailError) as error:
            text = f"the TEMPLATE stream holds {message.subject}, which can't be used: {error}"
            _logger.error("%s", text)
            self._unusable[message.subject] = HandrailError(ErrorReason.ERROR_REASON_MALFORMED, text)
            return
        self._stored[template.name, template.version] = stored
        self._compiled[template.name, template.version] = template
        self._take_request(stored.request)

    def _take_request(self, request: CallerRequest) -> None:
        if request.id:
            self._requests.setdefault((request.caller, request.id), request)


def _confirmed(log: Iterable[Activated], confirmation: ActConfirmation) -> Activated | None:
    return next((each for each in log if each.activation.confirmation == confirmation), None)


def no_version(name: str, version: int) -> HandrailError:
    """Returns the error for a version that is not stored."""
    return HandrailError(
        ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND,
        f"no template {name} version {version} is stored",
        template=name,
        version=str(version),
    )
