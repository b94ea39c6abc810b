"""The patch of an approved plan: a unified diff that removes dead imports."""

import ast
import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demos.research.imports import Dead, dead_imports, without
from demos.research.source import SourceError, decode, read
from research.v1.research_pb2 import ChangePlanProposed


@dataclass(frozen=True, slots=True)
class Patch:
    """A unified diff, and the number of removed imports; `skipped` are the files left unchanged, with the reasons."""

    text: str
    removed: int
    skipped: tuple[str, ...]


def patch_of(folder: Path, plan: ChangePlanProposed) -> Patch:
    """The changes of a plan to the files that did not change since they were measured."""
    texts, removed, skipped = [], 0, []
    for path, digest in sorted(plan.digests.items()):
        wanted = [Dead(each.line, each.name) for each in plan.remove if each.path == path]
        try:
            before = _unchanged(folder, path, digest)
        except SourceError as error:
            skipped.append(str(error))
            continue
        after = without(before, wanted)
        ast.parse(after)  # a change that breaks the file is a bug of this demo: the step fails, and nothing is written
        texts.append(_diff(path, before, after))
        removed += len(wanted) - len(_left(after, wanted))
    return Patch("".join(texts), removed, tuple(skipped))


def _left(text: str, wanted: Sequence[Dead]) -> list[Dead]:
    """The imports that stay, because they share their lines with something else."""
    names = {each.name for each in wanted}
    return [each for each in dead_imports(ast.parse(text), text, is_package=False) if each.name in names]


def _unchanged(folder: Path, path: str, digest: str) -> str:
    content = read(folder, path)
    if hashlib.sha256(content).hexdigest() != digest:
        raise SourceError(f"{path} was changed since it was measured")
    if b"\r" in content:
        raise SourceError(f"{path} has unusual line ends")
    return decode(content, path)


def _diff(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
