"""What `handrail archive export` writes is what the archive holds, and nothing of what is damaged."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pyarrow import parquet

from handrail.mesh.contracts import Contracts
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import ApprovalRequested
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.rewrite import rewrite
from handrail.visibility.archive.writer import Writer
from handrail.visibility.export import parquet as export
from handrail.visibility.export.rows import Wanted
from tests.support.archives import FLOW
from tests.support.dev import handrail
from tests.support.flows import FLOW_ID, RECEIVED, decision, enriched, notified, start

BEGIN = datetime(2026, 11, 28, 5, 10, tzinfo=UTC)
CONTRACTS = ("--contracts", "demos.payments")
ENTRIES = (start(), start(flow_type="order"), enriched(), notified(), decision(ApprovalRequested(proposal_id="olga")))


def record(sequence: int, entry: Entry) -> Record:
    """A message that was stored a minute after the one before it."""
    time = BEGIN + timedelta(minutes=sequence - 1)
    return Record(sequence, entry.address.subject, int(time.timestamp()) * 10**9, b"", entry.body)


def archive(path: Path, *segments: Iterable[Record]) -> Path:
    """An archive of these segments, each message in a frame of its own."""
    with LockedFolder(path) as folder:
        writer = Writer(folder, FLOW, frame_bytes=1)
        for records in segments:
            for each in records:
                writer.append(each)
            writer.seal()
    return path


def entries(path: Path) -> Path:
    """An archive of `ENTRIES` in two segments."""
    records = [record(sequence, entry) for sequence, entry in enumerate(ENTRIES, 1)]
    return archive(path, records[:3], records[3:])


def rows(out: Path) -> list[Mapping[str, object]]:
    """All rows of an export, in the order of its files."""
    return [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command, which has to end so."""
    done = handrail("archive", "export", *arguments)
    assert done.returncode == code, done.stderr
    return done


def inodes(out: Path) -> dict[str, int]:
    """The files of a folder."""
    return {file.name: file.stat().st_ino for file in out.iterdir()}


def nobody_asks(flow_type: str, version: int) -> Contracts:
    raise AssertionError(flow_type)


def damage(file: Path) -> None:
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)


def test_each_message_is_a_row(tmp_path: Path) -> None:
    run(entries(tmp_path / "archive"), tmp_path / "out", *CONTRACTS)
    found = rows(tmp_path / "out")
    assert [each["sequence"] for each in found] == [1, 2, 3, 4, 5]
    assert [each["time"] for each in found] == [BEGIN + timedelta(minutes=minutes) for minutes in range(5)]
    for row, entry in zip(found, ENTRIES, strict=True):
        event, address = entry.event, entry.address
        assert row["raw"] is row["subject"] is None
        assert (row["flow_type"], row["flow_id"], row["kind"]) == (event.flow_type, FLOW_ID, address.kind.value)
        assert (row["agent"], row["event_id"]) == (event.source, event.event_id)
        assert (row["message_type"], row["template_version"]) == (address.message_type, event.template_version)
        assert (row["step"], row["attempt"]) == (event.step, event.attempt)
    assert json.loads(str(found[0]["payload"])) == {
        "chargebackId": "cb-1",
        "accountId": "acc-1",
        "amount": {"currencyCode": "EUR", "units": "250"},
    }
    assert json.loads(str(found[4]["payload"])) == {"proposalId": "olga"}


def test_the_columns_have_these_types(tmp_path: Path) -> None:
    run(entries(tmp_path / "archive"), tmp_path / "out", "--raw")
    file = min((tmp_path / "out").iterdir())
    assert file.stat().st_mode & 0o777 == 0o600
    written = parquet.read_schema(file)
    assert str(written.field("time").type) == "timestamp[us, tz=UTC]"
    assert str(written.field("sequence").type) == "int64"
    assert str(written.field("raw").type) == "binary"


def test_without_a_contract_the_message_is_there_as_bytes(tmp_path: Path) -> None:
    run(entries(tmp_path / "archive"), tmp_path / "out", "--raw")
    found = rows(tmp_path / "out")
    assert [each["raw"] for each in found[:4]] == [entry.body for entry in ENTRIES[:4]]
    assert [each["payload"] for each in found[:4]] == [None] * 4
    assert found[0]["message_type"] == RECEIVED
    assert found[4]["payload"] is not None, "Handrail's own contracts are always known"


def test_a_payload_without_a_json_form_is_a_row_like_others(tmp_path: Path) -> None:
    mask = decision(FieldMask(paths=["Foo"]))
    run(archive(tmp_path / "archive", [record(1, mask), record(2, start())]), tmp_path / "out", *CONTRACTS)
    found = rows(tmp_path / "out")
    value = b64encode(mask.event.data.value).decode()
    assert [json.loads(str(each["payload"])).get("value") for each in found] == [value, None]


def test_what_is_no_message_of_a_flow_is_there_as_bytes(tmp_path: Path) -> None:
    strange = Record(1, "flow.\udcff", 0, b"", b"\xff")
    other_body = record(2, start())._replace(body=enriched().body)
    no_event = record(3, start())._replace(body=b"\xff\xff")
    right = record(4, start())
    run(archive(tmp_path / "archive", [strange, other_body, no_event, right]), tmp_path / "out", *CONTRACTS)
    found = rows(tmp_path / "out")
    assert found[0]["subject"] == "flow.?"
    assert found[0]["flow_type"] is None
    assert [each["raw"] for each in found] == [b"\xff", enriched().body, b"\xff\xff", None]
    assert [each["flow_type"] for each in found[1:]] == ["refund"] * 3


