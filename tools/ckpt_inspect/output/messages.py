"""What goes to standard error: the first line says what is wrong, the others what to do."""

from __future__ import annotations

import sys

from ckpt_inspect.output.visible import visible

PROGRAM = "ckpt-inspect"


def report_error(message: str) -> None:
    """Write a message of one or more lines."""
    first, *advice = message.splitlines() or [""]
    lines = [f"{PROGRAM}: {visible(first)}", *(f"  {visible(line)}" for line in advice)]
    sys.stderr.write("\n".join(lines) + "\n")
