"""Sending the response of a call that has one: while the call still counts, and without a deadline."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from handrail.coordinator.api.interceptors import Call

log = logging.getLogger(__name__)


class Sending:
    """Writes the response of each call that does not stream them.

    A caller that takes nothing keeps a response in memory until its connection ends. A write can't be taken back, so
    the call counts that long: no caller has more responses waiting than calls in progress.
    """

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """See `Around`. Inside of `BudgetGuard`, outside of `DeadlineGuard`."""
        yield
        if call.streams:
            return
        try:
            await call.context.write(call.response)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.BaseError as error:
            # The caller is gone.
            log.debug("%s: its response can't be sent: %s", call.name, error)
