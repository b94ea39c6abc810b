"""Notices that somebody changes the configuration of streams and durables while the coordinator runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from handrail.mesh import telemetry
from handrail.mesh.streams import Config
from handrail.mesh.streams.promised import changes

log = logging.getLogger(__name__)


class ConfigurationWatch:
    """Remembers the configurations of the last look. One that is new, or gone, is no change."""

    def __init__(self) -> None:
        self._seen: dict[str, Config] = {}

    def knows(self, part: str) -> bool:
        """Whether this part was there at an earlier look."""
        return part in self._seen

    def look(self, configs: Mapping[str, Config]) -> None:
        """Logs and counts each part (`stream.FLOW`, `durable.track`) that was changed since the last look."""
        for part, config in configs.items():
            changed = changes(self._seen.get(part, config), config)
            self._seen[part] = config
            if changed:
                telemetry.count("reconfigured", part=part)
                log.error("%s was changed while this runs: %s", part.replace(".", " ", 1), "; ".join(changed))
