"""The distribution `handrail`: what its wheel holds, and a plain install of it beside packages of a user's own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from handrail.cli.extras import advice
from handrail.cli.version import VERSION
from tests.contract.source import ROOT
from tests.support import wheel as wheels

PARTS = (
    "agents",
    "analysis",
    "cli",
    "console",
    "coordinator",
    "index",
    "mesh",
    "testing",
    "v1",
    "validate",
    "visibility",
)
OF_AN_AGENT = ("agents", "analysis", "index", "mesh", "v1", "validate")
"""The parts of which a plain install can import everything."""

OF_SERVERS = ("handrail.mesh.tls",)
"""What servers of different parts share: it needs gRPC."""

ABSENT = ("bcrypt", "buf", "cryptography", "demos", "grpc", "jwt", "sqlalchemy", "uvloop", "zstandard")
OURS, DEMOS = "pyproject.toml", "agents/demos/pyproject.toml"
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"

pytestmark = pytest.mark.timeout(300)  # an environment is installed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def content(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        [found] = [each for each in archive.namelist() if each.endswith(name)]
        return archive.read(found)


def test_the_wheel_brings_no_package_but_handrail(wheel: Path) -> None:
    assert {name.split("/")[0] for name in names(wheel)} == {"handrail", "handrail-0.1.0.dist-info"}
    assert {name.split("/")[1] for name in names(wheel) if name.startswith("handrail/")} == set(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_says_that_it_is_typed_and_what_it_is_for(wheel: Path, part: str) -> None:
    assert f"handrail/{part}/py.typed" in names(wheel)
    assert content(wheel, f"handrail/{part}/__init__.py").startswith(b'"""')


