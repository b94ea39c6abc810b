"""The arrows between the parts run one way, and the pure core stays pure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import picture
from tests.contract.source import GENERATED, ROOT, Module, import_roots, modules

# What the modules below an import root may import besides their own part. The contracts of the product itself
# (handrail.v1, buf.validate) are free to all.
ARROWS = {
    "mesh": frozenset[str](),
    "analysis": frozenset({"mesh"}),
    "agents": frozenset({"mesh"}),
    "coordinator": frozenset({"mesh", "analysis"}),
    "visibility": frozenset({"mesh"}),
    "console": frozenset({"mesh", "analysis"}),
    "cli": frozenset({"mesh", "analysis", "agents", "coordinator", "visibility", "console", "testing"}),
    "testing": frozenset({"mesh", "analysis", "agents", "coordinator", "cli"}),
}
# The demos are systems built on the product, as a user's would be: they speak to a coordinator, they don't import it.
DEMOS = frozenset({"mesh", "agents", "cli", "testing"})

# The history checker: a second reading of the streams, which may share nothing with the first.
CHECKER = ("finding", "record", "plan", "approvals", "account", "standing", "rules", "waiting", "acknowledged", "check")

# What the console's pages are made of.
CONSOLE_VIEWS = ("sentence", "states", "money", "timeline", "events", "graph", "proposals")

# Pure: no broker, no network, no tracing, no event loop, no clock, no random source. Each pattern must match.
PURE = (
    *(
        f"mesh/handrail/mesh/{name}"
        for name in ("wire", "contracts", "conditions", "template", "flow", "fold", "permissions")
    ),
    "mesh/handrail/mesh/errors.py",
    "analysis/handrail/analysis",
    *(f"agents/handrail/agents/{name}.py" for name in ("plan", "attempt", "bindings", "arguments")),
    *(f"cli/handrail/cli/verify/{name}.py" for name in CHECKER),
    "coordinator/handrail/coordinator/decide",
    "coordinator/handrail/coordinator/api/views",
    *(f"visibility/handrail/visibility/archive/{name}.py" for name in ("segment", "frame", "ranges", "errors")),
    "visibility/handrail/visibility/export/rows.py",
    "visibility/handrail/visibility/filter",
    *(f"console/handrail/console/flow/{name}.py" for name in CONSOLE_VIEWS),
    "console/handrail/console/web/moments.py",
    *(f"console/handrail/console/flows/{name}.py" for name in ("chips", "waits", "words")),
    *(f"console/handrail/console/approvals/{name}.py" for name in ("voter", "inbox")),
    *(f"console/handrail/console/overview/{name}.py" for name in ("needs", "sparkline", "tables")),
    "console/handrail/console/quarantine/rows.py",
    "console/handrail/console/agents/rows.py",
    "console/handrail/console/web/throttle.py",
)
BROKER_AND_NETWORK = {"nats", "socket", "grpc", "grpc_health", "grpc_reflection", "grpc_channelz", "opentelemetry"}
CONCURRENCY = {"asyncio", "uvloop", "threading"}
CLOCK_AND_CHANCE = {"time", "random", "secrets"}
IMPURE_IMPORTS = BROKER_AND_NETWORK | CONCURRENCY | CLOCK_AND_CHANCE
IMPURE_CALLS = {
    *("datetime.now", "datetime.today", "datetime.utcnow", "date.today"),
    *("uuid.uuid1", "uuid.uuid4", "os.urandom"),
}


def test_no_room_leads_back_to_itself() -> None:
    assert picture.circle(picture.arrows()) == []


def test_the_picture_of_the_rooms_is_the_one_of_the_imports() -> None:
    assert picture.PICTURE.read_text("utf-8") == picture.drawn(), "draw it anew: make picture"


def source_modules() -> list[Module]:
    return [module for root in import_roots() if root != GENERATED for module in modules(root)]


def domains() -> frozenset[str]:
    """The packages of generated contracts that belong to a demo: all but the product's own."""
    return frozenset(path.name for path in (ROOT / GENERATED).iterdir() if path.is_dir()) - {"handrail", "buf"}


