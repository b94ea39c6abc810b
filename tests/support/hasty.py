"""`python -m tests.support.hasty WORDS…`: the command `handrail`, in which finished flows leave FLOW at once.

No setting makes retention shorter than a quarter of an hour, and messages wait for up to an hour until they are sealed.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from unittest.mock import patch

from handrail.cli.main import main
from handrail.visibility.follow.follower import Follower
from tests.support.retained import AT_ONCE

_SOON = timedelta(milliseconds=100)
_TIMES = {
    "main.Follower": partial(Follower, age=timedelta()),
    "follow.follower._LOOK_AGAIN": _SOON,
    "retention.policy.Policy": lambda default: AT_ONCE,
    "retention.retention._EVERY": _SOON,
    "retention.waiting_room.WAIT": timedelta(),
    "retention.latecomers.AFTER": timedelta(),
}


if __name__ == "__main__":
    for name, value in _TIMES.items():
        patch(f"handrail.visibility.{name}", value).start()
    sys.exit(main(sys.argv[1:]))