def test_the_wheel_states_its_licence_author_and_description(wheel: Path) -> None:
    metadata = HeaderParser().parsestr(content(wheel, ".dist-info/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The Handrail authors"
    assert metadata.get_payload() == (ROOT / "README.md").read_text("utf-8")
    assert hashlib.sha256(content(wheel, "licenses/LICENSE")).hexdigest() == APACHE_2


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    again = wheels.build(tmp_path, source=tmp_path / "handrail-0.1.0")
    assert again.read_bytes() == wheel.read_bytes()


DEMO_FILES = (
    *("payments/v1/payments_pb2.py", "compliance/v1/compliance_pb2.py", "research/v1/research_pb2.py"),
    *("demos/payments/refund.yaml", "demos/payments/chargebacks.jsonl", "demos/payments/customers.jsonl"),
    *("demos/compliance/approval.yaml", "demos/compliance/names.yaml", "demos/compliance/policy.yaml"),
    *("demos/research/research.yaml", "demos/stage/stage.py"),
)


def test_the_wheel_of_the_demos_has_their_contracts(tmp_path: Path) -> None:
    demos = wheels.build(tmp_path, source=ROOT / "agents" / "demos")
    packages = {"compliance", "demos", "payments", "research"}
    assert {name.split("/")[0] for name in names(demos)} == packages | {"handrail_demos-0.1.0.dist-info"}
    for path in DEMO_FILES:
        assert path in names(demos)
    assert hashlib.sha256(content(demos, "licenses/LICENSE")).hexdigest() == APACHE_2


def test_both_distributions_have_one_version_and_the_changelog_knows_it() -> None:
    demos = tomllib.loads((ROOT / DEMOS).read_text("utf-8"))["project"]
    assert demos["version"] == VERSION
    assert f"handrail[dev]=={VERSION}" in demos["dependencies"]
    assert VERSION in (ROOT / "CHANGELOG.md").read_text("utf-8")


USERS_OWN = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "shop"
version = "1.0"

[tool.hatch.build.targets.wheel]
packages = ["payments", "research"]
"""


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the plain wheel, and packages of a user's own that demos have as well."""
    shop = tmp_path_factory.mktemp("shop")
    (shop / "pyproject.toml").write_text(USERS_OWN)
    for package in ("payments", "research"):
        (shop / package).mkdir()
        (shop / package / "__init__.py").write_text(f'OWNER = "a user\'s {package}"\n')
    programs = wheels.environment(tmp_path_factory.mktemp("plain") / "environment")
    wheels.install(programs, wheels.build(shop / "dist", source=shop), wheel)
    return programs


def run(programs: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment, in its folder, with nothing of this process's environment."""
    return subprocess.run(
        [programs / command[0], *command[1:]], cwd=programs, env={}, capture_output=True, text=True, check=False
    )


def test_a_plain_install_leaves_the_packages_of_a_user_alone(plain: Path) -> None:
    script = "import payments, research, handrail.agents; print(payments.OWNER, research.OWNER, sep=', ')"
    done = run(plain, "python", "-c", script)
    assert done.stdout == "a user's payments, a user's research\n", done.stderr


IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.util import find_spec
parts, absent = sys.argv[1].split(), sys.argv[2].split()
assert not [name for name in absent if find_spec(name)], "this is no plain install"
count = 0
for part in parts:
    package = importlib.import_module(f"handrail.{part}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(("_pb2_grpc", ".__main__", *sys.argv[3:])):
            importlib.import_module(module.name)
            count += 1
print(count)
"""


def test_a_plain_install_can_import_all_that_an_agent_needs(plain: Path) -> None:
    done = run(plain, "python", "-c", IMPORT_ALL, " ".join(OF_AN_AGENT), " ".join(ABSENT), *OF_SERVERS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


@pytest.mark.parametrize(
    "command, extra",
    [
        ("flow list", "cli"),
        ("certificates --help", "cli"),
        ("health coordinator", "cli"),
        ("coordinator", "coordinator"),
        ("dev", "dev"),
        ("visibility", "visibility"),
        ("console", "console"),
        ("archive verify .", "visibility"),
    ],
)
def test_a_command_without_its_extra_names_it_in_one_line(plain: Path, command: str, extra: str) -> None:
    done = run(plain, "handrail", *command.split())
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"handrail: {command.split()[0]} needs the module ")
    assert line.endswith(f": python -m pip install 'handrail[{extra}]'")


@pytest.mark.parametrize(
    "command", ["--version", "agent run --help", "health agent --help", "admin --help", "new --help"]
)
def test_the_commands_of_an_agent_need_no_extra(plain: Path, command: str) -> None:
    done = run(plain, "handrail", *command.split())
    assert (done.returncode, done.stderr) == (0, "")


def test_traces_over_grpc_without_their_extra_are_a_wrong_setting(plain: Path) -> None:
    script = (
        "import os\n"
        "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://127.0.0.1:4317'\n"
        "from handrail.agents import Agent\n"
        "raise SystemExit(Agent('loner').run())"
    )
    done = run(plain, "python", "-c", script)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in line
    assert line.endswith("python -m pip install 'handrail[otlp-grpc]'")


def test_a_part_of_a_command_can_have_an_extra_of_its_own() -> None:
    text = advice(ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow"), "archive")
    assert text == "archive needs the module pyarrow: python -m pip install 'handrail[export]'"


def test_a_missing_module_that_no_extra_brings_gets_no_advice() -> None:
    assert advice(ModuleNotFoundError("No module named 'shop'", name="shop"), "agent") is None


def test_the_image_has_what_its_processes_import(wheel: Path, tmp_path: Path) -> None:
    """As the Dockerfile installs it: the runtime lock, then both wheels without dependencies."""
    programs = wheels.environment(tmp_path / "image")
    into = ("pip", "install", "--python", programs / "python")
    wheels.uv(*into, "--require-hashes", "--requirement", ROOT / "requirements-runtime.lock")
    demos = wheels.build(tmp_path, source=ROOT / "agents" / "demos")
    wheels.uv(*into, "--no-deps", wheel, demos)
    agents = ("detection", "enrichment", "refunds", "ledger", "notification")
    imports = ", ".join(f"demos.payments.{name}" for name in agents)
    script = f"import handrail.visibility.main, {imports}; from handrail.cli.main import parser; parser()"
    done = run(programs, "python", "-c", script)  # the parser of the whole command imports every command
    assert done.returncode == 0, done.stderr
