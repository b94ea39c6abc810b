"""Templates and contracts from files, and findings as people read them."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from google.protobuf.message import Message

from handrail.analysis.check import typecheck
from handrail.analysis.check.codes import finding
from handrail.cli.enum_words import word
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.mesh.contracts import Contracts, descriptor_set_for
from handrail.mesh.errors import HandrailError
from handrail.mesh.template.yaml_reader import load_yaml, read_yaml
from handrail.v1.template_pb2 import Finding, FlowTemplate, Severity

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def read_template(path: Path) -> FlowTemplate:
    """Reads the template in a YAML file; raises CommandError with line and column if it is invalid."""
    try:
        return load_yaml(_text(path))
    except HandrailError as error:
        raise CommandError(f"{path}: {error.text} ({error.reason_name})") from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", Exit.USAGE) from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text", Exit.USAGE) from None


def findings_of(path: Path, contracts: Contracts) -> list[Finding]:
    """Returns the type-check's findings in a file, each with its location; an invalid template is a finding, too.

    Raises CommandError if the file can't be read.
    """
    try:
        template, places = read_yaml(_text(path))
    except HandrailError as error:
        return [_no_template(error)]
    return places.located(typecheck.check(template, contracts))


def _no_template(error: HandrailError) -> Finding:
    line, column = error.metadata.get("line", "1"), error.metadata.get("column", "1")
    path = error.metadata.get("field", "")
    text = error.text.removeprefix(f"line {line}, column {column}: ").removeprefix(f"{path}: ")
    found = finding("HR030", path, text)
    found.line, found.column = int(line), int(column)
    return found


_IMAGE = "an image from `buf build -o IMAGE.binpb`, or a Python module with MESSAGES"


def add_contracts(parser: argparse.ArgumentParser) -> None:
    """Adds the --contracts flag; `contracts_of` reads it."""
    parser.add_argument(
        "--contracts", default="", metavar="IMAGE", help=f"required: descriptors of the messages, {_IMAGE}"
    )


def contracts_of(arguments: argparse.Namespace, path: Path) -> Contracts:
    """Reads the contracts of the --contracts flag, which the template in a file needs. Raises what `read_contracts`
    raises, and CommandError with Exit.USAGE if the flag is missing."""
    if not arguments.contracts:
        raise CommandError(
            f"the messages of {path} are unknown: name their descriptors with --contracts IMAGE, {_IMAGE}", Exit.USAGE
        )
    return read_contracts(arguments.contracts)


def read_contracts(source: str) -> Contracts:
    """Reads the contracts of an image from `buf build -o FILE`, or of a Python module that declares MESSAGES.

    Raises CommandError if it is neither.
    """
    descriptors = read_descriptors(source)
    try:
        return Contracts.from_descriptor_set(descriptors)
    except HandrailError as error:
        raise CommandError(f"{source}: {error.text} ({error.reason_name})") from None


def read_descriptors(source: str) -> bytes:
    """Reads the descriptor set of an image or Python module, unchanged; raises CommandError if it can't be read."""
    path = Path(source)
    try:
        if not path.is_file() and _MODULE.fullmatch(source):
            return descriptor_set_for(read_messages(import_from_here(source)))
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{source} can't be read: {error.strerror}", Exit.USAGE) from None


def needed(template: FlowTemplate, contracts: Contracts) -> bytes:
    """Returns the part of an image that the template needs: a whole image may exceed the broker's message limit."""
    named = {
        *template.starts_with,
        *template.completes_with,
        *(each for step in template.steps for each in (*step.after, *step.emits, *step.undo.emits)),
        *(join.type for step in template.steps for join in step.after_all),
        *(gate.on for gate in template.gates),
        *(each for rule in template.rules for each in rule.on),
    }
    return contracts.subset(sorted(named))


def import_from_here(name: str) -> ModuleType:
    """Imports a module from the path or the working directory; raises CommandError if it can't be imported."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CommandError(f"{name} can't be imported: {error}", Exit.USAGE) from None


def read_messages(module: ModuleType) -> tuple[type[Message], ...]:
    """Returns the message classes that a module declares as MESSAGES; raises CommandError if it declares none."""
    messages = getattr(module, "MESSAGES", None)
    if not isinstance(messages, tuple) or not all(
        isinstance(each, type) and issubclass(each, Message) for each in messages
    ):
        raise CommandError(f"{module.__name__} declares no MESSAGES, a tuple of message classes", Exit.USAGE)
    return messages


def print_findings(output: Output, findings: Iterable[tuple[Path, Finding]]) -> None:
    """Prints findings for people, in the order of their lines, each with its remedy. What is found at several places of
    a file is printed once, with all of them."""
    for (path, severity, code, text, remedy), places in distinct(findings).items():
        first, *others = sorted(places, key=lambda found: (found.line, found.column))
        word_of = word(Severity.Name(severity), "SEVERITY_").lower()
        at = f":{first.line}:{first.column}" if first.line else ""
        about = f" {first.path}" if first.path else ""
        output.text(f"{path}{at}: {word_of} {code}{about}: {text}")
        if others:
            output.text(f"    also {', '.join(map(_place, others))}")
        if remedy:
            output.text(f"    {remedy}")


Key: TypeAlias = tuple[Path, Severity.ValueType, str, str, str]
"""What makes findings the same: file, severity, code, text, remedy."""


def distinct(findings: Iterable[tuple[Path, Finding]]) -> dict[Key, list[Finding]]:
    """The findings that say the same of different places, together."""
    found: dict[Key, list[Finding]] = {}
    in_order = sorted(findings, key=lambda each: (str(each[0]), each[1].line, each[1].column))
    for path, each in in_order:
        found.setdefault((path, each.severity, each.code, each.text, each.remedy), []).append(each)
    return found


def _place(found: Finding) -> str:
    return f"at {found.line}:{found.column} {found.path}".rstrip() if found.line else f"at {found.path}"


def refuse(output: Output, path: Path, findings: Iterable[Finding]) -> None:
    """Raises CommandError if there is an error among the findings; prints all of them for people before."""
    listed = [(path, found) for found in findings]
    errors = [each for each in listed if is_error(each[1])]
    if not errors:
        return
    count = len(distinct(errors))
    if output.is_json:
        raise CommandError(f"{path} is refused: {errors[0][1].code} {errors[0][1].text}")
    print_findings(output, listed)
    raise CommandError(f"{path} is refused: {'1 error' if count == 1 else f'{count} errors'}")


def is_error(finding: Finding) -> bool:
    """Tells whether a finding prevents storing the template."""
    return finding.severity == Severity.SEVERITY_ERROR
