"""First digits name a flow only if no other one begins with them, of those that lists or earlier commands showed."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError
from handrail.cli.flow_names import flow_id_of
from handrail.cli.output import Output
from handrail.cli.recent_flows import RecentFlow
from handrail.cli.session import Session
from handrail.mesh.setting import Settings
from handrail.v1.flow_service_pb2 import Flow, ListFlowsRequest, ListFlowsResponse

OLDER, NEWER = "c44f0" + 27 * "0", "c44f1" + 27 * "0"


@pytest.fixture(autouse=True)
def nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def named(digits: str, *pages: list[str], recent: tuple[str, ...] = ()) -> str:
    """The flow that these digits name where the index answers with these pages."""

    def list_flows(request: ListFlowsRequest, **_: Any) -> ListFlowsResponse:
        number = int(request.page_token or 0)
        following = str(number + 1) if number + 1 < len(pages) else ""
        flows = [Flow(flow_id=flow, flow_type="refund") for flow in pages[number]]
        return ListFlowsResponse(flows=flows, next_page_token=following)

    settings = Settings({"address": "127.0.0.1:7"}, {"HANDRAIL_TOKEN": "token"})
    with Client.of(settings) as client:
        client.__dict__["flows"] = SimpleNamespace(ListFlows=list_flows)
        asked = Session(settings, client, Output("table"))
        asked.recent.add(RecentFlow(flow, "refund") for flow in recent)
        return flow_id_of(asked, Namespace(flow=digits, flow_type=""))


def test_a_flow_that_was_just_started_counts_beside_those_of_the_index() -> None:
    with pytest.raises(CommandError, match="c44f names several flows") as refused:
        named("c44f", [OLDER], recent=(NEWER,))
    assert OLDER in refused.value.text
    assert NEWER in refused.value.text
    assert named("c44f1", [], recent=(NEWER, OLDER)) == NEWER


def test_a_flow_of_the_index_that_was_also_printed_is_one() -> None:
    assert named("c44f", [OLDER], recent=(OLDER, "d" * 32)) == OLDER


@pytest.mark.parametrize("pages", [([OLDER], [NEWER]), ([], [OLDER, NEWER])], ids=["short", "empty"])
def test_a_flow_on_a_later_page_counts(pages: tuple[list[str], ...]) -> None:
    with pytest.raises(CommandError, match="c44f names several flows"):
        named("c44f", *pages)
    assert named("c44f", [OLDER], []) == OLDER
