"""What a command says when nothing is done yet, because another person has to confirm it."""

from __future__ import annotations

from handrail.cli.exit_codes import Exit
from handrail.cli.output import Output, time
from handrail.v1.act_pb2 import PendingAct


def say_pending(output: Output, act: PendingAct) -> Exit:
    """Tells the one who asked that nothing is done yet, and what the second person has to do."""
    output.text(
        f"pending: {act.summary} needs another person, by {time(act.expire_time)}: handrail act confirm {act.act_id}"
    )
    for warning in act.warnings:
        output.text(f"warning: {warning}")
    return Exit.PENDING
