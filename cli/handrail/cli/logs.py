"""Logs of long-running commands: lines on standard error."""

from __future__ import annotations

import logging

from handrail.mesh import settings as table
from handrail.mesh.settings import Settings

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(settings: Settings) -> None:
    """Log at the level that the settings say."""
    logging.basicConfig(level=settings.value(table.LOG_LEVEL).upper(), format=FORMAT, force=True)
