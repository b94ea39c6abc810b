"""Dockerfile and compose.yaml of a new project, without Docker: what they copy, and each agent's command and health."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from handrail.cli.credentials import CredentialsFolder
from handrail.cli.project.scaffold import write
from tests.package.flow import Command, credentials
from tests.support import wheel as wheels
from tests.support.dev import Dev, handrail, running_dev

COPY = re.compile(r"^COPY (?!--)(?P<sources>.+) \S+$", re.MULTILINE)
INSTALL = re.compile(r'^ .*pip install .*"(?P<what>handrail[^"]*)"', re.MULTILINE)
SECRETS = Path("/run/secrets")

pytestmark = pytest.mark.timeout(300)  # an environment is installed


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "loans"
    write("loans", folder)
    return folder


@pytest.fixture(scope="module")
def services(project: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    return found


def test_the_image_gets_files_that_are_there_and_no_secret(project: Path) -> None:
    ignored = (project / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    sources = [each for copy in COPY.finditer((project / "Dockerfile").read_text()) for each in copy["sources"].split()]
    assert {"proto", "loans"} <= set(sources) <= let_in
    assert [each for each in sources if "*" not in each and not (project / each).exists()] == []
    assert "*" in ignored, "what nobody lets in stays out"
    assert "/secrets/" in (project / ".gitignore").read_text()


def test_every_agent_has_a_service_and_a_secret_of_its_own(project: Path, services: dict[str, dict[str, Any]]) -> None:
    steps = yaml.safe_load((project / "loans" / "loans.yaml").read_text())["steps"]
    assert services.keys() == {step["agent"] for step in steps}
    secrets = yaml.safe_load((project / "compose.yaml").read_text())["secrets"]
    for name, service in services.items():
        assert service["secrets"] == ["ca.pem", {"source": name, "target": "nkey"}]
        assert secrets[name] == {"file": f"./secrets/{name}/nkey"}
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        for key, value in service["environment"].items():
            assert key == "HANDRAIL_NATS" or Path(value).parent == SECRETS


@pytest.fixture(scope="module")
def image(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The programs of an environment with what the image installs, and a folder with what it copies."""
    folder = tmp_path_factory.mktemp("image")
    what = [found["what"] for found in INSTALL.finditer((project / "Dockerfile").read_text())]
    assert [re.sub(r"==.*", "", each) for each in what] == ["handrail[uvloop]", "handrail[cli]"]
    wheel = wheels.build(folder)
    assert f"handrail-{what[0].partition('==')[2]}-" in wheel.name
    programs = wheels.environment(folder / "agents")
    wheels.install(programs, f"{wheel}[uvloop]")
    application = folder / "app"
    shutil.copytree(project / "loans", application / "loans")
    assert handrail("contracts", "generate", project / "proto", "--out", application).returncode == 0
    return programs, application


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with running_dev(tmp_path_factory.mktemp("dev")) as dev:
        yield dev


def test_the_agents_run_as_the_file_says(
    image: tuple[Path, Path], dev: Dev, services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, application = image
    monkeypatch.chdir(application)
    monkeypatch.syspath_prepend(str(application))
    stored = dev.run("olga", "template", "put", "loans/loans.yaml", "--contracts", "loans", "--activate")
    assert stored.returncode == 0, stored.stderr
    folder = Path(dev.ready["credentials"])
    with ExitStack() as running:
        commands = {}
        for name, service in services.items():
            credentials(folder, name)
            nkey = CredentialsFolder(folder).user(name).nkey
            values = {SECRETS / "nkey": str(nkey), SECRETS / "ca.pem": ""}  # `handrail dev` has no TLS
            given = {key: values.get(Path(value), value) for key, value in service["environment"].items()}
            given["HANDRAIL_NATS"] = dev.ready["nats"]
            command = commands[name] = Command(programs, application, {"PYTHONPATH": str(application), **given})
            assert service["command"][0] == "handrail"
            running.enter_context(command.running(*service["command"][1:]))
        flow = dev.text("olga", "flow", "start", "loans", "--data", json.dumps({"requestId": "r-1", "cents": 1000}))
        dev.text("olga", "flow", "watch", flow.strip())
        assert dev.status(flow.strip()) == "COMPLETED"
        for name, service in services.items():
            kind, program, *words = service["healthcheck"]["test"]
            assert (kind, program) == ("CMD", "handrail")
            commands[name].run(*words)
