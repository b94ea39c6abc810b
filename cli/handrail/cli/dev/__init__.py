"""A whole installation on one machine, for development, demonstrations and tests: `DevStack`."""
