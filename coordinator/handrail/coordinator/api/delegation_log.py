"""The log of delegations: the stream DELEGATION, which holds each delegation once, and its early end once."""

from __future__ import annotations

import logging

from google.protobuf.message import DecodeError

from handrail.coordinator.api.tokens.revocations import Revocations
from handrail.coordinator.reconcile.repeated_calls import reused
from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.errors import AlreadyStored, WrongSequence
from handrail.mesh.printable import clean
from handrail.mesh.streams import DELEGATION
from handrail.mesh.streams.follower import Follower
from handrail.mesh.wire.envelope import from_timestamp
from handrail.mesh.wire.subjects import IDENTIFIER, delegation_end_subject, delegation_subject
from handrail.v1.delegation_service_pb2 import Delegation, DelegationEnd, ListedDelegation

_logger = logging.getLogger(__name__)

_EVERYTHING = "delegation.>"
_END = "end"


class DelegationLog:
    """All delegations that were recorded, by id. Reads only what was added since the last time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._listed: dict[str, ListedDelegation] = {}
        self._follower = Follower(bus, DELEGATION, _EVERYTHING, self._take)

    async def read(self) -> tuple[ListedDelegation, ...]:
        """Everything that the stream's leader has, oldest first, without a status. Raises BROKER_UNAVAILABLE."""
        await self._follower.refresh_from_leader()
        return tuple(self._listed.values())

    async def add(self, delegation: Delegation) -> ListedDelegation:
        """Records a delegation and returns its current state; also if the same call recorded it before.

        Raises REQUEST_ID_REUSED if its id was used for another call.
        """
        delegation_id = delegation.delegation_id
        await self._publish(delegation_subject(delegation_id), delegation.SerializeToString())
        await self._follower.refresh_from_leader()
        listed = self._listed[delegation_id]
        if listed.delegation.request != delegation.request:
            raise reused(delegation.request, "another delegation")
        return listed

    async def end(self, delegation_id: str, end: DelegationEnd) -> ListedDelegation:
        """Ends a recorded delegation and returns its current state; one that was ended before stays as it was."""
        await self._publish(delegation_end_subject(delegation_id), end.SerializeToString())
        await self._follower.refresh_from_leader()
        return self._listed[delegation_id]

    async def _publish(self, subject: str, body: bytes) -> None:
        try:
            await self._bus.publish(subject, body, expected_sequence=0)
        except (AlreadyStored, WrongSequence):
            """The first one stays; the log shows it."""

    def _take(self, message: RawMessage) -> None:
        """Processes one message of the stream. An unreadable one must not hide the others."""
        tokens = message.subject.split(".")
        try:
            if len(tokens) == 3 and tokens[2] == _END and tokens[1] in self._listed:
                self._listed[tokens[1]].end.CopyFrom(DelegationEnd.FromString(message.body))
                return
            delegation = Delegation.FromString(message.body)
        except DecodeError as error:
            _logger.error("the stream DELEGATION holds %s, which can't be read: %s", clean(message.subject), error)
            return
        if len(tokens) != 2 or tokens[1] != delegation.delegation_id or not IDENTIFIER.fullmatch(tokens[1]):
            _logger.error("the stream DELEGATION holds %s, which is not a delegation", clean(message.subject))
            return
        self._listed[tokens[1]] = ListedDelegation(delegation=delegation, sequence=message.sequence)


def is_revoked(passed_on: Delegation, revoked: Revocations) -> bool:
    """Whether the token that recorded a delegation was revoked: its bearer may have been somebody else."""
    issued = from_timestamp(passed_on.token_issue_time) if passed_on.HasField("token_issue_time") else None
    return revoked.revoke(token_id=passed_on.token_id, subject=passed_on.delegator, issued_at=issued)
