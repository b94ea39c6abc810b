"""Where visibility serves the index, by the settings."""

from __future__ import annotations

from handrail.cli.exit_codes import CommandError, Exit
from handrail.coordinator.lists.index import IndexSettings
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings


def index_settings(settings: Settings) -> IndexSettings | None:
    """Returns how to ask visibility; None without its address. Raises CommandError if the secret is not named."""
    address, secret = settings.value(table.VISIBILITY), settings.value(table.VISIBILITY_SECRET_FILE)
    if address is None:
        return None
    if secret is None:
        raise CommandError(f"{table.VISIBILITY.flag} needs {table.VISIBILITY_SECRET_FILE.flag}", Exit.USAGE)
    return IndexSettings(address=address, secret=secret, authority=settings.value(table.VISIBILITY_CA))
