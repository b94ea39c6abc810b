"""Runs the demo: the installation with its agents as processes, a person's answers, the tampering, and the audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from demos.compliance import settings
from demos.compliance.approvals import Register
from demos.compliance.audit import Evidence, audit, ending
from demos.compliance.checks.licences import Policy
from demos.compliance.checks.names import Names
from demos.compliance.copies import can_be_copied, copy, tamper
from demos.compliance.expected import Expected, expect
from demos.compliance.files import Files
from demos.compliance.history import History
from demos.compliance.installed import Environment, Installed
from demos.compliance.inventory import FLOW_TYPE
from demos.compliance.news import News
from demos.compliance.officer import NAME as OFFICER
from demos.compliance.officer import Officer
from demos.compliance.plan import Plan, Tampering, draw_copies
from demos.compliance.report import check_table, outcome_table, register_table
from demos.stage.board import Board
from demos.stage.stage import Stage
from demos.stage.story import Story
from handrail.cli.dev.people import VIEWER
from handrail.v1.decision_pb2 import Choice

COPIES = "copies"
"""The name of the environment that is tampered with."""

LIMIT_SECONDS = 75
LIMIT_PER_DISTRIBUTION = 0.5
"""Seconds until every flow must have ended, and what each distribution adds."""

INVENTORY, AUDITOR = "inventory", "auditor"


class Run:
    """One run over the distributions that are installed in `site`. It leaves its files in `folder`."""

    def __init__(self, site: Path, policy: Path, *, seed: int, folder: Path, story: Story) -> None:
        self._here = Environment(settings.HERE, site)
        self._policy = policy
        self._seed = seed
        self._files = Files(folder)
        self._copies = Environment(COPIES, self._files.copies)
        self._story = story

    def run(self) -> bool:
        """Run it and tell the story; whether everything ended as it must.

        Raises:
            OSError: where the environment, or the policy, can't be read.
            ValueError: where the policy is none.
            StartError: where the installation can't be started.
            CommandError: where the coordinator can't be reached, or refuses a call.
        """
        expected = self._check(self._here)
        if not expected:
            self._story.tell(f"nothing is installed in {self._here.site}: there is nothing to do")
            return True
        copies, tampering = self._copy(expected)
        expected |= self._check(self._copies)
        plan = Plan.draw(tampering, expected, self._seed)
        self._announce(expected, plan)
        self._files.write_plan(plan, seed=self._seed)
        environment = self._files.environment([self._here, self._copies], policy=self._policy)
        with Stage("demos.compliance", folder=self._files.folder, environment=environment, story=self._story) as stage:
            stage.start_agents(last=INVENTORY, later={AUDITOR})
            viewer = stage.client(VIEWER)
            board = Board(viewer, FLOW_TYPE, expected)
            late = self._play(stage, board, plan, copies)
            histories = {key: History.read(viewer, board.flow_ids[key]) for key in board.statuses}
        register = Register(self._files.register)
        evidence = Evidence(board.statuses, histories, register.approvals(), register.withdrawn())
        return self._conclude(expected, plan, evidence, late)

    def _check(self, environment: Environment) -> dict[str, Expected]:
        return expect(environment, Policy.load(self._policy), Names.load(settings.names_path()))

    def _copy(self, expected: Mapping[str, Expected]) -> tuple[dict[str, Installed], dict[str, Tampering]]:
        """Copy a few distributions that nothing is wrong with; returns them, and what is done to each.

        Those that are to be found at once are tampered with.
        """
        self._files.copies.mkdir()
        clean = {key: each.installed for key, each in expected.items() if not each.failed}
        drawn = draw_copies((key for key, each in clean.items() if can_be_copied(each)), self._seed)
        copies, tampering = {}, {}
        for key, kind in drawn.items():
            copied = copy(clean[key], self._copies)
            copies[copied.key], tampering[copied.key] = copied, kind
            if kind is Tampering.BEFORE:
                tamper(copied, rewrite_record=False)
        return copies, tampering

    def _announce(self, expected: Mapping[str, Expected], plan: Plan) -> None:
        tell = self._story.tell
        here = len(expected) - len(plan.tampering)
        tell(f"{here} distributions in {self._here.site}, and copies of {len(plan.tampering)} of them to tamper with")
        tell(f"drawn from seed {self._seed}:")
        for key, kind in plan.tampering.items():
            tell(f"  {key}: {kind}")
        for key, choice in plan.answers.items():
            tell(f"  {key} is a matter for a person: {OFFICER} will say {answer_in_words(choice)}")

    def _play(self, stage: Stage, board: Board, plan: Plan, copies: Mapping[str, Installed]) -> list[str]:
        """Look after everything until all flows have ended, or it takes too long.

        The auditor comes when what is to be tampered with after its approval is approved, and was tampered with.
        """
        officer = Officer(stage.client(OFFICER), board, plan.answers, self._story)
        news = News(stage.client(VIEWER), Register(self._files.register), board, self._story)
        awaited = {key for key, kind in plan.tampering.items() if kind.is_later}
        tampered = False

        def look() -> None:
            nonlocal tampered
            ended = board.look()
            officer.look()
            approved = news.tell_of_approvals()
            news.tell_of_ends(ended)
            if not tampered and not awaited & set(board.open) - approved:
                tampered = True
                for key in sorted(awaited):
                    self._tamper(copies[key], plan.tampering[key])
                stage.start_agent(AUDITOR)

        seconds = LIMIT_SECONDS + LIMIT_PER_DISTRIBUTION * len(board.flow_ids)
        return stage.play(board, look, is_over=lambda: tampered and not board.open, seconds=seconds)

    def _tamper(self, installed: Installed, kind: Tampering) -> None:
        changed = tamper(installed, rewrite_record=kind is Tampering.HIDDEN)
        rewritten = ", and the RECORD is rewritten to fit" if kind is Tampering.HIDDEN else ""
        self._story.tell(f"{installed.key}: somebody adds a line to {changed}{rewritten}")

    def _conclude(
        self,
        expected: Mapping[str, Expected],
        plan: Plan,
        evidence: Evidence,
        late: Sequence[str],
    ) -> bool:
        """Audit what the run left, and show it."""
        wrong = [*late, *audit(expected, plan, evidence)]
        endings = {key: ending(key, each, plan, evidence) for key, each in expected.items()}
        outcomes = outcome_table({key: how for key, how in endings.items() if how is not None})
        register = register_table(evidence.approvals, evidence.withdrawn)
        tables = ["", *outcomes, "", *check_table(evidence.histories), "", *register, ""]
        self._story.show([*tables, *(f"WRONG: {complaint}" for complaint in wrong)])
        if wrong:
            self._story.tell(f"not as it must be: {len(wrong)} complaints")
        else:
            self._story.tell(f"{len(expected)} flows, each ended as the checks and the plan have it")
        return not wrong


def answer_in_words(choice: Choice.ValueType) -> str:
    """A person's answer to an escalation: yes lets the flow go on."""
    return "yes" if choice == Choice.CHOICE_RESUME else "no"
