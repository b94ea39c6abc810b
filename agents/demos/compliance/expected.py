"""The result of every check for every distribution, called directly in one process: no flow, no event, no broker.

The audit compares the flows of a run with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compliance.v1.compliance_pb2 import Check, CheckCompleted, Severity
from demos.compliance.answers import answer
from demos.compliance.checks import binaries, integrity, licences, metadata, names
from demos.compliance.findings import Findings
from demos.compliance.installed import Environment, Installed

FAILED_CHECKS_FOR_A_PERSON = 2
"""So many failed checks need a person, as in the template's rule `two_checks_failed`."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The results of the checks for one distribution; `changed`: one of its files is not the installed one."""

    installed: Installed
    results: Mapping[Check.ValueType, CheckCompleted]
    changed: bool

    @property
    def failed(self) -> Sequence[Check.ValueType]:
        """The failed checks, in order."""
        return [check for check, result in sorted(self.results.items()) if not result.passed]

    @property
    def needs_person(self) -> bool:
        """Whether it needs a person."""
        grave = any(
            finding.severity == Severity.SEVERITY_GRAVE for each in self.results.values() for finding in each.findings
        )
        return grave or len(self.failed) >= FAILED_CHECKS_FOR_A_PERSON

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its files."""
        return self.results[Check.CHECK_INTEGRITY].fingerprint


def expect(environment: Environment, policy: licences.Policy, known: names.Names) -> dict[str, Expected]:
    """Checks every distribution of an environment; returns the results by the key of the flow.

    Raises:
        OSError: if the environment can't be read.
    """
    return {installed.key: _expect(installed, policy, known) for installed in environment.distributions()}


def _expect(installed: Installed, policy: licences.Policy, known: names.Names) -> Expected:
    inspection = integrity.inspect(installed)
    findings: dict[Check.ValueType, Findings] = {
        Check.CHECK_LICENCES: licences.check(installed, policy),
        Check.CHECK_INTEGRITY: inspection.findings,
        Check.CHECK_METADATA: metadata.check(installed),
        Check.CHECK_BINARIES: binaries.check(installed),
        Check.CHECK_NAMES: names.check(installed, known),
    }
    results = {}
    for check, each in findings.items():
        fingerprint = inspection.fingerprint if check == Check.CHECK_INTEGRITY else ""
        *_, completed = answer(installed, check, each, fingerprint=fingerprint)
        assert isinstance(completed, CheckCompleted)
        results[check] = completed
    return Expected(installed, results, changed=bool(inspection.changed))
