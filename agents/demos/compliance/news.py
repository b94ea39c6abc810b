"""Tells the results: distributions without findings only by number, everything else one by one."""

from collections.abc import Iterable
from textwrap import shorten

from compliance.v1.compliance_pb2 import ApprovalWithdrawn, CheckFailed, Finding, TamperingFound
from demos.compliance.approvals import Register
from demos.compliance.history import History
from demos.stage.board import Board
from demos.stage.story import Story
from handrail.cli.client import Client
from handrail.v1.decision_pb2 import FlowStatus

LONGEST = 160
"""The number of characters of a finding that are printed."""


class News:
    """Tells news of the register and the board once."""

    def __init__(self, client: Client, register: Register, board: Board, story: Story) -> None:
        self._client = client
        self._register = register
        self._board = board
        self._story = story
        self._approved: set[str] = set()
        self._verified = 0

    def tell_of_approvals(self) -> frozenset[str]:
        """Tells the approvals since the last time; returns all approvals so far."""
        new = [each for each in self._register.approvals() if each.distribution not in self._approved]
        self._approved |= {each.distribution for each in new}
        for each in new:
            if each.remarks:
                said = "; ".join(self._findings(each.distribution))
                self._story.tell(f"{each.distribution} is approved with a remark: {said}")
        if any(not each.remarks for each in new):
            self._story.tell(f"approved so far: {len(self._approved)}")
        return frozenset(self._approved)

    def tell_of_ends(self, ended: Iterable[str]) -> None:
        """Tells the flows that have ended since the last time."""
        verified = 0
        for key in ended:
            status = self._board.statuses[key]
            if status == FlowStatus.FLOW_STATUS_COMPLETED:
                verified += 1
                continue
            history = History.read(self._client, self._board.flow_ids[key])
            ending = FlowStatus.Name(status).removeprefix("FLOW_STATUS_").lower()
            found = [finding for each in history.of(TamperingFound) for finding in each.findings]
            why = "; ".join(map(in_words, found[:2]))
            withdrawn = "and its approval is withdrawn" if history.of(ApprovalWithdrawn) else "and has no approval"
            self._story.tell(f"{key} ends {ending}, {withdrawn}{': ' if why else ''}{why}")
        self._verified += verified
        if verified:
            self._story.tell(f"verified so far, with unchanged files: {self._verified}")

    def _findings(self, key: str) -> list[str]:
        failed = History.read(self._client, self._board.flow_ids[key]).of(CheckFailed)
        return [in_words(each.findings[0]) for each in failed]


def in_words(finding: Finding) -> str:
    """A finding as a line of the story."""
    return shorten(": ".join(filter(None, (finding.subject, finding.text))), LONGEST, placeholder=" …")
