"""A demo that stays up: it ends with a link to a flow, which shows in a browser, until somebody ends it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.dev import ROOT
from tests.support.nats_server import die_with_parent

SOURCE = "import os\n\n\ndef answer() -> int:\n    return 42\n"
LINK = re.compile(r"the flow of left is worth a look: (http://[0-9.:]+)(/flows/[0-9a-f]{32})$")


@pytest.mark.timeout(240)
def test_a_demo_that_stays_links_to_a_flow_and_ends_when_told(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "left"
    folder.mkdir(parents=True)
    (folder / "file.py").write_text(SOURCE)
    command = [sys.executable, "-m", "demos.research", "--tree", str(tmp_path / "tree"), "--stay"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as demo:
        assert demo.stdout is not None
        told = []
        for line in demo.stdout:
            told.append(line.rstrip())
            if "Ctrl-C ends the demo" in line:
                break
        found = next((link for link in map(LINK.search, told) if link), None)
        assert found is not None, "\n".join(told)
        with httpx.Client(base_url=found[1], headers={"origin": found[1]}, timeout=20) as browser:
            assert browser.get(found[2]).headers["location"].startswith("/sign-in?back=")
            assert browser.post("/sign-in", data={"identity": "vera"}).status_code == 303
            page = browser.get(found[2])
        assert page.status_code == 200
        assert "It reached its goal at" in page.text or "Completed" in page.text
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
