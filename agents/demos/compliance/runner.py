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
"""The name of the environment with the copies."""

LIMIT_SECONDS = 75
LIMIT_PER_DISTRIBUTION = 0.5
"""Seconds until every flow must have ended, and the additional time for each distribution."""

INVENTORY, AUDITOR = "inventory", "auditor"


class Run:
    """One run over the distributions that are installed in `site`. Its files are in `folder`."""

    def __init__(self, site: Path, policy: Path, *, seed: int, folder: Path, story: Story, stays: bool = False) -> None:
        """With `stays`, the installation stays up at the end."""
        self._here = Environment(settings.HERE, site)
        self._policy = policy
        self._seed = seed
        self._files = Files(folder)
        self._copies = Environment(COPIES, self._files.copies)
        self._story = story
        self._stays = stays

    def run(self) -> bool:
        """Runs the demo and tells the story; returns whether everything ended as expected.

        Raises:
            OSError: if the environment, or the policy, can't be read.
            ValueError: if the policy is invalid.
            StartError: if the installation can't be started.
            CommandError: if the coordinator can't be reached, or refuses a call.
        """
        expected = self._check(self._here)
        if not expected:
            self._story.tell(f"nothing is installed in {self._here.site}: nothing to do")
            return True
        copies, tampering = self._copy(expected)
        expected |= self._check(self._copies)
        plan = Plan.draw(tampering, expected, self._seed)
        self._announce(expected, plan)
        self._files.write_plan(plan, seed=self._seed)
        environment = self._files.environment([self._here, self._copies], policy=self._policy)
        with Stage(
            "demos.compliance",
            folder=self._files.folder,
            environment=environment,
            story=self._story,
            stays=self._stays,
        ) as stage:
            stage.start_agents(last=INVENTORY, later={AUDITOR})
            viewer = stage.client(VIEWER)
            board = Board(viewer, FLOW_TYPE, expected)
            late = self._play(stage, board, plan, copies)
            histories = {key: History.read(viewer, board.flow_ids[key]) for key in board.statuses}
            register = Register(self._files.register)
            evidence = Evidence(board.statuses, histories, register.approvals(), register.withdrawn())
            is_done = self._conclude(expected, plan, evidence, late)
            # One that a person decided about, if there is one.
            shown = next(iter([*plan.answers, *plan.tampering, *expected]))
            stage.stay(shown, board.flow_ids[shown])
        return is_done

    def _check(self, environment: Environment) -> dict[str, Expected]:
        return expect(environment, Policy.load(self._policy), Names.load(settings.names_path()))

    def _copy(self, expected: Mapping[str, Expected]) -> tuple[dict[str, Installed], dict[str, Tampering]]:
        """Copies a few distributions without failures; returns them, and the planned tampering with each.

        Tampering that comes before the checks is done at once.
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
            tell(f"  {key} needs a person: {OFFICER} will say {answer_in_words(choice)}")

    def _play(self, stage: Stage, board: Board, plan: Plan, copies: Mapping[str, Installed]) -> list[str]:
        """Polls everything until all flows have ended, or until the time is over.

        The auditor starts when all tampering that comes after an approval is done.
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
        rewritten = ", and rewrites the RECORD to match" if kind is Tampering.HIDDEN else ""
        self._story.tell(f"{installed.key}: somebody adds a line to {changed}{rewritten}")

    def _conclude(
        self,
        expected: Mapping[str, Expected],
        plan: Plan,
        evidence: Evidence,
        late: Sequence[str],
    ) -> bool:
        """Audits the results and shows them."""
        wrong = [*late, *audit(expected, plan, evidence)]
        endings = {key: ending(key, each, plan, evidence) for key, each in expected.items()}
        outcomes = outcome_table({key: how for key, how in endings.items() if how is not None})
        register = register_table(evidence.approvals, evidence.withdrawn)
        tables = ["", *outcomes, "", *check_table(evidence.histories), "", *register, ""]
        self._story.show([*tables, *(f"WRONG: {complaint}" for complaint in wrong)])
        if wrong:
            self._story.tell(f"not as expected: {len(wrong)} faults")
        else:
            self._story.tell(f"{len(expected)} flows, each ended as checks and plan require")
        return not wrong


def answer_in_words(choice: Choice.ValueType) -> str:
    """A person's answer to an escalation: yes resumes the flow."""
    return "yes" if choice == Choice.CHOICE_RESUME else "no"
