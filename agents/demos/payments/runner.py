"""Runs the demo: the whole installation with its agents as processes, what goes wrong on the way, and the audit."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from demos.payments.audit import Evidence, audit
from demos.payments.board import Board
from demos.payments.book import Book
from demos.payments.chargebacks import Chargeback, Skipped
from demos.payments.desk import Desk
from demos.payments.files import Files
from demos.payments.killer import Killer
from demos.payments.news import News
from demos.payments.outbox import Outbox
from demos.payments.plan import APPROVERS, Plan
from demos.payments.report import book_table, outcome_table
from demos.payments.story import Story
from demos.payments.watch import watch
from handrail.cli.client import Client
from handrail.cli.dev.package import load_package
from handrail.cli.dev.people import VIEWER
from handrail.cli.dev.stack import DevOptions, DevStack
from handrail.cli.exits import CommandError, Exit

FEED_SECONDS = 5
FEED_PER_SECOND = 40
"""Chargebacks come in over so many seconds, but no slower than so many a second: time for things to happen."""

LIMIT_SECONDS = 75
LIMIT_PER_CHARGEBACK = 0.05
"""Seconds until every flow must have ended, and what each chargeback adds. An agent that is killed leaves messages in
hand, which the broker hands out again after 30 seconds."""

LOOK_EVERY = 0.3
LONG_SILENCE = 5.0
"""Seconds between two looks at everything, and after which it is told what the flows wait for."""

DETECTION = "detection"


class Run:
    """One run over the chargebacks that were found in `path`. It leaves its files in `folder`."""

    def __init__(self, path: Path, found: Iterable[Chargeback | Skipped], *, seed: int, folder: Path) -> None:
        found = list(found)
        self._path = path
        self._chargebacks = {each.id: each for each in found if isinstance(each, Chargeback)}
        self._skipped = [each for each in found if isinstance(each, Skipped)]
        self._seed = seed
        self._files = Files(folder)
        self._plan = Plan.draw(list(self._chargebacks.values()), seed)
        self.story = Story()

    def run(self) -> bool:
        """Run it and tell the story; whether everything ended as planned.

        Raises:
            StartError: where the installation can't be started.
            CommandError: where the coordinator can't be reached, or refuses a call.
        """
        for skipped in self._skipped:
            self.story.tell(f"{self._path.name}, line {skipped.line} is skipped: {skipped.reason}")
        if not self._chargebacks:
            self.story.tell(f"{self._path} holds no chargeback: there is nothing to do")
            return True
        self._announce()
        self._files.write_plan(self._plan, seed=self._seed)
        with DevStack(self._options()) as stack, ExitStack() as clients:
            stack.start()
            self._start_agents(stack)
            board = self._play(stack, lambda person: clients.enter_context(stack.client(person)))
            late = [f"chargeback {id_}, flow {board.flow_ids[id_]}: {board.owed(id_)}" for id_ in board.open]
        return self._conclude(board, late)

    def _announce(self) -> None:
        plan, tell = self._plan, self.story.tell
        tell(f"{len(self._chargebacks)} chargebacks in {self._path.name}, {len(plan.votes)} of them of 1,000 or more")
        tell(f"votes, drawn from seed {self._seed}:{'' if plan.votes else ' none'}")
        for id_, votes in plan.votes.items():
            tell(f"  {id_}: " + ", ".join(f"{vote.voter} {'yes' if vote.approve else 'no'}" for vote in votes))
        tell(f"faults, drawn from seed {self._seed}:")
        for id_ in sorted(plan.undeliverable):
            tell(f"  {id_}: its customer can't be reached")
        tell(f"  {plan.kill.agent} is killed once {plan.kill.after_flows} flows have ended")

    def _options(self) -> DevOptions:
        per_second = max(FEED_PER_SECOND, len(self._chargebacks) / FEED_SECONDS)
        return DevOptions(
            folder=self._files.folder,
            package=load_package("demos.payments"),
            environment=self._files.environment(self._plan, chargebacks=self._path, per_second=per_second),
        )

    def _start_agents(self, stack: DevStack) -> None:
        """Start detection last: it begins the flows."""
        self.story.tell(f"broker and coordinator are up; gRPC on {stack.address}")
        for name in sorted(stack.options.package.agents, key=lambda name: name == DETECTION):
            stack.start_agent(name)
        processes = ", ".join(f"{name} {child.pid}" for name, child in stack.agents.items())
        self.story.tell(f"agents start, each its own process: {processes}")

    def _play(self, stack: DevStack, client: Callable[[str], Client]) -> Board:
        """Look after everything until all flows have ended, and the killed agent is back, or it takes too long."""
        viewer = client(VIEWER)
        board = Board(viewer, self._chargebacks)
        desk = Desk({name: client(name) for name in APPROVERS}, self._plan.votes, self.story)
        news = News(self._chargebacks, Outbox(self._files.outbox), self.story)
        killer = Killer(stack, self._plan.kill, self.story)
        watched: set[str] = set()
        limit = self.story.elapsed + LIMIT_SECONDS + LIMIT_PER_CHARGEBACK * len(self._chargebacks)
        while (board.open or not killer.is_done) and self.story.elapsed < limit:
            stack.poll()
            try:
                desk.look()
                news.tell({id_: board.statuses[id_] for id_ in board.look()})
            except CommandError as error:
                if error.code is not Exit.UNREACHABLE:
                    raise
                self.story.tell(f"{error}; looking again")
            killer.look(board.ended)
            for id_ in self._plan.undeliverable & board.statuses.keys() - watched:
                watched.add(id_)
                watch(viewer, flow_id=board.flow_ids[id_], chargeback_id=id_, story=self.story)
            if board.open and self.story.silence > LONG_SILENCE:
                self.story.tell(f"still under way: {len(board.open)}; {board.open[0]}: {board.owed(board.open[0])}")
            time.sleep(LOOK_EVERY)
        return board

    def _conclude(self, board: Board, late: Sequence[str]) -> bool:
        """Audit what the run left, and show it."""
        book, outbox = Book(self._files.ledger), Outbox(self._files.outbox)
        evidence = Evidence(board.statuses, book.transfers(), book.postings(), outbox.letters())
        wrong = [*late, *audit(self._chargebacks.values(), self._plan, evidence)]
        outcomes = outcome_table(self._chargebacks.values(), self._plan, len(self._skipped))
        tables = ["", *([] if wrong else [*outcomes, ""]), *book_table(evidence.postings), ""]
        self.story.show([*tables, *(f"WRONG: {complaint}" for complaint in wrong)])
        if wrong:
            self.story.tell(f"not as planned: {len(wrong)} complaints")
        else:
            self.story.tell(f"{len(self._chargebacks)} flows, each moved its money once or not at all: it balances")
        return not wrong
