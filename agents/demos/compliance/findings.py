"""What a check finds, bounded however much it is, and clean whatever it was found in."""

from collections import defaultdict

from compliance.v1.compliance_pb2 import Finding, Severity
from handrail.mesh.printable import clean, shortened

LIMIT = 20
SUBJECT_LIMIT = 300
TEXT_LIMIT = 500
"""What the contract lets a result hold: findings, and characters."""


class Findings:
    """Collects findings: the first ones of each severity, and how many there were."""

    def __init__(self) -> None:
        self._kept: dict[Severity.ValueType, list[Finding]] = defaultdict(list)
        self._count = 0

    def note(self, code: str, subject: str, text: str) -> None:
        """Something worth knowing, with which the check passes."""
        self._add(Severity.SEVERITY_NOTE, code, subject, text)

    def failure(self, code: str, subject: str, text: str) -> None:
        """Something that fails the check."""
        self._add(Severity.SEVERITY_FAILURE, code, subject, text)

    def grave(self, code: str, subject: str, text: str) -> None:
        """Something that fails the check and is a matter for a person by itself."""
        self._add(Severity.SEVERITY_GRAVE, code, subject, text)

    @property
    def all(self) -> list[Finding]:
        """The findings, the gravest first; no more than a result may hold."""
        ordered = sorted(self._kept, reverse=True)
        return [finding for severity in ordered for finding in self._kept[severity]][:LIMIT]

    @property
    def failures(self) -> list[Finding]:
        """Those that fail the check."""
        return [finding for finding in self.all if finding.severity > Severity.SEVERITY_NOTE]

    @property
    def passed(self) -> bool:
        """Whether there is nothing but notes."""
        return not self.failures

    @property
    def omitted(self) -> int:
        """How many findings are not among `all`."""
        return self._count - len(self.all)

    def _add(self, severity: Severity.ValueType, code: str, subject: str, text: str) -> None:
        self._count += 1
        if len(self._kept[severity]) < LIMIT:
            finding = Finding(
                code=code,
                severity=severity,
                subject=shortened(clean(subject), SUBJECT_LIMIT),
                text=shortened(clean(text), TEXT_LIMIT),
            )
            self._kept[severity].append(finding)
