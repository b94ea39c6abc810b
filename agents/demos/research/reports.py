"""The reports: a folder with a report, its figures and a patch for each research, written atomically."""

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from google.protobuf.json_format import MessageToDict

from demos.research.patch import Patch
from research.v1.research_pb2 import ChangePlanProposed, ReportWritten


class Reports:
    """Reports in a folder. A second attempt has the same key and writes the same files again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, plan: ChangePlanProposed, patch: Patch | None, *, key: str, refused_by: str) -> ReportWritten:
        """Writes a report; `patch` is None if the plan was refused."""
        stem = f"{plan.name}-{key[:8]}"
        written = ReportWritten(name=plan.name, report=f"{stem}.md", refused=patch is None)
        if patch is not None and patch.text:
            written.patch, written.removed = f"{stem}.patch", patch.removed
            self._write(written.patch, patch.text)
        figures = MessageToDict(plan, preserving_proto_field_name=True) | {"refused_by": refused_by}
        self._write(f"{stem}.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
        self._write(written.report, _report(plan, patch, refused_by))
        return written

    def remove(self, written: ReportWritten) -> None:
        """Removes the files; missing ones are not an error."""
        for suffix in (".md", ".json", ".patch"):
            (self._folder / written.report).with_suffix(suffix).unlink(missing_ok=True)

    def figures(self, written_report: str) -> dict[str, object]:
        """The figures of an existing report."""
        figures: dict[str, object] = json.loads((self._folder / written_report).with_suffix(".json").read_text("utf-8"))
        return figures

    def names(self) -> list[str]:
        """The existing reports."""
        return sorted(path.name for path in self._folder.glob("*.md"))

    def _write(self, name: str, text: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", dir=self._folder, prefix=".", delete=False) as file:
            file.write(text)
        os.replace(file.name, self._folder / name)


def _report(plan: ChangePlanProposed, patch: Patch | None, refused_by: str) -> str:
    totals = plan.totals
    lines = [
        f"# {plan.name}",
        "",
        f"{totals.files} files, {totals.lines:,} lines, {totals.functions:,} functions with a total complexity of "
        f"{totals.complexity:,}, {totals.long_functions} of them long.",
        "",
    ]
    if totals.problems:
        lines += [f"{totals.problems} files could not be measured.", ""]
    if patch is None:
        lines += [f"Nothing is changed: the plan was refused by {refused_by}.", ""]
    else:
        lines += [f"{patch.removed} dead imports are removed by the patch.", ""]
        lines += [f"- left unchanged: {why}" for why in patch.skipped]
    if plan.simplify:
        lines += ["## To simplify", "", "| function | at | lines | complexity |", "| --- | --- | ---: | ---: |"]
        lines += [f"| `{f.name}` | {f.path}:{f.line} | {f.lines} | {f.complexity} |" for f in plan.simplify]
    return "\n".join(lines).rstrip() + "\n"
