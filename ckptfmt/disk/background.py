"""How much of the machine this process may use: all cores, or, where it works behind another one, what that leaves of one.

Where the system cannot say it, nothing is changed: what runs behind is then only another process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress

_NICEST = 19
_SECONDS_BETWEEN_LOOKS = 1.0
_limits: list[int] = []


def usable_cores() -> int:
    """Return how many threads are worth starting for what keeps a core busy."""
    return min([os.cpu_count() or 1, *_limits])


def stay_behind() -> None:
    """Let this process, which others should not notice, have one core, and that only while nobody else wants it."""
    _limits[:] = [1]
    with suppress(AttributeError, OSError):
        os.nice(_NICEST)
    if sys.platform == "linux":
        # Of what is only nice, a core that is wanted still gives a part, and wakes up late for who wants it.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def wait_for_orphanhood() -> None:
    """Wait until the process that started this one is gone, however it ended. Where the system does not tell, that is never."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def start_behind(code: str) -> subprocess.Popen[bytes]:
    """Start Python with a program that says `stay_behind`; its standard input and output are pipes.

    Raises:
        OSError: there is no interpreter that could be started.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("this program has no Python interpreter that could be started beside it")
    flags: int = getattr(subprocess, "IDLE_PRIORITY_CLASS", 0)
    # -P: what lies in the working directory is none of its modules. Hashing has threads of its own.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        creationflags=flags,
    )
