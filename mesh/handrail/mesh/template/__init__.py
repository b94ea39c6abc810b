"""Templates: compiled (typed and indexed for the fold, the SDK and the coordinator), and their YAML form."""

from handrail.mesh.template.template import (
    APPROVAL_REFUSED,
    STEP_COMPLETED,
    GateSpec,
    JoinSpec,
    RetrySpec,
    RuleSpec,
    StepSpec,
    Template,
    UndoSpec,
    fact_types,
    load_yaml,
)

__all__ = [
    "APPROVAL_REFUSED",
    "STEP_COMPLETED",
    "GateSpec",
    "JoinSpec",
    "RetrySpec",
    "RuleSpec",
    "StepSpec",
    "Template",
    "UndoSpec",
    "fact_types",
    "load_yaml",
]
