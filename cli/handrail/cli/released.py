"""Checks a project's contracts against the released ones beyond `buf breaking`: requests that are refused now, and
packages that nothing protects because they were never released."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from handrail.analysis.compat.change import Level
from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.diff import diff
from handrail.cli.baseline import read_image
from handrail.cli.buf import BufFinding

RELEASED = Path("gen/released.binpb")
"""The path of a project's released contracts."""

_RELEASE = "release it in the commit that gives the reason (buf build --exclude-source-info -o {image})"


def release_findings(
    image: Path, now: ContractSet, protos: Collection[str], ignored: Collection[str]
) -> Iterator[BufFinding]:
    """Yields the findings, with the paths of `protos`; files in the folders of `ignored` are omitted."""
    released = read_image(str(image))
    paths = {name: _path(name, protos) for name in now.files}
    for package in sorted(now.packages - released.packages):
        name = min(now.files_of({package}))
        if not is_in(paths[name], ignored):
            text = (
                f"package {package} is not in {image}, so nothing keeps it from breaking: "
                f"{_RELEASE.format(image=image)}"
            )
            yield BufFinding(paths[name], 0, 0, "PACKAGE_NOT_RELEASED", text)
    for change in diff(released, now):
        path = paths.get(change.file, change.file)
        if change.level is Level.BREAKING_REQUEST and not is_in(path, ignored):
            text = (
                f"{change.name}: {change.text}: requests that were valid are refused. Instead: {change.remedy}. "
                f"If it is intended, {_RELEASE.format(image=image)}"
            )
            yield BufFinding(path, 0, 0, change.code, text)


def _path(name: str, protos: Collection[str]) -> str:
    """Returns an image's file under buf's name in the project: with the folder of its module."""
    return next((path for path in protos if path == name or path.endswith(f"/{name}")), name)


def is_in(path: str, folders: Collection[str]) -> bool:
    """Tells whether a path is in one of the folders."""
    return any(Path(path).is_relative_to(folder) for folder in folders)
