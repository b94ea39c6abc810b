"""`Agent`: declares handlers, and runs them."""

from __future__ import annotations

from handrail.agents.declaration import Declaration
from handrail.agents.runner import run_here
from handrail.mesh.bus import BusSettings


class Agent(Declaration):
    """An agent: declare its handlers on it, then run it.

    `name` identifies it in templates and on the broker. `concurrency` bounds the deliveries that one worker handles at
    a time, `threads` how many plain (not async) handlers run at a time. `validate_inbound` checks every event against
    its contract before a handler sees it. `quick_retries` follow at once after a transient error; `grace` is how long a
    worker lets its handlers finish when it is asked to stop.
    """

    def run(self, settings: BusSettings | None = None) -> None:
        """Runs one worker in this process until it is asked to stop (SIGTERM, SIGINT); exits with a status.

        Without `settings` it takes the broker from the environment (HANDRAIL_NATS and so on).
        """
        raise SystemExit(run_here([self], None if settings is None else {self.name: settings}))
