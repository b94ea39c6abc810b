"""Budgets around every RPC, so that no caller and no stranger takes what others need.

Calls that return one response, streams, Health.Watch and reflection have a budget each. The holder is the caller's
canonical name, or the host of a call without a token. Health.Check and Health.List are counted by connection only, so
that nobody can use up what a probe needs, which has a connection of its own.
"""

from __future__ import annotations

import sys
from functools import partial

from handrail.coordinator.api import reflection
from handrail.coordinator.api.authorization import caller_if_known
from handrail.coordinator.api.budgets import Budget, Full, Limit
from handrail.coordinator.api.interceptors import Call, Proceed
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.identity import canonical
from handrail.v1.error_reason_pb2 import ErrorReason

CALLS = Limit(total=1_000, each=256)
"""Calls that return one response."""

STREAMS = Limit(total=500, each=32)
"""Streams, such as WatchFlow. 995 quiet watches were measured to take 15 % of a core."""

HEALTH_WATCHES = Limit(total=256, each=32)
REFLECTIONS = Limit(total=32, each=8)

CHECKS_OF_A_CONNECTION = 16

_HEALTH = "/grpc.health.v1.Health/"
_CHECKS = frozenset({f"{_HEALTH}Check", f"{_HEALTH}List"})
_REFLECTION = frozenset(f"/{service}/ServerReflectionInfo" for service in reflection.SERVICES)


class BudgetGuard:
    """Refuses a call that its holder, or the server, has no room for; counts the others while they last.

    A call lasts until its caller has taken the response. A caller that takes nothing keeps it in memory until its
    connection ends, so that no caller has more responses waiting than calls in progress.
    """

    def __init__(self, *, calls: Limit = CALLS, streams: Limit = STREAMS) -> None:
        self._calls = Budget(calls)
        self._streams = Budget(streams)
        self._checks = Budget(Limit(total=sys.maxsize, each=CHECKS_OF_A_CONNECTION))
        self._health_watches = Budget(HEALTH_WATCHES)
        self._reflections = Budget(REFLECTIONS)

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`. Behind `AuthGuard`, which knows the caller."""
        caller = caller_if_known()
        if caller is not None:
            name, holder = caller.subject, canonical(caller.subject)
        else:
            name = holder = call.connection if call.method in _CHECKS else call.host
        budget = self._budget(call)
        full = budget.take(holder)
        if full is not None:
            raise _no_room(call, name, budget.limit, full)
        call.when_over(partial(budget.give_back, holder))
        await proceed(call)

    def _budget(self, call: Call) -> Budget:
        if call.method in _CHECKS:
            return self._checks
        if call.method == f"{_HEALTH}Watch":
            return self._health_watches
        if call.method in _REFLECTION:
            return self._reflections
        return self._streams if call.streams else self._calls


def _no_room(call: Call, name: str, limit: Limit, full: Full) -> HandrailError:
    calls = "streams" if call.streams else "calls"
    if full is Full.HOLDER:
        why = f"{name} has {limit.each} {calls} in progress, the most it may have: end one, or try again"
    else:
        why = f"this server has {limit.total} {calls} in progress, the most it takes: try again, or call another one"
    return HandrailError(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, f"{call.name}: {why}", method=call.method)
