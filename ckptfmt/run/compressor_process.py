"""The program of the process that compresses behind a training: it carries out one order and tells of each step on a line.

It ends with the process that started it, and when that asks it to; what it has not finished then is removed, and whole as it was.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from types import FrameType
from typing import Any

from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.background import stay_behind, wait_for_orphanhood
from ckptfmt.errors import CheckpointError
from ckptfmt.run.compressing import Order, compress_in_order


def work(order: Mapping[str, Any]) -> None:
    """Carry out an order, as the starting process has written it."""
    stay_behind()
    # An interrupt is meant for the training, which ends this process when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    steps = tuple((step, base) for step, base in order["steps"])
    try:
        for result in compress_in_order(AnyDisk(), Order(order["path"], steps, order["reserve_bytes"])):
            _tell(asdict(result))
    except (CheckpointError, OSError) as error:
        _tell({"error": f"{type(error).__name__}: {error}"})
    else:
        _tell({"finished": True})


def _tell(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _end(number: int, frame: FrameType | None) -> None:
    # Once: what is being removed must not be interrupted by a second one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _end_with_parent() -> None:
    wait_for_orphanhood()
    signal.raise_signal(signal.SIGTERM)
