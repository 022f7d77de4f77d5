"""Ranks are killed with SIGKILL, each in turn and at every phase of a save: no part of a checkpoint is ever visible, and nobody hangs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ckptfmt
from tests.integration import kill_work
from tests.integration.ranks import Ranks

CASES = [
    (count, victim, (when, phase))
    for count in (2, 4)
    for victim in range(count)
    for phase in (kill_work.FIRST_PHASES if victim == 0 else kill_work.PHASES)
    for when in ("before", "after")
]


def check_kill(path: Path, count: int, victim: int, place: Any) -> None:
    """Kill one rank in the second of two saves; check what is there, how the others ended, and that saving goes on."""
    with Ranks(count, path.parent) as ranks:
        ranks.outcomes(kill_work.save_steps, str(path), [1, 2], victim, place)
        ended = ranks.wait()
    assert ended == [-9 if rank == victim else 17 for rank in range(count)]
    for rank in set(range(count)) - {victim}:
        seconds, _, error = Path(f"{path}.{rank}").read_text().partition(" ")
        assert float(seconds) < kill_work.TIMEOUT_SECONDS
        assert error.startswith("CheckpointError: "), error
        assert "does not answer" in error
    with ckptfmt.Run(path) as run:
        steps = run.all_steps()
        assert steps in ([1], [1, 2])
        for step in steps:
            check_state(path, step)
    if steps == [1]:
        (path.parent / "again").mkdir()
        with Ranks(2, path.parent / "again") as ranks:
            assert ranks.run(kill_work.save_steps, str(path), [2, 3], -1, None) == [None, None]
        for step in (1, 2, 3):
            check_state(path, step)
            assert ckptfmt.verify(path / f"step-{step:08d}").findings == ()


def check_state(path: Path, step: int) -> None:
    """Check a step to the last value."""
    state = ckptfmt.load(path / f"step-{step:08d}")
    assert {name: set(tensor.flatten().tolist()) for name, tensor in state["model"].items()} == {
        f"w{index}": {float(step * 10 + index)} for index in range(3)
    }
    assert set(state["optimizer"]["momentum"].tolist()) == {float(step)}
    assert (state["optimizer"]["step"].item(), state["epoch"]) == (step, step)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim", "place"), CASES, ids=str)
def test_a_rank_that_is_killed_leaves_no_part_of_a_checkpoint(tmp_path: Path, count: int, victim: int, place: tuple[str, str]) -> None:
    check_kill(tmp_path / "run", count, victim, place)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(4))
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_at_any_operation_leaves_no_part_of_a_checkpoint(tmp_path: Path, victim: int, share: int) -> None:
    with Ranks(2, tmp_path) as ranks:
        operations = ranks.run(kill_work.count_operations, str(tmp_path / "counted"))[victim]
    assert operations > 10
    for operation in range(1 + share, operations + 1, 4):
        (directory := tmp_path / f"at {operation}").mkdir()
        check_kill(directory / "run", 2, victim, operation)


def test_a_rank_survives_the_death_of_the_other(tmp_path: Path) -> None:
    check_kill(tmp_path / "run", 2, 1, ("after", "write_data"))
