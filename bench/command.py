"""What a call by the `handrail` command costs its user, beside a bare program that makes the same call.

    python -m bench.command [--rounds N]

CPU is user and system time of the process, from its start to its end. The programs take turns; a median of each counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.installation import Installation

_DATA = '{"chargebackId": "cb-1", "accountId": "acct-0001", "amount": {"currencyCode": "EUR", "units": "20"}}'
_HANDRAIL = (sys.executable, "-m", "handrail.cli.main")
_UNLIKE_A_USER = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
_BARE = (sys.executable, "-m", "bench.bare_call")


def measured(rounds: int) -> dict[str, float]:
    """Returns the CPU of each program, in milliseconds."""
    with (
        tempfile.TemporaryDirectory(prefix="handrail-bench-") as folder,
        Installation(Path(folder), "demos.payments", sync_always=False) as here,
    ):
        token = here.token("olga")
        # As for a user: with bytecode, which the first round writes.
        plain = {name: value for name, value in os.environ.items() if name not in _UNLIKE_A_USER}
        environment = {**plain, "HANDRAIL_ADDRESS": here.address, "HANDRAIL_TOKEN": token}
        environment |= {"XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder}
        start = (*_HANDRAIL, "flow", "start", "refund", "--data", _DATA)
        flow_id = subprocess.check_output(start, env=environment, text=True).strip()
        programs = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "handrail --version": (*_HANDRAIL, "--version"),
            "bare GetFlow": (*_BARE, here.address, token, flow_id),
            "handrail flow show": (*_HANDRAIL, "flow", "show", flow_id),
            "bare ListFlows": (*_BARE, here.address, token),
            "handrail flow list --scan": (*_HANDRAIL, "flow", "list", "--scan"),
        }
        taken: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds + 1):
            for name, words in programs.items():
                taken[name].append(_cpu(words, environment))
        return {name: statistics.median(times[1:]) for name, times in taken.items()}


def _cpu(words: tuple[str, ...], environment: Mapping[str, str]) -> float:
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return (used.ru_utime + used.ru_stime) * 1000


def main() -> None:
    """Measures, and prints the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    cpu = measured(parser.parse_args().rounds)
    beside = {
        "handrail --version": "python -c pass",
        "handrail flow show": "bare GetFlow",
        "handrail flow list --scan": "bare ListFlows",
    }
    for name, milliseconds in cpu.items():
        ratio = f"   {milliseconds / cpu[beside[name]]:.2f} times {beside[name]}" if name in beside else ""
        print(f"{name:28} {milliseconds:7.1f} ms{ratio}")


if __name__ == "__main__":
    main()
