"""What was printed lately is remembered for its user alone, the newest first, and is never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.cli.recent_flows import RecentFlow, RecentFlows


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "handrail" / "recent-flows"


def flow(number: int) -> RecentFlow:
    return RecentFlow(f"{number:032x}", "refund")


def test_the_newest_flows_come_first_and_once(state: Path) -> None:
    flows = RecentFlows("127.0.0.1:7070")
    flows.add(map(flow, (1, 2)))
    flows.add(map(flow, (3, 1)))
    assert RecentFlows("127.0.0.1:7070").read() == [flow(3), flow(1), flow(2)]
    assert RecentFlows("example.com:7070").read() == [], "another installation has other flows"
    [file] = state.iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_no_more_are_kept_than_anybody_looks_back_for(state: Path) -> None:
    RecentFlows("a:1").add(map(flow, range(2000)))
    assert RecentFlows("a:1").read() == list(map(flow, range(500)))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no flow\n", b"\x1b[2J refund\n", b""])
def test_a_file_with_anything_else_is_as_good_as_none(state: Path, content: bytes) -> None:
    state.mkdir(parents=True)
    (state / "a_1").write_bytes(content)
    flows = RecentFlows("a:1")
    assert flows.read() == []
    flows.add([flow(1)])
    assert flows.read() == [flow(1)]


def test_a_folder_that_can_not_be_written_stops_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    flows = RecentFlows("a:1")
    flows.add([flow(1)])
    assert flows.read() == []
