"""Whatever flows do, what is inferred from them is nothing that their template does not say."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handrail.analysis.infer import infer
from handrail.mesh.flow import RunState, StepRun
from handrail.mesh.template import Template
from handrail.mesh.template.specs import APPROVAL_REFUSED
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.mesh.template.yaml_writer import to_text
from handrail.v1 import template_pb2 as pb
from handrail.v1.template_pb2 import Severity
from tests.support import random_templates, sound_templates
from tests.support.random_templates import REQUESTER, Spec, specs
from tests.support.simulation import Simulation
from tests.support.sound_templates import parsed, sound_specs
from tests.support.traffic import structure, traffic_of
from tests.unit.mesh.fold.test_flow_properties import wander

_FLOWS = 6


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.data())
def test_no_step_gate_or_rule_is_inferred_that_is_not_there(spec: Spec, data: st.DataObject) -> None:
    template = random_templates.compiled(spec)
    flows = [wander(template, data).simulation for _ in range(2)]
    inferred = infer("wander", traffic_of(*flows), random_templates.contracts()).template
    steps = {step.name: step for step in template.proto.steps}
    for step in inferred.steps:
        check_step(step, steps[step.name])
    gates = {gate.name: gate for gate in template.proto.gates}
    for gate in inferred.gates:
        if gate.name in gates:
            check_gate(gate, gates[gate.name], heeded=any(APPROVAL_REFUSED in step.after for step in steps.values()))
        else:
            assert gate.on in {each.on for each in gates.values()}
    rules = {rule.name: rule for rule in template.proto.rules}
    for rule in inferred.rules:
        meant = rules[rule.name]
        assert set(rule.on) <= set(meant.on)
        assert (rule.when, rule.then) == (meant.when, meant.then)


def check_step(step: pb.Step, meant: pb.Step) -> None:
    """Every part of an inferred step is what its template says, or leaves open what it says."""
    assert step.agent in (meant.agent, "unknown")
    assert set(step.after) <= set(meant.after)
    assert {join.type for join in step.after_all} <= {join.type for join in meant.after_all}
    assert set(step.emits) <= set(meant.emits)
    assert step.effect in (meant.effect, pb.EFFECT_NONE)
    assert step.retry.max_attempts <= 100
    assert step.on_failure in (pb.FAILURE_ACTION_UNSPECIFIED, meant.on_failure)


def check_gate(gate: pb.Gate, meant: pb.Gate, *, heeded: bool) -> None:
    """Every part of an inferred gate is what its template says, or leaves open what it says."""
    assert gate.on == meant.on
    assert gate.when in ("", meant.when)
    assert set(gate.approvers.roles) == set(meant.approvers.roles)
    assert gate.approvers.quorum == meant.approvers.quorum
    assert gate.approvers.not_the_requester == meant.approvers.not_the_requester
    assert gate.expires_after == meant.expires_after or meant.on_expiry == pb.EXPIRY_ACTION_WAIT
    assert gate.on_expiry in (pb.EXPIRY_ACTION_UNSPECIFIED, meant.on_expiry)
    # COMPENSATE is what a gate gets that never refused. A step that waits for refusals, of another gate perhaps, looks
    # like CONTINUE until a coordinator that was away has halted the flow.
    unsure = {pb.REJECT_ACTION_COMPENSATE} | ({pb.REJECT_ACTION_CONTINUE} if heeded else set())
    assert gate.on_reject in {*unsure, meant.on_reject}


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(sound_specs())
def test_a_sound_template_is_found_in_flows_that_took_every_branch(spec: Spec) -> None:
    template = Template.compile(parsed(spec), sound_templates.contracts())
    flows = [happy(template, number) for number in range(_FLOWS)]
    inferred = infer("order", traffic_of(*flows), sound_templates.contracts())
    found, meant = structure(inferred.template), structure(template.proto)
    for step in meant["steps"]:
        counts = (found["steps"][step]["after_all"], meant["steps"][step]["after_all"])
        for message_type, count in counts[1].items():
            # Several fields may have had the number: which of them tells it is not on record.
            assert counts[0][message_type] == count or "latest[" in count
        assert counts[0].keys() == counts[1].keys()
        found["steps"][step]["after_all"] = counts[1]
    assert found == meant | {"started_by": set()}
    assert not [each for each in inferred.findings if each.severity == Severity.SEVERITY_ERROR]
    assert load_yaml(to_text(inferred.template, inferred.notes)) == inferred.template


def happy(template: Template, number: int) -> Simulation:
    """A flow in which every agent answers at once; which answer, and with what number, depends on the flow's number."""
    simulation = Simulation(template)
    message = sound_templates.contracts().message_class(next(iter(template.starts_with)))
    simulation.say(simulation.start(message(n=1, who=REQUESTER), requester=REQUESTER))
    while owed := [run for run in simulation.flow.runs.values() if run.state is RunState.OWED]:
        answer(simulation, owed[0], number)
    return simulation


def answer(simulation: Simulation, run: StepRun, number: int) -> None:
    """A step's answer: one of those it may give, as often as a join counts it."""
    rounds = sum(each.step is run.step for each in simulation.flow.runs.values())
    emits = sorted(run.step.emits)
    message_type = emits[(number + rounds) % len(emits)]
    message = sound_templates.contracts().message_class(message_type)(n=drawn(number, message_type), who=REQUESTER)
    total = 1
    for step in simulation.template.joins_on(message_type):
        (join,) = (join for join in step.joins if join.type == message_type)
        for told_by in join.count.latest_types:
            total = drawn(number, told_by)
    for index in range(total):
        simulation.say(simulation.outcome(run, message, index=index, total=total))


def drawn(number: int, message_type: str) -> int:
    """A number from 1 to 3, at which no gate asks."""
    return sha256(f"{number} {message_type}".encode()).digest()[0] % 3 + 1
