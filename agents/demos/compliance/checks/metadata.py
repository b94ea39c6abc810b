"""The check of metadata: whether it is complete and for this interpreter, and its requirements are installed."""

import platform
from collections import defaultdict
from collections.abc import Mapping
from email.message import Message

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from demos.compliance.checks.requirements import needed_here
from demos.compliance.findings import Findings
from demos.compliance.installed import UNKNOWN_VERSION, Environment, Installed, Unreadable, normalized

REQUIRED = ("Metadata-Version", "Name", "Version")
"""The required fields of metadata: https://packaging.python.org/en/latest/specifications/core-metadata/"""

WANTED = {
    "a summary": ("Summary",),
    "whom to ask": ("Author", "Author-email", "Maintainer", "Maintainer-email"),
    "where it comes from": ("Project-URL", "Home-page"),
    "which Python it is for": ("Requires-Python",),
}
"""What people look for, and the fields that may say it."""


def check(installed: Installed) -> Findings:
    """Checks the metadata of a distribution, and the other distributions of its environment."""
    findings = Findings()
    others = _installed_versions(installed.environment)
    distribution = installed.distribution
    if len(others[distribution.name]) > 1:
        versions = ", ".join(sorted(others[distribution.name]))
        findings.failure("INSTALLED_TWICE", distribution.name, f"the environment has it in the versions {versions}")
    try:
        metadata = installed.metadata()
    except Unreadable as error:
        findings.failure("METADATA_UNREADABLE", distribution.folder, str(error))
        return findings
    _complete(installed, metadata, findings)
    _for_this_python(metadata, findings)
    for line in metadata.get_all("Requires-Dist") or ():
        _dependency(str(line), others, findings)
    return findings


def _complete(installed: Installed, metadata: Message, findings: Findings) -> None:
    for field in REQUIRED:
        if not str(metadata.get(field, "")).strip():
            findings.failure("FIELD_MISSING", field, "the metadata must have this field")
    name, version = str(metadata.get("Name", "")), str(metadata.get("Version", ""))
    distribution = installed.distribution
    if name and normalized(name) != distribution.name:
        findings.failure("NAME_DIFFERS", "Name", f"the metadata says {name}, its folder says {distribution.name}")
    if version and distribution.version != UNKNOWN_VERSION and not _same_version(version, distribution.version):
        text = f"the metadata says {version}, its folder says {distribution.version}"
        findings.failure("VERSION_DIFFERS", "Version", text)
    absent = [
        what for what, fields in WANTED.items() if not any(str(metadata.get(field, "")).strip() for field in fields)
    ]
    if absent:
        findings.note("METADATA_INCOMPLETE", "METADATA", f"it does not say {', '.join(absent)}")


def _same_version(one: str, other: str) -> bool:
    """Whether two versions are the same; a folder's name has `_` for `-`."""
    try:
        return Version(one) == Version(other.replace("_", "-"))
    except ValueError:
        return one.replace("-", "_") == other.replace("-", "_")


def _for_this_python(metadata: Message, findings: Findings) -> None:
    wanted = str(metadata.get("Requires-Python", "")).strip()
    here = platform.python_version()
    try:
        if not SpecifierSet(wanted).contains(Version(here), prereleases=True):
            findings.failure("WRONG_PYTHON", "Requires-Python", f"it is for Python {wanted}, and this is {here}")
    except ValueError as error:
        findings.note("NOT_JUDGED", "Requires-Python", str(error))


def _dependency(line: str, others: Mapping[str, set[str]], findings: Findings) -> None:
    try:
        requirement = needed_here(line)
        if requirement is None:
            return
        name = normalized(requirement.name)
        found = others.get(name, set())
        if not found:
            findings.failure("DEPENDENCY_MISSING", name, f"it needs {line}, which is not installed")
        elif not any(requirement.specifier.contains(version, prereleases=True) for version in found):
            # A version that can't be parsed has no order, so it is not judged.
            versions = ", ".join(sorted(found, key=Version))
            findings.failure("DEPENDENCY_VERSION", name, f"it needs {line}, and {versions} is installed")
    except ValueError as error:
        findings.note("NOT_JUDGED", "Requires-Dist", str(error))


def _installed_versions(environment: Environment) -> defaultdict[str, set[str]]:
    """The versions of each name that is installed."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for each in environment.distributions():
        found[each.distribution.name].add(each.distribution.version)
    return found
