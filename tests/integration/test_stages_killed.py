"""Features, trees and a network, killed with SIGKILL at random moments: what is done is not begun again, and the bytes are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# How many units may be done again after a kill: those since the last checkpoint, and the one in work.
LOST = {"features": 1, "trees": 100, "network": 5}
COUNTS = {"features": 1, "trees": 300, "network": 40}


def run_stages(jobs: dict[Path, tuple[int, float]], *, seed: int) -> list[int]:
    """Run the stages in directories: how often to be killed there, and how many seconds a stage takes. Return the numbers of kills."""
    program = str(HERE / "stages.py")
    texts = [[program, kills, [str(directory), str(seconds)]] for directory, (kills, seconds) in jobs.items()]
    command = [sys.executable, str(HERE / "kill_loop.py"), str(seed), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr
    return [int(count) for count in done.stdout.split()]


def check_log(directory: Path, *, kills: int) -> None:
    saved = dict.fromkeys(COUNTS, 0)
    worked: dict[str, list[int]] = {stage: [] for stage in COUNTS}
    for line in (directory / "work.log").read_text().splitlines():
        what, stage, number = line.split()
        if what == "saved":
            saved[stage] = max(saved[stage], int(number))
        else:
            assert int(number) > saved[stage], f"{line} was done again though {saved[stage]} were saved"
            worked[stage].append(int(number))
    assert saved == COUNTS
    for stage, numbers in worked.items():
        assert set(numbers) == set(range(1, COUNTS[stage] + 1))
        assert len(numbers) - len(set(numbers)) <= kills * LOST[stage]


def check_stages(tmp_path: Path, *, kills: int, seconds: float, seed: int) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    count = run_stages({undisturbed: (0, 0.0), killed: (kills, seconds)}, seed=seed)[1]
    assert count == kills
    check_log(undisturbed, kills=0)
    check_log(killed, kills=count)
    assert json.loads((killed / "result.json").read_text()) == json.loads((undisturbed / "result.json").read_text())


def test_stages_that_are_killed_go_on_by_themselves(tmp_path: Path) -> None:
    check_stages(tmp_path, kills=3, seconds=0.3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_stages_survive_twenty_kills(tmp_path: Path, seed: int) -> None:
    check_stages(tmp_path, kills=20, seconds=2, seed=10 + seed)
