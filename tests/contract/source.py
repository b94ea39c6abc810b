"""The source tree as the contract tests see it: its import roots, its modules and what each of them imports."""

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = "gen/python"


@cache
def import_roots() -> tuple[str, ...]:
    """The folders that hold a part of the namespace, as pyproject.toml lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return tuple(settings["tool"]["hatch"]["build"]["dev-mode-dirs"])


@dataclass(frozen=True, slots=True)
class Module:
    """One module of an import root: its dotted name, its file and the names it imports, wherever in the file."""

    name: str
    path: Path
    imports: frozenset[str]
    calls: frozenset[str]


@cache
def modules(root: str) -> tuple[Module, ...]:
    """Every module below an import root; empty while the root does not exist."""
    return tuple(_read(path, path.relative_to(ROOT / root)) for path in sorted((ROOT / root).rglob("*.py")))


@cache
def module_files(root: str) -> dict[str, Path]:
    """The modules of an import root by dotted name."""
    return {_dotted(path.relative_to(ROOT / root)): path for path in (ROOT / root).rglob("*.py")}


def _dotted(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path, relative: Path) -> Module:
    tree = ast.parse(path.read_text("utf-8"), filename=str(path))
    package = relative.parent.parts
    imports: set[str] = set()
    calls: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                imports.update(alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                origin = ".".join([*base, *([source] if source else [])])
                # `from a.b import c` may mean the module a.b.c or a name in a.b: both are recorded.
                imports.add(origin)
                imports.update(f"{origin}.{alias.name}" for alias in names)
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                calls.add(f"{owner}.{attribute}")
    return Module(_dotted(relative), path, frozenset(imports), frozenset(calls))
