"""The check of licences: compares the licence that a distribution claims with a policy."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import yaml

from demos.compliance.checks import spdx
from demos.compliance.checks.spdx import Verdict
from demos.compliance.findings import Findings
from demos.compliance.installed import Installed, Unreadable

_VERDICTS = {
    "allowed": Verdict.ALLOWED,
    "needs_person": Verdict.NEEDS_PERSON,
    "denied": Verdict.DENIED,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The verdicts on licences, by SPDX id in lower case."""

    verdicts: Mapping[str, Verdict]

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Reads a policy: YAML with the lists `allowed`, `needs_person` and `denied`.

        Raises:
            OSError: if the file can't be read.
            ValueError: if it is not a policy; says why.
        """
        verdicts: dict[str, Verdict] = {}
        try:
            read = yaml.safe_load(path.read_text("utf-8"))
            unknown = read.keys() - _VERDICTS.keys()
            if unknown:
                raise ValueError(f"{path}: {', '.join(map(str, unknown))} is not one of {', '.join(_VERDICTS)}")
            for name, ids in read.items():
                for id_ in ids or ():
                    if verdicts.setdefault(id_.lower(), _VERDICTS[name]) is not _VERDICTS[name]:
                        raise ValueError(f"{path}: {id_} is in two lists")
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{path} is not a policy (lists of SPDX ids: {', '.join(_VERDICTS)}): {why}") from error
        return cls(verdicts)

    def judge(self, id_: str) -> Verdict:
        """The verdict on one licence. An exception that the policy does not name is ignored."""
        bare = id_.partition(" WITH ")[0]
        return self.verdicts.get(id_.lower(), self.verdicts.get(bare.lower(), Verdict.UNKNOWN))


@dataclass(frozen=True, slots=True)
class Claim:
    """The licence that a distribution claims, the place of the claim, and the policy's verdict."""

    source: str
    text: str
    verdict: Verdict


def check(installed: Installed, policy: Policy) -> Findings:
    """Judges the licence by the distribution's most binding claim."""
    findings = Findings()
    try:
        metadata = installed.metadata()
    except Unreadable as error:
        findings.failure("LICENCE_UNREADABLE", "METADATA", f"its licence can't be read: {error}")
        return findings
    claim = next(_claims(installed, metadata, policy, findings), None)
    if claim is None:
        findings.failure("LICENCE_MISSING", "", "it names no licence in a known way")
        return findings
    where = f"{claim.text} ({claim.source})"
    match claim.verdict:
        case Verdict.ALLOWED:
            pass
        case Verdict.UNKNOWN:
            findings.failure("LICENCE_UNKNOWN", claim.text, f"the policy does not mention {where}")
        case Verdict.NEEDS_PERSON:
            findings.grave("LICENCE_NEEDS_PERSON", claim.text, f"the policy leaves {where} to a person")
        case Verdict.DENIED:
            findings.grave("LICENCE_DENIED", claim.text, f"the policy denies {where}")
    return findings


def _claims(installed: Installed, metadata: Message, policy: Policy, findings: Findings) -> Iterator[Claim]:
    """The claims of a licence, the most binding first."""
    expression = str(metadata.get("License-Expression", "")).strip()
    if expression:
        try:
            yield Claim("License-Expression", expression, spdx.verdict(expression, policy.judge))
        except ValueError as error:
            findings.note("LICENCE_EXPRESSION", "License-Expression", str(error))
    field = str(metadata.get("License", "")).strip()
    id_ = spdx.id_of_name(field) or spdx.id_of_text(field) or field
    if id_.lower() in policy.verdicts:
        yield Claim("License", id_, policy.judge(id_))
    ids = [spdx.CLASSIFIERS[name] for name in _classifiers(metadata) if name in spdx.CLASSIFIERS]
    if ids:
        yield _all_of("classifiers", ids, policy)
    texts = _files(installed, metadata)
    if texts:
        yield _all_of(", ".join(texts.values()), texts, policy)
    if field:
        yield Claim("License", field, policy.judge(field))


def _all_of(source: str, ids: Collection[str], policy: Policy) -> Claim:
    """Several licences that all apply: the worst decides."""
    return Claim(source, " AND ".join(ids), max(map(policy.judge, ids)))


def _classifiers(metadata: Message) -> Iterator[str]:
    for classifier in metadata.get_all("Classifier") or ():
        parts = [part.strip() for part in str(classifier).split("::")]
        if parts[0] == "License":
            yield parts[-1]


def _files(installed: Installed, metadata: Message) -> dict[str, str]:
    """The licences with their texts in the distribution's licence files, and the file of each."""
    found: dict[str, str] = {}
    for name in metadata.get_all("License-File") or ():
        for path in (f"licenses/{name}", str(name)):
            try:
                id_ = spdx.id_of_text(installed.read(path) or "")
            except Unreadable:
                continue
            if id_:
                found.setdefault(id_, str(name))
    return found
