"""Templates, contracts and conditions that want to keep the coordinator, or whoever reads them, busy."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from handrail.mesh.conditions.expression import Expression
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from handrail.v1 import template_pb2 as pb
from handrail.v1.template_service_pb2 import CheckTemplateRequest, CheckTemplateResponse
from handrail.validate import validate_pb2
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import Installation
from tests.support.api import bearer
from tests.support.people import People
from tests.support.shop import message, set_of, shop_file

MAP_OF_MAP = "event.f.map(a, event.f.map(b, a + b)).size() > 0"

TOO_LONG = 3.0
"""Seconds that nobody else may wait, on a machine that is busy with attacks."""


def contracts(messages: int = 3, fields: int = 2, imports: tuple[str, ...] = ()) -> FileDescriptorProto:
    """Contracts with so many messages M0, M1, …"""
    numbers = {f"f{number}": "int64" for number in range(fields)}
    return shop_file({f"M{number}": numbers for number in range(messages)}, imports=imports)


def dear_rules(rules: int = 200, items: int = 1_500) -> FileDescriptorProto:
    """Contracts with rules that take 10 seconds or more: the engine copies a list in each of its rounds."""
    file = contracts(imports=("buf/validate/validate.proto",))
    rule = f"[{','.join('0' * items)}].map(a, a).size() > 0"
    for number in range(rules):
        cel = file.message_type[0].options.Extensions[validate_pb2.message].cel
        cel.add(id=f"r{number}", message="no", expression=rule)
    return file


def template(*conditions: str) -> pb.FlowTemplate:
    """A template with a gate for each condition."""
    made = pb.FlowTemplate(name="busy", version=1, starts_with=["shop.v1.M0"], completes_with=["shop.v1.M1"])
    made.deadline.seconds = 60
    step = made.steps.add(name="work", agent="worker", after=["shop.v1.M0"], emits=["shop.v1.M1"])
    step.effect, step.timeout.seconds = pb.EFFECT_NONE, 5
    for number, condition in enumerate(conditions):
        gate = made.gates.add(name=f"g{number}", on="shop.v1.M1", when=condition, on_expiry=pb.EXPIRY_ACTION_WAIT)
        gate.approvers.roles.append("boss")
        gate.on_reject = pb.REJECT_ACTION_FAIL
    return made


async def checked(
    target: Installation, request: CheckTemplateRequest, caller: str = "mallory", *, patience: float = 60
) -> str:
    """How a CheckTemplate call ends: its code and text, or the codes of the findings."""
    async with target.channel() as channel:
        rpc = channel.unary_unary(
            "/handrail.v1.TemplateService/CheckTemplate",
            request_serializer=CheckTemplateRequest.SerializeToString,
            response_deserializer=CheckTemplateResponse.FromString,
        )
        token = target.token(caller, handrail=["template_admin@busy"])
        try:
            response = await rpc(request, metadata=bearer(token), timeout=patience)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return f"findings {sorted({finding.code for finding in response.findings})}"


async def beside(target: Installation, attacking: Awaitable[object]) -> float:
    """The longest that somebody else's StartFlow takes while something goes on, in seconds."""
    longest = 0.0
    task = asyncio.ensure_future(attacking)
    async with target.people() as people:
        while not task.done() or not longest:
            longest = max(longest, await _start(target, people))
    await task
    return longest


async def _start(target: Installation, people: People) -> float:
    began = time.monotonic()
    await target.flow_from_start(people)
    return time.monotonic() - began


@attack("32", "9,000 messages in the descriptors of CheckTemplate", mutant="p7_contracts_of_any_size_are_read")
async def many_messages(target: Installation) -> str:
    request = CheckTemplateRequest(template=template("event.f0 > 1"), descriptors=set_of(contracts(9000)))
    told: list[str] = []

    async def check() -> None:
        told.append(await checked(target, request))

    longest = await beside(target, check())
    if not told[0].startswith("INVALID_ARGUMENT: the descriptor set has 9,000 messages"):
        succeeded(told[0])
    return refused(f"{told[0][:80]}…; others waited {longest:.2f} s at most", unless=longest > TOO_LONG and longest)


