"""The validator's rules, `buf/validate/validate.proto`: one definition in a process, and the validator's own."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from protovalidate import ViolationPb

from handrail.cli.generated_code import use_own_rules
from handrail.validate import validate_pb2

# A module as protoc writes one, for a definition that differs from ours.
FOREIGN = """\
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.internal import builder
DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({serialized!r})
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "buf.validate.validate_pb2", globals())
"""


def definition() -> FileDescriptorProto:
    found = FileDescriptorProto()
    validate_pb2.DESCRIPTOR.CopyToProto(found)
    return found


def test_the_rules_that_contracts_are_compiled_with_are_the_validators_own() -> None:
    own = FileDescriptorProto.FromString(ViolationPb.desc().file.proto.to_binary())
    ours = definition()
    for file in (own, ours):
        file.ClearField("options")  # packages of other languages
    differing = [each.name for each, other in zip(own.message_type, ours.message_type, strict=True) if each != other]
    assert not differing
    assert own.message_type
    is_same = own == ours
    assert is_same


@pytest.mark.parametrize(
    "first, second",
    [("buf.validate.validate_pb2", "handrail.v1.event_pb2"), ("handrail.v1.event_pb2", "buf.validate.validate_pb2")],
)
def test_an_environment_with_rules_of_its_own_keeps_them_in_any_order(tmp_path: Path, first: str, second: str) -> None:
    foreign = definition()
    foreign.message_type.add(name="OnlyThere")
    package = tmp_path / "buf" / "validate"
    package.mkdir(parents=True)
    (package / "validate_pb2.py").write_text(FOREIGN.format(serialized=foreign.SerializeToString()))
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {first}, {second}; "
        "from handrail.validate import validate_pb2 as rules; print(rules.OnlyThere.DESCRIPTOR.full_name)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "buf.validate.OnlyThere\n", done.stderr[-400:]


def test_generated_code_finds_the_rules_and_nothing_else_changes(tmp_path: Path) -> None:
    module = tmp_path / "shop" / "v1" / "shop_pb2.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from buf.validate import validate_pb2 as buf_dot_validate_dot_validate__pb2\n"
        "from buf.validated import validate_pb2\n"
        "text = 'from buf.validate import validate_pb2'\n"
    )
    ours = tmp_path / "shop" / "notes.py"
    ours.write_text("from buf.validate import validate_pb2\n")
    use_own_rules(tmp_path)
    assert module.read_text().splitlines() == [
        "from handrail.validate import validate_pb2 as buf_dot_validate_dot_validate__pb2",
        "from buf.validated import validate_pb2",
        "text = 'from buf.validate import validate_pb2'",
    ]
    assert ours.read_text() == "from buf.validate import validate_pb2\n"
