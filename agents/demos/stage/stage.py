"""The stage: an installation with a demo's agents, each in its own process, that is polled while the story goes on."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from demos.stage.board import Board
from demos.stage.story import Story
from handrail.cli.client import Client
from handrail.cli.dev.package import load_package
from handrail.cli.dev.stack import DevOptions, DevStack
from handrail.cli.exit_codes import CommandError, Exit

LOOK_EVERY = 0.3
LONG_SILENCE = 5.0
"""Seconds between two looks, and the seconds of silence after which the story says what the flows wait for."""


class Stage:
    """Broker and coordinator run inside the `with` block, and the agents after `start_agents`.

    Raises:
        StartError: if the installation can't be started.
        CommandError: if the coordinator can't be reached, or refuses a call.
    """

    def __init__(
        self, package: str, *, folder: Path, environment: Mapping[str, str], story: Story, stays: bool = False
    ) -> None:
        """With `stays`, the installation has a console, and `stay` keeps it up."""
        options = DevOptions(
            folder=folder, package=load_package(package), environment=environment, console_port=0 if stays else None
        )
        self.stack = DevStack(options)
        self._story = story
        self._stays = stays
        self._open = ExitStack()

    def __enter__(self) -> "Stage":
        with self._open as opening:
            opening.enter_context(self.stack)
            self.stack.start()
            self._story.tell(f"broker and coordinator run; gRPC on {self.stack.address}")
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def client(self, person: str) -> Client:
        """A client with a person's token, until the stage is left."""
        return self._open.enter_context(self.stack.client(person))

    def start_agents(self, *, last: str, later: Collection[str] = ()) -> None:
        """Starts all agents except those in `later`; `last` begins the flows, so it starts last."""
        names = [name for name in self.stack.options.package.agents if name not in later]
        for name in sorted(names, key=lambda name: name == last):
            self.stack.start_agent(name)
        processes = ", ".join(f"{name} {child.pid}" for name, child in self.stack.agents.items())
        self._story.tell(f"agents start, each in its own process: {processes}")

    def start_agent(self, name: str) -> None:
        """Starts an agent that was left for later."""
        self._story.tell(f"{name} starts as process {self.stack.start_agent(name).pid}")

    def play(self, board: Board, look: Callable[[], None], *, is_over: Callable[[], bool], seconds: float) -> list[str]:
        """Calls `look`, which also reads the board, until `is_over`, or until `seconds` have passed.

        Returns a line for each flow that has not ended. Tries again if the coordinator can't be reached.
        """
        limit = self._story.elapsed + seconds
        while not is_over() and self._story.elapsed < limit:
            self.stack.poll()
            try:
                look()
                if board.open and self._story.silence > LONG_SILENCE:
                    first = board.open[0]
                    self._story.tell(f"flows under way: {len(board.open)}; {first}: {board.owed(first)}")
            except CommandError as error:
                if error.code is not Exit.UNREACHABLE:
                    raise
                self._story.tell(f"{error}; trying again")
            time.sleep(LOOK_EVERY)
        return [f"{key}, flow {board.flow_ids[key]}: {board.owed(key)}" for key in board.open]

    def stay(self, name: str, flow_id: str) -> None:
        """Tells where to see a flow. If the installation stays, it is kept running until Ctrl-C or SIGTERM."""
        if not self._stays:
            self._story.tell(f"the flow of {name} is worth a look: make demo STAY=1 stays up and shows it in a browser")
            return
        self._story.tell(f"the flow of {name} is worth a look: http://{self.stack.console_address}/flows/{flow_id}")
        self._story.tell("sign in by a click; Ctrl-C ends the demo")
        try:
            while True:
                self.stack.poll()
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            self._story.tell("ending")
