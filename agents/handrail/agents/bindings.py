"""Which handler runs which step: binds an agent's handlers to each version of the stored templates, once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from handrail.agents.handler import Handler, Purpose
from handrail.mesh.template import APPROVAL_REFUSED, STEP_COMPLETED, StepSpec, Template
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.template_pb2 import EFFECT_IRREVERSIBLE, EFFECT_NONE, EFFECT_UNDOABLE


@dataclass(frozen=True, slots=True)
class Route:
    """What a message type triggers for the agent, in one version of a flow type.

    `steps` are the agent's steps that it triggers alone, `joins` those that wait for it together with other types.
    `fold_first` says that the flow must be read before any of them starts, `has_effect` that one of them has an effect
    outside; `patience` is their shortest timeout.
    """

    steps: tuple[StepSpec, ...] = ()
    joins: tuple[StepSpec, ...] = ()
    fold_first: bool = False
    has_effect: bool = False
    patience: timedelta = timedelta.max


_NOTHING = Route()


@dataclass(frozen=True, slots=True)
class Bound:
    """An agent's handlers, bound to one template version. Every look-up is a single dict look-up."""

    template: Template
    routes: dict[str, Route]
    handlers: dict[tuple[str, str], Handler]
    undos: dict[tuple[str, str], Handler]
    joins: dict[str, Handler]
    problems: tuple[str, ...]

    def route(self, message_type: str) -> Route:
        """Returns what a message of this type triggers."""
        return self.routes.get(message_type, _NOTHING)

    def handler(self, step: StepSpec, message_type: str) -> Handler | None:
        """Returns the handler of a step for this trigger type, or None if the agent has none."""
        return self.joins.get(step.name) if step.joins else self.handlers.get((step.name, message_type))

    def undo(self, step: StepSpec, message_type: str) -> Handler | None:
        """Returns the handler that undoes an effect that this step reported with this type, or None."""
        return self.undos.get((step.name, message_type))

    def speaks_rightly(self, recorded: Recorded) -> bool:
        """Tells whether a fact's publisher may publish it: it owns the step, which emits the type, within its limit.

        A quick check of what the message claims. If it fails, the fold decides.
        """
        event, template = recorded.event, self.template
        if not event.step:
            by = recorded.agent
            return recorded.type in template.starts_with and (by == COORDINATOR or by in template.started_by)
        step = template.steps.get(event.step)
        if step is None or step.agent != recorded.agent or recorded.type not in step.emits:
            return False
        return step.allows(event.output_total)


@dataclass(slots=True)
class Bindings:
    """An agent's handlers over all known versions; each version is bound when it is first met."""

    agent: str
    handlers: Sequence[Handler]
    _bound: dict[int, Bound] = field(default_factory=dict)
    _gated: dict[str, frozenset[str]] = field(default_factory=dict)
    _ruled: dict[str, frozenset[str]] = field(default_factory=dict)

    def of(self, template: Template) -> Bound:
        """Returns the handlers bound to this version."""
        bound = self._bound.get(id(template))
        if bound is None:
            bound = self._bound[id(template)] = bind(self.agent, self.handlers, template)
        return bound

    def learn(self, templates: Iterable[Template]) -> None:
        """Learns the stored versions: the flow is read for messages that any of them gates or has rules on."""
        gated: dict[str, set[str]] = {}
        ruled: dict[str, set[str]] = {}
        for template in templates:
            gated.setdefault(template.name, set()).update(gate.on for gate in template.gates.values())
            ruled.setdefault(template.name, set()).update(*(rule.on for rule in template.rules.values()))
        self._gated = {name: frozenset(types) for name, types in gated.items()}
        self._ruled = {name: frozenset(types) for name, types in ruled.items()}

    def gated_somewhere(self, flow_type: str, message_type: str) -> bool:
        """Tells whether any stored version of the flow type gates this message."""
        return message_type in self._gated.get(flow_type, ())

    def ruled_somewhere(self, flow_type: str, message_type: str) -> bool:
        """Tells whether any stored version of the flow type evaluates a rule at this message."""
        return message_type in self._ruled.get(flow_type, ())


def bind(agent: str, handlers: Sequence[Handler], template: Template) -> Bound:
    """Binds handlers to a template; `problems` of the result lists what does not fit, one line each."""
    binder = _Binder(agent, handlers, template)
    own = [step for step in template.steps.values() if _runs(agent, step)]
    for step in own:
        binder.bind_step(step)
    types = {message_type for step in own for message_type in step.waits_for}
    routes = {message_type: _route(agent, template, message_type) for message_type in types}
    return Bound(template, routes, binder.steps, binder.undos, binder.joins, tuple(binder.problems))


def _runs(agent: str, step: StepSpec) -> bool:
    """Tells whether a worker of the agent runs the step."""
    return step.agent == agent and not step.external


