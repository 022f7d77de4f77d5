"""Saves to a store, as a process of its own: `store_program.py save URL NUMBER` or `mirror DIRECTORY URL LAST_STEP`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import ckptfmt


def state(number: int) -> dict[str, Any]:
    """Return the state of a number: two shards, one of them uploaded in parts."""
    return {"model": {"w": np.full(2_500_000, number, dtype=np.int64)}, "optimizer": {"m": np.full(10, number)}, "number": number}


def main() -> None:
    """Do what the arguments say."""
    kind, place, *rest = sys.argv[1:]
    if kind == "save":
        try:
            ckptfmt.save(place, state(int(rest[0])), overwrite=True)
        except ckptfmt.RunLockedError:
            print("lost")
        else:
            print("won")
        return
    with ckptfmt.Run(place, mirror=rest[0], keep_last=2) as run:
        run.restore()
        for step in range((run.latest_step() or 0) + 1, int(rest[1]) + 1):
            run.save(step, {"w": np.full(1000, step)}, metrics={"step": step})
            run.wait_until_finished()
        print(run.latest_step())


if __name__ == "__main__":
    main()
