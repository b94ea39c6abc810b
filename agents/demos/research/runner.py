"""Runs the demo: the installation with its agents as processes, people's answers, a killed agent, and the audit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from demos.research import settings
from demos.research.audit import Evidence, audit
from demos.research.expected import Expected, expect
from demos.research.plan import MAINTAINERS, Plan
from demos.research.report import outcome_table, worst_table
from demos.research.reports import Reports
from demos.research.source import LEFT_OUT, MAX_FILES, python_files
from demos.stage.board import Board
from demos.stage.desk import Desk, Question
from demos.stage.killer import Killer
from demos.stage.stage import Stage
from demos.stage.story import Story
from handrail.cli.client import Client
from handrail.cli.dev.people import OPERATOR, VIEWER
from handrail.mesh.contracts import pack
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import Approval, ListFlowEventsRequest, StartFlowRequest
from research.v1.research_pb2 import ChangePlanProposed, ReportWritten, ResearchRequested

FLOW_TYPE = "research"
OUTPUT = "reports"

LIMIT_SECONDS = 100
"""Seconds until every flow must have ended. The killed agent's messages are delivered again after 30 seconds."""

_GENERATED = "gen"


def folders_of(tree: Path) -> dict[str, Path]:
    """The folders below a tree with Python source, by name, without generated code."""
    return {
        path.name: path
        for path in sorted(tree.iterdir())
        if path.is_dir() and path.name not in LEFT_OUT | {_GENERATED} and path.name[0] != "." and python_files(path)
    }


class Run:
    """One run over the folders of a tree. Its files are in `folder`."""

    def __init__(self, tree: Path, *, seed: int, folder: Path, story: Story, stays: bool = False) -> None:
        """With `stays`, the installation stays up at the end."""
        self._folders = folders_of(tree)
        self._tree = tree
        self._seed = seed
        self._folder = folder
        self._output = folder / OUTPUT
        self._plan = Plan.draw(list(self._folders), seed)
        self._story = story
        self._stays = stays

    def run(self) -> bool:
        """Runs the demo and tells the story; returns whether everything ended as planned.

        Raises:
            StartError: if the installation can't be started.
            CommandError: if the coordinator can't be reached, or refuses a call.
        """
        if not self._folders:
            self._story.tell(f"{self._tree} has no folder with Python source: nothing to do")
            return True
        expected = {name: expect(path, python_files(path)[:MAX_FILES]) for name, path in self._folders.items()}
        self._announce(expected)
        environment = {settings.OUTPUT: str(self._output.absolute())}
        with Stage(
            "demos.research", folder=self._folder, environment=environment, story=self._story, stays=self._stays
        ) as stage:
            stage.start_agents(last="discovery")
            board = Board(stage.client(VIEWER), FLOW_TYPE, self._folders)
            self._start(stage.client(OPERATOR))
            late = self._play(stage, board)
            written = dict(self._written(stage.client(VIEWER), board))
            is_done = self._conclude(expected, Evidence(board.statuses, written, Reports(self._output)), late)
            # The one whose plan a person refuses.
            shown = min(self._folders, key=lambda name: self._plan.votes[name].approve)
            stage.stay(shown, board.flow_ids[shown])
        return is_done

    def _announce(self, expected: Mapping[str, Expected]) -> None:
        tell = self._story.tell
        for name, each in expected.items():
            vote = self._plan.votes[name]
            answer = "yes" if vote.approve else "no"
            tell(f"{name}: {each.files} files, {each.lines:,} lines; {vote.voter} will say {answer}")
        tell(f"analysis will be killed when the first flow has ended (answers are drawn from seed {self._seed})")

    def _start(self, client: Client) -> None:
        for name, path in self._folders.items():
            requested = ResearchRequested(name=name, folder=str(path.absolute()))
            request = StartFlowRequest(flow_type=FLOW_TYPE, key=name, data=pack(requested))
            client.call(client.flows.StartFlow, request)
        self._story.tell(f"{len(self._folders)} flows begin")

    def _play(self, stage: Stage, board: Board) -> list[str]:
        desk = Desk({name: stage.client(name) for name in MAINTAINERS}, self._question, self._story)
        killer = Killer(stage.stack, self._plan.kill, self._story)

        def look() -> None:
            desk.look()
            for name in board.look():
                self._story.tell(f"{name}: {FlowStatus.Name(board.statuses[name]).removeprefix('FLOW_STATUS_')}")
            killer.look(board.ended)

        return stage.play(board, look, is_over=lambda: killer.is_done and not board.open, seconds=LIMIT_SECONDS)

    def _question(self, approval: Approval) -> Question:
        proposed = ChangePlanProposed()
        approval.data.Unpack(proposed)
        about = f"{proposed.name}: remove {len(proposed.remove)} imports, simplify {len(proposed.simplify)} functions"
        votes = [self._plan.votes[proposed.name]]
        return Question(about, "a maintainer", votes, refusal="not before the release")

    def _written(self, client: Client, board: Board) -> Iterator[tuple[str, ReportWritten]]:
        for name, flow_id in board.flow_ids.items():
            request = ListFlowEventsRequest(flow_id=flow_id)
            for recorded in client.listed(client.flows.ListFlowEvents, request, items=lambda page: page.events):
                report = ReportWritten()
                if recorded.event.data.Unpack(report):
                    yield name, report

    def _conclude(self, expected: Mapping[str, Expected], evidence: Evidence, late: Sequence[str]) -> bool:
        wrong = [*late, *audit(expected, self._plan, evidence)]
        outcomes = outcome_table(self._plan, evidence)
        self._story.show(["", *outcomes, "", *worst_table(evidence), "", *(f"WRONG: {each}" for each in wrong)])
        if wrong:
            self._story.tell(f"not as expected: {len(wrong)} faults")
        else:
            self._story.tell(f"{len(expected)} flows, each report agrees with another way of counting")
        return not wrong
