"""Decides what the coordinator appends next to a flow. Pure: no I/O, no clock; `now` is an argument.

The caller:

1. reads the flow, and looks at the queues of the agents that `agents_due` names;
2. calls `decide` with the flow, the broker's time, the known absences and these queues;
3. appends the entry, expecting the flow's last sequence, and reads the flow again;
4. repeats this until `decide` returns None, and then arms the `timers` of the flow.

`operator_requests` judges what people ask for in the same way: it returns the decision to append, or raises.
"""

from handrail.coordinator.decide.decide import agents_due, decide

__all__ = ["agents_due", "decide"]
