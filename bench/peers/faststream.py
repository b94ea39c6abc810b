"""FastStream under load: the bare chain's stream and client, with its own subscribers in a process for each agent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nats.js.api import ConsumerConfig

from bench.bare import Bare
from bench.peers import interpreter


class FastStream(Bare):
    """See `Bare`. The subscribers create their durables."""

    def __init__(self, folder: Path, peers: Path, park: float, *, sync_always: bool) -> None:
        super().__init__(folder, park, sync_always=sync_always)
        self._python = interpreter(peers)

    def durables(self) -> Iterable[ConsumerConfig]:
        """None that the client would create."""
        return ()

    def agent_command(self, agent: str) -> Sequence[str]:
        """Runs in the peers' environment."""
        return (str(self._python), "-m", "bench.peers.faststream_agents")
