"""Runs the demo: the installation with its agents as processes, the faults, and the audit."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from demos.payments.audit import Evidence, audit
from demos.payments.book import Book
from demos.payments.chargebacks import Chargeback, Skipped
from demos.payments.files import Files
from demos.payments.money import Amount
from demos.payments.news import News
from demos.payments.outbox import Outbox
from demos.payments.plan import APPROVERS, Plan
from demos.payments.report import book_table, outcome_table
from demos.stage.board import Board
from demos.stage.desk import Desk, Question
from demos.stage.killer import Killer
from demos.stage.stage import Stage
from demos.stage.story import Story
from demos.stage.watch import watch
from handrail.cli.dev.people import VIEWER
from handrail.v1.flow_service_pb2 import Approval
from payments.v1.payments_pb2 import LargeRefundGranted

FEED_SECONDS = 5
FEED_PER_SECOND = 40
"""Chargebacks come in over so many seconds, but at least so many a second."""

LIMIT_SECONDS = 75
LIMIT_PER_CHARGEBACK = 0.05
"""Seconds until every flow must have ended, and the additional time for each chargeback. The broker hands out the
messages of a killed agent again after 30 seconds."""

FLOW_TYPE = "refund"
DETECTION = "detection"


class Run:
    """One run over the chargebacks in `path`. Its files are in `folder`."""

    def __init__(
        self,
        path: Path,
        found: Iterable[Chargeback | Skipped],
        *,
        seed: int,
        folder: Path,
        story: Story,
        stays: bool = False,
    ) -> None:
        """With `stays`, the installation stays up at the end."""
        found = list(found)
        self._path = path
        self._chargebacks = {each.id: each for each in found if isinstance(each, Chargeback)}
        self._skipped = [each for each in found if isinstance(each, Skipped)]
        self._seed = seed
        self._files = Files(folder)
        self._plan = Plan.draw(list(self._chargebacks.values()), seed)
        self._story = story
        self._stays = stays

    def run(self) -> bool:
        """Runs the demo and tells the story; returns whether everything ended as planned.

        Raises:
            StartError: if the installation can't be started.
            CommandError: if the coordinator can't be reached, or refuses a call.
        """
        for skipped in self._skipped:
            self._story.tell(f"{self._path.name}, line {skipped.line} is skipped: {skipped.reason}")
        if not self._chargebacks:
            self._story.tell(f"{self._path} has no chargebacks: nothing to do")
            return True
        self._announce()
        self._files.write_plan(self._plan, seed=self._seed)
        environment = self._files.environment(self._plan, chargebacks=self._path, per_second=self._per_second)
        with Stage(
            "demos.payments",
            folder=self._files.folder,
            environment=environment,
            story=self._story,
            stays=self._stays,
        ) as stage:
            stage.start_agents(last=DETECTION)
            board = Board(stage.client(VIEWER), FLOW_TYPE, self._chargebacks)
            late = self._play(stage, board)
            is_done = self._conclude(board, [f"chargeback {each}" for each in late])
            shown = self._worth_a_look
            stage.stay(shown, board.flow_ids[shown])
        return is_done

    @property
    def _worth_a_look(self) -> str:
        """A chargeback on which people voted and whose customer can't be reached; else one on which they voted."""
        ids = sorted(self._chargebacks)
        return min(ids, key=lambda id_: (id_ not in self._plan.votes, id_ not in self._plan.undeliverable, id_))

    def _announce(self) -> None:
        plan, tell = self._plan, self._story.tell
        tell(f"{len(self._chargebacks)} chargebacks in {self._path.name}, {len(plan.votes)} of them of 1,000 or more")
        tell(f"votes, drawn from seed {self._seed}:{'' if plan.votes else ' none'}")
        for id_, votes in plan.votes.items():
            tell(f"  {id_}: " + ", ".join(f"{vote.voter} {'yes' if vote.approve else 'no'}" for vote in votes))
        tell(f"faults, drawn from seed {self._seed}:")
        for id_ in sorted(plan.undeliverable):
            tell(f"  {id_}: its customer can't be reached")
        tell(f"  {plan.kill.agent} is killed once {plan.kill.after_flows} flows have ended")

    @property
    def _per_second(self) -> float:
        return max(FEED_PER_SECOND, len(self._chargebacks) / FEED_SECONDS)

    def _play(self, stage: Stage, board: Board) -> list[str]:
        """Polls everything until all flows have ended and the killed agent is back, or until the time is over."""
        viewer = stage.client(VIEWER)
        desk = Desk({name: stage.client(name) for name in APPROVERS}, self._question, self._story)
        news = News(self._chargebacks, Outbox(self._files.outbox), self._story)
        killer = Killer(stage.stack, self._plan.kill, self._story)
        watched: set[str] = set()

        def look() -> None:
            desk.look()
            news.tell({id_: board.statuses[id_] for id_ in board.look()})
            killer.look(board.ended)
            for id_ in self._plan.undeliverable & board.statuses.keys() - watched:
                watched.add(id_)
                watch(viewer, flow_id=board.flow_ids[id_], name=id_, story=self._story)

        seconds = LIMIT_SECONDS + LIMIT_PER_CHARGEBACK * len(self._chargebacks)
        return stage.play(board, look, is_over=lambda: killer.is_done and not board.open, seconds=seconds)

    def _question(self, approval: Approval) -> Question:
        granted = LargeRefundGranted()
        approval.data.Unpack(granted)
        name = f"{granted.chargeback_id}: {Amount.of(granted.amount)}"
        votes = self._plan.votes.get(granted.chargeback_id, ())
        return Question(name, "two people of finance", votes, refusal="the claim is not covered")

    def _conclude(self, board: Board, late: Sequence[str]) -> bool:
        """Audits the results and shows them."""
        book, outbox = Book(self._files.ledger), Outbox(self._files.outbox)
        evidence = Evidence(board.statuses, book.transfers(), book.postings(), outbox.letters())
        wrong = [*late, *audit(self._chargebacks.values(), self._plan, evidence)]
        outcomes = outcome_table(self._chargebacks.values(), self._plan, len(self._skipped))
        tables = ["", *([] if wrong else [*outcomes, ""]), *book_table(evidence.postings), ""]
        self._story.show([*tables, *(f"WRONG: {complaint}" for complaint in wrong)])
        if wrong:
            self._story.tell(f"not as planned: {len(wrong)} faults")
        else:
            self._story.tell(
                f"{len(self._chargebacks)} flows moved their money once or not at all; the ledger balances"
            )
        return not wrong
