"""Which run of a step an answer from outside belongs to, and what the command shows of what strangers sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.cli.commands.flow_publish import _run
from handrail.cli.commands.quarantine import _reason
from handrail.cli.complaint import complaint
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.installed_protos import write_protos
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.quarantine_service_pb2 import QuarantinedMessage

ONE, OTHER = "a" * 32, "b" * 32


def run(root: str, status: pb.StepRunStatus.ValueType) -> pb.StepRun:
    return pb.StepRun(step="settle", root=root, status=status)


def flow(*runs: pb.StepRun) -> pb.Flow:
    return pb.Flow(flow_id="f" * 32, step_runs=runs)


DONE = run(ONE, pb.StepRunStatus.STEP_RUN_STATUS_DONE)
OWED = run(OTHER, pb.StepRunStatus.STEP_RUN_STATUS_OWED)


def test_a_repeated_answer_is_not_taken_for_that_of_the_next_run() -> None:
    with pytest.raises(CommandError, match="several runs: name one with --root"):
        _run(flow(DONE, OWED), "settle", "")
    assert _run(flow(DONE, OWED), "settle", ONE[:6]) == DONE
    assert _run(flow(DONE), "settle", "") == DONE


def test_a_reason_that_nobody_knows_is_shown() -> None:
    odd = QuarantinedMessage()
    odd.message.reason = 9999  # type: ignore[assignment]
    assert _reason(odd) == "UNKNOWN"


def test_an_argument_that_is_no_text_is_a_mistake_and_no_fault() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        "\udcff".encode()
    told = complaint(raised.value, command="flow")
    assert told is not None
    assert (told.code, told.text) == (Exit.USAGE, "an argument is not UTF-8 text")


@pytest.mark.parametrize("link", ["google", "google/type/money.proto"])
def test_protos_are_not_written_through_links(tmp_path: Path, link: str) -> None:
    folder, elsewhere = tmp_path / "proto", tmp_path / "elsewhere"
    (folder / link).parent.mkdir(parents=True)
    if link.endswith(".proto"):
        elsewhere.write_text("mine")
    else:
        elsewhere.mkdir()
    (folder / link).symlink_to(elsewhere)
    with pytest.raises(CommandError, match="is a link, or leads out of"):
        write_protos({"google/type/money.proto": "theirs"}, folder)
    assert elsewhere.is_dir() or elsewhere.read_text() == "mine"
    assert not elsewhere.is_dir() or list(elsewhere.iterdir()) == []