def part_of(name: str) -> str | None:
    """The part that a dotted name belongs to: `mesh` for handrail.mesh.bus, None for handrail.v1 and third parties."""
    match name.split("."):
        case ["handrail", part, *_] if part in ARROWS:
            return part
        case ["demos", *_]:
            return "demos"
        case _:
            return None


def test_every_import_root_has_its_row_of_arrows() -> None:
    assert {root for root in import_roots() if root != GENERATED} == set(ARROWS)


@pytest.mark.parametrize("part", [*ARROWS, "demos"])
def test_a_part_imports_only_along_the_arrows(part: str) -> None:
    allowed = (DEMOS if part == "demos" else ARROWS[part]) | {part}
    wrong = [
        f"{module.path.relative_to(ROOT)} imports {name}"
        for module in source_modules()
        if part_of(module.name) == part
        for name in sorted(module.imports)
        if part_of(name) is not None and part_of(name) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_each_root_holds_only_its_own_part() -> None:
    strangers = [
        str(module.path.relative_to(ROOT))
        for root in ARROWS
        for module in modules(root)
        if part_of(module.name) != root and not (root == "agents" and module.name.split(".")[0] == "demos")
    ]
    assert not strangers


def test_only_the_demos_import_the_contracts_of_a_domain() -> None:
    assert "payments" in domains()
    wrong = [
        f"{module.path.relative_to(ROOT)} imports {name}"
        for module in source_modules()
        if part_of(module.name) != "demos"
        for name in sorted(module.imports)
        if name.split(".")[0] in domains()
    ]
    assert not wrong, "\n".join(wrong)


def pure_files(pattern: str) -> Iterator[Path]:
    """The Python files that a pattern of PURE names; a folder stands for everything in it."""
    for path in ROOT.glob(pattern):
        yield from path.rglob("*.py") if path.is_dir() else [path]


@pytest.mark.parametrize("pattern", PURE)
def test_the_pure_core_imports_no_shell(pattern: str) -> None:
    by_name = {module.name: module for module in source_modules()}
    by_path = {module.path: module for module in source_modules()}
    pure = [by_path[path] for path in pure_files(pattern)]
    assert pure, f"{pattern} matches no module: correct the list of pure modules"
    wrong = [complaint for module in pure for complaint in impurities(module, by_name)]
    assert not wrong, "\n".join(wrong)


def impurities(start: Module, by_name: dict[str, Module]) -> Iterator[str]:
    """What a module, or any module of ours that it imports in turn, takes from the outside world."""
    pending, seen = [start], {start.name}
    while pending:
        module = pending.pop()
        where = f"{start.name} is pure, but {module.path.relative_to(ROOT)}"
        yield from (f"{where} imports {n}" for n in sorted(module.imports) if n.split(".")[0] in IMPURE_IMPORTS)
        yield from (f"{where} calls {call}" for call in sorted(module.calls & IMPURE_CALLS))
        # Importing a.b.c runs a.b as well.
        names = {".".join(name.split(".")[:end]) for name in module.imports for end in range(1, name.count(".") + 2)}
        # What a package shows to its users is no import of the modules within it.
        names -= {start.name.rsplit(".", up)[0] for up in range(1, start.name.count("."))}
        for name in sorted(names & by_name.keys() - seen):
            seen.add(name)
            pending.append(by_name[name])


@pytest.mark.parametrize("name", CHECKER)
def test_the_history_checker_shares_no_code_with_what_it_checks(name: str) -> None:
    [module] = [each for each in source_modules() if each.name == f"handrail.cli.verify.{name}"]
    ours = {each for each in module.imports if part_of(each) is not None}
    assert not [each for each in ours if not each.startswith("handrail.cli.verify")]


def test_an_impure_import_behind_a_pure_module_is_found() -> None:
    shell = Module("handrail.mesh.shell", ROOT / "shell.py", frozenset({"nats.aio"}), frozenset({"datetime.now"}))
    core = Module("handrail.mesh.core", ROOT / "core.py", frozenset({"handrail.mesh.shell.Bus"}), frozenset())
    found = list(impurities(core, {core.name: core, shell.name: shell}))
    assert found == [
        "handrail.mesh.core is pure, but shell.py imports nats.aio",
        "handrail.mesh.core is pure, but shell.py calls datetime.now",
    ]
