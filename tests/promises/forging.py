"""Messages published past the SDK, as if by an agent, and what becomes of them in quarantine."""

from __future__ import annotations

from google.protobuf.message import Message

from handrail.mesh.flow import Flow
from handrail.mesh.wire.envelope import Entry, pack
from handrail.v1.failure_pb2 import Quarantined, StepFailed, StepProgress
from tests.support.house import House
from tests.support.people import People
from tests.support.simulation import Simulation
from tests.support.waiting import eventually


def ghost(flow: Flow) -> Simulation:
    """What writes messages as the flow's agents would."""
    simulation = Simulation(flow.template, flow_id=flow.flow_id)
    simulation.flow = flow
    return simulation


async def outcome(house: House, flow_id: str, step: str, message: Message) -> Entry:
    """What the agent of a step that is owed would publish."""
    flow = await house.mesh.flow(flow_id)
    (run,) = [run for run in flow.runs.values() if run.step.name == step]
    match message:
        case StepFailed():
            entry = ghost(flow).failed(run, "")
        case StepProgress():
            entry = ghost(flow).progress(run, 1)
        case _:
            return ghost(flow).outcome(run, message)
    entry.event.data.CopyFrom(pack(message))
    return entry


async def publish(house: House, entry: Entry) -> None:
    """Publish as the agent that the message is from, with the permissions that it has."""
    bus = await house.connect(entry.address.agent)
    await bus.publish(entry.address.subject, entry.body)


async def quarantined(people: People, *, reporter: str = "coordinator") -> Quarantined:
    """What is in quarantine by this reporter, as soon as it is."""

    async def look() -> list[Quarantined]:
        return [each.message for each in await people.quarantined() if each.message.reporter == reporter]

    (message,) = await eventually(look, bool)
    return message
