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
from tests.integration.progress_kinds import UNITS

HERE = Path(__file__).parent


def start(jobs: dict[Path, tuple[int, float]], *kinds: str, seed: int) -> subprocess.Popen[str]:
    """Work in directories, one after the other: how often to be killed there, and the seconds that each kind takes."""
    program = str(HERE / "progress_kinds.py")
    texts = [[program, kills, [str(directory), str(seconds), *kinds]] for directory, (kills, seconds) in jobs.items()]
    command = [sys.executable, str(HERE / "kill_loop.py"), str(seed), json.dumps(texts)]
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
        if kind == "search":
            continue
        path = str(directory / "run/progress" / kind)
        assert [finding for finding in verify_progress(LocalDisk(), path) if finding.level == "error"] == []
        summary = summarise_progress(LocalDisk(), path)
        assert (summary.done, summary.total, summary.failed) == (count, count, 0)


def check_kinds(tmp_path: Path, *kinds: str, kills: int, seed: int, seconds: float = 0.0) -> int:
    """Return how often the work was killed before it was done: no more than `kills` times, less where it has few units."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    count = kills_of(start({undisturbed: (0, 0.0), killed: (kills, seconds)}, *kinds, seed=seed))[1]
    assert count >= 1
    assert result_of(killed) == result_of(undisturbed)
    units = {kind: UNITS[kind] for kind in kinds or UNITS}
    check_log(undisturbed, units, kills=0)
    check_log(killed, units, kills=count)
    check_journals(killed, units)
    return count


def check_sharing(tmp_path: Path, *, kills: int, seed: int) -> None:
    place = tmp_path / "shared"
    processes = [start({place: (kills, 0.0)}, "shared", seed=seed + number) for number in range(2)]
    count = sum(kills_of(process)[0] for process in processes)
    expected = {"results": [[unit, unit * unit] for unit in range(150)], "sum": sum(range(150))}
    assert result_of(place) == [{"shared": expected}] * 2
    check_log(place, {"shared": 150}, kills=count)
    check_journals(place, {"shared": 150})
    assert len(list((place / "run/progress/shared/writers").iterdir())) <= 4


def test_six_kinds_of_work_survive_kills_in_one_command(tmp_path: Path) -> None:
    """A search, folds, augmentation, correction, paid calls and validation."""
    check_kinds(tmp_path, kills=5, seed=1)


def test_two_processes_that_are_killed_share_the_units_and_do_each_once(tmp_path: Path) -> None:
    check_sharing(tmp_path, kills=4, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNITS)
def test_each_kind_of_work_survives_twenty_kills(tmp_path: Path, kind: str) -> None:
    kills, seed = 0, 100
    while kills < 20:
        kills += check_kinds(tmp_path / str(seed), kind, kills=20, seed=seed, seconds=10)
        seed += 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_units_survive_twenty_kills_in_one_command_and_shared(tmp_path: Path, seed: int) -> None:
    check_kinds(tmp_path, kills=20, seed=100 + seed, seconds=2)
    check_sharing(tmp_path, kills=20, seed=200 + 10 * seed)
