"""Work in units that is killed with SIGKILL at random moments ends as if undisturbed, and nothing recorded is done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.run.progress_reader import summarise_progress, verify_progress

HERE = Path(__file__).parent
UNITS = {"folds": 4, "augmentation": 9870, "calls": 120, "validation": 60}


def start(directories: dict[Path, int], *arguments: str, seed: int) -> subprocess.Popen[str]:
    jobs = [[str(HERE / "progress_kinds.py"), kills, [str(directory), *arguments]] for directory, kills in directories.items()]
    command = [sys.executable, str(HERE / "kill_loop.py"), str(seed), json.dumps(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kills_of(process: subprocess.Popen[str]) -> list[int]:
    output, errors = process.communicate(timeout=550)
    assert process.returncode == 0, errors
    return [int(count) for count in output.split()]


def result_of(directory: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(directory.glob("result-*.json"))]


def check_log(directory: Path, units: dict[str, int], *, kills: int) -> None:
    """No unit was worked on after its record was acknowledged, and each kill cost at most the units that were in work."""
    finished: set[str] = set()
    worked: Counter[str] = Counter()
    for line in (directory / "work.log").read_text().splitlines():
        what, _, unit = line.partition(" ")
        if what == "work":
            assert unit not in finished, f"{unit} was done again though it was recorded"
            worked[unit] += 1
        else:
            finished.add(unit)
    assert Counter(unit.split()[0] for unit in worked) == Counter(units)
    assert sum(worked.values()) - len(worked) <= kills


def check_journals(directory: Path, units: dict[str, int]) -> None:
    for kind, count in units.items():
        path = str(directory / "run/progress" / kind)
        assert [finding for finding in verify_progress(LocalDisk(), path) if finding.level == "error"] == []
        summary = summarise_progress(LocalDisk(), path)
        assert (summary.done, summary.total, summary.failed) == (count, count, 0)


def check_kinds(tmp_path: Path, *, kills: int, seed: int) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    count = kills_of(start({undisturbed: 0, killed: kills}, seed=seed))[1]
    assert count > 0
    assert result_of(killed) == result_of(undisturbed)
    check_log(undisturbed, UNITS, kills=0)
    check_log(killed, UNITS, kills=count)
    check_journals(killed, UNITS)


def check_sharing(tmp_path: Path, *, kills: int, seed: int) -> None:
    place = tmp_path / "shared"
    processes = [start({place: kills}, "shared", seed=seed + number) for number in range(2)]
    count = sum(kills_of(process)[0] for process in processes)
    expected = {"results": [[unit, unit * unit] for unit in range(150)], "sum": sum(range(150))}
    assert result_of(place) == [{"shared": expected}] * 2
    check_log(place, {"shared": 150}, kills=count)
    check_journals(place, {"shared": 150})
    assert len(list((place / "run/progress/shared/writers").iterdir())) <= 4


def test_folds_augmentation_paid_calls_and_validation_survive_kills_in_one_command(tmp_path: Path) -> None:
    check_kinds(tmp_path, kills=5, seed=1)


def test_two_processes_that_are_killed_share_the_units_and_do_each_once(tmp_path: Path) -> None:
    check_sharing(tmp_path, kills=4, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_units_survive_twenty_kills(tmp_path: Path, seed: int) -> None:
    check_kinds(tmp_path, kills=20, seed=100 + seed)
    check_sharing(tmp_path, kills=20, seed=200 + 10 * seed)