@pytest.mark.parametrize(
    "flags, sequences",
    [
        (("--since", "2026-11-28T05:12:00Z"), [3, 4, 5]),
        (("--until", "2026-11-28T05:12:00Z"), [1, 2]),
        (("--since", "2026-11-28T05:11:00Z", "--until", "2026-11-28T05:13:00Z"), [2, 3]),
        (("--flow-type", "order"), [2]),
        (("--flow-type", "order", "--flow-type", "refund"), [1, 2, 3, 4, 5]),
        (("--flow-type", "order", "--since", "2026-11-28T05:12:00Z"), []),
    ],
)
def test_a_part_of_the_messages_is_exported(tmp_path: Path, flags: tuple[str, ...], sequences: list[int]) -> None:
    run(entries(tmp_path / "archive"), tmp_path / "out", "--raw", *flags)
    assert [each["sequence"] for each in rows(tmp_path / "out")] == sequences
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_second_run_adds_what_came_since(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    run(source, out, "--raw")
    before = inodes(out)
    archive(source, [record(6, start())])
    assert run(source, out, "--raw").stdout.count("as before") == 2
    assert {name: inode for name, inode in inodes(out).items() if name in before} == before
    assert [each["sequence"] for each in rows(out)] == [1, 2, 3, 4, 5, 6]


def test_other_wishes_and_broken_files_are_written_anew(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    run(source, out, "--raw")
    run(source, out, "--raw", "--flow-type", "order")
    assert [each["sequence"] for each in rows(out)] == [2]
    run(source, out, *CONTRACTS, "--flow-type", "order")
    assert rows(out)[0]["payload"] is not None
    min(out.iterdir()).write_bytes(b"PAR1")
    run(source, out, *CONTRACTS, "--flow-type", "order")
    assert [each["sequence"] for each in rows(out)] == [2]


def test_what_was_erased_leaves_the_export_with_the_next_run(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    run(source, out, "--raw")
    with LockedFolder(source) as folder:
        rewrite(folder, 1, [1, 3])
    run(source, out, "--raw")
    assert [each["sequence"] for each in rows(out)] == [2, 4, 5]


def test_a_damaged_segment_is_named_and_nothing_of_it_exported(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    file = Folder(source).file(1)
    damage(file)
    assert file.name in run(source, out, "--raw", code=1).stdout
    assert [each["sequence"] for each in rows(out)] == [4, 5]
    assert [each.name for each in out.iterdir()] == ["00000000000000000004.parquet"]
    told = json.loads(run(source, out, "--raw", "--output", "json", code=1).stdout)
    assert [each["file"] for each in told["findings"]] == [file.name]
    assert [(each["rows"], each["new"]) for each in told["files"]] == [(2, False)]


def test_a_segment_of_another_archive_is_not_exported(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    other = archive(tmp_path / "other", [record(1, start()), record(2, start()), record(3, start())])
    Folder(source).file(1).write_bytes(Folder(other).file(1).read_bytes())
    assert "wrong chain" in run(source, out, "--raw", code=1).stdout
    assert [each["sequence"] for each in rows(out)] == [1, 2, 3], "what does not follow from it is left out"


def test_a_missing_segment_is_named_and_the_others_exported(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    Folder(source).file(1).unlink()
    assert "missing" in run(source, out, "--raw", code=1).stdout
    assert [each["sequence"] for each in rows(out)] == [4, 5]


def test_an_error_in_the_middle_leaves_no_file_and_the_former_one(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    run(source, out, "--raw")
    before = inodes(out)
    with mock.patch.object(export, "row_of", side_effect=OSError(28, "No space left on device")):
        done = run(source, out, *CONTRACTS, code=1)
    assert "No space left on device" in done.stderr
    assert inodes(out) == before


def test_rows_are_written_in_groups_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_GROUP_BYTES", 1)
    run(entries(tmp_path / "archive"), tmp_path / "out", "--raw")
    assert [parquet.read_metadata(file).num_row_groups for file in sorted((tmp_path / "out").iterdir())] == [3, 2]


def test_two_exports_do_not_write_to_one_folder(tmp_path: Path) -> None:
    source, out = entries(tmp_path / "archive"), tmp_path / "out"
    with export.Export(out, wanted=Wanted(), contracts="", contracts_of=nobody_asks):
        assert "another export writes" in run(source, out, "--raw", code=1).stderr
    run(source, out, "--raw")


def test_without_a_coordinator_the_command_says_what_needs_none(tmp_path: Path) -> None:
    done = run(entries(tmp_path / "archive"), tmp_path / "out", "--address", "127.0.0.1:1", code=3)
    assert "--contracts IMAGE and --raw need no coordinator" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_an_archive_is_refused(tmp_path: Path) -> None:
    assert "holds no segment" in run(tmp_path, tmp_path / "out", code=4).stderr
    assert not (tmp_path / "out").exists()
