"""Trains in a run: PLACE LOCAL_DIRECTORY LAST_STEP [EXPIRES_SECONDS]. Prints the digest of all that came of it, or what went wrong.

PLACE may be a directory, whose LOCAL_DIRECTORY is "-". Every step draws random numbers, is a unit of work, and is saved.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.run import lease


def trained(generator: np.random.Generator, weights: np.ndarray[Any, Any], step: int) -> np.ndarray[Any, Any]:
    """Return the weights after one step."""
    return weights * 0.9 + generator.normal(size=weights.shape) * step


def outcome_of(run: ckptfmt.Run, last_step: int) -> str:
    """Train up to a step; return a digest of weights, random state, history and results."""
    generator = np.random.default_rng(7)
    weights = np.zeros(20_000)
    restored = run.restore()
    begun = 0
    if restored is not None:
        begun, weights, generator.bit_generator.state = restored.step, restored.state["w"], restored.state["generator"]
    calls = run.progress("calls", total=last_step)
    for step in range(begun + 1, last_step + 1):
        weights = trained(generator, weights, step)
        calls.done(f"unit {step}", float(weights[0]))
        run.save(step, {"w": weights, "generator": generator.bit_generator.state}, metrics={"sum": float(weights.sum())})
    history = [(row["step"], row["sum"]) for row in run.history()]
    told = repr((weights.tobytes(), generator.bit_generator.state, history, sorted(calls.results().items())))
    return hashlib.sha256(told.encode()).hexdigest()


def main() -> None:
    """Do what the arguments say."""
    place, local_directory, last_step, *expires_seconds = sys.argv[1:]
    if expires_seconds:
        lease.EXPIRES_SECONDS = float(expires_seconds[0])
        lease.SAFE_SECONDS, lease.RENEW_SECONDS = lease.EXPIRES_SECONDS / 2, lease.EXPIRES_SECONDS / 6
    try:
        options = {} if local_directory == "-" else {"local_directory": local_directory}
        with ckptfmt.Run(place, keep_last=3, **options) as run:
            print(outcome_of(run, int(last_step)))
    except ckptfmt.RunLockedError as error:
        print(f"refused: {error}".partition("\n")[0])


if __name__ == "__main__":
    main()