@attack(
    "33b", "CEL nested as deeply and as long as it may be, in 64 gates", mutant="p7_a_check_takes_as_long_as_it_likes"
)
async def deep_conditions(target: Installation) -> str:
    deep = "event.f0 > 1"
    while len(deep) < 4_000:
        deep = f"({deep}) || ({deep})"
    nested = "!" * 200 + "(" * 20 + "event.f0 > 1" + ")" * 20
    request = CheckTemplateRequest(
        template=template(*[deep] * 32, *[nested] * 32), descriptors=set_of(contracts(2000, 5))
    )
    told: list[str] = []

    async def check() -> None:
        told.append(await checked(target, request))

    longest = await beside(target, check())
    if not told[0].startswith("findings ['HR029']"):
        succeeded(told[0])
    return refused(f"{told[0][:80]}; others waited {longest:.2f} s at most", unless=longest > TOO_LONG and longest)


@attack("34", "StartFlow of others beside 32 costly CheckTemplate calls", mutant="p7_one_caller_takes_every_turn")
async def costly_checks(target: Installation) -> str:
    request = CheckTemplateRequest(template=template("event.f0 > 1"), descriptors=set_of(dear_rules()))
    small = CheckTemplateRequest(template=template("event.f0 > 1"), descriptors=set_of(contracts()))
    told: list[str] = []

    async def hostile(number: int) -> None:
        told.append(await checked(target, request, f"mallory-{number % 4}", patience=30))

    async def honest() -> None:
        told.append(await checked(target, small, "anna"))

    longest = await beside(target, asyncio.gather(*(hostile(number) for number in range(32)), honest()))
    ended = [each for each in told if each.startswith(("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"))]
    if len(ended) < 32 or "findings []" not in told:
        succeeded(f"{len(ended)} of 32 ended at a limit: {told}")
    text = f"{len(ended)} calls ended at a limit, an honest one was answered; others waited {longest:.2f} s at most"
    return refused(text, unless=longest > TOO_LONG and longest)


@attack("68", "a YAML template with 20,000 unknown keys", mutant="p7_a_template_of_any_size_is_read")
async def many_keys(target: Installation) -> str:
    path = target.folder / "keys.yaml"
    path.write_text("".join(f"k{number}: 1\n" for number in range(20_000)))
    image = target.folder / "keys.binpb"
    image.write_bytes(set_of(contracts()))
    began = time.monotonic()
    done = await asyncio.to_thread(check_file, target, str(path), str(image))
    took = time.monotonic() - began
    if "more than 20,000 keys and values" not in done.stdout + done.stderr:
        succeeded(done.stdout + done.stderr)
    return refused(f"more than 20,000 keys and values, after {took:.1f} s", unless=took > 20 and took)


def check_file(target: Installation, path: str, image: str) -> subprocess.CompletedProcess[str]:
    """`handrail template check` on a file."""
    return target.handrail("olga", "template", "check", path, "--contracts", image)


@attack("69", "a gate that maps a list within a map of it", mutant="p4_a_loop_costs_one_round")
async def map_of_map(target: Installation) -> str:
    file = contracts(1)
    file.message_type.append(message("M1", {"f": "repeated int64"}))
    request = CheckTemplateRequest(template=template(MAP_OF_MAP), descriptors=set_of(file))
    told = await checked(target, request)
    if "HR037" not in told:
        succeeded(told)
    read = Contracts.from_descriptor_set(set_of(file))
    condition = Expression.compile(MAP_OF_MAP, contracts=read, event_type="shop.v1.M1", tables=(), types=())
    event = read.message_class("shop.v1.M1")(f=range(1000))
    began = time.process_time()
    try:
        said = condition.evaluate({"event": event})
    except PolicyError as error:
        took = time.process_time() - began
        return refused(f"{error.text.rpartition(': ')[2]}, after {took * 1000:.0f} ms", unless=took > 0.2 and took)
    succeeded(f"the condition says {said}")
