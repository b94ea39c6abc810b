"""A worker process: reads a job from its standard input, answers on its standard output, and reads the next one.

The kernel ends it when a job takes more processor time, or all of it more memory, than it was started with.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from handrail.coordinator.workers import frames
from handrail.coordinator.workers.jobs import JOBS, done
from handrail.mesh.errors import HandrailError
from handrail.v1.template_service_pb2 import CheckTemplateRequest

OUT_OF_MEMORY = 3
"""The exit status of a process that is out of memory."""


_NO_MEMORY = "out of memory"


def main(seconds: int, memory: int) -> None:
    """Does jobs until its input ends: each with so many seconds of processor time, all within so many bytes more."""
    # Ctrl-C reaches every process of the terminal; the coordinator ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not end up between the answers
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    JOBS["check"](CheckTemplateRequest().SerializeToString())  # loads what jobs need, before a limit holds
    done()
    at_start = _size()
    if at_start:
        resource.setrlimit(resource.RLIMIT_AS, (at_start + memory, at_start + memory))
    answers.write(frames.answer([]))
    answers.flush()
    while True:
        try:
            name, data = frames.read(sys.stdin.buffer)
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        try:
            answer = frames.answer(JOBS[name.decode()](data))
        except HandrailError as error:
            if _NO_MEMORY in error.text:  # protobuf says so in the text of another error
                os._exit(OUT_OF_MEMORY)
            answer = frames.refusal(error)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        answers.write(answer)
        answers.flush()
        del data, answer
        done()
        if _size() - at_start > memory // 2:
            return  # the next job is to have its share; another process takes over


def _size() -> int:
    """The size of this process in memory, in bytes, as the kernel limits it; 0 on a system that does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
