"""Protos that are written from descriptors: what is compiled from them is what they were written from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import Default

import compliance.v1.compliance_pb2
import payments.v1.payments_pb2
from handrail.cli.proto_source import source_of
from handrail.mesh.contracts import json_names
from handrail.v1 import approval_service_pb2, flow_service_pb2, template_service_pb2

MODULES = (
    flow_service_pb2,
    approval_service_pb2,
    template_service_pb2,
    payments.v1.payments_pb2,
    compliance.v1.compliance_pb2,
)

EVERYTHING = """syntax = "proto2";
package every.thing;
option java_package = "a\\"b";
message Outer {
  optional string text = 1 [default = "a\\"b", deprecated = true];
  required bytes raw = 2 [default = "\\001\\""];
  optional Colour colour = 3 [default = RED, json_name = "hue"];
  optional double endless = 4 [default = inf];
  map<string, Inner> inner = 5;
  oneof one { string left = 6; Inner right = 7; }
  message Inner { repeated int32 packed = 1 [packed = true]; }
  enum Colour { option allow_alias = true; RED = 0; ROT = 0; reserved -5 to -2, 9 to max; reserved "BLUE"; }
  extensions 100 to 199;
  extensions 500 to max;
  reserved 20, 30 to 40;
  reserved "gone";
  extend Outer { optional bool inside = 100; }
}
extend Outer { optional string outside = 101; }
"""


def compiled(folder: Path, names: Iterable[str]) -> dict[str, FileDescriptorProto]:
    """The descriptors of these protos of a folder, by protoc."""
    out = folder / "out.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={out}", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


def of_pool(names: Iterable[str]) -> dict[str, FileDescriptorProto]:
    """The descriptors of these files and of all that they import, by name."""
    found: dict[str, FileDescriptorProto] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = FileDescriptorProto()
            file = Default().FindFileByName(name)
            file.CopyToProto(found[name])
            json_names.fill_in(found[name].message_type)
            waiting += [each.name for each in file.dependencies]
    return found


def test_contracts_read_back_as_they_were(tmp_path: Path) -> None:
    files = of_pool(module.DESCRIPTOR.name for module in MODULES)
    assert {"buf/validate/validate.proto", "handrail/v1/event.proto", "google/type/money.proto"} <= files.keys()
    for name, file in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source_of(file))
    assert compiled(tmp_path, files) == files


def test_what_proto2_can_say_reads_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "every.proto").write_text(EVERYTHING)
    before = compiled(tmp_path, ["every.proto"])["every.proto"]
    (tmp_path / "every.proto").write_text(source_of(before))
    assert compiled(tmp_path, ["every.proto"])["every.proto"] == before


def test_what_it_can_not_write_is_refused() -> None:
    with pytest.raises(ValueError, match="of an edition"):
        source_of(FileDescriptorProto(name="new.proto", syntax="editions"))
    group = FileDescriptorProto(name="old.proto")
    group.message_type.add(name="M").field.add(name="g", type=FieldDescriptorProto.TYPE_GROUP)
    with pytest.raises(ValueError, match="is a group"):
        source_of(group)
