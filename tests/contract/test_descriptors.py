"""The descriptors shipped for reflection explain the API: the generated Python carries no comments."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.contract.source import ROOT

DESCRIPTORS = ROOT / "gen/python/handrail/v1/descriptors.binpb"
SERVICES = [
    f"{file.package}.{service.name}"
    for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    for service in file.service
]


def test_the_descriptors_hold_the_services() -> None:
    assert "handrail.v1.FlowService" in SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_grpcurl_describes_a_service_with_the_comment_of_each_rpc(service: str) -> None:
    grpcurl = Path(sys.executable).with_name("grpcurl")
    described = subprocess.run(
        [grpcurl, "-protoset", DESCRIPTORS, "describe", service], check=True, capture_output=True, text=True
    )
    lines = [line.strip() for line in described.stdout.splitlines()]
    declarations = [number for number, line in enumerate(lines) if line.startswith(("service ", "rpc "))]
    assert len(declarations) > 1
    assert all(lines[number - 1].startswith("// ") for number in declarations)
