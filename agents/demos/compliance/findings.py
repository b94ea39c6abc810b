"""The findings of a check: limited in number and length, and safe to print."""

from collections import defaultdict

from compliance.v1.compliance_pb2 import Finding, Severity
from handrail.mesh.printable import clean, shortened

LIMIT = 20
SUBJECT_LIMIT = 300
TEXT_LIMIT = 500
"""The limits of the contract for a result: findings, and characters of a text."""


class Findings:
    """Collects findings: the first ones of each severity, and the number of all."""

    def __init__(self) -> None:
        self._kept: dict[Severity.ValueType, list[Finding]] = defaultdict(list)
        self._count = 0

    def note(self, code: str, subject: str, text: str) -> None:
        """Adds a note; the check still passes."""
        self._add(Severity.SEVERITY_NOTE, code, subject, text)

    def failure(self, code: str, subject: str, text: str) -> None:
        """Adds a failure: the check fails."""
        self._add(Severity.SEVERITY_FAILURE, code, subject, text)

    def grave(self, code: str, subject: str, text: str) -> None:
        """Adds a grave failure: the check fails, and a person must decide."""
        self._add(Severity.SEVERITY_GRAVE, code, subject, text)

    @property
    def all(self) -> list[Finding]:
        """The findings, the gravest first; at most as many as a result may contain."""
        ordered = sorted(self._kept, reverse=True)
        return [finding for severity in ordered for finding in self._kept[severity]][:LIMIT]

    @property
    def failures(self) -> list[Finding]:
        """The findings that fail the check."""
        return [finding for finding in self.all if finding.severity > Severity.SEVERITY_NOTE]

    @property
    def passed(self) -> bool:
        """Whether all findings are notes."""
        return not self.failures

    @property
    def omitted(self) -> int:
        """The number of findings that are not in `all`."""
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
