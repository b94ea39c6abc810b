"""Takes up what people change while everything runs: agents and templates."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.cli.dev.people import OPERATOR
from handrail.cli.dev.processes import StartError
from handrail.cli.dev.registry import activate_templates
from handrail.cli.dev.reload import reloaded
from handrail.cli.dev.sources import Sources
from handrail.cli.exit_codes import CommandError

if TYPE_CHECKING:
    from handrail.cli.dev.stack import DevStack

log = logging.getLogger(__name__)

_LOOK_AGAIN = 0.5


class Changes:
    """Compares the files of a stack's package with what they were at the last look."""

    def __init__(self, stack: DevStack) -> None:
        self._stack = stack
        self._sources = Sources(stack.package.code, stack.package.files)
        self._looked_at = 0.0

    def take(self) -> None:
        """Stores and activates templates that have changed, and starts agents again whose files have. Looks at most
        twice a second.
        """
        if time.monotonic() - self._looked_at < _LOOK_AGAIN:
            return
        self._looked_at = time.monotonic()
        code, files = self._sources.changed_code(), self._sources.changed_templates()
        if code or files:
            log.info("%s changed", _named([*code, *files]))
            self._read_again(tell=bool(files))
        if code:
            self._stack.restart_agents()
            log.info("the agents are started again")

    def _read_again(self, *, tell: bool) -> None:
        try:
            package = reloaded(self._stack.package.names)
            with self._stack.client(OPERATOR) as client:
                activated = activate_templates(client, package)
        except (StartError, CommandError) as error:
            log.error("the templates stay as they were: %s", error)
            return
        self._stack.package = replace(package, examples=self._stack.package.examples)
        for template in activated:
            log.info("new flows begin with %s version %s", template.name, template.version)
        if tell and not activated:
            log.info("no template has another version: flows go on as before")


def _named(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0].name}{more}"
