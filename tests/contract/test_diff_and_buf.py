"""Our comparison of contracts calls breaking what `buf breaking` calls breaking, and besides what refuses requests that
were right: over hundreds of random changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from handrail.analysis.compat.change import Level
from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.diff import diff
from handrail.mesh.contracts.descriptors import KNOWN, file_proto
from tests.support.mutations import messages, mutate, require

CASES = 400
BUF = Path(sys.executable).with_name("buf")
RICH = """syntax = "proto3";
package base.v1;
message Order {
  reserved 20, 30 to 39;
  reserved "gone";
  string order_id = 1;
  int64 amount = 2;
  repeated Item items = 3;
  map<string, int32> counts = 4;
  optional string note = 5;
  oneof payment { string card_token = 6; Transfer transfer = 7; }
  Kind kind = 8;
  message Item { string sku = 1; uint32 pieces = 2; State state = 3; }
  enum State { STATE_UNSPECIFIED = 0; STATE_NEW = 1; STATE_OLD = 2; }
}
message Transfer { string iban = 1; bytes proof = 2; double rate = 3; }
message Alone { reserved 5; bool yes = 1; }
message AskRequest { string who = 1; oneof wish { string text = 2; Wish other = 3; } repeated Wish wishes = 4; }
message Wish { string name = 1; int32 weight = 2; }
message AskResponse { string answer = 1; repeated Transfer transfers = 2; }
enum Kind { KIND_UNSPECIFIED = 0; KIND_SMALL = 1; KIND_LARGE = 2; }
service Asking {
  rpc Ask(AskRequest) returns (AskResponse);
  rpc Follow(AskRequest) returns (stream AskResponse);
}
"""


def buf(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # Whatever its exit code: its output tells.
    environment = os.environ | {"BUF_CACHE_DIR": str(folder / "cache")}
    return subprocess.run([str(BUF), *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def rich(folder: Path) -> FileDescriptorProto:
    (folder / "rich.proto").write_text(RICH)
    built = buf("build", "--as-file-descriptor-set", "--exclude-source-info", "-o", "rich.binpb", folder=folder)
    assert built.returncode == 0, built.stderr
    (file,) = FileDescriptorSet.FromString((folder / "rich.binpb").read_bytes()).file
    return file


def in_package(file: FileDescriptorProto, number: int) -> FileDescriptorProto:
    """A copy of the file in a package of its own, so that many changes are judged in one go."""
    text = file.SerializeToString().replace(b"base.v1", b"p%03d.v1" % number)
    copy = FileDescriptorProto.FromString(text)
    copy.name = f"p{number:03d}/rich.proto"
    copy.dependency.append("buf/validate/validate.proto")
    return copy


def image(file: FileDescriptorProto, copies: int) -> FileDescriptorSet:
    """So many copies of the file, each in its package, and what rules need."""
    imported = [file_proto(each) for each in KNOWN.values() if each.name.startswith(("google/", "buf/"))]
    return FileDescriptorSet(file=[*imported, *(in_package(file, number) for number in range(copies))])


def copies_of(contracts: FileDescriptorSet) -> list[FileDescriptorProto]:
    return [each for each in contracts.file if each.name.endswith("/rich.proto")]


def test_what_buf_calls_breaking_is_breaking_here_too_and_nothing_else(tmp_path: Path) -> None:
    file = rich(tmp_path)
    assert len("base.v1") == len("p000.v1")  # lengths are part of the bytes
    before = image(file, CASES)
    after = FileDescriptorSet()
    after.CopyFrom(before)
    done = {each.name: mutate(each, Random(number)) for number, each in enumerate(copies_of(after))}
    for name, contracts in (("before.binpb", before), ("after.binpb", after)):
        (tmp_path / name).write_bytes(contracts.SerializeToString())
    config = json.dumps({"version": "v2", "breaking": {"use": ["FILE"]}})
    judged = buf(
        "breaking", "after.binpb", "--against", "before.binpb", "--config", config, "--error-format", "json",
        folder=tmp_path,
    )  # fmt: skip
    assert judged.returncode == 100, judged.stderr
    theirs = {each["path"] for each in map(json.loads, judged.stdout.splitlines())}
    found = [c for c in diff(ContractSet.of(before), ContractSet.of(after)) if c.level.is_breaking]
    ours = {c.file for c in found if c.level is not Level.BREAKING_REQUEST}
    assert {name: done[name] for name in theirs - ours} == {}
    assert {name: done[name] for name in ours - theirs} == {}
    kinds = Counter(text.split()[0] for text in done.values())
    assert len(theirs) > CASES // 2
    assert len(theirs) < CASES
    assert len(kinds) > 5


def test_what_refuses_more_breaks_requests_and_tightens_what_flows_carry(tmp_path: Path) -> None:
    before = image(rich(tmp_path), 120)
    after = FileDescriptorSet()
    after.CopyFrom(before)
    wanted: dict[str, Level] = {}
    for number, each in enumerate(copies_of(after)):
        random = Random(number)
        while not (done := require(each, random)):
            pass
        message = done.removeprefix("requires more of ")
        assert message in {known.name for known in messages(each.message_type)}
        wanted[each.name] = Level.BREAKING_REQUEST if message in ("AskRequest", "Wish") else Level.TIGHTENED
    found = {change.file: change.level for change in diff(ContractSet.of(before), ContractSet.of(after))}
    assert found == wanted
    assert set(Counter(wanted.values())) == {Level.BREAKING_REQUEST, Level.TIGHTENED}
