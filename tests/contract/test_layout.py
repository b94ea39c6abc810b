"""The tree is a namespace over import roots, and what is committed is ours and names no host."""

import re
import subprocess

import pytest

from tests.contract.source import ROOT, import_roots

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / lock).read_text("utf-8")))


@pytest.mark.parametrize("root", import_roots())
def test_the_namespace_has_no_init(root: str) -> None:
    # With one, the part it belongs to would hide all others: https://peps.python.org/pep-0420/
    assert not (ROOT / root / "__init__.py").exists()
    assert not (ROOT / root / "handrail" / "__init__.py").exists()


def test_third_party_protos_are_not_committed() -> None:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "proto/google", "proto/buf"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert listed.stdout == ""


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-runtime.lock"])
def test_a_lock_names_no_host_and_hashes_every_pin(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    entries = re.split(r"(?m)^(?=\S+==)", text)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_runs_in_production_is_what_was_tested() -> None:
    tested = pins("requirements.lock")
    runtime = pins("requirements-runtime.lock")
    assert runtime
    assert {name: tested.get(name) for name in runtime} == runtime
