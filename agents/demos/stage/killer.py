"""Kills an agent in the middle of the run, and waits until it is back."""

from dataclasses import dataclass

from demos.stage.story import Story
from handrail.cli.dev.stack import DevStack


@dataclass(frozen=True, slots=True)
class Kill:
    """The agent to kill with SIGKILL, and the number of flows that must have ended before."""

    agent: str
    after_flows: int


class Killer:
    """Kills the agent once; the stack starts it again."""

    def __init__(self, stack: DevStack, kill: Kill, story: Story) -> None:
        self._stack = stack
        self._kill = kill
        self._story = story
        self._killed: int | None = None
        self.is_done = False
        """Whether the agent was killed and is back."""

    def look(self, ended: int) -> None:
        """Kills the agent if enough flows have ended; tells when it is back."""
        name, child = self._kill.agent, self._stack.agents[self._kill.agent]
        if self._killed is None and ended >= self._kill.after_flows:
            self._killed = child.pid
            self._stack.kill_agent(name)
            self._story.tell(f"{name} (process {self._killed}) is killed with SIGKILL; {ended} flows have ended")
        elif not self.is_done and child.is_running and self._killed not in (None, child.pid):
            self.is_done = True
            self._story.tell(f"{name} is back as process {child.pid}")
