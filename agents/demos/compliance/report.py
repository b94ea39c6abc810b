"""The tables at the end of a run: the outcomes of distributions, the failed checks, and the register."""

from collections import Counter
from collections.abc import Mapping, Sequence

from compliance.v1.compliance_pb2 import Check, CheckCompleted, Severity
from demos.compliance.approvals import Approval
from demos.compliance.history import History
from demos.compliance.plan import Ending
from demos.compliance.register import check_name
from demos.stage.story import table


def outcome_table(endings: Mapping[str, Ending]) -> list[str]:
    """The number of distributions of each environment by outcome."""
    counts = Counter((how, key.rpartition("@")[2]) for key, how in endings.items())
    environments = sorted({environment for _, environment in counts}, reverse=True)
    rows = []
    for how in Ending:
        of_each = [counts[how, environment] for environment in environments]
        rows.append([how.value, *map(str, of_each), str(sum(of_each))])
    return table([["outcome", *environments, "all"], *rows])


def check_table(histories: Mapping[str, History]) -> list[str]:
    """The results of the checks, by check, and the findings, by code."""
    results = [result for history in histories.values() for result in history.of(CheckCompleted)]
    outcomes = Counter((result.check, result.passed) for result in results)
    codes = Counter(
        (result.check, finding.code, finding.severity > Severity.SEVERITY_NOTE)
        for result in results
        for finding in {each.code: each for each in reversed(result.findings)}.values()
    )
    rows = []
    for check in Check.values()[1:]:
        rows.append([check_name(check), str(outcomes[check, True]), str(outcomes[check, False])])
        for (of, code, fails), count in sorted(codes.items()):
            if of == check:
                rows.append([f"  {code}", "" if fails else str(count), str(count) if fails else ""])
    return table([["check", "passed", "failed"], *rows])


def register_table(approvals: Sequence[Approval], withdrawn: frozenset[str]) -> list[str]:
    """The totals of the register."""
    remarks = sum(bool(each.remarks) for each in approvals if each.approval_id not in withdrawn)
    rows = [
        ["in force", str(len(approvals) - len(withdrawn))],
        ["  of them with remarks", str(remarks)],
        ["withdrawn", str(len(withdrawn))],
    ]
    return table([["register", "approvals"], *rows])
