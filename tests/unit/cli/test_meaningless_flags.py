"""Flags that would mean nothing are refused, and advice names only what can be done."""

from __future__ import annotations

import pytest

from handrail.cli.commands.failure import more
from tests.support.dev import handrail

FAILURE = "--no-retry and --outcome-unknown say more of a failure: they need --failed"
TYPE = "--type names the answer in --data: it needs --data"


@pytest.mark.parametrize(
    "flags, why",
    [
        (("--done", "--no-retry"), FAILURE),
        (("--done", "--outcome-unknown"), FAILURE),
        (("--data", "{}", "--no-retry"), FAILURE),
        (("--done", "--type", "demo.v1.Settled"), TYPE),
        (("--failed", "it broke", "--type", "demo.v1.Settled"), TYPE),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_flags_of_another_kind_of_answer_are_refused(flags: tuple[str, ...], why: str) -> None:
    refused = handrail("flow", "publish", "refund/A-1", "settle", *flags, "--address", "127.0.0.1:1")
    assert (refused.returncode, refused.stderr) == (2, f"handrail: {why}\n")


def test_a_list_of_failures_says_to_raise_the_limit_only_where_it_can_be_raised() -> None:
    assert more(499) == "there are more: raise --limit, or narrow the list with --since or --filter"
    assert more(500) == more(9000) == "there are more: narrow the list with --since or --filter"
