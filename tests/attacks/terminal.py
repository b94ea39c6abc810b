"""Payloads, subjects and records that want to be obeyed by the terminal of whoever looks at them, or in the log."""

from __future__ import annotations

import subprocess

from handrail.mesh.wire import ids
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from tests.attacks.attack import Run, attack, refused, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.support.people import People
from tests.support.waiting import eventually, until

EVIL = "\x1b]0;pwn\x07\x9b31m\u202egnp\u200b\u2066"
"""Sets the window's title, turns the text red, turns the direction of writing, and hides."""

GUARD = "p6_a_terminal_obeys_a_payload"


def raw(text: str) -> list[str]:
    """The characters of a text that a terminal would obey, or hide."""
    return sorted({f"U+{ord(each):04X}" for each in text if not each.isprintable() and each != "\n"})


def clean(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, with nothing raw in it; raises Succeeded otherwise."""
    shown = done.stdout + done.stderr
    if raw(shown):
        succeeded(f"{' '.join(done.args[:2])} prints {raw(shown)}")
    return shown


async def evil_claim(target: Installation, people: People) -> str:
    """A flow that waits for its votes, whose data holds all of it."""
    claim = target.claim(LARGE)
    claim.chargeback_id += EVIL
    flow_id = (await people.start(claim)).flow_id
    await people.approval(flow_id)
    return flow_id


def printed(*command: str) -> Run:
    """What a command shows of the claim, as a table and as JSON."""

    async def show(target: Installation) -> str:
        async with target.people() as people:
            flow_id = await evil_claim(target, people)
            words = [flow_id if word == "FLOW" else word for word in command]

            async def shown(form: str) -> str:
                return clean(target.handrail("vera", *words, "--output", form))

            await eventually(lambda: shown("json"), lambda told: "pwn" in told)
            await shown("table")
        return "all control and bidirectional characters are shown as escapes"

    return show


for id_, command_ in (
    ("59", ("approval", "list")),
    ("60", ("flow", "events", "FLOW")),
    ("61", ("flow", "show", "FLOW")),
):
    attack(id_, f"a payload is obeyed by the terminal: handrail {' '.join(command_)}", mutant=GUARD)(printed(*command_))


async def evil_subject(target: Installation, token: str) -> str:
    """The tail of the coordinator's log once it has quarantined a message with this token for a flow id."""
    subject = f"flow.refund.{token}.divergence.refunds.{'f' * 32}.handrail.v1.Divergence"
    before = len(target.log("coordinator"))
    async with target.raw_as("refunds") as refunds:
        await refunds.publish(subject.encode(), b"odd")
    return await until(lambda: told if "quarantined" in (told := target.log("coordinator")[before:]) else "")


@attack("65", "a script says yes to what nobody looked at", mutant="p6_a_yes_needs_no_look")
async def unseen(target: Installation) -> str:
    """The table of proposals cuts long data, so an id alone is no proof of a look."""
    async with target.people() as people:
        approval = await people.approval(await target.flow_from_start(people, LARGE))
        told = target.handrail("anna", "approval", "approve", approval.approval_id)
        votes = (await people.flow(approval.flow_id)).approvals[0].votes
    return refused(f"not without the digest: {told.stderr.strip()}", unless=votes or told.returncode == 0)


@attack("48", "ESC and BEL of a subject, raw in the coordinator's log", mutant=GUARD)
async def log_escapes(target: Installation) -> str:
    told = await evil_subject(target, "\x1b]0;pwn\x07\x1b[31mred\x1b[0m")
    return refused("the log shows escapes", unless=raw(told))


@attack("70", "a right-to-left override of a subject, raw in the coordinator's log", mutant=GUARD)
async def log_direction(target: Installation) -> str:
    told = await evil_subject(target, "\u202egnp")
    return refused("the log shows escapes", unless=raw(told))


@attack("71", "a subject in quarantine is obeyed by the terminal: handrail quarantine list", mutant=GUARD)
async def quarantine_list(target: Installation) -> str:
    await evil_subject(target, "\x1b[31m\u202egnp")
    for form in ("table", "json"):
        shown = clean(target.handrail("vera", "quarantine", "list", "--output", form))
        if form == "json" and "gnp" not in shown:
            succeeded("it is not shown at all")
    return "the list shows escapes"


@attack("49", "a quarantine record in another's name", mutant="p6_a_record_says_who_reported_it")
async def false_reporter(target: Installation) -> str:
    """refunds reports a message of enrichment's in the ledger's name."""
    lie = Quarantined(
        reason=ErrorReason.ERROR_REASON_WRONG_AGENT, detail="enrichment lies", subject="flow.x", reporter="ledger"
    )
    record_id = ids.quarantine_id(lie.subject, lie.SerializeToString())
    async with target.people() as people, target.bus_as("refunds") as refunds:
        await refunds.publish(f"quarantine.refund.-.refunds.enrichment.{record_id}", lie.SerializeToString())
        kept = await eventually(
            people.quarantined, lambda found: any(each.message.detail == lie.detail for each in found)
        )
    reporters = {each.message.reporter for each in kept if each.message.detail == lie.detail}
    return refused("the record is shown as refunds'", unless=reporters - {"refunds"})
