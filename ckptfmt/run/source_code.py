"""Which code runs: the git commit of the directory of the main script, and whether tracked files differ from it.

git is asked as a program, once, with a time limit, without taking locks and without running hooks of the repository. Where
there is no git, no repository, no commit or no answer in time, nothing is known, and that is no error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import PurePath
from typing import Any

TIMEOUT_SECONDS = 5.0

_STATUS = ("--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no", "-z")
_COMMIT = re.compile(rb"# branch\.oid ([0-9a-f]{40,64})")


def describe_code() -> dict[str, Any]:
    """Return `commit` and `dirty` of the main script's repository; nothing where there is no such thing."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(script, str):
        # A notebook or an interactive session.
        return {}
    return describe_repository(str(PurePath(script).parent))


def describe_repository(directory: str) -> dict[str, Any]:
    """Return `commit` and `dirty` of the repository that a directory belongs to; nothing where there is none."""
    try:
        answer = subprocess.run(
            ("git", "-C", directory, *_STATUS),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    lines = answer.stdout.split(b"\0")
    commit = next((match[1] for match in map(_COMMIT.fullmatch, lines) if match), None)
    if answer.returncode != 0 or commit is None:
        return {}
    return {"commit": commit.decode("ascii"), "dirty": any(line and not line.startswith(b"# ") for line in lines)}
