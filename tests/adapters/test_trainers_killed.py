"""With each trainer: train, SIGKILL, start again. The final weights are those of undisturbed training, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(program: str, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", f"tests.adapters.programs.{program}_program", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    weights = [line for line in done.stdout.splitlines() if line.startswith("weights ")]
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"{program} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.returncode, weights[-1] if weights else ""


@pytest.mark.parametrize(
    ("program", "before", "kills"),
    [
        ("lightning", ("5", "sync"), (20, 13)),
        ("lightning", ("5", "async"), (20, 13)),
        ("transformers", ("sealed",), (5, 8)),
        ("transformers", ("ckptfmt",), (5, 8)),
        ("accelerate", (), (6, 7)),
        ("ignite", (), (8, 21)),
    ],
    ids=["lightning", "lightning async", "transformers sealed", "transformers through ckptfmt", "accelerate", "ignite"],
)
def test_a_killed_training_ends_as_an_undisturbed_one(
    tmp_path: Path, program: str, before: tuple[str, ...], kills: tuple[int, ...]
) -> None:
    status, expected = run(program, tmp_path / "undisturbed", *before)
    assert (status, bool(expected)) == (0, True)
    for kill_at in kills:
        assert run(program, tmp_path / "killed", *before, kill_at) == (-signal.SIGKILL, "")
    assert run(program, tmp_path / "killed", *before) == (0, expected)
