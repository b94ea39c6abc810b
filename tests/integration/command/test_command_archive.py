"""`handrail archive export` beside a running installation, whose templates have the contracts."""

from __future__ import annotations

import json
from pathlib import Path

from pyarrow import parquet

from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.writer import Writer
from tests.support import flows
from tests.support.archives import FLOW
from tests.support.dev import Dev


def test_contracts_come_from_the_coordinator(dev: Dev, tmp_path: Path) -> None:
    known, unknown = flows.start(), flows.start(flow_type="other")
    no_version = flows.start()
    no_version.event.template_version = 0
    with LockedFolder(tmp_path / "archive") as folder:
        writer = Writer(folder, FLOW)
        for sequence, entry in enumerate((known, unknown, no_version), 1):
            writer.append(Record(sequence, entry.address.subject, 0, b"", entry.body))
        writer.seal()
    told = dev.json("vera", "archive", "export", tmp_path / "archive", tmp_path / "out")
    assert [each["rows"] for each in told["files"]] == [3]
    first, second, third = parquet.read_table(told["files"][0]["file"]).to_pylist()
    assert json.loads(first["payload"])["chargebackId"] == "cb-1"
    assert (second["payload"], second["raw"]) == (None, unknown.body), "nobody has a contract for it"
    assert (third["payload"], third["raw"]) == (None, no_version.body), "a message can't ask for the active version"
