"""Random sound templates: each flow of one is bounded, can end, and nobody waits in vain."""

from __future__ import annotations

from functools import cache

from google.protobuf.json_format import ParseDict
from hypothesis import strategies as st

from handrail.mesh.contracts import Contracts
from handrail.v1.template_pb2 import FlowTemplate
from handrail.validate import validate_pb2
from tests.support.random_templates import Spec, full_name
from tests.support.shop import set_of, shop_file

_TYPES = 40
STRAY = full_name(f"T{_TYPES - 1}")
"""A type that no generated template uses."""


@cache
def contracts() -> Contracts:
    """Messages that differ only in their names; `n` is at most 20."""
    messages = {f"T{number}": {"n": "uint32", "who": "string"} for number in range(_TYPES)}
    file = shop_file(messages, imports=("buf/validate/validate.proto",))
    for message in file.message_type:
        message.field[0].options.Extensions[validate_pb2.field].uint32.lte = 20
    return Contracts.from_descriptor_set(set_of(file))


def parsed(spec: Spec) -> FlowTemplate:
    """The template of a specification."""
    return ParseDict(spec, FlowTemplate())


class _Draft:
    """A template that grows block by block; each block follows the last event of the previous one."""

    def __init__(self) -> None:
        self.steps: list[Spec] = []
        self.gates: list[Spec] = []
        self.rules: list[Spec] = []
        self._unused = iter(range(1, _TYPES - 1))
        self.last = full_name("T0")
        self.repeats = False  # the last event may occur more than once: a join after it has to say how many

    def event(self) -> str:
        return full_name(f"T{next(self._unused)}")

    def step(self, emits: list[str], *, after: list[str] | None = None, joins: list[Spec] | None = None) -> Spec:
        number = len(self.steps)
        step: Spec = {
            "name": f"s{number}",
            "agent": f"a{number % 3}",
            "after": after or [],
            "after_all": joins or [],
            "emits": emits,
            "effect": "EFFECT_NONE",
            "timeout": "10s",
        }
        self.steps.append(step)
        return step

    def chain(self) -> None:
        before, self.last = self.last, self.event()
        self.step([self.last], after=[before])

    def undoable(self) -> None:
        self.chain()
        self.steps[-1] |= {"effect": "EFFECT_UNDOABLE", "undo": {"timeout": "5s"}}

    def diamond(self) -> None:
        before, left, right, self.last = self.last, self.event(), self.event(), self.event()
        self.step([left], after=[before])
        self.step([right], after=[before])
        count = {"count": "1"} if self.repeats else {}
        self.step([self.last], joins=[{"type": left, **count}, {"type": right, **count}])
        self.repeats = False

    def choice(self) -> None:
        before, one, other, self.last = self.last, self.event(), self.event(), self.event()
        self.step([one, other], after=[before])
        self.step([self.last], after=[one, other])
        self.repeats = True

    def fan_out(self) -> None:
        before, plan, part, self.last = self.last, self.event(), self.event(), self.event()
        self.step([plan], after=[before])
        self.step([part], after=[plan])
        self.step([self.last], joins=[{"type": part, "count": f"latest['{plan}'].n"}])
        self.repeats = False

    def gate(self) -> None:
        self.chain()
        self.gates.append(
            {
                "name": f"g{len(self.gates)}",
                "on": self.last,
                "when": "event.n > 3u",
                "approvers": {"roles": ["lead"]},
                "expires_after": "60s",
                "on_reject": "REJECT_ACTION_COMPENSATE",
            }
        )

    def loop(self) -> None:
        before, missed, self.last = self.last, self.event(), self.event()
        self.step([self.last, missed], after=[before, missed])
        self.repeats = True
        self.rules.append(
            {
                "name": f"r{len(self.rules)}",
                "on": [missed],
                "when": f"flow.counts['{missed}'] >= 3",
                "then": "RULE_ACTION_ESCALATE",
            }
        )


_BLOCKS = ("chain", "undoable", "diamond", "choice", "fan_out", "gate", "loop")


@st.composite
def sound_specs(draw: st.DrawFn) -> Spec:
    """A template without a finding."""
    draft = _Draft()
    for block in draw(st.lists(st.sampled_from(_BLOCKS), min_size=1, max_size=6)):
        getattr(draft, block)()
    return {
        "name": "order",
        "version": 1,
        "starts_with": [full_name("T0")],
        "started_by": ["desk"],
        "completes_with": [draft.last],
        "deadline": "600s",
        "steps": draw(st.permutations(draft.steps)),
        "gates": draft.gates,
        "rules": draft.rules,
    }
