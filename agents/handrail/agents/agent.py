"""`Agent`: what a user of the SDK declares handlers on, and runs."""

from __future__ import annotations

from handrail.agents.declaration import Declaration
from handrail.agents.runner import run_here
from handrail.mesh.bus import BusSettings


class Agent(Declaration):
    """An agent: declare its handlers on it, then run it.

    `name` is its name in templates and on the broker. `concurrency` bounds the deliveries that one worker handles at a
    time, `threads` how many plain (not async) handlers run at a time. `validate_inbound` checks every event against its
    contract before a handler sees it. `quick_retries` are made at once, after a blip; `grace` is how long a worker
    that is asked to stop lets its handlers finish.
    """

    def run(self, settings: BusSettings | None = None) -> None:
        """Run one worker in this process until it is asked to stop (SIGTERM, SIGINT); exits with a status.

        Without `settings` the broker is the one that the environment names, HANDRAIL_NATS and so on.
        """
        raise SystemExit(run_here(self, settings))
