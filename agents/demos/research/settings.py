"""The agents' settings, from environment variables."""

import os
from pathlib import Path

OUTPUT = "RESEARCH_OUTPUT"


def output_path() -> Path:
    """RESEARCH_OUTPUT: the folder for reports; `research` in the working directory if it is not set."""
    return Path(os.environ.get(OUTPUT) or "research")
