"""A package of agents for `handrail dev --agents`: agents, templates, messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from handrail.cli.dev.processes import StartError
from handrail.cli.exit_codes import CommandError
from handrail.cli.templates import import_from_here, read_messages, read_template
from handrail.mesh.contracts import descriptor_set_for
from handrail.v1.template_pb2 import FlowTemplate


@dataclass(frozen=True, slots=True)
class Package:
    """What a module declares: `AGENTS` (name -> module:agent), `TEMPLATES` (YAML files), `MESSAGES` (their classes).

    The optional `EXAMPLES` (flow type -> a first message) give people a command to try. `names` are the modules';
    `code` and `files` are where they come from: folders or files of Python, and YAML.
    """

    agents: Mapping[str, str]
    templates: tuple[FlowTemplate, ...]
    descriptors: bytes
    examples: Mapping[str, Message]
    names: tuple[str, ...] = ()
    code: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        """The roles that its gates name."""
        return frozenset(
            role for template in self.templates for gate in template.gates for role in gate.approvers.roles
        )


def load_package(name: str) -> Package:
    """Imports a package of agents from the path or the working directory; raises StartError if it is invalid."""
    try:
        module = import_from_here(name)
        paths = getattr(module, "TEMPLATES", None)
        if not isinstance(paths, tuple) or not all(isinstance(path, Path) for path in paths):
            raise StartError(f"{name} declares no TEMPLATES, a tuple of paths")
        templates = tuple(map(read_template, paths))
        messages = read_messages(module)
    except CommandError as error:
        raise StartError(error.text) from None
    agents = getattr(module, "AGENTS", None)
    if not isinstance(agents, dict):
        raise StartError(f"{name} declares no AGENTS, a dict from an agent's name to module:agent")
    examples = dict(getattr(module, "EXAMPLES", {}))
    return Package(dict(agents), templates, descriptor_set_for(messages), examples, (name,), _code_of(module), paths)


def _code_of(module: ModuleType) -> tuple[Path, ...]:
    """The folder of a package, or the file of a module."""
    places = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
    return tuple(Path(each).absolute() for each in places if each)


def merged(packages: Iterable[Package]) -> Package:
    """Merges several packages; raises StartError if two have an agent of the same name."""
    agents: dict[str, str] = {}
    templates: list[FlowTemplate] = []
    contracts: list[bytes] = []
    examples: dict[str, Message] = {}
    names: list[str] = []
    code: list[Path] = []
    files: list[Path] = []
    for package in packages:
        twice = agents.keys() & package.agents.keys()
        if twice:
            raise StartError(f"two packages have an agent named {', '.join(sorted(twice))}")
        agents |= package.agents
        templates += package.templates
        contracts.append(package.descriptors)
        examples |= package.examples
        names += package.names
        code += package.code
        files += package.files
    return Package(agents, tuple(templates), _union(contracts), examples, tuple(names), tuple(code), tuple(files))


def _union(contracts: Iterable[bytes]) -> bytes:
    files = {file.name: file for each in contracts for file in FileDescriptorSet.FromString(each).file}
    return FileDescriptorSet(file=files.values()).SerializeToString(deterministic=True)
