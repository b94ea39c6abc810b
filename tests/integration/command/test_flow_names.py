"""How people name flows and approvals on a running installation, and what they see on a terminal."""

from __future__ import annotations

import re
import signal

from handrail.mesh.wire.ids import flow_id_from_key
from tests.support.dev import Dev, chargeback, wait_for
from tests.support.screen import COLUMNS, Screen


def begun(dev: Dev, key: str, *, units: int = 20) -> str:
    """The id of the flow of a key, once lists have it."""
    flow = dev.text("olga", "flow", "start", "refund", "--data", chargeback(units), "--key", key).strip()
    dev.until_listed(flow)
    return flow


def test_a_flow_is_named_by_its_type_and_business_key(dev: Dev) -> None:
    flow = begun(dev, "CB/20 41")
    for words in (["refund/CB/20 41"], ["--flow-type", "refund", "CB/20 41"], [flow]):
        assert dev.json("vera", "flow", "show", *words)["flowId"] == flow
        assert dev.json("vera", "flow", "events", *words)["events"]
        assert dev.run("vera", "flow", "watch", *words).returncode == 0
        assert dev.run("olga", "flow", "plan", *words).returncode == 0
    cancelled = dev.run("olga", "flow", "cancel", "refund/CB/20 41", "--reason", "over")
    assert "(WRONG_STATUS)" in cancelled.stderr, "it found the flow, which is over"


def test_a_flow_is_named_by_its_first_digits(dev: Dev) -> None:
    flow = begun(dev, "CB-3")
    assert dev.json("vera", "flow", "show", flow[:10])["flowId"] == flow
    nobody = dev.run("vera", "flow", "show", "ffffffffff")
    assert (nobody.returncode, nobody.stdout) == (4, "")
    assert "no flow that the index or an earlier command listed begins with ffffffffff" in nobody.stderr


def test_digits_that_several_flows_begin_with_are_answered_with_these(dev: Dev) -> None:
    by_digits: dict[str, str] = {}
    for number in range(10_000):
        key = f"twin-{number}"
        other = by_digits.setdefault(flow_id_from_key("refund", key)[:4], key)
        if other != key:
            break
    else:
        raise AssertionError("no two ids begin alike")
    twins = [begun(dev, other), begun(dev, key)]
    several = dev.run("vera", "flow", "show", twins[0][:4])
    assert (several.returncode, several.stdout) == (2, "")
    assert f"{twins[0][:4]} names several flows" in several.stderr
    for flow, name in zip(twins, (other, key), strict=True):
        assert re.search(rf"^  {flow}  refund  {name}  ", several.stderr, re.MULTILINE)


def test_an_approval_is_named_by_its_flow(dev: Dev) -> None:
    flow = begun(dev, "large", units=6000)
    wait_for(lambda: dev.status(flow) == "WAITING_APPROVAL", "the request for approval")
    dev.until_listed(flow)
    approval = dev.json("anna", "approval", "show", "refund/large")["approvalId"]
    own = approval.rpartition(".")[2]
    for named in (flow, flow[:10], approval, f"refund.{flow[:10]}", f"refund.{flow[:12]}.{own[:12]}"):
        assert dev.json("anna", "approval", "show", named)["approvalId"] == approval
    assert dev.json("anna", "approval", "show", "--flow-type", "refund", "large")["approvalId"] == approval
    other = "0" if own[0] != "0" else "1"
    assert dev.run("anna", "approval", "show", f"refund.{flow}.{other}").returncode == 4
    assert dev.text("anna", "approval", "reject", "refund/large").startswith(f"{approval} is REJECTED")
    begun(dev, "small one")
    none = dev.run("anna", "approval", "show", "refund/small one")
    assert (none.returncode, "has no approval" in none.stderr) == (4, True)


def test_a_list_fits_a_terminal_and_its_short_ids_name_flows(dev: Dev) -> None:
    flow = begun(dev, "on a terminal", units=20)
    with Screen("flow", "list", env=dev.env("vera")) as screen:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.rest()).splitlines()
    assert screen.process.returncode == 0
    table = lines[: next(number for number, line in enumerate(lines) if " of " in line)]
    assert max(map(len, table)) <= COLUMNS
    assert "\x1b[1mFLOW" in screen.text
    [row] = [line for line in table if "on a term" in line]
    assert flow.startswith(row.split()[0])
    assert " ago" in row or " now" in row
    assert dev.json("vera", "flow", "show", row.split()[0])["flowId"] == flow


def test_a_flow_is_watched_on_a_terminal_until_ctrl_c(dev: Dev) -> None:
    begun(dev, "watched")
    with Screen("flow", "show", "refund/watched", "--watch", env=dev.env("vera")) as screen:
        screen.until("COMPLETED")
        screen.text = ""
        screen.until("\x1b[H\x1b[J")
        screen.until("COMPLETED")
        screen.process.send_signal(signal.SIGINT)
        screen.rest()
    assert screen.process.returncode == 0
    piped = dev.run("vera", "flow", "show", "refund/watched", "--watch")
    assert (piped.returncode, "--watch needs a terminal" in piped.stderr) == (2, True)