def _route(agent: str, template: Template, message_type: str) -> Route:
    steps = tuple(step for step in template.triggered_by(message_type) if _runs(agent, step))
    joins = tuple(step for step in template.joins_on(message_type) if _runs(agent, step))
    irreversible = any(step.effect == EFFECT_IRREVERSIBLE for step in steps)
    fold_first = bool(joins) or irreversible or message_type == APPROVAL_REFUSED
    patience = min((step.timeout for step in (*steps, *joins)), default=timedelta.max)
    has_effect = any(step.effect != EFFECT_NONE for step in steps)
    return Route(steps, joins, fold_first, has_effect, patience)


class _Binder:
    """Collects the handlers for one template, and what does not fit."""

    def __init__(self, agent: str, handlers: Sequence[Handler], template: Template) -> None:
        self.agent = agent
        self.handlers = handlers
        self.template = template
        self.where = f"flow type {template.name}, version {template.version}"
        self.steps: dict[tuple[str, str], Handler] = {}
        self.undos: dict[tuple[str, str], Handler] = {}
        self.joins: dict[str, Handler] = {}
        self.problems: list[str] = []

    def bind_step(self, step: StepSpec) -> None:
        """Finds a handler for each trigger of a step, and for each effect that it may have to undo."""
        if step.joins:
            self._bind_join(step)
        for message_type in sorted(step.after):
            handler = self._find(Purpose.STEP, step, message_type, f"@agent.on({_short(message_type)})")
            if handler is not None and self._can_answer(handler, step, step.emits):
                self.steps[step.name, message_type] = handler
        if step.effect == EFFECT_UNDOABLE and step.undo is not None:
            for message_type in sorted(step.emits | self._nothing(step)):
                handler = self._find(Purpose.UNDO, step, message_type, f"@agent.undoes({_short(message_type)})")
                if handler is not None and self._can_answer(handler, step, step.undo.emits):
                    self.undos[step.name, message_type] = handler

    def _nothing(self, step: StepSpec) -> frozenset[str]:
        """Returns StepCompleted if a handler of the step may answer with nothing: that reports an effect, too."""
        handlers = [self.joins.get(step.name), *(self.steps.get((step.name, trigger)) for trigger in step.after)]
        return frozenset({STEP_COMPLETED} if any(h is not None and h.may_return_nothing for h in handlers) else ())

    def _bind_join(self, step: StepSpec) -> None:
        wanted = frozenset(join.type for join in step.joins)
        names = ", ".join(sorted(map(_short, wanted)))
        matching = [h for h in self._candidates(Purpose.JOIN, step) if frozenset(h.inputs) == wanted]
        handler = self._most_specific(matching, step, f"@agent.on_all({names})")
        if handler is None:
            return
        if self._can_answer(handler, step, step.emits):
            self.joins[step.name] = handler
        several = {name for p in handler.parameters if p.several for name in (t.DESCRIPTOR.full_name for t in p.types)}
        for join in step.joins:
            if join.type not in several and join.count.fixed != 1:
                self._problem(
                    f'step {step.name} waits for "{join.count.text}" of {join.type}; handler {handler.name} takes one: '
                    f"annotate list[{_short(join.type)}]"
                )

    def _find(self, purpose: Purpose, step: StepSpec, message_type: str, remedy: str) -> Handler | None:
        matching = [handler for handler in self._candidates(purpose, step) if message_type in handler.inputs]
        return self._most_specific(matching, step, remedy)

    def _candidates(self, purpose: Purpose, step: StepSpec) -> list[Handler]:
        return [
            handler
            for handler in self.handlers
            if handler.purpose is purpose
            and handler.step in ("", step.name)
            and handler.flow_type in ("", self.template.name)
        ]

    def _most_specific(self, matching: Sequence[Handler], step: StepSpec, remedy: str) -> Handler | None:
        if not matching:
            self._problem(f"step {step.name} belongs to agent {self.agent}, which has no handler for it: add {remedy}")
            return None
        best = max(map(_specificity, matching))
        chosen = [handler for handler in matching if _specificity(handler) == best]
        if len(chosen) > 1:
            names = ", ".join(handler.name for handler in chosen)
            self._problem(
                f"step {step.name}: {names} are all declared for it; tell them apart with step= or flow_type="
            )
        return chosen[0]

    def _can_answer(self, handler: Handler, step: StepSpec, allowed: frozenset[str]) -> bool:
        """Tells whether the handler has an answer that the step allows; records its other answers as problems."""
        strange = sorted(set(handler.returns) - allowed - {STEP_COMPLETED})
        if strange:
            self._problem(
                f"handler {handler.name} may return {', '.join(strange)}; step {step.name} allows "
                f"{', '.join(sorted(allowed))}"
            )
        for message_type in sorted(set(handler.returns) & allowed):
            if not self.template.contracts.knows(message_type):
                self._problem(
                    f"handler {handler.name} may return {message_type}, which the stored contracts don't have"
                )
        return handler.may_return_nothing or not handler.returns or not allowed.isdisjoint(handler.returns)

    def _problem(self, text: str) -> None:
        line = f"{self.where}: {text}"
        if line not in self.problems:
            self.problems.append(line)


def _specificity(handler: Handler) -> int:
    return 2 * bool(handler.step) + bool(handler.flow_type)


def _short(message_type: str) -> str:
    return message_type.rpartition(".")[2]
