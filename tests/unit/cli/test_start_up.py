"""The command loads nothing that it does not need: most of its calls are short."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from handrail.cli.version import VERSION

_PROGRAM = """
import sys
from handrail.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules)
"""


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_what_needs_no_broker_loads_no_contract_and_no_grpc(word: str) -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM, word], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert "handrail.cli.main" in loaded
    assert not loaded & {"google.protobuf", "grpc", "importlib.metadata", "yaml", "asyncio"}


def test_a_call_loads_neither_the_brokers_client_nor_a_validator_nor_tls() -> None:
    words = ["flow", "list", "--address", "127.0.0.1:1", "--timeout", "1s"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        env={**plain, "HANDRAIL_TOKEN": "a.b.c"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no coordinator answers" in ran.stderr
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert "handrail.v1.flow_service_pb2" in loaded
    assert not loaded & {
        "nats",
        "protovalidate",
        "cel_expr_python",
        "urllib.request",
        "yaml",
        "handrail.mesh.contracts",
    }


def test_the_version_is_that_of_the_distribution() -> None:
    assert version("handrail") == VERSION
