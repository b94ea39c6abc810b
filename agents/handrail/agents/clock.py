"""What time it is for an agent, and how it lets time pass. Tests have a clock of their own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Clock:
    """This machine's clock."""

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, duration: timedelta) -> None:
        """Let time pass."""
        await asyncio.sleep(duration.total_seconds())
